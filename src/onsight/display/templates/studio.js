// The page of `onsight studio`: a table of runs, the curves of those that are ticked, and commands to copy. The server
// sends what is new; the page asks for nothing else, and changes nothing. All names are set as text, never as HTML.
const MOST = 20; // ticked runs; the server sends no more in one stream
const COLOURS = 8;
const COLUMNS = [ // what a column is called, what it sorts by, and how that is shown
  ["run", "name", (row) => row.name, "long"],
  ["state", "state", (row) => row.state],
  ["epochs", "done", (row) => `${row.done}/${row.epochs ?? "?"}`],
  ["validation", "validation", (row) => percent(row.validation)],
  ["test", "test", (row) => (row.damaged ? "damaged" : percent(row.test))],
  ["data", "data", (row) => row.data, "long"],
  ["model", "model", (row) => row.model],
  ["created", "created", (row) => new Date(row.created).toLocaleString([], { dateStyle: "short", timeStyle: "short" })],
];
const $ = (id) => document.getElementById(id);
const percent = (share) => (share === null ? "–" : `${(share * 100).toFixed(1)} %`);

let rows = [], folder = "", known = null; // the table; the names that it has had
let sort = { key: "created", down: true };
const ticked = []; // names, in the order of their numbers
const histories = new Map(); // name -> { epochs: Map(epoch -> line), tick }
const shown = new Map(); // name -> its row of the table
let stream = null;

function make(kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = name;
  return made;
}

// Talking with the server -----------------------------------------------------------------------------------------

function listen() {
  stream?.close();
  const opened = (stream = new EventSource(`/v1/events?${new URLSearchParams(ticked.map((name) => ["run", name]))}`));
  opened.addEventListener("open", () => say(`The runs in ${folder}, live.`));
  opened.addEventListener("error", () => say(opened.readyState === EventSource.CLOSED
    ? "The server has refused to go on. Open the address that onsight studio has printed."
    : "The server does not answer. Trying again …"));
  opened.addEventListener("runs", ({ data }) => tabulate(JSON.parse(data)));
  opened.addEventListener("lines", ({ data }) => {
    const { run, again, lines } = JSON.parse(data);
    if (again || !histories.has(run)) histories.set(run, { epochs: new Map(), tick: null });
    const history = histories.get(run);
    for (const line of lines) {
      if (line.event === "epoch") {
        history.epochs.set(line.epoch, line);
        history.tick = null;
      } else if (line.event === "tick") history.tick = line; // how far the epoch is
    }
    plan();
  });
}

function say(text) {
  if ($("about").textContent !== text) $("about").textContent = text;
}

// The table -------------------------------------------------------------------------------------------------------

function tabulate(found) {
  rows = found;
  const training = rows.filter((row) => row.state === "training" && !known?.has(row.name)).map((row) => row.name);
  let chosen = training.slice(0, known ? MOST - ticked.length : COLOURS);
  if (!known && !chosen.length) chosen = rows.slice(0, 1).map((row) => row.name);
  known = new Set(rows.map((row) => row.name));
  const gone = ticked.filter((name) => !known.has(name)); // a folder that was deleted
  for (const name of gone) ticked.splice(ticked.indexOf(name), 1);
  ticked.push(...chosen.filter((name) => !ticked.includes(name)));
  if (chosen.length || gone.length) listen();
  arrange();
  advise();
  plan();
  document.body.dataset.state = "ready";
}

function head() {
  const cells = COLUMNS.map(([title, key]) => {
    const cell = make("th"), button = make("button", title);
    cell.scope = "col";
    button.type = "button";
    button.addEventListener("click", () => {
      sort = { key, down: sort.key === key ? !sort.down : key !== "name" && key !== "data" && key !== "model" };
      arrange();
    });
    cell.append(button);
    cell.dataset.key = key;
    return cell;
  });
  const first = make("th", "show"), last = make("th", "report");
  first.scope = last.scope = "col";
  first.className = last.className = "note";
  $("runs").tHead.rows[0].append(first, ...cells, last);
}

function drawn(row) {
  let line = shown.get(row.name);
  if (!line) {
    line = make("tr");
    const box = make("input"), label = make("label");
    box.type = "checkbox";
    box.setAttribute("aria-label", `Show ${row.name}`);
    box.addEventListener("change", () => tick(row.name, box));
    label.append(box);
    line.insertCell().append(label);
    for (const [, , , look] of COLUMNS) line.insertCell().className = look ?? "";
    line.insertCell();
    shown.set(row.name, line);
  }
  line.cells[0].querySelector("input").checked = ticked.includes(row.name);
  COLUMNS.forEach(([, key, text, look], index) => {
    const cell = line.cells[index + 1];
    if (cell.textContent !== text(row)) cell.textContent = text(row);
    if (look) cell.title = text(row);
    if (key === "state") cell.className = `state ${row.state}`;
  });
  const last = line.cells[COLUMNS.length + 1];
  if (row.report && !last.firstChild) last.append(link(`/runs/${encodeURIComponent(row.name)}/report`, "report", row.name));
  if (!row.report) last.replaceChildren();
  return line;
}

