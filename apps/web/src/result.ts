/** The result file, as mobileclip_dense/artifact/result.py checks it. */

import { NUM_WARMUP } from "./checking";
import contract from "./contract.json";
import type { Loaded } from "./messages";
import type { Latency } from "./statistics";

export interface ResultFile {
  schema_version: number;
  artifact: string;
  artifact_sha256: string;
  architecture: string;
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
    architecture: loaded.artifact.architecture,
    device: deviceName(userAgent, cores),
    system: userAgent,
    runtime: `onnxruntime-web ${loaded.provider}`,
    versions: { "onnxruntime-web": runtimeVersion },
    num_warmup: NUM_WARMUP,
    peak_memory_mb: null,
    latency_ms_by_threads: { [String(loaded.threads)]: latency },
  };
}

// The first that fits: most browsers also name those they descend from, Android names Linux, and an iPhone a Mac.
const BROWSERS: readonly [string, RegExp][] = [
  ["edge", /Edg(?:A|iOS)?\/(\d+)/],
  ["firefox", /(?:Firefox|FxiOS)\/(\d+)/],
  ["headless-chrome", /HeadlessChrome\/(\d+)/],
  ["chrome", /(?:Chrome|CriOS)\/(\d+)/],
  ["safari", /Version\/(\d+).* Safari\//],
];
const SYSTEMS = ["Android", "iPhone", "iPad", "CrOS", "Windows", "Mac OS X", "Linux"];

/** Browser, system and cores as a part of a file name, e.g. chrome-156-linux-2-cores. */
export function deviceName(userAgent: string, cores: number): string {
  const [browser, version] = BROWSERS.find(([, pattern]) => pattern.test(userAgent)) ?? ["browser", /$^/];
  const system = SYSTEMS.find((name) => userAgent.includes(name)) ?? "unknown";
  return [browser, version.exec(userAgent)?.[1] ?? "", system, `${cores} cores`]
    .join("-")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-");
}
