/** Photographs from files: decoded by the browser, upright, of a size that a canvas can hold. */

import { Failure } from "./failure";
import { formatOf, requireFittingSize, requireWholePng } from "./format";
import { takeOrientation, turn } from "./orientation";

export interface Picture {
  name: string;
  bitmap: ImageBitmap;
  /** What was changed about it, for the user; empty if nothing was. */
  notice: string;
}

const MOST_PIXELS = 16_000_000; // Safari on iPhones has no larger canvas

// As Python reads a file: the EXIF orientation applied, the numbers otherwise as they are stored.
const AS_STORED: ImageBitmapOptions = {
  imageOrientation: "from-image",
  colorSpaceConversion: "none",
  premultiplyAlpha: "none",
};

/** Throws a Failure if the file is no picture, too large, or damaged. */
export async function readPicture(file: Blob, name: string): Promise<Picture> {
  const bitmap = await decode(await readBytes(file, name), name);
  const pixels = bitmap.width * bitmap.height;
  if (pixels <= MOST_PIXELS) return { name, bitmap, notice: "" };
  const scale = Math.sqrt(MOST_PIXELS / pixels);
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * scale))) as [
    number,
    number,
  ];
  const smaller = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
  const notice = `Reduced from ${bitmap.width} × ${bitmap.height} to ${width} × ${height} pixels.`;
  bitmap.close();
  return { name, bitmap: smaller, notice };
}

async function readBytes(file: Blob, name: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Failure(`${name}: cannot be read; was it moved or changed, or is it too large?`);
  }
}

async function decode(bytes: Uint8Array<ArrayBuffer>, name: string): Promise<ImageBitmap> {
  const format = formatOf(bytes, name);
  requireFittingSize(bytes, format, name);
  if (format === "PNG") requireWholePng(bytes, name);
  const { orientation, file } = format === "WebP" ? takeOrientation(bytes) : { orientation: 1, file: bytes };
  try {
    const bitmap = await createImageBitmap(new Blob([file]), AS_STORED);
    return orientation === 1 ? bitmap : await createImageBitmap(turn(bitmap, orientation));
  } catch {
    throw new Failure(
      `${name}: not a picture that this browser can read. Try a JPEG, PNG or WebP file; a damaged one cannot be used.`,
    );
  }
}
