/** What the page says when something is wrong. */

import { createHash } from "node:crypto";
import { unzipSync, zipSync } from "fflate";
import type { Browser, Page, Route } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from "vitest";
import { photograph } from "../line";
import { chooseTask, drop, launch, nextPrediction, openPage } from "./browser";

let browser: Browser;
let page: Page;

beforeAll(async () => {
  browser = await launch(); // without a camera
});
afterAll(() => browser.close());
beforeEach(async () => {
  page = await browser.newPage();
});
afterEach(() => page.close());

const SEGMENT = "nano-segment-ade-64x64-fp32.onnx";

async function failure(): Promise<string> {
  await page.waitForSelector("#alert", { state: "visible" });
  return page.locator("#alert").innerText();
}

/** Answer a file of the page's server with something else. */
async function replace(path: string, answer: (route: Route, body: Buffer) => Promise<void>): Promise<void> {
  await page.context().route(`**/${path}`, async (route) => answer(route, await (await route.fetch()).body()));
}

test("a missing model is named", async () => {
  await page.context().route("**/model.onnx", (route) => route.fulfill({ status: 404, body: "" }));
  await openPage(page, inject("served"));
  expect(await failure()).toContain(`${SEGMENT}/model.onnx: missing on the server (404)`);
});

test("an altered model is not run", async () => {
  await replace("model.onnx", (route, body) => {
    body[body.length >> 1]! ^= 1;
    return route.fulfill({ body });
  });
  await openPage(page, inject("served"));
  expect(await failure()).toMatch(/model\.onnx: found sha256 \w+…, expected \w+…; the file was altered/);
});

test("a model that was cut short is not run", async () => {
  await replace("model.onnx", (route, body) => route.fulfill({ body: body.subarray(0, 1000) }));
  await openPage(page, inject("served"));
  expect(await failure()).toMatch(/model\.onnx: found 1000 bytes, expected \d+ bytes/);
});

test("an altered artifact.json is not believed", async () => {
  await replace(`${SEGMENT}/artifact.json`, (route, body) =>
    route.fulfill({ body: body.toString().replace("floor", "roof") }),
  );
  await openPage(page, inject("served"));
  expect(await failure()).toMatch(/artifact\.json: found sha256/);
});

/** Replace artifact.json, and its hash in the index with it. */
async function rewriteArtifact(
  change: (artifact: { task: string; files: Record<string, { bytes: number; sha256: string }> }) => void,
): Promise<void> {
  const changed = await (await fetch(`${inject("served")}models/${SEGMENT}/artifact.json`)).json();
  change(changed);
  const body = Buffer.from(JSON.stringify(changed));
  const digest = Buffer.from(await crypto.subtle.digest("SHA-256", body)).toString("hex");
  await replace(`${SEGMENT}/artifact.json`, (route) => route.fulfill({ body }));
  await replace("models/index.json", (route, index) => {
    const parsed = JSON.parse(index.toString());
    parsed.artifacts.find((entry: { name: string }) => entry.name === SEGMENT).sha256 = digest;
    return route.fulfill({ json: parsed });
  });
}

test("a model that is too large is not downloaded", async () => {
  const requested: string[] = [];
  page.context().on("request", (request) => requested.push(request.url()));
  await rewriteArtifact((artifact) => {
    artifact.files["model.onnx"]!.bytes = 3e9;
  });
  await openPage(page, inject("served"));
  expect(await failure()).toContain(`${SEGMENT}: too large: found 3.0 GB, a browser can take 1.0 GB`);
  expect(requested.filter((url) => url.endsWith("model.onnx"))).toEqual([]);
});

test("an artifact for another task is refused", async () => {
  await rewriteArtifact((artifact) => Object.assign(artifact, { task: "depth" }));
  await openPage(page, inject("served"));
  expect(await failure()).toContain(`${SEGMENT}: task: found depth, expected segment`);
});

