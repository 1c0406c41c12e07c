import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, Simulation } from "./simulation.mjs";

/** Opens `count` tabs with the same room and name, one after the other. */
async function tabs(sim, count, options) {
  const all = [];
  for (let i = 0; i < count; i++) {
    const page = sim.openPage();
    const chat = page.join("lobby", { name: "Josh", ...options });
    await sim.clock.until(connected(chat));
    all.push({ page, chat });
  }
  return all;
}

test("tabs share one read and one member, and all of them receive everything", async () => {
  const sim = new Simulation();
  sim.server.write("lobby", "old");
  const all = await tabs(sim, 4);
  for (const text of ["one", "two"]) {
    sim.server.write("lobby", text);
    await sim.clock.advance(100);
  }
  await sim.clock.advance(60_000);
  assert.deepEqual([sim.server.readers.size, sim.server.names("lobby")], [1, ["Josh"]]);
  for (const { chat } of all) {
    assert.deepEqual(
      [chat.texts(), chat.names(), chat.me?.own],
      [["old", "one", "two"], ["Josh"], true],
    );
  }
});

test("tabs that open at the same time share one read and one member", async () => {
  const sim = new Simulation();
  const chats = [1, 2, 3].map(() => sim.openPage().join("lobby", { name: "Josh" }));
  await sim.clock.until(() => chats.every((chat) => connected(chat)()));
  await sim.clock.advance(1000);
  assert.deepEqual([sim.server.readers.size, sim.server.connectionCount], [1, 1]);
  const inboxes = new Set(chats.map(({ me }) => me.inbox));
  assert.equal(inboxes.size, 1);
});

test("any tab sends for the member, and receives its whispers", async () => {
  const sim = new Simulation();
  const eve = sim.openPage().join("lobby", { name: "Eve" });
  const [first, second] = await tabs(sim, 2);
  await sim.waitFor(second.chat.say("from the second"));
  await sim.clock.until(() => eve.names().length === 2);
  await sim.waitFor(eve.whisper(eve.members[1], "psst"));
  await sim.clock.advance(100);
  for (const { chat } of [first, second]) {
    const received = chat.received.messages
      .slice(-2)
      .map(({ name, text, own, whisper }) => [name, text, own, whisper]);
    assert.deepEqual(received, [
      ["Josh", "from the second", true, false],
      ["Eve", "psst", false, true],
    ]);
  }
  const heard = eve.received.messages.find(({ text }) => text === "from the second");
  assert.deepEqual([heard.from, heard.own], [eve.members[1].connection, false]);
});

test("a tab that does not read also finds out about a lost response", async () => {
  for (const fault of ["request lost", "response lost"]) {
    const sim = new Simulation();
    const [first, second] = await tabs(sim, 2);
    let count = 1;
    sim.fault = ({ path }) => (path === "write" && count-- > 0 ? fault : null);
    await sim.waitFor(second.chat.say("hello"));
    await sim.clock.advance(1000);
    assert.deepEqual(
      [sim.server.texts("lobby"), first.chat.texts(), second.chat.texts()],
      [["hello"], ["hello"], ["hello"]],
    );
  }
});

for (const ending of ["close", "crash"]) {
  test(`when the tab that reads ends (${ending}), another one takes over`, async () => {
    const sim = new Simulation();
    const [first, second, third] = await tabs(sim, 3);
    sim.server.write("lobby", "before");
    await sim.clock.advance(100);
    first.page[ending]();
    const sent = second.chat.say("we are still here");
    await sim.clock.advance(100);
    sim.server.write("lobby", "after");
    await sim.waitFor(sent);
    await sim.clock.advance(1000);
    assert.deepEqual([sim.server.readers.size, sim.server.names("lobby")], [1, ["Josh"]]);
    for (const { chat } of [second, third]) {
      assert.deepEqual([...chat.texts()].sort(), ["after", "before", "we are still here"]);
      assert.deepEqual([chat.names(), chat.received.missed], [["Josh"], 0]);
      assert.ok(
        chat.received.messages.filter(({ from }) => from).every(({ own }) => own),
        "its messages are its own",
      );
    }
    assert.deepEqual(
      [sim.requestsTo("goodbye").length, sim.server.connectionCount],
      [0, 1],
      "the member stays",
    );
  });
}

