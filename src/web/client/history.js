// Pages back through the messages before those that the page has got.

import { call } from "./line.js";
import { eventOf } from "./receiver.js";

/** @typedef {import("./state.js").Chat} Chat */

/** Types of messages that a page gets. */
const SHOWN = /message|introduction|goodbye|removed/;

/**
 * Returns the messages before the first one that the page has got, or has asked for here. Those
 * that it has got are not part of it, and the cursors of the chat stay where they are.
 *
 * @param {Chat} chat
 * @param {number} count number of ids
 * @returns {Promise<import("../speak.js").History>}
 */
export async function pageBack(chat, count) {
  const { room: channel, epoch, oldest } = chat;
  const begin = Math.max(oldest - count, 1);
  /** @type {import("./protocol.js").WireMessage[]} */
  const found = [];
  // An answer has a limit of bytes: the next one has the rest.
  for (let from_id = begin; from_id < oldest;) {
    const answer = await call(chat, "read", { channel, from_id, epoch, timeout: 0 });
    // The ids began again: all messages are events, or will be.
    if (answer.epoch !== epoch || chat.epoch !== epoch) return { messages: [], more: false };
    found.push(...answer.messages);
    from_id = answer.next_id;
  }
  chat.oldest = begin;
  const shown = found.filter(({ id, type }) => id < oldest && SHOWN.test(type));
  return {
    messages: shown.map((message) => eventOf(chat, message)),
    more: begin > 1 && found[0]?.id === begin, // else the server retains none before
  };
}
