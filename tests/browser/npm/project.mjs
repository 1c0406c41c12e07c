// A project that has installed the package for npm.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const PACK = fileURLToPath(new URL("../../../dist/npm.mjs", import.meta.url));
const BIN = fileURLToPath(new URL("../node_modules/.bin/", import.meta.url));

/** Returns the path of a program that npm installed. */
export const program = (name) => join(BIN, name);

/** Packs the client into the folder. Returns the path of the package. */
export const pack = (folder) =>
  execFileSync(process.execPath, [PACK, folder], { encoding: "utf8" }).trim();

/**
 * Creates a project in a folder of its own, with the package and these files. `packed` is the
 * package, and `installed` its folder in the project. remove() deletes all.
 */
export function createProject(files = {}) {
  const folder = mkdtempSync(join(tmpdir(), "speak-project-"));
  const installed = join(folder, "node_modules/speak-client");
  mkdirSync(installed, { recursive: true });
  const packed = pack(folder);
  execFileSync("tar", ["xzf", packed, "--strip-components=1", "-C", installed]);
  const dependencies = { "speak-client": "*" };
  write("package.json", JSON.stringify({ private: true, type: "module", dependencies }));
  for (const [name, text] of Object.entries(files)) write(name, text);

  function write(name, text) {
    writeFileSync(join(folder, name), text);
  }
  return {
    folder,
    packed,
    installed,
    read: (name) => readFileSync(join(installed, name), "utf8"),
    write,
    remove: () => rmSync(folder, { recursive: true }),
  };
}
