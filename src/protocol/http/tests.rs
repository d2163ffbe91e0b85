//! Requests, good and bad, cut in every way: what is answered must not depend on the cuts.

use std::borrow::Cow;

use proptest::prelude::*;

use super::body::{BodyDecoder, Framing};
use super::grammar::work;
use super::{HttpLimits, Request, RequestReader};
use crate::protocol::error::HandshakeError;
use crate::protocol::handshake::{Kind, judge};

/// What a server sees of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::protocol) struct Seen {
    pub(in crate::protocol) target: String,
    pub(in crate::protocol) host: String,
    pub(in crate::protocol) body: Vec<u8>,
    pub(in crate::protocol) verdict: Result<Kind, HandshakeError>,
    line: String,
    fields: Vec<(String, Vec<u8>)>,
    keep_alive: bool,
}

impl Seen {
    fn of(request: &Request<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let query = request.query().map(text);
        Self {
            target: text(request.target()),
            host: text(request.host()),
            body: request.body().to_vec(),
            verdict: judge(request),
            line: format!("{} {} {query:?}", request.method(), text(request.path())),
            fields: request
                .headers()
                .map(|(n, v)| (n.to_owned(), v.to_vec()))
                .collect(),
            keep_alive: request.keep_alive(),
        }
    }
}

/// What came of a stream of bytes: the requests in it, and the error that ended it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::protocol) struct Outcome {
    pub(in crate::protocol) requests: Vec<Seen>,
    pub(in crate::protocol) error: Option<HandshakeError>,
    /// Bytes that had arrived when the error was seen.
    failed_at: usize,
}

impl Outcome {
    /// The status of the first answer: 101 for an upgrade, 200 for a plain request, 0 for none yet.
    pub(in crate::protocol) fn status(&self) -> u16 {
        let first = self.requests.first().map(|request| request.verdict);
        match (first, self.error) {
            (Some(Ok(Kind::Upgrade)), _) => 101,
            (Some(Ok(Kind::Plain)), _) => 200,
            (Some(Err(error)), _) | (None, Some(error)) => error.status(),
            (None, None) => 0,
        }
    }
}

/// Feeds `input` as it has arrived at each of `ends`.
fn feed(input: &[u8], ends: impl IntoIterator<Item = usize>, limits: &HttpLimits) -> Outcome {
    let mut reader = RequestReader::default();
    let mut outcome = Outcome::default();
    let mut start = 0;
    for end in ends {
        loop {
            match reader.receive(&input[start..end], limits, &mut Vec::new()) {
                Ok((consumed, request)) => {
                    start += consumed;
                    let progress = consumed > 0;
                    outcome
                        .requests
                        .extend(request.iter().map(|request| Seen::of(request)));
                    if !progress {
                        break;
                    }
                }
                Err(error) => {
                    let again = reader.receive(&input[start..end], limits, &mut Vec::new());
                    assert_eq!(again.err(), Some(error), "an error stays");
                    return Outcome {
                        error: Some(error),
                        failed_at: end,
                        ..outcome
                    };
                }
            }
        }
    }
    outcome
}

fn same(input: &[u8], expected: &Outcome, got: Outcome, cut: &str) {
    let got = Outcome {
        failed_at: expected.failed_at,
        ..got
    };
    assert_eq!(
        &got,
        expected,
        "{cut}: {:?}",
        String::from_utf8_lossy(input)
    );
}

/// The outcome, which is the same whole, byte by byte, and split at every offset.
pub(in crate::protocol) fn outcome_with(input: &[u8], limits: &HttpLimits) -> Outcome {
    let bytewise = feed(input, 1..=input.len(), limits);
    same(
        input,
        &bytewise,
        feed(input, [input.len()], limits),
        "whole",
    );
    let step = 1 + input.len() / 2000 * 20; // Large inputs are split at a sample of their offsets.
    for split in (0..=input.len()).step_by(step) {
        same(
            input,
            &bytewise,
            feed(input, [split, input.len()], limits),
            "split",
        );
    }
    bytewise
}

pub(in crate::protocol) fn outcome(input: impl AsRef<[u8]>) -> Outcome {
    outcome_with(input.as_ref(), &HttpLimits::default())
}

/// The status that answers the first request in `input`.
pub(in crate::protocol) fn answer(input: impl AsRef<[u8]>) -> u16 {
    outcome(input).status()
}

/// A GET with these lines below the request line and a valid Host.
fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}").into_bytes()
}

/// The error, which must show no later than when `proof` bytes have arrived one by one.
fn error_by(input: impl AsRef<[u8]>, proof: usize) -> HandshakeError {
    let outcome = outcome(input);
    assert!(
        outcome.failed_at <= proof,
        "failed at {}, not {proof}",
        outcome.failed_at
    );
    outcome.error.expect("this input is wrong")
}

