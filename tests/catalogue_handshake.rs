//! Requests that are wrong, late, endless or in pieces, over a socket (catalogue A, 1–44).
//!
//! The same inputs meet the parser alone, cut at every byte, in `src/protocol/http/tests.rs` and
//! `src/protocol/handshake.rs`. Here it is the server's whole answer that counts: the bytes, the end
//! of the connection, what the handler is told, and that nobody else notices.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use stentor::Cause;
use stentor::protocol::HandshakeError;

use crate::scene::{SOON, Scene, Seen};
use crate::support::{CLOSE, Client, TEXT, masked, upgrade_request};

/// A whole response.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Reads to the end of the connection, which must come behind exactly one response.
    fn last_of(mut client: Client) -> Self {
        let bytes = String::from_utf8(client.read_to_end()).unwrap();
        let (head, body) = bytes.split_once("\r\n\r\n").expect("a whole head");
        let answer = Self::new(head, body);
        assert_eq!(
            answer.header("content-length"),
            Some(body.len().to_string().as_str()),
            "one response: {bytes}"
        );
        answer
    }

    /// Reads the response of a connection that goes on.
    fn next_of(client: &mut Client) -> Self {
        let head = client.head();
        let mut answer = Self::new(head.trim_end(), "");
        let len = answer
            .header("content-length")
            .map_or(0, |len| len.parse().unwrap());
        answer.body = String::from_utf8(client.read(len)).unwrap();
        answer
    }

    fn new(head: &str, body: &str) -> Self {
        let status = head.strip_prefix("HTTP/1.1 ").expect("a response");
        Self {
            status: status[..3].parse().unwrap(),
            head: head.into(),
            body: body.into(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

impl Scene {
    /// Sends these bytes; the server must refuse them, close, and tell the handler nothing else.
    fn refuses(&mut self, bytes: impl AsRef<[u8]>, error: HandshakeError) -> Answer {
        let shown = String::from_utf8_lossy(bytes.as_ref())
            .chars()
            .take(300)
            .collect::<String>();
        let mut client = self.raw();
        client.send(bytes.as_ref());
        let answer = Answer::last_of(client);
        assert_eq!(answer.status, error.status(), "{shown:?}: {}", answer.body);
        let connection = answer.header("connection").expect("a Connection field");
        assert!(connection.starts_with("close"), "{shown:?}: {connection}");
        assert!(
            answer.header("date").is_some(),
            "RFC 9110 §6.6.1: {}",
            answer.head
        );
        assert_eq!(self.settle(), [Seen::Refused(error)], "{shown:?}");
        answer
    }

    /// Sends these bytes; the server must open a connection, which works and closes cleanly.
    fn opens(&mut self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.raw();
        client.send(bytes.as_ref());
        self.is_open(client)
    }

    fn is_open(&mut self, mut client: Client) -> String {
        let head = client.head();
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
            "{head}"
        );
        // RFC 6455 §1.3: the accept value of this key.
        assert!(
            head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{head}"
        );
        client.echo("open");
        client.frame(CLOSE, &1000_u16.to_be_bytes());
        assert_eq!(client.read_close(), 1000);
        assert_eq!(client.read_to_end(), [0; 0]);
        drop(client);
        assert_eq!(
            self.settle(),
            [
                Seen::Open,
                Seen::text("open"),
                Seen::Closed(1000, Cause::Peer)
            ]
        );
        head
    }

    /// Sends a whole request; the server must answer it with 200.
    fn answers(&mut self, bytes: impl AsRef<[u8]>) {
        let mut client = self.raw();
        client.send(bytes.as_ref());
        assert_eq!(Answer::next_of(&mut client).status, 200);
        drop(client);
        assert!(matches!(self.settle()[..], [Seen::Request(_)]));
    }
}

/// An upgrade request with these lines more.
fn upgrade_with(lines: impl AsRef<[u8]>) -> Vec<u8> {
    let request = upgrade_request("/");
    let head = request.strip_suffix("\r\n").unwrap();
    [head.as_bytes(), lines.as_ref(), b"\r\n"].concat()
}

/// An upgrade request in which one piece reads differently.
fn upgrade_but(piece: &str, replacement: &str) -> String {
    let request = upgrade_request("/");
    assert!(request.contains(piece), "{piece:?} is in the request");
    request.replacen(piece, replacement, 1)
}

fn post(lines: &str, body: &str) -> String {
    format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}")
}

#[test]
fn cat_001_handshake_byte_by_byte() {
    let mut scene = Scene::new();
    let mut client = scene.raw();
    scene.send_pieces(&mut client, upgrade_request("/").as_bytes().chunks(1));
    scene.is_open(client);
}

#[test]
fn cat_002_handshake_split_at_every_offset() {
    let mut scene = Scene::new();
    let request = upgrade_request("/");
    for split in 1..request.len() {
        let (start, end) = request.as_bytes().split_at(split);
        let mut client = scene.raw();
        scene.send_pieces(&mut client, [start, end]);
        scene.is_open(client);
    }
}

#[test]
fn cat_003_trickling_header_is_timed_out_from_its_beginning() {
    let mut scene = Scene::with(|config| {
        config.timeouts.handshake = SOON;
        config.timeouts.close = SOON;
    });
    let mut client = scene.raw();
    let mut trickle = client.twin();
    client.send(b"GET / HTTP/1.1\r\nX: ");
    // It could go on for longer than any test waits; each byte is a sign of life, and no more.
    let trickling = std::thread::spawn(move || {
        while trickle.socket.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = Answer::last_of(client);
    assert_eq!(answer.status, 408);
    assert_eq!(answer.header("connection"), Some("close"));
    // The trickle does not stop before the server has closed, at the end of the close timeout.
    assert_eq!(scene.settle(), [Seen::Refused(HandshakeError::TimedOut)]);
    trickling.join().unwrap();
}

#[test]
fn cat_004_silent_connection_is_closed_without_an_answer() {
    let mut scene = Scene::with(|config| config.timeouts.handshake = SOON);
    let mut client = scene.raw();
    assert_eq!(client.read_to_end(), [0; 0]);
    drop(client);
    assert_eq!(scene.settle(), []);
    assert_eq!(
        scene.server.ask(|_, ctx| ctx.stats().ended_without_upgrade),
        1
    );
}

#[test]
fn cat_005_head_over_the_limit() {
    let mut scene = Scene::new();
    let padded = |size: usize| {
        let bare = upgrade_with("X: \r\n").len();
        upgrade_with(format!("X: {}\r\n", "a".repeat(size - bare)))
    };
    scene.opens(padded(16 * 1024));
    scene.refuses(padded(16 * 1024 + 1), HandshakeError::HeadTooLarge);
}

#[test]
fn cat_006_endless_header_is_refused_after_16_kib() {
    let mut scene = Scene::new();
    let mut client = scene.raw();
    let start = "GET / HTTP/1.1\r\nX: ";
    client.send(format!("{start}{}", "a".repeat(16 * 1024 + 1 - start.len())).as_bytes());
    // The answer comes before the rest is sent.
    assert_eq!(Answer::next_of(&mut client).status, 431);
    client.send_until_refused(&vec![b'a'; 20 << 20]);
    drop(client);
    assert_eq!(
        scene.settle(),
        [Seen::Refused(HandshakeError::HeadTooLarge)]
    );
}

#[test]
fn cat_007_fields_over_the_count() {
    let mut scene = Scene::new();
    let fields = |count: usize| upgrade_with("X: y\r\n".repeat(count - 5));
    scene.opens(fields(100));
    scene.refuses(fields(101), HandshakeError::TooManyFields);
}

#[test]
fn cat_008_target_over_the_limit() {
    let mut scene = Scene::new();
    let target = |size: usize| upgrade_request(&format!("/{}", "a".repeat(size - 1)));
    scene.opens(target(8 * 1024));
    scene.refuses(target(9 * 1024), HandshakeError::TargetTooLong);
}

#[test]
fn cat_009_request_line_without_end() {
    let mut scene = Scene::new();
    let endless = format!("GET /{}", "a".repeat(1 << 20));
    scene.refuses(endless, HandshakeError::TargetTooLong);
}

#[test]
fn cat_010_bare_line_feed() {
    let mut scene = Scene::new();
    for request in [
        "GET / HTTP/1.1\n".into(),
        "GET / HTTP/1.1\nHost: a\n\n".into(),
        upgrade_but("localhost\r\n", "localhost\n"),
        upgrade_but("13\r\n\r\n", "13\r\n\n"),
    ] {
        scene.refuses(request, HandshakeError::BareLineFeed);
    }
}

#[test]
fn cat_011_bare_carriage_return_in_a_value() {
    let mut scene = Scene::new();
    for line in [
        "X: a\rb\r\n",
        "X: \r\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
    ] {
        scene.refuses(upgrade_with(line), HandshakeError::BareCarriageReturn);
    }
}

#[test]
fn cat_012_nul_in_a_value() {
    let mut scene = Scene::new();
    scene.refuses(upgrade_with("X: a\0b\r\n"), HandshakeError::BadFieldValue);
}

#[test]
fn cat_013_bytes_above_ascii_in_a_value() {
    let mut scene = Scene::new();
    let value: Vec<u8> = (0x80..=0xFF).collect();
    scene.opens(upgrade_with([b"X: ", &value[..], b"\r\n"].concat()));
    // Where a token is wanted they are wrong, and not a reason to panic.
    for (name, error) in [
        ("Sec-WebSocket-Protocol", HandshakeError::BadSubprotocols),
        ("Sec-WebSocket-Extensions", HandshakeError::BadExtensions),
    ] {
        let line = [name.as_bytes(), b": \xE9\r\n"].concat();
        scene.refuses(upgrade_with(line), error);
    }
}

#[test]
fn cat_014_byte_above_ascii_in_a_name() {
    let mut scene = Scene::new();
    for line in [
        &b"\xEFX: y\r\n"[..],
        b"X\xEF: y\r\n",
        b"\xEF\xBB\xBFX: y\r\n",
    ] {
        scene.refuses(upgrade_with(line), HandshakeError::BadFieldName);
    }
}

#[test]
fn cat_015_folded_field() {
    let mut scene = Scene::new();
    for lines in ["X: a\r\n b\r\n", "X: a\r\n\tb\r\n"] {
        scene.refuses(upgrade_with(lines), HandshakeError::FoldedField);
    }
}

#[test]
fn cat_016_space_before_the_colon() {
    let mut scene = Scene::new();
    for request in [
        upgrade_but("Host:", "Host :"),
        upgrade_but("Upgrade:", "Upgrade\t:"),
        post("Content-Length : 5\r\n", "hello"),
    ] {
        scene.refuses(request, HandshakeError::BadFieldName);
    }
}

#[test]
fn cat_017_white_space_before_the_first_field() {
    let mut scene = Scene::new();
    for space in [" ", "\t"] {
        let request = upgrade_but("Host:", &format!("{space}Host:"));
        scene.refuses(request, HandshakeError::FoldedField);
    }
}

#[test]
fn cat_018_empty_field_name() {
    let mut scene = Scene::new();
    scene.refuses(upgrade_with(": x\r\n"), HandshakeError::BadFieldName);
}

#[test]
fn cat_019_field_name_that_is_no_token() {
    let mut scene = Scene::new();
    for line in ["X[]: y\r\n", "X Y: z\r\n", "X\r\n", "(X): y\r\n"] {
        scene.refuses(upgrade_with(line), HandshakeError::BadFieldName);
    }
}

#[test]
fn cat_020_no_host() {
    let mut scene = Scene::new();
    let request = upgrade_but("Host: localhost\r\n", "");
    scene.refuses(request, HandshakeError::MissingHost);
}

#[test]
fn cat_021_two_hosts() {
    let mut scene = Scene::new();
    for host in ["localhost", "elsewhere"] {
        let line = format!("Host: {host}\r\n");
        scene.refuses(upgrade_with(line), HandshakeError::DuplicateHost);
    }
}

#[test]
fn cat_022_empty_host() {
    let mut scene = Scene::new();
    for host in ["", "a b", "a,b", "user@a"] {
        let request = upgrade_but("localhost", host);
        scene.refuses(request, HandshakeError::BadHost);
    }
}

#[test]
fn cat_023_http_10_is_not_upgraded() {
    let mut scene = Scene::new();
    let request = upgrade_but("HTTP/1.1", "HTTP/1.0");
    scene.refuses(request, HandshakeError::UpgradeNeedsHttp11);
}

#[test]
fn cat_024_http_09() {
    let mut scene = Scene::new();
    for request in ["GET /\r\n", "GET /\r\n\r\n"] {
        scene.refuses(request, HandshakeError::BadRequestLine);
    }
}

#[test]
fn cat_025_other_versions() {
    let mut scene = Scene::new();
    for (request, error) in [
        (
            upgrade_but("HTTP/1.1", "HTTP/1.32"),
            HandshakeError::BadRequestLine,
        ),
        (
            upgrade_but("HTTP/1.1", "HTTP/1.2"),
            HandshakeError::BadVersion,
        ),
        (
            upgrade_but("HTTP/1.1", "HTTP/2.0"),
            HandshakeError::UnsupportedVersion,
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            HandshakeError::UnsupportedVersion,
        ),
    ] {
        scene.refuses(request, error);
    }
}

#[test]
fn cat_026_absolute_target() {
    let mut scene = Scene::new();
    for target in ["http://elsewhere:80/chat?a", "ws://elsewhere"] {
        scene.opens(upgrade_request(target));
    }
}

#[test]
fn cat_027_targets_in_no_form() {
    let mut scene = Scene::new();
    for target in ["!", "*", "chat", "/a#b", "http://"] {
        scene.refuses(upgrade_request(target), HandshakeError::BadTarget);
    }
}

#[test]
fn cat_028_names_in_any_case() {
    let mut scene = Scene::new();
    let recased = |recase: fn(&str) -> String| {
        let request = upgrade_request("/");
        let mut lines = request.split("\r\n");
        let mut recased = vec![lines.next().unwrap().to_owned()];
        recased.extend(lines.map(|line| match line.split_once(": ") {
            Some((name @ "Sec-WebSocket-Key", value)) => format!("{}: {value}", recase(name)),
            _ => recase(line),
        }));
        recased.join("\r\n")
    };
    scene.opens(recased(str::to_lowercase));
    scene.opens(recased(str::to_uppercase));
}

#[test]
fn cat_029_connection_is_a_list() {
    let mut scene = Scene::new();
    for connection in [
        "Connection: keep-alive, Upgrade\r\n",
        "Connection: keep-alive\r\nConnection: Upgrade\r\n",
        "Connection: Upgrade\r\nConnection: keep-alive\r\n",
    ] {
        scene.opens(upgrade_but("Connection: Upgrade\r\n", connection));
    }
}

#[test]
fn cat_030_upgrade_is_a_list() {
    let mut scene = Scene::new();
    let head = scene.opens(upgrade_but("websocket", "h2c, WebSocket"));
    assert!(head.contains("\r\nUpgrade: websocket\r\n"), "{head}");
}

#[test]
fn cat_031_connection_without_upgrade() {
    let mut scene = Scene::new();
    for connection in ["", "Connection: keep-alive\r\n"] {
        let request = upgrade_but("Connection: Upgrade\r\n", connection);
        let answer = scene.refuses(request, HandshakeError::MissingConnectionUpgrade);
        assert_eq!(
            answer.header("upgrade"),
            Some("websocket"),
            "RFC 9110 §15.5.22"
        );
    }
}

#[test]
fn cat_032_keys_that_are_not_16_bytes() {
    let mut scene = Scene::new();
    for key in [
        "dGhlIHNhbXBsZSBub25j",     // 15 bytes.
        "dGhlIHNhbXBsZSBub25jZWU=", // 17 bytes.
        "dGhlIHNhbXBsZSBub25j-_==", // Not this alphabet.
        "",
    ] {
        let request = upgrade_but("dGhlIHNhbXBsZSBub25jZQ==", key);
        scene.refuses(request, HandshakeError::BadKey);
    }
    let missing = upgrade_but("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "");
    scene.refuses(missing, HandshakeError::BadKey);
}

#[test]
fn cat_033_two_keys() {
    let mut scene = Scene::new();
    let line = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    scene.refuses(upgrade_with(line), HandshakeError::BadKey);
}

#[test]
fn cat_034_other_websocket_versions() {
    let mut scene = Scene::new();
    for version in ["7", "8", "14", "13, 8"] {
        let request = upgrade_but("Version: 13", &format!("Version: {version}"));
        let answer = scene.refuses(request, HandshakeError::UnsupportedWebSocketVersion);
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        assert_eq!(answer.header("upgrade"), Some("websocket"));
    }
    let missing = upgrade_but("Sec-WebSocket-Version: 13\r\n", "");
    scene.refuses(missing, HandshakeError::UnsupportedWebSocketVersion);
    let twice = upgrade_with("Sec-WebSocket-Version: 13\r\n");
    scene.refuses(twice, HandshakeError::DuplicateWebSocketVersion);
}

#[test]
fn cat_035_upgrade_that_is_not_a_get() {
    let mut scene = Scene::new();
    for method in ["POST", "HEAD", "OPTIONS"] {
        let answer = scene.refuses(upgrade_but("GET", method), HandshakeError::MethodNotAllowed);
        assert_eq!(answer.header("allow"), Some("GET"));
    }
}

#[test]
fn cat_036_upgrade_with_a_body() {
    let mut scene = Scene::new();
    let smuggled = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    for body in ["hello", smuggled] {
        let mut request = upgrade_with(format!("Content-Length: {}\r\n", body.len()));
        request.extend_from_slice(body.as_bytes());
        scene.refuses(request, HandshakeError::UpgradeWithBody);
    }
}

#[test]
fn cat_037_upgrade_with_chunks() {
    let mut scene = Scene::new();
    let mut request = upgrade_with("Transfer-Encoding: chunked\r\n");
    request.extend_from_slice(b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n");
    scene.refuses(request, HandshakeError::UpgradeWithBody);
}

#[test]
fn cat_038_ambiguous_and_malformed_lengths() {
    let mut scene = Scene::new();
    for value in ["+5", "-1", "0x5", "5,5", "18446744073709551616", ""] {
        let request = post(&format!("Content-Length: {value}\r\n"), "hello");
        scene.refuses(request, HandshakeError::BadContentLength);
    }
    for second in ["5", "6"] {
        let lines = format!("Content-Length: 5\r\nContent-Length: {second}\r\n");
        scene.refuses(post(&lines, "hello"), HandshakeError::BadContentLength);
    }
    let both = post(
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
    );
    scene.refuses(both, HandshakeError::AmbiguousLength);
    scene.answers(post("Content-Length: 5\r\n", "hello"));
}

#[test]
fn cat_039_malformed_chunks() {
    let mut scene = Scene::new();
    let long_extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(1 << 20));
    for body in [
        "FFFFFFFFFFFFFFFFF\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello0\r\n\r\n",
        &long_extension,
    ] {
        let request = post("Transfer-Encoding: chunked\r\n", body);
        scene.refuses(request, HandshakeError::BadChunk);
    }
    scene.answers(post(
        "Transfer-Encoding: chunked\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
    ));
}

#[test]
fn cat_040_frame_behind_the_request() {
    let mut scene = Scene::new();
    let mut request = upgrade_with("");
    request.extend(masked(TEXT, b"early"));
    scene.refuses(request, HandshakeError::EarlyBytes);
}

#[test]
fn cat_041_request_behind_a_refused_upgrade() {
    let mut scene = Scene::new();
    let request =
        upgrade_but("Version: 13", "Version: 7") + "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    scene.refuses(request, HandshakeError::UnsupportedWebSocketVersion);
}

#[test]
fn cat_042_pipelined_requests_are_answered_in_order() {
    let mut scene = Scene::new();
    let mut client = scene.raw();
    let requests = (0..1000).map(|index| format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.send(requests.collect::<String>().as_bytes());
    for _ in 0..1000 {
        assert_eq!(Answer::next_of(&mut client).body, "a plain answer\n");
    }
    drop(client);
    let expected: Vec<_> = (0..1000)
        .map(|index| Seen::Request(format!("/{index}")))
        .collect();
    assert_eq!(scene.settle(), expected);
}

#[test]
fn cat_042_pipelined_requests_stall_while_nobody_reads() {
    const REQUESTS: usize = 500_000;
    let mut scene = Scene::with(|config| config.timeouts.write = SOON);
    let mut client = scene.raw();
    // The server stops reading when its answers are not taken, and ends what stays so.
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS);
    let error = client.socket.write_all(requests.as_bytes()).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        "ended by the server: {error}"
    );
    drop(client);
    let answered = scene.settle().len();
    assert!((1..REQUESTS).contains(&answered), "{answered}");
    let most_queued = scene.server.ask(|witness, _| witness.most_queued);
    assert_eq!(
        most_queued, 0,
        "no request is looked at while an answer waits"
    );
}

#[test]
fn cat_043_empty_lines_before_the_request() {
    let mut scene = Scene::new();
    scene.opens("\r\n\r\n".to_owned() + &upgrade_request("/"));
    let request = "\r\n".repeat(100) + &upgrade_request("/");
    scene.refuses(request, HandshakeError::TooManyEmptyLines);
}

#[test]
fn cat_044_half_closed_after_a_plain_request() {
    let mut scene = Scene::new();
    let mut client = scene.raw();
    client.send(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish_sending();
    let answer = Answer::last_of(client);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "a plain answer\n")
    );
    assert_eq!(scene.settle(), [Seen::Request("/last".into())]);
}

#[test]
fn cat_044_half_closed_after_an_upgrade_request() {
    let mut scene = Scene::new();
    let mut client = scene.raw();
    // Both are there when the server looks: the edge of the request is the edge of the end.
    let stands_still = scene.server.stand_still();
    client.send(upgrade_request("/").as_bytes());
    client.finish_sending();
    drop(stands_still);
    client.read_to_end();
    drop(client);
    assert_eq!(
        scene.settle(),
        [Seen::Open, Seen::Closed(1006, Cause::EndOfStream)]
    );
}

#[test]
fn half_closed_before_a_request_is_complete() {
    let mut scene = Scene::new();
    for part in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = scene.raw();
        client.send(part.as_bytes());
        client.finish_sending();
        assert_eq!(client.read_to_end(), [0; 0], "{part:?}");
        drop(client);
        assert_eq!(scene.settle(), [], "{part:?}");
    }
}
