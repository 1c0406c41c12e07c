// Reads from a stream: a WebSocket or an event stream.

import { parts } from "./protocol.js";
import { createPause } from "./waiting.js";

/** @typedef {import("./protocol.js").Answer} Answer */
/** @typedef {import("./protocol.js").ReadValues} ReadValues */

/**
 * Gets the messages of the server, one read after the other.
 *
 * @typedef {object} Reader
 * @property {(values: ReadValues) => Promise<Answer | undefined | void>} next returns what a long
 *   poll with these values would; nothing after a silence in which an answer may have been lost,
 *   and after close()
 * @property {() => void} close
 * @property {() => unknown} isOpen whether messages can arrive
 */

/**
 * WebSocket or EventSource, as far as a reader uses it.
 *
 * @typedef {object} Source
 * @property {((event: any) => void) | null} onopen
 * @property {((event: any) => void) | null} onerror
 * @property {((event: any) => void) | null} [onclose]
 * @property {() => void} close
 */

/**
 * Opens a source of the answers to a read, which has no timeout.
 *
 * @callback Open
 * @param {string} endpoint
 * @param {(answer: Answer) => void} receive
 * @param {Omit<ReadValues, "timeout">} values
 * @param {() => void} onMissed called if a read has to report what was lost
 * @returns {Source}
 */

/**
 * Stream that is open, or opens.
 *
 * @typedef {object} Stream
 * @property {Omit<ReadValues, "timeout">} opened values that it was opened with
 * @property {string} expects the read that it answers next
 * @property {Answer[]} received
 * @property {Source} [source]
 * @property {number} timeoutMs silence after which a read has to find out if something was lost
 * @property {number} began time at which it began
 * @property {number} [heard] time at which it was last heard of
 * @property {boolean} [isOpen]
 * @property {boolean} [timedOut] it was silent for too long, and nothing came since
 * @property {boolean} [ended]
 */

const MIN_SILENCE_MS = 3000;
const MAX_SILENCE_MS = 40000;
/** Age at which a stream is no longer one that a proxy blocks or cuts. */
const LONG_MS = 20000;

/**
 * Returns a reader that opens a stream with the first read. If the stream does not continue exactly
 * where a later read begins, the reader opens a new one.
 *
 * @param {Open} open
 * @param {string} endpoint
 * @param {() => void} onOpen called when a stream has opened
 * @returns {Reader}
 */
export function streamReader(open, endpoint, onOpen) {
  /** @type {Stream | null} */
  let stream = null;
  const pause = createPause();

  /** @param {Omit<ReadValues, "timeout">} values */
  function begin(values) {
    /** @type {Stream} */
    const current = {
      opened: values,
      expects: JSON.stringify(values),
      received: [],
      timeoutMs: MIN_SILENCE_MS,
      began: Date.now(),
    };
    stream = current;
    // Ignores events of a replaced stream, and those after the end: they would hide a loss.
    const guarded = (/** @type {(value?: any) => void} */ act) => (/** @type {any} */ value) => {
      if (stream !== current || current.ended) return;
      current.heard = Date.now();
      act(value);
      pause.end();
    };
    const end = guarded(() => (current.ended = true));
    try {
      const source = open(
        endpoint,
        guarded((answer) => current.received.push(answer)),
        values,
        () => {
          current.began = 0; // no fault of the stream
          end(0);
        },
      );
      current.source = source;
      source.onopen = () => {
        current.isOpen = true;
        if (stream === current) onOpen();
      };
      source.onerror = source.onclose = end;
    } catch {
      end(0); // the page's policy may forbid streams
    }
    return current;
  }

  function close() {
    stream?.source?.close();
    stream = null;
    pause.end();
  }

  /**
   * Closes the stream. `isShort` of the error: the stream is not known to have lived for long. A
   * proxy may block or cut it.
   *
   * @param {Stream} failed
   */
  function fail(failed) {
    const isShort = !(/** @type {number} */ (failed.heard) - failed.began >= LONG_MS);
    close();
    throw Object.assign(new Error("the stream ended"), { isShort });
  }

  /** @param {Stream} current @returns {Answer} */
  function takeNext(current) {
    const answer = /** @type {Answer} */ (current.received.shift());
    const from_id = parts(answer).map((part) => part.next_id);
    current.expects = JSON.stringify({ ...current.opened, from_id, epoch: answer.epoch });
    current.timeoutMs = MAX_SILENCE_MS;
    current.timedOut = false;
    return answer;
  }

  /** @param {ReadValues} values */
  async function next({ timeout, ...values }) {
    const from = JSON.stringify(values);
    while (stream?.received[0] && stream.expects !== from) takeNext(stream); // a read was faster
    if (stream?.expects !== from) {
      if (stream?.timedOut) fail(stream); // it lost what a read brought
      close();
      begin(values);
    }
    const current = /** @type {Stream} */ (stream);
    if (!current.received[0] && !current.ended)
      await pause.wait(current.timeoutMs * (1 + Math.random()));
    if (current !== stream) return;
    if (current.received[0]) return takeNext(current);
    if (current.ended || !current.isOpen) fail(current);
    current.timedOut = true;
    current.timeoutMs = Math.min(2 * current.timeoutMs, MAX_SILENCE_MS);
  }

  return { next, close, isOpen: () => stream?.isOpen && !stream.ended };
}
