//! Frame headers (RFC 6455 §5.2): bytes to [`FrameHeader`] and back.
//!
//! Judges what every frame must obey, whoever sent it. Knows nothing of payloads, of masking
//! (`mask`), of limits, extensions or roles (`connection`).

use super::error::ProtocolError;

/// What a frame is (RFC 6455 §5.2, §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0x0,
    /// The first or only fragment of a text message.
    Text = 0x1,
    /// The first or only fragment of a binary message.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// "Are you there?"
    Ping = 0x9,
    /// The answer to a Ping, or an unsolicited sign of life.
    Pong = 0xA,
}

impl Opcode {
    /// Close, Ping and Pong: never fragmented, at most 125 bytes, allowed between fragments (§5.5).
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }
}

/// The first 2 to 14 bytes of a frame.
///
/// ```
/// use stentor::protocol::{FrameHeader, Opcode};
///
/// // RFC 6455 §5.7: a masked "Hello".
/// let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// let (header, len) = FrameHeader::parse(&bytes)?.expect("the header is complete");
/// assert_eq!((header.opcode, header.payload_len, len), (Opcode::Text, 5, 6));
/// assert_eq!(FrameHeader::parse(&bytes[..5])?, None); // Not yet.
/// # Ok::<(), stentor::protocol::ProtocolError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether this is the last frame of its message.
    pub fin: bool,
    /// RSV1, RSV2 and RSV3 as bits 2, 1 and 0.
    pub rsv: u8,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, if the payload is masked.
    pub masking_key: Option<[u8; 4]>,
    /// The length of the payload in bytes, below 2^63.
    pub payload_len: u64,
}

impl FrameHeader {
    /// The longest header: two bytes, a 64-bit length and a masking key.
    pub const MAX_LEN: usize = 14;

    /// An unfragmented, unmasked frame: what a server sends.
    pub const fn unmasked(opcode: Opcode, payload_len: u64) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode,
            masking_key: None,
            payload_len,
        }
    }

    /// Reads the header at the start of `input`; answers it with its length in bytes, or `None`
    /// when more bytes are needed.
    ///
    /// # Errors
    ///
    /// A reserved opcode, a fragmented or long control frame, a length of 2^63 and more: as soon
    /// as the bytes at hand prove it.
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        // §5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the
        // WebSocket Connection_."
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(ProtocolError::ReservedOpcode)?;
        let fin = first & 0x80 != 0;
        // §5.5: control frames "MUST NOT be fragmented".
        if opcode.is_control() && !fin {
            return Err(ProtocolError::FragmentedControlFrame);
        }
        let Some(&second) = input.get(1) else {
            return Ok(None);
        };
        let short_len = second & 0x7F;
        // §5.5: "All control frames MUST have a payload length of 125 bytes or less".
        if opcode.is_control() && short_len > 125 {
            return Err(ProtocolError::ControlFrameTooLong);
        }
        let Some((payload_len, key_at)) = parse_length(short_len, &input[2..])? else {
            return Ok(None);
        };
        let masking_key = if second & 0x80 == 0 {
            None
        } else {
            let Some(key) = input[key_at..].first_chunk::<4>() else {
                return Ok(None);
            };
            Some(*key)
        };
        let header = Self {
            fin,
            rsv: first >> 4 & 0x7,
            opcode,
            masking_key,
            payload_len,
        };
        Ok(Some((
            header,
            key_at + if masking_key.is_some() { 4 } else { 0 },
        )))
    }

    /// Writes the header in its shortest form and answers how many of the bytes are used.
    pub fn to_bytes(&self) -> ([u8; Self::MAX_LEN], usize) {
        let mut bytes = [0; Self::MAX_LEN];
        bytes[0] = u8::from(self.fin) << 7 | (self.rsv & 0x7) << 4 | self.opcode as u8;
        let (short_len, mut len) = match self.payload_len {
            0..=125 => (self.payload_len as u8, 2),
            126..=0xFFFF => {
                bytes[2..4].copy_from_slice(&(self.payload_len as u16).to_be_bytes());
                (126, 4)
            }
            _ => {
                bytes[2..10].copy_from_slice(&self.payload_len.to_be_bytes());
                (127, 10)
            }
        };
        bytes[1] = short_len;
        if let Some(key) = self.masking_key {
            bytes[1] |= 0x80;
            bytes[len..len + 4].copy_from_slice(&key);
            len += 4;
        }
        (bytes, len)
    }

    /// Appends the header in its shortest form.
    #[inline]
    pub fn encode(&self, output: &mut Vec<u8>) {
        let (bytes, len) = self.to_bytes();
        output.extend_from_slice(&bytes[..len]);
    }

    /// How many bytes of header the bytes at hand still lack at the least; 0 when it is complete.
    pub(crate) fn missing(input: &[u8]) -> usize {
        let &[_, second, ..] = input else {
            return 2 - input.len();
        };
        let extended: usize = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let key = if second & 0x80 == 0 { 0 } else { 4 };
        (2 + extended + key).saturating_sub(input.len())
    }

    /// Whether a header of `len` bytes spells this payload length in the fewest bytes.
    pub(crate) fn is_minimal(&self, len: usize) -> bool {
        let extended = match self.payload_len {
            0..=125 => 0,
            126..=0xFFFF => 2,
            _ => 8,
        };
        len == 2 + extended + if self.masking_key.is_some() { 4 } else { 0 }
    }
}

