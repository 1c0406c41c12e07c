// Places in the channels that a chat reads.

/** @typedef {import("./state.js").Cursors} Cursors */

/**
 * Returns a text that is equal if the next read is.
 *
 * @param {Cursors} cursors
 */
export const position = ({ epoch, cursor }) => `${epoch} ${cursor}`;

/**
 * Goes back to the beginning of a channel: its ids begin again.
 *
 * @param {Cursors} cursors
 * @param {number} i
 */
export function restart({ cursor, emitted }, i) {
  cursor[i] = emitted[i] = 0;
}

/**
 * Moves behind a part of an answer. If messages were lost, they may have changed the members, which
 * a read from 0 lists again.
 *
 * @param {Cursors} cursors
 * @param {number} i number of the channel
 * @param {import("./protocol.js").Part} part
 */
export function advance({ cursor, emitted }, i, part) {
  cursor[i] = part.missed ? 0 : part.next_id;
  emitted[i] = Math.max(emitted[i], part.next_id);
}
