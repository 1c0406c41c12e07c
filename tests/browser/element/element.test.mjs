// <speak-chat> on a page of another site, with a strict policy.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startServer, until } from "../chromium/environment.mjs";
import { bubble, comeIn, connected, line, openFixture, RECORD, say } from "./fixture.mjs";

let fixture;
before(async () => (fixture = await openFixture()));
after(() => fixture.close());

const member = (page, name) => page.locator("#members li").filter({ hasText: name });
const names = (page) => page.locator("#members .name").allTextContents();
const openRoom = (room, { attributes = "", ...content } = {}, options) =>
  fixture.openPage({ body: line(room, attributes), ...content }, options);
const write = (channel, message) => fixture.server.call("write", { channel, message });

test("one line makes a chat: two visitors give their names and talk", async () => {
  const josh = await openRoom("talk");
  await comeIn(josh, "Josh");
  const mia = await openRoom("talk");
  await member(mia, "Josh").waitFor(); // the room can be read without a name
  await comeIn(mia, "Mia");
  await say(josh, "howdy");
  await bubble(mia, "howdy").waitFor();
  await say(mia, "hello Josh");
  await bubble(josh, "hello Josh").waitFor();
  await josh.locator("#messages .events", { hasText: "Mia came in" }).waitFor();
  for (const page of [josh, mia]) {
    assert.deepEqual(await page.locator("#messages .text").allTextContents(), [
      "howdy",
      "hello Josh",
    ]);
    await page.locator("#outbox li").waitFor({ state: "detached" });
  }
  await member(josh, "Mia").getByRole("button").click();
  await say(josh, "psst");
  await mia.locator("#messages .private .text").getByText("psst", { exact: true }).waitFor();
  await mia.reload();
  await member(mia, "Mia").getByText("you", { exact: true }).waitFor(); // the name is remembered
});

test("what others write is text: no markup, no script, and only web addresses are links", async () => {
  const nasty = `<img src=x onerror="window.hit=1"><b>bold</b> https://example.org/a javascript:x`;
  const josh = await openRoom("markup", { attributes: 'name="Josh"' });
  await connected(josh);
  await write("markup", nasty);
  const text = josh.locator("#messages .text");
  await text.waitFor();
  assert.equal(await text.textContent(), nasty);
  assert.deepEqual(await text.locator("*").evaluateAll((all) => all.map((one) => one.href)), [
    "https://example.org/a",
  ]);
  assert.equal(await josh.evaluate(() => window.hit), undefined);
});

/** The types of what a room retains of its members' coming and going. */
const comings = async (room) =>
  (await fixture.server.messages(room))
    .filter(({ type }) => type !== "message")
    .map(({ type, reason = "" }) => `${type} ${reason}`.trim());
const cameAndWent = (room, reason) =>
  until(async () => `${await comings(room)}` === `introduction,goodbye ${reason}`, "a goodbye");

test("the attribute room moves: the others see the visitor go, and old messages are gone", async () => {
  const josh = await openRoom("one", { attributes: 'name="Josh"' });
  await member(josh, "Josh").waitFor();
  await write("one", "in one");
  await bubble(josh, "in one").waitFor();
  await josh.evaluate(() => {
    const element = document.querySelector("speak-chat");
    element.room = "two & a half"; // what one task sets is done at once
    element.setAttribute("name", "Joshua");
  });
  await cameAndWent("one", "left");
  await member(josh, "Joshua").waitFor();
  assert.deepEqual(await comings("two & a half"), ["introduction"]);
  assert.equal(await josh.locator("#messages .text").count(), 0);
  await josh.getByRole("heading", { name: "two & a half" }).waitFor();
});

test("the attribute name names the visitor, renames, and cannot be changed in the chat", async () => {
  const josh = await openRoom("named", { attributes: 'name="Josh"' });
  await member(josh, "Josh").getByText("you", { exact: true }).waitFor();
  assert.equal(await josh.locator("#join").isHidden(), true);
  assert.equal(await member(josh, "Josh").getByRole("button").isDisabled(), true);
  await josh.evaluate(() => (document.querySelector("speak-chat").name = "Joshua"));
  await member(josh, "Joshua").waitFor();
  assert.equal(await member(josh, "Josh").count(), 1);
  assert.deepEqual(await comings("named"), ["introduction", "introduction"], "none went");
  assert.equal(await josh.evaluate(() => localStorage.getItem("speak-name")), null);
});

test("an element that is removed leaves; one that moves in the page stays; one that is back joins", async () => {
  const josh = await openRoom("moved", { attributes: 'name="Josh"' });
  await member(josh, "Josh").waitFor();
  await josh.evaluate(async () => {
    window.element = document.querySelector("speak-chat");
    document.body.prepend(window.element);
  });
  await say(josh, "still here");
  await bubble(josh, "still here").waitFor();
  assert.deepEqual(await comings("moved"), ["introduction"]);
  await josh.evaluate(() => window.element.remove());
  await cameAndWent("moved", "left");
  await josh.evaluate(() => document.body.append(window.element));
  await member(josh, "Josh").waitFor();
  await bubble(josh, "still here").waitFor();
});

