//! What a subscriber gets that does not read for a while: what the policy of each topic says.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use stentor::{
    Cause, Config, ConnectionId, Context, Lost, PublishOptions, SlowPolicy, Stats, TopicOptions,
};

use crate::support::{App, Client, PATIENCE, PING, PONG, Running, TEXT, serve};

/// A few of them fill the socket of a client that does not read.
const LEN: usize = 16 << 10;

/// Many that may wait, and few enough that a test has soon published more.
const MARK: usize = 12 * LEN;

/// More than any socket takes: a loop that publishes until something is lost ends before.
const FAR_TOO_MANY: usize = 4096;

fn set(config: &mut Config, namespace: &str, slow: SlowPolicy, max_queued: usize) {
    let options = TopicOptions {
        slow,
        max_queued: Some(max_queued),
        ..TopicOptions::default()
    };
    config.topics.insert(namespace, options).unwrap();
}

/// A number among all that are published, and padding.
fn numbered(topic: &str, number: usize) -> String {
    format!("{number} {topic} {}", "x".repeat(LEN))
}

/// Its number and topic.
fn parse(text: &str) -> (usize, String) {
    let mut parts = text.split(' ');
    let number = parts.next().unwrap().parse().unwrap();
    (number, parts.next().unwrap().to_owned())
}

/// A server with a client that does not read and one that does, with the same subscriptions.
struct Stall {
    server: Running<App>,
    slow: Client,
    slow_id: ConnectionId,
    good: Client,
    /// The topics of what was published, by number.
    published: Vec<String>,
}

impl Stall {
    fn new(subscriptions: &[&str], configure: impl FnOnce(&mut Config)) -> Self {
        let server = serve(App::default(), |config| {
            // Only the policies are to end anything.
            config.timeouts.write = PATIENCE;
            config.timeouts.lag = PATIENCE;
            configure(config);
        });
        let slow = Client::with_small_buffer(server.address);
        let good = server.connect();
        server.wait_until("both are open", |app, _| app.opened.len() == 2);
        let subscriptions: Vec<String> = subscriptions.iter().map(|&name| name.into()).collect();
        let slow_id = server.ask(move |app, ctx| {
            for name in &subscriptions {
                for &id in &app.opened {
                    ctx.subscribe_connection(id, name).unwrap();
                }
            }
            app.opened[0]
        });
        Self {
            server,
            slow,
            slow_id,
            good,
            published: Vec::new(),
        }
    }

    /// Publishes one message to each topic in one turn; the good client gets them.
    fn publish(&mut self, topics: &[&str]) {
        let first = self.published.len();
        self.published
            .extend(topics.iter().map(|&topic| topic.to_owned()));
        let topics = self.published[first..].to_vec();
        let expected: Vec<String> = topics
            .iter()
            .enumerate()
            .map(|(index, topic)| numbered(topic, first + index))
            .collect();
        let texts = expected.clone();
        self.server.ask(move |_, ctx| {
            for (topic, text) in topics.iter().zip(&texts) {
                ctx.publish(topic, text);
            }
        });
        for text in expected {
            assert_eq!(self.good.hear(), text);
        }
    }

    /// Publishes in turn after turn until `is_enough` is lost.
    fn publish_until(&mut self, topics: &[&str], is_enough: impl Fn(Lost) -> bool) {
        while !is_enough(self.stats().lost) {
            assert!(self.published.len() < FAR_TOO_MANY, "{:?}", self.stats());
            self.publish(topics);
        }
    }

    /// Sends to the slow client until so much waits for it.
    fn plug(&self, queued: usize) {
        let slow = self.slow_id;
        let part = format!("plug {}", "x".repeat(LEN));
        for _ in 0..FAR_TOO_MANY {
            let part = part.clone();
            let waits = self.server.ask(move |_, ctx| {
                let waits = ctx.queued_of(slow);
                if waits < queued {
                    ctx.send_to(slow, &part);
                }
                waits
            });
            if waits >= queued {
                return;
            }
        }
        panic!("the socket takes all of it");
    }

    /// What the slow client reads up to an end mark that is sent to it now, without the plug.
    fn hear_to_the_end(&mut self) -> Vec<String> {
        let slow = self.slow_id;
        self.server.ask(move |_, ctx| ctx.send_to(slow, "end"));
        let texts = std::iter::repeat_with(|| self.slow.hear());
        let texts = texts.take_while(|text| text != "end");
        texts.filter(|text| !text.starts_with("plug ")).collect()
    }

