// Addresses at which a server may be reached.

import { baseUrl } from "./values.js";

/** Port that proxies usually leave alone. */
const DIRECT_PORT = 7732;

/**
 * Returns the endpoints to begin at, in this order; and those to move to if the same server
 * answers there, best first.
 *
 * @param {string} server
 * @param {string | string[]} urls "auto", or addresses of the server, best first
 */
export function chooseEndpoints(server, urls) {
  if (urls !== "auto") {
    const endpoints = [urls].flat().map(baseUrl);
    return { endpoints: [...endpoints].reverse(), better: endpoints.slice(0, -1) };
  }
  const { protocol, hostname } = new URL(server);
  // A page by https may not call http, and port 7732 has no TLS.
  const isSecure = /https/.test(protocol + globalThis.location?.protocol);
  return { endpoints: [server], better: isSecure ? [] : [`http://${hostname}:${DIRECT_PORT}/`] };
}
