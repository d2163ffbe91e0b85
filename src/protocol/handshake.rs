//! The opening handshake (RFC 6455 §4): whether a request may become a WebSocket, and the answer.
//!
//! The server's side is [`judge`], [`write_acceptance`] and [`write_refusal`]. [`ClientHandshake`]
//! is the client's side, for tests, load generators and examples. Which origins, paths and
//! credentials are welcome is the application's business.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest, Sha1};

use super::error::{HandshakeError, UsageError};
use super::http::grammar::{is_host, is_target_byte, is_token, is_token_byte, list, token};
use super::http::scan::HeadScan;
use super::http::{HttpLimits, Request, Response, ResponseFraming, check_field, push_field};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An HTTP request that is answered with a [`Response`].
    Plain,
    /// A valid opening handshake, to be answered with [`write_acceptance`] or a [`Response`].
    Upgrade,
}

/// Decides what a request asks for (RFC 6455 §4.2.1).
///
/// # Errors
///
/// A request that wants a WebSocket ([`Request::is_upgrade`]) and breaks a rule of the handshake.
/// It is answered with [`write_refusal`], and the connection closes.
pub fn judge(request: &Request<'_>) -> Result<Kind, HandshakeError> {
    if !request.is_upgrade() {
        return Ok(Kind::Plain);
    }
    // §4.2.1: "1. An HTTP/1.1 or higher GET request, including a "Request-URI"".
    if request.method() != "GET" {
        return Err(HandshakeError::MethodNotAllowed);
    }
    if !request.is_http_11() {
        return Err(HandshakeError::UpgradeNeedsHttp11);
    }
    // "3. An |Upgrade| header field containing the value "websocket", treated as an ASCII
    // case-insensitive value."
    if !request.lists("upgrade", "websocket") {
        return Err(HandshakeError::MissingUpgrade);
    }
    // "4. A |Connection| header field that includes the token "Upgrade", treated as an ASCII
    // case-insensitive value." 426 tells whoever configured a proxy what it dropped.
    if !request.lists("connection", "upgrade") {
        return Err(HandshakeError::MissingConnectionUpgrade);
    }
    // Before the key: another version may have another key.
    judge_version(request)?;
    judge_key(request)?;
    judge_subprotocols(request)?;
    judge_extensions(request)?;
    Ok(Kind::Upgrade)
}

/// Refuses bytes that follow an upgrade request before it was answered.
///
/// `rest` is what [`RequestReader::receive`](super::http::RequestReader::receive) left unconsumed.
///
/// # Errors
///
/// [`HandshakeError::EarlyBytes`] if there are any. RFC 6455 §4.1: "Once the client's opening
/// handshake has been sent, the client MUST wait for a response from the server before sending any
/// further data." A client that does not is confused, or two requests were made to look like one.
pub fn refuse_early_bytes(rest: &[u8]) -> Result<(), HandshakeError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(HandshakeError::EarlyBytes)
    }
}

fn judge_version(request: &Request<'_>) -> Result<(), HandshakeError> {
    let mut versions = request.header_values("sec-websocket-version");
    let version = versions.next();
    // §11.3.5: "The |Sec-WebSocket-Version| header field MUST NOT appear more than once in an HTTP
    // request."
    if versions.next().is_some() {
        return Err(HandshakeError::DuplicateWebSocketVersion);
    }
    // §4.2.2: "If this version does not match a version understood by the server, the server MUST
    // abort the WebSocket handshake described in this section and instead send an appropriate HTTP
    // error code (such as 426 Upgrade Required) and a |Sec-WebSocket-Version| header field".
    match version {
        Some(b"13") => Ok(()),
        _ => Err(HandshakeError::UnsupportedWebSocketVersion),
    }
}

fn judge_key(request: &Request<'_>) -> Result<(), HandshakeError> {
    let mut keys = request.header_values("sec-websocket-key");
    // §11.3.1: "The |Sec-WebSocket-Key| header field MUST NOT appear more than once in an HTTP
    // request."
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => Ok(()),
        _ => Err(HandshakeError::BadKey),
    }
}

/// §4.2.1: "a base64-encoded [...] value that, when decoded, is 16 bytes in length."
fn is_key(key: &[u8]) -> bool {
    let mut nonce = [0; 18]; // What the decoder reserves for 24 characters.
    key.len() == KEY_LENGTH && KEY_ENGINE.decode_slice(key, &mut nonce) == Ok(16)
}

fn judge_subprotocols(request: &Request<'_>) -> Result<(), HandshakeError> {
    if request.header("sec-websocket-protocol").is_none() {
        return Ok(());
    }
    // §4.1: "The elements that comprise this value MUST be non-empty strings with characters in the
    // range U+0021 to U+007E not including separator characters as defined in [RFC2616] and MUST
    // all be unique strings."
    let offered: Vec<_> = request.tokens("sec-websocket-protocol").collect();
    if offered.is_empty() || !are_distinct_tokens(offered) {
        return Err(HandshakeError::BadSubprotocols);
    }
    Ok(())
}

/// Sorts before it compares: not quadratic in what the peer sends.
fn are_distinct_tokens(mut elements: Vec<&[u8]>) -> bool {
    elements.sort_unstable();
    let valid = elements.iter().all(|element| is_token(element));
    valid && elements.windows(2).all(|pair| pair[0] != pair[1])
}

