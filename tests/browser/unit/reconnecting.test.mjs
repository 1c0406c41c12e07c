import assert from "node:assert/strict";
import { test } from "node:test";
import { refuse } from "./fake_server.mjs";
import { connected, HOME, Simulation } from "./simulation.mjs";

async function joined(sim, options) {
  const page = sim.openPage();
  const chat = page.join("lobby", { name: "Josh", ...options });
  await sim.clock.until(connected(chat));
  return { page, chat };
}

/** Returns the pauses that a chat reported, in milliseconds. */
const pauses = (chat) =>
  chat.received.states
    .filter(({ state }) => state === "waiting")
    .map(({ retryIn }) => Math.round(retryIn));

test("pauses double up to half a minute, and start again after a success", async () => {
  const sim = new Simulation();
  const { chat } = await joined(sim);
  sim.disconnect();
  await sim.clock.advance(240_000);
  assert.deepEqual(
    pauses(chat).slice(0, 10),
    [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000],
  );
  // The pauses last as long as reported.
  const waits = chat.received.states
    .filter(({ state }) => state === "waiting" || state === "connecting")
    .slice(0, 6);
  const measured = [0, 2, 4].map((i) => Math.round(waits[i + 1].at - waits[i].at));
  assert.deepEqual(measured, [500, 1000, 2000]);

  sim.isOnline = true;
  await sim.clock.until(connected(chat));
  const before = pauses(chat).length;
  sim.disconnect();
  await sim.clock.advance(100);
  assert.deepEqual(pauses(chat).slice(before), [500]);
});

test("pauses vary from half to one and a half of their length", async () => {
  for (const [random, expected] of [
    [0, [250, 500, 1000]],
    [1, [750, 1500, 3000]],
  ]) {
    const sim = new Simulation();
    const { chat } = await joined(sim);
    sim.random = random;
    sim.disconnect();
    await sim.clock.advance(10_000);
    assert.deepEqual(pauses(chat).slice(0, 3), expected);
  }
});

for (const [what, wake] of [
  ["the network comes back", (page) => page.dispatch("online")],
  ["the page becomes visible", (page) => page.dispatch("visibilitychange")],
]) {
  test(`a pause ends when ${what}`, async () => {
    const sim = new Simulation();
    const { page, chat } = await joined(sim);
    sim.disconnect();
    await sim.clock.advance(100_000);
    await sim.clock.until(() => chat.state.state === "waiting" && chat.state.retryIn > 20_000);
    await sim.clock.advance(1000);
    sim.isOnline = true;
    const { now } = sim.clock;
    wake(page);
    await sim.clock.until(connected(chat));
    assert.ok(sim.clock.now - now < 1000, `${sim.clock.now - now} ms`);
  });
}

test("a page that becomes hidden ends no pause", async () => {
  const sim = new Simulation();
  const { page, chat } = await joined(sim);
  sim.disconnect();
  await sim.clock.advance(100_000);
  await sim.clock.until(() => chat.state.state === "waiting" && chat.state.retryIn > 20_000);
  await sim.clock.advance(100);
  page.globals.document.hidden = true;
  const count = sim.requests.length;
  page.dispatch("visibilitychange");
  await sim.clock.advance(1000);
  assert.equal(sim.requests.length, count);
});

test("in a short outage no message is lost, and none arrives twice", async () => {
  const sim = new Simulation();
  const { chat } = await joined(sim);
  sim.server.write("lobby", "before");
  await sim.clock.advance(100);
  sim.disconnect();
  sim.server.write("lobby", "meanwhile");
  await sim.clock.advance(700);
  sim.isOnline = true;
  await sim.clock.until(() => chat.texts().length === 2);
  await sim.clock.advance(1000);
  assert.deepEqual([chat.texts(), chat.received.missed], [["before", "meanwhile"], 0]);
  assert.deepEqual(
    sim.server.names("lobby"),
    ["Josh"],
    "introduced again after the connection had closed",
  );
  assert.deepEqual(chat.names(), ["Josh"]);
  assert.ok(
    chat.received.messages.filter(({ from }) => from).every(({ own }) => own),
    "each of its connections was its own",
  );
});

test("after a restart the client follows the new ids, and no message arrives twice", async () => {
  const sim = new Simulation();
  const { chat } = await joined(sim);
  await sim.waitFor(chat.say("before"));
  await sim.clock.advance(100);
  sim.server.restart();
  await sim.clock.until(() => chat.received.messages.length === 3);
  await sim.waitFor(chat.say("after"));
  await sim.clock.advance(1000);
  assert.deepEqual(
    chat.received.messages.map(({ id, text, own }) => [id, text, own]),
    [
      [1, "Josh", true],
      [2, "before", true],
      [1, "Josh", true],
      [2, "after", true],
    ],
  );
  assert.deepEqual([chat.names(), chat.received.missed], [["Josh"], 0]);
});

