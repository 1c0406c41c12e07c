// Members use the demo, and see each other in it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  events,
  joinRoom,
  member,
  openFixture,
  row,
  say,
  setHidden,
  startServer,
} from "./fixture.mjs";
import { until } from "../chromium/environment.mjs";

let fixture;
before(async () => (fixture = await openFixture()));
after(() => fixture.close());

const waitForTitle = (page, title) =>
  page.waitForFunction((title) => document.title === title, title);

test("two members talk", async () => {
  const josh = await fixture.openRoom("talk");
  await joinRoom(josh, "Josh");
  const mia = await fixture.openRoom("talk");
  await member(mia, "Josh").waitFor(); // a page shows the members before it has a name
  await joinRoom(mia, "Mia");
  await events(josh, "Mia came in").waitFor();

  await say(josh, "howdy");
  await row(mia, "howdy").getByText("Josh", { exact: true }).waitFor();
  await say(mia, "hello Josh");
  await row(josh, "hello Josh").getByText("Mia", { exact: true }).waitFor();

  await row(josh, "howdy").getByText("You", { exact: true }).waitFor();
  for (const page of [josh, mia]) {
    assert.deepEqual(await page.locator("#messages .text").allTextContents(), [
      "howdy",
      "hello Josh",
    ]);
    await page.locator("#outbox").locator("li").waitFor({ state: "detached" });
  }
  assert.match(
    await josh.locator("#detail").textContent(),
    new RegExp(`^websocket · 127\\.0\\.0\\.1:${fixture.server.port} · \\d+ ms$`),
  );
});

test("a new page shows older messages once, and its name is remembered", async () => {
  const josh = await fixture.openRoom("history");
  await joinRoom(josh, "Josh");
  await say(josh, "first words");
  await row(josh, "first words").waitFor();

  const ann = await fixture.openRoom("history");
  await row(ann, "first words").waitFor();
  await joinRoom(ann, "Ann");
  await say(ann, "second words");
  await row(ann, "second words").waitFor();
  assert.deepEqual(await ann.locator("#messages .text").allTextContents(), [
    "first words",
    "second words",
  ]);

  await ann.reload();
  await member(ann, "Ann").getByText("you", { exact: true }).waitFor();
  assert.equal(await ann.locator("#join").isHidden(), true);
});

test("HTML and script are text, and only web addresses are links", async () => {
  const josh = await fixture.openRoom("markup");
  await joinRoom(josh, "<i>Josh</i>");
  const mia = await fixture.openRoom("markup");
  const nasty = `<img src=x onerror="window.hit=1"><script>window.hit=1</script> & <b>bold</b>`;
  await say(josh, nasty);
  await row(mia, nasty).getByText("<i>Josh</i>", { exact: true }).waitFor();
  assert.equal(await mia.locator("#messages .text *").count(), 0);
  assert.equal(
    await mia.locator("i, #messages img, #messages script, #messages .text b").count(),
    0,
  );
  assert.equal(await mia.evaluate(() => window.hit), undefined);

  await say(josh, "javascript:alert(1) https://example.org/a?b=c. data:text/html,x http://[broken");
  const link = mia.locator("#messages a");
  await link.waitFor();
  assert.deepEqual(await link.evaluateAll((all) => all.map(({ href, rel }) => [href, rel])), [
    ["https://example.org/a?b=c", "noopener noreferrer"],
  ]);
});

test("a member without a name, or with a blank one, is shown as Guest, and hides no others", async () => {
  const josh = await fixture.openRoom("nameless");
  await joinRoom(josh, "Josh");
  for (const name of ["", " ", "\n~w1", "\u00a0\nlobby"]) {
    const body = new URLSearchParams({ channel: "nameless", message: name });
    const { connection, auth } = await (
      await fetch(`${fixture.server.origin}/introduce`, { method: "POST", body })
    ).json();
    await josh.locator("#member-count").getByText("2 here", { exact: true }).waitFor();
    await member(josh, "Guest").waitFor();
    const values = { channel: "nameless", message: `by ${connection}`, connection, auth };
    await fetch(`${fixture.server.origin}/write`, {
      method: "POST",
      body: new URLSearchParams(values),
    });
    await row(josh, `by ${connection}`).getByText("Guest", { exact: true }).waitFor();
    await fetch(`${fixture.server.origin}/goodbye`, {
      method: "POST",
      body: new URLSearchParams({ connection, auth }),
    });
    await josh.locator("#member-count").getByText("1 here", { exact: true }).waitFor();
  }
  assert.deepEqual(fixture.errors, []);
});

