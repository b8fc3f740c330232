/** The picture, what the model says laid over it, the dividing line, and the point that is read out. */

import { byId } from "./dom";

/** A position on the picture as shares 0..1 of its width and height. */
export interface Point {
  x: number;
  y: number;
}

const stage = byId("stage");
const frame = byId("frame");
const photo = byId<HTMLCanvasElement>("photo");
const overlay = byId<HTMLCanvasElement>("overlay");
const divider = byId("divider");
const cross = byId("cross");
const tip = byId<HTMLOutputElement>("tip");
const opacity = byId<HTMLInputElement>("opacity");
const split = byId<HTMLInputElement>("split");

// In memory and not on the GPU: what the model gets are the pixels as they were drawn.
const photoContext = photo.getContext("2d", { willReadFrequently: true })!;

let describe: (point: Point) => string = () => "";
let point: Point | null = null;

export function hasPicture(): boolean {
  return stage.classList.contains("filled");
}

export function pictureSize(): { width: number; height: number } {
  return { width: photo.width, height: photo.height };
}

/** Show a photograph or a frame of the camera; `keepOverlay` until the next one comes. */
export function showPicture(
  source: ImageBitmap | HTMLVideoElement,
  width: number,
  height: number,
  keepOverlay: boolean,
): void {
  if (photo.width !== width || photo.height !== height || !hasPicture()) {
    photo.width = width;
    photo.height = height;
    frame.style.aspectRatio = `${width} / ${height}`;
    frame.style.width = `min(100%, calc(var(--stage-height) * ${width / height}))`;
    stage.classList.add("filled");
  }
  photoContext.fillStyle = "white"; // behind transparent parts
  photoContext.fillRect(0, 0, width, height);
  photoContext.drawImage(source, 0, 0, width, height);
  if (!keepOverlay) {
    clearOverlay();
    movePoint(null);
  }
}

/** The pixels that are shown, for a model. */
export function grabPicture(): Promise<ImageBitmap> {
  return createImageBitmap(photo, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
}

/** Lay a coloured map over the picture; `describe` says in words what it holds at a point. */
export function showOverlay(image: ImageData, atPoint: (point: Point) => string): void {
  overlay.width = image.width;
  overlay.height = image.height;
  overlay.getContext("2d")!.putImageData(image, 0, 0);
  overlay.hidden = false;
  describe = atPoint;
  layOut();
  movePoint(point);
}

export function clearOverlay(): void {
  overlay.hidden = true;
  describe = () => "";
  layOut();
}

function layOut(): void {
  const share = Number(split.value);
  overlay.style.opacity = String(Number(opacity.value) / 100);
  overlay.style.clipPath = `inset(0 0 0 ${share}%)`;
  divider.style.left = `${share}%`;
  divider.hidden = overlay.hidden || share === 0;
  byId("opacity-value").textContent = `${opacity.value} %`;
  byId("split-value").textContent = share === 0 ? "overlay only" : `${share} | ${100 - share}`;
}

/** Move the reading point, or hide it. */
export function movePoint(to: Point | null): void {
  point = to;
  const text = to ? describe(to) : "";
  cross.hidden = tip.hidden = text === "";
  byId("readout").textContent = text || "\u00a0";
  if (!to || !text) return;
  for (const mark of [cross, tip]) {
    mark.style.left = `${to.x * 100}%`;
    mark.style.top = `${to.y * 100}%`;
  }
  tip.textContent = text;
  // Keep the words inside the picture.
  const half = tip.offsetWidth / 2 / frame.clientWidth;
  tip.style.left = `${Math.min(1 - half, Math.max(half, to.x)) * 100}%`;
  tip.style.marginTop = to.y * frame.clientHeight < 48 ? `${tip.offsetHeight + 28}px` : "0";
}

function pointOf(event: MouseEvent): Point {
  const box = frame.getBoundingClientRect();
  const within = (value: number) => Math.min(0.9999, Math.max(0, value));
  return { x: within((event.clientX - box.left) / box.width), y: within((event.clientY - box.top) / box.height) };
}

function step(event: KeyboardEvent): void {
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Escape") movePoint(null);
  if (!direction || event.target !== stage || !hasPicture()) return;
  event.preventDefault();
  const size = event.shiftKey ? 0.1 : 0.02;
  const from = point ?? { x: 0.5, y: 0.5 };
  const within = (value: number) => Math.min(0.9999, Math.max(0, value));
  movePoint(point ? { x: within(from.x + direction[0]! * size), y: within(from.y + direction[1]! * size) } : from);
}

/** Set the opacity of the overlay, 0..1. */
export function setOpacity(share: number): void {
  opacity.value = String(Math.round(share * 100));
  layOut();
}

export function startStage(): void {
  opacity.addEventListener("input", layOut);
  split.addEventListener("input", layOut);
  layOut();
  frame.addEventListener("pointermove", (event) => movePoint(pointOf(event)));
  frame.addEventListener("pointerdown", (event) => movePoint(pointOf(event)));
  frame.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") movePoint(null);
  });
  stage.addEventListener("keydown", step);
  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    event.stopPropagation();
  });
  divider.addEventListener("pointermove", (event) => {
    if (!divider.hasPointerCapture(event.pointerId)) return;
    event.stopPropagation();
    split.value = String(Math.round(pointOf(event).x * 100));
    layOut();
  });
}
