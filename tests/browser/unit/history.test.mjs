// Paging back through what is retained, and the signals that end what waits.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, Simulation } from "./simulation.mjs";

const texts = ({ messages }) => Array.from(messages, ({ text }) => text);

/** Returns a simulation whose room has the texts 1 to `count`. */
function newRoom(count, options, room = "lobby") {
  const sim = new Simulation(options);
  for (let i = 1; i <= count; i++) sim.server.write(room, `${i}`);
  return sim;
}

/** Joins the room without its history, in a page of its own. */
async function joined(sim, options, room = "lobby") {
  const chat = sim.openPage().join(room, { history: false, ...options });
  await sim.clock.until(connected(chat));
  return chat;
}

test("history() pages back to the first message, and tells whether there are more", async () => {
  const sim = newRoom(7);
  const chat = sim.openPage().join("lobby", { history: false });
  const first = await sim.waitFor(chat.history(3)); // waits for the chat
  assert.deepEqual([texts(first), first.more], [["5", "6", "7"], true]);
  const second = await sim.waitFor(chat.history(3));
  assert.deepEqual([texts(second), second.more], [["2", "3", "4"], true]);
  const third = await sim.waitFor(chat.history(3));
  assert.deepEqual([texts(third), third.more], [["1"], false]);
  const end = await sim.waitFor(chat.history(3));
  assert.deepEqual([texts(end), end.more], [[], false]);
  assert.deepEqual(chat.texts(), []);
});

test("calls at the same time get one page each, and what is new arrives as before", async () => {
  const sim = newRoom(7);
  const chat = await joined(sim);
  const pages = [chat.history(2), chat.history(2)];
  sim.server.write("lobby", "new");
  const [first, second] = await sim.waitFor(Promise.all(pages));
  await sim.clock.advance(1000);
  assert.deepEqual([...texts(second), ...texts(first)], ["4", "5", "6", "7"]);
  assert.deepEqual(chat.texts(), ["new"]);
  sim.server.write("lobby", "newer");
  await sim.clock.advance(1000);
  assert.deepEqual(texts(await sim.waitFor(chat.history(2))), ["2", "3"]);
  assert.deepEqual([chat.texts(), chat.received.missed], [["new", "newer"], 0]);
});

test("a page of the history has the messages as events would have them", async () => {
  const sim = new Simulation();
  const { owner, channel } = await sim.waitFor(sim.openPage().globals.Speak.create("room"));
  const ann = sim.openPage().join(owner, { name: "Ann" });
  await sim.clock.until(connected(ann));
  const { id } = await sim.waitFor(ann.say("something bad"));
  await sim.waitFor(ann.say("welcome"));
  await sim.waitFor(ann.remove(id));
  const bob = await joined(sim, { name: "Bob" }, channel);
  await sim.clock.advance(100);
  const { messages, more } = await sim.waitFor(bob.history(10));
  assert.deepEqual(
    Array.from(messages, ({ type, name, text, own, owner: isOwner, removed, whisper }) => ({
      ...{ type, name, text, own, isOwner, removed, whisper },
    })),
    [
      { type: "introduction", name: "Ann", text: "Ann", removed: false },
      { type: "removed", name: "Ann", text: "", removed: true },
      { type: "message", name: "Ann", text: "welcome", removed: false },
      { type: "introduction", name: "Bob", text: "Bob", removed: false, own: true },
    ].map(({ type, name, text, removed, own = false }) => ({
      ...{ type, name, text, own, isOwner: own ? undefined : true, removed, whisper: false },
    })),
  );
  assert.equal(more, false);
  assert.deepEqual([bob.texts(), bob.names()], [[], ["Ann", "Bob"]]);
});

test("with its history, a page has got everything that is retained", async () => {
  const sim = newRoom(5);
  const chat = await joined(sim, { history: true });
  const { messages, more } = await sim.waitFor(chat.history(3));
  assert.deepEqual([messages.length, more, chat.texts().length], [0, false, 5]);
});

test("the history ends where the server retains no more", async () => {
  const sim = newRoom(9, { history: 5 });
  const chat = await joined(sim);
  sim.server.write("lobby", "10");
  const page = await sim.waitFor(chat.history(8));
  assert.deepEqual([texts(page), page.more], [["6", "7", "8", "9"], false]);
});

