// Rooms with an owner, feeds and inboxes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, Simulation } from "./simulation.mjs";

/** Joins the channel in a page of its own, and waits until it is connected. */
async function joined(sim, channel, options, page = sim.openPage()) {
  const chat = page.join(channel, options);
  await sim.clock.until(connected(chat));
  await sim.clock.advance(100);
  return chat;
}

const create = (sim, kind) => sim.waitFor(sim.openPage().globals.Speak.create(kind));
const shown = (chat) =>
  chat.received.messages.map(({ id, type, text, removed }) => [id, type, text, removed]);
const removals = (chat) => chat.received.removals.map(({ of }) => of);

test("create() makes the names of each kind, and an unknown kind is refused", async () => {
  const sim = new Simulation();
  const { owner, channel } = await create(sim, "room");
  assert.deepEqual([owner, channel], ["~o1", "~c1"]);
  const feed = await create(sim, "feed");
  assert.deepEqual([feed.write, feed.read], ["~f2", "~b2"]);
  const inbox = await create(sim);
  assert.deepEqual([inbox.read, inbox.write], ["~r3", "~w3"]);
  await assert.rejects(create(sim, "palace"), { name: "bad_parameter" });
  const { Speak } = sim.openPage().globals;
  sim.endpoints.set("http://other.test/", "open");
  await sim.waitFor(Speak.create("room", { server: "http://other.test" }));
  assert.equal(sim.requestsTo("create").at(-1).endpoint, "http://other.test/");
});

test("the owner removes a message: all pages are told, and later ones get no text", async () => {
  const sim = new Simulation();
  const { owner, channel } = await create(sim, "room");
  const ann = await joined(sim, owner, { name: "Ann" });
  const bob = await joined(sim, channel, { name: "Bob" });
  const { id } = await sim.waitFor(bob.say("something bad"));
  await sim.waitFor(ann.say("please not"));
  await sim.clock.advance(100);
  const message = ann.received.messages.find((one) => one.id === id);
  assert.deepEqual([message.owner, message.removed], [undefined, false]);
  assert.equal(bob.received.messages.at(-1).owner, true);
  assert.deepEqual(
    Array.from(bob.members, (member) => [member.name, member.owner]),
    [
      ["Ann", true],
      ["Bob", undefined],
    ],
  );

  await sim.waitFor(ann.remove(message));
  await sim.clock.advance(100);
  for (const chat of [ann, bob]) assert.deepEqual(removals(chat), [id]);
  const late = await joined(sim, channel, { name: "Eve" });
  assert.deepEqual(shown(late).slice(2, 4), [
    [id, "removed", "", true],
    [id + 1, "message", "please not", false],
  ]);
  assert.equal(late.received.messages[2].name, "Bob");
  assert.deepEqual(bob.received.messages.filter(({ removed }) => removed), []);
});

test("only the owner removes or sends away", async () => {
  const sim = new Simulation();
  const { owner, channel } = await create(sim, "room");
  const ann = await joined(sim, owner, { name: "Ann" });
  const bob = await joined(sim, channel, { name: "Bob" });
  const { id } = await sim.waitFor(ann.say("welcome"));
  await assert.rejects(sim.waitFor(bob.remove(id)), { name: "not_owner", status: 403 });
  await assert.rejects(sim.waitFor(bob.kick(bob.members[0])), { name: "not_owner" });
  assert.deepEqual([bob.names(), removals(bob)], [["Ann", "Bob"], []]);
  assert.equal(bob.state.state, "connected");
});

test("a whisper is not removed, for its id may be that of a message in the room", async () => {
  const sim = new Simulation();
  const { owner, channel } = await create(sim, "room");
  const ann = await joined(sim, owner, { name: "Ann" });
  const bob = await joined(sim, channel, { name: "Bob" });
  await sim.waitFor(bob.whisper(bob.members[0], "psst"));
  await sim.clock.advance(100);
  const { whisper, id } = ann.received.messages.at(-1);
  assert.deepEqual([whisper, id], [true, 1]);
  await assert.rejects(ann.remove(ann.received.messages.at(-1)), /a whisper/);
  assert.equal(sim.requestsTo("remove").length, 0);
});