#[test]
fn plain_request_is_read() {
    let outcome = outcome("GET /a/b?c=d?e HTTP/1.1\r\nHost: a.b:80\r\nX:  y z \t\r\nE:\r\n\r\n");
    let [request] = &outcome.requests[..] else {
        panic!("one request: {outcome:?}")
    };
    assert_eq!(request.line, "GET /a/b Some(\"c=d?e\")");
    assert_eq!(request.host, "a.b:80");
    assert_eq!(
        request.fields[1..],
        [("X".into(), b"y z".to_vec()), ("E".into(), Vec::new())]
    );
    assert_eq!(
        (request.verdict, request.keep_alive),
        (Ok(Kind::Plain), true)
    );
}

#[test]
fn cat_005_head_over_the_limit() {
    let limits = HttpLimits::default();
    let head = |size: usize| {
        let frame = get("X: \r\n").len();
        get(&format!("X: {}\r\n", "a".repeat(size - frame)))
    };
    assert_eq!(answer(head(limits.max_head_size)), 200, "exactly the limit");
    assert_eq!(
        error_by(head(limits.max_head_size + 1), 16384),
        HandshakeError::HeadTooLarge
    );
}

#[test]
fn cat_006_endless_field_is_refused_after_16_kib() {
    let mut input = get("X: ");
    input.truncate(input.len() - 2);
    input.resize(64 * 1024, b'a');
    work::take();
    let mut reader = RequestReader::default();
    let error = reader
        .receive(&input, &HttpLimits::default(), &mut Vec::new())
        .err();
    assert_eq!(error, Some(HandshakeError::HeadTooLarge));
    assert!(
        work::take() <= 16 * 1024 + 64,
        "what lies beyond the limit is not looked at"
    );
    assert_eq!(error_by(&input, 16384).status(), 431);
}

#[test]
fn cat_007_field_over_the_count() {
    let fields = |count: usize| get(&"X: y\r\n".repeat(count - 1));
    assert_eq!(answer(fields(100)), 200, "exactly the limit");
    let input = fields(101);
    let proof = input.len() - "X: y\r\n\r\n".len() + 1;
    assert_eq!(error_by(input, proof), HandshakeError::TooManyFields);
    // More fields than fit on the stack, where the limit allows it.
    let limits = HttpLimits {
        max_fields: 300,
        ..HttpLimits::default()
    };
    assert_eq!(
        outcome_with(&fields(300), &limits).requests[0].fields.len(),
        300
    );
}

#[test]
fn cat_008_target_over_the_limit() {
    let target = |size: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(size - 1));
    assert_eq!(answer(target(8192)), 200, "exactly the limit");
    assert_eq!(
        error_by(target(9 * 1024), 4 + 8193),
        HandshakeError::TargetTooLong
    );
}

#[test]
fn cat_009_endless_request_line() {
    assert_eq!(
        error_by("GET /".to_owned() + &"a".repeat(30_000), 8197).status(),
        414
    );
    assert_eq!(
        error_by("A".repeat(30_000), 18),
        HandshakeError::UnknownMethod
    );
    assert_eq!(
        error_by("GET / HTTP/1.1".to_owned() + &"1".repeat(30_000), 15).status(),
        400
    );
    // A head limit below the target limit still speaks of the target.
    let limits = HttpLimits {
        max_head_size: 10,
        ..HttpLimits::default()
    };
    assert_eq!(outcome_with(b"GET /aaaaaaaaa", &limits).status(), 414);
}

#[test]
fn cat_010_bare_line_feed() {
    for (input, proof) in [
        ("GET / HTTP/1.1\n", 15),
        ("\nGET / HTTP/1.1\r\n", 1),
        ("GET\n", 4),
        ("GET /\n", 6),
        ("GET / HTTP/1.1\r\nHost: a\n", 24),
        ("GET / HTTP/1.1\r\nHost\n", 21),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 26),
    ] {
        assert_eq!(
            error_by(input, proof),
            HandshakeError::BareLineFeed,
            "{input:?}"
        );
    }
}

#[test]
fn cat_011_bare_carriage_return() {
    for input in [
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
        "\r\rGET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(
            outcome(input).error,
            Some(HandshakeError::BareCarriageReturn),
            "{input:?}"
        );
    }
}

