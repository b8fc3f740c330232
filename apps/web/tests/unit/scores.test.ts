import { expect, test } from "vitest";
import { probabilityAt, softmax } from "../../src/scores";

const scores = { data: Float32Array.of(0, 2, 0, 2, 1, 1, 1, 1), classes: 2, width: 2, height: 2 };

test("the probability of a pixel interpolates the scores before the softmax", () => {
  expect(probabilityAt(scores, 0.5, 0.5, 0)).toBeCloseTo(0.5, 12); // scores 1 and 1, halfway between the columns
  expect(probabilityAt(scores, 0.75, 0.3, 0)).toBeCloseTo(Math.E / (1 + Math.E), 6); // the centre of the right column
  expect(probabilityAt(scores, 1, 1, 1)).toBeCloseTo(1 / (1 + Math.E), 6); // the border repeats the last column
});

test("softmax does not overflow", () => {
  expect(softmax([1000, 1000])).toEqual([0.5, 0.5]);
});