test("a name is removed with the introduction that brought it", async () => {
  const sim = new Simulation();
  const { owner, channel } = await create(sim, "room");
  const ann = await joined(sim, owner, { name: "Ann" });
  const bob = await joined(sim, channel, { name: "Something bad" });
  await sim.waitFor(ann.remove(ann.members[1]));
  await sim.clock.advance(100);
  const late = await joined(sim, channel);
  for (const chat of [ann, bob, late]) assert.deepEqual(chat.names(), ["Ann", ""]);
  assert.equal(ann.members[1].inbox, undefined);
  await sim.waitFor(bob.say("who am I?"));
  await sim.clock.advance(100);
  assert.deepEqual([ann.received.messages.at(-1).name, bob.me.name], ["", ""]);
  assert.deepEqual([removals(late), ann.members[0].name], [[2], "Ann"]);
});

test("a removal waits while the server is out of reach, as a text does", async () => {
  const sim = new Simulation();
  const { owner, channel } = await create(sim, "room");
  const ann = await joined(sim, owner, { name: "Ann" });
  const bob = await joined(sim, channel, { name: "Bob" });
  const { id } = await sim.waitFor(bob.say("something bad"));
  sim.disconnect();
  await sim.clock.advance(5000);
  const done = ann.remove(id);
  await sim.clock.advance(5000);
  sim.isOnline = true;
  await sim.waitFor(done);
  await sim.clock.advance(30_000);
  for (const chat of [ann, bob]) assert.ok(removals(chat).includes(id));
});

test("a page that was away gets the removal, and the message that it had not got without its text", async () => {
  const sim = new Simulation();
  const { owner, channel } = await create(sim, "room");
  const bob = await joined(sim, channel);
  sim.server.write(channel, "something bad");
  await sim.clock.advance(100);
  sim.disconnect();
  await sim.clock.advance(100);
  sim.server.write(channel, "something worse");
  for (const id of [1, 2]) sim.server.on_remove({ channel: owner, id }, () => {});
  sim.isOnline = true;
  await sim.clock.until(() => removals(bob).length === 2);
  await sim.clock.advance(5000);
  assert.deepEqual(removals(bob), [1, 2]);
  assert.deepEqual(shown(bob), [
    [1, "message", "something bad", false],
    [2, "removed", "", true],
  ]);
});

for (const seconds of [600, undefined]) {
  test(`a member that is sent away (${seconds}) leaves in all its tabs, and does not come back by itself`, async () => {
    const sim = new Simulation();
    const { owner, channel } = await create(sim, "room");
    const ann = await joined(sim, owner, { name: "Ann" });
    const tabs = [];
    for (let i = 0; i < 2; i++) tabs.push(await joined(sim, channel, { name: "Bob" }));
    const [, member] = ann.members;
    await sim.waitFor(ann.kick(member, { seconds, message: "enough" }));
    await sim.clock.advance(60_000);
    const { query } = sim.requestsTo("kick").at(-1);
    const sent = [query.get("connection"), query.get("seconds"), query.get("message")];
    assert.deepEqual(sent, [`${member.connection}`, seconds ? `${seconds}` : null, "enough"]);
    assert.deepEqual(ann.names(), ["Ann"]);
    const { type, reason, name, text } = ann.received.messages.at(-1);
    assert.deepEqual([type, reason, name, text], ["goodbye", "removed", "Bob", "enough"]);
    for (const chat of tabs) {
      assert.equal(chat.received.messages.at(-1).reason, "removed");
      const errors = chat.received.errors.map((error) => [error.name, error.detail, error.status]);
      assert.deepEqual([errors, chat.state.state], [[["removed", "enough", 403]], "left"]);
      await assert.rejects(chat.say("but"), /left/);
    }
    assert.equal(sim.server.connectionCount, 2, "no tab introduced itself again");
    const again = await joined(sim, channel, { name: "Bob" });
    assert.deepEqual(again.names(), ["Ann", "Bob"], "unless the page asks for it");
  });
}

test("a feed is written under one name, and read under the other", async () => {
  const sim = new Simulation();
  const { write, read } = await create(sim, "feed");
  const reader = await joined(sim, read, { name: "Bob" });
  const author = await joined(sim, write);
  const { id } = await sim.waitFor(author.say("news"));
  await sim.waitFor(author.say("more news"));
  await sim.clock.advance(100);
  assert.deepEqual([reader.texts(), reader.me, author.texts()], [["news", "more news"], null, []]);
  await assert.rejects(sim.waitFor(reader.say("me too")), { name: "not_writable" });
  await sim.waitFor(author.remove(id));
  await sim.clock.advance(60_000);
  assert.deepEqual([removals(reader), reader.state.state], [[id], "connected"]);
  assert.deepEqual([author.state.state, author.received.errors], ["connected", []]);
});

