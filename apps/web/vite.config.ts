import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { defineConfig, type Plugin } from "vite";

// The two variants that the page can need; the runtime loads its .wasm from beside the .mjs. They are shipped as they
// are: the runtime starts its threads from its own file, which a bundler would have merged with ours.
const RUNTIME_FILES = [
  "ort.wasm.bundle.min.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.bundle.min.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
];

function runtimeFiles(): Plugin {
  const folder = dirname(createRequire(import.meta.url).resolve("onnxruntime-web/wasm"));
  return {
    name: "runtime-files",
    generateBundle() {
      for (const name of RUNTIME_FILES) {
        this.emitFile({ type: "asset", fileName: `runtime/${name}`, source: readFileSync(join(folder, name)) });
      }
    },
  };
}

export default defineConfig({
  base: "./", // the build may lie in any folder of any file host
  build: { target: "es2022", modulePreload: { polyfill: false }, chunkSizeWarningLimit: 200 },
  worker: { format: "es" },
  plugins: [runtimeFiles()],
});
