// Bundles the scripts that the server serves: node bundle.mjs. See docs/internals/decisions.md.

import { build, transform } from "esbuild";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { minify } from "terser";

const WEB = fileURLToPath(new URL("../../src/web/", import.meta.url));

/** Bundles, by the names under which they are served: their first modules. */
export const BUNDLES = {
  "speak.js": "client/global.js",
  "speak-chat.js": "element/index.js",
  "demo.js": "demo/demo.js",
};

/**
 * Properties of the client's own objects, which get short names. No name is here that another
 * program knows: the page, the server, the platform, or another version of the client in another
 * tab.
 */
export const INTERNAL = [
  ...["isStale", "emitted", "hasInbox", "lastSentId", "waiters", "isLeader", "lifetime"],
  ...["checkedAt", "failures", "doubts", "retry", "better", "endpoints", "transports"],
  ...["received", "timeoutMs", "began", "heard", "timedOut", "isOpen", "isShort", "needs", "act"],
  ...["reader", "names", "pending", "queue", "cursor", "bus", "api", "ended", "source", "attempt"],
  ...["place", "wait", "end", "open", "call", "joinedId", "home", "isBlind", "dismissal"],
  ...["oldest", "retryAfter", "opened", "expects"],
];

/** Imports a style sheet as a text, minified. */
const STYLES = {
  name: "styles",
  setup: ({ onLoad }) =>
    onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const css = readFileSync(path, "utf8");
      const { code } = await transform(css, { loader: "css", minify: true, charset: "utf8" });
      return { contents: code.trim(), loader: "text" };
    }),
};

/** Returns the text of a bundle. The same sources give the same bytes on every machine. */
export async function bundle(name) {
  const { outputFiles } = await build({
    entryPoints: [WEB + BUNDLES[name]],
    bundle: true,
    minifySyntax: true,
    write: false,
    format: "iife",
    // The element needs browsers of 2024 for its styles, and so may have private members.
    target: name === "speak-chat.js" ? "es2022" : "es2021",
    charset: "utf8",
    plugins: [STYLES],
    // The demo uses the platform's properties of these names, as `open`.
    mangleProps: name === "speak.js" ? new RegExp(`^(${INTERNAL.join("|")})$`) : undefined,
  });
  const { code } = await minify(outputFiles[0].text, {
    ecma: 2020,
    toplevel: true,
    compress: {
      ...{ passes: 3, unsafe: true, unsafe_arrows: true, hoist_funs: true },
      lhs_constants: false, // what comes first elsewhere compresses better
    },
  });
  return `${code}\n`;
}

/** Returns the bundle that is part of the source. */
export const checkedIn = (name) => readFileSync(WEB + name, "utf8");

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const name of Object.keys(BUNDLES)) writeFileSync(WEB + name, await bundle(name));
}
