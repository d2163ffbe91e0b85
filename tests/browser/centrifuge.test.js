// The server with `centrifuge`, the JavaScript client of the protocol: all of `checks.js` in Node and
// in Chromium, with the client's build for JSON and with that for Protobuf.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import * as json from "centrifuge";
import * as protobuf from "centrifuge/build/protobuf";
import WebSocket from "ws";
import { isSame } from "./assert.js";
import { checks, idle } from "./checks.js";
import { run } from "./clients.js";
import { BUNDLES, checkingPage, visit } from "./pages.js";
import { browse } from "./programs.js";
import { outside } from "./protocol.js";

const CUTS = Number(process.env.STENTOR_CUTS ?? 2000);

// What the checks assert with is our own, for pages have no `node:assert`.
test("what is the same is what Node says is the same", () => {
  const values = [
    undefined, null, true, 0, -0, NaN, 1, "", "1", [], [undefined], [1], [1, 2], {}, { a: undefined }, { a: 1 },
    { b: 1 }, { a: 1, b: [{ c: null }] }, { a: 1, b: [{ c: undefined }] }, { 0: 1 },
  ];
  for (const one of values) {
    for (const other of structuredClone(values)) assert.equal(isSame(one, other), isDeepStrictEqual(one, other));
  }
});

let browser;

// What waits much and works little goes beside each other.
describe("centrifuge", { concurrency: 3, timeout: 600_000 }, () => {
  before(async () => { browser = await browse(); });
  after(() => browser?.close());

  const [forJson, forProtobuf] = BUNDLES;
  inChromium("in Chromium, for long", forJson, [idle]);
  // The network is cut in full where a cut costs least.
  inNode("in Node, JSON", json, false, CUTS);
  inNode("in Node, Protobuf", protobuf, true, CUTS / 10);
  inChromium("in Chromium, JSON", forJson, checks, CUTS / 10);
  inChromium("in Chromium, Protobuf", forProtobuf, checks, CUTS / 10);
  describe("in Chromium, of another origin", { concurrency: 1 }, origins);
});

function inNode(name, { Centrifuge, UnauthorizedError }, isBinary, cuts) {
  way(name, checks, (server, functions) => {
    const given = { Centrifuge, UnauthorizedError, WebSocket, isBinary, outside: functions, server, cuts };
    return { runs: (check) => run(check, given), errors: [] };
  });
}

function inChromium(name, build, checks, cuts) {
  way(name, checks, async (server, functions) => {
    const page = await checkingPage(browser, server, build, functions);
    const inPage = ([name, cuts]) => globalThis.checking.run(name, cuts);
    return { runs: (check) => page.evaluate(inPage, [check.name, cuts]), errors: page.errors };
  });
}

/**
 * All checks, one after the other, with a server of their own. `prepare` answers what runs
 * one, and where errors are kept that nobody has caught.
 */
function way(name, checks, prepare) {
  describe(name, { concurrency: 1, timeout: 600_000 }, () => {
    const { functions, end } = outside();
    let prepared;
    before(async () => { prepared = await prepare(await functions.serve(), functions); });
    after(async () => {
      for (const code of await end()) assert.equal(code, 0, "how a server ended");
      assert.deepEqual(prepared?.errors ?? [], []);
    });
    for (const check of checks) {
      test(check.name, { timeout: check.patience }, async (t) => {
        const said = await prepared.runs(check);
        if (said) t.diagnostic(said);
      });
    }
  });
}

function origins() {
  const { functions, end } = outside();
  after(async () => { assert.deepEqual(await end(), [0, 0, 0]); });

  test("the pages of an origin that is listed are let in, and no others", { timeout: 60_000 }, async () => {
    const [friend, stranger] = await Promise.all([functions.serve(), functions.serve()]);
    const server = await functions.serve({ "[client]": `[client]\nallowed_origins = ["${friend.http}"]` });
    const connect = (url) => new Promise((resolve) => {
      const client = new globalThis.Centrifuge(url, { minReconnectDelay: 60_000, maxReconnectDelay: 60_000 });
      client.on("connected", () => resolve("connected"));
      client.on("error", ({ error }) => resolve(error.message));
      client.connect();
    });
    const page = await visit(browser, friend, BUNDLES[0]);
    assert.equal(await page.evaluate(connect, server.clients), "connected");
    const other = await visit(browser, stranger, BUNDLES[0]);
    assert.equal(await other.evaluate(connect, server.clients), "transport closed");
    assert.match(other.complaints.join(), /Unexpected response code: 403/);
  });
}
