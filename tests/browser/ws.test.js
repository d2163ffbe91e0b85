// `stentor echo` with ws, the client of the Node world.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { PATIENCE, start, STENTOR } from "./programs.js";

let server;

before(async () => { server = await start(STENTOR, "echo", "--listen", "127.0.0.1:0"); });
after(async () => { assert.equal(await server.stop(), 0); });

const soon = () => AbortSignal.timeout(PATIENCE);

async function connect(options) {
  const socket = new WebSocket(server.ws, options);
  await once(socket, "open", { signal: soon() });
  return socket;
}

async function echo(socket, data, options) {
  const answer = once(socket, "message", { signal: soon() });
  socket.send(data, options);
  const [echoed, isBinary] = await answer;
  return isBinary ? echoed : echoed.toString();
}

async function close(socket, ...frame) {
  const closed = once(socket, "close", { signal: soon() });
  socket.close(...frame);
  const [code] = await closed;
  return code;
}

test("text and bytes of every length class come back", async () => {
  const socket = await connect();
  for (const length of [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000]) {
    const text = "ü".repeat(length / 2) + "x".repeat(length % 2);
    assert.equal(await echo(socket, text), text, `${length} bytes of text`);
    const bytes = Buffer.alloc(length, length % 251);
    assert.deepEqual(await echo(socket, bytes), bytes, `${length} bytes`);
  }
  assert.equal(await close(socket, 1000, "done"), 1000);
});

test("16 MiB come back", async () => {
  const socket = await connect({ maxPayload: 32 << 20 });
  const bytes = Buffer.alloc(16 << 20, "stentor");
  assert.ok((await echo(socket, bytes)).equals(bytes));
  assert.equal(await close(socket, 1000), 1000);
});

test("fragments come back as one message, with a ping between them", async () => {
  const socket = await connect();
  const message = once(socket, "message", { signal: soon() });
  const pong = once(socket, "pong", { signal: soon() });
  socket.send("one ", { fin: false });
  socket.send("two ", { fin: false });
  socket.ping("between");
  socket.send("three", { fin: true });
  assert.equal((await pong)[0].toString(), "between");
  assert.equal((await message)[0].toString(), "one two three");
  assert.equal(await close(socket, 4321, "private"), 4321);
});

test("a thousand messages at once come back in order", async () => {
  const socket = await connect();
  const count = 1000;
  const echoes = [];
  const all = new Promise((resolve) => {
    socket.on("message", (data) => { if (echoes.push(Number(data)) === count) resolve(); });
  });
  for (let number = 0; number < count; number++) socket.send(String(number));
  await all;
  assert.deepEqual(echoes, Array.from({ length: count }, (_, number) => number));
  assert.equal(await close(socket), 1005);
});

test("a message above the limit is closed with 1009", async () => {
  const socket = await connect();
  const closed = once(socket, "close", { signal: soon() });
  socket.on("error", () => {}); // The rest of it finds nobody.
  socket.send(Buffer.alloc((16 << 20) + 1));
  assert.equal((await closed)[0], 1009);
});
