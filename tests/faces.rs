//! The faces of `stentor serve`: connections with a header and without, streams of events,
//! messages by POST, who may do what, and what is told about the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::Error;
use tungstenite::http::HeaderValue;
use tungstenite::{HandshakeError, Message};

use crate::process::{
    Client, Process, Socket, connect, hear, http, read_close, say, tcp, try_connect,
};

/// A history of ten messages for all topics.
const HISTORY: [&str; 4] = ["--history-size", "10", "--history-ttl", "1h"];

fn start(arguments: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stentor"));
    command.args(["--listen", "127.0.0.1:0"]).args(arguments);
    let process = Process::start(&mut command);
    let address = process.address();
    (process, address)
}

/// A response: its status, its head and its body.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        assert!(self.has("Content-Type: application/json"), "{}", self.head);
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether this line is in the head.
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|known| known == line)
    }
}

/// Sends one request with these fields and reads the response to the end of the connection.
fn ask(address: SocketAddr, request: &str, fields: &[&str], body: &[u8]) -> Answer {
    let mut socket = tcp(address);
    write_request(&mut socket, request, fields, body);
    let mut response = Vec::new();
    socket.read_to_end(&mut response).unwrap();
    let end = response.windows(4).position(|part| part == b"\r\n\r\n");
    let body = response.split_off(end.unwrap() + 4);
    let head = String::from_utf8(response).unwrap();
    Answer {
        status: head[9..12].parse().unwrap(),
        head,
        body,
    }
}

