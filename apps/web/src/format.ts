/** Which pictures are taken, by their bytes; mobileclip_dense/artifact/images.py in TypeScript. */

import contract from "./contract.json";
import { Failure } from "./failure";

export type Format = "JPEG" | "PNG" | "WebP" | "BMP";

const ACCEPTED: readonly [string, number, Format][] = [
  ["\xff\xd8\xff", 0, "JPEG"],
  ["\x89PNG\r\n\x1a\n", 0, "PNG"],
  ["WEBP", 8, "WebP"],
  ["BM", 0, "BMP"],
];
const BRANDS = [
  ["avi", "AVIF"],
  ["hei", "HEIC"],
  ["hev", "HEIC"],
  ["mif", "HEIC"],
] as const;
const NAMES = "JPEG, PNG, WebP or BMP";

/** Throws a Failure that names the format if it is another one, even if this browser could show it. */
export function formatOf(bytes: Uint8Array, name: string): Format {
  if (bytes.length === 0) throw new Failure(`${name}: the file is empty, expected ${NAMES}.`);
  const start = String.fromCharCode(...bytes.subarray(0, 32));
  const format = ACCEPTED.find(([mark, at]) => start.startsWith(mark, at))?.[2];
  if (format) return format;
  const found = start.startsWith("ftyp", 4)
    ? (BRANDS.find(([brand]) => start.startsWith(brand, 8))?.[1] ?? `a “${start.slice(8, 12)}” file`)
    : contract.foreign_images.find(([mark]) => start.startsWith(mark!))?.[1];
  throw new Failure(
    found
      ? `${name}: found ${found}, expected ${NAMES}. Convert it first.`
      : `${name}: not a picture, expected ${NAMES}.`,
  );
}

/** Throws a Failure if the picture is too large to be decoded, by what its header says. */
export function requireFittingSize(bytes: Uint8Array, format: Format, name: string): void {
  const size = readSize(bytes, format);
  if (!size) return; // damaged: the decoder will say so
  const { width, height } = size;
  const found = `${name}: found ${width} × ${height}, expected at most`;
  if (width * height > contract.max_pixels) {
    throw new Failure(`${found} ${contract.max_pixels.toLocaleString("en")} pixels. Scale it down first.`);
  }
  if (Math.max(width, height) > contract.max_side_px) {
    throw new Failure(`${found} ${contract.max_side_px.toLocaleString("en")} pixels on a side. Cut it first.`);
  }
}

/** Width and height in pixels as the header says; null if it is not whole. */
export function readSize(bytes: Uint8Array, format: Format): { width: number; height: number } | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    if (format === "PNG") return { width: view.getUint32(16), height: view.getUint32(20) };
    if (format === "WebP") return webpSize(view);
    if (format === "JPEG") return jpegSize(view);
    if (view.getUint32(14, true) === 12) return { width: view.getUint16(18, true), height: view.getUint16(20, true) };
    return { width: Math.abs(view.getInt32(18, true)), height: Math.abs(view.getInt32(22, true)) };
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

function webpSize(view: DataView): { width: number; height: number } {
  const kind = view.getUint32(12);
  if (kind === 0x56503858) {
    const low = (at: number) => view.getUint16(at, true); // VP8X: three bytes a side
    return { width: 1 + low(24) + (view.getUint8(26) << 16), height: 1 + low(27) + (view.getUint8(29) << 16) };
  }
  if (kind === 0x5650384c) {
    const bits = view.getUint32(21, true); // VP8L
    return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff) };
  }
  return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
}

function jpegSize(view: DataView): { width: number; height: number } | null {
  let at = 2;
  for (;;) {
    while (view.getUint8(at + 1) === 0xff) at++; // fill bytes
    const marker = view.getUint8(at + 1);
    if (view.getUint8(at) !== 0xff || marker === 0xd9 || marker === 0xda) return null;
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return { width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    at += 2 + view.getUint16(at + 2);
  }
}

/** Throws a Failure if a necessary chunk is cut short or differs from its checksum: browsers show what is left. */
export function requireWholePng(bytes: Uint8Array, name: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let [at, kind] = [8, 0];
  while (kind !== 0x49454e44) {
    const length = at + 12 <= bytes.length ? view.getUint32(at) : Number.POSITIVE_INFINITY;
    if (at + 12 + length > bytes.length) throw new Failure(`${name}: the file is cut short; it cannot be used.`);
    kind = view.getUint32(at + 4);
    const isNecessary = (bytes[at + 4]! & 0x20) === 0; // an upper-case first letter
    if (isNecessary && crc32(bytes.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length)) {
      throw new Failure(`${name}: the file is damaged (a checksum does not fit); it cannot be used.`);
    }
    at += 12 + length;
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc32(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC_TABLE[(value ^ byte) & 0xff]! ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
