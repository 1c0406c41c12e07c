import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeServer } from "./fake_server.mjs";
import { connected, DIRECT, HOME, Simulation } from "./simulation.mjs";

const OTHER = "http://other.test/";

async function joined(sim, options, page = sim.openPage()) {
  const chat = page.join("lobby", { name: "Josh", ...options });
  await sim.clock.until(connected(chat));
  return chat;
}

const kinds = (sim) =>
  new Set(sim.requests.filter(({ endpoint }) => endpoint === HOME).map(({ kind }) => kind));

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
  assert.equal(sim.requests.filter(({ endpoint }) => endpoint === DIRECT).length, 0);
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
  const values = (name) => new Set(elements.map(({ src }) => new URL(src).searchParams.get(name)));
  assert.ok(elements.length > 20);
  assert.equal(values("callback").size, elements.length);
  assert.equal(new Set(elements.map(({ src }) => src)).size, elements.length);
  assert.ok(elements.every(({ referrerPolicy }) => referrerPolicy === "no-referrer"));
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

test("the direct endpoint is used if it is open, without a pause, and no member is seen to move", async () => {
  const sim = new Simulation();
  const eve = await joined(sim, { name: "Eve" });
  sim.endpoints.set(DIRECT, "open");
  const chat = await joined(sim);
  await sim.clock.until(() => chat.state.endpoint === DIRECT);
  await sim.waitFor(chat.say("hello"));
  await sim.clock.advance(60_000);
  assert.deepEqual([chat.texts(), sim.server.readers.size], [["hello"], 2]);
  const mine = eve.received.messages.filter(({ name }) => name === "Josh");
  assert.deepEqual(
    mine.map(({ type }) => type),
    ["introduction", "message"],
  );
  assert.deepEqual(
    chat.received.states.map(({ state }) => state).filter((state) => state !== "connected"),
    [],
  );
  const [probe] = sim.requests.filter(({ endpoint }) => endpoint === DIRECT);
  assert.deepEqual([probe.path, probe.query.has("auth")], ["read", false]);
  assert.notEqual(probe.query.get("channel"), "lobby", "a channel's name is a secret");
});

for (const kind of ["closed", "silent"]) {
  test(`a direct endpoint that is ${kind} costs no time, and is tried once in a tab`, async () => {
    const sim = new Simulation();
    sim.endpoints.set(DIRECT, kind);
    let page = sim.openPage();
    for (let loads = 0; loads < 3; loads++) {
      const { now } = sim.clock;
      const chat = await joined(sim, {}, page);
      assert.ok(sim.clock.now - now < 200, `${sim.clock.now - now} ms`);
      await sim.clock.advance(20_000);
      sim.disconnect();
      await sim.clock.advance(5000);
      sim.isOnline = true;
      page.dispatch("online");
      const { now: outage } = sim.clock;
      await sim.clock.until(connected(chat));
      assert.ok(sim.clock.now - outage < 200, `${sim.clock.now - outage} ms`);
      assert.equal(chat.state.endpoint, HOME);
      page = page.reload();
    }
    assert.equal(sim.requests.filter(({ endpoint }) => endpoint === DIRECT).length, 1);
  });
}

test("another server on the direct port is not used", async () => {
  const sim = new Simulation();
  sim.endpoints.set(DIRECT, "open");
  const other = new FakeServer(sim.clock);
  other.epoch = "other";
  sim.otherServers.set(DIRECT, other);
  const chat = await joined(sim);
  await sim.waitFor(chat.say("hello"));
  await sim.clock.advance(60_000);
  assert.deepEqual(
    [chat.state.endpoint, chat.texts(), other.texts("lobby"), other.connectionCount],
    [HOME, ["hello"], [], 0],
  );
});

for (const what of ["restarts there", "is another one"]) {
  test(`after a restart, the server on the direct port ${what}: nothing is said to another one`, async () => {
    const sim = new Simulation();
    sim.endpoints.set(DIRECT, "open");
    const chat = await joined(sim);
    await sim.clock.until(() => chat.state.endpoint === DIRECT);
    await sim.clock.advance(1000);
    const other = new FakeServer(sim.clock);
    other.epoch = "other";
    if (what === "is another one") sim.otherServers.set(DIRECT, other);
    sim.disconnect();
    sim.server.restart();
    sim.isOnline = true;
    for (const text of ["one", "two"]) {
      await sim.waitFor(chat.say(text));
      await sim.clock.advance(30_000);
    }
    assert.deepEqual(
      [chat.texts(), other.texts("lobby"), other.connectionCount],
      [["one", "two"], [], 0],
    );
    assert.equal(chat.state.endpoint, what === "is another one" ? HOME : DIRECT);
  });
}

