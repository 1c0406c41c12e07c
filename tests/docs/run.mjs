// Runs the modules of the documentation one after the other, and prints the lines of each as JSON.
//
// run.mjs '[{"file":…,"at":…,"lines":…}]' TIMEOUT_MS
//
// `file` is the module and `at` its place in the documentation. A module ends after `lines` lines
// of output. If `lines` is null, it ends after its first line, or when it returns. After TIMEOUT_MS
// milliseconds without these lines, the run fails.
//
// Debian's node has no WebSocket and no EventSource yet. This file has the parts that the examples
// use.

import http from "node:http";
import { pathToFileURL } from "node:url";

class SmallWebSocket {
  #socket;
  #received = Buffer.alloc(0);

  constructor(address) {
    const headers = {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    };
    const request = http.get(address.replace(/^ws:/, "http:"), { headers });
    request.on("upgrade", (_, socket, head) => {
      this.#socket = socket;
      socket.on("data", (bytes) => this.#receive(bytes));
      this.onopen?.({});
      this.#receive(head);
    });
    request.on("response", ({ statusCode }) => {
      throw new Error(`expected a WebSocket, got status ${statusCode}`);
    });
  }

  send(text) {
    const bytes = Buffer.from(text);
    if (bytes.length > 125) throw new Error("the text is over 125 bytes: send a shorter one");
    // A mask of zeroes leaves the text as it is.
    this.#socket.write(
      Buffer.concat([Buffer.from([0x81, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]),
    );
  }

  close() {
    this.#socket.destroy();
  }

  #receive(bytes) {
    this.#received = Buffer.concat([this.#received, bytes]);
    while (this.#received.length >= 2) {
      const short = this.#received[1];
      const start = short === 126 ? 4 : 2;
      if (this.#received.length < start) return;
      const length = short === 126 ? this.#received.readUInt16BE(2) : short;
      if (this.#received.length < start + length) return;
      const data = this.#received.subarray(start, start + length).toString();
      const isText = (this.#received[0] & 15) === 1;
      this.#received = this.#received.subarray(start + length);
      if (isText) this.onmessage?.({ data });
    }
  }
}

class SmallEventSource extends EventTarget {
  #request;

  constructor(address) {
    super();
    const headers = { Accept: "text/event-stream" };
    this.#request = http.get(address, { headers }, (response) => {
      response.setEncoding("utf8");
      let text = "";
      response.on("data", (more) => {
        const blocks = (text + more).split("\n\n");
        text = blocks.pop();
        blocks.forEach((block) => this.#dispatch(block));
      });
      response.on("error", () => {});
    });
    this.#request.on("error", () => {});
  }

  close() {
    this.#request.destroy();
  }

  #dispatch(block) {
    const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
    if (fields.data === undefined) return;
    const values = { data: fields.data, lastEventId: fields.id };
    const event = Object.assign(new Event(fields.event ?? "message"), values);
    this.dispatchEvent(event);
    if (event.type === "message") this.onmessage?.(event);
  }
}

globalThis.WebSocket ??= SmallWebSocket;
globalThis.EventSource ??= SmallEventSource;

const [task, timeoutMs] = process.argv.slice(2);
const outputs = [];
const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));
for (const { file, at, lines } of JSON.parse(task)) {
  const printed = [];
  outputs.push(printed);
  console.log = (...values) => printed.push(values.map(asText).join(" "));
  let hasReturned = false;
  const end = import(pathToFileURL(file)).then(
    () => (hasReturned = true),
    (error) => {
      console.error(`${at}: ${error.stack}`);
      process.exit(1);
    },
  );
  const deadline = Date.now() + Number(timeoutMs);
  // An example that never returns has shown its purpose with its first line.
  const isDone = () => printed.length >= (lines ?? 1) || (hasReturned && lines === null);
  while (!isDone()) {
    if (Date.now() > deadline) {
      console.error(`${at}: timed out, having printed only ${JSON.stringify(printed)}`);
      process.exit(1);
    }
    await Promise.race([end, new Promise((resolve) => setTimeout(resolve, 5))]);
    if (hasReturned) await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
process.stdout.write(JSON.stringify(outputs), () => process.exit(0));
