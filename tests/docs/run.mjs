// Runs modules one after the other, each until it has printed so many lines, and prints what each of them printed.
//
// run.mjs '[{"file":…,"at":…,"lines":…}]' MILLISECONDS
//
// Debian's node is older than its WebSocket and EventSource: what the examples use of them is here.

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
      socket.on("data", (bytes) => this.#take(bytes));
      this.onopen?.({});
      this.#take(head);
    });
    request.on("response", ({ statusCode }) => {
      throw new Error(`no WebSocket, but ${statusCode}`);
    });
  }

  send(text) {
    const bytes = Buffer.from(text);
    if (bytes.length > 125) throw new Error("too long for this little of a WebSocket");
    // A mask of zeroes changes nothing.
    this.#socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]));
  }

  close() {
    this.#socket.destroy();
  }

  #take(bytes) {
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
    this.#request = http.get(address, { headers: { Accept: "text/event-stream" } }, (answer) => {
      answer.setEncoding("utf8");
      let text = "";
      answer.on("data", (more) => {
        const blocks = (text + more).split("\n\n");
        text = blocks.pop();
        blocks.forEach((block) => this.#tell(block));
      });
      answer.on("error", () => {});
    });
    this.#request.on("error", () => {});
  }

  close() {
    this.#request.destroy();
  }

  #tell(block) {
    const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
    if (fields.data === undefined) return;
    const event = Object.assign(new Event(fields.event ?? "message"), { data: fields.data, lastEventId: fields.id });
    this.dispatchEvent(event);
    if (event.type === "message") this.onmessage?.(event);
  }
}

globalThis.WebSocket ??= SmallWebSocket;
globalThis.EventSource ??= SmallEventSource;

const [task, patience] = process.argv.slice(2);
const all = [];
for (const { file, at, lines } of JSON.parse(task)) {
  const printed = [];
  all.push(printed);
  console.log = (...values) =>
    printed.push(values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))).join(" "));
  let isOver = false;
  const end = import(pathToFileURL(file)).then(
    () => (isOver = true),
    (error) => {
      console.error(`${at}: ${error.stack}`);
      process.exit(1);
    },
  );
  const deadline = Date.now() + Number(patience);
  // An example that goes on for ever has shown what it does with its first line.
  const isDone = () => printed.length >= (lines ?? 1) || (isOver && lines === null);
  while (!isDone()) {
    if (Date.now() > deadline) {
      console.error(`${at}: printed ${JSON.stringify(printed)} and nothing more`);
      process.exit(1);
    }
    await Promise.race([end, new Promise((wake) => setTimeout(wake, 5))]);
    if (isOver) await new Promise((wake) => setTimeout(wake, 5));
  }
}
process.stdout.write(JSON.stringify(all), () => process.exit(0));
