//! Masking (RFC 6455 §5.3): XOR with a four-byte key, in place.
//!
//! Knows nothing of frames. A caller that meets a payload in several pieces says by `phase` how
//! many of its bytes came before. All of it is safe code: blocks of a fixed size are enough for the
//! compiler to make unaligned vector instructions of them.

/// The four bytes that a client draws at random for each frame, in the order of the wire.
pub type MaskingKey = [u8; 4];

/// XORs `payload` with `key` in place, the first byte with `key[phase % 4]`.
///
/// The same call masks and unmasks. A payload that arrives in pieces is unmasked piece by piece,
/// with the number of the bytes before the piece as `phase`.
///
/// ```
/// use stentor::protocol::mask::apply_mask;
///
/// // §5.7: a single-frame masked text message that contains "Hello".
/// let key = [0x37, 0xfa, 0x21, 0x3d];
/// let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// let (first, second) = payload.split_at_mut(2);
/// apply_mask(first, key, 0);
/// apply_mask(second, key, 2);
/// assert_eq!(&payload, b"Hello");
/// ```
#[inline]
pub fn apply_mask(payload: &mut [u8], key: MaskingKey, phase: usize) {
    xor(payload, rotated(key, phase));
}

/// Like [`apply_mask`], and answers whether every resulting byte is ASCII.
///
/// ASCII is valid UTF-8, so that most text needs no second pass for the validation that §8.1 asks
/// for.
///
/// ```
/// use stentor::protocol::mask::apply_mask_ascii;
///
/// let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// assert!(apply_mask_ascii(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0));
/// assert_eq!(&payload, b"Hello");
/// ```
#[inline]
pub fn apply_mask_ascii(payload: &mut [u8], key: MaskingKey, phase: usize) -> bool {
    xor(payload, rotated(key, phase)) & HIGH_BITS == 0
}

/// The key for a payload whose first `phase` bytes are done, as a little-endian number: its lowest
/// byte is next.
#[inline]
fn rotated(key: MaskingKey, phase: usize) -> u32 {
    // §5.3: "j = i MOD 4; transformed-octet-i = original-octet-i XOR masking-key-octet-j".
    u32::from_le_bytes(key).rotate_right(8 * (phase as u32 % 4))
}

/// XORs `payload` with `key` and answers the OR of the resulting bytes, spread over the lanes of a
/// word in no particular order.
#[expect(
    clippy::inline_always,
    reason = "only inlined does an ignored answer cost nothing"
)]
#[inline(always)]
fn xor(payload: &mut [u8], key: u32) -> u64 {
    if payload.len() <= SHORT {
        return xor_short(payload, key);
    }
    let (seen, rest) = xor_blocks::<64>(payload, key);
    let (seen_later, rest) = xor_blocks::<SHORT>(rest, key);
    seen | seen_later | xor_short(rest, key)
}

/// XORs as many whole blocks as there are, and hands back what is left. `BLOCK` is a multiple of
/// eight.
///
/// Bytes, not words, because LLVM keeps both arrays in vector registers then, at 16 bytes per
/// instruction of the x86-64 baseline; an OR over words would end up in scalar registers at half
/// the throughput.
#[inline]
fn xor_blocks<const BLOCK: usize>(payload: &mut [u8], key: u32) -> (u64, &mut [u8]) {
    let mut pattern = [0; BLOCK];
    pattern.as_chunks_mut().0.fill(key.to_le_bytes());
    let mut seen = [0; BLOCK];
    let (blocks, rest) = payload.as_chunks_mut::<BLOCK>();
    for block in blocks {
        for i in 0..BLOCK {
            block[i] ^= pattern[i];
            seen[i] |= block[i];
        }
    }
    let seen = seen
        .as_chunks()
        .0
        .iter()
        .fold(0, |seen, lanes| seen | u64::from_le_bytes(*lanes));
    (seen, rest)
}

/// XORs at most [`SHORT`] bytes without a loop.
///
/// Words laid from both ends overlap in the middle, so that three branches cover all lengths, and
/// messages whose lengths vary cost half the mispredictions of a tail that goes from words to
/// bytes.
#[inline]
fn xor_short(payload: &mut [u8], key: u32) -> u64 {
    let len = payload.len();
    let head = u64::from(key) * 0x1_0000_0001;
    let tail = head.rotate_right(8 * (len as u32 % 4));
    match len {
        0..4 => xor_bytes(payload, key),
        4..8 => xor_ends(payload, head as u32, tail as u32),
        8..16 => xor_words(payload, [(0, head), (len - 8, tail)]),
        _ => xor_words(
            payload,
            [(0, head), (8, head), (len - 16, tail), (len - 8, tail)],
        ),
    }
}

