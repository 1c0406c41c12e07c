// Addresses at which a server may be reached.

import { baseUrl } from "./values.js";

/** Port that proxies usually leave alone. There, a server speaks what it speaks at its address. */
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
  return { endpoints: [server], better: [`${protocol}//${hostname}:${DIRECT_PORT}/`] };
}
