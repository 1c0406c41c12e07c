// Hearing by a WebSocket or an event stream, and finding out when they do not carry.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, World } from "./simulation.mjs";

const STREAMS = ["websocket", "eventsource"];

/** A page that has these ways to hear, and somebody who has joined in it and hears by the first. */
async function joined(world, { streams = STREAMS, storage, ...options } = {}) {
  const page = world.page({ streams, storage });
  const chat = page.join("lobby", { name: "Josh", ...options });
  await world.clock.until(connected(chat));
  await world.clock.pass(100);
  return { page, chat };
}

const opened = (world, kind) => world.asked("read").filter((request) => request.kind === kind).length;
const ids = (chat) => chat.told.messages.map(({ id }) => id);

/** Storage as a browser gives it to one tab. */
function storage() {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, `${value}`) };
}

for (const transport of STREAMS) {
  const only = { streams: [transport] };

  test(`${transport}: what comes is told once and in order, over one stream`, async () => {
    const world = new World();
    const { chat } = await joined(world, only);
    for (let i = 0; i < 10; i++) {
      world.server.write("lobby", `${i}`);
      if (i % 3) await world.clock.pass(100); // some together, some alone
    }
    await world.clock.pass(100);
    assert.equal(chat.state.transport, transport);
    assert.deepEqual([chat.texts(), chat.names()], [Array.from("0123456789"), ["Josh"]]);
    assert.equal(new Set(ids(chat)).size, ids(chat).length);
    assert.deepEqual([opened(world, transport), world.server.readers.size], [1, 1]);
    assert.deepEqual(Object.keys(chat.told.messages.at(-1)).sort(), ["id", "name", "own", "text", "time", "to", "type", "whisper"]);
  });

  test(`${transport}: room and inbox come over one stream, and calls go beside it`, async () => {
    const world = new World();
    const { chat: ada } = await joined(world, { ...only, name: "Ada" });
    const { chat: eve } = await joined(world, { ...only, name: "Eve" });
    for (const text of ["one", "two"]) {
      await world.brings(ada.say(text));
      await world.brings(ada.whisper(eve.me, `${text}, between us`));
    }
    await world.brings(eve.rename("E."));
    await world.clock.pass(100);
    const told = (chat) => chat.told.messages.filter(({ type }) => type === "message").map(({ text, whisper, own }) => [text, whisper, own]);
    const expected = [["one", false], ["one, between us", true], ["two", false], ["two, between us", true]];
    assert.deepEqual(told(ada), expected.map((one) => [...one, true]));
    assert.deepEqual(told(eve), expected.map((one) => [...one, false]));
    assert.deepEqual(ada.names(), ["Ada", "E."]);
    assert.deepEqual([opened(world, transport), world.server.numbers], [2, 2]);
  });

  test(`${transport}: without a name there is one channel`, async () => {
    const world = new World();
    const { chat } = await joined(world, { ...only, name: "" });
    world.server.write("lobby", "one");
    world.server.write("lobby", "two");
    await world.clock.pass(100);
    assert.deepEqual(chat.texts(), ["one", "two"]);
  });

  test(`${transport}: missed on an open stream is told once, and the rest is not lost`, async () => {
    const world = new World({ history: 5 });
    const { chat } = await joined(world, only);
    world.server.write("lobby", "before");
    await world.clock.pass(100);
    for (let i = 0; i < 20; i++) world.server.write("lobby", `${i}`); // more in one turn than is retained
    await world.clock.pass(5000);
    world.server.write("lobby", "after");
    await world.clock.pass(100);
    // An event stream is closed for it: a goodbye and an introduction push two more out.
    const left = transport === "websocket" ? ["15", "16", "17", "18", "19"] : ["17", "18", "19"];
    assert.deepEqual([chat.told.missed, chat.texts()], [1, ["before", ...left, "after"]]);
    assert.deepEqual([chat.names(), chat.state.transport], [["Josh"], transport]);
  });

  test(`${transport}: cut off, and back: nothing twice, nothing lost, and what is gone is missed`, async () => {
    const world = new World({ history: 5 });
    const { chat } = await joined(world, only);
    for (const [count, missed] of [[2, 0], [20, 1]]) {
      world.cut();
      await world.clock.pass(1000);
      for (let i = 0; i < count; i++) world.server.write("lobby", `${count}.${i}`);
      world.isUp = true;
      await world.clock.until(() => chat.texts().includes(`${count}.${count - 1}`));
      await world.clock.pass(5000);
      assert.deepEqual([chat.told.missed, chat.names(), chat.state.transport], [missed, ["Josh"], transport]);
    }
    assert.deepEqual(chat.texts().slice(0, 2), ["2.0", "2.1"]);
    assert.equal(new Set(chat.texts()).size, chat.texts().length);
  });

  test(`${transport}: a restart is followed, and the same way is gone again`, async () => {
    const world = new World();
    const { chat } = await joined(world, only);
    await world.brings(chat.say("before"));
    await world.clock.pass(100);
    for (let i = 0; i < 3; i++) {
      world.restart();
      world.server.write("lobby", `after ${i}`);
      await world.clock.until(() => chat.texts().includes(`after ${i}`));
      await world.clock.pass(2000);
    }
    await world.brings(chat.say("still here"));
    await world.clock.pass(100);
    assert.deepEqual(chat.texts(), ["before", "after 0", "after 1", "after 2", "still here"]);
    assert.deepEqual([chat.names(), chat.told.missed, chat.state.transport], [["Josh"], 0, transport]);
    assert.deepEqual(world.server.names("lobby"), ["Josh"]);
  });

  test(`${transport}: a connection that ends while the stream goes on is made again, by one introduction`, async () => {
    const world = new World();
    const { chat } = await joined(world, only);
    world.server.end(world.server.connections.get(1), "timeout");
    const { now } = world.clock;
    await world.brings(Promise.all([chat.say("one"), chat.say("two")]));
    assert.ok(world.clock.now - now < 1000, "at once");
    await world.clock.pass(1000);
    assert.deepEqual([chat.texts(), chat.names(), chat.me.connection], [["one", "two"], ["Josh"], 2]);
    assert.ok(chat.told.messages.every(({ own }) => own));
    assert.deepEqual([world.asked("introduce").length, world.server.names("lobby")], [2, ["Josh"]]);
    await world.clock.pass(60_000);
    assert.equal(world.server.numbers, 2, "the new stream carries the new connection");
  });

  test(`${transport}: a stream that died without a word does not hold up what is said`, async () => {
    const world = new World();
    const { chat } = await joined(world, only);
    for (const reader of [...world.server.readers]) reader.finish = () => {}; // what it is told never comes
    world.server.end(world.server.connections.get(1), "closed");
    const { now } = world.clock;
    await world.brings(chat.say("hello"));
    assert.ok(world.clock.now - now < 2000, `${world.clock.now - now} ms`);
    await world.clock.pass(1000);
    assert.deepEqual([chat.texts(), chat.names()], [["hello"], ["Josh"]]);
  });

  test(`${transport}: silence with nothing lost keeps the stream`, async () => {
    const world = new World();
    const { chat } = await joined(world, only);
    await world.clock.pass(600_000);
    world.server.write("lobby", "at last");
    await world.clock.pass(100);
    assert.deepEqual([chat.texts(), chat.state.transport, opened(world, transport)], [["at last"], transport, 1]);
    assert.deepEqual([world.server.numbers, chat.told.states.filter(({ state }) => state === "waiting").length], [1, 0]);
    const checks = world.asked("read").filter(({ kind }) => kind === "fetch").length;
    assert.ok(checks < 20, `${checks} reads`);
  });

  test(`${transport}: a read that was faster than the stream is no proof against it`, async () => {
    const world = new World();
    const { chat } = await joined(world, only);
    // A say whose answer is lost is looked for by a read.
    for (let i = 0; i < 5; i++) {
      let count = 1;
      world.fate = ({ path }) => (path === "write" && count-- > 0 ? "unanswered" : null);
      await world.brings(chat.say(`${i}`));
      await world.clock.pass(1000);
    }
    assert.deepEqual([chat.texts(), chat.state.transport], [["0", "1", "2", "3", "4"], transport]);
    assert.deepEqual([opened(world, transport), world.server.numbers], [1, 1]);
  });

  test(`${transport}: leave and a page that is left close the stream`, async () => {
    for (const end of ["leave", "pagehide"]) {
      const world = new World();
      const { chat: other } = await joined(world, { ...only, name: "Eve" });
      const { page, chat } = await joined(world, only);
      assert.equal(page.streams.size, 1);
      if (end === "leave") await world.brings(chat.leave());
      else page.event(end);
      await world.clock.pass(100);
      assert.deepEqual([page.streams.size, world.server.readers.size], [0, 1]);
      const { type, name } = other.told.messages.at(-1);
      assert.deepEqual([type, name, other.names()], ["goodbye", "Josh", ["Eve"]]);
      const count = world.requests.length;
      world.server.write("lobby", "anybody?");
      await world.clock.pass(1000);
      assert.deepEqual([chat.texts(), world.requests.length], [[], count]);
      if (end === "leave") continue;
      page.event("pageshow");
      await world.clock.until(() => other.names().length === 2);
      await world.clock.pass(1000);
      assert.deepEqual([chat.texts(), page.streams.size, chat.state.transport], [["anybody?"], 1, transport]);
    }
  });

  test(`${transport}: tabs share one stream, and the next takes over`, async () => {
    const world = new World();
    const all = [];
    for (let i = 0; i < 3; i++) all.push(await joined(world, only));
    const [first, ...rest] = all;
    world.server.write("lobby", "one");
    await world.clock.pass(100);
    assert.deepEqual(all.map(({ page }) => page.streams.size), [1, 0, 0]);
    first.page.close();
    world.server.write("lobby", "two");
    await world.clock.pass(2000);
    world.server.write("lobby", "three");
    await world.clock.pass(1000);
    for (const { chat } of rest) assert.deepEqual([chat.texts(), chat.names()], [["one", "two", "three"], ["Josh"]]);
    assert.deepEqual(rest.map(({ page }) => page.streams.size), [1, 0]);
    assert.deepEqual(world.server.names("lobby"), ["Josh"]);
  });

  test(`${transport}: a stream that is given up is closed`, async () => {
    const world = new World();
    const { page, chat } = await joined(world, only);
    let count = 2; // two checks fail while the stream lives
    world.fate = ({ path, kind }) => (path === "read" && kind === "fetch" && count-- > 0 ? "lost" : null);
    await world.clock.until(() => count < 0);
    await world.clock.pass(10_000);
    assert.deepEqual([page.streams.size, world.server.readers.size], [1, 1]);
    world.server.write("lobby", "hello");
    await world.clock.pass(100);
    assert.deepEqual([chat.texts(), chat.names(), chat.state.transport], [["hello"], ["Josh"], transport]);
  });

  test(`${transport}: forced, it falls to no other, and is tried in growing pauses`, async () => {
    const world = new World();
    world.fate = ({ kind }) => (kind === transport ? "lost" : null);
    const page = world.page({ streams: STREAMS, storage: storage() });
    const chat = page.join("lobby", { name: "Josh", transport });
    await world.clock.pass(600_000);
    const others = STREAMS.filter((one) => one !== transport);
    assert.ok(others.every((one) => !opened(world, one)));
    const tries = opened(world, transport);
    assert.ok(tries > 5 && tries < 40, `${tries} tries`);
    world.fate = () => null;
    await world.clock.pass(40_000);
    world.server.write("lobby", "hello");
    await world.clock.pass(1000);
    assert.deepEqual([chat.texts(), chat.state.transport, page.streams.size], [["hello"], transport, 1]);
  });
}

