//! One response, as its handler writes it.

use super::grammar::{is_token, is_value_byte};
use crate::protocol::error::UsageError;

/// A final HTTP/1.1 response.
///
/// The handler says what is answered; [`encode`](Self::encode) adds what the connection knows: the
/// length, the date and whether the connection closes.
///
/// ```
/// use stentor::protocol::http::{Response, ResponseFraming};
///
/// let mut output = Vec::new();
/// let response = Response::new(200).text("hello").header("Cache-Control", "no-store")?;
/// response.encode(&mut output, ResponseFraming::default());
/// assert!(output.starts_with(b"HTTP/1.1 200 OK\r\n"));
/// assert!(output.ends_with(b"Content-Length: 5\r\n\r\nhello"));
/// # Ok::<(), stentor::protocol::error::UsageError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    content_type: Option<&'static str>,
    /// The other fields, as they go onto the wire.
    fields: Vec<u8>,
    body: Vec<u8>,
    /// Whether the answer names the protocol to upgrade to.
    upgrade: bool,
}

/// What the connection knows about a response and the handler does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseFraming<'a> {
    /// The request was HEAD: the head is the same, the body stays away (RFC 9110 §9.3.2).
    pub head_only: bool,
    /// The connection closes after this response (RFC 9112 §9.6).
    pub close: bool,
    /// The body follows and ends with the connection (RFC 9112 §6.3, item 8): goes with `close`.
    pub is_stream: bool,
    /// The current time as an IMF-fixdate (RFC 9110 §5.6.7), for a server that has a clock.
    pub date: Option<&'a str>,
}

impl Response {
    /// An empty response.
    ///
    /// A handler gives final statuses: one outside 200–999 is a mistake, and shows as 500.
    pub fn new(status: u16) -> Self {
        let status = if (200..=999).contains(&status) {
            status
        } else {
            500
        };
        Self {
            status,
            content_type: None,
            fields: Vec::new(),
            body: Vec::new(),
            upgrade: false,
        }
    }

    /// 404, in words.
    pub fn not_found() -> Self {
        Self::new(404).text("Not found.\n")
    }

    /// 405 with the methods that are allowed.
    ///
    /// # Errors
    ///
    /// [`UsageError::InvalidHeaderValue`] if a method is not a token.
    pub fn method_not_allowed(allowed: &[&str]) -> Result<Self, UsageError> {
        // RFC 9110 §15.5.6: "The origin server MUST generate an Allow header field in a 405
        // response".
        if !allowed.iter().all(|method| is_token(method.as_bytes())) {
            return Err(UsageError::InvalidHeaderValue);
        }
        Self::new(405)
            .text("Method not allowed.\n")
            .header("Allow", allowed.join(", "))
    }

    /// 307: the same request, at another place.
    ///
    /// # Errors
    ///
    /// [`UsageError::InvalidHeaderValue`] if the location holds a control character.
    pub fn redirect(location: &str) -> Result<Self, UsageError> {
        Self::new(307).header("Location", location)
    }

    /// 426: this resource speaks WebSocket only (RFC 9110 §15.5.22, RFC 6455 §4.4).
    pub fn upgrade_required() -> Self {
        Self::new(426)
            .text("This resource speaks WebSocket.\n")
            .offering_websocket()
    }

