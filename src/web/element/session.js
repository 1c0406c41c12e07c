// The visitor in the room: joining, renaming and leaving.

import { clearLog, isNew, removeMessage, showEvent, showMessage } from "./log.js";
import { showMembers } from "./members.js";
import { errorText, showNotice } from "./notice.js";
import { setRecipient } from "./recipient.js";
import { roomLabel } from "./room.js";
import { showState } from "./status.js";

/** @typedef {import("./view.js").View} View */

// The name that the browser keeps for the pages of a site. The user may have forbidden storage.
const KEY = "speak-name";
export const storedName = () => {
  try { return localStorage.getItem(KEY) ?? ""; } catch { return ""; } // forbidden
};
/** @param {View} view @param {string} name */
export const storeName = ({ host }, name) => {
  if (host.name) return; // the page knows the visitor
  try { localStorage.setItem(KEY, name); } catch { /* forbidden */ }
};

/**
 * Goes to a room.
 *
 * @param {View} view @param {string} server
 */
export function enter(view, server) {
  const { $, drafts, host } = view;
  clearLog(view);
  drafts.clear();
  setRecipient(view);
  $("text").value = "";
  const label = ($("room-name").textContent = roomLabel(view));
  $("main").ariaLabel = `Chat in ${label}`;
  view.server = server;
  join(view);
  if (host.hasAttribute("autofocus")) focusInput(view);
}

/**
 * Joins the room under the visitor's name. Without a name, only reads it.
 *
 * @param {View} view
 */
export function join(view) {
  const { $, room, owner, name, server } = view;
  leave(view);
  setRecipient(view);
  showMembers(view, []);
  showNotice(view, "");
  $("log").ariaLive = "off"; // screen readers do not read older messages aloud
  const isReadOnly = /^~[rb]/.test(room);
  $("join").hidden = isReadOnly || !!name;
  $("compose").hidden = isReadOnly || !name;
  const chat = globalThis.Speak.join(room, { name, owner, server });
  view.chat = chat;
  for (const [kind, show] of Object.entries(SHOW)) {
    chat[`on${kind}`] = (detail) => {
      if (kind === "message" && !isNew(view, detail)) return;
      if (emit(view, kind, detail)) show(view, detail);
    };
  }
}

const SHOW = {
  message: showMessage,
  removal: removeMessage,
  members: showMembers,
  state: showState,
  missed: (view) => showEvent(view, Date.now(), "Some messages were lost"),
  error(view, error) {
    const { $, name, host } = view;
    showNotice(view, errorText(error));
    if (error.name !== "removed") return;
    // The member may come back later.
    $("compose").hidden = true;
    $("join").hidden = false;
    $("name").value = name;
    $("name").readOnly = !!host.name;
  },
};

/**
 * Tells the page of an event. Returns whether the page lets the chat show it.
 *
 * @param {View} view @param {string} kind @param {any} detail
 */
const emit = ({ host }, kind, detail) =>
  host.dispatchEvent(
    new CustomEvent(`speak-${kind}`, { detail, bubbles: true, cancelable: kind === "message" }),
  );

/** @param {View} view */
export function leave({ chat, countdown }) {
  clearInterval(countdown);
  if (!chat || chat.state.state === "left") return;
  for (const kind in SHOW) chat[`on${kind}`] = null;
  chat.leave().catch(() => {}); // without a goodbye, the server ends the connection by timeout
}

/**
 * Gives the visitor this name. Joins with it if there is none yet, or if the chat is over.
 *
 * @param {View} view @param {string} name
 */
export async function setName(view, name) {
  const { chat } = view;
  if (chat.state.state !== "left") {
    if (name === view.name) return;
    if (name && chat.me) {
      await chat.rename(name);
      view.name = name;
      return;
    }
  }
  view.name = name;
  join(view);
}

/**
 * Lets the visitor write. On a touch screen, the focus would open a keyboard that covers the room.
 *
 * @param {View} view
 */
export function focusInput({ $, name }) {
  if (matchMedia("(pointer: fine)").matches) $(name ? "text" : "name").focus();
}
