// Ways to wait, and to end a wait.

/** @typedef {import("./state.js").Chat} Chat */

/**
 * Waits for this time.
 *
 * @param {number} ms
 */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Wait that something else can end.
 *
 * @typedef {object} Pause
 * @property {(ms: number) => Promise<void>} wait waits for this time, or until end() is called
 * @property {() => void} end ends the wait, if there is one
 */

/** @returns {Pause} */
export function createPause() {
  let wake = () => {};
  return {
    wait: (ms) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      }),
    end: () => wake(),
  };
}

/**
 * Waits until the state of the chat has changed.
 *
 * @param {Chat} chat
 */
export const nextChange = (chat) => new Promise((resolve) => chat.waiters.push(resolve));

/**
 * Ends all waits for a change.
 *
 * @param {Chat} chat
 */
export const notify = (chat) => chat.waiters.splice(0).forEach((resolve) => resolve());

/**
 * Finds out within three seconds if the server can be reached, and replaces the stream, which may
 * have died unnoticed.
 *
 * @param {Chat} chat
 */
export function check(chat) {
  chat.checkedAt = Date.now();
  chat.isStale = true;
  chat.retry.end();
  chat.attempt?.abort();
  chat.reader?.close();
  notify(chat);
}