    fn stats(&self) -> Stats {
        self.server.ask(|_, ctx| ctx.stats().clone())
    }

    /// The slow client reads so many messages.
    fn catch_up(&mut self, count: usize) -> Vec<(usize, String)> {
        (0..count).map(|_| parse(&self.slow.hear())).collect()
    }

    /// Nothing waits, nothing more comes, and the application was told of all that was lost.
    fn settle(&mut self) {
        self.slow.hears_nothing_more();
        self.good.hears_nothing_more();
        self.server.wait_until("no memory is taken", |_, ctx| {
            ctx.gauges().output_memory == 0 && ctx.gauges().queued == 0
        });
        let slow = self.slow_id;
        self.server.ask(move |app, ctx| {
            let mut told = Lost::default();
            for &(id, lost) in &app.lost {
                assert!(id == slow && lost.total() > 0, "{id}: {lost:?}");
                told += lost;
            }
            assert_eq!(told, ctx.stats().lost);
            assert!(app.ended.is_empty());
        });
    }

    /// What is left of the messages that were published.
    fn expected(&self) -> usize {
        self.published.len() - usize::try_from(self.stats().lost.total()).unwrap()
    }
}

fn numbers(heard: &[(usize, String)]) -> Vec<usize> {
    heard.iter().map(|(number, _)| *number).collect()
}

#[test]
fn drop_newest_gives_the_first_ones_and_after_a_pause_the_newer_ones() {
    let mut stall = Stall::new(&["first:a"], |config| {
        set(config, "first", SlowPolicy::DropNewest, MARK);
    });
    let mut arrive = Vec::new();
    // One in each turn, so that it is known of each whether it was dropped.
    while stall.stats().lost.newest < 20 {
        let before = stall.stats().lost.newest;
        stall.publish(&["first:a"]);
        if stall.stats().lost.newest == before {
            arrive.push(stall.published.len() - 1);
        }
        assert!(stall.published.len() < FAR_TOO_MANY);
    }
    let lost = stall.stats().lost;
    assert_eq!(lost.newest, lost.total());
    let heard = stall.catch_up(arrive.len());
    assert_eq!(numbers(&heard), arrive);
    stall.settle();
    let next = stall.published.len();
    for _ in 0..4 {
        stall.publish(&["first:a"]);
    }
    assert_eq!(
        numbers(&stall.catch_up(4)),
        (next..next + 4).collect::<Vec<_>>()
    );
    stall.settle();
}

#[test]
fn drop_oldest_gives_the_newest_ones() {
    let mut stall = Stall::new(&["last:a"], |config| {
        set(config, "last", SlowPolicy::DropOldest, MARK);
    });
    stall.publish_until(&["last:a"], |lost| lost.oldest >= 30);
    let (stats, count) = (stall.stats(), stall.expected());
    assert_eq!(stats.lost.oldest, stats.lost.total());
    let heard = numbers(&stall.catch_up(count));
    assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
    // What waits is the newest: as many as have room, with what they cost.
    let all = stall.published.len();
    let newest = MARK / (LEN + 100) - 1;
    assert_eq!(
        heard[heard.len() - newest..],
        (all - newest..all).collect::<Vec<_>>()
    );
    stall.settle();
}

#[test]
fn latest_gives_the_last_message_of_each_topic() {
    let topics = ["state:a", "state:b", "state:c"];
    let mut stall = Stall::new(&topics, |config| {
        set(config, "state", SlowPolicy::Latest, MARK);
    });
    stall.publish_until(&topics, |lost| lost.conflated >= 60);
    let (stats, count) = (stall.stats(), stall.expected());
    assert_eq!(stats.lost.conflated, stats.lost.total());
    let heard = stall.catch_up(count);
    let heard_numbers = numbers(&heard);
    assert!(heard_numbers.is_sorted_by(|one, next| one < next));
    let all = stall.published.len();
    assert_eq!(heard_numbers[count - 3..], [all - 3, all - 2, all - 1]);
    for (number, topic) in heard {
        assert_eq!(stall.published[number], topic);
    }
    // All that had not begun to leave was replaced: at least what was lost stood in between.
    assert!(heard_numbers[count - 3] - heard_numbers[count - 4] > 30);
    stall.settle();
}

