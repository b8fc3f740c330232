import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readTokenizer } from "../../src/tokens";
import { expected, LINE } from "../line";

const folder = readdirSync(join(LINE, "artifacts")).find((name) => name.includes("embed-text"))!;
const tokenize = readTokenizer(readFileSync(join(LINE, "artifacts", folder, "tokenizer.json")));

test.each(expected.tokens)("%j has Python's tokens", (text, ids) => {
  expect(Array.from(tokenize(text, ids.length), Number)).toEqual(ids);
});
