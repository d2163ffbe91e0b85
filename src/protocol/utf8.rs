//! UTF-8 validation of text messages (RFC 6455 §5.6, §8.1), incremental across chunks.
//!
//! A text message may be split anywhere, also within a code point. The validator carries the at
//! most three bytes of a code point that a chunk left unfinished, and looks at all the others once,
//! in bulk.

use std::error::Error;
use std::fmt;

/// Validates one text message that arrives in chunks, and fails at the first byte that no valid
/// text could have.
///
/// # Pitfall: one validator, one message
///
/// Once it failed, what a validator says about later chunks means nothing: §8.1 has the connection
/// fail, so that there is no next message either. After a complete message it stands as at the
/// start.
///
/// ```
/// use stentor::protocol::utf8::Utf8Validator;
///
/// let mut message = Utf8Validator::default();
/// message.push(b"\xce\xba\xe1\xbd")?; // kappa, and two of the three bytes of omicron with oxia
/// assert!(message.finish().is_err());
/// message.push(b"\xb9")?;
/// message.finish()?;
///
/// // The start of a surrogate: no third byte could make this valid.
/// assert!(message.push(b"\xed\xa0").is_err());
/// # Ok::<(), stentor::protocol::utf8::InvalidUtf8>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Validator {
    /// | carried | unused |     Invariant: `carried[..len]` begins some code point that is longer.
    carried: [u8; 3],
    len: u8,
}

impl Utf8Validator {
    /// Takes the next bytes of the message.
    ///
    /// # Errors
    ///
    /// If no valid UTF-8 begins with the bytes pushed so far; the message need not be complete to
    /// be known as wrong.
    #[inline]
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = self.complete_carried(chunk)?;
        let (whole, unfinished) = rest.split_at(rest.len() - unfinished_len(rest));
        simdutf8::basic::from_utf8(whole).map_err(|_| InvalidUtf8)?;
        self.carry(unfinished)
    }

    /// Takes the next `len` bytes of the message, all of which are known to be ASCII.
    ///
    /// Needs no look at the bytes: [`apply_mask_ascii`](super::mask::apply_mask_ascii) had one.
    ///
    /// # Errors
    ///
    /// If there is such a byte where a code point waits for its continuation.
    #[inline]
    pub fn push_ascii(&mut self, len: usize) -> Result<(), InvalidUtf8> {
        if len == 0 { Ok(()) } else { self.finish() }
    }

    /// Ends the message.
    ///
    /// # Errors
    ///
    /// If its last code point is incomplete.
    #[inline]
    pub fn finish(&self) -> Result<(), InvalidUtf8> {
        if self.is_boundary() {
            Ok(())
        } else {
            Err(InvalidUtf8)
        }
    }

    /// Whether the bytes so far end with a complete code point.
    #[inline]
    pub fn is_boundary(&self) -> bool {
        self.len == 0
    }

    /// Moves bytes from the chunk to the carried code point until it is complete, and answers those
    /// that are left.
    fn complete_carried<'c>(&mut self, chunk: &'c [u8]) -> Result<&'c [u8], InvalidUtf8> {
        let mut rest = chunk;
        while !self.is_boundary() {
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            self.push_byte(byte)?;
            rest = after;
        }
        Ok(rest)
    }

    fn carry(&mut self, unfinished: &[u8]) -> Result<(), InvalidUtf8> {
        unfinished.iter().try_for_each(|&byte| self.push_byte(byte))
    }

    /// Adds one byte to the carried code point, and forgets the code point if that completes it.
    fn push_byte(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        let position = usize::from(self.len);
        if !may_follow(&self.carried[..position], byte) {
            return Err(InvalidUtf8);
        }
        let lead = if position == 0 { byte } else { self.carried[0] };
        if position + 1 == width(lead) {
            self.len = 0;
        } else {
            self.carried[position] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Bytes that are not UTF-8.
///
/// §8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is
/// not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_." The
/// status code is 1007 (§7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

impl fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text is not valid UTF-8")
    }
}

impl Error for InvalidUtf8 {}

/// How many bytes at the end of `bytes` start a code point without completing it: at most three.
fn unfinished_len(bytes: &[u8]) -> usize {
    let is_lead = |byte: &u8| !matches!(byte, 0x80..=0xBF);
    // A lead further back has its code point complete, or is followed by one continuation too many.
    match bytes.iter().rev().take(3).position(is_lead) {
        Some(back) if back + 1 < width(bytes[bytes.len() - 1 - back]) => back + 1,
        _ => 0,
    }
}

/// How many bytes a code point has that starts with `lead`; of bytes that start none, it says one.
fn width(lead: u8) -> usize {
    match lead {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    }
}

