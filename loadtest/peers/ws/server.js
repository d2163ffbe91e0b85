// Echo on /, topics on /t/NAME: the "Server broadcast" of ws's README, by topic.
const { WebSocket, WebSocketServer } = require("ws");

const topics = new Map();

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 4096,
  clientTracking: false,
  maxPayload: 64 * 2 ** 20,
  perMessageDeflate: false,
});

server.on("connection", (client, request) => {
  client.on("error", () => client.terminate());
  const topic = request.url.match(/^\/t\/(.+)$/)?.[1];
  if (topic) join(client, topic);
  else client.on("message", (data, isBinary) => client.send(data, { binary: isBinary }));
});

function join(client, topic) {
  if (!topics.has(topic)) topics.set(topic, new Set());
  const members = topics.get(topic).add(client);
  client.on("message", (data, isBinary) => {
    for (const member of members) {
      if (member.readyState === WebSocket.OPEN) member.send(data, { binary: isBinary });
    }
  });
  client.on("close", () => {
    members.delete(client);
    if (members.size === 0 && topics.get(topic) === members) topics.delete(topic);
  });
}
