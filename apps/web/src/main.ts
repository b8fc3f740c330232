/** The page: which task, which model, which picture, and what is drawn of the answer. */

import { type IndexEntry, loadIndex } from "./artifact";
import { cameraRuns, eachFrame, startCamera, stopCamera } from "./camera";
import { clearCheck, startCheckPanel } from "./checkpanel";
import { colourClasses, colourDepth, DEPTH_OPACITY, OVERLAY_OPACITY } from "./colours";
import { depthRange, markDepth, metres, showDepthBar } from "./depthbar";
import { byId, element } from "./dom";
import { megabytes } from "./download";
import { ask } from "./engine";
import { Failure } from "./failure";
import { classify, embedLabels, type LabelSet, showAnswers, startLabels } from "./labels";
import { classShares, showLegend } from "./legend";
import type { Loaded, Prediction } from "./messages";
import type { Picture } from "./picture";
import type { Provider } from "./runtime";
import { probabilityAt } from "./scores";
import { pressSample, startSources } from "./sources";
import { addRun, showModelSpeed, showRate } from "./speed";
import * as stage from "./stage";
import { announce, clearFailure, hideBusy, showBusy, showDownload, showFailure } from "./status";

type PageTask = "segment" | "depth" | "zero-shot";

const MODEL_TASK = { segment: "segment", depth: "depth", "zero-shot": "embed-image" } as const;
const SLOW_MS = 250; // what takes longer says that it is going on
const modelBox = byId<HTMLSelectElement>("model");
const cameraButton = byId("camera");

let entries: IndexEntry[] = [];
let task: PageTask = "segment";
let loaded: Loaded | null = null;
let labelSet: LabelSet | null = null;
let prediction: Prediction | null = null;
let highlighted: number | null = null;
let caption = "";
// Counts what the user asked for, so that a late answer to an earlier wish is dropped. A picture or the camera does not
// replace a model that is still loading.
const wishes = { model: 0, picture: 0 };

/** ?provider=wasm or webgpu overrides the choice, to compare them. */
function wantedProvider(): Provider | null {
  const value = new URLSearchParams(location.search).get("provider");
  return value === "wasm" || value === "webgpu" ? value : null;
}

async function load(entry: IndexEntry): Promise<Loaded> {
  showBusy(`Loading ${entry.name}…`);
  const answer = await ask("load", { entry, wanted: wantedProvider() }, { report: showDownload });
  hideBusy();
  return answer;
}

/** Run `action`; what it throws is shown unless the user has asked for another model or picture by then. */
async function guarded(wish: keyof typeof wishes, action: (current: () => boolean) => Promise<void>): Promise<void> {
  const mine = ++wishes[wish];
  const current = () => mine === wishes[wish];
  clearFailure();
  try {
    await action(current);
  } catch (error) {
    if (current()) showFailure(error);
  }
}

function chooseTask(wanted: PageTask): Promise<void> {
  task = wanted;
  prediction = null;
  highlighted = null;
  stage.clearOverlay();
  stage.movePoint(null);
  for (const [id, of] of [
    ["legend-card", "segment"],
    ["depth-card", "depth"],
    ["labels-card", "zero-shot"],
  ]) {
    byId(id!).hidden = of !== task;
  }
  stage.setOpacity(task === "depth" ? DEPTH_OPACITY : OVERLAY_OPACITY);
  byId("look-card").hidden = task === "zero-shot";
  const fitting = entries.filter((entry) => entry.task === MODEL_TASK[task]);
  modelBox.replaceChildren(
    ...fitting.map(({ name }) => element("option", name.replace(/\.onnx$/, ""), { value: name })),
  );
  modelBox.disabled = fitting.length === 0;
  return chooseModel();
}

function chooseModel(): Promise<void> {
  loaded = null;
  labelSet = null;
  clearCheck();
  byId("model-about").textContent = "";
  return guarded("model", async (current) => {
    const entry = entries.find(({ name }) => name === modelBox.value);
    if (!entry) throw missing();
    const tower = task === "zero-shot" ? textTower(entry) : null;
    await ask("keep", { names: [entry.name, ...(tower ? [tower.name] : [])] });
    if (!current()) return;
    const answer = await load(entry);
    if (!current()) return;
    const labels = tower ? await embedLabels(await load(tower)) : null;
    hideBusy();
    if (!current()) return;
    [loaded, labelSet] = [answer, labels];
    const { precision, num_parameters, parent } = answer.artifact;
    const size = megabytes(answer.artifact.files["model.onnx"]!.bytes);
    byId("model-about").textContent =
      `${precision}, ${(num_parameters / 1e6).toFixed(2)} M parameters, ${size}; from run ${parent.run}`;
    showModelSpeed(answer);
    announce(`${entry.name} is ready`);
    if (stage.hasPicture() && !cameraRuns()) await predict();
  });
}

function showLeftOut(leftOut: Record<string, string> | undefined): void {
  const problems = Object.entries(leftOut ?? {}).map(([folder, problem]) => `${folder}: ${problem}.`);
  byId("left-out").hidden = problems.length === 0;
  byId("left-out").textContent = `Left out: ${problems.join(" ")}`;
}

function missing(): Failure {
  const kind = { segment: "segmentation model", depth: "depth model", "zero-shot": "image tower" }[task];
  return new Failure(
    `No ${kind} is bundled with this page. Export one with “mobileclip-dense export onnx”, then “make web ARTIFACTS=FOLDER”.`,
  );
}