test("the best way is found, and what is spoken goes by fetch", async () => {
  for (const [streams, expected] of [[STREAMS, "websocket"], [["eventsource"], "eventsource"], [[], "fetch"]]) {
    const world = new World();
    const { chat } = await joined(world, { streams });
    assert.equal(chat.state.transport, expected);
    assert.ok(world.requests.every(({ path, kind }) => path === "read" || path === "image-test" || kind === "fetch"));
  }
});

const BARRIERS = {
  "is refused": ["lost", 4000],
  "is made a plain read": ["stripped", 4000],
  "never opens": ["silent", 25_000],
};

for (const [what, [fate, most]] of Object.entries(BARRIERS)) {
  test(`a WebSocket that ${what}: after two doubts it goes by events, and the next page knows`, async () => {
    const world = new World();
    world.fate = ({ kind }) => (kind === "websocket" ? fate : null);
    const kept = storage();
    const { page, chat } = await joined(world, { storage: kept });
    world.server.write("lobby", "one");
    await world.clock.pass(most);
    world.server.write("lobby", "two");
    await world.clock.pass(100);
    assert.deepEqual([chat.texts(), chat.state.transport, page.streams.size], [["one", "two"], "eventsource", 1]);
    assert.deepEqual([opened(world, "websocket"), opened(world, "eventsource")], [2, 1]);
    assert.deepEqual(world.server.names("lobby"), ["Josh"]);
    if (fate === "stripped") assert.equal(world.server.numbers, 1, "nobody was seen to leave for it");

    page.close();
    const { chat: next } = await joined(world, { storage: kept });
    assert.deepEqual([next.state.transport, opened(world, "websocket")], ["eventsource", 2]);
    const { chat: forced } = await joined(world, { storage: kept, transport: "websocket" });
    await world.clock.pass(5000);
    assert.equal(forced.state.transport, "websocket", "asked for, it is tried none the less");
  });

  test(`where an event stream fares no better (${what}), it goes by fetch`, async () => {
    const world = new World();
    world.fate = ({ kind }) => (STREAMS.includes(kind) ? fate : null);
    const kept = storage();
    const { page, chat } = await joined(world, { storage: kept });
    await world.clock.pass(2 * most);
    world.server.write("lobby", "hello");
    await world.clock.pass(100);
    assert.deepEqual([chat.texts(), chat.state.transport, page.streams.size], [["hello"], "fetch", 0]);
    assert.deepEqual([opened(world, "websocket"), opened(world, "eventsource")], [2, 2]);
    assert.deepEqual([chat.names(), world.server.names("lobby")], [["Josh"], ["Josh"]]);
    await world.clock.pass(100_000);
    assert.equal(kept.getItem("speak"), "fetch");
  });
}

