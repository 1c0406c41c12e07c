// Reports how the chat is: to the page, to the other tabs, and to what waits for a change.

import { emit } from "./events.js";
import { broadcast } from "./tabs.js";
import { notify } from "./waiting.js";

/** @typedef {import("./state.js").Chat} Chat */

/**
 * @param {Chat} chat
 * @param {Partial<import("../speak.js").State>} change
 * @param {object} [read] that caused the report
 */
export function report(chat, change, read) {
  const { api, latency } = chat;
  const state = { ...api.state, latency, error: undefined, retryIn: undefined, ...change };
  if (JSON.stringify(state) !== JSON.stringify(api.state)) emit(chat, "state", state);
  api.state = state;
  broadcast(chat, read);
  notify(chat);
}

/** @param {Chat} chat @param {object} [read] */
export const reportConnected = (chat, read) =>
  report(
    chat,
    { state: "connected", endpoint: chat.endpoint, transport: chat.transport.name },
    read,
  );
