import { readFileSync } from "node:fs";
import type { Plane } from "../../src/resample";

export interface Packed {
  dtype: string;
  shape: number[];
  base64: string;
}

const ARRAYS = {
  uint8: Uint8Array,
  uint16: Uint16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float32: Float32Array,
};

/** What Python computed; written by `python -m tests.apps.web_fixtures`. */
export function fixture<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../fixtures/${name}.json`, import.meta.url), "utf8")) as T;
}

export function unpack(packed: Packed) {
  const bytes = Uint8Array.from(Buffer.from(packed.base64, "base64"));
  return new ARRAYS[packed.dtype as keyof typeof ARRAYS](bytes.buffer);
}

export function plane<T extends Uint8Array | Uint16Array | Float32Array>(packed: Packed, data: T): Plane<T> {
  return { data, width: packed.shape[1]!, height: packed.shape[0]! };
}