#[test]
fn the_latest_message_takes_the_place_of_a_shorter_one_where_no_room_is_left() {
    let mut stall = Stall::new(&["state:a"], |config| {
        set(config, "state", SlowPolicy::Latest, MARK);
    });
    stall.plug(MARK / 4);
    stall.server.ask(|_, ctx| ctx.publish("state:a", "short"));
    assert_eq!(stall.good.hear(), "short");
    stall.plug(MARK / 2);
    // It may wait, but not together with what waits already.
    let long = "y".repeat(MARK / 4 * 3);
    let text = long.clone();
    stall
        .server
        .ask(move |_, ctx| ctx.publish("state:a", &text));
    assert!(stall.good.hear() == long);
    let lost = stall.stats().lost;
    assert_eq!((lost.conflated, lost.newest, lost.total()), (1, 0, 1));
    let heard = stall.hear_to_the_end();
    assert!(heard == [long], "{} texts", heard.len());
    stall.settle();
}

#[test]
fn namespaces_with_different_policies_share_a_connection() {
    let topics = ["first:a", "last:a", "state:a", "last:b", "state:b"];
    let mut stall = Stall::new(&topics, |config| {
        set(config, "first", SlowPolicy::DropNewest, MARK / 2);
        set(config, "last", SlowPolicy::DropOldest, MARK);
        set(config, "state", SlowPolicy::Latest, 2 * MARK);
    });
    stall.publish_until(&topics, |lost| {
        lost.newest >= 20 && lost.oldest >= 20 && lost.conflated >= 20
    });
    let (stats, count) = (stall.stats(), stall.expected());
    let heard = stall.catch_up(count);
    let heard_numbers = numbers(&heard);
    assert!(heard_numbers.is_sorted_by(|one, next| one < next));
    let missing = |namespace: &str| {
        let all = stall.published.iter().enumerate();
        let gone = all.filter(|(number, _)| heard_numbers.binary_search(number).is_err());
        gone.filter(|(_, topic)| topic.starts_with(namespace))
            .count() as u64
    };
    assert_eq!(missing("first"), stats.lost.newest);
    assert_eq!(missing("last"), stats.lost.oldest);
    assert_eq!(missing("state"), stats.lost.conflated);
    // The last of each state, and the newest of `last`, are there.
    let all = stall.published.len();
    assert_eq!(
        heard_numbers[count - 4..],
        [all - 4, all - 3, all - 2, all - 1]
    );
    stall.settle();
}

#[test]
fn disconnect_in_a_turn_with_other_policies_closes_behind_what_waits() {
    let mut stall = Stall::new(&["strict:a", "first:a"], |config| {
        set(config, "first", SlowPolicy::DropNewest, MARK);
        config.limits.outbox_soft = MARK;
        config.limits.outbox_hard = 2 * MARK;
    });
    // Both are in each turn; what is strict goes on when nothing of the other has room.
    let mut closed_at = 0;
    while stall.stats().dropped_slow == 0 {
        closed_at = stall.published.len();
        stall.publish(&["strict:a", "first:a"]);
        assert!(stall.published.len() < FAR_TOO_MANY);
    }
    let (texts, code) = stall.slow.hear_all();
    assert_eq!(code, 1013);
    let heard: Vec<(usize, String)> = texts.iter().map(|text| parse(text)).collect();
    assert!(numbers(&heard).is_sorted_by(|one, next| one < next));
    // Of what is strict all came that was published before.
    let strict = heard.iter().filter(|(_, topic)| topic == "strict:a");
    let strict: Vec<usize> = strict.map(|(number, _)| *number).collect();
    assert_eq!(strict, (0..closed_at).step_by(2).collect::<Vec<_>>());
    stall.slow.frame(0x88, &1013_u16.to_be_bytes());
    let ended = &stall.server.ended(1)[0];
    assert_eq!((ended.code, ended.cause), (1013, Cause::SlowConsumer));
    stall.server.wait_until("no memory is taken", |_, ctx| {
        ctx.gauges().output_memory == 0
    });
}

