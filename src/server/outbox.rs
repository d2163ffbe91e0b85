//! What a peer has not taken yet: a short list of own and shared bytes, in the order of sending.
//!
//! Which messages may be dropped, and when, is decided elsewhere; here is what it costs to do it. A
//! message that is dropped leaves its place empty, and empty places are cleared away once they are
//! the greater part; the search for the oldest goes on where the last one ended. So dropping the
//! oldest costs no more than pushing, whatever stands in front of it.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use super::frames::Frames;
use super::timer::Tick;
use super::transport::Transport;

/// Slices handed to the kernel in one call; Linux takes at most 1,024.
const MAX_SLICES: usize = 64;

/// Chunks looked at for one call: neighbours in memory leave as one slice, and so many of the
/// smallest messages are about what a socket takes at once.
const MAX_GATHERED: usize = 1024;

/// Own bytes are gathered in chunks of at most about this size.
const CHUNK: usize = 64 << 10;

/// The memory of a chunk of at most this size is kept for the next one.
const KEPT: usize = 2 << 20;

/// The list keeps the memory of so many chunks when it is cleared: what one call takes.
const KEPT_CHUNKS: usize = MAX_SLICES;

/// Bytes that wait until the peer's socket takes more.
///
/// Invariant: `queued` is the sum of the lengths of the chunks, `own` of those with own bytes;
/// `gone` counts the empty places, of which none is at the front and which are at most half of all.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    queued: usize,
    own: usize,
    gone: usize,
    /// How many places have left at the front: what a `Cursor` counts from.
    left: usize,
    /// One for each namespace of which messages were dropped.
    cursors: Vec<Cursor>,
    /// Of each lane with messages: the place of the newest, and how many there are.
    lanes: HashMap<u64, (usize, usize)>,
    /// The memory of a chunk that has left, for the next one.
    spare: Vec<u8>,
    /// The socket took less than was offered: an edge will tell when it takes more.
    is_stalled: bool,
    /// The payload of the latest Ping that is not answered: §5.5.3 allows to answer only that one.
    /// It is written when the outbox has drained, so a peer that never reads costs one Pong.
    pub(crate) pending_pong: Option<Box<[u8]>>,
    /// Places looked at in search of what may be dropped, and moved to clear empty ones away.
    #[cfg(test)]
    looked_at: usize,
}

/// What may be done to a queued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Droppable {
    /// Messages that are dropped by one rule.
    pub(crate) namespace: u16,
    /// Messages of one topic, of which only the latest counts; 0 where nobody conflates.
    pub(crate) lane: u64,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    lane: u64,
    /// Since when its first byte waits.
    since: Tick,
    /// Of a whole message that may be dropped.
    namespace: Option<u16>,
}

#[derive(Debug)]
enum Bytes {
    /// Bytes of this peer alone, from `start` on.
    Own { bytes: Vec<u8>, start: usize },
    /// Part of a batch that other peers get as well.
    Shared {
        bytes: Arc<Frames>,
        range: Range<usize>,
    },
    /// The place of a message that was dropped.
    Gone,
}

/// No message of this namespace that may be dropped waits in front of this place.
#[derive(Debug)]
struct Cursor {
    namespace: u16,
    place: usize,
}

impl Chunk {
    /// Bytes that may not be dropped.
    fn kept(bytes: Bytes, since: Tick) -> Self {
        Self {
            bytes,
            lane: 0,
            since,
            namespace: None,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.bytes, Bytes::Gone)
    }

    fn is_own(&self) -> bool {
        matches!(self.bytes, Bytes::Own { .. })
    }

    /// All of the memory that it refers to, and which part of it waits.
    fn memory(&self) -> (&[u8], Range<usize>) {
        match &self.bytes {
            Bytes::Own { bytes, start } => (bytes, *start..bytes.len()),
            Bytes::Shared { bytes, range } => (bytes, range.clone()),
            Bytes::Gone => (&[], 0..0),
        }
    }

    fn len(&self) -> usize {
        self.memory().1.len()
    }

    /// Whether it continues, in the same memory, where the other one ends.
    fn follows(&self, other: &Self) -> bool {
        match (&other.bytes, &self.bytes) {
            (
                Bytes::Shared { bytes, range },
                Bytes::Shared {
                    bytes: next_bytes,
                    range: next,
                },
            ) => Arc::ptr_eq(bytes, next_bytes) && range.end == next.start,
            _ => false,
        }
    }

