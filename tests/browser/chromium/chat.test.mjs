import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openPlace, startServer, TRANSPORTS, until } from "./environment.mjs";

let server, place;
before(async () => ([server, place] = await Promise.all([startServer(), openPlace()])));
after(() => Promise.all([server?.stop(), place?.close()]));

for (const transport of TRANSPORTS) {
  test(`two pages of another origin talk (${transport}): join, talk, whisper, rename, leave`, async () => {
    const room = `talk ${transport}`;
    const people = [await place.person(), await place.person()];
    const ada = await people[0].open(server.doors, room, { name: "Ada", transport });
    await ada.sees("Ada");
    const bob = await people[1].open(server.doors, room, { name: "Bob", transport });
    await Promise.all([ada.sees("Ada", "Bob"), bob.sees("Ada", "Bob")]);

    const strange = 'howdy <b>&amp;</b> "quotes" +1 %41 \u2028 ✓ 𝄞';
    await ada.say(strange);
    await bob.say("hello");
    await Promise.all([ada, bob].flatMap((one) => [one.hears(strange), one.hears("hello")]));

    await ada.run(() => window.chat.whisper(window.chat.members.find(({ name }) => name === "Bob"), "psst"));
    await bob.hears("psst");
    await bob.run(() => window.chat.rename("Robert"));
    await Promise.all([ada.sees("Ada", "Robert"), bob.sees("Ada", "Robert")]);

    const told = async (tab) => (await tab.messages()).map(({ type, name, text, own, whisper }) => [type, name, text, own, whisper]);
    assert.deepEqual(await told(bob), [
      ["introduction", "Ada", "Ada", false, false],
      ["introduction", "Bob", "Bob", true, false],
      ["message", "Ada", strange, false, false],
      ["message", "Bob", "hello", true, false],
      ["message", "Ada", "psst", false, true],
      ["introduction", "Robert", "Robert", true, false],
    ]);
    assert.ok((await server.messages(room)).every(({ message }) => message !== "psst"), "the whisper is not in the room");

    await bob.run(() => window.chat.leave());
    assert.equal((await ada.goodbye("Robert")).reason, "left");
    await ada.sees("Ada");
    assert.equal((await ada.state()).transport, transport);
    assert.deepEqual(people.map(({ complaints }) => complaints), [[], []]);
    await Promise.all(people.map((one) => one.close()));
  });
}

test("who comes late learns who is here, also of those whose introduction is history", async () => {
  const small = await startServer({ options: ["--history", "5"] });
  const person = await place.person();
  const ada = await person.open(small.doors, "late", { name: "Ada" });
  await ada.sees("Ada");
  for (let i = 0; i < 10; i++) await ada.say(`${i}`);
  const other = await place.person();
  const bob = await other.open(small.doors, "late", { name: "Bob" });
  await bob.sees("Ada", "Bob");
  assert.deepEqual(await bob.texts(), ["6", "7", "8", "9"]);
  await bob.run(() => window.chat.whisper(1, "found you"));
  await ada.hears("found you");
  await Promise.all([person.close(), other.close(), small.stop()]);
});

test("the client is a module as well", async () => {
  const person = await place.person();
  const ada = await person.open(server.doors, "module", { name: "Ada" }, "&module");
  await ada.sees("Ada");
  assert.equal(await ada.run(() => window.Speak.server), server.doors[0]);
  assert.deepEqual(person.complaints, []);
  await person.close();
});

for (const transport of TRANSPORTS) {
  test(`a tab that is closed says goodbye (${transport})`, async () => {
    const room = `closing ${transport}`;
    const people = [await place.person(), await place.person()];
    const ada = await people[0].open(server.doors, room, { name: "Ada", transport });
    const bob = await people[1].open(server.doors, room, { name: "Bob", transport });
    await ada.sees("Ada", "Bob");
    await bob.close();
    const { reason } = await ada.goodbye("Bob");
    assert.ok(["left", "closed"].includes(reason), `${reason}, not by time-out`);
    await ada.sees("Ada");
    assert.equal((await ada.state()).transport, transport);
    await Promise.all(people.map((one) => one.close()));
  });
}

test("a page that is left for another says goodbye, and is back when one comes back", async () => {
  const people = [await place.person(), await place.person()];
  const ada = await people[0].open(server.doors, "away and back", { name: "Ada" });
  const bob = await people[1].open(server.doors, "away and back", { name: "Bob" });
  await ada.sees("Ada", "Bob");
  await bob.page.goto("about:blank");
  assert.ok(["left", "closed"].includes((await ada.goodbye("Bob")).reason));
  await ada.sees("Ada");
  await bob.page.goBack();
  // Kept by the browser, the page joins again by itself; loaded anew, it has to be told.
  await until(() => bob.run(() => !!window.talk));
  await bob.run(() => window.chat ?? window.talk("away and back", { name: "Bob", door: [window.Speak.server] }));
  await ada.sees("Ada", "Bob");
  await Promise.all(people.map((one) => one.close()));
});

test("a renderer that is killed is missed", async () => {
  const people = [await place.person(), await place.person()];
  const ada = await people[0].open(server.doors, "killing", { name: "Ada" });
  const bob = await people[1].open(server.doors, "killing", { name: "Bob" });
  await ada.sees("Ada", "Bob");
  await bob.crash();
  assert.ok(["closed", "timeout"].includes((await ada.goodbye("Bob")).reason));
  await ada.sees("Ada");
  await Promise.all(people.map((one) => one.close()));
});

test("tabs of one browser share one read and one member, and the next takes over", async () => {
  const person = await place.person();
  const tabs = [];
  for (let i = 0; i < 3; i++) {
    tabs.push(await person.open(server.doors, "tabs", { name: "Ada" }));
    await tabs[i].sees("Ada");
  }
  const members = () => server.call("members", { channel: "tabs" });
  await until(async () => (await members()).readers === 1, "one reads");
  assert.equal((await members()).members.length, 1);
  await tabs[2].say("one");
  await Promise.all(tabs.map((tab) => tab.hears("one")));
  assert.equal((await members()).readers, 1);

  await tabs[0].close();
  await tabs[2].say("two");
  await Promise.all([tabs[1].hears("two"), tabs[2].hears("two")]);
  await until(async () => (await members()).readers === 1, "the next one reads");
  assert.deepEqual((await members()).members.length, 1);
  for (const tab of tabs.slice(1)) {
    assert.deepEqual(await tab.texts(), ["one", "two"]);
    await tab.sees("Ada");
    assert.ok((await tab.messages()).every(({ own }) => own));
  }
  assert.deepEqual(person.complaints, []);
  await person.close();
});