#[test]
fn one_message_over_the_limit_disconnects_nobody_in_whatever_company_it_comes() {
    let mut stall = Stall::new(&["strict:a", "first:a"], |config| {
        set(config, "first", SlowPolicy::DropNewest, MARK);
    });
    // More than the limits, and all at once: nothing waited before.
    let large = "y".repeat(8 << 20);
    let (text, slow) = (large.clone(), stall.slow_id);
    stall.server.ask(move |app, ctx| {
        ctx.unsubscribe_connection(app.opened[1], "strict:a");
        ctx.unsubscribe_connection(app.opened[1], "first:a");
        ctx.publish("strict:a", &text);
        ctx.publish("first:a", "small");
        assert_eq!(ctx.queued_of(slow), 0, "the turn is not over");
    });
    stall.server.ask(move |_, ctx| {
        assert!(ctx.queued_of(slow) > 1 << 20);
        ctx.publish("first:a", "once more");
    });
    assert!(stall.slow.hear() == large);
    assert_eq!(stall.stats().lost.newest, 2);
    stall.settle();
}

#[test]
fn a_message_that_can_never_wait_pushes_nothing_out() {
    for policy in [SlowPolicy::DropOldest, SlowPolicy::Latest] {
        let mut stall = Stall::new(&["topic:a"], |config| set(config, "topic", policy, MARK));
        stall.publish_until(&["topic:a"], |lost| lost.total() > 5);
        let (before, last) = (stall.stats().lost, stall.published.len() - 1);
        stall.server.ask(|app, ctx| {
            ctx.unsubscribe_connection(app.opened[1], "topic:a");
            ctx.publish("topic:a", &"y".repeat(MARK));
        });
        let lost = stall.stats().lost;
        assert_eq!((lost.newest, lost.total()), (1, before.total() + 1));
        let count = stall.expected() + 1;
        assert_eq!(stall.catch_up(count)[count - 1].0, last, "{policy:?}");
        stall.settle();
    }
}

#[test]
fn direct_sends_and_pongs_have_room_while_messages_are_dropped() {
    let mut stall = Stall::new(&["last:a"], |config| {
        set(config, "last", SlowPolicy::DropOldest, MARK);
    });
    let slow = stall.slow_id;
    let direct = |stall: &Stall, text: &'static str| {
        stall.server.ask(move |_, ctx| {
            ctx.send_to(slow, text);
        });
    };
    stall.publish_until(&["last:a"], |lost| lost.oldest >= 5);
    direct(&stall, "direct 1");
    stall.slow.frame(PING, b"1");
    stall.slow.frame(PING, b"2");
    stall.publish_until(&["last:a"], |lost| lost.oldest >= 30);
    direct(&stall, "direct 2");
    let mut texts = Vec::new();
    let payload = loop {
        match stall.slow.read_frame() {
            (TEXT, text) => texts.push(String::from_utf8(text).unwrap()),
            (PONG, payload) => break payload,
            frame => panic!("{frame:?}"),
        }
    };
    assert_eq!(payload, b"2", "only the last Ping is answered");
    let place = |text: &str| {
        texts
            .iter()
            .position(|heard| heard == text)
            .expect("it came")
    };
    assert!(place("direct 1") < place("direct 2"));
    assert_eq!(
        place("direct 2"),
        texts.len() - 1,
        "in the order of sending"
    );
    // All that was published before the first one and was waiting then has been dropped since.
    assert!(parse(&texts[place("direct 1") + 1]).0 > parse(&texts[place("direct 1") - 1]).0 + 5);
    assert_eq!(texts.len() - 2, stall.expected());
    stall.settle();
}

#[test]
fn the_policy_is_that_of_the_topic_however_one_is_subscribed() {
    let mut stall = Stall::new(&["last:news.*", "first:>"], |config| {
        set(config, "last", SlowPolicy::DropOldest, MARK);
        set(config, "first", SlowPolicy::DropNewest, MARK / 2);
    });
    let topics = ["last:news.a", "last:news.b", "first:x"];
    stall.publish_until(&topics[..2], |lost| lost.oldest >= 20);
    let lost = stall.stats().lost;
    assert_eq!(lost.oldest, lost.total());
    let count = stall.expected();
    let heard = numbers(&stall.catch_up(count));
    let all = stall.published.len();
    assert_eq!(heard[count - 4..], [all - 4, all - 3, all - 2, all - 1]);
    stall.settle();
}

