// What the tests of the protocol's clients share: a server with rules, tokens, the HTTP API, clients
// whose events are kept until they are asked for, and a network that can be cut.

import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { PATIENCE, start, STENTOR } from "./programs.js";

const RULES = readFileSync(new URL("rules.toml", import.meta.url), "utf8");
export const SECRET = "a secret of the tests";
export const API_KEY = "a key of the tests";

/** Starts a server with the rules of the tests, in which these replacements are made. */
export async function serve(replace = {}) {
  let rules = RULES;
  for (const [line, other] of Object.entries(replace)) {
    if (!rules.includes(line)) throw new Error(`rules.toml has no ${line}`);
    rules = rules.replace(line, other);
  }
  const directory = mkdtempSync(join(tmpdir(), "stentor-"));
  const file = join(directory, "rules.toml");
  writeFileSync(file, rules);
  try {
    const server = await start(STENTOR, "serve", "--listen", "127.0.0.1:0", "--config", file);
    return { ...server, clients: `${server.ws}/connection/websocket` };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

export const now = () => Math.floor(Date.now() / 1000);

/** A token of HS256 with these claims. */
export function token(claims, secret = SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

/** Asks the HTTP API; answers the response as it is. */
export function request(server, method, body, headers = { "X-API-Key": API_KEY }) {
  return fetch(`${server.http}/api/${method}`, {
    method: "POST",
    headers,
    body: typeof body === "string" ? body : JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE),
  });
}

/** Asks the HTTP API; answers the result, or throws the error. */
export async function api(server, method, body) {
  const response = await request(server, method, body);
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${method}: ${response.status} ${text}`);
  const answer = JSON.parse(text);
  if (answer.error) throw Object.assign(new Error(answer.error.message), { code: answer.error.code });
  return answer.result ?? answer;
}

/** The promise, or an error when it takes longer than any test waits. */
export function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The events of a client or of a subscription, kept until they are asked for. */
export class Events {
  #kept = [];
  #waiting = [];

  constructor(emitter, names) {
    for (const name of names) emitter.on(name, (context) => this.#add({ name, ...context }));
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
    const kept = () => this.#kept.map(({ name }) => name).join(", ") || "nothing";
    return within(event, names.join(" or ")).catch((error) => {
      throw new Error(`${error.message}; there was ${kept()}`);
    });
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

const OF_CLIENTS = [
  "connecting", "connected", "disconnected", "error", "message",
  "subscribing", "subscribed", "unsubscribed", "publication", "join", "leave",
];
const OF_SUBSCRIPTIONS = [
  "subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error",
];

const clients = new Set();

/** A client that comes again soon; its events are in `events`. It connects when it is told to. */
export function client(url, options = {}) {
  const made = new Centrifuge(url.clients ?? url, {
    websocket: WebSocket, minReconnectDelay: 1, maxReconnectDelay: 20, ...options,
  });
  made.events = new Events(made, OF_CLIENTS);
  clients.add(made);
  return made;
}

/** A client that has connected; `connected` tells as whom. */
export async function connected(url, options) {
  const made = client(url, options);
  made.connect();
  made.connected = await made.events.take("connected");
  return made;
}

/** A subscription that has been asked for; its events are in `events`. */
export function subscribe(client, channel, options) {
  const made = client.newSubscription(channel, options);
  made.events = new Events(made, OF_SUBSCRIPTIONS);
  made.subscribe();
  return made;
}

/** A subscription that there is; `subscribed` tells how. */
export async function subscribed(client, channel, options) {
  const made = subscribe(client, channel, options);
  made.subscribed = await made.events.take("subscribed");
  return made;
}

/** Ends all clients that were made; for after each test. */
export function leave() {
  for (const one of clients) one.disconnect();
  clients.clear();
}

/** Connects without a client, sends these commands in one message, and answers their replies. */
export async function raw(server, ...commands) {
  const socket = new WebSocket(server.clients);
  const replies = new Map();
  const all = new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.on("close", (code, reason) => reject(new Error(`closed with ${code} ${reason}`)));
    socket.on("message", (data) => {
      for (const line of data.toString().split("\n")) {
        const reply = JSON.parse(line);
        if (reply.id) replies.set(reply.id, reply);
      }
      if (replies.size === commands.length + 1) resolve();
    });
  });
  const lines = [{ connect: {} }, ...commands].map((command, index) => JSON.stringify({ id: index + 1, ...command }));
  socket.on("open", () => socket.send(lines.join("\n")));
  try {
    await within(all, "a reply");
  } finally {
    socket.removeAllListeners("close");
    socket.terminate();
  }
  return commands.map((_, index) => replies.get(index + 2));
}

/** A network between clients and a server that can be cut. */
export async function network(server) {
  const pairs = new Set();
  const listener = createServer((near) => {
    if (!net.isUp) return near.destroy();
    const far = connect(net.port, "127.0.0.1");
    const cut = () => { near.destroy(); far.destroy(); pairs.delete(cut); };
    pairs.add(cut);
    let budget = net.budget();
    const carry = (bytes, end) => {
      end.write(bytes.subarray(0, budget));
      budget -= bytes.length;
      if (budget > 0) return;
      net.cuts += 1;
      budget = Infinity;
      pairs.delete(cut);
      // Either what came so far arrives, wherever in a frame that ends, or even that may not.
      if (net.cuts % 2) { near.end(); far.end(); } else { near.resetAndDestroy(); far.resetAndDestroy(); }
    };
    for (const end of [near, far]) end.setNoDelay(true).on("error", cut);
    near.on("data", (bytes) => far.writable && carry(bytes, far)).on("close", cut);
    far.on("data", (bytes) => near.writable && carry(bytes, near)).on("close", () => near.end());
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const net = {
    port: Number(server.address.split(":").at(-1)),
    clients: `ws://127.0.0.1:${listener.address().port}/connection/websocket`,
    isUp: true,
    /** How often a budget was used up. */
    cuts: 0,
    /** How many bytes a connection that begins now may carry, in both directions. */
    budget: () => Infinity,
    /** Cuts all connections. */
    cut() { for (const cut of pairs) cut(); },
    /** Cuts them, and lets nobody connect until it is up again. */
    down() { net.isUp = false; net.cut(); },
    up() { net.isUp = true; },
    close() { net.cut(); listener.close(); },
  };
  return net;
}
