// docs/element.md is true: its examples run, and its tables are those of the code.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { until } from "../chromium/environment.mjs";
import { bubble, comeIn, connected, openFixture, say } from "./fixture.mjs";

const root = new URL("../../../", import.meta.url);
const page = (path) => readFileSync(new URL(path, root), "utf8");
const ELEMENT = page("docs/element.md");
const examples = (text) =>
  Array.from(text.matchAll(/```html\n(.*?)```/gs), ([, html]) => html).filter((html) =>
    html.includes("<speak-chat"),
  );
const CHAT = "https://chat.example.org/";
const INLINE = "default-src * data: ws:; script-src * 'unsafe-inline'; style-src 'unsafe-inline'";

let fixture;
before(async () => (fixture = await openFixture()));
after(() => fixture.close());

const call = (path, values) => fixture.server.call(path, values);
const write = (channel, message) => call("write", { channel, message });
const open = (html, policy) =>
  fixture.openPage({ body: html.replaceAll(CHAT, "CHAT"), policy });
const own = (chat) => chat.locator("#members").getByText("you", { exact: true }).waitFor();
const css = (locator, property) =>
  locator.evaluate((one, property) => getComputedStyle(one)[property], property);

/** What each example is for, in the order of the page. */
const CHECKS = [
  async function aLineIsAChat(chat) {
    await comeIn(chat, "Josh");
    await say(chat, "howdy");
    await bubble(chat, "howdy").waitFor();
    assert.equal((await call("members", { channel: "gardeners" })).members.length, 1);
  },
  async function anAttributeMoves(chat) {
    await own(chat);
    await chat.locator("select").selectOption("sales");
    const members = async () => (await call("members", { channel: "sales" })).members.length;
    await until(async () => (await members()) === 1, "the visitor moves");
  },
  async function aPageSpeaks(chat) {
    await own(chat);
    await chat.getByRole("button", { name: "Greet" }).click();
    await bubble(chat, "Good morning!").waitFor();
  },
  async function aBookmarkHasTheSecret(chat) {
    await connected(chat);
    assert.equal(await chat.locator("speak-chat").evaluate((club) => club.owner), null);
  },
  async function aPageCountsAndFilters(chat) {
    await own(chat);
    for (const text of ["Cheap watches!", "hello"]) await write("salon", text);
    await bubble(chat, "hello").waitFor();
    assert.equal(await chat.locator("#messages .text").count(), 1);
    assert.equal(await chat.locator("output").textContent(), "1");
  },
  async function aPageStyles(chat) {
    await connected(chat);
    const element = chat.locator("speak-chat");
    assert.equal(await css(element, "height"), "384px");
    assert.match(await css(element, "fontFamily"), /Georgia/);
    const send = chat.getByRole("button", { name: "Send" });
    assert.equal(await css(send, "backgroundColor"), "rgb(138, 59, 18)");
    await write("styled", "hello");
    assert.match(await css(bubble(chat, "hello"), "boxShadow"), /1px 2px/);
    assert.equal(await chat.locator("#people").isVisible(), false);
  },
  async function slotsReplace(chat) {
    await connected(chat);
    await chat.getByRole("heading", { name: "Kitchen talk" }).waitFor();
    await chat.getByText("Ask us anything about bread.").waitFor();
    assert.equal(await chat.getByText("It is quiet in here.").isVisible(), false);
  },
];

const found = examples(ELEMENT);
test("each example has its check", () => assert.equal(found.length, CHECKS.length));
for (const [i, html] of found.entries()) {
  test(`example ${i + 1} is true: ${CHECKS[i]?.name}`, async () => {
    await CHECKS[i](await open(html, INLINE));
  });
}

test("README.md has the first example", () => {
  assert.deepEqual(examples(page("README.md")), [found[0]]);
});

test("the policy is enough", async () => {
  const [, policy] = ELEMENT.match(/^Content-Security-Policy: (.*)$/m);
  const chat = fixture.server.endpoints[0].slice(0, -1);
  const direct = "127.0.0.1:7732";
  const here = policy
    .replaceAll("chat.example.org:7732", direct)
    .replaceAll("chat.example.org", new URL(chat).host)
    .replace(/(http|ws)s:/g, "$1:");
  const visitor = await open(found[0], `${here}; img-src data:`);
  await comeIn(visitor, "Mia");
  assert.deepEqual(fixture.errors, []);
});

test("the tables have all variables, and parts, slots and events that exist", () => {
  const folder = new URL("src/web/element/", root);
  const source = readdirSync(folder)
    .map((name) => readFileSync(new URL(name, folder), "utf8"))
    .join("");
  const told = (title, pattern = /`([\w-]+)`/g) => {
    const rows = new RegExp(`^\\| ${title} \\|.*\\n\\| --- .*\\n((\\|.*\\n)+)`, "m");
    const [, table] = ELEMENT.match(rows);
    const cells = table.split("\n").map((row) => row.split(" | ")[0]);
    return new Set(cells.flatMap((cell) => Array.from(cell.matchAll(pattern), ([, name]) => name)));
  };
  const inCode = (pattern) => new Set(Array.from(source.matchAll(pattern), ([, name]) => name));
  assert.deepEqual([...told("variable")].sort(), [...inCode(/var\((--speak-[\w-]+)/g)].sort());
  assert.deepEqual([...told("slot")].sort(), [...inCode(/slot\(\s*"(\w+)"/g)].sort());
  const parts = inCode(/"([\w-]+(?: [\w-]+)*)"/g);
  const known = new Set([...parts].flatMap((names) => names.split(" ")));
  for (const name of told("`::part\\(\\)`")) assert.ok(known.has(name), name);
  const events = ["message", "removal", "members", "state", "missed", "error"]; // of speak.js
  assert.deepEqual([...told("event")].sort(), events.map((kind) => `speak-${kind}`).sort());
});
