/** What the page says when something is wrong. */

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
  change: (artifact: { task: string; files: Record<string, { bytes: number }> }) => void,
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
