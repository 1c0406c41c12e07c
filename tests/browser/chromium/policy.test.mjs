// A page with the Content-Security-Policy of docs/client.md: all transports work, and
// nothing is refused.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import tls from "node:tls";
import { launchBrowser, startServer, TRANSPORTS } from "./environment.mjs";

const CHAT = "chat.example.org";
const PAGE = "page.example.org";
const DIRECT = `://${CHAT}:7732/`;
const TLS_HANDSHAKE = 22; // first byte of a client that speaks TLS
const ONCE = /^(connecting then )?connected$/; // the states of a page that had no trouble
const FIREFOX = process.env.FIREFOX ?? "/usr/bin/firefox-esr";

/** Returns the policies of a page of the documentation: for https, for http. */
function policies(path) {
  const text = readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");
  return [...text.matchAll(/^Content-Security-Policy: (.*)$/gm)].map(([, policy]) => policy);
}
const [SECURE, PLAIN] = policies("docs/client.md");

// The page joins, talks to itself, and reports what has happened to its own origin.
const SCRIPT = `
  const states = [], violations = [];
  addEventListener("securitypolicyviolation", ({ blockedURI, effectiveDirective }) =>
    violations.push(effectiveDirective + " " + blockedURI));
  const { endpoint, ...options } = JSON.parse(new URLSearchParams(location.search).get("options"));
  const chat = Speak.join("policy", { name: "Ada", ...options });
  const heard = new Promise((resolve) => {
    chat.onmessage = ({ text }) => text === "hello" && resolve();
  });
  const ready = new Promise((resolve) => {
    chat.onstate = (state) => {
      states.push(state.state);
      if (state.state === "connected" && (!endpoint || state.endpoint === endpoint)) resolve();
    };
  });
  Promise.all([heard, ready, chat.say("hello")]).then(() => {
    const { transport } = chat.state;
    const changes = states.filter((state, i) => state !== states[i - 1]);
    const body = JSON.stringify({ transport, states: changes.join(" then "), violations });
    fetch("/report", { method: "POST", body });
  });`;

let server, certificate, browser, sites;
const reports = []; // functions that get the next report

before(async () => {
  server = await startServer({ ports: [0, 0] });
  const folder = await mkdtemp(join(tmpdir(), "speak-policy-"));
  const [key, cert] = ["key.pem", "cert.pem"].map((name) => join(folder, name));
  const names = `subjectAltName=DNS:${CHAT},DNS:${PAGE}`;
  const subject = ["-subj", "/CN=Speak", "-addext", names, "-days", "1", "-nodes"];
  const files = ["-keyout", key, "-out", cert];
  execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", ...subject, ...files], {
    stdio: "ignore",
  });
  certificate = { key: readFileSync(key), cert: readFileSync(cert) };
  await rm(folder, { recursive: true });

  const terminate = (port) => tls.createServer(certificate, (client) => connect(client, port));
  const terminator = terminate(server.ports[0]);
  const directTerminator = terminate(server.ports[1]);
  // Port 7732 of the host, with TLS and without.
  const direct = net.createServer((client) =>
    client.once("data", (bytes) => {
      client.pause().unshift(bytes);
      const isTls = bytes[0] === TLS_HANDSHAKE;
      connect(client, isTls ? directTerminator.address().port : server.ports[1]);
    }),
  );
  sites = {
    terminator,
    directTerminator,
    direct,
    secure: https.createServer(certificate, respond),
    plain: http.createServer(respond),
  };
  for (const site of Object.values(sites)) await once(site.listen(0, "127.0.0.1"), "listening");
  const rules = [
    [`${CHAT}:443`, terminator.address().port],
    [`${PAGE}:443`, sites.secure.address().port],
    [`${CHAT}:80`, server.ports[0]],
    [`${CHAT}:7732`, direct.address().port],
    [`${PAGE}:80`, sites.plain.address().port],
  ].map(([host, port]) => `MAP ${host} 127.0.0.1:${port}`);
  browser = await launchBrowser([`--host-resolver-rules=${rules}`]);
});

