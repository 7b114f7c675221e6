
// An image file becomes the input of a model, with the pixels that `onsight predict` sees: `decoded`, then `look`. `input`
// is what the model takes, { size, fit, grey }: fit "cut" takes the centre square of an image, "pad" all of it on a grey
// square. The scaling of the browser itself (drawImage, CSS) gives other pixels.

// Return an image file at its full size, turned upright, its colour profile ignored.
async function decoded(file) {
  const bytes = new Uint8Array(await file.arrayBuffer()), orientation = takeOrientation(bytes);
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "default" };
  if (orientation === 1) return createImageBitmap(file, options);
  const bitmap = await createImageBitmap(new Blob([bytes]), options), { width, height } = bitmap;
  const canvas = document.createElement("canvas"), turn = canvas.getContext("2d");
  [canvas.width, canvas.height] = orientation > 4 ? [height, width] : [width, height];
  turn.setTransform(...TURNS[orientation](width, height));
  turn.drawImage(bitmap, 0, 0);
  return createImageBitmap(canvas);
}

// EXIF orientation -> the matrix that turns an image upright.
const TURNS = {
  2: (width) => [-1, 0, 0, 1, width, 0],
  3: (width, height) => [-1, 0, 0, -1, width, height],
  4: (width, height) => [1, 0, 0, -1, 0, height],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (width, height) => [0, 1, -1, 0, height, 0],
  7: (width, height) => [0, -1, -1, 0, height, width],
  8: (width) => [0, -1, 1, 0, 0, width],
};

// Return the EXIF orientation of a WebP file, and rename its entry, so that no browser applies it, too: Chromium ignores
// it. Return 1, which is upright, for any other file; browsers turn those themselves.
function takeOrientation(bytes) {
  const view = new DataView(bytes.buffer), name = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (name(0) !== "RIFF" || name(8) !== "WEBP") return 1;
  try {
    let at = 12;
    while (name(at) !== "EXIF") at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) & 1);
    const start = at + (name(at + 8) === "Exif" ? 14 : 8), little = bytes[start] === 0x49;
    bytes[at] = 0x5f;
    const directory = start + view.getUint32(start + 4, little);
    for (let entry = directory + 2; entry < directory + 2 + 12 * view.getUint16(directory, little); entry += 12) {
      if (view.getUint16(entry, little) !== 0x0112) continue;
      const value = view.getUint16(entry + 2, little) === 4 ? view.getUint32(entry + 8, little) : view.getUint16(entry + 8, little);
      return value in TURNS ? value : 1;
    }
  } catch {} // there is no such entry, or it is damaged
  return 1;
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

// Return what of an image is scaled, to which size, and where that lies in the result. All sides are in pixels.
function place(width, height, { size, fit }) {
  const least = Math.min(width, height), most = Math.max(width, height);
  if (fit !== "pad") {
    return { top: (height - least) >> 1, left: (width - least) >> 1, height: least, width: least, high: size, wide: size, down: 0, right: 0 };
  }
  const [high, wide] = [height, width].map((each) => Math.max(1, Math.floor((2 * each * size + most) / (2 * most))));
  return { top: 0, left: 0, height, width, high, wide, down: (size - high) >> 1, right: (size - wide) >> 1 };
}

// Return RGBA pixels (`width` x `height`), fitted to a square, as RGB. Resizes horizontally, then vertically, and rounds
// to bytes each time, like Pillow. Padding is grey.
function prepare(rgba, width, height, input) {
  const { size, grey } = input, at = place(width, height, input);
  const result = new Uint8Array(size * size * 3).fill(grey);
  const begin = (y) => ((at.down + y) * size + at.right) * 3; // of a row of the scaled image, in the result
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
function look(source, width, height, input) {
  const at = place(width, height, input);
  pixels.width = at.width;
  pixels.height = at.height;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, at.width, at.height);
  context.drawImage(source, -at.left, -at.top);
  return prepare(context.getImageData(0, 0, at.width, at.height).data, at.width, at.height, input);
}
