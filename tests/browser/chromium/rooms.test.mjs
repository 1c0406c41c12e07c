// Rooms with an owner, and what the addresses of requests have of them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openEnvironment, startServer, TRANSPORTS, until } from "./environment.mjs";

let environment;
before(async () => (environment = await openEnvironment()));
after(() => environment?.close());

const kinds = (tab) => tab.messages().then((all) => all.map(({ type }) => type));

for (const transport of TRANSPORTS) {
  test(`the owner removes a message, and sends a member away (${transport})`, async () => {
    const server = await startServer();
    const profiles = [await environment.openProfile(), await environment.openProfile()];
    const [endpoint] = server.endpoints;
    const page = await profiles[0].openTab([endpoint], null, {});
    const { owner, channel } = await page.run(() => window.Speak.create("room"));
    const options = { name: "Ann", transport, owner };
    const ann = await profiles[0].openTab([endpoint], channel, options);
    const bob = await profiles[1].openTab([endpoint], channel, { name: "Bob", transport });
    await ann.waitForMembers("Ann", "Bob");
    await bob.waitForMembers("Ann", "Bob");
    await bob.run(() => {
      window.removals = [];
      window.chat.onremoval = ({ of }) => window.removals.push(of);
    });
    const { id } = await bob.say("something bad");
    await ann.waitForText("something bad");
    await ann.run((id) => window.chat.remove(id), id);
    await until(() => bob.run((id) => window.removals.includes(id), id), "the removal");
    const error = (call) => bob.run(call).catch(({ message }) => message);
    assert.match(await error(() => window.chat.remove(1)), /owner/);
    const late = await profiles[1].openTab([endpoint], channel, { transport });
    await until(async () => (await kinds(late)).includes("removed"), "the place of the message");
    assert.deepEqual(await late.texts(), []);

    await ann.run(() => window.chat.kick(window.chat.members[1], { seconds: 600 }));
    await until(async () => (await bob.state()).state === "left", "Bob is sent away");
    assert.deepEqual(await bob.run(() => window.received.errors), ["removed"]);
    await ann.waitForMembers("Ann");
    await ann.say("quiet now");
    await late.waitForText("quiet now");
    for (const profile of profiles) {
      assert.deepEqual(profile.errors, []);
      await profile.close();
    }
    await server.stop();
  });
}

test("a WebSocket carries its member, and its address has no secret", async () => {
  const server = await startServer();
  const profiles = [await environment.openProfile(), await environment.openProfile()];
  const ann = await profiles[0].openTab(server.endpoints, "bound", { name: "Ann" });
  await ann.waitForState("connected");
  const bob = await profiles[1].openTab(server.endpoints, null, {});
  const sockets = [];
  bob.page.on("websocket", (socket) => sockets.push(socket.url()));
  const { endpoints } = server;
  await bob.run(
    ([endpoint]) => window.joinRoom("bound", { endpoint, name: "Bob", transport: "websocket" }),
    endpoints,
  );
  await ann.waitForMembers("Ann", "Bob");
  await bob.waitForState("connected");
  // Longer than the connection lives without a call: only the socket keeps it alive.
  await new Promise((resolve) => setTimeout(resolve, 8000));
  assert.deepEqual(await ann.names(), ["Ann", "Bob"]);
  assert.ok(sockets.length > 0);
  for (const socket of sockets) assert.match(socket, /^ws:[^?]*read\?channel=\?&timeout=0$/);
  await bob.crash();
  const { reason } = await ann.waitForGoodbye("Bob");
  assert.equal(reason, "closed");
  await Promise.all(profiles.map((profile) => profile.close()));
  await server.stop();
});
