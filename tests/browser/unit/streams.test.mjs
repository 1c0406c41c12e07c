// Receiving by WebSocket or event stream, and noticing when a stream does not work.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, newStorage, Simulation } from "./simulation.mjs";

const STREAMS = ["websocket", "eventsource"];

/** Opens a page that supports these streams, and joins a room in it. */
async function joined(sim, { streams = STREAMS, storage, ...options } = {}) {
  const page = sim.openPage({ streams, storage });
  const chat = page.join("lobby", { name: "Josh", ...options });
  await sim.clock.until(connected(chat));
  await sim.clock.advance(100);
  return { page, chat };
}

const opened = (sim, kind) =>
  sim.requestsTo("read").filter((request) => request.kind === kind).length;
const ids = (chat) => chat.received.messages.map(({ id }) => id);

for (const transport of STREAMS) {
  const only = { streams: [transport] };

  test(`${transport}: messages arrive once and in order, over one stream`, async () => {
    const sim = new Simulation();
    const { chat } = await joined(sim, only);
    for (let i = 0; i < 10; i++) {
      sim.server.write("lobby", `${i}`);
      if (i % 3) await sim.clock.advance(100); // some together, others alone
    }
    await sim.clock.advance(100);
    assert.equal(chat.state.transport, transport);
    assert.deepEqual([chat.texts(), chat.names()], [Array.from("0123456789"), ["Josh"]]);
    assert.equal(new Set(ids(chat)).size, ids(chat).length);
    assert.deepEqual([opened(sim, transport), sim.server.readers.size], [1, 1]);
    assert.deepEqual(Object.keys(chat.received.messages.at(-1)).sort(), [
      "id",
      "name",
      "own",
      "removed",
      "text",
      "time",
      "to",
      "type",
      "whisper",
    ]);
  });

  test(`${transport}: room and inbox share one stream, and calls use their own requests`, async () => {
    const sim = new Simulation();
    const { chat: ada } = await joined(sim, { ...only, name: "Ada" });
    const { chat: eve } = await joined(sim, { ...only, name: "Eve" });
    for (const text of ["one", "two"]) {
      await sim.waitFor(ada.say(text));
      await sim.waitFor(ada.whisper(eve.me, `${text}, between us`));
    }
    await sim.waitFor(eve.rename("E."));
    await sim.clock.advance(100);
    const received = (chat) =>
      chat.received.messages
        .filter(({ type }) => type === "message")
        .map(({ text, whisper, own }) => [text, whisper, own]);
    const expected = [
      ["one", false],
      ["one, between us", true],
      ["two", false],
      ["two, between us", true],
    ];
    assert.deepEqual(
      received(ada),
      expected.map((one) => [...one, true]),
    );
    assert.deepEqual(
      received(eve),
      expected.map((one) => [...one, false]),
    );
    assert.deepEqual(ada.names(), ["Ada", "E."]);
    assert.deepEqual([opened(sim, transport), sim.server.connectionCount], [2, 2]);
  });

  test(`${transport}: without a name there is one channel`, async () => {
    const sim = new Simulation();
    const { chat } = await joined(sim, { ...only, name: "" });
    sim.server.write("lobby", "one");
    sim.server.write("lobby", "two");
    await sim.clock.advance(100);
    assert.deepEqual(chat.texts(), ["one", "two"]);
  });

  test(`${transport}: a loss on an open stream is reported once, and the rest arrives`, async () => {
    const sim = new Simulation({ history: 5 });
    const { chat } = await joined(sim, only);
    sim.server.write("lobby", "before");
    await sim.clock.advance(100);
    // More messages in one turn than the server retains.
    for (let i = 0; i < 20; i++) sim.server.write("lobby", `${i}`);
    await sim.clock.advance(5000);
    sim.server.write("lobby", "after");
    await sim.clock.advance(100);
    const rest = ["15", "16", "17", "18", "19"];
    assert.deepEqual([chat.received.missed, chat.texts()], [1, ["before", ...rest, "after"]]);
    assert.deepEqual([chat.names(), chat.state.transport], [["Josh"], transport]);
  });

  test(`${transport}: an outage loses and doubles nothing that is retained, and a loss is reported`, async () => {
    const sim = new Simulation({ history: 5 });
    const { chat } = await joined(sim, only);
    for (const [count, missed] of [
      [2, 0],
      [20, 1],
    ]) {
      sim.disconnect();
      await sim.clock.advance(1000);
      for (let i = 0; i < count; i++) sim.server.write("lobby", `${count}.${i}`);
      sim.isOnline = true;
      await sim.clock.until(() => chat.texts().includes(`${count}.${count - 1}`));
      await sim.clock.advance(5000);
      assert.deepEqual(
        [chat.received.missed, chat.names(), chat.state.transport],
        [missed, ["Josh"], transport],
      );
    }
    assert.deepEqual(chat.texts().slice(0, 2), ["2.0", "2.1"]);
    assert.equal(new Set(chat.texts()).size, chat.texts().length);
  });

  test(`${transport}: after a restart the client uses the same transport again`, async () => {
    const sim = new Simulation();
    const { chat } = await joined(sim, only);
    await sim.waitFor(chat.say("before"));
    await sim.clock.advance(100);
    for (let i = 0; i < 3; i++) {
      sim.server.restart();
      sim.server.write("lobby", `after ${i}`);
      await sim.clock.until(() => chat.texts().includes(`after ${i}`));
      await sim.clock.advance(2000);
    }
    await sim.waitFor(chat.say("still here"));
    await sim.clock.advance(100);
    assert.deepEqual(chat.texts(), ["before", "after 0", "after 1", "after 2", "still here"]);
    assert.deepEqual(
      [chat.names(), chat.received.missed, chat.state.transport],
      [["Josh"], 0, transport],
    );
    assert.deepEqual(sim.server.names("lobby"), ["Josh"]);
  });

  test(`${transport}: a connection that ends while its stream is open is introduced again once`, async () => {
    const sim = new Simulation();
    const { chat } = await joined(sim, only);
    sim.server.end(sim.server.connections.get(1), "timeout");
    const { now } = sim.clock;
    await sim.waitFor(Promise.all([chat.say("one"), chat.say("two")]));
    assert.ok(sim.clock.now - now < 1000, "at once");
    await sim.clock.advance(1000);
    assert.deepEqual(
      [chat.texts(), chat.names(), chat.me.connection],
      [["one", "two"], ["Josh"], 2],
    );
    assert.ok(chat.received.messages.every(({ own }) => own));
    assert.deepEqual(
      [sim.requestsTo("introduce").length, sim.server.names("lobby")],
      [2, ["Josh"]],
    );
    await sim.clock.advance(60_000);
    assert.equal(sim.server.connectionCount, 2, "the new stream carries the new connection");
  });

  test(`${transport}: a stream that died unnoticed does not delay messages`, async () => {
    const sim = new Simulation();
    const { chat } = await joined(sim, only);
    // From now on nothing arrives on the stream.
    for (const reader of [...sim.server.readers]) reader.notify = () => {};
    sim.server.end(sim.server.connections.get(1), "closed");
    const { now } = sim.clock;
    await sim.waitFor(chat.say("hello"));
    assert.ok(sim.clock.now - now < 2000, `${sim.clock.now - now} ms`);
    await sim.clock.advance(1000);
    assert.deepEqual([chat.texts(), chat.names()], [["hello"], ["Josh"]]);
  });

  test(`${transport}: a silent stream is kept if nothing was lost`, async () => {
    const sim = new Simulation();
    const { chat } = await joined(sim, only);
    await sim.clock.advance(600_000);
    sim.server.write("lobby", "at last");
    await sim.clock.advance(100);
    assert.deepEqual(
      [chat.texts(), chat.state.transport, opened(sim, transport)],
      [["at last"], transport, 1],
    );
    assert.deepEqual(
      [
        sim.server.connectionCount,
        chat.received.states.filter(({ state }) => state === "waiting").length,
      ],
      [1, 0],
    );
    const checks = sim.requestsTo("read").filter(({ kind }) => kind === "fetch").length;
    assert.ok(checks < 20, `${checks} reads`);
  });

  test(`${transport}: a read that is faster than the stream does not count as a failure`, async () => {
    const sim = new Simulation();
    const { chat } = await joined(sim, only);
    // If the response to a write is lost, the client reads to find out.
    for (let i = 0; i < 5; i++) {
      let count = 1;
      sim.fault = ({ path }) => (path === "write" && count-- > 0 ? "response lost" : null);
      await sim.waitFor(chat.say(`${i}`));
      await sim.clock.advance(1000);
    }
    assert.deepEqual([chat.texts(), chat.state.transport], [["0", "1", "2", "3", "4"], transport]);
    assert.deepEqual([opened(sim, transport), sim.server.connectionCount], [1, 1]);
  });

  test(`${transport}: leaving the room or the page closes the stream`, async () => {
    for (const end of ["leave", "pagehide"]) {
      const sim = new Simulation();
      const { chat: other } = await joined(sim, { ...only, name: "Eve" });
      const { page, chat } = await joined(sim, only);
      assert.equal(page.streams.size, 1);
      if (end === "leave") await sim.waitFor(chat.leave());
      else page.dispatch(end);
      await sim.clock.advance(100);
      assert.deepEqual([page.streams.size, sim.server.readers.size], [0, 1]);
      if (end === "pagehide") await sim.clock.advance(2000);
      const { type, name } = other.received.messages.at(-1);
      assert.deepEqual([type, name, other.names()], ["goodbye", "Josh", ["Eve"]]);
      const count = sim.requests.length;
      sim.server.write("lobby", "hello?");
      await sim.clock.advance(1000);
      assert.deepEqual([chat.texts(), sim.requests.length], [[], count]);
      if (end === "leave") continue;
      page.dispatch("pageshow");
      await sim.clock.until(() => other.names().length === 2);
      await sim.clock.advance(1000);
      assert.deepEqual(
        [chat.texts(), page.streams.size, chat.state.transport],
        [["hello?"], 1, transport],
      );
    }
  });

  test(`${transport}: tabs share one stream, and the next tab takes it over`, async () => {
    const sim = new Simulation();
    const all = [];
    for (let i = 0; i < 3; i++) all.push(await joined(sim, only));
    const [first, ...rest] = all;
    sim.server.write("lobby", "one");
    await sim.clock.advance(100);
    assert.deepEqual(
      all.map(({ page }) => page.streams.size),
      [1, 0, 0],
    );
    first.page.close();
    sim.server.write("lobby", "two");
    await sim.clock.advance(2000);
    sim.server.write("lobby", "three");
    await sim.clock.advance(1000);
    for (const { chat } of rest)
      assert.deepEqual([chat.texts(), chat.names()], [["one", "two", "three"], ["Josh"]]);
    assert.deepEqual(
      rest.map(({ page }) => page.streams.size),
      [1, 0],
    );
    assert.deepEqual(sim.server.names("lobby"), ["Josh"]);
  });

  test(`${transport}: a stream that the client gives up is closed`, async () => {
    const sim = new Simulation();
    const { page, chat } = await joined(sim, only);
    let count = 2; // two checks fail while the stream is open
    sim.fault = ({ path, kind }) =>
      path === "read" && kind === "fetch" && count-- > 0 ? "request lost" : null;
    await sim.clock.until(() => count < 0);
    await sim.clock.advance(10_000);
    assert.deepEqual([page.streams.size, sim.server.readers.size], [1, 1]);
    sim.server.write("lobby", "hello");
    await sim.clock.advance(100);
    assert.deepEqual(
      [chat.texts(), chat.names(), chat.state.transport],
      [["hello"], ["Josh"], transport],
    );
  });

  test(`${transport}: if the option requires it, it is tried in growing pauses`, async () => {
    const sim = new Simulation();
    sim.fault = ({ kind }) => (kind === transport ? "request lost" : null);
    const page = sim.openPage({ streams: STREAMS, storage: newStorage() });
    const chat = page.join("lobby", { name: "Josh", transport });
    await sim.clock.advance(600_000);
    const others = STREAMS.filter((one) => one !== transport);
    assert.ok(others.every((one) => !opened(sim, one)));
    const tries = opened(sim, transport);
    assert.ok(tries > 5 && tries < 40, `${tries} tries`);
    sim.fault = () => null;
    await sim.clock.advance(40_000);
    sim.server.write("lobby", "hello");
    await sim.clock.advance(1000);
    assert.deepEqual(
      [chat.texts(), chat.state.transport, page.streams.size],
      [["hello"], transport, 1],
    );
  });
}

