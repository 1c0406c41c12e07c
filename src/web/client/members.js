// The members of a room, as its introductions and goodbyes report them.

/** @typedef {import("./state.js").Members} Members */

/**
 * Adds the member of an introduction, which has its name, and in a second line its inbox. Returns
 * the name.
 *
 * @param {Members} list
 * @param {Omit<import("./protocol.js").WireMessage, "type" | "time">} introduction
 * @param {boolean} own
 */
export function addMember({ names, members }, { id, from: connection, message = "", owner }, own) {
  const [name, address] = message.split("\n");
  // Only a pair is an inbox. Else a member could name a room, and whispers would be public.
  const inbox = /^~w/.test(address) ? address : undefined;
  names.set(connection, name);
  members.set(connection, /** @type {any} */ ({ connection, id, name, own, owner, inbox }));
  return name;
}

/**
 * Takes the name away from the member whose introduction is removed.
 *
 * @param {Members} list
 * @param {number} id of the introduction
 */
export function removeName(list, id) {
  for (const member of list.members.values())
    if (member.id === id) addMember(list, { ...member, from: member.connection }, member.own);
}

/**
 * Returns the members in the room, sorted by connection.
 *
 * @param {Members} list
 */
export const listMembers = (list) =>
  [...list.members.values()].sort((a, b) => a.connection - b.connection);
