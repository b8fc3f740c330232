/** The camera, frame by frame, each when the one before it is done. */

import { byId } from "./dom";
import { Failure } from "./failure";

const video = byId<HTMLVideoElement>("video");
let stream: MediaStream | null = null;

export function cameraRuns(): boolean {
  return stream !== null;
}

/** False if it is not `wanted` any more once the user has allowed it. Throws a Failure in words for a user. */
export async function startCamera(wanted: () => boolean): Promise<boolean> {
  if (!navigator.mediaDevices) {
    throw new Failure("The camera is offered on https or on localhost only. Open the page there.");
  }
  const form = { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } };
  let granted: MediaStream;
  try {
    granted = await navigator.mediaDevices.getUserMedia({ video: form, audio: false });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    if (name === "NotAllowedError") {
      throw new Failure("The camera was not allowed. Allow it for this page in the browser's settings.");
    }
    if (name === "NotFoundError") throw new Failure("No camera was found. Open a picture instead.");
    throw new Failure(`The camera cannot be used (${name || error}). Another program may be using it.`);
  }
  if (!wanted()) {
    stopTracks(granted);
    return false;
  }
  stream = granted;
  video.srcObject = stream;
  await video.play();
  return true;
}

function stopTracks(of: MediaStream | null): void {
  for (const track of of?.getTracks() ?? []) track.stop();
}

export function stopCamera(): void {
  stopTracks(stream);
  stream = null;
  video.srcObject = null;
}

/**
 * Hand each frame to `use` until the camera is stopped; frames per second go to `rate`.
 * Throws a Failure if the camera ends by itself.
 */
export async function eachFrame(
  use: (video: HTMLVideoElement) => Promise<void>,
  rate: (perSecond: number) => void,
): Promise<void> {
  const shown: number[] = [];
  const own = stream;
  while (own !== null && stream === own) {
    await new Promise(requestAnimationFrame); // none come while the tab is hidden
    if (stream !== own) return; // stopped meanwhile, and perhaps started again
    if (own.getVideoTracks()[0]?.readyState === "ended") {
      throw new Failure("The camera has stopped. Was it unplugged?");
    }
    if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) continue;
    await use(video);
    if (stream !== own) return;
    shown.push(performance.now());
    if (shown.length > 20) shown.shift();
    if (shown.length > 1) rate(((shown.length - 1) * 1000) / (shown.at(-1)! - shown[0]!));
  }
}
