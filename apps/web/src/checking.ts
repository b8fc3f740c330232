/** A model against its golden.npz, and against the clock. */

import { type DType, example, type NdArray } from "./arrays";
import { Failure } from "./failure";
import type { CheckReport } from "./messages";
import type { Model, Outputs } from "./models";
import { type Latency, summarize } from "./statistics";
import { judgeOutputs } from "./verdict";

export const NUM_WARMUP = 5;

/** Run every golden input and judge every output, as mobileclip_dense/deploy/parity.py does. */
export async function checkGolden(model: Model): Promise<CheckReport> {
  const golden = await model.golden();
  const input = golden.get("input");
  if (!input) throw new Failure("golden.npz: input is missing. Export the artifact again.");
  const answers: Map<string, NdArray>[] = [];
  for (let index = 0; index < input.shape[0]!; index++) {
    answers.push(copy(await model.run(example(input, index).data)));
  }
  const { outputs, precision } = model.artifact;
  const rows = judgeOutputs(
    outputs.map(({ name }) => name),
    precision,
    answers,
    golden,
  );
  return { examples: answers.length, rows, passed: rows.every((row) => row.passed) };
}

/** The runtime may reuse its memory at the next run. */
function copy(outputs: Outputs): Map<string, NdArray> {
  return new Map(
    Object.entries(outputs).map(([name, { type, dims, data }]) => [
      name,
      { dtype: type as DType, shape: dims, data: (data as Float32Array).slice() },
    ]),
  );
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
