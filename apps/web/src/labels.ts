/** Zero-shot: which of the user's labels fits the picture best. */

import { byId, element } from "./dom";
import { ask } from "./engine";
import type { Loaded } from "./messages";
import { softmax } from "./scores";
import { showBusy } from "./status";

const labelBox = byId<HTMLTextAreaElement>("labels");
const templateBox = byId<HTMLInputElement>("template");
const DEFAULT_LABELS = ["cube", "cylinder", "cone", "barrel", "pyramid", "diamond", "dome", "wedge", "pillar"];
const DEFAULT_TEMPLATE = "a photo of a {}";

export interface LabelSet {
  labels: string[];
  embeddings: Float32Array[];
  logitScale: number;
}

/** Call `changed` when the user has changed labels or prompt and stopped typing. */
export function startLabels(changed: () => void): void {
  labelBox.value = DEFAULT_LABELS.join("\n");
  templateBox.value = DEFAULT_TEMPLATE;
  let timer = 0;
  for (const box of [labelBox, templateBox]) {
    box.addEventListener("input", () => {
      clearTimeout(timer);
      timer = window.setTimeout(changed, 400);
    });
  }
}

/** Embed the labels with the text tower, as the prompt says; {} stands for the label. */
export async function embedLabels(text: Loaded): Promise<LabelSet> {
  const labels = [...new Set(labelBox.value.split("\n").map((line) => line.trim()))].filter((line) => line !== "");
  const template = templateBox.value.includes("{}") ? templateBox.value : `${templateBox.value} {}`;
  const texts = labels.map((label) => template.replaceAll("{}", () => label));
  const report = (_: string, done: number, total: number) => showBusy("Reading the labels…", done, total);
  const embeddings = await ask("embed", { name: text.artifact.name, texts }, { report });
  return { labels, embeddings, logitScale: text.artifact.logit_scale ?? 100 };
}

/** Probability of each label: softmax of the scaled cosines of unit vectors. */
export function classify(image: Float32Array, { embeddings, logitScale }: LabelSet): number[] {
  if (embeddings.length === 0) return [];
  return softmax(embeddings.map((text) => logitScale * text.reduce((sum, value, at) => sum + value * image[at]!, 0)));
}

/** List the labels, the best first. */
export function showAnswers(set: LabelSet, probabilities: readonly number[]): void {
  const order = probabilities.map((_, index) => index).sort((a, b) => probabilities[b]! - probabilities[a]!);
  byId("answers").replaceChildren(
    ...order.slice(0, 8).map((index) => {
      const percent = `${(probabilities[index]! * 100).toFixed(1)} %`;
      const item = element("li");
      item.style.setProperty("--share", `${probabilities[index]! * 100}%`);
      item.append(element("span", set.labels[index]), element("span", percent));
      return item;
    }),
  );
}
