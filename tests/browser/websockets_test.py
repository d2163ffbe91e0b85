"""`stentor echo` with websockets, the client of the Python world."""

import asyncio
import os
import signal
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 20


async def start():
    """Starts the program and reads where it listens."""
    process = await asyncio.create_subprocess_exec(
        os.environ["STENTOR"], "echo", "--listen", "127.0.0.1:0",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )
    line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
    return process, line.split()[-1]


async def messages_of_every_length_class_come_back(url):
    async with connect(url, max_size=None, compression=None) as client:
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000]:
            text = "ü" * (length // 2) + "x" * (length % 2)
            for message in (text, bytes([length % 251]) * length):
                await client.send(message)
                assert await client.recv() == message, length


async def compression_that_is_offered_may_be_declined(url):
    async with connect(url) as client:
        await client.send("plain or not")
        assert await client.recv() == "plain or not"


async def sixteen_mebibytes_come_back(url):
    async with connect(url, max_size=None, compression=None) as client:
        message = b"stentor!" * (2 << 20)
        await client.send(message)
        assert await client.recv() == message


async def fragments_come_back_as_one_message(url):
    async with connect(url) as client:
        await client.send(f"part {number} " for number in range(100))
        assert await client.recv() == "".join(f"part {number} " for number in range(100))


async def a_ping_is_answered(url):
    async with connect(url) as client:
        await (await client.ping(b"payload"))


async def codes_of_a_close_are_echoed(url):
    async with connect(url) as client:
        await client.close(4000, "private")
        assert (client.close_code, client.close_reason) == (4000, ""), client.close_reason


async def a_message_above_the_limit_is_closed_with_1009(url):
    # Not `async with`: to close a connection that ended while it was being written to fails in asyncio.
    client = await connect(url, compression=None)
    try:
        await client.send(bytes((16 << 20) + 1))
        await client.recv()
    except ConnectionClosed as closed:
        assert closed.rcvd is not None and closed.rcvd.code == 1009, closed
    else:
        raise AssertionError("it was echoed")


async def main():
    process, url = await start()
    tests = [
        messages_of_every_length_class_come_back,
        compression_that_is_offered_may_be_declined,
        sixteen_mebibytes_come_back,
        fragments_come_back_as_one_message,
        a_ping_is_answered,
        codes_of_a_close_are_echoed,
        a_message_above_the_limit_is_closed_with_1009,
    ]
    failed = 0
    try:
        for test in tests:
            try:
                await asyncio.wait_for(test(url), PATIENCE)
                print(f"ok      {test.__name__}")
            except Exception as error:
                failed += 1
                print(f"FAILED  {test.__name__}: {error!r}")
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), PATIENCE)
        if code != 0:
            failed += 1
            print(f"FAILED  the server ended with {code}")
    finally:
        if process.returncode is None:
            process.kill()
    print(f"{len(tests) - failed} passed, {failed} failed")
    return failed > 0


sys.exit(asyncio.run(main()))
