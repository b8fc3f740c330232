/** Where pictures come from: bundled samples, the file chooser, drag and drop, the clipboard. */

import { byId, element } from "./dom";
import { reach } from "./download";
import { Failure } from "./failure";
import { type Picture, readPicture } from "./picture";

export type Take = (picture: Promise<Picture>) => void;

/** Wire all of them to `take`. */
export async function startSources(take: Take): Promise<void> {
  const input = byId<HTMLInputElement>("file");
  byId("open").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    takeFiles(input.files, take);
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) takeFiles(event.clipboardData.files, take);
  });
  startDropping(take);
  await showSamples(take);
}

function takeFiles(files: FileList | null | undefined, take: Take): void {
  const [file] = files ?? [];
  if (file) {
    pressSample(null);
    take(readPicture(file, file.name || "the pasted picture"));
  }
}

function startDropping(take: Take): void {
  const hint = byId("drop-hint");
  const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    hint.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) hint.hidden = true; // left the window
  });
  document.addEventListener("drop", (event) => {
    hint.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    takeFiles(event.dataTransfer?.files, take);
  });
}

async function showSamples(take: Take): Promise<void> {
  const box = byId("samples");
  const response = await reach("samples/index.json", "samples/index.json");
  if (!response.ok) return;
  const { samples } = (await response.json()) as { samples: string[] };
  for (const name of samples) {
    const title = name.replace(/\.\w+$/, "").replaceAll("-", " ");
    const button = element("button", "", { type: "button", "aria-pressed": "false", title, "data-sample": name });
    button.append(element("img", "", { src: `samples/${encodeURIComponent(name)}`, alt: title }));
    button.addEventListener("click", () => {
      pressSample(name);
      take(readSample(name));
    });
    box.append(button);
  }
}

/** Mark one sample as shown, or none. */
export function pressSample(name: string | null): void {
  for (const button of byId("samples").children) {
    button.setAttribute("aria-pressed", String((button as HTMLElement).dataset.sample === name));
  }
}

async function readSample(name: string): Promise<Picture> {
  const response = await reach(`samples/${encodeURIComponent(name)}`, `samples/${name}`);
  if (!response.ok) throw new Failure(`samples/${name}: missing on the server. Build the page with “make web”.`);
  return readPicture(await response.blob(), name);
}
