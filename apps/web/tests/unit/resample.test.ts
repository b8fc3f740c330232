import { expect, test } from "vitest";
import { cropRgb } from "../../src/pixels";
import { resizeClasses, resizeMetres, resizeRgb } from "../../src/resample";
import { fixture, type Packed, plane, unpack } from "./fixtures";

interface Case {
  kind: "image" | "crop" | "classes" | "metres";
  input: Packed;
  output: Packed;
}

const cases = fixture<Case[]>("resizing").map((one) => {
  const name = `${one.kind} ${one.input.shape} -> ${one.output.shape}`;
  return { name, ...one };
});

test.each(cases)("resizing gives Pillow's numbers: $name", ({ kind, input, output }) => {
  const [height, width] = output.shape as [number, number];
  const [taken, expected] = [unpack(input), unpack(output)];
  if (kind === "image" || kind === "crop") {
    const resize = kind === "image" ? resizeRgb : cropRgb;
    expect(resize(plane(input, taken as Uint8Array), width, height).data).toEqual(expected);
  } else if (kind === "classes") {
    const found = resizeClasses(plane(input, Uint16Array.from(taken as Int32Array)), width, height);
    expect(Array.from(found.data)).toEqual(Array.from(expected as Int32Array));
  } else {
    const found = resizeMetres(plane(input, taken as Float32Array), width, height).data;
    found.forEach((value, at) => {
      expect(Math.abs(value - (expected[at] as number))).toBeLessThanOrEqual(1e-6 * value);
    });
  }
});
