// Applies the answers of reads, and makes events of them.

import { advance, position, restart } from "./cursors.js";
import { emit } from "./events.js";
import { addMember, listMembers, removeName } from "./members.js";
import { parts } from "./protocol.js";

/** @typedef {import("./state.js").Chat} Chat */

/**
 * Applies an answer if it begins at the cursors, so that no message is emitted twice or skipped.
 * Returns whether it does.
 *
 * @param {Chat} chat
 * @param {string} from position of the read
 * @param {import("./protocol.js").Answer} answer
 */
export function applyAnswer(chat, from, answer) {
  if (from !== position(chat)) return false;
  const skipsHistory = !chat.epoch && !chat.history;
  const isRestarted = chat.epoch !== answer.epoch; // ids and connections begin again
  let hasChanged = isRestarted;
  if (isRestarted) {
    chat.doubts = 0; // the streams ended with the server
    chat.names.clear();
    chat.ownConnections = new Set(chat.me && [chat.me.connection]);
    chat.lastSentId = chat.oldest = 0;
  }
  chat.epoch = answer.epoch;
  parts(answer).forEach((part, i) => {
    if (isRestarted || part.reset) restart(chat, i);
    if (part.missed) emit(chat, "missed");
    if (!i && !chat.cursor[i]) chat.members.clear();
    // What came after the member's introduction is no history, nor is anything in a new inbox.
    const joinedId = /** @type {number} */ (chat.joinedId);
    for (const message of part.messages) {
      const isHistory = skipsHistory && !(i ? joinedId : joinedId < message.id);
      const isNew = message.id >= chat.emitted[i] && !isHistory;
      if (isHistory && !i) chat.oldest = message.id + 1; // the room's: a whisper is never history
      if (applyMessage(chat, message, isNew, i > 0 || chat.isBlind)) hasChanged = true;
    }
    advance(chat, i, part);
  });
  if (hasChanged) {
    const { api } = chat;
    api.members = listMembers(chat);
    api.me = chat.members.get(chat.me?.connection) ?? null;
    emit(chat, "members", api.members);
  }
  return true;
}

/**
 * Applies a message, and emits it if it is new. Returns whether it changes the members.
 *
 * @param {Chat} chat
 * @param {import("./protocol.js").WireMessage} message
 * @param {boolean} isNew
 * @param {boolean} whisper whether its channel is the inbox
 * @param {import("./state.js").Member} [to] recipient of the member's own whisper
 */
export function applyMessage(chat, message, isNew, whisper, to) {
  const { id, type, from, reason, of } = message;
  const { me, pending } = chat;
  const { text, own, removed } = eventOf(chat, message);
  const isText = type === "message";
  if (whisper && !isText) return false;
  if (type === "introduction") {
    addMember(chat, message, own);
    // Another tab may have renamed this member. A name that was removed is not its wish.
    if (from === me?.connection) chat.name = text || chat.name;
  } else if (type === "goodbye") {
    chat.members.delete(from);
    if (from === me?.connection) {
      chat.me = null; // the stream continues without the connection
      if (reason === "removed") chat.dismissal = { error: reason, detail: text, status: 403 };
    }
  } else if (of) {
    removeName(chat, of);
    if (isNew) emit(chat, "removal", message);
    return true;
  } else if (!isText) {
    if (!removed) return false; // of a newer server
  } else if (pending && !whisper && (from ? own : !chat.name)) {
    // The text that is being sent has arrived, even if its answer is lost.
    if (id > chat.lastSentId && text === pending.text) pending.id ??= id;
  }
  if (isNew) emit(chat, "message", eventOf(chat, message, whisper, to));
  return !isText;
}

/**
 * Returns a message as the page gets it. An introduction has the member's name, and in a second
 * line its inbox.
 *
 * @param {Chat} chat
 * @param {import("./protocol.js").WireMessage} message
 * @param {boolean} [whisper]
 * @param {import("./state.js").Member} [to]
 * @returns {any} a Message of speak.d.ts
 */
export function eventOf({ names, ownConnections }, message, whisper = false, to) {
  const { message: text = "", ...rest } = message;
  const { type, from } = rest;
  return {
    ...rest,
    name: names.get(from),
    text: type === "introduction" ? text.split("\n")[0] : text,
    own: ownConnections.has(from),
    removed: type === "removed",
    whisper,
    to,
  };
}