test("with the option owner, a chat reads under the name that is given away", async () => {
  const sim = new Simulation();
  for (const [kind, secret, other] of [
    ["room", "owner", "channel"],
    ["feed", "write", "read"],
  ]) {
    const names = await create(sim, kind);
    const chat = await joined(sim, names[other], { name: "Ann", owner: names[secret] });
    const { id } = await sim.waitFor(chat.say("hello"));
    await sim.waitFor(chat.remove(id));
    await sim.clock.advance(100);
    assert.deepEqual([chat.texts(), removals(chat), chat.names()], [["hello"], [id], ["Ann"]]);
    const read = sim.requestsTo("read").map(({ query }) => query.getAll("channel")).flat();
    assert.ok(read.includes(names[other]) && !read.includes(names[secret]));
    await sim.waitFor(chat.leave());
  }
});

test("an inbox is written under one name, and read under the other; a name brings whispers back", async () => {
  const sim = new Simulation();
  const { write, read } = await create(sim, "inbox");
  const owner = await joined(sim, read, { name: "Ann" });
  const guest = await joined(sim, write, { name: "Bob" });
  await sim.waitFor(guest.say("to you alone"));
  await sim.clock.advance(100);
  assert.deepEqual([owner.texts(), owner.names(), guest.names()], [["to you alone"], ["Bob"], []]);
  await sim.waitFor(owner.whisper(owner.members[0], "thank you"));
  await sim.clock.advance(100);
  const [{ text, whisper }] = guest.received.messages;
  assert.deepEqual([guest.texts(), text, whisper], [["thank you"], "thank you", true]);
  await sim.waitFor(owner.remove(owner.received.messages[1]));
  assert.equal(sim.server.channel(read).messages[1].type, "removed");
});

test("under a name that only writes, a text whose answer is lost is not sent twice", async () => {
  const sim = new Simulation();
  const { write, read } = await create(sim, "feed");
  const author = await joined(sim, write);
  let count = 1;
  sim.fault = ({ path }) => (path === "write" && count-- > 0 ? "response lost" : null);
  await assert.rejects(sim.waitFor(author.say("news")));
  assert.deepEqual(sim.server.texts(read), ["news"]);
});

test("the address of a WebSocket has no secret: the read follows in a frame", async () => {
  const sim = new Simulation();
  const { owner } = await create(sim, "room");
  const page = sim.openPage({ streams: ["websocket"] });
  const chat = await joined(sim, owner, { name: "Ann" }, page);
  await sim.waitFor(chat.say("hello"));
  await sim.clock.advance(60_000);
  for (const address of page.addresses)
    assert.equal(address, "ws://speak.test:8080/read?channel=?&timeout=0");
  const [read] = sim.requestsTo("read").filter(({ kind }) => kind === "websocket");
  const inbox = chat.me.inbox.replace("w", "r");
  assert.deepEqual(read.query.getAll("channel"), [owner, inbox]);
  assert.equal(read.query.get("connection"), `${chat.me.connection}`);
  assert.match(read.query.get("auth"), /^secret/);
  assert.deepEqual([chat.texts(), chat.state.transport], [["hello"], "websocket"]);
});

test("what comes by a WebSocket before its read is bound is not of the room", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ streams: ["websocket"] });
  const { WebSocket } = page.globals;
  page.globals.WebSocket = class extends WebSocket {
    send(text) {
      const message = { id: 9, type: "message", time: 1, message: "intruder" };
      const answer = { messages: [message], next_id: 10, epoch: "epoch0" };
      this.onmessage({ data: JSON.stringify(answer) });
      super.send(text);
    }
  };
  const chat = await joined(sim, "lobby", { name: "Josh" }, page);
  sim.server.write("lobby", "hello");
  await sim.clock.advance(1000);
  assert.deepEqual(chat.texts(), ["hello"]);
});

test("a connection that has ended when its WebSocket opens is introduced again", async () => {
  const sim = new Simulation();
  const page = sim.openPage({ streams: ["websocket"] });
  const chat = await joined(sim, "lobby", { name: "Josh" }, page);
  sim.disconnect();
  const [connection] = sim.server.connections.values();
  sim.server.end(connection, "timeout");
  sim.isOnline = true;
  await sim.clock.until(() => chat.me?.connection === 2 && connected(chat)());
  await sim.clock.advance(1000);
  assert.deepEqual([chat.names(), chat.state.transport], [["Josh"], "websocket"]);
  assert.equal(page.streams.size, 1);
});