/// XORs the words at the given offsets. They may overlap: all of them are read before the first is
/// written.
#[inline]
fn xor_words<const N: usize>(payload: &mut [u8], words: [(usize, u64); N]) -> u64 {
    let words = words.map(|(at, key)| {
        let word = payload[at..]
            .first_chunk()
            .expect("the caller matched the length");
        (at, u64::from_le_bytes(*word) ^ key)
    });
    words.iter().fold(0, |seen, (at, word)| {
        payload[*at..at + 8].copy_from_slice(&word.to_le_bytes());
        seen | word
    })
}

/// XORs four to eight bytes: one half word from each end.
#[inline]
fn xor_ends(payload: &mut [u8], head: u32, tail: u32) -> u64 {
    let at = payload.len() - 4;
    let head = head
        ^ u32::from_le_bytes(
            *payload
                .first_chunk()
                .expect("the caller matched the length"),
        );
    let tail =
        tail ^ u32::from_le_bytes(*payload.last_chunk().expect("the caller matched the length"));
    payload[..4].copy_from_slice(&head.to_le_bytes());
    payload[at..].copy_from_slice(&tail.to_le_bytes());
    u64::from(head | tail)
}

/// XORs at most four bytes.
#[inline]
fn xor_bytes(payload: &mut [u8], key: u32) -> u64 {
    payload
        .iter_mut()
        .zip(key.to_le_bytes())
        .fold(0, |seen, (byte, key)| {
            *byte ^= key;
            seen | u64::from(*byte)
        })
}

/// What [`xor_short`] takes, and half of the large block: below it, setting up vectors costs more
/// than it saves.
const SHORT: usize = 32;

/// Set in no ASCII byte.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: MaskingKey = [0x37, 0xfa, 0x21, 0x8d];

    /// §5.3, word for word.
    fn masked_bytewise(payload: &[u8], key: MaskingKey, phase: usize) -> Vec<u8> {
        payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ key[(i + phase) % 4])
            .collect()
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| (i as u8).wrapping_mul(151) ^ 0x5a)
            .collect()
    }

    #[test]
    fn every_length_alignment_and_phase_agrees_with_the_bytewise_definition() {
        for len in 0..=256 {
            for offset in 0..16 {
                for phase in 0..4 {
                    let mut buffer = sample(offset + len + 16);
                    let original = buffer.clone();
                    let expected = masked_bytewise(&original[offset..offset + len], KEY, phase);

                    apply_mask(&mut buffer[offset..offset + len], KEY, phase);
                    assert_eq!(
                        &buffer[offset..offset + len],
                        expected,
                        "length {len} at {offset}, phase {phase}"
                    );
                    assert_eq!(
                        buffer[..offset],
                        original[..offset],
                        "bytes before the payload stay"
                    );
                    assert_eq!(
                        buffer[offset + len..],
                        original[offset + len..],
                        "bytes after the payload stay"
                    );
                }
            }
        }
    }

    #[test]
    fn one_high_byte_at_any_place_is_not_ascii() {
        for len in 0..=256 {
            let ascii: Vec<u8> = (0..len).map(|i| (i % 128) as u8).collect();
            let mut masked = masked_bytewise(&ascii, KEY, 3);
            assert!(apply_mask_ascii(&mut masked, KEY, 3), "length {len}");
            assert_eq!(masked, ascii);

            for high in 0..len {
                let mut text = ascii.clone();
                text[high] |= 0x80;
                let mut masked = masked_bytewise(&text, KEY, 3);
                assert!(
                    !apply_mask_ascii(&mut masked, KEY, 3),
                    "length {len}, byte {high}"
                );
                assert_eq!(masked, text);
            }
        }
    }

    #[test]
    fn phase_counts_modulo_four_up_to_the_largest() {
        for phase in [4, 7, 1 << 32, usize::MAX - 1, usize::MAX] {
            let mut payload = sample(40);
            let expected = masked_bytewise(&payload, KEY, phase % 4);
            apply_mask(&mut payload, KEY, phase);
            assert_eq!(payload, expected, "phase {phase}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_agrees_with_the_bytewise_definition(
            payload in prop::collection::vec(any::<u8>(), 0..2000), key: MaskingKey, phase in 0_usize..1 << 40,
        ) {
            let expected = masked_bytewise(&payload, key, phase);
            let mut masked = payload.clone();
            apply_mask(&mut masked, key, phase);
            prop_assert_eq!(&masked, &expected);

            let mut masked = payload;
            prop_assert_eq!(apply_mask_ascii(&mut masked, key, phase), expected.is_ascii());
            prop_assert_eq!(&masked, &expected);
        }

        #[test]
        fn masking_in_pieces_equals_masking_whole(
            payload in prop::collection::vec(any::<u8>(), 0..2000), key: MaskingKey, pieces in prop::collection::vec(0_usize..200, 0..30),
        ) {
            let expected = masked_bytewise(&payload, key, 0);
            let (mut masked, mut done) = (payload, 0_usize);
            for piece in pieces.into_iter().chain([usize::MAX]) {
                let end = masked.len().min(done.saturating_add(piece));
                apply_mask(&mut masked[done..end], key, done);
                done = end;
            }
            prop_assert_eq!(masked, expected);
        }
    }
}
