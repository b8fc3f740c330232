/** How far a model is from PyTorch, judged as mobileclip_dense/deploy/parity.py does. */

import contract from "./contract.json";
import { Failure } from "./failure";

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

/** What an artifact may differ by from PyTorch. */
export interface Limits {
  max_relative_error: number;
  min_agreement_percent: number;
}

/** The limits of an artifact's precision. */
export function limitsOf(precision: string): Limits {
  const known = contract.precisions as Record<string, Limits>;
  const found = known[precision];
  if (!found) {
    throw new Failure(`precision: found ${precision}, expected one of ${Object.keys(known).join(", ")}.`);
  }
  return found;
}
