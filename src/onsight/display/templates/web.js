
// The page takes images from disk, clipboard or camera, prepares them like `onsight.imaging.decode.resize`, and
// classifies them with LiteRT.
const facts = JSON.parse($("facts").textContent);
const SIZE = facts.size;

async function unpacked(id) {
  const text = $(id).textContent;
  $(id).remove();
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Return Pillow's weights for scaling `side` pixels to `size`: a triangle, widened when shrinking, in multiples of 2^-22.
const remembered = new Map();
function weights(side, size) {
  const key = `${side} ${size}`;
  if (!remembered.has(key)) {
    const ratio = side / size, reach = Math.max(ratio, 1), found = [];
    for (let i = 0; i < size; i++) {
      const centre = (i + 0.5) * ratio;
      const first = Math.max(0, Math.trunc(centre - reach + 0.5));
      const last = Math.min(side, Math.trunc(centre + reach + 0.5));
      const each = [];
      let sum = 0;
      for (let k = first; k < last; k++) {
        const weight = Math.max(0, 1 - Math.abs((k - centre + 0.5) * (1 / reach)));
        each.push(weight);
        sum += weight;
      }
      found.push([first, Int32Array.from(each, (weight) => Math.trunc(0.5 + (weight / sum) * 4194304))]);
    }
    if (remembered.size > 8) remembered.clear();
    remembered.set(key, found);
  }
  return remembered.get(key);
}

// Return what of an image is scaled, to which size, and where that lies in the result, like `onsight.imaging.fit.place`.
function place(width, height) {
  const least = Math.min(width, height), most = Math.max(width, height);
  if (facts.fit !== "pad") {
    return { top: (height - least) >> 1, left: (width - least) >> 1, height: least, width: least, high: SIZE, wide: SIZE, down: 0, right: 0 };
  }
  const [high, wide] = [height, width].map((each) => Math.max(1, Math.floor((2 * each * SIZE + most) / (2 * most))));
  return { top: 0, left: 0, height, width, high, wide, down: (SIZE - high) >> 1, right: (SIZE - wide) >> 1 };
}

// Return RGBA pixels (`width` x `height`), fitted to a square, as RGB of SIZE x SIZE. Resizes horizontally, then
// vertically, and rounds to bytes each time, like Pillow. Padding is grey.
function prepare(rgba, width, height) {
  const at = place(width, height);
  const result = new Uint8Array(SIZE * SIZE * 3).fill(facts.grey);
  const begin = (y) => ((at.down + y) * SIZE + at.right) * 3; // of a row of the scaled image, in the result
  if (at.width === at.wide && at.height === at.high) {
    for (let y = 0; y < at.high; y++) {
      for (let x = 0, to = begin(y), from = ((at.top + y) * width + at.left) * 4; x < at.wide; x++, from += 4) {
        result[to++] = rgba[from];
        result[to++] = rgba[from + 1];
        result[to++] = rgba[from + 2];
      }
    }
    return result;
  }
  const across = weights(at.width, at.wide), down = weights(at.height, at.high);
  const narrow = new Uint8Array(at.height * at.wide * 3);
  for (let y = 0, to = 0; y < at.height; y++) {
    const row = ((at.top + y) * width + at.left) * 4;
    for (const [first, kernel] of across) {
      let red = 2097152, green = 2097152, blue = 2097152; // 2^21, one half, so that the shift rounds
      for (let k = 0, from = row + first * 4; k < kernel.length; k++, from += 4) {
        red += rgba[from] * kernel[k];
        green += rgba[from + 1] * kernel[k];
        blue += rgba[from + 2] * kernel[k];
      }
      narrow[to++] = Math.min(255, red >> 22);
      narrow[to++] = Math.min(255, green >> 22);
      narrow[to++] = Math.min(255, blue >> 22);
    }
  }
  const line = at.wide * 3;
  for (let y = 0; y < at.high; y++) {
    const [first, kernel] = down[y];
    for (let x = 0, to = begin(y); x < line; x++) {
      let sum = 2097152;
      for (let k = 0, from = first * line + x; k < kernel.length; k++, from += line) sum += narrow[from] * kernel[k];
      result[to++] = Math.min(255, sum >> 22);
    }
  }
  return result;
}

const pixels = document.createElement("canvas");
const context = pixels.getContext("2d", { willReadFrequently: true });

// Draw what the model sees of a bitmap or video on white, and return it prepared for the model.
function look(source, width, height) {
  const at = place(width, height);
  pixels.width = at.width;
  pixels.height = at.height;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, at.width, at.height);
  context.drawImage(source, -at.left, -at.top);
  return prepare(context.getImageData(0, 0, at.width, at.height).data, at.width, at.height);
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
  return described(await answer(look(source, width, height)));
}

function seen() {
  return `seen as ${SIZE} × ${SIZE}`;
}

async function choose(file) {
  stop();
  let bitmap;
  try {
    const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "default" };
    bitmap = await createImageBitmap(file, options);
  } catch (error) {
    say(`The file cannot be read as an image by this browser (${error.message}).`);
    return;
  }
  const picture = look(bitmap, bitmap.width, bitmap.height);
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
  self.onsight = { facts, prepare, look, answer, choose }; // for tests, and for the console
  document.body.dataset.state = "ready";
  decide(true);
} catch (error) {
  document.body.dataset.state = "failed";
  $("verdict").textContent = "The model does not run here";
  say(`This browser cannot start the model: ${error.message}`);
  decide(false);
}
