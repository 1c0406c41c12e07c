import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openEnvironment, startServer, startTcpProxy, TRANSPORTS, until } from "./environment.mjs";

let environment;
before(async () => (environment = await openEnvironment()));
after(() => environment?.close());

/** Opens two pages that are in a room and see each other. */
async function openTwo(server, room, options) {
  const profiles = [await environment.openProfile(), await environment.openProfile()];
  const ada = await profiles[0].openTab(server.endpoints, room, { name: "Ada", ...options });
  const bob = await profiles[1].openTab(server.endpoints, room, { name: "Bob", ...options });
  await Promise.all([ada.waitForMembers("Ada", "Bob"), bob.waitForMembers("Ada", "Bob")]);
  return { ada, bob, close: () => Promise.all(profiles.map((profile) => profile.close())) };
}

const RESTARTS = [
  ["stops", "SIGTERM", "websocket"],
  ...TRANSPORTS.map((transport) => ["is killed", "SIGKILL", transport]),
];
for (const [how, signal, transport] of RESTARTS) {
  test(`the server ${how} and restarts: talking pages come back, and show nothing twice (${transport})`, async () => {
    let server = await startServer();
    const { ada, bob, close } = await openTwo(server, "restart", { transport });
    const sent = [];
    let isStopped = false;
    const talks = [ada, bob].map(async (tab, author) => {
      for (let i = 0; !isStopped; i++) {
        const text = `${author}: ${i}`;
        await tab.say(text);
        sent.push(text);
      }
    });
    await until(() => sent.length > 20, "the pages talk");
    await server.stop(signal);
    const before = sent.length;
    server = await startServer({ ports: server.ports });
    await until(() => sent.length > before + 20, "the pages talk again");
    isStopped = true;
    await Promise.all(talks);

    await Promise.all([ada, bob].map((tab) => tab.waitForText(sent.at(-1))));
    for (const tab of [ada, bob]) {
      const texts = await tab.texts();
      assert.equal(new Set(texts).size, texts.length, "nothing twice");
      // The server may have delivered its last messages to no page. All others are there.
      const lost = sent.filter((text) => !texts.includes(text));
      assert.ok(
        lost.every((text) => sent.indexOf(text) <= before + 2) && lost.length <= 2,
        `${lost} of ${sent}`,
      );
      await until(async () => (await tab.names()).length === 2, "both members are there");
      assert.equal((await tab.state()).transport, transport);
      for (const author of ["0", "1"]) {
        const numbers = texts
          .filter((text) => text.startsWith(author))
          .map((text) => Number(text.slice(3)));
        assert.deepEqual(
          numbers,
          numbers.toSorted((a, b) => a - b),
          "in order",
        );
      }
    }
    await Promise.all([close(), server.stop()]);
  });
}

for (const transport of ["auto", "jsonp"]) {
  test(`during an outage a page keeps its messages, and sends them afterwards (${transport})`, async () => {
    const server = await startServer();
    const { ada, bob, close } = await openTwo(server, "outage", { transport });
    await ada.say("before");
    await bob.waitForText("before");
    await server.stop();
    await Promise.all([ada.waitForState("waiting"), bob.waitForState("waiting")]);
    const pending = ada.say("during the outage");
    await until(
      () =>
        ada.run(() => window.received.states.filter(({ state }) => state === "waiting").length > 2),
      "more attempts",
    );
    const restarted = await startServer({ ports: server.ports });
    await Promise.all([
      pending,
      ada.waitForState("connected"),
      bob.waitForState("connected"),
      bob.waitForText("during the outage"),
    ]);
    await Promise.all([ada, bob].map((tab) => until(async () => (await tab.names()).length === 2)));
    for (const tab of [ada, bob]) {
      assert.deepEqual(await tab.texts(), ["before", "during the outage"]);
      // An outage is no reason to change the transport.
      assert.equal((await tab.state()).transport, transport === "auto" ? "websocket" : transport);
    }
    await Promise.all([close(), restarted.stop()]);
  });
}

for (const transport of TRANSPORTS) {
  test(`a page that was offline too long reports missed messages (${transport})`, async () => {
    const server = await startServer({ options: ["--history", "5"] });
    const proxy = await startTcpProxy(server.endpoints[0]);
    const profile = await environment.openProfile();
    const ada = await profile.openTab([proxy.endpoint], "missed", { name: "Ada", transport });
    await ada.waitForState("connected");
    proxy.disconnect();
    await ada.waitForState("waiting");
    for (let i = 0; i < 20; i++) await server.call("write", { channel: "missed", message: `${i}` });
    await proxy.reconnect();
    await ada.waitForText("19");
    await ada.waitForState("connected");
    await ada.waitForMembers("Ada");
    assert.equal(await ada.run(() => window.received.missed), 1);
    const texts = await ada.texts();
    assert.equal(new Set(texts).size, texts.length);
    await profile.close();
    proxy.stop();
    await server.stop();
  });
}

test("if the page's policy forbids WebSockets, the client uses events", async () => {
  const server = await startServer();
  const profile = await environment.openProfile();
  const ada = await profile.openTab(
    server.endpoints,
    "forbidden",
    { name: "Ada" },
    "&connect=http",
  );
  await until(
    async () =>
      (await ada.state()).transport === "eventsource" && (await ada.state()).state === "connected",
  );
  await ada.say("over events");
  await ada.waitForText("over events");
  const { length } = profile.errors;
  await ada.page.reload();
  await ada.run(
    (endpoint) => window.joinRoom("forbidden", { name: "Ada", endpoint }),
    server.endpoints,
  );
  await ada.waitForText("over events");
  await ada.say("once more");
  await ada.waitForText("once more");
  assert.equal((await ada.state()).transport, "eventsource");
  assert.equal(profile.errors.length, length, "the WebSocket is not tried again");
  await Promise.all([profile.close(), server.stop()]);
});

test("if fetch is blocked, the client uses script tags by itself", async () => {
  const server = await startServer();
  const profile = await environment.openProfile();
  const ada = await profile.openTab(
    server.endpoints,
    "blocked",
    { name: "Ada" },
    "&connect=nothing",
  );
  await ada.waitForState("connected");
  await ada.say("over scripts");
  await ada.waitForText("over scripts");
  assert.equal((await ada.state()).transport, "jsonp");
  assert.equal(
    (await server.messages("blocked")).filter(({ type }) => type === "introduction").length,
    1,
  );
  await Promise.all([profile.close(), server.stop()]);
});
