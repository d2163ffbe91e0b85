use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::broadcast::client::text;
use stentor::topic::Namespaces;
use stentor::{Config, Handler, Server, TopicOptions};

struct Silent;

impl Handler for Silent {
    type State = Place;
}

/// Calls a test with the loop of a server of these rules.
pub(in crate::broadcast) fn on_a_server(
    rules: Rules,
    test: impl FnOnce(&mut Context<'_, Place>, &Rules) + Send + 'static,
) {
    let mut config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
    rules.configure(&mut config);
    let mut server = Server::bind(config, Silent).unwrap();
    let (sender, receiver) = mpsc::channel();
    let run = server.handle().run(move |_, ctx| {
        test(ctx, &rules);
        sender.send(()).unwrap();
    });
    run.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while receiver.try_recv().is_err() {
        server.turn(Some(Duration::from_millis(10))).unwrap();
        assert!(Instant::now() < deadline);
    }
}

/// Channels without a namespace keep nothing; `kept` keeps a history and a presence; `json`,
/// `object` and `binary` take what their name says.
pub(in crate::broadcast) fn rules() -> Rules {
    let of = |publication_data_format| ChannelOptions {
        publication_data_format,
        ..ChannelOptions::default()
    };
    let kept = ChannelOptions {
        presence: true,
        topic: TopicOptions {
            history_size: 10,
            history_ttl: Duration::from_mins(5),
            ..TopicOptions::default()
        },
        ..ChannelOptions::default()
    };
    let mut channels = Namespaces::new(ChannelOptions::default());
    channels.insert("kept", kept).unwrap();
    for (name, format) in [
        ("json", DataFormat::Json),
        ("object", DataFormat::JsonObject),
        ("binary", DataFormat::Binary),
    ] {
        channels.insert(name, of(format)).unwrap();
    }
    Rules {
        channels,
        ..Rules::default()
    }
}

fn draft<'a>(channel: &'a str, data: &'a str) -> Draft<'a> {
    Draft {
        channel,
        data: data.as_bytes(),
        ..Draft::default()
    }
}

fn offset(published: Result<Option<Position>, ErrorReply>) -> u64 {
    published.unwrap().expect("a history is kept").offset
}

/// The history of a channel without its epoch.
fn history(ctx: &mut Context<'_, Place>, rules: &Rules, query: &HistoryQuery<'_>) -> String {
    let history = text(Exchange::history(ctx, rules, Codec::Json, "kept:a", query).unwrap());
    let (publications, end) = history.split_once(",\"epoch\":\"").unwrap();
    format!("{publications}{}", end.split_once('"').unwrap().1)
}

#[test]
fn a_name_that_no_channel_can_have_is_refused() {
    let rules = rules();
    let long = "x".repeat(256);
    for (channel, error) in [
        ("", BAD_REQUEST),
        (&long, BAD_REQUEST),
        ("@presence.x", BAD_REQUEST),
        ("a.*", BAD_REQUEST),
        ("a\n", BAD_REQUEST),
        ("other:a", UNKNOWN_CHANNEL),
        ("$other:a", UNKNOWN_CHANNEL),
        (":a", UNKNOWN_CHANNEL),
    ] {
        assert_eq!(options_of(&rules, channel).unwrap_err(), error, "{channel}");
    }
    for channel in ["a", "$a", "kept", "kept:a", "$kept:a"] {
        assert!(options_of(&rules, channel).is_ok(), "{channel}");
    }
}

#[test]
fn data_is_what_the_channel_wants() {
    use DataFormat::{Any, Binary, Json, JsonObject};
    use stentor::MessageKind::{self, Text};
    const BYTES: Option<MessageKind> = Some(MessageKind::Binary);
    let kind = |data: &'static [u8], is_binary, format| {
        let draft = Draft {
            data,
            is_binary,
            ..Draft::default()
        };
        let message = message(&draft, format).ok()?;
        assert_eq!(message.payload(), data);
        Some(message.kind())
    };
    for (data, is_binary, expected) in [
        // Any, Json, JsonObject, Binary
        (&b""[..], false, [None, None, None, BYTES]),
        (b"", true, [None, None, None, BYTES]),
        (b"{\"a\":1}", false, [Some(Text); 4]),
        (b" \n{}", true, [Some(Text); 4]),
        (b"[1]", true, [Some(Text), Some(Text), None, Some(Text)]),
        (b"{", true, [BYTES, None, None, BYTES]),
        (b"{", false, [None; 4]),
        (b"\"\xff\"", true, [BYTES, None, None, BYTES]),
        (b"\"\xff\"", false, [None; 4]),
    ] {
        let kinds = [Any, Json, JsonObject, Binary].map(|format| kind(data, is_binary, format));
        assert_eq!(kinds, expected, "{}", data.escape_ascii());
    }
}

