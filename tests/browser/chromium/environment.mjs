// Environment of the tests: a real server, pages of another origin with a strict policy, and a real
// browser.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const TIMEOUT_MS = 30_000;

export const TRANSPORTS = ["websocket", "eventsource", "fetch", "jsonp"];

/** Polls until the condition returns a value, and returns the value. Fails after TIMEOUT_MS. */
export async function until(condition, description = condition) {
  for (const deadline = Date.now() + TIMEOUT_MS; Date.now() < deadline;) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`never came true: ${description}`);
}

/**
 * Starts the server on these ports of a loopback address. Port 0 is any free port. With `tls`, the
 * options for a certificate, all of them speak TLS.
 */
export async function startServer({ host = "127.0.0.1", ports = [0], options = [], tls } = {}) {
  const program = process.env.SPEAK_BIN;
  if (!program) throw new Error("SPEAK_BIN is not set: set it to the server to test");
  const scheme = tls ? "tls:" : "";
  const listen = ports.flatMap((port) => ["--listen", `${scheme}${host}:${port}`]);
  // If all logs are searched for secrets (tests/secrets.py), the server logs every request.
  const logs = process.env.SPEAK_TEST_LOGS;
  const env = logs ? { ...process.env, SPEAK_LOG: "debug" } : process.env;
  const child = spawn(program, [...listen, ...(tls ?? []), ...options], {
    stdio: ["ignore", "ignore", "pipe"],
    env,
  });
  if (logs) {
    child.stderr.on("data", (bytes) => appendFileSync(join(logs, `${child.pid}.log`), bytes));
  }
  const ended = once(child, "exit");
  // A test that fails leaves its server running. It must neither outlive the tests nor keep them
  // from ending.
  process.once("exit", () => child.kill("SIGKILL"));
  child.unref();
  const endpoints = [];
  for await (const line of createInterface({ input: child.stderr })) {
    const address = line.match(/listening on (https?:\S+)/)?.[1];
    if (address && endpoints.push(`${address}/`) === ports.length) break;
  }
  if (endpoints.length < ports.length) throw new Error("the server did not start");
  child.stderr.resume().unref();
  return {
    endpoints,
    ports: endpoints.map((endpoint) => Number(new URL(endpoint).port)),
    async call(path, values) {
      const body = new URLSearchParams(values);
      return (await fetch(endpoints[0] + path, { method: "POST", body })).json();
    },
    /** Returns all retained messages of a room. */
    async messages(channel) {
      return (await this.call("read", { channel, from_id: 0, timeout: 0 })).messages;
    },
    /** Returns the retained introductions and goodbyes of a room, as TYPE CONNECTION. */
    async comings(channel) {
      const messages = await this.messages(channel);
      return messages
        .filter(({ type }) => type !== "message")
        .map(({ type, from }) => `${type} ${from}`);
    },
    async stop(signal = "SIGKILL") {
      child.ref(); // something may have to keep the test going until the server has ended
      child.kill(signal);
      await ended;
    },
  };
}

/** Returns a port without a listener. */
export async function closedPort() {
  const listener = http.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

/**
 * Starts a TCP proxy in front of a server. disconnect() resets its connections and stops listening;
 * reconnect() listens on the same port again. freeze() lets the open connections carry nothing from
 * then on, without an end; isDead says whether new ones do. WebSockets are cut after `socketMs`.
 */
export async function startTcpProxy(target, { socketMs } = {}) {
  const { hostname, port: targetPort } = new URL(target);
  const sockets = new Set();
  const proxy = { isDead: false };
  const freeze = (client, server) => {
    client.unpipe(server).resume();
    server.unpipe(client).resume();
  };
  const listener = net.createServer((client) => {
    const server = net.connect(targetPort, hostname);
    client.frozen = () => freeze(client, server);
    client.once("data", (head) => {
      if (!socketMs || !/^upgrade: websocket/im.test(head)) return;
      setTimeout(() => client.destroy(), socketMs);
    });
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => sockets.delete(socket) && other.destroy());
      socket.pipe(other);
    }
    if (proxy.isDead) client.frozen();
  });
  const listen = async (port) => {
    listener.listen(port, "127.0.0.1");
    await once(listener, "listening");
    listener.unref(); // a test that fails must not keep the others from ending
    return listener.address().port;
  };
  const port = await listen(0);
  const disconnect = () => {
    listener.close();
    for (const socket of sockets) socket.resetAndDestroy();
  };
  const reconnect = () => listen(port);
  const freezeAll = () => {
    for (const socket of sockets) socket.frozen?.();
  };
  const endpoint = `http://127.0.0.1:${port}/`;
  const actions = { disconnect, reconnect, freeze: freezeAll, stop: disconnect };
  return Object.assign(proxy, { endpoint, ...actions });
}