    /// The kernel has taken so many bytes, but not all: without the rest the frame would be cut in
    /// the middle.
    fn begin(&mut self, count: usize) {
        match &mut self.bytes {
            Bytes::Own { start, .. } => *start += count,
            Bytes::Shared { range, .. } => range.start += count,
            Bytes::Gone => unreachable!("no empty place is at the front"),
        }
        self.namespace = None;
    }
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many bytes wait.
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// How much memory waits is counted for: that of a message is little where many are queued that
    /// are smaller than their entries.
    #[inline]
    pub(crate) fn cost(&self) -> usize {
        self.queued + (self.chunks.len() - self.gone) * size_of::<Chunk>()
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
    pub(crate) fn push(&mut self, bytes: &[u8], now: Tick) {
        if !bytes.is_empty() {
            self.with_tail(now, |tail| tail.extend_from_slice(bytes));
        }
    }

    /// Lets `write` append to the last chunk of own bytes.
    pub(crate) fn with_tail<T>(&mut self, now: Tick, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let last = self.chunks.back().map(|chunk| &chunk.bytes);
        if !matches!(last, Some(Bytes::Own { bytes, .. }) if bytes.len() < CHUNK) {
            let bytes = std::mem::take(&mut self.spare);
            let bytes = Bytes::Own { bytes, start: 0 };
            self.chunks.push_back(Chunk::kept(bytes, now));
        }
        let last = self.chunks.back_mut().map(|chunk| &mut chunk.bytes);
        let Some(Bytes::Own { bytes, .. }) = last else {
            unreachable!("an own chunk was just made sure of")
        };
        let before = bytes.len();
        let answer = write(bytes);
        let added = bytes.len() - before;
        self.queued += added;
        self.own += added;
        if bytes.is_empty() {
            self.chunks.pop_back();
        }
        self.assert_invariants();
        answer
    }

    /// Appends a reference to part of a shared batch, none of which may be dropped.
    pub(crate) fn push_shared(&mut self, bytes: &Arc<Frames>, range: Range<usize>, now: Tick) {
        self.append(bytes, range, |bytes| Chunk::kept(bytes, now));
    }

    fn append(
        &mut self,
        bytes: &Arc<Frames>,
        range: Range<usize>,
        chunk: impl FnOnce(Bytes) -> Chunk,
    ) {
        if !range.is_empty() {
            self.queued += range.len();
            let bytes = Arc::clone(bytes);
            self.chunks.push_back(chunk(Bytes::Shared { bytes, range }));
            self.assert_invariants();
        }
    }

    /// Writes until nothing is left or the socket is full; answers how many bytes it took.
    pub(crate) fn flush(&mut self, transport: &Transport) -> io::Result<usize> {
        self.flush_with(|slices| transport.send_vectored(slices))
    }

    fn flush_with(
        &mut self,
        mut send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut written = 0;
        self.is_stalled = false;
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.gather(&mut slices);
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            match send(&slices[..count]) {
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

    /// The front of what waits; answers how many slices it is. Neighbours in a batch are one slice.
    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.chunks.iter().filter(|chunk| !chunk.is_gone());
        let mut chunks = chunks.take(MAX_GATHERED).peekable();
        let mut count = 0;
        for slice in slices {
            let Some(mut last) = chunks.next() else {
                break;
            };
            let (memory, mut range) = last.memory();
            while let Some(next) = chunks.next_if(|next| next.follows(last)) {
                range.end += next.len();
                last = next;
            }
            *slice = IoSlice::new(&memory[range]);
            count += 1;
        }
        count
    }

    fn consume(&mut self, mut count: usize) {
        self.queued -= count;
        while count > 0
            && let Some(chunk) = self.chunks.front_mut()
        {
            let len = chunk.len();
            if chunk.is_own() {
                self.own -= len.min(count);
            }
            if count < len {
                chunk.begin(count);
                break;
            }
            count -= len;
            self.pop_front();
            self.clear_away();
        }
        self.assert_invariants();
    }

    fn pop_front(&mut self) {
        self.left += 1;
        let front = self.chunks.pop_front();
        self.leave_lane(front.as_ref().map_or(0, |chunk| chunk.lane));
        match front.map(|chunk| chunk.bytes) {
            Some(Bytes::Own { bytes, .. }) => self.keep(bytes),
            Some(Bytes::Gone) => self.gone -= 1,
            Some(Bytes::Shared { .. }) | None => {}
        }
    }

    fn leave_lane(&mut self, lane: u64) {
        if lane != 0
            && let Entry::Occupied(mut known) = self.lanes.entry(lane)
        {
            known.get_mut().1 -= 1;
            if known.get().1 == 0 {
                known.remove();
            }
        }
    }

    /// Notes the message at the end of the list.
    fn enter_lane(&mut self, lane: u64, place: usize) {
        if lane != 0 {
            let (newest, count) = self.lanes.entry(lane).or_default();
            (*newest, *count) = (place, *count + 1);
        }
    }

    fn keep(&mut self, mut bytes: Vec<u8>) {
        if (self.spare.capacity()..=KEPT).contains(&bytes.capacity()) {
            bytes.clear();
            self.spare = bytes;
        }
    }

    /// Removes the empty places at the front, and all once they are more than half: each was a
    /// message, so that a message pays for one move of one other.
    fn clear_away(&mut self) {
        while self.chunks.front().is_some_and(Chunk::is_gone) {
            self.pop_front();
        }
        if self.gone > self.chunks.len() / 2 {
            #[cfg(test)]
            {
                self.looked_at += self.chunks.len();
            }
            self.chunks.retain(|chunk| !chunk.is_gone());
            self.gone = 0;
            self.cursors.clear();
            self.lanes.clear();
            for index in 0..self.chunks.len() {
                self.enter_lane(self.chunks[index].lane, self.left + index);
            }
        }
    }

    /// Gives the memory of chunks that have left back to the allocator.
    pub(crate) fn shrink(&mut self) {
        self.spare = Vec::new();
    }

    /// Forgets everything that waits.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.chunks.shrink_to(KEPT_CHUNKS); // A backlog of small messages must not keep its memory.
        self.cursors.clear();
        self.lanes.clear();
        (self.queued, self.own, self.gone, self.left) = (0, 0, 0, 0);
        self.is_stalled = false;
        self.pending_pong = None;
    }

    /// Whether all that waits is the same memory that waits in the other outbox.
    #[cfg(test)]
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        let places = |outbox: &Self| -> Vec<*const u8> {
            let live = outbox.chunks.iter().filter(|chunk| !chunk.is_gone());
            let ends = live.map(|chunk| {
                let (memory, range) = chunk.memory();
                memory[range].as_ptr_range().end
            });
            ends.collect()
        };
        places(self) == places(other)
    }