fn judge_extensions(request: &Request<'_>) -> Result<(), HandshakeError> {
    if request.header("sec-websocket-extensions").is_none() {
        return Ok(());
    }
    // §9.1: "If a value is received by either the client or the server during negotiation that does
    // not conform to the ABNF below, the recipient of such malformed data MUST immediately _Fail
    // the WebSocket Connection_."
    let mut count = 0;
    for offer in extension_offers(request) {
        offer?;
        count += 1;
    }
    if count == 0 {
        Err(HandshakeError::BadExtensions)
    } else {
        Ok(())
    }
}

/// The extensions that the client offers, in its order of preference (RFC 6455 §9.1).
///
/// # Errors
///
/// [`HandshakeError::BadExtensions`] in place of an element that is malformed; the rest of its
/// field is skipped. A request that [`judge`] found valid has none.
pub fn extension_offers<'r>(
    request: &'r Request<'_>,
) -> impl Iterator<Item = Result<ExtensionOffer<'r>, HandshakeError>> {
    request
        .header_values("sec-websocket-extensions")
        .flat_map(Offers::new)
}

/// One element of `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionOffer<'a> {
    name: &'a str,
    /// `*( ";" extension-param )`, already found to be valid.
    parameters: &'a [u8],
}

impl<'a> ExtensionOffer<'a> {
    /// The name of the extension, such as `permessage-deflate`.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The parameters in order: name, and value if there is one. A quoted value is unquoted.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a str, Option<Cow<'a, str>>)> {
        let mut cursor = Cursor {
            rest: self.parameters,
        };
        std::iter::from_fn(move || {
            cursor.skip_space();
            cursor.eat(b';').then(|| cursor.parameter()).flatten()
        })
    }
}

/// The elements of one `Sec-WebSocket-Extensions` field, in one pass.
struct Offers<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Offers<'a> {
    fn new(value: &'a [u8]) -> Self {
        Self {
            cursor: Cursor { rest: value },
        }
    }
}

impl<'a> Iterator for Offers<'a> {
    type Item = Result<ExtensionOffer<'a>, HandshakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.skip_empty_elements();
        if self.cursor.rest.is_empty() {
            return None;
        }
        let offer = self.cursor.offer().ok_or(HandshakeError::BadExtensions);
        if offer.is_err() {
            self.cursor.rest = &[];
        }
        Some(offer)
    }
}

/// Reads the grammar of RFC 6455 §9.1 from left to right; `None` where it is violated.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// `extension = extension-token *( ";" extension-param )`, up to a comma or the end.
    fn offer(&mut self) -> Option<ExtensionOffer<'a>> {
        let name = self.token()?;
        let parameters = self.rest;
        self.skip_space();
        while self.eat(b';') {
            self.parameter()?;
            self.skip_space();
        }
        let parameters = &parameters[..parameters.len() - self.rest.len()];
        let ends = matches!(self.rest, [] | [b',', ..]);
        ends.then_some(ExtensionOffer { name, parameters })
    }

    /// `extension-param = token [ "=" (token | quoted-string) ]`.
    fn parameter(&mut self) -> Option<(&'a str, Option<Cow<'a, str>>)> {
        self.skip_space();
        let name = self.token()?;
        self.skip_space();
        if !self.eat(b'=') {
            return Some((name, None));
        }
        self.skip_space();
        let value = if self.eat(b'"') {
            self.quoted()?.into()
        } else {
            self.token()?.into()
        };
        Some((name, Some(value)))
    }

    /// The rest of a quoted string, unescaped. §9.1: "When using the quoted-string syntax variant,
    /// the value after quoted-string unescaping MUST conform to the 'token' ABNF."
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut escaped = false;
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' if !escaped => return (!value.is_empty()).then_some(value),
                b'\\' if !escaped => escaped = true,
                _ if is_token_byte(byte) => {
                    value.push(char::from(byte));
                    escaped = false;
                }
                _ => return None,
            }
        }
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.rest.iter().position(|&byte| !is_token_byte(byte));
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        token(name)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let Some((_, rest)) = self.rest.split_first().filter(|(first, _)| **first == byte) else {
            return false;
        };
        self.rest = rest;
        true
    }

    fn skip_space(&mut self) {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn skip_empty_elements(&mut self) {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b','));
    }

    fn skip_while(&mut self, skipped: impl Fn(u8) -> bool) {
        let start = self.rest.iter().position(|&byte| !skipped(byte));
        self.rest = &self.rest[start.unwrap_or(self.rest.len())..];
    }
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
///
/// ```
/// use stentor::protocol::handshake::accept_key;
///
/// // The example of RFC 6455 §1.3.
/// assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(accept.len()), "20 bytes are 28 characters");
    accept
}

/// What the application adds to an accepted handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acceptance {
    subprotocol: Option<String>,
    /// The application's fields, as they go onto the wire.
    fields: Vec<u8>,
}

impl Acceptance {
    /// Accepts without a subprotocol and without further fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses a subprotocol. It must be one that the client offered: see
    /// [`Request::choose_subprotocol`].
    pub fn subprotocol(mut self, subprotocol: impl Into<String>) -> Self {
        self.subprotocol = Some(subprotocol.into());
        self
    }

    /// Adds a field, such as `Set-Cookie`.
    ///
    /// # Errors
    ///
    /// [`UsageError::InvalidHeaderName`] or [`UsageError::InvalidHeaderValue`] for what would not
    /// stay within its line, and [`UsageError::ReservedHeader`] for the fields of the handshake
    /// itself and those that frame a response.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, UsageError> {
        check_field(name, value.as_ref())?;
        if is_handshake_field(name) {
            return Err(UsageError::ReservedHeader);
        }
        push_field(&mut self.fields, name, value.as_ref());
        Ok(self)
    }
}

