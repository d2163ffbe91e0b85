//! Subscriptions to patterns, beside those to topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use stentor::topic::TopicError;
use stentor::{ConnectionId, PublishError, PublishOptions, SubscribeError, TopicOptions};

use crate::support::{App, Ctx, serve};

#[test]
fn who_has_a_topic_in_several_ways_gets_one_copy() {
    let app = App::default()
        .on_open(|ctx| {
            for name in ["news.sport", "news.*", "news.>", "*.sport"] {
                assert_eq!(ctx.subscribe(name), Ok(true));
                assert_eq!(ctx.subscribe(name), Ok(false));
            }
        })
        .on_message(|ctx, text| {
            // Subscriptions are counted, not connections.
            assert_eq!(ctx.publish("news.sport", text), 8);
            assert_eq!(ctx.publish("news.sport.chess", "chess"), 2);
            assert_eq!(ctx.publish("mail.sport", "mail"), 2);
            assert_eq!(ctx.publish("news", "too short"), 0);
            assert_eq!(ctx.publish("sport", "too short"), 0);
        });
    let server = serve(app, |_| ());
    let (mut clients, _) = server.connect_many::<2>();
    clients[0].say("hello");
    for client in &mut clients {
        assert_eq!([(); 3].map(|()| client.hear()), ["hello", "chess", "mail"]);
        client.hears_nothing_more();
    }
    server.ask(|_, ctx| {
        let gauges = ctx.gauges();
        assert_eq!(
            (gauges.topics, gauges.patterns, gauges.subscriptions),
            (1, 3, 8)
        );
        assert_eq!(ctx.stats().deliveries, 2, "one send for each connection");
    });
}

#[test]
fn a_topic_that_only_patterns_match_reaches_their_subscribers() {
    let app = App::default().on_open(|ctx| assert_eq!(ctx.subscribe("a.*.c"), Ok(true)));
    let server = serve(app, |_| ());
    let mut client = server.connect();
    server.ask(|_, ctx| {
        assert_eq!(ctx.publish("a.b.c", "one"), 1);
        assert_eq!(ctx.publish("a..c", "two"), 1);
        assert_eq!(ctx.publish("a.b.d", "no"), 0);
        assert_eq!(ctx.publish("a.b.c.d", "no"), 0);
        assert_eq!(ctx.topic_count(), 0, "no topic comes of it");
    });
    server.handle.publish("a.x.c", "three").unwrap();
    assert_eq!([(); 3].map(|()| client.hear()), ["one", "two", "three"]);
    client.hears_nothing_more();
}

#[test]
fn patterns_that_come_and_go_between_publications_of_a_turn() {
    let app = App::default().on_message(|ctx, _| {
        let mut number = 0;
        let mut publish = |ctx: &mut Ctx<'_>| {
            number += 1;
            ctx.publish("a.b", &number.to_string());
        };
        publish(ctx);
        ctx.subscribe("a.*").unwrap();
        publish(ctx);
        ctx.subscribe("a.b").unwrap();
        publish(ctx);
        assert!(ctx.unsubscribe("a.*"));
        publish(ctx);
        assert!(ctx.unsubscribe("a.b"));
        publish(ctx);
        // Another pattern, and another topic, under the numbers of those before.
        ctx.subscribe("*.b").unwrap();
        ctx.subscribe("c").unwrap();
        publish(ctx);
        ctx.publish("c", "c");
        ctx.publish("a.c", "never");
        assert!(ctx.unsubscribe("*.b"));
        publish(ctx);
        ctx.send("end");
    });
    let server = serve(app, |_| ());
    let (mut clients, [_, other]) = server.connect_many::<2>();
    for round in 0..3 {
        // With and without somebody who holds the topic, or a pattern, all the time.
        server.ask(move |_, ctx| match round {
            0 => {}
            1 => assert_eq!(ctx.subscribe_connection(other, "a.b"), Ok(true)),
            _ => {
                assert!(ctx.unsubscribe_connection(other, "a.b"));
                assert_eq!(ctx.subscribe_connection(other, "a.>"), Ok(true));
            }
        });
        clients[0].say("go");
        let heard = [(); 6].map(|()| clients[0].hear());
        assert_eq!(heard, ["2", "3", "4", "6", "c", "end"]);
        clients[0].hears_nothing_more();
        let mut expected: Vec<String> = (1..=7).map(|number| number.to_string()).collect();
        match round {
            0 => expected.clear(),
            1 => {}
            _ => expected.insert(6, "never".into()),
        }
        for text in expected {
            assert_eq!(clients[1].hear(), text);
        }
        clients[1].hears_nothing_more();
        server.ask(|app, ctx| assert!(ctx.unsubscribe_connection(app.opened[0], "c")));
    }
}

