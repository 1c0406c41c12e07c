// The line to the server: finds an endpoint and a transport that work, and a better one.

import { ask, post } from "./calls.js";
import { SpeakError } from "./protocol.js";
import { reportConnected } from "./status.js";
import { kept } from "./storage.js";
import { openReader } from "./transports.js";
import { sleep } from "./waiting.js";

/** @typedef {import("./state.js").Chat} Chat */

/** Time limit of a read that follows a check: the user may be watching. */
const CHECK_MS = 2500;
const PROBE_MS = 3000;
const MAX_RETRY_MS = 30000;

/**
 * Makes a call, and measures it.
 *
 * @param {Chat} chat
 * @param {string} path
 * @param {object} values
 * @param {number} [ms] time limit
 * @param {AbortController} [controller]
 */
export async function call(chat, path, values, ms, controller) {
  const began = Date.now();
  const answer = await ask(chat.transport.call, chat.endpoint + path, values, ms, controller);
  chat.latency = Date.now() - began;
  return answer;
}

/**
 * Makes a call that a check ends.
 *
 * @param {Chat} chat
 * @param {string} path
 * @param {object} values
 */
export function attempt(chat, path, values) {
  const ms = Date.now() - /** @type {number} */ (chat.checkedAt) < 1000 ? CHECK_MS : undefined;
  return call(chat, path, values, ms, (chat.attempt = new AbortController()));
}

/**
 * Finds an endpoint and a transport that work, and opens a reader. The test is /create: it changes
 * nothing.
 *
 * @param {Chat} chat
 */
export async function connect(chat) {
  let failure;
  chat.home = "";
  for (chat.endpoint of chat.endpoints) {
    let failed; // transports with the same call fail together
    for (chat.transport of chat.transports) {
      const { call } = chat.transport;
      if (call === failed) continue;
      try {
        const pair = await attempt(chat, "create", {});
        chat.pair ??= pair;
        chat.transports = chat.transports.filter((transport) => transport.call === call);
        return replaceReader(chat);
      } catch (/** @type {any} */ error) {
        if (error.name === "AbortError") throw error;
        failed = call;
        failure = error;
      }
    }
  }
  throw failure ?? Object.assign(new SpeakError("no such transport"), { status: 400 });
}

/** @param {Chat} chat */
function replaceReader(chat) {
  chat.reader?.close();
  chat.reader = openReader(chat.transport, chat.endpoint, () => reportConnected(chat));
  chat.isStale = true;
}

/** @param {Chat} chat */
function closeReader(chat) {
  chat.reader?.close();
  chat.reader = null;
}

/**
 * Goes back from a better endpoint, at which another server may answer by now, and has it probed
 * again. Returns whether there was one to leave.
 *
 * @param {Chat} chat
 */
export function goHome(chat) {
  const { endpoint, home } = chat;
  if (!home) return false;
  chat.better.push(endpoint);
  chat.endpoint = home;
  chat.home = "";
  closeReader(chat);
  return true;
}

/**
 * Looks for a better line after a read that succeeded.
 *
 * @param {Chat} chat
 */
export function improve(chat) {
  if (chat.doubts > 1 && chat.transports[1]) downgrade(chat);
  else if (chat.better[0] && chat.transport.call === post) probe(chat, chat.better.splice(0));
}

/**
 * Changes to the next transport. A proxy may refuse, cut or buffer streams.
 *
 * @param {Chat} chat
 */
function downgrade(chat) {
  chat.doubts = 0;
  chat.transports = chat.transports.slice(1);
  kept("speak", chat.transports[0].name);
  closeReader(chat);
}

/**
 * Moves to the first of these endpoints at which the same server answers.
 *
 * @param {Chat} chat
 * @param {string[]} urls
 */
async function probe(chat, urls) {
  for (const url of urls) {
    const key = `speak ${url}`;
    if (kept(key)) continue;
    const values = { channel: "?", timeout: 0 };
    const answer = await ask(chat.transport.call, `${url}read`, values, PROBE_MS).catch(() => {});
    if (answer?.epoch === chat.epoch) {
      // A WebSocket that is closed before it opens puts an error into the console.
      await sleep(1000);
      if (!chat.reader || answer.epoch !== chat.epoch) return;
      chat.home = chat.endpoint;
      chat.endpoint = url;
      return replaceReader(chat);
    }
    kept(key, "no");
  }
}

/**
 * Takes note of a failure. Returns the milliseconds after which to try again.
 *
 * @param {Chat} chat
 * @param {any} error
 */
export function noteFailure(chat, { isShort }) {
  // An unreachable server is no reason to doubt a transport.
  chat.doubts = isShort ? chat.doubts + 1 : 0;
  if (isShort === undefined && ++chat.failures > 1) closeReader(chat);
  const ms = 250 * 2 ** Math.max(chat.failures, chat.doubts, 1);
  return (0.5 + Math.random()) * Math.min(ms, MAX_RETRY_MS);
}