    fn assert_invariants(&self) {
        /// Longer lists would make tests that fill them take quadratic time.
        const LONGEST: usize = 256;
        debug_assert!(self.gone <= self.chunks.len() / 2);
        debug_assert!(!self.chunks.front().is_some_and(Chunk::is_gone));
        if cfg!(debug_assertions) && self.chunks.len() <= LONGEST {
            let (mut queued, mut own, mut gone) = (0, 0, 0);
            for chunk in &self.chunks {
                queued += chunk.len();
                own += if chunk.is_own() { chunk.len() } else { 0 };
                gone += usize::from(chunk.is_gone());
                assert_eq!(chunk.len() == 0, chunk.is_gone());
            }
            assert_eq!((self.queued, self.own, self.gone), (queued, own, gone));
        }
    }
}

/// Messages that may be dropped. `now` never goes back from one push to the next.
impl Outbox {
    /// Appends a reference to exactly one message, or to what is left of it once it has `begun`:
    /// after part of it was given to the kernel the rest must follow.
    pub(crate) fn push_message(
        &mut self,
        bytes: &Arc<Frames>,
        range: Range<usize>,
        droppable: Droppable,
        begun: bool,
        now: Tick,
    ) {
        debug_assert!(!begun || self.is_empty(), "what has begun is in front");
        let is_empty = range.is_empty();
        self.append(bytes, range, |bytes| Chunk {
            bytes,
            lane: droppable.lane,
            since: now,
            namespace: (!begun).then_some(droppable.namespace),
        });
        let place = self.left + self.chunks.len();
        if let Some(last) = self.chunks.back()
            && !is_empty
        {
            self.enter_lane(last.lane, place - 1);
        }
    }

    /// Drops messages of this namespace, the oldest first, until at most `until` bytes wait or none
    /// is left that may be dropped.
    ///
    /// A message that is pushed and one that is dropped for it cost the same however many wait.
    pub(crate) fn drop_oldest(&mut self, namespace: u16, until: usize) -> Lost {
        let mut lost = Lost::default();
        while self.queued > until
            && let Some(index) = self.oldest_of(namespace)
        {
            self.lose(index, &mut lost);
        }
        self.clear_away();
        self.assert_invariants();
        lost
    }

