// Tabs of one browser that share a member: one of them, the leader, reads for all. The others, its
// followers, write under its connection.

import { position } from "./cursors.js";
import { is } from "./events.js";
import { applyAnswer } from "./receiver.js";
import { isIn } from "./session.js";
import { check, notify } from "./waiting.js";

/** @typedef {import("./state.js").Chat} Chat */

/** Message of a follower: the leader is to broadcast. */
const ASK = 0;
/** Message of a tab that wakes up: the leader is to check its line too. Its tab may be asleep. */
const WAKE = 1;

/**
 * Returns whether texts can be sent.
 *
 * @param {Chat} chat
 */
export const isReady = (chat) => chat.epoch && !chat.failures && !is(chat, "left") && isIn(chat);

/**
 * Begins a part among the tabs, for as long as the page lives.
 *
 * @param {Chat} chat
 * @param {AbortSignal} signal
 */
export function joinTabs(chat, signal) {
  const lead = () => {
    // Chromium grants a lock that was given up in the same turn.
    if (signal.aborted) return;
    chat.isLeader = true;
    notify(chat);
    return new Promise((resolve) => (signal.onabort = resolve));
  };
  // Programs without a page have no tabs, even if they have locks.
  if (chat.share && globalThis.document && navigator.locks) {
    const bus = (chat.bus = new BroadcastChannel(chat.key));
    bus.onmessage = ({ data }) => onMessage(chat, data);
    bus.postMessage(ASK);
    navigator.locks.request(chat.key, { signal }, lead).catch(() => signal.aborted || lead());
  } else lead();
}

/** @param {Chat} chat */
export function leaveTabs(chat) {
  chat.bus?.close();
  chat.bus = chat.isLeader = null;
}

/**
 * Broadcasts the state of the leader to its followers.
 *
 * @param {Chat} chat
 * @param {object} [read] `from` (a position) and `answer` of a read, for the followers to apply
 */
export function broadcast(chat, read) {
  const { bus, isLeader, me, ownConnections, pair, name } = chat;
  const now = isReady(chat) && position(chat);
  if (isLeader && pair) bus?.postMessage({ me, ownConnections, pair, name, now, ...read });
}

/** @param {Chat} chat */
export const wakeLeader = (chat) => chat.bus?.postMessage(WAKE);

/** @param {Chat} chat @param {any} data */
function onMessage(chat, data) {
  const { now, from, answer, ...member } = data;
  chat.retry.end();
  if (chat.isLeader) {
    if (data === WAKE) check(chat);
    broadcast(chat);
  } else if (data.pair) {
    Object.assign(chat, member, { isLeader: false });
    if (answer) applyAnswer(chat, from, answer);
    chat.isStale ||= now !== position(chat);
    notify(chat);
  }
}