test("a stream that opens and holds everything back is doubted as soon as a read knows more", async () => {
  const world = new World();
  world.fate = ({ kind }) => (STREAMS.includes(kind) ? "held" : null);
  const { page, chat } = await joined(world);
  for (let i = 0; i < 60; i++) {
    world.server.write("lobby", `${i}`);
    await world.clock.pass(1000);
  }
  assert.deepEqual(chat.texts(), Array.from({ length: 60 }, (_, i) => `${i}`));
  assert.deepEqual([chat.state.transport, page.streams.size], ["fetch", 0]);
  assert.deepEqual([opened(world, "websocket"), opened(world, "eventsource")], [2, 2]);
  assert.deepEqual([chat.names(), chat.told.missed], [["Josh"], 0]);
});

test("one doubt is none once the stream tells something", async () => {
  const world = new World();
  const { chat } = await joined(world);
  for (let i = 0; i < 5; i++) {
    let count = 1;
    world.fate = ({ kind }) => (kind === "websocket" && count-- > 0 ? "lost" : null);
    world.cut();
    world.isUp = true;
    await world.clock.pass(5000);
    world.fate = () => null;
    world.server.write("lobby", `${i}`);
    await world.clock.pass(100);
  }
  assert.deepEqual([chat.texts(), chat.state.transport], [["0", "1", "2", "3", "4"], "websocket"]);
});

