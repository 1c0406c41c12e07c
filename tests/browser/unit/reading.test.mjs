import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, World } from "./simulation.mjs";

test("joining: one comes in, and is told everything from the first message on", async () => {
  const world = new World();
  world.server.introduce("lobby", "Ada");
  world.server.write("lobby", "who is there?");
  const chat = world.page().join("lobby", { name: "  Josh\nHill " });
  assert.deepEqual(chat.told.states, [], "nothing is told before join has returned");
  await world.clock.until(connected(chat));

  assert.deepEqual(chat.told.messages.map(({ id, type, name, text, own }) => [id, type, name, text, own]), [
    [1, "introduction", "Ada", "Ada", false],
    [2, "message", undefined, "who is there?", false],
    [3, "introduction", "Josh Hill", "Josh Hill", true],
  ]);
  assert.deepEqual(chat.told.members, [["Ada", "Josh Hill"]]);
  assert.equal(chat.me.connection, 2);
  assert.deepEqual(Array.from(chat.members, ({ own, inbox }) => [own, inbox]), [[false, undefined], [true, "~w1"]]);
});

test("reads follow each other, one at a time, each from where the last one ended", async () => {
  const world = new World();
  const chat = world.page().join("lobby", { name: "Josh" });
  await world.clock.until(connected(chat));
  for (const text of ["one", "two", "three"]) {
    world.server.write("lobby", text);
    assert.ok(world.server.readers.size <= 1);
    await world.clock.pass(100);
  }
  await world.clock.pass(60_000);
  assert.deepEqual(chat.texts(), ["one", "two", "three"]);
  const reads = world.asked("read").map(({ query }) => [query.getAll("from_id").join(), query.get("epoch"), query.get("timeout")]);
  assert.deepEqual(reads, [
    ["0,0", null, "0"],
    ["2,1", "epoch0", "25"],
    ["3,1", "epoch0", "25"],
    ["4,1", "epoch0", "25"],
    ["5,1", "epoch0", "25"],
    ["5,1", "epoch0", "25"],
    ["5,1", "epoch0", "25"],
  ]);
  assert.deepEqual(world.server.names("lobby"), ["Josh"], "the waiting read kept the connection alive");
});

test("without a name one reads along, and speaks without a sender", async () => {
  const world = new World();
  const chat = world.page().join("lobby");
  await world.clock.until(connected(chat));
  const { id } = await world.brings(chat.say("boo"));
  await world.clock.pass(100);
  assert.deepEqual(chat.told.messages.map((message) => [message.id, message.text, message.own, message.from]), [[id, "boo", false, undefined]]);
  assert.deepEqual([chat.me, chat.members.length, world.asked("introduce").length], [null, 0, 0]);
  assert.deepEqual(world.asked("read").at(-1).query.getAll("channel"), ["lobby"]);
  await assert.rejects(chat.rename("Josh"));
});

test("who left is no member, but their name is remembered", async () => {
  const world = new World();
  const ada = world.server.introduce("lobby", "Ada");
  const chat = world.page().join("lobby", { name: "Josh" });
  await world.clock.until(connected(chat));
  world.server.end(world.server.connections.get(ada.connection), "timeout");
  await world.clock.pass(100);
  const goodbye = chat.told.messages.at(-1);
  assert.deepEqual([goodbye.type, goodbye.name, goodbye.reason], ["goodbye", "Ada", "timeout"]);
  assert.deepEqual(chat.names(), ["Josh"]);

  // Somebody who comes later sees the same.
  const late = world.page().join("lobby", { name: "Eve" });
  await world.clock.until(connected(late));
  assert.equal(late.told.messages.find(({ type }) => type === "goodbye").name, "Ada");
  assert.deepEqual(late.names(), ["Josh", "Eve"]);
});

test("a newcomer learns of those whose introduction is history", async () => {
  const world = new World({ history: 3 });
  world.server.introduce("lobby", "Ada\n~wada");
  for (let i = 0; i < 10; i++) world.server.write("lobby", `${i}`);
  const chat = world.page().join("lobby", { name: "Josh" });
  await world.clock.until(connected(chat));
  assert.deepEqual(Array.from(chat.members, ({ name, inbox }) => [name, inbox]), [["Ada", "~wada"], ["Josh", "~w1"]]);
});

test("missed: it is told, what is left is told once, and the members are right", async () => {
  const world = new World({ history: 5 });
  const ada = world.server.introduce("lobby", "Ada");
  const chat = world.page().join("lobby", { name: "Josh" });
  await world.clock.until(connected(chat));
  world.server.write("lobby", "before");
  await world.clock.pass(100);

  world.cut();
  world.server.end(world.server.connections.get(ada.connection), "left");
  world.server.introduce("lobby", "Eve");
  for (let i = 0; i < 20; i++) world.server.write("lobby", `lost ${i}`);
  world.isUp = true;
  await world.clock.until(() => chat.texts().includes("lost 19"));
  await world.clock.pass(1000);
  world.server.write("lobby", "after");
  await world.clock.pass(100);

  assert.equal(chat.told.missed, 1);
  assert.deepEqual(chat.texts(), ["before", "lost 16", "lost 17", "lost 18", "lost 19", "after"]);
  assert.deepEqual(chat.names(), ["Eve", "Josh"]);
});

