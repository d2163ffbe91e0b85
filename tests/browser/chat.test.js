// The chat example in a real browser.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browse, CHAT, open, screenshot, start } from "./programs.js";

let server, browser, context;

before(async () => {
  server = await start(CHAT, "127.0.0.1:0");
  browser = await browse();
  context = await browser.newContext();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

async function enter(room, name) {
  const page = await open(context, server.http + room);
  await page.getByLabel("Your name").fill(name);
  await page.keyboard.press("Enter");
  return page;
}

async function say(page, text) {
  await page.getByLabel("Your message").fill(text);
  await page.keyboard.press("Enter");
}

const line = (page, text) => page.getByRole("log").getByRole("listitem").filter({ hasText: text });

test("those in a room hear each other by name, another room does not", async () => {
  const anna = await enter("/kitchen", "Anna");
  await anna.getByRole("status").getByText("Anna").waitFor();
  const bert = await enter("/kitchen", "Bert");
  await bert.getByRole("status").getByText("Anna, Bert").waitFor();
  await line(anna, "Bert joined.").waitFor();
  const carl = await enter("/cellar", "Carl");
  await carl.getByRole("status").getByText("Carl", { exact: true }).waitFor();

  await say(anna, "Soup is <b>ready</b>");
  for (const page of [anna, bert]) {
    const said = line(page, "Soup is <b>ready</b>");
    await said.waitFor();
    assert.equal(await said.locator("b").textContent(), "Anna");
  }
  await say(carl, "Anybody here?");
  await line(carl, "Anybody here?").waitFor();
  assert.equal(await line(carl, "Soup").count(), 0);
  assert.equal(await line(anna, "Anybody").count(), 0);
  await screenshot(bert, "chat");

  await bert.close();
  await line(anna, "Bert left.").waitFor();
  assert.deepEqual([anna.complaints, carl.complaints], [[], []]);
  await Promise.all([anna.close(), carl.close()]);
});

test("a name that is taken is refused, and another one enters", async () => {
  const anna = await enter("/attic", "Anna");
  await anna.getByRole("status").getByText("Anna").waitFor();
  const other = await enter("/attic", "Anna");
  await line(other, "this name is taken").waitFor();
  await other.getByLabel("Your name").fill("Anne");
  await other.keyboard.press("Enter");
  await other.getByRole("status").getByText("Anna, Anne").waitFor();
  await Promise.all([anna.close(), other.close()]);
});
