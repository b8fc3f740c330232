/** artifact.json, as mobileclip_dense/artifact/artifact.py writes it, and models/index.json, which lists them. */

import type { Rgb } from "./colours";
import contract from "./contract.json";
import { download, megabytes, type Progress, reach, requireSha256, sha256 } from "./download";
import { Failure } from "./failure";

export type Task = "segment" | "depth" | "embed-image" | "embed-text";

export interface TensorSpec {
  name: string;
  shape: number[];
  dtype: string;
  meaning: string;
}

export interface Artifact {
  name: string;
  runtime: string;
  precision: string;
  task: Task;
  architecture: string;
  input: TensorSpec;
  outputs: TensorSpec[];
  class_names: string[];
  palette: Rgb[];
  max_depth_m: number | null;
  logit_scale: number | null;
  num_parameters: number;
  parent: { run: string; weights_sha256: string };
  files: Record<string, { sha256: string; bytes: number }>;
  /** Of artifact.json itself: the artifact's identity. */
  sha256: string;
}

export interface IndexEntry {
  name: string;
  task: Task;
  precision: string;
  run: string;
  weights_sha256: string;
  bytes: number;
  sha256: string;
}

export interface Index {
  artifacts: IndexEntry[];
  /** By folder, why an artifact is not on the page. */
  left_out?: Record<string, string>;
}

/** WebAssembly addresses 4 GB and a model is held twice while it loads; on most phones a tab ends long before. */
export const LARGEST_MODEL_BYTES = 1e9;

/** The artifacts that were bundled with the page, and those that could not be. */
export async function loadIndex(): Promise<Index> {
  const response = await reach("models/index.json", "models/index.json");
  // A host of single-page applications answers with its start page instead of 404.
  const index = response.ok ? ((await response.json().catch(() => null)) as Index | null) : null;
  if (!index) throw new Failure("models/index.json: missing or damaged. Build the page with “make web”.");
  return index;
}

/** Height and width of the image that the model takes. */
export function inputSize(artifact: Artifact): { height: number; width: number } {
  const [height, width] = artifact.input.shape.slice(artifact.input.dtype === "uint8" ? 1 : 2);
  return { height: height!, width: width! };
}

/** Fetch artifact.json, refusing one that is not what the index promised, or that this page cannot run. */
export async function loadArtifact(base: string, entry: IndexEntry): Promise<Artifact> {
  const url = `${base}models/${encodeURIComponent(entry.name)}/artifact.json`;
  const response = await reach(url, `${entry.name}/artifact.json`);
  if (!response.ok) throw new Failure(`${entry.name}/artifact.json: missing on the server. Bundle the artifact again.`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  await requireSha256(bytes, entry.sha256, `${entry.name}/artifact.json`);
  const artifact = JSON.parse(new TextDecoder().decode(bytes)) as Artifact & { schema_version: number };
  checkArtifact(artifact, entry.task);
  return { ...artifact, sha256: await sha256(bytes) };
}

/** Throws a Failure if the artifact is of another schema, task or runtime, or too large for a browser. */
export function checkArtifact(artifact: Artifact & { schema_version: number }, task: Task): void {
  const { name } = artifact;
  const expect = (field: string, found: unknown, expected: unknown) => {
    if (found !== expected)
      throw new Failure(`${name}: ${field}: found ${found}, expected ${expected}. Export it again.`);
  };
  expect("schema_version", artifact.schema_version, contract.artifact_schema_version);
  expect("runtime", artifact.runtime, "onnx");
  expect("task", artifact.task, task);
  const bytes = artifact.files["model.onnx"]?.bytes;
  if (bytes === undefined) throw new Failure(`${name}: files: model.onnx is not listed. Export it again.`);
  if (bytes > LARGEST_MODEL_BYTES) {
    throw new Failure(
      `${name}: too large: found ${megabytes(bytes)}, a browser can take ${megabytes(LARGEST_MODEL_BYTES)}. Export a smaller model, e.g. in int8 or pruned.`,
    );
  }
}

/** Fetch and verify one file of an artifact. */
export async function loadFile(
  base: string,
  artifact: Artifact,
  file: string,
  progress: Progress = () => {},
): Promise<Uint8Array<ArrayBuffer>> {
  const expected = artifact.files[file];
  if (!expected) throw new Failure(`${artifact.name}: files: ${file} is not listed. Export the artifact again.`);
  const url = `${base}models/${encodeURIComponent(artifact.name)}/${file}`;
  const bytes = await download(url, expected.bytes, progress);
  await requireSha256(bytes, expected.sha256, `${artifact.name}/${file}`);
  return bytes;
}
