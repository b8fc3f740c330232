/** The page reads pictures as Python does: the same pixels, the same files refused. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { LINE, photograph } from "../line";
import { drop, launch, nextPrediction, openPage, switchTask } from "./browser";

const FOLDER = join(LINE, "pictures");
const files = readdirSync(FOLDER);
const accepted = files.filter((name) => files.includes(`${name}.bin`));
const refused = files.filter((name) => !/\.(bin|json)$/.test(name) && !accepted.includes(name));

let browser: Browser;
let page: Page;

beforeAll(async () => {
  browser = await launch();
  page = await browser.newPage();
  await nextPrediction(page, () => openPage(page, inject("served")));
});
afterAll(() => browser.close());

/** The pixels that are shown, and that a model gets. */
function shownPixels(): Promise<{ width: number; height: number; rgb: number[] }> {
  return page.evaluate(() => {
    const { width, height } = document.querySelector<HTMLCanvasElement>("#photo")!;
    const context = document.querySelector<HTMLCanvasElement>("#photo")!.getContext("2d")!;
    const { data } = context.getImageData(0, 0, width, height);
    return { width, height, rgb: Array.from(data).filter((_, at) => at % 4 !== 3) };
  });
}

test("there are pictures of every kind", () => {
  expect(accepted.length).toBeGreaterThan(40);
  expect(refused.length).toBeGreaterThan(10);
});

test.each(accepted)("%s has Python's pixels", async (name) => {
  await nextPrediction(page, () => drop(page, name, readFileSync(join(FOLDER, name))));
  const { width, height, rgb } = await shownPixels();
  expect([height, width]).toEqual(JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8")));
  const expected = readFileSync(join(FOLDER, `${name}.bin`));
  const largest = rgb.reduce((most, value, at) => Math.max(most, Math.abs(value - expected[at]!)), 0);
  expect(rgb.length).toBe(expected.length);
  expect(largest).toBeLessThanOrEqual(/alpha|cmyk/.test(name) ? 1 : 0); // both round products of bytes
});

const WORDS: Record<string, string> = {
  "empty.png": "the file is empty",
  "pixels.png": "found 40000 × 30000, expected at most",
  "cut.png": "cut short",
  "damaged.png": "checksum",
};

test.each(refused)("%s is refused by name", async (name) => {
  await drop(page, name, readFileSync(join(FOLDER, name)));
  await page.waitForFunction((start) => document.querySelector("#alert")!.textContent!.startsWith(start), `${name}: `);
  const [kind] = name.split(".");
  expect(await page.locator("#alert").innerText()).toContain(WORDS[name] ?? `found ${kind}`);
});

test.each(["65000x1.png", "1x65000.png"])("%s is read by every model and shown", async (name) => {
  const [width, height] = name.split(/[x.]/).map(Number);
  for (const task of ["zero-shot", "depth", "segment"] as const) {
    await switchTask(page, task);
    await nextPrediction(page, () => drop(page, name, photograph(name)), 60_000);
    expect(await page.locator("#alert").isHidden()).toBe(true);
    expect(await page.locator("#caption").innerText()).toBe(`${name}, ${width} × ${height}`);
  }
});