test("where the page's policy makes streams throw, it goes by fetch", async () => {
  const world = new World();
  const page = world.page({ streams: STREAMS });
  page.forbids = true;
  const chat = page.join("lobby", { name: "Josh" });
  await world.clock.until(() => chat.state.transport === "fetch" && connected(chat)());
  world.server.write("lobby", "hello");
  await world.clock.pass(100);
  assert.deepEqual([chat.texts(), page.errors], [["hello"], []]);
});

test("where storage is forbidden, each page finds its way for itself", async () => {
  const world = new World();
  world.fate = ({ kind }) => (kind === "websocket" ? "lost" : null);
  const refuse = () => {
    throw new Error("SecurityError");
  };
  for (let i = 1; i <= 2; i++) {
    const { page, chat } = await joined(world, { storage: { getItem: refuse, setItem: refuse } });
    await world.clock.pass(4000);
    assert.deepEqual([chat.state.transport, opened(world, "websocket"), page.errors], ["eventsource", 2 * i, []]);
    page.close();
    await world.clock.pass(1000);
  }
});

test("a server that is away is no reason to go another way", async () => {
  const world = new World();
  const kept = storage();
  const { chat } = await joined(world, { storage: kept });
  for (const away of [1000, 20_000, 200_000]) {
    world.cut();
    await world.clock.pass(away);
    world.isUp = true;
    await world.clock.until(connected(chat));
    await world.clock.pass(1000);
    assert.deepEqual([chat.state.transport, kept.getItem("speak")], ["websocket", null]);
  }
});
