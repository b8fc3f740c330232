/** The GPU's path, on a GPU that chromium emulates: slow, but the same kernels. */

import { expect, inject, test } from "vitest";
import { chooseTask, launch, nextPrediction, openPage } from "./browser";

const EMULATED = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
const PATIENCE_MS = 120_000;

test(
  "WebGPU computes what PyTorch computed, and a model that it computes wrongly runs on the CPU; an emulated GPU is not chosen unless asked for",
  async () => {
    const browser = await launch(EMULATED);
    let page = await browser.newPage();
    await nextPrediction(page, () => openPage(page, inject("served")));
    expect(await page.locator("#latency").innerText()).toContain("WebAssembly");
    await page.close();
    page = await browser.newPage();
    await nextPrediction(page, () => openPage(page, `${inject("served")}?provider=webgpu`), PATIENCE_MS);
    await page.click("#check summary");
    await page.fill("#runs", "1");
    // The segmenter's scores are resized channels last, in which ONNX Runtime's kernel for the GPU is wrong.
    for (const [task, place] of [
      ["segment", "WebAssembly"],
      ["depth", "WebGPU"],
    ] as const) {
      if (task === "depth") await nextPrediction(page, () => chooseTask(page, task), PATIENCE_MS);
      expect(await page.locator("#latency").innerText()).toContain(place);
      await page.click("#check-run");
      await page.waitForSelector("#check-download", { state: "visible", timeout: PATIENCE_MS });
      expect(await page.locator("#check-result").innerText()).toContain("Passed");
    }
    await browser.close();
  },
  3 * PATIENCE_MS,
);