function link(address, text, what) {
  const made = make("a", text);
  made.href = address;
  made.target = "_blank";
  made.rel = "noopener";
  if (what) made.setAttribute("aria-label", `${text} of ${what}`);
  return made;
}

// Show the rows that match, in their order. Rows are moved only if they have to be: the focus stays where it is.
function arrange() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (row) => [row.name, row.state, row.data, row.model].join(" ").toLowerCase();
  const found = rows.filter((row) => words.every((word) => text(row).includes(word)));
  const way = sort.down ? -1 : 1;
  found.sort(({ [sort.key]: a }, { [sort.key]: b }) => (a === b ? 0 : a === null ? 1 : b === null ? -1
    : way * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }))));
  for (const name of shown.keys()) if (!known?.has(name)) shown.delete(name);
  const lines = found.map(drawn), body = $("runs").tBodies[0];
  if (lines.length !== body.rows.length || lines.some((line, index) => line !== body.rows[index])) {
    const focused = document.activeElement;
    body.replaceChildren(...lines);
    if (focused?.isConnected && focused !== document.activeElement) focused.focus();
  }
  for (const cell of $("runs").tHead.rows[0].cells) {
    if (cell.dataset.key === sort.key) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
  $("found").textContent = rows.length === 0 ? "There are no runs yet. Train one: onsight train"
    : words.length ? `${found.length} of ${rows.length}` : "";
}

function tick(name, box) {
  if (!box.checked) {
    ticked.splice(ticked.indexOf(name), 1);
    histories.delete(name);
  } else if (ticked.length < MOST) ticked.push(name);
  else {
    box.checked = false;
    say(`At most ${MOST} runs can be shown at once.`);
    return;
  }
  listen();
  advise();
  plan();
}

// What to do next -------------------------------------------------------------------------------------------------

let advised = "";
function advise() {
  const chosen = ticked.map((name) => rows.find((row) => row.name === name)).filter(Boolean);
  const blocks = [];
  const scored = chosen.filter((row) => row.test !== null);
  $("compare").hidden = chosen.length < 2;
  if (chosen.length > 1) {
    blocks.push(["Together", { "Compare them": `onsight compare ${chosen.map((row) => row.place).join(" ")}` }]);
  }
  for (const row of chosen) blocks.push([row.name, row.commands]);
  const now = JSON.stringify([blocks, scored.length]);
  if (now === advised) return;
  advised = now;
  $("compare").replaceChildren(scored.length === chosen.length && chosen.length > 1
    ? link(`/compare?${new URLSearchParams(ticked.map((name) => ["run", name]))}`, `Compare these ${chosen.length} runs`)
    : `To be compared, all of them need a test score; ${scored.length} of ${chosen.length} have one.`);
  $("commands").replaceChildren(...blocks.flatMap(([title, commands]) => [
    make("h3", title), ...Object.entries(commands).map(([what, command]) => {
      const line = make("div", "", "command"), code = make("code", command), copy = make("button", "Copy");
      copy.type = "button";
      copy.setAttribute("aria-label", `Copy ${command}`);
      copy.addEventListener("click", () => take(code));
      line.append(make("span", what), code, copy);
      return line;
    })]));
}

async function take(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    $("told").textContent = `Copied: ${code.textContent}`;
  } catch { // only pages of this machine, or with HTTPS, may write to the clipboard
    getSelection().selectAllChildren(code);
    $("told").textContent = "The browser does not let this page copy. The command is selected: copy it with the keyboard.";
  }
}

// The curves ------------------------------------------------------------------------------------------------------

let planned = 0;
function plan() { // once per frame, however much has come
  planned ||= requestAnimationFrame(() => {
    planned = 0;
    legend();
    for (const key of ["accuracy", "loss"]) chart($(key), key);
  });
}

