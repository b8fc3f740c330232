/** The page as a user meets it. */

import { spawnSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, inject, test } from "vitest";
import { chooseTask, drop, launch, nextPrediction, OUTPUT, openPage, switchTask } from "./browser";

let browser: Browser;
let page: Page;

beforeAll(async () => {
  browser = await launch(["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]);
});
afterAll(() => browser.close());
afterEach(() => page.close());

async function open(
  options: { width?: number; height?: number; scheme?: "light" | "dark"; address?: string } = {},
): Promise<void> {
  const viewport = { width: options.width ?? 1440, height: options.height ?? 900 };
  page = await browser.newPage({ viewport, colorScheme: options.scheme ?? "light", acceptDownloads: true });
  const begin = performance.now();
  await nextPrediction(page, () => openPage(page, options.address ?? inject("served")));
  console.log(`first overlay after ${Math.round(performance.now() - begin)} ms`);
}

const text = (id: string) => page.locator(`#${id}`).innerText();

test("a sample shows its overlay, legend and speed; the page is isolated and so has threads", async () => {
  await open();
  await nextPrediction(page, () => page.click("[data-sample='meadow.jpg']"));
  expect(await page.locator("[data-sample='meadow.jpg']").getAttribute("aria-pressed")).toBe("true");
  expect(await page.locator("#legend button").count()).toBeGreaterThan(0);
  const speed = await text("latency");
  for (const word of ["CPU (WebAssembly)", "Download", "Load", "First run", "Run p50 / p90"])
    expect(speed).toContain(word);
  expect(speed).not.toContain("not isolated");
  expect(speed).not.toMatch(/Threads\s+1\n/);
});

test("the point under mouse and keyboard is read out, and Escape hides it", async () => {
  await open();
  await page.hover("#frame", { position: { x: 50, y: 60 } });
  expect(await text("readout")).toMatch(/^\w+, \d+ %$/);
  await page.mouse.move(2, 2);
  await page.focus("#stage");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Shift+ArrowDown");
  expect(await text("readout")).toMatch(/^\w+, \d+ %$/);
  const cross = (await page.locator("#cross").boundingBox())!;
  const frame = (await page.locator("#frame").boundingBox())!;
  expect((cross.y + cross.height / 2 - frame.y) / frame.height).toBeCloseTo(0.6, 1);
  await page.keyboard.press("Escape");
  expect((await text("readout")).trim()).toBe("");
});

test("a chosen class stands alone, chosen again it does not", async () => {
  await open();
  const alphas = () =>
    page.evaluate(() => {
      const canvas = document.querySelector<HTMLCanvasElement>("#overlay")!;
      const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
      return [...new Set(data.filter((_, at) => at % 4 === 3))].sort((a, b) => a - b);
    });
  expect(await alphas()).toEqual([255]);
  await page.locator("#legend button").nth(1).focus();
  await page.keyboard.press("Enter");
  expect(await alphas()).toEqual([40, 255]);
  expect(await page.locator("#legend button[aria-pressed=true]").count()).toBe(1);
  await page.keyboard.press("Enter"); // the focus has stayed on the class
  expect(await alphas()).toEqual([255]);
});

test("opacity and dividing line change what is seen of the overlay", async () => {
  await open();
  await page.fill("#opacity", "20");
  await page.fill("#split", "30");
  const style = await page.locator("#overlay").evaluate((canvas) => [canvas.style.opacity, canvas.style.clipPath]);
  expect(style).toEqual(["0.2", "inset(0px 0px 0px 30%)"]);
  const grip = (await page.locator("#divider").boundingBox())!;
  await page.mouse.move(grip.x + grip.width / 2, grip.y + 80);
  await page.mouse.down();
  await page.mouse.move(grip.x + grip.width / 2 + 150, grip.y + 80);
  await page.mouse.up();
  expect(Number(await page.inputValue("#split"))).toBeGreaterThan(35);
});

test("depth shows a scale in metres, and reads them out", async () => {
  await open();
  await switchTask(page, "depth");
  expect(await text("depth-near")).toMatch(/^\d+\.\d+ m$/);
  await page.hover("#frame", { position: { x: 50, y: 60 } });
  expect(await text("readout")).toMatch(/^\d+\.\d+ m$/);
  expect(await page.locator("#depth-mark").isVisible()).toBe(true);
});

test("a picture can be pasted and chosen as a file", async () => {
  await open();
  const choosing = page.waitForEvent("filechooser");
  await page.click("#open");
  const png = await page.screenshot({ clip: { x: 0, y: 0, width: 70, height: 50 } });
  const chooser = await choosing;
  await nextPrediction(page, () => chooser.setFiles({ name: "shot.png", mimeType: "image/png", buffer: png }));
  expect(await text("caption")).toContain("shot.png, 70 × 50");
  await nextPrediction(page, () =>
    page.evaluate(async () => {
      const canvas = new OffscreenCanvas(31, 17);
      canvas.getContext("2d")!.fillRect(0, 0, 31, 17);
      const clipboardData = new DataTransfer();
      clipboardData.items.add(new File([await canvas.convertToBlob()], "image.png", { type: "image/png" }));
      document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
    }),
  );
  expect(await text("caption")).toContain("image.png, 31 × 17");
});

test("the camera runs until it is stopped, through a change of task", async () => {
  await open();
  await nextPrediction(page, () => page.click("#camera"));
  await page.waitForFunction(() => /[\d.]+ frames\/s/.test(document.querySelector("#latency")!.textContent!));
  expect(await text("caption")).toMatch(/^camera, \d+ × \d+$/);
  await chooseTask(page, "depth");
  await page.waitForFunction(() => document.querySelector("#depth-near")!.textContent !== "");
  await nextPrediction(page, async () => {});
  await page.click("#camera");
  expect(await text("camera")).toBe("Camera");
  expect(await text("latency")).not.toContain("frames/s");
  expect(await page.locator("#alert").isHidden()).toBe(true);
});

test("a camera started twice, while the model loads, runs once, gets the model, and says when it is unplugged", async () => {
  page = await browser.newPage();
  await page.addInitScript(() => {
    const streams: MediaStream[] = [];
    Object.assign(window, { streams });
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (form) => {
      const stream = await ask(form);
      streams.push(stream);
      await new Promise((go) => setTimeout(go, 500)); // the user thinks about it
      return stream;
    };
  });
  let answer = () => {};
  const asked = new Promise<void>((resolve) => {
    void page.context().route("**/model.onnx", async (route) => {
      resolve();
      await new Promise<void>((go) => {
        answer = go;
      });
      await route.continue();
    });
  });
  await openPage(page, inject("served"));
  await asked;
  await page.dblclick("#camera");
  await page.waitForFunction(() => document.querySelector("#caption")!.textContent!.startsWith("camera"));
  await nextPrediction(page, async () => answer());
  const running = await page.evaluate(() => {
    const { streams } = window as unknown as { streams: MediaStream[] };
    const live = streams.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState === "live");
    for (const track of live) track.stop(); // as if it were unplugged
    return [streams.length, live.length];
  });
  expect(running).toEqual([2, 1]);
  await page.waitForSelector("#alert", { state: "visible" });
  expect(await text("alert")).toContain("Was it unplugged?");
  expect(await text("camera")).toBe("Camera");
});

test("figures of a model are not shown beside another", async () => {
  await open();
  await page.click("#check summary");
  await page.fill("#runs", "50");
  await page.click("#check-run");
  await nextPrediction(page, () => chooseTask(page, "depth"));
  await page.waitForFunction(() => !document.querySelector<HTMLButtonElement>("#check-run")!.disabled);
  expect(await text("check-result")).toBe("");
  expect(await page.locator("#alert").isHidden()).toBe(true);
});

test("the self-check passes, and the result file is one of the project", async () => {
  await open();
  await page.click("#check summary");
  await page.fill("#runs", "7");
  await page.click("#check-run");
  await page.waitForSelector("#check-download", { state: "visible" });
  const report = await text("check-result");
  console.log(report);
  expect(report).toContain("Passed");
  expect(report).toContain("class_map, pixels that agree");
  expect(report).toContain("7 runs");
  const downloading = page.waitForEvent("download");
  await page.click("#check-download");
  const download = await downloading;
  const path = join(OUTPUT, download.suggestedFilename());
  await download.saveAs(path);
  expect(download.suggestedFilename()).toMatch(/^nano-segment-ade-64x64-fp32\.onnx@[a-z0-9-]+-cores\.json$/);
  const check =
    "import json, sys, pathlib; from mobileclip_dense.artifact.result import check_result; " +
    "path = pathlib.Path(sys.argv[1]); check_result(json.loads(path.read_text()), path)";
  const repository = new URL("../../../../", import.meta.url).pathname;
  const done = spawnSync(process.env.PYTHON ?? "python3", ["-c", check, path], { cwd: repository, encoding: "utf8" });
  expect(done.stderr).toBe("");
  expect(done.status).toBe(0);
});

test("on a plain file host it runs in one thread and says why", async () => {
  await open({ address: inject("hosted") });
  const speed = await text("latency");
  expect(speed).toContain("page not isolated");
  expect(speed).toMatch(/Threads\s+1\n/);
  await nextPrediction(page, () => drop(page, "wide.png"));
  // There too the worker, which holds the pictures, can send them nowhere.
  const refused = page.workers()[0]!.evaluate(async () => {
    const violation = new Promise<string>((resolve) => {
      self.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective), { once: true });
    });
    const sent = fetch("http://127.0.0.2:9/", { method: "POST", body: "picture", mode: "no-cors" });
    return Promise.race([violation, sent.catch((error) => new Promise((go) => setTimeout(go, 2000, String(error))))]);
  });
  expect(await refused).toBe("connect-src");
});

