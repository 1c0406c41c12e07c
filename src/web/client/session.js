// The page's own member: parameters of its calls, and its end.

import { kept } from "./storage.js";

/** @typedef {import("./state.js").Chat} Chat */
/** @typedef {import("./state.js").Session} Session */

/** Seconds that the connection survives the read: no one sees a page that reloads go and come. */
const GRACE_S = 2;

/**
 * Returns whether the member is in the room, or there is none.
 *
 * @param {Session} session
 */
export const isIn = ({ me, name }) => me || !name;

/**
 * Parameters of /introduce.
 *
 * @param {Session & { owner: string }} session
 * @param {string} name
 */
export function introduction({ owner, hasInbox, pair, me }, name) {
  const message = hasInbox && pair ? `${name}\n${pair.write}` : name;
  return { channel: owner, message, ...me };
}

/**
 * Parameters of /read.
 *
 * @param {Chat} chat
 * @param {number} timeout seconds to wait
 */
export function readValues({ room, isBlind, hasInbox, pair, cursor, epoch, me }, timeout) {
  const channel = isBlind ? [] : [room];
  if (pair && (hasInbox || isBlind)) channel.push(pair.read);
  return { channel, from_id: cursor, epoch, timeout, grace: GRACE_S, ...me };
}

/**
 * Forgets the connection of a call that failed, if it has ended. Returns whether it has. After a
 * restart its number may belong to another client: then the error is that the auth code is wrong.
 *
 * @param {Session} session
 * @param {any} error
 * @param {Session["me"]} credentials of the call
 */
export function forgetConnection(session, { name }, credentials) {
  if (!/connection_ended|bad_auth/.test(name)) return false;
  if (session.me === credentials) session.me = null;
  return true;
}

/**
 * Leaves the member to the next page of the tab.
 *
 * @param {Session} session
 */
export function keepMember(session) {
  const { me, pair, name, key } = session;
  if (me) kept(session.place, JSON.stringify({ me, pair, name, key }));
}

/**
 * Continues as the member that an earlier page of the tab has left. A copy of the tab, which would
 * use the same connection, finds nothing.
 *
 * @param {Session} session
 */
export function restoreMember(session) {
  const member = JSON.parse(kept(session.place) || "{}");
  if (member.key === session.key || member.name === session.name) {
    Object.assign(session, member);
    kept(session.place, "");
  }
}
