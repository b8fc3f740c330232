/** What class scores say about one pixel. */

export interface Scores {
  /** [C,h,w], before the softmax, at a fraction of the map's resolution. */
  data: Float32Array;
  classes: number;
  width: number;
  height: number;
}

/**
 * Probability of a class at a position given as shares 0..1 of width and height: softmax of the scores, interpolated
 * bilinearly as the model does before it picks the class.
 */
export function probabilityAt(scores: Scores, x: number, y: number, index: number): number {
  return softmax(interpolate(scores, x, y))[index]!;
}

/** The score of each class at a position given as shares 0..1 of width and height, interpolated bilinearly. */
export function interpolate(scores: Scores, x: number, y: number): number[] {
  const [left, right, across] = neighbours(x, scores.width);
  const [top, bottom, down] = neighbours(y, scores.height);
  return Array.from({ length: scores.classes }, (_, plane) => {
    const at = (row: number, column: number) => scores.data[(plane * scores.height + row) * scores.width + column]!;
    const upper = at(top, left) * (1 - across) + at(top, right) * across;
    const lower = at(bottom, left) * (1 - across) + at(bottom, right) * across;
    return upper * (1 - down) + lower * down;
  });
}

function neighbours(share: number, size: number): [number, number, number] {
  const position = Math.min(size - 1, Math.max(0, share * size - 0.5));
  const low = Math.floor(position);
  return [low, Math.min(low + 1, size - 1), position - low];
}

export function softmax(values: readonly number[]): number[] {
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
