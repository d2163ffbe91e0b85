"""Echo on /, topics on /t/NAME: the examples of websockets' documentation, on uvloop."""

import asyncio
import resource
import sys
from collections import defaultdict
from contextlib import suppress

import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosedError

topics = defaultdict(set)


async def handle(connection):
    path = connection.request.path
    serve_one = relay(connection, path.removeprefix("/t/")) if path.startswith("/t/") else echo(connection)
    with suppress(ConnectionClosedError):  # Else each client that just goes away is a traceback in the log.
        await serve_one


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def relay(connection, topic):
    members = topics[topic]
    members.add(connection)
    try:
        async for message in connection:
            broadcast(members, message)
    finally:
        members.discard(connection)
        if not members and topics.get(topic) is members:
            del topics[topic]


async def main(port):
    settings = {"backlog": 4096, "compression": None, "max_size": 64 * 2**20, "ping_interval": None}
    async with serve(handle, "127.0.0.1", port, **settings) as server:
        await server.serve_forever()


_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
uvloop.run(main(int(sys.argv[1])))
