//! Clients that write in Protobuf: they are told the same as those with JSON, and bytes stay bytes.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost::Message as _;
use serde_json::{Value, json};

use crate::clients::{Served, end, kept, peopled, rules, serve};
use crate::support::{BINARY, CLOSE, Client, PING, PONG, masked};

// ---- the messages, as far as they matter here ----

#[derive(Clone, PartialEq, prost::Message)]
struct Command {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "4")]
    connect: Option<Connect>,
    #[prost(message, optional, tag = "5")]
    subscribe: Option<Subscribe>,
    #[prost(message, optional, tag = "6")]
    unsubscribe: Option<Channel>,
    #[prost(message, optional, tag = "7")]
    publish: Option<Publish>,
    #[prost(message, optional, tag = "8")]
    presence: Option<Channel>,
    #[prost(message, optional, tag = "9")]
    presence_stats: Option<Channel>,
    #[prost(message, optional, tag = "10")]
    history: Option<History>,
    #[prost(message, optional, tag = "12")]
    send: Option<Bytes>,
    #[prost(message, optional, tag = "13")]
    rpc: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Connect {
    #[prost(map = "string, message", tag = "3")]
    subs: HashMap<String, Subscribe>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Subscribe {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(bool, tag = "3")]
    recover: bool,
    #[prost(string, tag = "6")]
    epoch: String,
    #[prost(uint64, tag = "7")]
    offset: u64,
    #[prost(bytes = "vec", tag = "13")]
    tf: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Channel {
    #[prost(string, tag = "1")]
    channel: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Publish {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct History {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(int32, tag = "7")]
    limit: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Bytes {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "2")]
    error: Option<Failure>,
    #[prost(message, optional, tag = "4")]
    push: Option<Push>,
    #[prost(message, optional, tag = "5")]
    connect: Option<Connected>,
    #[prost(message, optional, tag = "6")]
    subscribe: Option<Subscribed>,
    #[prost(message, optional, tag = "8")]
    publish: Option<Nothing>,
    #[prost(message, optional, tag = "9")]
    presence: Option<Presence>,
    #[prost(message, optional, tag = "10")]
    presence_stats: Option<Stats>,
    #[prost(message, optional, tag = "11")]
    history: Option<Publications>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Failure {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct Push {
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(message, optional, tag = "4")]
    publication: Option<Publication>,
    #[prost(message, optional, tag = "5")]
    join: Option<JoinLeave>,
    #[prost(message, optional, tag = "6")]
    leave: Option<JoinLeave>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Publication {
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    info: Option<ClientInfo>,
    #[prost(uint64, tag = "6")]
    offset: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClientInfo {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    client: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct JoinLeave {
    #[prost(message, optional, tag = "1")]
    info: Option<ClientInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Connected {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(map = "string, message", tag = "6")]
    subs: HashMap<String, Subscribed>,
    #[prost(uint32, tag = "7")]
    ping: u32,
    #[prost(bool, tag = "8")]
    pong: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Subscribed {
    #[prost(bool, tag = "3")]
    recoverable: bool,
    #[prost(string, tag = "6")]
    epoch: String,
    #[prost(message, repeated, tag = "7")]
    publications: Vec<Publication>,
    #[prost(bool, tag = "8")]
    recovered: bool,
    #[prost(uint64, tag = "9")]
    offset: u64,
    #[prost(bool, tag = "10")]
    positioned: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Presence {
    #[prost(map = "string, message", tag = "1")]
    presence: HashMap<String, ClientInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stats {
    #[prost(uint32, tag = "1")]
    num_clients: u32,
    #[prost(uint32, tag = "2")]
    num_users: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Publications {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Publication>,
    #[prost(string, tag = "2")]
    epoch: String,
    #[prost(uint64, tag = "3")]
    offset: u64,
}

// ---- a client ----

struct Peer {
    socket: Client,
    replies: std::collections::VecDeque<Reply>,
}

fn open(server: &Served) -> Peer {
    let socket = Client::open(server.address, "/connection/websocket?format=protobuf");
    let replies = std::collections::VecDeque::new();
    Peer { socket, replies }
}

/// A client that has connected, and its id.
fn connect(server: &Served) -> (Peer, String) {
    let mut peer = open(server);
    peer.say(&[connect_command(1)]);
    let client = peer.hear().connect.unwrap().client;
    (peer, client)
}

fn connect_command(id: u32) -> Command {
    Command {
        id,
        connect: Some(Connect::default()),
        ..Command::default()
    }
}

fn subscribe_command(id: u32, channel: &str) -> Command {
    let subscribe = Subscribe {
        channel: channel.into(),
        ..Subscribe::default()
    };
    Command {
        id,
        subscribe: Some(subscribe),
        ..Command::default()
    }
}

fn publish_command(id: u32, channel: &str, data: &[u8]) -> Command {
    let publish = Publish {
        channel: channel.into(),
        data: data.into(),
    };
    Command {
        id,
        publish: Some(publish),
        ..Command::default()
    }
}

fn about(channel: &str) -> Channel {
    let channel = channel.into();
    Channel { channel }
}

/// Commands as they stand in one message.
fn written(commands: &[Command]) -> Vec<u8> {
    let commands = commands.iter();
    commands
        .flat_map(prost::Message::encode_length_delimited_to_vec)
        .collect()
}

impl Peer {
    fn say(&mut self, commands: &[Command]) {
        self.socket.frame(BINARY, &written(commands));
    }

    fn hear(&mut self) -> Reply {
        while self.replies.is_empty() {
            let (first, payload) = self.socket.read_frame();
            assert_eq!(first, BINARY, "bytes, not {payload:?}");
            self.take(&payload);
        }
        self.replies.pop_front().unwrap()
    }

    fn take(&mut self, mut payload: &[u8]) {
        while !payload.is_empty() {
            let reply = Reply::decode_length_delimited(&mut payload).unwrap();
            self.replies.push_back(reply);
        }
    }

    fn ask(&mut self, command: Command) -> Reply {
        self.say(&[command]);
        self.hear()
    }

    /// All that came before the answer to a Ping, and the code of the end if there is one.
    fn settle(&mut self) -> (Vec<Reply>, Option<u16>) {
        self.socket.send_until_refused(&masked(PING, b"?"));
        loop {
            let (first, payload) = self.socket.read_frame();
            match first {
                PONG => return (self.replies.drain(..).collect(), None),
                CLOSE => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    return (self.replies.drain(..).collect(), Some(code));
                }
                _ => self.take(&payload),
            }
        }
    }
}

// ---- what it is told ----

#[test]
fn commands_of_one_message_are_answered_in_one() {
    let server = serve(rules(&[]));
    let mut peer = open(&server);
    peer.say(&[
        connect_command(1),
        subscribe_command(2, "news"),
        subscribe_command(3, "x:y"),
    ]);
    let (first, payload) = peer.socket.read_frame();
    assert_eq!(first, BINARY);
    peer.take(&payload);
    let (one, two, three) = (peer.hear(), peer.hear(), peer.hear());
    let connected = one.connect.unwrap();
    assert_eq!((one.id, connected.client.len()), (1, 36));
    assert_eq!((connected.ping, connected.pong), (25, true));
    assert_eq!((two.id, two.subscribe), (2, Some(Subscribed::default())));
    let failure = three.error.unwrap();
    assert_eq!((failure.code, &*failure.message), (102, "unknown channel"));
    assert_eq!(peer.settle(), (vec![], None));
}

#[test]
fn the_same_is_published_to_clients_of_both_kinds() {
    let server = serve(rules(&[]));
    let (mut peer, id) = connect(&server);
    let mut other = server.connect();
    peer.ask(subscribe_command(2, "news"));
    other.subscribe("news");
    // JSON comes as such, whoever has said it.
    other.say(r#"{"id":2,"publish":{"channel":"news","data":{"a": [1]}}}"#);
    let push = peer.hear().push.unwrap();
    assert_eq!(push.channel, "news");
    let publication = push.publication.unwrap();
    assert_eq!(publication.data, br#"{"a": [1]}"#);
    let heard = [other.hear(), other.hear()];
    let heard = heard.iter().find(|line| line["push"].is_object()).unwrap();
    let info = publication.info.unwrap();
    assert_eq!(heard["push"]["pub"]["info"]["client"], info.client);
    // Bytes come as they are, or in base64.
    peer.say(&[publish_command(3, "news", b"\xff\x00")]);
    let (reply, push) = (peer.hear(), peer.hear());
    let (reply, push) = if reply.push.is_some() {
        (push, reply)
    } else {
        (reply, push)
    };
    assert_eq!((reply.id, reply.publish), (3, Some(Nothing {})));
    let publication = push.push.unwrap().publication.unwrap();
    assert_eq!(publication.data, b"\xff\x00");
    assert_eq!(publication.info.unwrap().client, id);
    assert_eq!(other.hear()["push"]["pub"]["data"], "/wA=");
}

#[test]
fn what_was_missed_is_recovered_with_its_bytes() {
    let server = serve(rules(&[("h", kept())]));
    let (mut peer, _) = connect(&server);
    let subscribed = peer.ask(subscribe_command(2, "h:a")).subscribe.unwrap();
    assert!(subscribed.recoverable && subscribed.positioned);
    let epoch = subscribed.epoch;
    peer.say(&[Command {
        unsubscribe: Some(about("h:a")),
        id: 3,
        ..Command::default()
    }]);
    peer.hear();
    for (id, data) in [(4, &b"1"[..]), (5, b"\x80"), (6, b"[]")] {
        peer.ask(publish_command(id, "h:a", data));
    }
    let mut again = subscribe_command(7, "h:a");
    let subscribe = again.subscribe.as_mut().unwrap();
    (subscribe.recover, subscribe.epoch) = (true, epoch.clone());
    subscribe.offset = 1;
    let subscribed = peer.ask(again).subscribe.unwrap();
    assert!(subscribed.recovered);
    let missed = subscribed.publications.iter();
    let missed: Vec<_> = missed.map(|one| (one.offset, &*one.data)).collect();
    assert_eq!(missed, [(2, &b"\x80"[..]), (3, b"[]")]);
    // The same by asking.
    let history = History {
        channel: "h:a".into(),
        limit: -1,
    };
    let reply = peer.ask(Command {
        id: 8,
        history: Some(history),
        ..Command::default()
    });
    let history = reply.history.unwrap();
    assert_eq!((history.epoch, history.offset), (epoch, 3));
    assert_eq!(history.all.len(), 3);
}

#[test]
fn who_is_there_is_told_alike() {
    let server = serve(rules(&[("p", peopled())]));
    let (mut peer, id) = connect(&server);
    peer.ask(subscribe_command(2, "p:a"));
    let own = peer.hear().push.unwrap().join.unwrap().info.unwrap();
    assert_eq!((own.client, &*own.user), (id.clone(), ""));
    let mut other = server.connect();
    other.subscribe("p:a");
    let joined = peer.hear().push.unwrap().join.unwrap().info.unwrap();
    let command = |id, presence, presence_stats| Command {
        id,
        presence,
        presence_stats,
        ..Command::default()
    };
    let reply = peer.ask(command(3, Some(about("p:a")), None));
    let presence = reply.presence.unwrap().presence;
    let mut found: Vec<_> = presence.keys().cloned().collect();
    let mut expected = vec![id, joined.client.clone()];
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let stats = peer
        .ask(command(4, None, Some(about("p:a"))))
        .presence_stats
        .unwrap();
    assert_eq!((stats.num_clients, stats.num_users), (2, 1));
    other.say(r#"{"id":2,"unsubscribe":{"channel":"p:a"}}"#);
    let left = peer.hear().push.unwrap().leave.unwrap().info.unwrap();
    assert_eq!(left.client, joined.client);
}

#[test]
fn ping_and_pong_are_empty_messages() {
    let mut rules = rules(&[]);
    rules.client.ping_interval = std::time::Duration::from_millis(500);
    let server = serve(rules);
    let (mut peer, _) = connect(&server);
    for _ in 0..2 {
        assert_eq!(peer.socket.read_frame(), (BINARY, vec![0]));
        peer.socket.frame(BINARY, &[0]);
    }
    // Nobody has asked for this one.
    peer.socket.frame(BINARY, &[0]);
    assert_eq!(peer.settle(), (vec![], Some(3501)));
}

#[test]
fn connect_request_brings_subscriptions() {
    let server = serve(rules(&[("h", kept())]));
    server.publish("h:a", "1");
    let mut peer = open(&server);
    let since = Subscribe {
        recover: true,
        ..Subscribe::default()
    };
    let mut command = connect_command(1);
    let subs = [
        ("h:a".to_owned(), since),
        ("news".to_owned(), Subscribe::default()),
    ];
    command.connect.as_mut().unwrap().subs = subs.into();
    let subs = peer.ask(command).connect.unwrap().subs;
    assert_eq!(subs.len(), 2);
    assert!(!subs["h:a"].epoch.is_empty() && subs["h:a"].positioned);
}

// ---- what is none ----

#[test]
fn what_is_no_command_is_the_end() {
    let server = serve(rules(&[]));
    let mut lone_filter = subscribe_command(2, "news");
    lone_filter.subscribe.as_mut().unwrap().tf = vec![1];
    for (what, message, code) in [
        ("nothing", vec![], 3501),
        ("less than its length", vec![5, 8], 3501),
        (
            "a length of 2^63",
            vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
            3501,
        ),
        ("a length without end", vec![0xff; 11], 3501),
        ("a group", vec![2, 0x0b, 0x0c], 3501),
        ("a text that is none", vec![5, 8, 2, 0x32, 1, 0xff], 3501),
        ("a number for a message", vec![4, 8, 2, 0x20, 1], 3501),
        ("no method", vec![2, 8, 2], 3501),
        (
            "JSON",
            br#"{"id":2,"subscribe":{"channel":"news"}}"#.into(),
            3501,
        ),
        ("a second connect", written(&[connect_command(2)]), 3501),
        ("too much", vec![0; 70_000], 1009),
    ] {
        let (mut peer, _) = connect(&server);
        peer.socket.frame(BINARY, &message);
        assert_eq!(peer.settle(), (vec![], Some(code)), "{what}");
    }
    let (mut peer, _) = connect(&server);
    assert_eq!(peer.ask(lone_filter).error.unwrap().code, 107);
    let mut fresh = open(&server);
    fresh.say(&[subscribe_command(1, "news")]);
    assert_eq!(fresh.settle(), (vec![], Some(3501)));
}

/// Whatever is said, in whatever pieces, it is answered by the codes of the protocol.
#[test]
fn nobody_else_notices_any_bytes() {
    let server = serve(rules(&[("h", kept()), ("p", peopled())]));
    let mut bystander = server.connect();
    bystander.subscribe("quiet");
    let commands = [
        subscribe_command(2, "h:a"),
        subscribe_command(3, "p:a"),
        publish_command(4, "h:a", b"\xffdata"),
        Command {
            id: 5,
            presence: Some(about("p:a")),
            ..Command::default()
        },
        Command {
            id: 6,
            rpc: Some(Bytes { data: vec![0; 40] }),
            ..Command::default()
        },
        connect_command(7),
    ];
    let whole = prop::sample::select(commands.to_vec());
    let said = prop::collection::vec(whole, 1..6).prop_map(|commands| written(&commands));
    let changed = (
        said,
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<prop::sample::Index>(),
    );
    let changed = changed.prop_map(|(mut bytes, place, byte, end)| {
        let place = place.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(end.index(bytes.len() * 2) + 1);
        bytes
    });
    let any_bytes = prop_oneof![changed, prop::collection::vec(any::<u8>(), 0..60)];
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(200)
    });
    let result = runner.run(&any_bytes, |bytes| {
        let (mut peer, _) = connect(&server);
        peer.socket.send_until_refused(&masked(BINARY, &bytes));
        let (replies, how) = peer.settle();
        for reply in replies {
            prop_assert!(reply.id != 0 || reply.push.is_some(), "{reply:?}");
        }
        prop_assert!(
            how.is_none_or(|code| [3501, 3508].contains(&code)),
            "{how:?}"
        );
        Ok(())
    });
    result.unwrap();
    server.publish("quiet", "1");
    let push: Value = json!({"push": {"channel": "quiet", "pub": {"data": 1}}});
    assert_eq!(bystander.hear(), push);
    bystander.hears_nothing_more();
}

#[test]
fn the_end_is_told_as_to_others() {
    let server = serve(rules(&[]));
    let (peer, _) = connect(&server);
    let mut peer = crate::clients::Peer::over(peer.socket);
    server.handle.shut_down().unwrap();
    assert_eq!(peer.hear_end(), end(3001, "shutdown"));
}
