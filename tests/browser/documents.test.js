// What README.md and docs/GUIDE.md show for browsers, as it is typed there.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { browse, open, start, STENTOR } from "./programs.js";

const TOPIC = "news";
const BUNDLE = fileURLToPath(new URL("node_modules/centrifuge/dist/centrifuge.js", import.meta.url));
const FLAGS = ["--history-size", "100", "--history-ttl", "5m"];

let server, browser, context;

before(async () => {
  server = await start(STENTOR, "--listen", "127.0.0.1:0", ...FLAGS);
  browser = await browse();
  context = await browser.newContext();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** The JavaScript of a document, for this server instead of the one at the usual address. */
async function examples(path) {
  const document = await readFile(new URL(`../../${path}`, import.meta.url), "utf8");
  const blocks = [...document.matchAll(/^```js\n(.*?)^```$/gms)].map((block) => block[1]);
  assert.ok(blocks.length > 0, `${path} has an example`);
  return blocks.map((block) => block.replaceAll("127.0.0.1:9001", new URL(server.http).host));
}

const publish = (text) => fetch(`${server.http}/t/${TOPIC}`, { method: "POST", body: text });

/** Waits until the topic has just so many subscribers. */
async function subscribers(count) {
  for (;;) {
    const { topics } = await (await fetch(`${server.http}/topics`)).json();
    if ((topics.find(({ name }) => name === TOPIC)?.subscribers ?? 0) === count) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Closes a page, and waits until the server knows: the next one's subscribers are counted. */
async function leave(page) {
  await page.close();
  await subscribers(0);
}

/** Runs code in a page of the server, and collects what it logs. */
async function run(code, { context: within = context, script } = {}) {
  const page = await open(within, `${server.http}/t/elsewhere`);
  if (script) await page.addScriptTag({ path: script });
  const logged = [];
  page.on("console", (message) => message.type() === "log" && logged.push(message.text()));
  await page.evaluate(code);
  return { page, logged };
}

async function until(logged, count) {
  const deadline = Date.now() + 20_000;
  while (logged.length < count) {
    assert.ok(Date.now() < deadline, `${count} messages come, not ${JSON.stringify(logged)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test("a WebSocket and an EventSource hear what is posted, as README.md shows them", async () => {
  const [example] = await examples("README.md");
  const { page, logged } = await run(example);
  await subscribers(2);
  await publish("hello");
  await until(logged, 2);
  assert.deepEqual(logged, ["hello", "hello"]);
  await leave(page);
});

test("a client of the npm package hears what is posted, as README.md shows it", async () => {
  const [, example] = await examples("README.md");
  // The page itself lets no other script in.
  const unguarded = await browser.newContext({ bypassCSP: true });
  const { page, logged } = await run(example, { context: unguarded, script: BUNDLE });
  await subscribers(1);
  await publish('{"hello":"world"}');
  await until(logged, 1);
  assert.deepEqual(logged, ["{hello: world}"]);
  await leave(page);
  await unguarded.close();
});

test("the follower and the EventSource of docs/GUIDE.md hear each message once", async () => {
  for (const example of await examples("docs/GUIDE.md")) {
    const { page, logged } = await run(example);
    await subscribers(1);
    for (const text of ["one", "two\nlines", "three"]) await publish(text);
    await until(logged, 3);
    assert.deepEqual(logged, ["one", "two\nlines", "three"]);
    await leave(page);
  }
});

test("an EventSource comes back by itself and is told that the past is gone", async () => {
  const page = await open(context, `${server.http}/t/elsewhere`);
  await page.evaluate((topic) => {
    window.heard = [];
    window.source = new EventSource(`/t/${topic}`);
    window.source.onmessage = ({ data }) => window.heard.push(data);
    window.source.addEventListener("reset", ({ data }) => window.heard.push(`reset ${data}`));
  }, TOPIC);
  await subscribers(1);
  await publish("before");
  const address = new URL(server.http).host;
  await page.waitForFunction(() => window.heard.length === 1);
  await server.stop();
  server = await start(STENTOR, "--listen", address, ...FLAGS);
  // Another server has another epoch: what was published since its start is not what was missed.
  await page.waitForFunction(() => window.heard.length === 2, null, { timeout: 20_000 });
  await publish("after");
  await page.waitForFunction(() => window.heard.length === 3);
  const heard = await page.evaluate(() => window.heard);
  assert.equal(heard[0], "before");
  assert.match(heard[1], /^reset /);
  assert.equal(heard[2], "after");
  await leave(page);
});
