// WebKitGTK, by WebDriver (https://www.w3.org/TR/webdriver2/): requests in JSON to the program
// WebKitWebDriver, which starts the browser. It needs a display.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { closedPort, until } from "../chromium/environment.mjs";
import { expressionOf } from "./evaluating.mjs";
import { startProgram } from "./programs.mjs";

const DRIVER = process.env.WEBKIT_DRIVER ?? "/usr/bin/WebKitWebDriver";

/** Starts a display without a screen. It chooses a number that is free. */
async function startDisplay() {
  const program = await startProgram(
    "Xvfb",
    () => ["-displayfd", "3", "-screen", "0", "800x600x24", "-nolisten", "tcp"],
    { stdio: ["ignore", "ignore", "ignore", "pipe"] },
  );
  const [number] = await once(createInterface({ input: program.child.stdio[3] }), "line");
  return { name: `:${number}`, stop: program.stop };
}

/** @type {import("./engines.mjs").Launch} */
export async function launch({ acceptsAnyCertificate = false } = {}) {
  const display = await startDisplay();
  const port = await closedPort();
  const program = await startProgram(
    DRIVER,
    () => ["--host=127.0.0.1", `--port=${port}`],
    { env: { DISPLAY: display.name } },
  );

  async function request(method, path, values) {
    const body = values && JSON.stringify(values);
    const response = await fetch(`http://127.0.0.1:${port}/session${path}`, { method, body });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${value.error}: ${value.message}`);
    return value;
  }
  await until(
    () => fetch(`http://127.0.0.1:${port}/status`).catch(() => {}),
    `${DRIVER} has started`,
  );
  const alwaysMatch = { acceptInsecureCerts: acceptsAnyCertificate };
  const { sessionId } = await request("POST", "", { capabilities: { alwaysMatch } });
  const session = `/${sessionId}`;

  // A session has one window to which its commands go. So they go one by one.
  let queue = Promise.resolve();
  const inOrder = (act) => {
    const result = queue.then(act);
    queue = result.catch(() => {});
    return result;
  };
  const inWindow = (handle, method, path, values) =>
    inOrder(async () => {
      await request("POST", `${session}/window`, { handle });
      return request(method, session + path, values);
    });

  // A command needs a window that is open, also the one for another window.
  const home = await request("GET", `${session}/window`);

  async function openPage() {
    const { handle } = await inWindow(home, "POST", "/window/new", { type: "window" });
    return {
      goTo: (url) => inWindow(handle, "POST", "/url", { url }),
      goBack: () => inWindow(handle, "POST", "/back", {}),
      reload: () => inWindow(handle, "POST", "/refresh", {}),
      close: () => inWindow(handle, "DELETE", "/window"),
      async run(callback, value) {
        const script = `const [done] = arguments;
          ${expressionOf(callback, value)}.then(
            (json) => done({ json }),
            (error) => done({ error: String(error) }));`;
        const path = "/execute/async";
        const { json, error } = await inWindow(handle, "POST", path, { script, args: [] });
        if (error) throw new Error(error);
        return JSON.parse(json);
      },
    };
  }

  /** No command takes the network away. So the tests' relay does, and the page gets the event. */
  const setOffline = (page, isOffline) =>
    page.run((name) => void dispatchEvent(new Event(name)), isOffline ? "offline" : "online");

  async function close() {
    await request("DELETE", session).catch(() => {}); // it may have ended
    await program.stop();
    await display.stop();
  }

  return { openPage, setOffline, pid: program.child.pid, close };
}
