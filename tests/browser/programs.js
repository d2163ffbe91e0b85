// Programs under test as child processes, and the browser.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { PATIENCE } from "./waiting.js";

export { PATIENCE };

export const { STENTOR, CHAT, CHROMIUM } = process.env;

/** Starts a program and reads where it listens from the line that it prints. */
export async function start(program, ...args) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "ignore"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), PATIENCE);
  const first = await Promise.race([
    once(createInterface({ input: child.stdout }), "line").then(([line]) => line),
    once(child, "exit").then(([code]) => { throw new Error(`${program} ended with ${code} before it listened`); }),
  ]);
  clearTimeout(timer);
  const address = first.match(/:\/\/([^/ ]+)/)[1];
  return {
    address,
    http: `http://${address}`,
    ws: `ws://${address}`,
    /** Ends it in order; answers its exit code. */
    async stop() {
      if (child.exitCode !== null) return child.exitCode;
      const exit = once(child, "exit");
      child.kill("SIGTERM");
      // A browser keeps connections that it may still need.
      const timer = setTimeout(() => child.kill("SIGKILL"), PATIENCE);
      const [code] = await exit;
      clearTimeout(timer);
      return code;
    },
  };
}

export function browse() {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
}

/** A tab, and everything that it complained about. */
export async function open(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.complaints.push(message.text());
  });
  await page.goto(url);
  return page;
}

export async function screenshot(page, name) {
  if (!process.env.SCREENSHOTS) return;
  mkdirSync(process.env.SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
}
