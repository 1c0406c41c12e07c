// The client on a page of https in each engine: the server speaks TLS by itself.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  roomActions,
  startServer,
  startSite,
  TRANSPORTS,
  until,
} from "../chromium/environment.mjs";
import { ENGINES } from "./engines.mjs";

const DIRECT_PORT = 7732;

let folder, site, tls;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "speak-https-"));
  const [cert, key] = ["cert.pem", "key.pem"].map((name) => join(folder, name));
  execFileSync("openssl", [
    ...["req", "-x509", "-days", "2", "-nodes", "-subj", "/CN=speak.test"],
    ...["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    ...["-keyout", key, "-out", cert],
  ]);
  tls = ["--tls-cert", cert, "--tls-key", key];
  site = await startSite({ cert: await readFile(cert, "utf8"), key: await readFile(key, "utf8") });
});
after(async () => {
  site?.stop();
  await rm(folder, { recursive: true });
});

for (const [name, { launch }] of Object.entries(ENGINES)) {
  describe(`https in ${name}`, () => {
    let browser;
    before(async () => (browser = await launch({ acceptsAnyCertificate: true })));
    after(() => browser?.close());

    test("each transport works, and the direct port is found", async () => {
      const host = `127.${[0, 0, 0].map(() => 1 + Math.floor(254 * Math.random())).join(".")}`;
      const server = await startServer({ host, ports: [0, DIRECT_PORT], tls });
      const [home, direct] = server.endpoints;
      assert.ok(home.startsWith("https://") && direct.startsWith("https://"));
      const tabs = [];
      for (const transport of TRANSPORTS) {
        // JSONP has no choice of its own: the script's address is that of the server.
        const endpoint = transport === "jsonp" ? home : "auto";
        const page = await browser.openPage();
        const query = new URLSearchParams([
          ["endpoint", home],
          ["endpoint", direct],
          ["early", JSON.stringify(["room", { endpoint, transport, name: transport }])],
        ]);
        await page.goTo(`${site.address}?${query}`);
        assert.equal(await page.run(() => location.protocol), "https:");
        tabs.push(roomActions(page.run, transport));
      }
      for (const [i, tab] of tabs.entries()) {
        await tab.waitForMembersInAnyOrder(...TRANSPORTS.toSorted());
        if (TRANSPORTS[i] === "jsonp") continue;
        await until(async () => (await tab.state()).endpoint === direct, `${direct} is used`);
      }
      await Promise.all(tabs.map((tab, i) => tab.say(`${TRANSPORTS[i]} speaks`)));
      for (const [i, tab] of tabs.entries()) {
        for (const transport of TRANSPORTS) await tab.waitForText(`${transport} speaks`);
        assert.equal((await tab.state()).transport, TRANSPORTS[i]);
      }
      await server.stop();
    });
  });
}
