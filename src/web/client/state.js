// The state of a chat. The other modules act on it, each on its part.

import { chooseEndpoints } from "./endpoints.js";
import { usableTransports } from "./transports.js";
import { baseUrl, oneLine } from "./values.js";
import { createPause } from "./waiting.js";

/** @typedef {import("../speak.js").Chat} Api */
/** @typedef {import("../speak.js").Member} Member */
/** @typedef {import("../speak.js").Options} Options */

/**
 * What the page has asked for.
 *
 * @typedef {object} Wishes
 * @property {{ -readonly [key in keyof Api]: Api[key] }} api what join() returned to the page
 * @property {string} room
 * @property {string} owner name for everything but reading: the room's name or its secret name
 * @property {boolean} isBlind whether the room's name only writes: the chat reads only its inbox
 * @property {boolean} history whether the messages of the first answer are events
 * @property {boolean} share whether tabs share the member
 */

/**
 * The page's own member (session.js).
 *
 * @typedef {object} Session
 * @property {string} name empty for a page that only reads, unseen
 * @property {unknown} hasInbox whether the member accepts whispers
 * @property {{ read: string, write: string }} [pair] the inbox, after the first connect
 * @property {import("./protocol.js").Credentials | null} [me] while introduced
 * @property {number} [joinedId] id of the introduction, if this page has made it
 * @property {object} [dismissal] error with which the chat ends: the owner sent the member away
 * @property {Set<number | undefined>} ownConnections all connections that the member has had
 * @property {string} place key of the member that an earlier page of the tab has left
 * @property {string} key the same in all tabs that share the member
 */

/**
 * The members of the room (members.js), by their connections.
 *
 * @typedef {object} Members
 * @property {Map<number | undefined, string>} names also of members that have left
 * @property {Map<number | undefined, Member>} members
 */

/**
 * Places in the channels that the chat reads: the room, and the inbox if there is one (cursors.js).
 *
 * @typedef {object} Cursors
 * @property {string} [epoch] name of the server's numbering, after the first answer
 * @property {number[]} cursor where the next read of each channel begins: its `from_id`
 * @property {number[]} emitted messages below these ids were events, even if the cursor goes back
 * @property {number} oldest id before which the page has got no message of the room; 0: all
 * @property {boolean} isStale the server may have more: the next read does not wait
 */

/**
 * The line to the server: an endpoint, a transport and a reader that work (line.js).
 *
 * @typedef {object} Line
 * @property {string[]} endpoints in the order in which to try them
 * @property {string[]} better to move to if the same server answers there, best first
 * @property {import("./transports.js").Transport[]} transports that may work, best first
 * @property {string} endpoint in use
 * @property {string} home endpoint to go back to; empty if none is better than it
 * @property {import("./transports.js").Transport} transport in use
 * @property {import("./stream_reader.js").Reader | null} [reader] while something works
 * @property {number} [latency] duration of the last call, in milliseconds
 * @property {number} failures number of calls that failed, in a row
 * @property {number} doubts number of streams that were short, in a row
 * @property {AbortController} [attempt] the call that a check ends
 * @property {import("./waiting.js").Pause} retry the pause after a failure
 * @property {number} [checkedAt] time of the last check, or at which the page was hidden
 */

/**
 * What is being sent (sender.js).
 *
 * @typedef {object} Sending
 * @property {Promise<unknown>} queue ends when all before has been sent
 * @property {import("./sender.js").Item} [pending] item that is being sent
 * @property {number} lastSentId id of the last message that is known to have arrived
 */

/**
 * Part among the tabs that share the member (tabs.js), and what ends it.
 *
 * @typedef {object} Life
 * @property {boolean | null} [isLeader] a boolean as soon as it is known
 * @property {BroadcastChannel | null} [bus] to the other tabs
 * @property {AbortController} [lifetime] aborted when the chat or the page is left
 * @property {((value?: unknown) => void)[]} waiters called at the next change
 */

/** @typedef {Wishes & Session & Members & Cursors & Line & Sending & Life} Chat */

/**
 * What the first connect and the first answer set. No other module needs it before.
 *
 * @typedef {Pick<Chat, "endpoint" | "home" | "lastSentId" | "oldest">} Later
 */

/**
 * @param {Chat["api"]} api
 * @param {string} server
 * @param {Options} options
 * @returns {Chat}
 */
export function createState(api, server, options) {
  const { room } = api;
  const {
    endpoint = "auto",
    transport = "auto",
    owner = room,
    history = true,
    inbox = true,
    share = true,
  } = options;
  const isBlind = /^~[wf]/.test(room);
  const name = /^~[rb]/.test(owner) ? "" : oneLine(options.name); // these names only read
  const hasInbox = name && inbox;
  const place = JSON.stringify(["speak", (server = baseUrl(server)), room, owner]);
  const transports = usableTransports(transport);
  return {
    ...{ api, room, owner, isBlind, history, share },
    ...{ name, hasInbox, place, key: place + name, ownConnections: new Set() },
    ...{ names: new Map(), members: new Map() },
    ...{ cursor: hasInbox && !isBlind ? [0, 0] : [0], emitted: [0, 0], isStale: true },
    ...chooseEndpoints(server, endpoint),
    ...{ transports, transport: transports[0] },
    ...(/** @type {Later} */ ({})),
    ...{ failures: 0, doubts: 0, retry: createPause() },
    queue: Promise.resolve(),
    waiters: [],
  };
}
