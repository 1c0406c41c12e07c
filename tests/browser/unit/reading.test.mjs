import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, HOME, Simulation } from "./simulation.mjs";

test("joining introduces the client, and delivers all messages from the first on", async () => {
  const sim = new Simulation();
  sim.server.introduce("lobby", "Ada");
  sim.server.write("lobby", "who is there?");
  const chat = sim.openPage().join("lobby", { name: "  Josh\nHill " });
  assert.deepEqual(chat.received.states, [], "no event before join() has returned");
  await sim.clock.until(connected(chat));

  assert.deepEqual(
    chat.received.messages.map(({ id, type, name, text, own }) => [id, type, name, text, own]),
    [
      [1, "introduction", "Ada", "Ada", false],
      [2, "message", undefined, "who is there?", false],
      [3, "introduction", "Josh Hill", "Josh Hill", true],
    ],
  );
  assert.deepEqual(chat.received.members, [["Ada", "Josh Hill"]]);
  assert.equal(chat.me.connection, 2);
  assert.deepEqual(
    Array.from(chat.members, ({ own, inbox }) => [own, inbox]),
    [
      [false, undefined],
      [true, "~w1"],
    ],
  );
});

test("reads are made one at a time, each from where the last one ended", async () => {
  const sim = new Simulation();
  const chat = sim.openPage().join("lobby", { name: "Josh" });
  await sim.clock.until(connected(chat));
  for (const text of ["one", "two", "three"]) {
    sim.server.write("lobby", text);
    assert.ok(sim.server.readers.size <= 1);
    await sim.clock.advance(100);
  }
  await sim.clock.advance(60_000);
  assert.deepEqual(chat.texts(), ["one", "two", "three"]);
  const reads = sim
    .requestsTo("read")
    .filter(({ endpoint }) => endpoint === HOME)
    .map(({ query }) => [query.getAll("from_id").join(), query.get("epoch"), query.get("timeout")]);
  assert.deepEqual(reads, [
    ["0,0", null, "0"],
    ["2,1", "epoch0", "25"],
    ["3,1", "epoch0", "25"],
    ["4,1", "epoch0", "25"],
    ["5,1", "epoch0", "25"],
    ["5,1", "epoch0", "25"],
    ["5,1", "epoch0", "25"],
  ]);
  assert.deepEqual(sim.server.names("lobby"), ["Josh"], "the long poll kept the connection alive");
});

test("a client without a name reads unseen, and its messages have no sender", async () => {
  const sim = new Simulation();
  const chat = sim.openPage().join("lobby");
  await sim.clock.until(connected(chat));
  const { id } = await sim.waitFor(chat.say("boo"));
  await sim.clock.advance(100);
  assert.deepEqual(
    chat.received.messages.map((message) => [message.id, message.text, message.own, message.from]),
    [[id, "boo", false, undefined]],
  );
  assert.deepEqual(
    [chat.me, chat.members.length, sim.requestsTo("introduce").length],
    [null, 0, 0],
  );
  assert.deepEqual(sim.requestsTo("read").at(-1).query.getAll("channel"), ["lobby"]);
  await assert.rejects(chat.rename("Josh"));
});

test("a member that left is no longer listed, but its name is remembered", async () => {
  const sim = new Simulation();
  const ada = sim.server.introduce("lobby", "Ada");
  const chat = sim.openPage().join("lobby", { name: "Josh" });
  await sim.clock.until(connected(chat));
  sim.server.end(sim.server.connections.get(ada.connection), "timeout");
  await sim.clock.advance(100);
  const goodbye = chat.received.messages.at(-1);
  assert.deepEqual([goodbye.type, goodbye.name, goodbye.reason], ["goodbye", "Ada", "timeout"]);
  assert.deepEqual(chat.names(), ["Josh"]);

  // A client that joins later sees the same.
  const late = sim.openPage().join("lobby", { name: "Eve" });
  await sim.clock.until(connected(late));
  assert.equal(late.received.messages.find(({ type }) => type === "goodbye").name, "Ada");
  assert.deepEqual(late.names(), ["Josh", "Eve"]);
});

