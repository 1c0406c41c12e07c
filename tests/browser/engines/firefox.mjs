// Firefox, by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/): commands and answers in JSON
// over a WebSocket, without a program in between.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { WebSocket } from "undici"; // Node 20 has none
import { expressionOf } from "./evaluating.mjs";
import { startProgram } from "./programs.mjs";

const FIREFOX = process.env.FIREFOX ?? "/usr/bin/firefox-esr";

/** Connects to a browser. Returns a function that sends a command, and returns its result. */
async function connect(address) {
  const socket = new WebSocket(address);
  await once(socket, "open");
  const waiting = new Map();
  let count = 0;
  socket.onmessage = ({ data }) => {
    const { id, type, error, message, result } = JSON.parse(data);
    const answer = waiting.get(id);
    if (!answer) return; // an event
    waiting.delete(id);
    if (type === "success") answer.resolve(result);
    else answer.reject(new Error(`${error}: ${message}`));
  };
  socket.onclose = () => {
    for (const { reject } of waiting.values()) reject(new Error("Firefox ended"));
  };
  return (method, params) =>
    new Promise((resolve, reject) => {
      waiting.set(++count, { resolve, reject });
      socket.send(JSON.stringify({ id: count, method, params }));
    });
}

/** @type {import("./engines.mjs").Launch} */
export async function launch({ acceptsAnyCertificate = false } = {}) {
  const program = await startProgram(FIREFOX, (folder) => [
    ...["--headless", "--no-remote", "--profile", folder],
    ...["--remote-debugging-port", "0"],
  ]);
  let address;
  for await (const line of createInterface({ input: program.child.stderr })) {
    if ((address = line.match(/BiDi listening on (ws:\S+)/)?.[1])) break;
  }
  if (!address) throw new Error(`${FIREFOX} did not start`);
  program.child.stderr.resume();
  const command = await connect(`${address}/session`);
  const alwaysMatch = { acceptInsecureCerts: acceptsAnyCertificate };
  await command("session.new", { capabilities: { alwaysMatch } });

  async function openPage() {
    // Pages in windows of their own are all visible.
    const { context } = await command("browsingContext.create", { type: "window" });
    return {
      context,
      goTo: (url) => command("browsingContext.navigate", { context, url, wait: "complete" }),
      goBack: () => command("browsingContext.traverseHistory", { context, delta: -1 }),
      reload: () => command("browsingContext.reload", { context, wait: "complete" }),
      close: () => command("browsingContext.close", { context }),
      async run(callback, value) {
        const { result, exceptionDetails } = await command("script.evaluate", {
          expression: expressionOf(callback, value),
          target: { context },
          awaitPromise: true,
        });
        if (exceptionDetails) throw new Error(exceptionDetails.text);
        return JSON.parse(result.value);
      },
    };
  }

  const setOffline = (page, isOffline) =>
    command("emulation.setNetworkConditions", {
      networkConditions: isOffline ? { type: "offline" } : null,
      contexts: [page.context],
    });

  return { openPage, setOffline, pid: program.child.pid, close: program.stop };
}
