import assert from "node:assert/strict";
import { test } from "node:test";
import { refuse } from "./fake_server.mjs";
import { connected, Simulation } from "./simulation.mjs";

async function joined(sim, options) {
  const chat = sim.openPage().join("lobby", { name: "Josh", ...options });
  await sim.clock.until(connected(chat));
  return chat;
}

/** Gives the next `count` writes the fault. All other requests have none. */
function once(sim, fault, count = 1) {
  sim.fault = ({ path }) => (path === "write" && count-- > 0 ? fault : null);
}

test("messages are sent in order, one at a time, and say() resolves with the id", async () => {
  const sim = new Simulation();
  const chat = sim.openPage().join("lobby", { name: "Josh" });
  // The first call is made before the introduction.
  const sent = ["one", "two", "three"].map((text) => chat.say(text));
  const ids = (await sim.waitFor(Promise.all(sent))).map(({ id }) => id);
  await sim.clock.advance(100);
  assert.deepEqual(
    [ids, chat.texts()],
    [
      [2, 3, 4],
      ["one", "two", "three"],
    ],
  );
  const times = sim.requestsTo("write").map(({ at }) => at);
  assert.ok(
    times[1] >= times[0] + 10 && times[2] >= times[1] + 10,
    "each waits for the response to the one before",
  );
});

test("a message whose response was lost is not sent again", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  once(sim, "response lost");
  const { id } = await sim.waitFor(chat.say("hello"));
  await sim.clock.advance(1000);
  assert.deepEqual([id, sim.server.texts("lobby"), chat.texts()], [2, ["hello"], ["hello"]]);
});

for (const isWritten of [true, false]) {
  test(`after an unknown outcome the channel is read, and the message arrives once (written: ${isWritten})`, async () => {
    const sim = new Simulation();
    const chat = await joined(sim);
    let count = 1;
    const { on_write } = sim.server;
    sim.server.on_write = (values, reply) => {
      if (count-- <= 0) return on_write.call(sim.server, values, reply);
      if (isWritten) on_write.call(sim.server, values, () => {});
      refuse("outcome_unknown", 503);
    };
    const { id } = await sim.waitFor(chat.say("howdy"));
    await sim.clock.advance(5000);
    assert.deepEqual(chat.texts(), ["howdy"]);
    assert.equal(id, chat.received.messages.at(-1).id);
    assert.equal(sim.requestsTo("write").length, isWritten ? 1 : 2);
  });
}

test("a message that was lost is sent again at once", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  once(sim, "request lost");
  const { now } = sim.clock;
  const { id } = await sim.waitFor(chat.say("hello"));
  assert.ok(sim.clock.now - now < 1000, "the client does not wait for the long poll");
  await sim.clock.advance(1000);
  assert.deepEqual([id, sim.server.texts("lobby"), chat.texts()], [2, ["hello"], ["hello"]]);
});

test("an earlier message with the same text is not mistaken for a lost one", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  let count = 0;
  sim.fault = ({ path }) => (path === "write" && ++count === 2 ? "request lost" : null);
  // The second message is under way when the client reads the first.
  await sim.waitFor(Promise.all([chat.say("hello"), chat.say("hello")]));
  await sim.clock.advance(1000);
  assert.deepEqual(
    [sim.server.texts("lobby"), chat.texts()],
    [
      ["hello", "hello"],
      ["hello", "hello"],
    ],
  );
});

test("the same text by another member is not mistaken for the client's own", async () => {
  const sim = new Simulation();
  const eve = sim.server.introduce("lobby", "Eve");
  const chat = await joined(sim);
  sim.fault = ({ path }) => {
    if (path !== "write") return null;
    sim.server.write("lobby", "hello", eve);
    sim.fault = () => null;
    return "request lost";
  };
  await sim.waitFor(chat.say("hello"));
  await sim.clock.advance(1000);
  assert.deepEqual(
    chat.received.messages.slice(-2).map(({ text, own }) => [text, own]),
    [
      ["hello", false],
      ["hello", true],
    ],
  );
});

test("text that is not well-formed Unicode is recognized as the server returns it", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  once(sim, "response lost");
  await sim.waitFor(chat.say("a\ud800b"));
  await sim.clock.advance(1000);
  assert.deepEqual(sim.server.texts("lobby"), ["a\ufffdb"]);
});

