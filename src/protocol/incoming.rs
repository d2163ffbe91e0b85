//! Frames as they come in: what the connection is in the middle of, and what a step completes
//! (RFC 6455 §5).
//!
//! Judges each header by what may come now (`judge`) before anything is reserved, unmasks payloads
//! where they lie, and says by position what was found. Sends nothing and knows no states of the
//! connection.

use std::ops::Range;

use super::connection::{Role, Settings};
use super::error::ProtocolError;
use super::frame::{FrameHeader, Opcode};
use super::mask::{apply_mask, apply_mask_ascii};
use super::message::{Assembly, MessageKind};
use super::utf8::Utf8Validator;

/// Where in its frames the connection is.
#[derive(Debug, Default)]
pub(super) struct Frames {
    progress: Progress,
    /// The kind of the message whose fragments, or whose long only frame, are in the assembly.
    message: Option<MessageKind>,
    /// How many frames that message has so far.
    fragments: u32,
    /// Judges the text of the current message, chunk by chunk.
    utf8: Utf8Validator,
}

#[derive(Debug, Default)]
enum Progress {
    /// The next byte is the first of a frame.
    #[default]
    Boundary,
    /// An unfragmented frame waits in the caller's buffer; `unmasked` bytes of its payload are.
    InPlace {
        header: FrameHeader,
        header_len: u8,
        unmasked: u32,
    },
    /// The header is consumed; the payload moves to the assembly as it comes.
    Streaming(Stream),
}

#[derive(Debug)]
struct Stream {
    key: [u8; 4],
    fin: bool,
    /// How many bytes of the payload have come, modulo 4: the phase of the mask.
    phase: u8,
    remaining: u64,
}

impl Stream {
    fn remaining_usize(&self) -> usize {
        usize::try_from(self.remaining).unwrap_or(usize::MAX)
    }
}

/// What one step through the input found.
pub(super) enum Found {
    /// More bytes are needed.
    Nothing,
    /// A fragment that does not complete its message.
    Fragment,
    /// An unfragmented message, at this place in the input.
    Message(MessageKind, Range<usize>),
    /// The message in the assembly is complete.
    Assembled(MessageKind),
    /// A control frame, with its payload at this place in the input.
    Control(Opcode, Range<usize>),
}

impl Frames {
    /// Whether a message has begun and is not complete.
    pub(super) fn is_in_message(&self) -> bool {
        self.message.is_some()
    }

