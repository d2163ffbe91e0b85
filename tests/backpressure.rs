//! Peers that read too slowly, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use stentor::{Cause, Message, Sent};

use crate::support::{App, Client, Ctx, PATIENCE, serve};

/// What a callback sends at a time where it counts how much goes.
const KIB: [u8; 1024] = [b'x'; 1024];

/// More than the kernel buffers for one connection: it ends every loop that should have ended
/// before.
const FAR_TOO_MUCH: usize = 64 << 20;

#[test]
fn a_subscriber_that_never_reads_is_closed_and_the_others_get_everything() {
    let app = App::default().on_open(subscribe_to_news);
    let server = serve(app, |config| {
        (config.limits.outbox_soft, config.limits.outbox_hard) = (16 << 10, 64 << 10);
        config.timeouts.close = Duration::from_millis(50);
    });
    let _stuck = Client::with_small_buffer(server.address);
    let mut reader = server.connect();
    let stuck = server.ask(|app, _| app.opened[0]);
    let deadline = Instant::now() + PATIENCE;
    let mut published = 0_usize;
    while server.ask(|app, _| app.ended.is_empty()) {
        assert!(Instant::now() < deadline, "{published} messages");
        let mut payload = vec![b'x'; 16 << 10];
        payload[..8].copy_from_slice(&published.to_be_bytes());
        let reached = {
            let payload = payload.clone();
            server.ask(move |_, ctx| ctx.publish("news", &payload))
        };
        assert!(reached == 1 || reached == 2);
        assert!(reader.read_frame() == (0x82, payload));
        published += 1;
    }
    let ended = &server.ended(1)[0];
    assert_eq!(
        (ended.id, ended.code, ended.cause),
        (stuck, 1013, Cause::SlowConsumer)
    );
    let stats = server.ask(|_, ctx| ctx.stats().clone());
    assert_eq!(stats.closed(Cause::SlowConsumer), 1);
    assert_eq!(stats.dropped_slow, 1);
    reader.hears_nothing_more();
}

fn subscribe_to_news(ctx: &mut Ctx<'_>) {
    ctx.subscribe("news").unwrap();
}

#[test]
fn who_was_too_slow_finds_everything_that_was_queued_and_then_1013() {
    let app = App::default().on_open(subscribe_to_news);
    let server = serve(app, |config| {
        (config.limits.outbox_soft, config.limits.outbox_hard) = (16 << 10, 64 << 10);
        config.timeouts.close = PATIENCE;
        config.timeouts.write = PATIENCE;
    });
    let mut slow = Client::with_small_buffer(server.address);
    let mut published = 0_u32;
    let deadline = Instant::now() + PATIENCE;
    while server.ask(move |_, ctx| {
        let mut payload = vec![b'x'; 16 << 10];
        payload[..4].copy_from_slice(&published.to_be_bytes());
        ctx.stats().dropped_slow == 0 && ctx.publish("news", &payload) == 1
    }) {
        assert!(Instant::now() < deadline, "{published} messages");
        published += 1;
    }
    // The last one was too much.
    for index in 0..published - 1 {
        let (first, payload) = slow.read_frame();
        assert_eq!((first, &payload[..4]), (0x82, &index.to_be_bytes()[..]));
    }
    assert_eq!(slow.read_close(), 1013);
    slow.frame(0x88, &1013_u16.to_be_bytes());
    let ended = &server.ended(1)[0];
    assert_eq!((ended.code, ended.cause), (1013, Cause::SlowConsumer));
}

#[test]
fn a_callback_that_sends_while_it_may_is_told_to_stop() {
    let app = App::default().on_message(|ctx, _| {
        let mut sent = 0;
        while ctx.send(&KIB) == Sent::Sent {
            sent += KIB.len();
            assert!(sent < FAR_TOO_MUCH, "no backpressure");
        }
        assert!(ctx.queued() > 256 << 10);
    });
    let server = serve(app, |_| ());
    let _stuck = {
        let mut client = Client::with_small_buffer(server.address);
        client.say("go");
        client
    };
    server.wait_until("the callback has returned", |app, _| app.messages == 1);
}

