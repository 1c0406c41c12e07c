// docs/client.md: each example does what the page says.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launchBrowser, startServer, until } from "../chromium/environment.mjs";
import { createProject } from "../npm/project.mjs";
import { blocks, NODE, start, startSite, withServer, writes } from "./page.mjs";

const PAGE = "docs/client.md";
const all = blocks(PAGE);
const scripts = all.filter(({ language }) => language === "js");
const pages = all.filter(({ language }) => language === "html");

let project;
let server;
let browser;
let site;
before(async () => {
  project = createProject();
  server = await startServer();
  site = await startSite();
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  site?.stop();
  await server?.stop();
  project.remove();
});

for (const [i, { text, output, heading, at }] of scripts.entries()) {
  test(`${heading}: the example writes what the page shows`, async () => {
    assert.ok(output, `${at} has an output`);
    project.write(`${i}.js`, withServer(text, server));
    await writes(start([...NODE, `${i}.js`], project.folder), output, at);
  });
}

for (const { text, heading, at } of pages) {
  test(`${heading}: the page at ${at} joins, and gets what is said`, async (t) => {
    const page = await browser.newPage();
    t.after(() => page.close());
    const lines = [];
    page.on("console", (message) => lines.push(message.text()));
    await page.goto(site.show(withServer(text, server)));
    await until(() => lines.includes("Ada Ada"), `${at}: ${lines}`);
  });
}

test("README: the sample asks for a name, talks, and keeps a text that is refused", async (t) => {
  const sample = blocks("README.md").find(({ text }) => text.includes("Speak.join("));
  const page = await browser.newPage();
  t.after(() => page.close());
  const dialogs = [];
  page.on("dialog", (dialog) => {
    dialogs.push(dialog.message());
    return dialog.accept("Ada");
  });
  await page.goto(site.show(withServer(sample.text, server)));
  const say = async (text) => {
    await page.fill("#text", text);
    await page.press("#text", "Enter");
  };
  await say("howdy");
  await until(async () => (await page.textContent("#log")) === "Ada: howdy", "it arrives");
  await page.evaluate(() => (document.getElementById("text").value = "x".repeat(70_000)));
  await page.press("#text", "Enter");
  await until(() => dialogs.length === 2, "it is refused");
  assert.equal(dialogs[0], "Your name?");
  assert.equal((await page.inputValue("#text")).length, 70_000);
});

test("every property and option of the types is on the page", () => {
  const types = readFileSync(new URL("../../../src/web/speak.d.ts", import.meta.url), "utf8");
  const found = types.matchAll(/^ {2}(?:readonly )?(\w+)\??[:(]/gm);
  const names = new Set(Array.from(found, ([, name]) => name));
  assert.ok(names.size > 40, "the names are found");
  const text = readFileSync(new URL(`../../../${PAGE}`, import.meta.url), "utf8");
  const missing = [...names].filter((name) => !new RegExp(`\\b${name}\\b`).test(text));
  assert.deepEqual(missing, []);
});
