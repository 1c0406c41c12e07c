// Messages that are being sent. Each stays in the outbox until the server sends it back, or until
// it is discarded.

import { make, mark } from "./dom.js";
import { errorText } from "./notice.js";
import { findMember } from "./recipient.js";
import { messageRow } from "./row.js";

/** @typedef {import("./view.js").View} View */

/** @param {View} view @param {string} text @param {any} [to] member */
export function send(view, text, to) {
  const { $, room } = view;
  const isBlind = /^~[wf]/.test(room); // nothing that is written here comes back
  const row = messageRow(view, { own: true, whisper: !!to, to, text });
  const note = make("p", { part: "note" });
  row.append(note);
  $("outbox").append(row);
  $("scroller").scrollTop = 0;
  const attempt = async () => {
    const { chat } = view;
    if (!to) row.dataset.text = text;
    mark(row, "failed", false);
    note.textContent = "Sending …";
    try {
      const member = to && findMember(to, chat.members);
      if (to && !member) throw new Error("They have left");
      const { id } = await (to ? chat.whisper(member, text) : chat.say(text));
      if (to || id <= view.newest.id) row.remove();
      else if (isBlind) note.textContent = "Sent";
      row.dataset.id = id;
    } catch (error) {
      delete row.dataset.text;
      mark(row, "failed", true);
      const button = (name, onclick) => make("button", { part: "link", onclick }, name);
      const discard = () => (row.remove(), $("text").focus());
      const alert = make("span", { role: "alert" }, "Not sent. ", errorText(error));
      const again = button("Try again", attempt);
      note.replaceChildren(alert, " ", again, " ", button("Discard", discard));
    }
  };
  attempt();
}

/**
 * Removes one of the page's own messages from the outbox, because the log has it now.
 *
 * @param {View} view
 */
export function removeFromOutbox({ $ }, { id, text, whisper }) {
  const rows = whisper ? [] : [...$("outbox").children];
  const row = rows.find((row) => row.dataset.id === `${id}`);
  (row ?? rows.find((row) => row.dataset.text === text))?.remove();
}
