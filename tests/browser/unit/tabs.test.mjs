import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, World } from "./simulation.mjs";

/** So many tabs with the same room and name, opened one after the other. */
async function tabs(world, count, options) {
  const all = [];
  for (let i = 0; i < count; i++) {
    const page = world.page();
    const chat = page.join("lobby", { name: "Josh", ...options });
    await world.clock.until(connected(chat));
    all.push({ page, chat });
  }
  return all;
}

test("tabs share one read and one member, and all are told everything", async () => {
  const world = new World();
  world.server.write("lobby", "old");
  const all = await tabs(world, 4);
  for (const text of ["one", "two"]) {
    world.server.write("lobby", text);
    await world.clock.pass(100);
  }
  await world.clock.pass(60_000);
  assert.deepEqual([world.server.readers.size, world.server.names("lobby")], [1, ["Josh"]]);
  for (const { chat } of all) {
    assert.deepEqual([chat.texts(), chat.names(), chat.me?.own], [["old", "one", "two"], ["Josh"], true]);
  }
});

test("tabs that open together agree", async () => {
  const world = new World();
  const chats = [1, 2, 3].map(() => world.page().join("lobby", { name: "Josh" }));
  await world.clock.until(() => chats.every((chat) => connected(chat)()));
  await world.clock.pass(1000);
  assert.deepEqual([world.server.readers.size, world.server.numbers], [1, 1]);
  const inboxes = new Set(chats.map(({ me }) => me.inbox));
  assert.equal(inboxes.size, 1);
});

test("any of them speaks for the member, and is whispered to", async () => {
  const world = new World();
  const eve = world.page().join("lobby", { name: "Eve" });
  const [first, second] = await tabs(world, 2);
  await world.brings(second.chat.say("from the second"));
  await world.clock.until(() => eve.names().length === 2);
  await world.brings(eve.whisper(eve.members[1], "psst"));
  await world.clock.pass(100);
  for (const { chat } of [first, second]) {
    const told = chat.told.messages.slice(-2).map(({ name, text, own, whisper }) => [name, text, own, whisper]);
    assert.deepEqual(told, [["Josh", "from the second", true, false], ["Eve", "psst", false, true]]);
  }
  const heard = eve.told.messages.find(({ text }) => text === "from the second");
  assert.deepEqual([heard.from, heard.own], [eve.members[1].connection, false]);
});

test("a lost answer is found out in a tab that does not read, too", async () => {
  for (const fate of ["lost", "unanswered"]) {
    const world = new World();
    const [first, second] = await tabs(world, 2);
    let count = 1;
    world.fate = ({ path }) => (path === "write" && count-- > 0 ? fate : null);
    await world.brings(second.chat.say("hello"));
    await world.clock.pass(1000);
    assert.deepEqual([world.server.texts("lobby"), first.chat.texts(), second.chat.texts()], [["hello"], ["hello"], ["hello"]]);
  }
});

for (const way of ["close", "crash"]) {
  test(`when the tab that reads is gone (${way}), another comes in its place`, async () => {
    const world = new World();
    const [first, second, third] = await tabs(world, 3);
    world.server.write("lobby", "before");
    await world.clock.pass(100);
    first.page[way]();
    const said = second.chat.say("we are still here");
    await world.clock.pass(100);
    world.server.write("lobby", "after");
    await world.brings(said);
    await world.clock.pass(1000);
    assert.deepEqual([world.server.readers.size, world.server.names("lobby")], [1, ["Josh"]]);
    for (const { chat } of [second, third]) {
      assert.deepEqual([...chat.texts()].sort(), ["after", "before", "we are still here"]);
      assert.deepEqual([chat.names(), chat.told.missed], [["Josh"], 0]);
      assert.ok(chat.told.messages.filter(({ from }) => from).every(({ own }) => own), "old and new, they are its own");
    }
    assert.equal(world.asked("goodbye").length, way === "close" ? 1 : 0);
  });
}

test("a tab that does not read says no goodbye", async () => {
  const world = new World();
  const [first, second, third] = await tabs(world, 3);
  second.page.close();
  await world.brings(third.chat.leave());
  world.server.write("lobby", "hello");
  await world.clock.pass(1000);
  assert.deepEqual([world.asked("goodbye").length, world.server.names("lobby"), first.chat.texts()], [0, ["Josh"], ["hello"]]);
});

test("the server restarts: all of them follow, and none is told anything twice", async () => {
  const world = new World();
  const all = await tabs(world, 3);
  world.server.write("lobby", "before");
  await world.clock.pass(100);
  world.restart();
  world.server.write("lobby", "after");
  await world.clock.until(() => all.every(({ chat }) => chat.texts().length > 1));
  await world.clock.pass(5000);
  for (const { chat } of all) {
    assert.deepEqual([chat.texts(), chat.names()], [["before", "after"], ["Josh"]]);
  }
  assert.equal(world.server.numbers, 1);
});