#[test]
fn what_is_published_is_in_the_history_as_it_was() {
    on_a_server(rules(), |ctx, rules| {
        let mut exchange = Exchange::default();
        let none = exchange.publish(ctx, rules, &draft("a", "1"));
        assert_eq!(none, Ok(None));
        let tags = [("b".to_owned(), "c\"".to_owned())];
        let full = Draft {
            tags: &tags,
            info: br#"{"user":"42","client":"x"}"#,
            ..draft("kept:a", "{\"n\":\n12345678901234567890}")
        };
        assert_eq!(offset(exchange.publish(ctx, rules, &full)), 1);
        let bytes = Draft {
            data: b"\xff",
            is_binary: true,
            ..draft("kept:a", "")
        };
        assert_eq!(offset(exchange.publish(ctx, rules, &bytes)), 2);
        let skipped = Draft {
            skip_history: true,
            ..draft("kept:a", "3")
        };
        assert_eq!(exchange.publish(ctx, rules, &skipped), Ok(None));
        let first = concat!(
            r#"{"data":{"n":12345678901234567890},"offset":1,"#,
            r#""info":{"user":"42","client":"x"},"tags":{"b":"c\""}}"#
        );
        let second = r#"{"data":"/w==","offset":2}"#;
        let mut query = HistoryQuery::default();
        let all = format!(r#"{{"publications":[{first},{second}],"offset":2}}"#);
        assert_eq!(history(ctx, rules, &query), all);
        query.reverse = true;
        query.limit = Some(1);
        let newest = format!(r#"{{"publications":[{second}],"offset":2}}"#);
        assert_eq!(history(ctx, rules, &query), newest);
        query.since = Some((2, ""));
        let before = format!(r#"{{"publications":[{first}],"offset":2}}"#);
        assert_eq!(history(ctx, rules, &query), before);
        query.limit = Some(0);
        let position = r#"{"publications":[],"offset":2}"#;
        assert_eq!(history(ctx, rules, &query), position);
        assert_eq!(Exchange::clear_history(ctx, rules, "kept:a"), Ok(()));
        assert_eq!(history(ctx, rules, &HistoryQuery::default()), position);
        let next = exchange.publish(ctx, rules, &draft("kept:a", "4"));
        assert_eq!(offset(next), 3);
    });
}

#[test]
fn a_history_that_cannot_be_read_says_why() {
    on_a_server(rules(), |ctx, rules| {
        let mut ask = |channel, since, reverse| {
            let query = HistoryQuery {
                since,
                reverse,
                limit: None,
                most_bytes: None,
            };
            Exchange::history(ctx, rules, Codec::Json, channel, &query).map(|_| ())
        };
        assert_eq!(ask("a", None, false), Err(NOT_AVAILABLE));
        assert_eq!(ask("other:a", None, false), Err(UNKNOWN_CHANNEL));
        assert_eq!(ask("kept:a", Some((0, "x")), false), Err(UNRECOVERABLE));
        assert_eq!(ask("kept:a", Some((0, "")), true), Err(BAD_REQUEST));
        assert_eq!(ask("kept:a", Some((0, "")), false), Ok(()));
        let cleared = Exchange::clear_history(ctx, rules, "a");
        assert_eq!(cleared, Err(NOT_AVAILABLE));
    });
}

#[test]
fn a_presence_is_told_where_one_is_kept() {
    on_a_server(rules(), |ctx, rules| {
        let mut ask = |channel| {
            let presence = Exchange::presence(ctx, rules, Codec::Json, channel);
            let stats = Exchange::presence_stats(ctx, rules, Codec::Json, channel);
            (presence, stats)
        };
        let nobody = (
            Ok(br#"{"presence":{}}"#.to_vec()),
            Ok(br#"{"num_clients":0,"num_users":0}"#.to_vec()),
        );
        assert_eq!(ask("kept:a"), nobody);
        assert_eq!(ask("a"), (Err(NOT_AVAILABLE), Err(NOT_AVAILABLE)));
    });
}

#[test]
fn an_older_version_is_not_published() {
    on_a_server(rules(), |ctx, rules| {
        let mut exchange = Exchange::default();
        let mut publish = |version, version_epoch, idempotency_key| {
            let draft = Draft {
                idempotency_key,
                version,
                version_epoch,
                ..draft("kept:a", "1")
            };
            offset(exchange.publish(ctx, rules, &draft))
        };
        assert_eq!(publish(5, "x", "first"), 1);
        assert_eq!(publish(5, "", ""), 1);
        assert_eq!(publish(4, "x", ""), 1);
        assert_eq!(publish(4, "y", ""), 2);
        assert_eq!(publish(4, "y", ""), 2);
        // A repetition is answered as the first one was, and changes nothing.
        assert_eq!(publish(5, "x", "first"), 1);
        assert_eq!(publish(3, "", ""), 2);
        // Without a version it counts anew.
        assert_eq!(publish(0, "", ""), 3);
        assert_eq!(publish(1, "", ""), 4);
        assert_eq!(publish(1, "", ""), 4);
        let too_long = "x".repeat(256);
        let draft = Draft {
            version: 2,
            version_epoch: &too_long,
            ..draft("kept:a", "1")
        };
        assert_eq!(exchange.publish(ctx, rules, &draft), Err(BAD_REQUEST));
    });
}

#[test]
fn a_repetition_publishes_nothing() {
    on_a_server(rules(), |ctx, rules| {
        let mut exchange = Exchange::default();
        let once = Draft {
            idempotency_key: "k",
            ..draft("kept:a", "1")
        };
        assert_eq!(offset(exchange.publish(ctx, rules, &once)), 1);
        let other = draft("kept:a", "2");
        assert_eq!(offset(exchange.publish(ctx, rules, &other)), 2);
        assert_eq!(offset(exchange.publish(ctx, rules, &once)), 1);
        let elsewhere = Draft {
            channel: "kept:b",
            ..once
        };
        assert_eq!(offset(exchange.publish(ctx, rules, &elsewhere)), 1);
        assert_eq!(ctx.stats().repeated, 1);
    });
}
