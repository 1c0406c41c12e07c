// Main loop of a chat: find what works, join, read from the cursors, and pause after a failure.

import { position } from "./cursors.js";
import { is } from "./events.js";
import { attempt, call, connect, goHome, improve, noteFailure } from "./line.js";
import { checked, isTransient } from "./protocol.js";
import { applyAnswer } from "./receiver.js";
import { forgetConnection, introduction, isIn, readValues } from "./session.js";
import { report, reportConnected } from "./status.js";
import { nextChange } from "./waiting.js";

/** @typedef {import("./state.js").Chat} Chat */

/** Seconds of a long poll. */
const POLL_S = 25;

/**
 * Runs the chat until it or its page is left. Returns the error if the server refuses a call for
 * good.
 *
 * @param {Chat} chat
 * @param {AbortSignal} signal
 */
export async function run(chat, signal) {
  let endings = 0; // calls in a row that failed because the connection had ended
  while (!signal.aborted) {
    const { me, isLeader } = chat;
    if (is(chat, "waiting")) report(chat, { state: "connecting" });
    try {
      if (chat.dismissal) checked(chat.dismissal);
      if (!chat.reader) await connect(chat);
      else if (!isLeader && !(isLeader === false && chat.isStale && isIn(chat)))
        await nextChange(chat);
      else if (!isIn(chat)) await introduce(chat);
      else if (await read(chat, signal)) endings = 0;
    } catch (/** @type {any} */ error) {
      if (signal.aborted) return;
      if (error.name === "AbortError") continue; // by a check
      if (forgetConnection(chat, error, me)) {
        goHome(chat);
        if (!endings++) continue;
      } else if (error.status && !isTransient(error)) return error;
      chat.isStale = true;
      const retryIn = noteFailure(chat, error);
      // A stream that ends says nothing about the server: the next read does.
      if (chat.failures || chat.doubts > 2)
        report(chat, { state: "waiting", retryIn, error: error.message });
      await chat.retry.wait(retryIn);
    }
  }
}

/** @param {Chat} chat */
async function introduce(chat) {
  const { connection, auth, id } = await call(chat, "introduce", introduction(chat, chat.name));
  chat.me = { connection, auth };
  chat.joinedId = id;
  chat.ownConnections.add(connection);
}

/**
 * Reads once. Returns whether an answer came.
 *
 * @param {Chat} chat
 * @param {AbortSignal} signal
 */
async function read(chat, signal) {
  const from = position(chat);
  const answer = await (chat.isStale
    ? attempt(chat, "read", readValues(chat, 0))
    : chat.reader?.next(readValues(chat, POLL_S)));
  if (signal.aborted) return;
  if (!answer) {
    chat.isStale = true; // a read may know more than the silent stream
    return;
  }
  // After a restart, another server may have the port of the better endpoint.
  if (chat.epoch !== answer.epoch && goHome(chat)) return;
  applyAnswer(chat, from, answer);
  chat.isStale = chat.cursor.includes(0) || (!chat.isLeader && from !== position(chat));
  chat.failures = 0;
  // A stream that is not open yet reports when it opens.
  const news = { from, answer };
  if (chat.isLeader && !chat.reader?.isOpen()) report(chat, {}, news);
  else reportConnected(chat, news);
  improve(chat);
  return true;
}
