import assert from "node:assert/strict";
import { test } from "node:test";
import { refuse } from "./fake_server.mjs";
import { connected, World } from "./simulation.mjs";

async function joined(world, options) {
  const page = world.page();
  const chat = page.join("lobby", { name: "Josh", ...options });
  await world.clock.until(connected(chat));
  return { page, chat };
}

/** The pauses that a chat announced, in milliseconds. */
const pauses = (chat) => chat.told.states.filter(({ state }) => state === "waiting").map(({ retryIn }) => Math.round(retryIn));

test("pauses double up to half a minute, and begin anew after a success", async () => {
  const world = new World();
  const { chat } = await joined(world);
  world.cut();
  await world.clock.pass(240_000);
  assert.deepEqual(pauses(chat).slice(0, 10), [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000]);
  // They are kept as well as announced.
  const waits = chat.told.states.filter(({ state }) => state === "waiting" || state === "connecting").slice(0, 6);
  const kept = [0, 2, 4].map((i) => Math.round(waits[i + 1].at - waits[i].at));
  assert.deepEqual(kept, [500, 1000, 2000]);

  world.isUp = true;
  await world.clock.until(connected(chat));
  const before = pauses(chat).length;
  world.cut();
  await world.clock.pass(100);
  assert.deepEqual(pauses(chat).slice(before), [500]);
});

test("pauses are spread by half to one and a half", async () => {
  for (const [random, expected] of [[0, [250, 500, 1000]], [1, [750, 1500, 3000]]]) {
    const world = new World();
    const { chat } = await joined(world);
    world.random = random;
    world.cut();
    await world.clock.pass(10_000);
    assert.deepEqual(pauses(chat).slice(0, 3), expected);
  }
});

for (const [what, wake] of [
  ["the network's coming back", (page) => page.event("online")],
  ["the page's becoming visible", (page) => page.event("visibilitychange")],
]) {
  test(`a pause is ended by ${what}`, async () => {
    const world = new World();
    const { page, chat } = await joined(world);
    world.cut();
    await world.clock.pass(100_000);
    await world.clock.until(() => chat.state.state === "waiting" && chat.state.retryIn > 20_000);
    await world.clock.pass(1000);
    world.isUp = true;
    const { now } = world.clock;
    wake(page);
    await world.clock.until(connected(chat));
    assert.ok(world.clock.now - now < 1000, `${world.clock.now - now} ms`);
  });
}

test("a page that is hidden ends no pause", async () => {
  const world = new World();
  const { page, chat } = await joined(world);
  world.cut();
  await world.clock.pass(100_000);
  await world.clock.until(() => chat.state.state === "waiting" && chat.state.retryIn > 20_000);
  await world.clock.pass(100);
  page.globals.document.hidden = true;
  const count = world.requests.length;
  page.event("visibilitychange");
  await world.clock.pass(1000);
  assert.equal(world.requests.length, count);
});

test("a server that was away for a short while: nothing is lost, nothing is told twice", async () => {
  const world = new World();
  const { chat } = await joined(world);
  world.server.write("lobby", "before");
  await world.clock.pass(100);
  world.cut();
  world.server.write("lobby", "meanwhile");
  await world.clock.pass(700);
  world.isUp = true;
  await world.clock.until(() => chat.texts().length === 2);
  await world.clock.pass(1000);
  assert.deepEqual([chat.texts(), chat.told.missed], [["before", "meanwhile"], 0]);
  assert.deepEqual(world.server.names("lobby"), ["Josh"], "introduced again, after the connection had closed");
  assert.deepEqual(chat.names(), ["Josh"]);
  assert.ok(chat.told.messages.filter(({ from }) => from).every(({ own }) => own), "each of the numbers was its own");
});

test("a server that restarts: its new numbering is followed, and nothing is told twice", async () => {
  const world = new World();
  const { chat } = await joined(world);
  await world.brings(chat.say("before"));
  await world.clock.pass(100);
  world.restart();
  await world.clock.until(() => chat.told.messages.length === 3);
  await world.brings(chat.say("after"));
  await world.clock.pass(1000);
  assert.deepEqual(chat.told.messages.map(({ id, text, own }) => [id, text, own]), [
    [1, "Josh", true], [2, "before", true], [1, "Josh", true], [2, "after", true],
  ]);
  assert.deepEqual([chat.names(), chat.told.missed], [["Josh"], 0]);
});

