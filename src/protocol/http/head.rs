//! A complete head: bytes to [`Request`], and how its body will be framed.
//!
//! The scanner has checked the grammar of the lines; here is what the fields mean together.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::HttpLimits;
use super::body::Framing;
use super::grammar::{is_host, is_token, number, trim};
use super::request::{Field, Request, Span, Target};
use super::scan::known_method;
use crate::protocol::error::HandshakeError;

/// Reads the head with `field_count` field lines that fills `bytes`.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    field_count: usize,
    limits: &HttpLimits,
) -> Result<(Request<'a>, Framing), HandshakeError> {
    let request = read_lines(bytes, field_count)?;
    judge_host(&request)?;
    let framing = body_framing(&request, limits)?;
    judge_expectations(&request)?;
    Ok((request, framing))
}

fn read_lines(bytes: &[u8], field_count: usize) -> Result<Request<'_>, HandshakeError> {
    #[cfg(test)]
    super::grammar::work::add(bytes.len());
    let mut few = [const { MaybeUninit::uninit() }; HEADERS_ON_STACK];
    let mut many = Vec::new();
    let headers = if field_count <= few.len() {
        &mut few[..]
    } else {
        many.resize_with(field_count, MaybeUninit::uninit);
        &mut many[..]
    };
    let mut head = httparse::Request::new(&mut []);
    let parsed = head.parse_with_uninit_headers(bytes, headers);
    debug_assert!(
        parsed.is_ok_and(|status| status.is_complete()),
        "the scanner is stricter"
    );
    let (Ok(httparse::Status::Complete(_)), Some(method), Some(target), Some(minor)) =
        (parsed, head.method, head.path, head.version)
    else {
        return Err(HandshakeError::BadRequestLine);
    };
    let method = known_method(method.as_bytes()).ok_or(HandshakeError::UnknownMethod)?;
    let target = split_target(bytes, method, target.as_bytes())?;
    let fields = head.headers.iter().map(|header| Field {
        name: Span::within(bytes, header.name.as_bytes()),
        value: Span::within(bytes, header.value),
    });
    let fields = fields.collect();
    Ok(Request::new(
        Cow::Borrowed(bytes),
        method,
        target,
        minor == 1,
        fields,
    ))
}

/// Tells the forms of RFC 9112 §3.2 apart.
fn split_target(head: &[u8], method: &str, target: &[u8]) -> Result<Target, HandshakeError> {
    let (authority, path_and_query) = match target {
        [b'/', ..] => (None, target),
        // §3.2.4: "The asterisk-form of request-target is only used for a server-wide OPTIONS
        // request".
        b"*" if method == "OPTIONS" => (None, target),
        // §3.2.2: "a server MUST accept the absolute-form in requests even though most HTTP/1.1
        // clients will only send the absolute-form to a proxy."
        _ => split_absolute(target).ok_or(HandshakeError::BadTarget)?,
    };
    let mark = path_and_query.iter().position(|&byte| byte == b'?');
    let (path, query) = path_and_query.split_at(mark.unwrap_or(path_and_query.len()));
    Ok(Target {
        whole: Span::within(head, target),
        authority: authority.map(|authority| Span::within(head, authority)),
        path: Span::within(head, path),
        query: mark.map(|_| Span::within(head, query).skip_first()),
    })
}

/// Splits `scheme "://" authority path-abempty [ "?" query ]` before the path.
///
/// Userinfo is not a host, and so refused (RFC 9110 §4.2.4: "treat its presence as an error").
fn split_absolute(target: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let colon = target.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = target.split_at(colon);
    let rest = rest.strip_prefix(b"://")?;
    let known = SCHEMES
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()));
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(end);
    (known && is_host(authority)).then_some((Some(authority), path_and_query))
}

fn judge_host(request: &Request<'_>) -> Result<(), HandshakeError> {
    let mut hosts = request.header_values("host");
    let host = hosts.next();
    // RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1
    // request message that lacks a Host header field and to any request message that contains more
    // than one Host header field line or a Host header field with an invalid field value."
    if hosts.next().is_some() {
        return Err(HandshakeError::DuplicateHost);
    }
    match host {
        Some(host) if !is_host(host) => Err(HandshakeError::BadHost),
        None if request.is_http_11() => Err(HandshakeError::MissingHost),
        _ => Ok(()),
    }
}

