// Lines that are cut or die unnoticed, and servers with several endpoints.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  closedPort,
  openEnvironment,
  startServer,
  startSilentListener,
  startTcpProxy,
  TRANSPORTS,
  until,
} from "./environment.mjs";

let environment;
before(async () => (environment = await openEnvironment()));
after(() => environment?.close());

test("a WebSocket that is cut again and again: the client uses events, and no other member notices", async () => {
  const server = await startServer();
  const profiles = [await environment.openProfile(), await environment.openProfile()];
  const ada = await profiles[0].openTab(server.endpoints, "cut", { name: "Ada" });
  await ada.waitForMembers("Ada");
  const proxy = await startTcpProxy(server.endpoints[0], { socketMs: 200 });
  const bob = await profiles[1].openTab([proxy.endpoint], "cut", { name: "Bob" });
  const sockets = [];
  bob.page.on("websocket", (socket) => sockets.push(socket));
  await until(async () => (await bob.state()).transport === "eventsource");
  await bob.waitForState("connected");
  for (let i = 0; i < 5; i++) {
    await ada.say(`${i}`);
    await bob.waitForText(`${i}`);
    await bob.say(`${i} too`);
  }
  await ada.waitForText("4 too");
  assert.deepEqual(await server.comings("cut"), ["introduction 1", "introduction 2"]);
  assert.ok(sockets.length <= 2, `${sockets.length} WebSockets`);
  const states = await bob.run(() => window.received.states.map(({ state }) => state));
  assert.ok(!states.includes("waiting"), `${states}: the server could be reached all the time`);
  await Promise.all(profiles.map((profile) => profile.close()));
  proxy.stop();
  await server.stop();
});

for (const transport of TRANSPORTS) {
  test(`a line that died unnoticed is replaced when the network reports a change (${transport})`, async () => {
    const server = await startServer();
    const proxy = await startTcpProxy(server.endpoints[0]);
    const profile = await environment.openProfile();
    const ada = await profile.openTab([proxy.endpoint], "dead", { name: "Ada", transport });
    await ada.waitForState("connected");
    await ada.say("first");
    await ada.waitForText("first");
    proxy.freeze();
    await server.call("write", { channel: "dead", message: "after the change" });
    await ada.run(() => dispatchEvent(new Event("online")));
    await ada.waitForText("after the change");
    await ada.waitForState("connected");
    assert.equal((await ada.state()).transport, transport);
    await profile.close();
    proxy.stop();
    await server.stop();
  });
}

test("a line that is dead is reported when the network reports a change, and its return too", async () => {
  const server = await startServer();
  const proxy = await startTcpProxy(server.endpoints[0]);
  const profile = await environment.openProfile();
  const ada = await profile.openTab([proxy.endpoint], "dead", { name: "Ada" });
  await ada.waitForState("connected");
  await ada.say("first");
  await ada.waitForText("first");
  proxy.isDead = true;
  proxy.freeze();
  await server.call("write", { channel: "dead", message: "unheard" });
  await ada.run(() => dispatchEvent(new Event("online")));
  await until(async () => (await ada.state()).state !== "connected", "the state says so");
  proxy.isDead = false;
  await ada.run(() => dispatchEvent(new Event("online")));
  await ada.waitForText("unheard");
  await ada.waitForState("connected");
  await profile.close();
  proxy.stop();
  await server.stop();
});

test("an endpoint that never answers delays nothing, and is tried once in a tab", async () => {
  const server = await startServer();
  const silent = await startSilentListener();
  const profile = await environment.openProfile();
  const endpoint = [silent.endpoint, server.endpoints[0]];
  const all = [server.endpoints[0], silent.endpoint];
  const ada = await profile.openTab(all, "silent", { name: "Ada", endpoint });
  await ada.waitForMembers("Ada");
  await until(() => silent.clients.size > 0, "the client tries the endpoint");
  await ada.say("meanwhile");
  await ada.waitForText("meanwhile");
  await ada.waitForState("connected");
  assert.ok(silent.clients.size > 0, "the page was connected before the attempt was given up");
  await until(() => silent.clients.size === 0, "the client gives up");
  const count = silent.count();
  await ada.page.reload();
  await ada.run((options) => window.joinRoom("silent", options), { name: "Ada", endpoint });
  await ada.waitForMembers("Ada");
  await ada.say("again");
  await ada.waitForText("again");
  assert.deepEqual([silent.count(), profile.errors], [count, []]);
  await profile.close();
  silent.stop();
  await server.stop();
});

test("an endpoint that is another server is not used", async () => {
  const [server, other] = [await startServer(), await startServer()];
  const profile = await environment.openProfile();
  const endpoint = [other.endpoints[0], server.endpoints[0]];
  const all = [server.endpoints[0], other.endpoints[0]];
  const ada = await profile.openTab(all, "two", { name: "Ada", endpoint });
  const probed = ada.page.waitForResponse((response) => response.url().startsWith(endpoint[0]));
  await ada.page.reload();
  await ada.run((options) => window.joinRoom("two", options), { name: "Ada", endpoint });
  await Promise.race([probed, ada.waitForMembers("Ada")]);
  await ada.say("hello");
  await ada.waitForText("hello");
  assert.equal((await ada.state()).endpoint, server.endpoints[0]);
  assert.deepEqual(await other.messages("two"), []);
  await Promise.all([profile.close(), server.stop(), other.stop()]);
});

test("the first endpoint is used if it is open, else the next one", async () => {
  const server = await startServer({ ports: [0, 0] });
  const [home, direct] = server.endpoints;
  const closed = `http://127.0.0.1:${await closedPort()}/`;
  for (const [endpoints, expected] of [
    [[direct, home], direct],
    [[closed, home], home],
    [[closed, direct, home], direct],
    [[direct, closed], direct],
  ]) {
    const profile = await environment.openProfile();
    const ada = await profile.openTab([home, ...endpoints], "endpoints", {
      name: "Ada",
      endpoint: endpoints,
    });
    await until(async () => (await ada.state()).endpoint === expected, `${expected} is used`);
    await ada.waitForState("connected");
    assert.deepEqual(profile.errors, []);
    await profile.close();
  }
  await server.stop();
});