test("two elements on one page are two chats, also in one room", async () => {
  const page = await fixture.openPage({ body: line("left", 'name="Josh"') + line("right") });
  const [left, right] = [0, 1].map((i) => page.locator("speak-chat").nth(i));
  await comeIn(right, "Mia");
  for (const [element, name] of [[left, "Josh"], [right, "Mia"]]) {
    await say(element, `from ${name}`);
    await bubble(element, `from ${name}`).waitFor();
    assert.deepEqual(await names(element), [name]);
    assert.equal(await element.locator("#messages .text").count(), 1);
  }
  const twins = await fixture.openPage({
    body: line("twins", 'name="Ada"') + line("twins", 'name="Ada"'),
  });
  const [one, two] = [0, 1].map((i) => twins.locator("speak-chat").nth(i));
  await say(one, "hello");
  await bubble(two, "hello").waitFor();
  await say(two, "hello to you");
  await bubble(one, "hello to you").waitFor();
  for (const twin of [one, two]) assert.equal(await twin.locator("#messages .text").count(), 2);
  await twins.evaluate(() => document.querySelector("speak-chat").remove());
  await say(two.or(twins.locator("speak-chat")).first(), "alone");
  await twins.locator("#messages .text").getByText("alone", { exact: true }).waitFor();
});

test("a page hears of everything, and keeps messages out of the log", async () => {
  const script = `${RECORD}
    document.addEventListener("speak-message", (event) => {
      if (/spam/.test(event.detail.text)) event.preventDefault();
    });`;
  const josh = await openRoom("heard", { attributes: 'name="Josh"', script });
  await member(josh, "Josh").waitFor();
  for (const text of ["spam, spam", "howdy"]) await write("heard", text);
  await bubble(josh, "howdy").waitFor();
  assert.equal(await josh.locator("#messages .text").count(), 1);
  const seen = (kind) =>
    josh.evaluate((kind) => window.seen.filter((one) => one.kind === kind), kind);
  const messages = (await seen("message")).map(({ type, text, room }) => [type, text, room]);
  assert.deepEqual(messages, [
    ["introduction", "Josh", "heard"],
    ["message", "spam, spam", "heard"],
    ["message", "howdy", "heard"],
  ]);
  assert.equal((await seen("state")).at(-1).state, "connected");
  assert.equal((await seen("members")).at(-1)[0].name, "Josh");
  await josh.evaluate(() => document.querySelector("speak-chat").chat.say("by the page"));
  await josh.locator("#messages .own .text").getByText("by the page").waitFor();
});

test("a text that is refused says why, and can be tried again or discarded", async () => {
  const josh = await openRoom("refused", { attributes: 'name="Josh"' });
  await connected(josh);
  await say(josh, "x".repeat(70_000));
  const failed = josh.locator("#outbox .failed");
  await failed.getByRole("alert").getByText("Not sent. The server says:").waitFor();
  await failed.getByRole("button", { name: "Try again" }).click();
  await failed.getByRole("alert").waitFor();
  await failed.getByRole("button", { name: "Discard" }).click();
  assert.equal(await josh.locator("#outbox li").count(), 0);
});

test("while the server is away, texts wait; when it is back, they are sent", async () => {
  const server = await startServer();
  const [chat] = server.endpoints;
  const josh = await openRoom("away", { attributes: 'name="Josh"', chat });
  await member(josh, "Josh").waitFor();
  await server.stop();
  await josh.getByText("The server is out of reach.").waitFor();
  await say(josh, "meanwhile");
  await josh.locator("#outbox .note").getByText("Sending …").waitFor();
  const restarted = await startServer({ ports: server.ports });
  await bubble(josh, "meanwhile").waitFor();
  await josh.locator("#outbox li").waitFor({ state: "detached" });
  await josh.locator("#notice").waitFor({ state: "hidden" });
  await restarted.stop();
});

test("the attribute src names another server", async () => {
  const other = await startServer();
  const [address] = other.endpoints;
  const own = "default-src 'none'; img-src data:";
  const policy = `${own}; script-src ${fixture.server.endpoints[0]}; connect-src * ws:`;
  const josh = await openRoom("other", { attributes: `name="Josh" src="${address}"`, policy });
  await member(josh, "Josh").waitFor();
  assert.equal((await other.comings("other")).length, 1);
  assert.deepEqual(await fixture.server.comings("other"), []);
  await other.stop();
});

test("if speak.js cannot be loaded, the element says so, and tries again", async () => {
  let isThere = false;
  const josh = await fixture.openPage({ body: "" });
  await josh.route("**/speak.js", (route) => (isThere ? route.continue() : route.abort()));
  const [chat] = fixture.server.endpoints;
  await josh.evaluate((src) => {
    document.head.append(Object.assign(document.createElement("script"), { src }));
    document.body.append(document.createElement("speak-chat"));
  }, `${chat}speak-chat.js`);
  await josh.getByText("The server is out of reach.").waitFor();
  isThere = true;
  await connected(josh);
});

