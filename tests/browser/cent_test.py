"""The HTTP API with cent, the Python client of its server side."""

import asyncio
import base64
import functools
import sys

from cent import (
    AsyncClient, BatchRequest, BroadcastRequest, ChannelsRequest, Client, Disconnect, DisconnectRequest,
    HistoryRemoveRequest, HistoryRequest, InfoRequest, PresenceRequest, PresenceStatsRequest, PublishRequest,
    RefreshRequest, StreamPosition, SubscribeRequest, UnsubscribeRequest,
)
from cent.exceptions import CentApiResponseError, CentUnauthorizedError

from protocol import API_KEY, connected, now, run, subscribed, token

api = None


async def user(server, name, **options):
    client = await connected(server.clients, token=token(sub=name, **options))
    await client.events.take("connecting")
    return client


async def fails(code, awaitable):
    try:
        await awaitable
    except CentApiResponseError as error:
        assert error.code == code, (error.code, error.message)
    else:
        raise AssertionError(f"it did not fail with {code}")


async def test_a_wrong_key_is_unauthorized(server):
    async with AsyncClient(server.api, "wrong") as stranger:
        try:
            await stranger.info(InfoRequest())
        except CentUnauthorizedError:
            return
    raise AssertionError("it was answered")


async def test_the_client_without_asyncio_publishes(server):
    client = Client(server.api, API_KEY)
    publish = PublishRequest(channel="open:sync", data={"a": 1})
    result = await asyncio.to_thread(client.publish, publish)
    assert result.offset == 1 and result.epoch, result


async def test_publish(server):
    sub = await subscribed(await connected(server.clients), "open:publish")
    first = await api.publish(PublishRequest(channel="open:publish", data=1, idempotency_key="once"))
    again = await api.publish(PublishRequest(channel="open:publish", data=1, idempotency_key="once"))
    assert first == again and first.offset == 1, (first, again)
    skipped = await api.publish(PublishRequest(channel="open:publish", data=2, skip_history=True))
    assert skipped.offset == 0, skipped
    await api.publish(PublishRequest(channel="open:publish", data={"ü": [3]}, tags={"a": "b"}))
    heard = [(await sub.events.take("publication")).pub for _ in range(3)]
    assert [one.data for one in heard] == [1, 2, {"ü": [3]}], heard
    assert [one.offset for one in heard] == [1, 0, 2], heard
    kept = await api.history(HistoryRequest(channel="open:publish", limit=10))
    assert kept.publications[-1].tags == {"a": "b"}, kept


async def test_publish_takes_base64(server):
    sub = await subscribed(await connected(server.clients), "open:base64")
    data = base64.b64encode(b'{"four": 4}').decode()
    await api.publish(PublishRequest(channel="open:base64", data=None, b64data=data))
    assert (await sub.events.take("publication")).pub.data == {"four": 4}


async def test_publish_says_what_is_wrong(server):
    await fails(102, api.publish(PublishRequest(channel="unknown:x", data=1)))
    await fails(107, api.publish(PublishRequest(channel="", data=1)))
    await fails(107, api.publish(PublishRequest(channel="open:wrong", data=None, b64data="?")))


async def test_broadcast(server):
    result = await api.broadcast(BroadcastRequest(channels=["open:a", "unknown:x", "open:b"], data=1))
    [a, unknown, b] = result.responses
    assert a.result.offset == b.result.offset == 1, result
    assert (unknown.error.code, unknown.error.message) == (102, "unknown channel"), result


async def test_subscribe_and_unsubscribe(server):
    client = await user(server, "subscribed", info={"name": "Ajax"})
    await api.subscribe(SubscribeRequest(
        user="subscribed", channel="open:subscribe", info={"by": "server"}, data={"welcome": True},
    ))
    how = await client.events.take("subscribed")
    assert (how.channel, how.data) == ("open:subscribe", {"welcome": True}), how
    await api.publish(PublishRequest(channel="open:subscribe", data=1))
    assert (await client.events.take("publication")).pub.data == 1
    [info] = (await api.presence(PresenceRequest(channel="open:subscribe"))).presence.values()
    assert (info.conn_info, info.chan_info) == ({"name": "Ajax"}, {"by": "server"}), info
    await api.unsubscribe(UnsubscribeRequest(user="subscribed", channel="open:subscribe"))
    assert (await client.events.take("unsubscribed")).channel == "open:subscribe"


async def test_subscribe_recovers(server):
    client = await user(server, "recovered")
    first = await api.publish(PublishRequest(channel="open:since", data="known"))
    await api.publish(PublishRequest(channel="open:since", data="missed"))
    since = StreamPosition(offset=first.offset, epoch=first.epoch)
    await api.subscribe(SubscribeRequest(user="recovered", channel="open:since", recover_since=since))
    await client.events.take("subscribed")
    await api.publish(PublishRequest(channel="open:since", data="new"))
    heard = [(await client.events.take("publication")).pub.data for _ in range(2)]
    assert heard == ["missed", "new"], heard