    /// How many bytes the payload lacks that moves to the assembly, if one does.
    pub(super) fn streaming(&self) -> Option<usize> {
        match &self.progress {
            Progress::Streaming(stream) => Some(stream.remaining_usize()),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn is_at_boundary(&self) -> bool {
        matches!(self.progress, Progress::Boundary) && self.message.is_none()
    }

    /// Reads at most one frame from `input`; answers how much of it was consumed.
    pub(super) fn step(
        &mut self,
        input: &mut [u8],
        assembly: &mut Assembly,
        settings: &Settings,
        role: Role,
    ) -> Result<(usize, Found), ProtocolError> {
        match &self.progress {
            Progress::Streaming(_) => self.stream(input, 0, assembly),
            &Progress::InPlace {
                header,
                header_len,
                unmasked,
            } => self.in_place(input, header, usize::from(header_len), unmasked as usize),
            Progress::Boundary => {
                let Some((header, header_len)) = FrameHeader::parse(input)? else {
                    return Ok((0, Found::Nothing));
                };
                self.judge(&header, header_len, assembly.len(), settings, role)?;
                self.begin(input, header, header_len, assembly, settings)
            }
        }
    }

    /// Everything that a header alone can be refused for, before anything is reserved for it.
    fn judge(
        &self,
        header: &FrameHeader,
        header_len: usize,
        assembled: usize,
        settings: &Settings,
        role: Role,
    ) -> Result<(), ProtocolError> {
        // §5.2: RSV1–3 "MUST be 0 unless an extension is negotiated that defines meanings".
        if header.rsv != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        match (role, header.masking_key) {
            // §5.1: "The server MUST close the connection upon receiving a frame that is not
            // masked."
            (Role::Server, None) => return Err(ProtocolError::UnmaskedFrame),
            // §5.1: "A client MUST close a connection if it detects a masked frame."
            (Role::Client, Some(_)) => return Err(ProtocolError::MaskedFrame),
            _ => {}
        }
        // §5.2: "in all cases, the minimal number of bytes MUST be used to encode the length".
        if !settings.accept_non_minimal_lengths && !header.is_minimal(header_len) {
            return Err(ProtocolError::NonMinimalLength);
        }
        if header.opcode.is_control() {
            return Ok(());
        }
        // §5.4: fragments of one message are not interleaved with those of another.
        let assembled = match (header.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (Opcode::Continuation, Some(_)) => assembled as u64,
            (_, Some(_)) => return Err(ProtocolError::ExpectedContinuation),
            (_, None) => 0,
        };
        // §10.4: an implementation "MUST protect itself from exceeding those limitations".
        let total = assembled.checked_add(header.payload_len);
        if total.is_none_or(|total| total > settings.max_message_size as u64) {
            return Err(ProtocolError::MessageTooBig);
        }
        if self.message.is_some() && self.fragments >= settings.max_fragments {
            return Err(ProtocolError::TooManyFragments);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        input: &mut [u8],
        header: FrameHeader,
        header_len: usize,
        assembly: &mut Assembly,
        settings: &Settings,
    ) -> Result<(usize, Found), ProtocolError> {
        if header.opcode.is_control() {
            return self.in_place(input, header, header_len, 0);
        }
        let frame_len = header.payload_len.saturating_add(header_len as u64);
        let fits = frame_len <= (input.len().max(settings.max_frame_in_place)) as u64;
        if header.opcode != Opcode::Continuation {
            self.utf8 = Utf8Validator::default();
            if header.fin && fits {
                return self.in_place(input, header, header_len, 0);
            }
            assembly.clear();
            self.fragments = 0;
            let is_text = header.opcode == Opcode::Text;
            self.message = Some(if is_text {
                MessageKind::Text
            } else {
                MessageKind::Binary
            });
        }
        self.fragments += 1;
        self.progress = Progress::Streaming(Stream {
            key: header.masking_key.unwrap_or_default(),
            fin: header.fin,
            phase: 0,
            remaining: header.payload_len,
        });
        self.stream(input, header_len, assembly)
    }

    /// Reads an unfragmented frame that is lent from the input once it is complete. What is
    /// there of it is unmasked and judged at once.
    fn in_place(
        &mut self,
        input: &mut [u8],
        header: FrameHeader,
        header_len: usize,
        unmasked: usize,
    ) -> Result<(usize, Found), ProtocolError> {
        let payload_len = header.payload_len as usize; // At most `input.len()` or 4 KiB: `begin`.
        let available = payload_len.min(input.len() - header_len);
        let key = header.masking_key.unwrap_or_default();
        let fresh = &mut input[header_len + unmasked..header_len + available];
        self.unmask(fresh, key, unmasked, header.opcode == Opcode::Text)?;
        if available < payload_len {
            let (header_len, unmasked) = (header_len as u8, available as u32);
            self.progress = Progress::InPlace {
                header,
                header_len,
                unmasked,
            };
            return Ok((0, Found::Nothing));
        }
        self.progress = Progress::Boundary;
        let range = header_len..header_len + payload_len;
        let found = match header.opcode {
            Opcode::Text => {
                self.utf8.finish().map_err(|_| ProtocolError::InvalidUtf8)?;
                Found::Message(MessageKind::Text, range.clone())
            }
            Opcode::Binary => Found::Message(MessageKind::Binary, range.clone()),
            control => Found::Control(control, range.clone()),
        };
        Ok((range.end, found))
    }

    /// Moves the payload bytes behind `start` from the input to the assembly.
    fn stream(
        &mut self,
        input: &mut [u8],
        start: usize,
        assembly: &mut Assembly,
    ) -> Result<(usize, Found), ProtocolError> {
        let Progress::Streaming(stream) = &mut self.progress else {
            unreachable!("the caller is in the middle of a payload")
        };
        let count = stream.remaining_usize().min(input.len() - start);
        let chunk = &mut input[start..start + count];
        let (key, phase) = (stream.key, usize::from(stream.phase));
        let is_text = self.message == Some(MessageKind::Text);
        self.unmask(chunk, key, phase, is_text)?;
        assembly.extend(chunk);
        let found = self.advance_stream(count)?;
        Ok((start + count, found))
    }

    /// The same for `count` bytes that were read into the assembly already.
    pub(super) fn stream_in_place(
        &mut self,
        count: usize,
        assembly: &mut Assembly,
    ) -> Result<Found, ProtocolError> {
        let Progress::Streaming(stream) = &mut self.progress else {
            return Ok(Found::Nothing);
        };
        assert!(
            count as u64 <= stream.remaining,
            "more bytes than the payload has left"
        );
        let chunk = assembly.advance(count);
        let (key, phase) = (stream.key, usize::from(stream.phase));
        let is_text = self.message == Some(MessageKind::Text);
        self.unmask(chunk, key, phase, is_text)?;
        self.advance_stream(count)
    }

    fn advance_stream(&mut self, count: usize) -> Result<Found, ProtocolError> {
        let Progress::Streaming(stream) = &mut self.progress else {
            unreachable!("the caller is in the middle of a payload")
        };
        stream.remaining -= count as u64;
        stream.phase = ((usize::from(stream.phase) + count) & 3) as u8;
        if stream.remaining > 0 {
            return Ok(Found::Nothing);
        }
        let fin = stream.fin;
        self.progress = Progress::Boundary;
        if !fin {
            return Ok(Found::Fragment);
        }
        let kind = self
            .message
            .take()
            .expect("a streamed payload belongs to a message");
        if kind == MessageKind::Text {
            self.utf8.finish().map_err(|_| ProtocolError::InvalidUtf8)?;
        }
        Ok(Found::Assembled(kind))
    }

    /// Unmasks a part of a payload, and judges it if it is text (§8.1): bytes that no UTF-8 text can hold fail
    /// the connection as soon as they are seen.
    #[inline]
    fn unmask(
        &mut self,
        part: &mut [u8],
        key: [u8; 4],
        phase: usize,
        is_text: bool,
    ) -> Result<(), ProtocolError> {
        if !is_text {
            apply_mask(part, key, phase);
            return Ok(());
        }
        let judged = if apply_mask_ascii(part, key, phase) {
            self.utf8.push_ascii(part.len())
        } else {
            self.utf8.push(part)
        };
        judged.map_err(|_| ProtocolError::InvalidUtf8)
    }

    pub(super) fn missing(&self, leftover: &[u8]) -> usize {
        match &self.progress {
            Progress::Streaming(stream) => stream.remaining_usize(),
            Progress::InPlace {
                header, header_len, ..
            } => usize::from(*header_len) + header.payload_len as usize - leftover.len(),
            Progress::Boundary => FrameHeader::missing(leftover),
        }
    }
}

/// A server's common case in one piece: if a whole, valid, unfragmented message of at most 125 bytes
/// is at the start of `input`, unmasks it and answers its kind and the place of its payload.
///
/// Anything else, an invalid message included, is left as it was to [`Frames::step`].
#[inline]
pub(super) fn short_message(
    input: &mut [u8],
    max_message_size: usize,
) -> Option<(MessageKind, Range<usize>)> {
    let &[
        first @ (0x81 | 0x82),
        second @ 0x80..=0xFD,
        k0,
        k1,
        k2,
        k3,
        ..,
    ] = &*input
    else {
        return None;
    };
    let len = usize::from(second & 0x7F);
    let range = 6..6 + len;
    if len > max_message_size {
        return None;
    }
    let payload = input.get_mut(range.clone())?;
    let key = [k0, k1, k2, k3];
    let is_ascii = apply_mask_ascii(payload, key, 0);
    if first == 0x82 {
        return Some((MessageKind::Binary, range));
    }
    if !is_ascii && simdutf8::basic::from_utf8(payload).is_err() {
        apply_mask(payload, key, 0); // Puts the mask back.
        return None;
    }
    Some((MessageKind::Text, range))
}

/// A client's common case: the same for messages that are not masked.
#[inline]
pub(super) fn short_unmasked_message(
    input: &[u8],
    max_message_size: usize,
) -> Option<(MessageKind, Range<usize>)> {
    let &[first @ (0x81 | 0x82), second @ 0..=0x7D, ..] = input else {
        return None;
    };
    let range = 2..2 + usize::from(second);
    if range.len() > max_message_size {
        return None;
    }
    let payload = input.get(range.clone())?;
    if first == 0x82 {
        return Some((MessageKind::Binary, range));
    }
    let text = simdutf8::basic::from_utf8(payload);
    text.is_ok().then_some((MessageKind::Text, range))
}