/// Appends the 101 that turns the connection into a WebSocket (RFC 6455 §4.2.2).
///
/// ```
/// use stentor::protocol::handshake::{Acceptance, Kind, judge, write_acceptance};
/// use stentor::protocol::http::{HttpLimits, RequestReader};
///
/// let received = b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
///     Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
///     Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// let mut output = Vec::new();
/// let mut reader = RequestReader::default();
/// let (_, request) = reader.receive(received, &HttpLimits::default(), &mut output)?;
/// let request = request.expect("the request is complete");
///
/// assert_eq!(judge(&request)?, Kind::Upgrade);
/// let chosen = request.choose_subprotocol(&["superchat"]).expect("it is offered");
/// write_acceptance(&request, &Acceptance::new().subprotocol(chosen), &mut output)?;
/// assert!(output.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`UsageError::NotAnUpgrade`] if [`judge`] does not find the request to be an upgrade, and
/// [`UsageError::SubprotocolNotOffered`]; then `output` is left as it was.
pub fn write_acceptance(
    request: &Request<'_>,
    acceptance: &Acceptance,
    output: &mut Vec<u8>,
) -> Result<(), UsageError> {
    let key = request.header("sec-websocket-key");
    let (Ok(Kind::Upgrade), Some(key)) = (judge(request), key) else {
        return Err(UsageError::NotAnUpgrade);
    };
    let chosen = acceptance.subprotocol.as_deref();
    // §4.2.2: "The value chosen MUST be derived from the client's handshake, specifically by
    // selecting one of the values from the |Sec-WebSocket-Protocol| field".
    if let Some(chosen) = chosen
        && !request.subprotocols().any(|offered| offered == chosen)
    {
        return Err(UsageError::SubprotocolNotOffered);
    }
    output.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    push_field(output, "Upgrade", b"websocket");
    push_field(output, "Connection", b"Upgrade");
    push_field(output, "Sec-WebSocket-Accept", &accept_key(key));
    if let Some(chosen) = chosen {
        push_field(output, "Sec-WebSocket-Protocol", chosen.as_bytes());
    }
    output.extend_from_slice(&acceptance.fields);
    output.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends the answer to a request that is refused; the connection closes after it.
///
/// The body is the error as a sentence, except with 405, which is what a HEAD may meet and must not
/// have content then. `date` is the current time as an IMF-fixdate (RFC 9110 §6.6.1).
pub fn write_refusal(error: &HandshakeError, date: Option<&str>, output: &mut Vec<u8>) {
    let response = Response::new(error.status());
    let response = match error {
        // RFC 9110 §15.5.6: "The origin server MUST generate an Allow header field in a 405
        // response".
        HandshakeError::MethodNotAllowed => response.with("Allow", "GET"),
        _ => response.text(format!("{error}\n")),
    };
    let response = if error.status() == 426 {
        response.offering_websocket()
    } else {
        response
    };
    // RFC 9110 §7.8 lets the connection go on as HTTP. Whoever stands in between may believe that
    // the upgrade happened, and would tunnel what it should have checked.
    response.encode(
        output,
        ResponseFraming {
            close: true,
            date,
            ..ResponseFraming::default()
        },
    );
}

/// The client's side of the handshake (RFC 6455 §4.1).
///
/// ```
/// use stentor::protocol::handshake::ClientHandshake;
///
/// let mut client = ClientHandshake::new(*b"sixteen byte key");
/// let mut output = Vec::new();
/// client.write_request("localhost:9001", "/chat", &["chat"], &[], &mut output)?;
/// assert!(output.starts_with(b"GET /chat HTTP/1.1\r\nHost: localhost:9001\r\n"));
/// assert!(matches!(client.receive(b"HTTP/1.1 10"), Ok((0, None))));
/// # Ok::<(), stentor::protocol::error::UsageError>(())
/// ```
#[derive(Debug)]
pub struct ClientHandshake {
    key: String,
    subprotocols: Vec<String>,
    /// The names of the extensions that were offered.
    extensions: Vec<String>,
    scan: HeadScan,
}

impl ClientHandshake {
    /// Begins a handshake with a nonce of 16 bytes, which should be random for each connection.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            key: STANDARD.encode(key),
            subprotocols: Vec::new(),
            extensions: Vec::new(),
            scan: HeadScan::response(),
        }
    }

    /// Appends the request to `output`. `headers` may hold `Sec-WebSocket-Extensions`.
    ///
    /// # Errors
    ///
    /// A [`UsageError`] that names the argument which would not make a valid request; then `output`
    /// is left as it was.
    pub fn write_request(
        &mut self,
        host: &str,
        target: &str,
        subprotocols: &[&str],
        headers: &[(&str, &str)],
        output: &mut Vec<u8>,
    ) -> Result<(), UsageError> {
        if !is_host(host.as_bytes()) {
            return Err(UsageError::InvalidHost);
        }
        if !target.starts_with('/') || !target.bytes().all(is_target_byte) {
            return Err(UsageError::InvalidTarget);
        }
        if !are_distinct_tokens(subprotocols.iter().map(|offer| offer.as_bytes()).collect()) {
            return Err(UsageError::InvalidOffer);
        }
        self.extensions = check_client_headers(headers)?;
        self.subprotocols = subprotocols.iter().map(|&offer| offer.to_owned()).collect();
        output.extend_from_slice(format!("GET {target} HTTP/1.1\r\n").as_bytes());
        push_field(output, "Host", host.as_bytes());
        push_field(output, "Upgrade", b"websocket");
        push_field(output, "Connection", b"Upgrade");
        push_field(output, "Sec-WebSocket-Key", self.key.as_bytes());
        push_field(output, "Sec-WebSocket-Version", b"13");
        if !subprotocols.is_empty() {
            push_field(
                output,
                "Sec-WebSocket-Protocol",
                subprotocols.join(", ").as_bytes(),
            );
        }
        for (name, value) in headers {
            push_field(output, name, value.as_bytes());
        }
        output.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Takes what was received, and answers how many bytes were consumed and the server's 101 once
    /// it is complete. What follows the consumed bytes are frames.
    ///
    /// `input` is everything received and not yet consumed, as with
    /// [`RequestReader::receive`](super::http::RequestReader::receive). Interim responses are
    /// skipped.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::UnexpectedStatus`] if the server refused, or what is wrong with its
    /// answer. The connection is of no use then.
    pub fn receive(
        &mut self,
        input: &[u8],
    ) -> Result<(usize, Option<HandshakeResponse>), HandshakeError> {
        let limits = HttpLimits::default();
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let scanned = self.scan.advance(rest, &limits);
            let Some(length) = scanned.map_err(|_| HandshakeError::BadResponse)? else {
                return Ok((consumed, None));
            };
            let response = HandshakeResponse::parse(&rest[..length], self.scan.field_count())?;
            self.scan = HeadScan::response();
            consumed += length;
            match response.status {
                101 => return Ok((consumed, Some(self.check(response)?))),
                // RFC 9110 §15.2: "A client MUST be able to parse one or more 1xx responses
                // received prior to a final response".
                100..=199 => {}
                status => return Err(HandshakeError::UnexpectedStatus(status)),
            }
        }
    }

    /// The rules of RFC 6455 §4.1 for the server's response, in their order.
    fn check(&self, mut response: HandshakeResponse) -> Result<HandshakeResponse, HandshakeError> {
        if !response
            .values("upgrade")
            .any(|value| value.eq_ignore_ascii_case(b"websocket"))
        {
            return Err(HandshakeError::MissingUpgrade);
        }
        if !response.lists("connection", "upgrade") {
            return Err(HandshakeError::MissingConnectionUpgrade);
        }
        let accept = accept_key(self.key.as_bytes());
        if !response.values("sec-websocket-accept").eq([&accept[..]]) {
            return Err(HandshakeError::BadAccept);
        }
        for offer in response
            .values("sec-websocket-extensions")
            .flat_map(Offers::new)
        {
            let name = offer?.name;
            if !self.extensions.iter().any(|offered| offered == name) {
                return Err(HandshakeError::ExtensionNotOffered);
            }
        }
        response.subprotocol = self.chosen_subprotocol(&response)?;
        Ok(response)
    }

    fn chosen_subprotocol(
        &self,
        response: &HandshakeResponse,
    ) -> Result<Option<String>, HandshakeError> {
        let mut values = response.values("sec-websocket-protocol");
        let Some(value) = values.next() else {
            return Ok(None);
        };
        // §11.3.4: "The |Sec-WebSocket-Protocol| header field MUST NOT appear more than once in an
        // HTTP response."
        let offered = self
            .subprotocols
            .iter()
            .find(|offered| offered.as_bytes() == value);
        match (offered, values.next()) {
            (Some(offered), None) => Ok(Some(offered.clone())),
            _ => Err(HandshakeError::SubprotocolNotOffered),
        }
    }
}

