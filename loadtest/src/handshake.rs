//! The opening handshake (RFC 6455 §4), as little of it as a yardstick needs, checked as strictly as it can be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::target::Target;

/// The longest head accepted from either side: an answer of ours or a server's is a few hundred bytes.
pub const MAX_HEAD: usize = 8 * 1024;

/// The key of the RFC's own example (§1.3), for connections that differ in nothing, and its answer.
pub const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A fresh `Sec-WebSocket-Key`.
pub fn random_key() -> String {
    STANDARD.encode(std::array::from_fn::<u8, 16, _>(|_| fastrand::u8(..)))
}

/// §4.2.2: "concatenating /key/ […] with the string […], taking the SHA-1 hash […], base64-encoding".
pub fn accept_value(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The client's opening request.
pub fn request(target: &Target, key: &str) -> Vec<u8> {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        target.path, target.host
    )
    .into_bytes()
}

/// The server's answer to a request with that key.
pub fn response(key: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_value(key)
    )
    .into_bytes()
}

/// The length of the head with the empty line that ends it, once it is complete.
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// The value of a field in a head.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    head.split("\r\n").skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Checks the server's answer as §4.1 asks of clients.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_response(head: &[u8], key: &str) -> Result<(), String> {
    let status = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if !status.starts_with(b"HTTP/1.1 101") {
        return Err(format!(
            "the server answered {:?}",
            String::from_utf8_lossy(status)
        ));
    }
    let lists = |name, token: &str| {
        field(head, name).is_some_and(|value| {
            value
                .split(',')
                .any(|item| item.trim().eq_ignore_ascii_case(token))
        })
    };
    if !lists("Upgrade", "websocket") || !lists("Connection", "Upgrade") {
        return Err("the answer does not upgrade to websocket".into());
    }
    if field(head, "Sec-WebSocket-Accept") != Some(accept_value(key).as_str()) {
        return Err("the answer's Sec-WebSocket-Accept is wrong".into());
    }
    for unasked in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"] {
        if let Some(value) = field(head, unasked) {
            return Err(format!(
                "the server chose {unasked}: {value}, which was not offered"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_value_is_the_rfcs() {
        assert_eq!(accept_value(SAMPLE_KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn request_carries_target_and_key() {
        let target = "ws://localhost:9001/chat?room=1".parse().unwrap();
        let request = request(&target, SAMPLE_KEY);
        assert!(request.starts_with(b"GET /chat?room=1 HTTP/1.1\r\n"));
        assert_eq!(field(&request, "host"), Some("localhost:9001"));
        assert_eq!(field(&request, "sec-websocket-key"), Some(SAMPLE_KEY));
        assert_eq!(head_len(&request), Some(request.len()));
    }

    #[test]
    fn right_answer_is_accepted() {
        let key = random_key();
        assert_eq!(check_response(&response(&key), &key), Ok(()));
    }

    #[test]
    fn wrong_answers_are_refused() {
        let right = String::from_utf8(response(SAMPLE_KEY)).unwrap();
        for (part, instead) in [
            ("101 Switching Protocols", "200 OK"),
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Connection: Upgrade", "Connection: keep-alive"),
            ("s3pP", "s3pQ"),
            (
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            ),
            ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
        ] {
            let wrong = right.replace(part, instead);
            assert!(
                check_response(wrong.as_bytes(), SAMPLE_KEY).is_err(),
                "{wrong}"
            );
        }
    }
}
