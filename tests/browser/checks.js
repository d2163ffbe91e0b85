// What a client of the protocol must be able to rely on, numbered as in the list of what a server of
// the protocol has to do. `centrifuge.test.js` runs it in Node and in pages, with either build of
// the client: nothing here is of one of them, and all that is told to others is a plain value.

import { assert } from "./assert.js";
import { API_KEY, plain } from "./clients.js";
import { within } from "./waiting.js";

/** Each has a name, a function of what `contextOf` makes, and the milliseconds that it may take. */
export const checks = [];

/** One that takes so long that it runs once, beside the others. */
export const idle = {
  name: "14: a client that says nothing for more than a minute stays connected",
  async run({ server, connected }) {
    const one = await connected(server);
    await new Promise((resolve) => { setTimeout(resolve, 65_000); });
    await one.history("open:idle", { limit: 0 });
    assert.equal(one.events.left("connecting").length, 1, "it never had to come again");
  },
  patience: 110_000,
};

function check(name, run, patience = 60_000) {
  // Pages are told which by its name.
  if (checks.some((known) => known.name === name)) throw new Error(`there are two checks "${name}"`);
  checks.push({ name, run, patience });
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const now = () => Math.floor(Date.now() / 1000);
const offsets = (publications) => publications.map(({ offset }) => offset);
const data = (publications) => publications.map(({ data }) => data);
const fails = (code) => (error) => error.code === code;

// ---- connecting ----

check("1: without a token an anonymous client connects, with its protocol", async ({ server, subprotocol, connected }) => {
  const { connected: { client: id }, sockets } = await connected(server);
  assert.match(id, UUID);
  assert.deepEqual(sockets.map(({ protocol }) => protocol), [subprotocol]);
});

check("3: a token with a bad signature is the end", async ({ server, client, token }) => {
  const one = client(server, { token: await token({ sub: "42" }, "another secret") });
  one.connect();
  const { code, reason } = await one.events.take("disconnected");
  assert.deepEqual([code, reason], [3500, "invalid token"]);
  assert.equal(one.events.left("connecting").length, 1, "it tried once");
});

check("4: an expired token is replaced by another one", async ({ server, connected, token, as }) => {
  let asked = 0;
  const getToken = async () => { asked += 1; return token({ sub: "42", exp: now() + 600 }); };
  const one = await connected(server, { ...await as("42", { exp: now() - 10 }), getToken });
  assert.deepEqual(one.events.left("error").map(({ error }) => error.code), [109]);
  assert.equal(asked, 1);
});

check("14: a client with nothing to say stays connected from ping to ping", async ({ connected, isPing, ruled }) => {
  const own = await ruled('ping_interval = "2s"\npong_timeout = "1900ms"');
  const one = await connected(own);
  let pings = 0;
  const heard = new Promise((resolve) => {
    one.sockets[0].addEventListener("message", ({ data }) => { if (isPing(data) && ++pings === 3) resolve(); });
  });
  await within(heard, "the third ping");
  await one.history("open:any", { limit: 0 });
  assert.equal(one.events.left("connecting").length, 1, "it never had to come again");
});

check("37: a token that is about to expire is refreshed, and the client stays", async ({ server, connected, token }) => {
  let asked = 0;
  let refreshed;
  const twice = new Promise((resolve) => { refreshed = resolve; });
  const getToken = async () => {
    if (++asked === 3) refreshed();
    return token({ sub: "42", exp: now() + 2 });
  };
  const one = await connected(server, { getToken });
  await within(twice, "the third token");
  await one.history("open:any", { limit: 0 });
  assert.equal(one.events.left("connecting").length, 1, "it never had to come again");
});

check("37: a client that brings no new token is closed with 3005 behind the grace", async ({ connected, as, ruled }) => {
  const own = await ruled('expired_close_delay = "1s"');
  const one = await connected(own, { ...await as("42", { exp: now() + 2 }), getToken: () => new Promise(() => {}) });
  await one.events.take("connecting");
  const { code, reason } = await one.events.take("connecting");
  assert.deepEqual([code, reason], [3005, "connection expired"]);
});

check("a token that is refused by the backend is the end", async ({ server, UnauthorizedError, client }) => {
  const one = client(server, { getToken: async () => { throw new UnauthorizedError("no"); } });
  one.connect();
  assert.equal((await one.events.take("disconnected")).code, 1);
});

// ---- hearing ----

check("16: what the API publishes comes to two subscribers, as it is and in order", async (context) => {
  const { server, connected, subscribed, publish } = context;
  const ones = await Promise.all([connected(server), connected(server)]);
  const subs = await Promise.all(ones.map((one) => subscribed(one, "open:16")));
  const values = [{ a: [1, "ü", null, { b: 0.5 }] }, "text", 7, true, [], {}, "\u2028\n\"\\"];
  for (const value of values) await publish("open:16", value);
  const all = Array.from({ length: 100 }, (_, number) => number);
  for (const number of all) await publish("open:16", number);
  for (const sub of subs) {
    const publications = await sub.events.takeMany(values.length + all.length, "publication");
    assert.deepEqual(data(publications), [...values, ...all]);
    assert.deepEqual(offsets(publications), publications.map((_, index) => index + 1));
  }
});

check("17: tags come along; the publisher is told only of what a client published", async (context) => {
  const { server, connected, subscribed, as, publish } = context;
  const one = await connected(server, await as("42", { info: { name: "Stentor" } }));
  const sub = await subscribed(one, "open:17");
  await publish("open:17", 1, { tags: { kind: "shout", place: "Troy" } });
  await sub.publish(2);
  const [first, second] = await sub.events.takeMany(2, "publication");
  assert.deepEqual([first.tags, first.info], [{ kind: "shout", place: "Troy" }, undefined]);
  assert.deepEqual(second.tags ?? {}, {});
  assert.deepEqual(second.info, { user: "42", client: one.connected.client, connInfo: { name: "Stentor" } });
});

check("18: a name that is no channel's is refused, and so is the second subscription and the 129th", async (context) => {
  const { server, connected, subscribe, raw } = context;
  const to = (channel) => ({ subscribe: { channel } });
  const replies = await raw(server, to("a"), to("a"), to("x".repeat(256)), to("x:y"), to("grüße"));
  assert.deepEqual(replies.map(({ error }) => error?.code), [undefined, 105, 107, 102, 107]);
  const one = await connected(server);
  const subs = Array.from({ length: 129 }, (_, number) => subscribe(one, `many${number}`));
  const ends = await Promise.all(subs.map((sub) => sub.events.take("subscribed", "unsubscribed")));
  assert.deepEqual(ends.slice(0, 128).map(({ name }) => name), Array(128).fill("subscribed"));
  assert.deepEqual([ends[128].name, ends[128].code], ["unsubscribed", 106]);
});

check("19: a channel that is not allowed is unsubscribed with 103", async ({ server, connected, subscribe, as }) => {
  const sub = subscribe(await connected(server, await as("42")), "shut:19");
  const { code, reason } = await sub.events.take("unsubscribed");
  assert.deepEqual([code, reason], [103, "permission denied"]);
});

check("20: a channel's token opens it, with what it says", async ({ server, connected, subscribed, token, as }) => {
  const one = await connected(server, await as("42"));
  const claims = { sub: "42", channel: "shut:20", data: { welcome: true } };
  const sub = await subscribed(one, "shut:20", { token: await token(claims) });
  assert.deepEqual(sub.subscribed.data, { welcome: true });
});

check("20: an expired token of a channel is replaced by another one", async (context) => {
  const { server, connected, subscribed, token, as } = context;
  const one = await connected(server, await as("42"));
  const claims = { sub: "42", channel: "shut:20" };
  const asked = [];
  const getToken = async ({ channel }) => { asked.push(channel); return token({ ...claims, exp: now() + 600 }); };
  const sub = await subscribed(one, "shut:20", { token: await token({ ...claims, exp: now() - 10 }), getToken });
  assert.deepEqual(sub.events.left("error").map(({ error }) => error.code), [109]);
  assert.deepEqual(asked, ["shut:20"]);
});

check("20: a token of another channel or of another user is the end of the connection", async (context) => {
  const { server, connected, subscribe, token, as } = context;
  for (const claims of [{ sub: "42", channel: "shut:other" }, { sub: "43", channel: "shut:20" }]) {
    const one = await connected(server, await as("42"));
    subscribe(one, "shut:20", { token: await token(claims) });
    assert.equal((await one.events.take("disconnected")).code, 3500);
  }
});

check("20: a channel's token is refreshed before it expires, and the subscription stays", async (context) => {
  const { server, connected, subscribed, token, as, publish } = context;
  const one = await connected(server, await as("42"));
  let asked = 0;
  let refreshed;
  const twice = new Promise((resolve) => { refreshed = resolve; });
  const getToken = async () => {
    if (++asked === 3) refreshed();
    return token({ sub: "42", channel: "shut:refreshed", exp: now() + 2 });
  };
  const sub = await subscribed(one, "shut:refreshed", { getToken });
  await within(twice, "the third token");
  await publish("shut:refreshed", "still here");
  assert.equal((await sub.events.take("publication")).data, "still here");
  assert.equal(sub.events.left("subscribing").length, 1, "it was never interrupted");
});

check("20: a channel whose token is not replaced is subscribed to again with 2501", async (context) => {
  const { connected, subscribed, token, as, ruled } = context;
  const own = await ruled('expired_sub_close_delay = "1s"');
  const one = await connected(own, await as("42"));
  const lasting = (seconds) => token({ sub: "42", channel: "shut:expired", exp: now() + seconds });
  // One that expires soon, none when that is due, and another one when it has to subscribe again.
  const tokens = [lasting(2), new Promise(() => {}), lasting(600)];
  const sub = await subscribed(one, "shut:expired", { getToken: () => tokens.shift() });
  await sub.events.take("subscribing");
  assert.equal((await sub.events.take("subscribing")).code, 2501);
  await sub.events.take("subscribed");
});

check("21: a private channel takes a token", async ({ server, connected, subscribe, subscribed, token, as }) => {
  const one = await connected(server, await as("42"));
  const sub = subscribe(one, "$private");
  assert.equal((await sub.events.take("unsubscribed")).code, 103);
  const allowed = { token: await token({ sub: "42", channel: "$private2" }) };
  await subscribed(one, "$private2", allowed);
});

check("22: a channel of users is for them", async ({ server, connected, subscribe, subscribed, as }) => {
  const [one, other] = await Promise.all([connected(server, await as("42")), connected(server, await as("43"))]);
  await subscribed(one, "dialog:n#42");
  assert.equal((await subscribe(other, "dialog:n#42").events.take("unsubscribed")).code, 103);
  await Promise.all([subscribed(one, "dialog:n#42,43"), subscribed(other, "dialog:n#42,43")]);
});

check("24: publishing without permission fails with 103; otherwise the publisher hears itself", async (context) => {
  const { server, connected, subscribed } = context;
  const one = await connected(server);
  await assert.rejects(one.publish("shut:24", 1), fails(103));
  const sub = await subscribed(one, "open:24");
  await sub.publish({ said: "so" });
  const publication = await sub.events.take("publication");
  assert.deepEqual(publication.data, { said: "so" });
  assert.equal(publication.info.client, one.connected.client);
});

// ---- recovering ----

check("25: what was published while the network was down comes afterwards, once and in order", async (context) => {
  const { server, connected, subscribed, publish, network } = context;
  const net = await network(server);
  const one = await connected(net);
  const sub = await subscribed(one, "open:25");
  assert.equal(sub.subscribed.recoverable, true);
  assert.deepEqual([sub.subscribed.streamPosition.offset, sub.subscribed.wasRecovering], [0, false]);
  assert.match(sub.subscribed.streamPosition.epoch, /^.+$/);
  await publish("open:25", 0);
  await sub.events.take("publication");
  await net.down();
  await sub.events.take("subscribing");
  await sub.events.take("subscribing");
  for (const number of [1, 2, 3]) await publish("open:25", number);
  await net.up();
  const again = await sub.events.take("subscribed");
  assert.deepEqual([again.wasRecovering, again.recovered], [true, true]);
  await publish("open:25", 4);
  const publications = await sub.events.takeMany(4, "publication");
  assert.deepEqual(data(publications), [1, 2, 3, 4]);
  assert.deepEqual(offsets(publications), [2, 3, 4, 5]);
});

check("26: a client that missed nothing recovers with nothing", async (context) => {
  const { server, connected, subscribed, publish, network } = context;
  const net = await network(server);
  const sub = await subscribed(await connected(net), "open:26");
  await publish("open:26", 1);
  await sub.events.take("publication");
  await net.cut();
  const again = await sub.events.take("subscribed");
  assert.deepEqual([again.wasRecovering, again.recovered, again.hasRecoveredPublications], [true, true, false]);
  await publish("open:26", 2);
  assert.equal((await sub.events.take("publication")).data, 2);
});

check("29: while it is published on and on, a client that subscribes again and again misses nothing and hears nothing twice", async (context) => {
  const { server, connected, subscribed } = context;
  const publisher = await connected(server);
  const one = await connected(server);
  const sub = await subscribed(one, "stream:29");
  let published = 0;
  let isOver = false;
  const publishing = (async () => {
    while (!isOver) await publisher.publish("stream:29", published++);
  })();
  for (let round = 0; round < 50; round++) {
    // Half by half: the connection, and what a client that moves on does.
    if (round % 2) { one.disconnect(); one.connect(); } else { sub.unsubscribe(); sub.subscribe(); }
    const again = await sub.events.take("subscribed");
    assert.deepEqual([again.wasRecovering, again.recovered], [true, true]);
  }
  isOver = true;
  await publishing;
  const publications = await sub.events.takeMany(published, "publication");
  assert.deepEqual(data(publications), Array.from({ length: published }, (_, number) => number));
});

check("30: in cache mode the latest publication comes, unless it is known", async (context) => {
  const { server, connected, subscribed, publish } = context;
  for (const number of [1, 2, 3]) await publish("latest:30", number);
  const one = await connected(server);
  const sub = await subscribed(one, "latest:30", { since: {} });
  assert.deepEqual([sub.subscribed.wasRecovering, sub.subscribed.recovered], [true, true]);
  assert.equal((await sub.events.take("publication")).data, 3);
  const { epoch } = sub.subscribed.streamPosition;
  const other = await subscribed(await connected(server), "latest:30", { since: { offset: 3, epoch } });
  assert.deepEqual([other.subscribed.recovered, other.subscribed.hasRecoveredPublications], [true, false]);
  await publish("latest:30", 4);
  for (const heard of [sub, other]) assert.equal((await heard.events.take("publication")).data, 4);
});

// ---- asking ----

check("31: a history is read page by page, in both directions", async ({ server, connected, publish }) => {
  const one = await connected(server);
  for (const number of [1, 2, 3, 4, 5]) await publish("open:31", number);
  const position = await one.history("open:31");
  assert.deepEqual([position.publications, position.offset], [[], 5]);
  const read = async (options) => data((await one.history("open:31", options)).publications);
  const { epoch } = position;
  assert.deepEqual(await read({ limit: 2 }), [1, 2]);
  assert.deepEqual(await read({ limit: 2, since: { offset: 2, epoch } }), [3, 4]);
  assert.deepEqual(await read({ limit: -1, since: { offset: 4, epoch } }), [5]);
  assert.deepEqual(await read({ limit: -1, since: { offset: 5, epoch } }), []);
  assert.deepEqual(await read({ limit: 2, reverse: true }), [5, 4]);
  assert.deepEqual(await read({ limit: 2, reverse: true, since: { offset: 4, epoch } }), [3, 2]);
  await assert.rejects(read({ limit: 1, since: { offset: 1, epoch: "another" } }), fails(112));
  await assert.rejects(one.history("plain", { limit: 1 }), (error) => [103, 108].includes(error.code));
});

check("33: presence tells who is there, with what is known of them", async ({ server, connected, subscribed, as, api }) => {
  const ones = await Promise.all([
    connected(server, await as("42", { info: { name: "Ajax" } })),
    connected(server, await as("42", { info: { name: "Ajax" } })),
    connected(server, await as("43", { info: { name: "Hector" } })),
  ]);
  await Promise.all(ones.map((one) => subscribed(one, "open:33")));
  const { clients } = await ones[0].presence("open:33");
  const ids = ones.map((one) => one.connected.client);
  assert.deepEqual(Object.keys(clients).sort(), [...ids].sort());
  assert.deepEqual(ids.map((id) => clients[id].user), ["42", "42", "43"]);
  assert.deepEqual(ids.map((id) => clients[id].connInfo.name), ["Ajax", "Ajax", "Hector"]);
  assert.deepEqual(await ones[0].presenceStats("open:33"), { numClients: 3, numUsers: 2 });
  await assert.rejects(api(server, "presence", { channel: "plain" }), fails(108));
});

check("34: who comes is told to all, who leaves to the others, also when the network is gone", async (context) => {
  const { server, connected, subscribed, as, network } = context;
  const watcher = await connected(server, await as("42"));
  const watching = await subscribed(watcher, "open:34");
  assert.equal((await watching.events.take("join")).info.client, watcher.connected.client);
  const net = await network(server);
  const visitor = await connected(net, await as("43"));
  const sub = await subscribed(visitor, "open:34");
  const id = visitor.connected.client;
  assert.deepEqual((await sub.events.take("join")).info.client, id);
  assert.deepEqual((await watching.events.take("join")).info, { user: "43", client: id });
  sub.unsubscribe();
  assert.equal((await watching.events.take("leave")).info.client, id);
  sub.subscribe();
  assert.equal((await watching.events.take("join")).info.client, id);
  await sub.events.take("join");
  await net.down();
  assert.equal((await watching.events.take("leave")).info.client, id);
  assert.deepEqual(sub.events.left("leave"), [], "nobody is told of its own leave");
});

check("38: the channels of a token are subscribed to by the server, and recovered", async (context) => {
  const { server, connected, as, publish, network } = context;
  const net = await network(server);
  const one = await connected(net, await as("38", { channels: ["open:38"] }));
  const first = await one.events.take("subscribed");
  assert.deepEqual([first.channel, first.recoverable], ["open:38", true]);
  await publish("open:38", 0);
  await one.events.take("publication");
  await net.down();
  await one.events.take("connecting");
  await one.events.take("connecting");
  for (const number of [1, 2, 3]) await publish("open:38", number);
  await net.up();
  const again = await one.events.take("subscribed");
  assert.deepEqual([again.wasRecovering, again.recovered], [true, true]);
  assert.deepEqual(data(await one.events.takeMany(3, "publication")), [1, 2, 3]);
});

check("44: to send without anyone to take it is the end; a call is not available", async ({ server, connected }) => {
  const one = await connected(server);
  await assert.rejects(one.rpc("method", {}), fails(108));
  await one.send({ to: "nobody" });
  assert.equal((await one.events.take("disconnected")).code, 3508);
});

// ---- the API ----

check("32: a history that is removed keeps its position", async ({ server, connected, subscribed, api, publish }) => {
  const sub = await subscribed(await connected(server), "open:32");
  for (const number of [1, 2]) await publish("open:32", number);
  const before = await api(server, "history", { channel: "open:32", limit: 10 });
  assert.deepEqual(data(before.publications), [1, 2]);
  await api(server, "history_remove", { channel: "open:32" });
  const after = await api(server, "history", { channel: "open:32", limit: 10 });
  assert.deepEqual([after.publications, after.offset, after.epoch], [[], 2, before.epoch]);
  assert.equal((await publish("open:32", 3)).offset, 3);
  assert.deepEqual(offsets(await sub.events.takeMany(3, "publication")), [1, 2, 3]);
});

check("35: the API subscribes a user, and unsubscribes it", async ({ server, connected, subscribed, as, api, publish }) => {
  const one = await connected(server, await as("35"));
  await api(server, "subscribe", { user: "35", channel: "shut:35", data: { by: "server" } });
  const event = await one.events.take("subscribed");
  assert.deepEqual([event.channel, event.data], ["shut:35", { by: "server" }]);
  await publish("shut:35", 1);
  assert.equal((await one.events.take("publication")).data, 1);
  await api(server, "unsubscribe", { user: "35", channel: "shut:35" });
  assert.equal((await one.events.take("unsubscribed")).channel, "shut:35");
  const sub = await subscribed(one, "open:35");
  await api(server, "unsubscribe", { user: "35", channel: "open:35" });
  const { code, reason } = await sub.events.take("unsubscribed");
  assert.deepEqual([code, reason, sub.state], [2000, "server unsubscribe", "unsubscribed"]);
});

check("35: a user that the API subscribes from a position on hears what it missed since", async (context) => {
  const { server, connected, as, api, publish } = context;
  const channel = "open:35since";
  const one = await connected(server, await as("35since"));
  const { offset, epoch } = await publish(channel, "known");
  for (const number of [1, 2]) await publish(channel, number);
  await api(server, "subscribe", { user: "35since", channel, recover_since: { offset, epoch } });
  await one.events.take("subscribed");
  await publish(channel, 3);
  const publications = await one.events.takeMany(3, "publication");
  assert.deepEqual(data(publications), [1, 2, 3]);
  assert.deepEqual(offsets(publications), [2, 3, 4]);
});

check("36: the API disconnects a user but for those that are listed", async ({ server, connected, as, api }) => {
  const ones = await Promise.all([connected(server, await as("36")), connected(server, await as("36"))]);
  await api(server, "disconnect", { user: "36", whitelist: [ones[0].connected.client] });
  const { code, reason } = await ones[1].events.take("disconnected");
  assert.deepEqual([code, reason], [3503, "force disconnect"]);
  await ones[0].history("open:36", { limit: 0 });
  assert.equal(ones[0].state, "connected");
});

check("39: the API wants its key, a POST and JSON, and says what is wrong", async ({ server, request }) => {
  const status = async (...of) => (await request(server, ...of)).status;
  const info = (headers) => status("info", {}, headers);
  assert.equal(await info({}), 401);
  assert.equal(await info({ "X-API-Key": "wrong" }), 401);
  assert.equal(await info({ "X-API-Key": API_KEY }), 200);
  assert.equal(await info({ Authorization: `apikey ${API_KEY}` }), 200);
  assert.equal(await status(`info?api_key=${encodeURIComponent(API_KEY)}`, {}, {}), 200);
  assert.equal(await status("info", undefined, { "X-API-Key": API_KEY }, "GET"), 405);
  assert.equal(await status("publish", "not json"), 400);
  assert.equal(await status("nothing", {}), 404);
  const unknown = { channel: "unknown:39", data: 1 };
  const response = await request(server, "publish", unknown);
  assert.equal(response.status, 200);
  assert.deepEqual(JSON.parse(response.text), { error: { code: 102, message: "unknown channel" } });
  const transport = { "X-API-Key": API_KEY, "X-Centrifugo-Error-Mode": "transport" };
  const bare = await request(server, "publish", unknown, transport);
  assert.equal(bare.status, 404);
  assert.deepEqual(JSON.parse(bare.text), { code: 102, message: "unknown channel" });
});

check("40: what was published already is not delivered again, and what is no history has no offset", async (context) => {
  const { server, connected, subscribed, api, publish } = context;
  const channel = "open:40";
  const sub = await subscribed(await connected(server), channel);
  const first = await publish(channel, 1, { idempotency_key: "once" });
  assert.deepEqual(await publish(channel, 1, { idempotency_key: "once" }), first);
  const newer = await publish(channel, 2, { version: 7 });
  assert.equal((await publish(channel, "stale", { version: 7 })).offset, newer.offset);
  assert.equal((await publish(channel, 3, { skip_history: true })).offset, undefined);
  await api(server, "publish", { channel, b64data: btoa('{"four":4}') });
  const { responses } = await api(server, "broadcast", { channels: [channel, "unknown:40", "open:40b"], data: 5 });
  assert.deepEqual(responses.map(({ error }) => error?.code), [undefined, 102, undefined]);
  const { replies } = await api(server, "batch", {
    commands: [{ publish: { channel, data: 6 } }, {}, { presence_stats: { channel } }],
  });
  assert.equal(replies[0].publish.offset, 5);
  assert.equal(replies[1].error.code, 104);
  assert.deepEqual(replies[2].presence_stats, { num_clients: 1, num_users: 1 });
  const publications = await sub.events.takeMany(6, "publication");
  assert.deepEqual(data(publications), [1, 2, 3, { four: 4 }, 5, 6]);
  assert.deepEqual(offsets(publications), [1, 2, undefined, 3, 4, 5]);
});

// ---- the end of a connection ----

const RECONNECTING = [3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 3499, 4000, 4499];
const TERMINAL = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3509, 3999, 4500, 4999];