test("a tab that does not read says no goodbye", async () => {
  const sim = new Simulation();
  const [first, second, third] = await tabs(sim, 3);
  second.page.close();
  await sim.waitFor(third.chat.leave());
  sim.server.write("lobby", "hello");
  await sim.clock.advance(1000);
  assert.deepEqual(
    [sim.requestsTo("goodbye").length, sim.server.names("lobby"), first.chat.texts()],
    [0, ["Josh"], ["hello"]],
  );
});

test("after a restart all tabs continue, and none receives a message twice", async () => {
  const sim = new Simulation();
  const all = await tabs(sim, 3);
  sim.server.write("lobby", "before");
  await sim.clock.advance(100);
  sim.server.restart();
  sim.server.write("lobby", "after");
  await sim.clock.until(() => all.every(({ chat }) => chat.texts().length > 1));
  await sim.clock.advance(5000);
  for (const { chat } of all) {
    assert.deepEqual([chat.texts(), chat.names()], [["before", "after"], ["Josh"]]);
  }
  assert.equal(sim.server.connectionCount, 1);
});

test("a loss is reported in all tabs", async () => {
  const sim = new Simulation({ history: 5 });
  const all = await tabs(sim, 2);
  sim.disconnect();
  await sim.clock.advance(100);
  for (let i = 0; i < 20; i++) sim.server.write("lobby", `${i}`);
  sim.isOnline = true;
  await sim.clock.until(() => all.every(({ chat }) => chat.texts().includes("19")));
  await sim.clock.advance(5000);
  for (const { chat } of all) {
    assert.deepEqual(
      [chat.received.missed, chat.texts(), chat.names()],
      [1, ["15", "16", "17", "18", "19"], ["Josh"]],
    );
  }
});

test("all tabs know that the server is unreachable, and their messages arrive later", async () => {
  const sim = new Simulation();
  const all = await tabs(sim, 2);
  sim.disconnect();
  await sim.clock.until(() => all.every(({ chat }) => chat.state.state === "waiting"));
  const sent = all.map(({ chat }, i) => chat.say(`${i}`));
  await sim.clock.advance(20_000);
  sim.isOnline = true;
  await sim.waitFor(Promise.all(sent));
  await sim.clock.advance(1000);
  for (const { chat } of all) {
    assert.deepEqual(
      [chat.state.state, [...chat.texts()].sort(), chat.names()],
      ["connected", ["0", "1"], ["Josh"]],
    );
  }
});

test("a tab that gets no broadcasts finds the gap with the next one", async () => {
  const sim = new Simulation();
  const eve = sim.openPage().join("lobby", { name: "Eve" });
  const [, second] = await tabs(sim, 2);
  await sim.clock.until(() => eve.names().length === 2);
  sim.dropsBroadcasts = true;
  await sim.waitFor(eve.say("unheard"));
  await sim.waitFor(eve.whisper(eve.members[1], "psst"));
  await sim.clock.advance(1000);
  assert.deepEqual(second.chat.texts(), []);
  sim.dropsBroadcasts = false;
  sim.server.write("lobby", "heard");
  await sim.clock.advance(1000);
  assert.deepEqual([...second.chat.texts()].sort(), ["heard", "psst", "unheard"]);
});

test("a rename in one tab holds in all, also after the tab that reads has closed", async () => {
  const sim = new Simulation();
  const [first, second] = await tabs(sim, 2);
  await sim.waitFor(second.chat.rename("J."));
  await sim.clock.advance(100);
  assert.deepEqual([first.chat.names(), second.chat.names()], [["J."], ["J."]]);
  sim.server.restart();
  await sim.clock.until(() => sim.server.names("lobby").length > 0);
  assert.deepEqual(sim.server.names("lobby"), ["J."]);
  await sim.clock.advance(1000);
  first.page.close();
  await sim.clock.advance(5000);
  assert.deepEqual([sim.server.names("lobby"), sim.server.readers.size], [["J."], 1]);
});

test("a tab that becomes visible wakes the tab that reads", async () => {
  const sim = new Simulation();
  const [first, second] = await tabs(sim, 2);
  sim.disconnect();
  await sim.clock.advance(100_000);
  await sim.clock.until(
    () => first.chat.state.state === "waiting" && first.chat.state.retryIn > 20_000,
  );
  await sim.clock.advance(100);
  sim.isOnline = true;
  const { now } = sim.clock;
  second.page.dispatch("visibilitychange");
  await sim.clock.until(connected(first.chat));
  assert.ok(sim.clock.now - now < 1000);
});