#[test]
fn nobody_publishes_to_a_pattern_or_to_no_name() {
    // With and without anything that could make a publication to nobody matter.
    for (has_pattern, has_history) in [(false, false), (true, false), (false, true)] {
        let server = serve(App::default(), |config| {
            if has_history {
                let options = TopicOptions {
                    history_size: 10,
                    history_ttl: std::time::Duration::from_mins(1),
                    ..TopicOptions::default()
                };
                config.topics.insert("kept", options).unwrap();
            }
        });
        let (mut clients, [id]) = server.connect_many::<1>();
        server.ask(move |_, ctx| {
            if has_pattern {
                ctx.subscribe_connection(id, "a.*").unwrap();
            }
            let mut answer = |name: &str| {
                let options = PublishOptions::new();
                assert_eq!(ctx.publish(name, "x"), 0);
                ctx.publish_with(name, "x", &options)
                    .map(|published| published.subscribers)
            };
            for pattern in ["a.*", "a.>", "*.b", "*", ">", "b.*"] {
                assert_eq!(answer(pattern), Err(PublishError::Pattern), "{pattern}");
            }
            for name in ["", "a\0b", "a\n", &"x".repeat(256)] {
                assert_eq!(answer(name), Err(PublishError::BadName), "{name:?}");
            }
            for name in ["a*", "b>c", "kept:1", &"x".repeat(255)] {
                assert_eq!(answer(name), Ok(0), "{name}");
            }
        });
        server.handle.publish("a.*", "x").unwrap();
        server.handle.publish("", "x").unwrap();
        assert_eq!(server.ask(|_, ctx| ctx.stats().misnamed), 2);
        clients[0].hears_nothing_more();
    }
}

#[test]
fn a_pattern_must_be_one_and_there_are_not_too_many() {
    let server = serve(App::default(), |config| config.limits.max_patterns = 2);
    let (_clients, [id]) = server.connect_many::<1>();
    server.ask(move |_, ctx| {
        let mut subscribe = |name: &str| ctx.subscribe_connection(id, name);
        assert_eq!(subscribe("a.*"), Ok(true));
        assert_eq!(subscribe("b.*"), Ok(true));
        assert_eq!(subscribe("b.*"), Ok(false));
        assert!(matches!(subscribe("c.*"), Err(SubscribeError::Topic(_))));
        assert_eq!(subscribe("a.b"), Ok(true));
        assert_eq!(
            subscribe(""),
            Err(SubscribeError::Topic(TopicError::EmptyName))
        );
        assert!(ctx.unsubscribe_connection(id, "a.*"));
        assert_eq!(ctx.subscribe_connection(id, "c.*"), Ok(true));
    });
}

#[test]
fn the_publisher_is_left_out_however_it_is_subscribed() {
    let app = App::default().on_message(|ctx, how| {
        let names: &[&str] = match how {
            "topic" => &["a.b"],
            "pattern" => &["a.*"],
            "both" => &["a.b", "a.*", "a.>"],
            _ => &[],
        };
        for name in names {
            assert_eq!(ctx.subscribe(name), Ok(true));
        }
        assert_eq!(ctx.publish_to_others("a.b", how), 2);
        assert_eq!(ctx.publish_to_others("a.c", how), 1);
        for name in names {
            assert!(ctx.unsubscribe(name));
        }
    });
    let server = serve(app, |_| ());
    let (mut clients, [_, topic, pattern]) = server.connect_many::<3>();
    server.ask(move |_, ctx| {
        ctx.subscribe_connection(topic, "a.b").unwrap();
        ctx.subscribe_connection(pattern, "a.>").unwrap();
    });
    for how in ["topic", "pattern", "both", "neither"] {
        clients[0].say(how);
        clients[0].hears_nothing_more();
        assert_eq!(clients[1].hear(), how);
        assert_eq!([clients[2].hear(), clients[2].hear()], [how, how]);
    }
    clients[1].hears_nothing_more();
    clients[2].hears_nothing_more();
}

