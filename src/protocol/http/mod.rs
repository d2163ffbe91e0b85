//! HTTP/1.1 requests and responses (RFC 9110, RFC 9112), as far as a WebSocket server needs them.
//!
//! Strict where leniency has been a way to smuggle: every line ends in CR LF, a body has exactly
//! one length, and whatever two parsers might read differently is refused. Whether a request may
//! become a WebSocket is not decided here but in [`handshake`](super::handshake).

mod body;
pub(in crate::protocol) mod grammar;
mod head;
mod request;
mod response;
pub(in crate::protocol) mod scan;
#[cfg(test)]
pub(in crate::protocol) mod tests;

use std::borrow::Cow;

use self::body::{BodyDecoder, Framing};
pub use self::request::Request;
pub use self::response::{Response, ResponseFraming};
pub(in crate::protocol) use self::response::{check_field, push_field};
use self::scan::HeadScan;
use super::error::HandshakeError;

/// What a request may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of request line and fields together (431 beyond). 16 KiB: twice the 8 KiB that proxies
    /// pass on by default, and cookies of several services fit.
    pub max_head_size: usize,
    /// Field lines (431 beyond). 100: browsers send about 20, and proxies add fewer than that.
    pub max_fields: usize,
    /// Bytes of the request target (414 beyond). 8 KiB: RFC 9112 §3 recommends at least 8000 octets
    /// for the request line.
    pub max_target_size: usize,
    /// Bytes of content (413 beyond). 64 KiB: a publisher's message; nothing else here has a body.
    pub max_body_size: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_head_size: 16 * 1024,
            max_fields: 100,
            max_target_size: 8 * 1024,
            max_body_size: 64 * 1024,
        }
    }
}

/// Reads the requests of one connection one after the other.
///
/// It owns no memory between requests and while a head arrives; the head waits in the caller's
/// buffer. Only a body that did not come together with its head is collected here.
///
/// ```
/// use stentor::protocol::http::{HttpLimits, RequestReader};
///
/// let mut reader = RequestReader::default();
/// let mut output = Vec::new();
/// let received = b"GET /chat?room=1 HTTP/1.1\r\nHost: example.com\r\n\r\n";
///
/// // Half a head: nothing is consumed, the bytes are presented again with more behind them.
/// let early = reader.receive(&received[..20], &HttpLimits::default(), &mut output)?;
/// assert!(matches!(early, (0, None)));
///
/// let (consumed, request) = reader.receive(received, &HttpLimits::default(), &mut output)?;
/// assert_eq!(consumed, received.len());
/// assert_eq!(request.expect("the head is complete").path(), b"/chat");
/// # Ok::<(), stentor::protocol::error::HandshakeError>(())
/// ```
#[derive(Debug)]
pub struct RequestReader {
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadScan),
    Body(Box<Pending>),
    /// The last request ended the conversation.
    Closed,
    Failed(HandshakeError),
}

/// A request whose body is still arriving.
#[derive(Debug)]
struct Pending {
    request: Request<'static>,
    body: Vec<u8>,
    decoder: BodyDecoder,
}

/// Bytes used, and the request if it is complete.
type Received<'a> = Result<(usize, Option<Box<Request<'a>>>), HandshakeError>;

impl Default for RequestReader {
    fn default() -> Self {
        Self {
            state: State::Head(HeadScan::request()),
        }
    }
}

