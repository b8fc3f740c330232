/** The result file, as mobileclip_dense/contract/result.py checks it. */

import { NUM_WARMUP } from "./checking";
import contract from "./contract.json";
import type { Loaded } from "./messages";
import type { Latency } from "./statistics";

export interface ResultFile {
  schema_version: number;
  artifact: string;
  artifact_sha256: string;
  device: string;
  system: string;
  runtime: string;
  versions: Record<string, string>;
  num_warmup: number;
  peak_memory_mb: null;
  latency_ms_by_threads: Record<string, Latency>;
}

/** `cores`: of this machine, as the browser tells; the processor's name it does not tell. */
export function resultFile(
  loaded: Loaded,
  latency: Latency,
  runtimeVersion: string,
  userAgent: string,
  cores: number,
): ResultFile {
  return {
    schema_version: contract.result_schema_version,
    artifact: loaded.artifact.name,
    artifact_sha256: loaded.artifact.sha256,
    device: deviceName(userAgent, cores),
    system: userAgent,
    runtime: `onnxruntime-web ${loaded.provider}`,
    versions: { "onnxruntime-web": runtimeVersion },
    num_warmup: NUM_WARMUP,
    peak_memory_mb: null,
    latency_ms_by_threads: { [String(loaded.threads)]: latency },
  };
}

/** Browser, system and cores as a part of a file name, e.g. chrome-156-linux-2-cores. */
export function deviceName(userAgent: string, cores: number): string {
  const browser = /(Edg|Firefox|HeadlessChrome|Chrome)\/(\d+)/.exec(userAgent) ?? /(Safari)\/(\d+)/.exec(userAgent);
  const system = /Android|iPhone|iPad|Windows|Mac OS X|Linux/.exec(userAgent)?.[0] ?? "unknown";
  const parts = [browser?.[1] ?? "browser", browser?.[2] ?? "", system, `${cores} cores`];
  return parts
    .join("-")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-");
}
