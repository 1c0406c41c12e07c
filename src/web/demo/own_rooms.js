// The secret names of the user's own rooms, by the names that are given away. They stay in this
// browser, and go to the server alone.

const KEY = "speak-rooms";
const rooms = new Map();

// Returns the secret name of a room, if the user owns it.
export function ownNameOf(channel) {
  try {
    // Another tab may have added rooms.
    const stored = Object.entries(JSON.parse(localStorage.getItem(KEY)) ?? {});
    for (const [name, owner] of stored) rooms.set(name, owner);
  } catch { /* forbidden */ }
  return rooms.get(channel);
}

// Adds a room. Returns whether the browser keeps it when the page closes.
export function addOwnRoom(channel, owner) {
  ownNameOf(channel); // loads what other tabs have added
  rooms.set(channel, owner);
  try {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(rooms)));
    return true;
  } catch {
    return false;
  }
}

// Returns the name of a room that is given away: the hash of the owner's name (docs/api.md).
export async function channelOf(owner) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(owner));
  const base64 = btoa(String.fromCharCode(...new Uint8Array(hash)));
  return `~c${base64.slice(0, 22).replaceAll("+", "-").replaceAll("/", "_")}`;
}
