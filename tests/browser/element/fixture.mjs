// Fixture of the tests: a real server, a real browser, and another site, whose pages have the
// element and a policy that allows no more than it needs.

import { once } from "node:events";
import http from "node:http";
import { launchBrowser, startServer } from "../chromium/environment.mjs";

/**
 * Page of the other site.
 *
 * @typedef {object} Content
 * @property {string} [body] HTML. CHAT is the server's address, also in the script
 * @property {string} [script] classic script of the page's own, in a file
 * @property {string} [style] sheet of the page's own, in a file
 * @property {string} [policy] Content-Security-Policy
 * @property {string} [chat] address of the server, if it is another one than the fixture's
 */

/** Direct listener, which speak.js tries. Another server of this machine may use the port. */
const DIRECT = "http://127.0.0.1:7732/";

/** The policy of docs/element.md, for http; and files of the page's own site. */
const policyFor = (chat) => {
  const connect = [chat, DIRECT].flatMap((url) => [url, url.replace("http", "ws")]).join(" ");
  const own = "default-src 'none'; style-src 'self'; img-src data:";
  return `${own}; script-src 'self' ${chat}; connect-src ${connect}`;
};

/** The line of a page's author. */
export const line = (room, attributes = "") =>
  `<script src="CHATspeak-chat.js" async></script>`
  + `<speak-chat room="${room}" ${attributes}></speak-chat>`;

/** Starts the other site. Its address has the number of a page. */
export async function startSite() {
  const pages = [];
  const site = http.createServer((request, response) => {
    const [, number, file] = request.url.split("/");
    const page = pages[number];
    if (!page) return response.writeHead(404).end();
    const type = { "page.js": "text/javascript", "style.css": "text/css" }[file] ?? "text/html";
    response.setHeader("Content-Type", `${type}; charset=utf-8`);
    response.setHeader("Content-Security-Policy", page.policy);
    if (file === "page.js") return response.end(page.script);
    if (file === "style.css") return response.end(page.style);
    const style = page.style ? '<link rel="stylesheet" href="style.css">' : "";
    const script = page.script ? '<script src="page.js" defer></script>' : "";
    const head = `<meta charset="utf-8"><title>another site</title>${style}${script}`;
    const icon = '<link rel="icon" href="data:,">'; // else a browser asks for /favicon.ico
    const view = '<meta name="viewport" content="width=device-width">';
    response.end(`<!doctype html><html lang="en">${head}${icon}${view}<main>${page.body}</main>`);
  });
  await once(site.listen(0, "127.0.0.1"), "listening");
  site.unref(); // a test that fails must not keep the others from ending
  return {
    /** Adds a page. Returns its address. */
    add(chat, { body = line("lobby"), script = "", style = "", policy = policyFor(chat) }) {
      const here = (text) => text.replaceAll("CHAT", chat);
      pages.push({ body: here(body), script: here(script), style, policy });
      return `http://127.0.0.1:${site.address().port}/${pages.length - 1}/`;
    },
    stop() {
      site.close();
      site.closeAllConnections();
    },
  };
}

export async function openFixture() {
  const server = await startServer();
  const browser = await launchBrowser();
  const site = await startSite();
  const errors = [];

  /**
   * Opens a page in a new profile.
   *
   * @param {Content} content
   * @param {object} [options] of the profile
   */
  async function openPage(content, options = {}) {
    const context = await browser.newContext({
      viewport: { width: 900, height: 720 },
      locale: "en-GB",
      reducedMotion: "reduce",
      ...options,
    });
    await context.route(`${DIRECT}**`, (route) => route.abort());
    context.on("console", (line) => {
      if (/Content.Security.Policy/i.test(line.text())) errors.push(line.text());
    });
    context.on("weberror", (error) => errors.push(error.error().stack));
    const page = await context.newPage();
    await page.goto(site.add(content.chat ?? server.endpoints[0], content));
    return page;
  }

  return {
    server,
    site,
    openPage,
    errors,
    async close() {
      await browser.close();
      site.stop();
      await server.stop();
    },
  };
}

export const connected = (page) => page.locator('[data-state="connected"]').first().waitFor();

export async function comeIn(page, name) {
  await page.getByLabel("What shall we call you?").fill(name);
  await page.getByRole("button", { name: "Come in" }).click();
  await page.locator("#members").getByText("you", { exact: true }).waitFor();
}

export async function say(page, text) {
  await page.locator("#text").fill(text);
  await page.locator("#text").press("Enter");
}

/** The bubble with this text in the log, or in a part of it. */
export const bubble = (page, text) =>
  page.locator("#messages .text").getByText(text, { exact: true });

/** Script of a page that keeps the events of its elements in `seen`. */
export const RECORD = `
  window.seen = [];
  const kinds = ["message", "removal", "members", "state", "missed", "error"];
  for (const kind of kinds)
    document.addEventListener("speak-" + kind, ({ detail, target }) =>
      window.seen.push({ kind, room: target.room, ...JSON.parse(JSON.stringify(detail ?? {})) }));
`;
