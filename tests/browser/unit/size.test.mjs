import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

test("speak.js is under 5 KiB gzipped, comments and all", (t) => {
  const bytes = gzipSync(readFileSync(new URL("../../../src/web/speak.js", import.meta.url)), { level: 9 }).length;
  t.diagnostic(`speak.js: ${bytes} bytes gzipped`);
  assert.ok(bytes < 5 * 1024, `${bytes} bytes`);
});
