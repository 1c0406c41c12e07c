// For which member the visitor writes: for all, or for one alone.

import { displayName, nameLabel } from "./dom.js";
import { roomLabel } from "./room.js";

/** @typedef {import("./view.js").View} View */

/** @param {View} view @param {any} [to] a member, or nothing */
export function setRecipient(view, to) {
  const { $, drafts, recipient } = view;
  const text = $("text");
  if (to?.inbox !== recipient?.inbox) {
    drafts.set(recipient?.inbox, text.value);
    text.value = drafts.get(to?.inbox) ?? "";
  }
  view.recipient = to;
  text.placeholder = to ? "Private message" : "Write to everybody";
  text.ariaLabel = to
    ? `Private message to ${displayName(to.name)}`
    : `Message to everybody in ${roomLabel(view)}`;
  $("private").hidden = !to;
  $("compose").classList.toggle("private", !!to);
  const note = to?.isGone ? " has left and gets no more messages." : " alone will see this.";
  $("private-note").replaceChildren(...(to ? [nameLabel(to), note] : []));
  for (const row of $("members").children) {
    row.firstChild.ariaPressed = row.dataset.connection === `${to?.connection}`;
  }
  autoGrow(view);
}

/** @param {View} view */
export function writeToEveryone(view) {
  setRecipient(view);
  view.$("text").focus();
}

/**
 * Finds a member by its inbox, for after a restart its connection may belong to another member.
 */
export const findMember = ({ inbox }, list) => list.find((member) => member.inbox === inbox);

/** @param {View} view @param {string} [connection] of the member that was clicked */
export function selectMember(view, connection) {
  const { $, chat, host } = view;
  const member = chat.members.find((member) => `${member.connection}` === connection);
  if (member?.own) {
    if (host.name) return;
    $("rename").value = member.name;
    $("self-dialog").showModal();
    $("rename").select();
  } else if (member?.inbox && chat.me) {
    setRecipient(view, member);
    $("text").focus();
  }
}

/** @param {View} view */
export function autoGrow({ $ }) {
  const { style } = $("text");
  style.height = "auto";
  const height = $("text").scrollHeight; // 0 while the element is not shown
  if (height) style.height = `${height + 2}px`;
}
