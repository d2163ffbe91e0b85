//! The hooks against a backend on a socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use stentor::{ConnectionId, Waker};

use super::super::Refusal;
use super::super::{Answers, Outcome, Outcomes, Overrides, Ticket};
use super::*;

/// For what must come; nothing waits so long when all is well.
const DEADLINE: Duration = Duration::from_secs(20);

// ---- a backend ----

/// A request that the backend has read.
#[derive(Debug)]
struct Asked {
    /// Counted from 0.
    connection: usize,
    line: String,
    /// Names in lower case, in order.
    headers: Vec<(String, String)>,
    body: String,
}

/// An HTTP server that tells what it is asked, and is told the bytes of each answer; without any,
/// it stays silent until the other side closes.
struct Backend {
    address: SocketAddr,
    asked: Receiver<(Asked, Sender<Vec<u8>>)>,
    /// Connections that are over.
    closed: Receiver<usize>,
    is_over: Arc<AtomicBool>,
}

impl Backend {
    fn start() -> Self {
        Self::with_answers(usize::MAX)
    }

    /// Answers so often on each connection, and then closes it without having said so.
    fn with_answers(limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::channel();
        let (closes, closed) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                let (sender, closes) = (sender.clone(), closes.clone());
                thread::spawn(move || {
                    serve(stream.unwrap(), number, limit, &sender);
                    let _ = closes.send(number);
                });
            }
        });
        Self {
            address,
            asked,
            closed,
            is_over,
        }
    }

    fn hook(&self) -> HttpHook {
        HttpHook {
            endpoint: format!("http://{}/hook?x=1", self.address),
            timeout: DEADLINE,
            ..HttpHook::default()
        }
    }

    /// The next request, not answered yet.
    fn next(&self) -> (Asked, Sender<Vec<u8>>) {
        self.asked.recv_timeout(DEADLINE).unwrap()
    }

    /// Answers the next request.
    fn answer(&self, bytes: impl AsRef<[u8]>) -> Asked {
        let (asked, reply) = self.next();
        reply.send(bytes.as_ref().to_vec()).unwrap();
        asked
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address); // So that it looks.
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    limit: usize,
    asked: &Sender<(Asked, Sender<Vec<u8>>)>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..limit {
        let Some(request) = read_request(&mut reader, connection) else {
            return;
        };
        let (sender, reply) = mpsc::channel();
        if asked.send((request, sender)).is_err() {
            return;
        }
        match reply.recv() {
            Ok(bytes) if stream.write_all(&bytes).is_ok() => {}
            _ => return,
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>, connection: usize) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let first = line().filter(|line| !line.is_empty())?;
    let mut headers = Vec::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let (_, length) = headers.iter().find(|(name, _)| name == "content-length")?;
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        connection,
        line: first,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

// ---- a loop ----

/// Takes the answers, as the loop would.
struct Asker {
    answers: Answers,
    answered: Receiver<(Ticket, Outcomes)>,
}

impl Asker {
    fn new() -> Self {
        let (sender, answered) = mpsc::channel();
        let waker = Waker::unheard();
        Self {
            answers: Answers { sender, waker },
            answered,
        }
    }

    fn ask<T: Outcome>(&self, number: u32) -> Ask<T> {
        let id = ConnectionId::NONE;
        Ask::new(Ticket { id, number }, self.answers.clone())
    }

    fn next(&self) -> (u32, Outcomes) {
        let (ticket, outcome) = self.answered.recv_timeout(DEADLINE).unwrap();
        (ticket.number, outcome)
    }

    fn returned(&self) -> (u32, Result<Returned, Refusal>) {
        match self.next() {
            (number, Outcomes::Rpc(result)) => (number, result),
            other => panic!("{other:?}"),
        }
    }
}

const CLIENT: Client<'static> = Client {
    id: ConnectionId::NONE,
    client: "c1",
    user: "42",
    transport: "websocket",
    protocol: "json",
    headers: &[],
    meta: "",
};

fn call<'a>(method: &'a str, data: &'a str) -> RpcRequest<'a> {
    RpcRequest {
        client: CLIENT,
        method,
        data: data.as_bytes(),
    }
}

