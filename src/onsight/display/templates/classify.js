
// What the page of an exported model and that of `onsight serve` share: an image from disk, clipboard or camera goes in,
// an answer with bars comes out. The page defines `classify(source, width, height)`, which returns the answer for a
// bitmap or video as { top: [{ class, probability }, …], reason: null, "close" or "far" }, and `choose(file)`.
const $ = (id) => document.getElementById(id);
const SHOWN = 5;

function show({ top, reason }) {
  document.body.classList.toggle("unsure", reason !== null);
  const verdict = $("verdict");
  const best = document.createElement("span"); // cut with an ellipsis if it is too long
  const either = top.slice(0, 2).map((each) => each.class).join(" or ");
  best.title = best.textContent = reason === "far" ? "unlike anything it was trained on" : reason === null ? top[0].class : either;
  verdict.replaceChildren(best);
  if (reason !== null) {
    const mark = document.createElement("small");
    mark.textContent = "unsure:";
    verdict.prepend(mark);
  }
  const bars = $("bars");
  while (bars.children.length > top.length) bars.lastChild.remove();
  while (bars.children.length < top.length) {
    const item = document.createElement("li");
    item.append(...["span", "span", "i"].map((kind) => document.createElement(kind)));
    bars.append(item);
  }
  top.forEach((each, place) => {
    const [name, share, bar] = bars.children[place].children;
    name.title = name.textContent = each.class;
    share.textContent = `${(each.probability * 100).toFixed(1)} %`;
    bar.style.setProperty("--share", each.probability);
  });
}

function say(text) {
  $("told").textContent = text;
}

let stream = null, facing = "environment";
let asked = 0; // counts starts and stops; a camera that the user allows only after a later start or stop is released
async function start() {
  stop();
  const mine = asked;
  let found;
  try {
    const wanted = { facingMode: facing, width: { ideal: 640 }, height: { ideal: 480 } };
    found = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
  } catch (error) {
    if (mine === asked) say(`The camera cannot be used: ${error.message}.`);
    return;
  }
  if (mine !== asked) {
    found.getTracks().forEach((track) => track.stop());
    return;
  }
  stream = found;
  $("verdict").ariaLive = "off"; // a screen reader must not read twenty verdicts per second
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  $("stage").classList.remove("empty");
  $("stage").classList.toggle("mirrored", stream.getVideoTracks()[0].getSettings().facingMode !== "environment");
  video.hidden = $("rate").hidden = false;
  $("invite").hidden = $("shown").hidden = true;
  $("camera").textContent = "Stop the camera";
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  $("turn").hidden = cameras.length < 2;
  say(`${video.videoWidth} × ${video.videoHeight} pixels, ${seen()}`);
  watch(stream);
}

async function watch(mine) {
  const video = $("video"), times = [];
  while (stream === mine) {
    await new Promise(video.requestVideoFrameCallback ? (done) => video.requestVideoFrameCallback(done) : requestAnimationFrame);
    if (stream !== mine) return;
    const started = performance.now();
    let answered;
    try {
      answered = await classify(video, video.videoWidth, video.videoHeight);
    } catch (error) {
      if (stream === mine) stop();
      say(error.message);
      return;
    }
    if (stream !== mine) return;
    show(answered);
    times.push(performance.now());
    while (times[0] < times.at(-1) - 2000) times.shift();
    const rate = times.length > 1 ? ((times.length - 1) * 1000) / (times.at(-1) - times[0]) : 0;
    $("rate").textContent = `${rate.toFixed(0)} frames/s · ${(times.at(-1) - started).toFixed(1)} ms each`;
  }
}

function stop() {
  asked++;
  if (stream === null) return;
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  $("verdict").ariaLive = "polite";
  $("video").srcObject = null;
  $("video").hidden = $("rate").hidden = $("turn").hidden = true;
  $("camera").textContent = "Use the camera";
  if ($("shown").hidden) {
    $("invite").hidden = false;
    $("stage").classList.add("empty");
  }
}

$("file").addEventListener("change", (event) => event.target.files[0] && choose(event.target.files[0]));
$("camera").addEventListener("click", () => (stream === null ? start() : stop()));
$("turn").addEventListener("click", () => {
  facing = facing === "environment" ? "user" : "environment";
  start();
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", (event) => event.dataTransfer.files[0] && choose(event.dataTransfer.files[0]));
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
  if (file) choose(file);
});
