/** Pillow's resizing, number for number, since what a canvas does differs from browser to browser. */

/** An array of rows, `channels` values to a pixel. */
export interface Plane<T extends Uint8Array | Uint16Array | Float32Array> {
  data: T;
  width: number;
  height: number;
}

/** For each output position: the first input it reads, and the weights of that input and the following ones. */
interface Window {
  first: number;
  weights: Float64Array;
}

const FRACTION_BITS = 22; // Pillow's for 8-bit images: 32 - 8 - 2
const HALF = 2 ** (FRACTION_BITS - 1);

/** Triangle filter, stretched when shrinking: Pillow's `precompute_coeffs` with BILINEAR. */
function triangleWindows(inSize: number, outSize: number): Window[] {
  const scale = inSize / outSize;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: outSize }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - stretch + 0.5));
    const end = Math.min(inSize, Math.trunc(center + stretch + 0.5));
    const inverse = 1 / stretch;
    const weights = Float64Array.from({ length: end - first }, (_, x) =>
      Math.max(0, 1 - Math.abs((x + first - center + 0.5) * inverse)),
    );
    let sum = 0;
    for (const weight of weights) sum += weight;
    return { first, weights: sum === 0 ? weights : weights.map((weight) => weight / sum) };
  });
}

/** In fixed point, as Pillow computes 8-bit images; sums stay below 2^31 and so are exact here. */
function fixedPoint(windows: Window[]): Window[] {
  const one = 2 ** FRACTION_BITS;
  return windows.map(({ first, weights }) => ({ first, weights: weights.map((w) => Math.trunc(0.5 + w * one)) }));
}

/** Pillow 13 starts with the height where that shrinks by more than twice the pixels that the width does. */
function heightFirst(from: { width: number; height: number }, width: number, height: number): boolean {
  return height < from.height && from.height - height > 2 * (from.width - width);
}

/** Bilinear, antialiased resize of RGB [H,W,3]; equals `mobileclip_dense.artifact.preprocess.resize_image`. */
export function resizeRgb(image: Plane<Uint8Array>, width: number, height: number): Plane<Uint8Array> {
  return heightFirst(image, width, height)
    ? resizeRgbWidth(resizeRgbHeight(image, height), width)
    : resizeRgbHeight(resizeRgbWidth(image, width), height);
}

function resizeRgbWidth(image: Plane<Uint8Array>, width: number): Plane<Uint8Array> {
  if (width === image.width) return image;
  const { data, height } = image;
  const columns = fixedPoint(triangleWindows(image.width, width));
  const out = new Uint8Array(height * width * 3);
  for (let y = 0, at = 0; y < height; y++) {
    const row = y * image.width * 3;
    for (const { first, weights } of columns) {
      let [red, green, blue] = [HALF, HALF, HALF];
      for (let k = 0, from = row + first * 3; k < weights.length; k++, from += 3) {
        const weight = weights[k]!;
        red += data[from]! * weight;
        green += data[from + 1]! * weight;
        blue += data[from + 2]! * weight;
      }
      out[at++] = Math.min(255, red >> FRACTION_BITS);
      out[at++] = Math.min(255, green >> FRACTION_BITS);
      out[at++] = Math.min(255, blue >> FRACTION_BITS);
    }
  }
  return { data: out, width, height };
}

function resizeRgbHeight(image: Plane<Uint8Array>, height: number): Plane<Uint8Array> {
  if (height === image.height) return image;
  const { data, width } = image;
  const stride = width * 3;
  const out = new Uint8Array(height * stride);
  const sums = new Float64Array(stride);
  fixedPoint(triangleWindows(image.height, height)).forEach(({ first, weights }, y) => {
    sums.fill(HALF);
    weights.forEach((weight, k) => {
      const row = (first + k) * stride;
      for (let x = 0; x < stride; x++) sums[x]! += data[row + x]! * weight;
    });
    for (let x = 0; x < stride; x++) out[y * stride + x] = Math.min(255, sums[x]! >> FRACTION_BITS);
  });
  return { data: out, width, height };
}

/** Bilinear, antialiased resize of a map of metres [H,W]; equals `mobileclip_dense.runtime.accuracy.resize_map` of floats. */
export function resizeMetres(map: Plane<Float32Array>, width: number, height: number): Plane<Float32Array> {
  return heightFirst(map, width, height)
    ? resizeMetresWidth(resizeMetresHeight(map, height), width)
    : resizeMetresHeight(resizeMetresWidth(map, width), height);
}

function resizeMetresWidth(map: Plane<Float32Array>, width: number): Plane<Float32Array> {
  if (width === map.width) return map;
  const { data, height } = map;
  const columns = triangleWindows(map.width, width);
  const out = new Float32Array(height * width);
  for (let y = 0, at = 0; y < height; y++) {
    for (const { first, weights } of columns) {
      let sum = 0;
      for (let k = 0, from = y * map.width + first; k < weights.length; k++, from++) sum += data[from]! * weights[k]!;
      out[at++] = sum;
    }
  }
  return { data: out, width, height };
}

function resizeMetresHeight(map: Plane<Float32Array>, height: number): Plane<Float32Array> {
  if (height === map.height) return map;
  const { data, width } = map;
  const out = new Float32Array(height * width);
  triangleWindows(map.height, height).forEach(({ first, weights }, y) => {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let k = 0, from = first * width + x; k < weights.length; k++, from += width)
        sum += data[from]! * weights[k]!;
      out[y * width + x] = sum;
    }
  });
  return { data: out, width, height };
}

/** Where each output position reads with Pillow's NEAREST, which adds up its step instead of multiplying. */
function nearestPositions(inSize: number, outSize: number): Uint32Array {
  const step = inSize / outSize;
  let position = step * 0.5;
  return Uint32Array.from({ length: outSize }, () => {
    const index = Math.min(inSize - 1, Math.trunc(position));
    position += step;
    return index;
  });
}

/** Nearest-neighbour resize of a class map [H,W]; equals `mobileclip_dense.runtime.accuracy.resize_map` of integers. */
export function resizeClasses(map: Plane<Uint16Array>, width: number, height: number): Plane<Uint16Array> {
  if (width === map.width && height === map.height) return map;
  const columns = nearestPositions(map.width, width);
  const out = new Uint16Array(width * height);
  let at = 0;
  for (const y of nearestPositions(map.height, height)) {
    for (let x = 0; x < width; x++) out[at++] = map.data[y * map.width + columns[x]!]!;
  }
  return { data: out, width, height };
}
