// Between page and server stands nginx, in several ways of being in the way: one caches what it may and more, and does
// not tell the server when a page hangs up; others let no WebSocket through, or no stream at all.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { closedPort, openPlace, startServer, until } from "./environment.mjs";

const CACHING = `
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_ignore_client_abort on;
  proxy_cache all;
  proxy_cache_valid any 1h;
  # The worst that there is: what says no-store is stored.
  proxy_ignore_headers Cache-Control Expires;
  add_header X-Cache $upstream_cache_status always;`;

async function startProxy(target, manner) {
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
          ${manner}
        }
      }
    }`,
  );
  const child = spawn("/usr/sbin/nginx", ["-c", join(folder, "nginx.conf"), "-e", join(folder, "error.log")], { stdio: "ignore" });
  const ended = once(child, "exit");
  process.once("exit", () => child.kill("SIGKILL"));
  child.unref();
  const door = `http://127.0.0.1:${port}/`;
  await until(() => fetch(`${door}health`).then(({ ok }) => ok, () => false), "the proxy is there");
  return {
    door,
    async stop() {
      child.kill();
      await ended;
      await rm(folder, { recursive: true });
    },
  };
}

let place;
before(async () => (place = await openPlace()));
after(() => place?.close());

/** A server behind a proxy, and two people who see each other through it. */
async function behindProxy(room, { transport, options, manner = CACHING }) {
  const server = await startServer({ options });
  const proxy = await startProxy(server.doors[0], manner);
  const people = [await place.person(), await place.person()];
  const [ada, bob] = [
    await people[0].open([proxy.door], room, { name: "Ada", transport }),
    await people[1].open([proxy.door], room, { name: "Bob", transport }),
  ];
  await Promise.all([ada.meets("Ada", "Bob"), bob.meets("Ada", "Bob")]);
  const close = async () => {
    await Promise.all(people.map((one) => one.close()));
    await proxy.stop();
    await server.stop();
  };
  return { server, proxy, ada, bob, close };
}

for (const transport of ["fetch", "jsonp"]) {
  test(`no answer is stale (${transport})`, async () => {
    const { proxy, ada, bob, close } = await behindProxy("stale", { transport });
    const address = `${proxy.door}health`;
    await fetch(address);
    assert.equal((await fetch(address)).headers.get("X-Cache"), "HIT", "this proxy keeps what it must not");

    for (let i = 0; i < 10; i++) {
      await ada.say(`ada ${i}`);
      await bob.say(`bob ${i}`);
    }
    await Promise.all([ada, bob].map((one) => one.hears("bob 9")));
    const expected = Array.from({ length: 10 }, (_, i) => [`ada ${i}`, `bob ${i}`]).flat();
    for (const one of [ada, bob]) assert.deepEqual(await one.texts(), expected);

    // The same again in a new tab: what another one asked before is not what it is answered.
    await bob.page.reload();
    await bob.run((door) => window.talk("stale", { name: "Bob", door }), [proxy.door]);
    await bob.hears("bob 9");
    await bob.sees("Ada", "Bob");
    await close();
  });

  test(`a ghost goes by time-out, since the proxy hangs on (${transport})`, async () => {
    const { ada, bob, close } = await behindProxy("ghost", { transport, options: ["--poll-timeout", "2s", "--connection-timeout", "1s"] });
    await bob.crash();
    assert.equal((await ada.goodbye("Bob")).reason, "timeout");
    await ada.sees("Ada");
    await close();
  });
}

const STREAMS = {
  "passes them on": ["websocket", `
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";`],
  "knows no upgrades": ["eventsource", ""],
  "knows no upgrades, but HTTP/1.1": ["eventsource", `
    proxy_http_version 1.1;
    proxy_set_header Connection "";`],
  "refuses upgrades, and holds back events": ["fetch", `
    if ($http_upgrade) { return 403; }
    proxy_buffering on;
    proxy_ignore_headers X-Accel-Buffering;
    gzip on;
    gzip_types text/event-stream application/json;`],
};

for (const [what, [expected, manner]] of Object.entries(STREAMS)) {
  test(`what a proxy does that ${what}: it goes by ${expected}, and loses nothing`, async () => {
    const { proxy, ada, bob, close } = await behindProxy("streams", { manner, options: ["--history", "1000"] });
    const said = [];
    const talk = async () => {
      for (const [who, one] of [["ada", ada], ["bob", bob]]) {
        const text = `${who} ${said.length}`;
        said.push(text);
        await one.say(text);
      }
    };
    const hasSettled = async () => (await Promise.all([ada.state(), bob.state()])).every(({ transport }) => transport === expected);
    const all = async (one) => {
      await one.hears(said.at(-1));
      assert.deepEqual(await one.texts(), said);
    };
    while (!(await hasSettled())) {
      await talk();
      // Slowly, for what nginx holds back it lets go when it has 4 KiB of it.
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    for (let i = 0; i < 5; i++) await talk();
    for (const one of [ada, bob]) {
      await all(one);
      await one.meets("Ada", "Bob");
      assert.equal(await one.run(() => window.told.missed), 0);
    }

    // The next page of this tab knows what works.
    const tried = [];
    ada.page.on("websocket", (socket) => tried.push(socket.url()));
    ada.page.on("request", (request) => request.resourceType() === "eventsource" && tried.push(request.url()));
    await ada.page.reload();
    await ada.run((door) => window.talk("streams", { name: "Ada", door }), [proxy.door]);
    await all(ada);
    await talk();
    await Promise.all([all(ada), all(bob)]);
    assert.equal((await ada.state()).transport, expected);
    assert.equal(tried.length, expected === "fetch" ? 0 : 1, `tried ${tried}`);
    assert.ok(tried.every((url) => url.startsWith("ws") === (expected === "websocket")));
    await close();
  });
}

test("a tab that is closed says goodbye through the proxy", async () => {
  const { ada, bob, close } = await behindProxy("closing", {});
  await bob.close();
  assert.equal((await ada.goodbye("Bob")).reason, "left");
  await close();
});

test("a page that comes back takes the place of the read that the proxy holds on to", async () => {
  const { server, ada, bob, close } = await behindProxy("superseded", { transport: "fetch", options: ["--connection-timeout", "60s"] });
  const readers = async () => (await server.call("members", { channel: "superseded" })).readers;
  await until(async () => (await readers()) === 2, "two read");
  const session = await bob.page.context().newCDPSession(bob.page);
  await session.send("Network.enable");
  const offline = (isOffline) =>
    session.send("Network.emulateNetworkConditions", { offline: isOffline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await offline(true);
  await ada.say("are you there?"); // answers the read that waits, to nobody
  await bob.is("waiting");
  await offline(false);
  await bob.hears("are you there?");
  await bob.say("here I am");
  await ada.hears("here I am");
  await until(async () => (await readers()) === 2, "no read is left behind");
  assert.deepEqual(await ada.names(), ["Ada", "Bob"]);
  assert.ok((await ada.messages()).every(({ type }) => type !== "goodbye"), "nobody left");
  await close();
});
