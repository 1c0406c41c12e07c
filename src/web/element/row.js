// Rows of messages.

import { avatar, linkify, make, nameLabel, ownerButton, timeLabel } from "./dom.js";
import { act } from "./notice.js";

/** @typedef {import("./view.js").View} View */

/** @param {View} view @param {any} m message @param {boolean} [isContinued] */
export function messageRow(view, m, isContinued) {
  const { owner, chat } = view;
  const kinds = [m.own && "own", m.whisper && "private", isContinued && "continued"];
  const row = make("li", { part: ["message", ...kinds].filter(Boolean).join(" ") });
  // In a group of messages, only screen readers get the headings after the first one.
  const name = make("b", { part: "name" }, m.own ? "You" : nameLabel(m));
  const heading = make("p", { part: "byline" }, m.own ? "" : avatar(m.name), name);
  heading.dataset.from = m.from ?? "";
  if (m.whisper) {
    const to = m.to ? [" to ", nameLabel(m.to)] : [];
    heading.append(make("span", { part: "private-label" }, "privately", ...to));
  }
  if (m.owner) heading.append(make("span", { part: "owner-label" }, "owner"));
  if (m.time) heading.append(timeLabel(m.time));
  const isPublic = m.id && !m.whisper;
  if (isPublic) row.dataset.id = m.id;
  const text = make("p", { part: "text", dir: "auto" }, ...linkify(m.text));
  row.append(heading, m.removed ? removedLine() : make("div", { part: "line" }, text));
  if (owner && isPublic && !m.removed) {
    text.after(ownerButton("Remove", "Remove for all?", () => act(view, chat.remove(m.id))));
  }
  return row;
}

export const removedLine = () => make("p", { part: "removed" }, "Message removed");
