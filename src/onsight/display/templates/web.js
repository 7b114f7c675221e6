
// The page takes images from disk, clipboard or camera, prepares them (open_image.js), and classifies them with LiteRT.
const facts = JSON.parse($("facts").textContent);
const SIZE = facts.size;

async function unpacked(id) {
  const text = $(id).textContent;
  $(id).remove();
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

let compiled;
async function answer(picture) {
  const image = new Tensor(picture, [1, SIZE, SIZE, 3]);
  const outputs = await compiled.run([image]);
  const dimensions = (output) => output.type.layout.dimensions.length;
  let probabilities, distance = null; // known by their shapes: (1, classes) and (1,)
  for (const output of outputs) {
    const values = Float32Array.from(await output.data());
    if (dimensions(output) === 2) probabilities = values;
    else distance = values[0];
  }
  image.delete();
  for (const output of outputs) output.delete();
  return { probabilities, distance };
}

// Return the classes of an answer, likeliest first, and why it is unsure.
function described({ probabilities, distance }) {
  const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
  const unlike = distance !== null && facts.distance_threshold !== null && distance > facts.distance_threshold;
  const close = facts.threshold !== null && probabilities[order[0]] < facts.threshold;
  const top = order.map((index) => ({ class: facts.classes[index], probability: probabilities[index] }));
  return { top, reason: unlike ? "far" : close ? "close" : null };
}

async function classify(source, width, height) {
  return described(await answer(look(source, width, height, facts)));
}

function seen() {
  return `seen as ${SIZE} × ${SIZE}`;
}

async function choose(file) {
  stop();
  let bitmap;
  try {
    bitmap = await decoded(file);
  } catch (error) {
    say(`The file cannot be read as an image by this browser (${error.message}).`);
    return;
  }
  const picture = look(bitmap, bitmap.width, bitmap.height, facts);
  const canvas = $("shown");
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").drawImage(pixels, 0, 0);
  canvas.hidden = false;
  $("invite").hidden = true;
  $("stage").classList.remove("empty");
  if (!(await ready)) return;
  const started = performance.now();
  show(described(await answer(picture)));
  say(`${bitmap.width} × ${bitmap.height} pixels, ${seen()}; answered in ${(performance.now() - started).toFixed(1)} ms`);
  bitmap.close();
}

$("stage").classList.add("empty");
$("stage").classList.toggle("whole", facts.fit === "pad");
if (facts.fit === "pad") $("seen").textContent = "The model sees the whole image, on a grey square.";
$("about").textContent = `${facts.model}, ${facts.classes.length.toLocaleString()} classes, ${SIZE} × ${SIZE} pixels, ${facts.precision}` +
  (facts.threshold === null ? "" : `; unsure below ${(facts.threshold * 100).toFixed(0)} %`);
$("camera").disabled = true;
let decide;
const ready = new Promise((resolve) => (decide = resolve)); // whether the model runs; images chosen earlier wait for it
try {
  // Do what loadLiteRt does, but without loading a script by URL and without requesting a GPU, which is not used.
  setGlobalLiteRt(new LiteRt(await ModuleFactory({ wasmBinary: await unpacked("runtime"), print() {}, printErr() {} })));
  getGlobalLiteRt().setDefaultEnvironment(await Environment.create({ webGpuDevice: null }));
  compiled = await loadAndCompile(await unpacked("model"), { accelerator: "wasm" });
  await answer(new Uint8Array(SIZE * SIZE * 3));
  $("camera").disabled = !navigator.mediaDevices;
  $("verdict").textContent = "Show it an image";
  self.onsight = { facts, decoded, prepare, look, answer, choose }; // for tests, and for the console
  document.body.dataset.state = "ready";
  decide(true);
} catch (error) {
  document.body.dataset.state = "failed";
  $("verdict").textContent = "The model does not run here";
  say(`This browser cannot start the model: ${error.message}`);
  decide(false);
}
