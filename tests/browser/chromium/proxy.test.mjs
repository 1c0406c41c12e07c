// nginx between page and server, in several configurations. One caches more than it may, and does
// not close its connection to the server when a page closes. Others pass no WebSocket, or no stream
// at all.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { closedPort, openEnvironment, startServer, until } from "./environment.mjs";

const CACHING = `
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_ignore_client_abort on;
  proxy_cache all;
  proxy_cache_valid any 1h;
  # The worst case: responses with no-store are stored.
  proxy_ignore_headers Cache-Control Expires;
  add_header X-Cache $upstream_cache_status always;`;

/** Starts nginx in front of a server, with these directives in its location. */
async function startProxy(target, directives) {
  const folder = await mkdtemp(join(tmpdir(), "speak-proxy-"));
  const port = await closedPort();
  await writeFile(
    join(folder, "nginx.conf"),
    `daemon off;
    master_process off;
    pid ${folder}/pid;
    error_log ${folder}/error.log;
    events {}
    http {
      access_log ${folder}/access.log;
      client_body_temp_path ${folder}/body;
      proxy_temp_path ${folder}/temp;
      fastcgi_temp_path ${folder}/fastcgi;
      uwsgi_temp_path ${folder}/uwsgi;
      scgi_temp_path ${folder}/scgi;
      proxy_cache_path ${folder}/cache keys_zone=all:1m;
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass ${target};
          ${directives}
        }
      }
    }`,
  );
  const child = spawn(
    "/usr/sbin/nginx",
    ["-c", join(folder, "nginx.conf"), "-e", join(folder, "error.log")],
    { stdio: "ignore" },
  );
  const ended = once(child, "exit");
  process.once("exit", () => child.kill("SIGKILL"));
  child.unref();
  const endpoint = `http://127.0.0.1:${port}/`;
  await until(
    () =>
      fetch(`${endpoint}health`).then(
        ({ ok }) => ok,
        () => false,
      ),
    "the proxy answers",
  );
  return {
    endpoint,
    async stop() {
      child.kill();
      await ended;
      await rm(folder, { recursive: true });
    },
  };
}

let environment;
before(async () => (environment = await openEnvironment()));
after(() => environment?.close());

/** Starts a server behind a proxy, and opens two pages that see each other through it. */
async function openThroughProxy(room, { transport, options, directives = CACHING }) {
  const server = await startServer({ options });
  const proxy = await startProxy(server.endpoints[0], directives);
  const profiles = [await environment.openProfile(), await environment.openProfile()];
  const [ada, bob] = [
    await profiles[0].openTab([proxy.endpoint], room, { name: "Ada", transport }),
    await profiles[1].openTab([proxy.endpoint], room, { name: "Bob", transport }),
  ];
  await Promise.all([
    ada.waitForMembersInAnyOrder("Ada", "Bob"),
    bob.waitForMembersInAnyOrder("Ada", "Bob"),
  ]);
  const close = async () => {
    await Promise.all(profiles.map((profile) => profile.close()));
    await proxy.stop();
    await server.stop();
  };
  return { server, proxy, ada, bob, close };
}

for (const transport of ["fetch", "jsonp"]) {
  test(`a caching proxy makes no answer stale (${transport})`, async () => {
    const { proxy, ada, bob, close } = await openThroughProxy("stale", { transport });
    const address = `${proxy.endpoint}health`;
    await fetch(address);
    assert.equal(
      (await fetch(address)).headers.get("X-Cache"),
      "HIT",
      "this proxy stores what it must not",
    );

    for (let i = 0; i < 10; i++) {
      await ada.say(`ada ${i}`);
      await bob.say(`bob ${i}`);
    }
    await Promise.all([ada, bob].map((tab) => tab.waitForText("bob 9")));
    const expected = Array.from({ length: 10 }, (_, i) => [`ada ${i}`, `bob ${i}`]).flat();
    for (const tab of [ada, bob]) assert.deepEqual(await tab.texts(), expected);

    // A new page gets its own answers, not those of an earlier page.
    await bob.page.reload();
    await bob.run(
      (endpoint) => window.joinRoom("stale", { name: "Bob", endpoint }),
      [proxy.endpoint],
    );
    await bob.waitForText("bob 9");
    await bob.waitForMembers("Ada", "Bob");
    await close();
  });

  test(`a crashed page leaves by timeout, since the proxy keeps its connection (${transport})`, async () => {
    const { ada, bob, close } = await openThroughProxy("crash", {
      transport,
      options: ["--poll-timeout", "2s", "--connection-timeout", "1s"],
    });
    await bob.crash();
    assert.equal((await ada.waitForGoodbye("Bob")).reason, "timeout");
    await ada.waitForMembers("Ada");
    await close();
  });
}