/// The server's answer to a [`ClientHandshake`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeResponse {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    subprotocol: Option<String>,
}

impl HandshakeResponse {
    fn parse(head: &[u8], field_count: usize) -> Result<Self, HandshakeError> {
        let mut headers = vec![httparse::EMPTY_HEADER; field_count];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(head);
        let (Ok(httparse::Status::Complete(_)), Some(status)) = (parsed, response.code) else {
            return Err(HandshakeError::BadResponse);
        };
        let headers = response.headers.iter();
        let headers = headers.map(|field| (field.name.to_owned(), field.value.to_owned()));
        Ok(Self {
            status,
            headers: headers.collect(),
            subprotocol: None,
        })
    }

    /// The status: 101.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// All fields in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The value of the first field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The subprotocol that the server chose among those that were offered.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    fn lists(&self, name: &str, element: &str) -> bool {
        let mut elements = self.values(name).flat_map(list);
        elements.any(|listed| listed.eq_ignore_ascii_case(element.as_bytes()))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let fields = self
            .headers()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value)
    }
}

/// Checks the headers of a client's request, and answers the names of the extensions they offer.
fn check_client_headers(headers: &[(&str, &str)]) -> Result<Vec<String>, UsageError> {
    let mut extensions = Vec::new();
    for (name, value) in headers {
        check_field(name, value.as_bytes())?;
        if name.eq_ignore_ascii_case("Sec-WebSocket-Extensions") {
            for offer in Offers::new(value.as_bytes()) {
                extensions.push(offer.map_err(|_| UsageError::InvalidOffer)?.name.to_owned());
            }
        } else if name.eq_ignore_ascii_case("Host") || is_handshake_field(name) {
            return Err(UsageError::ReservedHeader);
        }
    }
    Ok(extensions)
}

/// Whether the field belongs to the handshake itself (RFC 6455 §11.3).
fn is_handshake_field(name: &str) -> bool {
    let prefix = name.as_bytes().get(..HANDSHAKE_PREFIX.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(HANDSHAKE_PREFIX))
}