test("a page of the history may take several answers", async () => {
  const sim = newRoom(9, { page: 2 });
  const chat = sim.openPage().join("lobby", { history: false });
  await sim.clock.until(connected(chat));
  await sim.clock.advance(1000);
  const before = chat.texts().length; // what the first answer had not
  const page = await sim.waitFor(chat.history(9));
  assert.deepEqual([...texts(page), ...chat.texts()].length, 9);
  assert.equal(texts(page).length, 9 - before);
});

test("after a restart of the server, all that it has is an event, and no history", async () => {
  const sim = newRoom(5);
  const chat = await joined(sim);
  await sim.waitFor(chat.history(2));
  sim.server.restart();
  for (const text of ["a", "b"]) sim.server.write("lobby", text);
  const [page] = await sim.waitFor(Promise.all([chat.history(2), sim.clock.advance(30_000)]));
  assert.deepEqual([texts(page), page.more], [[], false]);
  await sim.clock.advance(30_000);
  assert.deepEqual(chat.texts(), ["a", "b"]);
  assert.deepEqual(texts(await sim.waitFor(chat.history(5))), []);
});

test("without a network, a page of the history waits", async () => {
  const sim = newRoom(5);
  const chat = await joined(sim);
  sim.disconnect();
  await sim.clock.advance(5000);
  const page = chat.history(2);
  await sim.clock.advance(5000);
  sim.isOnline = true;
  assert.deepEqual(texts(await sim.waitFor(page)), ["4", "5"]);
  let losses = 0;
  sim.fault = ({ path, from_id }) =>
    path === "read" && from_id === "2" && losses++ < 3 ? "response lost" : null;
  assert.deepEqual(texts(await sim.waitFor(chat.history(2))), ["2", "3"]);
  assert.equal(losses, 4);
});

test("a name that only writes has no history", async () => {
  const sim = new Simulation();
  const { write, read } = await sim.waitFor(sim.openPage().globals.Speak.create("feed"));
  for (const text of ["a", "b"]) sim.server.write(write, text);
  const writer = await joined(sim, {}, write);
  assert.deepEqual(texts(await sim.waitFor(writer.history(2))), []);
  const reader = await joined(sim, {}, read);
  assert.deepEqual(texts(await sim.waitFor(reader.history(2))), ["a", "b"]);
});

test("the signal of join() ends all that waits", async () => {
  const sim = new Simulation();
  sim.disconnect();
  const controller = new AbortController();
  const chat = sim.openPage().join("lobby", { name: "Josh", signal: controller.signal });
  const waiting = [chat.say("howdy"), chat.history(2), chat.rename("J.")];
  await sim.clock.advance(5000);
  controller.abort();
  const ends = await sim.waitFor(Promise.allSettled(waiting));
  assert.deepEqual(
    ends.map(({ reason }) => reason?.message),
    ["left", "left", "left"],
  );
  assert.deepEqual([waiting[0].state, chat.state.state], ["failed", "left"]);
});

test("the signal of create() ends the call, also one that was aborted before", async () => {
  const sim = new Simulation();
  sim.fault = () => "silent";
  const { Speak } = sim.openPage().globals;
  const controller = new AbortController();
  const { signal } = controller;
  const made = Speak.create("room", { signal });
  made.catch(() => {});
  await sim.clock.advance(1000);
  controller.abort(new Error("never mind"));
  await assert.rejects(sim.waitFor(made), /never mind/);
  const count = sim.requestsTo("create").length;
  await assert.rejects(sim.waitFor(Speak.create("room", { signal })), /never mind/);
  assert.equal(count, 1);
});

test("a chat that the server ended leaves no stream open", async () => {
  const sim = new Simulation();
  const { owner, channel } = await sim.waitFor(sim.openPage().globals.Speak.create("room"));
  const ann = sim.openPage().join(owner, { name: "Ann" });
  const page = sim.openPage({ streams: ["websocket"] });
  const bob = page.join(channel, { name: "Bob" });
  await sim.clock.until(() => ann.members.length === 2 && page.streams.size);
  await sim.waitFor(ann.kick(ann.members.find(({ name }) => name === "Bob")));
  await sim.clock.until(() => bob.state.state === "left");
  await sim.clock.advance(1000);
  assert.deepEqual([page.streams.size, bob.received.errors[0].name], [0, "removed"]);
});