for (const fault of ["request lost", "response lost"]) {
  test(`the network fails while a client sends (${fault}): each message arrives once, in order`, async () => {
    const sim = new Simulation();
    const chat = await joined(sim);
    sim.fault = ({ path }) => {
      if (path !== "write") return null;
      sim.clock.setTimeout(() => sim.disconnect(), 6);
      sim.fault = () => null;
      return fault;
    };
    const sent = ["one", "two"].map((text) => chat.say(text));
    await sim.clock.advance(7000);
    sim.isOnline = true;
    await sim.waitFor(Promise.all(sent));
    await sim.clock.advance(1000);
    assert.deepEqual(
      [sim.server.texts("lobby"), chat.texts()],
      [
        ["one", "two"],
        ["one", "two"],
      ],
    );
  });

  test(`a message without a sender arrives once (${fault})`, async () => {
    const sim = new Simulation();
    const chat = await joined(sim, { name: "" });
    once(sim, fault);
    await sim.waitFor(chat.say("boo"));
    await sim.clock.advance(1000);
    assert.deepEqual(sim.server.texts("lobby"), ["boo"]);
  });
}

for (const fault of ["request lost", "response lost"]) {
  test(`the server restarts while a client sends (${fault}): the message arrives once`, async () => {
    const sim = new Simulation();
    const chat = await joined(sim);
    sim.fault = ({ path }) => {
      if (path !== "write") return null;
      sim.clock.setTimeout(() => sim.server.restart(), 6);
      sim.fault = () => null;
      return fault;
    };
    await sim.waitFor(chat.say("hello"));
    await sim.clock.advance(3000);
    assert.deepEqual(chat.texts(), ["hello"]);
    assert.deepEqual(sim.server.names("lobby"), ["Josh"]);
  });
}

test("a message that the server refuses is rejected, and the next one is sent", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  const long = chat.say("x".repeat(2000));
  const next = chat.say("next");
  await assert.rejects(sim.waitFor(long), { name: "message_too_large", status: 413 });
  await sim.waitFor(next);
  assert.deepEqual(sim.server.texts("lobby"), ["next"]);
});

test("a name that is too long is rejected, and the old one stays", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  const error = { name: "message_too_large", status: 413, message: "refused: message_too_large" };
  await assert.rejects(sim.waitFor(chat.rename("x".repeat(1024))), error);
  await sim.waitFor(chat.say("next"));
  await sim.clock.advance(100);
  assert.deepEqual([chat.names(), sim.server.texts("lobby")], [["Josh"], ["next"]]);
});

test("a message that never gets through is rejected, and the next one is sent", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  sim.fault = ({ path, message }) =>
    path === "write" && message === "poison" ? "request lost" : null;
  const poison = chat.say("poison");
  const next = chat.say("next");
  await assert.rejects(sim.waitFor(poison), /Failed to fetch/);
  await sim.waitFor(next);
  assert.deepEqual([sim.server.texts("lobby"), sim.requestsTo("write").length], [["next"], 6]);
});

test("say() returns a state: a text is sent, or fails and is sent again", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  const states = [];
  const watch = (sending) => {
    const note = () => states.push(`${sending.text} ${sending.state}`);
    note();
    sending.then(note, note);
    return sending;
  };
  await sim.waitFor(watch(chat.say("fine")));
  assert.equal(chat.say("\ud800").text, "\ufffd", "as the room receives it");
  sim.fault = ({ path, message }) =>
    path === "write" && message === "poison" ? "request lost" : null;
  const failed = watch(chat.say("poison"));
  await assert.rejects(sim.waitFor(failed));
  await sim.waitFor(chat.say("next"));
  sim.fault = () => null;
  const again = watch(failed.again());
  assert.notEqual(again, failed);
  assert.equal(again.again(), again, "no second one is under way");
  const { id } = await sim.waitFor(again);
  assert.deepEqual(
    [again.again(), sim.server.texts("lobby"), failed.state],
    [again, ["fine", "\ufffd", "next", "poison"], "failed"],
  );
  assert.equal((await again.again()).id, id);
  assert.deepEqual(states, [
    ...["fine sending", "fine sent", "poison sending"],
    ...["poison failed", "poison sending", "poison sent"],
  ]);
});

