// A real server, a real browser, and people who visit the demo in it. Every visitor has a profile of their own,
// and what their pages ask for and complain about is written down.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

export async function startServer(port = 0) {
  const program = process.env.SPEAK_BIN;
  if (!program) throw new Error("SPEAK_BIN names no server to test");
  // Where all logs are looked at for secrets (tests/secrets.py), it tells of every request.
  const logs = process.env.SPEAK_TEST_LOGS;
  const env = logs ? { ...process.env, SPEAK_LOG: "debug" } : process.env;
  const child = spawn(program, ["--listen", `127.0.0.1:${port}`], { stdio: ["ignore", "ignore", "pipe"], env });
  if (logs) child.stderr.on("data", (bytes) => appendFileSync(join(logs, `${child.pid}.log`), bytes));
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

export async function openHouse() {
  const server = await startServer();
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
  const direct = `http://127.0.0.1:7732`; // whatever else this machine serves there is no business of ours
  const outside = [];
  const complaints = [];

  async function visit(room, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1100, height: 700 }, locale: "en-GB", ...options });
    await context.route(`${direct}/**`, (route) => route.abort());
    context.on("request", (request) => {
      const { protocol, origin } = new URL(request.url());
      if (protocol !== "data:" && origin !== server.origin && origin !== direct) outside.push(request.url());
    });
    context.on("console", (line) => /Content.Security.Policy/i.test(line.text()) && complaints.push(line.text()));
    context.on("weberror", (error) => complaints.push(error.error().stack));
    const page = await context.newPage();
    await page.goto(`${server.origin}/#${room}`);
    await page.locator('[data-state="connected"]').waitFor();
    return page;
  }

  const close = async () => {
    await browser.close();
    await server.stop();
  };
  return { server, visit, outside, complaints, close };
}

export async function comeIn(page, name) {
  await page.getByLabel("What shall we call you?").fill(name);
  await page.getByRole("button", { name: "Come in" }).click();
  await member(page, name).getByText("you", { exact: true }).waitFor();
}

export const member = (page, name) => page.locator("#members li").filter({ hasText: name });
export const row = (page, text) => page.locator("#messages .said").filter({ has: page.getByText(text, { exact: true }) });
export const events = (page, text) => page.locator("#messages .events span").filter({ hasText: text });

export async function say(page, text) {
  await page.locator("#text").fill(text);
  await page.locator("#text").press("Enter");
}

// A browser without a screen hides no page by itself.
export function setHidden(page, isHidden) {
  return page.evaluate((isHidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => (isHidden ? "hidden" : "visible") });
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
  }, isHidden);
}
