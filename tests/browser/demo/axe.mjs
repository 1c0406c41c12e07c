// axe-core, which looks for faults that keep people with disabilities from using a page.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Fails if the page, in this state, has a serious fault. */
export async function checkAccessibility(page, state) {
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