test("a new client sees members whose introduction is no longer retained", async () => {
  const sim = new Simulation({ history: 3 });
  sim.server.introduce("lobby", "Ada\n~wada");
  for (let i = 0; i < 10; i++) sim.server.write("lobby", `${i}`);
  const chat = sim.openPage().join("lobby", { name: "Josh" });
  await sim.clock.until(connected(chat));
  assert.deepEqual(
    Array.from(chat.members, ({ name, inbox }) => [name, inbox]),
    [
      ["Ada", "~wada"],
      ["Josh", "~w1"],
    ],
  );
});

test("a loss is reported, the retained messages arrive once, and the members are right", async () => {
  const sim = new Simulation({ history: 5 });
  const ada = sim.server.introduce("lobby", "Ada");
  const chat = sim.openPage().join("lobby", { name: "Josh" });
  await sim.clock.until(connected(chat));
  sim.server.write("lobby", "before");
  await sim.clock.advance(100);

  sim.disconnect();
  sim.server.end(sim.server.connections.get(ada.connection), "left");
  sim.server.introduce("lobby", "Eve");
  for (let i = 0; i < 20; i++) sim.server.write("lobby", `lost ${i}`);
  sim.isOnline = true;
  await sim.clock.until(() => chat.texts().includes("lost 19"));
  await sim.clock.advance(1000);
  sim.server.write("lobby", "after");
  await sim.clock.advance(100);

  const lost = ["lost 15", "lost 16", "lost 17", "lost 18", "lost 19"];
  assert.equal(chat.received.missed, 1);
  assert.deepEqual(chat.texts(), ["before", ...lost, "after"]);
  assert.deepEqual(chat.names(), ["Josh", "Eve"]);
});

test("if answers hold only a part of the messages, reads continue to the end", async () => {
  const sim = new Simulation({ page: 3 });
  const all = Array.from({ length: 10 }, (_, i) => `${i}`);
  for (const text of all) sim.server.write("lobby", text);
  const chat = sim.openPage().join("lobby", { name: "Josh" });
  await sim.clock.until(() => chat.texts().length === 10);
  await sim.clock.advance(1000);
  assert.deepEqual(chat.texts(), all);
  assert.deepEqual(chat.names(), ["Josh"]);
});

test("with history: false only new messages arrive, but the members are known", async () => {
  const sim = new Simulation();
  sim.server.introduce("lobby", "Ada");
  sim.server.write("lobby", "old");
  const chat = sim.openPage().join("lobby", { name: "Josh", history: false });
  await sim.clock.until(connected(chat));
  sim.server.write("lobby", "new");
  await sim.clock.advance(100);
  assert.deepEqual(chat.texts(), ["new"]);
  assert.deepEqual(chat.names(), ["Ada", "Josh"]);
  sim.server.restart();
  await sim.clock.advance(2000);
  sim.server.write("lobby", "newer");
  await sim.clock.advance(100);
  assert.deepEqual(chat.texts(), ["new", "newer"]);
});

test("whispers arrive in the same read, and only their recipient gets them", async () => {
  const sim = new Simulation();
  const [ada, eve, bob] = ["Ada", "Eve", "Bob"].map((name) =>
    sim.openPage().join("lobby", { name }),
  );
  await sim.clock.until(
    () => ada.members.length === 3 && eve.members.length === 3 && bob.members.length === 3,
  );
  const { id } = await sim.waitFor(ada.whisper(eve.me, "psst"));
  await sim.waitFor(eve.whisper(ada.me.connection, "what?"));
  await sim.clock.advance(100);

  const whispers = (chat) =>
    chat.received.messages
      .filter(({ whisper }) => whisper)
      .map(({ name, text, own, to }) => [name, text, own, to?.name]);
  assert.deepEqual(whispers(ada), [
    ["Ada", "psst", true, "Eve"],
    ["Eve", "what?", false, undefined],
  ]);
  assert.deepEqual(whispers(eve), [
    ["Ada", "psst", false, undefined],
    ["Eve", "what?", true, "Ada"],
  ]);
  assert.deepEqual([whispers(bob), id], [[], 1]);
  assert.equal(sim.server.readers.size, 3);
  await assert.rejects(ada.whisper(99, "hello?"));
});

