//! Finds the end of a head while it arrives, and fails at the first byte that proves it wrong.
//!
//! Every byte is looked at once, however the head is cut into pieces. The grammar is stricter than
//! that of `httparse`, which reads the complete head afterwards: no bare LF, no folded lines.

use super::HttpLimits;
use super::grammar::{is_target_byte, is_token_byte, is_value_byte, run};
use crate::protocol::error::HandshakeError;

/// How far a head has been scanned.
#[derive(Clone, Copy, Debug)]
pub(in crate::protocol) struct HeadScan {
    /// Bytes examined, counted from the start of the head.
    position: u32,
    /// Where the method, the target or the version began.
    mark: u32,
    phase: Phase,
    empty_lines: u8,
    /// Bytes of empty lines before the request line, which do not count towards its limits.
    lead: u8,
    fields: FieldScan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the request line: nothing but empty lines came.
    Start,
    EmptyLineEnd,
    Method,
    TargetStart,
    Target,
    Version,
    /// The status line of a response, judged when it is complete.
    Status,
    LineEnd,
    Fields,
}

impl HeadScan {
    /// Scans a request.
    pub(super) fn request() -> Self {
        Self::starting_with(Phase::Start)
    }

    /// Scans a response.
    pub(in crate::protocol) fn response() -> Self {
        Self::starting_with(Phase::Status)
    }

    fn starting_with(phase: Phase) -> Self {
        Self {
            position: 0,
            mark: 0,
            phase,
            empty_lines: 0,
            lead: 0,
            fields: FieldScan::default(),
        }
    }

    /// Continues over `input`, which begins with the bytes of the earlier calls, and answers the
    /// length of the head once it is complete.
    pub(in crate::protocol) fn advance(
        &mut self,
        input: &[u8],
        limits: &HttpLimits,
    ) -> Result<Option<usize>, HandshakeError> {
        self.skip_empty_lines(input)?;
        let limit = limits.max_head_size.min(LARGEST_HEAD) + usize::from(self.lead);
        let window = &input[..input.len().min(limit)];
        while self.position() < window.len() {
            if self.phase == Phase::Fields {
                let (used, complete) = self.fields.advance(&window[self.position()..], limits)?;
                self.position += used as u32; // Within the window, which fits.
                if complete {
                    return Ok(Some(self.position()));
                }
            } else {
                self.advance_line(window, limits)?;
            }
        }
        if self.position() < limit {
            return Ok(None);
        }
        match self.phase {
            Phase::Fields => Err(HandshakeError::HeadTooLarge),
            _ => Err(HandshakeError::TargetTooLong),
        }
    }

    /// The number of field lines in the head so far.
    pub(in crate::protocol) fn field_count(&self) -> usize {
        usize::from(self.fields.count)
    }

    /// Forgets the empty lines that came before a request line, and answers how many bytes they
    /// are.
    ///
    /// They need not wait in the caller's buffer: an idle connection keeps nothing.
    pub(super) fn release_empty_lines(&mut self) -> usize {
        match self.phase {
            Phase::Start => {
                self.position = 0;
                usize::from(std::mem::take(&mut self.lead))
            }
            _ => 0,
        }
    }

    fn skip_empty_lines(&mut self, input: &[u8]) -> Result<(), HandshakeError> {
        while let Some(&byte) = input.get(self.position()) {
            if !matches!(
                (self.phase, byte),
                (Phase::Start, b'\r') | (Phase::EmptyLineEnd, _)
            ) {
                break;
            }
            self.phase = self.next_phase(byte, input)?;
            self.position += 1;
            self.lead += 1;
        }
        Ok(())
    }

    /// Whether a byte of a head has been seen that was not released.
    pub(super) fn has_begun(&self) -> bool {
        self.phase != Phase::Start
    }

    fn position(&self) -> usize {
        self.position as usize
    }

