//! One connection as a state machine: bytes in, events lent out, reply bytes appended.
//!
//! Knows the order of things (RFC 6455 §4, §5.4, §5.5, §7) and who may do what; headers are read
//! by `frame`, the opening handshake by `http` and `handshake`. Owns no buffer, no socket and no
//! clock: the caller brings them.

use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use super::close::CloseFrame;
use super::error::{HandshakeError, ProtocolError, UsageError};
use super::frame::{FrameHeader, Opcode};
use super::handshake::{self, Acceptance, ClientHandshake, HandshakeResponse, Kind};
use super::http::{HttpLimits, Request, RequestReader, Response, ResponseFraming};
use super::incoming::{Found, Frames, short_message, short_unmasked_message};
use super::mask::apply_mask;
use super::message::{Assembly, Message, MessageKind};

/// What a [`Connection`] accepts from its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The largest message in bytes, whole or in fragments; default 16 MiB. A larger one is
    /// refused by its header with 1009, before any of it is stored.
    pub max_message_size: usize,
    /// The most frames that one message may come in; default 131,072: 4 MiB in fragments of 64
    /// bytes, with as many again empty. More fail with 1008: empty fragments carry no bytes that
    /// `max_message_size` could count.
    pub max_fragments: u32,
    /// Accept payload lengths that are spelt longer than needed; default `false`. RFC 6455 §5.2
    /// demands the shortest form of senders.
    pub accept_non_minimal_lengths: bool,
    /// The largest unfragmented frame, header included, that waits in the caller's receive buffer
    /// until it is complete; default 4 KiB, about a page. Of a larger one, each
    /// part is moved to the [`Assembly`] at once.
    pub max_frame_in_place: usize,
    /// Limits of the opening handshake and of plain HTTP requests.
    pub http: HttpLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_message_size: 16 << 20,
            max_fragments: 131_072,
            accept_non_minimal_lengths: false,
            max_frame_in_place: 4096,
            http: HttpLimits::default(),
        }
    }
}

/// Which end of the connection this is (RFC 6455 §1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts handshakes, expects masked frames and sends unmasked ones.
    Server,
    /// Opens handshakes, expects unmasked frames and sends masked ones.
    Client,
}

/// Where the connection stands (RFC 6455 §4, §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The opening handshake is not complete; plain HTTP requests come and go.
    Connecting,
    /// Messages flow.
    Open,
    /// We sent a Close frame and wait for the peer's.
    Closing,
    /// Nothing more will be read or written: both Close frames passed, or the connection failed.
    Closed,
}