after(async () => {
  await browser?.close();
  for (const site of Object.values(sites ?? {})) site.close();
  sites?.secure.closeAllConnections();
  sites?.plain.closeAllConnections();
  await server?.stop();
});

/** Passes on what a client sends and is sent. */
function connect(client, port) {
  const upstream = net.connect(port, "127.0.0.1");
  for (const [from, to] of [
    [client, upstream],
    [upstream, client],
  ])
    from.on("error", () => {}).on("close", () => to.destroy()).pipe(to);
}

/** Serves the page, whose address has its policy and where its server is. */
async function respond(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://page");
  if (pathname === "/report") {
    const body = Buffer.concat(await request.toArray());
    reports.shift()(JSON.parse(body));
    response.end();
  } else if (pathname === "/page.js") {
    response.setHeader("Content-Type", "text/javascript").end(SCRIPT);
  } else if (pathname === "/") {
    response.setHeader("Content-Type", "text/html");
    response.setHeader("Content-Security-Policy", searchParams.get("policy"));
    const scripts = [`${searchParams.get("chat")}speak.js`, "/page.js"];
    const tags = scripts.map((src) => `<script src="${src}"></script>`);
    response.end(`<!doctype html><title>policy</title>${tags.join("")}`);
  } else response.writeHead(204).end();
}

const nextReport = () => new Promise((resolve) => reports.push(resolve));
const address = (site, chat, policy, options) =>
  `${site}?${new URLSearchParams({ chat, policy, options: JSON.stringify(options) })}`;

/** Opens the page in Chromium. Returns its report, with what the console has of it. */
async function open(scheme, policy, options) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const lines = [];
  page.on("console", (line) => lines.push(line.text()));
  const report = nextReport();
  await page.goto(address(`${scheme}://${PAGE}/`, `${scheme}://${CHAT}/`, policy, options));
  const result = { ...(await report), lines };
  await context.close();
  return result;
}

for (const transport of ["auto", ...TRANSPORTS]) {
  const expected = transport === "auto" ? "websocket" : transport;
  for (const [scheme, policy] of [
    ["https", SECURE],
    ["http", PLAIN],
  ]) {
    const endpoint = transport === "jsonp" ? undefined : scheme + DIRECT;
    test(`under the policy for ${scheme}, ${expected} works (${transport}), and nothing is refused`, async () => {
      const report = await open(scheme, policy, { transport, endpoint });
      assert.deepEqual([report.transport, report.violations, report.lines], [expected, [], []]);
      assert.match(report.states, ONCE);
    });
  }
}

test("without wss:, the WebSocket is refused, and the client is connected by events", async () => {
  const policy = SECURE.replace(/ wss:\S+/g, "");
  const report = await open("https", policy, {});
  assert.equal(report.transport, "eventsource");
  assert.match(`${report.violations}`, /^connect-src wss:/);
  assert.match(report.states, ONCE);
});

test("Firefox refuses nothing under the policy either", async () => {
  const profile = await mkdtemp(join(tmpdir(), "speak-firefox-"));
  const site = `http://127.0.0.1:${sites.plain.address().port}/`;
  const chat = server.endpoints[0];
  const policy = PLAIN.replaceAll(`${CHAT}:7732`, "127.0.0.1:7732").replaceAll(
    CHAT,
    new URL(chat).host,
  );
  const report = nextReport();
  const flags = ["--headless", "--no-remote", "--profile", profile];
  const firefox = spawn(FIREFOX, [...flags, address(site, chat, policy, {})], { stdio: "ignore" });
  const ended = once(firefox, "exit");
  process.once("exit", () => firefox.kill("SIGKILL"));
  const { transport, violations, states } = await Promise.race([
    report,
    ended.then(([code]) => assert.fail(`${FIREFOX} ended: ${code}`)),
  ]);
  firefox.kill();
  await ended;
  await rm(profile, { recursive: true, force: true, maxRetries: 10 });
  assert.deepEqual([transport, violations], ["websocket", []]);
  assert.match(states, ONCE);
});