for (const origin of ["https://page.test", "http://page.test"]) {
  test(`a page of ${origin} with a client by https begins there, and moves to port 7732 by https`, async () => {
    const sim = new Simulation();
    const [home, direct] = ["https://speak.test/", "https://speak.test:7732/"];
    const src = `${home}speak.js`;
    sim.endpoints.set(home, "open").set(DIRECT, "open").set(direct, "open");
    const chat = await joined(sim, {}, sim.openPage({ src, origin }));
    assert.equal(sim.requestsTo("read")[0].endpoint, home);
    await sim.clock.until(() => chat.state.endpoint === direct);
    assert.ok(sim.requests.every(({ endpoint }) => endpoint !== DIRECT));
  });
}

test("of a list, the last endpoint is used at once, and then the first that is open", async () => {
  for (const [open, expected] of [
    [[DIRECT, OTHER, HOME], DIRECT],
    [[OTHER, HOME], OTHER],
    [[HOME], HOME],
    [[DIRECT], DIRECT],
  ]) {
    const sim = new Simulation();
    sim.endpoints.clear();
    for (const endpoint of open) sim.endpoints.set(endpoint, "open");
    const chat = await joined(sim, { endpoint: [DIRECT, "http://other.test", HOME] });
    assert.equal(chat.state.endpoint, open.at(-1));
    for (let i = 0; i < 3; i++) {
      sim.server.write("lobby", `${i}`);
      await sim.clock.advance(1000);
    }
    assert.deepEqual([chat.state.endpoint, chat.texts()], [expected, ["0", "1", "2"]]);
    assert.deepEqual(sim.server.names("lobby"), ["Josh"]);
  }
});

test("if reads fail at the direct endpoint, the client goes back, and stays", async () => {
  const sim = new Simulation();
  sim.endpoints.set(DIRECT, "open");
  const chat = await joined(sim);
  await sim.clock.until(() => chat.state.endpoint === DIRECT);
  await sim.clock.advance(1000);
  sim.endpoints.set(DIRECT, "closed");
  sim.disconnect();
  sim.isOnline = true;
  await sim.clock.until(() => chat.state.endpoint === HOME && connected(chat)());
  sim.endpoints.set(DIRECT, "open");
  await sim.clock.advance(60_000);
  assert.deepEqual([chat.state.endpoint, sim.server.names("lobby")], [HOME, ["Josh"]]);
});

test("the server can be in a folder, and the server option names it", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ src: "http://speak.test:8080/chat/speak.js?v=2" });
  assert.equal(page.globals.Speak.server, "http://speak.test:8080/chat/");
  sim.endpoints.set(OTHER, "open");
  const chat = await joined(sim, { server: "http://other.test" }, page);
  assert.equal(chat.state.endpoint, OTHER);
  await sim.clock.advance(1000);
  assert.deepEqual(
    new Set(sim.requests.map(({ endpoint }) => endpoint)),
    new Set([OTHER, "http://other.test:7732/"]),
  );
});

for (const readyState of ["loading", "interactive"]) {
  test(`scripts wait for messages after the page's load event, not before (${readyState})`, async () => {
    const sim = new Simulation();
    const eve = await joined(sim, { name: "Eve" });
    const page = sim.openPage();
    const { document } = page.globals;
    document.readyState = readyState;
    const chat = await joined(sim, { transport: "jsonp" }, page);
    const reads = () => sim.requestsTo("read").filter(({ kind }) => kind === "jsonp");
    for (let i = 0; i < 20; i++) {
      sim.server.write("lobby", `${i}`);
      await sim.clock.advance(3000);
      assert.equal(chat.texts().length, i + 1, "messages arrive meanwhile");
    }
    assert.ok(reads().every(({ query }) => query.get("timeout") === "0"));
    assert.ok(reads().length < 40, "few calls");
    document.readyState = "complete";
    await sim.clock.advance(3000);
    assert.equal(reads().at(-1).query.get("timeout"), "25");
    sim.server.write("lobby", "at once");
    await sim.clock.advance(100);
    assert.equal(chat.texts().at(-1), "at once");
    assert.ok(eve.received.messages.every(({ type }) => type !== "goodbye"));
  });
}

test("a transport that the browser lacks is an error, and the chat is over", async () => {
  const sim = new Simulation();
  const chat = sim.openPage().join("lobby", { name: "Josh", transport: "websocket" });
  await sim.clock.advance(1000);
  assert.deepEqual(
    chat.received.errors.map(({ message }) => message),
    ["no such transport"],
  );
  assert.equal(chat.state.state, "left");
  assert.deepEqual(sim.requests, []);
});
