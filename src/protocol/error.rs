//! What can go wrong, split by whose fault it is.
//!
//! [`HandshakeError`] is the peer's fault before the connection is a WebSocket and carries an HTTP
//! status. [`UsageError`] is the caller's own fault and never depends on what a peer sent.

use std::error::Error;
use std::fmt;

use super::close::CloseCode;

/// A request, or an answer to our own request, that the peer must not have sent.
///
/// Every variant ends the connection: the status is sent, then the connection closes. Nothing that
/// follows the offending bytes is read (RFC 9112 §9.6, RFC 6455 §4.2.1).
/// [`write_refusal`](crate::protocol::handshake::write_refusal) writes the answer, with the
/// [`Display`](fmt::Display) text in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The first line is not `method SP request-target SP HTTP-version CRLF` (RFC 9112 §3);
    /// HTTP/0.9 has no version.
    BadRequestLine,
    /// More empty lines came before the request line than a sloppy client sends (RFC 9112 §2.2).
    TooManyEmptyLines,
    /// The method is not one that this server knows (RFC 9110 §9.1).
    UnknownMethod,
    /// The request target is in none of the forms that the method allows, or holds an octet that no
    /// URI holds (RFC 9112 §3.2).
    BadTarget,
    /// The request target, and so the request line, is longer than the limit (RFC 9112 §3).
    TargetTooLong,
    /// The HTTP version is 1.x, but neither 1.0 nor 1.1 (RFC 9112 §2.3).
    BadVersion,
    /// The major HTTP version is not 1 (RFC 9110 §15.6.6).
    UnsupportedVersion,
    /// A line ends in LF without CR (RFC 9112 §2.2 lets a recipient accept it; we do not).
    BareLineFeed,
    /// A CR is not followed by LF (RFC 9112 §2.2).
    BareCarriageReturn,
    /// A field name is empty, holds an octet outside `tchar`, or is not directly followed by a
    /// colon (RFC 9112 §5.1).
    BadFieldName,
    /// A field value holds NUL or another control character (RFC 9110 §5.5).
    BadFieldValue,
    /// A line begins with white space: obsolete line folding, or a field hidden behind the request
    /// line (RFC 9112 §2.2, §5.2).
    FoldedField,
    /// The request line and the fields together are longer than the limit (RFC 9110 §5.4).
    HeadTooLarge,
    /// There are more field lines than the limit (RFC 9110 §5.4).
    TooManyFields,
    /// An HTTP/1.1 request has no Host field (RFC 9112 §3.2).
    MissingHost,
    /// There is more than one Host field (RFC 9112 §3.2).
    DuplicateHost,
    /// The host is empty or is not `uri-host [":" port]` (RFC 9112 §3.2).
    BadHost,
    /// Content-Length is not a decimal number that fits into 64 bits, or occurs twice (RFC 9112
    /// §6.3).
    BadContentLength,
    /// Both Transfer-Encoding and Content-Length are present (RFC 9112 §6.1).
    AmbiguousLength,
    /// Transfer-Encoding came in HTTP/1.0, is malformed, or does not end in a single `chunked` (RFC
    /// 9112 §6.1, §6.3).
    BadTransferEncoding,
    /// A transfer coding other than `chunked` was applied (RFC 9112 §6.1).
    UnknownTransferCoding,
    /// The chunked body is malformed (RFC 9112 §7.1).
    BadChunk,
    /// The body is, or says that it will be, longer than the limit (RFC 9110 §15.5.14).
    BodyTooLarge,
    /// An expectation other than `100-continue`, or any expectation on an upgrade (RFC 9110
    /// §10.1.1).
    ExpectationFailed,
    /// The request did not arrive in time (RFC 9110 §15.5.9). The caller, who has the clock, raises
    /// it.
    TimedOut,
    /// So many other requests and messages are incomplete that there is no memory for this one (RFC
    /// 9110 §15.6.4). The caller, who has the memory, raises it.
    Overloaded,
    /// The upgrade request has a body, which could be taken for WebSocket frames or for a second
    /// request.
    UpgradeWithBody,
    /// Bytes followed an upgrade request before it was answered (RFC 6455 §4.1: the client waits
    /// for the response).
    EarlyBytes,
    /// The upgrade request is not a GET (RFC 6455 §4.2.1).
    MethodNotAllowed,
    /// The upgrade request is not HTTP/1.1 (RFC 6455 §4.2.1).
    UpgradeNeedsHttp11,
    /// `Upgrade` does not list `websocket` (RFC 6455 §4.2.1).
    MissingUpgrade,
    /// `Connection` does not list `Upgrade` (RFC 6455 §4.2.1).
    MissingConnectionUpgrade,
    /// `Sec-WebSocket-Version` is missing or not 13 (RFC 6455 §4.2.2, §4.4).
    UnsupportedWebSocketVersion,
    /// There is more than one `Sec-WebSocket-Version` field (RFC 6455 §11.3.5).
    DuplicateWebSocketVersion,
    /// `Sec-WebSocket-Key` is missing, repeated, or not the base64 of 16 bytes (RFC 6455 §4.2.1,
    /// §11.3.1).
    BadKey,
    /// `Sec-WebSocket-Protocol` is not a list of distinct tokens (RFC 6455 §4.1, §11.3.4).
    BadSubprotocols,
    /// `Sec-WebSocket-Extensions` does not follow its grammar (RFC 6455 §9.1).
    BadExtensions,
    /// Client: the server's answer is not an HTTP/1.x response.
    BadResponse,
    /// Client: the server answered with this status instead of 101 (RFC 6455 §4.1).
    UnexpectedStatus(u16),
    /// Client: `Sec-WebSocket-Accept` is missing or does not prove that our key was read (RFC 6455
    /// §4.1).
    BadAccept,
    /// Client: the server chose a subprotocol that was not offered (RFC 6455 §4.1).
    SubprotocolNotOffered,
    /// Client: the server chose an extension that was not offered (RFC 6455 §4.1).
    ExtensionNotOffered,
}

