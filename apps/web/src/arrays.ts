/** golden.npz: a zip of NumPy arrays. */

import { unzipSync } from "fflate";

export type Values = Uint8Array | Int32Array | BigInt64Array | Float32Array;

/** An array in C order, in the machine's byte order. */
export interface NdArray {
  dtype: DType;
  shape: readonly number[];
  data: Values;
}

export type DType = "uint8" | "int32" | "int64" | "float32";

const DTYPES: Record<string, DType> = { "|u1": "uint8", "<i4": "int32", "<i8": "int64", "<f4": "float32" };
const MAKERS: Record<DType, (bytes: ArrayBuffer) => Values> = {
  uint8: (bytes) => new Uint8Array(bytes),
  int32: (bytes) => new Int32Array(bytes),
  int64: (bytes) => new BigInt64Array(bytes),
  float32: (bytes) => new Float32Array(bytes),
};

/** Arrays by name. Throws an Error that says what is wrong if it is no npz or holds another kind of array. */
export function readNpz(bytes: Uint8Array): Map<string, NdArray> {
  let files: Record<string, Uint8Array>;
  try {
    files = unzipSync(bytes);
  } catch (error) {
    throw new Error(`golden.npz: not an npz file (${error instanceof Error ? error.message : error})`);
  }
  return new Map(Object.entries(files).map(([name, file]) => [name.replace(/\.npy$/, ""), readNpy(name, file)]));
}

function readNpy(name: string, file: Uint8Array): NdArray {
  const magic = String.fromCharCode(...file.subarray(0, 6));
  if (magic !== "\x93NUMPY") throw new Error(`golden.npz: ${name}: not a NumPy array`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const wide = file[6]! >= 2; // format version 2 has a longer header
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(file.subarray(start, start + length));
  const descr = /'descr': '([^']+)'/.exec(header)?.[1] ?? "";
  const shape = /'shape': \(([^)]*)\)/.exec(header)?.[1];
  const dtype = DTYPES[descr];
  if (dtype === undefined || shape === undefined || !header.includes("'fortran_order': False")) {
    throw new Error(
      `golden.npz: ${name}: found ${header.trim()}, expected C order of ${Object.keys(DTYPES).join(" ")}`,
    );
  }
  const sizes = shape.split(",").flatMap((part) => (part.trim() === "" ? [] : [Number(part)]));
  return { dtype, shape: sizes, data: MAKERS[dtype](file.slice(start + length).buffer as ArrayBuffer) };
}

/** Example `index` of an array whose first axis counts examples, as a batch of one. */
export function example(array: NdArray, index: number): NdArray {
  const size = array.data.length / array.shape[0]!;
  const data = array.data.slice(index * size, (index + 1) * size);
  return { dtype: array.dtype, shape: [1, ...array.shape.slice(1)], data };
}
