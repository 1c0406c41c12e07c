// Sends texts and whispers one at a time, each once.

import { position } from "./cursors.js";
import { is } from "./events.js";
import { call, goHome } from "./line.js";
import { isTransient } from "./protocol.js";
import { applyAnswer } from "./receiver.js";
import { forgetConnection, readValues } from "./session.js";
import { isReady } from "./tabs.js";
import { nextChange, notify, sleep } from "./waiting.js";

/** @typedef {import("./state.js").Chat} Chat */

/**
 * Something to send.
 *
 * @typedef {object} Item
 * @property {() => Promise<any>} act makes the call
 * @property {string} [text] by which the reader recognizes it in the room
 * @property {number} [id] if the reader has found it there
 * @property {unknown} [to] member that it is for: nothing in the room tells whether it has arrived
 */

/** Number of calls without an answer after which a text is given up. */
const MAX_ATTEMPTS = 5;

/**
 * Sends an item after all earlier ones. The state has changed before the promise's callbacks run.
 *
 * @param {Chat} chat
 * @param {Item} item
 * @returns {any} a Sending, of what act() returns
 */
export function send(chat, item) {
  /** @type {any} a promise, which gets what the page may know besides */
  const sending = chat.queue.then(() => sendWithRetry(chat, item));
  const end = (/** @type {string} */ state) => () => (sending.state = state);
  chat.queue = sending.then(end("sent"), end("failed"));
  return Object.assign(sending, {
    state: "sending",
    text: item.text,
    again: () => (sending.state === "failed" ? send(chat, item) : sending),
  });
}

/** @param {Chat} chat @param {Item} item @returns {Promise<any>} */
async function sendWithRetry(chat, item) {
  /** @type {unknown} */
  let hold; // while the server is too busy
  for (let attempts = 1; ;) {
    if (item.id) return { id: (chat.lastSentId = item.id) };
    while (hold || !isReady(chat)) {
      if (is(chat, "left")) throw new Error("left");
      await nextChange(chat);
    }
    const { me } = chat;
    chat.pending = item;
    try {
      const answer = await item.act();
      if (answer.id && !item.to) chat.lastSentId = answer.id;
      return answer;
    } catch (/** @type {any} */ error) {
      if (forgetConnection(chat, error, me)) {
        goHome(chat);
        if (chat.transport.open) chat.reader?.close(); // it did not report the end: it may be dead
      } else if (isTransient(error)) {
        hold = sleep(1000 * error.retryAfter || 1000).then(() => (hold = notify(chat)));
      } else {
        if (error.status || item.to || chat.isBlind) throw error;
        await findOut(chat);
        if (!item.id && attempts++ === MAX_ATTEMPTS) throw error;
      }
    }
  }
}

/**
 * Reads until an answer comes: it has the messages that arrived before.
 *
 * @param {Chat} chat
 */
async function findOut(chat) {
  goHome(chat);
  const read = async () =>
    applyAnswer(chat, position(chat), await call(chat, "read", readValues(chat, 0)));
  while (!is(chat, "left") && !(await read().catch(() => nextChange(chat))));
}