test("answers that hold only part of what there is are read to the end", async () => {
  const world = new World({ page: 3 });
  const all = Array.from({ length: 10 }, (_, i) => `${i}`);
  for (const text of all) world.server.write("lobby", text);
  const chat = world.page().join("lobby", { name: "Josh" });
  await world.clock.until(() => chat.texts().length === 10);
  await world.clock.pass(1000);
  assert.deepEqual(chat.texts(), all);
  assert.deepEqual(chat.names(), ["Josh"]);
});

test("history: false tells only what comes, but knows who is here", async () => {
  const world = new World();
  world.server.introduce("lobby", "Ada");
  world.server.write("lobby", "old");
  const chat = world.page().join("lobby", { name: "Josh", history: false });
  await world.clock.until(connected(chat));
  world.server.write("lobby", "new");
  await world.clock.pass(100);
  assert.deepEqual(chat.texts(), ["new"]);
  assert.deepEqual(chat.names(), ["Ada", "Josh"]);
  world.restart();
  await world.clock.pass(2000);
  world.server.write("lobby", "newer");
  await world.clock.pass(100);
  assert.deepEqual(chat.texts(), ["new", "newer"]);
});

test("whispers come in the same read, and go to one alone", async () => {
  const world = new World();
  const [ada, eve, bob] = ["Ada", "Eve", "Bob"].map((name) => world.page().join("lobby", { name }));
  await world.clock.until(() => ada.members.length === 3 && eve.members.length === 3 && bob.members.length === 3);
  const { id } = await world.brings(ada.whisper(eve.me, "psst"));
  await world.brings(eve.whisper(ada.me.connection, "what?"));
  await world.clock.pass(100);

  const whispers = (chat) => chat.told.messages.filter(({ whisper }) => whisper).map(({ name, text, own, to }) => [name, text, own, to?.name]);
  assert.deepEqual(whispers(ada), [["Ada", "psst", true, "Eve"], ["Eve", "what?", false, undefined]]);
  assert.deepEqual(whispers(eve), [["Ada", "psst", false, undefined], ["Eve", "what?", true, "Ada"]]);
  assert.deepEqual([whispers(bob), id], [[], 1]);
  assert.equal(world.server.readers.size, 3);
  await assert.rejects(ada.whisper(99, "anybody?"));
});

test("what is whispered goes into a pair or nowhere, whatever a member calls an inbox", async () => {
  const world = new World();
  const ada = world.page().join("lobby", { name: "Ada" });
  for (const inbox of ["lobby", "~r7", " ~w7", "~", ""]) {
    const { connection } = world.server.introduce("lobby", `Eve\n${inbox}`);
    await world.clock.until(() => ada.members.some((member) => member.connection === connection));
    await assert.rejects(ada.whisper(connection, "for you alone"), JSON.stringify(inbox));
  }
  await world.clock.pass(100);
  assert.deepEqual([world.server.texts("lobby"), ada.texts()], [[], []]);
});

test("a rename is a new introduction of the same member, and lasts", async () => {
  const world = new World();
  const chat = world.page().join("lobby", { name: "Josh" });
  await world.clock.until(connected(chat));
  await world.brings(chat.rename(" J.\n"));
  await world.clock.pass(100);
  assert.deepEqual(Array.from(chat.members, ({ connection, name }) => [connection, name]), [[1, "J."]]);
  await assert.rejects(chat.rename(" "));

  world.restart();
  await world.clock.until(() => world.server.names("lobby").length > 0);
  assert.deepEqual(world.server.names("lobby"), ["J."]);
});

test("a handler that throws stops nothing", async () => {
  const world = new World();
  const page = world.page();
  const chat = page.join("lobby", { name: "Josh" });
  chat.onmembers = () => {
    throw new Error("the author's");
  };
  await world.clock.until(connected(chat));
  assert.deepEqual(page.errors, ["the author's"]);
  world.server.write("lobby", "on it goes");
  await world.clock.pass(100);
  assert.deepEqual(chat.texts(), ["on it goes"]);
});

test("what is refused for good ends the chat, and says why", async () => {
  const world = new World();
  const chat = world.page().join("x".repeat(200), { name: "Josh" });
  const said = chat.say("hello").catch((error) => error);
  await world.clock.until(() => chat.state.state === "left");
  const [error] = chat.told.errors;
  assert.deepEqual([error.name, error.status, error.detail], ["bad_channel", 400, "refused: bad_channel"]);
  assert.equal((await said).message, "left");
  const count = world.requests.length;
  await world.clock.pass(100_000);
  assert.equal(world.requests.length, count, "nothing is tried again");
});
