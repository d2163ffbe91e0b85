"""What the Python tests of the protocol's clients share: a server with rules, tokens, and events."""

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
import os
import signal
import time
from pathlib import Path

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

PATIENCE = 20
RULES = Path(__file__).with_name("rules.toml")
SECRET = b"a secret of the tests"
API_KEY = "a key of the tests"


class Server:
    """The program, with the rules of the tests."""

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            os.environ["STENTOR"], "serve", "--listen", "127.0.0.1:0", "--config", str(RULES),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )
        line = (await within(self.process.stdout.readline())).decode()
        address = line.split("://")[1].split("/")[0].split()[0]
        self.api = f"http://{address}/api"
        self.clients = f"ws://{address}/connection/websocket"
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)

    async def stop(self):
        """Ends it in order; answers its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return await within(self.process.wait())
        finally:
            if self.process.returncode is None:
                self.process.kill()


class Network:
    """A way to the server that can be cut."""

    def __init__(self, server):
        self.server = server
        self.is_up = True
        self.writers = set()

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self.listener.sockets[0].getsockname()[1]
        self.clients = f"ws://127.0.0.1:{port}/connection/websocket"
        return self

    async def __aexit__(self, *_):
        self.down()
        self.listener.close()

    def down(self):
        """Cuts what is connected, and lets nobody connect."""
        self.is_up = False
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    def up(self):
        self.is_up = True

    async def _accept(self, reader, writer):
        if not self.is_up:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(self.server.host, self.server.port)
        self.writers |= {writer, far_writer}
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader, writer):
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass
        writer.close()


class Events(ClientEventHandler, SubscriptionEventHandler):
    """The events of a client or of a subscription, kept until they are asked for."""

    def __init__(self):
        self.kept = {}

    def _queue(self, name):
        return self.kept.setdefault(name, asyncio.Queue())

    def _add(self, name, context):
        self._queue(name).put_nowait(plain(context))

    async def take(self, name):
        """Takes the first event of this name, which may be yet to come."""
        return await within(self._queue(name).get(), name)

    async def on_connecting(self, ctx): self._add("connecting", ctx)
    async def on_connected(self, ctx): self._add("connected", ctx)
    async def on_disconnected(self, ctx): self._add("disconnected", ctx)
    async def on_subscribing(self, ctx): self._add("subscribing", ctx)
    async def on_subscribed(self, ctx): self._add("subscribed", ctx)
    async def on_unsubscribed(self, ctx): self._add("unsubscribed", ctx)
    async def on_publication(self, ctx): self._add("publication", ctx)
    async def on_join(self, ctx): self._add("join", ctx)
    async def on_leave(self, ctx): self._add("leave", ctx)
    async def on_error(self, ctx): self._add("error", ctx)


async def within(awaitable, what="it", patience=PATIENCE):
    """What it gives, or an error when it takes longer, by default than anything in a test may."""
    try:
        return await asyncio.wait_for(awaitable, patience)
    except asyncio.TimeoutError:
        raise AssertionError(f"{what} took longer than {patience} s") from None


def token(**claims):
    """A token of HS256 with these claims."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    header = {"alg": "HS256", "typ": "JWT"}
    text = b".".join(part(json.dumps(one).encode()) for one in (header, claims))
    return (text + b"." + part(hmac.digest(SECRET, text, hashlib.sha256))).decode()


def now():
    return int(time.time())


def plain(value):
    """The value with what its bytes say in their place, which is JSON where the protocol is Protobuf."""
    if isinstance(value, bytes):
        return json.loads(value) if value else None
    if isinstance(value, dict):
        return {name: plain(field) for name, field in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: plain(getattr(value, name)) for name in fields})
    return value


class PlainClient(Client):
    """A client that takes and answers plain values in either protocol; its subscriptions do so through it."""

    def _encode(self, data):
        return json.dumps(data).encode() if self._use_protobuf else data

    async def publish(self, channel, data, **options):
        return await super().publish(channel, self._encode(data), **options)

    async def rpc(self, method, data, **options):
        return plain(await super().rpc(method, self._encode(data), **options))

    async def history(self, *args, **options):
        return plain(await super().history(*args, **options))

    async def presence(self, *args, **options):
        return plain(await super().presence(*args, **options))


clients = []
use_protobuf = False


async def connected(url, **options):
    """A client that has connected; `me` is its id."""
    client = PlainClient(
        url, events=Events(), min_reconnect_delay=0.001, max_reconnect_delay=0.02, proxy=None,
        use_protobuf=use_protobuf, **options,
    )
    clients.append(client)
    await client.connect()
    client.me = (await client.events.take("connected")).client
    return client


async def subscribed(client, channel, **options):
    """A subscription that there is; `how` tells what was said of it."""
    sub = client.new_subscription(channel, events=Events(), **options)
    await sub.subscribe()
    sub.how = await sub.events.take("subscribed")
    return sub


async def run(tests, protobuf=False):
    """Runs the tests against one server, with clients of this protocol; answers whether one failed."""
    global use_protobuf
    use_protobuf = protobuf
    server = Server()
    await server.start()
    failed = 0
    try:
        for test in tests:
            try:
                await within(test(server), test.__name__, 3 * PATIENCE)
                print(f"ok      {test.__name__}")
            except Exception as error:
                failed += 1
                print(f"FAILED  {test.__name__}: {error!r}")
            for client in clients:
                await client.disconnect()
            clients.clear()
    finally:
        code = await server.stop()
    if code != 0:
        failed += 1
        print(f"FAILED  the server ended with {code}")
    print(f"{len(tests) - failed} passed, {failed} failed{', in Protobuf' if protobuf else ''}")
    return failed > 0
