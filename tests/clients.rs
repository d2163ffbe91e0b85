//! Clients of Centrifugo's protocol over raw sockets: what the protocol says of connections and
//! channels, one check after the other. Tests that are numbered are those of the list of checks
//! that clients in the field rely on.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use stentor::broadcast::hooks::Hooks;
use stentor::broadcast::{
    Access, Broadcast, ChannelOptions, ClientOptions, DataFormat, Permission, Rules, Who,
};
use stentor::topic::Namespaces;
use stentor::{Config, Endpoint, Handle, Message, PublishOptions, Server, TopicOptions};

use crate::support::{BINARY, CLOSE, Client, PATIENCE, PING, PONG, TEXT};

// ---- the stage ----

/// A running broadcast application.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle<Broadcast>,
    thread: Option<JoinHandle<()>>,
}

/// Serves with these rules on a free port.
pub(crate) fn serve(rules: Rules) -> Served {
    serve_with(rules, (), |_| ())
}

pub(crate) fn serve_with(
    rules: Rules,
    hooks: impl Hooks + Send + 'static,
    configure: impl FnOnce(&mut Config) + Send + 'static,
) -> Served {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
        rules.configure(&mut config);
        configure(&mut config);
        let broadcast = Broadcast::new(rules).unwrap().with_hooks(hooks);
        let server = Server::bind(config, broadcast).unwrap();
        let Endpoint::Tcp(address) = server.endpoints()[0] else {
            panic!("a TCP endpoint")
        };
        tell.send((address, server.handle())).unwrap();
        server.run().unwrap();
    });
    let (address, handle) = told.recv_timeout(PATIENCE).unwrap();
    Served {
        address,
        handle,
        thread: Some(thread),
    }
}

impl Served {
    /// A client that has said nothing yet.
    pub(crate) fn open(&self) -> Peer {
        self.open_at("/connection/websocket")
    }

    pub(crate) fn open_at(&self, target: &str) -> Peer {
        Peer::over(Client::open(self.address, target))
    }

    /// An anonymous client that has connected.
    pub(crate) fn connect(&self) -> Peer {
        self.connect_with(&json!({})).0
    }

    /// A client that has connected with this request, and the result.
    pub(crate) fn connect_with(&self, request: &Value) -> (Peer, Value) {
        let mut peer = self.open();
        let reply = peer.ask(&json!({"id": 1, "connect": request}).to_string());
        let result = reply.get("connect").cloned();
        (peer, result.unwrap_or_else(|| panic!("{reply}")))
    }

    /// Publishes to a channel as a program does, and waits until it has happened.
    pub(crate) fn publish(&self, channel: &str, data: &str) {
        let (channel, data) = (channel.to_owned(), data.to_owned());
        let (done, is_done) = mpsc::channel();
        let publish = move |_: &mut Broadcast, ctx: &mut stentor::Context<'_, _>| {
            let message = Message::text(&data);
            ctx.publish_with(&channel, message, &PublishOptions::new())
                .unwrap();
            done.send(()).unwrap();
        };
        self.handle.run(publish).unwrap();
        is_done.recv_timeout(PATIENCE).unwrap();
    }

    /// Stops the loop until the answer is dropped; what clients do meanwhile is found at once.
    pub(crate) fn stand_still(&self) -> mpsc::Sender<()> {
        let (arrive, arrived) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let stand = move |_: &mut Broadcast, _: &mut stentor::Context<'_, _>| {
            let _ = arrive.send(());
            let _ = released.recv_timeout(PATIENCE);
        };
        self.handle.run(stand).unwrap();
        arrived.recv_timeout(PATIENCE).unwrap();
        release
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

/// A client of the protocol that knows nothing of how the server writes it.
pub(crate) struct Peer {
    pub(crate) socket: Client,
    lines: VecDeque<Value>,
}

/// How the server ended a connection, behind what it said before.
pub(crate) type End = (u16, String);

impl Peer {
    pub(crate) fn over(socket: Client) -> Self {
        let lines = VecDeque::new();
        Self { socket, lines }
    }

    pub(crate) fn say(&mut self, commands: &str) {
        self.socket.frame(TEXT, commands.as_bytes());
    }

    /// The next reply or push.
    pub(crate) fn hear(&mut self) -> Value {
        while self.lines.is_empty() {
            let (first, payload) = self.socket.read_frame();
            self.take(first, &payload);
        }
        self.lines.pop_front().unwrap()
    }