test("after a restart, another member with the client's old number is not its own", async () => {
  const sim = new Simulation();
  const { chat } = await joined(sim);
  sim.server.restart();
  const eve = sim.server.introduce("lobby", "Eve");
  assert.equal(eve.connection, 1, "the number that the client had");
  sim.server.write("lobby", "I am Eve", eve);
  await sim.clock.until(() => chat.texts().length === 1);
  assert.deepEqual(
    Array.from(chat.members, ({ name, own }) => [name, own]),
    [
      ["Eve", false],
      ["Josh", true],
    ],
  );
  const { name, own } = chat.received.messages.find(({ text }) => text === "I am Eve");
  assert.deepEqual([name, own, chat.me.connection], ["Eve", false, 2]);
});

test("a restart removes the old names: a number without an introduction has none", async () => {
  const sim = new Simulation();
  const ada = sim.server.introduce("lobby", "Ada");
  const { chat } = await joined(sim);
  sim.server.restart();
  const stranger = sim.server.introduce("elsewhere", "Zoe");
  assert.equal(stranger.connection, ada.connection);
  sim.server.write("lobby", "hello", stranger);
  await sim.clock.until(() => chat.texts().length === 1);
  assert.equal(chat.received.messages.find(({ text }) => text === "hello").name, undefined);
});

test("a connection that ended is introduced again once", async () => {
  const sim = new Simulation();
  const { chat } = await joined(sim);
  sim.server.write("lobby", "old");
  await sim.clock.advance(100);
  sim.server.end(sim.server.connections.get(1), "timeout");
  const sent = [chat.say("one"), chat.say("two")];
  await sim.waitFor(Promise.all(sent));
  await sim.clock.advance(1000);
  assert.equal(sim.requestsTo("introduce").length, 2);
  assert.deepEqual(chat.texts(), ["old", "one", "two"]);
  assert.ok(chat.received.messages.filter(({ from }) => from).every(({ own }) => own));
  assert.equal(
    chat.received.states.filter(({ state }) => state === "waiting").length,
    0,
    "without a pause",
  );
});

test("a connection that ends again and again is not introduced again in a rush", async () => {
  const sim = new Simulation();
  sim.server.prove = ({ connection }) => connection && refuse("connection_ended", 410);
  const chat = sim.openPage().join("lobby", { name: "Josh" });
  await sim.clock.advance(10_000);
  assert.ok(
    sim.requestsTo("introduce").length < 10,
    `${sim.requestsTo("introduce").length} introductions`,
  );
  assert.deepEqual(chat.received.errors.length, 0);
});

test("a read without a response is given up after forty seconds", async () => {
  const sim = new Simulation();
  const { chat } = await joined(sim);
  sim.fault = ({ path }) => (path === "read" ? "silent" : null);
  sim.server.write("lobby", "wake up");
  await sim.clock.advance(1000); // the read after this is lost
  sim.fault = () => null;
  sim.server.write("lobby", "after the loss");
  await sim.clock.advance(38_000);
  assert.deepEqual(chat.texts(), ["wake up"]);
  await sim.clock.advance(5000);
  assert.deepEqual(chat.texts(), ["wake up", "after the loss"]);
});

for (const [error, status] of [
  ["too_many_requests", 429],
  ["over_capacity", 503],
  ["request_timeout", 408],
]) {
  test(`the client waits and retries after ${error}`, async () => {
    const sim = new Simulation();
    const { chat } = await joined(sim);
    const { on_read } = sim.server;
    sim.server.on_read = () => refuse(error, status);
    sim.server.write("lobby", "later");
    await sim.clock.advance(3000);
    assert.equal(chat.state.state, "waiting");
    delete sim.server.on_read;
    assert.equal(sim.server.on_read, on_read);
    await sim.clock.until(() => chat.texts().includes("later"));
    assert.deepEqual(chat.received.errors, []);
  });
}

test("the state names the endpoint, the transport and the duration of calls", async () => {
  const sim = new Simulation();
  const { chat } = await joined(sim);
  const { state, endpoint, transport, latency } = chat.state;
  assert.deepEqual(
    [state, endpoint, transport, latency],
    ["connected", "http://speak.test:8080/", "fetch", 10],
  );
  sim.disconnect();
  await sim.clock.advance(100);
  assert.deepEqual([chat.state.state, chat.state.error], ["waiting", "Failed to fetch"]);
  await sim.clock.advance(500);
  assert.ok(
    chat.received.states.some(
      (received) => received.state === "connecting" && !received.error && !received.retryIn,
    ),
  );
});

