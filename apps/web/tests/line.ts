import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The folder that `python -m tests.apps.web_line` wrote; `make test-web` names it. */
export const LINE = process.env.WEB_TEST_LINE ?? "";
if (!LINE) throw new Error("WEB_TEST_LINE is not set; run these tests with: make test-web");

export interface Expected {
  height: number;
  width: number;
  probabilities: number[];
}

export const expected = JSON.parse(readFileSync(join(LINE, "expected", "expected.json"), "utf8")) as Record<
  string,
  Expected
> & {
  tokens: [string, number[]][];
  labels: string[];
};

export function photograph(name: string): Buffer {
  return readFileSync(join(LINE, "photographs", name));
}

export function expectedMap(photo: string, task: "segment" | "depth"): Uint16Array | Float32Array {
  const bytes = Uint8Array.from(readFileSync(join(LINE, "expected", `${photo}-${task}.bin`)));
  return task === "segment" ? new Uint16Array(bytes.buffer) : new Float32Array(bytes.buffer);
}