#[test]
fn cat_012_control_character_in_value() {
    for byte in (0..=0x1F)
        .chain([0x7F])
        .filter(|byte| !b"\t\r\n".contains(byte))
    {
        let mut input = get("X: a");
        input.truncate(input.len() - 2);
        input.push(byte);
        let proof = input.len();
        input.extend_from_slice(b"b\r\n\r\n");
        assert_eq!(
            error_by(input, proof),
            HandshakeError::BadFieldValue,
            "{byte:#04x}"
        );
    }
}

#[test]
fn cat_013_non_ascii_field_value() {
    let mut input = get("X: a");
    input.truncate(input.len() - 2);
    input.extend(0x80..=0xFF);
    input.extend_from_slice(b"\r\n\r\n");
    let outcome = outcome(&input);
    assert_eq!(
        outcome.requests[0].fields[1].1[1..],
        (0x80..=0xFF).collect::<Vec<u8>>()
    );
}

#[test]
fn cat_014_non_ascii_field_name() {
    assert_eq!(
        outcome(get("\u{feff}X: y\r\n")).error,
        Some(HandshakeError::BadFieldName)
    );
    assert_eq!(
        outcome(get("X\u{e9}: y\r\n")).error,
        Some(HandshakeError::BadFieldName)
    );
}

#[test]
fn cat_015_folded_field() {
    for fold in [" b\r\n", "\tb\r\n", " \r\n"] {
        let input = get(&format!("X: a\r\n{fold}"));
        assert_eq!(
            outcome(input).error,
            Some(HandshakeError::FoldedField),
            "{fold:?}"
        );
    }
}