function clock(seconds) {
  return seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// Return what is known of a run now, as one sentence.
function now(row, history) {
  const { epochs, tick } = history, last = [...epochs.values()].at(-1);
  const told = row.epochs === null ? "" : ` of ${row.epochs}`;
  if (row.state === "stopped") {
    return `Stopped after ${epochs.size}${told} epochs: no process trains it. Below is the command that continues it.`;
  }
  const scores = last ? `validation ${percent(last.val_accuracy ?? null)}, training ${percent(last.accuracy ?? null)}` : "";
  if (row.state === "trained") return `Trained, ${epochs.size} epoch${epochs.size === 1 ? "" : "s"}; ${scores}`;
  if (!tick) return last ? `Epoch ${last.epoch}${told}; ${scores}` : "Starting …";
  const speed = `${Math.round(tick.images_per_second).toLocaleString()} images/s, ${clock(tick.seconds_left)} left`;
  return `Epoch ${tick.epoch}${told}, step ${tick.step} of ${tick.steps}, ${speed}` + (scores ? `; ${scores}` : "");
}

function legend() {
  const items = ticked.map((name, index) => {
    const row = rows.find((each) => each.name === name), history = histories.get(name);
    const item = make("li", "", `c${index % COLOURS}`);
    const title = make("span", name);
    title.title = name;
    const text = row && history ? now(row, history) : row?.state === "stopped" ? "Stopped before its first epoch." : "Starting …";
    item.append(make("b", String(index + 1)), title, make("span", text, `note ${row?.state ?? ""}`));
    return item;
  });
  if (!items.length) items.push(make("li", "Tick a run in the table to see its curves.", "note"));
  const text = items.map((item) => item.textContent).join("\n");
  if ($("legend").dataset.text !== text) $("legend").replaceChildren(...items);
  $("legend").dataset.text = text;
}

function draw(parent, kind, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

// Return steps of 1, 2 or 5 times a power of ten, so that about `count` of them cover a range.
function steps(low, high, count, smallest = 0) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(smallest, power * ([1, 2, 5, 10].find((each) => each * power >= rough) ?? 10));
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => (first + index) * step);
}

// Return the points [epoch, value] of a run: after each epoch, and for the training images where the epoch is now.
function points({ epochs, tick }, key) {
  const found = [...epochs.values()].sort((a, b) => a.epoch - b.epoch).map((line) => [line.epoch, line[key]]);
  if (tick) found.push([tick.epoch - 1 + tick.step / tick.steps, tick[key]]);
  return found.filter(([, value]) => typeof value === "number");
}

function chart(box, key) {
  const scale = key === "accuracy" ? 100 : 1;
  const curves = ticked.flatMap((name, index) => (histories.has(name) ? [["training", key], ["validation", `val_${key}`]]
    .map(([part, field]) => ({ index, part, points: points(histories.get(name), field) })) : []))
    .filter((curve) => curve.points.length);
  const values = curves.flatMap((curve) => curve.points.map(([, value]) => value * scale));
  const width = box.clientWidth, height = 240, left = 44, right = width - 16 - 12 * ticked.length, top = 12, bottom = height - 24;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", values.length
    ? `The ${key} of ${new Set(curves.map((curve) => curve.index)).size} runs by epoch; the list above has the last values.`
    : `No ${key} yet.`);
  box.replaceChildren(svg);
  if (!values.length) {
    draw(svg, "text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No epoch is complete yet.");
    return;
  }
  let low = Math.min(...values), high = Math.max(...values);
  const margin = Math.max((high - low) * 0.05, 1e-3 * scale);
  low = Math.max(0, low - margin);
  high = key === "accuracy" ? Math.min(100, high + margin) : high + margin;
  const last = Math.max(2, ...curves.flatMap((curve) => curve.points.map(([epoch]) => epoch)));
  const x = (epoch) => left + (Math.max(0, epoch - 1) / (last - 1)) * (right - left);
  const y = (value) => bottom - ((value * scale - low) / (high - low)) * (bottom - top);
  for (const value of steps(low, high, 5)) {
    draw(svg, "line", { class: "grid", x1: left, x2: right, y1: y(value / scale), y2: y(value / scale) });
    draw(svg, "text", { x: left - 8, y: y(value / scale) + 4, "text-anchor": "end" }, String(+value.toPrecision(6)));
  }
  for (const epoch of new Set([1, ...steps(1, last, Math.max(2, width / 110), 1)])) {
    draw(svg, "text", { x: x(epoch), y: height - 4, "text-anchor": "middle" }, String(epoch));
  }
  const ends = []; // where the numbers are, which must not cover each other
  for (const { index, part, points: found } of curves) {
    const group = draw(svg, "g", { class: `c${index % COLOURS}` });
    if (found.length > 1) {
      draw(group, "path", { class: part, d: `M${found.map(([epoch, value]) => `${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}` });
    }
    const [epoch, value] = found.at(-1);
    draw(group, "circle", { cx: x(epoch), cy: y(value), r: part === "validation" ? 3.5 : 2 });
    if (part !== "validation") continue;
    let aside = x(epoch) + 7;
    while (ends.some(([h, v]) => Math.abs(h - aside) < 12 && Math.abs(v - y(value)) < 12)) aside += 12;
    ends.push([aside, y(value)]);
    draw(group, "text", { class: "end", x: aside, y: y(value) + 4 }, String(index + 1));
  }
}

async function begin() {
  head();
  $("filter").addEventListener("input", arrange);
  addEventListener("resize", plan);
  try {
    ({ folder } = await (await fetch("/v1/runs")).json());
    listen();
  } catch {
    say("The server does not answer. Is it still running?");
  }
}
begin();