fn write_request(socket: &mut TcpStream, request: &str, fields: &[&str], body: &[u8]) {
    let mut head = format!("{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    let length = body.len();
    if length > 0 || request.starts_with("POST") {
        let length = format!("Content-Length: {length}\r\n");
        head.push_str(&length);
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body).unwrap();
}

fn post(address: SocketAddr, topic: &str, text: &str) -> Value {
    let answer = ask(address, &format!("POST /t/{topic}"), &[], text.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A client that reads a stream of events, line by line.
struct Events {
    lines: BufReader<TcpStream>,
    head: String,
}

impl Events {
    fn open(address: SocketAddr, path: &str, fields: &[&str]) -> Self {
        let mut socket = tcp(address);
        let fields = [&["Accept: text/event-stream"], fields].concat();
        write_request(&mut socket, &format!("GET {path}"), &fields, b"");
        let mut lines = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let mut events = Self { lines, head };
        let retry = events.next();
        let millis: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((1000..=3000).contains(&millis), "{millis}");
        events
    }

    /// The lines of the next event.
    fn next(&mut self) -> String {
        let mut event = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "{event}");
            match &line[..] {
                "\n" if !event.is_empty() => return event.trim_end_matches('\n').into(),
                "\n" => {}
                comment if comment.starts_with(':') => {}
                _ => event.push_str(&line),
            }
        }
    }
}

/// Connects a foreign client with more fields in its request.
fn connect_with(
    address: SocketAddr,
    path: &str,
    fields: &[(&'static str, &str)],
) -> Result<(Client, Option<String>), u16> {
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .unwrap();
    for &(name, value) in fields {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().insert(name, value);
    }
    match tungstenite::client(request, Socket(tcp(address))) {
        Ok((client, response)) => {
            let chosen = response.headers().get("Sec-WebSocket-Protocol");
            let chosen = chosen.map(|chosen| chosen.to_str().unwrap().to_owned());
            Ok((client, chosen))
        }
        Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// What a request for a WebSocket is refused with.
fn refusal(address: SocketAddr, path: &str) -> Answer {
    let upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    ask(address, &format!("GET {path}"), &upgrade, b"")
}

/// The next message, which is JSON alone.
fn hear_json(client: &mut Client) -> Value {
    let text = hear(client);
    assert!(!text.contains('\n'), "{text:?}");
    serde_json::from_str(&text).unwrap()
}

/// The next message, which is a header and a text.
fn hear_headed(client: &mut Client) -> (Value, String) {
    let text = hear(client);
    let (header, payload) = text.split_once('\n').expect("a header");
    (serde_json::from_str(header).unwrap(), payload.into())
}

// ---- WebSockets without a header ----

#[test]
fn the_last_messages_come_first() {
    let (_process, address) = start(&HISTORY);
    for number in 1..=12 {
        post(address, "news", &number.to_string());
    }
    let mut client = connect(address, "/t/news?history=3");
    let mut all = connect(address, "/t/news?history=300");
    post(address, "news", "live");
    for expected in ["10", "11", "12", "live"] {
        assert_eq!(hear(&mut client), expected);
    }
    assert_eq!(hear(&mut all), "3", "ten are kept");
    let mut none = connect(address, "/t/news?history=0");
    post(address, "news", "later");
    assert_eq!(hear(&mut none), "later");
}

#[test]
fn who_comes_back_gets_what_it_missed_and_nothing_twice() {
    let (_process, address) = start(&HISTORY);
    let first = post(address, "news", "1");
    for number in 2..=5 {
        post(address, "news", &number.to_string());
    }
    let epoch = first["epoch"].as_str().unwrap();
    let at = |offset: u64| format!("/t/news?epoch={epoch}&offset={offset}");
    let mut client = connect(address, &at(2));
    let mut current = connect(address, &at(5));
    let mut unknown = connect(address, "/t/news?epoch=abcdEFGH&offset=2");
    let mut ahead = connect(address, &at(99));
    post(address, "news", "live");
    for expected in ["3", "4", "5", "live"] {
        assert_eq!(hear(&mut client), expected);
    }
    for client in [&mut current, &mut unknown, &mut ahead] {
        assert_eq!(hear(client), "live");
    }
    // Ten are kept: what came next to 1 is gone by now.
    for number in 7..=12 {
        post(address, "news", &number.to_string());
    }
    let mut late = connect(address, &at(1));
    post(address, "news", "again live");
    assert_eq!(hear(&mut late), "again live");
}

#[test]
fn what_was_published_meanwhile_is_neither_lost_nor_repeated() {
    let (_process, address) = start(&["--history-size=100000", "--history-ttl=1h"]);
    let mut publisher = connect(address, "/t/race?header=1");
    let epoch = hear_json(&mut publisher)["epoch"].clone();
    let mut next = 1;
    // Publications are in the same turns of the loop as those who come.
    for _ in 0..20 {
        for _ in 0..50 {
            say(&mut publisher, &next.to_string());
            next += 1;
        }
        let path = format!("/t/race?epoch={}&offset=0", epoch.as_str().unwrap());
        let mut client = connect(address, &path);
        for expected in 1..next {
            assert_eq!(hear(&mut client), expected.to_string());
        }
    }
}

/// Otherwise whoever comes back would be closed as too slow, come back and be closed again.
#[test]
fn what_does_not_fit_in_an_outbox_is_not_recovered() {
    let outbox = ["--outbox-hard=256KiB", "--outbox-soft=64KiB"];
    let (_process, address) = start(&[&HISTORY[..], &outbox].concat());
    let text = "x".repeat(60 << 10);
    let epoch = post(address, "a", &text)["epoch"].clone();
    for _ in 2..=4 {
        post(address, "a", &text);
    }
    let epoch = epoch.as_str().unwrap();
    let path = |rest: &str| format!("/t/a?header=1{rest}");
    for (query, offset, recovered) in [
        (format!("&epoch={epoch}&offset=2"), 2, json!(true)),
        (format!("&epoch={epoch}&offset=1"), 4, json!(false)),
        ("&history=10".into(), 2, Value::Null),
    ] {
        let mut client = connect(address, &path(&query));
        let subscribed = hear_json(&mut client);
        assert_eq!(subscribed["offset"], offset, "{query}");
        assert_eq!(subscribed["recovered"], recovered, "{query}");
        for offset in offset + 1..=4 {
            assert_eq!(hear_headed(&mut client).0["offset"], offset);
        }
    }
}

#[test]
fn more_patterns_than_allowed_are_closed_with_1013() {
    let (_process, address) = start(&["--max-patterns", "1"]);
    let _first = connect(address, "/t/a.*");
    let mut other = connect(address, "/t/b.*?header=1");
    assert_eq!(read_close(&mut other).0, 1013);
}

/// Somebody publishes all the time; whoever comes in between gets what was before and what is
/// after, with no gap and nothing twice.
#[test]
fn the_past_and_the_present_join_without_a_seam() {
    const COUNT: u64 = 5000;
    let (_process, address) = start(&["--history-size=100000", "--history-ttl=1h"]);
    let epoch = hear_json(&mut connect(address, "/t/a?header=1"))["epoch"].clone();
    let epoch = epoch.as_str().unwrap();
    let path = |rest: &str| format!("/t/a?epoch={epoch}&offset=0{rest}");
    std::thread::scope(|scope| {
        let mut publisher = connect(address, "/t/a");
        scope.spawn(move || {
            for number in 1..=COUNT {
                say(&mut publisher, &number.to_string());
            }
            // It hears itself to the end, so that nobody takes it for slow.
            while hear(&mut publisher) != COUNT.to_string() {}
        });
        for _ in 0..4 {
            let mut plain = connect(address, &path(""));
            let mut headed = connect(address, &path("&header=1"));
            let mut events = Events::open(address, &path(""), &[]);
            scope.spawn(move || {
                for number in 1..=COUNT {
                    assert_eq!(hear(&mut plain), number.to_string());
                }
            });
            scope.spawn(move || {
                assert_eq!(hear_json(&mut headed)["recovered"], true);
                for number in 1..=COUNT {
                    let expected = (json!({"offset": number}), number.to_string());
                    assert_eq!(hear_headed(&mut headed), expected);
                }
            });
            scope.spawn(move || {
                assert_eq!(events.next(), format!("id: {epoch}:0"));
                for number in 1..=COUNT {
                    let expected = format!("id: {epoch}:{number}\ndata: {number}");
                    assert_eq!(events.next(), expected);
                }
            });
        }
    });
}

#[test]
fn a_pattern_is_heard_and_not_published_to() {
    let (_process, address) = start(&[]);
    let mut client = connect(address, "/t/news.*");
    let mut all = connect(address, "/t/news.%3E");
    post(address, "news.sport", "one level");
    post(address, "news.sport.chess", "two levels");
    post(address, "weather", "none");
    assert_eq!(hear(&mut client), "one level");
    assert_eq!(hear(&mut all), "one level");
    assert_eq!(hear(&mut all), "two levels");
    say(&mut client, "to nobody");
    let closed = (1008, "a pattern cannot be published to".into());
    assert_eq!(read_close(&mut client), closed);
}

#[test]
fn a_parameter_that_cannot_be_used_is_named() {
    let (_process, address) = start(&["--namespace", "room: presence=yes"]);
    let long = format!("/t/a?info={}", "x".repeat(1025));
    for (path, name, how) in [
        ("/t/a?history=301", "history", "at most 300"),
        ("/t/a?history=ten", "history", "history=10"),
        ("/t/a?epoch=abcdEFGH", "epoch", "go together"),
        ("/t/a?offset=1", "offset", "go together"),
        ("/t/a?epoch=x&offset=1", "epoch", "eight letters"),
        ("/t/a?epoch=abcdEFGH&offset=-1", "offset", "number"),
        ("/t/a?header=maybe", "header", "it is 1"),
        ("/t/room:a?presence=yes&header=1", "presence", "it is 1"),
        ("/t/room:a?presence=1", "presence", "header=1"),
        ("/t/a?presence=1&header=1", "presence", "not kept"),
        ("/t/room:a.*?presence=1&header=1", "presence", "not kept"),
        ("/t/a.*?history=1", "history", "a pattern has no history"),
        ("/t/a?info=%ff", "info", "UTF-8"),
        (&long, "info", "1024"),
    ] {
        let answer = refusal(address, path);
        assert_eq!(answer.status, 400, "{path}");
        let text = answer.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(&format!("parameter {name} ")), "{text}");
        assert!(text.contains(how), "{path}: {text}");
    }
    connect(address, "/t/a?utm_source=x&history=300&info=%7B%7D&&=&x");
}

#[test]
fn names_of_the_servers_own_are_refused() {
    let (_process, address) = start(&[]);
    for path in ["/t/@presence", "/t/%40a", "/t/>", "/t/*", "/t/a.>.b"] {
        assert_eq!(refusal(address, path).status, 400, "{path}");
        let answer = ask(address, &format!("POST {path}"), &[], b"x");
        assert_eq!(answer.status, 400, "{path}");
    }
}

// ---- WebSockets with a header ----

#[test]
fn a_header_tells_what_the_payload_does_not() {
    let (_process, address) = start(&HISTORY);
    let mut client = connect(address, "/t/news?header=1");
    let subscribed = hear_json(&mut client);
    let epoch = subscribed["epoch"].as_str().unwrap().to_owned();
    assert_eq!(
        subscribed,
        json!({"subscribed": "news", "epoch": epoch, "offset": 0})
    );
    say(&mut client, "a\nb");
    assert_eq!(hear(&mut client), "{\"offset\":1}\na\nb");
    client.send(Message::binary(&b"\0\xFF"[..])).unwrap();
    let binary = Message::binary(&b"{\"offset\":2}\n\0\xFF"[..]);
    assert_eq!(client.read().unwrap(), binary);
    let tags = ["X-Stentor-Tag: a=1", "X-Stentor-Tag: \"b\" = x=y"];
    ask(address, "POST /t/news", &tags, b"tagged");
    let (header, payload) = hear_headed(&mut client);
    let tags = json!({"a": "1", "\"b\"": "x=y"});
    assert_eq!(header, json!({"offset": 3, "tags": tags}));
    assert_eq!(payload, "tagged");
    // They are kept as well.
    let mut late = connect(address, "/t/news?header=1&history=2");
    assert_eq!(hear_json(&mut late)["offset"], 1);
    assert_eq!(late.read().unwrap(), binary);
    assert_eq!(hear_headed(&mut late), (header, payload));
}

#[test]
fn without_a_history_a_header_has_no_position() {
    let (_process, address) = start(&[]);
    let mut client = connect(address, "/t/gr%C3%BC%C3%9Fe?header=1");
    assert_eq!(hear(&mut client), r#"{"subscribed":"grüße"}"#);
    say(&mut client, "x");
    assert_eq!(hear(&mut client), "{}\nx");
    let mut back = connect(address, "/t/a?header=1&epoch=abcdEFGH&offset=1");
    assert_eq!(hear(&mut back), r#"{"subscribed":"a","recovered":false}"#);
}

#[test]
fn a_header_for_a_pattern_names_the_topic() {
    let (_process, address) = start(&HISTORY);
    let mut client = connect(address, "/t/news.*?header=1");
    assert_eq!(hear(&mut client), r#"{"subscribed":"news.*"}"#);
    post(address, "news.sport", "x");
    let expected = (json!({"topic": "news.sport", "offset": 1}), "x".into());
    assert_eq!(hear_headed(&mut client), expected);
}

#[test]
fn the_first_header_says_what_was_recovered() {
    let (_process, address) = start(&HISTORY);
    let epoch = post(address, "news", "1")["epoch"].clone();
    for number in 2..=4 {
        post(address, "news", &number.to_string());
    }
    let epoch = epoch.as_str().unwrap();
    for (query, offset, recovered, past) in [
        ("", 4, None, 0),
        ("&history=2", 2, None, 2),
        (&format!("&epoch={epoch}&offset=1"), 1, Some(true), 3),
        (&format!("&epoch={epoch}&offset=4"), 4, Some(true), 0),
        (&format!("&epoch={epoch}&offset=9"), 4, Some(false), 0),
        ("&epoch=abcdEFGH&offset=1", 4, Some(false), 0),
        // Whoever asks for both wants to begin anew where it cannot go on.
        ("&epoch=abcdEFGH&offset=1&history=1", 3, Some(false), 1),
        (
            &format!("&epoch={epoch}&offset=1&history=1"),
            1,
            Some(true),
            3,
        ),
    ] {
        let mut client = connect(address, &format!("/t/news?header=1{query}"));
        let mut expected = json!({"subscribed": "news", "epoch": epoch, "offset": offset});
        if let Some(recovered) = recovered {
            expected["recovered"] = recovered.into();
        }
        assert_eq!(hear_json(&mut client), expected, "{query}");
        for offset in offset + 1..=offset + past {
            let heard = hear_headed(&mut client);
            assert_eq!(heard, (json!({"offset": offset}), offset.to_string()));
        }
        client.send(Message::Ping("over?".into())).unwrap();
        assert!(matches!(client.read(), Ok(Message::Pong(_))), "{query}");
    }
}

#[test]
fn a_subprotocol_asks_for_the_header_too() {
    let (_process, address) = start(&[]);
    let with = |offer: &str| {
        let fields = [("Sec-WebSocket-Protocol", offer)];
        connect_with(address, "/t/a", &fields).unwrap()
    };
    let (mut client, chosen) = with("other, stentor.header.v1");
    assert_eq!(chosen.as_deref(), Some("stentor.header.v1"));
    assert_eq!(hear(&mut client), r#"{"subscribed":"a"}"#);
}

/// A subscriber that does not read, until something was dropped for it; then what it gets.
#[test]
fn who_is_slow_is_told_what_was_lost() {
    let (_process, address) = start(&["--slow", "drop-newest", "--max-queued", "64KiB"]);
    let mut client = connect(address, "/t/flood?header=1");
    assert_eq!(hear_json(&mut client)["subscribed"], "flood");
    let mut events = Events::open(address, "/t/flood", &[]);
    // 32 MiB: more than sockets of both ends hold.
    let text = "x".repeat(64 << 10);
    let sent = 512;
    let mut publisher = connect(address, "/t/flood.done");
    let mut socket = tcp(address);
    for _ in 0..sent {
        let length = text.len();
        let request =
            format!("POST /t/flood HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        read_response(&mut socket);
    }
    say(&mut publisher, "done");
    let (mut heard, mut lost) = (0, 0);
    while heard + lost < sent {
        let text = hear(&mut client);
        match text.strip_prefix(r#"{"lost":"#) {
            Some(count) => lost += count.strip_suffix('}').unwrap().parse::<u64>().unwrap(),
            None => heard += 1,
        }
    }
    assert!(lost > 0 && heard > 0, "{heard} heard, {lost} lost");
    assert_eq!(heard + lost, sent);
    let (mut heard, mut lost) = (0, 0);
    while heard + lost < sent {
        let event = events.next();
        match event.strip_prefix("event: lost\ndata: ") {
            Some(count) => lost += count.parse::<u64>().unwrap(),
            None => heard += 1,
        }
    }
    assert!(lost > 0 && heard > 0, "{heard} heard, {lost} lost");
    let metrics = String::from_utf8(ask(address, "GET /metrics", &[], b"").body).unwrap();
    assert!(!metrics.contains("stentor_messages_lost_total{reason=\"newest\"} 0\n"));
}

/// Reads a response with a body of known length from a connection that goes on.
fn read_response(socket: &mut TcpStream) {
    let mut response = Vec::new();
    let mut byte = [0];
    while !response.ends_with(b"}") {
        socket.read_exact(&mut byte).unwrap();
        response.push(byte[0]);
    }
    assert!(response.starts_with(b"HTTP/1.1 200 "), "{response:?}");
}

// ---- presence ----

#[test]
fn those_who_want_to_know_learn_who_comes_and_goes() {
    let (_process, address) = start(&["--presence", "yes"]);
    let path = |info: &str| format!("/t/room?header=1&presence=1&info={info}");
    let mut anna = connect(address, &path("%7B%22name%22:%22Anna%22%7D"));
    assert_eq!(hear_json(&mut anna), json!({"subscribed": "room"}));
    let present = hear_json(&mut anna);
    let first = &present["present"][0];
    assert_eq!(first["info"], json!({"name": "Anna"}));
    assert!(first["since"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(present["present"].as_array().unwrap().len(), 1);

    let mut bert = connect(address, &path("Bert+the+2nd"));
    let joined = hear_json(&mut anna)["joined"].clone();
    assert_eq!(joined["info"], "Bert the 2nd");
    hear_json(&mut bert);
    let present = hear_json(&mut bert)["present"].clone();
    assert_eq!(present[0], *first);
    assert_eq!(present[1]["id"], joined["id"]);

    // Those who do not ask are there as well.
    let carl = connect(address, "/t/room");
    let joined = hear_json(&mut bert)["joined"].clone();
    assert_eq!(joined["info"], Value::Null);
    assert_eq!(hear_json(&mut anna)["joined"], joined);
    drop(carl);
    assert_eq!(hear_json(&mut anna), json!({"left": joined}));
    assert_eq!(hear_json(&mut bert), json!({"left": joined}));
    let events = Events::open(address, "/t/room?info=7", &[]);
    assert_eq!(hear_json(&mut anna)["joined"]["info"], 7);
    drop(events);
    assert_eq!(hear_json(&mut anna)["left"]["info"], 7);

    // Messages come between, with their headers; another room is another one.
    let mut elsewhere = connect(address, "/t/other?header=1&presence=1");
    hear_json(&mut elsewhere);
    say(&mut bert, "hello");
    assert_eq!(hear(&mut anna), "{}\nhello");
    bert.close(None).unwrap();
    assert_eq!(hear_json(&mut anna)["left"]["id"], present[1]["id"]);
    let there = hear_json(&mut elsewhere)["present"].clone();
    assert_eq!(there.as_array().unwrap().len(), 1);
}

// ---- POST ----

#[test]
fn a_body_is_published_as_its_type_says() {
    let (_process, address) = start(&[]);
    let mut client = connect(address, "/t/a");
    for (fields, body, expected) in [
        (&[][..], &b"plain"[..], Message::text("plain")),
        (
            &["Content-Type: text/plain"],
            b"text",
            Message::text("text"),
        ),
        (
            &["Content-Type: text/csv; charset=utf-8"],
            "ü".as_bytes(),
            Message::text("ü"),
        ),
        (
            &["Content-Type: application/json"],
            b"{not json",
            Message::text("{not json"),
        ),
        (
            &["Content-Type: application/octet-stream"],
            b"\0\xFF",
            Message::binary(&b"\0\xFF"[..]),
        ),
        (
            &["Content-Type: image/png"],
            b"text",
            Message::binary(&b"text"[..]),
        ),
        (&[], b"", Message::text("")),
    ] {
        let answer = ask(address, "POST /t/a", fields, body);
        assert_eq!(answer.status, 200, "{fields:?}: {answer:?}");
        assert_eq!(answer.json(), json!({"subscribers": 1}));
        assert!(answer.has("Cache-Control: no-store"));
        assert_eq!(client.read().unwrap(), expected);
    }
    let answer = ask(address, "POST /t/a", &[], b"\xFF");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("not UTF-8"), "{}", answer.text());
    let large = vec![b'a'; (64 << 10) + 1];
    let answer = ask(address, "POST /t/a", &[], &large[1..]);
    assert_eq!(answer.status, 200);
    assert_eq!(hear(&mut client).len(), 64 << 10);
    let mut socket = tcp(address);
    let head = "POST /t/a HTTP/1.1\r\nHost: test\r\nContent-Length: 65537\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");

    let (_process, address) = start(&["--max-message-size", "1MiB"]);
    let answer = ask(address, "POST /t/a", &[], &vec![b'a'; 1 << 20]);
    assert_eq!(answer.status, 200);
}

#[test]
fn the_answer_to_a_post_says_where_the_message_stands() {
    let (_process, address) = start(&HISTORY);
    let _one = connect(address, "/t/a");
    let _pattern = connect(address, "/t/a");
    let first = post(address, "a", "1");
    assert_eq!(
        (&first["subscribers"], &first["offset"]),
        (&json!(2), &json!(1))
    );
    let key = ["Idempotency-Key: order-17"];
    let once = ask(address, "POST /t/a", &key, b"2").json();
    assert_eq!(once["offset"], 2);
    assert_eq!(once["epoch"], first["epoch"]);
    assert_eq!(ask(address, "POST /t/a", &key, b"2").json(), once);
    assert_eq!(post(address, "a", "3")["offset"], 3);
    // The lobby has two paths.
    let lobby = ask(address, "POST /", &[], b"x").json();
    assert_eq!(post(address, "lobby", "y")["epoch"], lobby["epoch"]);
}

#[test]
fn a_post_that_is_wrong_is_told_why() {
    let (_process, address) = start(&[]);
    let long_key = format!("Idempotency-Key: {}", "x".repeat(256));
    let long_tag = format!("X-Stentor-Tag: a={}", "x".repeat(1024));
    for (path, fields, why) in [
        ("/t/a.*", vec![], "patterns"),
        ("/t/a.%3E", vec![], "patterns"),
        ("/t/a", vec!["X-Stentor-Tag: name"], "name=value"),
        ("/t/a", vec!["X-Stentor-Tag: =value"], "name=value"),
        ("/t/a", vec!["X-Stentor-Tag: a=1"; 17], "16 tags"),
        ("/t/a", vec![&long_tag[..]], "1024 bytes"),
        ("/t/a", vec![&long_key[..]], "255 bytes"),
        ("/t/a", vec!["Idempotency-Key:"], "255 bytes"),
    ] {
        let answer = ask(address, &format!("POST {path}"), &fields, b"x");
        assert_eq!(answer.status, 400, "{path} {fields:?}");
        assert_eq!(answer.text().lines().count(), 1);
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    assert_eq!(ask(address, "POST /metrics", &[], b"x").status, 405);
    assert_eq!(ask(address, "DELETE /t/a", &[], b"").status, 405);
    let options = ask(address, "OPTIONS /t/a", &[], b"");
    assert_eq!(options.status, 204);
    assert!(options.has("Allow: GET, HEAD, POST, OPTIONS"));
    let options = ask(address, "OPTIONS /topics", &[], b"");
    assert!(options.status == 204 && options.has("Allow: GET, HEAD, OPTIONS"));
}

// ---- events ----

#[test]
fn a_topic_is_a_stream_of_events() {
    let (_process, address) = start(&[]);
    let mut events = Events::open(address, "/t/a", &[]);
    for line in [
        "Content-Type: text/event-stream",
        "Cache-Control: no-store",
        "X-Accel-Buffering: no",
    ] {
        assert!(events.head.contains(&format!("\r\n{line}\r\n")), "{line}");
    }
    let mut client = connect(address, "/t/a");
    for (text, event) in [
        ("one line", "data: one line"),
        ("a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d"),
        ("", "data: "),
        ("id: 7\n\n", "data: id: 7\ndata: \ndata: "),
    ] {
        say(&mut client, text);
        assert_eq!(events.next(), event, "{text:?}");
    }
    let bytes: Vec<u8> = (0..=255).collect();
    let encoded = STANDARD.encode(&bytes);
    client.send(Message::binary(bytes)).unwrap();
    assert_eq!(events.next(), format!("event: binary\ndata: {encoded}"));
    for accept in ["text/html, Text/Event-Stream;q=0.9", "text/event-stream"] {
        let accept = format!("Accept: {accept}");
        let mut socket = tcp(address);
        write_request(&mut socket, "GET /", &[&accept], b"");
        let mut lines = BufReader::new(socket).lines();
        let head = lines.by_ref().map(Result::unwrap);
        let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
        assert!(head.contains(&"Content-Type: text/event-stream".into()));
    }
    let page = ask(address, "HEAD /t/a", &["Accept: text/event-stream"], b"");
    assert!(page.has("Content-Type: text/html; charset=utf-8"));
}

#[test]
fn a_stream_of_events_goes_on_where_it_was_interrupted() {
    let (_process, address) = start(&HISTORY);
    let epoch = post(address, "a", "1")["epoch"].clone();
    let epoch = epoch.as_str().unwrap();
    post(address, "a", "2\nlines");
    let mut events = Events::open(address, "/t/a", &[]);
    assert_eq!(events.next(), format!("id: {epoch}:2"));
    post(address, "a", "3");
    assert_eq!(events.next(), format!("id: {epoch}:3\ndata: 3"));
    drop(events);

    let last = format!("Last-Event-ID: {epoch}:1");
    let mut by_field = Events::open(address, "/t/a?history=1", &[&last]);
    let mut by_query = Events::open(address, &format!("/t/a?last-event-id={epoch}%3A1"), &[]);
    let mut by_position = Events::open(address, &format!("/t/a?epoch={epoch}&offset=1"), &[]);
    post(address, "a", "4");
    for events in [&mut by_field, &mut by_query, &mut by_position] {
        assert_eq!(events.next(), format!("id: {epoch}:1"));
        let missed = format!("id: {epoch}:2\ndata: 2\ndata: lines");
        assert_eq!(events.next(), missed);
        assert_eq!(events.next(), format!("id: {epoch}:3\ndata: 3"));
        assert_eq!(events.next(), format!("id: {epoch}:4\ndata: 4"));
    }
    let mut past = Events::open(address, "/t/a?history=2", &[]);
    assert_eq!(past.next(), format!("id: {epoch}:2"));
    assert_eq!(past.next(), format!("id: {epoch}:3\ndata: 3"));
    for last in ["abcdEFGH:1", "gibberish", "\u{ff}"] {
        let last = format!("Last-Event-ID: {last}");
        let mut events = Events::open(address, "/t/a", &[&last]);
        let reset = format!("event: reset\nid: {epoch}:4\ndata: {epoch}:4");
        assert_eq!(events.next(), reset);
    }
}

#[test]
fn a_shutdown_ends_streams_of_events_in_order() {
    let (mut process, address) = start(&[]);
    let mut events = Events::open(address, "/t/a", &[]);
    post(address, "a", "the last one");
    let id = i32::try_from(process.id()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    assert_eq!(events.next(), "data: the last one");
    let mut rest = String::new();
    events.lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    drop(events);
    assert_eq!(process.wait().0.code(), Some(0));
}

#[test]
fn events_without_a_history_have_no_ids() {
    let (_process, address) = start(&["--namespace", "kept.*: history-size=9, history-ttl=1h"]);
    let mut events = Events::open(address, "/t/a", &["Last-Event-ID: abcdEFGH:1"]);
    assert_eq!(events.next(), "event: reset\ndata: ");
    let mut of_pattern = Events::open(address, "/t/kept.*", &["Last-Event-ID: abcdEFGH:1"]);
    post(address, "a", "x");
    post(address, "kept.a", "y");
    assert_eq!(events.next(), "data: x");
    assert_eq!(of_pattern.next(), "data: y");
    let bad = ask(
        address,
        "GET /t/a?last-event-id=7",
        &["Accept: text/event-stream"],
        b"",
    );
    assert_eq!(bad.status, 400);
    assert!(bad.text().contains("EPOCH:OFFSET"), "{}", bad.text());
}

// ---- who may ----

#[test]
fn cat_168_who_may_not_publish_is_told_so() {
    let namespaces = "open: publish=anyone;closed: subscribe=nobody";
    let (_process, address) = start(&["--publish=nobody", "--namespace", namespaces]);
    for (topic, may_publish, may_subscribe) in [
        ("a", false, true),
        ("open:a", true, true),
        ("closed:a", false, false),
    ] {
        let answer = ask(address, &format!("POST /t/{topic}"), &[], b"x");
        assert_eq!(answer.status == 200, may_publish, "{topic}: {answer:?}");
        let path = format!("/t/{topic}");
        let stream = ["Accept: text/event-stream"];
        if !may_publish {
            assert_eq!(answer.status, 403);
            assert_eq!(answer.text(), "Publishing is not allowed here.\n");
        }
        if !may_subscribe {
            assert_eq!(try_connect(address, &path).err(), Some(403));
            let answer = ask(address, &format!("GET {path}"), &stream, b"");
            assert_eq!(answer.status, 403);
            assert_eq!(answer.text(), "Subscribing is not allowed here.\n");
            continue;
        }
        Events::open(address, &path, &[]);
        let mut client = connect(address, &path);
        say(&mut client, "x");
        if may_publish {
            assert_eq!(hear(&mut client), "x");
        } else {
            let closed = (1008, "publishing is not allowed here".into());
            assert_eq!(read_close(&mut client), closed);
        }
    }
    // A pattern could match what is closed.
    assert_eq!(try_connect(address, "/t/*.a").err(), Some(403));
    connect(address, "/t/open:a.*");
}

#[test]
fn what_is_open_is_said_at_the_start() {
    for (arguments, access) in [
        (&[][..], "(publish: anyone, subscribe: anyone)"),
        (
            &["--publish=nobody"],
            "(publish: nobody, subscribe: anyone)",
        ),
        (
            &["--subscribe=nobody", "--namespace=a: subscribe=anyone"],
            "(publish: anyone, subscribe: nobody but in namespaces)",
        ),
        (
            &["--listen", "0.0.0.0:0"],
            "(publish: nobody, subscribe: anyone)",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stentor"));
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let line = Process::start(&mut command).line();
        assert!(line.ends_with(access), "{line}");
    }
}

#[test]
fn pages_of_other_origins_are_let_in_by_name() {
    let good = "https://example.com";
    let others = "--allow-origin=http://B:8080,https://*.example.com";
    let (_process, address) = start(&["--allow-origin", good, others]);
    let stream = "Accept: text/event-stream";
    let ws = |origin: &str| connect_with(address, "/t/a", &[("Origin", origin)]).err();
    for (origin, is_allowed) in [
        (good, true),
        ("http://b:8080", true),
        ("HTTPS://EXAMPLE.COM", true),
        ("https://a.b.example.com", true),
        ("http://example.com", false),
        ("https://example.com:8443", false),
        ("https://badexample.com", false),
        ("http://localhost:3000", false),
        ("null", false),
    ] {
        let refused = (!is_allowed).then_some(403);
        assert_eq!(ws(origin), refused, "{origin}");
        let origin_field = format!("Origin: {origin}");
        let allow = format!("Access-Control-Allow-Origin: {origin}");
        let answer = ask(address, "POST /t/a", &[&origin_field], b"x");
        assert_eq!(answer.status, refused.unwrap_or(200), "{origin}");
        assert_eq!(answer.has(&allow), is_allowed, "{origin}");
        assert!(answer.has("Vary: Origin"));
        let preflight = ask(address, "OPTIONS /t/a", &[&origin_field], b"");
        assert_eq!(preflight.has(&allow), is_allowed, "{origin}");
        let methods = preflight.has("Access-Control-Allow-Methods: GET, HEAD, POST");
        assert_eq!(methods, is_allowed, "{origin}");
        if is_allowed {
            let events = Events::open(address, "/t/a", &[&origin_field]);
            assert!(events.head.contains(&allow), "{}", events.head);
        } else {
            let answer = ask(address, "GET /t/a", &[stream, &origin_field], b"");
            assert_eq!(answer.status, 403, "{origin}");
        }
    }
    let own = format!("http://{address}");
    connect_with(address, "/t/a", &[("Origin", &own)]).unwrap();
    // Whoever is no browser says none.
    connect(address, "/t/a");
    post(address, "a", "x");
}

#[test]
fn all_origins_may_be_let_in() {
    let origin = "Origin: https://example.com";
    let (_process, address) = start(&["--allow-origin=*"]);
    let answer = ask(address, "POST /t/a", &[origin], b"x");
    assert!(answer.status == 200 && answer.has("Access-Control-Allow-Origin: *"));
}

/// Otherwise any page could publish to a server that only listens on loopback.
#[test]
fn without_a_list_pages_of_this_machine_are_let_in() {
    let (_process, address) = start(&[]);
    let own = format!("http://{address}");
    for (origin, is_allowed) in [
        (own.as_str(), true),
        ("http://localhost:3000", true),
        ("https://[::1]", true),
        ("https://example.com", false),
        ("null", false),
    ] {
        let field = format!("Origin: {origin}");
        let ws = connect_with(address, "/t/a", &[("Origin", origin)]);
        assert_eq!(ws.err(), (!is_allowed).then_some(403), "{origin}");
        let answer = ask(address, "POST /t/a", &[&field], b"x");
        assert_eq!(
            answer.status,
            if is_allowed { 200 } else { 403 },
            "{origin}"
        );
        let preflight = ask(address, "OPTIONS /t/a", &[&field], b"");
        for answer in [answer, preflight] {
            let head = answer.head;
            assert_eq!(head.contains("Access-Control"), is_allowed, "{head}");
        }
    }
}

// ---- what is told about the server ----

#[test]
fn the_overview_lists_the_largest_topics_first() {
    let (_process, address) = start(&["--presence=yes"]);
    let _clients = ["/t/b", "/t/a", "/t/c", "/t/b", "/t/x.*"].map(|path| connect(address, path));
    let mut watcher = connect(address, "/t/c?header=1&presence=1");
    hear_json(&mut watcher);
    hear_json(&mut watcher);
    post(address, "b", "counted");
    let answer = ask(address, "GET /topics", &[], b"");
    let overview = answer.json();
    let topics = json!([
        {"name": "b", "subscribers": 2, "published": 1},
        {"name": "c", "subscribers": 2, "published": 0},
        {"name": "a", "subscribers": 1, "published": 0},
    ]);
    assert_eq!(overview["topics"], topics);
    assert_eq!(overview["total"], 3);
    assert_eq!(overview["connections"], 7, "this one included");
    for counter in ["messages_in", "messages_out", "bytes_in", "bytes_out"] {
        assert!(overview[counter].is_u64(), "{counter}");
    }
    let (_process, address) = start(&["--overview=nobody"]);
    assert_eq!(ask(address, "GET /topics", &[], b"").status, 403);
}

#[test]
fn the_overview_is_cut_at_200_topics() {
    let (_process, address) = start(&[]);
    let _clients: Vec<Client> = (0..201)
        .map(|number| connect(address, &format!("/t/n{number:03}")))
        .collect();
    let overview = ask(address, "GET /topics", &[], b"").json();
    assert_eq!(overview["total"], 201);
    let topics = overview["topics"].as_array().unwrap();
    assert_eq!(topics.len(), 200);
    assert_eq!(topics[199]["name"], "n199");
}

const HEALTH: [&str; 4] = ["/livez", "/readyz", "/healthz", "/health"];

#[test]
fn health_and_numbers_are_told() {
    let (_process, address) = start(&[]);
    let _client = connect(address, "/t/a");
    for path in HEALTH {
        let answer = ask(address, &format!("GET {path}"), &[], b"");
        assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{path}");
        let head = http(address, "HEAD", path);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}");
    }
    let metrics = ask(address, "GET /metrics", &[], b"");
    let version = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(metrics.has(version), "{}", metrics.head);
    let text = metrics.text();
    for sample in [
        "stentor_websockets 1",
        "stentor_topics 1",
        "stentor_websockets_opened_total 1",
        "stentor_http_requests_total 8",
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample}: {text}");
    }
    assert!(text.contains("stentor_turn_seconds_bucket{le=\"+Inf\"}"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn those_who_run_the_server_may_have_an_address_of_their_own() {
    let (process, address) = start(&["--admin-listen", "127.0.0.1:0"]);
    let line = process.line();
    assert!(line.contains(" answers /livez, /readyz and /metrics at http://127.0.0.1:"));
    let (_, admin) = line.rsplit_once("http://").unwrap();
    let admin: SocketAddr = admin.trim_end_matches('/').parse().unwrap();
    for path in HEALTH.iter().chain(&["/metrics", "/"]) {
        let request = format!("GET {path}");
        assert_eq!(ask(admin, &request, &[], b"").status, 200, "{path}");
        assert_eq!(ask(address, &request, &[], b"").status, 404, "{path}");
    }
    for path in ["/t/a", "/topics"] {
        let request = format!("GET {path}");
        assert_eq!(ask(admin, &request, &[], b"").status, 404, "{path}");
        assert_eq!(ask(address, &request, &[], b"").status, 200, "{path}");
    }
    assert_eq!(ask(admin, "POST /t/a", &[], b"x").status, 404);
    assert_eq!(try_connect(admin, "/t/a").err(), Some(404));
    connect(address, "/t/a");
}