#[test]
fn a_callback_that_sends_to_a_lost_connection_is_told_to_stop() {
    let (arrive, arrived) = channel();
    let (reset, is_reset) = channel();
    let app = App::default().on_message(move |ctx, _| {
        arrive.send(()).unwrap();
        is_reset.recv_timeout(PATIENCE).unwrap();
        let mut sent = 0;
        while ctx.send(&KIB) != Sent::Dropped {
            sent += KIB.len();
            assert!(sent < FAR_TOO_MUCH, "everything goes on its way to nowhere");
        }
    });
    let server = serve(app, |config| {
        // Not the limit is what stops it.
        config.limits.outbox_hard = FAR_TOO_MUCH;
    });
    let mut client = server.connect();
    client.say("go");
    arrived.recv_timeout(PATIENCE).unwrap();
    client.reset();
    reset.send(()).unwrap();
    let ended = &server.ended(1)[0];
    assert_eq!((ended.code, ended.cause), (1006, Cause::ConnectionLost));
}

#[test]
fn a_stream_that_heeds_backpressure_goes_through_whole_and_in_order() {
    const CHUNKS: u32 = 16 << 10; // 16 MiB.
    let next = Arc::new(AtomicU32::new(0));
    let go_on = move |ctx: &mut Ctx<'_>| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let mut chunk = KIB;
            chunk[..4].copy_from_slice(&index.to_be_bytes());
            if index >= CHUNKS || ctx.send(&chunk) != Sent::Sent {
                break;
            }
        }
    };
    let begin = go_on.clone();
    let app = App::default()
        .on_message(move |ctx, _| begin(ctx))
        .on_drain(go_on);
    let server = serve(app, |_| ());
    let mut client = Client::with_small_buffer(server.address);
    client.say("go");
    for index in 0..CHUNKS {
        let (first, payload) = client.read_frame();
        assert_eq!((first, &payload[..4]), (0x82, &index.to_be_bytes()[..]));
    }
    client.hears_nothing_more();
    assert!(server.ask(|app, _| !app.drained.is_empty()));
}

#[test]
fn a_burst_in_one_callback_does_not_make_a_reader_slow() {
    let app = App::default().on_open(subscribe_to_news);
    let server = serve(app, |config| {
        (config.limits.outbox_soft, config.limits.outbox_hard) = (4 << 10, 8 << 10);
    });
    let (mut clients, [id]) = server.connect_many::<1>();
    // None of it has been offered to the socket before the callback is over, unless the limit asks
    // for it; the socket takes it all.
    let answers = server.ask(move |_, ctx| {
        (0..64)
            .map(|index| match index % 4 {
                3 => {
                    ctx.publish("news", &KIB);
                    Sent::Sent
                }
                _ => ctx.send_to(id, &KIB),
            })
            .collect::<Vec<Sent>>()
    });
    assert!(
        answers.iter().all(|&sent| sent == Sent::Sent),
        "{answers:?}"
    );
    for _ in 0..64 {
        assert_eq!(clients[0].read_frame(), (0x82, KIB.to_vec()));
    }
    clients[0].hears_nothing_more();
    assert!(server.ask(|app, _| app.drained.is_empty()));
}

#[test]
fn sends_to_a_peer_that_never_reads_are_answered_with_backpressure_and_then_dropped() {
    let server = serve(App::default(), |_| ());
    let _stuck = Client::with_small_buffer(server.address);
    let (soft, hard, stats) = server.ask(|app, ctx| {
        let id = app.opened[0];
        let mut until = |answer| {
            let mut sent = 0;
            while ctx.send_to(id, &KIB) != answer {
                sent += KIB.len();
                assert!(sent < FAR_TOO_MUCH);
            }
            ctx.queued_of(id)
        };
        let (soft, hard) = (until(Sent::Backpressure), until(Sent::Dropped));
        assert_eq!(ctx.send_to(id, "once more"), Sent::Dropped);
        (soft, hard, ctx.stats().clone())
    });
    let frame = KIB.len() + 4;
    assert!(
        (256 << 10..(256 << 10) + 64 * frame).contains(&soft),
        "{soft}"
    );
    // With the Close frame behind it.
    assert!((1 << 20..=(1 << 20) + 2 * frame).contains(&hard), "{hard}");
    assert_eq!((stats.dropped_slow, stats.dropped_closed), (1, 1));
}

#[test]
fn drain_comes_when_the_peer_has_taken_enough_and_only_then() {
    let app = App::default().on_drain(|ctx| {
        assert!(ctx.queued() <= 256 << 10);
        ctx.send("drained");
    });
    let server = serve(app, |_| ());
    let mut client = Client::with_small_buffer(server.address);
    let sent = server.ask(|app, ctx| {
        let id = app.opened[0];
        let mut sent = 1;
        while ctx.send_to(id, &KIB) == Sent::Sent {
            sent += 1;
        }
        sent
    });
    assert!(server.ask(|app, _| app.drained.is_empty()));
    let mut heard = 0;
    while client.read_frame().0 == 0x82 {
        heard += 1;
    }
    // The text that ended the loop is `drained`; nothing was lost before or behind it.
    assert_eq!(heard, sent);
    client.hears_nothing_more();
    assert_eq!(server.ask(|app, _| app.drained.len()), 1);
}

