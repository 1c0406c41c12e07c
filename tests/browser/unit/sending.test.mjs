import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, World } from "./simulation.mjs";

async function joined(world, options) {
  const chat = world.page().join("lobby", { name: "Josh", ...options });
  await world.clock.until(connected(chat));
  return chat;
}

/** Gives this many writes the fate, and lets all else pass. */
function once(world, fate, count = 1) {
  world.fate = ({ path }) => (path === "write" && count-- > 0 ? fate : null);
}

test("what is said arrives in order, one at a time, and resolves with its id", async () => {
  const world = new World();
  const chat = world.page().join("lobby", { name: "Josh" });
  const said = ["one", "two", "three"].map((text) => chat.say(text)); // before one has come in, too
  const ids = (await world.brings(Promise.all(said))).map(({ id }) => id);
  await world.clock.pass(100);
  assert.deepEqual([ids, chat.texts()], [[2, 3, 4], ["one", "two", "three"]]);
  const times = world.asked("write").map(({ at }) => at);
  assert.ok(times[1] >= times[0] + 10 && times[2] >= times[1] + 10, "each waits for the answer to the one before");
});

test("an answer was lost, the message was not: it is not sent again", async () => {
  const world = new World();
  const chat = await joined(world);
  once(world, "unanswered");
  const { id } = await world.brings(chat.say("hello"));
  await world.clock.pass(1000);
  assert.deepEqual([id, world.server.texts("lobby"), chat.texts()], [2, ["hello"], ["hello"]]);
});

test("a message was lost: it is sent again, at once", async () => {
  const world = new World();
  const chat = await joined(world);
  once(world, "lost");
  const { now } = world.clock;
  const { id } = await world.brings(chat.say("hello"));
  assert.ok(world.clock.now - now < 1000, "the waiting read is not waited for");
  await world.clock.pass(1000);
  assert.deepEqual([id, world.server.texts("lobby"), chat.texts()], [2, ["hello"], ["hello"]]);
});

test("the same text said before is not taken for the one that was lost", async () => {
  const world = new World();
  const chat = await joined(world);
  let count = 0;
  world.fate = ({ path }) => (path === "write" && ++count === 2 ? "lost" : null);
  // The second is on its way when the first is read.
  await world.brings(Promise.all([chat.say("hello"), chat.say("hello")]));
  await world.clock.pass(1000);
  assert.deepEqual([world.server.texts("lobby"), chat.texts()], [["hello", "hello"], ["hello", "hello"]]);
});

test("the same text said by somebody else is not taken for ours", async () => {
  const world = new World();
  const eve = world.server.introduce("lobby", "Eve");
  const chat = await joined(world);
  world.fate = ({ path }) => {
    if (path !== "write") return null;
    world.server.write("lobby", "hello", eve);
    world.fate = () => null;
    return "lost";
  };
  await world.brings(chat.say("hello"));
  await world.clock.pass(1000);
  assert.deepEqual(chat.told.messages.slice(-2).map(({ text, own }) => [text, own]), [["hello", false], ["hello", true]]);
});

test("text that is no well-formed Unicode is known again as what it becomes", async () => {
  const world = new World();
  const chat = await joined(world);
  once(world, "unanswered");
  await world.brings(chat.say("a\ud800b"));
  await world.clock.pass(1000);
  assert.deepEqual(world.server.texts("lobby"), ["a\ufffdb"]);
});

for (const fate of ["lost", "unanswered"]) {
  test(`the network goes away as one speaks (${fate}): each message arrives once, in order`, async () => {
    const world = new World();
    const chat = await joined(world);
    world.fate = ({ path }) => {
      if (path !== "write") return null;
      world.clock.setTimeout(() => world.cut(), 6);
      world.fate = () => null;
      return fate;
    };
    const said = ["one", "two"].map((text) => chat.say(text));
    await world.clock.pass(7000);
    world.isUp = true;
    await world.brings(Promise.all(said));
    await world.clock.pass(1000);
    assert.deepEqual([world.server.texts("lobby"), chat.texts()], [["one", "two"], ["one", "two"]]);
  });

  test(`without a name as well (${fate})`, async () => {
    const world = new World();
    const chat = await joined(world, { name: "" });
    once(world, fate);
    await world.brings(chat.say("boo"));
    await world.clock.pass(1000);
    assert.deepEqual(world.server.texts("lobby"), ["boo"]);
  });
}

for (const fate of ["lost", "unanswered"]) {
  test(`the server restarts as one speaks (${fate}): the message is told once`, async () => {
    const world = new World();
    const chat = await joined(world);
    world.fate = ({ path }) => {
      if (path !== "write") return null;
      world.clock.setTimeout(() => world.restart(), 6);
      world.fate = () => null;
      return fate;
    };
    await world.brings(chat.say("hello"));
    await world.clock.pass(3000);
    assert.deepEqual(chat.texts(), ["hello"]);
    assert.deepEqual(world.server.names("lobby"), ["Josh"]);
  });
}