for (const code of RECONNECTING) {
  check(`36: a client that is disconnected with ${code} comes again`, async ({ server, connected, as, api }) => {
    const user = `again${code}`;
    const one = await connected(server, await as(user, { exp: now() + 600 }));
    await one.events.take("connecting");
    await api(server, "disconnect", { user, disconnect: { code, reason: "for a test" } });
    const event = await one.events.take("connecting");
    assert.deepEqual([event.code, event.reason], [code, "for a test"]);
    await one.events.take("connected");
  });
}

for (const code of TERMINAL) {
  check(`36: a client that is disconnected with ${code} stays away`, async ({ server, connected, as, api }) => {
    const user = `away${code}`;
    const one = await connected(server, await as(user));
    await api(server, "disconnect", { user, disconnect: { code, reason: "for a test" } });
    const event = await one.events.take("disconnected");
    assert.deepEqual([event.code, event.reason, one.state], [code, "for a test", "disconnected"]);
  });
}

check("3006: a subscription by the server that expires ends the connection", async ({ connected, as, api, ruled }) => {
  const own = await ruled('expired_sub_close_delay = "1s"');
  const one = await connected(own, await as("3006"));
  await one.events.take("connecting");
  await api(own, "subscribe", { user: "3006", channel: "shut:3006", expire_at: now() + 2 });
  const { code, reason } = await one.events.take("connecting");
  assert.deepEqual([code, reason], [3006, "subscription expired"]);
});

