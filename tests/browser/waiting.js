// How long a test waits; for Node and for pages.

/** No test waits longer for anything, in milliseconds. */
export const PATIENCE = 20_000;

/** The promise, or an error when it takes longer than any test waits. */
export function within(promise, what, patience = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${patience} ms`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
