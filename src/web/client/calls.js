// Single calls: as a form, or as a script.

import { checked } from "./protocol.js";
import { form } from "./values.js";

/**
 * Makes a call. Returns the server's answer.
 *
 * @typedef {(url: string, form: URLSearchParams, signal: AbortSignal) => Promise<any>} Call
 */

/**
 * Calls with a form by POST. It needs no preflight and puts no secret into logs and caches. A
 * goodbye arrives, even if the page closes right after it.
 *
 * @type {Call}
 */
export async function post(url, body, signal) {
  const response = await fetch(url, {
    method: "POST",
    body,
    signal,
    keepalive: url.endsWith("goodbye"),
    credentials: "omit",
    cache: "no-store",
    referrerPolicy: "no-referrer",
  });
  const answer = await response.json();
  if (answer.error) answer.retryAfter = response.headers.get("Retry-After");
  return answer;
}

/**
 * Calls with a script element (JSONP). A script brings an answer from any origin.
 *
 * @type {Call}
 */
export const loadScript = (url, query, signal) =>
  new Promise((resolve, reject) => {
    const element = document.createElement("script");
    const callback = `_${Math.random().toString(36).slice(2)}`;
    query.append("callback", callback);
    /** @type {any} */ (globalThis)[callback] = resolve;
    // A script cannot be cancelled. Its callback stays until the script has loaded, however late.
    element.onload = element.onerror = () => {
      delete (/** @type {any} */ (globalThis)[callback]);
      element.remove();
      reject(new Error("nothing loaded"));
    };
    signal.onabort = () => reject(signal.reason);
    element.referrerPolicy = "no-referrer";
    element.src = `${url}?${query}`;
    document.head.append(element);
  });

/** Time limit of a call. */
const CALL_MS = 10000;

/**
 * Calls within a time limit: a network that loses a call does not report it. Throws a SpeakError
 * if the server answers with an error.
 *
 * @param {Call} call
 * @param {string} url
 * @param {object} values parameters of the call
 * @param {number} [ms] time limit
 * @param {AbortController} [controller] ends the call early
 */
export async function ask(call, url, values, ms = CALL_MS, controller = new AbortController()) {
  const timer = setTimeout(() => controller.abort(new Error("timed out")), ms);
  try {
    return checked(await call(url, form(values), controller.signal));
  } finally {
    clearTimeout(timer);
  }
}
