/** Percentile with linear interpolation between the two nearest ranks, as NumPy's default. */
export function percentile(sorted: ArrayLike<number>, percent: number): number {
  const rank = ((sorted.length - 1) * percent) / 100;
  const low = Math.floor(rank);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low]! + (sorted[high]! - sorted[low]!) * (rank - low);
}

export interface Latency {
  p50: number;
  p90: number;
  p99: number;
  mean: number;
  num_runs: number;
}

/** What mobileclip_dense/runtime/timing.py says about a list of milliseconds. */
export function summarize(timesMs: readonly number[]): Latency {
  const sorted = Float64Array.from(timesMs).sort();
  const mean = timesMs.reduce((sum, time) => sum + time, 0) / timesMs.length;
  const [p50, p90, p99] = [50, 90, 99].map((percent) => percentile(sorted, percent)) as [number, number, number];
  return { p50, p90, p99, mean, num_runs: timesMs.length };
}