impl HandshakeError {
    /// The HTTP status that answers this error.
    ///
    /// The variants that only a client meets answer what a gateway would pass on: 502 for an answer
    /// that is wrong, and the server's own status for [`UnexpectedStatus`](Self::UnexpectedStatus).
    pub fn status(self) -> u16 {
        match self {
            Self::MethodNotAllowed => 405,
            Self::TimedOut => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::MissingUpgrade
            | Self::MissingConnectionUpgrade
            | Self::UnsupportedWebSocketVersion => 426,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::UnknownMethod | Self::UnknownTransferCoding => 501,
            Self::BadResponse
            | Self::BadAccept
            | Self::SubprotocolNotOffered
            | Self::ExtensionNotOffered => 502,
            Self::Overloaded => 503,
            Self::UnsupportedVersion => 505,
            Self::UnexpectedStatus(status) => status,
            _ => 400,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::BadRequestLine => "The request line is malformed.",
            Self::TooManyEmptyLines => "Too many empty lines precede the request.",
            Self::UnknownMethod => "The request method is not known here.",
            Self::BadTarget => "The request target is malformed.",
            Self::TargetTooLong => "The request target is too long.",
            Self::BadVersion => "The HTTP version is neither 1.0 nor 1.1.",
            Self::UnsupportedVersion => "Only HTTP/1.1 is spoken here.",
            Self::BareLineFeed => "A line ends in LF without CR.",
            Self::BareCarriageReturn => "A CR is not followed by LF.",
            Self::BadFieldName => "A field name is malformed.",
            Self::BadFieldValue => "A field value contains a control character.",
            Self::FoldedField => "A field line begins with white space.",
            Self::HeadTooLarge => "The request head is too large.",
            Self::TooManyFields => "The request has too many fields.",
            Self::MissingHost => "The Host field is missing.",
            Self::DuplicateHost => "There is more than one Host field.",
            Self::BadHost => "The host is malformed.",
            Self::BadContentLength => "Content-Length is malformed.",
            Self::AmbiguousLength => "Transfer-Encoding and Content-Length exclude each other.",
            Self::BadTransferEncoding => "Transfer-Encoding is malformed.",
            Self::UnknownTransferCoding => "Only the chunked transfer coding is known here.",
            Self::BadChunk => "The chunked body is malformed.",
            Self::BodyTooLarge => "The request body is too large.",
            Self::ExpectationFailed => "The expectation cannot be met.",
            Self::TimedOut => "The request did not arrive in time.",
            Self::Overloaded => "Too much is being received; try again later.",
            Self::UpgradeWithBody => "An upgrade request must not have a body.",
            Self::EarlyBytes => "Nothing may follow an upgrade request before its answer.",
            Self::MethodNotAllowed => "A WebSocket handshake is a GET request.",
            Self::UpgradeNeedsHttp11 => "A WebSocket handshake needs HTTP/1.1.",
            Self::MissingUpgrade => "The Upgrade field does not list websocket.",
            Self::MissingConnectionUpgrade => "The Connection field does not list Upgrade.",
            Self::UnsupportedWebSocketVersion => "Only WebSocket version 13 is spoken here.",
            Self::DuplicateWebSocketVersion => {
                "There is more than one Sec-WebSocket-Version field."
            }
            Self::BadKey => "Sec-WebSocket-Key is not one base64 value of 16 bytes.",
            Self::BadSubprotocols => "Sec-WebSocket-Protocol is not a list of distinct tokens.",
            Self::BadExtensions => "Sec-WebSocket-Extensions is malformed.",
            Self::BadResponse => "The server's response is malformed.",
            Self::UnexpectedStatus(_) => "The server refused the handshake",
            Self::BadAccept => "Sec-WebSocket-Accept does not match the key.",
            Self::SubprotocolNotOffered => "The server chose a subprotocol that was not offered.",
            Self::ExtensionNotOffered => "The server chose an extension that was not offered.",
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedStatus(status) => {
                write!(f, "{} with status {status}.", self.sentence())
            }
            _ => f.write_str(self.sentence()),
        }
    }
}