    /// Drops the messages of this lane, of which a newer one comes; of lane 0 none.
    ///
    /// Who does this before each push has one message of a lane, which is found at once.
    pub(crate) fn conflate(&mut self, lane: u64) -> Lost {
        let mut lost = Lost::default();
        let Some(&(newest, count)) = self.lanes.get(&lane) else {
            return lost;
        };
        let newest = newest - self.left;
        let first = if count == 1 && self.chunks[newest].lane == lane {
            newest
        } else {
            0
        };
        for index in first..=newest {
            let chunk = &self.chunks[index];
            if chunk.lane == lane && chunk.namespace.is_some() {
                self.lose(index, &mut lost);
            }
        }
        self.clear_away();
        self.assert_invariants();
        lost
    }

    /// Drops the messages of this namespace that have waited since a tick before `before`.
    pub(crate) fn expire(&mut self, namespace: u16, before: Tick) -> Lost {
        let mut lost = Lost::default();
        while let Some(index) = self.oldest_of(namespace)
            && self.chunks[index].since < before
        {
            self.lose(index, &mut lost);
        }
        self.clear_away();
        self.assert_invariants();
        lost
    }

    /// Since when the first byte of what waits has been waiting.
    pub(crate) fn oldest(&self) -> Option<Tick> {
        self.chunks.front().map(|chunk| chunk.since)
    }

    /// How much of what waits is a copy of this peer's own.
    pub(crate) fn own(&self) -> usize {
        self.own
    }

    /// The first message of this namespace that may be dropped. The search goes on where the last
    /// one ended.
    fn oldest_of(&mut self, namespace: u16) -> Option<usize> {
        let known = self
            .cursors
            .iter()
            .position(|cursor| cursor.namespace == namespace);
        let known = known.unwrap_or_else(|| {
            let place = self.left;
            self.cursors.push(Cursor { namespace, place });
            self.cursors.len() - 1
        });
        let start = self.cursors[known].place.saturating_sub(self.left);
        let found = self
            .chunks
            .range(start..)
            .position(|chunk| chunk.namespace == Some(namespace));
        let passed = found.unwrap_or(self.chunks.len() - start);
        self.cursors[known].place = self.left + start + passed;
        #[cfg(test)]
        {
            self.looked_at += passed + 1;
        }
        found.map(|_| start + passed)
    }

    /// Leaves the place of a message empty.
    fn lose(&mut self, index: usize, lost: &mut Lost) {
        let chunk = &mut self.chunks[index];
        let (len, lane) = (chunk.len(), chunk.lane);
        *chunk = Chunk::kept(Bytes::Gone, chunk.since);
        self.leave_lane(lane);
        self.gone += 1;
        self.queued -= len;
        lost.messages += 1;
        lost.bytes += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::io::Read;

    fn frames(bytes: &[u8]) -> Arc<Frames> {
        Arc::new(Frames::from(bytes.to_vec()))
    }

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
        let shared = frames(b"0123456789");
        outbox.push(b"a", 1);
        outbox.push(b"b", 1);
        outbox.push_shared(&shared, 2..5, 1);
        outbox.push_shared(&shared, 5..5, 1);
        outbox.push(b"c", 1);
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
                0 => outbox.push(&bytes, 1),
                _ => outbox.push_shared(&frames(&bytes), 0..10_000, 1),
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
        outbox.with_tail(1, |_| ());
        assert!(outbox.is_empty());
    }

    const A: Droppable = Droppable {
        namespace: 1,
        lane: 0,
    };
    const B: Droppable = Droppable {
        namespace: 2,
        lane: 7,
    };

    /// One message of its own batch.
    fn push_message(outbox: &mut Outbox, text: &str, droppable: Droppable, now: Tick) {
        let bytes = frames(text.as_bytes());
        outbox.push_message(&bytes, 0..text.len(), droppable, false, now);
    }