// ---- the model ----

const CLIENTS: usize = 3;
const TOPICS: [&str; 5] = ["a", "a.b", "a.b.c", "b.b", "a."];
const NAMES: [&str; 10] = [
    "a", "a.b", "a.b.c", "b.b", "a.*", "a.>", "*.b", "a.*.c", "a.b.>", "*.b.*",
];

/// By the words of the documentation.
fn matches(name: &str, topic: &str) -> bool {
    let (mut levels, mut name) = (topic.split('.'), name.split('.'));
    loop {
        match (name.next(), levels.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Publish(usize),
    PublishToOthers(usize),
    Send(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..CLIENTS, 0..NAMES.len()).prop_map(|(who, name)| Step::Subscribe(who, name)),
        3 => (0..CLIENTS, 0..NAMES.len()).prop_map(|(who, name)| Step::Unsubscribe(who, name)),
        6 => (0..TOPICS.len()).prop_map(Step::Publish),
        3 => (0..TOPICS.len()).prop_map(Step::PublishToOthers),
        2 => (0..CLIENTS).prop_map(Step::Send),
    ];
    prop::collection::vec(step, 0..24)
}

/// Runs the steps in a callback of client 0.
fn act(ctx: &mut Ctx<'_>, ids: &[ConnectionId], steps: &[Step], number: &mut usize) {
    for step in steps {
        *number += 1;
        let text = number.to_string();
        match *step {
            Step::Subscribe(who, name) => {
                ctx.subscribe_connection(ids[who], NAMES[name]).unwrap();
            }
            Step::Unsubscribe(who, name) => {
                ctx.unsubscribe_connection(ids[who], NAMES[name]);
            }
            Step::Publish(topic) => {
                ctx.publish(TOPICS[topic], &text);
            }
            Step::PublishToOthers(topic) => {
                ctx.publish_to_others(TOPICS[topic], &text);
            }
            Step::Send(who) => {
                ctx.send_to(ids[who], &text);
            }
        }
    }
}

/// What each client hears, and has at the end.
fn model(turns: &[Vec<Step>]) -> [Vec<String>; CLIENTS] {
    let mut heard: [Vec<String>; CLIENTS] = Default::default();
    let mut names: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (number, step) in turns.iter().flatten().enumerate() {
        let text = (number + 1).to_string();
        match *step {
            Step::Subscribe(who, name) => {
                names.entry(who).or_default().insert(name);
            }
            Step::Unsubscribe(who, name) => {
                names.entry(who).or_default().remove(&name);
            }
            Step::Publish(topic) | Step::PublishToOthers(topic) => {
                let to_all = matches!(step, Step::Publish(_));
                for (&who, names) in &names {
                    let has = names
                        .iter()
                        .any(|&name| matches(NAMES[name], TOPICS[topic]));
                    if has && (to_all || who != 0) {
                        heard[who].push(text.clone());
                    }
                }
            }
            Step::Send(who) => heard[who].push(text),
        }
    }
    heard
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_client_gets_what_its_topics_and_patterns_match(
        turns in prop::collection::vec(steps(), 1..5)
    ) {
        let script = Arc::new(Mutex::new((turns.clone().into_iter(), Vec::new(), 0)));
        let app = {
            let script = Arc::clone(&script);
            App::default().on_message(move |ctx, _| {
                let (turns, ids, number) = &mut *script.lock().unwrap();
                act(ctx, ids, &turns.next().unwrap(), number);
            })
        };
        let server = serve(app, |_| ());
        let (mut clients, ids) = server.connect_many::<CLIENTS>();
        script.lock().unwrap().1 = ids.to_vec();
        for turn in 0..turns.len() {
            clients[0].say("go");
            server.wait_until("the turn is over", move |app, _| app.messages > turn);
        }
        for (client, heard) in clients.iter_mut().zip(model(&turns)) {
            for text in heard {
                prop_assert_eq!(client.hear(), text);
            }
            client.hears_nothing_more();
        }
    }
}
