// Opens an event stream: each event is one message.

import { form } from "./values.js";

/** @typedef {import("./protocol.js").Answer} Answer */

/**
 * Returns the answer of a read that would have brought the message of this event.
 *
 * @param {string[]} channels in the order of the read
 * @param {{ data: string, lastEventId: string }} event `data` is the message, with its channel if
 *   there are several; the id is EPOCH:NEXT_ID,NEXT_ID…
 * @returns {Answer}
 */
export function answerOf(channels, { data, lastEventId }) {
  const { channel = channels[0], ...message } = JSON.parse(data);
  const [epoch, cursors] = lastEventId.split(":");
  return {
    epoch,
    channels: cursors.split(",").map((next_id, i) => ({
      messages: channel === channels[i] ? [message] : [],
      next_id: +next_id,
    })),
  };
}

/** @type {import("./stream_reader.js").Open} */
export function openEventStream(endpoint, receive, values, onMissed) {
  // If a proxy turns the stream into a plain read, the server answers the read at once.
  const source = new EventSource(`${endpoint}read?${form(values)}&timeout=0`);
  source.onmessage = (event) => receive(answerOf(values.channel, event));
  // A read reports more exactly what was lost.
  source.addEventListener("missed", onMissed);
  source.addEventListener("reset", onMissed);
  return source;
}