test("a whisper goes into a pair or nowhere, whatever inbox a member names", async () => {
  const sim = new Simulation();
  const ada = sim.openPage().join("lobby", { name: "Ada" });
  for (const inbox of ["lobby", "~r7", " ~w7", "~", ""]) {
    const { connection } = sim.server.introduce("lobby", `Eve\n${inbox}`);
    await sim.clock.until(() => ada.members.some((member) => member.connection === connection));
    await assert.rejects(ada.whisper(connection, "for you alone"), JSON.stringify(inbox));
  }
  await sim.clock.advance(100);
  assert.deepEqual([sim.server.texts("lobby"), ada.texts()], [[], []]);
});

test("a rename is a new introduction of the same member, and lasts", async () => {
  const sim = new Simulation();
  const chat = sim.openPage().join("lobby", { name: "Josh" });
  await sim.clock.until(connected(chat));
  await sim.waitFor(chat.rename(" J.\n"));
  await sim.clock.advance(100);
  assert.deepEqual(
    Array.from(chat.members, ({ connection, name }) => [connection, name]),
    [[1, "J."]],
  );
  await assert.rejects(chat.rename(" "));

  sim.server.restart();
  await sim.clock.until(() => sim.server.names("lobby").length > 0);
  assert.deepEqual(sim.server.names("lobby"), ["J."]);
});

test("a handler that throws stops nothing", async () => {
  const sim = new Simulation();
  const page = sim.openPage();
  const chat = page.join("lobby", { name: "Josh" });
  chat.onmembers = () => {
    throw new Error("from a handler");
  };
  await sim.clock.until(connected(chat));
  assert.deepEqual(page.errors, ["from a handler"]);
  sim.server.write("lobby", "next");
  await sim.clock.advance(100);
  assert.deepEqual(chat.texts(), ["next"]);
});

test("a permanent error ends the chat, and is reported", async () => {
  const sim = new Simulation();
  const chat = sim.openPage().join("x".repeat(200), { name: "Josh" });
  const sent = chat.say("hello").catch((error) => error);
  await sim.clock.until(() => chat.state.state === "left");
  const [error] = chat.received.errors;
  assert.deepEqual(
    [error.name, error.status, error.detail],
    ["bad_channel", 400, "refused: bad_channel"],
  );
  assert.equal((await sent).message, "left");
  const count = sim.requests.length;
  await sim.clock.advance(100_000);
  assert.equal(sim.requests.length, count, "nothing is sent again");
});

test("without history, a member receives what others say as soon as it has joined", async () => {
  const sim = new Simulation();
  sim.server.write("lobby", "long ago");
  let isSaid = false;
  sim.fault = ({ path }) => {
    if (path === "read" && !isSaid) {
      isSaid = true; // the member is introduced, and its first read is on its way
      sim.server.write("lobby", "welcome");
      sim.server.write("~w1", "psst");
    }
    return null;
  };
  const chat = sim.openPage().join("lobby", { name: "Josh", history: false });
  await sim.clock.until(connected(chat));
  await sim.clock.advance(1000);
  assert.deepEqual(
    chat.received.messages.map(({ text, whisper }) => [text, whisper]),
    [
      ["welcome", false],
      ["psst", true],
    ],
  );
  assert.deepEqual(chat.names(), ["Josh"]);
});

test("a message of a type that the client does not know changes nothing", async () => {
  const sim = new Simulation();
  const josh = sim.openPage().join("lobby", { name: "Josh" });
  await sim.clock.until(connected(josh));
  sim.server.add("lobby", { type: "applause", from: josh.me.connection });
  await sim.clock.advance(1000);
  assert.deepEqual([josh.names(), josh.me?.name], [["Josh"], "Josh"]);
  assert.deepEqual(
    josh.received.messages.map(({ type }) => type),
    ["introduction"],
  );
  await sim.waitFor(josh.say("still here"));
  await sim.clock.advance(1000);
  assert.deepEqual(josh.texts(), ["still here"]);
});
