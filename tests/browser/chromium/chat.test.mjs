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
  test(`a tab that is closed says goodbye (${transport})`, async () => {
    const room = `closing ${transport}`;
    const profiles = [await environment.openProfile(), await environment.openProfile()];
    const ada = await profiles[0].openTab(server.endpoints, room, { name: "Ada", transport });
    const bob = await profiles[1].openTab(server.endpoints, room, { name: "Bob", transport });
    await ada.waitForMembers("Ada", "Bob");
    await bob.close();
    const { reason } = await ada.waitForGoodbye("Bob");
    assert.ok(["left", "closed"].includes(reason), `${reason}, not by timeout`);
    await ada.waitForMembers("Ada");
    assert.equal((await ada.state()).transport, transport);
    await Promise.all(profiles.map((profile) => profile.close()));
  });
}

test("a page that is left says goodbye, and is a member again after going back to it", async () => {
  const profiles = [await environment.openProfile(), await environment.openProfile()];
  const ada = await profiles[0].openTab(server.endpoints, "back", { name: "Ada" });
  const bob = await profiles[1].openTab(server.endpoints, "back", { name: "Bob" });
  await ada.waitForMembers("Ada", "Bob");
  await bob.page.goto("about:blank");
  assert.ok(["left", "closed"].includes((await ada.waitForGoodbye("Bob")).reason));
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
