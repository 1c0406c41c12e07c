import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openEnvironment, startServer, TRANSPORTS, until } from "./environment.mjs";

let server, environment;
before(async () => ([server, environment] = await Promise.all([startServer(), openEnvironment()])));
after(() => Promise.all([server?.stop(), environment?.close()]));

for (const transport of TRANSPORTS) {
  test(`two pages of another origin join, talk, whisper, rename and leave (${transport})`, async () => {
    const room = `talk ${transport}`;
    const profiles = [await environment.openProfile(), await environment.openProfile()];
    const ada = await profiles[0].openTab(server.endpoints, room, { name: "Ada", transport });
    await ada.waitForMembers("Ada");
    const bob = await profiles[1].openTab(server.endpoints, room, { name: "Bob", transport });
    await Promise.all([ada.waitForMembers("Ada", "Bob"), bob.waitForMembers("Ada", "Bob")]);

    const strange = 'howdy <b>&amp;</b> "quotes" +1 %41 \u2028 ✓ 𝄞';
    await ada.say(strange);
    await bob.say("hello");
    await Promise.all(
      [ada, bob].flatMap((tab) => [tab.waitForText(strange), tab.waitForText("hello")]),
    );

    await ada.run(() =>
      window.chat.whisper(
        window.chat.members.find(({ name }) => name === "Bob"),
        "psst",
      ),
    );
    await bob.waitForText("psst");
    await bob.run(() => window.chat.rename("Robert"));
    await Promise.all([ada.waitForMembers("Ada", "Robert"), bob.waitForMembers("Ada", "Robert")]);

    const summary = async (tab) =>
      (await tab.messages()).map(({ type, name, text, own, whisper }) => [
        type,
        name,
        text,
        own,
        whisper,
      ]);
    assert.deepEqual(await summary(bob), [
      ["introduction", "Ada", "Ada", false, false],
      ["introduction", "Bob", "Bob", true, false],
      ["message", "Ada", strange, false, false],
      ["message", "Bob", "hello", true, false],
      ["message", "Ada", "psst", false, true],
      ["introduction", "Robert", "Robert", true, false],
    ]);
    assert.ok(
      (await server.messages(room)).every(({ message }) => message !== "psst"),
      "the whisper is not in the room",
    );

    await bob.run(() => window.chat.leave());
    assert.equal((await ada.waitForGoodbye("Robert")).reason, "left");
    await ada.waitForMembers("Ada");
    assert.equal((await ada.state()).transport, transport);
    assert.deepEqual(
      profiles.map(({ errors }) => errors),
      [[], []],
    );
    await Promise.all(profiles.map((profile) => profile.close()));
  });
}

test("a page that joins late sees all members, also if their introduction is not retained", async () => {
  const small = await startServer({ options: ["--history", "5"] });
  const profile = await environment.openProfile();
  const ada = await profile.openTab(small.endpoints, "late", { name: "Ada" });
  await ada.waitForMembers("Ada");
  for (let i = 0; i < 10; i++) await ada.say(`${i}`);
  const other = await environment.openProfile();
  const bob = await other.openTab(small.endpoints, "late", { name: "Bob" });
  await bob.waitForMembers("Ada", "Bob");
  assert.deepEqual(await bob.texts(), ["6", "7", "8", "9"]);
  await bob.run(() => window.chat.whisper(1, "found you"));
  await ada.waitForText("found you");
  await Promise.all([profile.close(), other.close(), small.stop()]);
});

test("the client can be loaded as a module", async () => {
  const profile = await environment.openProfile();
  const ada = await profile.openTab(server.endpoints, "module", { name: "Ada" }, "&module");
  await ada.waitForMembers("Ada");
  assert.equal(await ada.run(() => window.Speak.server), server.endpoints[0]);
  assert.deepEqual(profile.errors, []);
  await profile.close();
});

