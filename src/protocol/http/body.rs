//! The body of a request (RFC 9112 §6, §7.1): bytes in, content out, into one contiguous buffer.
//!
//! The buffer grows with the bytes that came, never with the length that was claimed.

use super::HttpLimits;
use super::scan::FieldScan;
use crate::protocol::error::HandshakeError;

/// How the head says that the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// Reads one body.
#[derive(Debug)]
pub(super) enum BodyDecoder {
    Length { remaining: usize },
    Chunked(ChunkDecoder),
}

impl BodyDecoder {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length { remaining: 0 },
            Framing::Length(remaining) => Self::Length { remaining },
            Framing::Chunked => Self::Chunked(ChunkDecoder::default()),
        }
    }

    /// Appends the content within `input` to `body`; answers how many bytes were used and whether
    /// the body is complete.
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        limits: &HttpLimits,
        body: &mut Vec<u8>,
    ) -> Result<(usize, bool), HandshakeError> {
        match self {
            Self::Length { remaining } => {
                let used = append(input, remaining, body);
                Ok((used, *remaining == 0))
            }
            Self::Chunked(chunks) => chunks.advance(input, limits, body),
        }
    }
}

/// Moves up to `remaining` bytes.
fn append(input: &[u8], remaining: &mut usize, body: &mut Vec<u8>) -> usize {
    let used = input.len().min(*remaining);
    #[cfg(test)]
    super::grammar::work::add(used);
    body.extend_from_slice(&input[..used]);
    *remaining -= used;
    used
}

/// Reads `chunked-body` (RFC 9112 §7.1), strictly: CRLF only, no white space around the size.
#[derive(Debug, Default)]
pub(super) struct ChunkDecoder {
    phase: ChunkPhase,
    /// The size that is being read.
    size: u64,
    /// The bytes of the chunk that are still to come.
    remaining: usize,
    /// The length of the size line so far.
    line: usize,
    /// Framing bytes beyond what honest chunking costs.
    excess: usize,
    trailer: FieldScan,
    trailer_size: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkPhase {
    #[default]
    SizeStart,
    Size,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataLineFeed,
    Trailer,
}

impl ChunkDecoder {
    fn advance(
        &mut self,
        input: &[u8],
        limits: &HttpLimits,
        body: &mut Vec<u8>,
    ) -> Result<(usize, bool), HandshakeError> {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            match self.phase {
                ChunkPhase::Data => {
                    used += append(&input[used..], &mut self.remaining, body);
                    if self.remaining == 0 {
                        self.phase = ChunkPhase::DataEnd;
                    }
                }
                ChunkPhase::Trailer => {
                    let (length, complete) = self.skip_trailer(&input[used..], limits)?;
                    used += length;
                    if complete {
                        return Ok((used, true));
                    }
                }
                _ => {
                    #[cfg(test)]
                    super::grammar::work::add(1);
                    self.phase = self.next_phase(byte, body.len(), limits)?;
                    used += 1;
                }
            }
        }
        Ok((used, false))
    }

    /// Judges one byte of the framing between the data.
    fn next_phase(
        &mut self,
        byte: u8,
        received: usize,
        limits: &HttpLimits,
    ) -> Result<ChunkPhase, HandshakeError> {
        match (self.phase, byte) {
            (ChunkPhase::SizeStart | ChunkPhase::Size, _) if byte.is_ascii_hexdigit() => {
                self.add_digit(byte)
            }
            (ChunkPhase::Size, b';') => self.add_to_line(ChunkPhase::Extension),
            (ChunkPhase::Size | ChunkPhase::Extension, b'\r') => Ok(ChunkPhase::SizeEnd),
            // RFC 9112 §7.1.1: "A recipient MUST ignore unrecognized chunk extensions. A server
            // ought to limit the total length of chunk extensions received in a request".
            (ChunkPhase::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.add_to_line(ChunkPhase::Extension)
            }
            (ChunkPhase::SizeEnd, b'\n') => self.begin_chunk(received, limits),
            (ChunkPhase::DataEnd, b'\r') => Ok(ChunkPhase::DataLineFeed),
            (ChunkPhase::DataLineFeed, b'\n') => Ok(ChunkPhase::SizeStart),
            // A bare LF, a bare CR, a sign, no digit at all, more data than the size said, or white
            // space after the size: §7.1.1 would have us skip it before an extension, but no client
            // sends it, and parsers that disagree about it have been played against each other.
            _ => Err(HandshakeError::BadChunk),
        }
    }

