// The server with `centrifuge`, the JavaScript client of the protocol, in a page in Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { browse, open } from "./programs.js";
import { api, serve, token } from "./protocol.js";

const BUNDLE = fileURLToPath(new URL("node_modules/centrifuge/dist/centrifuge.js", import.meta.url));

let server, browser, context;

before(async () => {
  server = await serve();
  browser = await browse();
  // The page itself lets no other script in; here one has to come in.
  context = await browser.newContext({ bypassCSP: true });
});

after(async () => {
  await browser?.close();
  assert.equal(await server?.stop(), 0);
});

/** A page of the server in which a client has connected and subscribed; its events are in `log`. */
async function visit(channel, user) {
  const page = await open(context, `${server.http}/`);
  await page.addScriptTag({ path: BUNDLE });
  await page.evaluate(([url, channel, token]) => {
    window.log = [];
    window.client = new Centrifuge(url, { token, minReconnectDelay: 1, maxReconnectDelay: 20 });
    window.sub = client.newSubscription(channel);
    for (const [emitter, names] of [
      [client, ["connecting", "connected", "disconnected", "error"]],
      [sub, ["subscribed", "unsubscribed", "publication", "join", "leave", "error"]],
    ]) {
      for (const name of names) emitter.on(name, (context) => log.push({ name, ...context }));
    }
    sub.subscribe();
    client.connect();
  }, [`${server.ws}/connection/websocket`, channel, user && token({ sub: user, info: { name: user } })]);
  await events(page, "subscribed", 1);
  return page;
}

/** Waits until there are that many events of this name, and answers them. */
async function events(page, name, count) {
  await page.waitForFunction(
    ([name, count]) => log.filter((event) => event.name === name).length >= count,
    [name, count],
  );
  return page.evaluate((name) => log.filter((event) => event.name === name), name);
}

const data = (publications) => publications.map(({ data }) => data);

test("a page connects, subscribes and publishes to another one", async () => {
  const [one, two] = await Promise.all([visit("open:page"), visit("open:page")]);
  await one.evaluate(() => sub.publish({ text: "grüße ✓" }));
  await two.evaluate(() => client.publish("open:page", [1, null]));
  for (const page of [one, two]) {
    const publications = await events(page, "publication", 2);
    assert.deepEqual(data(publications).map(JSON.stringify).sort(), ['[1,null]', '{"text":"grüße ✓"}']);
    assert.deepEqual(await page.evaluate(() => log.filter(({ name }) => name === "error")), []);
    await page.close();
  }
});

test("a page that was offline hears what it missed, once and in order", async () => {
  const page = await visit("open:offline");
  await api(server, "publish", { channel: "open:offline", data: 0 });
  await events(page, "publication", 1);
  for (const round of [1, 2, 3]) {
    await context.setOffline(true);
    await events(page, "connecting", 1 + round);
    for (const number of [0, 1, 2]) await api(server, "publish", { channel: "open:offline", data: 3 * round - 2 + number });
    await context.setOffline(false);
    const subscribed = await events(page, "subscribed", 1 + round);
    assert.deepEqual([subscribed.at(-1).wasRecovering, subscribed.at(-1).recovered], [true, true]);
  }
  await api(server, "publish", { channel: "open:offline", data: 10 });
  const publications = await events(page, "publication", 11);
  assert.deepEqual(data(publications), Array.from({ length: 11 }, (_, number) => number));
  await page.close();
});

test("pages see who is there, who comes and who leaves", async () => {
  const one = await visit("open:presence", "Ajax");
  const two = await visit("open:presence", "Hector");
  const { clients } = await one.evaluate(() => sub.presence());
  const names = Object.values(clients).map(({ user, connInfo }) => [user, connInfo.name]);
  assert.deepEqual(names.sort(), [["Ajax", "Ajax"], ["Hector", "Hector"]]);
  assert.deepEqual(await one.evaluate(() => sub.presenceStats()), { numClients: 2, numUsers: 2 });
  const joins = await events(one, "join", 2);
  assert.deepEqual(joins.map(({ info }) => info.user), ["Ajax", "Hector"]);
  await two.close();
  const [{ info }] = await events(one, "leave", 1);
  assert.equal(info.user, "Hector");
  await one.close();
});
