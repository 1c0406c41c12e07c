// The transports, and which of them are there.

import { loadScript, post } from "./calls.js";
import { openEventStream } from "./event_stream.js";
import { pollReader } from "./poll_reader.js";
import { kept } from "./storage.js";
import { streamReader } from "./stream_reader.js";
import { openWebSocket } from "./web_socket.js";

/**
 * @typedef {object} Transport
 * @property {import("../speak.js").Transport} name
 * @property {string} needs global that the platform has, if it can use the transport
 * @property {import("./calls.js").Call} call
 * @property {import("./stream_reader.js").Open} [open] opens a stream; without it, the transport
 *   reads by long polls
 */

/** Best first. @type {Transport[]} */
const TRANSPORTS = [
  { name: "websocket", needs: "WebSocket", call: post, open: openWebSocket },
  { name: "eventsource", needs: "EventSource", call: post, open: openEventStream },
  { name: "fetch", needs: "fetch", call: post },
  { name: "jsonp", needs: "document", call: loadScript },
];

/**
 * Returns the transports to try, best first: not those that an earlier page of the tab gave up.
 *
 * @param {string} only "auto", or the name of the one to use
 */
export function usableTransports(only) {
  const usable = TRANSPORTS.filter(
    ({ name, needs }) =>
      /** @type {any} */ (globalThis)[needs] && (only === "auto" || only === name),
  );
  const first = usable.findIndex(({ name }) => name === kept("speak"));
  return usable.slice(Math.max(first, 0));
}

/**
 * @param {Transport} transport
 * @param {string} endpoint
 * @param {() => void} onOpen
 */
export const openReader = ({ call, open }, endpoint, onOpen) =>
  open ? streamReader(open, endpoint, onOpen) : pollReader(call, endpoint);
