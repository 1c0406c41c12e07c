// docs/recipes.md: each recipe does what it says.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launchBrowser, startServer, until } from "../chromium/environment.mjs";
import { createProject } from "../npm/project.mjs";
import { blocks, NODE, start, startSite, withServer, writes } from "./page.mjs";

const all = blocks("docs/recipes.md");
const recipe = (heading, language) =>
  all.find((block) => block.heading === heading && block.language === language).text;

let project;
let server;
let browser;
let site;
let join;
before(async () => {
  project = createProject();
  server = await startServer();
  site = await startSite();
  browser = await launchBrowser();
  ({ join } = await import(`${project.installed}/index.js`));
});
after(async () => {
  await browser?.close();
  site?.stop();
  await server?.stop();
  project.remove();
});

/** Opens the page of a recipe. `change` is given its text. */
async function open(t, heading, change = (text) => text, on = server) {
  const page = await browser.newPage();
  t.after(() => page.close());
  const errors = [];
  page.on("pageerror", ({ message }) => errors.push(message));
  t.after(() => assert.deepEqual(errors, []));
  await page.goto(site.show(change(withServer(recipe(heading, "html"), on))));
  return page;
}

const goals = (page) => page.$eval("#goals", (output) => output.value);

/** Joins a room, and leaves it after the test. Returns the chat, with the texts that it got. */
function talk(t, room, options) {
  const chat = join(room, { server: server.endpoints[0], name: "Bob", ...options });
  t.after(() => chat.leave());
  const texts = [];
  chat.onmessage = ({ type, text }) => type === "message" && texts.push(text);
  return { chat, texts };
}

const isThere = ({ chat }, name) =>
  until(() => chat.members.find((one) => one.name === name), name);
const lines = (page, selector = "#log li") =>
  page.$$eval(selector, (items) => items.map((item) => item.textContent));
const classes = (page, selector) =>
  page.$$eval(selector, (items) => items.map((item) => [item.className, item.textContent]));
const state = (page) => page.evaluate(() => eval("chat").state.state);
const isConnected = (page) => until(async () => (await state(page)) === "connected", "connected");

test("no recipe is without a test", () => {
  const found = all.map(({ heading, language }) => `${language} ${heading}`);
  assert.deepEqual(found, [
    "js A bot in Node",
    "python A bot in Python",
    "js A live feed from a backend",
    "html A live feed from a backend",
    "html A look of one's own",
    "html A text that is not sent yet",
    "html While the server is away",
    "html The server started from scratch",
  ]);
  for (const heading of ["A bot in Node", "A bot in Python"]) {
    const text = recipe(heading, heading === "A bot in Node" ? "js" : "python");
    const count = text.split("\n").filter((line) => line.trim()).length;
    assert.ok(count <= 22, `${heading}: some twenty lines, not ${count}`);
  }
});

test("the bot in Node answers in the room and to whispers, and says goodbye", async (t) => {
  project.write("bot.js", withServer(recipe("A bot in Node", "js"), server));
  const bob = talk(t, "games");
  const bot = start([...NODE, "bot.js"], project.folder);
  t.after(() => bot.kill("SIGKILL"));
  const dice = await isThere(bob, "Dice");
  const eve = talk(t, "games", { name: "Eve" });
  await until(() => bob.texts.includes("Welcome, Eve! Try !roll"), "it greets");
  await bob.chat.say("!roll");
  await until(() => bob.texts.some((text) => /^Bob: [1-6]$/.test(text)), "it rolls");
  await eve.chat.whisper(dice, "!roll");
  await until(() => eve.texts.some((text) => /^[1-6]$/.test(text)), "it whispers");
  bot.kill("SIGTERM");
  assert.deepEqual(await bot.ended, [0, null], bot.errors());
});

test("the bot in Python answers, and comes back after a restart of the server", async (t) => {
  let own = await startServer();
  t.after(() => own.stop());
  project.write("bot.py", withServer(recipe("A bot in Python", "python"), own));
  const bob = talk(t, "games", { server: own.endpoints[0] });
  const arrivals = [];
  bob.chat.onmembers = (members) => {
    const echo = members.find(({ name }) => name === "Echo");
    // After the restart, its introduction has another id, or another time of being there.
    if (echo && echo.id !== arrivals.at(-1)) arrivals.push(echo.id);
  };
  await bob.chat.say("!echo too early");
  const bot = start(["python3", "bot.py"], project.folder);
  t.after(() => bot.kill("SIGKILL"));
  await isThere(bob, "Echo");
  await bob.chat.say("!echo hello");
  await until(() => bob.texts.includes("Bob says hello"), "it answers");
  await own.stop();
  own = await startServer({ ports: own.ports });
  await until(() => arrivals.length === 2, "it comes back");
  await bob.chat.say("!echo again");
  await until(() => bob.texts.includes("Bob says again"), "it answers again");
  assert.deepEqual(bob.texts.filter((text) => /early/.test(text)), ["!echo too early"]);
  assert.equal(bot.errors(), "");
});

