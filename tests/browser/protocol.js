// What of the checks of the protocol's clients only Node can do: servers with rules, tokens, the
// HTTP API, and a network that can be cut. Pages call it too: all that goes in and comes out is
// plain data, and what lives on has a number.

import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { start, STENTOR } from "./programs.js";
import { PATIENCE } from "./waiting.js";

const RULES = readFileSync(new URL("rules.toml", import.meta.url), "utf8");
const SECRET = "a secret of the tests";

/** The functions, and all that they have started. */
export function outside() {
  const servers = [];
  const networks = [];
  const functions = {
    /** Starts a server with the rules of the tests, in which these replacements are made. */
    async serve(replace) {
      const server = await serve(replace);
      const { address, http, clients } = server;
      return { number: servers.push(server) - 1, address, http, clients };
    },
    /** Ends a server in order; answers its exit code. */
    stop: (number) => servers[number].stop(),
    token,
    request,
    /** A way to the server at this address. */
    async network(address) {
      const net = await network(address);
      return { number: networks.push(net) - 1, clients: net.clients };
    },
    /** Calls one of a network's functions. */
    steer: (number, name, ...args) => networks[number][name](...args),
  };
  /** Ends all; answers the exit codes of the servers. */
  const end = () => {
    for (const net of networks) net.close();
    return Promise.all(servers.map((server) => server.stop()));
  };
  return { functions, end };
}

async function serve(replace = {}) {
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

/** A token of HS256 with these claims. */
export function token(claims, secret = SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

/** Asks over HTTP; answers the status and the text of the response. */
async function request(url, method, headers, body) {
  const response = await fetch(url, { method, headers, body, signal: AbortSignal.timeout(PATIENCE) });
  return { status: response.status, text: await response.text() };
}

/** A network between clients and a server that can be cut. */
async function network(address) {
  const pairs = new Set();
  let port = portOf(address);
  let isUp = true;
  // How many bytes a connection that begins now may carry, in both directions, at most.
  let most = Infinity;
  let cuts = 0;

  const listener = createServer((near) => {
    if (!isUp) return near.destroy();
    const far = connect(port, "127.0.0.1");
    const cut = () => { near.destroy(); far.destroy(); pairs.delete(cut); };
    pairs.add(cut);
    let budget = most === Infinity ? most : 1 + Math.floor(Math.random() * most);
    const carry = (bytes, end) => {
      end.write(bytes.subarray(0, budget));
      budget -= bytes.length;
      if (budget > 0) return;
      cuts += 1;
      budget = Infinity;
      pairs.delete(cut);
      // Either what came so far arrives, wherever in a frame that ends, or even that may not.
      if (cuts % 2) { near.end(); far.end(); } else { near.resetAndDestroy(); far.resetAndDestroy(); }
    };
    for (const end of [near, far]) end.setNoDelay(true).on("error", cut);
    near.on("data", (bytes) => far.writable && carry(bytes, far)).on("close", cut);
    far.on("data", (bytes) => near.writable && carry(bytes, near)).on("close", () => near.end());
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));

  const cut = () => { for (const cut of pairs) cut(); };
  return {
    clients: `ws://127.0.0.1:${listener.address().port}/connection/websocket`,
    /** Cuts all connections. */
    cut,
    /** Lets nobody connect until it is up again. */
    shut() { isUp = false; },
    /** Cuts all connections, and lets nobody connect until it is up again. */
    down() { isUp = false; cut(); },
    up() { isUp = true; },
    /** From now on it leads to another server. */
    lead(address) { port = portOf(address); },
    /** Cuts all, and those that come from now on behind so many bytes at most. */
    wear(bytes) { most = bytes; cut(); },
    /** Cuts all, and wears no more. */
    mend() { most = Infinity; cut(); },
    /** How often a connection was worn out. */
    cuts: () => cuts,
    close() { isUp = false; cut(); listener.close(); },
  };
}

const portOf = (address) => Number(address.split(":").at(-1));
