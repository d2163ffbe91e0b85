//! The preallocated ring buffer and its pool.
//!
//! A [`Ring`] holds what a connection could not finish: part of a request head, part of a frame. A
//! [`RingPool`] keeps the rings that are not in use, so that a connection owns one only while it
//! needs it. Neither knows what the bytes mean, nor where they come from.

use std::fmt;

/// A ring buffer of bytes whose capacity is a power of two.
///
/// What is readable and what is writable are at most two slices each, which is what a vectored read
/// or write takes. One promise is added to that: the first bytes can be had as one slice
/// ([`contiguous`](Self::contiguous)).
///
/// ```
/// use stentor::ring::Ring;
///
/// let mut ring = Ring::with_capacity(8);
/// assert_eq!(ring.extend_from_slice(b"GET / HTTP"), 8);
/// ring.consume(6);
/// assert_eq!(ring.extend_from_slice(b"TP"), 2);
/// assert_eq!(ring.readable(), (&b"HT"[..], &b"TP"[..]));
/// assert_eq!(ring.contiguous(4), b"HTTP");
/// ```
pub struct Ring {
    // | spare | readable | spare |   or   | readable | spare | readable |
    //         ^ start                                        ^ start
    //
    // Invariant: start < capacity, len <= capacity, and start == 0 if len == 0.
    storage: Box<[u8]>,
    start: u32,
    len: u32,
}

impl Ring {
    /// The largest capacity: the largest power of two that a `u32` can express.
    pub const MAX_CAPACITY: usize = 1 << 31;

    /// Makes an empty ring that holds at least `capacity` bytes: the next power of two.
    ///
    /// The memory comes zeroed from the allocator; pages that are never written stay untouched
    /// where it maps them on demand.
    ///
    /// # Panics
    ///
    /// If `capacity` exceeds [`Ring::MAX_CAPACITY`].
    pub fn with_capacity(capacity: usize) -> Self {
        assert!(
            capacity <= Self::MAX_CAPACITY,
            "a ring of {capacity} bytes is too large"
        );
        let ring = Self {
            storage: vec![0; capacity.next_power_of_two()].into_boxed_slice(),
            start: 0,
            len: 0,
        };
        ring.assert_invariants();
        ring
    }