test("the client chooses the best transport, and sends by fetch", async () => {
  for (const [streams, expected] of [
    [STREAMS, "websocket"],
    [["eventsource"], "eventsource"],
    [[], "fetch"],
  ]) {
    const sim = new Simulation();
    const { chat } = await joined(sim, { streams });
    assert.equal(chat.state.transport, expected);
    assert.ok(
      sim.requests.every(
        ({ path, kind }) => path === "read" || path === "image-test" || kind === "fetch",
      ),
    );
  }
});

/** Returns the types of the messages that a chat has received from this member, in order. */
const seen = (chat, member) =>
  chat.received.messages.filter(({ name }) => name === member).map(({ type }) => type);

for (const ms of [200, 5000, 19_000]) {
  test(`a WebSocket is cut after ${ms} ms, twice: the client uses events, and no other member notices`, async () => {
    const sim = new Simulation();
    const { chat: eve } = await joined(sim, { name: "Eve" });
    sim.cut = ({ kind }) => (kind === "websocket" ? ms : Infinity);
    const { chat } = await joined(sim);
    for (let i = 0; i < 60; i++) {
      sim.server.write("lobby", `${i}`);
      await sim.clock.advance(1000);
    }
    assert.deepEqual(
      [chat.state.transport, seen(eve, "Josh"), opened(sim, "websocket")],
      ["eventsource", ["introduction"], 3],
    );
    assert.deepEqual(
      chat.texts(),
      Array.from({ length: 60 }, (_, i) => `${i}`),
    );
    assert.deepEqual(
      chat.received.states.filter(({ state }) => state === "waiting"),
      [],
      "the server could be reached all the time",
    );
  });

  test(`all streams are cut after ${ms} ms: the client uses fetch, and no other member notices`, async () => {
    const sim = new Simulation();
    const { chat: eve } = await joined(sim, { name: "Eve", streams: [] });
    sim.cut = () => ms;
    const { chat } = await joined(sim);
    await sim.clock.advance(90_000);
    assert.deepEqual([chat.state.transport, seen(eve, "Josh")], ["fetch", ["introduction"]]);
  });

  test(`the only transport is cut after ${ms} ms: its pauses grow, until a stream lives`, async () => {
    const sim = new Simulation();
    sim.cut = () => ms;
    const { chat } = await joined(sim, { transport: "websocket" });
    await sim.clock.advance(600_000);
    const tries = opened(sim, "websocket");
    assert.ok(tries > 5 && tries < 40, `${tries} tries`);
    sim.cut = () => 25_000;
    await sim.clock.advance(100_000);
    const before = opened(sim, "websocket");
    await sim.clock.advance(200_000);
    const after = opened(sim, "websocket") - before;
    assert.ok(after >= 6, `${after} streams of 25 seconds in 200 seconds`);
    assert.equal(chat.state.transport, "websocket");
  });
}

