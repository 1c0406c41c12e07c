// Fixture of the tests: a real server, and a real browser that opens the demo. Every page has a
// browser profile of its own. The fixture records requests
// of the pages to other servers, and their errors.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync } from "node:fs";
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

export async function startServer(port = 0) {
  const program = process.env.SPEAK_BIN;
  if (!program) throw new Error("SPEAK_BIN is not set: set it to the server to test");
  // If all logs are searched for secrets (tests/secrets.py), the server logs every request.
  const logs = process.env.SPEAK_TEST_LOGS;
  const env = logs ? { ...process.env, SPEAK_LOG: "debug" } : process.env;
  const stdio = ["ignore", "ignore", "pipe"];
  const child = spawn(program, ["--listen", `127.0.0.1:${port}`], { stdio, env });
  if (logs) {
    child.stderr.on("data", (bytes) => appendFileSync(join(logs, `${child.pid}.log`), bytes));
  }
  const ended = once(child, "exit");
  for await (const line of createInterface({ input: child.stderr })) {
    const origin = line.match(/http:\/\/127\.0\.0\.1:\d+/)?.[0];
    if (!origin) continue;
    child.stderr.resume();
    const stop = async () => {
      child.kill("SIGKILL");
      await ended;
    };
    return { origin, port: Number(new URL(origin).port), stop };
  }
  throw new Error("the server did not start");
}

export async function openFixture() {
  const server = await startServer();
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  const direct = "http://127.0.0.1:7732"; // blocked, because another server may use this port
  const foreignRequests = [];
  const errors = [];

  /** Opens a room of the demo in a new profile, and waits until it is connected. */
  async function openRoom(room, options = {}) {
    const context = await browser.newContext({
      viewport: { width: 1100, height: 700 },
      locale: "en-GB",
      ...options,
    });
    await context.route(`${direct}/**`, (route) => route.abort());
    context.on("request", (request) => {
      const { protocol, origin } = new URL(request.url());
      if (protocol === "data:" || origin === server.origin || origin === direct) return;
      foreignRequests.push(request.url());
    });
    context.on("console", (line) => {
      if (/Content.Security.Policy/i.test(line.text())) errors.push(line.text());
    });
    context.on("weberror", (error) => errors.push(error.error().stack));
    const page = await context.newPage();
    await page.goto(`${server.origin}/#${room}`);
    await page.locator('[data-state="connected"]').waitFor();
    return page;
  }

  const close = async () => {
    await browser.close();
    await server.stop();
  };
  return { server, openRoom, foreignRequests, errors, close };
}

export async function joinRoom(page, name) {
  await page.getByLabel("What shall we call you?").fill(name);
  await page.getByRole("button", { name: "Come in" }).click();
  await member(page, name).getByText("you", { exact: true }).waitFor();
}

export const member = (page, name) => page.locator("#members li").filter({ hasText: name });
export const row = (page, text) =>
  page.locator("#messages .message").filter({ has: page.getByText(text, { exact: true }) });
export const events = (page, text) =>
  page.locator("#messages .events span").filter({ hasText: text });

export async function say(page, text) {
  await page.locator("#text").fill(text);
  await page.locator("#text").press("Enter");
}

/** Makes a page believe that it is hidden or visible. A headless browser never hides a page. */
export function setHidden(page, isHidden) {
  return page.evaluate((isHidden) => {
    const define = (name, get) =>
      Object.defineProperty(document, name, { configurable: true, get });
    define("hidden", () => isHidden);
    define("visibilityState", () => (isHidden ? "hidden" : "visible"));
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
  }, isHidden);
}