impl Error for HandshakeError {}

/// What a peer did wrong after the opening handshake; each one has its close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A client sent a frame without a masking key (RFC 6455 §5.1).
    UnmaskedFrame,
    /// A server sent a frame with a masking key (§5.1).
    MaskedFrame,
    /// RSV1, RSV2 or RSV3 is set and no extension defines it (§5.2).
    ReservedBits,
    /// Opcodes 3–7 and 11–15 are not defined (§5.2).
    ReservedOpcode,
    /// The most significant bit of a 64-bit payload length is set (§5.2).
    LengthOverflow,
    /// A payload length does not use the fewest bytes that hold it (§5.2).
    NonMinimalLength,
    /// A control frame is fragmented (§5.5).
    FragmentedControlFrame,
    /// A control frame is longer than 125 bytes (§5.5).
    ControlFrameTooLong,
    /// A continuation frame came with no message to continue (§5.4).
    UnexpectedContinuation,
    /// A text or binary frame came while a fragmented message was not complete (§5.4).
    ExpectedContinuation,
    /// A Close frame carries one single byte (§5.5.1).
    ClosePayloadTooShort,
    /// A Close frame carries a code that must not be sent (§7.4).
    InvalidCloseCode,
    /// The reason of a Close frame is not UTF-8 (§5.5.1).
    InvalidCloseReason,
    /// A text message is not UTF-8 (§8.1).
    InvalidUtf8,
    /// A message is larger than `max_message_size` (§10.4).
    MessageTooBig,
    /// A message has more than `max_fragments` frames (§10.4).
    TooManyFragments,
}