#[test]
fn cat_016_space_before_colon() {
    for line in ["X : y\r\n", "X\t: y\r\n", "X\r\n", "X y\r\n"] {
        assert_eq!(
            outcome(get(line)).error,
            Some(HandshakeError::BadFieldName),
            "{line:?}"
        );
    }
    assert_eq!(answer("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), 400);
}

#[test]
fn cat_017_white_space_before_the_first_field() {
    for space in [" ", "\t"] {
        let input = format!("GET / HTTP/1.1\r\n{space}Host: a\r\n\r\n");
        assert_eq!(error_by(input, 17), HandshakeError::FoldedField);
    }
}

#[test]
fn cat_018_empty_field_name() {
    assert_eq!(
        outcome(get(": x\r\n")).error,
        Some(HandshakeError::BadFieldName)
    );
}

#[test]
fn cat_019_field_name_outside_tchar() {
    for byte in (0..=u8::MAX).filter(|byte| !super::grammar::is_token_byte(*byte)) {
        let mut input = get("X");
        input.truncate(input.len() - 2);
        input.push(byte);
        input.extend_from_slice(b"X: y\r\n\r\n");
        let expected = if byte == b':' { 200 } else { 400 };
        assert_eq!(answer(input), expected, "{byte:#04x}");
    }
    assert_eq!(answer(get("X[]: y\r\n")), 400);
}

#[test]
fn cat_020_missing_host() {
    assert_eq!(
        outcome("GET / HTTP/1.1\r\n\r\n").error,
        Some(HandshakeError::MissingHost)
    );
    assert_eq!(
        answer("GET http://a/ HTTP/1.1\r\n\r\n"),
        400,
        "also in absolute form"
    );
    assert_eq!(
        answer("GET / HTTP/1.0\r\n\r\n"),
        200,
        "HTTP/1.0 does not need it"
    );
}

#[test]
fn cat_021_two_hosts() {
    for host in ["a", "b"] {
        let input = get(&format!("HOST: {host}\r\n"));
        assert_eq!(outcome(input).error, Some(HandshakeError::DuplicateHost));
    }
    assert_eq!(answer("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn cat_022_empty_or_invalid_host() {
    for host in ["", " ", "a b", "a/b", "u@a", "a,b", "a:b", "[::1", "\u{e9}"] {
        let input = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(
            outcome(input).error,
            Some(HandshakeError::BadHost),
            "{host:?}"
        );
    }
}

#[test]
fn cat_024_http_09() {
    assert_eq!(error_by("GET /\r\n", 6), HandshakeError::BadRequestLine);
    assert_eq!(
        error_by("GET / \r\n\r\n", 7),
        HandshakeError::BadRequestLine
    );
    assert_eq!(
        error_by("\r\n\r\nGET\r\n", 8),
        HandshakeError::BadRequestLine
    );
}

#[test]
fn cat_025_other_versions() {
    for (version, status) in [
        ("HTTP/1.32", 400),
        ("HTTP/1.2", 400),
        ("HTTP/1.", 400),
        ("HTTP/11.1", 400),
        ("HTTP/ 1.1", 400),
        ("HTTP/1,1", 400),
        ("http/1.1", 400),
        ("HTTP/1.1 ", 400),
        ("HTTQ/1.1", 400),
        ("HTTP/0.9", 505),
        ("HTTP/2.0", 505),
        ("HTTP/9.9", 505),
    ] {
        assert_eq!(
            answer(format!("GET / {version}\r\nHost: a\r\n\r\n")),
            status,
            "{version}"
        );
    }
    assert_eq!(
        error_by("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 15).status(),
        505
    );
    assert_eq!(answer("PRI * HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn cat_026_absolute_form_overrides_host() {
    for (target, host, path) in [
        ("http://b.c:8/x?y", "b.c:8", "GET /x Some(\"y\")"),
        ("HTTPS://b", "b", "GET / None"),
        ("ws://[::1]?y", "[::1]", "GET / Some(\"y\")"),
        ("wss://b/", "b", "GET / None"),
    ] {
        let outcome = outcome(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(outcome.requests[0].host, host);
        assert_eq!(outcome.requests[0].line, path);
        assert_eq!(outcome.requests[0].target, target);
    }
}

#[test]
fn cat_027_targets_in_no_form() {
    for target in [
        "!",
        "*",
        "^",
        "",
        " ",
        "a",
        "a:80",
        "?x",
        "http:",
        "http://",
        "http:///x",
        "http://u@b/",
        "httpz://b/",
        "h-ttp://b/",
        "ftp://b/",
        "/a#b",
        "/\u{e9}",
        "/a\tb",
        "/a\u{7f}",
        "*x",
    ] {
        let input = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            outcome(input).error,
            Some(HandshakeError::BadTarget),
            "{target:?}"
        );
    }
    assert_eq!(error_by("GET !", 5), HandshakeError::BadTarget);
    let outcome = outcome("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(outcome.requests[0].line, "OPTIONS * None");
    assert_eq!(
        answer("GET /{x}|\"^`<>? HTTP/1.1\r\nHost: a\r\n\r\n"),
        200,
        "seen in the wild"
    );
}

#[test]
fn cat_036_body_of_a_plain_request_is_not_the_next_request() {
    let smuggled = "GET /b HTTP/1.1\r\n\r\n";
    let lines = format!("Content-Length: {}\r\n", smuggled.len());
    let outcome = outcome(post(&lines, smuggled));
    assert_eq!(outcome.requests.len(), 1);
    assert_eq!(outcome.requests[0].body, smuggled.as_bytes());
}

#[test]
fn cat_038_lengths_that_are_ambiguous_or_malformed() {
    for value in [
        "+5",
        "-1",
        "0x5",
        "5,5",
        "5, 5",
        "5 5",
        "",
        " ",
        "abc",
        "5a",
        "\"5\"",
        "1e1",
        "\u{665}",
        "18446744073709551616",
        "-123456789123456789123456789",
    ] {
        let input = post(&format!("Content-Length: {value}\r\n"), "hello");
        assert_eq!(
            outcome(input).error,
            Some(HandshakeError::BadContentLength),
            "{value:?}"
        );
    }
    for second in ["5", "6"] {
        let lines = format!("Content-Length: 5\r\nContent-Length: {second}\r\n");
        assert_eq!(answer(post(&lines, "hello")), 400, "two lengths");
    }
    for lines in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let error = outcome(post(lines, "0\r\n\r\n")).error;
        assert_eq!(error, Some(HandshakeError::AmbiguousLength));
    }
}

#[test]
fn cat_038_transfer_codings() {
    for (value, status) in [
        ("chunked", 200),
        ("Chunked", 200),
        ("gzip, chunked", 501),
        ("identity, chunked", 501),
        ("chunked, chunked", 400),
        ("chunked, gzip", 400),
        ("gzip", 400),
        ("identity", 400),
        ("xchunked", 400),
        ("chunked;a=b", 400),
        ("chunked,", 400),
        (", chunked", 400),
        ("\"chunked\"", 400),
        ("chunked\u{b}", 400),
        ("", 400),
    ] {
        let input = post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
        assert_eq!(answer(input), status, "{value:?}");
    }
    let lines = "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(
        answer(post(lines, "0\r\n\r\n")),
        501,
        "fields of one name are one list"
    );
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(
        outcome(old).error,
        Some(HandshakeError::BadTransferEncoding)
    );
}

#[test]
fn body_over_the_limit_is_refused_unread() {
    let input = post("Content-Length: 65537\r\nExpect: 100-continue\r\n", "");
    assert_eq!(error_by(&input, input.len()), HandshakeError::BodyTooLarge);
    assert_eq!(
        answer(post("Content-Length: 18446744073709551615\r\n", "")),
        413
    );
    let body = "a".repeat(65536);
    assert_eq!(
        outcome(post("Content-Length: 65536\r\n", &body)).requests[0]
            .body
            .len(),
        65536
    );
    for body in ["10001\r\n", "FFFFFFFFFFFFFFFF\r\n", "8000\r\n"] {
        let body = body.replace(
            "8000\r\n",
            &format!("8000\r\n{}\r\n8001\r\n", "a".repeat(0x8000)),
        );
        assert_eq!(answer(post("Transfer-Encoding: chunked\r\n", &body)), 413);
    }
}

fn chunked(body: &str) -> Outcome {
    outcome(post("Transfer-Encoding: chunked\r\n", body))
}

#[test]
fn chunked_body_is_joined() {
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n",
        "5;a=\"b c\";d\r\nhello\r\n000;e\r\n\r\n",
        "5\r\nhello\r\n0\r\nTrailer: x\r\nOther:\r\n\r\n",
    ] {
        let outcome = chunked(&format!("{body}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(outcome.error, None, "{body:?}");
        let [first, second] = &outcome.requests[..] else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            (first.body.as_slice(), second.target.as_str()),
            (&b"hello"[..], "/next")
        );
        assert!(
            first.fields.iter().all(|(name, _)| name != "Trailer"),
            "trailers are discarded"
        );
    }
}

#[test]
fn cat_039_malformed_chunks() {
    for body in [
        "5\nhello\n0\n\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "\r\n",
        ";a\r\n",
        "+5\r\n",
        "-5\r\n",
        "0x5\r\n",
        "5 \r\n",
        "5 ;a\r\n",
        " 5\r\n",
        "g\r\n",
        "5;a\nb\r\n",
        "5;a\0\r\n",
        "10000000000000000\r\n",
        "FFFFFFFFFFFFFFFFF\r\n",
    ] {
        assert_eq!(
            chunked(body).error,
            Some(HandshakeError::BadChunk),
            "{body:?}"
        );
    }
    for (body, error) in [
        ("0\r\n X: y\r\n\r\n", HandshakeError::FoldedField),
        ("0\r\nX : y\r\n\r\n", HandshakeError::BadFieldName),
        ("0\r\nX: y\n\r\n", HandshakeError::BareLineFeed),
        ("0\r\n\n", HandshakeError::BareLineFeed),
        ("0\r\n\rX", HandshakeError::BareCarriageReturn),
    ] {
        assert_eq!(chunked(body).error, Some(error), "{body:?}");
    }
}

#[test]
fn cat_039_chunk_overhead_is_bounded() {
    let line = |length: usize| format!("1;{}\r\n", "e".repeat(length - 2));
    assert_eq!(
        chunked(&(line(256) + "a\r\n0\r\n\r\n")).error,
        None,
        "exactly the limit"
    );
    let error = chunked(&line(257)).error;
    assert_eq!(error, Some(HandshakeError::BadChunk), "one size line");
    assert_eq!(chunked(&format!("1;{}", "e".repeat(100_000))).status(), 400);
    let error = chunked(&(line(256) + "a\r\n").repeat(100)).error;
    assert_eq!(error, Some(HandshakeError::BadChunk), "many size lines");
    assert_eq!(
        chunked(&(line(17) + "a\r\n").repeat(2000)).error,
        None,
        "honest chunks"
    );
    assert_eq!(
        chunked(&format!("0\r\nX: {}", "a".repeat(20_000))).status(),
        431
    );
    assert_eq!(
        chunked(&format!("0\r\n{}", "X: y\r\n".repeat(101))).status(),
        431
    );
}

#[test]
fn cat_041_nothing_is_read_after_an_upgrade_request() {
    for first in [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 7\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let outcome = outcome(format!("{first}GET /admin HTTP/1.1\r\nHost: a\r\n\r\n\0"));
        assert_eq!(
            (outcome.requests.len(), outcome.error),
            (1, None),
            "{first:?}"
        );
        assert!(!outcome.requests[0].keep_alive);
    }
}

#[test]
fn cat_042_pipelined_requests_are_read_one_at_a_time() {
    let input = get("").repeat(1000);
    let outcome = feed(&input, [input.len()], &HttpLimits::default());
    assert_eq!((outcome.requests.len(), outcome.error), (1000, None));
    let mut reader = RequestReader::default();
    let first = reader.receive(&input, &HttpLimits::default(), &mut Vec::new());
    let (consumed, request) = first.expect("valid");
    assert_eq!(
        consumed,
        input.len() / 1000,
        "the rest stays with the caller"
    );
    assert!(request.is_some_and(|request| matches!(request.into_owned().body(), [])));
    assert!(!reader.is_reading());
    assert!(
        size_of::<RequestReader>() <= 24,
        "{}",
        size_of::<RequestReader>()
    );
}

#[test]
fn cat_043_empty_lines_before_a_request() {
    let with = |count: usize| "\r\n".repeat(count) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(answer(with(2)), 200);
    assert_eq!(error_by(with(3), 5), HandshakeError::TooManyEmptyLines);
    assert_eq!(error_by(with(100), 5), HandshakeError::TooManyEmptyLines);
    // They do not count towards the limits, whether they came together with the head or before it.
    let limits = HttpLimits {
        max_head_size: with(0).len(),
        ..HttpLimits::default()
    };
    assert_eq!(outcome_with(with(2).as_bytes(), &limits).status(), 200);
    // They do not stay in the buffer of an idle connection.
    let mut reader = RequestReader::default();
    let received = reader.receive(b"\r\n", &HttpLimits::default(), &mut Vec::new());
    assert!(matches!(received, Ok((2, None))));
    assert!(!reader.is_reading());
}

#[test]
fn cat_044_request_is_complete_without_end_of_stream() {
    assert_eq!(answer(get("")), 200);
    assert_eq!(answer(&get("")[..get("").len() - 1]), 0);
}

#[test]
fn cat_094_client_hello_fails_at_its_first_byte() {
    assert_eq!(
        error_by(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 1).status(),
        400
    );
    for byte in (0..=u8::MAX).filter(|byte| !super::grammar::is_token_byte(*byte)) {
        let expected = u16::from(byte != b'\r') * 400;
        assert_eq!(answer([byte]), expected, "{byte:#04x}");
    }
}

/// `httparse` has vector code for long tokens: it must accept every byte that the scanner accepts.
#[test]
fn every_allowed_byte_is_read_in_a_long_token() {
    let pad = "a".repeat(70);
    for byte in (0x21..=0x7E).filter(|&byte| byte != b'#').map(char::from) {
        let input = format!("GET /{pad}{byte}{pad} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answer(input), 200, "target {byte:?}");
    }
    for byte in (0..=u8::MAX)
        .filter(|&byte| super::grammar::is_token_byte(byte))
        .map(char::from)
    {
        let outcome = outcome(get(&format!("{pad}{byte}{pad}: x\r\n")));
        assert_eq!(outcome.requests[0].fields[1].0, format!("{pad}{byte}{pad}"));
    }
    for byte in (0..=u8::MAX).filter(|&byte| super::grammar::is_value_byte(byte)) {
        let value = [pad.as_bytes(), &[byte], pad.as_bytes()].concat();
        let input = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &value[..], b"\r\n\r\n"].concat();
        assert_eq!(
            outcome(input).requests[0].fields[1].1,
            value,
            "value {byte:#04x}"
        );
    }
}

#[test]
fn methods() {
    for method in ["HEAD", "PATCH", "UPDATEREDIRECTREF"] {
        let outcome = outcome(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(outcome.requests[0].line, format!("{method} / None"));
    }
    for method in ["get", "FOO", "CONNECT", "GETT", "Extra"] {
        let error = error_by(format!("{method} / HTTP/1.1\r\n"), method.len() + 1);
        assert_eq!(error, HandshakeError::UnknownMethod, "{method}");
    }
    for line in [
        " GET / HTTP/1.1\r\n",
        "G\0T / HTTP/1.1\r\n",
        "G(T / HTTP/1.1\r\n",
    ] {
        assert_eq!(
            outcome(line).error,
            Some(HandshakeError::BadRequestLine),
            "{line:?}"
        );
    }
}

#[test]
fn expectations() {
    for (lines, status) in [
        ("Expect: 100-Continue\r\n", 200),
        ("Expect: 200-ok\r\n", 417),
        ("Expect: 100-continue\r\nExpect: x\r\n", 417),
        ("Expect: 100-continue, x\r\n", 417),
        ("Expect:\r\n", 417),
        ("Upgrade: websocket\r\nExpect: 100-continue\r\n", 417),
    ] {
        assert_eq!(answer(get(lines)), status, "{lines:?}");
    }
}

#[test]
fn continue_is_sent_to_a_client_that_waits() {
    let sent = |head: &[u8], body: &[u8]| {
        let input = [head, body].concat();
        let (mut reader, mut output) = (RequestReader::default(), Vec::new());
        let received = reader.receive(&input, &HttpLimits::default(), &mut output);
        assert!(received.is_ok());
        assert!(reader.is_reading() || body == b"hello");
        output
    };
    let waiting = post("Content-Length: 5\r\nExpect: 100-continue\r\n", "");
    assert_eq!(sent(&waiting, b""), b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(sent(&waiting, b"h"), b"", "the body has begun");
    assert_eq!(sent(&waiting, b"hello"), b"");
    assert_eq!(sent(&post("Content-Length: 5\r\n", ""), b""), b"");
    let chunked = post("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", "");
    assert_eq!(sent(&chunked, b""), b"HTTP/1.1 100 Continue\r\n\r\n");
    let old = b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(sent(old, b""), b"", "an HTTP/1.0 client does not know it");
}

#[test]
fn connection_persists_as_the_client_says() {
    for (lines, keep_alive) in [
        ("", true),
        ("Connection: keep-alive\r\n", true),
        ("Connection: Close\r\n", false),
        ("Connection: a, ,close\r\n", false),
        ("Connection: a\r\nConnection: close\r\n", false),
        ("Upgrade: h2c\r\n", false),
    ] {
        assert_eq!(
            outcome(get(lines)).requests[0].keep_alive,
            keep_alive,
            "{lines:?}"
        );
    }
}

/// What the h1spec suite of uWebSockets asks of a server, and its neighbours.
#[test]
fn h1spec() {
    let whole = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for length in 0..whole.len() {
        assert_eq!(answer(&whole[..length]), 0, "a fragment is waited for");
    }
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhOsT:\tb.c\r\nempty:\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: b.c\r\nX-Empty: \r\n\r\n", 200),
        ("GET / HTTP/1.0\r\nHost: b.c\r\n\r\n", 200),
        ("GET http://b.c/ HTTP/1.1\r\nHost: b.c\r\n\r\n", 200),
        (
            "POST / HTTP/1.1\r\nHost: b.c\r\nContent-Length: 5\r\n\r\nhello",
            200,
        ),
        ("GET   HTTP/1.1\r\nHost: b.c\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: b.c\r\nX-Control: a\x07\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: b.c\r\nContent-Length: \r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: b.c\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost: b.c\r\n: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: b.c\r\n\rX: y\r\n\r\n", 400),
        ("Extra lineGET / HTTP/1.1\r\nHost: b.c\r\n\r\n", 501),
    ] {
        assert_eq!(answer(request), status, "{request:?}");
    }
}

#[test]
fn work_is_linear_however_the_input_is_cut() {
    let head = get(&format!("X: {}\r\nY: z\r\n", "a".repeat(15_000)));
    let body = post("Content-Length: 60000\r\n", &"a".repeat(60_000));
    let chunks = post(
        "Transfer-Encoding: chunked\r\n",
        &"1\r\na\r\n".repeat(10_000),
    );
    for input in [head, body, chunks] {
        work::take();
        let whole = feed(&input, [input.len()], &HttpLimits::default());
        let whole_work = work::take();
        let bytewise = feed(&input, 1..=input.len(), &HttpLimits::default());
        let bytewise_work = work::take();
        same(&input, &whole, bytewise, "bytewise");
        assert!(
            whole_work <= 3 * input.len(),
            "{whole_work} for {}",
            input.len()
        );
        assert!(
            bytewise_work <= 4 * input.len(),
            "{bytewise_work} for {}",
            input.len()
        );
    }
}

#[test]
fn body_memory_follows_what_came() {
    let limits = HttpLimits {
        max_body_size: 1 << 30,
        ..HttpLimits::default()
    };
    let mut decoder = BodyDecoder::new(Framing::Length(1 << 30));
    let mut body = Vec::new();
    for received in 1..=100_000 {
        decoder
            .advance(b"a", &limits, &mut body)
            .expect("within the limit");
        assert!(
            body.capacity() <= 2 * received + 8,
            "{} for {received}",
            body.capacity()
        );
    }
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut body = Vec::new();
    decoder
        .advance(b"3FFFFFFF\r\nab", &limits, &mut body)
        .expect("within the limit");
    assert!(body.capacity() <= 16, "a claimed size reserves nothing");
}

#[test]
fn request_lends_a_body_that_came_with_its_head() {
    let input = post("Content-Length: 5\r\n", "hello, this is the next request");
    let mut reader = RequestReader::default();
    let (consumed, request) = reader
        .receive(&input, &HttpLimits::default(), &mut Vec::new())
        .expect("valid");
    let request = request.expect("complete");
    assert_eq!(request.body().as_ptr(), input[consumed - 5..].as_ptr());
    let mut owned = request.into_owned();
    assert_eq!(
        (owned.body(), owned.path(), owned.is_head()),
        (&b"hello"[..], &b"/p"[..], false)
    );
    owned.set_body(Cow::Borrowed(b""));
    assert_eq!(owned.body(), b"");
}

fn with_request(input: &[u8], check: impl FnOnce(&Request<'_>)) {
    let mut reader = RequestReader::default();
    let received = reader.receive(input, &HttpLimits::default(), &mut Vec::new());
    check(&received.expect("valid").1.expect("complete"));
}

#[test]
fn fields_are_found_in_any_case_and_number() {
    with_request(
        &get("a-List: x,\t y ,,\r\nA-LIST: z\r\nOrigin: http://o\r\n"),
        |request| {
            assert_eq!(request.header("A-list"), Some(&b"x,\t y ,,"[..]));
            assert_eq!(request.header_values("a-list").count(), 2);
            assert_eq!(
                request.tokens("a-list").collect::<Vec<_>>(),
                [b"x", b"y", b"z"]
            );
            assert!(request.lists("a-list", "Y") && !request.lists("a-list", "x,"));
            assert_eq!(request.origin(), Some(&b"http://o"[..]));
            assert_eq!(request.header("absent"), None);
            assert_eq!(request.tokens("absent").count(), 0);
        },
    );
}

#[test]
fn cookies_are_pairs() {
    with_request(
        &get("Cookie: a=1; b = x=y ;c\r\nCookie: d=\r\n"),
        |request| {
            let cookies: Vec<_> = request.cookies().collect();
            assert_eq!(
                cookies,
                [(&b"a"[..], &b"1"[..]), (b"b", b"x=y"), (b"d", b"")]
            );
        },
    );
}

#[test]
fn queries() {
    for (target, path, query) in [
        ("/", "/", None),
        ("/?", "/", Some("")),
        ("/a?b", "/a", Some("b")),
    ] {
        let input = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        with_request(input.as_bytes(), |request| {
            assert_eq!(request.path(), path.as_bytes());
            assert_eq!(request.query(), query.map(str::as_bytes));
        });
    }
}

/// A field of 15 KiB that is nothing but separators costs no more than reading it.
#[test]
fn hostile_lists_are_read() {
    for filler in [",", " ", "a,", "\",", ";", "\\\""] {
        let value = filler.repeat(15_000 / filler.len());
        for name in [
            "Connection",
            "Upgrade",
            "Transfer-Encoding",
            "Cookie",
            "Expect",
        ] {
            let input = get(&format!("{name}: {value}\r\n"));
            let status = feed(&input, [input.len()], &HttpLimits::default()).status();
            assert!(
                [200, 400, 417].contains(&status),
                "{name} {filler:?}: {status}"
            );
        }
    }
}

/// Valid requests to mutate.
const SEEDS: [&str; 6] = [
    "GET /chat?room=1 HTTP/1.1\r\nHost: a.b:80\r\nAccept: */*\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: p; q=\"1\"; r, s\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
     5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nOPTIONS * HTTP/1.1\r\nHost: [::1]:1\r\nExpect: 100-continue\r\n\r\n",
    "GET http://b/x HTTP/1.0\r\nHost: a\r\nCookie: a=b; c=d\r\n\r\n",
];

/// Bytes that matter to the grammar, and any other.
fn interesting_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        prop::sample::select(b"\r\n :;,\t\"\\=/*?0159aF\0\x7f\x80".to_vec()),
        any::<u8>()
    ]
}

fn mutate(input: &mut Vec<u8>, kind: u8, at: prop::sample::Index, byte: u8, length: usize) {
    let at = at.index(input.len() + 1);
    let end = input.len().min(at + length);
    match kind {
        0 => input.insert(at, byte),
        1 if at < end => input[at] = byte,
        2 => drop(input.drain(at..end)),
        3 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        _ => input.truncate(input.len() - (end - at)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_requests_are_answered_alike_however_they_are_cut(
        seed in prop::sample::select(&SEEDS[..]),
        mutations in prop::collection::vec(
            (0u8..5, any::<prop::sample::Index>(), interesting_byte(), 1usize..40), 0..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        tight in any::<bool>(),
    ) {
        let mut input = seed.as_bytes().to_vec();
        for (kind, at, byte, length) in mutations {
            mutate(&mut input, kind, at, byte, length);
        }
        let limits = if tight {
            HttpLimits { max_head_size: 90, max_fields: 3, max_target_size: 10, max_body_size: 6 }
        } else {
            HttpLimits::default()
        };
        let bytewise = feed(&input, 1..=input.len(), &limits);
        same(&input, &bytewise, feed(&input, [input.len()], &limits), "whole");
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(input.len());
        same(&input, &bytewise, feed(&input, ends, &limits), "cut");
    }

    #[test]
    fn random_bytes_never_panic(input in prop::collection::vec(interesting_byte(), 0..200)) {
        let bytewise = feed(&input, 1..=input.len(), &HttpLimits::default());
        same(&input, &bytewise, feed(&input, [input.len()], &HttpLimits::default()), "whole");
    }
}
