// Pages in Chromium that have the protocol's client and all that its checks work with.

import { fileURLToPath } from "node:url";
import { open } from "./programs.js";

/** The builds of the client for pages. */
export const BUNDLES = [
  { name: "JSON", isBinary: false, bundle: "centrifuge.js" },
  { name: "Protobuf", isBinary: true, bundle: "centrifuge.protobuf.js" },
];

const file = (path) => fileURLToPath(new URL(path, import.meta.url));

/** A page of the server with this build of the client; the modules of the checks are beside it. */
export async function visit(browser, server, { bundle }) {
  // The page itself lets no other script in; here some have to come in.
  const context = await browser.newContext({ bypassCSP: true });
  await context.route(`${server.http}/checks/*`, (route) => {
    const name = new URL(route.request().url()).pathname.split("/").at(-1);
    return route.fulfill({ path: file(name), contentType: "text/javascript" });
  });
  const page = await open(context, `${server.http}/`);
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error.stack));
  await page.addScriptTag({ path: file(`node_modules/centrifuge/dist/${bundle}`) });
  return page;
}

/** A page whose `checking` runs checks, with these functions of `outside()` for what only Node can do. */
export async function checkingPage(browser, server, { bundle, isBinary }, functions) {
  const page = await visit(browser, server, { bundle });
  await page.exposeFunction("callOutside", (name, ...args) => functions[name](...args));
  await page.evaluate(async ({ server, isBinary, names }) => {
    const [{ checks, idle }, { contextOf, run }] = await Promise.all([import("/checks/checks.js"), import("/checks/clients.js")]);
    const { Centrifuge, WebSocket } = globalThis;
    const { UnauthorizedError } = Centrifuge;
    const outside = Object.fromEntries(names.map((name) => [name, (...args) => globalThis.callOutside(name, ...args)]));
    const given = { Centrifuge, UnauthorizedError, WebSocket, isBinary, outside, server };
    globalThis.checking = {
      run: (name, cuts) => run([idle, ...checks].find((check) => check.name === name), { ...given, cuts }),
      context: contextOf(given),
    };
  }, { server, isBinary, names: Object.keys(functions) });
  return page;
}