test("a text whose last attempt arrived has not failed", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  let count = 0;
  sim.fault = ({ path }) =>
    path !== "write" ? null : ++count < 5 ? "request lost" : count === 5 ? "response lost" : null;
  const sending = chat.say("hello");
  const next = chat.say("next");
  await sim.waitFor(sending);
  await sim.waitFor(next);
  assert.deepEqual([sending.state, sim.server.texts("lobby")], ["sent", ["hello", "next"]]);
});

for (const isEarly of [true, false]) {
  test(`a signal that is aborted ${isEarly ? "before" : "after"} the page joins leaves the room`, async () => {
    const sim = new Simulation();
    const eve = await joined(sim, { name: "Eve" });
    const controller = new AbortController();
    if (isEarly) controller.abort();
    const { signal } = controller;
    const chat = sim.openPage().join("lobby", { name: "Josh", signal });
    await sim.clock.advance(1000);
    assert.deepEqual(eve.names(), isEarly ? ["Eve"] : ["Eve", "Josh"]);
    controller.abort();
    await sim.clock.advance(100);
    assert.deepEqual([chat.state.state, eve.names()], ["left", ["Eve"]]);
  });
}

test("a whisper that may be lost is rejected, since no read can find out", async () => {
  const sim = new Simulation();
  const eve = await joined(sim, { name: "Eve" });
  const chat = await joined(sim);
  once(sim, "response lost");
  await assert.rejects(sim.waitFor(chat.whisper(eve.me, "psst")), /Failed to fetch/);
  assert.equal(sim.requestsTo("write").length, 1);
});

test("a rename is repeated until the server has answered", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  let count = 2;
  sim.fault = ({ path }) => (path === "introduce" && count-- > 0 ? "request lost" : null);
  await sim.waitFor(chat.rename("J."));
  await sim.clock.advance(1000);
  assert.deepEqual([sim.server.names("lobby"), chat.names()], [["J."], ["J."]]);
});

test("leave says goodbye, rejects what waits, and ends everything", async () => {
  const sim = new Simulation();
  const page = sim.openPage();
  const chat = page.join("lobby", { name: "Josh" });
  const other = await joined(sim, { name: "Eve" });
  await sim.clock.until(connected(chat));
  sim.disconnect();
  await sim.clock.advance(10);
  const sent = chat.say("too late");
  await sim.clock.advance(700);
  const left = chat.leave();
  await assert.rejects(sim.waitFor(sent), /left/);
  await assert.rejects(sim.waitFor(chat.say("after")), /left/);
  sim.isOnline = true;
  await sim.waitFor(left);
  assert.equal(chat.state.state, "left");
  const count = sim.requests.filter(({ page: by }) => by === page).length;
  await sim.clock.advance(100_000);
  assert.equal(sim.requests.filter(({ page: by }) => by === page).length, count);
  assert.deepEqual(other.names(), ["Eve"]);
  assert.ok(["online", "pagehide", "visibilitychange"].every((type) => !page.hasListener(type)));
});

test("leave also rejects a message that may have arrived", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  sim.fault = ({ path }) => (path === "write" ? "request lost" : null);
  const sent = chat.say("hello");
  await sim.clock.advance(6);
  sim.disconnect();
  await sim.clock.advance(2000);
  chat.leave();
  await assert.rejects(sim.waitFor(sent), /left/);
});

test("leave also ends the read of a client without a name", async () => {
  const sim = new Simulation();
  const chat = await joined(sim, { name: "" });
  await sim.clock.until(() => sim.server.readers.size === 1);
  await sim.waitFor(chat.leave());
  await sim.clock.advance(100);
  assert.equal(sim.server.readers.size, 0);
});

test("the other members see a leave as a goodbye", async () => {
  const sim = new Simulation();
  const other = await joined(sim, { name: "Eve" });
  const chat = await joined(sim);
  await sim.waitFor(chat.leave());
  await sim.waitFor(chat.leave());
  await sim.clock.advance(100);
  const { type, name, reason } = other.received.messages.at(-1);
  assert.deepEqual([type, name, reason, sim.server.readers.size], ["goodbye", "Josh", "left", 1]);
  const count = chat.received.messages.length;
  sim.server.write("lobby", "still there?");
  await sim.clock.advance(60_000);
  assert.equal(chat.received.messages.length, count, "no event after leave()");
});

