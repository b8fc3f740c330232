import { expect, test } from "vitest";
import { formatOf, readSize, requireFittingSize } from "../../src/format";
import { readOrientation, takeOrientation } from "../../src/orientation";

const bytes = (text: string, length = 64) =>
  Uint8Array.from({ length: Math.max(length, text.length) }, (_, at) => text.charCodeAt(at) || 0);

test("other formats are named by their bytes, whatever the file is called", () => {
  for (const [start, found] of [
    ["GIF89a", "found GIF"],
    ["II*\0", "found TIFF"],
    ["MM\0*", "found TIFF"],
    ["\0\0\0\x1cftypavif", "found AVIF"],
    ["\0\0\0\x1cftypmif1", "found HEIC"],
    ["\0\0\0\x1cftypisom", "found a “isom” file"],
    ["\0\0\x01\0", "found ICO"],
    ["qoif", "found QOI"],
    ["%PDF", "found PDF"],
    ["hello", "not a picture"],
  ] as const) {
    expect(() => formatOf(bytes(start), "a.jpg"), start).toThrow(`a.jpg: ${found}`);
  }
  expect(() => formatOf(new Uint8Array(), "a.jpg")).toThrow("a.jpg: the file is empty");
});

/** Headers as the formats' specifications lay them out. */
const HEADERS = {
  PNG: ["\x89PNG\r\n\x1a\n", [16, 0, 1, 0, 2, 0, 0, 3, 4]],
  "VP8 ": ["RIFF\0\0\0\0WEBPVP8 ", [26, 0x02, 0x01, 0x04, 0x03]],
  VP8X: ["RIFF\0\0\0\0WEBPVP8X", [24, 1, 0, 1, 3, 2, 0]],
  VP8L: ["RIFF\0\0\0\0WEBPVP8L", [20, 0x2f, 0x01, 0x41, 0x01, 0]],
  BMP: ["BM", [14, 40, 0, 0, 0, 2, 0, 1, 0, 0xfc, 0xff, 0xff, 0xff]],
  "BMP 2": ["BM", [14, 12, 0, 0, 0, 2, 1, 4, 3]],
  JPEG: ["\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc2\0\x0b\x08\x03\x04\x01\x02", [30, 0]],
} as const;
const SIZES = {
  PNG: [65538, 772],
  "VP8 ": [258, 772],
  VP8X: [65538, 516],
  VP8L: [258, 6],
  BMP: [65538, 4],
  "BMP 2": [258, 772],
  JPEG: [258, 772],
} as const;

test.each(Object.keys(HEADERS) as (keyof typeof HEADERS)[])("the size of %s is read from its header", (kind) => {
  const [start, [at, ...values]] = HEADERS[kind];
  const file = bytes(start);
  file.set(values, at);
  const [width, height] = SIZES[kind];
  const format = formatOf(file, "a");
  expect(readSize(file, format)).toEqual({ width, height });
  for (let length = 0; length < 30; length++) expect(() => readSize(file.subarray(0, length), format)).not.toThrow();
});

test("a picture that is too large is refused before it is decoded", () => {
  const png = bytes("\x89PNG\r\n\x1a\n");
  const view = new DataView(png.buffer);
  for (const [width, height, words] of [
    [30000, 30000, "expected at most 178,956,970 pixels"],
    [65536, 1, "found 65536 × 1, expected at most 65,535 pixels on a side"],
    [1, 65536, "pixels on a side"],
  ] as const) {
    view.setUint32(16, width);
    view.setUint32(20, height);
    expect(() => requireFittingSize(png, "PNG", "a.png")).toThrow(words);
  }
  view.setUint32(20, 65535);
  expect(() => requireFittingSize(png, "PNG", "a.png")).not.toThrow();
});

test("the orientation of EXIF data is read, 1 where they are damaged", () => {
  const little = [0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0];
  const big = [0x4d, 0x4d, 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0];
  expect(readOrientation(Uint8Array.from(little))).toBe(6);
  expect(readOrientation(Uint8Array.from(big))).toBe(8);
  expect(readOrientation(Uint8Array.from([...bytes("Exif\0\0", 6), ...big]))).toBe(8);
  for (let length = 0; length < 18; length++) expect(readOrientation(Uint8Array.from(big.slice(0, length)))).toBe(1);
  expect(readOrientation(Uint8Array.from(little.with(18, 9)))).toBe(1);
  expect(readOrientation(Uint8Array.from(little.with(12, 4)))).toBe(1); // of another type
});

test("a WebP file without EXIF data, or cut short, is left as it is", () => {
  const webp = bytes("RIFF\0\0\0\0WEBPVP8L\x05\0\0\0abcde\0XMP \x01\0\0\0a");
  expect(takeOrientation(webp)).toEqual({ orientation: 1, file: webp });
  expect(takeOrientation(webp.slice(0, 15)).orientation).toBe(1);
});
