/** Colours of class maps and depth maps; the same as mobileclip_dense/artifact/palette.py. */

import contract from "./contract.json";
import type { Plane } from "./resample";

export type Rgb = readonly [number, number, number];
const TURBO = contract.turbo as unknown as readonly Rgb[]; // near to far

/** Opacity of the class colours over the photograph in the pictures that Python draws. */
export const OVERLAY_OPACITY = 0.55;

/** Of distances: enough to be compared with their scale. */
export const DEPTH_OPACITY = 0.85;

/**
 * Class indices [H,W] -> RGBA. Indices outside the palette are transparent.
 * With `highlighted`, every other class is faint.
 */
export function colourClasses(map: Plane<Uint16Array>, palette: readonly Rgb[], highlighted: number | null): ImageData {
  const table = new Uint32Array(65536); // little-endian ABGR, as every platform of a browser
  palette.forEach(([red, green, blue], index) => {
    const alpha = highlighted === null || highlighted === index ? 255 : 40;
    table[index] = ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
  const image = new ImageData(map.width, map.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let at = 0; at < pixels.length; at++) pixels[at] = table[map.data[at]!]!;
  return image;
}

/** The colour of one distance; black where there is no reading (0). */
export function depthColour(metres: number, near: number, far: number): Rgb {
  if (!(metres > 0)) return [0, 0, 0];
  const span = TURBO.length - 1;
  const position = Math.min(1, Math.max(0, (metres - near) / Math.max(far - near, 1e-6))) * span;
  const low = Math.min(Math.trunc(position), span - 1);
  const fraction = position - low;
  const [a, b] = [TURBO[low]!, TURBO[low + 1]!];
  const mix = (channel: 0 | 1 | 2) => Math.trunc(a[channel] * (1 - fraction) + b[channel] * fraction + 0.5);
  return [mix(0), mix(1), mix(2)];
}

/** Metres [H,W] -> RGBA, red near to dark blue far. */
export function colourDepth(map: Plane<Float32Array>, near: number, far: number): ImageData {
  // A table of 4096 colours: finer than the 8 bits of a channel, and a camera's frame does not wait for it.
  const steps = 4095;
  const table = new Uint32Array(steps + 1);
  for (let step = 0; step <= steps; step++) {
    const [red, green, blue] = depthColour(1 + step / steps, 1, 2);
    table[step] = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  const image = new ImageData(map.width, map.height);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = steps / Math.max(far - near, 1e-6);
  for (let at = 0; at < pixels.length; at++) {
    const metres = map.data[at]!;
    const step = Math.round(Math.min(steps, Math.max(0, (metres - near) * scale)));
    pixels[at] = metres > 0 ? table[step]! : 0xff000000;
  }
  return image;
}

/** The depth scale as a CSS gradient from near (left) to far. */
export function depthGradient(): string {
  return `linear-gradient(to right, ${TURBO.map((colour) => `rgb(${colour.join(" ")})`).join(", ")})`;
}
