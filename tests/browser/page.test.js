// The page of a topic of `stentor serve` in a real browser.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { browse, open, screenshot, start, STENTOR } from "./programs.js";

let server, browser, context;

before(async () => {
  server = await start(STENTOR, "--listen", "127.0.0.1:0");
  browser = await browse();
  context = await browser.newContext();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const connected = (page) => page.getByRole("status").getByText("Connected").waitFor();

async function publish(page, text) {
  await page.getByLabel("Message to publish").fill(text);
  await page.keyboard.press("Enter");
}

const message = (page, text) => page.getByRole("log").getByText(text, { exact: true });

async function client(path) {
  const socket = new WebSocket(server.ws + path);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  return socket;
}

test("what one tab publishes, both show", async () => {
  const [one, two] = [await open(context, `${server.http}/t/lobby`), await open(context, `${server.http}/t/lobby`)];
  await Promise.all([connected(one), connected(two)]);
  await publish(one, "The Greeks are at the gates");
  await message(one, "The Greeks are at the gates").waitFor();
  await message(two, "The Greeks are at the gates").waitFor();
  assert.equal(await one.locator("#log .mine").count(), 1, "the sender knows its own");
  assert.equal(await two.locator("#log .mine").count(), 0);
  await two.getByRole("button", { name: "Publish" }).click(); // Empty: nothing happens.
  await publish(two, "So I hear");
  await message(one, "So I hear").waitFor();
  assert.equal(await one.locator("#total").textContent(), "2");
  await screenshot(one, "page");
  assert.deepEqual([one.complaints, two.complaints], [[], []]);
  await Promise.all([one.close(), two.close()]);
});

test("a topic is its own, and its name is read from the path", async () => {
  const name = "grüße / ✓";
  const lobby = await open(context, `${server.http}/t/lobby`);
  await connected(lobby);
  await lobby.getByLabel("Topic", { exact: true }).fill(name);
  await lobby.getByRole("button", { name: "Go" }).click();
  await lobby.waitForURL("**/t/gr*");
  await connected(lobby);
  assert.equal(await lobby.getByLabel("Topic", { exact: true }).inputValue(), name);
  assert.ok((await lobby.title()).startsWith(name));
  const same = await client(`/t/${encodeURIComponent(name)}`);
  const other = await client("/t/other");
  other.send("for others");
  same.send("for those here");
  await message(lobby, "for those here").waitFor();
  assert.equal(await message(lobby, "for others").count(), 0);
  same.terminate();
  other.terminate();
  await lobby.close();
});

test("messages are text and never markup; bytes are shown as such", async () => {
  const page = await open(context, `${server.http}/t/markup`);
  await connected(page);
  const socket = await client("/t/markup");
  const markup = "<img src=x onerror=alert(1)><script>document.title='gone'</script>";
  socket.send(markup);
  socket.send(Buffer.from([0, 255, 16]));
  await message(page, markup).waitFor();
  await message(page, "3 bytes: 00 ff 10").waitFor();
  assert.equal(await page.locator("#log img, #log script").count(), 0);
  assert.deepEqual(page.complaints, []);
  socket.terminate();
  await page.close();
});

test("a flood is counted, the list stays short, and the newest is visible", async () => {
  const page = await open(context, `${server.http}/t/flood`);
  await connected(page);
  const socket = await client("/t/flood");
  for (let number = 1; number <= 5000; number++) socket.send(`message ${number}`);
  await message(page, "message 5000").waitFor();
  await page.waitForFunction(() => document.getElementById("total").textContent === "5,000");
  assert.ok(await page.locator("#log li").count() <= 300);
  assert.ok(await message(page, "message 5000").isVisible());
  const seen = await message(page, "message 5000").evaluate((item) => item.getBoundingClientRect().bottom <= innerHeight);
  assert.ok(seen, "the newest is within the window");
  await page.waitForFunction(() => document.getElementById("rate").textContent !== "0");
  await screenshot(page, "flood");

  // Who reads older ones is left there, and told.
  await page.getByRole("log").evaluate((log) => { log.scrollTop = 0; });
  socket.send("one more");
  await page.getByRole("button", { name: "Newest messages" }).click();
  assert.ok(await message(page, "one more").isVisible());
  assert.deepEqual(page.complaints, []);
  socket.terminate();
  await page.close();
});

test("the overview shows which topics there are and how much is said, and leads there", async () => {
  const sockets = [await client("/t/overview-b"), await client("/t/overview-b"), await client("/t/overview a")];
  const page = await open(context, `${server.http}/t/overview-b`);
  await connected(page);
  const overview = page.locator("#overview");
  await overview.waitFor();
  assert.ok(!await page.getByRole("list", { name: "Topics by subscribers" }).isVisible(), "it opens when it is wanted");
  for (let number = 0; number < 50; number++) sockets[0].send(`line ${number}`);
  await message(page, "line 49").waitFor();
  await overview.locator("summary").focus();
  await page.keyboard.press("Enter");
  const own = page.getByRole("link", { name: "overview-b 3" });
  await own.waitFor();
  // It takes room from the messages, of which the newest stay in view.
  sockets[0].send("one more line");
  await message(page, "one more line").waitFor();
  await page.waitForFunction(() => {
    const log = document.getElementById("log");
    return log.lastElementChild.getBoundingClientRect().bottom <= log.getBoundingClientRect().bottom + 1;
  });
  assert.equal(await own.getAttribute("aria-current"), "page");
  const timer = setInterval(() => sockets[0].send("talk"), 20);
  await page.waitForFunction(() => !["0", ""].includes(document.getElementById("rate-in").textContent));
  await page.waitForFunction(() => !["0", ""].includes(document.getElementById("rate-out").textContent));
  clearInterval(timer);
  sockets[1].terminate();
  await page.getByRole("link", { name: "overview-b 2" }).waitFor();
  await screenshot(page, "overview");
  await page.getByRole("link", { name: "overview a 1" }).click();
  await page.waitForURL("**/t/overview%20a");
  await connected(page);
  assert.deepEqual(page.complaints, []);
  sockets.forEach((socket) => socket.terminate());
  await page.close();
});

test("where the overview is not for everyone the page does without", async () => {
  const own = await start(STENTOR, "--listen", "127.0.0.1:0", "--overview", "nobody");
  const page = await open(context, `${own.http}/t/lobby`);
  const asked = page.waitForResponse("**/topics");
  await page.reload();
  assert.equal((await asked).status(), 403);
  await connected(page);
  assert.ok(!await page.locator("#overview").isVisible());
  await page.close();
  await own.stop();
});

test("the page comes back when the server does", async () => {
  let own = await start(STENTOR, "--listen", "127.0.0.1:0", "--close-timeout", "1s");
  const page = await open(context, `${own.http}/t/back`);
  await connected(page);
  assert.equal(await own.stop(), 0);
  await page.getByRole("status").getByText("Reconnecting").waitFor();
  await page.getByRole("log").getByText("1001").waitFor();
  assert.ok(await page.getByRole("button", { name: "Publish" }).isDisabled());
  await screenshot(page, "lost");
  own = await start(STENTOR, "--listen", own.address);
  await connected(page);
  await publish(page, "back again");
  await message(page, "back again").waitFor();
  await page.close();
  await own.stop();
});

test("it fits a phone, light and dark, and the keyboard is enough", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const phone = await browser.newContext({ viewport: { width: 360, height: 640 }, colorScheme, hasTouch: true });
    const page = await open(phone, `${server.http}/t/phone-${colorScheme}`);
    await connected(page);
    // The field gets the focus by itself, as soon as the browser comes to it.
    await page.locator("#text:focus").waitFor();
    await page.keyboard.type("typed without a click");
    await page.keyboard.press("Enter");
    await message(page, "typed without a click").waitFor();
    await publish(page, "a-very-long-word-".repeat(20));
    await message(page, "a-very-long-word-".repeat(20)).waitFor();
    const overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${overflow} pixels too wide`);
    const field = await page.getByLabel("Message to publish").boundingBox();
    assert.ok(field.y + field.height <= 640, "the field is within the window");
    await screenshot(page, `phone-${colorScheme}`);
    await phone.close();
  }
});
