//! Publications to more subscribers than are served in one turn, with all that comes in between.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use stentor::{Cause, CloseCode, ConnectionId, HandleError, Lost, SlowPolicy, TopicOptions};

use crate::support::{
    App, BINARY, Client, Ctx, PATIENCE, PING, PONG, Running, TEXT, masked, serve,
};

/// A turn serves 512 of them.
const MANY: usize = 1300;

/// Limits are no part of these tests: some clients read at the end.
fn crowd(app: App) -> (Running<App>, Vec<Client>) {
    let server = serve(app, |config| {
        config.limits.outbox_soft = usize::MAX;
        config.limits.outbox_hard = usize::MAX;
    });
    let clients = (0..MANY).map(|_| server.connect()).collect();
    server.wait_until("all are open", |app, _| app.opened.len() == MANY);
    (server, clients)
}

fn subscribe_to_news(ctx: &mut Ctx<'_>) {
    ctx.subscribe("news").unwrap();
}

#[test]
fn everybody_gets_everything_in_order_though_a_walk_takes_several_turns() {
    let (server, mut clients) = crowd(App::default().on_open(subscribe_to_news));
    // Each in a turn of its own; the walks fall behind, and the batches grow.
    for number in 0..20 {
        let text = number.to_string();
        server
            .handle
            .run(move |_, ctx| {
                assert_eq!(ctx.publish("news", &text), MANY);
            })
            .unwrap();
        if number % 4 == 0 {
            server.ask(|_, _| ());
        }
    }
    for client in &mut clients {
        for number in 0..20 {
            assert_eq!(client.hear(), number.to_string());
        }
    }
    let stats = server.ask(|_, ctx| ctx.stats().clone());
    assert_eq!(stats.messages_out, 20 * MANY as u64);
    assert!(
        stats.deliveries < 20 * MANY as u64,
        "several messages leave together"
    );
    assert_eq!(server.ask(|_, ctx| ctx.gauges().output_memory), 0);
}

/// What each client has to hear, as the calls were made.
struct Script {
    ids: Vec<ConnectionId>,
    expected: Vec<Vec<String>>,
    is_subscribed: Vec<bool>,
    is_closed: Vec<bool>,
    number: usize,
    random: u64,
}

impl Script {
    fn below(&mut self, bound: usize) -> usize {
        // The generator of Knuth's MMIX; its high bits are good enough.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % bound
    }

    fn text(&mut self) -> String {
        self.number += 1;
        self.number.to_string()
    }

    /// One call of the application about a client of its choice.
    fn act(&mut self, ctx: &mut Ctx<'_>) {
        let who = self.below(self.ids.len());
        let id = self.ids[who];
        match self.below(12) {
            0..=2 => {
                let text = self.text();
                let count = ctx.publish("news", &text);
                let mut expected = 0;
                for (heard, _) in self
                    .expected
                    .iter_mut()
                    .zip(&self.is_subscribed)
                    .filter(|(_, has)| **has)
                {
                    heard.push(text.clone());
                    expected += 1;
                }
                assert_eq!(count, expected);
            }
            3..=5 => {
                let text = self.text();
                ctx.send_to(id, &text);
                if !self.is_closed[who] {
                    self.expected[who].push(text);
                }
            }
            6..=8 => {
                let was = self.is_subscribed[who];
                assert_eq!(ctx.unsubscribe_connection(id, "news"), was);
                self.is_subscribed[who] = false;
            }
            9..=10 => {
                let answer = ctx.subscribe_connection(id, "news");
                assert_eq!(
                    answer.ok(),
                    (!self.is_closed[who]).then_some(!self.is_subscribed[who])
                );
                self.is_subscribed[who] = !self.is_closed[who];
            }
            _ => {
                let answer = ctx.close_connection(id, CloseCode::NORMAL, "");
                assert_eq!(answer.is_ok(), !self.is_closed[who]);
                (self.is_closed[who], self.is_subscribed[who]) = (true, false);
            }
        }
    }
}