test("an event stream that reports losses again and again stays in use", async () => {
  const sim = new Simulation({ history: 5 });
  const { chat } = await joined(sim, { streams: ["eventsource"] });
  for (let i = 0; i < 5; i++) {
    for (let j = 0; j < 20; j++) sim.server.write("lobby", `${i} ${j}`); // in one turn
    await sim.clock.advance(5000);
  }
  assert.deepEqual([chat.received.missed, chat.state.transport], [5, "eventsource"]);
});

test("a stream that is cut after it has lived is opened again at once", async () => {
  const sim = new Simulation();
  const { chat: eve } = await joined(sim, { name: "Eve" });
  sim.cut = ({ kind }) => (kind === "websocket" ? 25_000 : Infinity);
  const { chat } = await joined(sim);
  const { length } = chat.received.states;
  await sim.clock.advance(600_000);
  const tries = opened(sim, "websocket") - 1;
  assert.ok(tries >= 23, `${tries} tries`);
  assert.deepEqual([chat.state.transport, seen(eve, "Josh")], ["websocket", ["introduction"]]);
  const changes = chat.received.states.slice(length).filter(({ state }) => state !== "connected");
  assert.deepEqual(changes, [], "the server could be reached all the time");
});

for (const [what, fault] of [
  ["are refused", "request lost"],
  ["never open", "silent"],
]) {
  test(`WebSockets ${what}: the client is connected once another stream is open, and sends before`, async () => {
    for (const [name, lockMs] of [
      ["Josh", 0],
      ["", 0],
      ["", 500],
    ]) {
      const sim = new Simulation();
      sim.lockMs = lockMs;
      sim.fault = ({ kind }) => (kind === "websocket" ? fault : null);
      const page = sim.openPage({ streams: STREAMS });
      const chat = page.join("lobby", { name });
      await sim.waitFor(chat.say("early"));
      assert.notEqual(chat.state.state, "connected");
      await sim.clock.until(connected(chat));
      await sim.clock.advance(60_000);
      const states = chat.received.states.map(({ state, transport }) => [state, transport]);
      assert.ok(
        states.every(([state, transport]) => state === "connecting" || transport === "eventsource"),
        `${states}`,
      );
      assert.ok(opened(sim, "eventsource") === 1 && states.at(-1)[0] === "connected");
    }
  });
}

