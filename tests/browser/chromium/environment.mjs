// Where the tests take place: a real server, pages of another origin with a strict policy, and a real browser.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const PATIENCE = 30_000;

export const TRANSPORTS = ["websocket", "eventsource", "fetch", "jsonp"];

/** Waits for what must come true; the limit is only there so that a test ends. */
export async function until(holds, what = holds) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; ) {
    const value = await holds();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`never came true: ${what}`);
}

/** Starts the server on these ports of the loopback; 0 is any that is free. */
export async function startServer({ ports = [0], options = [] } = {}) {
  const program = process.env.SPEAK_BIN;
  if (!program) throw new Error("SPEAK_BIN names no server to test");
  const listen = ports.flatMap((port) => ["--listen", `127.0.0.1:${port}`]);
  // Where all logs are looked at for secrets (tests/secrets.py), it tells of every request.
  const logs = process.env.SPEAK_TEST_LOGS;
  const env = logs ? { ...process.env, SPEAK_LOG: "debug" } : process.env;
  const child = spawn(program, [...listen, ...options], { stdio: ["ignore", "ignore", "pipe"], env });
  if (logs) child.stderr.on("data", (bytes) => appendFileSync(join(logs, `${child.pid}.log`), bytes));
  const ended = once(child, "exit");
  // A test that fails leaves its server behind; it must not outlive the tests, nor keep them from ending.
  process.once("exit", () => child.kill("SIGKILL"));
  child.unref();
  const doors = [];
  for await (const line of createInterface({ input: child.stderr })) {
    const address = line.match(/listening on (http:\S+)/)?.[1];
    if (address && doors.push(`${address}/`) === ports.length) break;
  }
  if (doors.length < ports.length) throw new Error("the server did not start");
  child.stderr.resume().unref();
  return {
    doors,
    ports: doors.map((door) => Number(new URL(door).port)),
    async call(path, values) {
      return (await fetch(doors[0] + path, { method: "POST", body: new URLSearchParams(values) })).json();
    },
    /** All messages of a room that are retained. */
    async messages(channel) {
      return (await this.call("read", { channel, from_id: 0, timeout: 0 })).messages;
    },
    async stop(signal = "SIGKILL") {
      child.kill(signal);
      await ended;
    },
  };
}

/** A port where nobody listens. */
export async function closedPort() {
  const listener = http.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

/** A line to the server, which can break: what goes over it ends, and nobody is there until it is mended. */
export async function startLine(target) {
  const { hostname, port } = new URL(target);
  const ends = new Set();
  const listener = net.createServer((near) => {
    const far = net.connect(port, hostname);
    for (const [end, other] of [[near, far], [far, near]]) {
      ends.add(end);
      end.on("error", () => {}).on("close", () => ends.delete(end) && other.destroy()).pipe(other);
    }
  });
  const open = async (port) => {
    listener.listen(port, "127.0.0.1");
    await once(listener, "listening");
    return listener.address().port;
  };
  const own = await open(0);
  const cut = () => {
    listener.close();
    for (const end of ends) end.resetAndDestroy();
  };
  return { door: `http://127.0.0.1:${own}/`, cut, mend: () => open(own), stop: cut };
}

/** Somebody else's page, without a line of script in it, and with a policy that allows no more than it needs. */
async function startSite() {
  const pages = {
    "/page.js": `
      window.talk = (room, options) => {
        const chat = window.Speak.join(room, options);
        const told = { messages: [], states: [], missed: 0, errors: [] };
        chat.onmessage = (message) => told.messages.push(message);
        chat.onstate = (state) => told.states.push(state);
        chat.onmissed = () => told.missed++;
        chat.onerror = (error) => told.errors.push(error.name);
        Object.assign(window, { chat, told });
      };
      window.addEventListener("error", ({ message }) => console.error("uncaught: " + message));`,
  };
  const site = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://site");
    const script = pages[pathname];
    if (script) return response.setHeader("Content-Type", "text/javascript").end(script);
    const [home, ...doors] = searchParams.getAll("door");
    const all = [home, ...doors].join(" ");
    const connect = {
      nothing: "'none'",
      http: all,
      all: `${all} ${all.replaceAll("http", "ws")}`, // a policy tells them apart
    }[searchParams.get("connect") ?? "all"];
    const isModule = searchParams.has("module");
    if (pathname === "/module.js") {
      response.setHeader("Content-Type", "text/javascript");
      return response.end(`import Speak, { join } from "${home}speak.mjs"; window.isSame = Speak.join === join;`);
    }
    response.setHeader("Content-Type", "text/html");
    response.setHeader("Content-Security-Policy", `default-src 'none'; script-src 'self' ${all}; connect-src ${connect}; img-src ${all}`);
    const client = isModule ? `<script type="module" src="/module.js?door=${home}"></script>` : `<script src="${home}speak.js"></script>`;
    response.end(`<!doctype html><title>elsewhere</title>${client}<script src="/page.js"></script>`);
  });
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  return {
    address: `http://127.0.0.1:${site.address().port}/`,
    stop() {
      site.closeAllConnections();
      site.close();
    },
  };
}

/** Opens the browser and the site, and closes both, and everything that was lent, when the tests are over. */
export async function openPlace() {
  const site = await startSite();
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });

  /** Somebody's browser, with nothing in it. */
  async function person() {
    const context = await browser.newContext();
    const complaints = [];

    /** Opens a tab that loads speak.js from the first of the doors, and joins a room. */
    async function open(doors, room, options, flags = "") {
      const page = await context.newPage();
      page.on("console", (line) => /Content.Security.Policy|uncaught/i.test(line.text()) && complaints.push(line.text()));
      page.on("pageerror", (error) => complaints.push(error.message));
      await page.goto(`${site.address}?${new URLSearchParams(doors.map((door) => ["door", door]))}${flags}`);
      if (flags.includes("module")) await until(() => page.evaluate(() => window.isSame));
      await page.evaluate(([room, options]) => window.talk(room, options), [room, { door: doors, ...options }]);
      const tab = {
        page,
        run: (act, given) => page.evaluate(act, given),
        state: () => page.evaluate(() => window.chat.state),
        messages: () => page.evaluate(() => window.told.messages),
        names: () => page.evaluate(() => window.chat.members.map(({ name }) => name)),
        say: (text) => page.evaluate((text) => window.chat.say(text), text),
        texts: async () => (await tab.messages()).filter(({ type }) => type === "message").map(({ text }) => text),
        is: (state) => until(async () => (await tab.state()).state === state, `${options.name} is ${state}`),
        hears: (text) => until(async () => (await tab.texts()).includes(text), `${options.name} hears ${text}`),
        sees: (...names) => until(async () => `${await tab.names()}` === `${names}`, `${options.name} sees ${names}`),
        // In any order: who fell back from one way to another may have come in anew.
        meets: (...names) => until(async () => `${(await tab.names()).sort()}` === `${names}`, `${options.name} meets ${names}`),
        goodbye: (name) =>
          until(async () => (await tab.messages()).find((one) => one.type === "goodbye" && one.name === name), `${name} leaves`),
        close: () => page.close(),
        async crash() {
          const session = await context.newCDPSession(page);
          const crashed = page.waitForEvent("crash");
          session.send("Page.crash").catch(() => {}); // nobody is left to answer
          await crashed;
        },
      };
      return tab;
    }
    return { open, complaints, close: () => context.close() };
  }

  return {
    person,
    async close() {
      await browser.close();
      site.stop();
    },
  };
}
