// axe-core finds no serious fault in the demo: in all its states, light and dark, wide and narrow.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { checkAccessibility as check } from "./axe.mjs";
import { joinRoom, member, openFixture, row, say } from "./fixture.mjs";

let fixture;
before(async () => (fixture = await openFixture()));
after(() => fixture.close());

/** Checks what the owner of a room sees, and what a member sees that is sent away. */
async function checkOwnRoom(page, options) {
  await page.locator("#room").click();
  await page.locator("#make-room-here").click();
  await page.locator("#room-note").getByText("This browser alone knows").waitFor();
  await check(page, "dialog of an own room");
  await page.getByRole("button", { name: "Close" }).click();
  const room = await page.evaluate(() => location.hash.slice(1));
  const mia = await fixture.openRoom(room, { ...options, reducedMotion: "reduce" });
  await joinRoom(mia, "Mia");
  await say(mia, "bad");
  await say(mia, "good");
  await row(page, "bad").getByRole("button", { name: "Remove" }).click();
  await check(page, "question of a removal");
  await page.getByRole("button", { name: "Remove for all?" }).click();
  await page.getByText("Message removed").waitFor();
  await row(page, "good").hover();
  await check(page, "a message removed");
  await member(page, "Mia").getByRole("button", { name: "Send away" }).click();
  await check(page, "question of a kick");
  await page.getByRole("button", { name: "Ten minutes?" }).click();
  await mia.getByText("sent you away").waitFor();
  await check(mia, "sent away");
}

const THEMES = {
  light: {},
  dark: { colorScheme: "dark" },
  narrow: { viewport: { width: 360, height: 640 } },
  "narrow and dark": { viewport: { width: 360, height: 640 }, colorScheme: "dark" },
};

for (const [theme, options] of Object.entries(THEMES)) {
  test(`axe-core finds no serious fault (${theme})`, async () => {
    const room = theme.replaceAll(" ", "-");
    const page = await fixture.openRoom(room, { ...options, reducedMotion: "reduce" });
    await check(page, "empty");
    await joinRoom(page, "Josh");
    const mia = await fixture.openRoom(room);
    await joinRoom(mia, "Mia");
    await say(mia, "hello https://example.org");
    await row(page, "hello https://example.org").or(page.locator("#messages a")).first().waitFor();
    await say(page, "howdy");
    await row(page, "howdy").waitFor();
    await check(page, "joined");
    await member(page, "Mia").getByRole("button").click();
    await say(page, "psst");
    await row(page, "psst").waitFor();
    await check(page, "private message");
    await page.keyboard.press("Escape");
    await say(page, "x".repeat(70_000));
    await page.locator("#outbox .failed").waitFor();
    await check(page, "refused");
    await page.locator("#room").click();
    await page.getByText("Put this room on your page").click();
    await check(page, "dialog of the room");
    await page.getByRole("button", { name: "Close" }).click();
    await member(page, "Josh").getByRole("button").click();
    await check(page, "dialog of the member");
    await page.getByRole("button", { name: "Close" }).click();
    await checkOwnRoom(page, options);
    assert.equal(
      await page.evaluate(() => document.documentElement.scrollWidth > innerWidth),
      false,
      "the page does not scroll sideways",
    );
  });
}
