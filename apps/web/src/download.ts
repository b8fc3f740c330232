import { Failure } from "./failure";

export type Progress = (received: number, total: number) => void;

/** fetch. Throws a Failure if the server does not answer at all; its answer may still be that the file is missing. */
export async function reach(url: string, name: string): Promise<Response> {
  try {
    return await fetch(url);
  } catch {
    throw unreachable(name);
  }
}

export function unreachable(name: string): Failure {
  return new Failure(
    `${name}: the server cannot be reached. Is it still running? Start it again with “make web” and reload the page.`,
  );
}

/** Fetch a file of the page. Throws a Failure that names it if it is missing or the connection fails. */
export async function download(url: string, total: number, progress: Progress): Promise<Uint8Array<ArrayBuffer>> {
  const name = decodeURIComponent(url.split("/").slice(-2).join("/"));
  const response = await reach(url, name);
  // A host of single-page applications answers with its start page instead of 404.
  if (!response.ok || !response.body || (response.headers.get("content-type") ?? "").startsWith("text/html")) {
    throw new Failure(`${name}: missing on the server (${response.status}). Bundle the artifact again.`);
  }
  const bytes = reserve(total, name);
  let received = 0;
  const reader = response.body.getReader();
  const read = () =>
    reader.read().catch(() => {
      const part = `${megabytes(received)} of ${megabytes(total)}`;
      throw new Failure(`${name}: the connection was lost after ${part}. Reload the page to try again.`);
    });
  for (let chunk = await read(); !chunk.done; chunk = await read()) {
    if (received + chunk.value.length > total) throw altered(name, `more than ${total} bytes`, `${total} bytes`);
    bytes.set(chunk.value, received);
    received += chunk.value.length;
    progress(received, total);
  }
  if (received < total) throw altered(name, `${received} bytes`, `${total} bytes`);
  return bytes;
}

function reserve(total: number, name: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(total);
  } catch {
    throw new Failure(
      `${name}: too large: this browser has no ${megabytes(total)} to spare. Close other tabs, or try a smaller model.`,
    );
  }
}

/** Throws a Failure if the bytes are not those that were expected. */
export async function requireSha256(bytes: Uint8Array<ArrayBuffer>, expected: string, name: string): Promise<void> {
  const found = await sha256(bytes);
  if (found !== expected) {
    throw altered(name, `sha256 ${found.slice(0, 12)}…`, `${expected.slice(0, 12)}…`);
  }
}

function altered(name: string, found: string, expected: string): Failure {
  return new Failure(
    `${name}: found ${found}, expected ${expected}; the file was altered or cut short. It is not used. Bundle the artifact again.`,
  );
}

/** Hex SHA-256. Throws a Failure where the browser offers no cryptography: on plain http from another machine. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  if (!globalThis.crypto?.subtle) {
    throw new Failure(
      "The models cannot be verified: browsers offer cryptography only over https or on localhost. Open the page there.",
    );
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A size for people. */
export function megabytes(bytes: number): string {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
