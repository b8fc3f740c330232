/** Whether a model computes what PyTorch computed: every output is judged, as mobileclip_dense/deploy/parity.py does. */

import type { NdArray } from "./arrays";
import contract from "./contract.json";
import { Failure } from "./failure";
import type { CheckRow } from "./messages";
import { limitsOf, relativeError } from "./parity";
import { interpolate, type Scores } from "./scores";

/** Of each example: outputs by name, each with a leading batch of one. */
export type Answers = readonly ReadonlyMap<string, NdArray>[];

/**
 * A row for each figure of each output. Throws a Failure if the model or golden.npz lacks an output, or has it in
 * another shape.
 */
export function judgeOutputs(
  outputs: readonly string[],
  precision: string,
  answers: Answers,
  golden: ReadonlyMap<string, NdArray>,
): CheckRow[] {
  if (answers.length === 0) throw new Failure("golden.npz: input: found no example. Export the artifact again.");
  if (outputs.length === 0) throw new Failure("artifact.json: outputs: found none. Export the artifact again.");
  return outputs.flatMap((output) => {
    const expected = golden.get(output);
    if (!expected) throw new Failure(`golden.npz: ${output}: missing. Export the artifact again.`);
    const found = answers.map((answer) => pick(answer, output, expected));
    if (expected.dtype === "float32") return [judgeNumbers(output, precision, found, expected)];
    const logits = outputs.includes("logits") ? answers.map((answer) => scoresOf(answer.get("logits"))) : null;
    return judgeClasses(output, precision, found, expected, logits);
  });
}

function pick(answer: ReadonlyMap<string, NdArray>, output: string, expected: NdArray): NdArray {
  const found = answer.get(output);
  if (!found) throw new Failure(`output ${output}: the model does not give it. Export the artifact again.`);
  const wanted = [1, ...expected.shape.slice(1)];
  if (`${found.shape}` !== `${wanted}`) {
    throw new Failure(
      `output ${output}: found the shape ${found.shape}, expected ${wanted}. Export the artifact again.`,
    );
  }
  return found;
}

function judgeNumbers(output: string, precision: string, found: NdArray[], expected: NdArray): CheckRow {
  const figure = relativeError(joined(found), expected.data as Float32Array);
  const limit = limitsOf(precision).max_relative_error;
  return { output, measure: "error", figure, limit, passed: figure <= limit };
}

function judgeClasses(
  output: string,
  precision: string,
  found: NdArray[],
  expected: NdArray,
  logits: readonly Scores[] | null,
): CheckRow[] {
  const classes = joined(found);
  let agreeing = 0;
  for (let at = 0; at < classes.length; at++) if (classes[at] === Number(expected.data[at])) agreeing++;
  const limit = limitsOf(precision).min_agreement_percent;
  const figure = (agreeing / expected.data.length) * 100;
  const rows: CheckRow[] = [{ output, measure: "agreement", figure, limit, passed: figure >= limit }];
  if (logits) {
    const shares = found.map((map, index) => ownClassesPercent(map, logits[index]!));
    const percent = shares.reduce((sum, share) => sum + share, 0) / shares.length;
    const least = contract.min_logits_agreement_percent;
    rows.push({ output, measure: "own scores", figure: percent, limit: least, passed: percent >= least });
  }
  return rows;
}

/**
 * Percent of the pixels of a class map [1,H,W] whose class has the best of the interpolated scores, or nearly.
 *
 * stride: looks at every so many pixels along both axes.
 */
export function ownClassesPercent(map: Pick<NdArray, "shape" | "data">, scores: Scores, stride = 1): number {
  const [height, width] = map.shape.slice(-2) as [number, number];
  let squares = 0;
  for (const score of scores.data) squares += score * score;
  const tie = contract.near_tie * Math.sqrt(squares / scores.data.length);
  let [agreeing, checked] = [0, 0];
  for (let y = 0; y < height; y += stride) {
    for (let x = 0; x < width; x += stride, checked++) {
      const values = interpolate(scores, (x + 0.5) / width, (y + 0.5) / height);
      const own = values[Number(map.data[y * width + x])];
      if (own !== undefined && Math.max(...values) - own <= tie) agreeing++;
    }
  }
  return (agreeing / checked) * 100;
}

function scoresOf(logits: NdArray | undefined): Scores {
  if (!logits) throw new Failure("output logits: the model does not give it. Export the artifact again.");
  const [classes, height, width] = logits.shape.slice(-3) as [number, number, number];
  return { data: logits.data as Float32Array, classes, width, height };
}

function joined(arrays: readonly NdArray[]): Float64Array {
  const all = new Float64Array(arrays.reduce((sum, { data }) => sum + data.length, 0));
  let at = 0;
  for (const { data } of arrays) for (const value of data) all[at++] = Number(value);
  return all;
}
