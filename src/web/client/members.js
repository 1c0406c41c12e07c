// The members of a room, as its introductions and goodbyes report them.

/** @typedef {import("./state.js").Members} Members */

/**
 * Adds the member of an introduction, which has its name, and in a second line its inbox. Returns
 * the name.
 *
 * @param {Members} list
 * @param {number} connection
 * @param {string} introduction
 * @param {boolean} own
 */
export function addMember({ names, members }, connection, introduction, own) {
  const [name, address] = introduction.split("\n");
  // Only a pair is an inbox. Else a member could name a room, and whispers would be public.
  const inbox = /^~w/.test(address) ? address : undefined;
  names.set(connection, name);
  members.set(connection, { connection, name, own, inbox });
  return name;
}

/**
 * Returns the members in the room, sorted by connection.
 *
 * @param {Members} list
 */
export const listMembers = ({ members }) =>
  [...members.values()].sort((a, b) => a.connection - b.connection);
