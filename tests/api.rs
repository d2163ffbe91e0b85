//! The HTTP API and what the connections of a user see of it.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use stentor::broadcast::hooks::{Answer, Ask, ConnectRequest, Connected, Hooks};
use stentor::broadcast::{ApiOptions, Broadcast, ChannelOptions, Origins, Rules};
use stentor::topic::Namespaces;
use stentor::{Config, Endpoint, Handle, Server, TopicOptions};

use crate::support::{Client, PATIENCE, TEXT};

/// A token is the name of the user.
struct Trusting;

impl Hooks for Trusting {
    fn connect(&mut self, request: &ConnectRequest<'_>, _: Ask<Connected>) -> Answer<Connected> {
        Answer::Now(Ok(Connected {
            user: request.token.to_owned(),
            info: format!("{{\"name\":\"{}\"}}", request.token),
            ..Connected::default()
        }))
    }
}

/// An application that answers the API without a key. Channels in `kept` have a history and a
/// presence.
struct Service {
    address: SocketAddr,
    handle: Handle<Broadcast>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start() -> Self {
        let (sender, receiver) = mpsc::channel();
        // It does not leave the thread in which it is made.
        let thread = std::thread::spawn(move || {
            let mut config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
            let rules = rules();
            rules.configure(&mut config);
            let application = Broadcast::new(rules).unwrap().with_hooks(Trusting);
            let server = Server::bind(config, application).unwrap();
            let started = (server.endpoints()[0].clone(), server.handle());
            sender.send(started).unwrap();
            server.run().unwrap();
        });
        let (endpoint, handle) = receiver.recv_timeout(PATIENCE).unwrap();
        let Endpoint::Tcp(address) = endpoint else {
            panic!("a TCP endpoint")
        };
        Self {
            address,
            handle,
            thread: Some(thread),
        }
    }

    fn post(&self, method: &str, fields: &str, body: &str) -> String {
        let mut client = Client::raw(self.address);
        let len = body.len();
        let request = format!(
            "POST /api/{method} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\
             Content-Length: {len}\r\n\r\n{body}"
        );
        client.send(request.as_bytes());
        String::from_utf8(client.read_to_end()).unwrap()
    }

    /// What a method answers with 200.
    fn ask(&self, method: &str, body: &str) -> String {
        let response = self.post(method, "", body);
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        body.to_owned()
    }

