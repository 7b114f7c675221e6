
// The page of `onsight serve`: it sends images to the server and shows the answers, heat maps, a history and what the
// server has answered so far. All names are set as text, never as HTML.
const KEPT = 12; // images in the history
const LARGEST = 640; // pixels per side of what is drawn, and of the frames of the camera
let models = {}, model = null;
let file = null; // the image that is shown, for the heat map
let heat = null; // the address of its heat map

const facts = () => models[model];
const seen = () => `seen as ${facts().size} × ${facts().size}`;
const percent = (share) => `${(share * 100).toFixed(1)} %`;

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  let message = `The server answered ${response.status}.`;
  try {
    const { error } = await response.json();
    message = error.message ?? error;
  } catch {} // not JSON: the status must do
  throw new Error(message);
}

function ask(path, blob) {
  const query = new URLSearchParams({ model, top: SHOWN });
  const kind = blob.type.startsWith("image/") ? blob.type : "image/unknown";
  return call(`${path}?${query}`, { method: "POST", body: blob, headers: { "Content-Type": kind } });
}

// Draw a bitmap or video on a canvas, at most LARGEST pixels on each side.
function draw(canvas, source, width, height) {
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
}

const frame = document.createElement("canvas");
async function classify(source, width, height) {
  draw(frame, source, width, height);
  file = await new Promise((done) => frame.toBlob(done, "image/jpeg", 0.95));
  return (await ask("/v1/predict", file)).json();
}

// Show an image and its answer, which the server gives unless it is known from before.
async function choose(chosen, known = null) {
  stop();
  forget();
  const canvas = $("shown");
  let size = "";
  try {
    const bitmap = await createImageBitmap(chosen, { imageOrientation: "from-image" });
    draw(canvas, bitmap, bitmap.width, bitmap.height);
    size = `${bitmap.width} × ${bitmap.height} pixels, ${seen()}; `;
    bitmap.close();
  } catch {
    draw(canvas, document.createElement("canvas"), 1, 1); // a format that only the server reads
  }
  canvas.hidden = false;
  $("invite").hidden = true;
  $("stage").classList.remove("empty");
  const started = performance.now();
  try {
    const answer = known ?? (await (await ask("/v1/predict", chosen)).json());
    file = chosen;
    show(answer);
    $("why").hidden = false;
    say(known === null ? `${size}answered in ${(performance.now() - started).toFixed(0)} ms` : `${size}answered before`);
    if (known !== null) return;
    remember(chosen, canvas, answer);
    await status();
  } catch (error) {
    file = null;
    $("verdict").textContent = "No answer";
    $("bars").replaceChildren();
    say(error.message);
  }
}

function remember(chosen, canvas, answer) {
  const item = document.createElement("li"), button = document.createElement("button");
  const small = document.createElement("canvas"), name = document.createElement("span");
  draw(small, canvas, canvas.width, canvas.height);
  name.textContent = `${answer.reason === null ? "" : "unsure: "}${answer.top[0].class} ${percent(answer.top[0].probability)}`;
  button.type = "button";
  button.title = name.textContent;
  button.append(small, name);
  button.addEventListener("click", () => choose(chosen, answer));
  item.append(button);
  const list = $("history");
  list.prepend(item);
  while (list.children.length > KEPT) list.lastChild.remove();
  $("seen-before").hidden = false;
}

function forget() {
  if (heat !== null) URL.revokeObjectURL(heat);
  heat = null;
  $("heat").hidden = $("why").hidden = true;
  $("why").textContent = "Why?";
}

async function explain() {
  if (heat !== null) {
    $("heat").hidden = !$("heat").hidden;
  } else {
    $("why").disabled = true;
    try {
      heat = URL.createObjectURL(await (await ask("/v1/explain", file)).blob());
      $("heat").src = heat;
      $("heat").hidden = false;
    } catch (error) {
      say(error.message);
    }
    $("why").disabled = false;
  }
  $("why").textContent = $("heat").hidden ? "Why?" : "Show the image";
}

async function status() {
  const found = await (await call("/v1/status")).json();
  models = found.models;
  model ??= Object.keys(models)[0];
  watched(found);
  return found;
}

function cell(row, text, kind = "td") {
  const made = document.createElement(kind);
  made.title = made.textContent = text;
  row.append(made);
}

// Return what has changed most, as a sentence.
function changed({ by, most_changed: [most] }) {
  const [first] = Object.entries(by).sort((a, b) => b[1] - a[1])[0];
  if (first === "confidence") return "How sure the model is has changed most.";
  if (first === "distance") return "How unlike the training images they are has changed most.";
  return `“${most.class}” is ${percent(most.share)} of the answers; on validation images it was ${percent(most.validation)}.`;
}

function watched({ shadows }) {
  const { images, answered, classes, drift } = facts();
  $("watched").hidden = images === 0;
  const known = drift === null ? null : drift.validation;
  const rows = classes.map((name, index) => {
    const row = document.createElement("tr");
    cell(row, name);
    cell(row, answered[index].toLocaleString());
    cell(row, images ? percent(answered[index] / images) : "–");
    cell(row, known === null ? "–" : percent(known[index]));
    return row;
  });
  $("classes").tBodies[0].replaceChildren(...rows);
  $("drift").classList.toggle("alarm", drift !== null && drift.alarm);
  $("drift").textContent = drift === null
    ? "What the model answers on validation images is not known here, so drift cannot be seen."
    : drift.alarm
      ? `The images are not like the validation images: the odds are ${drift.odds.toLocaleString()} to 1. ${changed(drift)}`
      : `No drift from the validation images can be seen (odds ${drift.odds} to 1; an alarm comes from ${drift.alarm_from} to 1).`;
  $("shadows").replaceChildren(...shadows.map((shadow) => {
    const item = document.createElement("li"), [pair] = shadow.pairs;
    const often = pair ? ` Most often it says “${pair.shadow}” instead of “${pair.first}” (${pair.images}).` : "";
    item.textContent = `Shadow ${shadow.model}: ${shadow.differ.toLocaleString()} of ${shadow.compared.toLocaleString()} answers differ.${often}`;
    return item;
  }));
}

function introduce() {
  const { run, model: network, classes, size, threshold, fit } = facts();
  document.title = `${run} · Onsight`;
  $("name").textContent = run;
  $("about").textContent = `${network}, ${classes.length.toLocaleString()} classes, ${size} × ${size} pixels` +
    (threshold === null ? "" : `; unsure below ${(threshold * 100).toFixed(0)} %`);
  $("stage").classList.toggle("whole", fit === "pad");
}

async function begin() {
  $("stage").classList.add("empty");
  $("camera").disabled = !navigator.mediaDevices;
  $("why").addEventListener("click", explain);
  $("model").addEventListener("change", () => {
    model = $("model").value;
    introduce();
    forget();
    status();
  });
  try {
    const { shadows } = await status();
    const names = Object.keys(models).filter((name) => !shadows.some((shadow) => shadow.model === name));
    $("choice").hidden = names.length < 2;
    $("model").replaceChildren(...names.map((name) => new Option(name, name)));
    introduce();
    $("verdict").textContent = "Show it an image";
    document.body.dataset.state = "ready";
  } catch (error) {
    $("verdict").textContent = "The server is not ready";
    say(error.message);
    document.body.dataset.state = "failed";
  }
}
begin();