test("a restart gives our number to somebody else: they are not us", async () => {
  const world = new World();
  const { chat } = await joined(world);
  world.restart();
  const eve = world.server.introduce("lobby", "Eve");
  assert.equal(eve.connection, 1, "the number that was ours");
  world.server.write("lobby", "I am Eve", eve);
  await world.clock.until(() => chat.texts().length === 1);
  assert.deepEqual(Array.from(chat.members, ({ name, own }) => [name, own]), [["Eve", false], ["Josh", true]]);
  const { name, own } = chat.told.messages.find(({ text }) => text === "I am Eve");
  assert.deepEqual([name, own, chat.me.connection], ["Eve", false, 2]);
});

test("a restart takes the old names away: a number without an introduction has none", async () => {
  const world = new World();
  const ada = world.server.introduce("lobby", "Ada");
  const { chat } = await joined(world);
  world.restart();
  const stranger = world.server.introduce("elsewhere", "somebody");
  assert.equal(stranger.connection, ada.connection);
  world.server.write("lobby", "hello", stranger);
  await world.clock.until(() => chat.texts().length === 1);
  assert.equal(chat.told.messages.find(({ text }) => text === "hello").name, undefined);
});

test("a connection that ended is made again, by one introduction", async () => {
  const world = new World();
  const { chat } = await joined(world);
  world.server.write("lobby", "old");
  await world.clock.pass(100);
  world.server.end(world.server.connections.get(1), "timeout");
  const said = [chat.say("one"), chat.say("two")];
  await world.brings(Promise.all(said));
  await world.clock.pass(1000);
  assert.equal(world.asked("introduce").length, 2);
  assert.deepEqual(chat.texts(), ["old", "one", "two"]);
  assert.ok(chat.told.messages.filter(({ from }) => from).every(({ own }) => own));
  assert.equal(chat.told.states.filter(({ state }) => state === "waiting").length, 0, "without a pause");
});

test("a connection that ends again and again is not made again in a rush", async () => {
  const world = new World();
  world.server.prove = ({ connection }) => connection && refuse("connection_ended", 410);
  const chat = world.page().join("lobby", { name: "Josh" });
  await world.clock.pass(10_000);
  assert.ok(world.asked("introduce").length < 10, `${world.asked("introduce").length} introductions`);
  assert.deepEqual(chat.told.errors.length, 0);
});

test("a read that is never answered is given up after forty seconds", async () => {
  const world = new World();
  const { chat } = await joined(world);
  world.fate = ({ path }) => (path === "read" ? "silent" : null);
  world.server.write("lobby", "wake up");
  await world.clock.pass(1000); // the read after this is lost
  world.fate = () => null;
  world.server.write("lobby", "unheard");
  await world.clock.pass(38_000);
  assert.deepEqual(chat.texts(), ["wake up"]);
  await world.clock.pass(5000);
  assert.deepEqual(chat.texts(), ["wake up", "unheard"]);
});

for (const [error, status] of [["too_many_requests", 429], ["over_capacity", 503], ["request_timeout", 408]]) {
  test(`${error} is waited out`, async () => {
    const world = new World();
    const { chat } = await joined(world);
    const { on_read } = world.server;
    world.server.on_read = () => refuse(error, status);
    world.server.write("lobby", "later");
    await world.clock.pass(3000);
    assert.equal(chat.state.state, "waiting");
    delete world.server.on_read;
    assert.equal(world.server.on_read, on_read);
    await world.clock.until(() => chat.texts().includes("later"));
    assert.deepEqual(chat.told.errors, []);
  });
}

test("the state tells where one is, by which way, and how long calls take", async () => {
  const world = new World();
  const { chat } = await joined(world);
  const { state, door, transport, latency } = chat.state;
  assert.deepEqual([state, door, transport, latency], ["connected", "http://speak.test:8080/", "fetch", 10]);
  world.cut();
  await world.clock.pass(100);
  assert.deepEqual([chat.state.state, chat.state.error], ["waiting", "Failed to fetch"]);
  await world.clock.pass(500);
  assert.ok(chat.told.states.some((told) => told.state === "connecting" && !told.error && !told.retryIn));
});
