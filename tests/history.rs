//! What is kept of a topic, and how a client that was away gets it.

use std::time::Duration;

use stentor::protocol::http::{Request, Response};
use stentor::topic::{HistoryError, Position, Query, Since};
use stentor::{
    Accept, Config, ConnectionId, Context, Form, Handler, KeptPublication, Message, Output,
    Publication, PublishOptions, Sent, TopicOptions,
};

use crate::support::{Client, PATIENCE, Running, serve};

/// Texts with topic, offset, tags and note in front.
const DETAILED: Form = Form::custom(3);

const SIZE: usize = 10;

fn keep(config: &mut Config, namespace: &str, history_size: usize) {
    let options = TopicOptions {
        history_size,
        history_ttl: Duration::from_mins(5),
        ..TopicOptions::default()
    };
    config.topics.insert(namespace, options).unwrap();
}

/// Connections to `/detailed` have the detailed form. What a client says is a topic and an offset: it
/// gets what it has missed since, and all that comes.
#[derive(Default)]
struct Archive {
    opened: Vec<ConnectionId>,
}

impl Handler for Archive {
    type State = ();

    fn upgrade(
        &mut self,
        _: &mut Context<'_, ()>,
        request: &Request<'_>,
    ) -> Result<Accept<()>, Response> {
        let accept = Accept::default();
        Ok(match request.path() {
            b"/detailed" => accept.form(DETAILED),
            _ => accept,
        })
    }

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        self.opened.push(ctx.id());
    }

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        let (topic, offset) = message.as_text().unwrap().split_once(' ').unwrap();
        let since = Since {
            epoch: "",
            offset: offset.parse().unwrap(),
        };
        let recovery = ctx.recover(topic, &since, usize::MAX).unwrap();
        for publication in recovery.publications.expect("all of it is kept") {
            assert_ne!(ctx.send_publication(topic, &publication), Sent::Dropped);
        }
        assert_eq!(ctx.subscribe(topic), Ok(true));
    }

    fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        assert_eq!(form, DETAILED);
        let offset = publication.position.map_or(0, |position| position.offset);
        let mut head = format!("{} {offset}", publication.topic);
        for (name, value) in publication.tags.iter().flat_map(|tags| tags.iter()) {
            head = format!("{head} {name}={value}");
        }
        if let Some(note) = publication.note {
            head = format!("{head} ({})", note.escape_ascii());
        }
        head += ": ";
        let parts = [head.as_bytes(), publication.message.payload()];
        output.message(publication.message.kind(), &parts);
    }
}

fn start(configure: impl FnOnce(&mut Config)) -> Running<Archive> {
    serve(Archive::default(), |config| {
        keep(config, "kept", SIZE);
        configure(config);
    })
}

fn newest(server: &Running<Archive>) -> ConnectionId {
    server.ask(|archive, _| *archive.opened.last().unwrap())
}

fn texts(topic: &str, publications: &[KeptPublication]) -> Vec<String> {
    let text = |publication: &KeptPublication| {
        let view = publication.view(topic);
        assert_eq!(view.position.unwrap().offset, publication.offset());
        view.message.as_text().unwrap().to_owned()
    };
    publications.iter().map(text).collect()
}

fn query(limit: usize) -> Query<'static> {
    Query {
        since: None,
        limit,
        reverse: false,
    }
}