const STREAMS = {
  "passes streams": [
    "websocket",
    `
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";`,
  ],
  "knows no upgrades": ["eventsource", ""],
  "knows HTTP/1.1 and no upgrades": [
    "eventsource",
    `
    proxy_http_version 1.1;
    proxy_set_header Connection "";`,
  ],
  "refuses upgrades and buffers events": [
    "fetch",
    `
    if ($http_upgrade) { return 403; }
    proxy_buffering on;
    proxy_ignore_headers X-Accel-Buffering;
    gzip on;
    gzip_types text/event-stream application/json;`,
  ],
};

for (const [what, [expected, directives]] of Object.entries(STREAMS)) {
  test(`through a proxy that ${what}, the client uses ${expected}, and loses nothing`, async () => {
    const { proxy, ada, bob, close } = await openThroughProxy("streams", {
      directives,
      options: ["--history", "1000"],
    });
    const sent = [];
    const talk = async () => {
      for (const [author, tab] of [
        ["ada", ada],
        ["bob", bob],
      ]) {
        const text = `${author} ${sent.length}`;
        sent.push(text);
        await tab.say(text);
      }
    };
    const hasExpectedTransport = async () =>
      (await Promise.all([ada.state(), bob.state()])).every(
        ({ transport }) => transport === expected,
      );
    const checkTexts = async (tab) => {
      await tab.waitForText(sent.at(-1));
      assert.deepEqual(await tab.texts(), sent);
    };
    while (!(await hasExpectedTransport())) {
      await talk();
      // nginx passes on its buffer once it holds 4 KiB: fast messages would fill the buffer.
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    for (let i = 0; i < 5; i++) await talk();
    for (const tab of [ada, bob]) {
      await checkTexts(tab);
      await tab.waitForMembersInAnyOrder("Ada", "Bob");
      assert.equal(await tab.run(() => window.received.missed), 0);
    }

    // The next page in this tab begins with the transport that works.
    const tried = [];
    ada.page.on("websocket", (socket) => tried.push(socket.url()));
    ada.page.on(
      "request",
      (request) => request.resourceType() === "eventsource" && tried.push(request.url()),
    );
    await ada.page.reload();
    await ada.run(
      (endpoint) => window.joinRoom("streams", { name: "Ada", endpoint }),
      [proxy.endpoint],
    );
    await checkTexts(ada);
    await talk();
    await Promise.all([checkTexts(ada), checkTexts(bob)]);
    assert.equal((await ada.state()).transport, expected);
    assert.equal(tried.length, expected === "fetch" ? 0 : 1, `tried ${tried}`);
    assert.ok(tried.every((url) => url.startsWith("ws") === (expected === "websocket")));
    await close();
  });
}

for (const what of ["passes streams", "knows no upgrades"]) {
  test(`a tab that is closed is gone a moment later, through a proxy that ${what}`, async () => {
    const [transport, directives] = STREAMS[what];
    const { ada, bob, close } = await openThroughProxy("closing", { transport, directives });
    await bob.waitForState("connected");
    await bob.close();
    assert.equal((await ada.waitForGoodbye("Bob")).reason, "closed");
    await close();
  });
}

test("a page that leaves says goodbye also through a proxy that keeps its connection", async () => {
  const { ada, bob, close } = await openThroughProxy("leaving", {});
  await bob.run(() => {
    window.chat.leave();
    location.href = "about:blank";
  });
  assert.equal((await ada.waitForGoodbye("Bob")).reason, "left");
  await close();
});

test("a page that comes back replaces the read that the proxy keeps open", async () => {
  const { server, ada, bob, close } = await openThroughProxy("superseded", {
    transport: "fetch",
    options: ["--connection-timeout", "60s"],
  });
  const readers = async () => (await server.call("members", { channel: "superseded" })).readers;
  await until(async () => (await readers()) === 2, "two pages read");
  const session = await bob.page.context().newCDPSession(bob.page);
  await session.send("Network.enable");
  const setOffline = (isOffline) =>
    session.send("Network.emulateNetworkConditions", {
      offline: isOffline,
      latency: 0,
      downloadThroughput: -1,
      uploadThroughput: -1,
    });
  await setOffline(true);
  await ada.say("are you there?"); // completes the read that the proxy keeps open
  await bob.waitForState("waiting");
  await setOffline(false);
  await bob.waitForText("are you there?");
  await bob.say("here I am");
  await ada.waitForText("here I am");
  await until(async () => (await readers()) === 2, "no read remains");
  assert.deepEqual(await ada.names(), ["Ada", "Bob"]);
  assert.ok(
    (await ada.messages()).every(({ type }) => type !== "goodbye"),
    "no member left",
  );
  await close();
});
