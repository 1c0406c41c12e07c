import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, DIRECT, HOME, Simulation } from "./simulation.mjs";

const OTHER = "http://other.test/";

async function joined(sim, options, page = sim.openPage()) {
  const chat = page.join("lobby", { name: "Josh", ...options });
  await sim.clock.until(connected(chat));
  return chat;
}

const kinds = (sim) =>
  new Set(sim.requests.filter(({ kind }) => kind !== "image").map(({ kind }) => kind));

test("calls by fetch are plain forms, and the default server is where the script came from", async () => {
  const sim = new Simulation();
  const page = sim.openPage();
  let init;
  const { fetch } = page.globals;
  page.globals.fetch = (url, options) => fetch(url, (init = options));
  const chat = await joined(sim, {}, page);
  assert.deepEqual([chat.state.transport, chat.state.endpoint], ["fetch", HOME]);
  const { method, credentials, cache, referrerPolicy, headers, body } = init;
  assert.deepEqual(
    [method, credentials, cache, referrerPolicy, headers],
    ["POST", "omit", "no-store", "no-referrer", undefined],
  );
  assert.ok(body instanceof URLSearchParams);
});

test("without fetch, script tags carry everything", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ without: ["fetch"] });
  const chat = await joined(sim, {}, page);
  const { id } = await sim.waitFor(chat.say("hello & goodbye = +1"));
  await sim.clock.advance(100);
  assert.deepEqual(
    [chat.state.transport, id, chat.texts()],
    ["jsonp", 2, ["hello & goodbye = +1"]],
  );
  assert.deepEqual(kinds(sim), new Set(["jsonp"]));
});

test("if responses to fetch are withheld, the client changes to script tags for good", async () => {
  const sim = new Simulation();
  sim.blocksFetch = true;
  const chat = await joined(sim);
  assert.equal(chat.state.transport, "jsonp");
  assert.deepEqual(sim.server.names("lobby"), ["Josh"]);
  assert.equal(
    sim.requestsTo("introduce").length,
    1,
    "the test of the transport introduced no member",
  );
  sim.blocksFetch = false;
  sim.disconnect();
  await sim.clock.advance(10_000);
  sim.isOnline = true;
  await sim.clock.until(connected(chat));
  assert.equal(sim.requests.filter(({ kind }) => kind === "fetch").length, 1);
});

test("an unreachable server is no reason to change to script tags", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  sim.disconnect();
  await sim.clock.advance(20_000);
  sim.isOnline = true;
  await sim.clock.until(connected(chat));
  assert.deepEqual([chat.state.transport, kinds(sim)], ["fetch", new Set(["fetch"])]);
});

test("the transport option decides the transport", async () => {
  const sim = new Simulation();
  const chat = await joined(sim, { transport: "jsonp" });
  assert.deepEqual([chat.state.transport, kinds(sim)], ["jsonp", new Set(["jsonp"])]);
});

test("every script has a unique callback and address, and is removed", async () => {
  const sim = new Simulation();
  const page = sim.openPage();
  const elements = [];
  const { append } = page.globals.document.head;
  page.globals.document.head.append = (element) => append(elements[elements.push(element) - 1]);
  const chat = await joined(sim, { transport: "jsonp" }, page);
  for (let i = 0; i < 20; i++) await sim.waitFor(chat.say(`${i}`));
  const scripts = elements.filter(({ kind }) => kind === "script");
  const values = (name) => new Set(scripts.map(({ src }) => new URL(src).searchParams.get(name)));
  assert.equal(values("callback").size, scripts.length);
  assert.equal(values("_").size, scripts.length);
  assert.ok(scripts.every(({ referrerPolicy }) => referrerPolicy === "no-referrer"));
  await sim.waitFor(chat.leave());
  await sim.clock.advance(1000);
  assert.ok(elements.every(({ isRemoved }) => isRemoved));
  assert.deepEqual(
    Object.keys(page.globals).filter((key) => key.startsWith("_")),
    [],
  );
});

