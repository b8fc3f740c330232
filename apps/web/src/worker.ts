/** Runs every model, so that neither a large picture nor the camera ever holds up the page. */

import { loadFile } from "./artifact";
import { checkGolden, NUM_WARMUP, timeModel } from "./checking";
import { explain, Failure } from "./failure";
import type { Calls, Reply, Request } from "./messages";
import { Model } from "./models";
import { loadRuntime, type Runtime } from "./runtime";
import { readTokenizer, type Tokenize } from "./tokens";

const base = new URL(/* @vite-ignore */ "../", import.meta.url).href; // this file lies in assets/
const models = new Map<string, Model>();
const tokenizers = new Map<string, Tokenize>();
let runtime: Promise<Runtime> | null = null;

function model(name: string): Model {
  const found = models.get(name);
  if (!found) throw new Failure(`${name}: not loaded.`);
  return found;
}

type Report = (what: string, done: number, total: number) => void;
type Handlers = {
  [Name in keyof Calls]: (call: Calls[Name]["call"], report: Report) => Promise<Calls[Name]["answer"]>;
};

const handlers: Handlers = {
  async load({ entry, wanted }, report) {
    runtime ??= loadRuntime(base, wanted);
    runtime.catch(() => {
      runtime = null; // so that a second try is one
    });
    let found = models.get(entry.name);
    if (!found) {
      found = await Model.load(base, entry, await runtime, (done, total) => report(entry.name, done, total));
      models.set(entry.name, found);
    }
    return found.loaded;
  },
  async predict({ name, bitmap }) {
    return model(name).predict(bitmap);
  },
  async embed({ name, texts }, report) {
    const tower = model(name);
    const length = tower.artifact.input.shape[1]!;
    const tokenize = tokenizers.get(name) ?? readTokenizer(await loadFile(base, tower.artifact, "tokenizer.json"));
    tokenizers.set(name, tokenize);
    const embeddings: Float32Array[] = [];
    for (const text of texts) {
      const outputs = await tower.run(tokenize(text, length));
      embeddings.push(new Float32Array(outputs.text_embedding!.data as Float32Array));
      report("labels", embeddings.length, texts.length);
    }
    return embeddings;
  },
  async check({ name }) {
    return checkGolden(model(name));
  },
  async time({ name, runs }, report) {
    const latency = await timeModel(model(name), runs, (done) => report("runs", done, runs + NUM_WARMUP));
    return { latency, runtimeVersion: (await runtime!).ort.env.versions.web ?? "unknown" };
  },
  async keep({ names }) {
    for (const [name, found] of models) {
      if (!names.includes(name)) {
        models.delete(name);
        await found.release();
      }
    }
    return null;
  },
};

const reply = (message: Reply) => self.postMessage(message);

async function answer({ id, name, value }: Request): Promise<void> {
  const report: Report = (what, done, total) => reply({ id, kind: "progress", what, done, total });
  try {
    const handler = handlers[name] as (call: unknown, report: Report) => Promise<unknown>;
    reply({ id, kind: "answer", value: await handler(value, report) });
  } catch (error) {
    reply({ id, kind: "failure", message: explain(error) });
  }
}

// One after the other: a session runs one input at a time.
let queue = Promise.resolve();
self.onmessage = (event: MessageEvent<Request>) => {
  queue = queue.then(() => answer(event.data));
};
