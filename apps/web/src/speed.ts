/** The latency panel. */

import { byId, element } from "./dom";
import type { Loaded, Timing } from "./messages";
import { summarize } from "./statistics";

const KEPT = 100;
const times: number[] = [];
let loaded: Loaded | null = null;
let last: Timing | null = null;
let rate: number | null = null;

/** Begin anew with another model. */
export function showModelSpeed(of: Loaded): void {
  if (loaded?.artifact.name !== of.artifact.name) {
    times.length = 0;
    last = null;
  }
  loaded = of;
  draw();
}

export function addRun(timing: Timing): void {
  last = timing;
  times.push(timing.runMs);
  if (times.length > KEPT) times.shift();
  draw();
}

/** Frames per second of the camera; null when it is off. */
export function showRate(perSecond: number | null): void {
  rate = perSecond;
  draw();
}

/** Where the model runs, in words. */
export function placeOf({ provider, threads }: Loaded): string {
  if (provider === "webgpu") return "GPU (WebGPU)";
  return threads > 1
    ? "CPU (WebAssembly)"
    : `CPU (WebAssembly)${self.crossOriginIsolated ? "" : ", page not isolated"}`;
}

function draw(): void {
  if (!loaded) return;
  const facts: [string, string][] = [
    ["Runs on", placeOf(loaded)],
    ["Threads", String(loaded.threads)],
    ["Download", milliseconds(loaded.downloadMs)],
    ["Load", milliseconds(loaded.loadMs)],
    ["First run", milliseconds(loaded.firstRunMs)],
  ];
  if (times.length > 0 && last) {
    const { p50, p90, num_runs } = summarize(times);
    facts.push([`Run p50 / p90 (${num_runs})`, `${number(p50)} / ${milliseconds(p90)}`]);
    facts.push(["Preparing the picture", milliseconds(last.prepareMs)]);
  }
  if (rate !== null) facts.push(["Camera", `${rate.toFixed(1)} frames/s`]);
  byId("latency").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function number(ms: number): string {
  return ms < 10 ? ms.toFixed(1) : ms.toFixed(0);
}

export function milliseconds(ms: number): string {
  return ms < 10_000 ? `${number(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
