// The list of members.

import { avatar, displayName, make, nameLabel, ownerButton } from "./dom.js";
import { act } from "./notice.js";
import { findMember, setRecipient } from "./recipient.js";

/** @typedef {import("./view.js").View} View */

const AWAY_S = 600; // time for which the owner sends a member away

/** @param {View} view @param {any[]} list */
export function showMembers(view, list) {
  const { $, recipient } = view;
  const rows = $("members");
  const old = new Map([...rows.children].map((row) => [row.dataset.connection, row]));
  [...list].sort((a, b) => b.own - a.own).forEach((member, index) => {
    const key = `${member.connection}`;
    const row = old.get(key) ?? make("li", { part: "member" }, make("button", {}));
    old.delete(key);
    row.dataset.connection = key;
    fill(view, row, member);
    // A row moves only if its place has changed, so that it keeps the focus.
    if (rows.children[index] !== row) rows.insertBefore(row, rows.children[index] ?? null);
  });
  for (const row of old.values()) {
    if (row.matches(":focus-within")) $("text").focus();
    row.remove();
  }
  const count = list.length ? `${list.length} here` : "No one here yet";
  $("member-count").replaceChildren(make("span", {}, count));
  setRecipient(view, recipient && (findMember(recipient, list) ?? { ...recipient, isGone: true }));
}

/** @param {View} view @param {any} row @param {any} member */
function fill(view, row, member) {
  const { chat, owner, host } = view;
  const button = row.firstChild;
  const name = make("span", { part: "name" }, nameLabel(member));
  const label = member.own ? "you" : member.owner && "owner";
  button.replaceChildren(avatar(member.name), name, label ? make("small", {}, label) : "");
  button.disabled = member.own ? !!host.name : !(member.inbox && chat.me);
  const title = member.own
    ? "Change your name, or leave"
    : `Write to ${displayName(member.name)} alone`;
  button.title = button.disabled ? "" : title;
  if (owner && !member.own && !member.owner) {
    const sendAway = () => act(view, view.chat.kick(member.connection, { seconds: AWAY_S }));
    if (row.lastChild === button) row.append(ownerButton("Send away", "Ten minutes?", sendAway));
    row.lastChild.title = displayName(member.name);
  }
}
