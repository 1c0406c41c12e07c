// Rooms with an owner, in the demo.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { events, joinRoom, member, openFixture, row, say } from "./fixture.mjs";

let fixture;
before(async () => (fixture = await openFixture()));
after(() => fixture.close());

const call = async (path, values) => {
  const body = new URLSearchParams(values);
  const response = await fetch(fixture.server.origin + path, { method: "POST", body });
  return response.json();
};
const fragment = (page) => page.evaluate(() => location.hash.slice(1));
const ownNames = (page) =>
  page.evaluate(() => JSON.parse(localStorage.getItem("speak-rooms") ?? "{}"));

/** Makes a room in the page of a member. Returns the names of the room. */
async function makeRoom(page) {
  await page.getByRole("button", { name: "Make a room of your own" }).first().click();
  await page.locator("#room-dialog[open]").waitFor();
  const channel = await fragment(page);
  assert.match(channel, /^~c[\w-]{22}$/);
  const owner = (await ownNames(page))[channel];
  assert.match(owner, /^~o[A-Za-z0-9]{22}$/);
  await page.getByRole("button", { name: "Close" }).click();
  await page.locator('[data-state="connected"]').waitFor();
  return { channel, owner };
}

/** Opens a room of the page's own, with this owner and these guests, each in its profile. */
async function openOwnRoom(owner, ...guests) {
  const page = await fixture.openRoom("lobby");
  await joinRoom(page, owner);
  const names = await makeRoom(page);
  const pages = [];
  for (const guest of guests) {
    const guestPage = await fixture.openRoom(names.channel);
    await joinRoom(guestPage, guest);
    pages.push(guestPage);
  }
  return [page, names, ...pages];
}

const removedRow = (page) =>
  page.locator("#messages .message").filter({ has: page.locator(".removed") });
const shownAddress = (page) => page.locator("#address").textContent();
const ownerActions = (page) => page.locator(".owner-action");

test("a user makes a room: the address is shared, and the owner's name stays in the browser", async () => {
  const [ann, { channel, owner }, bob] = await openOwnRoom("Ann", "Bob");
  await ann.locator("#room").getByText("Your room").waitFor();
  await bob.locator("#room").getByText("A room").waitFor();
  await say(ann, "welcome");
  await row(bob, "welcome").getByText("owner", { exact: true }).waitFor();
  await member(bob, "Ann").getByText("owner", { exact: true }).waitFor();

  // No address, and nothing that a page shows or that the guest has, is the owner's name.
  await ann.locator("#room").click();
  await ann.getByText("Put this room on your page").click();
  assert.equal(await shownAddress(ann), `${fixture.server.origin}/#${channel}`);
  assert.match(await ann.locator("#snippet").textContent(), new RegExp(`"${channel}"`));
  for (const page of [ann, bob]) {
    assert.ok(!page.url().includes("~o"));
    assert.ok(!(await page.content()).includes(owner));
    assert.ok(!(await page.title()).includes("~o"));
  }
  assert.deepEqual(await ownNames(bob), {});
  assert.equal(await ownerActions(bob).count(), 0);

  await ann.reload();
  await ann.locator("#room").getByText("Your room").waitFor();
  await row(ann, "welcome").waitFor();
  assert.equal(await fragment(ann), channel);
});

test("the owner's name is in the address of no request, over any transport", async () => {
  for (const missing of [[], ["WebSocket"], ["WebSocket", "EventSource"]]) {
    const page = await fixture.openRoom("lobby");
    await page.addInitScript((names) => names.forEach((name) => delete globalThis[name]), missing);
    const urls = [];
    page.on("request", (request) => urls.push(request.url()));
    page.on("websocket", (socket) => urls.push(socket.url()));
    await page.reload();
    await joinRoom(page, "Ann");
    const { owner } = await makeRoom(page);
    await joinRoomAgain(page);
    await say(page, "hello");
    await row(page, "hello").waitFor();
    const sent = urls.filter((url) => decodeURIComponent(url).includes(owner));
    assert.deepEqual(sent, []);
    const secrets = urls.filter((url) => /^ws/.test(url) && /auth|connection|~|%7E/i.test(url));
    assert.deepEqual(secrets, []);
    await page.context().close();
  }
});

const joinRoomAgain = (page) => member(page, "Ann").getByText("you", { exact: true }).waitFor();