/// What happened. Borrows from the input or the [`Assembly`] of the call that answers it.
#[derive(Debug)]
pub enum Event<'a> {
    /// Server: a whole request; [`Request::is_upgrade`] tells whether it asks for a WebSocket.
    /// Answer it with [`Connection::accept`] or [`Connection::respond`]; until then nothing more
    /// is read.
    Request(Box<Request<'a>>),
    /// Client: the server accepted; the connection is open.
    Accepted(Box<HandshakeResponse>),
    /// A complete message.
    Message(Message<'a>),
    /// A Ping; answer it with [`Connection::pong`] (RFC 6455 §5.5.3).
    Ping(&'a [u8]),
    /// A Pong, solicited or not.
    Pong(&'a [u8]),
    /// The peer's Close frame. The answer, if one is due, is in the output; the connection is
    /// closed.
    Close(CloseFrame<'a>),
    /// The opening handshake is wrong; the connection is closed. A server answers with
    /// [`Connection::refuse`].
    Refused(HandshakeError),
    /// The peer broke the protocol. The Close frame that says so is in the output; the connection
    /// is closed (_Fail the WebSocket Connection_, §7.1.7).
    Failed(ProtocolError),
}

/// The state machine of one connection, for either end.
///
/// The caller reads bytes and passes them to [`receive`](Self::receive) until it answers no event;
/// what it did not consume is the beginning of something and is passed again, unchanged, with more
/// bytes behind it. Everything to be sent is appended to the `output` of the calls.
///
/// ```
/// use stentor::protocol::{Assembly, Connection, Event, Settings, http::Response};
///
/// let mut server = Connection::server(Settings::default().into());
/// let (mut assembly, mut output) = (Assembly::new(), Vec::new());
/// let mut input = *b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\
///     Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
///     Sec-WebSocket-Version: 13\r\n\r\n";
/// let (_, event) = server.receive(&mut input, &mut assembly, &mut output);
/// let Some(Event::Request(request)) = event else { panic!("a request") };
/// server.accept(&request, &Default::default(), &mut output)?;
/// assert!(output.starts_with(b"HTTP/1.1 101 "));
///
/// // RFC 6455 §5.7: a masked "Hello".
/// let mut frame = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// let (consumed, event) = server.receive(&mut frame, &mut assembly, &mut output);
/// let Some(Event::Message(message)) = event else { panic!("a message") };
/// assert_eq!((consumed, message.as_text()), (11, Some("Hello")));
/// # Ok::<(), stentor::protocol::UsageError>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    settings: Arc<Settings>,
    /// The source of a client's masking keys; a server has none.
    keys: Option<Box<MaskingKeys>>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// A server reads a request.
    Requested(RequestReader),
    /// A server's caller owes the answer to a request.
    Answering,
    /// A client waits for the server's response.
    Responding(Box<ClientHandshake>),
    Open(Frames),
    /// Our Close frame is sent; frames are read for the peer's, messages are dropped (§5.5.1).
    Closing(Frames),
    Closed,
}

impl Connection {
    /// The server's end of a connection that was just accepted.
    pub fn server(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            keys: None,
            phase: Phase::Requested(RequestReader::default()),
        }
    }

    /// The client's end of a connection; `handshake` has written, or will write, its request.
    pub fn client(settings: Arc<Settings>, handshake: ClientHandshake) -> Self {
        let keys = Some(Box::new(MaskingKeys::new()));
        Self {
            settings,
            keys,
            phase: Phase::Responding(Box::new(handshake)),
        }
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        if self.keys.is_none() {
            Role::Server
        } else {
            Role::Client
        }
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Requested(_) | Phase::Answering | Phase::Responding(_) => State::Connecting,
            Phase::Open(_) => State::Open,
            Phase::Closing(_) => State::Closing,
            Phase::Closed => State::Closed,
        }
    }

    /// Whether messages may be sent.
    #[inline]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether a request was handed out and is not answered: nothing is read until it is.
    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Answering)
    }

    /// Whether the first part of a request, of a frame or of a message has come.
    ///
    /// `leftover` says whether the caller holds bytes that were not consumed.
    pub fn is_incomplete(&self, leftover: bool) -> bool {
        leftover
            || match &self.phase {
                Phase::Requested(reader) => reader.is_reading(),
                Phase::Open(frames) | Phase::Closing(frames) => frames.is_in_message(),
                _ => false,
            }
    }

    /// Whether the connection is open and between two messages, with no frame begun.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        matches!(&self.phase, Phase::Open(frames) if frames.is_at_boundary())
    }

    /// Whether the [`Assembly`] holds part of a message; otherwise its bytes are of no more use.
    pub fn is_assembling(&self) -> bool {
        match &self.phase {
            Phase::Open(frames) | Phase::Closing(frames) => frames.is_in_message(),
            _ => false,
        }
    }

    /// How much memory the connection keeps for the body of a request that is not complete.
    #[inline]
    pub(crate) fn body_memory(&self) -> usize {
        match &self.phase {
            Phase::Requested(reader) => reader.body_memory(),
            _ => 0,
        }
    }

    /// Reads `input` up to the first event; answers how many bytes were consumed.
    ///
    /// Without an event the bytes that were not consumed are to be passed again, unchanged and
    /// with more behind them. Payloads are unmasked in place. The same `assembly` is to be passed
    /// as long as [`is_assembling`](Self::is_assembling); it is cleared when a message begins.
    #[inline]
    pub fn receive<'a>(
        &mut self,
        input: &'a mut [u8],
        assembly: &'a mut Assembly,
        output: &mut Vec<u8>,
    ) -> (usize, Option<Event<'a>>) {
        if let Some((kind, range)) = self.receive_short(input) {
            let end = range.end;
            let message = Message::from_parts(kind, &input[range]);
            return (end, Some(Event::Message(message)));
        }
        self.receive_any(input, assembly, output)
    }

    /// The common case of [`receive`](Self::receive): a whole unfragmented message of at most 125
    /// bytes is at the start of `input`. Answers its kind and the place of its payload, now
    /// unmasked; whatever is behind that was not looked at. With `None` nothing has changed.
    #[inline]
    pub(crate) fn receive_short(
        &mut self,
        input: &mut [u8],
    ) -> Option<(MessageKind, Range<usize>)> {
        match &self.phase {
            Phase::Open(frames) if frames.is_at_boundary() => {
                let max = self.settings.max_message_size;
                match self.keys {
                    None => short_message(input, max),
                    Some(_) => short_unmasked_message(input, max),
                }
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn receive_any<'a>(
        &mut self,
        input: &'a mut [u8],
        assembly: &'a mut Assembly,
        output: &mut Vec<u8>,
    ) -> (usize, Option<Event<'a>>) {
        match &mut self.phase {
            Phase::Requested(_) => self.receive_request(input, output),
            Phase::Answering => (0, None),
            Phase::Responding(_) => self.receive_response(input),
            Phase::Open(_) | Phase::Closing(_) => self.receive_frames(input, assembly, output),
            // §1.4, §7.1.7: what follows a Close frame or a failure is not looked at.
            Phase::Closed => (input.len(), None),
        }
    }

    fn receive_request<'a>(
        &mut self,
        input: &'a [u8],
        output: &mut Vec<u8>,
    ) -> (usize, Option<Event<'a>>) {
        let Phase::Requested(reader) = &mut self.phase else {
            unreachable!("checked by the caller")
        };
        let (consumed, request) = match reader.receive(input, &self.settings.http, output) {
            Ok((consumed, None)) => return (consumed, None),
            Ok((consumed, Some(request))) => (consumed, request),
            Err(error) => return self.receive_refused(input, error),
        };
        match handshake::judge(&request) {
            // §4.1: the client waits for the response. What comes before it was written by
            // somebody else, or was meant for somebody else.
            Ok(Kind::Upgrade) if consumed < input.len() => {
                self.receive_refused(input, HandshakeError::EarlyBytes)
            }
            Ok(_) => {
                self.phase = Phase::Answering;
                (consumed, Some(Event::Request(request)))
            }
            Err(error) => self.receive_refused(input, error),
        }
    }

    fn receive_refused<'a>(
        &mut self,
        input: &[u8],
        error: HandshakeError,
    ) -> (usize, Option<Event<'a>>) {
        self.phase = Phase::Closed;
        (input.len(), Some(Event::Refused(error)))
    }

    fn receive_response<'a>(&mut self, input: &[u8]) -> (usize, Option<Event<'a>>) {
        let Phase::Responding(handshake) = &mut self.phase else {
            unreachable!("checked by the caller")
        };
        match handshake.receive(input) {
            Ok((consumed, None)) => (consumed, None),
            Ok((consumed, Some(response))) => {
                self.phase = Phase::Open(Frames::default());
                (consumed, Some(Event::Accepted(Box::new(response))))
            }
            Err(error) => self.receive_refused(input, error),
        }
    }

    fn receive_frames<'a>(
        &mut self,
        input: &'a mut [u8],
        assembly: &'a mut Assembly,
        output: &mut Vec<u8>,
    ) -> (usize, Option<Event<'a>>) {
        let role = self.role();
        let is_open = self.is_open();
        let (Phase::Open(frames) | Phase::Closing(frames)) = &mut self.phase else {
            unreachable!("checked by the caller")
        };
        let mut consumed = 0;
        loop {
            let step = frames.step(&mut input[consumed..], assembly, &self.settings, role);
            let (used, found) = match step {
                Ok(step) => step,
                Err(error) => return (input.len(), Some(self.fail(error, output))),
            };
            let start = consumed;
            consumed += used;
            match found {
                Found::Nothing => return (consumed, None),
                Found::Fragment => {}
                // §5.5.1: after our own Close frame we are past interest in messages; §5.5.2:
                // and past the permission to answer a Ping.
                Found::Message(..) | Found::Assembled(_) | Found::Control(Opcode::Ping, _)
                    if !is_open => {}
                Found::Message(kind, range) => {
                    let payload = &input[start + range.start..start + range.end];
                    return (
                        consumed,
                        Some(Event::Message(Message::from_parts(kind, payload))),
                    );
                }
                Found::Assembled(kind) => {
                    let message = Message::from_parts(kind, assembly.as_slice());
                    return (consumed, Some(Event::Message(message)));
                }
                Found::Control(opcode, range) => {
                    let payload = &input[start + range.start..start + range.end];
                    let event = match opcode {
                        Opcode::Ping => Event::Ping(payload),
                        Opcode::Close => self.receive_close(payload, output),
                        _ => Event::Pong(payload),
                    };
                    return (consumed, Some(event));
                }
            }
        }
    }

    fn receive_close<'a>(&mut self, payload: &'a [u8], output: &mut Vec<u8>) -> Event<'a> {
        match CloseFrame::parse(payload) {
            Ok(frame) => {
                // §5.5.1: "If an endpoint receives a Close frame and did not previously send a
                // Close frame, the endpoint MUST send a Close frame in response", echoing the code.
                if self.is_open() {
                    self.write_close(CloseFrame::new(frame.code, ""), output);
                }
                self.phase = Phase::Closed;
                Event::Close(frame)
            }
            Err(error) => self.fail(error, output),
        }
    }

    /// Where the next bytes of a long message may be read to directly, if one is being received.
    ///
    /// Saves the copy from the receive buffer. Report what was read with
    /// [`receive_direct`](Self::receive_direct) before anything else is received.
    pub fn direct<'a>(&self, assembly: &'a mut Assembly) -> Option<&'a mut [u8]> {
        match &self.phase {
            Phase::Open(frames) | Phase::Closing(frames) => {
                frames.streaming().map(|wanted| assembly.spare(wanted))
            }
            _ => None,
        }
    }

    /// `count` bytes were read into the slice that [`direct`](Self::direct) lent.
    ///
    /// # Panics
    ///
    /// When `count` is larger than that slice.
    pub fn receive_direct<'a>(
        &mut self,
        count: usize,
        assembly: &'a mut Assembly,
        output: &mut Vec<u8>,
    ) -> Option<Event<'a>> {
        let is_open = self.is_open();
        let (Phase::Open(frames) | Phase::Closing(frames)) = &mut self.phase else {
            return None;
        };
        match frames.stream_in_place(count, assembly) {
            Ok(Found::Assembled(kind)) if is_open => Some(Event::Message(Message::from_parts(
                kind,
                assembly.as_slice(),
            ))),
            Ok(_) => None,
            Err(error) => Some(self.fail(error, output)),
        }
    }

    /// At least how many bytes must follow `leftover`, which was not consumed, before more can be;
    /// and at most how many belong to the same frame. `None`: a request head, of unknown length.
    pub fn missing(&self, leftover: &[u8]) -> Option<usize> {
        match &self.phase {
            Phase::Open(frames) | Phase::Closing(frames) => Some(frames.missing(leftover)),
            _ => None,
        }
    }

    /// Accepts an upgrade: writes the 101 response; the connection is open.
    ///
    /// # Errors
    ///
    /// No request waits for its answer, or `acceptance` breaks the handshake (a subprotocol that
    /// was not offered, a field that is not the application's). Nothing is written then.
    pub fn accept(
        &mut self,
        request: &Request<'_>,
        acceptance: &Acceptance,
        output: &mut Vec<u8>,
    ) -> Result<(), UsageError> {
        if !self.is_answering() {
            return Err(UsageError::NoRequest);
        }
        handshake::write_acceptance(request, acceptance, output)?;
        self.phase = Phase::Open(Frames::default());
        Ok(())
    }

    /// Answers a request with a plain response. The connection is then ready for the next request,
    /// or closed: after an upgrade was refused (what follows may not be HTTP), and where either
    /// side wants it.
    ///
    /// # Errors
    ///
    /// No request waits for its answer.
    pub fn respond(
        &mut self,
        request: &Request<'_>,
        response: &Response,
        date: Option<&str>,
        output: &mut Vec<u8>,
    ) -> Result<(), UsageError> {
        if !self.is_answering() {
            return Err(UsageError::NoRequest);
        }
        let close = request.has_upgrade() || !request.keep_alive();
        let framing = ResponseFraming {
            is_stream: false,
            head_only: request.is_head(),
            close,
            date,
        };
        response.encode(output, framing);
        self.phase = if close {
            Phase::Closed
        } else {
            Phase::Requested(RequestReader::default())
        };
        Ok(())
    }

    /// Server: answers a wrong or late request by its status; the connection is closed.
    pub fn refuse(&mut self, error: HandshakeError, date: Option<&str>, output: &mut Vec<u8>) {
        handshake::write_refusal(&error, date, output);
        self.phase = Phase::Closed;
    }

    /// Sends a message in one frame.
    ///
    /// # Errors
    ///
    /// The connection is not open; nothing is written.
    #[inline]
    pub fn send<'m>(
        &mut self,
        message: impl Into<Message<'m>>,
        output: &mut Vec<u8>,
    ) -> Result<(), UsageError> {
        let message = message.into();
        if !self.is_open() {
            return Err(UsageError::NotOpen);
        }
        self.write_frame(message.kind().into(), message.payload(), output);
        Ok(())
    }

    /// Sends a Ping with at most 125 bytes (RFC 6455 §5.5.2).
    ///
    /// # Errors
    ///
    /// The connection is not open, or the payload is too long; nothing is written.
    pub fn ping(&mut self, payload: &[u8], output: &mut Vec<u8>) -> Result<(), UsageError> {
        self.control(Opcode::Ping, payload, output)
    }

    /// Sends a Pong with at most 125 bytes: those of the Ping that it answers (RFC 6455 §5.5.3).
    ///
    /// # Errors
    ///
    /// The connection is not open, or the payload is too long; nothing is written.
    pub fn pong(&mut self, payload: &[u8], output: &mut Vec<u8>) -> Result<(), UsageError> {
        self.control(Opcode::Pong, payload, output)
    }

    fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), UsageError> {
        if !self.is_open() {
            return Err(UsageError::NotOpen);
        }
        if payload.len() > 125 {
            return Err(UsageError::ControlPayloadTooLong);
        }
        self.write_frame(opcode, payload, output);
        Ok(())
    }

    /// Starts the closing handshake (RFC 6455 §7.1.2). Messages that come from now on are dropped.
    ///
    /// # Errors
    ///
    /// The connection is not open, or the code must not be sent; nothing is written.
    pub fn close(&mut self, frame: CloseFrame<'_>, output: &mut Vec<u8>) -> Result<(), UsageError> {
        if !frame.code.is_allowed_on_wire() && frame != CloseFrame::EMPTY {
            return Err(UsageError::CloseCodeNotAllowed);
        }
        let Phase::Open(frames) = &mut self.phase else {
            return Err(UsageError::NotOpen);
        };
        self.phase = Phase::Closing(mem::take(frames));
        self.write_close(frame, output);
        Ok(())
    }

    /// The peer will send no more: whatever was incomplete stays so.
    pub fn receive_eof(&mut self) {
        self.phase = Phase::Closed;
    }

    /// _Fail the WebSocket Connection_ (RFC 6455 §7.1.7).
    #[cold]
    fn fail(&mut self, error: ProtocolError, output: &mut Vec<u8>) -> Event<'static> {
        if self.is_open() {
            self.write_close(CloseFrame::new(error.close_code(), error.reason()), output);
        }
        self.phase = Phase::Closed;
        Event::Failed(error)
    }

    fn write_close(&mut self, frame: CloseFrame<'_>, output: &mut Vec<u8>) {
        let (payload, len) = frame.to_payload();
        self.write_frame(Opcode::Close, &payload[..len], output);
    }

    #[inline]
    fn write_frame(&mut self, opcode: Opcode, payload: &[u8], output: &mut Vec<u8>) {
        match &mut self.keys {
            None => write_unmasked_frame(opcode, payload, output),
            // §5.3: "each frame sent from client to server is masked" with a fresh key.
            Some(keys) => write_masked_frame(opcode, payload, keys.next_key(), output),
        }
    }
}