test("what the server refuses is rejected, and the next goes on", async () => {
  const world = new World();
  const chat = await joined(world);
  const long = chat.say("x".repeat(2000));
  const next = chat.say("next");
  await assert.rejects(world.brings(long), { name: "message_too_large", status: 413 });
  await world.brings(next);
  assert.deepEqual(world.server.texts("lobby"), ["next"]);
});

test("a message that never gets through is given up, and the next goes on", async () => {
  const world = new World();
  const chat = await joined(world);
  world.fate = ({ path, message }) => (path === "write" && message === "poison" ? "lost" : null);
  const poison = chat.say("poison");
  const next = chat.say("next");
  await assert.rejects(world.brings(poison), /Failed to fetch/);
  await world.brings(next);
  assert.deepEqual([world.server.texts("lobby"), world.asked("write").length], [["next"], 6]);
});

test("a whisper that may be lost is rejected, since nobody can tell", async () => {
  const world = new World();
  const eve = await joined(world, { name: "Eve" });
  const chat = await joined(world);
  once(world, "unanswered");
  await assert.rejects(world.brings(chat.whisper(eve.me, "psst")), /Failed to fetch/);
  assert.equal(world.asked("write").length, 1);
});

test("a rename goes on until it is known", async () => {
  const world = new World();
  const chat = await joined(world);
  let count = 2;
  world.fate = ({ path }) => (path === "introduce" && count-- > 0 ? "lost" : null);
  await world.brings(chat.rename("J."));
  await world.clock.pass(1000);
  assert.deepEqual([world.server.names("lobby"), chat.names()], [["J."], ["J."]]);
});

test("leave says goodbye, rejects what waits, and ends everything", async () => {
  const world = new World();
  const page = world.page();
  const chat = page.join("lobby", { name: "Josh" });
  const other = await joined(world, { name: "Eve" });
  await world.clock.until(connected(chat));
  world.cut();
  await world.clock.pass(10);
  const said = chat.say("too late");
  await world.clock.pass(700);
  const left = chat.leave();
  await assert.rejects(world.brings(said), /left/);
  await assert.rejects(world.brings(chat.say("after")), /left/);
  world.isUp = true;
  await world.brings(left);
  assert.equal(chat.state.state, "left");
  const count = world.requests.filter(({ page: by }) => by === page).length;
  await world.clock.pass(100_000);
  assert.equal(world.requests.filter(({ page: by }) => by === page).length, count);
  assert.deepEqual(other.names(), ["Eve"]);
  assert.ok(["online", "pagehide", "visibilitychange"].every((type) => !page.listens(type)));
});

test("leave rejects what may have arrived, too", async () => {
  const world = new World();
  const chat = await joined(world);
  world.fate = ({ path }) => (path === "write" ? "lost" : null);
  const said = chat.say("hello");
  await world.clock.pass(6);
  world.cut();
  await world.clock.pass(2000);
  chat.leave();
  await assert.rejects(world.brings(said), /left/);
});

test("leave ends the read of one who has no name, too", async () => {
  const world = new World();
  const chat = await joined(world, { name: "" });
  await world.clock.until(() => world.server.readers.size === 1);
  await world.brings(chat.leave());
  await world.clock.pass(100);
  assert.equal(world.server.readers.size, 0);
});

test("leave is a goodbye that the others see as such", async () => {
  const world = new World();
  const other = await joined(world, { name: "Eve" });
  const chat = await joined(world);
  await world.brings(chat.leave());
  await world.brings(chat.leave());
  await world.clock.pass(100);
  const { type, name, reason } = other.told.messages.at(-1);
  assert.deepEqual([type, name, reason, world.server.readers.size], ["goodbye", "Josh", "left", 1]);
  const count = chat.told.messages.length;
  world.server.write("lobby", "still there?");
  await world.clock.pass(60_000);
  assert.equal(chat.told.messages.length, count, "nothing is told after it");
});

test("a page that is left says goodbye, and one that was only put aside comes back", async () => {
  const world = new World();
  const other = await joined(world, { name: "Eve" });
  const page = world.page();
  const chat = page.join("lobby", { name: "Josh" });
  await world.clock.until(connected(chat));
  page.event("pagehide");
  await world.clock.pass(100);
  assert.deepEqual([other.told.messages.at(-1).type, other.names()], ["goodbye", ["Eve"]]);
  assert.deepEqual([world.asked("goodbye").length, world.asked("goodbye")[0].kind], [1, "beacon"]);
  world.server.write("lobby", "meanwhile");
  await world.clock.pass(60_000);
  assert.deepEqual([chat.texts(), world.server.readers.size], [[], 1]);

  page.event("pageshow");
  await world.clock.until(() => other.names().length === 2);
  await world.clock.pass(1000);
  assert.deepEqual([chat.texts(), chat.names()], [["meanwhile"], ["Eve", "Josh"]]);
});
