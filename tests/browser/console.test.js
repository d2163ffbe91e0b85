// The console of `stentor serve` in a real browser.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { browse, open, screenshot, start, STENTOR } from "./programs.js";

let server, browser, context;

before(async () => {
  server = await start(STENTOR, "--listen", "127.0.0.1:0", "--history-size", "10", "--history-ttl", "5m", "--namespace", "room: presence=yes");
  browser = await browse();
  context = await browser.newContext();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const connected = (page) => page.getByRole("status").getByText("Connected").waitFor();

async function client(path, to = server) {
  const socket = new WebSocket(to.ws + path);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  return socket;
}

async function watch(page, name) {
  await page.getByLabel("Topic or pattern to watch").fill(name);
  await page.getByRole("button", { name: "Watch" }).click();
  await page.getByText(`Nothing was said in ${name} since you came.`).waitFor();
}

const live = (page, text) => page.getByRole("log").getByText(text, { exact: true });

/** Waits until an element shows this text. */
const shows = (page, id, text) => page.waitForFunction(([id, text]) => document.getElementById(id).textContent === text, [id, text]);

/** The row of a topic, when its cells are these. */
const row = (page, name, subscribers) => page.waitForFunction(([name, subscribers]) => {
  const row = document.querySelector(`#rows tr[data-topic="${name}"]`);
  return row?.children[1].textContent === subscribers;
}, [name, subscribers]);

async function metric(of, name) {
  const text = await (await fetch(`${of.http}/metrics`)).text();
  return Number(text.split("\n").find((line) => line.startsWith(`${name} `)).split(" ")[1]);
}

test("the numbers are the server's", async () => {
  const own = await start(STENTOR, "--listen", "127.0.0.1:0");
  const page = await open(context, own.http);
  await connected(page);
  await page.getByText("Nobody is subscribed to anything yet").waitFor();
  await page.getByText("None so far.").waitFor();
  const sockets = await Promise.all([1, 2, 3, 4].map((number) => client(number < 4 ? "/t/busy" : "/t/quiet", own)));
  await row(page, "busy", "3");
  await row(page, "quiet", "1");
  await shows(page, "topic-count", "2");
  await shows(page, "websockets", "5"); // This page as well.
  await shows(page, "subscriptions", "5");
  const before = await page.evaluate(() => ({ published: last.published, sent: last.sent, received: last.received, at: last.at }));
  for (let number = 0; number < 200; number++) sockets[0].send(`message ${number}`);
  // The peak of the plot says that a rate was seen; the totals, how many there were.
  await page.waitForFunction(() => samples.some((sample) => sample.in >= 50 && sample.out >= 150));
  await page.waitForFunction((before) => last.received - before.received === 200, before);
  const now = await page.evaluate(() => ({ published: last.published, sent: last.sent, updates: last.published, at: last.at }));
  // The page's own numbers are publications too: at most one for each second.
  const updates = now.published - before.published - 200;
  assert.ok(updates >= 0 && updates <= (now.at - before.at) / 1000 + 1, `${updates} updates`);
  assert.equal(now.sent - before.sent, 3 * 200 + updates, "each subscriber got each message");
  const shown = Number((await page.locator("#published").textContent()).replaceAll(",", ""));
  assert.ok(shown <= await metric(own, "stentor_messages_published_total"), "never more than there were");
  assert.ok(shown >= now.published);
  const rate = await page.evaluate(() => Math.max(...samples.map((sample) => sample.connections)));
  assert.ok(rate >= 5);
  assert.match(await page.locator("#resident").textContent(), /^[\d.]+ MiB$/);
  assert.match(await page.locator("#p99").textContent(), /^[\d.]+ (µs|ms|s)$/);
  assert.match(await page.locator("#turn").textContent(), /^[\d.]+ (µs|ms|s)$/);

  sockets[3].close(1000);
  sockets[2].terminate();
  const codes = page.getByRole("table", { name: "By close code" });
  await codes.getByRole("row", { name: "1000 normal client 1" }).waitFor();
  await codes.getByRole("row", { name: "1006 without a close frame client 1" }).waitFor();
  await row(page, "busy", "2");
  await shows(page, "topic-count", "1");
  assert.deepEqual(page.complaints, []);
  sockets.forEach((socket) => socket.terminate());
  await page.close();
  await own.stop();
});

test("messages come as they are said, and are text and never markup", async () => {
  const page = await open(context, server.http);
  await connected(page);
  const markup = "<img src=x onerror=alert(1)><script>document.title='gone'</script>";
  const name = "<b>tail</b>";
  const socket = await client(`/t/${encodeURIComponent(name)}`);
  await page.getByRole("button", { name }).click();
  await page.getByText(`Nothing was said in ${name} since you came.`).waitFor();
  socket.send(markup);
  socket.send("two\nlines");
  socket.send(Buffer.from([0, 255, 10]));
  await live(page, markup).waitFor();
  await live(page, "two\nlines").waitFor();
  await live(page, "3 bytes: 00 ff 0a").waitFor();
  assert.equal(await page.locator("#log img, #log script, #rows b").count(), 0);
  assert.ok((await page.title()).startsWith("stentor"));

  await page.getByRole("tab", { name: "History" }).click();
  await page.locator("#past").getByText(markup, { exact: true }).waitFor();
  assert.equal(await page.locator("#past li").count(), 3);
  assert.equal(await page.locator("#past img").count(), 0);
  assert.deepEqual(page.complaints, []);
  socket.terminate();
  await page.close();
});

test("what the page publishes is heard, and a pattern is heard with its topics", async () => {
  const page = await open(context, server.http);
  await connected(page);
  const socket = await client("/t/talk.one");
  const heard = new Promise((resolve) => socket.once("message", (data) => resolve(String(data))));
  await watch(page, "talk.one");
  await page.getByLabel("Message to publish").fill("from \"the\" console");
  await page.keyboard.press("Enter");
  assert.equal(await heard, "from \"the\" console");
  await live(page, "from \"the\" console").waitFor();
  await page.getByText("Published to talk.one: 2 subscribers, as #1.").waitFor();
  await watch(page, "talk.>");
  assert.ok(await page.getByLabel("Message to publish").isDisabled());
  socket.send("by pattern");
  await page.getByRole("listitem").filter({ hasText: "by pattern" }).filter({ hasText: "talk.one" }).waitFor();
  // The page remembers what it watched.
  await page.reload();
  await page.getByText("Nothing was said in talk.> since you came.").waitFor();
  await page.getByLabel("Topic or pattern to watch").fill("@console.feed");
  await page.keyboard.press("Enter");
  await page.getByText("names that begin with @ are the server's own").waitFor();
  assert.deepEqual(page.complaints, []);
  socket.terminate();
  await page.close();
});

test("who is present is listed, with what they say of themselves", async () => {
  const page = await open(context, server.http);
  await connected(page);
  const socket = await client(`/t/room:1?info=${encodeURIComponent('{"name":"<i>Anna</i>"}')}`);
  await watch(page, "room:1");
  await page.getByRole("tab", { name: "Presence" }).click();
  await page.locator("#present").getByText('{"name":"<i>Anna</i>"}').waitFor();
  assert.equal(await page.locator("#present li").count(), 2, "and this page");
  assert.equal(await page.locator("#present i").count(), 0);
  await page.getByRole("tab", { name: "Live" }).click();
  await watch(page, "elsewhere");
  await page.getByRole("tab", { name: "Presence" }).click();
  await page.getByText("1 subscribed; who they are is not kept of this topic.").waitFor();
  socket.terminate();
  await page.close();
});

test("a flood is a short list, and the newest is in view", async () => {
  const page = await open(context, server.http);
  await connected(page);
  const socket = await client("/t/flood");
  await watch(page, "flood");
  for (let number = 1; number <= 3000; number++) socket.send(`message ${number}`);
  await live(page, "message 3000").waitFor();
  assert.ok(await page.locator("#log li").count() <= 300);
  const seen = () => page.getByRole("log").evaluate((log) => log.lastElementChild.getBoundingClientRect().bottom <= log.getBoundingClientRect().bottom + 1);
  assert.ok(await seen());
  await page.getByRole("log").evaluate((log) => { log.scrollTop = 0; });
  socket.send("one more");
  await page.getByRole("button", { name: "Newest messages" }).click();
  await page.waitForFunction(() => document.getElementById("newest").hidden);
  assert.ok(await seen());
  await page.getByRole("button", { name: "Pause" }).click();
  socket.send("while it paused");
  socket.terminate();
  await row(page, "flood", "1");
  assert.equal(await live(page, "while it paused").count(), 0);
  await page.close();
});

test("with a key the console is locked, and the key opens it", async () => {
  const own = await start(STENTOR, "--listen", "127.0.0.1:0", "--admin-token", "open sesame");
  const page = await open(await browser.newContext(), own.http);
  const field = page.getByLabel("Admin token or API key");
  await field.waitFor();
  assert.ok(!await page.locator("#console").isVisible(), "nothing is shown before");
  await field.fill("open barley");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("This is not the key.").waitFor();
  await screenshot(page, "console-locked");
  await field.fill("open sesame");
  await page.getByRole("button", { name: "Open the console" }).click();
  await page.getByRole("status").getByText("Connected, with a key").waitFor();
  await shows(page, "wrong-keys", "1");
  await page.getByRole("row", { name: "4000 to 4999, private server 1" }).waitFor();
  // The tab remembers it, another one does not know it.
  await page.reload();
  await connected(page);
  const other = await open(await browser.newContext(), own.http);
  await other.getByLabel("Admin token or API key").waitFor();
  assert.deepEqual([page.complaints, other.complaints], [[], []]);
  await own.stop();
  await page.context().close();
  await other.context().close();
});

test("a page of another origin gets no feed without a key", async () => {
  const stranger = await start(STENTOR, "--listen", "127.0.0.1:0");
  const page = await open(context, `${stranger.http}/livez`);
  const outcome = await page.evaluate((url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("refused");
  }), `${server.ws}/console/feed`);
  assert.equal(outcome, "refused");
  await page.close();
  await stranger.stop();
});

test("the console comes back when the server does", async () => {
  let own = await start(STENTOR, "--listen", "127.0.0.1:0", "--close-timeout", "1s");
  const page = await open(context, own.http);
  await connected(page);
  await watch(page, "back");
  assert.equal(await own.stop(), 0);
  await page.getByRole("status").getByText("Reconnecting").waitFor();
  assert.ok(await page.getByRole("button", { name: "Publish" }).isDisabled());
  own = await start(STENTOR, "--listen", own.address);
  await connected(page);
  await row(page, "back", "1");
  await page.getByLabel("Message to publish").fill("back again");
  await page.keyboard.press("Enter");
  await live(page, "back again").waitFor();
  await page.close();
  await own.stop();
});

test("the keyboard is enough", async () => {
  const socket = await client("/t/keys");
  const page = await open(context, server.http);
  await connected(page);
  const focused = (id) => page.waitForFunction((id) => document.activeElement.id === id, id);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the topic");
  await page.keyboard.press("Enter");
  await focused("topic-panel");
  await page.keyboard.press("Tab");
  await focused("topic");
  await page.keyboard.type("keys");
  await page.keyboard.press("Enter");
  await page.getByText("Nothing was said in keys since you came.").waitFor();
  await page.keyboard.press("Tab"); // Watch
  await page.keyboard.press("Tab");
  await focused("tab-live");
  await page.keyboard.press("ArrowRight");
  await focused("tab-history");
  await page.getByText("Nothing was published yet.").waitFor();
  await page.keyboard.press("ArrowLeft");
  await focused("tab-live");
  for (const id of ["pause", "log", "text"]) {
    await page.keyboard.press("Tab");
    await focused(id);
  }
  await page.keyboard.type("typed");
  await page.keyboard.press("Enter");
  await live(page, "typed").waitFor();
  // The table sorts, and a row that moves keeps the focus.
  const sort = page.getByRole("columnheader", { name: "Topic" }).getByRole("button");
  await sort.focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.getByRole("columnheader", { name: "Topic" }).getAttribute("aria-sort"), "ascending");
  await page.getByRole("button", { name: "keys", exact: true }).focus();
  const earlier = await client("/t/a-topic-before-it");
  await row(page, "a-topic-before-it", "1");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "keys");
  // Every control has a name, and every plot a text.
  const nameless = await page.evaluate(() => Array.from(document.querySelectorAll("button, input, [role=img], [role=region], [role=log]"))
    .filter((element) => !(element.getAttribute("aria-label") ?? element.getAttribute("aria-labelledby") ?? element.labels?.[0]?.textContent ?? element.textContent).trim())
    .map((element) => element.outerHTML));
  assert.deepEqual(nameless, []);
  const texts = await page.locator("#plots svg").evaluateAll((plots) => plots.map((plot) => plot.getAttribute("aria-label")));
  assert.equal(texts.length, 5);
  for (const text of texts) assert.match(text, /^[A-Z].* in the last \d+ seconds\. .+: .+\.$/);
  assert.equal(await page.locator("table:not(:has(caption))").count(), 0);
  socket.terminate();
  earlier.terminate();
  await page.close();
});

