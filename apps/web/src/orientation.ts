/** The EXIF orientation of WebP files, which chromium passes over; that of JPEG and PNG files every browser applies. */

const ORIENTATION = 0x0112; // the tag of EXIF 2.32, 4.6.4
const SHORT = 3;
const EXIF = 0x45584946;

/** 1..8, and the file without its EXIF data, so that no browser applies it a second time. */
export function takeOrientation(webp: Uint8Array<ArrayBuffer>): { orientation: number; file: Uint8Array<ArrayBuffer> } {
  const view = new DataView(webp.buffer, webp.byteOffset, webp.byteLength);
  for (let at = 12; at + 8 <= webp.length; ) {
    const length = view.getUint32(at + 4, true);
    if (view.getUint32(at) === EXIF) {
      const file = webp.slice();
      file.set([0x58, 0x58, 0x58, 0x58], at); // XXXX: a chunk that readers pass over
      return { orientation: readOrientation(webp.subarray(at + 8, at + 8 + length)), file };
    }
    at += 8 + length + (length % 2);
  }
  return { orientation: 1, file: webp };
}

/** From EXIF data; 1 where it says nothing or is damaged. */
export function readOrientation(exif: Uint8Array): number {
  const start = String.fromCharCode(...exif.subarray(0, 6)) === "Exif\0\0" ? 6 : 0;
  const view = new DataView(exif.buffer, exif.byteOffset + start, exif.byteLength - start);
  try {
    const little = view.getUint16(0) === 0x4949; // II
    const directory = view.getUint32(4, little);
    for (let entry = 0; entry < view.getUint16(directory, little); entry++) {
      const at = directory + 2 + 12 * entry;
      if (view.getUint16(at, little) !== ORIENTATION) continue;
      const value = view.getUint16(at + 2, little) === SHORT ? view.getUint16(at + 8, little) : 1;
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

/** The picture turned upright, on white, with a transformation of whole pixels. */
export function turn(bitmap: ImageBitmap, orientation: number): OffscreenCanvas {
  const { width: w, height: h } = bitmap;
  const canvas = orientation >= 5 ? new OffscreenCanvas(h, w) : new OffscreenCanvas(w, h);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const matrices: Record<number, [number, number, number, number, number, number]> = {
    2: [-1, 0, 0, 1, w, 0],
    3: [-1, 0, 0, -1, w, h],
    4: [1, 0, 0, -1, 0, h],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, h, 0],
    7: [0, -1, -1, 0, h, w],
    8: [0, -1, 1, 0, 0, w],
  };
  context.imageSmoothingEnabled = false;
  context.setTransform(...(matrices[orientation] ?? [1, 0, 0, 1, 0, 0]));
  context.drawImage(bitmap, 0, 0);
  return canvas;
}
