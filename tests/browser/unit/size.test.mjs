import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { get } from "node:http";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

let server, address;
before(async () => {
  const stdio = ["ignore", "ignore", "pipe"];
  server = spawn(process.env.SPEAK_BIN, ["--listen", "127.0.0.1:0"], { stdio });
  const [line] = await once(createInterface(server.stderr), "line");
  [address] = line.match(/http:\S+/);
});
after(() => server?.kill());

for (const [file, limitKib] of [
  ["speak.js", 5.5],
  ["speak-chat.js", 8.75],
]) {
  test(`${file} is under ${limitKib} KiB as it is served`, async (t) => {
    const headers = { "Accept-Encoding": "gzip" };
    const [answer] = await once(get(`${address}/${file}`, { headers }), "response");
    assert.equal(answer.headers["content-encoding"], "gzip");
    const bytes = Buffer.concat(await answer.toArray()).length;
    t.diagnostic(`${file}: ${bytes} bytes`);
    assert.ok(bytes < limitKib * 1024, `${bytes} bytes`);
  });
}
