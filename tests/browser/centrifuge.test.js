// The server with `centrifuge`, the JavaScript client of the protocol, in Node: what it must be able
// to rely on, numbered as in the list of what a server of the protocol has to do.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { UnauthorizedError } from "centrifuge";
import {
  API_KEY, api, client, connected, leave, network, now, raw, request, serve, subscribe, subscribed, token, within,
} from "./protocol.js";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

let server;

before(async () => { server = await serve(); });
after(async () => { assert.equal(await server?.stop(), 0); });
afterEach(leave);

const publish = (channel, data, more) => api(server, "publish", { channel, data, ...more });
const offsets = (publications) => publications.map(({ offset }) => offset);
const data = (publications) => publications.map(({ data }) => data);
const as = (user, claims) => ({ token: token({ sub: user, ...claims }) });
const fails = (code) => (error) => error.code === code;

/** A server of its own for a test, with these rules for clients as well. */
async function withServer(rules, use) {
  const own = await serve({ "[client]": `[client]\n${rules}` });
  try {
    await use(own);
  } finally {
    leave();
    await own.stop();
  }
}

/** A network of its own for a test. */
async function withNetwork(own, use) {
  const net = await network(own);
  try {
    await use(net);
  } finally {
    leave();
    net.close();
  }
}

// ---- connecting ----

test("1: without a token an anonymous client connects", async () => {
  const { connected: { client: id } } = await connected(server);
  assert.match(id, UUID);
});

test("3: a token with a bad signature is the end", async () => {
  const one = client(server, { token: token({ sub: "42" }, "another secret") });
  one.connect();
  const { code, reason } = await one.events.take("disconnected");
  assert.deepEqual([code, reason], [3500, "invalid token"]);
  assert.equal(one.events.left("connecting").length, 1, "it tried once");
});

test("4: an expired token is replaced by another one", async () => {
  let asked = 0;
  const getToken = async () => { asked += 1; return token({ sub: "42", exp: now() + 600 }); };
  const one = await connected(server, { ...as("42", { exp: now() - 10 }), getToken });
  assert.deepEqual(one.events.left("error").map(({ error }) => error.code), [109]);
  assert.equal(asked, 1);
});

test("14: a client with nothing to say stays connected from ping to ping", async () => {
  await withServer('ping_interval = "2s"\npong_timeout = "1900ms"', async (own) => {
    const one = await connected(own);
    let pings = 0;
    const heard = new Promise((resolve) => {
      one._transport._transport.addEventListener("message", ({ data }) => {
        if (data === "{}" && ++pings === 3) resolve();
      });
    });
    await within(heard, "the third ping");
    await one.history("open:any", { limit: 0 });
    assert.equal(one.events.left("connecting").length, 1, "it never had to come again");
  });
});