    /// Adds a field; one of the same name stays.
    ///
    /// # Errors
    ///
    /// [`UsageError::InvalidHeaderName`] or [`UsageError::InvalidHeaderValue`] for what would not
    /// stay within its line, and [`UsageError::ReservedHeader`] for the fields that
    /// [`encode`](Self::encode) writes: Connection, Content-Length, Date, Transfer-Encoding,
    /// Upgrade.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, UsageError> {
        check_field(name, value.as_ref())?;
        if name.eq_ignore_ascii_case("Content-Type") {
            self.content_type = None;
        }
        push_field(&mut self.fields, name, value.as_ref());
        Ok(self)
    }

    /// Sets the body; its type is what [`text`](Self::text), [`html`](Self::html) or
    /// [`header`](Self::header) said last.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body and says that it is plain text in UTF-8.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.typed_body("text/plain; charset=utf-8", text.into())
    }

    /// Sets the body and says that it is HTML in UTF-8.
    pub fn html(self, html: impl Into<String>) -> Self {
        self.typed_body("text/html; charset=utf-8", html.into())
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Appends the response as it goes onto the wire.
    pub fn encode(&self, output: &mut Vec<u8>, framing: ResponseFraming<'_>) {
        push_status_line(output, self.status);
        if let Some(date) = framing.date {
            push_field(output, "Date", date.as_bytes());
        }
        if let Some(kind) = self.content_type {
            push_field(output, "Content-Type", kind.as_bytes());
        }
        output.extend_from_slice(&self.fields);
        match (framing.close, self.upgrade) {
            (true, true) => push_field(output, "Connection", b"close, Upgrade"),
            (true, false) => push_field(output, "Connection", b"close"),
            // RFC 9110 §7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
            (false, true) => push_field(output, "Connection", b"Upgrade"),
            (false, false) => {}
        }
        // RFC 9110 §8.6: "A server MUST NOT send a Content-Length header field in any response with
        // a status code of 1xx (Informational) or 204 (No Content)"; §15.4.5: a 304 ends here, too.
        let has_length = !matches!(self.status, 204 | 304);
        // RFC 9110 §15.3.6: "a server MUST NOT generate content in a 205 response."
        let body = if self.status == 205 {
            &[][..]
        } else {
            &self.body
        };
        if has_length && !framing.is_stream {
            push_field(output, "Content-Length", body.len().to_string().as_bytes());
        }
        output.extend_from_slice(b"\r\n");
        if has_length && !framing.head_only && !framing.is_stream {
            output.extend_from_slice(body);
        }
    }

    /// Adds a field that the application may not set, or that is known to be valid.
    pub(in crate::protocol) fn with(mut self, name: &str, value: &str) -> Self {
        push_field(&mut self.fields, name, value.as_bytes());
        self
    }

    /// Adds what a 426 must say (RFC 9110 §15.5.22): "The server MUST send an Upgrade header field
    /// in a 426 response to indicate the required protocol(s)".
    pub(in crate::protocol) fn offering_websocket(mut self) -> Self {
        self.upgrade = true;
        self.with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
    }

    fn typed_body(mut self, kind: &'static str, body: String) -> Self {
        self.content_type = Some(kind);
        self.body(body)
    }
}

/// Appends one field line. The caller has checked both parts.
pub(in crate::protocol) fn push_field(output: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(is_token(name.as_bytes()) && value.iter().copied().all(is_value_byte));
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        output.extend_from_slice(part);
    }
}

/// Whether an application may add this field to a response.
///
/// RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous".
pub(in crate::protocol) fn check_field(name: &str, value: &[u8]) -> Result<(), UsageError> {
    if !is_token(name.as_bytes()) {
        return Err(UsageError::InvalidHeaderName);
    }
    if RESERVED
        .iter()
        .any(|reserved| name.eq_ignore_ascii_case(reserved))
    {
        return Err(UsageError::ReservedHeader);
    }
    if !value.iter().copied().all(is_value_byte) {
        return Err(UsageError::InvalidHeaderValue);
    }
    Ok(())
}

fn push_status_line(output: &mut Vec<u8>, status: u16) {
    for part in [
        "HTTP/1.1 ",
        &status.to_string(),
        " ",
        reason(status),
        "\r\n",
    ] {
        output.extend_from_slice(part.as_bytes());
    }
}

/// The reason phrase of RFC 9110 §15; empty for a status that is not in it.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Fields that decide where a response ends and what becomes of the connection.
const RESERVED: [&str; 5] = [
    "Connection",
    "Content-Length",
    "Date",
    "Transfer-Encoding",
    "Upgrade",
];