#[test]
fn publications_have_positions_where_a_history_is_kept() {
    let server = start(|_| ());
    let mut client = server.connect();
    let id = newest(&server);
    server.ask(move |_, ctx| {
        ctx.subscribe_connection(id, "kept:a").unwrap();
        ctx.subscribe_connection(id, "other").unwrap();
        let mut publish = |topic: &str, options: &PublishOptions| {
            let published = ctx.publish_with(topic, "x", options).unwrap();
            (published.subscribers, published.position)
        };
        let new = PublishOptions::new;
        let first = publish("kept:a", &new()).1.unwrap();
        let second = publish("kept:a", &new()).1.unwrap();
        assert_eq!((first.offset, second.offset), (1, 2));
        assert_eq!(first.epoch, second.epoch);
        assert_eq!(publish("kept:a", &new().no_history()), (1, None));
        assert_eq!(publish("kept:a", &new()).1.unwrap().offset, 3);
        assert_eq!(publish("other", &new()), (1, None));
        // Nobody is subscribed; it is kept all the same, in an epoch of its own.
        let (count, position) = publish("kept:b", &new());
        assert_eq!((count, position.unwrap().offset), (0, 1));
        assert_ne!(position.unwrap().epoch, first.epoch);
        assert_eq!(
            ctx.history("other", &query(1)).unwrap_err(),
            HistoryError::Off
        );
        let history = ctx.history("kept:a", &query(usize::MAX)).unwrap();
        let offsets: Vec<u64> = history
            .publications
            .iter()
            .map(KeptPublication::offset)
            .collect();
        assert_eq!(offsets, [1, 2, 3]);
        assert_eq!(history.position, Position { offset: 3, ..first });
        let gauges = ctx.gauges();
        assert_eq!((gauges.histories, gauges.kept_publications), (2, 4));
    });
    for _ in 0..5 {
        assert_eq!(client.hear(), "x");
    }
    client.hears_nothing_more();
}

#[test]
fn a_history_is_read_from_both_ends() {
    let server = start(|_| ());
    server.ask(|_, ctx| {
        for number in 1..=SIZE + 5 {
            ctx.publish("kept:a", &number.to_string());
        }
        let mut read = |since: Option<u64>, limit, reverse| {
            let since = since.map(|offset| Since { epoch: "", offset });
            let query = Query {
                since,
                limit,
                reverse,
            };
            texts(
                "kept:a",
                &ctx.history("kept:a", &query).unwrap().publications,
            )
        };
        assert_eq!(read(None, 2, false), ["6", "7"], "five are too old");
        assert_eq!(read(None, 2, true), ["15", "14"]);
        assert_eq!(read(Some(12), 9, false), ["13", "14", "15"]);
        assert_eq!(read(Some(8), 9, true), ["7", "6"]);
        assert!(read(Some(15), 9, false).is_empty() && read(None, 0, false).is_empty());
        let wrong = Since {
            epoch: "nowhere!",
            offset: 12,
        };
        let query = Query {
            since: Some(wrong),
            limit: 9,
            reverse: false,
        };
        assert_eq!(
            ctx.history("kept:a", &query).unwrap_err(),
            HistoryError::WrongEpoch
        );
    });
}

#[test]
fn a_key_makes_a_publication_happen_once() {
    let server = start(|_| ());
    let mut client = server.connect();
    let id = newest(&server);
    server.ask(move |_, ctx| {
        ctx.subscribe_connection(id, "kept:a").unwrap();
        let options = PublishOptions::new().idempotency_key("order 17");
        let first = ctx.publish_with("kept:a", "one", &options).unwrap();
        assert_eq!(ctx.publish_with("kept:a", "two", &options), Ok(first));
        assert_eq!((first.subscribers, first.position.unwrap().offset), (1, 1));
        // The key belongs to the topic.
        let other = ctx.publish_with("kept:b", "three", &options).unwrap();
        assert_eq!((other.subscribers, other.position.unwrap().offset), (0, 1));
        assert_eq!(ctx.publish("kept:a", "four"), 1);
        assert_eq!(ctx.stats().repeated, 1);
    });
    server
        .handle
        .publish_with(
            "kept:a",
            "five",
            PublishOptions::new().idempotency_key("order 17"),
        )
        .unwrap();
    assert_eq!([client.hear(), client.hear()], ["one", "four"]);
    client.hears_nothing_more();
    assert_eq!(server.ask(|_, ctx| ctx.stats().repeated), 2);
}

