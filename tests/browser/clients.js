// What the checks of the protocol's clients work with, in Node and in pages: clients whose events
// are kept until they are asked for, servers, networks and the HTTP API.

import { assert } from "./assert.js";
import { within } from "./waiting.js";

export const API_KEY = "a key of the tests";

const OF_CLIENTS = [
  "connecting", "connected", "disconnected", "error", "message",
  "subscribing", "subscribed", "unsubscribed", "publication", "join", "leave",
];
const OF_SUBSCRIPTIONS = [
  "subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error",
];

/** The events of a client or of a subscription, kept until they are asked for. */
class Events {
  #kept = [];
  #waiting = [];

  constructor(emitter, names) {
    for (const name of names) emitter.on(name, (context) => this.#add({ name, ...plain(context) }));
  }

  #add(event) {
    const index = this.#waiting.findIndex(({ names }) => names.includes(event.name));
    if (index < 0) this.#kept.push(event);
    else this.#waiting.splice(index, 1)[0].resolve(event);
  }

  /** Takes the first event of one of these names, which may be yet to come. */
  take(...names) {
    const index = this.#kept.findIndex(({ name }) => names.includes(name));
    if (index >= 0) return Promise.resolve(this.#kept.splice(index, 1)[0]);
    const event = new Promise((resolve) => this.#waiting.push({ names, resolve }));
    return within(event, names.join(" or ")).catch((error) => {
      throw new Error(`${error.message}; there was ${this.#summary()}`);
    });
  }

  /** How many of which name are kept, and what the last error was. */
  #summary() {
    const counts = new Map();
    for (const { name } of this.#kept) counts.set(name, (counts.get(name) ?? 0) + 1);
    const said = [...counts].map(([name, count]) => `${count} ${name}`);
    const failed = this.left("error").at(-1)?.error;
    if (failed) said.push(`at last ${failed.code} ${failed.message}`);
    return said.join(", ") || "nothing";
  }

  /** Takes that many. */
  async takeMany(count, name) {
    const events = [];
    while (events.length < count) events.push(await this.take(name));
    return events;
  }

  /** Those of one of these names that have come and were not taken. */
  left(...names) {
    return this.#kept.filter(({ name }) => names.includes(name));
  }
}

// ---- plain values, whose bytes are JSON where the protocol is Protobuf ----

const bytes = (value) => new TextEncoder().encode(JSON.stringify(value));

/** The value with what its bytes say in their place; where there are none, there is nothing. */
export function plain(value) {
  if (value instanceof Uint8Array) return value.length ? JSON.parse(new TextDecoder().decode(value)) : undefined;
  if (Array.isArray(value)) return value.map(plain);
  if (!value || typeof value !== "object" || value instanceof Error) return value;
  const fields = Object.entries(value).filter(([, field]) => !isNothing(field));
  return Object.fromEntries(fields.map(([name, field]) => [name, plain(field)]));
}

const isNothing = (value) => value instanceof Uint8Array && value.length === 0;

/** Lets a client, and through it its subscriptions, take and answer plain values. */
function speakPlainly(client, isBinary) {
  const encode = isBinary ? bytes : (value) => value;
  const { publish, send, rpc, history, presence } = client;
  client.publish = (channel, value) => publish.call(client, channel, encode(value));
  client.send = (value) => send.call(client, encode(value));
  client.rpc = async (method, value) => plain(await rpc.call(client, method, encode(value)));
  client.history = async (...args) => plain(await history.apply(client, args));
  client.presence = async (...args) => plain(await presence.apply(client, args));
}

// ---- the context of a check ----

/**
 * What a check works with: the build of the client, a class of WebSockets, the functions of
 * `protocol.js`, a server, and how often it is to cut the network. `end` ends what the check has
 * begun.
 */
export function contextOf({ Centrifuge, UnauthorizedError, WebSocket, isBinary, outside, server, cuts }) {
  const clients = [];
  const networks = [];
  const servers = [];

  // Without one it is JSON.
  const subprotocol = isBinary ? "centrifuge-protobuf" : "";
  const context = {
    server, cuts, UnauthorizedError, subprotocol,

    /** A client that comes again soon; its events are in `events`, its sockets in `sockets`. */
    client(server, options = {}) {
      const sockets = [];
      class Kept extends WebSocket {
        constructor(...args) { super(...args); sockets.push(this); }
      }
      const made = new Centrifuge(server.clients, {
        websocket: Kept, minReconnectDelay: 1, maxReconnectDelay: 20, ...options,
      });
      made.events = new Events(made, OF_CLIENTS);
      made.sockets = sockets;
      speakPlainly(made, isBinary);
      clients.push(made);
      return made;
    },

    /** A client that has connected; `connected` tells as whom. */
    async connected(server, options) {
      const made = context.client(server, options);
      made.connect();
      made.connected = await made.events.take("connected");
      return made;
    },

    /** A subscription that has been asked for; its events are in `events`. */
    subscribe(client, channel, options) {
      const made = client.newSubscription(channel, options);
      made.events = new Events(made, OF_SUBSCRIPTIONS);
      made.subscribe();
      return made;
    },

    /** A subscription that there is; `subscribed` tells how. */
    async subscribed(client, channel, options) {
      const made = context.subscribe(client, channel, options);
      made.subscribed = await made.events.take("subscribed");
      return made;
    },

    /** Connects without a client, sends these commands in one message, and answers their replies. */
    async raw(server, ...commands) {
      // What the client writes and reads with; it is not exported.
      const codec = new Centrifuge(server.clients)._codec;
      const socket = new WebSocket(server.clients, subprotocol ? [subprotocol] : []);
      socket.binaryType = "arraybuffer";
      const replies = new Map();
      const all = new Promise((resolve, reject) => {
        // Behind an error it is closed.
        socket.onerror = () => {};
        socket.onclose = ({ code, reason }) => reject(new Error(`closed with ${code} ${reason}`));
        socket.onmessage = ({ data }) => {
          for (const reply of codec.decodeReplies(data)) if (reply.id) replies.set(reply.id, reply);
          if (replies.size === commands.length + 1) resolve();
        };
      });
      const numbered = [{ connect: {} }, ...commands].map((command, index) => ({ id: index + 1, ...command }));
      socket.onopen = () => socket.send(codec.encodeCommands(numbered));
      try {
        await within(all, "a reply");
      } finally {
        socket.close();
      }
      return commands.map((_, index) => replies.get(index + 2));
    },

    /** Whether a message is a ping of the server. */
    isPing: (data) => (isBinary ? data.byteLength === 1 && new Uint8Array(data)[0] === 0 : data === "{}"),

    /** A token with these claims. */
    token: (claims, secret) => outside.token(claims, secret),

    /** The options of a client that is this user. */
    as: async (user, claims) => ({ token: await context.token({ sub: user, ...claims }) }),

    /** Asks the HTTP API; answers status and text of the response. */
    request(server, method, body, headers = { "X-API-Key": API_KEY }, verb = "POST") {
      const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
      return outside.request(`${server.http}/api/${method}`, verb, headers, text);
    },

    /** Asks the HTTP API; answers the result, or throws the error. */
    async api(server, method, body) {
      const { status, text } = await context.request(server, method, body);
      if (status !== 200) throw new Error(`${method}: ${status} ${text}`);
      const answer = JSON.parse(text);
      if (answer.error) throw Object.assign(new Error(answer.error.message), { code: answer.error.code });
      return answer.result ?? answer;
    },

    /** Publishes over the HTTP API to the server that all checks share. */
    publish: (channel, data, more) => context.api(server, "publish", { channel, data, ...more }),

    /** Starts another server, with these replacements in its rules. */
    async serve(replace = {}) {
      const made = await outside.serve(replace);
      const own = { ...made, stop: () => outside.stop(made.number) };
      servers.push(own);
      return own;
    },

    /** Starts another server, with these rules for clients as well. */
    ruled: (rules) => context.serve({ "[client]": `[client]\n${rules}` }),

    /** A way to a server that can be cut. */
    async network(server) {
      const { number, clients } = await outside.network(server.address);
      const steer = (name) => (...args) => outside.steer(number, name, ...args);
      const names = ["cut", "shut", "down", "up", "lead", "wear", "mend", "cuts", "close"];
      const net = { clients, ...Object.fromEntries(names.map((name) => [name, steer(name)])) };
      networks.push(net);
      return net;
    },

    async end() {
      for (const client of clients) client.disconnect();
      for (const net of networks) await net.close();
      for (const own of servers) assert.equal(await own.stop(), 0, "how a server ended");
    },
  };
  return context;
}

/** Runs a check; answers what it has to tell. */
export async function run(check, given) {
  const context = contextOf(given);
  try {
    return await check.run(context);
  } finally {
    await context.end();
  }
}
