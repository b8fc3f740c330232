/** Self-check and benchmark of the model that is shown. */

import { byId, element } from "./dom";
import { ask } from "./engine";
import { Failure } from "./failure";
import type { CheckReport, Loaded } from "./messages";
import { resultFile } from "./result";
import { milliseconds } from "./speed";
import type { Latency } from "./statistics";
import { announce, clearFailure, hideBusy, showBusy, showFailure } from "./status";

const button = byId<HTMLButtonElement>("check-run");
const link = byId<HTMLAnchorElement>("check-download");
const box = byId("check-result");

/** `current` gives the model that is shown, or null while there is none. */
export function startCheckPanel(current: () => Loaded | null): void {
  button.addEventListener("click", async () => {
    button.disabled = true;
    clearFailure();
    const loaded = current();
    try {
      await run(loaded, () => current() === loaded);
    } catch (error) {
      if (current() === loaded) showFailure(error);
    }
    hideBusy();
    button.disabled = false;
  });
}

/** Forget the figures of another model. */
export function clearCheck(): void {
  box.replaceChildren();
  link.hidden = true;
}

/** Figures of a model that is not `shown` any more are dropped. */
async function run(loaded: Loaded | null, shown: () => boolean): Promise<void> {
  if (!loaded) throw new Failure("There is no model to check yet.");
  const runs = Math.max(1, Math.min(10_000, Math.round(byId<HTMLInputElement>("runs").valueAsNumber || 50)));
  const { name } = loaded.artifact;
  clearCheck();
  showBusy("Comparing with PyTorch…");
  const report = await ask("check", { name });
  if (!shown()) return;
  const progress = (_: string, done: number, total: number) => showBusy("Measuring…", done, total);
  const { latency, runtimeVersion } = await ask("time", { name, runs }, { report: progress });
  if (!shown()) return;
  box.replaceChildren(...show(report, latency, runs));
  announce(report.passed ? "Self-check passed" : "Self-check failed");
  const result = resultFile(loaded, latency, runtimeVersion, navigator.userAgent, navigator.hardwareConcurrency);
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(result, null, 2)}\n`], { type: "application/json" }));
  link.download = `${result.artifact}@${result.device}.json`;
  link.hidden = false;
}

function show(report: CheckReport, latency: Latency, runs: number): HTMLElement[] {
  const verdict = report.passed ? "Passed: the outputs in this browser match PyTorch's." : "Failed: see below.";
  const rows = report.rows.map(({ output, measure, figure, limit }) => {
    if (measure === "error") {
      return [`${output}, relative error`, figure.toExponential(1), `at most ${limit.toExponential(0)}`];
    }
    const judge = measure === "agreement" ? "PyTorch" : "the model’s own scores";
    return [`${output}, pixels that agree with ${judge}`, `${figure.toFixed(3)} %`, `at least ${limit} %`];
  });
  const table = element("table");
  const head = element("tr");
  head.append(element("th", `${report.examples} examples`), element("th", "found"), element("th", "allowed"));
  table.append(head, ...rows.map((cells) => row(cells)));
  const { p50, p90, p99 } = latency;
  const times = `${runs} runs: p50 ${milliseconds(p50)}, p90 ${milliseconds(p90)}, p99 ${milliseconds(p99)}`;
  return [element("p", verdict, { class: report.passed ? "pass" : "fail" }), table, element("p", times)];
}

function row(cells: readonly string[]): HTMLElement {
  const made = element("tr");
  made.append(...cells.map((text) => element("td", text)));
  return made;
}
