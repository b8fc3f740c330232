/** How far a model is from PyTorch, judged as mobileclip_dense/deploy/parity.py does. */

import contract from "./contract.json";

/** Norm of the difference over the norm of `expected`; NaN where `found` is not finite. */
export function relativeError(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (found.length !== expected.length) return Number.NaN;
  let [difference, norm] = [0, 0];
  for (let at = 0; at < expected.length; at++) {
    difference += (found[at]! - expected[at]!) ** 2;
    norm += expected[at]! ** 2;
  }
  return Math.sqrt(difference) / Math.max(Math.sqrt(norm), 1e-30);
}

/** Largest relative error of an output of floats that passes, by the artifact's precision. */
export function tolerance(precision: string): number {
  return (contract.tolerance as Record<string, number>)[precision] ?? contract.tolerance_compressed;
}