    /// Lets the socket take so many bytes, in one call or several.
    fn take(outbox: &mut Outbox, mut budget: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        let send = |slices: &[IoSlice<'_>]| {
            let before = taken.len();
            for slice in slices {
                let part = &slice[..slice.len().min(budget)];
                taken.extend_from_slice(part);
                budget -= part.len();
            }
            match taken.len() - before {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        };
        let written = outbox.flush_with(send).unwrap();
        assert_eq!(written, taken.len());
        taken
    }

    fn take_all(outbox: &mut Outbox) -> String {
        let taken = take(outbox, usize::MAX);
        assert!(outbox.is_empty());
        assert_eq!((outbox.queued(), outbox.own(), outbox.gone), (0, 0, 0));
        String::from_utf8(taken).unwrap()
    }

    fn lost(messages: u64, bytes: u64) -> Lost {
        Lost { messages, bytes }
    }

    #[test]
    fn a_message_that_waits_is_small_beside_its_bytes() {
        assert_eq!(size_of::<Chunk>(), 48);
    }

    #[test]
    fn the_oldest_messages_of_the_namespace_are_dropped_first() {
        let mut outbox = Outbox::default();
        for (text, droppable) in [("a1 ", A), ("b1 ", B), ("a2 ", A), ("b2 ", B), ("a3 ", A)] {
            push_message(&mut outbox, text, droppable, 1);
        }
        assert_eq!(outbox.drop_oldest(A.namespace, 11), lost(2, 6));
        assert_eq!(outbox.queued(), 9);
        assert_eq!(outbox.drop_oldest(A.namespace, 9), Lost::default());
        assert_eq!(outbox.drop_oldest(3, 0), Lost::default());
        assert_eq!(take_all(&mut outbox), "b1 b2 a3 ");
    }

    #[test]
    fn a_message_that_has_begun_is_not_dropped() {
        let mut outbox = Outbox::default();
        push_message(&mut outbox, "first ", B, 1);
        push_message(&mut outbox, "second ", B, 1);
        assert_eq!(take(&mut outbox, 1), b"f");
        assert_eq!(outbox.drop_oldest(B.namespace, 0), lost(1, 7));
        assert_eq!(outbox.conflate(B.lane), Lost::default());
        assert_eq!(outbox.expire(B.namespace, Tick::MAX), Lost::default());
        assert_eq!(take_all(&mut outbox), "irst ");

        let bytes = frames(b"third");
        outbox.push_message(&bytes, 3..5, B, true, 1);
        assert_eq!(outbox.drop_oldest(B.namespace, 0), Lost::default());
        assert_eq!(take_all(&mut outbox), "rd");
    }

    #[test]
    fn a_message_behind_one_that_has_left_as_a_whole_has_not_begun() {
        let mut outbox = Outbox::default();
        push_message(&mut outbox, "first ", A, 1);
        push_message(&mut outbox, "second ", A, 1);
        assert_eq!(take(&mut outbox, 6), b"first ");
        assert_eq!(outbox.drop_oldest(A.namespace, 0), lost(1, 7));
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_is_the_peers_own_or_shared_for_good_is_not_dropped() {
        let mut outbox = Outbox::default();
        outbox.push(b"own ", 1);
        outbox.push_shared(&frames(b"shared "), 0..7, 1);
        push_message(&mut outbox, "message ", B, 1);
        outbox.push(b"more", 1);
        assert_eq!(outbox.own(), 8);
        assert_eq!(outbox.conflate(0), Lost::default());
        assert_eq!(outbox.drop_oldest(B.namespace, 0), lost(1, 8));
        assert_eq!(outbox.drop_oldest(0, 0), Lost::default());
        assert_eq!(outbox.expire(0, Tick::MAX), Lost::default());
        assert_eq!((outbox.own(), outbox.queued()), (8, 15));
        assert_eq!(take_all(&mut outbox), "own shared more");
    }

    #[test]
    fn of_a_lane_only_what_comes_next_remains() {
        let mut outbox = Outbox::default();
        for (text, lane) in [("x1 ", 8), ("y1 ", 9), ("x2 ", 8), ("free ", 0)] {
            push_message(&mut outbox, text, Droppable { namespace: 1, lane }, 1);
        }
        assert_eq!(outbox.conflate(8), lost(2, 6));
        assert_eq!(outbox.conflate(8), Lost::default());
        push_message(&mut outbox, "x3", B, 1);
        assert_eq!(take_all(&mut outbox), "y1 free x3");
    }

    #[test]
    fn what_has_waited_since_before_is_dropped() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.oldest(), None);
        push_message(&mut outbox, "a3 ", A, 3);
        push_message(&mut outbox, "b4 ", B, 4);
        push_message(&mut outbox, "a4 ", A, 4);
        push_message(&mut outbox, "a5 ", A, 5);
        assert_eq!(outbox.oldest(), Some(3));
        assert_eq!(outbox.expire(A.namespace, 3), Lost::default());
        assert_eq!(outbox.expire(A.namespace, 5), lost(2, 6));
        assert_eq!(outbox.oldest(), Some(4));
        assert_eq!(take_all(&mut outbox), "b4 a5 ");
    }