test("a goodbye is sent so that it outlives the page", async () => {
  const sim = new Simulation();
  const other = await joined(sim, { name: "Eve" });
  const page = sim.openPage();
  const chat = page.join("lobby", { name: "Josh" });
  await sim.clock.until(connected(chat));
  chat.leave();
  page.close();
  await sim.clock.advance(100);
  const { type, reason } = other.received.messages.at(-1);
  assert.deepEqual([type, reason], ["goodbye", "left"]);
});

test("a page that is left for a moment keeps its member, and one that is left for longer joins again", async () => {
  const sim = new Simulation();
  const other = await joined(sim, { name: "Eve" });
  const page = sim.openPage();
  const chat = page.join("lobby", { name: "Josh" });
  await sim.clock.until(connected(chat));
  page.dispatch("pagehide");
  await sim.clock.advance(1500);
  page.dispatch("pageshow");
  await sim.clock.advance(10_000);
  assert.deepEqual(
    [other.received.messages.at(-1).type, sim.server.connectionCount],
    ["introduction", 2],
  );

  page.dispatch("pagehide");
  await sim.clock.advance(3000);
  assert.deepEqual([other.received.messages.at(-1).type, other.names()], ["goodbye", ["Eve"]]);
  assert.equal(sim.requestsTo("goodbye").length, 0);
  sim.server.write("lobby", "meanwhile");
  await sim.clock.advance(60_000);
  assert.deepEqual([chat.texts(), sim.server.readers.size], [[], 1]);

  page.dispatch("pageshow");
  await sim.clock.until(() => other.names().length === 2);
  await sim.clock.advance(1000);
  assert.deepEqual([chat.texts(), chat.names()], [["meanwhile"], ["Eve", "Josh"]]);
});

const BUSY = { too_many_requests: 429, over_capacity: 503, request_timeout: 408 };
for (const [error, status] of Object.entries(BUSY)) {
  test(`a text that the server refuses for now (${error}) waits as long as it says, and arrives once`, async () => {
    for (const [fields, transport, ms] of [
      [{ "Retry-After": "7" }, "fetch", 7000],
      [{}, "fetch", 1000],
      [{ "Retry-After": "soon" }, "fetch", 1000],
      [{ "Retry-After": "7" }, "jsonp", 1000], // a script does not see the head
    ]) {
      const sim = new Simulation();
      const eve = await joined(sim, { name: "Eve" });
      const chat = await joined(sim, { transport });
      let count = 2;
      const { on_write } = sim.server;
      sim.server.on_write = (...values) => {
        if (count-- > 0) refuse(error, status, fields);
        on_write.apply(sim.server, values);
      };
      const sent = Promise.all([chat.say("one"), chat.whisper(eve.me, "psst"), chat.say("two")]);
      await sim.waitFor(sent);
      await sim.clock.advance(1000);
      for (const { texts } of [chat, eve]) assert.deepEqual(texts(), ["one", "psst", "two"]);
      const times = sim.requestsTo("write").map(({ at }) => at);
      assert.deepEqual(
        [times[1] - times[0], times[2] - times[1]].map((pause) => Math.round(pause / 100) * 100),
        [ms, ms],
      );
      assert.ok(times[4] - times[2] < 100, "no pause without a refusal");
    }
  });
}

test("a rename that the server refuses for now is made later", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  let count = 1;
  const { on_introduce } = sim.server;
  sim.server.on_introduce = (...values) => {
    if (count-- > 0) refuse("too_many_requests", 429, { "Retry-After": "2" });
    on_introduce.apply(sim.server, values);
  };
  await sim.waitFor(chat.rename("J."));
  assert.deepEqual(sim.server.names("lobby"), ["J."]);
});

test("leave rejects a text that waits for Retry-After at once", async () => {
  const sim = new Simulation();
  const chat = await joined(sim);
  sim.server.on_write = () => refuse("too_many_requests", 429, { "Retry-After": "3600" });
  const sent = chat.say("too much");
  await sim.clock.advance(100);
  const { now } = sim.clock;
  chat.leave();
  await assert.rejects(sim.waitFor(sent), /left/);
  assert.ok(sim.clock.now - now < 100);
});
