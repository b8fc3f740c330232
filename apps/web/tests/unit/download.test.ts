import { afterEach, expect, test, vi } from "vitest";
import { download } from "../../src/download";

afterEach(() => vi.unstubAllGlobals());

test("a connection that is lost in the middle of a download is named", async () => {
  const chunks = [Uint8Array.of(1, 2)];
  const body = new ReadableStream({
    pull(controller) {
      const chunk = chunks.pop();
      if (chunk) controller.enqueue(chunk);
      else controller.error(new TypeError("network error"));
    },
  });
  vi.stubGlobal("fetch", async () => new Response(body));
  const received: number[] = [];
  const found = download("http://host/models/a.onnx/model.onnx", 4_000_000, (done) => received.push(done));
  await expect(found).rejects.toThrow("a.onnx/model.onnx: the connection was lost after 0.0 MB of 4.0 MB");
  expect(received).toEqual([2]);
});