test("the owner of a room removes messages and sends members away", async () => {
  const { owner, channel } = await fixture.server.call("create", { kind: "room" });
  const ann = await openRoom(owner, { attributes: 'name="Ann"' });
  const bob = await openRoom(channel);
  await comeIn(bob, "Bob");
  await say(bob, "bad");
  const row = ann.locator("#messages .message").filter({ hasText: "bad" });
  await row.getByRole("button", { name: "Remove" }).click();
  await row.getByRole("button", { name: "Remove for all?" }).click();
  await bob.locator("#messages .removed").getByText("Message removed").waitFor();
  assert.equal(await bob.locator(".owner-action").count(), 0);
  await member(ann, "Bob").getByRole("button", { name: "Send away" }).click();
  await member(ann, "Bob").getByRole("button", { name: "Ten minutes?" }).click();
  await bob.getByText("The owner of this room sent you away.").waitFor();
  assert.equal(await bob.locator("#compose").isHidden(), true);
});

test("the property owner makes an owner of a room's name, and is no part of the document", async () => {
  const { owner, channel } = await fixture.server.call("create", { kind: "room" });
  // The script of the page runs before the one of the element, which upgrades it.
  const body = line(channel, 'name="Ann"').replace("async", "defer");
  const script = `document.querySelector("speak-chat").owner = "${owner}";`;
  const ann = await fixture.openPage({ body, script });
  await member(ann, "Ann").waitFor();
  await say(ann, "welcome");
  await ann.locator("#messages .message").filter({ hasText: "welcome" })
    .getByText("owner", { exact: true }).waitFor();
  assert.ok(!(await ann.content()).includes(owner));
});

test("a feed is read without a name", async () => {
  const { write: secret, read } = await fixture.server.call("create", { kind: "feed" });
  const page = await openRoom(read);
  await connected(page);
  await write(secret, "news");
  await bubble(page, "news").waitFor();
  assert.equal(await page.locator("form:visible").count(), 0);
});

test("variables, parts, slots and color-scheme style it", async () => {
  const style = `
    speak-chat { --speak-accent: rgb(1, 2, 3); color-scheme: dark; height: 300px; }
    speak-chat::part(text) { background: rgb(4, 5, 6); }
    speak-chat::part(people) { display: none; }`;
  const body = line("styled", 'name="Josh"').replace(
    "</speak-chat>",
    '<h3 slot="header">Support</h3></speak-chat>',
  );
  const page = await fixture.openPage({ body, style }, { colorScheme: "light" });
  await page.getByRole("heading", { name: "Support" }).waitFor();
  await connected(page);
  await write("styled", "howdy");
  const css = (locator, property) =>
    locator.evaluate((one, property) => getComputedStyle(one)[property], property);
  assert.equal(await css(bubble(page, "howdy"), "backgroundColor"), "rgb(4, 5, 6)");
  const send = page.getByRole("button", { name: "Send" });
  assert.equal(await css(send, "backgroundColor"), "rgb(1, 2, 3)");
  assert.equal(await css(page.locator("speak-chat"), "backgroundColor"), "rgb(20, 24, 26)");
  assert.equal(await css(page.locator("speak-chat"), "height"), "300px");
  assert.equal(await page.locator("#people").isVisible(), false);
  assert.equal(await page.getByRole("heading", { name: "styled" }).isVisible(), false);
});

test("an element that a page shows later has its usual field, and hidden members leave no gap", async () => {
  const style = "speak-chat::part(people) { display: none; }";
  const page = await openRoom("popup", { attributes: 'name="Josh" hidden', style });
  const element = page.locator("speak-chat");
  await until(() => element.evaluate((chat) => chat.chat?.state.state === "connected"), "it joins");
  await element.evaluate((chat) => (chat.hidden = false));
  const box = (locator) => locator.boundingBox();
  assert.ok((await box(page.locator("textarea"))).height > 30);
  const [frame, log] = [await box(element), await box(page.locator("#main"))];
  assert.ok(frame.x + frame.width - log.x - log.width < 30, "the log goes to the end");
});

test("a policy with a nonce and no addresses of scripts is enough", async () => {
  const policy = "default-src 'none'; img-src data:; script-src 'nonce-abc'; connect-src * ws:";
  const body = line("nonce", 'name="Josh"').replace("<script", '<script nonce="abc"');
  const page = await fixture.openPage({ body, policy });
  await member(page, "Josh").waitFor();
});

test("a page with Trusted Types may have it, if it loads speak.js itself", async () => {
  const policy =
    "default-src 'none'; img-src data:; script-src http:; connect-src * ws:; "
    + "require-trusted-types-for 'script'; trusted-types 'none'";
  const body = `<script src="CHATspeak.js"></script>${line("trusted", 'name="Josh"')}`;
  const page = await fixture.openPage({ body, policy });
  await member(page, "Josh").waitFor();
  await say(page, "howdy <b>Mia</b>");
  await bubble(page, "howdy <b>Mia</b>").waitFor();
});

// The last test, because it checks all pages of the tests before.
test("no page reported an error, or something that its policy forbids", () => {
  assert.deepEqual([...new Set(fixture.errors)], []);
});
