/** Vitest's global setup: the page as `python -m apps.web` serves it, and as a plain file host would. */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    served: string;
    hosted: string;
    hostedFolder: string;
  }
}

const REPOSITORY = new URL("../../../../", import.meta.url).pathname;
const PYTHON = process.env.PYTHON ?? "python3";

/** Start a command and wait until it prints an address. */
function serve(args: string[]): Promise<{ child: ChildProcess; address: string }> {
  const child = spawn(PYTHON, ["-u", ...args], { cwd: REPOSITORY });
  return new Promise((resolve, reject) => {
    let output = "";
    const read = (data: Buffer) => {
      output += data;
      const port = /http:\/\/[\d.]+:(\d+)\//.exec(output)?.[1];
      if (port) resolve({ child, address: `http://127.0.0.1:${port}/` });
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("exit", (code) => reject(new Error(`${args.join(" ")}: exit status ${code}: ${output}`)));
  });
}

export default async function setup(project: TestProject): Promise<() => void> {
  const artifacts = join(process.env.WEB_TEST_LINE ?? "", "artifacts");
  const scratch = mkdtempSync(join(tmpdir(), "mobileclip-dense-web-"));
  const folder = join(scratch, "site");
  const web = ["-m", "apps.web", "--artifacts", artifacts];
  const built = spawnSync(PYTHON, [...web, "--build-only", folder], { cwd: REPOSITORY, encoding: "utf8" });
  if (built.status !== 0) throw new Error(built.stderr);
  const servers = [
    await serve([...web, "--port", "0"]),
    await serve(["-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder]),
  ];
  project.provide("served", servers[0]!.address);
  project.provide("hosted", servers[1]!.address);
  project.provide("hostedFolder", folder);
  return () => {
    for (const { child } of servers) child.kill("SIGINT");
    rmSync(scratch, { recursive: true });
  };
}
