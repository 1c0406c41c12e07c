// The element in each engine, on a page of another site with a strict policy.

import assert from "node:assert/strict";
import { test } from "node:test";
import { startServer, until } from "../chromium/environment.mjs";
import { line, startSite } from "../element/fixture.mjs";

const SCRIPT = `
  window.violations = [];
  addEventListener("securitypolicyviolation", ({ blockedURI, effectiveDirective }) =>
    violations.push(effectiveDirective + " " + blockedURI));`;
const STYLE = `
  speak-chat { color-scheme: dark; --speak-accent: rgb(1, 2, 3); }
  speak-chat::part(text) { background: rgb(4, 5, 6); }`;

/** What a test does with a page that has the element. */
function actions(page) {
  const textsOf = (selector) =>
    page.run((selector) => {
      const { shadowRoot } = document.querySelector("speak-chat");
      return Array.from(shadowRoot.querySelectorAll(selector), (one) => one.textContent);
    }, selector);
  const waitFor = (selector, expected) =>
    until(async () => `${await textsOf(selector)}` === expected, `${selector}: ${expected}`);
  return {
    ...page,
    waitFor,
    /** Writes a text into the field with this id, and sends the form. */
    submit: (id, text) =>
      page.run(
        ([id, text]) => {
          const field = document.querySelector("speak-chat").shadowRoot.getElementById(id);
          field.value = text;
          field.form.requestSubmit();
        },
        [id, text],
      ),
  };
}

/** @param {() => Promise<import("./engines.mjs").Page>} openPage */
export function testElement(openPage) {
  test("the element asks for a name, talks, moves and leaves, under a strict policy", async () => {
    const [server, site] = await Promise.all([startServer(), startSite()]);
    const open = async () => {
      const page = actions(await openPage());
      const body = line("lobby");
      await page.goTo(site.add(server.endpoints[0], { body, script: SCRIPT, style: STYLE }));
      await page.waitFor("#status", "Connected");
      return page;
    };
    const [josh, mia] = [await open(), await open()];
    await josh.submit("name", "Josh");
    await mia.waitFor("#members .name", "Josh");
    // The pages have one profile, in which the name is kept: the element is named otherwise.
    await mia.run(() => void (document.querySelector("speak-chat").name = "Mia"));
    await josh.waitFor("#members .name", "Josh,Mia");
    await josh.submit("text", "howdy");
    await mia.waitFor("#messages .text", "howdy");
    await mia.submit("text", "hello <b>Josh</b>");
    await josh.waitFor("#messages .text", "howdy,hello <b>Josh</b>");
    await josh.waitFor("#outbox .text", "");
    const colours = await josh.run(() => {
      const { shadowRoot } = document.querySelector("speak-chat");
      return ["header", ".text", "#compose .button"].map((selector, i) => {
        const style = getComputedStyle(shadowRoot.querySelector(selector));
        return i ? style.backgroundColor : style.color;
      });
    });
    assert.deepEqual(colours, ["rgb(229, 233, 232)", "rgb(4, 5, 6)", "rgb(1, 2, 3)"]);

    await mia.run(() => void (document.querySelector("speak-chat").room = "other"));
    await josh.waitFor("#members .name", "Josh");
    await mia.waitFor("#members .name", "Mia");
    await mia.run(() => document.querySelector("speak-chat").remove());
    const reasons = async (room) =>
      (await server.messages(room)).flatMap(({ reason }) => reason ?? []).join();
    for (const room of ["lobby", "other"]) {
      await until(async () => (await reasons(room)) === "left", `a goodbye in ${room}`);
    }
    for (const page of [josh, mia]) assert.deepEqual(await page.run(() => window.violations), []);
    await josh.run(() => localStorage.clear());
    await Promise.all([josh.close(), mia.close()]);
    site.stop();
    await server.stop();
  });
}