#[test]
fn calls_in_the_middle_of_a_walk_keep_their_order_for_everybody() {
    let (server, mut clients) = crowd(App::default().on_open(subscribe_to_news));
    let script = Arc::new(Mutex::new(Script {
        ids: server.ask(|app, _| app.opened.clone()),
        expected: vec![Vec::new(); MANY],
        is_subscribed: vec![true; MANY],
        is_closed: vec![false; MANY],
        number: 0,
        random: 17,
    }));
    for turn in 0..60_usize {
        let script = Arc::clone(&script);
        server
            .handle
            .run(move |_, ctx| {
                let mut script = script.lock().unwrap();
                for _ in 0..8 {
                    script.act(ctx);
                }
            })
            .unwrap();
        if turn % 7 == 0 {
            // Pings are answered whatever is on its way.
            clients[turn * 5].frame(PING, b"ping");
        }
        if turn % 3 == 0 {
            server.ask(|_, _| ());
        }
    }
    let ids = server.ask(|app, _| app.opened.clone());
    server.ask(move |_, ctx| {
        for id in ids {
            let _ = ctx.close_connection(id, CloseCode::new(4000), "");
        }
    });
    let script = script.lock().unwrap();
    for (who, client) in clients.iter_mut().enumerate() {
        let mut heard = Vec::new();
        loop {
            match client.read_frame() {
                (TEXT, text) => heard.push(String::from_utf8(text).unwrap()),
                (PONG, payload) => assert_eq!(payload, b"ping"),
                (_, payload) => {
                    let code = u16::from_be_bytes(*payload.first_chunk().unwrap());
                    assert_eq!(code, if script.is_closed[who] { 1000 } else { 4000 });
                    break;
                }
            }
        }
        assert_eq!(heard, script.expected[who], "{who}");
    }
}

#[test]
fn connections_that_come_and_go_during_a_walk_get_what_is_theirs() {
    let (server, mut clients) = crowd(App::default().on_open(subscribe_to_news));
    let mut number = 0;
    for round in 0..12 {
        for _ in 0..3 {
            number += 1;
            let text = number.to_string();
            server.handle.publish("news", &text).unwrap();
        }
        // Some go, one way or the other, and others take their places in the slab.
        for index in 0..20 {
            let client = clients.swap_remove((round * 37 + index * 11) % clients.len());
            if index % 2 == 0 {
                client.reset();
            }
        }
        for _ in 0..20 {
            clients.push(server.connect());
        }
    }
    server.ask(|_, ctx| {
        ctx.publish("news", "end");
    });
    for client in &mut clients {
        // Whoever came late has begun somewhere, and has all from there on.
        let mut next = None;
        loop {
            let text = client.hear();
            if text == "end" {
                assert!(next.is_none() || next == Some(number + 1));
                break;
            }
            let heard: usize = text.parse().unwrap();
            assert_eq!(heard, next.unwrap_or(heard));
            next = Some(heard + 1);
        }
        client.hears_nothing_more();
    }
}

/// Half a batch at a time: after a few of them a publisher has to wait.
const LARGE: usize = 512 << 10;

#[test]
fn a_publisher_that_is_held_up_goes_on_and_loses_nothing() {
    const MESSAGES: usize = 24;
    // Few large ones are enough to pause a walk: it offers at most 4 MiB in a turn.
    const READERS: usize = 24;
    let app = App::default().on_message(|ctx, _| {
        let number = ctx.stats().published as u32;
        let mut payload = vec![0; LARGE];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        assert_eq!(ctx.publish("news", &payload), READERS);
        ctx.send("published");
    });
    let server = serve(app, |config| {
        config.limits.outbox_soft = usize::MAX;
        config.limits.outbox_hard = usize::MAX;
    });
    let mut readers: Vec<Client> = (0..READERS).map(|_| server.connect()).collect();
    server.ask(|app, ctx| {
        for &id in &app.opened {
            ctx.subscribe_connection(id, "news").unwrap();
        }
    });
    let mut publisher = server.connect();
    publisher.send(&masked(TEXT, b"go").repeat(MESSAGES));
    std::thread::scope(|scope| {
        for reader in &mut readers {
            scope.spawn(move || {
                for number in 0..MESSAGES as u32 {
                    let (first, payload) = reader.read_frame();
                    assert_eq!((first, payload.len()), (BINARY, LARGE));
                    assert_eq!(payload[..4], number.to_be_bytes());
                }
            });
        }
    });
    for _ in 0..MESSAGES {
        assert_eq!(publisher.hear(), "published");
    }
    let stats = server.ask(|_, ctx| ctx.stats().clone());
    assert!(stats.throttled > 0, "{stats:?}");
    assert_eq!(
        (stats.published, stats.lost),
        (MESSAGES as u64, Lost::default())
    );
    // It is read from again as always.
    publisher.say("once more");
    assert_eq!(publisher.hear(), "published");
}

