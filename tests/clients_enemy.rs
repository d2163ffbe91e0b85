//! Clients that say anything: whatever it is, it is answered by the codes of the protocol, and
//! another client notices nothing.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::clients::{Peer, Served, kept, peopled, rules, serve};
use crate::support::{BINARY, CONTINUATION, FIN, TEXT, masked};

/// A server with a client that must not be disturbed.
struct Stage {
    server: Served,
    bystander: Peer,
}

impl Stage {
    fn new() -> Self {
        let mut rules = rules(&[("h", kept()), ("p", peopled())]);
        rules.client.uni_websocket = true;
        let server = serve(rules);
        let mut bystander = server.connect();
        bystander.subscribe("quiet");
        Self { server, bystander }
    }

    /// The bystander hears what is for it, and nothing else.
    fn check(&mut self) {
        self.server.publish("quiet", "1");
        let push = json!({"push": {"channel": "quiet", "pub": {"data": 1}}});
        assert_eq!(self.bystander.hear(), push);
        self.bystander.hears_nothing_more();
    }

    /// What a connected client hears after these bytes; each reply has an id and is well-formed.
    fn hear_after(&self, bytes: &[u8]) -> (Vec<Value>, Option<u16>) {
        let mut peer = self.server.connect();
        peer.socket.send_until_refused(bytes);
        let (lines, how) = peer.settle();
        for line in &lines {
            let code = &line["error"]["code"];
            assert!(line["id"].is_u64() || line["push"].is_object(), "{line}");
            assert!(
                code.is_null() || (100..=113).contains(&code.as_u64().unwrap()),
                "{line}"
            );
        }
        (lines, how.map(|(code, _)| code))
    }
}

/// The ends that a peer may have caused by what it said: those of the protocol, 1007 for a text
/// that is none, and 1009.
fn is_fair(code: u16) -> bool {
    [3501, 3508, 3500, 3005, 3010, 1007, 1009].contains(&code)
}

const COMMANDS: [&str; 12] = [
    r#"{"id":2,"subscribe":{"channel":"h:a","recover":true,"offset":3,"epoch":"x","flag":1}}"#,
    r#"{"id":3,"publish":{"channel":"h:a","data":{"a":[1,"\u00e9",null]}}}"#,
    r#"{"id":4,"unsubscribe":{"channel":"h:a"}}"#,
    r#"{"id":5,"history":{"channel":"h:a","limit":2,"since":{"offset":1,"epoch":""},"reverse":true}}"#,
    r#"{"id":6,"presence":{"channel":"p:a"}}"#,
    r#"{"id":7,"presence_stats":{"channel":"p:a"}}"#,
    r#"{"id":8,"subscribe":{"channel":"p:a","join_leave":true,"positioned":true}}"#,
    r#"{"id":9,"rpc":{"method":"m","data":{}}}"#,
    r#"{"id":10,"ping":{}}"#,
    r#"{"id":11,"sub_refresh":{"channel":"p:a","token":"t"}}"#,
    r#"{"id":12,"refresh":{"token":"a.b.c"}}"#,
    r#"{"send":{"data":1}}"#,
];

#[test]
fn every_truncation_of_a_command_ends_the_connection_by_its_code() {
    let mut stage = Stage::new();
    for command in COMMANDS {
        for end in 1..command.len() {
            let cut = &command.as_bytes()[..end];
            let (lines, how) = stage.hear_after(&masked(BINARY, cut));
            assert_eq!(
                (lines, how),
                (Vec::new(), Some(3501)),
                "{}",
                String::from_utf8_lossy(cut)
            );
        }
    }
    stage.check();
}

