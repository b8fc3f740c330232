import { expect, test } from "vitest";
import { colourClasses, depthColour, OVERLAY_OPACITY, type Rgb } from "../../src/colours";
import { fixture, type Packed, plane, unpack } from "./fixtures";

// Node has no ImageData.
globalThis.ImageData ??= class {
  data: Uint8ClampedArray;
  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.data = new Uint8ClampedArray(4 * width * height);
  }
} as unknown as typeof ImageData;

const { overlay, depth } = fixture<{
  overlay: { palette: Rgb[]; image: Packed; classes: Packed; output: Packed };
  depth: { near_m: number; far_m: number; metres: Packed; output: Packed };
}>("colours");

test("class colours over a photograph are those of Python's overlay; unknown classes leave the photograph", () => {
  const colours = colourClasses(plane(overlay.classes, unpack(overlay.classes) as Uint16Array), overlay.palette, null);
  const [image, expected] = [unpack(overlay.image) as Uint8Array, unpack(overlay.output) as Uint8Array];
  for (let pixel = 0; pixel < image.length / 3; pixel++) {
    const opacity = OVERLAY_OPACITY * (colours.data[pixel * 4 + 3]! / 255);
    for (let channel = 0; channel < 3; channel++) {
      const mixed = image[pixel * 3 + channel]! * (1 - opacity) + colours.data[pixel * 4 + channel]! * opacity;
      expect(Math.abs(mixed - expected[pixel * 3 + channel]!)).toBeLessThan(1.01);
    }
  }
});

test("a highlighted class keeps its colour and the others fade", () => {
  const map = { data: Uint16Array.of(0, 1, 2), width: 3, height: 1 };
  const { data } = colourClasses(map, overlay.palette, 1);
  expect([data[3], data[7], data[11]]).toEqual([40, 255, 40]);
});

test("depth colours are Python's, black where there is no reading", () => {
  const metres = unpack(depth.metres) as Float32Array;
  const found = Array.from(metres).flatMap((value) => [...depthColour(value, depth.near_m, depth.far_m)]);
  const expected = Array.from(unpack(depth.output) as Uint8Array);
  expect(Math.max(...found.map((value, at) => Math.abs(value - expected[at]!)))).toBeLessThanOrEqual(1);
  expect(depthColour(0, 1, 2)).toEqual([0, 0, 0]);
});