function textTower(image: IndexEntry): IndexEntry {
  const found = entries.find((entry) => entry.task === "embed-text" && entry.weights_sha256 === image.weights_sha256);
  if (found) return found;
  throw new Failure(
    `Zero-shot needs the image tower and the text tower of run ${image.run}. Export both with “mobileclip-dense export onnx”, then “make web ARTIFACTS=FOLDER”.`,
  );
}

async function predict(): Promise<void> {
  const [model, picture] = [loaded, wishes.picture];
  const bitmap = await stage.grabPicture();
  if (!model || model !== loaded) {
    bitmap.close(); // another model was chosen
    return;
  }
  const slow = cameraRuns() ? 0 : window.setTimeout(() => showBusy("Computing…"), SLOW_MS);
  const answer = await ask("predict", { name: model.artifact.name, bitmap }, { transfer: [bitmap] }).finally(() => {
    clearTimeout(slow);
    if (slow) hideBusy();
  });
  if (model !== loaded || picture !== wishes.picture) return;
  prediction = answer;
  addRun(answer.timing);
  draw();
  byId("stage").dispatchEvent(new CustomEvent("prediction", { detail: answer }));
}

function draw(): void {
  if (!prediction || !loaded) return;
  const { artifact } = loaded;
  if (prediction.kind === "segment") {
    const { map, scores } = prediction;
    const shares = classShares(map, artifact.class_names.length);
    if (highlighted !== null && !shares[highlighted]) highlighted = null;
    showLegend(artifact, shares, highlighted, (index) => {
      highlighted = highlighted === index ? null : index;
      draw();
    });
    stage.showOverlay(colourClasses(map, artifact.palette, highlighted), ({ x, y }) => {
      const index = map.data[Math.floor(y * map.height) * map.width + Math.floor(x * map.width)]!;
      const name = artifact.class_names[index] ?? `class ${index}`;
      return scores ? `${name}, ${Math.round(probabilityAt(scores, x, y, index) * 100)} %` : name;
    });
  } else if (prediction.kind === "depth") {
    const { map } = prediction;
    const { near, far } = depthRange(map);
    showDepthBar(near, far);
    markDepth(null);
    stage.showOverlay(colourDepth(map, near, far), ({ x, y }) => {
      const value = map.data[Math.floor(y * map.height) * map.width + Math.floor(x * map.width)]!;
      markDepth((value - near) / Math.max(far - near, 1e-6));
      return metres(value);
    });
  } else if (labelSet) {
    showAnswers(labelSet, classify(prediction.embedding, labelSet));
  }
}

function takePicture(promise: Promise<Picture>): void {
  leaveCamera();
  void guarded("picture", async (current) => {
    const { name, bitmap, notice } = await promise;
    if (!current()) {
      bitmap.close();
      return;
    }
    stage.showPicture(bitmap, bitmap.width, bitmap.height, false);
    caption = `${name}, ${bitmap.width} × ${bitmap.height}`;
    bitmap.close();
    byId("caption").textContent = notice ? `${caption}. ${notice}` : caption;
    byId("photo").setAttribute("aria-label", caption);
    if (loaded) await predict();
    else await chooseModel();
    if (current()) announce(`${name}: done`);
  });
}

async function toggleCamera(): Promise<void> {
  if (cameraRuns()) {
    leaveCamera();
    return;
  }
  await guarded("picture", async (current) => {
    try {
      if (!(await startCamera(current))) return;
      cameraButton.setAttribute("aria-pressed", "true");
      cameraButton.textContent = "Stop camera";
      pressSample(null);
      byId("photo").setAttribute("aria-label", "camera");
      if (!loaded) void chooseModel(); // loading it may have failed
      await eachFrame(async (video) => {
        stage.showPicture(video, video.videoWidth, video.videoHeight, true);
        byId("caption").textContent = `camera, ${video.videoWidth} × ${video.videoHeight}`;
        if (loaded) await predict();
      }, showRate);
    } finally {
      if (current()) leaveCamera();
    }
  });
}

function leaveCamera(): void {
  stopCamera();
  showRate(null);
  cameraButton.setAttribute("aria-pressed", "false");
  cameraButton.textContent = "Camera";
}

async function changeLabels(): Promise<void> {
  if (task !== "zero-shot") return;
  const entry = entries.find(({ name }) => name === modelBox.value);
  if (!entry || !loaded) return chooseModel(); // the labels as they were may be on their way
  await guarded("model", async (current) => {
    const labels = await embedLabels(await load(textTower(entry)));
    hideBusy();
    if (!current()) return;
    labelSet = labels;
    draw();
  });
}

async function start(): Promise<void> {
  stage.startStage();
  startLabels(() => void changeLabels());
  startCheckPanel(() => loaded);
  cameraButton.addEventListener("click", () => void toggleCamera());
  modelBox.addEventListener("change", () => void chooseModel());
  byId("tasks").addEventListener("change", (event) => {
    void chooseTask((event.target as HTMLInputElement).value as PageTask);
  });
  const sources = startSources(takePicture).catch(showFailure);
  try {
    const index = await loadIndex();
    entries = index.artifacts;
    showLeftOut(index.left_out);
  } catch (error) {
    showFailure(error);
    return;
  }
  const checked = document.querySelector<HTMLInputElement>("#tasks input:checked");
  await chooseTask((checked?.value ?? "segment") as PageTask);
  await sources;
  if (loaded && !stage.hasPicture() && !cameraRuns()) document.querySelector<HTMLElement>("#samples button")?.click();
}

void start();