    /// RFC 9112 §7.1: "Recipients MUST anticipate potentially large hexadecimal numerals and
    /// prevent parsing errors due to integer conversion overflows".
    fn add_digit(&mut self, digit: u8) -> Result<ChunkPhase, HandshakeError> {
        let digit = char::from(digit)
            .to_digit(16)
            .ok_or(HandshakeError::BadChunk)?;
        self.size = self
            .size
            .checked_mul(16)
            .and_then(|size| size.checked_add(u64::from(digit)))
            .ok_or(HandshakeError::BadChunk)?;
        self.add_to_line(ChunkPhase::Size)
    }

    fn add_to_line(&mut self, next: ChunkPhase) -> Result<ChunkPhase, HandshakeError> {
        self.line += 1;
        if self.line > MAX_SIZE_LINE {
            return Err(HandshakeError::BadChunk);
        }
        Ok(next)
    }

    fn begin_chunk(
        &mut self,
        received: usize,
        limits: &HttpLimits,
    ) -> Result<ChunkPhase, HandshakeError> {
        let size = std::mem::take(&mut self.size);
        let line = std::mem::take(&mut self.line);
        if size == 0 {
            return Ok(ChunkPhase::Trailer);
        }
        let room = limits.max_body_size.saturating_sub(received);
        // RFC 9110 §15.5.14: "The server MAY terminate the request, if the protocol version in use
        // allows it; otherwise, the server MAY close the connection."
        self.remaining = usize::try_from(size)
            .ok()
            .filter(|&size| size <= room)
            .ok_or(HandshakeError::BodyTooLarge)?;
        self.charge(line)
    }

    /// Bounds what a client can make us read for each byte of content: long extensions on tiny
    /// chunks. Each chunk earns the allowance that honest framing needs.
    fn charge(&mut self, line: usize) -> Result<ChunkPhase, HandshakeError> {
        let allowance = HONEST_SIZE_LINE + self.remaining;
        self.excess = (self.excess + line).saturating_sub(allowance);
        if self.excess > MAX_EXCESS {
            return Err(HandshakeError::BadChunk);
        }
        Ok(ChunkPhase::Data)
    }

    /// RFC 9112 §7.1.2: "A recipient that removes the chunked coding from a message MAY selectively
    /// retain or discard the received trailer fields." They are checked like any field and
    /// discarded.
    fn skip_trailer(
        &mut self,
        input: &[u8],
        limits: &HttpLimits,
    ) -> Result<(usize, bool), HandshakeError> {
        let room = limits.max_head_size.saturating_sub(self.trailer_size);
        let window = &input[..input.len().min(room)];
        let (used, complete) = self.trailer.advance(window, limits)?;
        self.trailer_size += used;
        if !complete && self.trailer_size >= limits.max_head_size {
            return Err(HandshakeError::HeadTooLarge);
        }
        Ok((used, complete))
    }
}

/// Size and extensions of one chunk: no client in use sends more than a signature of some 80 bytes.
const MAX_SIZE_LINE: usize = 256;

/// Enough for the digits of any chunk.
const HONEST_SIZE_LINE: usize = 16;

/// Extension bytes over a whole body beyond one for each byte of content, as in a head.
const MAX_EXCESS: usize = 16 * 1024;
