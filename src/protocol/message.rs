//! Messages, and the buffer in which long and fragmented ones are put together (RFC 6455 §5.4).

use std::fmt;

use super::frame::Opcode;
use crate::mid_page;

/// Whether a message is text or binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl From<MessageKind> for Opcode {
    #[inline]
    fn from(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Text => Self::Text,
            MessageKind::Binary => Self::Binary,
        }
    }
}

/// One complete message, lent.
///
/// The bytes live in a receive buffer: a message outlives the call that lends it only if copied.
///
/// ```
/// use stentor::protocol::Message;
///
/// let message = Message::from("héllo");
/// assert!(message.is_text());
/// assert_eq!(message.payload().len(), 6);
/// assert_eq!(message.as_text(), Some("héllo"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    kind: MessageKind,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// A text message.
    pub const fn text(text: &'a str) -> Self {
        Self {
            kind: MessageKind::Text,
            payload: text.as_bytes(),
        }
    }

    /// A binary message.
    pub const fn binary(payload: &'a [u8]) -> Self {
        Self {
            kind: MessageKind::Binary,
            payload,
        }
    }

    /// A message whose payload is valid for its kind.
    #[inline]
    pub(crate) const fn from_parts(kind: MessageKind, payload: &'a [u8]) -> Self {
        Self { kind, payload }
    }

    /// Whether it is text or binary.
    #[inline]
    pub const fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Whether this is a text message.
    #[inline]
    pub const fn is_text(&self) -> bool {
        matches!(self.kind, MessageKind::Text)
    }

    /// The payload; of a text message its UTF-8 bytes.
    #[inline]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The text of a text message, `None` of a binary one.
    ///
    /// The bytes were checked on arrival; this looks at them once more (at several GB/s), which
    /// spares the library an unchecked conversion.
    pub fn as_text(&self) -> Option<&'a str> {
        match self.kind {
            MessageKind::Text => simdutf8::basic::from_utf8(self.payload).ok(),
            MessageKind::Binary => None,
        }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        Self::text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(payload: &'a [u8]) -> Self {
        Self::binary(payload)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    fn from(payload: &'a [u8; N]) -> Self {
        Self::binary(payload)
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    fn from(payload: &'a Vec<u8>) -> Self {
        Self::binary(payload)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_text() {
            Some(text) => f.debug_tuple("Text").field(&text).finish(),
            None => f.debug_tuple("Binary").field(&self.payload).finish(),
        }
    }
}

/// One contiguous buffer for a message that comes in several frames or several reads.
///
/// ```text
/// | lead | message so far | spare |     Invariant: start + len <= storage.len()
///        start            start + len
/// ```
///
/// It grows with the bytes that came and never with a length that was claimed: `storage.len()` is
/// at most twice the longest message so far and 4 KiB. Growth fills with zeros once; an `Assembly`
/// that is used again has warm memory and allocates nothing.
#[derive(Default)]
pub struct Assembly {
    storage: Vec<u8>,
    /// Where the message begins: anywhere in the first page of a large buffer, else 0.
    start: usize,
    len: usize,
}

impl Assembly {
    /// What a first read into an empty buffer may use before anything has come.
    const FIRST_SPARE: usize = 4096;

    /// A buffer of at most this size is worth keeping for the next long message.
    pub(crate) const KEPT: usize = 4 << 20;

    /// From this size on it matters where in a page a buffer begins (`mid_page`).
    const LARGE: usize = 64 << 10;

    /// An empty buffer, which owns no memory yet.
    pub const fn new() -> Self {
        Self {
            storage: Vec::new(),
            start: 0,
            len: 0,
        }
    }

    /// How many bytes of the message have come.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte of a message has come.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes of memory the buffer owns.
    pub fn capacity(&self) -> usize {
        self.storage.capacity()
    }

    /// The message so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.start..self.end()]
    }

    fn end(&self) -> usize {
        self.start + self.len
    }

    /// Forgets the message and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
        self.start = if self.storage.len() >= Self::LARGE {
            mid_page::lead(&self.storage)
        } else {
            0
        };
    }

    /// Whether the buffer is larger than it had become for this message alone: it was used before.
    pub(crate) fn is_oversized(&self) -> bool {
        self.storage.capacity() > 2 * self.len + Self::FIRST_SPARE
    }

    /// Gives back what the message does not need, so that one that was begun and is not continued
    /// costs no more than what came of it.
    pub(crate) fn shrink(&mut self) {
        if self.is_oversized() {
            let message = self.start..self.end();
            self.storage.copy_within(message, 0);
            self.start = 0;
            self.storage.truncate(self.len);
            self.storage.shrink_to_fit();
        }
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let len = self.len + bytes.len();
        if self.start + len > self.storage.len() {
            self.grow(len);
        }
        let end = self.end();
        self.storage[end..end + bytes.len()].copy_from_slice(bytes);
        self.len = len;
    }

    /// Room for at most `wanted` of the next bytes of the message, to be read into.
    pub(crate) fn spare(&mut self, wanted: usize) -> &mut [u8] {
        if self.end() == self.storage.len() {
            self.grow(self.len + self.len.max(Self::FIRST_SPARE).min(wanted));
        }
        let start = self.end();
        let end = self.storage.len().min(start.saturating_add(wanted));
        &mut self.storage[start..end]
    }

    /// `count` bytes were read into the spare part; lends them.
    pub(crate) fn advance(&mut self, count: usize) -> &mut [u8] {
        let start = self.end();
        assert!(
            count <= self.storage.len() - start,
            "more bytes than the spare part holds"
        );
        self.len += count;
        &mut self.storage[start..start + count]
    }

    /// Makes room for a message of `len` bytes.
    fn grow(&mut self, len: usize) {
        // Doubling keeps the copies linear; `reserve_exact` keeps the bound of the type's promise.
        let doubled = self.len.saturating_mul(2);
        let new_len = self.start + len.max(doubled.min(self.storage.len().saturating_mul(2)));
        self.storage.reserve_exact(new_len - self.storage.len());
        self.storage.resize(new_len, 0);
        debug_assert!(self.end() <= self.storage.len());
    }
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembly")
            .field("len", &self.len)
            .field("capacity", &self.storage.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assembly_grows_with_what_came_and_not_with_what_is_wanted() {
        let mut assembly = Assembly::new();
        assert_eq!(assembly.capacity(), 0);
        let mut received = 0;
        for step in [1, 7, 4096, 10_000, 1, 1, 100_000, 3] {
            assembly.extend(&vec![7; step]);
            received += step;
            assert!(assembly.capacity() <= 2 * received + 4096);
            let spare = assembly.spare(1 << 40).len();
            assert!(spare > 0);
            assert!(assembly.capacity() <= 2 * received + 4096);
        }
        assert_eq!(assembly.as_slice(), vec![7; received]);
    }

    #[test]
    fn a_used_assembly_keeps_its_memory() {
        let mut assembly = Assembly::new();
        assembly.extend(&vec![1; 50_000]);
        let capacity = assembly.capacity();
        assembly.clear();
        assembly.extend(&vec![2; 50_000]);
        assert_eq!((assembly.capacity(), assembly.len()), (capacity, 50_000));
    }

    #[test]
    fn a_large_used_assembly_begins_in_the_middle_of_a_page() {
        let mut assembly = Assembly::new();
        let message: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        let mut capacities = Vec::new();
        for round in 0..4 {
            assembly.clear();
            let begins = assembly.spare(1).as_ptr().addr() % 4096;
            assert!(round == 0 || begins == 2048, "{begins}");
            for part in message.chunks(70_001) {
                assembly.extend(part);
            }
            assert_eq!(assembly.as_slice(), message);
            assert!(assembly.capacity() <= 2 * message.len() + 4096);
            capacities.push(assembly.capacity());
        }
        assert_eq!(capacities[2], capacities[3]);
        assembly.clear();
        assembly.extend(b"short");
        assembly.shrink();
        assert_eq!(assembly.as_slice(), b"short");
        assert!(!assembly.is_oversized());
    }

    #[test]
    fn a_used_assembly_shrinks_to_the_message_that_it_holds() {
        let mut assembly = Assembly::new();
        assembly.extend(&vec![1; 50_000]);
        assembly.clear();
        assembly.extend(b"x");
        assert!(assembly.is_oversized());
        assembly.shrink();
        assert!(!assembly.is_oversized());
        assembly.extend(b"y");
        assert_eq!(assembly.as_slice(), b"xy");
    }

    #[test]
    fn spare_is_no_longer_than_wanted() {
        let mut assembly = Assembly::new();
        assembly.extend(&[0; 1000]);
        assert_eq!(assembly.spare(10).len(), 10);
        assembly.advance(10).fill(3);
        assert_eq!(assembly.len(), 1010);
        assert_eq!(assembly.as_slice()[1000..], [3; 10]);
    }
}
