// docs/examples: Vite builds each of them, and a visitor talks in it.

import assert from "node:assert/strict";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import http from "node:http";
import { extname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { launchBrowser, startServer, until } from "../chromium/environment.mjs";
import { createProject } from "../npm/project.mjs";

const EXAMPLES = fileURLToPath(new URL("../../../docs/examples/", import.meta.url));
const INSTALLED = fileURLToPath(new URL("../node_modules/", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript" };
const names = readdirSync(EXAMPLES).filter((name) => !extname(name));

let project;
let server;
let browser;
before(async () => {
  project = createProject();
  for (const name of ["react", "react-dom", "vue", "@vitejs/plugin-vue"]) {
    const path = join(project.folder, "node_modules", name);
    mkdirSync(join(path, ".."), { recursive: true });
    symlinkSync(join(INSTALLED, name), path);
  }
  // As their README says, with a limit that a text can exceed.
  server = await startServer({ options: ["--max-message", "100"] });
  process.env.VITE_SPEAK_SERVER = server.endpoints[0].slice(0, -1);
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  await server?.stop();
  project.remove();
});

/** Serves what Vite has built. Returns the address. */
async function serve(t, folder) {
  const site = http.createServer(({ url }, response) => {
    const path = join(folder, url === "/" ? "index.html" : url);
    response.setHeader("Content-Type", TYPES[extname(path)] ?? "text/plain");
    response.end(existsSync(path) ? readFileSync(path) : ""); // there is no icon
  });
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  t.after(() => site.close());
  return `http://127.0.0.1:${site.address().port}/`;
}

test("there are three examples", () => assert.deepEqual(names, ["plain", "react", "vue"]));

for (const name of names) {
  test(`${name}: a visitor joins, talks, keeps a refused text, and leaves`, async (t) => {
    const root = join(project.folder, name);
    cpSync(join(EXAMPLES, name), root, { recursive: true });
    await build({ root, logLevel: "error" });
    const page = await browser.newPage();
    const errors = [];
    page.on("pageerror", ({ message }) => errors.push(message));
    await page.goto(await serve(t, join(root, "dist")));
    await page.fill("[name=name]", name);
    await page.press("[name=name]", "Enter");
    const field = page.getByLabel("Message");
    const status = () => page.getByRole("status").textContent();
    await until(async () => (await status()) === "connected", "it connects");
    const members = async () => (await server.call("members", { channel: "examples" })).members;
    assert.deepEqual((await members()).map(({ message }) => message), [name]);

    await field.fill("howdy");
    await field.press("Enter");
    await server.call("write", { channel: "examples", message: `to ${name}` });
    const log = () => page.getByRole("log").textContent();
    await until(async () => (await log()).includes(`guest: to ${name}`), "all arrives");
    assert.match(await log(), new RegExp(`${name}: howdy`));

    await field.fill("x".repeat(101));
    await field.press("Enter");
    await until(() => page.getByRole("alert").textContent(), "it is refused");
    assert.equal((await field.inputValue()).length, 101);
    assert.deepEqual(errors, []);
    await page.close();
    await until(async () => (await members()).length === 0, "it leaves");
  });
}

test("react: the hook leaves with its component", async (t) => {
  const root = join(project.folder, "hook");
  cpSync(join(EXAMPLES, "react"), root, { recursive: true });
  const main = `
    import { createRoot } from "react-dom/client";
    import { useChat } from "./useChat.js";
    const server = import.meta.env.VITE_SPEAK_SERVER;
    function Chat() {
      return useChat("hook", { server, name: "Ada" }).members.length;
    }
    const root = createRoot(document.getElementById("root"));
    root.render(<Chat />);
    window.unmount = () => root.unmount();`;
  project.write("hook/main.jsx", main);
  await unmounts(t, root);
});

test("vue: the composable leaves with its component", async (t) => {
  const root = join(project.folder, "composable");
  cpSync(join(EXAMPLES, "vue"), root, { recursive: true });
  const main = `
    import { createApp, h } from "vue";
    import { useChat } from "./useChat.js";
    const server = import.meta.env.VITE_SPEAK_SERVER;
    const app = createApp({
      setup() {
        const { members } = useChat("hook", { server, name: "Ada" });
        return () => h("p", members.value.length);
      },
    });
    app.mount("#app");
    window.unmount = () => app.unmount();`;
  project.write("composable/main.js", main);
  await unmounts(t, root);
});

/** Asserts that the component is in the room while it is mounted, and leaves by a goodbye. */
async function unmounts(t, root) {
  await build({ root, logLevel: "error" });
  const page = await browser.newPage();
  t.after(() => page.close());
  await page.goto(await serve(t, join(root, "dist")));
  const shows = (text) => async () => (await page.textContent("body")).trim().startsWith(text);
  await until(shows("1"), "it is in the room");
  await page.evaluate(() => window.unmount());
  const reasons = async () => (await server.messages("hook")).map(({ reason }) => reason);
  await until(async () => (await reasons()).at(-1) === "left", "it says goodbye");
}
