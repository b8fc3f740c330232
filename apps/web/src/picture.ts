/** Photographs from files: decoded by the browser, upright, of a size that a canvas can hold. */

import { Failure } from "./failure";

export interface Picture {
  name: string;
  bitmap: ImageBitmap;
  /** What was changed about it, for the user; empty if nothing was. */
  notice: string;
}

const MOST_PIXELS = 16_000_000; // Safari on iPhones has no larger canvas

// As Pillow reads a file: the EXIF orientation applied, the numbers otherwise as they are stored.
const AS_STORED: ImageBitmapOptions = {
  imageOrientation: "from-image",
  colorSpaceConversion: "none",
  premultiplyAlpha: "none",
};

/** Throws a Failure if the file is no picture, or damaged. */
export async function readPicture(file: Blob, name: string): Promise<Picture> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, AS_STORED);
  } catch {
    throw new Failure(
      `${name}: not a picture that this browser can read. Try a JPEG, PNG or WebP file; a damaged one cannot be used.`,
    );
  }
  const pixels = bitmap.width * bitmap.height;
  if (pixels <= MOST_PIXELS) return { name, bitmap, notice: "" };
  const scale = Math.sqrt(MOST_PIXELS / pixels);
  const [width, height] = [Math.floor(bitmap.width * scale), Math.floor(bitmap.height * scale)];
  const smaller = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
  const notice = `Reduced from ${bitmap.width} × ${bitmap.height} to ${width} × ${height} pixels.`;
  bitmap.close();
  return { name, bitmap: smaller, notice };
}
