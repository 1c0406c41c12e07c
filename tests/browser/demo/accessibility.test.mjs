// axe-core finds no serious fault in the demo: in all its states, light and dark, wide and narrow.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { joinRoom, member, openFixture, row, say } from "./fixture.mjs";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let fixture;
before(async () => (fixture = await openFixture()));
after(() => fixture.close());

async function check(page, state) {
  await page.evaluate(() => Promise.all(document.getAnimations().map((one) => one.finished)));
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => window.axe.run());
  assert.ok(
    passes.some(({ id }) => id === "color-contrast"),
    "axe-core checked the page",
  );
  const bad = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  assert.deepEqual(
    bad.map(({ id, nodes }) => [state, id, nodes.map(({ html }) => html)]),
    [],
  );
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
    assert.equal(
      await page.evaluate(() => document.documentElement.scrollWidth > innerWidth),
      false,
      "the page does not scroll sideways",
    );
  });
}
