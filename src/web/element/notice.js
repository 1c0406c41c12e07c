// What the chat tells its visitor above the form.

/** @typedef {import("./view.js").View} View */

/** @param {View} view @param {string} text @param {boolean} [canRetry] */
export function showNotice({ $ }, text, canRetry = false) {
  $("notice").hidden = !text;
  $("notice-text").textContent = text;
  $("retry").hidden = !canRetry;
}

export function errorText({ name, detail, message }) {
  if (name === "removed") return "The owner of this room sent you away. You may come back later.";
  return detail ? `The server says: ${detail}.` : `${message}.`;
}

/**
 * Waits for what the visitor has asked for. Says why if it did not happen.
 *
 * @param {View} view @param {Promise<unknown>} call
 */
export const act = (view, call) => call.catch((error) => showNotice(view, errorText(error)));
