// Answers of the server (docs/api.md) and its errors.

/**
 * Message of a channel.
 *
 * @typedef {object} WireMessage
 * @property {number} id
 * @property {string} type "message", "introduction", "goodbye", "removed" or "removal"; others are
 *   ignored
 * @property {number} time milliseconds since 1970
 * @property {number} [from] connection of the sender
 * @property {boolean} [owner] the owner of the room sent it
 * @property {string} [message]
 * @property {"left" | "closed" | "timeout" | "removed"} [reason] of a goodbye
 * @property {number} [of] id of the message that a removal takes away
 */

/**
 * What a read returns of one channel.
 *
 * @typedef {object} Part
 * @property {WireMessage[]} messages
 * @property {number} next_id where the next read begins
 * @property {boolean} [missed] messages are gone that the read asked for
 * @property {boolean} [reset] ids begin again: the messages are those of a read from 0
 */

/**
 * Answer of a read. A read of one channel gets a part, one of several channels a list of parts in
 * the order of the channels.
 *
 * @typedef {{ epoch: string, channels?: Part[] } & Partial<Part>} Answer
 */

/**
 * Secret and number of an introduced member.
 *
 * @typedef {{ connection: number, auth: string }} Credentials
 */

/**
 * Parameters of a read.
 *
 * @typedef {object} ReadValues
 * @property {string[]} channel
 * @property {number[]} from_id
 * @property {string} [epoch]
 * @property {number} timeout seconds
 * @property {number} grace seconds
 * @property {number} [connection]
 * @property {string} [auth]
 */

/** Error that the server answered with. Has the keys of the answer, and its name. */
export class SpeakError extends Error {}

/**
 * Returns the parts of an answer, one for each channel.
 *
 * @param {Answer} answer
 */
export const parts = (answer) => answer.channels ?? [/** @type {Part} */ (answer)];

/**
 * Returns the answer of a call. Throws it if it is an error.
 *
 * @param {any} answer
 */
export function checked(answer) {
  if (!answer.error) return answer;
  // The call may have been made, as if its answer was lost.
  if (answer.error === "outcome_unknown") answer.status = 0;
  throw Object.assign(new SpeakError(answer.detail), answer, { name: answer.error });
}

/**
 * Returns whether the server did not do what it was asked for, but may do it later.
 *
 * @param {any} error
 */
export const isTransient = ({ status }) => /408|429|^5/.test(status);
