// The server with `centrifuge`, the JavaScript client of the protocol, where it is the browser that
// takes its connection away. What it does in a page as anywhere is in `centrifuge.test.js`.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BUNDLES, checkingPage } from "./pages.js";
import { browse } from "./programs.js";
import { outside } from "./protocol.js";

const { functions, end } = outside();
let server, browser;

before(async () => {
  server = await functions.serve();
  browser = await browse();
});

after(async () => {
  await browser?.close();
  assert.deepEqual(await end(), [0]);
});

/** A page whose client is `one` and has subscribed to the channel with `sub`. */
async function visit(build, channel) {
  const page = await checkingPage(browser, server, build, functions);
  await page.evaluate(async ([server, channel]) => {
    const { connected, subscribed } = globalThis.checking.context;
    globalThis.one = await connected(server);
    globalThis.sub = await subscribed(globalThis.one, channel);
    await globalThis.one.events.take("connecting");
  }, [server, channel]);
  return page;
}

const publish = (page, channel, data) => (
  page.evaluate(([channel, data]) => globalThis.checking.context.publish(channel, data), [channel, data])
);

/** Takes the client away and gives it back three times; it must hear all that is published meanwhile. */
async function interrupt(page, channel, takeAway, giveBack) {
  let published = 0;
  await publish(page, channel, published++);
  for (const round of [1, 2, 3]) {
    await takeAway();
    await page.evaluate(() => globalThis.one.events.take("connecting"));
    for (let number = 0; number < round; number++) await publish(page, channel, published++);
    await giveBack();
    const again = await page.evaluate(() => globalThis.sub.events.take("subscribed"));
    assert.deepEqual([again.wasRecovering, again.recovered], [true, true]);
  }
  await publish(page, channel, published++);
  const publications = await page.evaluate((count) => globalThis.sub.events.takeMany(count, "publication"), published);
  assert.deepEqual(publications.map(({ data }) => data), Array.from({ length: published }, (_, number) => number));
  assert.deepEqual(page.errors, []);
  await page.context().close();
}

for (const build of BUNDLES) {
  test(`a page that was offline hears what it missed, once and in order (${build.name})`, { timeout: 60_000 }, async () => {
    const channel = `open:offline${build.name}`;
    const page = await visit(build, channel);
    const offline = (is) => () => page.context().setOffline(is);
    await interrupt(page, channel, offline(true), offline(false));
  });

  // A browser that is driven keeps no pages that are left, so the page is told of it as if it had.
  test(`a page that was left and come back to hears what it missed (${build.name})`, { timeout: 60_000 }, async () => {
    const channel = `open:left${build.name}`;
    const page = await visit(build, channel);
    const happens = (name) => () => page.evaluate((name) => {
      dispatchEvent(new PageTransitionEvent(name, { persisted: true }));
    }, name);
    await interrupt(page, channel, happens("pagehide"), happens("pageshow"));
  });
}