test("a rename is seen by the others", async () => {
  const josh = await fixture.openRoom("rename");
  await joinRoom(josh, "Josh");
  const mia = await fixture.openRoom("rename");
  await joinRoom(mia, "Mia");
  await member(josh, "Josh").getByRole("button").click();
  await josh.getByLabel("Your name").fill("Joshua");
  await josh.getByRole("button", { name: "Change" }).click();
  await events(mia, "Josh is now Joshua").waitFor();
  await member(mia, "Joshua").waitFor();
  assert.equal(await mia.locator("#members li").count(), 2);
});

test("a click on a name writes to that member alone, and Escape returns to everybody", async () => {
  const [josh, mia, ann] = await Promise.all(
    ["Josh", "Mia", "Ann"].map(async (name) => {
      const page = await fixture.openRoom("whisper");
      await joinRoom(page, name);
      return page;
    }),
  );
  await josh.locator("#text").fill("half a thought");
  await member(josh, "Mia").getByRole("button").click();
  await josh.getByText("Mia alone will see this.").waitFor();
  assert.equal(
    await josh.locator("#text").inputValue(),
    "",
    "the draft for everybody is not shown",
  );
  assert.equal(
    await josh.locator("#text").evaluate((text) => text.matches(":focus")),
    true,
  );
  await say(josh, "psst");
  await row(mia, "psst").getByText("privately").waitFor();
  await row(josh, "psst").getByText("privately to Mia").waitFor();
  await josh.locator("#text").fill("secret");
  await josh.keyboard.press("Escape");
  assert.equal(await josh.locator("#private").isHidden(), true);
  assert.equal(await josh.locator("#text").inputValue(), "half a thought");

  await josh.locator("#text").press("Enter");
  await row(ann, "half a thought").waitFor();
  assert.equal(await row(ann, "psst").count(), 0);
  assert.equal(await row(josh, "psst").count(), 1);
});

test("a private message to a member that has left is not sent", async () => {
  const josh = await fixture.openRoom("gone");
  await joinRoom(josh, "Josh");
  const mia = await fixture.openRoom("gone");
  await joinRoom(mia, "Mia");
  await member(josh, "Mia").getByRole("button").click();
  await mia.close();
  await josh.getByText("Mia has left").waitFor();
  await say(josh, "psst");
  await josh.keyboard.press("Escape");
  await say(josh, "aloud");
  await row(josh, "aloud").waitFor();
  assert.deepEqual(await josh.locator("#messages .text, #outbox .text").allTextContents(), [
    "aloud",
  ]);
});

test("members see that another member left or closed its page", async () => {
  const josh = await fixture.openRoom("leave");
  await joinRoom(josh, "Josh");
  const mia = await fixture.openRoom("leave");
  await joinRoom(mia, "Mia");
  const ann = await fixture.openRoom("leave");
  await joinRoom(ann, "Ann");

  await member(mia, "Mia").getByRole("button").click();
  await mia.getByRole("button", { name: "Leave the room" }).click();
  await events(josh, "Mia left").waitFor();
  await mia.getByLabel("What shall we call you?").waitFor(); // the page still shows the room
  await ann.close();
  await events(josh, "Ann left").waitFor();
  await events(mia, "Ann left").waitFor();
  assert.deepEqual(await josh.locator("#members .name").allTextContents(), ["Josh"]);
});

test("the title counts the messages that came while the page was hidden", async () => {
  const josh = await fixture.openRoom("title");
  await joinRoom(josh, "Josh");
  const mia = await fixture.openRoom("title");
  await joinRoom(mia, "Mia");
  await waitForTitle(josh, "title · Speak");
  await setHidden(josh, true);
  await say(mia, "one");
  await waitForTitle(josh, "(1) title · Speak");
  await say(mia, "two");
  await waitForTitle(josh, "(2) title · Speak");
  await setHidden(josh, false);
  await waitForTitle(josh, "title · Speak");
});