test("the owner removes a message by keyboard, and it turns into a quiet line for everybody", async () => {
  const [ann, { channel }, bob] = await openOwnRoom("Ann", "Bob");
  await say(bob, "something bad");
  await say(bob, "something good");
  const remove = row(ann, "something bad").getByRole("button", { name: "Remove" });
  await remove.focus();
  await ann.keyboard.press("Enter");
  await ann.getByRole("button", { name: "Remove for all?" }).waitFor();
  await ann.keyboard.press("Escape");
  await ann.getByRole("button", { name: "Remove for all?" }).waitFor({ state: "detached" });
  await ann.keyboard.press("Enter");
  await ann.keyboard.press("Enter");
  for (const page of [ann, bob]) {
    await removedRow(page).getByText("Message removed").waitFor();
    assert.deepEqual(await page.locator("#messages .text").allTextContents(), ["something good"]);
    await removedRow(page).locator(".byline", { hasText: page === ann ? "Bob" : "You" }).waitFor();
  }
  assert.ok(await ann.locator("#scroller").evaluate((scroller) => scroller.matches(":focus")));
  const late = await fixture.openRoom(channel);
  await removedRow(late).getByText("Message removed").waitFor();
  assert.equal(await late.getByText("something bad").count(), 0);
});

test("the owner sends a member away: it learns why, and cannot come back for a time", async () => {
  const [ann, , bob] = await openOwnRoom("Ann", "Bob");
  await say(bob, "hello");
  await row(ann, "hello").waitFor();
  assert.equal(await member(ann, "Ann").locator(".owner-action").count(), 0);
  await member(ann, "Bob").getByRole("button", { name: "Send away" }).click();
  await member(ann, "Bob").getByRole("button", { name: "Ten minutes?" }).click();
  await events(ann, "Bob was sent away").waitFor();
  assert.equal(await member(ann, "Bob").count(), 0);
  await bob.getByText("The owner of this room sent you away.").waitFor();
  assert.equal(await bob.locator("#compose").isHidden(), true);
  await bob.reload();
  await bob.getByText("The owner of this room sent you away.").waitFor();
  await bob.getByRole("button", { name: "Come in" }).click();
  await bob.getByText("The owner of this room sent you away.").waitFor();
  // The owner has the same address in this test, and is not sent away.
  await say(ann, "quiet now");
  await row(ann, "quiet now").waitFor();
  assert.deepEqual(await ann.locator("#members .name").allTextContents(), ["Ann"]);
});

test("a name that is removed is no longer shown", async () => {
  const [ann, { owner }, bob] = await openOwnRoom("Ann", "Bad Name");
  await say(bob, "hello");
  await row(ann, "hello").waitFor();
  const { messages } = await call("/read", { channel: owner, from_id: 0, timeout: 0 });
  const { id } = messages.find(({ message }) => message?.startsWith("Bad Name"));
  await call("/remove", { channel: owner, id });
  await events(ann, "A name was removed").waitFor();
  await member(ann, "Guest").waitFor();
  assert.equal(await ann.getByText("Bad Name").count(), 0);
});

test("an address with an owner's name becomes the room's address, and the browser keeps the name", async () => {
  const { owner, channel } = await call("/create", { kind: "room" });
  const page = await fixture.openRoom(owner);
  await page.locator("#room").getByText("Your room").waitFor();
  assert.deepEqual([await fragment(page), await ownNames(page)], [channel, { [channel]: owner }]);
  await joinRoom(page, "Ann");
  await page.locator("#room").click();
  assert.equal(await shownAddress(page), `${fixture.server.origin}/#${channel}`);
  await page.getByRole("button", { name: "Close" }).click();
  await page.goBack().catch(() => {});
  assert.ok(!page.url().includes("~o"), "the history has no address with it");
});

test("if the browser keeps nothing, the room is the user's until the page closes", async () => {
  const page = await fixture.openRoom("lobby");
  await page.addInitScript(() =>
    Object.defineProperty(globalThis, "localStorage", {
      get() {
        throw new Error("SecurityError");
      },
    }),
  );
  await page.reload();
  await joinRoom(page, "Ann");
  await page.getByRole("button", { name: "Make a room of your own" }).first().click();
  await page.getByText("only until you close the page").waitFor();
  await page.locator("#room").getByText("Your room").waitFor();
});

test("a feed is read without a name, and nothing can be written to it", async () => {
  const { write, read } = await call("/create", { kind: "feed" });
  const page = await fixture.openRoom(read);
  await page.locator("#room").getByText("A feed").waitFor();
  await call("/write", { channel: write, message: "news" });
  await row(page, "news").waitFor();
  assert.equal(await page.locator("#join").isHidden(), true);
  assert.equal(await page.locator("#compose").isHidden(), true);
});

test("“Put this on your page” opens the dialog at the snippet", async () => {
  const page = await fixture.openRoom("embed");
  await page.getByRole("button", { name: "Put this on your page" }).click();
  await page.locator("#snippet").getByText('<speak-chat room="embed">').waitFor();
  assert.deepEqual(fixture.errors, []);
});