    /// What comes in a frame: texts only, each line of it JSON.
    fn take(&mut self, first: u8, payload: &[u8]) {
        let text = str::from_utf8(payload).expect("UTF-8");
        assert_eq!(first, TEXT, "a text, not {text:?}");
        for line in text.split('\n') {
            let value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?} in {text}"));
            self.lines.push_back(value);
        }
    }

    pub(crate) fn ask(&mut self, command: &str) -> Value {
        self.say(command);
        self.hear()
    }

    /// The result of a command, by its name.
    pub(crate) fn result(&mut self, method: &str, request: &Value) -> Value {
        let reply = self.ask(&json!({"id": 9, method: request}).to_string());
        let result = reply.get(method).cloned();
        result.unwrap_or_else(|| panic!("{method} {request}: {reply}"))
    }

    /// The code of the error that a command is answered with.
    pub(crate) fn error(&mut self, method: &str, request: &Value) -> u64 {
        let reply = self.ask(&json!({"id": 9, method: request}).to_string());
        let code = reply["error"]["code"].as_u64();
        code.unwrap_or_else(|| panic!("{method} {request}: {reply}"))
    }

    pub(crate) fn subscribe(&mut self, channel: &str) -> Value {
        self.result("subscribe", &json!({"channel": channel}))
    }

    /// How the connection ends, with nothing in front of it.
    pub(crate) fn hear_end(&mut self) -> End {
        let (lines, end) = self.hear_all();
        assert!(lines.is_empty(), "{lines:?} before {end:?}");
        end
    }

    /// All that comes before the end.
    pub(crate) fn hear_all(&mut self) -> (Vec<Value>, End) {
        loop {
            let (first, payload) = self.socket.read_frame();
            if first == CLOSE {
                return (self.lines.drain(..).collect(), end_of(&payload));
            }
            self.take(first, &payload);
        }
    }

    /// All that came before the answer to a Ping, and the end if there is one.
    pub(crate) fn settle(&mut self) -> (Vec<Value>, Option<End>) {
        self.socket
            .send_until_refused(&crate::support::masked(PING, b"?"));
        loop {
            let (first, payload) = self.socket.read_frame();
            match first {
                PONG => return (self.lines.drain(..).collect(), None),
                CLOSE => return (self.lines.drain(..).collect(), Some(end_of(&payload))),
                _ => self.take(first, &payload),
            }
        }
    }

    pub(crate) fn hears_nothing_more(&mut self) {
        assert_eq!(self.settle(), (Vec::new(), None));
    }
}

/// The code and the reason of a Close frame: words, so that no client takes them for a message.
fn end_of(payload: &[u8]) -> End {
    let (code, reason) = payload.split_first_chunk().expect("a code");
    let code = u16::from_be_bytes(*code);
    let reason = str::from_utf8(reason).unwrap();
    assert!(!reason.is_empty() && reason.len() <= 123, "{reason:?}");
    assert!(serde_json::from_str::<Value>(reason).is_err(), "{reason:?}");
    (code, reason.into())
}

pub(crate) fn end(code: u16, reason: &str) -> End {
    (code, reason.into())
}

pub(crate) const CLOSED: Access = Access {
    publish: Who::Nobody,
    subscribe: Who::Nobody,
};

/// Every client may.
pub(crate) const ALL: Permission = Permission {
    client: true,
    subscriber: false,
    anonymous: true,
};

/// Channels for the clients of the protocol: everybody may subscribe and publish, and nothing is
/// kept.
pub(crate) fn plain() -> ChannelOptions {
    ChannelOptions {
        access: CLOSED,
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        publish: ALL,
        ..ChannelOptions::default()
    }
}

/// ...where ten publications are kept, and recovered.
pub(crate) fn kept() -> ChannelOptions {
    ChannelOptions {
        topic: TopicOptions {
            history_size: 10,
            history_ttl: Duration::from_hours(1),
            ..TopicOptions::default()
        },
        force_recovery: true,
        see_history: ALL,
        ..plain()
    }
}

/// ...where it is known who is there.
pub(crate) fn peopled() -> ChannelOptions {
    ChannelOptions {
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        see_presence: ALL,
        ..plain()
    }
}

/// Rules with these namespaces, `plain` without one, and anonymous clients.
pub(crate) fn rules(namespaces: &[(&str, ChannelOptions)]) -> Rules {
    let mut channels = Namespaces::new(plain());
    for (name, options) in namespaces {
        channels.insert(name, options.clone()).unwrap();
    }
    Rules {
        channels,
        client: ClientOptions {
            allow_anonymous_connect_without_token: true,
            ..ClientOptions::default()
        },
        most_past: 512 << 10,
        ..Rules::default()
    }
}

/// The data of publications.
pub(crate) fn data_of(publications: &Value) -> Vec<Value> {
    let all = publications.as_array().into_iter().flatten();
    all.map(|publication| publication["data"].clone()).collect()
}

// ---- connections ----

#[test]
fn check_01_anonymous_client_gets_a_uuid_where_that_is_allowed() {
    let server = serve(rules(&[]));
    let (_, result) = server.connect_with(&json!({}));
    let uuid = result["client"].as_str().unwrap();
    assert_eq!(uuid.len(), 36);
    assert!(uuid.split('-').map(str::len).eq([8, 4, 4, 4, 12]), "{uuid}");
    assert_eq!(&uuid[14..15], "4");
    let (_, other) = server.connect_with(&json!({}));
    assert_ne!(result["client"], other["client"]);
}

