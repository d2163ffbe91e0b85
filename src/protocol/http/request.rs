//! One request, as its handler sees it.

use std::borrow::Cow;
use std::str;

use super::grammar::{list, token, trim};

/// A complete, valid HTTP/1.1 (or 1.0) request.
///
/// It lends its bytes from the buffer that they were received into. A body that did not come
/// together with the head was collected, and then the request owns its bytes;
/// [`into_owned`](Self::into_owned) makes it so in any case.
///
/// # Values are bytes
///
/// A field value may hold any octet except control characters (RFC 9110 §5.5). It is not UTF-8, and
/// nothing here pretends that it is.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    head: Cow<'a, [u8]>,
    body: Cow<'a, [u8]>,
    method: &'static str,
    target: Target,
    fields: Vec<Field>,
    is_http_11: bool,
    is_upgrade: bool,
}

impl<'a> Request<'a> {
    pub(super) fn new(
        head: Cow<'a, [u8]>,
        method: &'static str,
        target: Target,
        is_http_11: bool,
        fields: Vec<Field>,
    ) -> Self {
        let body = Cow::Borrowed(&[][..]);
        let is_upgrade = false;
        let mut request = Self {
            head,
            body,
            method,
            target,
            fields,
            is_http_11,
            is_upgrade,
        };
        request.is_upgrade = request.lists("upgrade", "websocket")
            || request.header("sec-websocket-key").is_some()
            || request.header("sec-websocket-version").is_some();
        request
    }

    pub(super) fn set_body(&mut self, body: Cow<'a, [u8]>) {
        self.body = body;
    }

    /// The method: one of those registered with IANA, in capitals (RFC 9110 §9).
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// The request target as it was sent: visible ASCII, in origin, absolute or asterisk form
    /// (RFC 9112 §3.2).
    pub fn target(&self) -> &[u8] {
        self.target.whole.of(&self.head)
    }

    /// The path without the query: `/chat` of `/chat?room=1` and of `http://host/chat`.
    ///
    /// Never empty; `*` for `OPTIONS *`. Percent-encoding is left as it is.
    pub fn path(&self) -> &[u8] {
        match self.target.path.of(&self.head) {
            // RFC 9110 §4.2.3: "an empty path component is equivalent to an absolute path of "/"".
            [] => b"/",
            path => path,
        }
    }

    /// What follows the first `?` of the target, or `None` without one.
    pub fn query(&self) -> Option<&[u8]> {
        self.target.query.map(|query| query.of(&self.head))
    }

    /// The host and port that the client addressed; empty only in HTTP/1.0.
    ///
    /// The authority of an absolute target takes precedence over the Host field (RFC 9112 §3.2.2).
    pub fn host(&self) -> &[u8] {
        match self.target.authority {
            Some(authority) => authority.of(&self.head),
            None => self.header("host").unwrap_or_default(),
        }
    }

