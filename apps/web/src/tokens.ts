/** Text to CLIP's tokens with the tokenizer.json of a text tower. */

import { Tokenizer } from "@huggingface/tokenizers";

/** A row of `length` tokens: start, text, end; cut, or padded with 0. */
export type Tokenize = (text: string, length: number) => BigInt64Array;

/** Throws an Error if the bytes are no tokenizer.json. */
export function readTokenizer(bytes: Uint8Array): Tokenize {
  const tokenizer = new Tokenizer(JSON.parse(new TextDecoder().decode(bytes)), {});
  return (text, length) => {
    const ids = tokenizer.encode(text).ids; // the JavaScript reader neither cuts nor pads
    const row = new BigInt64Array(length);
    row.set(ids.slice(0, length).map(BigInt));
    if (ids.length > length) row[length - 1] = BigInt(ids.at(-1)!);
    return row;
  };
}
