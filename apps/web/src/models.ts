/** Models that are loaded in the worker, and what can be done with one. */

import type * as Ort from "onnxruntime-web";
import { type NdArray, readNpz } from "./arrays";
import { type Artifact, type IndexEntry, inputSize, loadArtifact, loadFile } from "./artifact";
import contract from "./contract.json";
import type { Progress } from "./download";
import { Failure } from "./failure";
import type { Loaded, Prediction } from "./messages";
import { asTaken, cropRgb, dropAlpha } from "./pixels";
import { type Plane, resizeClasses, resizeMetres, resizeRgb } from "./resample";
import { createSession, modelFailure, type Runtime } from "./runtime";
import type { Scores } from "./scores";
import { ownClassesPercent } from "./verdict";

const MOST_CHECKED = 64; // pixels on a side: the page waits for it
const LEAST_OWN_CLASSES_PERCENT = contract.min_logits_agreement_percent;

export type Outputs = Ort.InferenceSession.OnnxValueMapType;

/** A session with its artifact. */
export class Model {
  private constructor(
    readonly loaded: Loaded,
    private readonly session: Ort.InferenceSession,
    private readonly ort: typeof Ort,
    private readonly base: string,
  ) {}

  get artifact(): Artifact {
    return this.loaded.artifact;
  }

  /** Download, verify, load and run once. Throws a Failure in words for a user. */
  static async load(base: string, entry: IndexEntry, runtime: Runtime, progress: Progress): Promise<Model> {
    const artifact = await loadArtifact(base, entry);
    const begin = performance.now();
    const bytes = await loadFile(base, artifact, "model.onnx", progress);
    const downloadMs = performance.now() - begin;
    const model = await Model.start(base, artifact, bytes, downloadMs, runtime);
    if (model.loaded.provider !== "webgpu" || (await model.classesFollowScores())) return model;
    await model.release();
    return Model.start(base, artifact, bytes, downloadMs, { ...runtime, providers: ["wasm"] });
  }

  private static async start(
    base: string,
    artifact: Artifact,
    bytes: Uint8Array,
    downloadMs: number,
    runtime: Runtime,
  ): Promise<Model> {
    let begin = performance.now();
    const { session, provider } = await createSession(runtime, bytes, artifact.name);
    const loadMs = performance.now() - begin;
    const loaded = { artifact, provider, threads: runtime.threads, downloadMs, loadMs, firstRunMs: 0 };
    const model = new Model(loaded, session, runtime.ort, base);
    begin = performance.now();
    await model.run(model.blank());
    loaded.firstRunMs = performance.now() - begin;
    return model;
  }

  /**
   * Whether a segmenter gives the classes of its own scores for a picture of coloured blocks. On the GPU it may not:
   * ONNX Runtime 1.30 resizes channels-last scores wrongly there, and a third of the pixels get another class.
   */
  private async classesFollowScores(): Promise<boolean> {
    if (this.artifact.task !== "segment") return true;
    const { width, height } = inputSize(this.artifact);
    const image = { data: colouredBlocks(width, height), width, height };
    const outputs = await this.run(asTaken(image, this.artifact.input));
    const scores = classScores(outputs);
    const map = classMap(outputs);
    const shape = [1, map.height, map.width];
    const stride = Math.max(1, Math.round(Math.max(map.width, map.height) / MOST_CHECKED));
    return (
      scores === null ||
      ownClassesPercent({ shape, data: Int32Array.from(map.data) }, scores, stride) >= LEAST_OWN_CLASSES_PERCENT
    );
  }

  /** Run on an input as artifact.json describes it. */
  async run(data: Ort.Tensor.DataType | NdArray["data"]): Promise<Outputs> {
    const { name, dtype, shape } = this.artifact.input;
    const tensor = new this.ort.Tensor(dtype as Ort.Tensor.Type, data as Uint8Array, shape);
    try {
      return await this.session.run({ [name]: tensor });
    } catch (error) {
      throw modelFailure(error, this.artifact.name);
    }
  }

  /** An input of zeros. */
  private blank(): Uint8Array | Float32Array | BigInt64Array {
    const { dtype, shape } = this.artifact.input;
    const size = shape.reduce((product, length) => product * length, 1);
    if (dtype === "int64") return new BigInt64Array(size);
    return dtype === "uint8" ? new Uint8Array(size) : new Float32Array(size);
  }

  /** What the model says about a photograph, at the photograph's resolution. */
  async predict(bitmap: ImageBitmap): Promise<Prediction> {
    let begin = performance.now();
    const { artifact } = this;
    const image = readPixels(bitmap);
    const { width, height } = inputSize(artifact);
    const fitted = (artifact.task === "embed-image" ? cropRgb : resizeRgb)(image, width, height);
    const taken = asTaken(fitted, artifact.input);
    const prepareMs = performance.now() - begin;
    begin = performance.now();
    const outputs = await this.run(taken);
    const timing = { prepareMs, runMs: performance.now() - begin };
    if (artifact.task === "embed-image") {
      return { kind: "embedding", embedding: floats(outputs, "image_embedding"), timing };
    }
    if (artifact.task === "depth") {
      const [mapHeight, mapWidth] = outputs.depth_m!.dims.slice(-2) as [number, number];
      const map = { data: floats(outputs, "depth_m"), width: mapWidth, height: mapHeight };
      return { kind: "depth", map: resizeMetres(map, image.width, image.height), timing };
    }
    const map = resizeClasses(classMap(outputs), image.width, image.height);
    return { kind: "segment", map, scores: classScores(outputs), timing };
  }

  /** The arrays of golden.npz. */
  async golden(): Promise<Map<string, NdArray>> {
    return readNpz(await loadFile(this.base, this.artifact, "golden.npz"));
  }

  async release(): Promise<void> {
    await this.session.release();
  }
}

/** 8 x 8 blocks of different colours, RGB: many classes, with borders between them. */
function colouredBlocks(width: number, height: number): Uint8Array {
  return Uint8Array.from({ length: 3 * width * height }, (_, at) => {
    const pixel = Math.floor(at / 3);
    const column = Math.floor(((pixel % width) * 8) / width);
    const row = Math.floor((Math.floor(pixel / width) * 8) / height);
    return (Math.imul(row * 24 + column * 3 + (at % 3) + 1, 2654435761) >>> 16) & 0xff;
  });
}

/** Copies, since the runtime may reuse its memory. */
function floats(outputs: Outputs, name: string): Float32Array {
  const tensor = outputs[name];
  if (!tensor) throw new Failure(`output ${name}: the model does not give it. Export the artifact again.`);
  return new Float32Array(tensor.data as Float32Array);
}

function classMap(outputs: Outputs): Plane<Uint16Array> {
  const tensor = outputs.class_map;
  if (!tensor) throw new Failure("output class_map: the model does not give it. Export the artifact again.");
  const [height, width] = tensor.dims.slice(-2) as [number, number];
  return { data: Uint16Array.from(tensor.data as Int32Array), width, height };
}

function classScores(outputs: Outputs): Scores | null {
  const tensor = outputs.logits;
  if (!tensor) return null;
  const [classes, height, width] = tensor.dims.slice(-3) as [number, number, number];
  return { data: floats(outputs, "logits"), classes, width, height };
}

function readPixels(bitmap: ImageBitmap): Plane<Uint8Array> {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Failure("This browser provides no canvas to read pixels; it may be out of memory.");
  context.fillStyle = "white"; // behind transparent parts
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return dropAlpha(context.getImageData(0, 0, width, height).data, width, height);
}