    /// All fields in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| {
            // A name is made of `tchar`, which is ASCII.
            let name = str::from_utf8(field.name.of(&self.head)).unwrap_or_default();
            (name, field.value.of(&self.head))
        })
    }

    /// The value of the first field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.header_values(name).next()
    }

    /// The values of all fields of that name, in any case.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields
            .iter()
            .filter(move |field| {
                field
                    .name
                    .of(&self.head)
                    .eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|field| field.value.of(&self.head))
    }

    /// The elements of a comma-separated field, over all fields of that name (RFC 9110 §5.6.1).
    ///
    /// White space around an element is removed and empty elements are skipped. Quoted strings are
    /// not recognised: use it for lists of tokens.
    pub fn tokens(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.header_values(name).flat_map(list)
    }

    /// Whether the field lists `element`, in any case.
    pub fn lists(&self, name: &str, element: &str) -> bool {
        self.tokens(name)
            .any(|listed| listed.eq_ignore_ascii_case(element.as_bytes()))
    }

    /// The cookies, as pairs of name and value (RFC 6265 §4.2.1). Elements without `=` are skipped.
    pub fn cookies(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.header_values("cookie")
            .flat_map(|value| value.split(|&byte| byte == b';'))
            .filter_map(|pair| {
                let equals = pair.iter().position(|&byte| byte == b'=')?;
                Some((trim(&pair[..equals]), trim(&pair[equals + 1..])))
            })
    }

    /// The origin of the page that opened the connection (RFC 6454 §7).
    ///
    /// Browsers always send it with an upgrade and pages cannot forge it; other clients can.
    pub fn origin(&self) -> Option<&[u8]> {
        self.header("origin")
    }

    /// The subprotocols that the client offers, the preferred one first (RFC 6455 §11.3.4).
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.tokens("sec-websocket-protocol").filter_map(token)
    }

    /// The first subprotocol of the client's list that the server supports; compared exactly.
    pub fn choose_subprotocol<'s>(&self, supported: &[&'s str]) -> Option<&'s str> {
        self.subprotocols().find_map(|offered| {
            supported
                .iter()
                .copied()
                .find(|&supported| supported == offered)
        })
    }

    /// The content; empty if there is none.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the client wants a WebSocket: `Upgrade` lists `websocket`, or a key or version field
    /// is there (a proxy that drops `Upgrade` leaves those).
    ///
    /// [`judge`](crate::protocol::handshake::judge) decides whether it may have one.
    pub fn is_upgrade(&self) -> bool {
        self.is_upgrade
    }

    /// Whether the request has an `Upgrade` field, for whatever protocol.
    ///
    /// Any answer but 101 to such a request must close the connection, so that an intermediary
    /// which believes that the upgrade happened cannot be used as a tunnel.
    /// [`keep_alive`](Self::keep_alive) says so.
    pub fn has_upgrade(&self) -> bool {
        self.header("upgrade").is_some()
    }

    /// Whether the response must have no body (RFC 9110 §9.3.2).
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Whether the request is HTTP/1.1, and not 1.0.
    pub fn is_http_11(&self) -> bool {
        self.is_http_11
    }

    /// Whether the connection may carry another request after this one (RFC 9112 §9.3).
    ///
    /// Not after `Connection: close`, not after a request that wanted an upgrade, and never in
    /// HTTP/1.0, where it would be an option that nothing needs.
    pub fn keep_alive(&self) -> bool {
        self.is_http_11
            && !self.has_upgrade()
            && !self.is_upgrade
            && !self.lists("connection", "close")
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    ///
    /// RFC 9110 §10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request
    /// MUST ignore that expectation."
    pub(super) fn expects_continue(&self) -> bool {
        self.is_http_11 && self.header("expect").is_some()
    }

    /// How much memory a request takes that owns its head, without its body.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.head.len() + self.fields.capacity() * size_of::<Field>()
    }

    /// The same request, independent of the receive buffer.
    pub fn into_owned(self) -> Request<'static> {
        Request {
            head: Cow::Owned(self.head.into_owned()),
            body: Cow::Owned(self.body.into_owned()),
            method: self.method,
            target: self.target,
            fields: self.fields,
            is_http_11: self.is_http_11,
            is_upgrade: self.is_upgrade,
        }
    }
}

/// The parts of a request target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) whole: Span,
    pub(super) authority: Option<Span>,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: Span,
    pub(super) value: Span,
}

/// A part of the head, by position: it stays valid when the head moves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies in it. A head is never longer than `u32::MAX`.
    pub(super) fn within(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        debug_assert!(
            part.is_empty() || start + part.len() <= whole.len(),
            "not a part"
        );
        if part.is_empty() {
            return Self::default();
        }
        Self {
            start: start as u32,
            end: (start + part.len()) as u32,
        }
    }

    /// The span without its first byte.
    pub(super) fn skip_first(self) -> Self {
        Self {
            start: self.end.min(self.start + 1),
            end: self.end,
        }
    }

    fn of(self, whole: &[u8]) -> &[u8] {
        whole
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}
