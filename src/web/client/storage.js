// What a page leaves for later pages of its tab.

/**
 * Returns the value that an earlier page of this tab left under this key. Replaces it if there is
 * a new one. The keys are "speak", for the transport that the page fell back to; "speak URL", for
 * endpoints that did not answer; and one for the member of each room.
 *
 * @param {string} key
 * @param {string | null} [value]
 */
export function kept(key, value) {
  try {
    const old = sessionStorage[key];
    if (value != null) sessionStorage[key] = value;
    return old;
  } catch {
    return null; // storage may be forbidden, or missing
  }
}
