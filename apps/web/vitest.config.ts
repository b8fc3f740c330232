import { defineConfig } from "vitest/config";

const common = { testTimeout: 60_000, hookTimeout: 120_000, fileParallelism: false };

export default defineConfig({
  test: {
    projects: [
      { test: { ...common, name: "unit", include: ["tests/unit/**/*.test.ts"] } },
      { test: { ...common, name: "page", include: ["tests/page/**/*.test.ts"], globalSetup: "tests/page/servers.ts" } },
    ],
  },
});
