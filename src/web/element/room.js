// Names of rooms.

/**
 * The name of a room, or what kind of a room it is if the name is one of the server's.
 *
 * @param {import("./view.js").View} view
 */
export const roomLabel = ({ room, owner }) =>
  owner ? "Your room" : ({ "~c": "A room", "~b": "A feed" }[room.slice(0, 2)] ?? room);
