// The bundles that are part of the source, and the modules that they are made of.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { bundle, BUNDLES, checkedIn, INTERNAL } from "../bundle.mjs";

const WEB = fileURLToPath(new URL("../../../src/web/", import.meta.url));
const CLIENT = `${WEB}client/`;
const modulesOf = (folder) => readdirSync(folder).filter((name) => name.endsWith(".js"));
const modules = modulesOf(CLIENT);
const source = (name) => readFileSync(CLIENT + name, "utf8");

for (const name of Object.keys(BUNDLES)) {
  test(`${name} is what its modules make: otherwise, run make client`, async (t) => {
    const text = await bundle(name);
    assert.equal(checkedIn(name), text);
    t.diagnostic(`${name}: ${text.length} bytes, ${gzipSync(text, { level: 9 }).length} gzipped`);
  });
}

test("the modules are free of errors of types", async () => {
  const tsc = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url));
  const run = promisify(execFile)(process.execPath, [tsc, "--project", CLIENT]);
  await run.catch(({ stdout }) => assert.fail(stdout));
});

for (const folder of ["client", "element"]) {
  test(`each module of ${folder} is a page, and none import each other in a circle`, () => {
    checkModules(`${WEB}${folder}/`);
  });
}

function checkModules(folder) {
  const imports = new Map();
  for (const name of modulesOf(folder)) {
    const text = readFileSync(folder + name, "utf8");
    assert.ok(text.split("\n").length < 180, `${name} is longer than a page`);
    const found = text.matchAll(/^(?:import|export) .*?from "\.\/(.*?\.js)";/gms);
    imports.set(
      name,
      Array.from(found, ([, path]) => path),
    );
  }
  // Takes away the modules that import nothing that is left. In a circle, none is so.
  while (imports.size) {
    const [lowest] =
      [...imports].find(([, paths]) => !paths.some((path) => imports.has(path))) ?? [];
    assert.ok(lowest, `a circle: ${[...imports.keys()]}`);
    imports.delete(lowest);
  }
}

test("no name that is shortened is known to the page, or to another version in another tab", () => {
  const types = readFileSync(`${CLIENT}../speak.d.ts`, "utf8");
  const known = new Set(Array.from(types.matchAll(/(\w+)\??[:(]/g), ([, name]) => name));
  assert.ok(known.has("whisper") && known.has("retryIn"), "the names are found");
  // What tabs.js posts, and what session.js keeps.
  for (const name of ["me", "ownConnections", "pair", "name", "now", "from", "answer", "key"])
    known.add(name);
  assert.deepEqual(
    INTERNAL.filter((name) => known.has(name)),
    [],
  );
  const all = modules.map(source).join("");
  for (const name of INTERNAL) assert.match(all, new RegExp(`\\b${name}\\b`), "it is in use");
});