#[test]
fn what_a_thread_publishes_faster_than_it_is_served_waits_its_turn() {
    const MESSAGES: usize = 40;
    const READERS: usize = 24;
    let server = serve(App::default().on_open(subscribe_to_news), |config| {
        config.limits.outbox_soft = usize::MAX;
        config.limits.outbox_hard = usize::MAX;
        config.limits.max_commands = 8;
    });
    let mut readers: Vec<Client> = (0..READERS).map(|_| server.connect()).collect();
    let handle = server.handle.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            for number in 0..MESSAGES as u32 {
                let mut payload = vec![0; LARGE];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                while handle.publish("news", &payload) == Err(HandleError::Full) {
                    assert!(Instant::now() < deadline);
                    std::thread::yield_now();
                }
            }
        });
        for reader in &mut readers {
            scope.spawn(move || {
                for number in 0..MESSAGES as u32 {
                    let (first, payload) = reader.read_frame();
                    assert_eq!((first, payload.len()), (BINARY, LARGE));
                    assert_eq!(payload[..4], number.to_be_bytes());
                }
            });
        }
    });
    server.wait_until("nothing waits", |_, ctx| ctx.gauges().output_memory == 0);
}

#[test]
fn a_shutdown_in_the_middle_of_a_walk_comes_behind_what_was_published() {
    let (server, mut clients) = crowd(App::default().on_open(subscribe_to_news));
    server.handle.publish("news", "one").unwrap();
    server.handle.publish("news", "two").unwrap();
    server
        .handle
        .run(|_, ctx| {
            ctx.publish("news", "three");
            ctx.shut_down();
        })
        .unwrap();
    for client in &mut clients {
        let expected = ["one", "two", "three"].map(String::from).to_vec();
        assert_eq!(client.hear_all(), (expected, 1001));
    }
    drop(clients);
    let app = server.finish();
    assert_eq!(app.ended.len(), MANY);
    assert!(app.ended.iter().all(|ended| ended.cause == Cause::Shutdown));
}

#[test]
fn policies_hold_when_a_walk_is_interrupted_by_sends() {
    // Nobody reads slowly here: nothing may be dropped, whatever is sent out of turn.
    let server = serve(App::default(), |config| {
        let options = TopicOptions {
            slow: SlowPolicy::Latest,
            max_queued: Some(1 << 10),
            ..TopicOptions::default()
        };
        config.topics.insert("state", options).unwrap();
    });
    let mut clients: Vec<Client> = (0..MANY).map(|_| server.connect()).collect();
    server.wait_until("all are open", |app, _| app.opened.len() == MANY);
    server.ask(|app, ctx| {
        for &id in &app.opened {
            ctx.subscribe_connection(id, "state:a").unwrap();
        }
    });
    for number in 0..6 {
        server
            .handle
            .run(move |app, ctx| {
                ctx.publish("state:a", &format!("state {number}"));
                for id in app.opened.iter().step_by(2) {
                    ctx.send_to(*id, &format!("direct {number}"));
                }
            })
            .unwrap();
    }
    for (index, client) in clients.iter_mut().enumerate() {
        for number in 0..6 {
            assert_eq!(client.hear(), format!("state {number}"));
            if index % 2 == 0 {
                assert_eq!(client.hear(), format!("direct {number}"));
            }
        }
    }
    assert_eq!(server.ask(|_, ctx| ctx.stats().lost), Lost::default());
}
