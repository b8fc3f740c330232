/** A model against its golden.npz, and against the clock. */

import { example, type NdArray } from "./arrays";
import { Failure } from "./failure";
import type { CheckReport, CheckRow } from "./messages";
import type { Model } from "./models";
import { relativeError, tolerance } from "./parity";
import { type Latency, summarize } from "./statistics";

export const NUM_WARMUP = 5;

/** Run every golden input and compare with PyTorch's outputs, as export/parity.py does. */
export async function checkGolden(model: Model): Promise<CheckReport> {
  const golden = await model.golden();
  const input = golden.get("input");
  const [first] = model.artifact.outputs;
  if (!input || !first || !golden.has(first.name)) throw new Failure("golden.npz: input or first output is missing.");
  const examples = input.shape[0]!;
  const answers: Record<string, number[][]> = {};
  for (let index = 0; index < examples; index++) {
    for (const [name, tensor] of Object.entries(await model.run(example(input, index).data))) {
      answers[name] = [...(answers[name] ?? []), Array.from(tensor.data as Float32Array)];
    }
  }
  const error = relativeError((answers[first.name] ?? []).flat(), asNumbers(golden.get(first.name)!));
  const limit = tolerance(model.artifact.precision);
  const rows: CheckRow[] = [{ output: first.name, figure: error, limit, passed: error <= limit }];
  const classes = golden.get("class_map");
  if (classes && answers.class_map) {
    const found = answers.class_map.flat();
    const expected = asNumbers(classes);
    const agreeing = expected.filter((value, at) => value === found[at]).length / expected.length;
    rows.push({ output: "class_map", figure: agreeing, limit: null, passed: true });
  }
  return { examples, rows, passed: rows.every((row) => row.passed) };
}

function asNumbers(array: NdArray): number[] {
  return Array.from(array.data as Float32Array, Number);
}

/** Latency of `runs` runs on the first golden input, after NUM_WARMUP. */
export async function timeModel(model: Model, runs: number, progress: (done: number) => void): Promise<Latency> {
  const input = (await model.golden()).get("input");
  if (!input) throw new Failure("golden.npz: input is missing.");
  const { data } = example(input, 0);
  const times: number[] = [];
  for (let index = 0; index < NUM_WARMUP + runs; index++) {
    const begin = performance.now();
    await model.run(data);
    if (index >= NUM_WARMUP) times.push(performance.now() - begin);
    progress(index + 1);
  }
  return summarize(times);
}
