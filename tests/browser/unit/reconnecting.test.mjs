import assert from "node:assert/strict";
import { test } from "node:test";
import { refuse } from "./fake_server.mjs";
import { connected, Simulation } from "./simulation.mjs";

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