fn rpc_rules(hook: HttpHook) -> HttpHookRules {
    HttpHookRules {
        rpc: Some(hook),
        ..HttpHookRules::default()
    }
}

fn is_later<T>(answer: &Answer<T>) -> bool {
    matches!(answer, Answer::Later)
}

fn internal<T>() -> Result<T, Refusal> {
    Err(Refusal::Error {
        code: 100,
        message: "internal server error".into(),
        temporary: true,
    })
}

fn data(text: &str) -> Returned {
    Returned { data: text.into() }
}

// ---- what is asked and answered ----

#[test]
fn connect_asks_who_a_client_without_a_token_is() {
    let backend = Backend::start();
    let connect = Some(backend.hook());
    let rules = HttpHookRules {
        connect,
        ..HttpHookRules::default()
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    let mut request = ConnectRequest {
        client: Client { user: "", ..CLIENT },
        token: "",
        data: b"{\"a\": 12345678901234567890}",
        name: "js",
        version: "1.2",
        channels: &["news", "a\"b"],
    };
    assert!(is_later(&hooks.connect(&request, asker.ask(1))));
    let asked = backend.answer(ok(r#"{"result":{"user":"7","channels":["own"]}}"#));
    assert_eq!(asked.line, "POST /hook?x=1 HTTP/1.1");
    assert_eq!(
        asked.body,
        concat!(
            r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","#,
            r#""name":"js","version":"1.2","data":{"a": 12345678901234567890},"#,
            r#""channels":["news","a\"b"]}"#
        )
    );
    let expected = Connected {
        user: "7".into(),
        channels: vec!["own".into()],
        ..Connected::default()
    };
    assert!(matches!(asker.next(), (1, Outcomes::Connect(Ok(got))) if got == expected));

    // One that brings nothing.
    (
        request.data,
        request.name,
        request.version,
        request.channels,
    ) = (b"", "", "", &[]);
    assert!(is_later(&hooks.connect(&request, asker.ask(2))));
    assert_eq!(
        backend.answer(ok(r#"{"result":{}}"#)).body,
        r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json"}"#
    );
    assert!(matches!(asker.next(), (2, Outcomes::Connect(Ok(got))) if got == Connected::default()));

    request.token = "T";
    assert!(matches!(
        hooks.connect(&request, asker.ask(3)),
        Answer::Usual
    ));
}

#[test]
fn refresh_asks_whether_a_connection_goes_on() {
    let backend = Backend::start();
    let refresh = Some(backend.hook());
    let rules = HttpHookRules {
        refresh,
        ..HttpHookRules::default()
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    let client = Client {
        meta: r#"{"m":1}"#,
        transport: "uni_sse",
        ..CLIENT
    };
    assert!(is_later(
        &hooks.refresh(&RefreshRequest { client }, asker.ask(1))
    ));
    let asked = backend.answer(ok(r#"{"result":{"expire_at":9}}"#));
    assert_eq!(
        asked.body,
        concat!(
            r#"{"client":"c1","transport":"uni_sse","protocol":"json","encoding":"json","#,
            r#""user":"42","meta":{"m":1}}"#
        )
    );
    let expected = Refreshed {
        expire_at: 9,
        ..Refreshed::default()
    };
    assert!(matches!(asker.next(), (1, Outcomes::Refresh(Ok(got))) if got == expected));
}

#[test]
fn subscribe_asks_about_a_client_without_a_token() {
    let backend = Backend::start();
    let subscribe = Some(backend.hook());
    let rules = HttpHookRules {
        subscribe,
        ..HttpHookRules::default()
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    let mut request = SubscribeRequest {
        client: Client {
            user: "",
            meta: "[]",
            ..CLIENT
        },
        channel: "ns:ä",
        token: "",
        data: b"null",
    };
    assert!(is_later(&hooks.subscribe(&request, asker.ask(1))));
    let asked = backend.answer(ok(
        r#"{"result":{"info":{"a":1},"override":{"presence":{"value":true}}}}"#,
    ));
    assert_eq!(
        asked.body,
        concat!(
            r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","#,
            r#""user":"","channel":"ns:ä","meta":[],"data":null}"#
        )
    );
    let expected = Subscribed {
        info: r#"{"a":1}"#.into(),
        overrides: Overrides {
            presence: Some(true),
            ..Overrides::default()
        },
        ..Subscribed::default()
    };
    assert!(matches!(asker.next(), (1, Outcomes::Subscribe(Ok(got))) if got == expected));

    request.token = "T";
    assert!(matches!(
        hooks.subscribe(&request, asker.ask(2)),
        Answer::Usual
    ));
}

#[test]
fn publish_asks_whether_and_what() {
    let backend = Backend::start();
    let publish = Some(backend.hook());
    let rules = HttpHookRules {
        publish,
        ..HttpHookRules::default()
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    let request = PublishRequest {
        client: CLIENT,
        channel: "news",
        data: b"{ }",
    };
    assert!(is_later(&hooks.publish(&request, asker.ask(1))));
    let asked = backend.answer(ok("{\"result\":{\"data\":{\n\"b\": 1\n}}}"));
    assert_eq!(
        asked.body,
        concat!(
            r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","#,
            r#""user":"42","channel":"news","data":{ }}"#
        )
    );
    let expected = Publish {
        data: Some(r#"{"b": 1}"#.into()),
        skip_history: false,
    };
    assert!(matches!(asker.next(), (1, Outcomes::Publish(Ok(got))) if got == expected));
}

#[test]
fn rpc_calls_a_method() {
    let backend = Backend::start();
    let mut hooks = HttpHooks::new(rpc_rules(backend.hook())).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    let asked = backend.answer(ok(r#"{"result":{"data":[1]}}"#));
    assert_eq!(
        asked.body,
        concat!(
            r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","#,
            r#""user":"42","method":""}"#
        )
    );
    assert_eq!(asker.returned(), (1, Ok(data("[1]"))));
    assert!(is_later(&hooks.rpc(&call("sum", "[1,2]"), asker.ask(2))));
    let asked = backend.answer(ok(r#"{"result":{}}"#));
    assert!(asked.body.ends_with(r#","method":"sum","data":[1,2]}"#));
    assert_eq!(asker.returned(), (2, Ok(data(""))));
}

#[test]
fn question_without_an_endpoint_is_answered_as_usual() {
    let mut hooks = HttpHooks::new(HttpHookRules::default()).unwrap();
    let asker = Asker::new();
    assert!(matches!(
        hooks.rpc(&call("sum", ""), asker.ask(1)),
        Answer::Usual
    ));
    assert!(hooks.headers().is_empty());
    assert!(asker.answered.try_recv().is_err());
    assert_eq!(hooks.stats().counts(), HttpHookCounts::default());
}

#[test]
fn fields_of_the_client_are_passed_on_if_they_are_named() {
    let backend = Backend::start();
    let owned = |fields: &[(&str, &str)]| -> Vec<(String, String)> {
        fields.iter().map(|&(n, v)| (n.into(), v.into())).collect()
    };
    let hook = HttpHook {
        http_headers: ["Cookie", "X-Real-Ip", "x-key", "user-agent"]
            .map(Into::into)
            .into(),
        static_headers: owned(&[("X-Key", "secret"), ("X-Two", "1"), ("X-Two", "2")]),
        ..backend.hook()
    };
    let other = HttpHook {
        http_headers: vec!["origin".into(), "cookie".into()],
        ..backend.hook()
    };
    let rules = HttpHookRules {
        publish: Some(other),
        ..rpc_rules(hook)
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    assert_eq!(
        hooks.headers(),
        ["cookie", "origin", "user-agent", "x-real-ip"]
    );

    let headers = owned(&[
        ("cookie", "a=1"),
        ("origin", "http://x"),
        ("x-key", "forged"),
        ("cookie", "b=ü"),
        ("user-agent", "browser"),
    ]);
    let headers: Vec<(Box<str>, Box<str>)> = headers
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let client = Client {
        headers: &headers,
        ..CLIENT
    };
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(
        &RpcRequest {
            client,
            ..call("", "")
        },
        asker.ask(1)
    )));
    let mut asked = backend.answer(ok(r#"{"result":{}}"#));
    asked.headers.sort();
    let length = asked.body.len().to_string();
    let host = backend.address.to_string();
    assert_eq!(
        asked.headers,
        owned(&[
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("content-length", &length),
            ("content-type", "application/json"),
            ("cookie", "a=1"),
            ("cookie", "b=ü"),
            ("host", &host),
            ("user-agent", "browser"),
            ("x-key", "secret"),
            ("x-two", "1"),
            ("x-two", "2"),
        ])
    );
}

#[test]
fn error_and_disconnect_are_answers() {
    let backend = Backend::start();
    let mut hooks = HttpHooks::new(rpc_rules(backend.hook())).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    backend.answer(ok(
        r#"{"error":{"code":403,"message":"no","temporary":false}}"#,
    ));
    let refusal = Refusal::Error {
        code: 403,
        message: "no".into(),
        temporary: false,
    };
    assert_eq!(asker.returned(), (1, Err(refusal)));
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(2))));
    backend.answer(ok(r#"{"disconnect":{"code":4501,"reason":"banned"}}"#));
    let refusal = Refusal::Disconnect {
        code: 4501,
        reason: "banned".into(),
    };
    assert_eq!(asker.returned(), (2, Err(refusal)));
    let counts = HttpHookCounts {
        answered: 2,
        ..HttpHookCounts::default()
    };
    assert_eq!(hooks.stats().counts(), counts);
}

#[test]
fn data_that_is_no_json_goes_in_base64_and_may_come_so() {
    let backend = Backend::start();
    let mut hooks = HttpHooks::new(rpc_rules(backend.hook())).unwrap();
    let asker = Asker::new();
    let client = Client {
        protocol: "protobuf",
        ..CLIENT
    };
    for (number, bytes, encoded) in [
        (1, &br#"1,"user":"admin""#[..], "MSwidXNlciI6ImFkbWluIg=="),
        (2, b"{", "ew=="),
        (3, b"\xff\x00", "/wA="),
    ] {
        let request = RpcRequest {
            client,
            data: bytes,
            ..call("", "")
        };
        assert!(is_later(&hooks.rpc(&request, asker.ask(number))));
        let answer = format!(r#"{{"result":{{"b64data":"{encoded}"}}}}"#);
        let asked = backend.answer(ok(&answer));
        let expected = format!(
            r#"{{"client":"c1","transport":"websocket","protocol":"protobuf","encoding":"binary","user":"42","method":"","b64data":"{encoded}"}}"#
        );
        assert_eq!(asked.body, expected);
        let data = bytes.to_vec();
        assert_eq!(asker.returned(), (number, Ok(Returned { data })));
    }
}

// ---- what goes wrong ----

/// Asks once, has the backend say this, and expects the internal error.
fn counts_after(bytes: &[u8]) -> HttpHookCounts {
    let backend = Backend::start();
    let mut hooks = HttpHooks::new(rpc_rules(backend.hook())).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    backend.answer(bytes);
    assert_eq!(asker.returned(), (1, internal()));
    hooks.stats().counts()
}

#[test]
fn other_status_than_200_is_a_failure() {
    for status in [
        "500 x",
        "503 x",
        "404 x",
        "204 x",
        "201 x",
        "302 x\r\nLocation: /",
    ] {
        let body = r#"{"result":{}}"#;
        let bytes = format!("HTTP/1.1 {status}\r\nContent-Length: 13\r\n\r\n{body}");
        let expected = HttpHookCounts {
            statuses: 1,
            ..HttpHookCounts::default()
        };
        assert_eq!(counts_after(bytes.as_bytes()), expected, "{status}");
    }
}

#[test]
fn answer_that_is_not_understood_is_a_failure() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n".to_vec();
    for bytes in [
        ok(""),
        ok("{}"),
        ok("<html>"),
        ok("\u{0}"),
        b"garbage\r\n\r\n".to_vec(),
        chunked,
    ] {
        let expected = HttpHookCounts {
            bad_answers: 1,
            ..HttpHookCounts::default()
        };
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(counts_after(&bytes), expected, "{text}");
    }
}

#[test]
fn answer_of_more_than_a_mebibyte_is_a_failure() {
    let of_length = |length: usize| {
        let frame = r#"{"result":{"data":""}}"#.len();
        let text = "x".repeat(length - frame);
        ok(&format!(r#"{{"result":{{"data":"{text}"}}}}"#))
    };
    let expected = HttpHookCounts {
        bad_answers: 1,
        ..HttpHookCounts::default()
    };
    assert_eq!(counts_after(&of_length(1024 * 1024 + 1)), expected);
    // A claim alone does no harm either.
    let claim = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    let mut bytes = claim.to_vec();
    bytes.extend(vec![b' '; 2 * 1024 * 1024]);
    assert_eq!(counts_after(&bytes), expected);

    let backend = Backend::start();
    let mut hooks = HttpHooks::new(rpc_rules(backend.hook())).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    backend.answer(of_length(1024 * 1024));
    assert!(asker.returned().1.is_ok());
}

#[test]
fn connection_that_breaks_is_a_failure() {
    let backend = Backend::start();
    let mut hooks = HttpHooks::new(rpc_rules(backend.hook())).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    drop(backend.next()); // Closes it without a word.
    assert_eq!(asker.returned(), (1, internal()));
    let expected = HttpHookCounts {
        connections: 1,
        ..HttpHookCounts::default()
    };
    assert_eq!(hooks.stats().counts(), expected);
}

#[test]
fn connection_refused_is_a_failure() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let endpoint = format!("http://{address}/");
    let hook = HttpHook {
        endpoint,
        ..HttpHook::default()
    };
    let mut hooks = HttpHooks::new(rpc_rules(hook)).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    assert_eq!(asker.returned(), (1, internal()));
    assert_eq!(hooks.stats().counts().connections, 1);
}

#[test]
fn https_is_not_spoken_with_a_backend_that_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}/", listener.local_addr().unwrap());
    let hook = HttpHook {
        endpoint,
        timeout: DEADLINE,
        ..HttpHook::default()
    };
    let mut hooks = HttpHooks::new(rpc_rules(hook)).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    let (mut stream, _) = listener.accept().unwrap();
    let mut hello = [0; 3];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(hello[..2], [22, 3]); // A TLS handshake record.
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .unwrap();
    assert_eq!(asker.returned(), (1, internal()));
    assert_eq!(hooks.stats().counts().connections, 1);
}

#[test]
fn backend_that_is_silent_runs_into_the_timeout() {
    let backend = Backend::start();
    let timeout = Duration::from_millis(20);
    let hook = HttpHook {
        timeout,
        ..backend.hook()
    };
    let mut hooks = HttpHooks::new(rpc_rules(hook)).unwrap();
    let asker = Asker::new();
    // Each on a connection of its own: the one before has an answer coming.
    for number in 1..=3 {
        assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(number))));
        assert_eq!(asker.returned(), (number, internal()));
    }
    let expected = HttpHookCounts {
        timeouts: 3,
        ..HttpHookCounts::default()
    };
    assert_eq!(hooks.stats().counts(), expected);
}

#[test]
fn body_that_does_not_end_runs_into_the_timeout() {
    let backend = Backend::start();
    let timeout = Duration::from_millis(200);
    let hook = HttpHook {
        timeout,
        ..backend.hook()
    };
    let mut hooks = HttpHooks::new(rpc_rules(hook)).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    let (_, reply) = backend.next();
    let _ = reply.send(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{".to_vec());
    assert_eq!(asker.returned(), (1, internal()));
    assert_eq!(hooks.stats().counts().timeouts, 1);
}

// ---- threads ----

#[test]
fn connection_is_used_again() {
    let backend = Backend::start();
    let rules = HttpHookRules {
        threads: 1,
        ..rpc_rules(backend.hook())
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    for number in 0..10 {
        assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(number))));
        assert_eq!(backend.answer(ok(r#"{"result":{}}"#)).connection, 0);
        assert_eq!(asker.returned(), (number, Ok(data(""))));
    }
}

#[test]
fn connection_that_the_backend_closed_is_not_used_again() {
    let backend = Backend::start();
    let rules = HttpHookRules {
        threads: 1,
        ..rpc_rules(backend.hook())
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    for number in 0..3 {
        assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(number))));
        let bytes =
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\n{\"result\":{}}";
        assert_eq!(backend.answer(bytes).connection, number as usize);
        assert_eq!(asker.returned(), (number, Ok(data(""))));
    }
}

#[test]
fn connection_that_was_closed_meanwhile_is_not_used_again() {
    let backend = Backend::with_answers(1);
    let rules = HttpHookRules {
        threads: 1,
        ..rpc_rules(backend.hook())
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    for number in 0..3 {
        assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(number))));
        let connection = backend.answer(ok(r#"{"result":{}}"#)).connection;
        assert_eq!(asker.returned(), (number, Ok(data(""))));
        assert_eq!(backend.closed.recv_timeout(DEADLINE), Ok(connection));
    }
}

#[test]
fn slow_answer_holds_up_nobody_else() {
    let backend = Backend::start();
    let rules = HttpHookRules {
        threads: 2,
        ..rpc_rules(backend.hook())
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("slow", ""), asker.ask(0))));
    let (_, slow) = backend.next();
    for number in 1..=5 {
        assert!(is_later(&hooks.rpc(&call("quick", ""), asker.ask(number))));
        backend.answer(ok(r#"{"result":{}}"#));
        assert_eq!(asker.returned(), (number, Ok(data(""))));
    }
    slow.send(ok(r#"{"result":{"data":1}}"#)).unwrap();
    assert_eq!(asker.returned(), (0, Ok(data("1"))));
}

#[test]
fn those_beyond_the_limit_are_refused_at_once() {
    let backend = Backend::start();
    let rules = HttpHookRules {
        threads: 1,
        max_in_flight: 2,
        ..rpc_rules(backend.hook())
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let stats = hooks.stats();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(2))));
    for number in 3..=4 {
        let Answer::Now(result) = hooks.rpc(&call("", ""), asker.ask(number)) else {
            panic!("asked");
        };
        assert_eq!(result, internal());
    }
    let expected = HttpHookCounts {
        in_flight: 2,
        busy: 2,
        ..HttpHookCounts::default()
    };
    assert_eq!(stats.counts(), expected);
    backend.answer(ok(r#"{"result":{}}"#));
    assert_eq!(asker.returned(), (1, Ok(data(""))));
    // There is room again as soon as there is an answer.
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(5))));
    for number in [2, 5] {
        backend.answer(ok(r#"{"result":{}}"#));
        assert_eq!(asker.returned(), (number, Ok(data(""))));
    }
    let expected = HttpHookCounts {
        answered: 3,
        busy: 2,
        ..HttpHookCounts::default()
    };
    assert_eq!(stats.counts(), expected);
}

#[test]
fn all_of_many_are_answered_once() {
    const MANY: u32 = 200;
    let backend = Backend::start();
    let mut hooks = HttpHooks::new(rpc_rules(backend.hook())).unwrap();
    let asker = Asker::new();
    for number in 0..MANY {
        let data = number.to_string();
        assert!(is_later(&hooks.rpc(&call("", &data), asker.ask(number))));
    }
    for _ in 0..MANY {
        let (asked, reply) = backend.next();
        let (_, number) = asked.body.rsplit_once(':').unwrap();
        let number = number.trim_end_matches('}');
        reply
            .send(ok(&format!(r#"{{"result":{{"data":{number}}}}}"#)))
            .unwrap();
    }
    let mut numbers: Vec<u32> = (0..MANY)
        .map(|_| {
            let (number, result) = asker.returned();
            assert_eq!(result, Ok(data(&number.to_string())));
            number
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..MANY));
    assert!(asker.answered.try_recv().is_err());
}

#[test]
fn drop_waits_for_nobody_and_threads_end() {
    let backend = Backend::start();
    let rules = HttpHookRules {
        threads: 1,
        ..rpc_rules(backend.hook())
    };
    let mut hooks = HttpHooks::new(rules).unwrap();
    let asker = Asker::new();
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(1))));
    assert!(is_later(&hooks.rpc(&call("", ""), asker.ask(2))));
    let (_, reply) = backend.next();
    drop(hooks); // While the backend has not answered.
    reply.send(ok(r#"{"result":{}}"#)).unwrap();
    assert_eq!(asker.returned(), (1, Ok(data(""))));
    backend.answer(ok(r#"{"result":{}}"#));
    assert_eq!(asker.returned(), (2, Ok(data(""))));
    // A thread that ends takes its connection along.
    assert_eq!(backend.closed.recv_timeout(DEADLINE), Ok(0));
}