#[test]
fn a_key_is_remembered_of_a_publication_to_nobody() {
    // A server without history, where such a publication leaves nothing else behind.
    let server = serve(Archive::default(), |_| ());
    let mut client = server.connect();
    let id = newest(&server);
    server.ask(move |_, ctx| {
        let options = PublishOptions::new().idempotency_key("order 17");
        let first = ctx.publish_with("a", "one", &options).unwrap();
        assert_eq!(first.subscribers, 0);
        ctx.subscribe_connection(id, "a").unwrap();
        assert_eq!(ctx.publish_with("a", "once more", &options), Ok(first));
        assert_eq!(ctx.publish("a", "two"), 1);
    });
    assert_eq!(client.hear(), "two");
    client.hears_nothing_more();
}

#[test]
fn a_key_is_forgotten_after_its_time() {
    let server = start(|config| config.timeouts.idempotency = Duration::from_millis(50));
    let publish = |server: &Running<Archive>| {
        server.ask(|_, ctx| {
            let options = PublishOptions::new().idempotency_key("order 17");
            let published = ctx.publish_with("kept:a", "x", &options).unwrap();
            published.position.unwrap().offset
        })
    };
    assert_eq!(publish(&server), 1);
    let deadline = std::time::Instant::now() + PATIENCE;
    while publish(&server) == 1 {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[test]
fn each_form_is_written_with_topic_position_and_tags() {
    let server = start(|_| ());
    let mut plain = server.connect();
    let mut detailed = Client::open(server.address, "/detailed");
    let mut pattern = Client::open(server.address, "/detailed");
    server.ask(|archive, ctx| {
        let ids = archive.opened.clone();
        for id in &ids[..2] {
            ctx.subscribe_connection(*id, "kept:a.b").unwrap();
            ctx.subscribe_connection(*id, "other").unwrap();
        }
        ctx.subscribe_connection(ids[2], "kept:a.*").unwrap();
        let tagged = PublishOptions::new().tag("to", "you").tag("from", "me");
        ctx.publish_with("kept:a.b", "one", &tagged).unwrap();
        ctx.publish("other", "two");
        ctx.publish_with(
            "kept:a.b",
            Message::binary(b"three"),
            &PublishOptions::new(),
        )
        .unwrap();
        // A direct message is what it is, and has its place.
        for id in ids {
            ctx.send_to(id, "direct");
        }
        ctx.publish_with("other", "four", &tagged).unwrap();
        ctx.publish_with("kept:a.b", "five", &tagged.no_history())
            .unwrap();
    });
    let hear = |client: &mut Client| String::from_utf8(client.read_frame().1).unwrap();
    let heard = [(); 6].map(|()| hear(&mut plain));
    assert_eq!(heard, ["one", "two", "three", "direct", "four", "five"]);
    let heard = [(); 6].map(|()| hear(&mut detailed));
    assert_eq!(
        heard,
        [
            "kept:a.b 1 to=you from=me: one",
            "other 0: two",
            "kept:a.b 2: three",
            "direct",
            "other 0 to=you from=me: four",
            "kept:a.b 0 to=you from=me: five",
        ]
    );
    let heard = [(); 4].map(|()| hear(&mut pattern));
    assert_eq!(
        heard,
        [
            "kept:a.b 1 to=you from=me: one",
            "kept:a.b 2: three",
            "direct",
            "kept:a.b 0 to=you from=me: five",
        ]
    );
    for client in [&mut plain, &mut detailed, &mut pattern] {
        client.hears_nothing_more();
    }
    // What is kept comes in the same form, tags and all.
    let mut late = Client::open(server.address, "/detailed");
    late.say("kept:a.b 0");
    assert_eq!(late.hear(), "kept:a.b 1 to=you from=me: one");
    assert_eq!(late.read_frame(), (0x82, b"kept:a.b 2: three".to_vec()));
    late.hears_nothing_more();
}

#[test]
fn the_newest_publication_is_the_state_for_who_has_not_read_it() {
    let server = start(|_| ());
    server.ask(|_, ctx| {
        assert_eq!(ctx.newest("other", None).unwrap_err(), HistoryError::Off);
        let nothing = ctx.newest("kept:a", None).unwrap();
        assert!(nothing.publications.is_none() && nothing.position.offset == 0);
        for number in 1..=SIZE + 5 {
            ctx.publish("kept:a", &number.to_string());
        }
        let position = ctx.newest("kept:a", None).unwrap().position;
        let epoch = position.epoch;
        let mut read = |epoch, offset| {
            let since = Since { epoch, offset };
            let newest = ctx.newest("kept:a", Some(&since)).unwrap();
            assert_eq!(newest.position, position);
            texts("kept:a", &newest.publications.unwrap())
        };
        assert!(read(epoch.as_str(), 15).is_empty(), "it has read it");
        assert_eq!(read(epoch.as_str(), 14), ["15"]);
        assert_eq!(read(epoch.as_str(), 1), ["15"], "much is gone");
        assert_eq!(read("nowhere!", 15), ["15"]);
        assert_eq!(read("", 0), ["15"]);
        ctx.clear_history("kept:a");
        assert!(ctx.newest("kept:a", None).unwrap().publications.is_none());
    });
}

#[test]
fn what_is_kept_goes_to_other_connections_in_their_forms() {
    let server = start(|_| ());
    let mut plain = server.connect();
    let mut detailed = Client::open(server.address, "/detailed");
    let gone = server.connect();
    server.ask(|archive, ctx| {
        for id in &archive.opened {
            ctx.subscribe_connection(*id, "kept:a").unwrap();
        }
        let mut subscribers = ctx.subscribers("kept:a");
        subscribers.sort_unstable();
        let mut opened = archive.opened.clone();
        opened.sort_unstable();
        assert_eq!(subscribers, opened);
        assert!(ctx.subscribers("kept:b").is_empty());
    });
    drop(gone);
    server.wait_until("it has gone", |_, ctx| ctx.connection_count() == 2);
    server.ask(|archive, ctx| {
        assert_eq!(ctx.publish("kept:a", "one"), 2);
        let kept = ctx.newest("kept:a", None).unwrap().publications.unwrap();
        for id in ctx.subscribers("kept:a") {
            assert_eq!(ctx.send_publication_to(id, "kept:a", &kept[0]), Sent::Sent);
        }
        let gone = archive.opened[2];
        let sent = ctx.send_publication_to(gone, "kept:a", &kept[0]);
        assert_eq!((sent, ctx.stats().stale), (Sent::Dropped, 1));
    });
    for _ in 0..2 {
        assert_eq!(plain.hear(), "one");
        assert_eq!(detailed.hear(), "kept:a 1: one");
    }
    for client in [&mut plain, &mut detailed] {
        client.hears_nothing_more();
    }
}

#[test]
fn a_note_travels_with_its_message_to_the_forms_that_write_it_and_into_the_history() {
    let server = start(|_| ());
    let mut plain = server.connect();
    let mut detailed = Client::open(server.address, "/detailed");
    server.ask(|archive, ctx| {
        for id in archive.opened.clone() {
            ctx.subscribe_connection(id, "kept:a").unwrap();
        }
        let noted = PublishOptions::new().tag("to", "you").note(*b"\x00mine");
        ctx.publish_with("kept:a", "one", &noted).unwrap();
        ctx.publish("kept:a", "two");
        ctx.publish_with("kept:a", "three", &noted.note(Vec::new()).no_history())
            .unwrap();
        let history = ctx.history("kept:a", &query(9)).unwrap();
        let notes = history.publications.iter();
        let notes: Vec<_> = notes.map(|kept| kept.view("kept:a").note).collect();
        assert_eq!(notes, [Some(&b"\x00mine"[..]), None]);
    });
    let heard = [(); 3].map(|()| plain.hear());
    assert_eq!(heard, ["one", "two", "three"]);
    let heard = [(); 3].map(|()| detailed.hear());
    assert_eq!(
        heard,
        [
            r"kept:a 1 to=you (\x00mine): one",
            "kept:a 2: two",
            "kept:a 0 to=you (): three",
        ]
    );
    for client in [&mut plain, &mut detailed] {
        client.hears_nothing_more();
    }
    let mut late = Client::open(server.address, "/detailed");
    late.say("kept:a 0");
    let heard = [(); 2].map(|()| late.hear());
    assert_eq!(heard, [r"kept:a 1 to=you (\x00mine): one", "kept:a 2: two"]);
}

#[test]
fn a_note_counts_in_the_memory_of_the_histories_and_in_what_can_be_recovered() {
    const LEN: usize = 100_000;
    let server = start(|config| {
        (config.limits.outbox_soft, config.limits.outbox_hard) = (LEN, LEN);
    });
    server.ask(|_, ctx| {
        let mut add = |options: &PublishOptions| {
            let before = ctx.gauges().history_memory;
            ctx.publish_with("kept:a", "x", options).unwrap();
            let since = Since {
                epoch: "",
                offset: 1,
            };
            let recovery = ctx.recover("kept:a", &since, usize::MAX).unwrap();
            let memory = ctx.gauges().history_memory - before;
            (memory, recovery.publications.is_some())
        };
        add(&PublishOptions::new());
        let (without, can_recover) = add(&PublishOptions::new());
        assert!(can_recover);
        let (with, can_recover) = add(&PublishOptions::new().note(vec![0; LEN]));
        assert!(!can_recover, "more than may wait");
        let note = with - without;
        assert!((LEN..LEN + 100).contains(&note), "{note}");
    });
}

#[test]
fn who_recovers_and_subscribes_in_one_callback_misses_nothing_and_gets_nothing_twice() {
    const ALL: u64 = 2000;
    for target in ["/", "/detailed"] {
        let server = serve(Archive::default(), |config| {
            keep(config, "kept", ALL as usize);
        });
        let handle = server.handle.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 1..=ALL {
                    handle.publish("kept:a", &number.to_string()).unwrap();
                    if number % 100 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < ALL {
                        let mut client = Client::open(server.address, target);
                        client.say(&format!("kept:a {seen}"));
                        for _ in 0..(ALL - seen).min(150) {
                            seen += 1;
                            let expected = match target {
                                "/" => seen.to_string(),
                                _ => format!("kept:a {seen}: {seen}"),
                            };
                            assert_eq!(client.hear(), expected);
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn recovery_is_all_or_nothing() {
    let server = start(|_| ());
    server.ask(|_, ctx| {
        let mut last = None;
        for number in 1..=SIZE + 5 {
            let options = PublishOptions::new();
            let published = ctx
                .publish_with("kept:a", &number.to_string(), &options)
                .unwrap();
            last = published.position;
        }
        let last = last.unwrap();
        let recover = |ctx: &mut Context<'_, ()>, epoch: &str, offset, limit| {
            let recovery = ctx
                .recover("kept:a", &Since { epoch, offset }, limit)
                .unwrap();
            assert_eq!(recovery.position, last);
            let publications = recovery.publications;
            publications.map(|publications| texts("kept:a", &publications))
        };
        let epoch = last.epoch.as_str();
        assert_eq!(recover(ctx, epoch, 12, 9).unwrap(), ["13", "14", "15"]);
        assert_eq!(recover(ctx, epoch, 12, 3).unwrap().len(), 3);
        assert_eq!(recover(ctx, epoch, 12, 2), None, "more than the limit");
        assert_eq!(
            recover(ctx, epoch, 15, 0).unwrap().len(),
            0,
            "nothing was missed"
        );
        assert_eq!(recover(ctx, epoch, 5, 99).unwrap().len(), SIZE);
        assert_eq!(recover(ctx, epoch, 4, 99), None, "not complete any more");
        assert_eq!(recover(ctx, epoch, 16, 99), None, "from the future");
        assert_eq!(recover(ctx, "nowhere!", 12, 99), None, "of another epoch");
        assert_eq!(recover(ctx, "", 12, 99).unwrap().len(), 3);
        ctx.clear_history("kept:a");
        assert_eq!(recover(ctx, epoch, 12, 99), None, "forgotten");
        assert_eq!(recover(ctx, epoch, 15, 99).unwrap().len(), 0);
        assert_eq!(ctx.gauges().kept_publications, 0);
        let next = ctx
            .publish_with("kept:a", "16", &PublishOptions::new())
            .unwrap();
        assert_eq!(next.position, Some(Position { offset: 16, ..last }));
        let since = Since { epoch, offset: 15 };
        let recovery = ctx.recover("kept:a", &since, 99).unwrap();
        assert_eq!(texts("kept:a", &recovery.publications.unwrap()), ["16"]);
        let off = ctx.recover("other", &since, 99).map(|_| ());
        assert_eq!(off, Err(HistoryError::Off));
    });
}

#[test]
fn recovery_of_more_than_may_wait_for_a_connection_is_refused() {
    const LEN: usize = 16 << 10;
    let server = start(|config| {
        (config.limits.outbox_soft, config.limits.outbox_hard) = (LEN, 4 * LEN);
    });
    server.ask(|_, ctx| {
        for number in 0..SIZE {
            ctx.publish("kept:a", &large(number, LEN));
        }
        let mut recover = |missed: usize| {
            let offset = (SIZE - missed) as u64;
            let since = Since { epoch: "", offset };
            let recovery = ctx.recover("kept:a", &since, usize::MAX).unwrap();
            assert_eq!(recovery.position.offset, SIZE as u64);
            recovery.publications.map(|publications| publications.len())
        };
        assert_eq!(recover(4), Some(4), "as much as may wait");
        assert_eq!(recover(5), None, "one more");
        assert_eq!(recover(SIZE), None);
    });
}

#[test]
fn a_history_fades_after_its_time() {
    let server = serve(Archive::default(), |config| {
        let options = TopicOptions {
            history_size: SIZE,
            history_ttl: Duration::from_millis(50),
            ..TopicOptions::default()
        };
        config.topics.insert("kept", options).unwrap();
    });
    server.ask(|_, ctx| {
        ctx.publish("kept:a", "x");
        assert_eq!(ctx.gauges().kept_publications, 1);
    });
    server.wait_until("it has faded", |_, ctx| ctx.gauges().kept_publications == 0);
    let published = server.ask(|_, ctx| ctx.publish_with("kept:a", "y", &PublishOptions::new()));
    assert_eq!(
        published.unwrap().position.unwrap().offset,
        2,
        "offsets go on"
    );
}

/// Bytes that tell which message they are of.
fn large(number: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index / 251 + index + number) as u8)
        .collect()
}

#[test]
fn large_messages_are_kept_as_they_were_whatever_else_the_turn_published() {
    const LENGTHS: [usize; 7] = [0, 4095, 4096, 4097, 65_536, 100_000, 2 << 20];
    let server = start(|config| config.limits.outbox_hard = usize::MAX);
    let mut clients = [server.connect(), Client::open(server.address, "/detailed")];
    let mut slow = Client::with_small_buffer(server.address);
    server.ask(|archive, ctx| {
        for &id in &archive.opened {
            ctx.subscribe_connection(id, "kept:a").unwrap();
        }
    });
    for round in 0..2 {
        // Each in a turn of its own, and then all in one, beside small ones.
        let turns: Vec<Vec<usize>> = match round {
            0 => (0..LENGTHS.len()).map(|number| vec![number]).collect(),
            _ => vec![(0..LENGTHS.len()).collect()],
        };
        for turn in &turns {
            let turn = turn.clone();
            server.ask(move |_, ctx| {
                for number in turn {
                    ctx.publish("kept:small", "nobody has it");
                    ctx.publish("kept:a", &large(number, LENGTHS[number]));
                }
            });
        }
        for (client, skip) in clients.iter_mut().zip([0, 1]) {
            for (number, len) in LENGTHS.into_iter().enumerate() {
                let expected = large(number, len);
                let (_, payload) = client.read_frame();
                let head = match skip {
                    0 => String::new(),
                    _ => format!("kept:a {}: ", round * LENGTHS.len() + number + 1),
                };
                assert!(payload[..head.len()] == *head.as_bytes());
                assert!(payload[head.len()..] == expected, "{round}, {number}");
            }
        }
        // The memory of the turns may be used again by now.
        server.ask(|_, ctx| {
            for number in 0..50 {
                ctx.publish("kept:b", &large(number, 5000));
            }
        });
        server.ask(|_, ctx| {
            let query = Query {
                since: None,
                limit: LENGTHS.len(),
                reverse: true,
            };
            let history = ctx.history("kept:a", &query).unwrap();
            assert_eq!(history.publications.len(), LENGTHS.len());
            for (publication, number) in history.publications.iter().zip((0..LENGTHS.len()).rev()) {
                let view = publication.view("kept:a");
                assert!(
                    *view.message.payload() == large(number, LENGTHS[number]),
                    "{number}"
                );
            }
        });
    }
    for _ in 0..2 {
        for (number, len) in LENGTHS.into_iter().enumerate() {
            assert!(slow.read_frame().1 == large(number, len));
        }
    }
    server.wait_until("nothing waits", |_, ctx| ctx.gauges().output_memory == 0);
}

#[test]
fn histories_take_no_more_memory_than_they_may() {
    const CAP: usize = 256 << 10;
    let server = serve(Archive::default(), |config| {
        keep(config, "kept", 1000);
        config.limits.max_history = CAP;
    });
    server.ask(|_, ctx| {
        for number in 0..200 {
            let topic = format!("kept:{}", number % 3);
            ctx.publish(&topic, &large(number, 16 << 10));
            let gauges = ctx.gauges();
            assert!(gauges.history_memory <= CAP, "{gauges:?}");
        }
        let gauges = ctx.gauges();
        assert!((8..16).contains(&gauges.kept_publications), "{gauges:?}");
        assert_eq!(
            gauges.history_evicted,
            200 - gauges.kept_publications as u64
        );
        // The oldest went first: what is kept is the newest of each, without holes.
        for topic in 0..3 {
            let name = format!("kept:{topic}");
            let history = ctx.history(&name, &query(usize::MAX)).unwrap();
            let top = history.position.offset;
            let kept = history.publications.len() as u64;
            assert!(kept >= 2);
            let offsets: Vec<u64> = history
                .publications
                .iter()
                .map(KeptPublication::offset)
                .collect();
            assert_eq!(offsets, (top - kept + 1..=top).collect::<Vec<_>>());
            let recover = |ctx: &mut Context<'_, ()>, offset| {
                let since = Since { epoch: "", offset };
                ctx.recover(&name, &since, usize::MAX)
                    .unwrap()
                    .publications
                    .is_some()
            };
            assert!(recover(ctx, top - kept) && !recover(ctx, top - kept - 1));
        }
        // What is larger than all of it is published, and not kept.
        let published = ctx
            .publish_with("kept:0", &large(0, CAP), &PublishOptions::new())
            .unwrap();
        assert!(published.position.is_some());
        assert!(
            ctx.history("kept:0", &query(9))
                .unwrap()
                .publications
                .is_empty()
        );
    });
}
