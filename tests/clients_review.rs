//! What somebody who means no good tries on the clients' side: to hear or to stay where a hook says
//! no, and to make the server fall or grow.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;
use stentor::broadcast::hooks::{
    Answer, Ask, ConnectRequest, Connected, Hooks, Later, RefreshRequest, Refreshed, Refusal,
    Returned, RpcRequest, SubscribeRequest, Subscribed,
};
use stentor::broadcast::{Access, ChannelOptions, ConsoleOptions, Rules};

use crate::clients::{end, kept, peopled, plain, rules, serve, serve_with};
use crate::support::{Client, PATIENCE, TEXT};

/// With a console that the key `k` opens.
fn watched(rules: Rules) -> Rules {
    Rules {
        console: ConsoleOptions {
            enabled: true,
            admin_token: Some("k".into()),
        },
        ..rules
    }
}

#[test]
fn watcher_of_a_channel_is_somebody_in_its_presence() {
    let server = serve(watched(rules(&[("n", peopled())])));
    let mut watcher = Client::open(server.address, "/console/feed");
    watcher.frame(TEXT, br#"{"key":"k"}"#);
    watcher.frame(TEXT, br#"{"tail":"n:a"}"#);
    loop {
        let (_, payload) = watcher.read_frame();
        if payload == br#"{"tail":"n:a"}"# {
            break;
        }
    }
    let mut peer = server.connect();
    let presence = peer.result("presence", &json!({"channel": "n:a"}));
    let members = presence["presence"].as_object().unwrap();
    let (id, member) = members.iter().next().unwrap();
    assert_eq!((members.len(), &member["client"]), (1, &json!(id)));
    let stats = peer.result("presence_stats", &json!({"channel": "n:a"}));
    assert_eq!(stats, json!({"num_clients": 1, "num_users": 1}));
}

#[test]
fn pattern_does_not_hear_the_numbers_of_the_console() {
    let open = ChannelOptions {
        access: Access::default(),
        ..plain()
    };
    let mut rules = watched(rules(&[]));
    *rules.channels.get_mut(stentor::topic::NamespaceId::DEFAULT) = open;
    let server = serve(rules);
    let mut spy = Client::open(server.address, "/t/*.feed");
    let mut watcher = Client::open(server.address, "/console/feed");
    watcher.frame(TEXT, br#"{"key":"k"}"#);
    let mut numbers = 0;
    // The first are for the watcher alone, those that follow for all that listen.
    while numbers < 3 {
        let (_, payload) = watcher.read_frame();
        numbers += usize::from(payload.starts_with(br#"{"numbers":"#));
    }
    server.publish("a.feed", "1");
    assert_eq!(spy.read_frame(), (TEXT, b"1".to_vec()));
}

/// Lets everybody in for a moment, and leaves the rest to the test.
struct Slow {
    refresh: mpsc::Sender<Later<Refreshed>>,
    rpc: mpsc::Sender<Later<Returned>>,
    expire_at: u64,
}

impl Slow {
    /// With what the test answers by; each connection has time until then.
    fn until(expire_at: u64) -> (Self, Asked<Refreshed>, Asked<Returned>) {
        let (refresh, refreshes) = mpsc::channel();
        let (rpc, rpcs) = mpsc::channel();
        let hooks = Self {
            refresh,
            rpc,
            expire_at,
        };
        (hooks, refreshes, rpcs)
    }
}

/// Questions that wait for an answer.
type Asked<T> = mpsc::Receiver<Later<T>>;

impl Hooks for Slow {
    fn connect(&mut self, _: &ConnectRequest<'_>, _: Ask<Connected>) -> Answer<Connected> {
        Answer::Now(Ok(Connected {
            user: "42".into(),
            expire_at: self.expire_at,
            ..Connected::default()
        }))
    }

    fn refresh(&mut self, _: &RefreshRequest<'_>, ask: Ask<Refreshed>) -> Answer<Refreshed> {
        self.refresh.send(ask.later()).unwrap();
        Answer::Later
    }

    fn rpc(&mut self, request: &RpcRequest<'_>, ask: Ask<Returned>) -> Answer<Returned> {
        if request.method == "now" {
            return Answer::Now(Ok(Returned::default()));
        }
        self.rpc.send(ask.later()).unwrap();
        Answer::Later
    }
}

fn soon() -> u64 {
    let now = std::time::SystemTime::now();
    let age = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    age.as_secs() + 1
}

#[test]
fn command_does_not_undo_the_question_whether_a_client_may_stay() {
    let (hooks, refreshes, _rpcs) = Slow::until(soon());
    let server = serve_with(rules(&[]), hooks, |_| ());
    let mut peer = server.connect();
    let later = refreshes.recv_timeout(PATIENCE).unwrap();
    peer.result("rpc", &json!({"method": "now"}));
    later.answer(Ok(Refreshed {
        expired: true,
        ..Refreshed::default()
    }));
    assert_eq!(peer.hear_end(), end(3005, "connection expired"));
}

#[test]
fn client_with_a_command_that_waits_is_asked_about_as_well() {
    let (hooks, refreshes, rpcs) = Slow::until(soon());
    let server = serve_with(rules(&[]), hooks, |_| ());
    let mut peer = server.connect();
    peer.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
    let _waits = rpcs.recv_timeout(PATIENCE).unwrap();
    let later = refreshes.recv_timeout(PATIENCE).unwrap();
    later.answer(Ok(Refreshed {
        expired: true,
        ..Refreshed::default()
    }));
    assert_eq!(peer.hear_end(), end(3005, "connection expired"));
}

#[test]
fn time_that_never_ends_does_not_overflow() {
    let (hooks, _refreshes, _rpcs) = Slow::until(u64::MAX);
    let mut rules = rules(&[]);
    rules.client.ping_interval = Duration::from_secs(2);
    let server = serve_with(rules, hooks, |_| ());
    let mut peer = server.connect();
    // By then its expiry was looked at.
    assert_eq!(peer.hear(), json!({}));
    peer.say("{}");
    peer.hears_nothing_more();
}

/// Nobody may subscribe.
struct Strict;

impl Hooks for Strict {
    fn subscribe(&mut self, _: &SubscribeRequest<'_>, _: Ask<Subscribed>) -> Answer<Subscribed> {
        Answer::Now(Err(Refusal::Error {
            code: 103,
            message: "permission denied".into(),
            temporary: false,
        }))
    }
}

#[test]
fn client_does_not_get_around_a_hook_by_connecting_with_a_channel() {
    let server = serve_with(rules(&[]), Strict, |_| ());
    let (mut peer, result) = server.connect_with(&json!({"subs": {"a": {}}}));
    assert_eq!(result.get("subs"), None);
    assert_eq!(peer.error("subscribe", &json!({"channel": "a"})), 103);

    let asked = ChannelOptions {
        subscribe_proxy_enabled: true,
        ..plain()
    };
    let by_namespace = Rules {
        asks_by_namespace: true,
        ..rules(&[("n", asked)])
    };
    let server = serve_with(by_namespace, Strict, |_| ());
    let (_, result) = server.connect_with(&json!({"subs": {"a": {}, "n:a": {}}}));
    assert_eq!(result["subs"], json!({"a": {}}));
}

#[test]
fn history_of_a_reply_is_no_more_than_may_wait_for_a_client() {
    let server = serve(rules(&[("k", kept())]));
    let data = format!("\"{}\"", "x".repeat(100 << 10));
    for _ in 0..10 {
        server.publish("k:a", &data);
    }
    let mut peer = server.connect();
    let all = peer.result("history", &json!({"channel": "k:a", "limit": 10}));
    assert_eq!(all["publications"].as_array().unwrap().len(), 5);
    assert_eq!(all["offset"], 10);
    let since = json!({"offset": 5, "epoch": all["epoch"]});
    let rest = json!({"channel": "k:a", "limit": 10, "since": since});
    let rest = peer.result("history", &rest);
    assert_eq!(rest["publications"][4]["offset"], 10);
}

#[test]
fn client_gets_no_more_replies_than_it_reads() {
    let server = serve(rules(&[("k", kept())]));
    let data = format!("\"{}\"", "x".repeat(100 << 10));
    for _ in 0..10 {
        server.publish("k:a", &data);
    }
    let mut peer = server.connect();
    let commands: Vec<String> = (2..62)
        .map(|id| format!(r#"{{"id":{id},"history":{{"channel":"k:a","limit":10}}}}"#))
        .collect();
    // Thirty megabytes: far more than may wait for it, and it has not read any.
    peer.say(&commands.join("\n"));
    server.connect().hears_nothing_more();
    peer.say(r#"{"id":62,"presence_stats":{"channel":"k:a"}}"#);
    for id in 2..62 {
        let reply = peer.hear();
        assert_eq!(reply["id"], id);
        assert_eq!(
            reply["history"]["publications"].as_array().unwrap().len(),
            5
        );
    }
    assert_eq!(peer.hear()["id"], 62);
}

#[test]
fn those_who_look_around_a_lot_are_answered_in_turns() {
    let quiet = ChannelOptions {
        join_leave: false,
        force_push_join_leave: false,
        ..peopled()
    };
    let server = serve(rules(&[("n", quiet)]));
    let mut peers: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for peer in &mut peers {
        peer.result("subscribe", &json!({"channel": "n:a"}));
    }
    let many = |method: &str| -> String {
        let command = |id| format!(r#"{{"id":{id},"{method}":{{"channel":"n:a"}}}}"#);
        (100..1100).map(command).collect::<Vec<_>>().join("\n")
    };
    let (asks, other) = (many("presence_stats"), many("presence"));
    peers[0].say(&asks);
    peers[1].say(&other);
    for id in 100..1100 {
        let stats = peers[0].hear();
        assert_eq!(
            (&stats["id"], &stats["presence_stats"]["num_clients"]),
            (&json!(id), &json!(20))
        );
    }
    for id in 100..1100 {
        let presence = peers[1].hear();
        assert_eq!(presence["id"], id);
        assert_eq!(
            presence["presence"]["presence"].as_object().unwrap().len(),
            20
        );
    }
}

#[test]
fn client_that_connects_with_too_many_channels_is_sent_away() {
    let closed = ChannelOptions {
        allow_subscribe_for_client: false,
        ..plain()
    };
    let mut rules = rules(&[("c", closed)]);
    rules.client.channel_limit = 2;
    let server = serve(rules);
    let mut peer = server.open();
    peer.say(r#"{"id":1,"connect":{"subs":{"c:1":{},"c:2":{},"c:3":{}}}}"#);
    assert_eq!(peer.hear_end(), end(3505, "channel limit"));
}

/// What a program might say: JSON as people read it.
struct Pretty;

const PRETTY: &str = "{\r\n  \"a\": 1\r\n}";

fn pretty() -> Subscribed {
    Subscribed {
        info: PRETTY.into(),
        data: PRETTY.into(),
        ..Subscribed::default()
    }
}

impl Hooks for Pretty {
    fn connect(&mut self, _: &ConnectRequest<'_>, _: Ask<Connected>) -> Answer<Connected> {
        Answer::Now(Ok(Connected {
            info: PRETTY.into(),
            data: PRETTY.into(),
            subs: vec![("n:a".into(), pretty())],
            ..Connected::default()
        }))
    }

    fn subscribe(&mut self, _: &SubscribeRequest<'_>, _: Ask<Subscribed>) -> Answer<Subscribed> {
        Answer::Now(Ok(pretty()))
    }
}

#[test]
fn json_of_a_hook_is_told_in_one_line() {
    let server = serve_with(rules(&[("n", peopled())]), Pretty, |_| ());
    let (mut peer, result) = server.connect_with(&json!({}));
    let a = json!({"a": 1});
    assert_eq!((&result["data"], &result["subs"]["n:a"]["data"]), (&a, &a));
    let join = peer.hear();
    let info = &join["push"]["join"]["info"];
    assert_eq!((&info["conn_info"], &info["chan_info"]), (&a, &a), "{join}");
    assert_eq!(peer.subscribe("b")["data"], a);
}

#[test]
fn largest_message_may_wait_for_a_hook() {
    let (hooks, _refreshes, rpcs) = Slow::until(0);
    let mut rules = rules(&[]);
    rules.client.message_size_limit = 128 << 10;
    let server = serve_with(rules, hooks, |config| {
        config.protocol.max_message_size = 128 << 10;
    });
    let mut peer = server.connect();
    peer.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
    let later = rpcs.recv_timeout(PATIENCE).unwrap();
    let rest = "x".repeat((128 << 10) - 48);
    let publish = format!(r#"{{"id":3,"publish":{{"channel":"a","data":"{rest}"}}}}"#);
    let spaces = " ".repeat((128 << 10) - publish.len());
    peer.say(&format!("{publish}{spaces}"));
    peer.hears_nothing_more();
    later.answer(Ok(Returned::default()));
    assert_eq!(peer.hear(), json!({"id": 2, "rpc": {}}));
    assert_eq!(peer.hear(), json!({"id": 3, "publish": {}}));
    peer.say(r#"{"id":4,"rpc":{"method":"later"}}"#);
    let _waits = rpcs.recv_timeout(PATIENCE).unwrap();
    peer.say(&publish);
    peer.say(&publish);
    assert_eq!(peer.hear_end(), end(3013, "too many requests"));
}