async def test_methods_for_a_user_take_absent_ones(server):
    await api.subscribe(SubscribeRequest(user="nobody", channel="open:x"))
    await api.unsubscribe(UnsubscribeRequest(user="nobody", channel="open:x"))
    await api.disconnect(DisconnectRequest(user="nobody"))
    await api.refresh(RefreshRequest(user="nobody", expired=True))


async def test_disconnect(server):
    kept, one, other = [await user(server, "disconnected") for _ in range(3)]
    await api.disconnect(DisconnectRequest(user="disconnected", client=one.me))
    end = await one.events.take("disconnected")
    assert (end.code, end.reason) == (3503, "force disconnect"), end
    custom = Disconnect(code=4500, reason="for a test")
    await api.disconnect(DisconnectRequest(user="disconnected", whitelist=[kept.me], disconnect=custom))
    end = await other.events.take("disconnected")
    assert (end.code, end.reason) == (4500, "for a test"), end
    await kept.history("open:x", limit=0)
    assert "disconnected" not in kept.events.kept


async def test_refresh(server):
    client = await user(server, "refreshed", exp=now() + 600)
    await api.refresh(RefreshRequest(user="refreshed", expire_at=now() + 1200))
    await client.history("open:x", limit=0)
    await api.refresh(RefreshRequest(user="refreshed", expired=True))
    end = await client.events.take("connecting")
    assert (end.code, end.reason) == (3005, "connection expired"), end


async def test_presence(server):
    ones = [await user(server, name) for name in ("1", "1", "2")]
    for one in ones:
        await subscribed(one, "open:presence")
    presence = (await api.presence(PresenceRequest(channel="open:presence"))).presence
    assert {id: info.user for id, info in presence.items()} == {one.me: name for one, name in zip(ones, "112")}
    stats = await api.presence_stats(PresenceStatsRequest(channel="open:presence"))
    assert (stats.num_clients, stats.num_users) == (3, 2), stats
    await fails(108, api.presence(PresenceRequest(channel="plain")))
    await fails(108, api.presence_stats(PresenceStatsRequest(channel="plain")))


async def test_history(server):
    for number in range(1, 6):
        await api.publish(PublishRequest(channel="open:history", data=number))
    position = await api.history(HistoryRequest(channel="open:history"))
    assert (position.publications, position.offset) == ([], 5), position

    async def read(**options):
        history = await api.history(HistoryRequest(channel="open:history", **options))
        return [one.data for one in history.publications]

    since = StreamPosition(offset=4, epoch=position.epoch)
    assert await read(limit=2) == [1, 2]
    assert await read(limit=-1, since=since) == [5]
    assert await read(limit=2, since=since, reverse=True) == [3, 2]
    wrong = StreamPosition(offset=4, epoch="another")
    await fails(112, api.history(HistoryRequest(channel="open:history", limit=1, since=wrong)))
    await fails(108, api.history(HistoryRequest(channel="plain", limit=1)))


async def test_history_remove(server):
    before = await api.publish(PublishRequest(channel="open:removed", data=1))
    await api.history_remove(HistoryRemoveRequest(channel="open:removed"))
    after = await api.history(HistoryRequest(channel="open:removed", limit=10))
    assert (after.publications, after.offset, after.epoch) == ([], 1, before.epoch), after
    await fails(108, api.history_remove(HistoryRemoveRequest(channel="plain")))


async def test_channels(server):
    for channel in ("open:channels1", "open:channels2", "plain-channel"):
        await subscribed(await connected(server.clients), channel)
    await subscribed(await connected(server.clients), "open:channels1")
    found = (await api.channels(ChannelsRequest(pattern="open:channels*"))).channels
    assert {name: info.num_clients for name, info in found.items()} == {"open:channels1": 2, "open:channels2": 1}
    everything = (await api.channels(ChannelsRequest())).channels
    assert {"open:channels1", "open:channels2", "plain-channel"} == set(everything), everything


async def test_info(server):
    for _ in range(2):
        await subscribed(await user(server, "informed"), "open:info")
    [node] = (await api.info(InfoRequest())).nodes
    assert (node.num_clients, node.num_users, node.num_channels, node.num_subs) == (2, 1, 1, 2), node
    assert node.uid and node.name and node.version, node


async def test_batch(server):
    for parallel in (False, True):
        result = await api.batch(BatchRequest(parallel=parallel, requests=[
            PublishRequest(channel=f"open:batch{parallel}", data=1),
            BroadcastRequest(channels=[f"open:batch{parallel}"], data=2),
            HistoryRequest(channel=f"open:batch{parallel}", limit=10),
        ]))
        [published, broadcast, history] = result.replies
        assert published.offset == 1 and broadcast.responses[0].result.offset == 2, result
        assert [one.data for one in history.publications] == [1, 2], result


def with_api(test):
    @functools.wraps(test)
    async def tested(server):
        global api
        async with AsyncClient(server.api, API_KEY) as api:
            await test(server)

    return tested


if __name__ == "__main__":
    tests = [test for name, test in list(globals().items()) if name.startswith("test_")]
    sys.exit(asyncio.run(run([with_api(test) for test in tests])))
