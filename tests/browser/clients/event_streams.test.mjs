// Event streams, read by clients that others wrote, and through a middleware that compresses. Each
// event arrives at once, while the stream stays open, and no client makes an event of a heartbeat.

import assert from "node:assert/strict";
import http from "node:http";
import { once } from "node:events";
import { after, test } from "node:test";
import fetchEventSource from "@microsoft/fetch-event-source";
import compression from "compression";
import { EventSource as NpmEventSource } from "eventsource";
import * as undici from "undici";
import { startServer, until } from "../chromium/environment.mjs";

// A server alone does not keep Node.js running until it has ended.
const running = setInterval(() => {}, 1000);
after(() => clearInterval(running));

const ACCEPT = { accept: "text/event-stream" };

// What fetch-event-source uses of a page.
globalThis.window = globalThis;
globalThis.document = new EventTarget();

/** Reads with an EventSource: any event without data would be a `message`. */
const eventSource = (EventSource) => (url, report) => {
  const source = new EventSource(url);
  for (const kind of ["message", "ready", "missed", "reset"]) {
    source.addEventListener(kind, ({ type, data }) => report(type, data));
  }
  return () => source.close();
};

/** Parses as simply as many programs do: each empty line ends an event. */
function simpleParser(report) {
  let rest = "";
  return (text) => {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
      report(field("event") ?? "message", field("data") ?? "");
    }
  };
}

// By name: (url, report) => close. `report` takes the type and the data of each event.
const CLIENTS = {
  eventsource: eventSource(NpmEventSource),
  "undici, EventSource": eventSource(undici.EventSource),
  "undici, fetch"(url, report) {
    const controller = new AbortController();
    const read = async () => {
      const { body } = await undici.fetch(url, { headers: ACCEPT, signal: controller.signal });
      const parse = simpleParser(report);
      for await (const text of body.pipeThrough(new TextDecoderStream())) parse(text);
    };
    read().catch((error) => controller.signal.aborted || report("error", `${error}`));
    return () => controller.abort();
  },
  "@microsoft/fetch-event-source"(url, report) {
    const controller = new AbortController();
    fetchEventSource.fetchEventSource(url, {
      signal: controller.signal,
      onmessage: ({ event, data }) => report(event || "message", data),
      onerror: (error) => report("error", `${error}`),
    });
    return () => controller.abort();
  },
};

/** Waits until a stream that begins now has got a heartbeat: so have all that began earlier. */
async function nextHeartbeat(url) {
  const [answer] = await once(http.get(url, { headers: ACCEPT }), "response");
  let text = "";
  answer.setEncoding("utf8").on("data", (chunk) => (text += chunk));
  await until(() => text.split("\n").includes(":"), "a heartbeat comes");
  answer.destroy();
}

/** Writes some messages, and checks that a client gets each before the next is written. */
async function checkClient(open, server, { endpoint = server.endpoints[0], silence } = {}) {
  const seen = [];
  const url = `${endpoint}read?channel=c`;
  const close = open(url, (type, data) => {
    const message = type === "message" && data ? JSON.parse(data).message : data;
    seen.push(`${type} ${message}`);
  });
  const expected = ["ready {}"];
  const came = () => until(() => seen.length >= expected.length, `${expected.at(-1)} comes`);
  try {
    await came();
    for (const text of ["one", "two", "", "y".repeat(5000)]) {
      await silence?.(`${server.endpoints[0]}read?channel=c`);
      await server.call("write", { channel: "c", message: text });
      expected.push(`message ${text}`);
      await came();
      assert.deepEqual(seen, expected);
    }
    await silence?.(`${server.endpoints[0]}read?channel=c`);
    assert.deepEqual(seen, expected);
  } finally {
    close();
  }
}

/** Starts a server that the test `t` stops. */
async function startFor(t, heartbeat) {
  const server = await startServer({ options: ["--heartbeat", heartbeat] });
  t.after(() => server.stop());
  return server;
}

for (const [name, open] of Object.entries(CLIENTS)) {
  test(`each event arrives at once (${name})`, async (t) => {
    // Without heartbeats: nothing but the event itself can make the client look.
    await checkClient(open, await startFor(t, "1h"));
  });

  test(`no heartbeat is an event (${name})`, async (t) => {
    await checkClient(open, await startFor(t, "100ms"), { silence: nextHeartbeat });
  });
}

/** Starts a proxy that compresses what may be compressed, as many programs in Node.js do. */
async function startCompressingProxy(target) {
  const compress = compression({ threshold: 0 });
  const proxy = http.createServer((request, response) => {
    compress(request, response, () => {
      const { headers, method } = request;
      const inner = http.request(target + request.url, { headers, method }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      request.pipe(inner);
      inner.on("error", () => response.destroy());
      response.on("close", () => inner.destroy());
    });
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return {
    endpoint: `http://127.0.0.1:${proxy.address().port}/`,
    stop() {
      proxy.closeAllConnections();
      proxy.close();
    },
  };
}

test("a middleware that compresses holds back neither the head nor an event", async (t) => {
  const server = await startFor(t, "1h");
  const proxy = await startCompressingProxy(server.endpoints[0].replace(/\/$/, ""));
  t.after(() => proxy.stop());
  const health = await undici.request(`${proxy.endpoint}health`, {
    headers: { "accept-encoding": "gzip" },
  });
  await health.body.dump();
  assert.equal(health.headers["content-encoding"], "gzip", "it compresses other answers");
  await checkClient(CLIENTS["undici, fetch"], server, { endpoint: proxy.endpoint });
});