test("a page shows what the backend publishes in the feed", async (t) => {
  const feed = await server.call("create", { kind: "feed" });
  const named = (text) => text.replace("~b…", feed.read);
  const page = await open(t, "A live feed from a backend", named);
  assert.equal(await goals(page), "0");
  project.write("backend.js", withServer(recipe("A live feed from a backend", "js"), server));
  const backend = start([...NODE, "backend.js"], project.folder, { FEED: feed.write });
  assert.deepEqual(await backend.ended, [0, null], backend.errors());
  await until(async () => (await goals(page)) === "2", "it shows the last one");
});

test("a page tells its own texts, those of others, whispers and notes apart", async (t) => {
  const page = await open(t, "A look of one's own");
  await isConnected(page);
  const bob = talk(t, "style");
  const ada = await isThere(bob, "Ada");
  await page.evaluate(() => eval("chat").say("howdy"));
  await bob.chat.say("hello");
  await bob.chat.whisper(ada, "psst");
  await until(async () => (await lines(page)).includes("Bob: psst"), "all arrives");
  const items = await classes(page, "#log li");
  assert.deepEqual(items, [
    ["note", "Ada is here"],
    ["note", "Bob is here"],
    ["own", "Ada: howdy"],
    ["", "Bob: hello"],
    ["whisper", "Bob: psst"],
  ]);
  const left = await page.$eval(".own", (item) => getComputedStyle(item).marginLeft);
  assert.notEqual(left, "0px");
});

test("a text is pending until it is sent, and one that failed is sent again", async (t) => {
  const own = await startServer({ options: ["--max-message", "40"] });
  let isStopped = false;
  t.after(() => isStopped || own.stop());
  const page = await open(t, "A text that is not sent yet", undefined, own);
  await isConnected(page);
  const say = async (text) => {
    await page.fill("#text", text);
    await page.press("#text", "Enter");
  };
  await say("howdy");
  await until(async () => (await lines(page)).includes("Ada: howdy"), "it is sent");
  await say("far too long for a server with such a limit");
  await until(() => page.$("#pending .failed button"), "it fails");
  await own.stop();
  isStopped = true;
  await until(async () => (await state(page)) === "waiting", "the page notices");
  await say("later");
  await page.click("#pending button");
  assert.deepEqual(await classes(page, "#pending li"), [
    ["sending", "later"],
    ["sending", "far too long for a server with such a limit"],
  ]);
  const back = await startServer({ ports: own.ports });
  t.after(() => back.stop());
  await until(async () => (await lines(page, "#pending li")).length === 0, "both are sent");
  const texts = (await lines(page)).slice(-2);
  assert.deepEqual(texts, ["Ada: later", "Ada: far too long for a server with such a limit"]);
});

test("a notice tells that the server is away, and goes when it is back", async (t) => {
  const own = await startServer();
  const page = await open(t, "While the server is away", undefined, own);
  await isConnected(page);
  assert.equal(await page.isHidden("#notice"), true);
  await own.stop();
  await until(() => page.isVisible("#notice"), "it appears");
  await until(async () => /Next try in \d+ s/.test(await page.textContent("#notice")), "a time");
  const back = await startServer({ ports: own.ports });
  t.after(() => back.stop());
  await until(() => page.isHidden("#notice"), "it goes");
  await page.evaluate(() => eval("chat").leave());
});

test("a page notices that the server started from scratch", async (t) => {
  const own = await startServer();
  const page = await open(t, "The server started from scratch", undefined, own);
  await isConnected(page);
  await page.evaluate(() => eval("chat").say("before"));
  await until(async () => (await lines(page)).length === 1, "it arrives");
  await own.stop();
  const back = await startServer({ ports: own.ports });
  t.after(() => back.stop());
  await page.evaluate(() => eval("chat").say("after"));
  await until(async () => (await lines(page)).length === 2, "it arrives as well");
  const all = await page.$$eval("#log > *", (items) => items.map((it) => it.textContent || "hr"));
  assert.deepEqual(all, ["Ada: before", "hr", "Ada: after"]);
});