    /// The bytes of the token that is being read.
    fn pending<'a>(&self, window: &'a [u8]) -> &'a [u8] {
        &window[self.mark as usize..self.position()]
    }

    /// Takes a run of the current token and the byte after it.
    fn advance_line(&mut self, window: &[u8], limits: &HttpLimits) -> Result<(), HandshakeError> {
        let rest = &window[self.position()..];
        let length = match self.phase {
            Phase::Method => run(rest, is_token_byte),
            Phase::Target => run(rest, is_target_byte),
            Phase::Status => run(rest, is_value_byte),
            _ => run(rest, |_| false),
        };
        self.position += length as u32; // Within the window, which fits.
        self.check_length(limits)?;
        if let Some(&byte) = rest.get(length) {
            self.phase = self.next_phase(byte, window)?;
            self.position += 1;
        }
        Ok(())
    }

    /// Judged before the byte after the token, so that the answer does not depend on how the bytes
    /// were cut.
    fn check_length(&self, limits: &HttpLimits) -> Result<(), HandshakeError> {
        let length = (self.position - self.mark) as usize;
        match self.phase {
            // RFC 9112 §3: "A server that receives a method longer than any that it implements
            // SHOULD respond with a 501 (Not Implemented) status code."
            Phase::Method if length > LONGEST_METHOD => Err(HandshakeError::UnknownMethod),
            // RFC 9112 §3: "A server that receives a request-target longer than any URI it wishes
            // to parse MUST respond with a 414 (URI Too Long) status code."
            Phase::Target if length > limits.max_target_size => Err(HandshakeError::TargetTooLong),
            _ => Ok(()),
        }
    }

    /// Judges the byte that is not part of a run, and answers what is expected after it.
    fn next_phase(&mut self, byte: u8, window: &[u8]) -> Result<Phase, HandshakeError> {
        match (self.phase, byte) {
            (Phase::Start, b'\r') => self.begin_empty_line(),
            (Phase::EmptyLineEnd, b'\n') => Ok(Phase::Start),
            (Phase::Start, _) if is_token_byte(byte) => Ok(self.begin(Phase::Method, 0)),
            (Phase::Method, b' ') => {
                known_method(self.pending(window)).ok_or(HandshakeError::UnknownMethod)?;
                Ok(Phase::TargetStart)
            }
            (Phase::TargetStart, b'/' | b'*' | b'A'..=b'Z' | b'a'..=b'z') => {
                Ok(self.begin(Phase::Target, 0))
            }
            (Phase::Target, b' ') => Ok(self.begin(Phase::Version, 1)),
            (Phase::Version, b'\r') => {
                judge_version(self.pending(window))?;
                Ok(Phase::LineEnd)
            }
            (Phase::Version, _) if could_be_version(self.pending(window), byte) => {
                Ok(Phase::Version)
            }
            (Phase::Status, b'\r') => Ok(Phase::LineEnd),
            (Phase::LineEnd, b'\n') => Ok(Phase::Fields),
            (Phase::EmptyLineEnd | Phase::LineEnd, _) => Err(HandshakeError::BareCarriageReturn),
            // RFC 9112 §2.2: "a recipient MAY recognize a single LF as a line terminator". We do
            // not: what two parsers cut differently can be smuggled past one of them.
            (_, b'\n') => Err(HandshakeError::BareLineFeed),
            (Phase::TargetStart | Phase::Target, _) if byte != b'\r' => {
                Err(HandshakeError::BadTarget)
            }
            // Among them: a TLS ClientHello, and HTTP/0.9, whose line ends after the target.
            _ => Err(HandshakeError::BadRequestLine),
        }
    }

    /// Notes where a token begins: at the current byte or `offset` bytes after it.
    fn begin(&mut self, phase: Phase, offset: u32) -> Phase {
        self.mark = self.position + offset;
        phase
    }

    fn begin_empty_line(&mut self) -> Result<Phase, HandshakeError> {
        self.empty_lines += 1;
        // RFC 9112 §2.2: "a server [...] SHOULD ignore at least one empty line (CRLF) received
        // prior to the request-line."
        if self.empty_lines > MAX_EMPTY_LINES {
            return Err(HandshakeError::TooManyEmptyLines);
        }
        Ok(Phase::EmptyLineEnd)
    }
}

/// The method as a constant, if it is one of [`METHODS`].
pub(super) fn known_method(method: &[u8]) -> Option<&'static str> {
    METHODS
        .iter()
        .copied()
        .find(|known| known.as_bytes() == method)
}

/// Whether `byte` can follow what came of `HTTP-version` so far (RFC 9112 §2.3).
fn could_be_version(so_far: &[u8], byte: u8) -> bool {
    match b"HTTP/d.d".get(so_far.len()) {
        Some(b'd') => byte.is_ascii_digit(),
        Some(&expected) => byte == expected,
        None => false,
    }
}

