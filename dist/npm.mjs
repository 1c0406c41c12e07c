// Packs the client for npm: node dist/npm.mjs [FOLDER]
//
// Writes speak-client-VERSION.tgz into the folder (target/dist), and prints its path. The package
// has the modules of src/web/client as they are. The same sources give the same bytes: npm sets all
// times to one, and this script all modes.

import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const CLIENT = join(ROOT, "src/web/client");
/** The entry of speak.js, which needs a page. */
const EXCLUDED = "global.js";

const out = resolve(process.argv[2] ?? join(ROOT, "target/dist"));
const read = (path) => readFileSync(join(ROOT, path), "utf8");
const [, version] = read("Cargo.toml").match(/^version = "(.*)"$/m);
const staging = mkdtempSync(join(tmpdir(), "speak-client-"));
try {
  for (const name of readdirSync(CLIENT)) {
    if (/\.js$/.test(name) && name !== EXCLUDED) copy(join(CLIENT, name), name);
  }
  copy(join(CLIENT, "README.md"), "README.md");
  copy(join(ROOT, "LICENSE"), "LICENSE");
  write("index.d.ts", types());
  const { name, ...rest } = JSON.parse(read("src/web/client/package.json"));
  write("package.json", `${JSON.stringify({ name, version, ...rest }, null, 2)}\n`);
  mkdirSync(out, { recursive: true });
  const arguments_ = ["pack", "--silent", "--pack-destination", out];
  const packed = execFileSync("npm", arguments_, { cwd: staging, encoding: "utf8" });
  console.log(join(out, packed.trim()));
} finally {
  rmSync(staging, { recursive: true });
}

function copy(path, name) {
  write(name, readFileSync(path));
}

function write(name, content) {
  const path = join(staging, name);
  writeFileSync(path, content);
  chmodSync(path, 0o644);
}

/** Returns the types of the package: those of speak.js, without its global. */
function types() {
  const [exported, global] = read("src/web/speak.d.ts").split("\ndeclare global {");
  if (!global) throw new Error("speak.d.ts declares no global");
  return `${exported.trimEnd()}\n`;
}
