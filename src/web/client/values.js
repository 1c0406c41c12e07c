// Values that the client sends, and how it writes them.

/**
 * Returns the text in one line, without space around it.
 *
 * @param {unknown} text
 */
export const oneLine = (text = "") => `${text}`.replace(/\s+/g, " ").trim();

/**
 * Returns the address of a server with one slash at its end. If the address is relative, it is
 * relative to the page.
 *
 * @param {string} url
 */
export const baseUrl = (url) => new URL(url, globalThis.location?.href).href.replace(/\/*$/, "/");

/**
 * Returns values as a form. A list becomes one field for each of its items. A value that is null
 * or undefined is left out.
 *
 * @param {object} values
 */
export function form(values) {
  const fields = Object.entries(values).flatMap(([key, value]) =>
    [value ?? []].flat().map((item) => [key, item]),
  );
  return new URLSearchParams(fields);
}