check("3012: a client that does not answer a ping is closed, and comes again", async ({ connected, ruled }) => {
  const own = await ruled('ping_interval = "1s"\npong_timeout = "500ms"');
  const one = await connected(own);
  await one.events.take("connecting");
  one.sockets[0].send = () => {};
  const { code, reason } = await one.events.take("connecting");
  assert.deepEqual([code, reason], [3012, "no pong"]);
  await one.events.take("connected");
});

check("3501, 3507: a client without a user is refused where they are not wanted", async ({ client, as, serve }) => {
  const own = await serve({ "allow_anonymous_connect_without_token = true": "disallow_anonymous_connection_tokens = true" });
  for (const [options, code, reason] of [
    [{}, 3501, "bad request"],
    [await as(""), 3507, "permission denied"],
  ]) {
    const one = client(own, options);
    one.connect();
    const event = await one.events.take("disconnected");
    assert.deepEqual([event.code, event.reason], [code, reason]);
  }
});

check("3504, 3505: a user with too many connections, or too many channels, is refused", async (context) => {
  const { client, connected, as, ruled } = context;
  const own = await ruled("user_connection_limit = 2\nchannel_limit = 3");
  await Promise.all([connected(own, await as("42")), connected(own, await as("42"))]);
  const third = client(own, await as("42"));
  third.connect();
  const { code, reason } = await third.events.take("disconnected");
  assert.deepEqual([code, reason], [3504, "connection limit"]);
  const many = client(own, await as("43", { channels: ["a", "b", "c", "d"] }));
  many.connect();
  const end = await many.events.take("disconnected");
  assert.deepEqual([end.code, end.reason], [3505, "channel limit"]);
});

