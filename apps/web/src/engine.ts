/** The page's side of the worker: calls that answer with promises. */

import { reach } from "./download";
import { Failure } from "./failure";
import type { CallName, Calls, Reply } from "./messages";
import workerFile from "./worker?worker&url";

export type Report = (what: string, done: number, total: number) => void;

interface Waiting {
  resolve: (value: never) => void;
  reject: (error: Error) => void;
  report: Report;
}

// A worker that starts from a blob is bound by the page's content security policy, like the page; one that starts from
// its file is bound only by what headers say, and a plain file host sends none.
const start = `import ${JSON.stringify(new URL(workerFile, location.href).href)};`;
const worker = new Worker(URL.createObjectURL(new Blob([start], { type: "text/javascript" })), { type: "module" });
const waiting = new Map<number, Waiting>();
let lastId = 0;

worker.onmessage = (event: MessageEvent<Reply>) => {
  const message = event.data;
  const call = waiting.get(message.id);
  if (!call) return;
  if (message.kind === "progress") {
    call.report(message.what, message.done, message.total);
    return;
  }
  waiting.delete(message.id);
  if (message.kind === "answer") call.resolve(message.value as never);
  else call.reject(new Failure(message.message));
};

// A worker that runs out of memory can end without an answer; one whose file the server does not give never starts.
worker.onerror = async (event) => {
  event.preventDefault();
  const stopped = new Failure(`The model stopped (${event.message || "out of memory?"}). Reload the page.`);
  const failure = await reach(workerFile, "worker").then(
    () => stopped,
    (gone: Error) => gone,
  );
  for (const call of waiting.values()) call.reject(failure);
  waiting.clear();
};

/** Ask the worker. Rejects with a Failure that can be shown as it is. */
export function ask<Name extends CallName>(
  name: Name,
  value: Calls[Name]["call"],
  options: { transfer?: Transferable[]; report?: Report } = {},
): Promise<Calls[Name]["answer"]> {
  return new Promise((resolve, reject) => {
    const id = ++lastId;
    waiting.set(id, { resolve, reject, report: options.report ?? (() => {}) });
    worker.postMessage({ id, name, value }, options.transfer ?? []);
  });
}