#[cfg(test)]
mod tests {
    use super::{Response, ResponseFraming};
    use crate::protocol::error::UsageError;

    fn encoded(response: &Response, framing: ResponseFraming<'_>) -> String {
        let mut output = Vec::new();
        response.encode(&mut output, framing);
        String::from_utf8(output).expect("these responses are text")
    }

    #[test]
    fn response_says_length_date_and_close() {
        let framing = ResponseFraming {
            close: true,
            date: Some("Sun, 06 Nov 1994 08:49:37 GMT"),
            ..ResponseFraming::default()
        };
        assert_eq!(
            encoded(&Response::new(200).html("<p>"), framing),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/html; charset=utf-8\r\nConnection: close\r\n\
             Content-Length: 3\r\n\r\n<p>"
        );
    }

    #[test]
    fn head_gets_the_length_but_not_the_body() {
        let framing = ResponseFraming {
            head_only: true,
            ..ResponseFraming::default()
        };
        let text = encoded(&Response::not_found(), framing);
        assert!(text.ends_with("Content-Length: 11\r\n\r\n"), "{text}");
    }

    #[test]
    fn statuses_without_content_carry_none() {
        for status in [204, 304] {
            let text = encoded(&Response::new(status).body("x"), ResponseFraming::default());
            assert!(
                text.ends_with("\r\n\r\n") && !text.contains("Content-Length"),
                "{text}"
            );
        }
        let text = encoded(&Response::new(205).body("x"), ResponseFraming::default());
        assert!(text.ends_with("Content-Length: 0\r\n\r\n"), "{text}");
    }

    #[test]
    fn header_injection_is_refused() {
        for value in ["a\r\nSet-Cookie: b", "a\n", "a\0", "a\x7f"] {
            let answer = Response::new(200).header("X", value);
            assert_eq!(answer, Err(UsageError::InvalidHeaderValue), "{value:?}");
        }
        for name in ["", "a b", "a:", "a\r\nb", "ä"] {
            let answer = Response::new(200).header(name, "x");
            assert_eq!(answer, Err(UsageError::InvalidHeaderName), "{name:?}");
        }
        assert!(Response::redirect("/a\r\nX: y").is_err());
        assert!(Response::method_not_allowed(&["GET\r\n"]).is_err());
    }

    #[test]
    fn framing_headers_are_not_the_applications() {
        for name in [
            "content-length",
            "CONNECTION",
            "Transfer-Encoding",
            "date",
            "Upgrade",
        ] {
            let answer = Response::new(200).header(name, "1");
            assert_eq!(answer, Err(UsageError::ReservedHeader), "{name}");
        }
    }

    #[test]
    fn upgrade_required_names_the_protocol_and_version() {
        let text = encoded(&Response::upgrade_required(), ResponseFraming::default());
        for line in [
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Connection: Upgrade",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
        }
        let framing = ResponseFraming {
            close: true,
            ..ResponseFraming::default()
        };
        let text = encoded(&Response::upgrade_required(), framing);
        assert!(
            text.contains("\r\nConnection: close, Upgrade\r\n"),
            "{text}"
        );
    }

    #[test]
    fn constructors_say_what_their_status_demands() {
        let text = |response| encoded(&response, ResponseFraming::default());
        let allowed = Response::method_not_allowed(&["GET", "HEAD"]).expect("tokens");
        assert!(text(allowed).contains("\r\nAllow: GET, HEAD\r\n"));
        let moved = Response::redirect("/new").expect("a path");
        assert!(text(moved).starts_with("HTTP/1.1 307 Temporary Redirect\r\nLocation: /new\r\n"));
        let typed = Response::new(200)
            .text("a")
            .header("content-type", "text/css")
            .expect("valid");
        assert_eq!(text(typed).matches("text/").count(), 1, "one type only");
        assert_eq!(Response::new(101).status(), 500);
        assert_eq!(Response::new(1000).status(), 500);
        assert!(text(Response::new(299)).starts_with("HTTP/1.1 299 \r\n"));
    }
}