const BARRIERS = {
  "is refused": ["request lost", 4000],
  "becomes a plain read": ["plain read", 4000],
  "never opens": ["silent", 25_000],
};

for (const [what, [fault, most]] of Object.entries(BARRIERS)) {
  test(`a WebSocket ${what}: after two failures the client uses events, and so does the next page`, async () => {
    const sim = new Simulation();
    sim.fault = ({ kind }) => (kind === "websocket" ? fault : null);
    const stored = newStorage();
    const { page, chat } = await joined(sim, { storage: stored });
    sim.server.write("lobby", "one");
    await sim.clock.advance(most);
    sim.server.write("lobby", "two");
    await sim.clock.advance(100);
    assert.deepEqual(
      [chat.texts(), chat.state.transport, page.streams.size],
      [["one", "two"], "eventsource", 1],
    );
    assert.deepEqual([opened(sim, "websocket"), opened(sim, "eventsource")], [2, 1]);
    assert.deepEqual(sim.server.names("lobby"), ["Josh"]);
    if (fault === "plain read")
      assert.equal(sim.server.connectionCount, 1, "no member was seen to leave for it");

    page.close();
    const { chat: next } = await joined(sim, { storage: stored });
    assert.deepEqual([next.state.transport, opened(sim, "websocket")], ["eventsource", 2]);
    const { chat: forced } = await joined(sim, { storage: stored, transport: "websocket" });
    await sim.clock.advance(5000);
    assert.equal(forced.state.transport, "websocket", "the option overrides what is stored");
  });

  test(`an event stream also ${what}: the client uses fetch`, async () => {
    const sim = new Simulation();
    sim.fault = ({ kind }) => (STREAMS.includes(kind) ? fault : null);
    const stored = newStorage();
    const { page, chat } = await joined(sim, { storage: stored });
    await sim.clock.advance(2 * most);
    sim.server.write("lobby", "hello");
    await sim.clock.advance(100);
    assert.deepEqual(
      [chat.texts(), chat.state.transport, page.streams.size],
      [["hello"], "fetch", 0],
    );
    assert.deepEqual([opened(sim, "websocket"), opened(sim, "eventsource")], [2, 2]);
    assert.deepEqual([chat.names(), sim.server.names("lobby")], [["Josh"], ["Josh"]]);
    await sim.clock.advance(100_000);
    assert.equal(stored.speak, "fetch");
  });
}

