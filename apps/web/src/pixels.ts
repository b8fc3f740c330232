/** From a photograph to what a model takes; mobileclip_dense/artifact/preprocess.py in TypeScript. */

import type { TensorSpec } from "./artifact";
import { type Plane, resizeRgb } from "./resample";

/** RGBA of a canvas to RGB. */
export function dropAlpha(rgba: Uint8ClampedArray, width: number, height: number): Plane<Uint8Array> {
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4) {
    data[to++] = rgba[from]!;
    data[to++] = rgba[from + 1]!;
    data[to++] = rgba[from + 2]!;
  }
  return { data, width, height };
}

/** Python's round(): halves go to the even neighbour. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const isHalf = value - floor === 0.5;
  return isHalf ? floor + (floor % 2) : Math.round(value);
}

/** A part of an image. */
function cut(image: Plane<Uint8Array>, left: number, top: number, width: number, height: number): Plane<Uint8Array> {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(from, from + width * 3), y * width * 3);
  }
  return { data, width, height };
}

/** The ends of a line of pixels cut off beyond 16 frames, or it would be resized to millions of columns. */
function cutEnds(image: Plane<Uint8Array>, width: number, height: number): Plane<Uint8Array> {
  const mostWidth = Math.min(image.width, 16 * Math.ceil((width * image.height) / height));
  const mostHeight = Math.min(image.height, 16 * Math.ceil((height * image.width) / width));
  if (mostWidth === image.width && mostHeight === image.height) return image;
  const left = Math.floor((image.width - mostWidth) / 2);
  const top = Math.floor((image.height - mostHeight) / 2);
  return cut(image, left, top, mostWidth, mostHeight);
}

/** Resize until the frame is just filled, then cut its centre out: what CLIP's towers take. */
export function cropRgb(whole: Plane<Uint8Array>, width: number, height: number): Plane<Uint8Array> {
  const image = cutEnds(whole, width, height);
  const resized =
    height * image.width >= width * image.height
      ? resizeRgb(image, Math.max(width, Math.trunc((height * image.width) / image.height)), height)
      : resizeRgb(image, width, Math.max(height, Math.trunc((width * image.height) / image.width)));
  const top = roundHalfEven((resized.height - height) / 2);
  const left = roundHalfEven((resized.width - width) / 2);
  return cut(resized, left, top, width, height);
}

/** In the form of the model's input: uint8 [1,H,W,3] as it is, or float32 [1,3,H,W] in 0..1. */
export function asTaken(image: Plane<Uint8Array>, input: TensorSpec): Uint8Array | Float32Array {
  if (input.dtype === "uint8") return image.data;
  const size = image.width * image.height;
  const planes = new Float32Array(3 * size);
  for (let at = 0; at < size; at++) {
    for (let channel = 0; channel < 3; channel++) planes[channel * size + at] = image.data[at * 3 + channel]! / 255;
  }
  return planes;
}