const LOOKS = [1440, 390].flatMap((width) => (["light", "dark"] as const).map((scheme) => ({ width, scheme })));

test.each(LOOKS)("nothing sticks out at $width px, $scheme", async ({ width, scheme }) => {
  await open({ width, height: width === 390 ? 844 : 900, scheme });
  for (const task of ["segment", "depth"] as const) {
    await switchTask(page, task);
    await page.screenshot({ path: join(OUTPUT, `${task}-${width}-${scheme}.png`), fullPage: true });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
  }
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  expect(dark).toBe(scheme === "dark" ? "rgb(16, 19, 24)" : "rgb(246, 247, 249)");
});

test("every control has a name, and Tab reaches it", async () => {
  await open();
  const reached = new Set<string>();
  for (let presses = 0; presses < 40; presses++) {
    await page.keyboard.press("Tab");
    reached.add(
      await page.evaluate(() => document.activeElement?.id || document.activeElement?.closest("[id]")?.id || ""),
    );
  }
  for (const id of ["tasks", "stage", "samples", "open", "camera", "model", "legend", "opacity", "split", "check"]) {
    expect(reached, id).toContain(id);
  }
  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll<HTMLInputElement>("button, select, input, textarea")]
      .filter((one) => one.id !== "file" && one.checkVisibility())
      .filter((one) => !(one.labels?.length || one.textContent?.trim() || one.querySelector("img[alt]") || one.title))
      .map((one) => one.outerHTML),
  );
  expect(nameless).toEqual([]);
  expect(await page.getByRole("img", { name: /^\S+\.jpg, \d+ × \d+$/ }).count()).toBe(1);
  expect(await page.getByRole("group", { name: "Reading point" }).count()).toBe(1);
});

test("the page without models and runtime weighs less than 1.5 MB", () => {
  const folder = inject("hostedFolder");
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => !/^(models|runtime\/.*\.wasm)/.test(name))
    .map((name) => statSync(join(folder, name)))
    .filter((entry) => entry.isFile());
  const bytes = files.reduce((sum, entry) => sum + entry.size, 0);
  console.log(`page weight ${(bytes / 1e6).toFixed(2)} MB in ${files.length} files`);
  expect(bytes).toBeLessThan(1.5e6);
});