#[test]
fn reading_pauses_while_the_peer_does_not_take_the_answers_and_then_goes_on() {
    const MESSAGES: usize = 1024;
    const ANSWER: usize = 64 << 10;
    let app = App::default().on_message(|ctx, _| {
        ctx.send(&vec![b'x'; ANSWER]);
    });
    let server = serve(app, |_| ());
    let mut client = Client::with_small_buffer(server.address);
    client.send(&crate::support::masked(0x81, b"more!").repeat(MESSAGES));
    server.wait_until("the peer is behind", |app, ctx| {
        ctx.queued_of(app.opened[0]) > 256 << 10
    });
    // All are there, but only those are handled whose answers found room: in the sockets, which
    // take a few MiB, and in the outbox.
    let handled = server.ask(|app, _| app.messages);
    assert!(handled < MESSAGES / 4, "{handled} messages");
    for _ in 0..MESSAGES {
        let (first, payload) = client.read_frame();
        assert_eq!((first, payload.len()), (0x82, ANSWER));
    }
    client.hears_nothing_more();
    assert_eq!(server.ask(|app, _| app.messages), MESSAGES);
}

#[test]
fn a_peer_that_pings_and_never_reads_costs_one_pong() {
    let server = serve(App::default(), |config| {
        config.timeouts.write = PATIENCE;
        config.limits.max_pings = u32::MAX;
    });
    let mut client = Client::with_small_buffer(server.address);
    let ping = |index: u32| {
        let mut payload = [b'p'; 125];
        payload[..4].copy_from_slice(&index.to_be_bytes());
        payload
    };
    let mut sent = 0;
    let deadline = Instant::now() + PATIENCE;
    while server.ask(|_, ctx| ctx.stats().pongs_coalesced < 10_000) {
        assert!(Instant::now() < deadline, "{sent} pings");
        let mut bytes = Vec::new();
        for _ in 0..1000 {
            bytes.extend(crate::support::masked(0x89, &ping(sent)));
            sent += 1;
        }
        client.send(&bytes);
    }
    // What one read pass had answered before the socket was full, and nothing since.
    let queued = server.ask(|app, ctx| ctx.queued_of(app.opened[0]));
    assert!(0 < queued && queued <= 128 << 10, "{queued}");
    let mut last = None;
    while last != Some(sent - 1) {
        let (first, payload) = client.read_frame();
        let index = u32::from_be_bytes(payload[..4].try_into().unwrap());
        assert_eq!((first, &payload[..]), (0x8A, &ping(index)[..]));
        assert!(last < Some(index), "in order");
        last = Some(index);
    }
    client.hears_nothing_more();
}

#[test]
fn a_message_larger_than_the_hard_limit_goes_through_when_nothing_else_waits() {
    const LEN: usize = 5 << 20;
    let app = App::default()
        .on_open(subscribe_to_news)
        .on_message(|ctx, how| {
            let message = vec![b'x'; LEN];
            if how == "publish" {
                assert_eq!(ctx.publish("news", &message), 1);
                return;
            }
            let sent = match how {
                "send" => ctx.send(&message),
                _ => ctx.send_to(ctx.id(), Message::binary(&message)),
            };
            assert_ne!(sent, Sent::Dropped);
        });
    let server = serve(app, |_| ());
    let mut client = Client::with_small_buffer(server.address);
    for how in ["send", "send to", "publish"] {
        client.say(how);
        let (first, payload) = client.read_frame();
        assert_eq!((first, payload.len()), (0x82, LEN), "{how}");
        client.hears_nothing_more();
    }
    assert!(server.ask(|app, _| app.ended.is_empty()));
}

#[test]
fn a_peer_that_takes_nothing_for_too_long_is_dropped() {
    let app = App::default().on_open(subscribe_to_news);
    let server = serve(app, |config| {
        config.timeouts.write = Duration::from_millis(100);
        config.limits.outbox_hard = FAR_TOO_MUCH;
    });
    let _stuck = Client::with_small_buffer(server.address);
    server.ask(|_, ctx| ctx.publish("news", &vec![b'x'; 16 << 20]));
    let ended = &server.ended(1)[0];
    assert_eq!((ended.code, ended.cause), (1006, Cause::WriteTimeout));
    assert_eq!(server.ask(|_, ctx| ctx.connection_count()), 0);
}