test("a stream that is buffered counts as failed as soon as a read knows more", async () => {
  const sim = new Simulation();
  sim.fault = ({ kind }) => (STREAMS.includes(kind) ? "buffered" : null);
  const { page, chat } = await joined(sim);
  for (let i = 0; i < 60; i++) {
    sim.server.write("lobby", `${i}`);
    await sim.clock.advance(1000);
  }
  assert.deepEqual(
    chat.texts(),
    Array.from({ length: 60 }, (_, i) => `${i}`),
  );
  assert.deepEqual([chat.state.transport, page.streams.size], ["fetch", 0]);
  assert.deepEqual([opened(sim, "websocket"), opened(sim, "eventsource")], [2, 2]);
  assert.deepEqual([chat.names(), chat.received.missed], [["Josh"], 0]);
});

test("one failure is forgotten as soon as a stream has lived for twenty seconds", async () => {
  const sim = new Simulation();
  const { chat } = await joined(sim);
  await sim.clock.advance(25_000);
  for (let i = 0; i < 5; i++) {
    let count = 1;
    sim.fault = ({ kind }) => (kind === "websocket" && count-- > 0 ? "request lost" : null);
    sim.disconnect();
    sim.isOnline = true;
    await sim.clock.advance(25_000);
    sim.fault = () => null;
    sim.server.write("lobby", `${i}`);
    await sim.clock.advance(100);
  }
  assert.deepEqual([chat.texts(), chat.state.transport], [["0", "1", "2", "3", "4"], "websocket"]);
});