/// Appends a frame as a server sends it: unfragmented and unmasked (RFC 6455 §5.1).
#[inline]
pub fn write_unmasked_frame(opcode: Opcode, payload: &[u8], output: &mut Vec<u8>) {
    output.reserve(FrameHeader::MAX_LEN + payload.len());
    if payload.len() <= 125 {
        output.extend_from_slice(&[0x80 | opcode as u8, payload.len() as u8]);
    } else {
        FrameHeader::unmasked(opcode, payload.len() as u64).encode(output);
    }
    output.extend_from_slice(payload);
}

/// Appends a frame as [`write_unmasked_frame`] does; the payload is these parts together.
pub(crate) fn write_unmasked_frame_of(opcode: Opcode, parts: &[&[u8]], output: &mut Vec<u8>) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    output.reserve(FrameHeader::MAX_LEN + len);
    FrameHeader::unmasked(opcode, len as u64).encode(output);
    for part in parts {
        output.extend_from_slice(part);
    }
}

/// Appends a frame as a client sends it: unfragmented and masked with `key` (RFC 6455 §5.3).
pub fn write_masked_frame(opcode: Opcode, payload: &[u8], key: [u8; 4], output: &mut Vec<u8>) {
    let mut header = FrameHeader::unmasked(opcode, payload.len() as u64);
    header.masking_key = Some(key);
    header.encode(output);
    let start = output.len();
    output.extend_from_slice(payload);
    apply_mask(&mut output[start..], key, 0);
}

/// Masking keys that a peer cannot predict (RFC 6455 §5.3, §10.3): a counter through `SipHash` with
/// a key from the operating system's entropy.
#[derive(Debug)]
struct MaskingKeys {
    hasher: RandomState,
    count: u64,
}

impl MaskingKeys {
    fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            count: 0,
        }
    }

    fn next_key(&mut self) -> [u8; 4] {
        self.count += 1;
        (self.hasher.hash_one(self.count) as u32).to_ne_bytes()
    }
}