test("37: a token that is about to expire is refreshed, and the client stays", async () => {
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

test("37: a client that brings no new token is closed with 3005 behind the grace", async () => {
  await withServer('expired_close_delay = "1s"', async (own) => {
    const one = await connected(own, { ...as("42", { exp: now() + 1 }), getToken: () => new Promise(() => {}) });
    await one.events.take("connecting");
    const { code, reason } = await one.events.take("connecting");
    assert.deepEqual([code, reason], [3005, "connection expired"]);
  });
});

test("a token that is refused by the backend is the end", async () => {
  const one = client(server, { getToken: async () => { throw new UnauthorizedError("no"); } });
  one.connect();
  assert.equal((await one.events.take("disconnected")).code, 1);
});

// ---- hearing ----

test("16: what the API publishes comes to two subscribers, as it is and in order", async () => {
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

test("17: tags come along; the publisher is told only of what a client published", async () => {
  const one = await connected(server, as("42", { info: { name: "Stentor" } }));
  const sub = await subscribed(one, "open:17");
  await publish("open:17", 1, { tags: { kind: "shout", place: "Troy" } });
  await sub.publish(2);
  const [first, second] = await sub.events.takeMany(2, "publication");
  assert.deepEqual([first.tags, first.info], [{ kind: "shout", place: "Troy" }, undefined]);
  assert.equal(second.tags, undefined);
  assert.deepEqual(second.info, { user: "42", client: one.connected.client, connInfo: { name: "Stentor" } });
});

test("18: a name that is no channel's is refused, and so is the second subscription and the 129th", async () => {
  const to = (channel) => ({ subscribe: { channel } });
  const replies = await raw(server, to("a"), to("a"), to("x".repeat(256)), to("x:y"), to("grüße"));
  assert.deepEqual(replies.map(({ error }) => error?.code), [undefined, 105, 107, 102, 107]);
  const one = await connected(server);
  const subs = Array.from({ length: 129 }, (_, number) => subscribe(one, `many${number}`));
  const ends = await Promise.all(subs.map((sub) => sub.events.take("subscribed", "unsubscribed")));
  assert.deepEqual(ends.slice(0, 128).map(({ name }) => name), Array(128).fill("subscribed"));
  assert.deepEqual([ends[128].name, ends[128].code], ["unsubscribed", 106]);
});

test("19: a channel that is not allowed is unsubscribed with 103", async () => {
  const sub = subscribe(await connected(server, as("42")), "shut:19");
  const { code, reason } = await sub.events.take("unsubscribed");
  assert.deepEqual([code, reason], [103, "permission denied"]);
});

test("20: a channel's token opens it, with what it says", async () => {
  const one = await connected(server, as("42"));
  const claims = { sub: "42", channel: "shut:20", data: { welcome: true } };
  const sub = await subscribed(one, "shut:20", { token: token(claims) });
  assert.deepEqual(sub.subscribed.data, { welcome: true });
});

test("20: an expired token of a channel is replaced by another one", async () => {
  const one = await connected(server, as("42"));
  const claims = { sub: "42", channel: "shut:20" };
  const asked = [];
  const getToken = async ({ channel }) => { asked.push(channel); return token({ ...claims, exp: now() + 600 }); };
  const sub = await subscribed(one, "shut:20", { token: token({ ...claims, exp: now() - 10 }), getToken });
  assert.deepEqual(sub.events.left("error").map(({ error }) => error.code), [109]);
  assert.deepEqual(asked, ["shut:20"]);
});

test("20: a token of another channel or of another user is the end of the connection", async () => {
  for (const claims of [{ sub: "42", channel: "shut:other" }, { sub: "43", channel: "shut:20" }]) {
    const one = await connected(server, as("42"));
    subscribe(one, "shut:20", { token: token(claims) });
    assert.equal((await one.events.take("disconnected")).code, 3500);
  }
});

test("20: a channel's token is refreshed before it expires, and the subscription stays", async () => {
  const one = await connected(server, as("42"));
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

test("20: a channel whose token is not replaced is subscribed to again with 2501", async () => {
  await withServer('expired_sub_close_delay = "1s"', async (own) => {
    const one = await connected(own, as("42"));
    const lasting = (seconds) => token({ sub: "42", channel: "shut:expired", exp: now() + seconds });
    // One that expires soon, none when that is due, and another one when it has to subscribe again.
    const tokens = [Promise.resolve(lasting(1)), new Promise(() => {}), Promise.resolve(lasting(600))];
    const sub = await subscribed(one, "shut:expired", { getToken: () => tokens.shift() });
    await sub.events.take("subscribing");
    assert.equal((await sub.events.take("subscribing")).code, 2501);
    await sub.events.take("subscribed");
  });
});

test("21: a private channel takes a token", async () => {
  const one = await connected(server, as("42"));
  const sub = subscribe(one, "$private");
  assert.equal((await sub.events.take("unsubscribed")).code, 103);
  const allowed = { token: token({ sub: "42", channel: "$private2" }) };
  await subscribed(one, "$private2", allowed);
});

test("22: a channel of users is for them", async () => {
  const [one, other] = await Promise.all([connected(server, as("42")), connected(server, as("43"))]);
  await subscribed(one, "dialog:n#42");
  assert.equal((await subscribe(other, "dialog:n#42").events.take("unsubscribed")).code, 103);
  await Promise.all([subscribed(one, "dialog:n#42,43"), subscribed(other, "dialog:n#42,43")]);
});

test("24: publishing without permission fails with 103; otherwise the publisher hears itself", async () => {
  const one = await connected(server);
  await assert.rejects(one.publish("shut:24", 1), fails(103));
  const sub = await subscribed(one, "open:24");
  await sub.publish({ said: "so" });
  const publication = await sub.events.take("publication");
  assert.deepEqual(publication.data, { said: "so" });
  assert.equal(publication.info.client, one.connected.client);
});

// ---- recovering ----

test("25: what was published while the network was down comes afterwards, once and in order", async () => {
  await withNetwork(server, async (net) => {
    const one = await connected(net);
    const sub = await subscribed(one, "open:25");
    assert.equal(sub.subscribed.recoverable, true);
    assert.deepEqual([sub.subscribed.streamPosition.offset, sub.subscribed.wasRecovering], [0, false]);
    assert.match(sub.subscribed.streamPosition.epoch, /^.+$/);
    await publish("open:25", 0);
    await sub.events.take("publication");
    net.down();
    await sub.events.take("subscribing");
    await sub.events.take("subscribing");
    for (const number of [1, 2, 3]) await publish("open:25", number);
    net.up();
    const again = await sub.events.take("subscribed");
    assert.deepEqual([again.wasRecovering, again.recovered], [true, true]);
    await publish("open:25", 4);
    const publications = await sub.events.takeMany(4, "publication");
    assert.deepEqual(data(publications), [1, 2, 3, 4]);
    assert.deepEqual(offsets(publications), [2, 3, 4, 5]);
  });
});

test("26: a client that missed nothing recovers with nothing", async () => {
  await withNetwork(server, async (net) => {
    const sub = await subscribed(await connected(net), "open:26");
    await publish("open:26", 1);
    await sub.events.take("publication");
    net.cut();
    const again = await sub.events.take("subscribed");
    assert.deepEqual([again.wasRecovering, again.recovered, again.hasRecoveredPublications], [true, true, false]);
    await publish("open:26", 2);
    assert.equal((await sub.events.take("publication")).data, 2);
  });
});

test("29: while it is published on and on, a client that subscribes again and again misses nothing and hears nothing twice", async () => {
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

test("30: in cache mode the latest publication comes, unless it is known", async () => {
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

test("31: a history is read page by page, in both directions", async () => {
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

test("33: presence tells who is there, with what is known of them", async () => {
  const ones = await Promise.all([
    connected(server, as("42", { info: { name: "Ajax" } })),
    connected(server, as("42", { info: { name: "Ajax" } })),
    connected(server, as("43", { info: { name: "Hector" } })),
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

test("34: who comes is told to all, who leaves to the others, also when the network is gone", async () => {
  const watcher = await connected(server, as("42"));
  const watching = await subscribed(watcher, "open:34");
  assert.equal((await watching.events.take("join")).info.client, watcher.connected.client);
  await withNetwork(server, async (net) => {
    const visitor = await connected(net, as("43"));
    const sub = await subscribed(visitor, "open:34");
    const id = visitor.connected.client;
    assert.deepEqual((await sub.events.take("join")).info.client, id);
    assert.deepEqual((await watching.events.take("join")).info, { user: "43", client: id });
    sub.unsubscribe();
    assert.equal((await watching.events.take("leave")).info.client, id);
    sub.subscribe();
    assert.equal((await watching.events.take("join")).info.client, id);
    await sub.events.take("join");
    net.down();
    assert.equal((await watching.events.take("leave")).info.client, id);
    assert.deepEqual(sub.events.left("leave"), [], "nobody is told of its own leave");
  });
});

test("38: the channels of a token are subscribed to by the server, and recovered", async () => {
  await withNetwork(server, async (net) => {
    const one = await connected(net, as("38", { channels: ["open:38"] }));
    const first = await one.events.take("subscribed");
    assert.deepEqual([first.channel, first.recoverable], ["open:38", true]);
    await publish("open:38", 0);
    await one.events.take("publication");
    net.down();
    await one.events.take("connecting");
    await one.events.take("connecting");
    for (const number of [1, 2, 3]) await publish("open:38", number);
    net.up();
    const again = await one.events.take("subscribed");
    assert.deepEqual([again.wasRecovering, again.recovered], [true, true]);
    assert.deepEqual(data(await one.events.takeMany(3, "publication")), [1, 2, 3]);
  });
});

test("44: to send without anyone to take it is the end; a call is not available", async () => {
  const one = await connected(server);
  await assert.rejects(one.rpc("method", {}), fails(108));
  await one.send({ to: "nobody" });
  assert.equal((await one.events.take("disconnected")).code, 3508);
});

// ---- the API ----

test("32: a history that is removed keeps its position", async () => {
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

test("35: the API subscribes a user, and unsubscribes it", async () => {
  const one = await connected(server, as("35"));
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

test("35: a user that the API subscribes from a position on hears what it missed since", async () => {
  const channel = "open:35since";
  const one = await connected(server, as("35since"));
  const { offset, epoch } = await publish(channel, "known");
  for (const number of [1, 2]) await publish(channel, number);
  await api(server, "subscribe", { user: "35since", channel, recover_since: { offset, epoch } });
  await one.events.take("subscribed");
  await publish(channel, 3);
  const publications = await one.events.takeMany(3, "publication");
  assert.deepEqual(data(publications), [1, 2, 3]);
  assert.deepEqual(offsets(publications), [2, 3, 4]);
});

test("36: the API disconnects a user but for those that are listed", async () => {
  const ones = await Promise.all([connected(server, as("36")), connected(server, as("36"))]);
  await api(server, "disconnect", { user: "36", whitelist: [ones[0].connected.client] });
  const { code, reason } = await ones[1].events.take("disconnected");
  assert.deepEqual([code, reason], [3503, "force disconnect"]);
  await ones[0].history("open:36", { limit: 0 });
  assert.equal(ones[0].state, "connected");
});

test("39: the API wants its key, a POST and JSON, and says what is wrong", async () => {
  const status = async (...of) => (await request(server, ...of)).status;
  const info = (headers) => status("info", {}, headers);
  assert.equal(await info({}), 401);
  assert.equal(await info({ "X-API-Key": "wrong" }), 401);
  assert.equal(await info({ "X-API-Key": API_KEY }), 200);
  assert.equal(await info({ Authorization: `apikey ${API_KEY}` }), 200);
  assert.equal(await status(`info?api_key=${encodeURIComponent(API_KEY)}`, {}, {}), 200);
  assert.equal((await fetch(`${server.http}/api/info`, { headers: { "X-API-Key": API_KEY } })).status, 405);
  assert.equal(await status("publish", "not json"), 400);
  assert.equal(await status("nothing", {}), 404);
  const unknown = { channel: "unknown:39", data: 1 };
  const response = await request(server, "publish", unknown);
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { error: { code: 102, message: "unknown channel" } });
  const transport = { "X-API-Key": API_KEY, "X-Centrifugo-Error-Mode": "transport" };
  const bare = await request(server, "publish", unknown, transport);
  assert.equal(bare.status, 404);
  assert.deepEqual(await bare.json(), { code: 102, message: "unknown channel" });
});

test("40: what was published already is not delivered again, and what is no history has no offset", async () => {
  const channel = "open:40";
  const sub = await subscribed(await connected(server), channel);
  const first = await publish(channel, 1, { idempotency_key: "once" });
  assert.deepEqual(await publish(channel, 1, { idempotency_key: "once" }), first);
  const newer = await publish(channel, 2, { version: 7 });
  assert.equal((await publish(channel, "stale", { version: 7 })).offset, newer.offset);
  assert.equal((await publish(channel, 3, { skip_history: true })).offset, undefined);
  await api(server, "publish", { channel, b64data: Buffer.from('{"four":4}').toString("base64") });
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
  test(`36: a client that is disconnected with ${code} comes again`, async () => {
    const user = `again${code}`;
    const one = await connected(server, as(user, { exp: now() + 600 }));
    await one.events.take("connecting");
    await api(server, "disconnect", { user, disconnect: { code, reason: "for a test" } });
    const event = await one.events.take("connecting");
    assert.deepEqual([event.code, event.reason], [code, "for a test"]);
    await one.events.take("connected");
  });
}

for (const code of TERMINAL) {
  test(`36: a client that is disconnected with ${code} stays away`, async () => {
    const user = `away${code}`;
    const one = await connected(server, as(user));
    await api(server, "disconnect", { user, disconnect: { code, reason: "for a test" } });
    const event = await one.events.take("disconnected");
    assert.deepEqual([event.code, event.reason, one.state], [code, "for a test", "disconnected"]);
  });
}

test("3006: a subscription by the server that expires ends the connection", async () => {
  await withServer('expired_sub_close_delay = "1s"', async (own) => {
    const one = await connected(own, as("3006"));
    await one.events.take("connecting");
    await api(own, "subscribe", { user: "3006", channel: "shut:3006", expire_at: now() + 1 });
    const { code, reason } = await one.events.take("connecting");
    assert.deepEqual([code, reason], [3006, "subscription expired"]);
  });
});

test("3012: a client that does not answer a ping is closed, and comes again", async () => {
  await withServer('ping_interval = "1s"\npong_timeout = "500ms"', async (own) => {
    const one = await connected(own);
    await one.events.take("connecting");
    one._transport.send = () => {};
    const { code, reason } = await one.events.take("connecting");
    assert.deepEqual([code, reason], [3012, "no pong"]);
    await one.events.take("connected");
  });
});

test("3501, 3507: a client without a user is refused where they are not wanted", async () => {
  const strict = { "allow_anonymous_connect_without_token = true": "disallow_anonymous_connection_tokens = true" };
  const own = await serve(strict);
  try {
    for (const [options, code, reason] of [
      [{}, 3501, "bad request"],
      [as(""), 3507, "permission denied"],
    ]) {
      const one = client(own, options);
      one.connect();
      const event = await one.events.take("disconnected");
      assert.deepEqual([event.code, event.reason], [code, reason]);
    }
  } finally {
    await own.stop();
  }
});

test("3504, 3505: a user with too many connections, or too many channels, is refused", async () => {
  await withServer("user_connection_limit = 2\nchannel_limit = 3", async (own) => {
    await Promise.all([connected(own, as("42")), connected(own, as("42"))]);
    const third = client(own, as("42"));
    third.connect();
    const { code, reason } = await third.events.take("disconnected");
    assert.deepEqual([code, reason], [3504, "connection limit"]);
    const many = client(own, as("43", { channels: ["a", "b", "c", "d"] }));
    many.connect();
    const end = await many.events.take("disconnected");
    assert.deepEqual([end.code, end.reason], [3505, "channel limit"]);
  });
});

test("42: a server that shuts down says so, and its clients come to the next one", async () => {
  const first = await serve();
  await withNetwork(first, async (net) => {
    const one = await connected(net);
    await one.events.take("connecting");
    const sub = await subscribed(one, "open:42");
    net.isUp = false;
    assert.equal(await first.stop(), 0);
    const { code, reason } = await one.events.take("connecting");
    assert.deepEqual([code, reason], [3001, "shutdown"]);
    await withServer("", async (second) => {
      net.port = Number(second.address.split(":").at(-1));
      net.up();
      await one.events.take("connected");
      const again = await sub.events.take("subscribed");
      assert.deepEqual([again.wasRecovering, again.recovered], [true, false], "another server has another past");
    });
  });
});

// ---- the network ----

test("25, 29: clients whose network is cut anywhere, again and again, miss nothing and hear nothing twice", async (t) => {
  const cuts = Number(process.env.STENTOR_CUTS ?? 2000);
  const channel = "stream:cuts";
  await withNetwork(server, async (net) => {
    const publisher = await connected(server);
    const readers = [];
    for (let number = 0; number < 8; number++) readers.push(await reader(net, channel));
    // From within the response to the upgrade to behind some publications.
    net.budget = () => 1 + Math.floor(Math.random() * 3000);
    net.cut();
    let published = 0;
    while (net.cuts < cuts) await publisher.publish(channel, published++);
    net.budget = () => Infinity;
    net.cut();
    await publisher.publish(channel, "the end");
    await within(Promise.all(readers.map(({ end }) => end)), "the end");
    const all = Array.from({ length: published }, (_, number) => number);
    for (const { heard, unrecovered } of readers) {
      assert.deepEqual(heard, [...all, "the end"]);
      assert.deepEqual(unrecovered, []);
    }
    t.diagnostic(`${net.cuts} cuts, ${published} publications to ${readers.length} clients`);
  });
});

/** A client that notes what it hears, until the end. */
async function reader(net, channel) {
  const sub = (await connected(net)).newSubscription(channel);
  const [heard, unrecovered] = [[], []];
  const end = new Promise((resolve) => {
    sub.on("publication", ({ data }) => { if (heard.push(data) && data === "the end") resolve(); });
  });
  const there = new Promise((resolve) => sub.once("subscribed", resolve));
  sub.on("subscribed", (context) => {
    if (context.wasRecovering && !context.recovered) unrecovered.push(context.streamPosition);
  });
  sub.subscribe();
  await within(there, "a subscription");
  return { heard, unrecovered, end };
}