for (const transport of TRANSPORTS) {
  test(`a name that the server finds too long is an error (${transport})`, async () => {
    const room = `names ${transport}`;
    const profile = await environment.openProfile();
    // The introduction also has a line feed and the 24 bytes of the inbox: 1,024 bytes in all.
    const longest = "x".repeat(999);
    const ada = await profile.openTab(server.endpoints, room, { name: longest, transport });
    await ada.waitForMembers(longest);
    const renamed = await ada.run(() =>
      window.chat.rename("y".repeat(1000)).catch(({ name, message }) => [name, message]),
    );
    const detail = "the introduction is larger than this server accepts; use a shorter name";
    assert.deepEqual(renamed, ["message_too_large", detail]);
    assert.deepEqual(await ada.names(), [longest]);

    const bob = await profile.openTab(server.endpoints, room, { name: `${longest}y`, transport });
    await until(async () => (await bob.state()).state === "left", "the page is refused");
    assert.equal((await bob.state()).error, detail);
    assert.deepEqual(await bob.run(() => window.received.errors), ["message_too_large"]);
    await profile.close();
  });

  test(`no other member notices a reload, or that one of several tabs closes (${transport})`, async () => {
    const own = await startServer();
    const profiles = [await environment.openProfile(), await environment.openProfile()];
    const ada = await profiles[0].openTab(own.endpoints, "reload", { name: "Ada", transport });
    await ada.waitForMembers("Ada");
    const open = () => profiles[1].openTab(own.endpoints, "reload", { name: "Bob", transport });
    const bobs = [await open()];
    const check = async (bob, text) => {
      await bob.waitForMembers("Ada", "Bob");
      await bob.waitForState("connected");
      await ada.waitForMembers("Ada", "Bob");
      await ada.run((text) => window.chat.whisper(2, text), `psst ${text}`);
      await bob.waitForText(`psst ${text}`);
      await bob.say(text);
      await ada.waitForText(text);
    };
    await check(bobs[0], "new");
    await bobs[0].reload();
    await check(bobs[0], "the only tab was reloaded");
    bobs.push(await open());
    await check(bobs[1], "a second tab");
    await bobs[0].reload();
    await check(bobs[0], "the tab that reads was reloaded");
    await bobs[0].reload();
    await check(bobs[0], "the other tab was reloaded");
    await bobs[1].close();
    await check(bobs[0], "the tab that reads was closed");
    assert.equal((await bobs[0].state()).transport, transport);
    assert.deepEqual(await own.comings("reload"), ["introduction 1", "introduction 2"]);
    await bobs[0].close();
    assert.equal((await ada.waitForGoodbye("Bob")).reason, "closed");
    await Promise.all([...profiles.map((profile) => profile.close()), own.stop()]);
  });
}

test("a room that is joined, left and joined in one turn is joined", async () => {
  const profile = await environment.openProfile();
  const ada = await profile.openTab(server.endpoints, "other", { name: "Ada" });
  await ada.run((server) => {
    const join = () => window.Speak.join("turn", { server, name: "Ada" });
    join().leave();
    window.second = join();
  }, server.endpoints[0]);
  await until(() => ada.run(() => window.second.state.state === "connected"), "it is connected");
  await profile.close();
});

test("a window that a page opens has a member of its own, if tabs do not share", async () => {
  const small = await startServer();
  const profile = await environment.openProfile();
  const options = { name: "Ada", share: false, transport: "fetch", endpoint: small.endpoints };
  const ada = await profile.openTab(small.endpoints, "copy", options);
  await ada.waitForMembers("Ada");
  await ada.reload();
  await ada.waitForMembers("Ada");
  const popup = ada.page.waitForEvent("popup"); // with a copy of the tab's storage
  await ada.run(() => void window.open(location.href));
  const copy = await popup;
  await until(() => copy.evaluate(() => !!window.joinRoom));
  await copy.evaluate((options) => window.joinRoom("copy", options), options);
  await ada.waitForMembers("Ada", "Ada");
  await ada.reload();
  await ada.waitForMembers("Ada", "Ada");
  assert.deepEqual(await small.comings("copy"), ["introduction 1", "introduction 2"]);
  await Promise.all([profile.close(), small.stop()]);
});