const HANDSHAKE_PREFIX: &[u8] = b"Sec-WebSocket-";

/// RFC 6455 §1.3: "a "Globally Unique Identifier" (GUID, [RFC4122]) [...] in string form".
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// 16 bytes in base64.
const KEY_LENGTH: usize = 24;

/// Lenient in one point: the four bits of the last character that carry nothing may be set. The key
/// is hashed as it was sent, and there are clients whose encoder leaves them.
const KEY_ENGINE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::RequestReader;
    use crate::protocol::http::tests::{answer, outcome};

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";

    fn get(lines: &[&str]) -> String {
        format!("GET /chat HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat())
    }

    /// A valid handshake with further lines.
    fn upgrade(lines: &str) -> String {
        get(&[UPGRADE, KEY, VERSION, lines])
    }

    /// What [`judge`] says, however the request is cut.
    fn verdict(input: impl AsRef<[u8]>) -> Result<Kind, HandshakeError> {
        let outcome = outcome(input);
        assert_eq!((outcome.requests.len(), outcome.error), (1, None));
        outcome.requests[0].verdict
    }

    fn refused(input: impl AsRef<[u8]>) -> HandshakeError {
        verdict(input).expect_err("this handshake is wrong")
    }

    fn with_request<T>(input: &str, use_it: impl FnOnce(&Request<'_>) -> T) -> T {
        let mut reader = RequestReader::default();
        let received = reader.receive(input.as_bytes(), &HttpLimits::default(), &mut Vec::new());
        use_it(&received.expect("valid").1.expect("complete"))
    }

    fn accepted(input: &str, acceptance: &Acceptance) -> Result<String, UsageError> {
        let mut output = Vec::new();
        with_request(input, |request| {
            write_acceptance(request, acceptance, &mut output)
        })?;
        Ok(String::from_utf8(output).expect("text"))
    }

    fn refusal(error: HandshakeError) -> String {
        let mut output = Vec::new();
        write_refusal(&error, Some("Sun, 06 Nov 1994 08:49:37 GMT"), &mut output);
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn cat_001_cat_002_valid_handshake_in_any_pieces() {
        assert_eq!(verdict(upgrade("")), Ok(Kind::Upgrade));
    }

    #[test]
    fn plain_requests_are_plain() {
        for lines in [
            "",
            "Upgrade: h2c\r\nConnection: Upgrade\r\n",
            "Connection: Upgrade\r\n",
        ] {
            assert_eq!(verdict(get(&[lines])), Ok(Kind::Plain), "{lines:?}");
        }
        let post = "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(
            verdict(post),
            Ok(Kind::Plain),
            "clients offer h2c along with a POST"
        );
    }

    #[test]
    fn cat_013_non_ascii_value_beside_a_handshake() {
        assert_eq!(verdict(upgrade("X: \u{ff}\u{80}\r\n")), Ok(Kind::Upgrade));
        assert_eq!(
            refused(upgrade("Sec-WebSocket-Protocol: \u{e9}\r\n")).status(),
            400
        );
        assert_eq!(
            refused(upgrade("Sec-WebSocket-Extensions: \u{e9}\r\n")).status(),
            400
        );
    }

    #[test]
    fn cat_023_http_10_is_not_upgraded() {
        let input = upgrade("").replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(refused(input), HandshakeError::UpgradeNeedsHttp11);
    }

    #[test]
    fn cat_026_absolute_form_is_upgraded() {
        let outcome = outcome(upgrade("").replace("/chat", "ws://b:1/chat"));
        assert_eq!(outcome.requests[0].verdict, Ok(Kind::Upgrade));
        assert_eq!(outcome.requests[0].host, "b:1");
    }

    #[test]
    fn cat_028_names_in_any_case() {
        let lower = get(&[
            "upgrade: websocket\r\nconnection: upgrade\r\n",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n",
        ]);
        let upper = get(&[
            "UPGRADE: WEBSOCKET\r\nCONNECTION: UPGRADE\r\n",
            "SEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\nSEC-WEBSOCKET-VERSION: 13\r\n",
        ]);
        for input in [lower.replace("Host", "host"), upper.replace("Host", "HOST")] {
            assert_eq!(verdict(input), Ok(Kind::Upgrade));
        }
    }

    #[test]
    fn cat_029_connection_is_a_list() {
        for connection in [
            "Connection: keep-alive, Upgrade\r\n",
            "Connection: keep-alive\r\nConnection: upgrade\r\n",
            "Connection: ,\t,upgrade ,\r\n",
        ] {
            let input = get(&["Upgrade: websocket\r\n", connection, KEY, VERSION]);
            assert_eq!(verdict(input), Ok(Kind::Upgrade), "{connection:?}");
        }
    }

    #[test]
    fn cat_030_upgrade_is_a_list() {
        for lines in [
            "Upgrade: h2c, WebSocket\r\n",
            "Upgrade: h2c\r\nUpgrade: websocket\r\n",
        ] {
            let input = get(&[lines, "Connection: Upgrade\r\n", KEY, VERSION]);
            assert_eq!(verdict(input), Ok(Kind::Upgrade), "{lines:?}");
        }
    }

    #[test]
    fn cat_031_connection_or_upgrade_missing() {
        for connection in ["", "Connection: keep-alive\r\n", "Connection: xupgrade\r\n"] {
            let input = get(&["Upgrade: websocket\r\n", connection, KEY, VERSION]);
            assert_eq!(refused(input), HandshakeError::MissingConnectionUpgrade);
        }
        for lines in ["", "Upgrade: h2c\r\n", "Upgrade: websocket2\r\n"] {
            let input = get(&[lines, "Connection: Upgrade\r\n", KEY, VERSION]);
            assert_eq!(refused(input), HandshakeError::MissingUpgrade);
        }
        assert_eq!(HandshakeError::MissingConnectionUpgrade.status(), 426);
    }

    #[test]
    fn cat_032_keys() {
        for (key, valid) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", true),
            ("AAAAAAAAAAAAAAAAAAAAAA==", true),
            ("AAAAAAAAAAAAAAAAAAAAAB==", true), // The pad bits are not canonical.
            ("dGhlIHNhbXBsZSBub25j", false),    // 15 bytes.
            ("dGhlIHNhbXBsZSBub25jZWU=", false), // 17 bytes.
            ("dGhlIHNhbXBsZSBub25jZWVl", false), // 18 bytes.
            ("dGhlIHNhbXBsZSBub25jZQ", false),
            ("dGhlIHNhbXBsZSBub25jZ===", false),
            ("dGhlIHNhbXBsZSBub25j-_==", false),
            ("dGhlIHNhbXBsZSBub25 ZQ==", false),
            ("dGhlIHNhbXBsZSBub25\u{e9}Q==", false),
            ("========================", false),
            ("", false),
        ] {
            let line = format!("Sec-WebSocket-Key: {key}\r\n");
            let expected = if valid {
                Ok(Kind::Upgrade)
            } else {
                Err(HandshakeError::BadKey)
            };
            assert_eq!(
                verdict(get(&[UPGRADE, &line, VERSION])),
                expected,
                "{key:?}"
            );
        }
        assert_eq!(
            refused(get(&[UPGRADE, VERSION])),
            HandshakeError::BadKey,
            "missing"
        );
    }

    #[test]
    fn cat_033_two_keys() {
        assert_eq!(refused(upgrade(KEY)), HandshakeError::BadKey);
    }

    #[test]
    fn cat_034_versions() {
        for version in ["7", "8", "14", "13, 8", "013", "", "13;", "-13"] {
            let line = format!("Sec-WebSocket-Version: {version}\r\n");
            let error = refused(get(&[UPGRADE, KEY, &line]));
            assert_eq!(
                error,
                HandshakeError::UnsupportedWebSocketVersion,
                "{version:?}"
            );
        }
        let error = refused(get(&[UPGRADE, KEY]));
        assert_eq!(
            error,
            HandshakeError::UnsupportedWebSocketVersion,
            "missing"
        );
        assert_eq!(
            refused(upgrade(VERSION)),
            HandshakeError::DuplicateWebSocketVersion
        );
        assert_eq!(
            refusal(error),
            "HTTP/1.1 426 Upgrade Required\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nConnection: close, Upgrade\r\nContent-Length: 42\r\n\r\n\
             Only WebSocket version 13 is spoken here.\n"
        );
    }

    #[test]
    fn cat_035_upgrade_with_another_method() {
        for method in ["POST", "HEAD", "OPTIONS"] {
            let input = upgrade("").replacen("GET", method, 1);
            assert_eq!(refused(input), HandshakeError::MethodNotAllowed);
        }
        assert_eq!(
            refusal(HandshakeError::MethodNotAllowed),
            "HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Allow: GET\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn cat_036_cat_037_upgrade_with_a_body() {
        for lines in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            let outcome = outcome(upgrade(lines) + "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(outcome.error, Some(HandshakeError::UpgradeWithBody));
            assert!(
                outcome.requests.is_empty(),
                "the body is not read as a request"
            );
            let hidden = get(&[KEY, lines]) + "hello";
            assert_eq!(answer(hidden), 400, "also where a proxy dropped Upgrade");
        }
        assert_eq!(verdict(upgrade("Content-Length: 0\r\n")), Ok(Kind::Upgrade));
    }

    #[test]
    fn cat_040_early_frame() {
        let input = upgrade("") + "\u{1}\u{0}";
        let mut reader = RequestReader::default();
        let received = reader.receive(input.as_bytes(), &HttpLimits::default(), &mut Vec::new());
        let (consumed, request) = received.expect("valid");
        assert_eq!(
            request.map(|request| judge(&request)),
            Some(Ok(Kind::Upgrade))
        );
        let rest = &input.as_bytes()[consumed..];
        assert_eq!(refuse_early_bytes(rest), Err(HandshakeError::EarlyBytes));
        assert_eq!(HandshakeError::EarlyBytes.status(), 400);
        assert_eq!(refuse_early_bytes(b""), Ok(()));
    }

    #[test]
    fn cat_041_refusal_closes() {
        let input = upgrade("").replace("13", "7") + "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(refused(input).status(), 426);
        for error in [HandshakeError::BadKey, HandshakeError::MissingUpgrade] {
            assert!(refusal(error).contains("\r\nConnection: close"), "{error}");
        }
    }

    #[test]
    fn subprotocols_are_distinct_tokens() {
        for (value, valid) in [
            ("chat", true),
            ("chat, superchat", true),
            ("chat,, CHAT ,", true),
            ("a, b, a", false),
            ("a b", false),
            ("a/b", false),
            ("\"a\"", false),
            ("", false),
            (",", false),
        ] {
            let result = verdict(upgrade(&format!("Sec-WebSocket-Protocol: {value}\r\n")));
            let expected = if valid {
                Ok(Kind::Upgrade)
            } else {
                Err(HandshakeError::BadSubprotocols)
            };
            assert_eq!(result, expected, "{value:?}");
        }
        let twice = "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n";
        assert_eq!(refused(upgrade(twice)), HandshakeError::BadSubprotocols);
    }

    #[test]
    fn server_chooses_the_clients_first_supported_subprotocol() {
        let lines = "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n";
        with_request(&upgrade(lines), |request| {
            assert_eq!(request.subprotocols().collect::<Vec<_>>(), ["a", "b", "c"]);
            assert_eq!(request.choose_subprotocol(&["c", "b"]), Some("b"));
            assert_eq!(request.choose_subprotocol(&["B"]), None);
            assert_eq!(request.choose_subprotocol(&[]), None);
        });
    }

    #[test]
    fn extensions_follow_their_grammar() {
        for (value, valid) in [
            ("permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits", true),
            ("a; b=1; c=\"10\" , d", true),
            ("a;b=\"\\1\\0\"", true),
            (", a,,", true),
            ("unknown; x = y", true),
            ("", false),
            (",", false),
            ("a;", false),
            ("a; =1", false),
            ("a; b=", false),
            ("a; b=\"", false),
            ("a; b=\"1", false),
            ("a; b=\"\"", false),
            ("a; b=\"1\\\"", false),
            ("a; b=\"1, 2\"", false), // Unescaped, it is no token.
            ("a; b=\"1\"2", false),
            ("a b", false),
            ("a=b", false),
            ("; a", false),
            ("a; b c", false),
            ("(a)", false),
        ] {
            let result = verdict(upgrade(&format!("Sec-WebSocket-Extensions: {value}\r\n")));
            let expected = if valid {
                Ok(Kind::Upgrade)
            } else {
                Err(HandshakeError::BadExtensions)
            };
            assert_eq!(result, expected, "{value:?}");
        }
    }

    #[test]
    fn extension_offers_keep_their_order_and_values() {
        let lines = "Sec-WebSocket-Extensions: a ; b ;c = \"1\\0\", d\r\n\
                     Sec-WebSocket-Extensions: e;f=g\r\n";
        with_request(&upgrade(lines), |request| {
            let offers: Vec<_> = extension_offers(request)
                .map(|o| o.expect("valid"))
                .collect();
            let names: Vec<_> = offers.iter().map(ExtensionOffer::name).collect();
            assert_eq!(names, ["a", "d", "e"]);
            let parameters: Vec<_> = offers[0].parameters().collect();
            assert_eq!(parameters, [("b", None), ("c", Some("10".into()))]);
            assert_eq!(offers[1].parameters().count(), 0);
            assert_eq!(offers[2].parameters().next(), Some(("f", Some("g".into()))));
        });
    }

    #[test]
    fn hostile_offers_are_judged() {
        for filler in [",", ";", "\"", "a,", "a;", "\\", " ", "a;b=\""] {
            for name in ["Protocol", "Extensions", "Key", "Version"] {
                let value = filler.repeat(15_000 / filler.len());
                let input = upgrade(&format!("Sec-WebSocket-{name}: {value}\r\n"));
                assert!(with_request(&input, judge).is_err() || filler == "a,");
            }
        }
    }

    #[test]
    fn acceptance_is_the_shortest_valid_101() {
        assert_eq!(
            accepted(&upgrade(""), &Acceptance::new()).expect("valid"),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn acceptance_carries_subprotocol_and_headers() {
        let acceptance = Acceptance::new()
            .subprotocol("b")
            .header("Set-Cookie", "a=b");
        let acceptance = acceptance
            .and_then(|a| a.header("Set-Cookie", b"c=\xff"))
            .expect("valid");
        let input = upgrade("Sec-WebSocket-Protocol: a, b\r\n");
        let mut output = Vec::new();
        with_request(&input, |request| {
            write_acceptance(request, &acceptance, &mut output)
        })
        .expect("offered");
        let end = b"Sec-WebSocket-Protocol: b\r\nSet-Cookie: a=b\r\nSet-Cookie: c=\xff\r\n\r\n";
        assert!(output.ends_with(end));
    }

    #[test]
    fn acceptance_must_match_the_offer() {
        for subprotocol in ["c", "", "a, b"] {
            let acceptance = Acceptance::new().subprotocol(subprotocol);
            let result = accepted(&upgrade("Sec-WebSocket-Protocol: a, b\r\n"), &acceptance);
            assert_eq!(
                result,
                Err(UsageError::SubprotocolNotOffered),
                "{subprotocol:?}"
            );
        }
        for input in [get(&[]), get(&[UPGRADE, VERSION])] {
            let result = accepted(&input, &Acceptance::new());
            assert_eq!(result, Err(UsageError::NotAnUpgrade));
        }
    }

    #[test]
    fn acceptance_headers_are_checked() {
        for (name, value, error) in [
            ("Upgrade", "x", UsageError::ReservedHeader),
            ("connection", "x", UsageError::ReservedHeader),
            ("Content-Length", "0", UsageError::ReservedHeader),
            ("SEC-WEBSOCKET-ACCEPT", "x", UsageError::ReservedHeader),
            ("Sec-WebSocket-Protocol", "x", UsageError::ReservedHeader),
            ("Sec-WebSocket-Extensions", "x", UsageError::ReservedHeader),
            ("X", "a\r\nb", UsageError::InvalidHeaderValue),
            ("X:", "a", UsageError::InvalidHeaderName),
        ] {
            assert_eq!(Acceptance::new().header(name, value), Err(error), "{name}");
        }
    }

    /// A client that offers subprotocols `a`, `b` and the extension `x`, and its request.
    fn client() -> (ClientHandshake, String) {
        let mut client = ClientHandshake::new(*b"the sample nonce");
        let mut output = Vec::new();
        let headers = [
            ("Origin", "http://o"),
            ("Sec-WebSocket-Extensions", "x; y=1"),
        ];
        let written = client.write_request("h:1", "/c?d", &["a", "b"], &headers, &mut output);
        assert_eq!(written, Ok(()));
        (client, String::from_utf8(output).expect("text"))
    }

    fn client_receives(response: &str) -> Result<Option<HandshakeResponse>, HandshakeError> {
        let whole = client()
            .0
            .receive(response.as_bytes())
            .map(|(_, response)| response);
        let (mut client, mut start, mut bytewise) = (client().0, 0, Ok(None));
        for end in 0..=response.len() {
            bytewise = client
                .receive(&response.as_bytes()[start..end])
                .map(|(consumed, reply)| {
                    start += consumed;
                    reply
                });
            if !matches!(bytewise, Ok(None)) {
                break;
            }
        }
        assert_eq!(whole, bytewise, "{response:?}");
        whole
    }

    const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    #[test]
    fn client_and_server_agree() {
        let (mut client, request) = client();
        assert_eq!(
            request,
            "GET /c?d HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: a, b\r\nOrigin: http://o\r\n\
             Sec-WebSocket-Extensions: x; y=1\r\n\r\n"
        );
        let acceptance = Acceptance::new().subprotocol("b");
        let answer = accepted(&request, &acceptance).expect("valid") + "frames";
        let (consumed, response) = client.receive(answer.as_bytes()).expect("valid");
        let response = response.expect("complete");
        assert_eq!(&answer[consumed..], "frames");
        assert_eq!(
            (response.status(), response.subprotocol()),
            (101, Some("b"))
        );
        assert_eq!(response.header("upgrade"), Some(&b"websocket"[..]));
        assert_eq!(response.headers().count(), 4);
    }

    #[test]
    fn client_skips_interim_responses() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let response = client_receives(&format!("{interim}{ACCEPTED}\r\n"));
        assert_eq!(
            response.expect("valid").expect("complete").subprotocol(),
            None
        );
    }

    #[test]
    fn client_refuses_an_answer_that_is_wrong() {
        use HandshakeError as E;
        for (response, error) in [
            (
                "HTTP/1.1 404 Not Found\r\n\r\n".into(),
                E::UnexpectedStatus(404),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".into(),
                E::UnexpectedStatus(200),
            ),
            ("SSH-2.0\r\n\r\n".into(), E::BadResponse),
            ("HTTP/1.1 101\n\n".into(), E::BadResponse),
            ("HTTP/1.1 101 \r\n\r\n".into(), E::MissingUpgrade),
            (
                ACCEPTED.replace("websocket", "h2c") + "\r\n",
                E::MissingUpgrade,
            ),
            (
                ACCEPTED.replace(": Upgrade", ": close") + "\r\n",
                E::MissingConnectionUpgrade,
            ),
            (ACCEPTED.replace("s3p", "S3p") + "\r\n", E::BadAccept),
            (
                ACCEPTED.replace("-Accept", "-Reject") + "\r\n",
                E::BadAccept,
            ),
            (
                format!("{ACCEPTED}Sec-WebSocket-Extensions: z\r\n\r\n"),
                E::ExtensionNotOffered,
            ),
            (
                format!("{ACCEPTED}Sec-WebSocket-Extensions: x;\r\n\r\n"),
                E::BadExtensions,
            ),
            (
                format!("{ACCEPTED}Sec-WebSocket-Protocol: c\r\n\r\n"),
                E::SubprotocolNotOffered,
            ),
            (
                format!("{ACCEPTED}Sec-WebSocket-Protocol: \r\n\r\n"),
                E::SubprotocolNotOffered,
            ),
            (
                format!("{ACCEPTED}X: {}", "a".repeat(20_000)),
                E::BadResponse,
            ),
        ] {
            assert_eq!(client_receives(&response), Err(error), "{response:?}");
        }
        let valid = format!("{ACCEPTED}Sec-WebSocket-Extensions: x; y=1\r\n\r\n");
        assert!(client_receives(&valid).is_ok_and(|response| response.is_some()));
    }

    #[test]
    fn client_request_cannot_be_malformed() {
        let refuse = |host, target, subprotocols: &[&str], headers: &[(&str, &str)]| {
            let (mut client, mut output) = (ClientHandshake::new([0; 16]), Vec::new());
            let result = client.write_request(host, target, subprotocols, headers, &mut output);
            assert!(output.is_empty());
            result.expect_err("malformed")
        };
        assert_eq!(refuse("a\r\nb", "/", &[], &[]), UsageError::InvalidHost);
        assert_eq!(refuse("a", "", &[], &[]), UsageError::InvalidTarget);
        assert_eq!(refuse("a", "/ b", &[], &[]), UsageError::InvalidTarget);
        assert_eq!(refuse("a", "/", &["a b"], &[]), UsageError::InvalidOffer);
        assert_eq!(refuse("a", "/", &["a", "a"], &[]), UsageError::InvalidOffer);
        let extensions = [("Sec-WebSocket-Extensions", "a;")];
        assert_eq!(refuse("a", "/", &[], &extensions), UsageError::InvalidOffer);
        for name in ["Host", "Upgrade", "Sec-WebSocket-Key", "Content-Length"] {
            assert_eq!(
                refuse("a", "/", &[], &[(name, "x")]),
                UsageError::ReservedHeader,
                "{name}"
            );
        }
    }
}
