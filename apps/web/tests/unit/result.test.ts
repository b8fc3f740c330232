import { expect, test } from "vitest";
import { Failure } from "../../src/failure";
import { deviceName } from "../../src/result";
import { modelFailure } from "../../src/runtime";

const AGENTS = [
  [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
    "chrome-156-linux-2-cores",
  ],
  ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "firefox-140-linux-2-cores"],
  [
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
    "safari-18-iphone-2-cores",
  ],
  [
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36",
    "chrome-156-android-2-cores",
  ],
  [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0",
    "edge-156-windows-2-cores",
  ],
  ["something else", "browser-unknown-2-cores"],
] as const;

test.each(AGENTS)("%s is a part of a file name", (agent, name) => {
  expect(deviceName(agent, 2)).toBe(name);
});

test.each([new RangeError("Array buffer allocation failed"), new Error("std::bad_alloc"), 49283096])(
  "%s means that the model is too large",
  (error) => {
    const failure = modelFailure(error, "model");
    expect(failure).toBeInstanceOf(Failure);
    expect(failure.message).toContain("model: too large: this browser ran out of memory");
  },
);

test("another fault of the runtime is shown in its own words", () => {
  expect(modelFailure(new Error("Unknown operator Foo"), "model").message).toContain("(Unknown operator Foo)");
});
