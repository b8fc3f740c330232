/** The camera, frame by frame, each when the one before it is done. */

import { byId } from "./dom";
import { Failure } from "./failure";

const video = byId<HTMLVideoElement>("video");
let stream: MediaStream | null = null;

export function cameraRuns(): boolean {
  return stream !== null;
}

/** Throws a Failure in words for a user. */
export async function startCamera(): Promise<void> {
  if (!navigator.mediaDevices) {
    throw new Failure("The camera is offered on https or on localhost only. Open the page there.");
  }
  const wanted = { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } };
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    if (name === "NotAllowedError") {
      throw new Failure("The camera was not allowed. Allow it for this page in the browser's settings.");
    }
    if (name === "NotFoundError") throw new Failure("No camera was found. Open a picture instead.");
    throw new Failure(`The camera cannot be used (${name || error}). Another program may hold it.`);
  }
  video.srcObject = stream;
  await video.play();
}

export function stopCamera(): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  video.srcObject = null;
}

/** Hand each frame to `use` until the camera is stopped; frames per second go to `rate`. */
export async function eachFrame(
  use: (video: HTMLVideoElement) => Promise<void>,
  rate: (perSecond: number) => void,
): Promise<void> {
  const shown: number[] = [];
  while (stream) {
    await new Promise(requestAnimationFrame); // none come while the tab is hidden
    if (!stream || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) continue;
    await use(video);
    if (!stream) return; // stopped meanwhile
    shown.push(performance.now());
    if (shown.length > 20) shown.shift();
    if (shown.length > 1) rate(((shown.length - 1) * 1000) / (shown.at(-1)! - shown[0]!));
  }
}
