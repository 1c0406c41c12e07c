import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { get } from "node:http";
import { createInterface } from "node:readline";
import { test } from "node:test";

test("speak.js is under 5.5 KiB as it is served", async (t) => {
  const server = spawn(process.env.SPEAK_BIN, ["--listen", "127.0.0.1:0"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => server.kill());
  const [line] = await once(createInterface(server.stderr), "line");
  const [address] = line.match(/http:\S+/);
  const [answer] = await once(
    get(`${address}/speak.js`, { headers: { "Accept-Encoding": "gzip" } }),
    "response",
  );
  assert.equal(answer.headers["content-encoding"], "gzip");
  const bytes = Buffer.concat(await answer.toArray()).length;
  t.diagnostic(`speak.js: ${bytes} bytes`);
  assert.ok(bytes < 5.5 * 1024, `${bytes} bytes`);
});