impl ProtocolError {
    /// The code of the Close frame that answers this error (RFC 6455 §7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::InvalidCloseReason => CloseCode::INVALID_PAYLOAD,
            Self::MessageTooBig => CloseCode::MESSAGE_TOO_BIG,
            Self::TooManyFragments => CloseCode::POLICY_VIOLATION,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// The error in a few words, short enough for the reason of a Close frame.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnmaskedFrame => "frame is not masked",
            Self::MaskedFrame => "frame is masked",
            Self::ReservedBits => "reserved bit is set",
            Self::ReservedOpcode => "reserved opcode",
            Self::LengthOverflow => "payload length has its highest bit set",
            Self::NonMinimalLength => "payload length is not minimally encoded",
            Self::FragmentedControlFrame => "control frame is fragmented",
            Self::ControlFrameTooLong => "control frame is longer than 125 bytes",
            Self::UnexpectedContinuation => "continuation without a message to continue",
            Self::ExpectedContinuation => "new message inside a fragmented message",
            Self::ClosePayloadTooShort => "close frame with a single byte",
            Self::InvalidCloseCode => "invalid close code",
            Self::InvalidCloseReason => "close reason is not UTF-8",
            Self::InvalidUtf8 => "text is not UTF-8",
            Self::MessageTooBig => "message is too big",
            Self::TooManyFragments => "message has too many fragments",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl Error for ProtocolError {}

/// A call that is wrong whatever the peer sent: a mistake in the program that uses this library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UsageError {
    /// A header name is not a token (RFC 9110 §5.1).
    InvalidHeaderName,
    /// A header value holds a control character, such as the CR LF that would begin another header
    /// (RFC 9110 §5.5).
    InvalidHeaderValue,
    /// This header is written by the library and must not be set by the application.
    ReservedHeader,
    /// The accepted subprotocol is not one that the client offered (RFC 6455 §4.2.2).
    SubprotocolNotOffered,
    /// The request that is being accepted is not an upgrade request that was judged to be valid.
    NotAnUpgrade,
    /// Client: the host is not `uri-host [":" port]`.
    InvalidHost,
    /// Client: the target is not an absolute path of visible ASCII characters.
    InvalidTarget,
    /// Client: the offered subprotocols or extensions do not follow their grammar.
    InvalidOffer,
    /// No request waits for an answer.
    NoRequest,
    /// The connection is not open: not yet, or no more.
    NotOpen,
    /// A control frame carries at most 125 bytes (RFC 6455 §5.5).
    ControlPayloadTooLong,
    /// This close code must not be sent (RFC 6455 §7.4).
    CloseCodeNotAllowed,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidHeaderName => "the header name is not a token",
            Self::InvalidHeaderValue => "the header value contains a control character",
            Self::ReservedHeader => "the header is written by the library itself",
            Self::SubprotocolNotOffered => "the subprotocol was not offered by the client",
            Self::NotAnUpgrade => "the request is not a valid upgrade request",
            Self::InvalidHost => "the host is malformed",
            Self::InvalidTarget => "the target is not an absolute path of visible ASCII characters",
            Self::InvalidOffer => "the offered subprotocols or extensions are malformed",
            Self::NoRequest => "no request waits for an answer",
            Self::NotOpen => "the connection is not open",
            Self::ControlPayloadTooLong => "a control frame carries at most 125 bytes",
            Self::CloseCodeNotAllowed => "this close code must not be sent",
        })
    }
}

impl Error for UsageError {}

#[cfg(test)]
mod tests {
    use super::{HandshakeError, UsageError};

    #[test]
    fn refusals_carry_the_status_of_their_rfc() {
        for (error, status) in [
            (HandshakeError::BadRequestLine, 400),
            (HandshakeError::MethodNotAllowed, 405),
            (HandshakeError::TimedOut, 408),
            (HandshakeError::BodyTooLarge, 413),
            (HandshakeError::TargetTooLong, 414),
            (HandshakeError::ExpectationFailed, 417),
            (HandshakeError::UnsupportedWebSocketVersion, 426),
            (HandshakeError::TooManyFields, 431),
            (HandshakeError::UnknownMethod, 501),
            (HandshakeError::BadAccept, 502),
            (HandshakeError::Overloaded, 503),
            (HandshakeError::UnsupportedVersion, 505),
            (HandshakeError::UnexpectedStatus(404), 404),
        ] {
            assert_eq!(error.status(), status, "{error}");
        }
    }

    #[test]
    fn errors_say_one_sentence() {
        assert_eq!(
            HandshakeError::MissingHost.to_string(),
            "The Host field is missing."
        );
        assert_eq!(
            HandshakeError::UnexpectedStatus(403).to_string(),
            "The server refused the handshake with status 403."
        );
        assert_eq!(
            UsageError::ReservedHeader.to_string(),
            "the header is written by the library itself"
        );
    }
}
