// What the checks of the protocol's clients assert with, in Node and in pages: named as in
// `node:assert`, which pages do not have.

/** Whether two values are the same: to the kind of each, and without regard to classes. */
export function isSame(one, other) {
  if (Object.is(one, other)) return true;
  if (typeof one !== "object" || typeof other !== "object" || !one || !other) return false;
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const names = Object.keys(one);
  if (names.length !== Object.keys(other).length) return false;
  return names.every((name) => Object.hasOwn(other, name) && isSame(one[name], other[name]));
}

const shown = (value) => JSON.stringify(value, (_, part) => (part === undefined ? "(undefined)" : part));

function must(holds, text, why) {
  if (!holds) throw new Error(why ? `${why}: ${text}` : text);
}

export const assert = {
  equal(found, wanted, why) {
    must(Object.is(found, wanted), `${shown(found)} is not ${shown(wanted)}`, why);
  },

  deepEqual(found, wanted, why) {
    must(isSame(found, wanted), `${shown(found)} is not ${shown(wanted)}`, why);
  },

  match(text, pattern, why) {
    must(pattern.test(text), `${shown(text)} is not like ${pattern}`, why);
  },

  /** That a promise is rejected with an error of which the function says that it is right. */
  async rejects(promise, isRight) {
    const error = await promise.then((value) => must(false, `${shown(value)} came instead of an error`), (error) => error);
    must(isRight(error), `another error came: ${error?.code} ${error?.message}`);
  },
};
