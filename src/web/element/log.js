// The log: messages, events and days.

import { avatar, make, nameLabel, timeLabel } from "./dom.js";
import { removeFromOutbox } from "./outbox.js";
import { messageRow, removedLine } from "./row.js";

/** @typedef {import("./view.js").View} View */

const MAX_ROWS = 400; // above this, the oldest row is removed
const GROUP_MS = 120_000; // messages of one sender within this time share a heading

const dayFormat = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });

/** @param {View} view */
export function clearLog(view) {
  const { $, names } = view;
  view.newest = { id: 0, time: 0 };
  view.lastRow = {};
  view.unseen = 0;
  names.clear();
  $("messages").replaceChildren();
  $("outbox").replaceChildren();
  $("new-messages").hidden = true;
}

/**
 * Returns whether a message is not in the log yet. The log may have it since the page read the room
 * without a name.
 *
 * @param {View} view @param {any} m message
 */
export function isNew(view, m) {
  const { newest, names } = view;
  if (m.whisper) return true;
  if (m.id <= newest.id) {
    if (m.time <= newest.time) return false;
    names.clear(); // the server restarted, so ids and connections start again
  }
  view.newest = m;
  return true;
}

/** @param {View} view @param {any} m message */
export function showMessage(view, m) {
  const { $, names } = view;
  if (m.type === "introduction") {
    const before = names.get(m.from);
    names.set(m.from, m.name);
    if (before === undefined) showEvent(view, m.time, nameLabel(m), " came in");
    else if (before !== m.name) {
      showEvent(view, m.time, nameLabel({ name: before }), " is now ", nameLabel(m));
    } else return;
    const { dataset } = $("messages").lastElementChild.lastElementChild;
    Object.assign(dataset, { id: m.id, from: m.from });
  } else if (m.type === "goodbye") {
    names.delete(m.from);
    const how = { timeout: " lost the connection", removed: " was sent away" }[m.reason];
    showEvent(view, m.time, nameLabel(m), how ?? " left", m.text && `: ${m.text}`);
  } else {
    showText(view, m);
  }
}

/** @param {View} view @param {any} m message */
function showText(view, m) {
  const { $ } = view;
  if (m.own) removeFromOutbox(view, m);
  showDay(view, m.time);
  const sender = [m.from, m.own, m.whisper, m.to?.connection].join();
  const isContinued = sender === view.lastRow.sender && m.time - view.lastRow.time < GROUP_MS;
  if (!isContinued) Object.assign(view.lastRow, { sender, time: m.time });
  append(view, messageRow(view, m, isContinued));
  if (m.own || m.removed || isAtEnd(view)) return;
  $("new-messages").textContent = `↓ ${++view.unseen} new`;
  $("new-messages").hidden = false;
}

/**
 * Takes away what a message said, or a name that an introduction brought.
 *
 * @param {View} view
 */
export function removeMessage({ $ }, { of }) {
  const shown = $("messages").querySelector(`[data-id="${of}"]`);
  if (!shown) return;
  if (shown.tagName === "LI") {
    // The owner's keyboard stays in the log.
    if (shown.matches(":focus-within")) $("scroller").focus();
    shown.querySelector(".line")?.replaceWith(removedLine()); // else it came without its text
  } else {
    shown.replaceChildren("A name was removed");
    for (const byline of $("messages").querySelectorAll(".message:not(.own) .byline")) {
      if (byline.dataset.from !== shown.dataset.from) continue;
      byline.querySelector(".name").replaceChildren(nameLabel({}));
      byline.querySelector(".avatar").replaceWith(avatar());
    }
  }
}

/**
 * Adds an event to the last row if it is a row of events, else adds a row.
 *
 * @param {View} view @param {number} time @param {(string | Node)[]} content
 */
export function showEvent(view, time, ...content) {
  showDay(view, time);
  const row = view.$("messages").lastElementChild;
  const event = make("span", {}, ...content);
  if (row.className === "events") row.append(" · ", event);
  else append(view, make("li", { part: "events" }, timeLabel(time), " · ", event));
  view.lastRow.sender = null;
}

/** @param {View} view @param {number} time */
function showDay(view, time) {
  const day = dayFormat.format(time);
  if (day === view.lastRow.day) return;
  view.lastRow = { day };
  append(view, make("li", { part: "day" }, day));
}

/** @param {View} view @param {HTMLElement} row */
function append({ $ }, row) {
  const rows = $("messages");
  rows.append(row);
  if (rows.childElementCount > MAX_ROWS) rows.firstElementChild.remove();
}

/**
 * The scroller is reversed: the position of its end is 0.
 *
 * @param {View} view
 */
export const isAtEnd = ({ $ }) => $("scroller").scrollTop > -80;