test("messages are missed: all of them know", async () => {
  const world = new World({ history: 5 });
  const all = await tabs(world, 2);
  world.cut();
  await world.clock.pass(100);
  for (let i = 0; i < 20; i++) world.server.write("lobby", `${i}`);
  world.isUp = true;
  await world.clock.until(() => all.every(({ chat }) => chat.texts().includes("19")));
  await world.clock.pass(5000);
  for (const { chat } of all) {
    assert.deepEqual([chat.told.missed, chat.texts(), chat.names()], [1, ["16", "17", "18", "19"], ["Josh"]]);
  }
});

test("the server is away: all of them know, and what they say arrives", async () => {
  const world = new World();
  const all = await tabs(world, 2);
  world.cut();
  await world.clock.until(() => all.every(({ chat }) => chat.state.state === "waiting"));
  const said = all.map(({ chat }, i) => chat.say(`${i}`));
  await world.clock.pass(20_000);
  world.isUp = true;
  await world.brings(Promise.all(said));
  await world.clock.pass(1000);
  for (const { chat } of all) {
    assert.deepEqual([chat.state.state, [...chat.texts()].sort(), chat.names()], ["connected", ["0", "1"], ["Josh"]]);
  }
});

test("a tab that did not hear the one that reads finds out by itself", async () => {
  const world = new World();
  const eve = world.page().join("lobby", { name: "Eve" });
  const [, second] = await tabs(world, 2);
  await world.clock.until(() => eve.names().length === 2);
  world.isMute = true;
  await world.brings(eve.say("unheard"));
  await world.brings(eve.whisper(eve.members[1], "psst"));
  await world.clock.pass(1000);
  assert.deepEqual(second.chat.texts(), []);
  world.isMute = false;
  world.server.write("lobby", "heard");
  await world.clock.pass(1000);
  assert.deepEqual([...second.chat.texts()].sort(), ["heard", "psst", "unheard"]);
});

test("a rename in one is the name in all, and lasts when the reader is gone", async () => {
  const world = new World();
  const [first, second] = await tabs(world, 2);
  await world.brings(second.chat.rename("J."));
  await world.clock.pass(100);
  assert.deepEqual([first.chat.names(), second.chat.names()], [["J."], ["J."]]);
  world.restart();
  await world.clock.until(() => world.server.names("lobby").length > 0);
  assert.deepEqual(world.server.names("lobby"), ["J."]);
  await world.clock.pass(1000);
  first.page.close();
  await world.clock.until(() => world.server.numbers === 2 && world.server.readers.size === 1);
  assert.deepEqual(world.server.names("lobby"), ["J."]);
});

test("a tab that becomes visible wakes the one that sleeps", async () => {
  const world = new World();
  const [first, second] = await tabs(world, 2);
  world.cut();
  await world.clock.pass(100_000);
  await world.clock.until(() => first.chat.state.state === "waiting" && first.chat.state.retryIn > 20_000);
  await world.clock.pass(100);
  world.isUp = true;
  const { now } = world.clock;
  second.page.event("visibilitychange");
  await world.clock.until(connected(first.chat));
  assert.ok(world.clock.now - now < 1000);
});

test("tabs with other names, other rooms, or the wish to be alone, read for themselves", async () => {
  const world = new World();
  await tabs(world, 1);
  await tabs(world, 1, { name: "Eve" });
  await tabs(world, 2, { share: false });
  await tabs(world, 1, { name: undefined });
  await world.clock.pass(1000);
  assert.equal(world.server.readers.size, 5);
  assert.equal(world.server.names("lobby").length, 4);
});

for (const without of ["locks", "BroadcastChannel"]) {
  test(`without ${without} each tab reads for itself`, async () => {
    const world = new World();
    const chats = [1, 2].map(() => world.page({ without: [without] }).join("lobby", { name: "Josh" }));
    await world.clock.until(() => chats.every((chat) => connected(chat)()));
    await world.clock.pass(1000);
    assert.equal(world.server.readers.size, 2);
  });
}

test("where locks are refused, as in a sandbox, a page reads for itself", async () => {
  const world = new World();
  const page = world.page();
  page.globals.navigator.locks.request = async () => {
    throw new Error("SecurityError");
  };
  const chat = page.join("lobby", { name: "Josh" });
  await world.clock.until(connected(chat));
  assert.equal(chat.me.name, "Josh");
});