test("a script that loads after its time limit finds its callback, and is ignored", async () => {
  const sim = new Simulation();
  const page = sim.openPage();
  const chat = await joined(sim, { transport: "jsonp" }, page);
  const { setTimeout: wait } = page.globals;
  // Responses to writes take eleven seconds, one more than the time limit of a call.
  const { on_write } = sim.server;
  sim.server.on_write = (values, reply) =>
    on_write.call(sim.server, values, (answer) => wait(() => reply(answer), 11_000));
  const { id } = await sim.waitFor(chat.say("slow"));
  await sim.clock.advance(20_000);
  assert.deepEqual([id, chat.texts(), page.errors], [2, ["slow"], []]);
});

test("the direct endpoint is used if it is open", async () => {
  const sim = new Simulation();
  sim.endpoints.set(DIRECT, "open");
  const chat = await joined(sim);
  assert.equal(chat.state.endpoint, DIRECT);
  assert.ok(sim.requests.every(({ endpoint }) => endpoint === DIRECT));
  assert.match(sim.requests[0].query.get("_"), /./);
});

test("a closed direct endpoint is skipped at once, and a silent one after two seconds", async () => {
  for (const [kind, least, most] of [
    ["closed", 0, 200],
    ["silent", 2000, 2200],
  ]) {
    const sim = new Simulation();
    sim.endpoints.set(DIRECT, kind);
    const { now } = sim.clock;
    const chat = await joined(sim);
    const took = sim.clock.now - now;
    assert.equal(chat.state.endpoint, HOME);
    assert.ok(took >= least && took <= most, `${kind}: ${took} ms`);
  }
});

test("a page or a server with https has one endpoint", async () => {
  const sim = new Simulation();
  const home = "https://speak.test/";
  sim.endpoints.set(home, "open");
  const chat = await joined(
    sim,
    {},
    sim.openPage({ src: `${home}speak.js`, origin: "https://page.test" }),
  );
  assert.equal(chat.state.endpoint, home);
  assert.equal(sim.requestsTo("image-test").length, 0);
});

test("a list of endpoints is tried in order, and the last one is used without a test", async () => {
  for (const [open, expected] of [
    [[DIRECT, OTHER, HOME], DIRECT],
    [[OTHER, HOME], OTHER],
    [[HOME], HOME],
  ]) {
    const sim = new Simulation();
    sim.endpoints.clear();
    for (const endpoint of open) sim.endpoints.set(endpoint, "open");
    const chat = await joined(sim, { endpoint: [DIRECT, "http://other.test", HOME] });
    assert.equal(chat.state.endpoint, expected);
    assert.ok(sim.requestsTo("image-test").every(({ endpoint }) => endpoint !== HOME));
  }
});

test("an endpoint that answers images but no calls is skipped", async () => {
  const sim = new Simulation();
  sim.endpoints.set(DIRECT, "open");
  sim.fault = ({ endpoint, path }) =>
    endpoint === DIRECT && path !== "image-test" ? "request lost" : null;
  const chat = await joined(sim);
  assert.equal(chat.state.endpoint, HOME);
});

test("endpoints are tried again if reads keep failing", async () => {
  const sim = new Simulation();
  sim.endpoints.set(DIRECT, "open");
  const chat = await joined(sim);
  sim.endpoints.set(DIRECT, "closed");
  sim.disconnect();
  sim.isOnline = true;
  await sim.clock.until(() => chat.state.endpoint === HOME);
  await sim.clock.until(connected(chat));
  assert.deepEqual(sim.server.names("lobby"), ["Josh"]);
});

test("the server can be in a folder, and the server option names it", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ src: "http://speak.test:8080/chat/speak.js?v=2" });
  assert.equal(page.globals.Speak.server, "http://speak.test:8080/chat/");
  sim.endpoints.set(OTHER, "open");
  const chat = await joined(sim, { server: "http://other.test" }, page);
  assert.equal(chat.state.endpoint, OTHER);
  assert.deepEqual(
    sim.requestsTo("image-test").map(({ endpoint }) => endpoint),
    ["http://other.test:7732/"],
  );
});