/// Decides how long the body is (RFC 9112 §6.3), without reading any of it.
fn body_framing(request: &Request<'_>, limits: &HttpLimits) -> Result<Framing, HandshakeError> {
    let length = content_length(request)?;
    let chunked = is_chunked(request)?;
    // §6.1: "A server MAY reject a request that contains both Content-Length and Transfer-Encoding
    // or process such a request in accordance with the Transfer-Encoding alone. Regardless, the
    // server MUST close the connection".
    if chunked && length.is_some() {
        return Err(HandshakeError::AmbiguousLength);
    }
    let length = length.unwrap_or(0);
    // What follows an upgrade request is read as frames by one party and as a body by another. An
    // offer of h2c alone is plain HTTP here: clients send it along with a POST.
    if request.is_upgrade() && (chunked || length > 0) {
        return Err(HandshakeError::UpgradeWithBody);
    }
    if chunked {
        return Ok(Framing::Chunked);
    }
    let length = usize::try_from(length).map_err(|_| HandshakeError::BodyTooLarge)?;
    match length {
        0 => Ok(Framing::None),
        _ if length > limits.max_body_size => Err(HandshakeError::BodyTooLarge),
        _ => Ok(Framing::Length(length)),
    }
}

fn content_length(request: &Request<'_>) -> Result<Option<u64>, HandshakeError> {
    let mut values = request.header_values("content-length");
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // RFC 9112 §6.3 lets a recipient merge identical values; a list of lengths is never honest.
    if values.next().is_some() {
        return Err(HandshakeError::BadContentLength);
    }
    number(value)
        .map(Some)
        .ok_or(HandshakeError::BadContentLength)
}

/// Whether the body is chunked; an error if it is encoded in any other way.
fn is_chunked(request: &Request<'_>) -> Result<bool, HandshakeError> {
    let mut values = request.header_values("transfer-encoding").peekable();
    if values.peek().is_none() {
        return Ok(false);
    }
    // RFC 9112 §6.1: "A server or client that receives an HTTP/1.0 message containing a
    // Transfer-Encoding header field MUST treat the message as if the framing is faulty".
    if !request.is_http_11() {
        return Err(HandshakeError::BadTransferEncoding);
    }
    let codings = values
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(trim);
    let mut chunked = 0;
    let mut others = 0;
    let mut last_is_chunked = false;
    for coding in codings {
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_is_chunked);
        others += usize::from(!last_is_chunked);
        if !is_token(coding) {
            return Err(HandshakeError::BadTransferEncoding);
        }
    }
    // §6.3: "If a Transfer-Encoding header field is present in a request and the chunked transfer
    // coding is not the final encoding, the message body length cannot be determined reliably; the
    // server MUST respond with the 400 (Bad Request) status code and then close the connection."
    // §6.1: "A sender MUST NOT apply the chunked transfer coding more than once".
    if !last_is_chunked || chunked > 1 {
        return Err(HandshakeError::BadTransferEncoding);
    }
    // §6.1: "A server that receives a request message with a transfer coding it does not understand
    // SHOULD respond with 501 (Not Implemented)."
    if others > 0 {
        return Err(HandshakeError::UnknownTransferCoding);
    }
    Ok(true)
}

/// RFC 9110 §10.1.1: "A server that receives an Expect field value containing a member other than
/// 100-continue MAY respond with a 417 (Expectation Failed) status code".
///
/// An upgrade with an expectation would need a 100 before the 101 (RFC 9110 §7.8); it has no body
/// to wait for, so it is refused as well.
fn judge_expectations(request: &Request<'_>) -> Result<(), HandshakeError> {
    let mut values = request.header_values("expect");
    let refused = if request.is_upgrade() {
        values.next().is_some()
    } else {
        values.any(|value| !value.eq_ignore_ascii_case(b"100-continue"))
    };
    if refused {
        Err(HandshakeError::ExpectationFailed)
    } else {
        Ok(())
    }
}

/// What a client may call this server in absolute form.
const SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// Headers read without the heap: the default of [`HttpLimits::max_fields`].
const HEADERS_ON_STACK: usize = 100;
