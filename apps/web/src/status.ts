/** What is going on and what went wrong, for the eye and for the ear. */

import { byId } from "./dom";
import { megabytes } from "./download";
import { explain } from "./failure";

const [alertBox, busy, busyText, status] = ["alert", "busy", "busy-text", "status"].map((id) => byId(id)) as [
  HTMLElement,
  HTMLElement,
  HTMLElement,
  HTMLElement,
];
const bar = byId<HTMLProgressElement>("busy-bar");

/** Show what is being waited for; `done` of `total` if it is known. */
export function showBusy(text: string, done = 0, total = 0): void {
  busy.hidden = false;
  busyText.textContent = text;
  if (total > 0) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value");
  }
  bar.setAttribute("aria-label", text);
}

/** Progress of a download in megabytes. */
export function showDownload(name: string, done: number, total: number): void {
  const loading = done === total ? `Loading ${name} into the runtime…` : "";
  showBusy(
    loading || `Downloading ${name}: ${megabytes(done)} of ${megabytes(total)}`,
    done,
    done === total ? 0 : total,
  );
}

export function hideBusy(): void {
  busy.hidden = true;
}

export function showFailure(error: unknown): void {
  hideBusy();
  alertBox.textContent = explain(error);
  alertBox.hidden = false;
}

export function clearFailure(): void {
  alertBox.hidden = true;
  alertBox.textContent = "";
}

/** Tell a screen reader. */
export function announce(text: string): void {
  status.textContent = text;
}
