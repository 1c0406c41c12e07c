// Events of a chat: calls of the page's handlers.

/** @typedef {import("./state.js").Chat} Chat */

/**
 * Returns whether this is the state of the chat.
 *
 * @param {Chat} chat
 * @param {import("../speak.js").State["state"]} state
 */
export const is = ({ api }, state) => api.state.state === state;

/**
 * Calls the handler of an event. A handler that is set after join() misses no event, and one that
 * throws stops nothing.
 *
 * @param {Chat} chat
 * @param {"message" | "removal" | "members" | "state" | "missed" | "error"} kind
 * @param {any} [event]
 */
export function emit(chat, kind, event) {
  /** @type {any} */
  const api = chat.api;
  if (!is(chat, "left")) queueMicrotask(() => api[`on${kind}`]?.(event));
}