test("if the page's policy makes streams throw, the client uses fetch", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ streams: STREAMS });
  page.forbidsStreams = true;
  const chat = page.join("lobby", { name: "Josh" });
  await sim.clock.until(() => chat.state.transport === "fetch" && connected(chat)());
  sim.server.write("lobby", "hello");
  await sim.clock.advance(100);
  assert.deepEqual([chat.texts(), page.errors], [["hello"], []]);
});

test("if storage is forbidden, each page finds the transport by itself", async () => {
  const sim = new Simulation();
  sim.fault = ({ kind }) => (kind === "websocket" ? "request lost" : null);
  const forbidden = () => {
    throw new Error("SecurityError");
  };
  for (let i = 1; i <= 2; i++) {
    const { page, chat } = await joined(sim, {
      storage: new Proxy({}, { get: forbidden, set: forbidden }),
    });
    await sim.clock.advance(4000);
    assert.deepEqual(
      [chat.state.transport, opened(sim, "websocket"), page.errors],
      ["eventsource", 2 * i, []],
    );
    page.close();
    await sim.clock.advance(1000);
  }
});

test("an unreachable server is no reason to change the transport", async () => {
  const sim = new Simulation();
  const stored = newStorage();
  const { chat } = await joined(sim, { storage: stored });
  for (const outageMs of [1000, 20_000, 200_000]) {
    sim.disconnect();
    await sim.clock.advance(outageMs);
    sim.isOnline = true;
    await sim.clock.until(connected(chat));
    await sim.clock.advance(1000);
    assert.deepEqual([chat.state.transport, stored.speak], ["websocket", undefined]);
  }
});