    /// How many bytes fit in total.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.storage.len()
    }

    /// How many bytes are readable.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no byte is readable.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes can still be written.
    #[inline]
    pub fn spare_len(&self) -> usize {
        self.capacity() - self.len()
    }

    /// The readable bytes in their order; the second slice is empty unless they wrap.
    pub fn readable(&self) -> (&[u8], &[u8]) {
        let (wrapped, from_start) = self.storage.split_at(self.start());
        match self.len().checked_sub(from_start.len()) {
            Some(wrapped_len) => (from_start, &wrapped[..wrapped_len]),
            None => (&from_start[..self.len()], &[]),
        }
    }

    /// The spare bytes in the order in which they are to be written; the second slice is empty
    /// unless they wrap.
    ///
    /// They hold old bytes, perhaps of another connection: write first, then
    /// [`advance`](Self::advance).
    pub fn writable(&mut self) -> (&mut [u8], &mut [u8]) {
        let (start, len, capacity) = (self.start(), self.len(), self.capacity());
        if let Some(end) = (start + len).checked_sub(capacity) {
            return (&mut self.storage[end..start], &mut []);
        }
        let (before, from_end) = self.storage.split_at_mut(start + len);
        (from_end, &mut before[..start])
    }

    /// Makes the first `n` spare bytes readable, after they were written.
    ///
    /// # Panics
    ///
    /// If there are fewer than `n` spare bytes.
    pub fn advance(&mut self, n: usize) {
        assert!(
            n <= self.spare_len(),
            "advanced by {n} bytes, of which {} are spare",
            self.spare_len()
        );
        self.len += n as u32;
        self.assert_invariants();
    }

    /// Appends as much of `bytes` as fits, and answers how much that was.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> usize {
        let fitting = &bytes[..bytes.len().min(self.spare_len())];
        let (first, second) = self.writable();
        let (head, tail) = fitting.split_at(fitting.len().min(first.len()));
        first[..head.len()].copy_from_slice(head);
        second[..tail.len()].copy_from_slice(tail);
        self.advance(fitting.len());
        fitting.len()
    }

    /// The first `n` readable bytes as one slice.
    ///
    /// # Cost
    ///
    /// Nothing, unless these bytes wrap: then the whole storage is rotated. Between two rotations
    /// more than `capacity` bytes are consumed, provided that a caller consumes what it asked for;
    /// so the cost per byte is constant, whatever a peer sends.
    ///
    /// # Panics
    ///
    /// If fewer than `n` bytes are readable.
    pub fn contiguous(&mut self, n: usize) -> &mut [u8] {
        assert!(
            n <= self.len(),
            "asked for {n} bytes, of which {} are readable",
            self.len
        );
        if self.start() + n > self.capacity() {
            self.storage.rotate_left(self.start as usize);
            self.start = 0;
            self.assert_invariants();
        }
        let start = self.start();
        &mut self.storage[start..start + n]
    }

    /// Drops the first `n` readable bytes.
    ///
    /// # Panics
    ///
    /// If fewer than `n` bytes are readable.
    pub fn consume(&mut self, n: usize) {
        assert!(
            n <= self.len(),
            "consumed {n} bytes, of which {} are readable",
            self.len
        );
        self.len -= n as u32;
        // Starting over while there is nothing to move keeps most rings from ever wrapping.
        self.start = if self.is_empty() {
            0
        } else {
            ((self.start() + n) & (self.capacity() - 1)) as u32
        };
        self.assert_invariants();
    }

    /// Drops all readable bytes.
    pub fn clear(&mut self) {
        self.consume(self.len());
    }

    #[inline]
    fn start(&self) -> usize {
        self.start as usize
    }

    fn assert_invariants(&self) {
        debug_assert!(self.capacity().is_power_of_two());
        debug_assert!(self.start() < self.capacity());
        debug_assert!(self.len() <= self.capacity());
        debug_assert!(self.start == 0 || self.len > 0);
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they are a peer's.
        f.debug_struct("Ring")
            .field("capacity", &self.capacity())
            .field("start", &self.start)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Rings that are not in use, by capacity: 2 KiB, 4 KiB, and so on up to the largest class.
///
/// # Memory
///
/// A ring is allocated when it is first needed, and kept from then on, so that a steady load never
/// meets the allocator. Making the pool touches no page. Allocating its rings in advance would
/// touch all of them, because an allocator writes a header in front of each: a page of resident
/// memory for every two rings for a ring that may never hold a byte.
///
/// What is kept is bounded, so that a burst (ten thousand request heads that arrive by halves) does
/// not become the size of the process forever. At the bound, larger idle rings are freed in favour
/// of smaller ones, which serve more connections.
///
/// ```
/// use stentor::ring::RingPool;
///
/// let mut pool = RingPool::new(64);
/// let mut ring = pool.take();
/// while ring.extend_from_slice(b"part of a request head") > 0 {}
/// let ring = pool.grow(ring);
/// assert_eq!((ring.capacity(), ring.len()), (2048, 2048));
/// pool.put(ring);
/// ```
#[derive(Debug)]
pub struct RingPool {
    /// By class: `idle[i]` holds empty rings of `SMALLEST << i` bytes.
    idle: Box<[Vec<Ring>]>,
    /// Invariant: `retained <= bound`, and `retained` is the sum of the capacities of all idle
    /// rings.
    retained: usize,
    bound: usize,
}

impl RingPool {
    /// The capacity of the smallest class, and of most rings: more than a request head of a browser
    /// takes, and little enough that a peer which sends single bytes cannot make it matter.
    pub const SMALLEST: usize = 2 * 1024;

    /// The capacity of the largest class unless told otherwise: a request head at its limit of 16
    /// KiB, with as much again in the same read.
    pub const DEFAULT_LARGEST: usize = 32 * 1024;

    /// Makes a pool that keeps as many bytes as `preallocated` rings of the smallest class have.
    pub fn new(preallocated: usize) -> Self {
        Self::with_largest(preallocated, Self::DEFAULT_LARGEST)
    }

    /// Like [`new`](Self::new), with the capacity of the largest class: the next power of two from
    /// `largest`.
    ///
    /// # Panics
    ///
    /// If `largest` exceeds [`Ring::MAX_CAPACITY`].
    pub fn with_largest(preallocated: usize, largest: usize) -> Self {
        assert!(
            largest <= Ring::MAX_CAPACITY,
            "rings of {largest} bytes are too large"
        );
        let classes =
            1 + largest.next_power_of_two().max(Self::SMALLEST).ilog2() - Self::SMALLEST.ilog2();
        let idle = (0..classes).map(|_| Vec::new()).collect();
        Self {
            idle,
            retained: 0,
            bound: preallocated.saturating_mul(Self::SMALLEST),
        }
    }

    /// The capacity of the largest class.
    ///
    /// Larger rings work, but are freed after use: a caller that gets here should put its bytes
    /// somewhere else.
    pub fn largest(&self) -> usize {
        Self::SMALLEST << (self.idle.len() - 1)
    }

    /// How many bytes the idle rings hold.
    pub fn retained(&self) -> usize {
        self.retained
    }

    /// An empty ring of the smallest class.
    pub fn take(&mut self) -> Ring {
        self.take_with_capacity(Self::SMALLEST)
    }

    /// An empty ring of at least `capacity` bytes: the next power of two, and no less than the
    /// smallest class.
    ///
    /// # Panics
    ///
    /// If `capacity` exceeds [`Ring::MAX_CAPACITY`].
    pub fn take_with_capacity(&mut self, capacity: usize) -> Ring {
        assert!(
            capacity <= Ring::MAX_CAPACITY,
            "a ring of {capacity} bytes is too large"
        );
        let capacity = capacity.next_power_of_two().max(Self::SMALLEST);
        // The ring that was put back last: its pages are the likeliest to be cached.
        match self
            .class(capacity)
            .and_then(|class| self.idle[class].pop())
        {
            Some(ring) => {
                self.retained -= ring.capacity();
                self.assert_invariants();
                ring
            }
            None => Ring::with_capacity(capacity),
        }
    }

    /// A ring of twice the capacity with the same contents; the old one goes back to the pool.
    ///
    /// # Panics
    ///
    /// If twice the capacity exceeds [`Ring::MAX_CAPACITY`].
    pub fn grow(&mut self, ring: Ring) -> Ring {
        let mut grown = self.take_with_capacity(2 * ring.capacity());
        let (first, second) = ring.readable();
        grown.extend_from_slice(first);
        grown.extend_from_slice(second);
        self.put(ring);
        grown
    }

    /// Takes a ring back, whatever it holds, to keep it or free it.
    pub fn put(&mut self, mut ring: Ring) {
        let Some(class) = self.class(ring.capacity()) else {
            return;
        };
        self.make_room(class);
        if self.retained + ring.capacity() <= self.bound {
            ring.clear();
            self.retained += ring.capacity();
            self.idle[class].push(ring);
        }
        self.assert_invariants();
    }

    /// Frees rings of larger classes, the largest first, until one of this class fits or none is
    /// left.
    fn make_room(&mut self, class: usize) {
        let limit = self.bound.saturating_sub(Self::SMALLEST << class);
        for larger in self.idle[class + 1..].iter_mut().rev() {
            while self.retained > limit
                && let Some(freed) = larger.pop()
            {
                self.retained -= freed.capacity();
            }
        }
    }

    /// The class of exactly this capacity.
    fn class(&self, capacity: usize) -> Option<usize> {
        let class = capacity.ilog2().checked_sub(Self::SMALLEST.ilog2())? as usize;
        (class < self.idle.len()).then_some(class)
    }

    fn assert_invariants(&self) {
        debug_assert!(self.retained <= self.bound);
        let idle = self.idle.iter().enumerate();
        let sum = idle
            .map(|(class, rings)| rings.len() * (Self::SMALLEST << class))
            .sum::<usize>();
        debug_assert_eq!(self.retained, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Extend(Vec<u8>),
        WriteInPlace { byte: u8, len: usize },
        Contiguous(usize),
        Consume(usize),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Extend),
            4 => (any::<u8>(), 0_usize..40).prop_map(|(byte, len)| Step::WriteInPlace { byte, len }),
            3 => (0_usize..40).prop_map(Step::Contiguous),
            6 => (0_usize..40).prop_map(Step::Consume),
            1 => Just(Step::Clear),
        ];
        prop::collection::vec(step, 0..100)
    }

    fn contents(ring: &Ring) -> Vec<u8> {
        let (first, second) = ring.readable();
        [first, second].concat()
    }

    /// Does the step to both; what the model has room for is the caller's arithmetic.
    fn perform(step: &Step, ring: &mut Ring, model: &mut VecDeque<u8>) {
        let spare = ring.capacity() - model.len();
        match *step {
            Step::Extend(ref bytes) => {
                let fitting = &bytes[..bytes.len().min(spare)];
                assert_eq!(ring.extend_from_slice(bytes), fitting.len());
                model.extend(fitting);
            }
            Step::WriteInPlace { byte, len } => {
                let len = len.min(spare);
                let (first, second) = ring.writable();
                let bytes = (0..len).map(|i| byte.wrapping_add(i as u8));
                first
                    .iter_mut()
                    .chain(second)
                    .zip(bytes.clone())
                    .for_each(|(to, from)| *to = from);
                ring.advance(len);
                model.extend(bytes);
            }
            Step::Contiguous(n) => {
                let n = n.min(model.len());
                let slice = ring.contiguous(n);
                assert!(slice.iter().eq(model.iter().take(n)));
                for byte in slice {
                    *byte ^= 0x55;
                }
                for byte in model.iter_mut().take(n) {
                    *byte ^= 0x55;
                }
            }
            Step::Consume(n) => {
                let n = n.min(model.len());
                ring.consume(n);
                model.drain(..n);
            }
            Step::Clear => {
                ring.clear();
                model.clear();
            }
        }
    }

    proptest! {
        #[test]
        fn ring_behaves_as_a_deque_with_a_capacity(capacity in 0_usize..70, steps in steps()) {
            let mut ring = Ring::with_capacity(capacity);
            prop_assert!(ring.capacity() >= capacity && ring.capacity().is_power_of_two());
            let mut model = VecDeque::new();
            for step in &steps {
                perform(step, &mut ring, &mut model);

                prop_assert!(contents(&ring).iter().eq(&model), "after {:?}", step);
                prop_assert_eq!((ring.len(), ring.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(ring.spare_len(), ring.capacity() - model.len());
                let spare_len = ring.spare_len();
                let (first, second) = ring.writable();
                prop_assert_eq!(first.len() + second.len(), spare_len);
            }
        }

        #[test]
        fn growing_keeps_contents_however_they_lie(consumed in 0_usize..2048, added in 0_usize..2048) {
            let mut pool = RingPool::new(4);
            let mut ring = pool.take();
            ring.extend_from_slice(&[0; 2048]);
            ring.consume(consumed);
            let bytes: Vec<u8> = (0..added.min(consumed)).map(|i| i as u8).collect();
            ring.extend_from_slice(&bytes);
            let before = contents(&ring);

            let grown = pool.grow(ring);
            prop_assert_eq!(grown.capacity(), 4096);
            prop_assert_eq!(contents(&grown), before);
            prop_assert_eq!(pool.retained(), 2048);
        }

        #[test]
        fn pool_hands_out_classes_and_never_keeps_more_than_its_bound(
            preallocated in 0_usize..12, steps in prop::collection::vec((0_u8..4, 0_usize..140_000), 0..60),
        ) {
            let mut pool = RingPool::new(preallocated);
            let mut taken = Vec::new();
            for (step, n) in steps {
                match step {
                    0 => taken.push((pool.take(), 2048)),
                    1 => taken.push((pool.take_with_capacity(n), n.next_power_of_two().max(2048))),
                    2 => if let Some((ring, capacity)) = taken.pop() {
                        taken.push((pool.grow(ring), 2 * capacity));
                    },
                    _ => if !taken.is_empty() {
                        let (mut ring, _) = taken.swap_remove(n % taken.len());
                        ring.extend_from_slice(b"left over");
                        pool.put(ring);
                    },
                }
                prop_assert!(taken.iter().all(|(ring, capacity)| ring.capacity() == *capacity && ring.is_empty()));
                prop_assert!(pool.retained() <= preallocated * 2048);
            }
        }
    }

    #[test]
    fn wrapped_bytes_become_contiguous_by_rotating_once() {
        let mut ring = Ring::with_capacity(8);
        ring.extend_from_slice(b"abcdefgh");
        ring.consume(6);
        ring.extend_from_slice(b"ijk");
        assert_eq!(ring.readable(), (&b"gh"[..], &b"ijk"[..]));
        assert_eq!(ring.contiguous(2), b"gh");
        assert_eq!(
            ring.readable(),
            (&b"gh"[..], &b"ijk"[..]),
            "two bytes needed no rotation"
        );
        assert_eq!(ring.contiguous(3), b"ghi");
        assert_eq!(ring.readable(), (&b"ghijk"[..], &b""[..]));
    }

    #[test]
    fn emptied_ring_starts_over_so_that_all_of_it_is_one_writable_slice() {
        let mut ring = Ring::with_capacity(8);
        ring.extend_from_slice(b"abcde");
        ring.consume(5);
        let (first, second) = ring.writable();
        assert_eq!((first.len(), second.len()), (8, 0));
    }

    #[test]
    #[should_panic(expected = "advanced by 9 bytes, of which 8 are spare")]
    fn advancing_past_the_spare_bytes_panics() {
        Ring::with_capacity(8).advance(9);
    }

    #[test]
    #[should_panic(expected = "consumed 1 bytes, of which 0 are readable")]
    fn consuming_more_than_is_readable_panics() {
        Ring::with_capacity(8).consume(1);
    }

    #[test]
    #[should_panic(expected = "asked for 1 bytes, of which 0 are readable")]
    fn asking_for_more_than_is_readable_panics() {
        Ring::with_capacity(8).contiguous(1);
    }

    #[test]
    fn debug_output_does_not_show_bytes_of_a_peer() {
        let mut ring = Ring::with_capacity(8);
        ring.extend_from_slice(b"secret");
        assert_eq!(
            format!("{ring:?}"),
            "Ring { capacity: 8, start: 0, len: 6, .. }"
        );
    }

    #[test]
    fn ring_takes_24_bytes_and_so_does_an_optional_one() {
        assert_eq!(size_of::<Ring>(), 24);
        assert_eq!(size_of::<Option<Ring>>(), 24);
    }

    #[test]
    fn pool_reuses_the_ring_that_came_back_last_and_hands_it_out_empty() {
        let mut pool = RingPool::new(2);
        let mut ring = pool.take();
        ring.extend_from_slice(b"old");
        let address = ring.readable().0.as_ptr();
        pool.put(Ring::with_capacity(2048));
        pool.put(ring);

        let mut again = pool.take();
        assert!(again.is_empty());
        assert_eq!(again.writable().0.as_ptr(), address);
        assert_eq!(pool.retained(), 2048);
    }

    #[test]
    fn at_the_bound_larger_rings_make_room_for_smaller_ones_but_not_the_reverse() {
        let mut pool = RingPool::new(16);
        pool.put(Ring::with_capacity(32 * 1024));
        assert_eq!(pool.retained(), 32 * 1024);
        pool.put(Ring::with_capacity(2048));
        assert_eq!(pool.retained(), 2048, "the large ring was freed");
        pool.put(Ring::with_capacity(32 * 1024));
        assert_eq!(pool.retained(), 2048, "the large ring was not kept");
    }

    #[test]
    fn rings_outside_the_classes_are_freed() {
        let mut pool = RingPool::with_largest(100, 10_000);
        assert_eq!(pool.largest(), 16 * 1024);
        for capacity in [1, 2048, 32 * 1024] {
            pool.put(Ring::with_capacity(capacity));
        }
        assert_eq!(pool.retained(), 0);
        let outgrown = pool.grow(Ring::with_capacity(16 * 1024));
        assert_eq!(
            (outgrown.capacity(), pool.retained()),
            (32 * 1024, 16 * 1024)
        );
    }
}