/** The lowest contrast of a visible text with what is behind it (WCAG 2.2, relative luminance). */
const lowestContrast = (page) => page.evaluate(() => {
  const parse = (color) => {
    const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
    return { channels: [r, g, b], a };
  };
  const luminance = (channels) => {
    const [r, g, b] = channels.map((value) => value / 255).map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { channels, a } = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return channels;
    }
    return null;
  };
  let lowest = { ratio: 21, text: "" };
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || element.closest("script, style, :disabled, .unseen") || !element.checkVisibility()) continue;
    const [one, other] = [parse(getComputedStyle(element).color).channels, behind(element)].map(luminance);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    count += 1;
    if (ratio < lowest.ratio) lowest = { ratio, text };
  }
  return { ...lowest, count };
});

test("it fits a phone, light and dark, and every text can be read", async () => {
  const sockets = [await client("/t/phone"), await client(`/t/${"a-very-long-name-of-a-topic-".repeat(6)}`)];
  for (const colorScheme of ["light", "dark"]) {
    for (const [device, viewport] of [["phone", { width: 360, height: 640 }], ["desktop", { width: 1280, height: 900 }]]) {
      const own = await browser.newContext({ viewport, colorScheme, hasTouch: device === "phone" });
      const page = await open(own, server.http);
      await connected(page);
      await watch(page, "phone");
      sockets[0].send("a-very-long-word-".repeat(20));
      sockets[0].send("short");
      await live(page, "short").waitFor();
      await row(page, "phone", "2");
      await page.locator("#details summary").click();
      await page.locator("#minute-rows tr").first().waitFor();
      const overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${device}: ${overflow} pixels too wide`);
      const { ratio, text, count } = await lowestContrast(page);
      assert.ok(count > 50, `${count} texts`);
      assert.ok(ratio >= 4.5, `${colorScheme}: ${ratio} for ${text}`);
      await screenshot(page, `console-${device}-${colorScheme}`);
      assert.deepEqual(page.complaints, []);
      await own.close();
    }
  }
  sockets.forEach((socket) => socket.terminate());
});
