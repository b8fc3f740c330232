/** ONNX Runtime in this browser: on the GPU through WebGPU where there is one, otherwise in WebAssembly. */

import type * as Ort from "onnxruntime-web";
import { reach, unreachable } from "./download";
import { Failure } from "./failure";

export type Provider = "webgpu" | "wasm";

export interface Runtime {
  ort: typeof Ort;
  /** What sessions are made with, best first. */
  providers: Provider[];
  threads: number;
}

const MOST_THREADS = 8; // beyond that a phone's slow cores hold up its fast ones

/**
 * Load the variant of the runtime that this browser can use; only that one is downloaded.
 *
 * base: URL of the page's folder. wanted: null to choose.
 */
export async function loadRuntime(base: string, wanted: Provider | null): Promise<Runtime> {
  const provider = wanted ?? ((await hasGpu()) ? "webgpu" : "wasm");
  const file = provider === "webgpu" ? "ort.webgpu.bundle.min.mjs" : "ort.wasm.bundle.min.mjs";
  let ort: typeof Ort;
  try {
    ort = (await import(/* @vite-ignore */ `${base}runtime/${file}`)) as typeof Ort;
  } catch {
    await reach(`${base}runtime/${file}`, `runtime/${file}`);
    throw new Failure(`runtime/${file}: cannot be loaded. Build the page again with “make web”.`);
  }
  // Threads share memory, which a browser allows only to a page that is isolated from other origins.
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  return { ort, providers: provider === "webgpu" ? ["webgpu", "wasm"] : ["wasm"], threads };
}

async function hasGpu(): Promise<boolean> {
  const { gpu } = navigator;
  if (!gpu) return false;
  const adapter = await gpu.requestAdapter().catch(() => null);
  return adapter !== null && !adapter.info?.isFallbackAdapter; // older browsers do not tell; a GPU emulated on the CPU is slower than WebAssembly
}

/** A session on the first provider that takes the model. Throws a Failure if none has the memory for it. */
export async function createSession(
  runtime: Runtime,
  model: Uint8Array,
  name: string,
): Promise<{ session: Ort.InferenceSession; provider: Provider }> {
  let last: unknown;
  for (const provider of runtime.providers) {
    try {
      const session = await runtime.ort.InferenceSession.create(model, {
        executionProviders: [provider],
        logSeverityLevel: 3,
      });
      return { session, provider };
    } catch (error) {
      last = error;
    }
  }
  throw modelFailure(last, name);
}

/** In words for a user: what a model that could not be loaded or run means. */
export function modelFailure(error: unknown, name: string): Error {
  const text = String(error instanceof Error ? error.message : error);
  if (/failed to fetch|networkerror|load failed/i.test(text)) return unreachable("runtime"); // its .wasm file
  if (error instanceof RangeError || /memory|bad_alloc|allocat|^\d+$/i.test(text)) {
    return new Failure(`${name}: too large: this browser ran out of memory. Close other tabs, or try a smaller model.`);
  }
  return new Failure(`${name}: the runtime cannot use this model (${text.slice(0, 200)}).`);
}
