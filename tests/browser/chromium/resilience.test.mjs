import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closedPort, openPlace, startLine, startServer, TRANSPORTS, until } from "./environment.mjs";

let place;
before(async () => (place = await openPlace()));
after(() => place?.close());

/** Two people in a room, who see each other. */
async function two(server, room, options) {
  const people = [await place.person(), await place.person()];
  const ada = await people[0].open(server.doors, room, { name: "Ada", ...options });
  const bob = await people[1].open(server.doors, room, { name: "Bob", ...options });
  await Promise.all([ada.sees("Ada", "Bob"), bob.sees("Ada", "Bob")]);
  return { ada, bob, close: () => Promise.all(people.map((one) => one.close())) };
}

const RESTARTS = [["stops", "SIGTERM", "websocket"], ...TRANSPORTS.map((transport) => ["is killed", "SIGKILL", transport])];
for (const [how, signal, transport] of RESTARTS) {
  test(`the server ${how} and starts again while they talk (${transport}): they come back, and nothing is shown twice`, async () => {
    let server = await startServer();
    const { ada, bob, close } = await two(server, "restart", { transport });
    const said = [];
    let isOver = false;
    const talking = [ada, bob].map(async (one, who) => {
      for (let i = 0; !isOver; i++) {
        const text = `${who}: ${i}`;
        await one.say(text);
        said.push(text);
      }
    });
    await until(() => said.length > 20, "they talk");
    await server.stop(signal);
    const before = said.length;
    server = await startServer({ ports: server.ports });
    await until(() => said.length > before + 20, "they talk again");
    isOver = true;
    await Promise.all(talking);

    await Promise.all([ada, bob].map((one) => one.hears(said.at(-1))));
    for (const one of [ada, bob]) {
      const texts = await one.texts();
      assert.equal(new Set(texts).size, texts.length, "nothing twice");
      // What the server took in its last moment it may have told nobody; all else is there.
      const lost = said.filter((text) => !texts.includes(text));
      assert.ok(lost.every((text) => said.indexOf(text) <= before + 2) && lost.length <= 2, `${lost} of ${said}`);
      await until(async () => (await one.names()).length === 2, "both are there");
      assert.equal((await one.state()).transport, transport);
      for (const who of ["0", "1"]) {
        const numbers = texts.filter((text) => text.startsWith(who)).map((text) => Number(text.slice(3)));
        assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b), "in order");
      }
    }
    await Promise.all([close(), server.stop()]);
  });
}

for (const transport of ["auto", "jsonp"]) {
  test(`the server is away for a while (${transport}): the page waits, keeps what is said, and comes back`, async () => {
    const server = await startServer();
    const { ada, bob, close } = await two(server, "away", { transport });
    await ada.say("before");
    await bob.hears("before");
    await server.stop();
    await Promise.all([ada.is("waiting"), bob.is("waiting")]);
    const kept = ada.say("while it was away");
    await until(() => ada.run(() => window.told.states.filter(({ state }) => state === "waiting").length > 2), "more tries");
    const again = await startServer({ ports: server.ports });
    await Promise.all([kept, ada.is("connected"), bob.is("connected"), bob.hears("while it was away")]);
    await Promise.all([ada, bob].map((one) => until(async () => (await one.names()).length === 2)));
    for (const one of [ada, bob]) {
      assert.deepEqual(await one.texts(), ["before", "while it was away"]);
      // That it was away is no reason to go another way.
      assert.equal((await one.state()).transport, transport === "auto" ? "websocket" : transport);
    }
    await Promise.all([close(), again.stop()]);
  });
}

for (const transport of TRANSPORTS) {
  test(`a page that was cut off too long is told that it missed something (${transport})`, async () => {
    const server = await startServer({ options: ["--history", "5"] });
    const line = await startLine(server.doors[0]);
    const person = await place.person();
    const ada = await person.open([line.door], "missed", { name: "Ada", transport });
    await ada.is("connected");
    line.cut();
    await ada.is("waiting");
    for (let i = 0; i < 20; i++) await server.call("write", { channel: "missed", message: `${i}` });
    await line.mend();
    await ada.hears("19");
    await ada.is("connected");
    await ada.sees("Ada");
    assert.equal(await ada.run(() => window.told.missed), 1);
    const texts = await ada.texts();
    assert.equal(new Set(texts).size, texts.length);
    await person.close();
    line.stop();
    await server.stop();
  });
}

test("the first door is taken where it opens, and else the next", async () => {
  const server = await startServer({ ports: [0, 0] });
  const [home, direct] = server.doors;
  const closed = `http://127.0.0.1:${await closedPort()}/`;
  for (const [doors, expected] of [[[direct, home], direct], [[closed, home], home], [[closed, direct, home], direct]]) {
    const person = await place.person();
    const ada = await person.open([home, ...doors], "doors", { name: "Ada", door: doors });
    await ada.is("connected");
    assert.equal((await ada.state()).door, expected);
    assert.deepEqual(person.complaints, []);
    await person.close();
  }
  await server.stop();
});

test("where the page's policy forbids WebSockets, it goes by events", async () => {
  const server = await startServer();
  const person = await place.person();
  const ada = await person.open(server.doors, "forbidden", { name: "Ada" }, "&connect=http");
  await until(async () => (await ada.state()).transport === "eventsource" && (await ada.state()).state === "connected");
  await ada.say("by events");
  await ada.hears("by events");
  const { length } = person.complaints;
  await ada.page.reload();
  await ada.run((door) => window.talk("forbidden", { name: "Ada", door }), server.doors);
  await ada.hears("by events");
  await ada.say("as before");
  await ada.hears("as before");
  assert.equal((await ada.state()).transport, "eventsource");
  assert.equal(person.complaints.length, length, "it is not tried again");
  await Promise.all([person.close(), server.stop()]);
});

test("where fetch is blocked, it goes by script tags, without being told to", async () => {
  const server = await startServer();
  const person = await place.person();
  const ada = await person.open(server.doors, "blocked", { name: "Ada" }, "&connect=nothing");
  await ada.is("connected");
  await ada.say("by script");
  await ada.hears("by script");
  assert.equal((await ada.state()).transport, "jsonp");
  assert.equal((await server.messages("blocked")).filter(({ type }) => type === "introduction").length, 1);
  await Promise.all([person.close(), server.stop()]);
});
