"""A WebSocket client that can do wrong what a real one cannot: for `check` and `observe`."""

import base64
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import tomllib

FOLDER = pathlib.Path(__file__).resolve().parent
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, MASKED = 0x80, 0x40, 0x80
PATIENCE = 10.0  # Seconds until an answer is taken to be missing.


class Closed(Exception):
    """The server ended the connection; `code` is what its close frame said, None without one."""

    def __init__(self, code):
        super().__init__("cut" if code is None else f"closed with {code or 'no code'}")
        self.code = code


def frame(opcode, payload, fin=True, masked=True, flags=0, length_size=0):
    """A frame as bytes. `length_size` forces 2 or 8 bytes of length where fewer would do."""
    length = len(payload)
    if length_size == 8 or length > 0xFFFF:
        code, extended = 127, length.to_bytes(8)
    elif length_size == 2 or length > 125:
        code, extended = 126, length.to_bytes(2)
    else:
        code, extended = length, b""
    head = bytes([(FIN if fin else 0) | flags | opcode, (MASKED if masked else 0) | code]) + extended
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + apply_mask(payload, key)


def apply_mask(payload, key):
    keys = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(keys)).to_bytes(len(payload))


class Connection:
    def __init__(self, port, path="/", version="13"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n\r\n".encode()
        )
        self.status = self.stream.readline().decode(errors="replace").split(" ")[1:2]
        if self.status != ["101"]:
            self.close()
            raise ConnectionError(f"handshake answered with {' '.join(self.status) or 'nothing'}")
        while self.stream.readline().strip():
            pass

    def send_raw(self, data):
        self.socket.sendall(data)

    def send(self, opcode, payload):
        self.send_raw(frame(opcode, payload))

    def read_exactly(self, count):
        data = self.stream.read(count)
        if len(data) < count:
            raise Closed(None)
        return data

    def read_frame(self):
        first, second = self.read_exactly(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(self.read_exactly(2 if length == 126 else 8))
        return first, self.read_exactly(length)

    def receive(self):
        """The next message as (opcode, payload); pongs count as messages, pings are answered."""
        opcode, message = None, b""
        while True:
            first, payload = self.read_frame()
            kind = first & 0x0F
            if kind == CLOSE:
                raise Closed(int.from_bytes(payload[:2]))
            if kind == PING:
                self.send(PONG, payload)
            elif kind == PONG:
                return kind, payload
            else:
                opcode = kind if kind != CONTINUATION else opcode
                message += payload
                if first & FIN:
                    return opcode, message

    def close(self):
        self.stream.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def chosen_peers(names):
    """The peers of the manifest, or those of them that are named."""
    with open(FOLDER / "peers.toml", "rb") as manifest:
        peers = tomllib.load(manifest)["peer"]
    if unknown := set(names) - {peer["name"] for peer in peers}:
        sys.exit(f"there is no peer {', '.join(sorted(unknown))}: see peers.toml")
    return [peer for peer in peers if not names or peer["name"] in names]


def is_installed(peer):
    return (FOLDER / peer["probe"]).exists()


@contextlib.contextmanager
def running(peer, kind):
    """Starts a peer's server for `kind` ("echo" or "broadcast"); gives the port, and ends the server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [word.replace("{port}", str(port)) for word in peer[kind]]
    program = str(FOLDER / words[0]) if "/" in words[0] else shutil.which(words[0])
    server = subprocess.Popen([program, *words[1:]], cwd=FOLDER, stdout=subprocess.DEVNULL)
    try:
        wait_until_listening(server, port)
        yield port
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_listening(server, port):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode} instead of listening")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
            return
        time.sleep(0.02)
    raise RuntimeError("the server does not listen")
