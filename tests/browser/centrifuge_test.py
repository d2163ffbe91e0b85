"""The server with centrifuge-python, the Python client of the protocol, in JSON and in Protobuf; numbered as in checks.js."""

import asyncio
import sys
import uuid

from centrifuge import ReplyError

from protocol import Network, connected, now, run, subscribed, token, within


async def fails(code, awaitable):
    try:
        await awaitable
    except ReplyError as error:
        assert error.code == code, error
    else:
        raise AssertionError(f"it did not fail with {code}")


async def publications(sub, count):
    return [(await sub.events.take("publication")).pub for _ in range(count)]


async def test_1_an_anonymous_client_connects(server):
    client = await connected(server.clients)
    assert uuid.UUID(client.me).version == 4
    subprotocol = "centrifuge-protobuf" if client._use_protobuf else None
    assert client._conn.subprotocol == subprotocol


async def test_3_a_token_with_a_bad_signature_is_the_end(server):
    client = await connected(server.clients)
    await client.disconnect()
    await client.events.take("disconnected")
    client.set_token(token(sub="42") + "A")
    await client.connect()
    end = await client.events.take("disconnected")
    assert (end.code, end.reason) == (3500, "invalid token"), end


async def test_4_an_expired_token_is_replaced(server):
    asked = []

    async def get_token():
        asked.append(1)
        return token(sub="42", exp=now() + 600)

    await connected(server.clients, token=token(sub="42", exp=now() - 10), get_token=get_token)
    assert len(asked) == 1, asked


async def test_37_a_token_is_refreshed_and_the_client_stays(server):
    asked = 0
    third = asyncio.Event()

    async def get_token():
        nonlocal asked
        asked += 1
        if asked == 3:
            third.set()
        return token(sub="42", exp=now() + 2)

    client = await connected(server.clients, get_token=get_token)
    await client.events.take("connecting")
    await within(third.wait(), "the third token")
    await client.history("open:any", limit=0)
    assert client.events.kept["connecting"].empty(), "it never had to come again"


async def test_16_two_subscribers_hear_a_publication_as_it_is(server):
    subs = [await subscribed(await connected(server.clients), "open:py16") for _ in range(2)]
    values = [{"a": [1, "ü", None, {"b": 0.5}]}, "text", 7, True, [], {}, *range(100)]
    for value in values:
        await subs[0].publish(value)
    for sub in subs:
        heard = await publications(sub, len(values))
        assert [one.data for one in heard] == values
        assert [one.offset for one in heard] == list(range(1, len(values) + 1))


async def test_19_a_channel_that_is_not_allowed_is_unsubscribed(server):
    client = await connected(server.clients)
    sub = client.new_subscription("shut:py", events=(events := type(client.events)()))
    await sub.subscribe()
    end = await events.take("unsubscribed")
    assert (end.code, end.reason) == (103, "permission denied"), end


async def test_20_a_token_of_a_channel_opens_it(server):
    client = await connected(server.clients, token=token(sub="42"))
    sub = await subscribed(client, "shut:py20", token=token(sub="42", channel="shut:py20", data={"welcome": True}))
    assert sub.how.data == {"welcome": True}, sub.how


async def test_24_a_publisher_is_known_to_who_hears_it(server):
    client = await connected(server.clients, token=token(sub="42", info={"name": "Stentor"}))
    await fails(103, client.publish("shut:py", 1))
    sub = await subscribed(client, "open:py24")
    await sub.publish({"said": "so"})
    [heard] = await publications(sub, 1)
    assert heard.data == {"said": "so"}
    assert (heard.info.user, heard.info.client, heard.info.conn_info) == ("42", client.me, {"name": "Stentor"})


async def test_25_what_was_missed_comes_afterwards(server):
    publisher = await connected(server.clients)
    async with Network(server) as network:
        sub = await subscribed(await connected(network.clients), "open:py25")
        assert sub.how.recoverable and not sub.how.was_recovering, sub.how
        await publisher.publish("open:py25", 0)
        await publications(sub, 1)
        await sub.events.take("subscribing")
        for start in range(1, 31, 3):
            network.down()
            await sub.events.take("subscribing")
            for number in range(start, start + 3):
                await publisher.publish("open:py25", number)
            network.up()
            again = await sub.events.take("subscribed")
            assert again.was_recovering and again.recovered, again
            heard = await publications(sub, 3)
            assert [one.data for one in heard] == list(range(start, start + 3)), heard


async def test_31_a_history_is_read_page_by_page(server):
    client = await connected(server.clients)
    for number in range(1, 6):
        await client.publish("open:py31", number)
    position = await client.history("open:py31", limit=0)
    assert (position.publications, position.offset) == ([], 5), position
    page = await client.history("open:py31", limit=2, reverse=True)
    assert [one.data for one in page.publications] == [5, 4], page


async def test_33_presence_tells_who_is_there(server):
    ones = [await connected(server.clients, token=token(sub=user, info={"name": user})) for user in ("1", "1", "2")]
    subs = [await subscribed(one, "open:py33") for one in ones]
    presence = await subs[0].presence()
    found = {(id, info.user, info.conn_info["name"]) for id, info in presence.clients.items()}
    assert found == {(one.me, user, user) for one, user in zip(ones, "112")}, found
    stats = await subs[0].presence_stats()
    assert (stats.num_clients, stats.num_users) == (3, 2), stats


async def test_34_who_comes_and_who_leaves_is_told(server):
    watcher = await connected(server.clients)
    watching = await subscribed(watcher, "open:py34")
    assert (await watching.events.take("join")).info.client == watcher.me
    visitor = await connected(server.clients)
    sub = await subscribed(visitor, "open:py34")
    assert (await watching.events.take("join")).info.client == visitor.me
    await sub.unsubscribe()
    assert (await watching.events.take("leave")).info.client == visitor.me


async def test_38_the_channels_of_a_token_are_subscribed_to_and_recovered(server):
    publisher = await connected(server.clients)
    async with Network(server) as network:
        client = await connected(network.clients, token=token(sub="42", channels=["open:py38"]))
        await client.events.take("connecting")
        assert (await client.events.take("subscribed")).channel == "open:py38"
        network.down()
        await client.events.take("connecting")
        await publisher.publish("open:py38", "missed")
        network.up()
        again = await client.events.take("subscribed")
        assert again.was_recovering and again.recovered, again
        assert (await client.events.take("publication")).pub.data == "missed"


async def test_44_a_call_is_not_available(server):
    client = await connected(server.clients)
    await fails(108, client.rpc("method", {}))


if __name__ == "__main__":
    tests = [test for name, test in list(globals().items()) if name.startswith("test_")]
    failures = [asyncio.run(run(tests, protobuf)) for protobuf in (False, True)]
    sys.exit(any(failures))
