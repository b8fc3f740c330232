import { mkdirSync } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";
import type { Prediction } from "../../src/messages";
import { photograph } from "../line";

export const OUTPUT = new URL("../../test-output/", import.meta.url).pathname;
mkdirSync(OUTPUT, { recursive: true });

/** Debian's chromium; `args` on top of what a machine without a screen needs. */
export function launch(args: string[] = []): Promise<Browser> {
  const root = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: [...root, ...args] });
}

/** Open the page and keep every prediction at hand as `window.predictions`. */
export async function openPage(page: Page, address: string): Promise<void> {
  await page.addInitScript(() => {
    const kept: unknown[] = [];
    Object.assign(window, { predictions: kept });
    document.addEventListener("prediction", (event) => kept.push((event as CustomEvent).detail), true);
  });
  await page.goto(address);
}

/** Do something, then wait for the prediction that follows. */
export async function nextPrediction(page: Page, action: () => Promise<unknown>, timeout = 30_000): Promise<void> {
  const count = () => page.evaluate(() => (window as unknown as { predictions?: unknown[] }).predictions?.length ?? 0);
  const before = await count();
  await action();
  await page.waitForFunction(
    (seen) => ((window as unknown as { predictions?: unknown[] }).predictions?.length ?? 0) > seen,
    before,
    { timeout },
  );
}

/** The numbers of the latest prediction. */
export function latest(page: Page): Promise<{ width: number; height: number; values: number[] }> {
  return page.evaluate(() => {
    const found = (window as unknown as { predictions: Prediction[] }).predictions.at(-1)!;
    if (found.kind === "embedding") return { width: 0, height: 0, values: Array.from(found.embedding) };
    return { width: found.map.width, height: found.map.height, values: Array.from(found.map.data) };
  });
}

/** Drop a file on the page, as from a file manager. */
export async function drop(page: Page, name: string, bytes: Buffer = photograph(name)): Promise<void> {
  const transfer = await page.evaluateHandle(
    ([base64, file]) => {
      const content = Uint8Array.from(atob(base64!), (letter) => letter.charCodeAt(0));
      const items = new DataTransfer();
      items.items.add(new File([content], file!));
      return items;
    },
    [bytes.toString("base64"), name],
  );
  await page.dispatchEvent("#stage", "drop", { dataTransfer: transfer });
}

export function chooseTask(page: Page, task: "segment" | "depth" | "zero-shot"): Promise<void> {
  return page.locator(`#tasks input[value=${task}]`).check({ force: true });
}

/** Choose a task if it is not chosen yet, and wait for what its model says about the picture that is shown. */
export async function switchTask(page: Page, task: "segment" | "depth" | "zero-shot"): Promise<void> {
  const chosen = await page.locator(`#tasks input[value=${task}]`).isChecked();
  if (!chosen) await nextPrediction(page, () => chooseTask(page, task));
}