#[test]
fn check_02_client_without_a_token_is_refused_where_it_needs_one() {
    let mut rules = rules(&[]);
    rules.client.allow_anonymous_connect_without_token = false;
    let server = serve(rules);
    let mut peer = server.open();
    peer.say(r#"{"id":1,"connect":{}}"#);
    assert_eq!(peer.hear_end(), end(3501, "bad request"));
}

#[test]
fn check_05_connect_and_subscribe_in_one_frame_are_answered_in_order() {
    let server = serve(rules(&[]));
    let mut peer = server.open();
    // Ids go on over connections.
    peer.say("{\"connect\":{\"name\":\"js\"},\"id\":7}\n{\"id\":8,\"subscribe\":{\"channel\":\"a\",\"flag\":1}}\n");
    let first = peer.hear();
    assert_eq!(first["id"], 7);
    assert!(first["connect"].is_object(), "{first}");
    assert_eq!(peer.hear(), json!({"id": 8, "subscribe": {}}));
    peer.hears_nothing_more();
}

#[test]
fn check_06_subscribe_in_front_of_connect_ends_the_connection() {
    let server = serve(rules(&[]));
    let mut peer = server.open();
    peer.say("{\"id\":1,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":2,\"connect\":{}}");
    assert_eq!(peer.hear_end(), end(3501, "bad request"));
}

#[test]
fn check_07_second_connect_ends_the_connection_behind_the_first_reply() {
    let server = serve(rules(&[]));
    let mut peer = server.connect();
    peer.say(r#"{"id":2,"connect":{}}"#);
    assert_eq!(peer.hear_end(), end(3501, "bad request"));

    let mut peer = server.open();
    peer.say("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"connect\":{}}\n{\"id\":3,\"rpc\":{}}");
    let (lines, how) = peer.hear_all();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["id"], 1);
    assert_eq!(how, end(3501, "bad request"));
}

#[test]
fn check_08_client_that_does_not_connect_is_stale() {
    let mut rules = rules(&[]);
    rules.client.stale_close_delay = Duration::from_millis(500);
    let server = serve(rules);
    let mut idle = server.open();
    let mut connected = server.connect();
    assert_eq!(idle.hear_end(), end(3502, "stale"));
    connected.hears_nothing_more();
}

#[test]
fn check_09_what_is_no_command_ends_the_connection() {
    let server = serve(rules(&[]));
    let mut bystander = server.connect();
    for message in [
        "not json",
        "",
        "\n",
        " \r\n\t",
        "[]",
        "\"connect\"",
        "null",
        "7",
        r#"{"id":1}"#,
        r#"{"id":1,"unheard_of":{}}"#,
        r#"{"id":"1","connect":{}}"#,
        r#"{"id":-1,"connect":{}}"#,
        r#"{"id":1e3,"connect":{}}"#,
        r#"{"id":99999999999999999999,"connect":{}}"#,
        r#"{"id":1,"connect":7}"#,
        r#"{"id":1,"connect":{"token":[]}}"#,
        r#"{"id":1,"connect":{"subs":[]}}"#,
        r#"{"id":1,"connect":{}"#,
        r#"{"connect":{}}"#,
    ] {
        let mut peer = server.open();
        peer.say(message);
        assert_eq!(peer.hear_end(), end(3501, "bad request"), "{message:?}");
        let mut peer = server.connect();
        peer.say(message);
        assert_eq!(peer.hear_end(), end(3501, "bad request"), "{message:?}");
    }
    bystander.hears_nothing_more();
}

#[test]
fn check_10_message_that_is_too_long_ends_the_connection() {
    let server = serve(rules(&[]));
    let mut peer = server.connect();
    let data = "x".repeat(70_000);
    peer.say(&json!({"id": 2, "publish": {"channel": "a", "data": data}}).to_string());
    assert_eq!(peer.hear_end().0, 1009);

    let mut peer = server.connect();
    peer.subscribe("a");
    let head = r#"{"id":2,"publish":{"channel":"a","data":""#;
    let longest = format!("{head}{}\"}}}}", "x".repeat((64 << 10) - head.len() - 3));
    assert_eq!(longest.len(), 64 << 10);
    peer.say(&longest);
    let heard = [peer.hear(), peer.hear()];
    assert!(
        heard.contains(&json!({"id": 2, "publish": {}})),
        "{heard:?}"
    );
}

#[test]
fn check_11_data_arrives_on_one_line_with_its_digits() {
    let server = serve(rules(&[]));
    let mut peer = server.connect();
    peer.subscribe("a");
    server.publish(
        "a",
        "{\r\n  \"n\": 12345678901234567890,\n  \"s\": \"a\\nb\"\n}\n",
    );
    let (first, payload) = peer.socket.read_frame();
    let text = String::from_utf8(payload).unwrap();
    assert_eq!(first, TEXT);
    assert!(!text.contains(['\n', '\r']), "{text:?}");
    assert!(text.contains("12345678901234567890"), "{text}");
    assert!(text.contains(r#""a\nb""#), "{text}");

    // ...and as bytes of a client, which may come in a binary frame.
    let command =
        "{\"id\":2,\"publish\":{\"channel\":\"a\",\"data\":[\n12345678901234567890,\r\n1.0e400]}}";
    peer.socket.frame(BINARY, command.as_bytes());
    let mut texts = String::new();
    while !texts.contains("\"id\":2") || !texts.contains("\"pub\"") {
        let (first, payload) = peer.socket.read_frame();
        assert_eq!(first, TEXT);
        texts.push_str(str::from_utf8(&payload).unwrap());
    }
    assert!(texts.contains("[12345678901234567890,1.0e400]"), "{texts}");
}

#[test]
fn check_11_commands_may_come_in_any_pieces() {
    let server = serve(rules(&[]));
    let mut peer = server.open();
    // Two fragments, with a byte of the text at a time.
    let commands = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}";
    let (one, other) = commands.split_at(25);
    let fragments = [
        crate::support::masked(TEXT & !crate::support::FIN, one.as_bytes()),
        crate::support::masked(crate::support::CONTINUATION, other.as_bytes()),
    ]
    .concat();
    for byte in fragments {
        peer.socket.send(&[byte]);
    }
    assert_eq!(peer.hear()["id"], 1);
    assert_eq!(peer.hear()["id"], 2);
}

#[test]
fn check_12_client_is_pinged_and_has_to_answer() {
    let mut rules = rules(&[]);
    let defaults = serve(rules.clone());
    let (_, result) = defaults.connect_with(&json!({}));
    assert_eq!(
        (&result["ping"], &result["pong"]),
        (&json!(25), &json!(true))
    );

    rules.client.ping_interval = Duration::from_secs(1);
    rules.client.pong_timeout = Duration::from_secs(1);
    let server = serve(rules);
    let (mut silent, result) = server.connect_with(&json!({}));
    assert_eq!(
        (&result["ping"], &result["pong"]),
        (&json!(1), &json!(true))
    );
    let mut alive = server.connect();
    for _ in 0..3 {
        assert_eq!(alive.hear(), json!({}));
        alive.say("{}");
    }
    let (lines, how) = silent.hear_all();
    assert_eq!(lines, [json!({})]);
    assert_eq!(how, end(3012, "no pong"));
    assert_eq!(alive.hear(), json!({}));
}

#[test]
fn check_12_client_may_ask_for_pings_of_the_web_socket_instead() {
    let mut rules = rules(&[]);
    rules.client.ping_interval = Duration::from_secs(1);
    let server = serve_with(rules, (), |config| {
        config.timeouts.idle = Duration::from_millis(300);
    });
    let mut peer = server.open_at("/connection/websocket?cf_ws_frame_ping_pong=true");
    let reply = peer.ask(r#"{"id":1,"connect":{}}"#);
    assert!(reply["connect"].get("ping").is_none(), "{reply}");
    assert!(reply["connect"].get("pong").is_none(), "{reply}");
    let (first, payload) = peer.socket.read_frame();
    assert_eq!(first, PING, "{payload:?}");
}

#[test]
fn check_13_pong_without_a_ping_ends_the_connection() {
    let server = serve(rules(&[]));
    for (commands, replies) in [("{}", 0), ("{\"id\":1,\"connect\":{}}\n{}", 1)] {
        let mut peer = server.open();
        peer.say(commands);
        let (lines, how) = peer.hear_all();
        assert_eq!(lines.len(), replies);
        assert_eq!(how, end(3501, "bad request"));
    }
}

#[test]
fn check_13_one_ping_takes_one_pong() {
    let mut rules = rules(&[]);
    rules.client.ping_interval = Duration::from_secs(1);
    let server = serve(rules);
    let mut peer = server.connect();
    assert_eq!(peer.hear(), json!({}));
    peer.say("{}\n{}");
    assert_eq!(peer.hear_end(), end(3501, "bad request"));
}

#[test]
fn subprotocol_is_chosen_as_the_client_prefers_it() {
    let server = serve(rules(&[]));
    for (query, offered, chosen) in [
        ("", "centrifuge-json", "centrifuge-json"),
        (
            "",
            "centrifuge-protobuf, centrifuge-json",
            "centrifuge-protobuf",
        ),
        (
            "",
            "centrifuge-json, centrifuge-protobuf",
            "centrifuge-json",
        ),
        ("", "centrifuge-protobuf", "centrifuge-protobuf"),
        ("", "other", ""),
        (
            "?format=protobuf",
            "centrifuge-json, centrifuge-protobuf",
            "centrifuge-protobuf",
        ),
        ("?cf_protocol=protobuf", "centrifuge-json", ""),
    ] {
        let mut client = Client::raw(server.address);
        let request = crate::support::upgrade_request(&format!("/connection/websocket{query}"));
        let field = format!("Sec-WebSocket-Protocol: {offered}\r\n\r\n");
        client.send(
            format!(
                "{}{field}",
                request.trim_end_matches("\r\n").to_owned() + "\r\n"
            )
            .as_bytes(),
        );
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let field = "Sec-WebSocket-Protocol: ";
        let answer = head.lines().find_map(|line| line.strip_prefix(field));
        assert_eq!(
            answer.unwrap_or_default(),
            chosen,
            "{query} {offered}: {head}"
        );
    }
}

#[test]
fn who_only_listens_gets_no_protobuf() {
    let mut rules = rules(&[]);
    rules.client.uni_websocket = true;
    let server = serve(rules);
    let mut client = Client::raw(server.address);
    let target = "/connection/uni_websocket?format=protobuf";
    client.send(crate::support::upgrade_request(target).as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

/// It is a parameter of the transports in one direction.
#[test]
fn connect_request_in_the_query_means_nothing_in_both_directions() {
    let server = serve(rules(&[]));
    for query in ["%7B%7D", "garbage"] {
        let mut peer = server.open_at(&format!("/connection/websocket?cf_connect={query}"));
        let reply = peer.ask(r#"{"id":1,"connect":{}}"#);
        assert_eq!(reply["id"], 1, "{reply}");
        peer.hears_nothing_more();
    }
}

#[test]
fn unknown_and_null_fields_mean_nothing() {
    let server = serve(rules(&[]));
    let mut peer = server.open();
    let connect = peer.ask(
        r#"{"id":1,"later":[{"a":{}}],"connect":{"token":null,"data":null,"name":null,"version":null,
            "subs":null,"headers":{"a":"b"},"flag":1,"profile":"x","dict":[]},"subscribe":null}"#,
    );
    assert!(connect["connect"].is_object(), "{connect}");
    let reply = peer.ask(
        r#"{"id":2,"subscribe":{"channel":"a","token":null,"recover":null,"offset":null,
            "epoch":null,"positioned":null,"tf":null,"flag":null,"type":null,"delta":"fossil"}}"#,
    );
    assert_eq!(reply, json!({"id": 2, "subscribe": {}}));
    let reply = peer.ask(r#"{"id":3,"ping":{}}"#);
    assert_eq!(reply, json!({"id": 3, "ping": {}}));
}

// ---- channels ----

#[test]
fn check_18_limits_and_names_of_channels() {
    let mut strict = rules(&[("n", plain())]);
    strict
        .channels
        .get_mut(strict.channels.id_of("n:"))
        .channel_regex = Some(regex::Regex::new("^[0-9ä]+$").unwrap());
    let server = serve(strict);
    let mut peer = server.connect();
    peer.subscribe("a");
    for (request, code) in [
        (json!({"channel": "a"}), 105),
        (json!({"channel": "x".repeat(256)}), 107),
        (json!({"channel": "x:y"}), 102),
        (json!({"channel": "ä"}), 107),
        (json!({"channel": "n:x"}), 107),
        (json!({"channel": "@presence.x"}), 107),
        (json!({"channel": "a.*"}), 107),
        (json!({"channel": ">"}), 107),
        (json!({"channel": "a\nb"}), 107),
        (json!({"channel": "b", "type": 1}), 108),
        (json!({"channel": "b", "tf": {"key": "k"}}), 107),
    ] {
        assert_eq!(peer.error("subscribe", &request), code, "{request}");
    }
    peer.subscribe("n:1ä");
    peer.subscribe(&"x".repeat(255));
    for number in 4..=128 {
        peer.subscribe(&number.to_string());
    }
    assert_eq!(peer.error("subscribe", &json!({"channel": "129"})), 106);
    assert_eq!(peer.error("subscribe", &json!({"channel": "4"})), 105);
    peer.result("unsubscribe", &json!({"channel": "4"}));
    peer.subscribe("129");
    assert_eq!(peer.error("subscribe", &json!({"channel": "130"})), 106);
    peer.say(r#"{"id":9,"subscribe":{}}"#);
    assert_eq!(peer.hear_end(), end(3501, "bad request"));
}

#[test]
fn check_18_all_channels_of_a_client_may_tell_who_comes() {
    let server = serve(rules(&[("p", peopled())]));
    let mut peer = server.connect();
    for number in 1..=128 {
        let channel = format!("p:{number}");
        assert_eq!(peer.subscribe(&channel), json!({}), "{number}");
        let join = peer.hear();
        assert_eq!(join["push"]["channel"], channel);
        assert!(join["push"]["join"]["info"]["client"].is_string(), "{join}");
    }
    assert_eq!(peer.error("subscribe", &json!({"channel": "p:129"})), 106);
}

#[test]
fn check_19_channel_that_is_not_allowed_is_denied() {
    let closed = ChannelOptions {
        access: CLOSED,
        ..ChannelOptions::default()
    };
    let for_users = ChannelOptions {
        allow_subscribe_for_anonymous: false,
        ..plain()
    };
    let server = serve(rules(&[("c", closed), ("u", for_users)]));
    let mut peer = server.connect();
    for channel in ["c:a", "u:a", "$a", "$c:a"] {
        assert_eq!(peer.error("subscribe", &json!({"channel": channel})), 103);
    }
    for method in ["history", "presence", "presence_stats"] {
        assert_eq!(
            peer.error(method, &json!({"channel": "c:a"})),
            108,
            "{method}"
        );
    }
    assert_eq!(
        peer.error("publish", &json!({"channel": "c:a", "data": 1})),
        103
    );
}

#[test]
fn check_23_unsubscribe_is_always_answered_and_ends_the_pushes() {
    let server = serve(rules(&[]));
    let mut peer = server.connect();
    for channel in ["unknown", "x:y", &"x".repeat(300)] {
        assert_eq!(
            peer.result("unsubscribe", &json!({"channel": channel})),
            json!({})
        );
    }
    peer.subscribe("a");
    server.publish("a", "1");
    assert_eq!(
        peer.hear(),
        json!({"push": {"channel": "a", "pub": {"data": 1}}})
    );
    // What is published in the same turn as it leaves is behind it.
    let still = server.stand_still();
    peer.say(r#"{"id":2,"unsubscribe":{"channel":"a"}}"#);
    let publishing = server.handle.clone();
    publishing.publish("a", "2").unwrap();
    drop(still);
    let mut heard = vec![peer.hear()];
    if heard[0].get("push").is_some() {
        heard.push(peer.hear());
    }
    assert_eq!(heard.last(), Some(&json!({"id": 2, "unsubscribe": {}})));
    server.publish("a", "3");
    peer.hears_nothing_more();
}

#[test]
fn check_23_publish_and_unsubscribe_keep_their_order_in_a_frame() {
    let server = serve(rules(&[]));
    let mut peer = server.connect();
    peer.say(concat!(
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n",
        "{\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":1}}\n",
        "{\"id\":4,\"unsubscribe\":{\"channel\":\"a\"}}\n",
        "{\"id\":5,\"publish\":{\"channel\":\"a\",\"data\":2}}\n",
        "{\"id\":6,\"subscribe\":{\"channel\":\"a\"}}\n",
        "{\"id\":7,\"publish\":{\"channel\":\"a\",\"data\":3}}",
    ));
    let (lines, how) = peer.settle();
    assert_eq!(how, None);
    let ids: Vec<u64> = lines
        .iter()
        .filter_map(|line| line["id"].as_u64())
        .collect();
    assert_eq!(ids, [2, 3, 4, 5, 6, 7], "{lines:?}");
    let place = |wanted: &dyn Fn(&Value) -> bool| lines.iter().position(wanted);
    let of = |data: u64| place(&|line| line["push"]["pub"]["data"] == data);
    let reply = |id: u64| place(&|line| line["id"] == id);
    assert!(reply(2) < of(1) && of(1).is_some(), "{lines:?}");
    assert!(of(1) < reply(4), "nothing behind the reply: {lines:?}");
    assert_eq!(of(2), None, "{lines:?}");
    assert!(reply(6) < of(3) && of(3).is_some(), "{lines:?}");
}

#[test]
fn check_24_publishing_reaches_all_with_who_it_was() {
    let for_subscribers = ChannelOptions {
        publish: Permission {
            subscriber: true,
            anonymous: true,
            ..Permission::default()
        },
        ..plain()
    };
    let server = serve(rules(&[("s", for_subscribers)]));
    let (mut one, result) = server.connect_with(&json!({}));
    let mut other = server.connect();
    assert_eq!(
        one.error("publish", &json!({"channel": "s:a", "data": 1})),
        103
    );
    for peer in [&mut one, &mut other] {
        peer.subscribe("s:a");
    }
    one.say(r#"{"id":2,"publish":{"channel":"s:a","data":{"a":null}}}"#);
    let push = json!({"push": {"channel": "s:a", "pub": {
        "data": {"a": null}, "info": {"client": result["client"], "user": ""}
    }}});
    let heard = [one.hear(), one.hear()];
    assert!(heard.contains(&push), "{heard:?}");
    assert!(
        heard.contains(&json!({"id": 2, "publish": {}})),
        "{heard:?}"
    );
    assert_eq!(other.hear(), push);
    for (request, code) in [
        (json!({"channel": "s:a"}), 107),
        (json!({"channel": "x:a", "data": 1}), 102),
        (json!({"channel": "a.*", "data": 1}), 107),
        (json!({"channel": "@presence.x", "data": 1}), 107),
    ] {
        assert_eq!(one.error("publish", &request), code, "{request}");
    }
    other.hears_nothing_more();
}

#[test]
fn check_24_data_has_to_be_of_the_format() {
    let objects = ChannelOptions {
        publication_data_format: DataFormat::JsonObject,
        ..plain()
    };
    let server = serve(rules(&[("o", objects)]));
    let mut peer = server.connect();
    assert_eq!(
        peer.error("publish", &json!({"channel": "o:a", "data": [1]})),
        107
    );
    assert_eq!(
        peer.result("publish", &json!({"channel": "o:a", "data": {}})),
        json!({})
    );
}

#[test]
fn check_33_presence_lists_clients_and_counts_users() {
    let server = serve(rules(&[("p", peopled())]));
    let (mut one, first) = server.connect_with(&json!({}));
    let (mut other, second) = server.connect_with(&json!({}));
    one.subscribe("p:a");
    one.hear();
    other.subscribe("p:a");
    let ids = [&first, &second].map(|result| result["client"].as_str().unwrap().to_owned());
    let join = one.hear();
    assert_eq!(join["push"]["join"]["info"]["client"], ids[1]);
    other.hear();
    let presence = one.result("presence", &json!({"channel": "p:a"}));
    let listed = presence["presence"].as_object().unwrap();
    assert_eq!(listed.len(), 2);
    for id in &ids {
        assert_eq!(listed[id], json!({"client": id, "user": ""}));
    }
    let stats = one.result("presence_stats", &json!({"channel": "p:a"}));
    assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
    let empty = one.result("presence", &json!({"channel": "p:b"}));
    assert_eq!(empty, json!({"presence": {}}));
    let stats = one.result("presence_stats", &json!({"channel": "p:b"}));
    assert_eq!(stats, json!({"num_clients": 0, "num_users": 0}));
    for method in ["presence", "presence_stats"] {
        assert_eq!(one.error(method, &json!({"channel": "a"})), 108);
        assert_eq!(one.error(method, &json!({"channel": "x:a"})), 102);
    }
}

#[test]
fn check_34_join_is_behind_the_reply_and_leave_is_for_others() {
    let server = serve(rules(&[("p", peopled())]));
    let (mut one, first) = server.connect_with(&json!({}));
    let (mut other, second) = server.connect_with(&json!({}));
    let event = |what: &str, of: &Value| {
        let info = json!({"client": of["client"], "user": ""});
        json!({"push": {"channel": "p:a", what: {"info": info}}})
    };
    one.subscribe("p:a");
    assert_eq!(one.hear(), event("join", &first));
    other.subscribe("p:a");
    assert_eq!(other.hear(), event("join", &second));
    assert_eq!(one.hear(), event("join", &second));
    other.result("unsubscribe", &json!({"channel": "p:a"}));
    other.hears_nothing_more();
    assert_eq!(one.hear(), event("leave", &second));
    // Both in one frame: a join in front of its leave.
    other.say("{\"id\":3,\"subscribe\":{\"channel\":\"p:a\"}}\n{\"id\":4,\"unsubscribe\":{\"channel\":\"p:a\"}}");
    assert_eq!(one.hear(), event("join", &second));
    assert_eq!(one.hear(), event("leave", &second));
    let (lines, how) = other.settle();
    assert_eq!((lines.len(), how), (2, None), "{lines:?}");
    // ...and one that vanishes.
    other.subscribe("p:a");
    assert_eq!(one.hear(), event("join", &second));
    other.socket.reset();
    assert_eq!(one.hear(), event("leave", &second));
}

#[test]
fn check_34_who_comes_is_told_to_those_who_ask_and_may() {
    let unforced = ChannelOptions {
        force_push_join_leave: false,
        ..peopled()
    };
    let secret = ChannelOptions {
        see_presence: Permission::default(),
        ..unforced.clone()
    };
    let server = serve(rules(&[("p", unforced), ("s", secret)]));
    let mut asks = server.connect();
    let mut quiet = server.connect();
    for channel in ["s:a", "p:a"] {
        let request = json!({"channel": channel, "join_leave": true});
        asks.result("subscribe", &request);
    }
    assert_eq!(asks.hear()["push"]["channel"], "p:a");
    for channel in ["p:a", "s:a"] {
        quiet.subscribe(channel);
    }
    assert_eq!(asks.hear()["push"]["channel"], "p:a");
    asks.hears_nothing_more();
    quiet.hears_nothing_more();
    assert_eq!(quiet.error("presence", &json!({"channel": "s:a"})), 103);
}

/// Whoever hears a topic without the protocol says of itself what it wants.
#[test]
fn subscriber_without_the_protocol_cannot_come_as_somebody_else() {
    let open = ChannelOptions {
        access: Access::default(),
        ..peopled()
    };
    let server = serve(rules(&[("p", open)]));
    let mut peer = server.connect();
    peer.subscribe("p:a");
    peer.hear();
    let forged =
        "%7B%22client%22:%2200000000-0000-4000-8000-000000000000%22,%22user%22:%22admin%22%7D";
    let stranger = Client::open(server.address, &format!("/t/p:a?info={forged}"));
    let forged = json!({"client": "00000000-0000-4000-8000-000000000000", "user": "admin"});
    let join = peer.hear();
    let info = &join["push"]["join"]["info"];
    assert_eq!(
        (&info["user"], &info["conn_info"]),
        (&json!(""), &forged),
        "{join}"
    );
    let id = info["client"].clone();
    let presence = peer.result("presence", &json!({"channel": "p:a"}));
    assert_eq!(
        presence["presence"][id.as_str().unwrap()]["user"],
        "",
        "{presence}"
    );
    drop(stranger);
    let leave = peer.hear();
    let info = &leave["push"]["leave"]["info"];
    assert_eq!(
        (&info["user"], &info["client"]),
        (&json!(""), &id),
        "{leave}"
    );
}

#[test]
fn check_44_what_nobody_serves_is_not_available() {
    let server = serve(rules(&[]));
    let mut peer = server.connect();
    assert_eq!(peer.error("rpc", &json!({"method": "m", "data": {}})), 108);
    peer.say(r#"{"send":{"data":1}}"#);
    assert_eq!(peer.hear_end(), end(3508, "not available"));
}

// ---- ends ----

#[test]
fn check_41_slow_reader_is_ended_and_others_hear_everything() {
    let server = serve_with(rules(&[]), (), |config| {
        config.limits.outbox_soft = 16 << 10;
        config.limits.outbox_hard = 64 << 10;
    });
    let mut slow = Peer::over(Client::with_small_buffer_at(
        server.address,
        "/connection/websocket",
    ));
    assert_eq!(slow.ask(r#"{"id":1,"connect":{}}"#)["id"], 1);
    slow.subscribe("a");
    let mut quick = server.connect();
    quick.subscribe("a");
    let data = json!("x".repeat(32 << 10));
    // More than what the kernel takes for one that does not read.
    for _ in 0..300 {
        server.publish("a", &data.to_string());
        assert_eq!(quick.hear()["push"]["pub"]["data"], data);
    }
    let (_, how) = slow.hear_all();
    assert_eq!(how, end(3008, "slow"));
    quick.hears_nothing_more();
}

#[test]
fn check_42_shutdown_takes_leave() {
    let mut rules = rules(&[]);
    rules.client.uni_websocket = true;
    let server = serve(rules);
    let mut peer = server.connect();
    let mut fresh = server.open();
    let mut uni = server.open_at("/connection/uni_websocket?cf_connect=%7B%7D");
    assert!(uni.hear()["connect"].is_object());
    server.handle.shut_down().unwrap();
    assert_eq!(peer.hear_end(), end(3001, "shutdown"));
    assert_eq!(fresh.hear_end(), end(3001, "shutdown"));
    let (lines, how) = uni.hear_all();
    let last = json!({"disconnect": {"code": 3001, "reason": "shutdown"}});
    assert_eq!((lines, how), (vec![last], end(3001, "shutdown")));
}

// ---- one direction ----

fn uni() -> Served {
    let mut rules = rules(&[("h", kept())]);
    rules.client.uni_websocket = true;
    rules.client.uni_sse = true;
    serve(rules)
}

#[test]
fn check_43_first_message_or_query_connects_in_one_direction() {
    let server = uni();
    let mut by_message = server.open_at("/connection/uni_websocket");
    by_message.say(r#"{"subs":{"a":{},"h:a":{"recover":true}}}"#);
    let query = "%7B%22subs%22:%7B%22a%22:%7B%7D%7D%7D";
    let mut by_query = server.open_at(&format!("/connection/uni_websocket?cf_connect={query}"));
    let first = by_message.hear();
    let subs = first["connect"]["subs"].as_object().unwrap();
    assert_eq!(subs.len(), 2, "{first}");
    assert_eq!(subs["h:a"]["recovered"], true, "{first}");
    for connect in [&first, &by_query.hear()] {
        let connect = &connect["connect"];
        assert_eq!(connect["ping"], 25, "{connect}");
        assert!(connect.get("pong").is_none() && connect["session"].is_string());
        assert_eq!(connect["subs"]["a"], json!({}));
    }
    // What comes behind it means nothing.
    by_message.say("garbage");
    by_message.say("");
    by_query.say(r#"{"subs":{}}"#);
    server.publish("a", "{}");
    for peer in [&mut by_message, &mut by_query] {
        assert_eq!(peer.hear(), json!({"channel": "a", "pub": {"data": {}}}));
    }
    server.publish("h:a", "1");
    assert_eq!(
        by_message.hear(),
        json!({"channel": "h:a", "pub": {"data": 1, "offset": 1}})
    );
    by_query.hears_nothing_more();
}

#[test]
fn check_43_bad_connect_requests_are_refused_in_one_direction() {
    let server = uni();
    for message in ["", "garbage", "[]", "{\"token\":7}", "{}{}"] {
        let mut peer = server.open_at("/connection/uni_websocket");
        peer.say(message);
        let (lines, how) = peer.hear_all();
        let last = json!({"disconnect": {"code": 3501, "reason": "bad request"}});
        assert_eq!(
            (lines, how),
            (vec![last], end(3501, "bad request")),
            "{message:?}"
        );
    }
    for query in ["", "garbage", "%5B%5D", "%7", "%7B%7D%7B"] {
        for path in ["uni_websocket", "uni_sse"] {
            let mut client = Client::raw(server.address);
            let target = format!("/connection/{path}?cf_connect={query}");
            let request = if path == "uni_sse" {
                format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
            } else {
                crate::support::upgrade_request(&target)
            };
            client.send(request.as_bytes());
            let head = client.head();
            assert!(head.starts_with("HTTP/1.1 400 "), "{target}: {head}");
        }
    }
    let off = serve(rules(&[]));
    let mut client = Client::raw(off.address);
    client.send(crate::support::upgrade_request("/connection/uni_websocket").as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 404 "));
}

#[test]
fn check_43_client_in_one_direction_is_pinged_and_need_not_answer() {
    let mut rules = rules(&[]);
    rules.client.uni_websocket = true;
    rules.client.ping_interval = Duration::from_secs(1);
    rules.client.pong_timeout = Duration::from_millis(250);
    let server = serve(rules);
    let mut peer = server.open_at("/connection/uni_websocket?cf_connect=%7B%7D");
    assert_eq!(peer.hear()["connect"]["ping"], 1);
    for _ in 0..2 {
        assert_eq!(peer.hear(), json!({}));
    }
    peer.hears_nothing_more();
}

/// The next event of a stream.
pub(crate) fn event(client: &mut Client) -> Value {
    let mut event = String::new();
    while !event.ends_with("\n\n") {
        event.push(char::from(client.read(1)[0]));
    }
    let data = event
        .strip_prefix("data: ")
        .unwrap_or_else(|| panic!("{event:?}"));
    serde_json::from_str(data).unwrap()
}

/// A stream behind its head, which is of chunks no more than of a length.
pub(crate) fn events(server: &Served, request: &str) -> Client {
    let mut client = Client::raw(server.address);
    client.send(request.as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("Content-Type: text/event-stream\r\n"),
        "{head}"
    );
    assert!(head.contains("X-Accel-Buffering: no\r\n"), "{head}");
    assert!(!head.contains("Transfer-Encoding"), "{head}");
    assert_eq!(client.read(2), b"\r\n");
    client
}

#[test]
fn check_43_events_are_a_transport_in_one_direction() {
    let server = uni();
    let query = "%7B%22subs%22:%7B%22a%22:%7B%7D%7D%7D";
    let get = format!("GET /connection/uni_sse?cf_connect={query} HTTP/1.1\r\nHost: a\r\n\r\n");
    let body = r#"{"subs":{"a":{}}}"#;
    let post = format!(
        "POST /connection/uni_sse HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let plain = "GET /connection/uni_sse HTTP/1.1\r\nHost: a\r\n\r\n";
    let [mut got, mut posted, mut nothing] =
        [&get, &post, plain].map(|request| events(&server, request));
    for (client, subs) in [(&mut got, true), (&mut posted, true), (&mut nothing, false)] {
        let connect = event(client);
        let connect = &connect["connect"];
        assert_eq!(connect["subs"].is_object(), subs, "{connect}");
        assert_eq!(connect["ping"], 25);
    }
    server.publish("a", "[\n1]");
    for client in [&mut got, &mut posted] {
        assert_eq!(event(client), json!({"channel": "a", "pub": {"data": [1]}}));
    }
    server.handle.shut_down().unwrap();
    for client in [&mut got, &mut posted, &mut nothing] {
        let last = json!({"disconnect": {"code": 3001, "reason": "shutdown"}});
        assert_eq!(event(client), last);
        assert!(client.read_to_end().is_empty());
    }
}