    /// The same where a result says nothing more.
    fn act(&self, method: &str, body: &str) {
        assert_eq!(self.ask(method, body), r#"{"result":{}}"#, "{method}");
    }

    /// A client of the protocol that has connected.
    fn connect(&self, user: &str) -> Member {
        let mut member = Member {
            client: Client::open(self.address, "/connection/websocket"),
            lines: Vec::new(),
            id: String::new(),
        };
        member.send(&format!(
            "{{\"id\":1,\"connect\":{{\"token\":\"{user}\"}}}}"
        ));
        let reply = member.line();
        let id = reply.split_once("\"client\":\"").unwrap().1;
        id[..36].clone_into(&mut member.id);
        member
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn rules() -> Rules {
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
    Rules {
        channels,
        api: ApiOptions {
            insecure: true,
            ..ApiOptions::default()
        },
        origins: Origins::new(vec!["https://a.example".into()]),
        ..Rules::default()
    }
}

struct Member {
    client: Client,
    /// Those that have come and were not looked at, the last one first.
    lines: Vec<String>,
    id: String,
}

impl Member {
    fn send(&mut self, command: &str) {
        self.client.frame(TEXT, command.as_bytes());
    }

    /// The next reply or push.
    fn line(&mut self) -> String {
        loop {
            match self.lines.pop() {
                Some(line) if line == "{}" => {} // A ping.
                Some(line) => return line,
                None => {
                    let (first, payload) = self.client.read_frame();
                    assert_eq!(first, TEXT, "{payload:?}");
                    let text = String::from_utf8(payload).unwrap();
                    self.lines = text.lines().rev().map(str::to_owned).collect();
                }
            }
        }
    }

    /// The code and the reason with which the connection ends.
    fn end(&mut self) -> (u16, String) {
        assert!(self.lines.is_empty(), "{:?}", self.lines);
        let (first, payload) = self.client.read_frame();
        assert_eq!(first, crate::support::CLOSE, "{payload:?}");
        let code = u16::from_be_bytes(*payload.first_chunk().unwrap());
        (code, String::from_utf8(payload[2..].to_vec()).unwrap())
    }

    /// Nothing was said to it: what comes next is the answer to what it asks now.
    fn assert_silent(&mut self) {
        self.send(r#"{"id":99,"unsubscribe":{"channel":"none"}}"#);
        assert_eq!(self.line(), r#"{"id":99,"unsubscribe":{}}"#);
    }
}

/// Takes the epoch, which is random, out of a text.
fn without_epoch(text: &str) -> String {
    let mut parts = text.split("\"epoch\":\"");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + part.split_once('"').unwrap().1)
}

#[test]
fn a_publication_reaches_those_who_are_subscribed_in_any_way() {
    let service = Service::start();
    let mut member = service.connect("42");
    service.act("subscribe", r#"{"user":"42","channel":"news"}"#);
    assert_eq!(
        member.line(),
        r#"{"push":{"channel":"news","subscribe":{}}}"#
    );
    let mut raw = Client::open(service.address, "/t/news");
    // The head of the answer comes before it is subscribed, the answer of the API behind that.
    let one_is_there = r#"{"result":{"channels":{"news":{"num_clients":2}}}}"#;
    assert_eq!(
        service.ask("channels", r#"{"pattern":"n?ws"}"#),
        one_is_there
    );
    let data = "{\"n\":12345678901234567890,\n\"t\":\"ü\"}";
    let publish = format!("{{\"channel\":\"news\",\"data\":{data},\"tags\":{{\"a\":\"b\"}}}}");
    service.act("publish", &publish);
    let publication = r#"{"data":{"n":12345678901234567890,"t":"ü"},"tags":{"a":"b"}}"#;
    let push = format!("{{\"push\":{{\"channel\":\"news\",\"pub\":{publication}}}}}");
    assert_eq!(member.line(), push);
    assert_eq!(raw.read_frame(), (TEXT, data.into()));
    service.act("publish", r#"{"channel":"news","b64data":"/w=="}"#);
    let push = r#"{"push":{"channel":"news","pub":{"data":"/w=="}}}"#;
    assert_eq!(member.line(), push);
    assert_eq!(raw.read_frame(), (crate::support::BINARY, b"\xff".to_vec()));
}

#[test]
fn the_order_of_requests_is_that_of_publications() {
    let service = Service::start();
    let mut member = service.connect("42");
    service.act("subscribe", r#"{"user":"42","channel":"a"}"#);
    service.act("subscribe", r#"{"user":"42","channel":"b"}"#);
    member.line();
    member.line();
    let publish =
        |channel, n| format!("{{\"publish\":{{\"channel\":\"{channel}\",\"data\":{n}}}}}");
    let commands: Vec<String> = (0..20).map(|n| publish(["a", "b"][n % 2], n)).collect();
    let batch = format!("{{\"commands\":[{}]}}", commands.join(","));
    let replies = vec![r#"{"publish":{}}"#; 20].join(",");
    assert_eq!(
        service.ask("batch", &batch),
        format!("{{\"replies\":[{replies}]}}")
    );
    for n in 0..20 {
        let channel = ["a", "b"][n % 2];
        let push = format!("{{\"push\":{{\"channel\":\"{channel}\",\"pub\":{{\"data\":{n}}}}}}}");
        assert_eq!(member.line(), push);
    }
}

#[test]
fn a_user_is_subscribed_and_unsubscribed_with_all_connections_or_one() {
    let service = Service::start();
    let (mut first, mut second) = (service.connect("42"), service.connect("42"));
    let mut other = service.connect("43");
    let subscribe = r#"{"user":"42","channel":"a","data":{"hello":1}}"#;
    service.act("subscribe", subscribe);
    let push = r#"{"push":{"channel":"a","subscribe":{"data":{"hello":1}}}}"#;
    assert_eq!((first.line(), second.line()), (push.into(), push.into()));
    let again = r#"{"error":{"code":100,"message":"internal server error"}}"#;
    assert_eq!(service.ask("subscribe", subscribe), again);
    let one = format!(
        "{{\"user\":\"42\",\"client\":\"{}\",\"channel\":\"a\"}}",
        first.id
    );
    service.act("unsubscribe", &one);
    let push = concat!(
        r#"{"push":{"channel":"a","unsubscribe":"#,
        r#"{"code":2000,"reason":"server unsubscribe"}}}"#
    );
    assert_eq!(first.line(), push);
    service.act("publish", r#"{"channel":"a","data":1}"#);
    let publication = r#"{"push":{"channel":"a","pub":{"data":1}}}"#;
    assert_eq!(second.line(), publication);
    first.assert_silent();
    other.assert_silent();
}

#[test]
fn a_subscription_brings_what_was_missed() {
    let service = Service::start();
    let mut member = service.connect("42");
    for n in 1..=3 {
        service.ask(
            "publish",
            &format!("{{\"channel\":\"kept:a\",\"data\":{n}}}"),
        );
    }
    let subscribe = concat!(
        r#"{"user":"42","channel":"kept:a","recover_since":{"offset":1},"#,
        r#""override":{"force_recovery":{"value":true}}}"#
    );
    service.act("subscribe", subscribe);
    let push = member.line();
    assert!(push.contains(r#""offset":1,"positioned":true"#), "{push}");
    for n in [2, 3] {
        let publication =
            format!(r#"{{"push":{{"channel":"kept:a","pub":{{"data":{n},"offset":{n}}}}}}}"#);
        assert_eq!(member.line(), publication);
    }
}

#[test]
fn connections_are_ended_but_for_those_that_are_listed() {
    let service = Service::start();
    let (mut first, mut kept) = (service.connect("42"), service.connect("42"));
    let mut other = service.connect("43");
    let leave = format!("{{\"user\":\"42\",\"whitelist\":[\"{}\"]}}", kept.id);
    service.act("disconnect", &leave);
    assert_eq!(first.end(), (3503, "force disconnect".into()));
    kept.assert_silent();
    let own = r#"{"user":"43","disconnect":{"code":4321,"reason":"no room"}}"#;
    service.act("disconnect", own);
    assert_eq!(other.end(), (4321, "no room".into()));
    service.act(
        "disconnect",
        &format!("{{\"user\":\"42\",\"session\":\"{}\"}}", kept.id),
    );
    assert_eq!(kept.end(), (3503, "force disconnect".into()));
}

#[test]
fn connections_get_more_time_or_none() {
    let service = Service::start();
    let mut member = service.connect("42");
    service.act("refresh", r#"{"user":"42","expire_at":99999999999}"#);
    let push = member.line();
    let start = r#"{"push":{"refresh":{"expires":true,"ttl":"#;
    assert!(push.starts_with(start), "{push}");
    service.act("refresh", r#"{"user":"42"}"#);
    assert_eq!(member.line(), r#"{"push":{"refresh":{}}}"#);
    service.act("refresh", r#"{"user":"42","expired":true}"#);
    assert_eq!(member.end(), (3005, "connection expired".into()));
}

#[test]
fn who_is_there_is_told() {
    let service = Service::start();
    let (first, second) = (service.connect("42"), service.connect("42"));
    let subscribe = r#"{"user":"42","channel":"kept:a","info":{"role": "chair"}}"#;
    service.act("subscribe", subscribe);
    let _raw = Client::open(service.address, "/t/kept:a?info=Ann");
    let stats = service.ask("presence_stats", r#"{"channel":"kept:a"}"#);
    assert_eq!(stats, r#"{"result":{"num_clients":3,"num_users":2}}"#);
    let presence = service.ask("presence", r#"{"channel":"kept:a"}"#);
    for Member { id, .. } in [&first, &second] {
        let listed = format!(
            "\"{id}\":{{\"client\":\"{id}\",\"user\":\"42\",\"conn_info\":{{\"name\":\"42\"}},\
             \"chan_info\":{{\"role\": \"chair\"}}}}"
        );
        assert!(presence.contains(&listed), "{presence}");
    }
    let stranger = r#""user":"","conn_info":"Ann"}"#;
    assert!(presence.contains(stranger), "{presence}");
    let info = service.ask("info", "{}");
    let counts = r#""num_clients":2,"num_users":1,"num_channels":1,"num_subs":3,"#;
    assert!(info.contains(counts), "{info}");
}

#[test]
fn a_history_is_read_and_removed() {
    let service = Service::start();
    let published = service.ask("publish", r#"{"channel":"kept:a","data":[1]}"#);
    assert_eq!(without_epoch(&published), r#"{"result":{"offset":1,}}"#);
    let all = r#"{"channel":"kept:a","limit":-1}"#;
    let kept = r#"{"result":{"publications":[{"data":[1],"offset":1}],"offset":1}}"#;
    assert_eq!(
        without_epoch(&service.ask("history", all)).replace(",,", ","),
        kept
    );
    service.act("history_remove", r#"{"channel":"kept:a"}"#);
    let removed = r#"{"result":{"publications":[],"offset":1}}"#;
    assert_eq!(
        without_epoch(&service.ask("history", all)).replace(",,", ","),
        removed
    );
}

#[test]
fn pages_of_other_origins_do_not_use_the_api() {
    let service = Service::start();
    let status = |fields| service.post("info", fields, "{}")[9..12].to_owned();
    assert_eq!(status("Origin: https://a.example\r\n"), "200");
    assert_eq!(status("Origin: https://b.example\r\n"), "403");
}
