// axe-core finds no serious fault in the element, on a page of another site: in its states, light
// and dark, wide and narrow, and from right to left.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { checkAccessibility } from "../demo/axe.mjs";
import { bubble, comeIn, connected, line, openFixture, say } from "./fixture.mjs";

let fixture;
before(async () => (fixture = await openFixture()));
after(() => fixture.close());

const NARROW = { viewport: { width: 320, height: 640 } };
const THEMES = {
  light: [{}, ""],
  "narrow and dark": [{ ...NARROW, colorScheme: "dark" }, ""],
  "from right to left, narrow": [NARROW, 'dir="rtl"'],
};

for (const [theme, [options, attributes]] of Object.entries(THEMES)) {
  test(`axe-core finds no serious fault (${theme})`, async () => {
    const room = theme.replaceAll(/\W+/g, "-");
    const content = { body: `<h1>Another site</h1>${line(room, attributes)}` };
    const page = await fixture.openPage(content, options);
    await connected(page);
    await checkAccessibility(page, "empty");
    await comeIn(page, "Josh");
    const mia = await fixture.openPage(content);
    await comeIn(mia, "Mia");
    await say(mia, `hello https://example.org ${"long".repeat(100)}`);
    await page.locator("#messages a").waitFor();
    await say(page, "مرحبا");
    await bubble(page, "مرحبا").waitFor();
    await checkAccessibility(page, "joined");
    await page.locator("#members button", { hasText: "Mia" }).click();
    await say(page, "psst");
    await bubble(page, "psst").waitFor();
    await checkAccessibility(page, "private message");
    await page.keyboard.press("Escape");
    await say(page, "x".repeat(70_000));
    await page.locator("#outbox .failed").waitFor();
    await checkAccessibility(page, "refused");
    await page.locator("#members button", { hasText: "Josh" }).click();
    await checkAccessibility(page, "dialog of the member");
    assert.equal(
      await page.evaluate(() => document.documentElement.scrollWidth > innerWidth),
      false,
      "the page does not scroll sideways",
    );
  });
}

test("it can be used by keyboard alone: name, text, a member, back, and the own name", async () => {
  const mia = await fixture.openPage({ body: line("keys", 'name="Mia"') });
  await connected(mia);
  const page = await fixture.openPage({ body: line("keys") });
  await connected(page);
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  await page.evaluate(() => document.querySelector("speak-chat").focus());
  await page.keyboard.type("Josh");
  await press("Enter");
  await page.locator("#members").getByText("you", { exact: true }).waitFor();
  await page.keyboard.type("one");
  await press("Shift+Enter");
  await page.keyboard.type("two");
  await press("Enter");
  await mia.locator("#messages .text").waitFor();
  assert.equal(await mia.locator("#messages .text").textContent(), "one\ntwo");
  const focused = () =>
    page.evaluate(() => {
      const { activeElement } = document.querySelector("speak-chat").shadowRoot;
      return activeElement.id || activeElement.textContent;
    });
  assert.equal(await focused(), "text");
  await press("Tab", "Tab", "Tab"); // the button to send, the own name, the other member
  assert.match(await focused(), /Mia/);
  await press("Enter");
  assert.equal(await focused(), "text");
  await page.getByText("Mia alone will see this.").waitFor();
  await press("Escape");
  await page.getByText("Mia alone will see this.").waitFor({ state: "hidden" });
  await press("Tab", "Tab", "Enter");
  assert.equal(await focused(), "rename");
  await page.keyboard.type("Joshua");
  await press("Enter");
  await mia.locator("#members").getByText("Joshua").waitFor();
});
