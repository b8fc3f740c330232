/** What the page and its worker say to each other. */

import type { Artifact, IndexEntry } from "./artifact";
import type { Plane } from "./resample";
import type { Provider } from "./runtime";
import type { Scores } from "./scores";
import type { Latency } from "./statistics";

/** About a model that is ready to run. */
export interface Loaded {
  artifact: Artifact;
  provider: Provider;
  threads: number;
  downloadMs: number;
  /** Making the session. */
  loadMs: number;
  /** On a black image or an empty prompt: memory is laid out, and shaders are compiled. */
  firstRunMs: number;
}

export interface Timing {
  prepareMs: number;
  runMs: number;
}

/** What a model says about a photograph, at the photograph's resolution. */
export type Prediction =
  | { kind: "segment"; map: Plane<Uint16Array>; scores: Scores | null; timing: Timing }
  | { kind: "depth"; map: Plane<Float32Array>; timing: Timing }
  | { kind: "embedding"; embedding: Float32Array; timing: Timing };

export interface CheckRow {
  output: string;
  /** Relative error; or percent of the pixels that have PyTorch's class, or the class of the model's own scores. */
  measure: "error" | "agreement" | "own scores";
  figure: number;
  /** Of an error the largest, of the others the smallest that passes. */
  limit: number;
  passed: boolean;
}

export interface CheckReport {
  examples: number;
  rows: CheckRow[];
  passed: boolean;
}

export interface Calls {
  load: { call: { entry: IndexEntry; wanted: Provider | null }; answer: Loaded };
  predict: { call: { name: string; bitmap: ImageBitmap }; answer: Prediction };
  embed: { call: { name: string; texts: string[] }; answer: Float32Array[] };
  check: { call: { name: string }; answer: CheckReport };
  time: { call: { name: string; runs: number }; answer: { latency: Latency; runtimeVersion: string } };
  /** Let go of every model but these. */
  keep: { call: { names: string[] }; answer: null };
}

export type CallName = keyof Calls;

export type Request = { [Name in CallName]: { id: number; name: Name; value: Calls[Name]["call"] } }[CallName];

export type Reply =
  | { id: number; kind: "answer"; value: unknown }
  | { id: number; kind: "progress"; done: number; total: number; what: string }
  | { id: number; kind: "failure"; message: string };