/// Whether some code point begins with `start` and then `byte`, by the table of RFC 3629 §4.
fn may_follow(start: &[u8], byte: u8) -> bool {
    match start {
        [] => matches!(byte, 0x00..=0x7F | 0xC2..=0xF4),
        [0xE0] => matches!(byte, 0xA0..=0xBF), // Below: overlong.
        [0xED] => matches!(byte, 0x80..=0x9F), // Above: surrogates.
        [0xF0] => matches!(byte, 0x90..=0xBF), // Below: overlong.
        [0xF4] => matches!(byte, 0x80..=0x8F), // Above: past U+10FFFF.
        _ => matches!(byte, 0x80..=0xBF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::str;

    const TEXT: &str = "Stentor, Στέντωρ κόσμε, 五十人の声, \u{1f4e3}\u{10ffff}\u{0}\u{7f}\u{80}\u{7ff}\u{800}\
        \u{d7ff}\u{e000}\u{ffff}\u{10000}, und über allem: ça va, שלום, \u{1f469}\u{200d}\u{1f680}.";

    /// What the standard library says: a valid text, the start of one, or neither.
    #[derive(Debug, PartialEq)]
    enum Verdict {
        Valid,
        Incomplete,
        Invalid,
    }

    fn oracle(bytes: &[u8]) -> Verdict {
        match str::from_utf8(bytes) {
            Ok(_) => Verdict::Valid,
            Err(error) if error.error_len().is_none() => Verdict::Incomplete,
            Err(_) => Verdict::Invalid,
        }
    }

    fn verdict<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
        let mut validator = Utf8Validator::default();
        for chunk in chunks {
            if validator.push(chunk).is_err() {
                return Verdict::Invalid;
            }
        }
        assert_eq!(validator.is_boundary(), validator.finish().is_ok());
        if validator.is_boundary() {
            Verdict::Valid
        } else {
            Verdict::Incomplete
        }
    }

    /// In one chunk and byte by byte.
    fn assert_agrees(sequence: &[u8]) {
        let expected = oracle(sequence);
        assert_eq!(verdict([sequence]), expected, "{sequence:02x?}");
        assert_eq!(
            verdict(sequence.chunks(1)),
            expected,
            "{sequence:02x?} byte by byte"
        );
    }

    #[test]
    fn all_sequences_of_up_to_two_bytes_agree_with_the_standard_library() {
        for a in 0..=255 {
            assert_agrees(&[a]);
            for b in 0..=255 {
                assert_agrees(&[a, b]);
            }
        }
    }

    #[test]
    fn all_sequences_of_three_bytes_agree_with_the_standard_library() {
        for sequence in 0..1 << 24 {
            let [_, sequence @ ..] = u32::to_be_bytes(sequence);
            assert_agrees(&sequence);
        }
    }

    #[test]
    fn sequences_of_four_bytes_at_every_edge_agree_with_the_standard_library() {
        const EDGES: [u8; 24] = [
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0,
            0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF,
        ];
        for lead in 0..=255 {
            for b in EDGES {
                for c in EDGES {
                    for d in EDGES {
                        assert_agrees(&[lead, b, c, d]);
                    }
                }
            }
        }
    }

    #[test]
    fn multilingual_text_is_valid_however_it_is_split() {
        let text = TEXT.as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let chunks = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(
                    verdict(chunks),
                    Verdict::Valid,
                    "split at {first} and {second}"
                );
            }
        }
    }

    #[test]
    fn impossible_bytes_fail_as_soon_as_they_are_seen() {
        let hopeless: [&[u8]; 13] = [
            b"\x80",
            b"\xBF",
            b"\xC0",
            b"\xC1",
            b"\xF5",
            b"\xFF",
            b"\xE0\x80",
            b"\xED\xA0",
            b"\xF0\x8F",
            b"\xF4\x90",
            b"\xC3A",
            b"\xE1\x80A",
            b"\xF1\x80\x80A",
        ];
        for sequence in hopeless {
            for text in ["", "a", "κόσμε", TEXT] {
                let (last, start) = sequence.split_last().unwrap();
                let hopeful = [text.as_bytes(), start].concat();
                let mut validator = Utf8Validator::default();
                assert_eq!(
                    validator.push(&hopeful),
                    Ok(()),
                    "{start:02x?} could still become valid"
                );
                assert_eq!(
                    validator.push(&[*last]),
                    Err(InvalidUtf8),
                    "{sequence:02x?} in pieces"
                );
                assert_eq!(
                    verdict([&hopeful[..], &[*last]].concat().chunks(1 << 20)),
                    Verdict::Invalid
                );
            }
        }
    }

    #[test]
    fn ascii_is_an_error_only_within_a_code_point() {
        let mut validator = Utf8Validator::default();
        assert_eq!(validator.push_ascii(5), Ok(()));
        assert_eq!(validator.push("ε".as_bytes()), Ok(()));
        assert_eq!(validator.push_ascii(1), Ok(()));
        assert_eq!(validator.push(&"ε".as_bytes()[..1]), Ok(()));
        assert_eq!(validator.push_ascii(0), Ok(()));
        assert_eq!(validator.push_ascii(1), Err(InvalidUtf8));
    }

    #[test]
    fn validator_takes_four_bytes() {
        assert_eq!(size_of::<Utf8Validator>(), 4);
    }

    /// Mostly text, so that errors come late and after all sorts of beginnings.
    fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
        let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
        (any::<String>(), damage).prop_map(|(text, damage)| {
            let mut bytes = text.into_bytes();
            for (index, byte) in damage {
                if !bytes.is_empty() {
                    let at = index.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn random_bytes_in_random_pieces_agree_with_the_standard_library_after_each_piece(
            bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), nearly_text()],
            pieces in prop::collection::vec(0_usize..40, 0..20),
        ) {
            let mut validator = Utf8Validator::default();
            let mut done = 0;
            for piece in pieces.into_iter().chain([bytes.len()]) {
                let end = bytes.len().min(done + piece);
                let result = validator.push(&bytes[done..end]);
                done = end;

                let expected = oracle(&bytes[..done]);
                prop_assert_eq!(result.is_err(), expected == Verdict::Invalid);
                if result.is_err() {
                    break;
                }
                prop_assert_eq!(validator.is_boundary(), expected == Verdict::Valid);
            }
        }
    }
}
