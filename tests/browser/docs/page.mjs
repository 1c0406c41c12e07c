// The examples of a Markdown page, and what runs them.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import { fileURLToPath } from "node:url";
import { until } from "../chromium/environment.mjs";

const ROOT = new URL("../../../", import.meta.url);
/** Stands for the reader's server on all pages. */
const SERVER = "https://chat.example.org";

/**
 * Returns the blocks of a page: their language, text, heading, and line for failure messages. A
 * block `console` is the output of the block before, as its `output`.
 */
export function blocks(page) {
  const found = [];
  let heading = "";
  let block;
  readFileSync(new URL(page, ROOT), "utf8")
    .split("\n")
    .forEach((line, i) => {
      if (block && line === "```") block = undefined;
      else if (block) block.text += `${line}\n`;
      else if (line.startsWith("```")) {
        block = { language: line.slice(3), text: "", heading, at: `${page}:${i + 1}` };
        found.push(block);
      } else if (line.startsWith("#")) heading = line.replace(/^#+ /, "");
    });
  found.forEach((one, i) => {
    if (one.language === "console") found[i - 1].output = one.text.trimEnd().split("\n");
  });
  return found;
}

/** Returns a text of a page with the address of a server. */
export const withServer = (text, { endpoints: [endpoint] }) =>
  text.replaceAll(SERVER, endpoint.slice(0, -1));

/** Node, with a WebSocket also in Node 20. */
export const NODE = [
  process.execPath,
  "--import",
  fileURLToPath(new URL("./web_socket.mjs", import.meta.url)),
];

/** Starts a program. Returns its lines, and functions to end it. */
export function start([command, ...options], cwd, env = {}) {
  const child = spawn(command, options, { cwd, env: { ...process.env, ...env } });
  const ended = once(child, "exit");
  let text = "";
  let errors = "";
  child.stdout.on("data", (bytes) => (text += bytes));
  child.stderr.on("data", (bytes) => (errors += bytes));
  return {
    lines: () => text.split("\n").slice(0, -1),
    errors: () => errors,
    kill: (signal) => child.kill(signal),
    ended,
  };
}

/** Runs the program until it has written as many lines as it should, and compares them. */
export async function writes(program, expected, at) {
  let status;
  program.ended.then(([code]) => (status = code));
  try {
    const isDone = () => program.lines().length >= expected.length || status !== undefined;
    await until(isDone, `${at} writes ${expected.length} lines`);
    assert.deepEqual(program.lines().slice(0, expected.length), expected, at + program.errors());
    assert.equal(program.errors(), "", at);
  } finally {
    program.kill("SIGKILL");
  }
}

/** Serves pages of another origin than the server. show() serves one, and returns its address. */
export async function startSite() {
  const pages = [];
  const site = http.createServer((request, response) => {
    const page = pages[request.url.slice(1)] ?? "";
    response.setHeader("Content-Type", "text/html; charset=utf-8").end(page);
  });
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  return {
    show: (html) => `http://127.0.0.1:${site.address().port}/${pages.push(html) - 1}`,
    stop: () => site.close(),
  };
}