#[test]
fn a_stalled_reader_that_goes_away_leaves_nothing_behind() {
    for how in ["reset", "end", "close"] {
        let mut stall = Stall::new(&["last:a", "state:a"], |config| {
            set(config, "last", SlowPolicy::DropOldest, MARK);
            set(config, "state", SlowPolicy::Latest, 2 * MARK);
            config.timeouts.close = Duration::from_millis(50);
        });
        stall.publish_until(&["last:a", "state:a"], |lost| lost.oldest >= 10);
        let Stall {
            server,
            slow,
            slow_id,
            mut good,
            ..
        } = stall;
        match how {
            "reset" => slow.reset(),
            "end" => drop(slow),
            _ => server
                .ask(move |_, ctx| ctx.close_connection(slow_id, stentor::CloseCode::NORMAL, ""))
                .unwrap(),
        }
        if how == "close" {
            // It never reads, so it goes when the peer has taken nothing for too long.
            server.ask(|_, ctx| assert_eq!(ctx.subscriber_count("last:a"), 1));
            continue;
        }
        let ended = &server.ended(1)[0];
        assert_eq!((ended.id, ended.code), (slow_id, 1006), "{how}");
        server.wait_until("no memory is taken", |_, ctx| {
            let gauges = ctx.gauges();
            (gauges.output_memory, gauges.queued, gauges.connections) == (0, 0, 1)
        });
        server.ask(|app, ctx| {
            assert!(!app.lost.is_empty(), "the application is told all the same");
            assert_eq!(ctx.publish("last:a", "on it goes"), 1);
        });
        assert_eq!(good.hear(), "on it goes");
    }
}

#[test]
fn what_waited_for_a_connection_that_is_lost_counts_for_nobody_else() {
    let server = serve(App::default(), |config| {
        config.timeouts.write = PATIENCE;
        config.limits.outbox_hard = usize::MAX;
        config.limits.max_output = 20 << 20;
    });
    let lost = Client::with_small_buffer(server.address);
    let mut stays = Client::with_small_buffer(server.address);
    server.ask(|app, ctx| {
        ctx.send_to(app.opened[0], &vec![0; 18 << 20]);
    });
    let before = server.ask(|_, ctx| ctx.gauges().output_memory);
    assert!((10 << 20..20 << 20).contains(&before), "{before}");
    // In one turn the loop sends to the one and hears of the end of the other.
    let stands_still = server.stand_still();
    lost.reset();
    server
        .handle
        .run(|app, ctx| {
            ctx.send_to(app.opened[1], &vec![1; 12 << 20]);
        })
        .unwrap();
    drop(stands_still);
    assert_eq!(server.ended(1)[0].cause, Cause::ConnectionLost);
    assert_eq!(stays.read_frame().1.len(), 12 << 20);
    stays.hears_nothing_more();
    server.ask(|_, ctx| {
        assert_eq!((ctx.stats().evicted, ctx.gauges().output_memory), (0, 0));
    });
}

#[test]
fn what_has_waited_for_too_long_is_dropped() {
    let mut stall = Stall::new(&["first:a"], |config| {
        let options = TopicOptions {
            slow: SlowPolicy::DropNewest,
            max_queued: Some(MARK),
            max_age: Some(Duration::from_millis(100)),
            ..TopicOptions::default()
        };
        config.topics.insert("first", options).unwrap();
        // Ticks of 20 ms.
        config.timeouts.close = Duration::from_millis(80);
    });
    let slow = stall.slow_id;
    while stall.server.ask(move |_, ctx| ctx.queued_of(slow)) < MARK / 2 {
        stall.publish(&["first:a"]);
    }
    // All that wait and have not begun get too old at some time, and what is new has room then.
    let deadline = Instant::now() + PATIENCE;
    while stall.stats().lost.expired < 20 {
        assert!(Instant::now() < deadline, "{:?}", stall.stats().lost);
        stall.publish(&["first:a"]);
    }
    let lost = stall.stats().lost;
    assert_eq!(lost.total(), lost.expired + lost.newest);
    // Those that wait now may have become too old when the client reads.
    let mut heard = Vec::new();
    stall.slow.frame(PING, b"end");
    loop {
        match stall.slow.read_frame() {
            (TEXT, text) => heard.push(parse(&String::from_utf8(text).unwrap()).0),
            (PONG, _) => break,
            frame => panic!("{frame:?}"),
        }
    }
    assert!(heard.is_sorted_by(|one, next| one < next));
    assert_eq!(heard.len(), stall.expected());
    stall.settle();
}