#[test]
fn depth_bombs_are_data_or_nothing() {
    let mut stage = Stage::new();
    let bomb = |open: &str, close: &str, depth: usize| open.repeat(depth) + &close.repeat(depth);
    for data in [
        bomb("[", "]", 30_000),
        format!("{}1{}", "{\"a\":".repeat(9_000), "}".repeat(9_000)),
    ] {
        let command = format!(r#"{{"id":2,"publish":{{"channel":"a","data":{data}}}}}"#);
        let (lines, how) = stage.hear_after(&masked(TEXT, command.as_bytes()));
        assert_eq!((lines, how), (vec![json!({"id": 2, "publish": {}})], None));
        let unknown = format!(r#"{{"id":2,"later":{data},"ping":{{}}}}"#);
        let (lines, how) = stage.hear_after(&masked(TEXT, unknown.as_bytes()));
        assert_eq!((lines, how), (vec![json!({"id": 2, "ping": {}})], None));
        let wrong = format!(r#"{{"id":2,"publish":{{"channel":{data}}}}}"#);
        assert_eq!(
            stage.hear_after(&masked(TEXT, wrong.as_bytes())).1,
            Some(3501)
        );
    }
    for text in [
        "[".repeat(60_000),
        "{\"a\":".repeat(13_000),
        "{\"id\":{".repeat(9_000),
    ] {
        assert_eq!(
            stage.hear_after(&masked(TEXT, text.as_bytes())).1,
            Some(3501)
        );
    }
    stage.check();
}

#[test]
fn huge_numbers_names_twice_and_bytes_that_are_no_text_have_their_codes() {
    let mut stage = Stage::new();
    let big = "9".repeat(400);
    for (command, how) in [
        (format!(r#"{{"id":{big},"ping":{{}}}}"#), Some(3501)),
        (format!(r#"{{"id":2,"history":{{"channel":"h:a","limit":{big}}}}}"#), Some(3501)),
        (format!(r#"{{"id":2,"subscribe":{{"channel":"h:b","offset":-{big}}}}}"#), Some(3501)),
        (r#"{"id":2,"history":{"channel":"h:a","limit":1e400}}"#.into(), Some(3501)),
        (r#"{"id":2,"subscribe":{"channel":"h:b","offset":18446744073709551615,"recover":true}}"#.into(), None),
        (format!(r#"{{"id":2,"publish":{{"channel":"a","data":{big}}}}}"#), None),
        (r#"{"id":2,"ping":{},"ping":{}}"#.into(), Some(3501)),
        (r#"{"id":2,"publish":{"channel":"a","channel":"b","data":1}}"#.into(), Some(3501)),
        (r#"{"id":2,"ping":{},"x":1,"x":2}"#.into(), None),
        (r#"{"id":2,"subscribe":{"channel":"\ud800"}}"#.into(), Some(3501)),
        (r#"{"id":2,"subscribe":{"channel":"\u0000"}}"#.into(), None),
        ("\u{feff}{\"id\":2,\"ping\":{}}".into(), Some(3501)),
    ] {
        assert_eq!(stage.hear_after(&masked(TEXT, command.as_bytes())).1, how, "{command}");
    }
    let raw = b"{\"id\":2,\"publish\":{\"channel\":\"a\",\"data\":\"\xff\"}}";
    assert_eq!(stage.hear_after(&masked(TEXT, raw)).1, Some(1007));
    assert_eq!(stage.hear_after(&masked(BINARY, raw)).1, Some(3501));
    stage.check();
}

/// Commands of all kinds, with fields and values that may be theirs.
fn commands() -> impl Strategy<Value = Vec<String>> {
    let channel =
        prop::sample::select(vec!["a", "h:a", "p:a", "x:a", "", "$a", "@a", "a.*", "n#1"]);
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
    ];
    let field = prop::sample::select(vec![
        "token", "data", "recover", "offset", "epoch", "flag", "type", "limit", "since", "reverse",
        "tf",
    ]);
    let method = prop::sample::select(vec![
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "rpc",
        "sub_refresh",
        "refresh",
        "ping",
        "send",
        "connect",
        "later",
    ]);
    let command = (
        0..20_u64,
        method,
        channel,
        prop::collection::vec((field, value), 0..2),
    )
        .prop_map(|(id, method, channel, fields)| {
            let mut request = json!({"channel": channel, "data": id});
            for (name, value) in fields {
                request[name] = value;
            }
            json!({"id": id + 1, method: request}).to_string()
        });
    prop::collection::vec(
        prop_oneof![9 => command, 1 => prop::sample::select(COMMANDS.to_vec()).prop_map(str::to_owned)],
        1..12,
    )
}

/// One message in several fragments.
fn in_fragments(bytes: &[u8], pieces: &[prop::sample::Index]) -> Vec<u8> {
    let mut cuts: Vec<_> = pieces
        .iter()
        .map(|piece| piece.index(bytes.len()))
        .collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut frames = Vec::new();
    for (number, cut) in cuts.windows(2).enumerate() {
        let first = if number == 0 { TEXT } else { CONTINUATION };
        let fin = if number + 2 == cuts.len() { 0 } else { FIN };
        frames.extend(masked(first & !fin, &bytes[cut[0]..cut[1]]));
    }
    frames
}

#[test]
fn anything_in_any_order_is_answered_or_ends_by_a_code_of_the_protocol() {
    let stage = std::cell::RefCell::new(Stage::new());
    let noise = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    let pieces = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let run = |(commands, noise, pieces): (
        Vec<String>,
        Option<(prop::sample::Index, u8)>,
        Vec<prop::sample::Index>,
    )| {
        let mut bytes = commands.join("\n").into_bytes();
        if let Some((index, byte)) = noise {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let frames = in_fragments(&bytes, &pieces);
        let (lines, how) = stage.borrow().hear_after(&frames);
        prop_assert!(how.is_none_or(is_fair), "{how:?}");
        let replies = lines.iter().filter(|line| line["id"].is_u64()).count();
        prop_assert!(replies <= commands.len());
        if how.is_none() && noise.is_none() {
            let sends = commands
                .iter()
                .filter(|command| command.contains("\"send\":"))
                .count();
            prop_assert_eq!(replies, commands.len() - sends);
        }
        Ok(())
    };
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&(commands(), noise, pieces), run)
        .unwrap();
    stage.into_inner().check();
}
