import { expect, test } from "vitest";
import { type Artifact, checkArtifact, inputSize, LARGEST_MODEL_BYTES } from "../../src/artifact";
import { asTaken } from "../../src/pixels";

function artifact(changes: object): Artifact & { schema_version: number } {
  const files = { "model.onnx": { sha256: "", bytes: 1000 } };
  const input = { name: "image", shape: [1, 64, 96, 3], dtype: "uint8", meaning: "" };
  return { name: "a", schema_version: 1, runtime: "onnx", task: "segment", files, input, ...changes } as never;
}

test("an artifact that this page cannot run is refused in words", () => {
  expect(() => checkArtifact(artifact({}), "segment")).not.toThrow();
  expect(() => checkArtifact(artifact({}), "depth")).toThrow("task: found segment, expected depth");
  expect(() => checkArtifact(artifact({ runtime: "coreml" }), "segment")).toThrow("found coreml, expected onnx");
  expect(() => checkArtifact(artifact({ schema_version: 2 }), "segment")).toThrow("schema_version: found 2");
  const huge = { "model.onnx": { sha256: "", bytes: LARGEST_MODEL_BYTES + 1 } };
  expect(() => checkArtifact(artifact({ files: huge }), "segment")).toThrow("too large");
});

test("uint8 models take pixels, float models take planes in 0..1", () => {
  const image = { data: Uint8Array.of(0, 51, 255, 102, 153, 204), width: 2, height: 1 };
  const uint8 = artifact({}).input;
  expect(asTaken(image, uint8)).toBe(image.data);
  const float = { ...uint8, dtype: "float32", shape: [1, 3, 64, 96] };
  expect(asTaken(image, float)).toEqual(Float32Array.of(0, 0.4, 0.2, 0.6, 1, 0.8));
  expect([uint8, float].map((input) => inputSize(artifact({ input })))).toEqual([
    { height: 64, width: 96 },
    { height: 64, width: 96 },
  ]);
});
