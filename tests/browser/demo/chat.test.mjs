// What people do in the demo, and what they see of each other.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { comeIn, events, member, openHouse, row, say, setHidden, startServer } from "./fixture.mjs";

let house;
before(async () => (house = await openHouse()));
after(() => house.close());

const titled = (page, title) => page.waitForFunction((title) => document.title === title, title);

test("two people talk", async () => {
  const josh = await house.visit("talk");
  await comeIn(josh, "Josh");
  const mia = await house.visit("talk");
  await member(mia, "Josh").waitFor(); // seen before one has a name
  await comeIn(mia, "Mia");
  await events(josh, "Mia came in").waitFor();

  await say(josh, "howdy");
  await row(mia, "howdy").getByText("Josh", { exact: true }).waitFor();
  await say(mia, "hello Josh");
  await row(josh, "hello Josh").getByText("Mia", { exact: true }).waitFor();

  await row(josh, "howdy").getByText("You", { exact: true }).waitFor();
  for (const page of [josh, mia]) {
    assert.deepEqual(await page.locator("#messages .text").allTextContents(), ["howdy", "hello Josh"]);
    await page.locator("#outbox").locator("li").waitFor({ state: "detached" });
  }
  assert.match(await josh.locator("#detail").textContent(), new RegExp(`^websocket · 127\\.0\\.0\\.1:${house.server.port} · \\d+ ms$`));
});

test("a newcomer sees what was said, once, and the name is remembered", async () => {
  const josh = await house.visit("history");
  await comeIn(josh, "Josh");
  await say(josh, "first words");
  await row(josh, "first words").waitFor();

  const ann = await house.visit("history");
  await row(ann, "first words").waitFor();
  await comeIn(ann, "Ann");
  await say(ann, "second words");
  await row(ann, "second words").waitFor();
  assert.deepEqual(await ann.locator("#messages .text").allTextContents(), ["first words", "second words"]);

  await ann.reload();
  await member(ann, "Ann").getByText("you", { exact: true }).waitFor();
  assert.equal(await ann.locator("#enter").isHidden(), true);
});

test("HTML and script are text, and only addresses of the web are links", async () => {
  const josh = await house.visit("markup");
  await comeIn(josh, "<i>Josh</i>");
  const mia = await house.visit("markup");
  const nasty = `<img src=x onerror="window.hit=1"><script>window.hit=1</script> & <b>bold</b>`;
  await say(josh, nasty);
  await row(mia, nasty).getByText("<i>Josh</i>", { exact: true }).waitFor();
  assert.equal(await mia.locator("#messages .text *").count(), 0);
  assert.equal(await mia.locator("i, #messages img, #messages script, #messages .text b").count(), 0);
  assert.equal(await mia.evaluate(() => window.hit), undefined);

  await say(josh, "javascript:alert(1) https://example.org/a?b=c. data:text/html,x http://[broken");
  const link = mia.locator("#messages a");
  await link.waitFor();
  assert.deepEqual(await link.evaluateAll((all) => all.map(({ href, rel }) => [href, rel])), [
    ["https://example.org/a?b=c", "noopener noreferrer"],
  ]);
});

test("who has no name, or one of blanks, is somebody, and everybody else is seen as well", async () => {
  const josh = await house.visit("nameless");
  await comeIn(josh, "Josh");
  for (const name of ["", " ", "\n~w1", "\u00a0\nlobby"]) {
    const body = new URLSearchParams({ channel: "nameless", message: name });
    const { connection, auth } = await (await fetch(`${house.server.origin}/introduce`, { method: "POST", body })).json();
    await josh.locator("#here").getByText("2 here", { exact: true }).waitFor();
    await member(josh, "Somebody").waitFor();
    const said = { channel: "nameless", message: `by ${connection}`, connection, auth };
    await fetch(`${house.server.origin}/write`, { method: "POST", body: new URLSearchParams(said) });
    await row(josh, `by ${connection}`).getByText("Somebody", { exact: true }).waitFor();
    await fetch(`${house.server.origin}/goodbye`, { method: "POST", body: new URLSearchParams({ connection, auth }) });
    await josh.locator("#here").getByText("1 here", { exact: true }).waitFor();
  }
  assert.deepEqual(house.complaints, []);
});

test("rename", async () => {
  const josh = await house.visit("rename");
  await comeIn(josh, "Josh");
  const mia = await house.visit("rename");
  await comeIn(mia, "Mia");
  await member(josh, "Josh").getByRole("button").click();
  await josh.getByLabel("Your name").fill("Joshua");
  await josh.getByRole("button", { name: "Change" }).click();
  await events(mia, "Josh is now Joshua").waitFor();
  await member(mia, "Joshua").waitFor();
  assert.equal(await mia.locator("#members li").count(), 2);
});

