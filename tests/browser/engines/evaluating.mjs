// Calls of functions in pages, for protocols that pass text.

/**
 * Returns an expression whose value is a promise of what the function returns in a page, as JSON.
 *
 * @param {(value?: any) => any} callback
 * @param {unknown} [value] its argument, which has to have a form in JSON
 */
export const expressionOf = (callback, value) =>
  `(async () => JSON.stringify((await (${callback})(${JSON.stringify(value)})) ?? null))()`;
