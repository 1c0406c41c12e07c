// Reads by long polls.

import { ask, loadScript } from "./calls.js";
import { sleep } from "./waiting.js";

/** Time limit of a long poll: the server answers after 25 seconds. */
const POLL_MS = 40000;

/**
 * @param {import("./calls.js").Call} call
 * @param {string} endpoint
 * @returns {import("./stream_reader.js").Reader}
 */
export function pollReader(call, endpoint) {
  /** @type {AbortController | undefined} */
  let controller;
  return {
    async next(values) {
      // A script that waits for messages would delay the page's load event.
      if (call === loadScript && document.readyState !== "complete") return sleep(2000);
      controller = new AbortController();
      return ask(call, `${endpoint}read`, values, POLL_MS, controller);
    },
    close: () => controller?.abort(),
    isOpen: () => true,
  };
}