test("a private message by clicking a name; Escape leads back to everybody", async () => {
  const [josh, mia, ann] = await Promise.all(["Josh", "Mia", "Ann"].map(async (name) => {
    const page = await house.visit("whisper");
    await comeIn(page, name);
    return page;
  }));
  await josh.locator("#text").fill("half a thought");
  await member(josh, "Mia").getByRole("button").click();
  await josh.getByText("Mia alone will see this.").waitFor();
  assert.equal(await josh.locator("#text").inputValue(), "", "what was meant for everybody is put aside");
  assert.equal(await josh.locator("#text").evaluate((text) => text === document.activeElement), true);
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

test("who a private message was for has left: nothing goes out", async () => {
  const josh = await house.visit("gone");
  await comeIn(josh, "Josh");
  const mia = await house.visit("gone");
  await comeIn(mia, "Mia");
  await member(josh, "Mia").getByRole("button").click();
  await mia.close();
  await josh.getByText("Mia has left").waitFor();
  await say(josh, "psst");
  await josh.keyboard.press("Escape");
  await say(josh, "aloud");
  await row(josh, "aloud").waitFor();
  assert.deepEqual(await josh.locator("#messages .text, #outbox .text").allTextContents(), ["aloud"]);
});

test("leaving and closing the page are seen", async () => {
  const josh = await house.visit("leave");
  await comeIn(josh, "Josh");
  const mia = await house.visit("leave");
  await comeIn(mia, "Mia");
  const ann = await house.visit("leave");
  await comeIn(ann, "Ann");

  await member(mia, "Mia").getByRole("button").click();
  await mia.getByRole("button", { name: "Leave the room" }).click();
  await events(josh, "Mia left").waitFor();
  await mia.getByLabel("What shall we call you?").waitFor(); // and goes on looking
  await ann.close();
  await events(josh, "Ann left").waitFor();
  await events(mia, "Ann left").waitFor();
  assert.deepEqual(await josh.locator("#members .name").allTextContents(), ["Josh"]);
});

test("the title counts what came while the page was hidden", async () => {
  const josh = await house.visit("title");
  await comeIn(josh, "Josh");
  const mia = await house.visit("title");
  await comeIn(mia, "Mia");
  await titled(josh, "title · Speak");
  await setHidden(josh, true);
  await say(mia, "one");
  await titled(josh, "(1) title · Speak");
  await say(mia, "two");
  await titled(josh, "(2) title · Speak");
  await setHidden(josh, false);
  await titled(josh, "title · Speak");
});

test("the fragment is the room: another one leads there without loading the page", async () => {
  const josh = await house.visit("one");
  await comeIn(josh, "Josh");
  const mia = await house.visit("one");
  await comeIn(mia, "Mia");
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

test("what is refused says why, and can be tried again", async () => {
  const josh = await house.visit("refused");
  await comeIn(josh, "Josh");
  await say(josh, "x".repeat(70_000));
  const failed = josh.locator("#outbox .failed");
  await failed.getByText("Not sent.").waitFor();
  assert.equal(await josh.locator("#messages .said").count(), 0);
  await failed.getByRole("button", { name: "Try again" }).click();
  await failed.getByText("Not sent.").waitFor();
  await failed.getByRole("button", { name: "Discard" }).click();
  assert.equal(await josh.locator("#outbox li").count(), 0);
});

test("while the server is away the page says so; then it goes on", async () => {
  const own = await openHouse();
  try {
    const josh = await own.visit("away");
    await comeIn(josh, "Josh");
    await say(josh, "before");
    await row(josh, "before").waitFor();
    await own.server.stop();
    await josh.getByText("The server is out of reach.").waitFor();
    await say(josh, "meanwhile");
    await josh.locator("#outbox").getByText("meanwhile").waitFor();
    const again = await startServer(own.server.port);
    try {
      const now = josh.getByRole("button", { name: "Try now" });
      if (await now.isVisible()) await now.click({ timeout: 1000 }).catch(() => {}); // it may be back by itself
      await row(josh, "meanwhile").waitFor();
      await josh.locator("#outbox li").waitFor({ state: "detached" });
      assert.deepEqual(await josh.locator("#messages .text").allTextContents(), ["before", "meanwhile"]);
      assert.equal(await josh.locator("#notice").isHidden(), true);
    } finally {
      await again.stop();
    }
  } finally {
    await own.close();
  }
});

test("a long talk keeps to its end, stays where somebody reads, and forgets its beginning", async () => {
  const josh = await house.visit("long");
  await comeIn(josh, "Josh");
  const post = async (from, to) => {
    for (let number = from; number <= to; number++) {
      await fetch(`${house.server.origin}/write`, { method: "POST", body: new URLSearchParams({ channel: "long", message: `number ${number}` }) });
    }
    await row(josh, `number ${to}`).waitFor();
  };
  const scrollTop = () => josh.locator("#scroller").evaluate((scroller) => scroller.scrollTop);
  for (const from of [1, 151, 301]) await post(from, from + 149); // fewer at once than the server retains
  assert.equal(await josh.locator("#messages > li").count(), 400);
  assert.equal(await scrollTop(), 0);
  await josh.locator("#scroller").evaluate((scroller) => (scroller.scrollTop = -2000));
  await post(451, 452);
  await josh.getByRole("button", { name: "↓ 2 new" }).click();
  await josh.waitForFunction(() => document.querySelector("#scroller").scrollTop === 0);
  await josh.locator("#newer").waitFor({ state: "hidden" });
});

// Last, for it judges all that was done above.
test("nothing was asked of anybody else, and nothing forbidden was tried", () => {
  assert.deepEqual(house.outside, []);
  assert.deepEqual([...new Set(house.complaints)].slice(0, 5), []);
});
