//! What clients that come back get of what they missed, over raw sockets and beside a model.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use stentor::broadcast::{ChannelOptions, RecoveryMode, Rules};

use crate::clients::{Peer, Served, data_of, kept, rules, serve};

/// Ten publications are kept, or one where only the newest counts.
fn channels() -> Rules {
    let cache = ChannelOptions {
        recovery_mode: RecoveryMode::Cache,
        ..kept()
    };
    let auto = ChannelOptions {
        auto_cache_recover: true,
        ..cache.clone()
    };
    let mut many = kept();
    many.topic.history_size = 1000;
    rules(&[
        ("h", kept()),
        ("cache", cache),
        ("auto", auto),
        ("many", many),
    ])
}

fn publish(server: &Served, channel: &str, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        server.publish(channel, &number.to_string());
    }
}

fn recover(peer: &mut Peer, channel: &str, offset: u64, epoch: &Value) -> Value {
    let request = json!({"channel": channel, "recover": true, "offset": offset, "epoch": epoch});
    peer.result("subscribe", &request)
}

#[test]
fn check_25_26_and_28_what_was_missed_comes_with_the_offset_that_was_asked_for() {
    let server = serve(channels());
    let mut peer = server.connect();
    let first = peer.subscribe("h:a");
    let epoch = first["epoch"].clone();
    assert_eq!(epoch.as_str().unwrap().len(), 8);
    assert_eq!(
        first,
        json!({"recoverable": true, "positioned": true, "epoch": epoch})
    );
    publish(&server, "h:a", 1..=2);
    assert_eq!(
        (
            peer.hear()["push"]["pub"]["offset"].as_u64(),
            peer.hear()["push"]["pub"]["offset"].as_u64()
        ),
        (Some(1), Some(2))
    );
    peer.socket.reset();
    publish(&server, "h:a", 3..=5);
    let mut peer = server.connect();
    let back = recover(&mut peer, "h:a", 2, &epoch);
    assert_eq!(
        (&back["recovered"], &back["was_recovering"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(back["offset"], 2);
    assert_eq!(
        data_of(&back["publications"]),
        [json!(3), json!(4), json!(5)]
    );
    peer.result("unsubscribe", &json!({"channel": "h:a"}));
    let nothing = recover(&mut peer, "h:a", 5, &epoch);
    assert_eq!(
        nothing,
        json!({
            "recoverable": true, "positioned": true, "epoch": epoch, "offset": 5,
            "recovered": true, "was_recovering": true
        })
    );
}

#[test]
fn check_27_what_cannot_be_had_in_full_does_not_come_at_all() {
    let server = serve(channels());
    let mut peer = server.connect();
    let epoch = peer.result("history", &json!({"channel": "h:a"}))["epoch"].clone();
    publish(&server, "h:a", 1..=15);
    publish(&server, "many:a", 1..=301);
    let many = peer.result("history", &json!({"channel": "many:a"}))["epoch"].clone();
    let other = json!("wrong");
    for (channel, offset, epoch, is_recovered) in [
        ("h:a", 10, &other, false),
        ("h:a", 4, &epoch, false),
        ("h:a", 5, &epoch, true),
        ("h:a", 16, &epoch, false),
        ("h:a", u64::MAX, &epoch, false),
        ("h:a", 0, &json!(""), false),
        ("many:a", 0, &many, false),
        ("many:a", 1, &many, true),
    ] {
        let back = recover(&mut peer, channel, offset, epoch);
        let recovered = back["recovered"].as_bool().unwrap_or_default();
        assert_eq!(recovered, is_recovered, "{channel} {offset} {back}");
        assert_eq!(back["was_recovering"], true);
        if !is_recovered {
            assert!(back.get("publications").is_none(), "{back}");
            assert_eq!(back["offset"], if channel == "h:a" { 15 } else { 301 });
            peer.result("unsubscribe", &json!({"channel": channel}));
            let request = json!({
                "channel": channel, "recover": true, "offset": offset, "epoch": epoch, "flag": 3
            });
            assert_eq!(peer.error("subscribe", &request), 112);
        }
        peer.result("unsubscribe", &json!({"channel": channel}));
    }
}

#[test]
fn check_30_cache_brings_the_newest_publication_and_once() {
    let server = serve(channels());
    let mut peer = server.connect();
    for channel in ["cache:a", "auto:a"] {
        let empty = recover(&mut peer, channel, 0, &json!(""));
        assert!(data_of(&empty["publications"]).is_empty(), "{empty}");
        peer.result("unsubscribe", &json!({"channel": channel}));
        publish(&server, channel, 1..=20);
        let since_nothing = peer.result("subscribe", &json!({"channel": channel, "recover": true}));
        assert_eq!(since_nothing["recovered"], true);
        assert_eq!(data_of(&since_nothing["publications"]), [json!(20)]);
        assert_eq!(since_nothing["publications"][0]["offset"], 20);
        let epoch = &since_nothing["epoch"];
        for (offset, epoch, expected) in [
            (20, epoch, vec![]),
            (19, epoch, vec![json!(20)]),
            (3, epoch, vec![json!(20)]),
            (20, &json!("wrong"), vec![json!(20)]),
        ] {
            peer.result("unsubscribe", &json!({"channel": channel}));
            let back = recover(&mut peer, channel, offset, epoch);
            assert_eq!(back["recovered"], true, "{back}");
            assert_eq!(data_of(&back["publications"]), expected, "{offset} {epoch}");
        }
        peer.result("unsubscribe", &json!({"channel": channel}));
    }
    let unasked = peer.subscribe("auto:a");
    assert_eq!(unasked["was_recovering"], true);
    assert_eq!(data_of(&unasked["publications"]), [json!(20)]);
    let unasked = peer.subscribe("cache:a");
    assert!(unasked.get("publications").is_none() && unasked.get("was_recovering").is_none());
}

#[test]
fn check_31_history_in_pages_and_backwards() {
    let server = serve(channels());
    let mut peer = server.connect();
    publish(&server, "h:a", 1..=15);
    let position = peer.result("history", &json!({"channel": "h:a"}));
    let epoch = &position["epoch"];
    assert_eq!(
        position,
        json!({"publications": [], "epoch": epoch, "offset": 15})
    );
    let since = |offset: u64| json!({"offset": offset, "epoch": epoch});
    let numbers = |numbers: &[u64]| {
        numbers
            .iter()
            .map(|number| json!(number))
            .collect::<Vec<_>>()
    };
    for (request, expected) in [
        (json!({"limit": 2}), numbers(&[6, 7])),
        (json!({"limit": 2, "reverse": true}), numbers(&[15, 14])),
        (json!({"limit": 2, "since": since(7)}), numbers(&[8, 9])),
        (json!({"limit": 2, "since": since(1)}), numbers(&[6, 7])),
        (
            json!({"limit": 2, "since": since(8), "reverse": true}),
            numbers(&[7, 6]),
        ),
        (
            json!({"limit": 2, "since": since(3), "reverse": true}),
            numbers(&[]),
        ),
        (json!({"limit": 2, "since": since(15)}), numbers(&[])),
        (json!({"limit": 2, "since": since(u64::MAX)}), numbers(&[])),
        (
            json!({"limit": -1, "since": since(12)}),
            numbers(&[13, 14, 15]),
        ),
        (
            json!({"limit": i64::MAX, "since": since(12)}),
            numbers(&[13, 14, 15]),
        ),
        (
            json!({"limit": 2, "since": {"offset": 12}}),
            numbers(&[13, 14]),
        ),
    ] {
        let mut request = request;
        request["channel"] = json!("h:a");
        let result = peer.result("history", &request);
        assert_eq!(data_of(&result["publications"]), expected, "{request}");
        assert_eq!(result["offset"], 15);
    }
    for (request, code) in [
        (
            json!({"channel": "h:a", "since": {"offset": 1, "epoch": "wrong"}}),
            112,
        ),
        (
            json!({"channel": "h:a", "limit": 1, "since": since(0), "reverse": true}),
            107,
        ),
        (json!({"channel": "a"}), 108),
        (json!({"channel": "x:a"}), 102),
    ] {
        assert_eq!(peer.error("history", &request), code, "{request}");
    }
    publish(&server, "many:a", 1..=310);
    let most = peer.result("history", &json!({"channel": "many:a", "limit": -1}));
    assert_eq!(data_of(&most["publications"]).len(), 300);
}

/// What is published in the turn in which a client subscribes comes once: with the reply or behind.
#[test]
fn check_29_subscribing_amid_publishing_misses_nothing_and_repeats_nothing() {
    let server = serve(channels());
    let mut peer = server.connect();
    let mut publisher = server.connect();
    let epoch = peer.subscribe("h:a")["epoch"].clone();
    let mut last = 0;
    for round in 0..200 {
        peer.say(r#"{"id":5,"unsubscribe":{"channel":"h:a"}}"#);
        while peer.hear()["id"] != 5 {
            last += 1; // What was on its way; it is in order, as is checked below.
        }
        let still = server.stand_still();
        let say = |number: u64| {
            let data = format!("{round}.{number}");
            json!({"id": 2, "publish": {"channel": "h:a", "data": data}}).to_string()
        };
        let frame = [say(1), say(2)].join("\n");
        let subscribe = json!({"id": 3, "subscribe": {
            "channel": "h:a", "recover": true, "offset": last, "epoch": epoch
        }});
        if round % 2 == 0 {
            publisher.say(&frame);
            peer.say(&subscribe.to_string());
        } else {
            peer.say(&subscribe.to_string());
            publisher.say(&frame);
        }
        drop(still);
        let reply = peer.hear();
        assert_eq!(reply["subscribe"]["recovered"], true, "{reply}");
        let mut offsets: Vec<u64> = Vec::new();
        let recovered = reply["subscribe"]["publications"].as_array().cloned();
        offsets.extend(
            recovered
                .iter()
                .flatten()
                .map(|one| one["offset"].as_u64().unwrap()),
        );
        while offsets.len() < 2 {
            offsets.push(peer.hear()["push"]["pub"]["offset"].as_u64().unwrap());
        }
        assert_eq!(offsets, [last + 1, last + 2], "round {round}");
        last += 2;
        for _ in 0..2 {
            assert_eq!(publisher.hear(), json!({"id": 2, "publish": {}}));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u64),
    /// A position, and whether its epoch is the right one, none, or another.
    Subscribe(u64, usize),
}

#[test]
fn recovery_from_any_position_is_what_the_model_says() {
    let server = serve(channels());
    let channel = AtomicU64::new(0);
    let step = prop_oneof![
        (1..6_u64).prop_map(Step::Publish),
        (0..30_u64, 0..3_usize).prop_map(|(offset, epoch)| Step::Subscribe(offset, epoch)),
    ];
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let run = |steps: Vec<Step>| {
        let channel = format!("h:{}", channel.fetch_add(1, Ordering::Relaxed));
        let mut peer = server.connect();
        let epoch = peer.result("history", &json!({"channel": channel}))["epoch"].clone();
        let epochs = [epoch, json!(""), json!("another")];
        let mut top = 0;
        for step in steps {
            match step {
                Step::Publish(count) => {
                    publish(&server, &channel, top + 1..=top + count);
                    top += count;
                }
                Step::Subscribe(offset, which) => {
                    let back = recover(&mut peer, &channel, offset, &epochs[which]);
                    let oldest = top.saturating_sub(10);
                    let can = which < 2 && (oldest..=top).contains(&offset);
                    let missed: Vec<_> = (offset + 1..=top)
                        .filter(|_| can)
                        .map(|n| json!(n))
                        .collect();
                    prop_assert_eq!(back["recovered"].as_bool().unwrap_or(false), can);
                    prop_assert_eq!(data_of(&back["publications"]), missed);
                    let position = if can { offset } else { top };
                    prop_assert_eq!(back["offset"].as_u64().unwrap_or(0), position);
                    prop_assert_eq!(&back["epoch"], &epochs[0]);
                    peer.result("unsubscribe", &json!({"channel": channel}));
                }
            }
        }
        Ok(())
    };
    let steps = prop::collection::vec(step, 1..20);
    TestRunner::new(config).run(&steps, run).unwrap();
}
