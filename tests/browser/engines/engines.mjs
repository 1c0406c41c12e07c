// The engines: what the tests ask of a browser.

import * as chromium from "./chromium.mjs";
import * as firefox from "./firefox.mjs";
import * as webkit from "./webkit.mjs";

/**
 * Page in a window of its own, which is visible. All pages of a browser have one profile.
 *
 * @typedef {object} Page
 * @property {(address: string) => Promise<unknown>} goTo loads a page
 * @property {() => Promise<unknown>} goBack
 * @property {() => Promise<unknown>} reload
 * @property {(callback: (value?: any) => any, value?: any) => Promise<any>} run calls a function in
 *   the page
 * @property {() => Promise<unknown>} close
 */

/**
 * @typedef {object} Browser
 * @property {() => Promise<Page>} openPage
 * @property {(page: Page, isOffline: boolean) => Promise<unknown>} setOffline lets the page know
 *   that there is no network, or that there is one again
 * @property {number} pid
 * @property {() => Promise<unknown>} close
 */

/** @typedef {(options?: { acceptsAnyCertificate?: boolean }) => Promise<Browser>} Launch */

/**
 * `keepsPages`: whether the back-forward cache keeps pages that read. Firefox keeps none that has
 * an open request or a lock at the moment at which it is left. WebKitGTK keeps some, and not
 * always the same ones.
 *
 * @type {Record<string, { launch: Launch, keepsPages?: boolean }>}
 */
export const ENGINES = {
  Chromium: { launch: chromium.launch, keepsPages: true },
  Firefox: { launch: firefox.launch, keepsPages: false },
  WebKitGTK: { launch: webkit.launch },
};