test("a page that is left is gone, and is a member again after going back to it", async () => {
  const profiles = [await environment.openProfile(), await environment.openProfile()];
  const ada = await profiles[0].openTab(server.endpoints, "back", { name: "Ada" });
  const bob = await profiles[1].openTab(server.endpoints, "back", { name: "Bob" });
  await ada.waitForMembers("Ada", "Bob");
  await bob.waitForState("connected");
  await bob.page.goto("about:blank");
  assert.equal((await ada.waitForGoodbye("Bob")).reason, "closed");
  await ada.waitForMembers("Ada");
  await bob.page.goBack();
  // A page that the browser kept joins by itself. A page that was loaded again does not.
  await until(() => bob.run(() => !!window.joinRoom));
  await bob.run(
    () => window.chat ?? window.joinRoom("back", { name: "Bob", endpoint: [window.Speak.server] }),
  );
  await ada.waitForMembers("Ada", "Bob");
  await Promise.all(profiles.map((profile) => profile.close()));
});

test("the member of a crashed page leaves", async () => {
  const profiles = [await environment.openProfile(), await environment.openProfile()];
  const ada = await profiles[0].openTab(server.endpoints, "crash", { name: "Ada" });
  const bob = await profiles[1].openTab(server.endpoints, "crash", { name: "Bob" });
  await ada.waitForMembers("Ada", "Bob");
  await bob.crash();
  assert.ok(["closed", "timeout"].includes((await ada.waitForGoodbye("Bob")).reason));
  await ada.waitForMembers("Ada");
  await Promise.all(profiles.map((profile) => profile.close()));
});

test("tabs of one browser share one read and one member, and the next tab takes over", async () => {
  const profile = await environment.openProfile();
  const tabs = [];
  for (let i = 0; i < 3; i++) {
    tabs.push(await profile.openTab(server.endpoints, "tabs", { name: "Ada" }));
    await tabs[i].waitForMembers("Ada");
  }
  const members = () => server.call("members", { channel: "tabs" });
  await until(async () => (await members()).readers === 1, "one tab reads");
  assert.equal((await members()).members.length, 1);
  await tabs[2].say("one");
  await Promise.all(tabs.map((tab) => tab.waitForText("one")));
  assert.equal((await members()).readers, 1);

  await tabs[0].close();
  await tabs[2].say("two");
  await Promise.all([tabs[1].waitForText("two"), tabs[2].waitForText("two")]);
  await until(async () => (await members()).readers === 1, "the next tab reads");
  assert.deepEqual((await members()).members.length, 1);
  for (const tab of tabs.slice(1)) {
    assert.deepEqual(await tab.texts(), ["one", "two"]);
    await tab.waitForMembers("Ada");
    assert.ok((await tab.messages()).every(({ own }) => own));
  }
  assert.deepEqual(profile.errors, []);
  await profile.close();
});

test("the load event of a page that joins by script tags comes, and messages come before and after", async () => {
  const profile = await environment.openProfile();
  const options = { name: "Ada", transport: "jsonp", endpoint: server.endpoints };
  const early = encodeURIComponent(JSON.stringify(["early", options]));
  const other = await environment.openProfile();
  const bob = await other.openTab(server.endpoints, "early", { name: "Bob" });
  await bob.say("before");
  // Waits for the load event.
  const ada = await profile.openTab(server.endpoints, null, options, `&early=${early}`);
  await ada.waitForText("before");
  await bob.say("after");
  await ada.waitForText("after");
  assert.deepEqual(profile.errors, []);
  await Promise.all([profile.close(), other.close()]);
});

test("texts above the server's rate wait, and all arrive in order", async () => {
  const profile = await environment.openProfile();
  for (const transport of ["fetch", "jsonp"]) {
    const slow = await startServer({ options: ["--max-rate", "1"] });
    const ada = await profile.openTab(slow.endpoints, "rate", { name: "Ada", transport });
    const texts = Array.from({ length: 11 }, (_, i) => `${i}`); // ten calls may come at once
    await ada.run((texts) => Promise.all(texts.map((text) => window.chat.say(text))), texts);
    await ada.waitForText("10");
    assert.deepEqual(await ada.texts(), texts);
    await slow.stop();
  }
  await profile.close();
});