check("42: a server that shuts down says so, and its clients come to the next one", async (context) => {
  const { connected, subscribed, serve, network } = context;
  const first = await serve();
  const net = await network(first);
  const one = await connected(net);
  await one.events.take("connecting");
  const sub = await subscribed(one, "open:42");
  await net.shut();
  assert.equal(await first.stop(), 0);
  const { code, reason } = await one.events.take("connecting");
  assert.deepEqual([code, reason], [3001, "shutdown"]);
  const second = await serve();
  await net.lead(second.address);
  await net.up();
  await one.events.take("connected");
  const again = await sub.events.take("subscribed");
  assert.deepEqual([again.wasRecovering, again.recovered], [true, false], "another server has another past");
});

// ---- the network ----

check("25, 29: clients whose network is cut anywhere, again and again, miss nothing and hear nothing twice", async (context) => {
  const { server, cuts, connected, network } = context;
  const channel = "stream:cuts";
  const net = await network(server);
  const publisher = await connected(server);
  const readers = [];
  for (let number = 0; number < 8; number++) readers.push(await reader(await connected(net), channel));
  // From within the response to the upgrade to behind some publications.
  await net.wear(3000);
  let published = 0;
  while (await net.cuts() < cuts) await publisher.publish(channel, published++);
  await net.mend();
  await publisher.publish(channel, "the end");
  await within(Promise.all(readers.map(({ end }) => end)), "the end");
  const all = Array.from({ length: published }, (_, number) => number);
  for (const { heard, unrecovered } of readers) {
    assert.deepEqual(heard, [...all, "the end"]);
    assert.deepEqual(unrecovered, []);
  }
  return `${await net.cuts()} cuts, ${published} publications to ${readers.length} clients`;
}, 240_000);

/** What a client hears in a channel, until the end. */
async function reader(client, channel) {
  const sub = client.newSubscription(channel);
  const [heard, unrecovered] = [[], []];
  const end = new Promise((resolve) => {
    sub.on("publication", (context) => {
      const { data } = plain(context);
      heard.push(data);
      if (data === "the end") resolve();
    });
  });
  const there = new Promise((resolve) => sub.once("subscribed", resolve));
  sub.on("subscribed", (context) => {
    if (context.wasRecovering && !context.recovered) unrecovered.push(context.streamPosition);
  });
  sub.subscribe();
  await within(there, "a subscription");
  return { heard, unrecovered, end };
}
