// The public interface: speak.d.ts documents it.

import { ask, post } from "./calls.js";
import { emit } from "./events.js";
import { pageBack } from "./history.js";
import { call } from "./line.js";
import { run } from "./loop.js";
import { watchPage } from "./page.js";
import { SpeakError } from "./protocol.js";
import { applyMessage } from "./receiver.js";
import { send } from "./sender.js";
import { introduction, keepMember, restoreMember } from "./session.js";
import { createState } from "./state.js";
import { report } from "./status.js";
import { joinTabs, leaveTabs } from "./tabs.js";
import { baseUrl, oneLine } from "./values.js";

/** @typedef {import("./state.js").Chat} Chat */

/** @type {typeof import("../speak.js").join} */
export function join(room, options = {}) {
  /** @type {Chat["api"]} */
  const api = {
    room,
    state: { state: "connecting" },
    members: [],
    me: null,
    say(text) {
      // As the server will send it back: without halves of surrogate pairs.
      text = /** @type {string} */ (new URLSearchParams({ text }).get("text"));
      return send(chat, { text, act: () => write(chat.owner, text) });
    },
    async whisper(member, text) {
      const { connection = member } = /** @type {any} */ (member);
      const to = chat.members.get(connection);
      const inbox = to?.inbox;
      if (!inbox) throw new Error("takes no whispers");
      const sent = await send(chat, { to, act: () => write(inbox, text) });
      const from = chat.me?.connection;
      const copy = { ...sent, type: "message", time: Date.now(), from, message: text };
      if (!to.own) applyMessage(chat, copy, true, true, to);
      return sent;
    },
    async remove(message) {
      const { id = message, whisper } = /** @type {any} */ (message);
      if (whisper) throw new Error("a whisper"); // its id may be that of a message in the room
      return send(chat, { act: () => call(chat, "remove", { channel: chat.owner, id }) });
    },
    async kick(member, options) {
      const { connection = member } = /** @type {any} */ (member);
      const values = { ...options, channel: chat.owner, connection };
      await send(chat, { to: member, act: () => call(chat, "kick", values) });
    },
    async rename(text) {
      const name = oneLine(text);
      if (!chat.name || !name) throw new Error("no name");
      await send(chat, { act: () => call(chat, "introduce", introduction(chat, name)) });
      chat.name = name;
    },
    history: (count = 50) => send(chat, { act: () => pageBack(chat, count) }),
    async leave() {
      const me = chat.isLeader && chat.me;
      finish(chat);
      if (me) await call(chat, "goodbye", me).catch(() => {});
    },
  };
  const chat = createState(api, options.server ?? Speak.server, options);
  /** @param {string} channel @param {string} message */
  const write = (channel, message) => call(chat, "write", { channel, message, ...chat.me });
  start(chat);
  onAbort(options.signal, api.leave);
  return api;
}

/** @type {(kind?: any, options?: import("../speak.js").CreateOptions) => Promise<any>} */
export async function create(kind, { server = Speak.server, signal } = {}) {
  const controller = new AbortController();
  onAbort(signal, () => controller.abort(signal?.reason));
  return ask(post, `${baseUrl(server)}create`, { kind }, undefined, controller);
}

/**
 * Calls the function when the page aborts, or if it has already.
 *
 * @param {AbortSignal | undefined} signal
 * @param {() => void} act
 */
function onAbort(signal, act) {
  signal?.addEventListener("abort", act);
  if (signal?.aborted) act();
}

/** @param {Chat} chat */
function start(chat) {
  chat.lifetime = new AbortController();
  const { signal } = chat.lifetime;
  restoreMember(chat);
  joinTabs(chat, signal);
  watchPage(chat, signal, () => hide(chat));
  run(chat, signal).then((error) => error && finish(chat, error));
}

/** @param {Chat} chat */
function stop(chat) {
  chat.lifetime?.abort();
  chat.reader?.close();
  chat.retry.end();
  leaveTabs(chat);
  chat.isStale = true;
}

/**
 * Stops when the browser leaves the page. It may keep the page, and show it again.
 *
 * @param {Chat} chat
 */
function hide(chat) {
  keepMember(chat);
  stop(chat);
  addEventListener("pageshow", () => start(chat), { once: true });
}

/**
 * Ends the chat for good.
 *
 * @param {Chat} chat
 * @param {Error} [error]
 */
function finish(chat, error) {
  if (error) emit(chat, "error", error);
  stop(chat);
  report(chat, { state: "left", error: error?.message });
}

/**
 * What the page knows as Speak.
 *
 * @type {typeof import("../speak.js").default}
 */
export const Speak = {
  join,
  create,
  SpeakError: /** @type {any} */ (SpeakError),
  server: `${globalThis.location?.origin}`,
};
