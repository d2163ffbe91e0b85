//! What every message carries: who sent it, the how-manieth it is, and when; then filler that follows from these.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::time::{ClockId, clock_gettime};

/// The beginning of a payload.
///
/// ```text
/// | publisher and last | check | sequence | sent |      little-endian: 4, 4, 8 and 8 bytes
/// ```
///
/// The check follows from the rest: a stamp of which a byte has changed is never taken for another message's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The publisher's number among those of all processes.
    pub(super) publisher: u32,
    /// Whether this is the last message of its publisher.
    pub(super) is_last: bool,
    /// How many messages its publisher had sent before.
    pub(super) sequence: u64,
    /// When it was sent, or should have been, on the clock that all processes of a machine share.
    pub(super) sent: u64,
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which is the same for all processes.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Since boot: neither is ever below zero.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

const LAST: u32 = 1 << 31;

impl Stamp {
    /// The smallest payload.
    pub(super) const LEN: usize = 24;
    /// The smallest payload of text: each three bytes are four characters that no format has to escape.
    pub(super) const TEXT_LEN: usize = Self::LEN / 3 * 4;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let publisher = self.publisher | if self.is_last { LAST } else { 0 };
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&publisher.to_le_bytes());
        bytes[4..8].copy_from_slice(&check(publisher, self.sequence, self.sent).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..].copy_from_slice(&self.sent.to_le_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let word = |at| u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        let long = |at| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        let (publisher, sequence, sent) = (word(0), long(8), long(16));
        (word(4) == check(publisher, sequence, sent)).then_some(Stamp {
            publisher: publisher & !LAST,
            is_last: publisher & LAST != 0,
            sequence,
            sent,
        })
    }
}

/// Every bit of the stamp changes it: the multiplier is odd, so that no difference is lost on the way up.
fn check(publisher: u32, sequence: u64, sent: u64) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15; // 2⁶⁴ over the golden ratio: its bits have no pattern.
    let mixed = u64::from(publisher)
        .wrapping_mul(MULTIPLIER)
        .wrapping_add(sequence)
        .wrapping_mul(MULTIPLIER)
        .wrapping_add(sent)
        .wrapping_mul(MULTIPLIER);
    (mixed >> 32) as u32
}

/// Payloads of one length.
#[derive(Debug)]
pub(super) struct Payloads {
    is_text: bool,
    filler: usize,
    /// What fillers are cut from: of each sequence number at another place.
    pattern: Box<[u8]>,
}

/// Fillers begin at so many places of the pattern; a prime, so that no power of two of messages repeats one.
const PLACES: usize = 251;

impl Payloads {
    /// Of `size` bytes, no fewer than [`Stamp::LEN`].
    pub(super) fn new(size: usize) -> Self {
        let filler = size - Stamp::LEN;
        let mut pattern = vec![0; filler + PLACES];
        same_everywhere().fill(&mut pattern);
        Payloads {
            is_text: false,
            filler,
            pattern: pattern.into(),
        }
    }

    /// Of `size` letters, digits and the like, no fewer than [`Stamp::TEXT_LEN`].
    pub(super) fn text(size: usize) -> Self {
        let filler = size - Stamp::TEXT_LEN;
        let mut random = same_everywhere();
        let letters = (0..filler + PLACES).map(|_| random.alphanumeric() as u8);
        Payloads {
            is_text: true,
            filler,
            pattern: letters.collect(),
        }
    }

