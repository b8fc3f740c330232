/** What the page says about a photograph is what Python says. */

import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { expected, expectedMap } from "../line";
import { drop, latest, launch, nextPrediction, openPage, switchTask } from "./browser";

let browser: Browser;
let page: Page;
const requests: string[] = [];

beforeAll(async () => {
  browser = await launch();
  page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  page.on("request", (request) => requests.push(`${request.method()} ${request.url()}`));
  await nextPrediction(page, () => openPage(page, inject("served")));
});
afterAll(() => browser.close());

const PHOTOGRAPHS = ["wide.png", "turned.jpg"];

test.each(PHOTOGRAPHS)("the classes of %s are Python's in 999 of 1000 pixels", async (name) => {
  await nextPrediction(page, () => drop(page, name));
  const { width, height, values } = await latest(page);
  const { width: wanted, height: high } = expected[name]!;
  expect([width, height]).toEqual([wanted, high]);
  const map = expectedMap(name, "segment");
  const agreeing = values.filter((value, at) => value === map[at]).length / map.length;
  console.log(`${name}: ${(agreeing * 100).toFixed(4)} % of the pixels agree`);
  expect(new Set(map).size).toBeGreaterThan(1);
  expect(agreeing).toBeGreaterThanOrEqual(0.999);
  expect(await page.locator("#overlay").isVisible()).toBe(true);
});

test.each(PHOTOGRAPHS)("the distances of %s are Python's within 1e-3", async (name) => {
  await switchTask(page, "depth");
  await nextPrediction(page, () => drop(page, name));
  const { values } = await latest(page);
  const map = expectedMap(name, "depth");
  const errors = values.map((value, at) => Math.abs(value - map[at]!) / map[at]!).sort((a, b) => a - b);
  const p99 = errors[Math.floor(errors.length * 0.99)]!;
  console.log(`${name}: relative error of the distance at the 99th percentile ${p99.toExponential(1)}`);
  expect(errors.length).toBe(map.length);
  expect(p99).toBeLessThanOrEqual(1e-3);
});

test.each(PHOTOGRAPHS)("the labels of %s have Python's probabilities", async (name) => {
  await switchTask(page, "zero-shot");
  await page.fill("#labels", expected.labels.join("\n"));
  await nextPrediction(page, () => drop(page, name));
  const answers = await page.waitForFunction((count) => {
    const items = [...document.querySelectorAll("#answers li")];
    return items.length === count && document.querySelector<HTMLElement>("#busy")!.hidden
      ? items.map((item) => [...item.children].map((child) => child.textContent!))
      : null;
  }, expected.labels.length);
  const found = Object.fromEntries((await answers.jsonValue()) as [string, string][]);
  for (const [at, label] of expected.labels.entries()) {
    // Towers of a few steps of training give all labels nearly the same: shown are tenths of a percent, and they count.
    const error = Number.parseFloat(found[label]!) / 100 - expected[name]!.probabilities[at]!;
    expect(Math.abs(error)).toBeLessThan(6e-4);
  }
});

test("nothing left the page: every request was a GET to its own server", () => {
  expect(requests.length).toBeGreaterThan(10);
  const others = requests.filter(
    (line) => !line.startsWith(`GET ${inject("served")}`) && !/^GET (blob|data):/.test(line),
  );
  expect(others).toEqual([]);
});
