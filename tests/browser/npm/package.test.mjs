// The package for npm: what is in it, its types, and a page that Vite builds with it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { build } from "vite";
import { launchBrowser, startServer, until } from "../chromium/environment.mjs";
import { createProject, pack, program } from "./project.mjs";

let project;
before(() => (project = createProject()));
after(() => project.remove());

test("the package has modules, types, a README and the licence, and no dependencies", (t) => {
  const description = JSON.parse(project.read("package.json"));
  const root = new URL("../../../", import.meta.url);
  const [, version] = readFileSync(new URL("Cargo.toml", root), "utf8").match(/version = "(.*)"/);
  assert.equal(description.version, version);
  for (const kind of ["dependencies", "peerDependencies", "scripts"])
    assert.equal(description[kind], undefined, kind);
  assert.equal(project.read("LICENSE"), readFileSync(new URL("LICENSE", root), "utf8"));
  const names = readdirSync(project.installed);
  assert.ok(["index.js", "index.d.ts", "README.md"].every((name) => names.includes(name)));
  assert.ok(!names.includes("global.js"));
  const bytes = readFileSync(project.packed);
  t.diagnostic(`speak-client-${version}.tgz: ${bytes.length} bytes`);
  assert.deepEqual(readFileSync(pack(project.folder)), bytes, "the same sources, the same bytes");
});

test("a program in TypeScript is checked against the types of the package", async () => {
  project.write(
    "program.ts",
    `import Speak, { join, SpeakError, type Chat, type Message } from "speak-client";
    const chat: Chat = join("lobby", { server: "http://localhost", name: "Josh" });
    chat.onmessage = ({ text, from }: Message) => console.log(text.length, from?.toFixed());
    chat.onerror = (error: SpeakError) => console.log(error.status + 1, error.detail);
    const { id }: { id: number } = await chat.say("howdy");
    Speak.server = id + "";
    // @ts-expect-error
    join("lobby", { nmae: "Josh" });
    // @ts-expect-error
    chat.me = null;
    // @ts-expect-error: the package defines no global
    globalThis.Speak.join("lobby");`,
  );
  for (const module of ["nodenext", "esnext"]) {
    const resolution = module === "nodenext" ? module : "bundler";
    const options = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom"];
    options.push("--module", module, "--moduleResolution", resolution, "program.ts");
    const run = promisify(execFile)(program("tsc"), options, { cwd: project.folder });
    await run.catch(({ stdout }) => assert.fail(stdout));
  }
});

test("a page that Vite builds with the package joins, and receives what others say", async (t) => {
  project.write("index.html", `<script type="module" src="/page.js"></script>`);
  project.write(
    "page.js",
    `import { join } from "speak-client";
    const server = new URLSearchParams(location.search).get("server");
    window.chat = join("lobby", { server, name: "Josh" });
    window.texts = [];
    window.chat.onmessage = ({ type, text }) => type === "message" && window.texts.push(text);`,
  );
  await build({ root: project.folder, logLevel: "silent" });
  const assets = join(project.folder, "dist/assets");
  const [script] = readdirSync(assets);
  const site = http.createServer((request, response) => {
    const isPage = new URL(request.url, "http://site").pathname === "/";
    response.setHeader("Content-Type", isPage ? "text/html" : "text/javascript");
    response.end(readFileSync(isPage ? join(assets, "../index.html") : join(assets, script)));
  });
  const server = await startServer();
  t.after(() => server.stop());
  site.listen(0, "127.0.0.1");
  t.after(() => site.close());
  await once(site, "listening");
  const browser = await launchBrowser();
  t.after(() => browser.close());
  const page = await browser.newPage();
  const [endpoint] = server.endpoints;
  await page.goto(`http://127.0.0.1:${site.address().port}/?server=${endpoint}`);
  await until(() => page.evaluate(() => window.chat.me), "the page joins");
  await page.evaluate(() => window.chat.say("from the page"));
  await server.call("write", { channel: "lobby", message: "from elsewhere" });
  await until(() => page.evaluate(() => window.texts.length === 2), "both texts arrive");
  assert.deepEqual(await page.evaluate(() => window.texts), ["from the page", "from elsewhere"]);
  assert.equal(await page.evaluate(() => window.chat.state.transport), "websocket");
});
