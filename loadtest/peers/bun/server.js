// Echo on /, topics on /t/NAME: https://bun.sh/docs/api/websockets, with the limits raised.
const GIB = 2 ** 30;

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    const topic = new URL(request.url).pathname.match(/^\/t\/(.+)$/)?.[1];
    if (!server.upgrade(request, { data: { topic } })) return new Response(null, { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: 64 * 2 ** 20,
    idleTimeout: 0,
    sendPings: false,
    // A message beyond it would be dropped without a word: close instead.
    backpressureLimit: GIB,
    closeOnBackpressureLimit: true,
    open(ws) {
      if (ws.data.topic) ws.subscribe(ws.data.topic);
    },
    message(ws, message) {
      if (ws.data.topic) server.publish(ws.data.topic, message); // To all; ws.publish leaves out the sender.
      else ws.send(message);
    },
  },
});
