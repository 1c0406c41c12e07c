// Events of the page that a chat is in. Without a page, as in Node, there are none.

import { is } from "./events.js";
import { wakeLeader } from "./tabs.js";
import { check } from "./waiting.js";

/** @typedef {import("./state.js").Chat} Chat */

/** Time for which a page has to be hidden, or unchecked, for a hint to mean something. */
const HIDDEN_MS = 5000;

/**
 * Checks the line whenever the page wakes up.
 *
 * @param {Chat} chat
 * @param {AbortSignal} signal ends the watch
 * @param {() => void} onHide called when the browser leaves the page
 */
export function watchPage(chat, signal, onHide) {
  if (!globalThis.document) return;
  const wakeUp = () => {
    wakeLeader(chat);
    check(chat);
  };
  const onHint = () => Date.now() - /** @type {number} */ (chat.checkedAt) < HIDDEN_MS || wakeUp();
  const onVisibility = () => (document.hidden ? (chat.checkedAt = Date.now()) : onHint());
  // A change of speed is reported too, also one that a long answer causes.
  const onNetwork = () => is(chat, "connecting") || onHint();
  const { connection } = /** @type {Navigator & { connection?: EventTarget }} */ (navigator);
  addEventListener("online", wakeUp, { signal });
  addEventListener("visibilitychange", onVisibility, { signal });
  connection?.addEventListener("change", onNetwork, { signal });
  addEventListener("pagehide", onHide, { signal });
}