/// The payload length, and where in the frame the bytes after it begin.
fn parse_length(short_len: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    Ok(match short_len {
        126 => rest
            .first_chunk()
            .map(|bytes| (u64::from(u16::from_be_bytes(*bytes)), 4)),
        127 => {
            // §5.2: "the most significant bit MUST be 0".
            if rest.first().is_some_and(|byte| byte & 0x80 != 0) {
                return Err(ProtocolError::LengthOverflow);
            }
            rest.first_chunk()
                .map(|bytes| (u64::from_be_bytes(*bytes), 10))
        }
        len => Some((u64::from(len), 2)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(opcode: Opcode, payload_len: u64, masking_key: Option<[u8; 4]>) -> FrameHeader {
        FrameHeader {
            fin: true,
            rsv: 0,
            opcode,
            masking_key,
            payload_len,
        }
    }

    #[test]
    fn every_length_round_trips_in_its_shortest_form() {
        for len in [
            0,
            1,
            124,
            125,
            126,
            127,
            128,
            65_535,
            65_536,
            65_537,
            1 << 32,
            (1 << 63) - 1,
        ] {
            for key in [None, Some([1, 2, 3, 4])] {
                let header = header(Opcode::Binary, len, key);
                let mut bytes = Vec::new();
                header.encode(&mut bytes);
                assert_eq!(FrameHeader::parse(&bytes), Ok(Some((header, bytes.len()))));
                assert!(header.is_minimal(bytes.len()));
                for cut in 0..bytes.len() {
                    assert_eq!(FrameHeader::parse(&bytes[..cut]), Ok(None), "cut at {cut}");
                    let missing = FrameHeader::missing(&bytes[..cut]);
                    assert!(
                        (1..=bytes.len() - cut).contains(&missing),
                        "cut at {cut}: {missing}"
                    );
                }
                assert_eq!(FrameHeader::missing(&bytes), 0);
            }
        }
    }

    #[test]
    fn rfc_examples_are_read() {
        // §5.7: an unmasked ping, 256 bytes of binary, 64 KiB of binary.
        let cases: [(&[u8], FrameHeader); 3] = [
            (&[0x89, 0x05], header(Opcode::Ping, 5, None)),
            (&[0x82, 0x7E, 0x01, 0x00], header(Opcode::Binary, 256, None)),
            (
                &[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0],
                header(Opcode::Binary, 65_536, None),
            ),
        ];
        for (bytes, header) in cases {
            assert_eq!(FrameHeader::parse(bytes), Ok(Some((header, bytes.len()))));
        }
    }

    #[test]
    fn reserved_opcodes_are_known_by_their_first_byte() {
        for bits in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
            assert_eq!(
                FrameHeader::parse(&[0x80 | bits]),
                Err(ProtocolError::ReservedOpcode)
            );
        }
    }

    #[test]
    fn control_frames_are_short_and_whole() {
        for opcode in [0x8, 0x9, 0xA] {
            let fragmented = FrameHeader::parse(&[opcode]);
            assert_eq!(fragmented, Err(ProtocolError::FragmentedControlFrame));
            for len in [126, 127] {
                let long = FrameHeader::parse(&[0x80 | opcode, 0x80 | len]);
                assert_eq!(long, Err(ProtocolError::ControlFrameTooLong));
            }
        }
    }

    #[test]
    fn a_length_with_its_highest_bit_set_is_refused_at_that_byte() {
        let parsed = FrameHeader::parse(&[0x82, 0xFF, 0x80]);
        assert_eq!(parsed, Err(ProtocolError::LengthOverflow));
    }

    #[test]
    fn a_longer_length_than_needed_is_not_minimal() {
        let cases: [&[u8]; 3] = [
            &[0x82, 126, 0, 125],
            &[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
            &[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1],
        ];
        for bytes in cases {
            let (header, len) = FrameHeader::parse(bytes).unwrap().unwrap();
            assert!(!header.is_minimal(len), "{bytes:?}");
        }
    }
}