#[test]
fn nothing_gets_too_old_where_nothing_may_be_dropped() {
    let mut stall = Stall::new(&["strict:a", "last:a"], |config| {
        let strict = TopicOptions {
            max_age: Some(Duration::from_millis(100)),
            ..TopicOptions::default()
        };
        let last = TopicOptions {
            slow: SlowPolicy::DropOldest,
            ..strict.clone()
        };
        config.topics.insert("strict", strict).unwrap();
        config.topics.insert("last", last).unwrap();
        // Ticks of 20 ms.
        config.timeouts.close = Duration::from_millis(80);
    });
    stall.server.ask(|app, ctx| {
        for topic in ["strict:a", "last:a"] {
            ctx.unsubscribe_connection(app.opened[1], topic);
        }
    });
    stall.plug(LEN);
    // Both in each batch, until those that are as old as the first ones were dropped.
    let mut published = 0;
    let deadline = Instant::now() + PATIENCE;
    while stall.stats().lost.expired < 2 {
        assert!(Instant::now() < deadline, "{:?}", stall.stats().lost);
        stall.server.ask(move |_, ctx| {
            ctx.publish("strict:a", &format!("strict {published}"));
            ctx.publish("last:a", &format!("last {published}"));
        });
        published += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut heard = stall.hear_to_the_end();
    heard.retain(|text| text.starts_with("strict "));
    let all: Vec<String> = (0..published).map(|n| format!("strict {n}")).collect();
    assert_eq!(heard, all);
    stall.settle();
}

#[test]
fn a_burst_with_sends_in_between_drops_nothing_for_who_reads() {
    for slow in [
        SlowPolicy::DropNewest,
        SlowPolicy::DropOldest,
        SlowPolicy::Latest,
    ] {
        let server = serve(App::default(), |config| set(config, "topic", slow, 2 << 10));
        let (mut clients, [id]) = server.connect_many::<1>();
        server.ask(move |_, ctx| {
            ctx.subscribe_connection(id, "topic:a").unwrap();
            for round in 0..32 {
                ctx.publish("topic:a", &format!("{round} {}", "x".repeat(1000)));
                ctx.send_to(id, "direct");
            }
        });
        for round in 0..32 {
            let text = clients[0].hear();
            assert!(
                text.starts_with(&format!("{round} ")),
                "{slow:?}: {round}, not {text:.5}"
            );
            assert_eq!(clients[0].hear(), "direct");
        }
        server.ask(|app, ctx| {
            assert_eq!(ctx.stats().lost, Lost::default());
            assert!(app.lost.is_empty());
        });
    }
}

// ---- the model ----

#[derive(Clone, Debug)]
enum Step {
    /// A turn with messages: topic and length.
    Publish(Vec<(usize, usize)>),
    Send(usize),
    /// The client reads so many frames, if there are any.
    Read(usize),
    Ping,
}

const TOPICS: [&str; 5] = ["first:a", "last:a", "last:b", "state:a", "state:b"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = || prop_oneof![3 => 0..200_usize, 2 => 1000..30_000_usize];
    let step = prop_oneof![
        12 => prop::collection::vec((0..TOPICS.len(), len()), 1..24).prop_map(Step::Publish),
        2 => len().prop_map(Step::Send),
        3 => (1..60_usize).prop_map(Step::Read),
        1 => Just(Step::Ping),
    ];
    prop::collection::vec(step, 40..120)
}

/// A server and a client that reads when it is told to.
struct Trial {
    server: Running<App>,
    client: Client,
    id: ConnectionId,
    /// The topics of what was sent, by number; "direct" of what was not published.
    sent: Vec<&'static str>,
    heard: Vec<usize>,
}

impl Trial {
    /// The socket is full from the beginning on.
    fn new() -> Self {
        let server = serve(App::default(), |config| {
            set(config, "first", SlowPolicy::DropNewest, MARK / 4);
            set(config, "last", SlowPolicy::DropOldest, MARK / 2);
            set(config, "state", SlowPolicy::Latest, MARK);
            config.limits.outbox_hard = usize::MAX;
        });
        let client = Client::with_small_buffer(server.address);
        let id = server.ask(|app, ctx| {
            for topic in TOPICS {
                ctx.subscribe_connection(app.opened[0], topic).unwrap();
            }
            ctx.send_to(app.opened[0], &"plug".repeat(1 << 20));
            app.opened[0]
        });
        Self {
            server,
            client,
            id,
            sent: Vec::new(),
            heard: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        let (id, first) = (self.id, self.sent.len());
        match step {
            Step::Publish(messages) => {
                self.sent
                    .extend(messages.iter().map(|&(topic, _)| TOPICS[topic]));
                self.server.ask(move |_, ctx| {
                    for (index, (topic, len)) in messages.into_iter().enumerate() {
                        let text = format!("{} {}", first + index, "x".repeat(len));
                        ctx.publish(TOPICS[topic], &text);
                    }
                });
            }
            Step::Send(len) => {
                self.sent.push("direct");
                let text = format!("{first} {}", "x".repeat(len));
                self.server.ask(move |_, ctx| ctx.send_to(id, &text));
            }
            Step::Read(count) => {
                for _ in 0..count {
                    if self.server.ask(move |_, ctx| ctx.queued_of(id)) == 0 {
                        break;
                    }
                    self.read();
                }
            }
            Step::Ping => self.client.frame(PING, b"ping"),
        }
    }

    /// Reads one frame; answers whether it was the last.
    fn read(&mut self) -> bool {
        match self.client.read_frame() {
            (TEXT, text) => {
                let text = String::from_utf8(text).unwrap();
                self.heard
                    .extend(text.split(' ').next().unwrap().parse::<usize>().ok());
                text == "end"
            }
            (PONG, _) => false,
            frame => panic!("{frame:?}"),
        }
    }

    /// Reads all that is left and answers how many are missing, by namespace.
    fn finish(&mut self) -> HashMap<&'static str, u64> {
        let id = self.id;
        self.server.ask(move |_, ctx| ctx.send_to(id, "end"));
        while !self.read() {}
        let mut missing = HashMap::new();
        for (number, topic) in self.sent.iter().enumerate() {
            if self.heard.binary_search(&number).is_err() {
                *missing.entry(topic.split(':').next().unwrap()).or_default() += 1;
            }
        }
        missing
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_does_not_arrive_is_counted_and_the_rest_is_in_order(steps in steps()) {
        let mut trial = Trial::new();
        for step in steps {
            trial.step(step);
        }
        let missing = trial.finish();
        prop_assert!(trial.heard.is_sorted_by(|one, next| one < next));
        prop_assert_eq!(missing.get("direct"), None);
        let Trial { server, .. } = &trial;
        server.wait_until("all is told and no memory is taken", |app, ctx| {
            let told: u64 = app.lost.iter().map(|(_, lost)| lost.total()).sum();
            ctx.gauges().output_memory == 0 && told == ctx.stats().lost.total()
        });
        let lost = server.ask(|_, ctx| ctx.stats().lost);
        prop_assert_eq!(missing.values().sum::<u64>(), lost.total());
        prop_assert_eq!(server.ask(|app, _| app.ended.len()), 0);
    }
}

#[test]
fn rules_can_change_while_the_server_runs() {
    let server = serve(App::default(), |config| {
        config
            .topics
            .insert("news", TopicOptions::default())
            .unwrap();
    });
    server.ask(|_, ctx| {
        let publish = |ctx: &mut Context<'_, _>, topic: &str| {
            let published = ctx.publish_with(topic, "text", &PublishOptions::new());
            published.unwrap().position.map(|position| position.offset)
        };
        assert_eq!(publish(ctx, "news:1"), None);
        let kept = TopicOptions {
            history_size: 10,
            history_ttl: Duration::from_mins(1),
            ..TopicOptions::default()
        };
        assert!(ctx.set_options("news", kept.clone()));
        assert!(!ctx.set_options("sport", kept.clone()));
        assert_eq!(ctx.options_of("news:1"), &kept);
        assert_eq!(
            (publish(ctx, "news:1"), publish(ctx, "other")),
            (Some(1), None)
        );
        assert!(ctx.set_options("", kept));
        assert_eq!(publish(ctx, "other"), Some(1));
    });
}
