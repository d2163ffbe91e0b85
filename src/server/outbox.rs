//! What a peer has not taken yet: a short list of own and shared bytes, in the order of sending.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use super::transport::Transport;

/// Slices handed to the kernel in one call; Linux takes at most 1,024.
const MAX_SLICES: usize = 64;

/// Own bytes are gathered in chunks of at most about this size.
const CHUNK: usize = 64 << 10;

/// The memory of a chunk of at most this size is kept for the next one.
const KEPT: usize = 2 << 20;

/// Bytes that wait until the peer's socket takes more.
///
/// Invariant: `queued` is the sum of the lengths of the chunks, and no chunk is empty.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    queued: usize,
    /// The memory of a chunk that has left, for the next one.
    spare: Vec<u8>,
    /// The socket took less than was offered: an edge will tell when it takes more.
    is_stalled: bool,
    /// The payload of the latest Ping that is not answered: §5.5.3 allows to answer only that one.
    /// It is written when the outbox has drained, so a peer that never reads costs one Pong.
    pub(crate) pending_pong: Option<Box<[u8]>>,
}

#[derive(Debug)]
enum Chunk {
    /// Bytes of this peer alone, from `start` on.
    Own { bytes: Vec<u8>, start: usize },
    /// Part of a batch that other peers get as well.
    Shared {
        bytes: Arc<Vec<u8>>,
        range: Range<usize>,
    },
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Own { bytes, start } => &bytes[*start..],
            Self::Shared { bytes, range } => &bytes[range.clone()],
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Own { start, .. } => *start += count,
            Self::Shared { range, .. } => range.start += count,
        }
    }
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many bytes wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Whether the socket is full: offering it more is of no use before its edge.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// What is appended next is what the socket did not take.
    pub(crate) fn set_stalled(&mut self) {
        self.is_stalled = true;
    }

    /// Appends a copy of these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.with_tail(|tail| tail.extend_from_slice(bytes));
        }
    }

    /// Lets `write` append to the last chunk of own bytes.
    pub(crate) fn with_tail<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if !matches!(self.chunks.back(), Some(Chunk::Own { bytes, .. }) if bytes.len() < CHUNK) {
            let bytes = std::mem::take(&mut self.spare);
            self.chunks.push_back(Chunk::Own { bytes, start: 0 });
        }
        let Some(Chunk::Own { bytes, .. }) = self.chunks.back_mut() else {
            unreachable!("an own chunk was just made sure of")
        };
        let before = bytes.len();
        let answer = write(bytes);
        self.queued += bytes.len() - before;
        if bytes.is_empty() {
            self.chunks.pop_back();
        }
        self.assert_invariants();
        answer
    }

    /// Appends a reference to part of a shared batch.
    pub(crate) fn push_shared(&mut self, bytes: &Arc<Vec<u8>>, range: Range<usize>) {
        if !range.is_empty() {
            self.queued += range.len();
            self.chunks.push_back(Chunk::Shared {
                bytes: Arc::clone(bytes),
                range,
            });
            self.assert_invariants();
        }
    }

    /// Writes until nothing is left or the socket is full; answers how many bytes it took.
    pub(crate) fn flush(&mut self, transport: &Transport) -> io::Result<usize> {
        let mut written = 0;
        self.is_stalled = false;
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut offered = 0;
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk.as_slice());
                offered += slice.len();
                count += 1;
            }
            match transport.send_vectored(&slices[..count]) {
                Ok(taken) => {
                    written += taken;
                    self.consume(taken);
                    // A short write means that the socket is full: an edge will tell.
                    self.is_stalled = taken < offered;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_stalled = true,
                Err(error) => return Err(error),
            }
            if self.is_stalled {
                break;
            }
        }
        Ok(written)
    }

    fn consume(&mut self, mut count: usize) {
        self.queued -= count;
        while let Some(chunk) = self.chunks.front_mut() {
            let len = chunk.as_slice().len();
            if count < len {
                chunk.consume(count);
                break;
            }
            count -= len;
            if let Some(Chunk::Own { bytes, .. }) = self.chunks.pop_front() {
                self.keep(bytes);
            }
        }
        self.assert_invariants();
    }

    fn keep(&mut self, mut bytes: Vec<u8>) {
        if (self.spare.capacity()..=KEPT).contains(&bytes.capacity()) {
            bytes.clear();
            self.spare = bytes;
        }
    }

    /// Gives the memory of chunks that have left back to the allocator.
    pub(crate) fn shrink(&mut self) {
        self.spare = Vec::new();
    }

    /// Forgets everything that waits.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.queued = 0;
        self.is_stalled = false;
        self.pending_pong = None;
    }

    /// How much of what waits is a copy of this peer's own.
    #[cfg(test)]
    pub(crate) fn copied(&self) -> usize {
        let own = |chunk: &&Chunk| matches!(chunk, Chunk::Own { .. });
        let copied = self.chunks.iter().filter(own);
        copied.map(|chunk| chunk.as_slice().len()).sum()
    }

    /// Whether all that waits is the same memory that waits in the other outbox.
    #[cfg(test)]
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        let places = |outbox: &Self| -> Vec<*const u8> {
            let ends = |chunk: &Chunk| chunk.as_slice().as_ptr_range().end;
            outbox.chunks.iter().map(ends).collect()
        };
        places(self) == places(other)
    }

    fn assert_invariants(&self) {
        debug_assert_eq!(
            self.queued,
            self.chunks.iter().map(|c| c.as_slice().len()).sum()
        );
        debug_assert!(self.chunks.iter().all(|chunk| !chunk.as_slice().is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A transport and the blocking socket at its other end.
    fn pair() -> (Transport, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (
            Transport::Unix(mio::net::UnixStream::from_std(ours)),
            theirs,
        )
    }

    #[test]
    fn own_and_shared_bytes_leave_in_the_order_of_pushing() {
        let (transport, mut peer) = pair();
        let mut outbox = Outbox::default();
        let shared = Arc::new(b"0123456789".to_vec());
        outbox.push(b"a");
        outbox.push(b"b");
        outbox.push_shared(&shared, 2..5);
        outbox.push_shared(&shared, 5..5);
        outbox.push(b"c");
        assert_eq!(outbox.queued(), 6);
        assert_eq!(outbox.flush(&transport).unwrap(), 6);
        assert!(outbox.is_empty());
        assert_eq!(Arc::strong_count(&shared), 1);
        let mut bytes = [0; 6];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"ab234c");
    }

    #[test]
    fn a_full_socket_leaves_the_rest_in_the_outbox() {
        let (transport, mut peer) = pair();
        let mut outbox = Outbox::default();
        let mut sent = Vec::new();
        for index in 0..200_usize {
            let bytes = vec![index as u8; 10_000];
            sent.extend_from_slice(&bytes);
            match index % 2 {
                0 => outbox.push(&bytes),
                _ => outbox.push_shared(&Arc::new(bytes), 0..10_000),
            }
        }
        let written = outbox.flush(&transport).unwrap();
        assert!(0 < written && written < sent.len(), "{written}");
        assert_eq!(outbox.queued(), sent.len() - written);
        let mut received = vec![0; sent.len()];
        let mut start = 0;
        while start < received.len() {
            start += peer.read(&mut received[start..]).unwrap();
            outbox.flush(&transport).unwrap();
        }
        assert!(outbox.is_empty());
        assert!(received == sent);
    }

    #[test]
    fn writing_nothing_leaves_no_empty_chunk() {
        let mut outbox = Outbox::default();
        outbox.with_tail(|_| ());
        assert!(outbox.is_empty());
    }
}