impl RequestReader {
    /// Takes what was received, and answers how many bytes were consumed and the request, if one is
    /// complete.
    ///
    /// `input` is everything received and not yet consumed: bytes that were not consumed are
    /// presented again, unchanged, with more behind them. Call again while it consumes or answers
    /// requests. The work is linear in the bytes received, however they are cut into pieces.
    ///
    /// Only `100 Continue` is appended to `output`, when a client waits for it before it sends its
    /// body (RFC 9110 §10.1.1).
    ///
    /// # After the last request
    ///
    /// After a request whose [`keep_alive`](Request::keep_alive) is false all further input is
    /// consumed and ignored: RFC 9112 §9.6, "The server MUST NOT process any further requests
    /// received on that connection." Once an upgrade was accepted, the reader is of no more use.
    ///
    /// # Errors
    ///
    /// The first byte that proves the request wrong fails it, wherever the input was cut. The error
    /// stays: no later call answers anything else.
    pub fn receive<'a>(
        &mut self,
        input: &'a [u8],
        limits: &HttpLimits,
        output: &mut Vec<u8>,
    ) -> Received<'a> {
        let received = match self.state {
            State::Head(ref mut scan) => match scan.advance(input, limits) {
                Ok(None) => Ok((scan.release_empty_lines(), None)),
                Ok(Some(length)) => {
                    let field_count = scan.field_count();
                    self.receive_head(input.split_at(length), field_count, limits, output)
                }
                Err(error) => Err(error),
            },
            State::Body(_) => self.receive_body(input, limits),
            State::Closed => Ok((input.len(), None)),
            State::Failed(error) => Err(error),
        };
        if let Err(error) = received {
            self.state = State::Failed(error);
        }
        received
    }

    /// Whether a request has begun to arrive and is not complete.
    pub fn is_reading(&self) -> bool {
        match &self.state {
            State::Head(scan) => scan.has_begun(),
            State::Body(_) => true,
            State::Closed | State::Failed(_) => false,
        }
    }

    /// How much memory is kept for the request whose body is arriving.
    pub(in crate::protocol) fn body_memory(&self) -> usize {
        match &self.state {
            State::Body(pending) => pending.request.memory() + pending.body.capacity(),
            _ => 0,
        }
    }

    fn receive_head<'a>(
        &mut self,
        (head, rest): (&'a [u8], &'a [u8]),
        field_count: usize,
        limits: &HttpLimits,
        output: &mut Vec<u8>,
    ) -> Received<'a> {
        let (mut request, framing) = head::parse(head, field_count, limits)?;
        match framing {
            Framing::None => Ok((head.len(), Some(self.deliver(request)))),
            // The whole body came with the head: nothing needs to be copied.
            Framing::Length(length) if rest.len() >= length => {
                request.set_body(Cow::Borrowed(&rest[..length]));
                Ok((head.len() + length, Some(self.deliver(request))))
            }
            Framing::Length(_) | Framing::Chunked => {
                // RFC 9110 §10.1.1: "A server MAY omit sending a 100 (Continue) response if it has
                // already received some or all of the content".
                if rest.is_empty() && request.expects_continue() {
                    output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.state = State::Body(Box::new(Pending {
                    request: request.into_owned(),
                    body: Vec::new(),
                    decoder: BodyDecoder::new(framing),
                }));
                let (used, request) = self.receive_body(rest, limits)?;
                Ok((head.len() + used, request))
            }
        }
    }

    fn receive_body<'a>(&mut self, input: &[u8], limits: &HttpLimits) -> Received<'a> {
        let State::Body(pending) = &mut self.state else {
            return Ok((0, None));
        };
        let Pending {
            request,
            body,
            decoder,
        } = &mut **pending;
        let (used, complete) = decoder.advance(input, limits, body)?;
        if !complete {
            return Ok((used, None));
        }
        request.set_body(Cow::Owned(std::mem::take(body)));
        let State::Body(pending) = std::mem::replace(&mut self.state, State::Closed) else {
            return Ok((used, None));
        };
        Ok((used, Some(self.deliver(pending.request))))
    }

    /// Hands a request out and gets ready for the next one, if there may be one.
    fn deliver<'a>(&mut self, request: Request<'a>) -> Box<Request<'a>> {
        self.state = if request.keep_alive() {
            State::Head(HeadScan::request())
        } else {
            State::Closed
        };
        Box::new(request)
    }
}
