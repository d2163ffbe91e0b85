//! The character classes and small productions of RFC 9110 §5.6 and RFC 3986 §3.2.
//!
//! Pure questions about bytes; which status a "no" leads to is decided by the callers.

use std::net::Ipv6Addr;
use std::str;

/// `tchar` (RFC 9110 §5.6.2).
pub(in crate::protocol) fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// An octet of a request target: visible ASCII.
///
/// Wider than RFC 3986, because browsers send `|`, `{` or `^` in a query unescaped. `#` is
/// excluded: a fragment is never sent (RFC 9110 §7.1), and a proxy that cut it off would route
/// another path than we do.
pub(in crate::protocol) fn is_target_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TARGET != 0
}

/// An octet of a field value: visible ASCII, SP, HTAB and `obs-text` (RFC 9110 §5.5).
pub(in crate::protocol) fn is_value_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & VALUE != 0
}

/// `token` (RFC 9110 §5.6.2): at least one `tchar`.
pub(in crate::protocol) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

/// The token as text, or `None` where the bytes are not a token.
pub(in crate::protocol) fn token(bytes: &[u8]) -> Option<&str> {
    is_token(bytes)
        .then(|| str::from_utf8(bytes).ok())
        .flatten()
}

/// The bytes without the SP and HTAB around them (`OWS`, RFC 9110 §5.6.3).
pub(in crate::protocol) fn trim(bytes: &[u8]) -> &[u8] {
    let is_visible = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(start) = bytes.iter().position(is_visible) else {
        return &[];
    };
    let end = bytes
        .iter()
        .rposition(is_visible)
        .map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// The non-empty elements of a comma-separated list (RFC 9110 §5.6.1), in one pass.
///
/// "A recipient MUST parse and ignore a reasonable number of empty list elements."
pub(in crate::protocol) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|element| !element.is_empty())
}

/// The length of the longest prefix whose bytes all satisfy `class`.
pub(super) fn run(bytes: &[u8], class: impl Fn(u8) -> bool) -> usize {
    let length = bytes
        .iter()
        .position(|&byte| !class(byte))
        .unwrap_or(bytes.len());
    #[cfg(test)]
    work::add(length + 1);
    length
}

/// `uri-host [":" port]` (RFC 9110 §7.2), with a host that is not empty.
///
/// Stricter than RFC 3986 in one point: a comma, although a `sub-delim`, is refused, because it is
/// what two Host fields look like after something in between has joined them.
pub(in crate::protocol) fn is_host(authority: &[u8]) -> bool {
    let (host_is_valid, port) = match authority.strip_prefix(b"[") {
        Some(literal) => split_literal(literal),
        None => split_name(authority),
    };
    host_is_valid && is_port(port)
}

/// Judges what follows `[`, and answers whether the address is one, and what follows `]`.
fn split_literal(literal: &[u8]) -> (bool, &[u8]) {
    let Some(end) = literal.iter().position(|&byte| byte == b']') else {
        return (false, &[]);
    };
    let (address, rest) = literal.split_at(end);
    let address = str::from_utf8(address)
        .ok()
        .and_then(|text| text.parse::<Ipv6Addr>().ok());
    (address.is_some(), &rest[1..])
}

fn split_name(authority: &[u8]) -> (bool, &[u8]) {
    let end = authority
        .iter()
        .position(|&byte| byte == b':')
        .unwrap_or(authority.len());
    let (name, port) = authority.split_at(end);
    (is_name(name), port)
}

/// `reg-name` (RFC 3986 §3.2.2): unreserved, sub-delims and percent-encoded octets.
fn is_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        let valid = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(u8::is_ascii_hexdigit)),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b';' | b'=' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !valid {
            return false;
        }
    }
    !name.is_empty()
}

/// Nothing, or a colon and a port number; the digits may be missing (RFC 3986 §3.2.3).
fn is_port(port: &[u8]) -> bool {
    match port.strip_prefix(b":") {
        Some(digits) => {
            number(digits).is_some_and(|port| u16::try_from(port).is_ok()) || digits.is_empty()
        }
        None => port.is_empty(),
    }
}

/// `1*DIGIT` that fits into 64 bits; no sign, no white space.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;

/// The classes of each octet.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        table[byte as usize] = class(byte);
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

const fn class(byte: u8) -> u8 {
    match byte {
        b'#' => TOKEN | VALUE,
        b'!'
        | b'$'
        | b'%'
        | b'&'
        | b'\''
        | b'*'
        | b'+'
        | b'-'
        | b'.'
        | b'^'
        | b'_'
        | b'`'
        | b'|'
        | b'~'
        | b'0'..=b'9'
        | b'A'..=b'Z'
        | b'a'..=b'z' => TOKEN | TARGET | VALUE,
        0x21..=0x7E => TARGET | VALUE,
        b'\t' | b' ' | 0x80..=0xFF => VALUE,
        _ => 0,
    }
}

/// Counts the bytes that were looked at, so that tests can tell linear work from quadratic work
/// without a clock.
#[cfg(test)]
pub(super) mod work {
    use std::cell::Cell;

    thread_local!(static EXAMINED: Cell<usize> = const { Cell::new(0) });

    /// Notes that `count` more bytes were examined on this thread.
    pub(in crate::protocol::http) fn add(count: usize) {
        EXAMINED.with(|examined| examined.set(examined.get() + count));
    }

    /// The bytes examined since the last call.
    pub(in crate::protocol::http) fn take() -> usize {
        EXAMINED.with(Cell::take)
    }
}

#[cfg(test)]
mod tests {
    use super::{is_host, is_target_byte, is_token_byte, is_value_byte, list, number, trim};

    #[test]
    fn classes_match_the_rfc_for_every_octet() {
        for byte in 0..=u8::MAX {
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token_byte(byte), token, "tchar {byte:#04x}");
            assert_eq!(
                is_target_byte(byte),
                byte.is_ascii_graphic() && byte != b'#',
                "target {byte:#04x}"
            );
            let value = byte.is_ascii_graphic() || byte >= 0x80 || byte == b' ' || byte == b'\t';
            assert_eq!(is_value_byte(byte), value, "value {byte:#04x}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for host in [
            "a",
            "example.com",
            "example.com:80",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:8080",
            "a_b",
            "x%20y",
            "a:",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "u@h",
            "a,b",
            "a:b",
            "a:65536",
            "a:1:2",
            "[::1",
            "[::1]x",
            "[]",
            "[v1.x]",
            "[::1%25eth0]",
            "a%2",
            "a%zz",
            "ä",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn lists_skip_empty_elements_and_white_space() {
        assert_eq!(
            list(b" , a,,\tb c ,").collect::<Vec<_>>(),
            [b"a".as_slice(), b"b c"]
        );
        assert_eq!(trim(b" \t "), b"");
    }

    #[test]
    fn numbers_are_digits_only_and_fit_64_bits() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for digits in [
            "18446744073709551616",
            "",
            "+5",
            "-1",
            "0x5",
            "5,5",
            " 5",
            "5 ",
        ] {
            assert_eq!(number(digits.as_bytes()), None, "{digits}");
        }
    }
}