const HINTS = {
  "the network reports a change": (page) => page.dispatch("online"),
  "the connection reports a change": (page) =>
    page.globals.navigator.connection.dispatchEvent(new Event("change")),
  "the page is shown after six seconds": (page) => page.hideFor(6000),
};
for (const transport of ["websocket", "eventsource", "fetch", "jsonp"]) {
  for (const [what, hint] of Object.entries(HINTS)) {
    test(`${transport}: ${what}: a line that died unnoticed is replaced at once`, async () => {
      const sim = new Simulation();
      const eve = sim.openPage().join("lobby", { name: "Eve" });
      const page = sim.openPage({ streams: ["websocket", "eventsource"] });
      const chat = page.join("lobby", { name: "Josh", transport });
      await sim.clock.advance(30_000);
      const { length } = chat.received.states;
      sim.changeNetwork(page);
      await hint(page);
      sim.server.write("lobby", "one");
      await sim.clock.advance(1000);
      sim.server.write("lobby", "two");
      await sim.clock.advance(100);
      assert.deepEqual([chat.texts(), chat.state.transport], [["one", "two"], transport]);
      await sim.clock.advance(30_000);
      const types = eve.received.messages.map(({ type }) => type);
      assert.deepEqual(types.filter((type) => type === "goodbye"), []);
      const changes = chat.received.states
        .slice(length)
        .filter(({ state }) => state !== "connected");
      assert.deepEqual(changes, [], "the server could be reached all the time");
    });

    test(`${transport}: ${what}: a dead line is reported within three seconds`, async () => {
      const sim = new Simulation();
      const page = sim.openPage({ streams: ["websocket", "eventsource"] });
      const chat = page.join("lobby", { name: "Josh", transport });
      await sim.clock.advance(30_000);
      sim.changeNetwork(page);
      sim.endpoints.set(HOME, "silent");
      await hint(page);
      await sim.clock.advance(3000);
      assert.notEqual(chat.state.state, "connected");
      sim.endpoints.set(HOME, "open");
      sim.server.write("lobby", "hello");
      await hint(page);
      await sim.clock.advance(1000);
      assert.deepEqual([chat.state.state, chat.texts()], ["connected", ["hello"]]);
    });
  }
}

test("a check that was under way when the page wakes does not delay the answer", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ streams: ["websocket"] });
  const chat = page.join("lobby", { name: "Josh" });
  await sim.clock.advance(30_000);
  sim.changeNetwork(page);
  sim.endpoints.set(HOME, "silent");
  const count = () => sim.requestsTo("read").length;
  const before = count();
  await sim.clock.until(() => count() > before, "the client checks the silent stream");
  sim.endpoints.set(HOME, "open");
  page.dispatch("online");
  sim.server.write("lobby", "hello");
  await sim.clock.advance(100);
  assert.deepEqual([chat.state.state, chat.texts()], ["connected", ["hello"]]);
});

test("a page that joins through a dead line tries again at once when the network reports a change", async () => {
  const sim = new Simulation();
  sim.endpoints.set(HOME, "silent");
  const page = sim.openPage();
  const chat = page.join("lobby", { name: "Josh" });
  await sim.clock.advance(1000);
  sim.endpoints.set(HOME, "open");
  page.dispatch("online");
  await sim.clock.advance(100);
  assert.deepEqual([chat.state.state, chat.state.transport], ["connected", "fetch"]);
});

test("a page that is hidden for a moment, or becomes hidden, checks nothing", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ streams: ["websocket"] });
  page.join("lobby", { name: "Josh" });
  await sim.clock.advance(100_000);
  const { length } = sim.requests;
  await page.hideFor(1000);
  await sim.clock.advance(1000);
  assert.equal(sim.requests.length, length);
});

test("changes of the connection's speed do not interrupt the first answer", async () => {
  const sim = new Simulation();
  const { on_read } = sim.server;
  sim.server.on_read = (values, reply, ...rest) => {
    const late = (answer) => sim.clock.setTimeout(() => reply(answer), 8000);
    return on_read.call(sim.server, values, late, ...rest);
  };
  const page = sim.openPage();
  const chat = page.join("lobby", { name: "Josh" });
  for (let i = 0; i < 9; i++) {
    HINTS["the connection reports a change"](page);
    await sim.clock.advance(1000);
  }
  assert.equal(chat.state.state, "connected");
});

test("changes of the connection's speed cost at most one check in five seconds", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ streams: ["websocket"] });
  page.join("lobby", { name: "Josh" });
  await sim.clock.advance(30_000);
  const opened = () => sim.requests.filter(({ kind }) => kind === "websocket").length;
  const before = opened();
  for (let i = 0; i < 100; i++) {
    HINTS["the connection reports a change"](page);
    await sim.clock.advance(100);
  }
  assert.ok(opened() - before <= 3, `${opened() - before} streams`);
});