test("a damaged picture is named, and the next one works", async () => {
  await nextPrediction(page, () => openPage(page, inject("served")));
  await drop(page, "damaged.jpg");
  expect(await failure()).toContain("damaged.jpg: not a picture that this browser can read");
  await nextPrediction(page, () => drop(page, "wide.png", photograph("wide.png")));
  expect(await page.locator("#alert").isHidden()).toBe(true);
});

test("without a camera it says so", async () => {
  await nextPrediction(page, () => openPage(page, inject("served")));
  await page.click("#camera");
  expect(await failure()).toMatch(/^(No camera was found|The camera was not allowed)/);
  expect(await page.locator("#camera").innerText()).toBe("Camera");
});

test("tasks without a model explain what to export", async () => {
  await replace("models/index.json", (route, index) => {
    const parsed = JSON.parse(index.toString());
    parsed.artifacts = parsed.artifacts.filter((entry: { task: string }) => !/depth|embed-text/.test(entry.task));
    return route.fulfill({ json: parsed });
  });
  await nextPrediction(page, () => openPage(page, inject("served")));
  await chooseTask(page, "depth");
  expect(await failure()).toContain("No depth model is bundled");
  await chooseTask(page, "zero-shot");
  await page.waitForFunction(() => document.querySelector("#alert")!.textContent!.includes("text tower"));
});

test("a server that is gone is said to be gone, whatever was asked of it", async () => {
  for (const path of ["models/index.json", `${SEGMENT}/artifact.json`, "model.onnx", "*.min.mjs", "*.wasm"]) {
    await page.context().route(`**/${path}`, (route) => route.abort("connectionrefused"));
    await openPage(page, inject("served"));
    expect(await failure(), path).toContain("the server cannot be reached. Is it still running?");
    await page.context().unrouteAll();
  }
  await nextPrediction(page, () => openPage(page, inject("served")));
  await page.context().route("**/*", (route) => route.abort("connectionrefused"));
  await page.click("[data-sample='meadow.jpg']");
  expect(await failure()).toContain("samples/meadow.jpg: the server cannot be reached");
  await page.click("#check summary");
  await page.click("#check-run");
  await page.waitForFunction(() => document.querySelector("#alert")!.textContent!.includes("golden.npz"));
  expect(await failure()).toContain("golden.npz: the server cannot be reached");
});

test("artifacts that were left out are named with the reason", async () => {
  await replace("models/index.json", (route, index) =>
    route.fulfill({ json: { ...JSON.parse(index.toString()), left_out: { "a copy": "model.onnx: altered" } } }),
  );
  await nextPrediction(page, () => openPage(page, inject("served")));
  expect(await page.locator("#left-out").innerText()).toBe("Left out: a copy: model.onnx: altered.");
});

test("the self-check fails where the class map is not PyTorch's, though the logits are", async () => {
  const address = `${inject("served")}models/${SEGMENT}/golden.npz`;
  const files = unzipSync(new Uint8Array(await (await fetch(address)).arrayBuffer()));
  const classes = files["class_map.npy"]!;
  for (let at = classes.length - 4; at >= 128; at -= 4) classes[at]! ^= 1; // int32 behind a header of 128 bytes
  const body = Buffer.from(zipSync(files, { level: 0 }));
  await replace(`${SEGMENT}/golden.npz`, (route) => route.fulfill({ body }));
  await rewriteArtifact((artifact) => {
    artifact.files["golden.npz"] = { bytes: body.length, sha256: createHash("sha256").update(body).digest("hex") };
  });
  await nextPrediction(page, () => openPage(page, inject("served")));
  await page.click("#check summary");
  await page.fill("#runs", "1");
  await page.click("#check-run");
  await page.waitForSelector("#check-download", { state: "visible" });
  const report = await page.locator("#check-result").innerText();
  expect(report).toContain("Failed: see below");
  expect(report).toMatch(/class_map, pixels that agree with PyTorch\s+0\.000 %\s+at least 99\.9 %/);
  expect(report).toMatch(/class_map, pixels that agree with the model’s own scores\s+100\.000 %/);
});
