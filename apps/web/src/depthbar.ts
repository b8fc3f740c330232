/** The scale of distances. */

import { depthGradient } from "./colours";
import { byId } from "./dom";
import type { Plane } from "./resample";
import { percentile } from "./statistics";

const MOST_SAMPLES = 50_000;
const bar = byId("depth-bar");
const mark = byId("depth-mark");

/** 1st and 99th percentile, as the pictures that Python draws. */
export function depthRange(map: Plane<Float32Array>): { near: number; far: number } {
  const stride = Math.max(1, Math.ceil(map.data.length / MOST_SAMPLES));
  const sample = Float32Array.from({ length: Math.ceil(map.data.length / stride) }, (_, at) => map.data[at * stride]!);
  sample.sort();
  return { near: percentile(sample, 1), far: percentile(sample, 99) };
}

export function showDepthBar(near: number, far: number): void {
  bar.style.background = depthGradient();
  bar.setAttribute("aria-label", `Colours from ${metres(near)}, red, to ${metres(far)}, blue`);
  byId("depth-near").textContent = metres(near);
  byId("depth-middle").textContent = metres((near + far) / 2);
  byId("depth-far").textContent = metres(far);
}

/** Mark a distance on the scale, or none. */
export function markDepth(position: number | null): void {
  mark.hidden = position === null;
  if (position !== null) mark.style.left = `${Math.min(1, Math.max(0, position)) * 100}%`;
}

export function metres(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)} m`;
}
