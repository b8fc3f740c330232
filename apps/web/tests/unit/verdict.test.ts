import { expect, test } from "vitest";
import type { NdArray } from "../../src/arrays";
import { judgeOutputs } from "../../src/verdict";

const floats = (shape: number[], data: number[]): NdArray => ({
  dtype: "float32",
  shape,
  data: Float32Array.from(data),
});
const classes = (shape: number[], data: number[]): NdArray => ({ dtype: "int32", shape, data: Int32Array.from(data) });

// Two classes on 1x2 scores: the left half of the map belongs to class 0, the right half to class 1.
const LOGITS = [4, -4, -4, 4];
const MAP = [0, 0, 1, 1];
const golden = new Map([
  ["logits", floats([1, 2, 1, 2], LOGITS)],
  ["class_map", classes([1, 1, 4], MAP)],
]);

function judge(precision: string, logits: number[], map: number[], outputs = ["logits", "class_map"]) {
  const answer = new Map([
    ["logits", floats([1, 2, 1, 2], logits)],
    ["class_map", classes([1, 1, 4], map)],
  ]);
  const rows = judgeOutputs(outputs, precision, [answer], golden);
  return rows.map(({ output, measure, passed }) => `${output} ${measure} ${passed ? "passed" : "failed"}`);
}

test("what PyTorch computed passes, output for output", () => {
  const passed = ["logits error passed", "class_map agreement passed", "class_map own scores passed"];
  for (const precision of ["fp32", "fp16", "int8"]) expect(judge(precision, LOGITS, MAP)).toEqual(passed);
});

test("a class map that is turned around, shifted or of no class fails, in int8 too", () => {
  for (const precision of ["fp32", "int8"]) {
    for (const map of [
      [1, 1, 0, 0],
      [0, 1, 1, 1],
      [0, 0, 1, 2],
      [0, 0, 1, -1],
    ]) {
      expect(judge(precision, LOGITS, map), `${map}`).toContain("class_map own scores failed");
    }
  }
  expect(judge("fp32", LOGITS, [0, 0, 0, 1])).toContain("class_map agreement failed");
  expect(judge("int8", LOGITS, [1, 1, 0, 0])).toContain("class_map agreement failed");
});

test("scores that are nearly equal may go to either class", () => {
  const near = [4, 0.001, -4, 0]; // in the right half a breath between the classes
  expect(judge("int8", near, [0, 0, 0, 1])).toContain("class_map own scores passed");
  expect(judge("int8", near, [1, 0, 0, 0])).toContain("class_map own scores failed");
});

test("every output of floats is judged, the second as the first, and a number that is none fails", () => {
  const outputs = ["depth_m", "spare"];
  const right = floats([1, 2], [1, 2]);
  const expected = new Map([
    ["depth_m", right],
    ["spare", right],
  ]);
  for (const [values, passed] of [
    [[1, 2], true],
    [[1, 2.1], false],
    [[1, Number.NaN], false],
  ] as const) {
    const answer = new Map([
      ["depth_m", right],
      ["spare", floats([1, 2], [...values])],
    ]);
    const rows = judgeOutputs(outputs, "fp32", [answer], expected);
    expect(rows.map((row) => row.passed)).toEqual([true, passed]);
  }
});

test("all examples count", () => {
  const two = new Map([["depth_m", floats([2, 1], [1, 1])]]);
  const answers = [1, 5].map((value) => new Map([["depth_m", floats([1, 1], [value])]]));
  expect(judgeOutputs(["depth_m"], "int8", answers, two)[0]!.passed).toBe(false);
});

test("an output that is missing or of another shape is named", () => {
  const answer = new Map([["depth_m", floats([1, 2], [1, 2])]]);
  const expected = new Map([["depth_m", floats([1, 3], [1, 2, 3])]]);
  expect(() => judgeOutputs(["depth_m"], "fp32", [answer], expected)).toThrow("depth_m: found the shape 1,2, expected");
  expect(() => judgeOutputs(["other"], "fp32", [answer], expected)).toThrow("golden.npz: other: missing");
  expect(() => judgeOutputs(["depth_m"], "fp32", [new Map()], expected)).toThrow("output depth_m: the model does not");
  expect(() => judgeOutputs(["depth_m"], "fp32", [], expected)).toThrow("input: found no example");
  expect(() => judgeOutputs([], "fp32", [answer], expected)).toThrow("outputs: found none");
});