    #[test]
    fn own_bytes_wait_since_the_first_of_their_chunk_came() {
        let mut outbox = Outbox::default();
        outbox.push(b"early ", 2);
        outbox.push(b"late", 9);
        assert_eq!(outbox.oldest(), Some(2));
        assert_eq!(take(&mut outbox, 1), b"e");
        assert_eq!(outbox.oldest(), Some(2));
        assert_eq!(take_all(&mut outbox), "arly late");
        assert_eq!(outbox.oldest(), None);
    }

    #[test]
    fn a_message_that_is_dropped_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        outbox.push(b"in front", 1);
        let batch = frames(&[0; 100]);
        outbox.push_message(&batch, 0..50, A, false, 1);
        outbox.push_message(&batch, 50..100, A, false, 1);
        assert_eq!(Arc::strong_count(&batch), 3);
        outbox.drop_oldest(A.namespace, 60);
        assert_eq!(Arc::strong_count(&batch), 2);
        outbox.drop_oldest(A.namespace, 0);
        assert_eq!(Arc::strong_count(&batch), 1);
    }

    #[test]
    fn neighbours_in_a_batch_leave_as_one_slice() {
        let mut outbox = Outbox::default();
        let batch = frames(&(0..100).collect::<Vec<u8>>());
        for start in (0..100).step_by(10) {
            outbox.push_message(&batch, start..start + 10, A, false, 1);
        }
        outbox.push_message(&batch, 0..10, B, false, 1);
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        assert_eq!(outbox.gather(&mut slices), 2);
        assert!(*slices[0] == batch[..] && *slices[1] == batch[..10]);
        outbox.drop_oldest(A.namespace, 100);
        outbox.push_message(&frames(&[0; 10]), 0..10, A, false, 1);
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        assert_eq!(outbox.gather(&mut slices), 3);
        assert!(*slices[0] == batch[10..]);
    }

    /// What would be one slice for each of many thousand messages is still not looked at as a whole.
    #[test]
    fn one_call_looks_at_a_limited_number_of_messages() {
        let mut outbox = Outbox::default();
        let batch = frames(&vec![0; 3 * MAX_GATHERED]);
        for start in 0..batch.len() {
            outbox.push_message(&batch, start..start + 1, A, false, 1);
        }
        let mut calls = Vec::new();
        let send = |slices: &[IoSlice<'_>]| {
            calls.push(slices.iter().map(|slice| slice.len()).sum());
            Ok(*calls.last().unwrap())
        };
        outbox.flush_with(send).unwrap();
        assert_eq!(calls, [MAX_GATHERED; 3]);
    }

    #[test]
    fn in_a_steady_overload_a_message_costs_the_same_however_many_wait() {
        const ROUNDS: usize = 10_000;
        for waiting in [10, 2_000] {
            let mut outbox = Outbox::default();
            outbox.push(b"the peer takes nothing", 1);
            for _ in 0..waiting {
                push_message(&mut outbox, "other", B, 1);
            }
            for _ in 0..waiting {
                push_message(&mut outbox, "first", A, 1);
            }
            outbox.looked_at = 0;
            let full = outbox.queued();
            for _ in 0..ROUNDS {
                push_message(&mut outbox, "again", A, 1);
                assert_eq!(outbox.drop_oldest(A.namespace, full), lost(1, 5));
            }
            let looked_at = outbox.looked_at;
            assert!(looked_at < 10 * ROUNDS, "{waiting}: {looked_at}");
            assert!(outbox.chunks.len() <= 2 * (2 * waiting + 1) + 1);
        }
    }

    #[test]
    fn a_cleared_outbox_keeps_little_memory() {
        let mut outbox = Outbox::default();
        let batch = frames(&[0; 10_000]);
        for start in 0..batch.len() {
            outbox.push_message(&batch, start..start + 1, A, false, 1);
        }
        outbox.drop_oldest(A.namespace, 5_000);
        outbox.clear();
        assert!(outbox.chunks.capacity() <= 2 * KEPT_CHUNKS);
        assert_eq!(Arc::strong_count(&batch), 1);
        push_message(&mut outbox, "new", A, 1);
        assert_eq!(outbox.drop_oldest(A.namespace, 0), lost(1, 3));
    }

    // ---- against a list of whole messages ----

    /// What is done to the outbox; numbers of bytes are those of payloads.
    #[derive(Clone, Debug)]
    enum Step {
        Own(usize),
        Shared(usize),
        /// The messages of a turn, and how much of them the kernel takes if nothing is in front.
        Turn(Vec<(usize, Droppable)>, usize),
        DropOldest(u16, usize),
        Conflate(u64),
        Expire(u16, Tick),
        Take(usize),
        Wait(Tick),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let len = || prop_oneof![4 => 0..20_usize, 1 => 0..300_usize];
        let droppable =
            (0..3_u16, 0..4_u64).prop_map(|(namespace, lane)| Droppable { namespace, lane });
        let step = prop_oneof![
            2 => len().prop_map(Step::Own),
            1 => len().prop_map(Step::Shared),
            6 => (vec((len(), droppable), 1..5), 0..200_usize)
                .prop_map(|(messages, taken)| Step::Turn(messages, taken)),
            3 => (0..3_u16, 0..600_usize)
                .prop_map(|(namespace, until)| Step::DropOldest(namespace, until)),
            2 => (0..4_u64).prop_map(Step::Conflate),
            2 => (0..3_u16, 0..6_u32)
                .prop_map(|(namespace, age)| Step::Expire(namespace, age)),
            3 => (0..150_usize).prop_map(Step::Take),
            2 => (1..3_u32).prop_map(Step::Wait),
        ];
        vec(step, 1..120)
    }

    /// What waits of one message.
    #[derive(Debug)]
    struct Waiting {
        id: u32,
        rest: Vec<u8>,
        /// `None` of the peer's own and what is shared for good.
        droppable: Option<Droppable>,
        has_begun: bool,
        is_own: bool,
        since: Tick,
    }

    /// The outbox and the plainest list that does the same.
    #[derive(Default)]
    struct Pair {
        outbox: Outbox,
        model: VecDeque<Waiting>,
        received: Vec<u8>,
        lost: Vec<u32>,
        now: Tick,
        next_id: u32,
    }

    impl Pair {
        /// A message that says which one it is and how long; the model waits for it.
        fn message(&mut self, len: usize, droppable: Option<Droppable>, is_own: bool) -> Vec<u8> {
            let id = self.next_id;
            self.next_id += 1;
            let mut bytes = id.to_be_bytes().to_vec();
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
            bytes.resize(bytes.len() + len, id as u8);
            self.model.push_back(Waiting {
                id,
                rest: bytes.clone(),
                droppable,
                has_begun: false,
                is_own,
                since: self.now,
            });
            bytes
        }

        fn push_turn(&mut self, messages: &[(usize, Droppable)], taken: usize) {
            let taken = if self.outbox.is_empty() { taken } else { 0 };
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for &(len, droppable) in messages {
                bytes.extend(self.message(len, Some(droppable), false));
                ends.push(bytes.len());
            }
            let taken = taken.min(bytes.len());
            self.received.extend_from_slice(&bytes[..taken]);
            self.model_takes(taken);
            let (bytes, mut start) = (frames(&bytes), 0);
            for (&end, &(_, droppable)) in ends.iter().zip(messages) {
                let range = start.max(taken)..end.max(taken);
                let begun = (start + 1..end).contains(&taken);
                self.outbox
                    .push_message(&bytes, range, droppable, begun, self.now);
                start = end;
            }
        }

        fn model_takes(&mut self, mut count: usize) {
            while count > 0 {
                let front = self.model.front_mut().unwrap();
                let part = count.min(front.rest.len());
                front.rest.drain(..part);
                front.has_begun = true;
                count -= part;
                if front.rest.is_empty() {
                    self.model.pop_front();
                }
            }
        }

        /// Removes those messages from the model that may be dropped and that `is_lost` chooses, of
        /// how many bytes wait; compares with what the outbox reports.
        fn lose(&mut self, reported: Lost, is_lost: impl Fn(Droppable, Tick, usize) -> bool) {
            let mut expected = Lost::default();
            let mut queued: usize = self.model.iter().map(|waiting| waiting.rest.len()).sum();
            for waiting in std::mem::take(&mut self.model) {
                let Some(droppable) = waiting.droppable.filter(|_| !waiting.has_begun) else {
                    self.model.push_back(waiting);
                    continue;
                };
                if is_lost(droppable, waiting.since, queued) {
                    queued -= waiting.rest.len();
                    expected.messages += 1;
                    expected.bytes += waiting.rest.len() as u64;
                    self.lost.push(waiting.id);
                } else {
                    self.model.push_back(waiting);
                }
            }
            assert_eq!(reported, expected);
        }

        fn carry_out(&mut self, step: Step) {
            match step {
                Step::Own(len) => {
                    let bytes = self.message(len, None, true);
                    self.outbox.push(&bytes, self.now);
                }
                Step::Shared(len) => {
                    let bytes = frames(&self.message(len, None, false));
                    self.outbox.push_shared(&bytes, 0..bytes.len(), self.now);
                }
                Step::Turn(messages, taken) => self.push_turn(&messages, taken),
                Step::DropOldest(namespace, until) => {
                    let reported = self.outbox.drop_oldest(namespace, until);
                    self.lose(reported, |droppable, _, queued| {
                        droppable.namespace == namespace && queued > until
                    });
                }
                Step::Conflate(lane) => {
                    let reported = self.outbox.conflate(lane);
                    self.lose(reported, |droppable, _, _| {
                        lane != 0 && droppable.lane == lane
                    });
                }
                Step::Expire(namespace, age) => {
                    let before = self.now.saturating_sub(age);
                    let reported = self.outbox.expire(namespace, before);
                    self.lose(reported, |droppable, since, _| {
                        droppable.namespace == namespace && since < before
                    });
                }
                Step::Take(count) => {
                    let taken = take(&mut self.outbox, count);
                    self.model_takes(taken.len());
                    self.received.extend(taken);
                }
                Step::Wait(ticks) => self.now += ticks,
            }
        }

        fn compare(&self) {
            let (outbox, model) = (&self.outbox, &self.model);
            let sum = |is_counted: fn(&Waiting) -> bool| -> usize {
                let counted = model.iter().filter(|waiting| is_counted(waiting));
                counted.map(|waiting| waiting.rest.len()).sum()
            };
            assert_eq!(outbox.queued(), sum(|_| true));
            assert_eq!(outbox.own(), sum(|waiting| waiting.is_own));
            assert_eq!(outbox.is_empty(), model.is_empty());
            let front = outbox.chunks.front();
            if front.is_some_and(Chunk::is_own) {
                // It may have been with older ones, which have left, in one chunk.
                assert!(outbox.oldest() <= model.front().map(|waiting| waiting.since));
            } else {
                assert_eq!(outbox.oldest(), model.front().map(|waiting| waiting.since));
            }
        }

        /// The ids of what arrived, which is whole messages and nothing else.
        fn arrived(&self) -> Vec<u32> {
            let (mut ids, mut rest) = (Vec::new(), &self.received[..]);
            while !rest.is_empty() {
                let id = u32::from_be_bytes(rest[..4].try_into().unwrap());
                let len = usize::from(u16::from_be_bytes(rest[4..6].try_into().unwrap()));
                assert!(rest[6..6 + len].iter().all(|&byte| byte == id as u8));
                ids.push(id);
                rest = &rest[6 + len..];
            }
            ids
        }
    }

    proptest! {
        #[test]
        fn whole_messages_arrive_in_order_but_those_that_are_reported_lost(steps in steps()) {
            let mut pair = Pair::default();
            for step in steps {
                pair.carry_out(step);
                pair.compare();
            }
            pair.carry_out(Step::Take(usize::MAX));
            prop_assert!(pair.outbox.is_empty());
            let expected: Vec<u32> = (0..pair.next_id).filter(|id| !pair.lost.contains(id)).collect();
            prop_assert_eq!(pair.arrived(), expected);
        }
    }

    #[test]
    fn dropping_between_short_writes_leaves_whole_messages() {
        let (transport, mut peer) = pair();
        peer.set_nonblocking(true).unwrap();
        if let Transport::Unix(socket) = &transport {
            socket2::SockRef::from(socket)
                .set_send_buffer_size(4096)
                .unwrap();
        }
        let (mut outbox, mut received, mut lost) = (Outbox::default(), Vec::new(), 0);
        let mut part = [0; 700];
        for id in 0..500_u32 {
            let bytes = frames(&[id.to_be_bytes(); 250].concat());
            outbox.push_message(&bytes, 0..bytes.len(), A, false, id);
            outbox.flush(&transport).unwrap();
            lost += outbox.drop_oldest(A.namespace, 5_000).messages;
            if let Ok(count) = peer.read(&mut part) {
                received.extend_from_slice(&part[..count]);
            }
        }
        peer.set_nonblocking(false).unwrap();
        while !outbox.is_empty() {
            let count = peer.read(&mut part).unwrap();
            received.extend_from_slice(&part[..count]);
            outbox.flush(&transport).unwrap();
        }
        drop(transport);
        peer.read_to_end(&mut received).unwrap();
        let messages = received.chunks(1000);
        assert!(lost > 0);
        assert_eq!(messages.len() as u64, 500 - lost);
        let mut last = None;
        for message in messages {
            assert!(message.len() == 1000 && message.chunks(4).all(|id| id == &message[..4]));
            assert!(last < Some(&message[..4]));
            last = Some(&message[..4]);
        }
    }
}
