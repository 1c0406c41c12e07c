// The package for npm in programs without a page: Node, Deno and Bun.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { EventSource } from "eventsource";
import { WebSocket } from "undici";
import { startServer, until } from "../chromium/environment.mjs";
import { createProject, program } from "./project.mjs";

const RUNTIMES = {
  node: [process.execPath],
  deno: [program("deno"), "run", "--allow-net", "--allow-env", "--cached-only"],
  bun: [program("bun"), "run"],
};
const STREAMS = { fetch: {}, websocket: { WebSocket }, eventsource: { EventSource } };

let project;
let server;
before(async () => {
  project = createProject();
  server = await startServer();
});
after(async () => {
  await server?.stop();
  project.remove();
});

/** Returns the first example of the package's README. */
function bot() {
  const [, text] = project.read("README.md").match(/^```js\n(.*?)^```/ms);
  return text;
}

/** Loads the client where these globals are there. */
async function load(globals) {
  for (const name of ["WebSocket", "EventSource"]) delete globalThis[name];
  Object.assign(globalThis, globals);
  const { join } = await import(pathToFileURL(`${project.installed}/index.js`).href);
  return join;
}

for (const [name, [command, ...options]] of Object.entries(RUNTIMES)) {
  test(`the bot of the README, in ${name}: answers, whispers, and says goodbye`, async (t) => {
    const text = bot();
    assert.ok(text.trim().split("\n").filter(Boolean).length <= 10, "it has ten lines");
    project.write("bot.js", text);
    const [endpoint] = server.endpoints;
    const env = { ...process.env, SPEAK_SERVER: endpoint, DENO_DIR: join(project.folder, "deno") };
    const stdio = ["ignore", "ignore", "pipe"];
    const child = spawn(command, [...options, "bot.js"], { cwd: project.folder, env, stdio });
    t.after(() => child.kill("SIGKILL"));
    let errors = "";
    child.stderr.on("data", (bytes) => (errors += bytes));
    const ended = once(child, "exit");
    const talk = await load(STREAMS.fetch);
    const chat = talk("lobby", { server: endpoint, name: "Josh", history: false });
    t.after(() => chat.leave());
    const received = [];
    chat.onmessage = (message) => received.push(message);
    const parrot = await until(
      () => chat.members.find(({ name }) => name === "Parrot"),
      `the bot joins ${errors}`,
    );
    await chat.say("not for you");
    await chat.say("!say hello");
    await chat.whisper(parrot, "psst");
    const heard = () => received.filter(({ from }) => from === parrot.connection);
    await until(() => heard().filter(({ type }) => type === "message").length === 2, "it answers");
    child.kill("SIGTERM");
    assert.deepEqual(await ended, [0, null], errors);
    await until(() => heard().some(({ type }) => type === "goodbye"), "it says goodbye");
    const events = heard().filter(({ type }) => type !== "introduction");
    assert.deepEqual(
      events.map(({ text, whisper, reason }) => [text, whisper, reason]).sort(),
      [
        ["", false, "left"],
        ["Josh says: hello", false, undefined],
        ["psst", true, undefined],
      ].sort(),
    );
  });
}

for (const [transport, globals] of Object.entries(STREAMS)) {
  test(`in Node, a member talks and comes back after a restart (${transport})`, async (t) => {
    let own = await startServer();
    const talk = await load(globals);
    const chat = talk("lobby", { server: own.endpoints[0], name: "Josh" });
    t.after(async () => {
      await chat.leave();
      await own.stop();
    });
    const texts = [];
    chat.onmessage = ({ type, text }) => type === "message" && texts.push(text);
    await until(() => chat.state.state === "connected" && chat.me, "it joins");
    assert.equal(chat.state.transport, transport);
    await chat.say("before");
    await until(() => texts.includes("before"), "the text arrives");
    await own.stop();
    const said = chat.say("during");
    await until(() => chat.state.state === "waiting", "it notices");
    own = await startServer({ ports: own.ports });
    await said;
    await chat.say("after");
    await until(() => texts.includes("after"), "all arrives");
    assert.deepEqual(texts, ["before", "during", "after"]);
    await until(() => chat.me, "it is a member again");
  });
}

test("without a page, two chats of one name are two members, even if there are locks", async (t) => {
  const descriptor = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  const locks = { request: () => assert.fail("a lock was requested") };
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  t.after(() => {
    delete globalThis.navigator;
    if (descriptor) Object.defineProperty(globalThis, "navigator", descriptor);
  });
  const talk = await load({});
  const [first, second] = [1, 2].map(() =>
    talk("twins", { server: server.endpoints[0], name: "Josh" }),
  );
  t.after(() => Promise.all([first.leave(), second.leave()]));
  await until(() => first.members.length === 2 && second.me, "both join");
  assert.notEqual(first.me.connection, second.me.connection);
});

test("a program without a page has to name a server", async () => {
  const talk = await load({});
  assert.throws(() => talk("lobby"), TypeError);
});