test("a new fragment leads to another room without loading the page", async () => {
  const josh = await fixture.openRoom("one");
  await joinRoom(josh, "Josh");
  const mia = await fixture.openRoom("one");
  await joinRoom(mia, "Mia");
  await say(josh, "in one");
  await row(mia, "in one").waitFor();
  await josh.evaluate(() => {
    window.isSamePage = true;
    location.hash = "two%20and%20a%20half";
  });
  await events(mia, "Josh left").waitFor();
  await josh.getByRole("button", { name: "Room two and a half" }).waitFor();
  await events(josh, "Josh came in").waitFor();
  assert.equal(await row(josh, "in one").count(), 0);
  assert.equal(await member(josh, "Mia").count(), 0);
  assert.equal(await josh.evaluate(() => window.isSamePage), true);
});

test("a refused message shows the reason, and can be tried again", async () => {
  const josh = await fixture.openRoom("refused");
  await joinRoom(josh, "Josh");
  await say(josh, "x".repeat(70_000));
  const failed = josh.locator("#outbox .failed");
  await failed.getByText("Not sent.").waitFor();
  assert.equal(await josh.locator("#messages .message").count(), 0);
  await failed.getByRole("button", { name: "Try again" }).click();
  await failed.getByText("Not sent.").waitFor();
  await failed.getByRole("button", { name: "Discard" }).click();
  assert.equal(await josh.locator("#outbox li").count(), 0);
});

test("the page reports that the server is out of reach, and recovers", async () => {
  const separate = await openFixture();
  try {
    const josh = await separate.openRoom("away");
    await joinRoom(josh, "Josh");
    await say(josh, "before");
    await row(josh, "before").waitFor();
    await separate.server.stop();
    await josh.getByText("The server is out of reach.").waitFor();
    await say(josh, "meanwhile");
    await josh.locator("#outbox").getByText("meanwhile").waitFor();
    const restarted = await startServer(separate.server.port);
    try {
      const now = josh.getByRole("button", { name: "Try now" });
      // The button disappears if the page has recovered by itself.
      if (await now.isVisible()) await now.click({ timeout: 1000 }).catch(() => {});
      await row(josh, "meanwhile").waitFor();
      await josh.locator("#outbox li").waitFor({ state: "detached" });
      assert.deepEqual(await josh.locator("#messages .text").allTextContents(), [
        "before",
        "meanwhile",
      ]);
      assert.equal(await josh.locator("#notice").isHidden(), true);
    } finally {
      await restarted.stop();
    }
  } finally {
    await separate.close();
  }
});

test("a long log stays at its end, keeps the position of a reader, and drops old messages", async () => {
  const josh = await fixture.openRoom("long");
  await joinRoom(josh, "Josh");
  const write = async (from, to) => {
    for (let number = from; number <= to; number++) {
      await fetch(`${fixture.server.origin}/write`, {
        method: "POST",
        body: new URLSearchParams({ channel: "long", message: `number ${number}` }),
      });
    }
    await row(josh, `number ${to}`).waitFor();
  };
  const scrollTop = () => josh.locator("#scroller").evaluate((scroller) => scroller.scrollTop);
  for (const from of [1, 151, 301]) await write(from, from + 149); // fewer than the server retains
  assert.equal(await josh.locator("#messages > li").count(), 400);
  assert.equal(await scrollTop(), 0);
  await josh.locator("#scroller").evaluate((scroller) => (scroller.scrollTop = -2000));
  await write(451, 452);
  await josh.getByRole("button", { name: "↓ 2 new" }).click();
  await until(async () => (await scrollTop()) === 0, "the log is at its end");
  await josh.locator("#new-messages").waitFor({ state: "hidden" });
});

// The last test, because it checks all pages of the tests before.
test("the demo requests nothing from other servers, and nothing that its policy forbids", () => {
  assert.deepEqual(fixture.foreignRequests, []);
  assert.deepEqual([...new Set(fixture.errors)].slice(0, 5), []);
});
