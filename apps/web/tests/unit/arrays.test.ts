import { expect, test } from "vitest";
import { example, readNpz } from "../../src/arrays";
import { limitsOf, relativeError } from "../../src/parity";
import { percentile, summarize } from "../../src/statistics";
import { fixture, type Packed, unpack } from "./fixtures";

const arrays = fixture<{
  arrays: Record<string, Packed>;
  stored: string;
  compressed: string;
  other: Packed;
  relative_error: number;
}>("arrays");

test.each(["stored", "compressed"] as const)("a %s npz file gives NumPy's arrays", (kind) => {
  const found = readNpz(Uint8Array.from(Buffer.from(arrays[kind], "base64")));
  expect([...found.keys()].sort()).toEqual(Object.keys(arrays.arrays).sort());
  for (const [name, packed] of Object.entries(arrays.arrays)) {
    expect(found.get(name)).toEqual({ dtype: packed.dtype, shape: packed.shape, data: unpack(packed) });
  }
});

test("an example of an array is a batch of one", () => {
  const input = readNpz(Uint8Array.from(Buffer.from(arrays.stored, "base64"))).get("input")!;
  const second = example(input, 1);
  expect(second.shape).toEqual([1, 3, 4, 3]);
  expect(second.data).toEqual(input.data.slice(36));
});

test("a damaged npz file is named", () => {
  const bytes = Uint8Array.from(Buffer.from(arrays.compressed, "base64"));
  expect(() => readNpz(bytes.subarray(0, 90))).toThrow(/golden\.npz: not an npz file/);
});

test("the relative error is Python's", () => {
  const logits = unpack(arrays.arrays.logits!) as Float32Array;
  const other = unpack(arrays.other) as Float32Array;
  expect(relativeError(other, logits)).toBeCloseTo(arrays.relative_error, 12);
});

test("a shorter or non-finite answer never passes", () => {
  for (const found of [[1], [1, Number.NaN]])
    expect(relativeError(found, [1, 2]) <= limitsOf("int8").max_relative_error).toBe(false);
});

test("the limits follow the precision", () => {
  expect(["fp32", "fp16", "int8"].map((name) => limitsOf(name).max_relative_error)).toEqual([1e-4, 1e-2, 0.5]);
  expect(() => limitsOf("int3")).toThrow("precision: found int3, expected one of fp32, fp16, int8");
});

test("percentiles interpolate between ranks", () => {
  expect(percentile([1, 2, 3, 4], 50)).toBe(2.5);
  expect(percentile([10, 20], 90)).toBeCloseTo(19);
  expect(summarize([3, 1, 2])).toEqual({ p50: 2, p90: 2.8, p99: 2.98, mean: 2, num_runs: 3 });
});
