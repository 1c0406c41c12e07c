// Chromium, by Playwright, which the other tests of this folder use as well.

import { launchBrowser } from "../chromium/environment.mjs";
import { expressionOf } from "./evaluating.mjs";

/** @type {import("./engines.mjs").Launch} */
export async function launch({ acceptsAnyCertificate = false } = {}) {
  // Playwright switches the back-forward cache off, which people have.
  const browser = await launchBrowser([], ["--disable-back-forward-cache"]);
  const context = await browser.newContext({ ignoreHTTPSErrors: acceptsAnyCertificate });
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const pid = processInfo.find(({ type }) => type === "browser").id;

  async function openPage() {
    const page = await context.newPage();
    return {
      goTo: (address) => page.goto(address),
      goBack: () => page.goBack({ waitUntil: "commit" }),
      reload: () => page.reload(),
      async run(callback, value) {
        return JSON.parse(await page.evaluate(expressionOf(callback, value)));
      },
      close: () => page.close(),
    };
  }

  async function setOffline(_page, isOffline) {
    await context.setOffline(isOffline);
  }

  return { openPage, setOffline, pid, close: () => browser.close() };
}