/** Listens, and never answers. `clients` has the sockets that are open. */
export async function startSilentListener() {
  const clients = new Set();
  let count = 0;
  const listener = net.createServer((socket) => {
    count++;
    clients.add(socket);
    socket.on("error", () => {}).on("close", () => clients.delete(socket)).resume();
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const stop = () => {
    listener.close();
    for (const socket of clients) socket.destroy();
  };
  const endpoint = `http://127.0.0.1:${listener.address().port}/`;
  return { endpoint, clients, count: () => count, stop };
}

/**
 * Starts a web site of another origin. Its pages have no inline script, and a policy that allows no
 * more than the client needs. With a certificate, it speaks https.
 *
 * @param {{ cert: string, key: string }} [certificate]
 */
export async function startSite(certificate) {
  const pages = {
    "/page.js": `
      window.joinRoom = (room, options) => {
        const chat = window.Speak.join(room, options);
        const received = { messages: [], states: [], missed: 0, errors: [] };
        chat.onmessage = (message) => received.messages.push(message);
        chat.onstate = (state) => received.states.push(state);
        chat.onmissed = () => received.missed++;
        chat.onerror = (error) => received.errors.push(error.name);
        Object.assign(window, { chat, received });
      };
      window.addEventListener("error", ({ message }) => console.error("uncaught: " + message));
      const early = new URLSearchParams(location.search).get("early");
      if (early) window.joinRoom(...JSON.parse(early));`,
  };
  const site = certificate ? https.createServer(certificate) : http.createServer();
  site.on("request", (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://site");
    const script = pages[pathname];
    if (script) return response.setHeader("Content-Type", "text/javascript").end(script);
    const [home, ...endpoints] = searchParams.getAll("endpoint");
    const all = [home, ...endpoints].join(" ");
    const connect = {
      nothing: "'none'",
      http: all,
      all: `${all} ${all.replaceAll("http", "ws")}`, // a policy lists http: and ws: separately
    }[searchParams.get("connect") ?? "all"];
    const isModule = searchParams.has("module");
    if (pathname === "/module.js") {
      response.setHeader("Content-Type", "text/javascript");
      return response.end(
        `import Speak, { join } from "${home}speak.mjs"; window.isSame = Speak.join === join;`,
      );
    }
    response.setHeader("Content-Type", "text/html");
    response.setHeader(
      "Content-Security-Policy",
      `default-src 'none'; script-src 'self' ${all}; connect-src ${connect}`,
    );
    const client = isModule
      ? `<script type="module" src="/module.js?endpoint=${home}"></script>`
      : `<script src="${home}speak.js"></script>`;
    const page = `<script src="/page.js"></script>`;
    response.end(`<!doctype html><title>another site</title>${client}${page}`);
  });
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  return {
    address: `${certificate ? "https" : "http"}://127.0.0.1:${site.address().port}/`,
    stop() {
      site.closeAllConnections();
      site.close();
    },
  };
}

/**
 * Starts the browser, with these further arguments, and without these that Playwright adds.
 *
 * @param {string[]} [args]
 * @param {string[]} [ignoreDefaultArgs]
 */
export function launchBrowser(args = [], ignoreDefaultArgs = []) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, args: [...FLAGS, ...args], ignoreDefaultArgs });
}

/**
 * Returns what a test does with a page that has joined a room.
 *
 * @param {(callback: (value?: any) => any, value?: any) => Promise<any>} run calls a function in
 *   the page
 * @param {string} name of the page's member, for the messages of failures
 */
export function roomActions(run, name) {
  const actions = {
    run,
    state: () => run(() => window.chat.state),
    messages: () => run(() => window.received.messages),
    names: () => run(() => window.chat.members.map(({ name }) => name)),
    say: (text) => run((text) => window.chat.say(text), text),
    texts: async () => {
      const messages = await actions.messages();
      return messages.filter(({ type }) => type === "message").map(({ text }) => text);
    },
    waitForState: (state) =>
      until(async () => (await actions.state()).state === state, `${name} is ${state}`),
    waitForText: (text) =>
      until(async () => (await actions.texts()).includes(text), `${name} receives ${text}`),
    waitForMembers: (...names) =>
      until(async () => `${await actions.names()}` === `${names}`, `${name} sees ${names}`),
    // A client that changes its transport may be introduced again, and so change its place.
    waitForMembersInAnyOrder: (...names) =>
      until(
        async () => `${(await actions.names()).sort()}` === `${names}`,
        `${name} sees ${names} in any order`,
      ),
    waitForGoodbye: (name) =>
      until(async () => {
        const messages = await actions.messages();
        return messages.find((one) => one.type === "goodbye" && one.name === name);
      }, `${name} leaves`),
  };
  return actions;
}

/** Opens the browser and the site. close() closes both, and everything that was opened in them. */
export async function openEnvironment() {
  const site = await startSite();
  const browser = await launchBrowser();

  /** Opens an empty browser profile. `errors` has what its pages report. */
  async function openProfile() {
    const context = await browser.newContext();
    const errors = [];

    /** Opens a tab that loads speak.js from the first endpoint, and joins the room, if any. */
    async function openTab(endpoints, room, options, flags = "") {
      const page = await context.newPage();
      page.on("console", (line) => {
        if (/Content.Security.Policy|uncaught/i.test(line.text())) errors.push(line.text());
      });
      page.on("pageerror", (error) => errors.push(error.message));
      const query = new URLSearchParams(endpoints.map((endpoint) => ["endpoint", endpoint]));
      await page.goto(`${site.address}?${query}${flags}`);
      if (flags.includes("module")) await until(() => page.evaluate(() => window.isSame));
      const join = () =>
        page.evaluate(
          ([room, options]) => window.joinRoom(room, options),
          [room, { endpoint: endpoints, ...options }],
        );
      if (room) await join();
      return {
        page,
        ...roomActions((callback, value) => page.evaluate(callback, value), options.name),
        /** Loads the page again, and joins the room again. */
        async reload() {
          await page.reload();
          await join();
        },
        close: () => page.close(),
        async crash() {
          const session = await context.newCDPSession(page);
          const crashed = page.waitForEvent("crash");
          session.send("Page.crash").catch(() => {}); // a crashed page does not respond
          await crashed;
        },
      };
    }
    return { openTab, errors, close: () => context.close() };
  }

  return {
    openProfile,
    async close() {
      await browser.close();
      site.stop();
    },
  };
}