    /// Appends a payload.
    pub(super) fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let bytes = stamp.to_bytes();
        if self.is_text {
            let mut text = [0; Stamp::TEXT_LEN];
            URL_SAFE_NO_PAD
                .encode_slice(bytes, &mut text)
                .expect("the text of a stamp has its length");
            out.extend_from_slice(&text);
        } else {
            out.extend_from_slice(&bytes);
        }
        out.extend_from_slice(self.filler(stamp.sequence));
    }

    /// The stamp of a payload, unless the length is another or the stamp was changed.
    #[inline]
    pub(super) fn stamp(&self, payload: &[u8]) -> Option<Stamp> {
        let (stamp, filler) = payload.split_at_checked(self.stamp_len())?;
        if filler.len() != self.filler {
            return None;
        }
        if !self.is_text {
            return Stamp::of_bytes(stamp.first_chunk()?);
        }
        let mut bytes = [0; Stamp::LEN];
        URL_SAFE_NO_PAD.decode_slice(stamp, &mut bytes).ok()?;
        Stamp::of_bytes(&bytes)
    }

    /// Whether what follows the stamp is what was sent.
    pub(super) fn is_filled_right(&self, stamp: &Stamp, payload: &[u8]) -> bool {
        payload[self.stamp_len()..] == *self.filler(stamp.sequence)
    }

    const fn stamp_len(&self) -> usize {
        if self.is_text {
            Stamp::TEXT_LEN
        } else {
            Stamp::LEN
        }
    }

    fn filler(&self, sequence: u64) -> &[u8] {
        let place = (sequence % PLACES as u64) as usize;
        &self.pattern[place..place + self.filler]
    }
}

/// Chance that is the same in all processes.
fn same_everywhere() -> fastrand::Rng {
    fastrand::Rng::with_seed(PLACES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        publisher: 499,
        is_last: true,
        sequence: 1 << 40,
        sent: 987_654_321_012,
    };

    #[test]
    fn stamps_are_read_as_they_were_written() {
        for size in [24, 25, 64, 1024] {
            let (payloads, mut payload) = (Payloads::new(size), Vec::new());
            payloads.write(STAMP, &mut payload);
            assert_eq!(payload.len(), size);
            assert_eq!(payloads.stamp(&payload), Some(STAMP));
            assert!(payloads.is_filled_right(&STAMP, &payload));
            assert_eq!(payloads.stamp(&payload[..size - 1]), None);
        }
    }

    #[test]
    fn text_needs_no_escapes_and_is_read_as_it_was_written() {
        for size in [32, 33, 64, 1024] {
            let (payloads, mut payload) = (Payloads::text(size), Vec::new());
            payloads.write(STAMP, &mut payload);
            assert_eq!(payload.len(), size);
            let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
            assert!(payload.iter().all(is_plain));
            assert_eq!(payloads.stamp(&payload), Some(STAMP));
            assert!(payloads.is_filled_right(&STAMP, &payload));
            assert_eq!(payloads.stamp(&payload[..size - 1]), None);
        }
    }

    #[test]
    fn single_changed_character_is_noticed_wherever_it_is() {
        let (payloads, mut payload) = (Payloads::text(64), Vec::new());
        payloads.write(STAMP, &mut payload);
        for at in 0..64 {
            let right = std::mem::replace(&mut payload[at], b'=');
            assert_eq!(payloads.stamp(&payload).is_some(), at >= Stamp::TEXT_LEN);
            payload[at] = if right == b'a' { b'b' } else { b'a' };
            let stamp = payloads.stamp(&payload);
            assert_eq!(stamp.is_some(), at >= Stamp::TEXT_LEN, "character {at}");
            assert!(stamp.is_none_or(|stamp| !payloads.is_filled_right(&stamp, &payload)));
            payload[at] = right;
        }
    }

    #[test]
    fn single_changed_bit_is_noticed_wherever_it_is() {
        let (payloads, mut payload) = (Payloads::new(64), Vec::new());
        payloads.write(STAMP, &mut payload);
        for bit in 0..64 * 8 {
            payload[bit / 8] ^= 1 << (bit % 8);
            let stamp = payloads.stamp(&payload);
            assert_eq!(stamp.is_some(), bit / 8 >= Stamp::LEN, "bit {bit}");
            assert!(stamp.is_none_or(|stamp| !payloads.is_filled_right(&stamp, &payload)));
            payload[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn fillers_of_neighbours_differ() {
        let payloads = Payloads::new(64);
        assert_ne!(payloads.filler(7), payloads.filler(8));
        assert_eq!(Payloads::new(64).filler(7), payloads.filler(7));
    }
}