test("a tab that is shown finds out that the line of the tab that reads has died", async () => {
  const sim = new Simulation();
  const all = [1, 2].map(() => sim.openPage({ streams: ["websocket"] }));
  const chats = all.map((page) => page.join("lobby", { name: "Josh" }));
  await sim.clock.until(() => chats.every((chat) => connected(chat)()));
  await sim.clock.advance(30_000);
  sim.changeNetwork(all[0]);
  await all[1].hideFor(6000);
  await sim.clock.advance(100);
  sim.server.write("lobby", "hello");
  await sim.clock.advance(100);
  for (const chat of chats) assert.deepEqual(chat.texts(), ["hello"]);
});

test("tabs with another name, another room or share: false read for themselves", async () => {
  const sim = new Simulation();
  await tabs(sim, 1);
  await tabs(sim, 1, { name: "Eve" });
  await tabs(sim, 2, { share: false });
  await tabs(sim, 1, { name: undefined });
  await sim.clock.advance(1000);
  assert.equal(sim.server.readers.size, 5);
  assert.equal(sim.server.names("lobby").length, 4);
});

test("without locks each tab reads for itself", async () => {
  const sim = new Simulation();
  const chats = [1, 2].map(() =>
    sim.openPage({ without: ["locks"] }).join("lobby", { name: "Josh" }),
  );
  await sim.clock.until(() => chats.every((chat) => connected(chat)()));
  await sim.clock.advance(1000);
  assert.equal(sim.server.readers.size, 2);
});

test("if locks are refused, as in a sandbox, a page reads for itself", async () => {
  const sim = new Simulation();
  const page = sim.openPage();
  page.globals.navigator.locks.request = async () => {
    throw new Error("SecurityError");
  };
  const chat = page.join("lobby", { name: "Josh" });
  await sim.clock.until(connected(chat));
  assert.equal(chat.me.name, "Josh");
});

/** Returns the introductions and goodbyes that a chat has received from other members, in order. */
const comings = (chat) =>
  chat.received.messages
    .filter(({ type, own }) => type !== "message" && !own)
    .map(({ type, name }) => `${type} ${name}`);

for (const transport of ["websocket", "eventsource", "fetch", "jsonp"]) {
  const streams = ["websocket", "eventsource"];

  test(`${transport}: no other member notices a reload, in one tab or in one of several`, async () => {
    for (const [count, reloaded] of [
      [1, 0],
      [3, 0],
      [3, 2],
    ]) {
      const sim = new Simulation();
      const eve = sim.openPage().join("lobby", { name: "Eve" });
      const all = [];
      for (let i = 0; i < count; i++) all.push(sim.openPage({ streams }));
      for (const page of all)
        await sim.clock.until(connected(page.join("lobby", { name: "Josh", transport })));
      await sim.clock.advance(1000);
      for (let i = 0; i < 3; i++) {
        all[reloaded] = all[reloaded].reload();
        await sim.clock.advance(1000); // the page loads
        const chat = all[reloaded].join("lobby", { name: "Josh", transport });
        await sim.clock.until(connected(chat));
        await sim.waitFor(eve.whisper(eve.members[1], `psst ${i}`));
        await sim.waitFor(chat.say(`back ${i}`));
        await sim.clock.advance(4000);
        assert.deepEqual(chat.texts().slice(-2), [`psst ${i}`, `back ${i}`]);
        assert.deepEqual([chat.names(), chat.me.connection], [["Eve", "Josh"], 2]);
      }
      assert.deepEqual(comings(eve), ["introduction Josh"]);
      assert.deepEqual(
        [sim.server.connectionCount, sim.requestsTo("goodbye").length],
        [2, 0],
      );
    }
  });

  test(`${transport}: when the last tab closes, the member is gone within four seconds`, async () => {
    for (const ending of ["close", "crash"]) {
      const sim = new Simulation();
      const eve = sim.openPage().join("lobby", { name: "Eve" });
      const pages = [1, 2].map(() => sim.openPage({ streams }));
      for (const page of pages)
        await sim.clock.until(connected(page.join("lobby", { name: "Josh", transport })));
      await sim.clock.advance(1000);
      pages[0][ending]();
      await sim.clock.advance(10_000);
      assert.deepEqual(comings(eve), ["introduction Josh"], "another tab keeps the member");
      pages[1][ending]();
      await sim.clock.advance(4000);
      assert.deepEqual(comings(eve), ["introduction Josh", "goodbye Josh"]);
      assert.equal(eve.received.messages.at(-1).reason, "closed");
    }
  });
}