fn judge_version(version: &[u8]) -> Result<(), HandshakeError> {
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        // RFC 9110 §15.6.6: 505 "indicates that the server does not support, or refuses to
        // support, the major version of HTTP that was used in the request message."
        [b'H', b'T', b'T', b'P', b'/', major, b'.', _] if *major != b'1' => {
            Err(HandshakeError::UnsupportedVersion)
        }
        [b'H', b'T', b'T', b'P', b'/', _, b'.', _] => Err(HandshakeError::BadVersion),
        _ => Err(HandshakeError::BadRequestLine),
    }
}

/// How far a section of field lines, in a head or behind a chunked body, has been scanned.
///
/// Looks at nothing but the bytes of the call, so that a trailer section needs no buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldScan {
    phase: FieldPhase,
    count: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FieldPhase {
    #[default]
    LineStart,
    Name,
    Value,
    LineEnd,
    SectionEnd,
}

impl FieldScan {
    /// Continues over the next bytes; answers how many were used and whether the section is over.
    pub(super) fn advance(
        &mut self,
        bytes: &[u8],
        limits: &HttpLimits,
    ) -> Result<(usize, bool), HandshakeError> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let length = match self.phase {
                FieldPhase::Name => run(rest, is_token_byte),
                FieldPhase::Value => run(rest, is_value_byte),
                _ => run(rest, |_| false),
            };
            let Some(&byte) = rest.get(length) else {
                return Ok((bytes.len(), false));
            };
            used += length + 1;
            if (self.phase, byte) == (FieldPhase::SectionEnd, b'\n') {
                return Ok((used, true));
            }
            self.phase = self.next_phase(byte, limits)?;
        }
    }

    fn next_phase(&mut self, byte: u8, limits: &HttpLimits) -> Result<FieldPhase, HandshakeError> {
        match (self.phase, byte) {
            (FieldPhase::LineStart, b'\r') => Ok(FieldPhase::SectionEnd),
            (FieldPhase::LineStart, _) if is_token_byte(byte) => self.begin_field(limits),
            // RFC 9112 §5.2: "A server that receives an obs-fold in a request message that is not
            // within a "message/http" container MUST either reject the message by sending a 400
            // (Bad Request) [...] or replace each received obs-fold".
            (FieldPhase::LineStart, b' ' | b'\t') => Err(HandshakeError::FoldedField),
            (FieldPhase::Name, b':') => Ok(FieldPhase::Value),
            (FieldPhase::Value, b'\r') => Ok(FieldPhase::LineEnd),
            (FieldPhase::LineEnd, b'\n') => Ok(FieldPhase::LineStart),
            (FieldPhase::LineEnd | FieldPhase::SectionEnd, _) => {
                Err(HandshakeError::BareCarriageReturn)
            }
            (_, b'\n') => Err(HandshakeError::BareLineFeed),
            // RFC 9110 §5.5: "a recipient of CR, LF, or NUL within a field value MUST either reject
            // the message or replace each of those characters with SP".
            (FieldPhase::Value, _) => Err(HandshakeError::BadFieldValue),
            // RFC 9112 §5.1: "A server MUST reject, with a response status code of 400 (Bad
            // Request), any received request message that contains whitespace between a header
            // field name and colon."
            (FieldPhase::LineStart | FieldPhase::Name, _) => Err(HandshakeError::BadFieldName),
        }
    }

    fn begin_field(&mut self, limits: &HttpLimits) -> Result<FieldPhase, HandshakeError> {
        if usize::from(self.count) >= limits.max_fields.min(usize::from(u16::MAX)) {
            return Err(HandshakeError::TooManyFields);
        }
        self.count += 1;
        Ok(FieldPhase::Name)
    }
}

/// Positions are kept in 32 bits; no server reads a head of this size.
const LARGEST_HEAD: usize = 1 << 31;

/// Empty lines before a request: one after the body of a sloppy client's POST, and one to spare.
const MAX_EMPTY_LINES: u8 = 2;

/// `UPDATEREDIRECTREF`.
const LONGEST_METHOD: usize = 17;

/// The methods of the IANA registry and the coming `QUERY`, the common ones first.
///
/// `CONNECT` is absent: this server is no proxy, and 501 at the space keeps its authority-form
/// target from ever being read. `PRI` is present so that the HTTP/2 preface gets as far as its
/// version (505).
const METHODS: [&str; 39] = [
    "GET",
    "POST",
    "HEAD",
    "OPTIONS",
    "PUT",
    "DELETE",
    "PATCH",
    "TRACE",
    "PRI",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "QUERY",
];