for (const [what, options] of [
  ["that share a member", {}],
  ["with share: false", { share: false }],
  ["without locks", { without: ["locks"] }],
]) {
  test(`a tab and its copy (tabs ${what}) never fight over a connection`, async () => {
    const sim = new Simulation();
    const eve = sim.openPage().join("lobby", { name: "Eve" });
    const join = (page) => page.join("lobby", { name: "Josh", ...options });
    let page = sim.openPage(options);
    join(page);
    await sim.clock.advance(1000);
    page = page.reload();
    join(page);
    await sim.clock.advance(1000);
    const copy = page.duplicate();
    const chats = [join(copy)];
    await sim.clock.advance(1000);
    page = page.reload();
    chats.push(join(page));
    await sim.clock.advance(10_000);
    const { length } = sim.requests;
    await sim.clock.advance(60_000);
    assert.ok(sim.requests.length - length < 20, `${sim.requests.length - length} requests`);
    const isShared = what === "that share a member";
    const introductions = Array(isShared ? 1 : 2).fill("introduction Josh");
    assert.deepEqual(comings(eve), introductions);
    assert.equal(new Set(chats.map(({ me }) => me.connection)).size, introductions.length);
    await sim.waitFor(eve.say("hello"));
    await sim.clock.advance(100);
    for (const chat of chats) assert.deepEqual(chat.texts(), ["hello"]);
  });
}

for (const next of ["Josh", "J."]) {
  test(`a renamed member survives a reload, if the page joins as ${next}`, async () => {
    for (const count of [1, 2]) {
      const sim = new Simulation();
      const eve = sim.openPage().join("lobby", { name: "Eve" });
      const [first, second] = await tabs(sim, count);
      await sim.waitFor(first.chat.rename("J."));
      await sim.clock.advance(1000);
      const chat = first.page.reload().join("lobby", { name: next });
      await sim.clock.until(connected(chat));
      await sim.clock.advance(1000);
      const { length } = sim.requests;
      await sim.clock.advance(5000);
      assert.equal(sim.requests.length, length, "the tabs do not fight over the connection");
      second?.page.close();
      await sim.waitFor(chat.say("still J."));
      await sim.clock.advance(5000);
      assert.deepEqual(comings(eve), ["introduction Josh", "introduction J."]);
      assert.deepEqual([chat.names(), sim.server.readers.size], [["Eve", "J."], 2]);
    }
  });
}

test("a page that joins as another, or without a name, leaves the kept member alone", async () => {
  for (const name of ["Mia", ""]) {
    const sim = new Simulation();
    const eve = sim.openPage().join("lobby", { name: "Eve" });
    const [{ page }] = await tabs(sim, 1);
    const next = page.reload();
    const chat = next.join("lobby", { name });
    await sim.clock.until(connected(chat));
    await sim.waitFor(chat.say("it is me"));
    await sim.clock.advance(5000);
    const { name: author } = eve.received.messages.find(({ text }) => text === "it is me");
    assert.equal(author, name || undefined);
    assert.equal(comings(eve).at(-1), "goodbye Josh");
  }
});

test("after a reload that takes longer than the grace, or a restart, the page joins again", async () => {
  for (const isRestarted of [false, true]) {
    const sim = new Simulation();
    const [{ page }] = await tabs(sim, 1);
    const next = page.reload();
    if (isRestarted) {
      sim.server.restart();
      sim.server.introduce("lobby", "Eve"); // now has the number of the kept connection
    } else await sim.clock.advance(10_000);
    const chat = next.join("lobby", { name: "Josh" });
    await sim.clock.until(connected(chat));
    await sim.waitFor(chat.say("back"));
    await sim.clock.advance(100);
    assert.deepEqual([chat.me.name, chat.me.connection, chat.texts()], ["Josh", 2, ["back"]]);
    assert.ok(chat.received.messages.find(({ text }) => text === "back").own);
  }
});

test("a page that has left does not come back by a reload", async () => {
  const sim = new Simulation();
  const [{ page, chat }] = await tabs(sim, 1);
  await sim.waitFor(chat.leave());
  const again = page.reload().join("lobby", { name: "Josh" });
  await sim.clock.until(connected(again));
  assert.equal(again.me.connection, 2);
});
