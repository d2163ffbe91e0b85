//! For a sample of the messages: how long each took to reach the last of this process' members.

use crate::outcome::Seen;
use crate::scenario::stamp::Stamp;

/// Messages by publisher and number, evenly sampled: with each thinning every other one is forgotten.
///
/// All processes sample powers of two, so that what one of them keeps is kept by all that thinned less.
#[derive(Debug)]
pub(super) struct Reached {
    /// Messages whose number has so many zero bits at its end are kept.
    zeros: u32,
    /// Kept of one publisher before they are thinned.
    room: usize,
    /// By publisher, and of those by number without its zeros.
    kept: Box<[Vec<Kept>]>,
    /// Messages that were sent earlier are of the warm-up.
    since: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    receivers: u32,
    /// Nanoseconds from sending to the last receiver.
    longest: u64,
}

/// Kept of all publishers together, about.
const ROOM: usize = 20_000;

impl Reached {
    /// Of messages of so many publishers.
    pub(super) fn new(publishers: usize) -> Self {
        Reached {
            zeros: 0,
            room: (ROOM / publishers).max(2),
            kept: vec![Vec::new(); publishers].into(),
            since: u64::MAX,
        }
    }

    /// Messages that are sent from now on count.
    pub(super) fn start(&mut self, now: u64) {
        self.since = now;
    }

    /// Notes that a member has a message that was sent so many nanoseconds ago.
    #[inline]
    pub(super) fn note(&mut self, stamp: &Stamp, nanoseconds: u64) {
        let is_kept = stamp.sequence.trailing_zeros() >= self.zeros; // Of 0 all bits are zeros.
        if is_kept && stamp.sent >= self.since {
            self.keep(stamp, nanoseconds);
        }
    }

    /// The same for neighbours of one publisher, of which `stamp` is that of the first.
    #[inline]
    pub(super) fn note_many(&mut self, stamp: &Stamp, count: u64, nanoseconds: u64) {
        if stamp.sent < self.since {
            return;
        }
        let end = stamp.sequence + count;
        let mut sequence = stamp.sequence.next_multiple_of(1 << self.zeros);
        while sequence < end {
            self.keep(&Stamp { sequence, ..*stamp }, nanoseconds);
            sequence = (sequence + 1).next_multiple_of(1 << self.zeros);
        }
    }

    fn keep(&mut self, stamp: &Stamp, nanoseconds: u64) {
        while (stamp.sequence >> self.zeros) as usize >= self.room {
            self.thin();
        }
        if stamp.sequence.trailing_zeros() < self.zeros {
            return;
        }
        let at = (stamp.sequence >> self.zeros) as usize;
        let kept = &mut self.kept[stamp.publisher as usize];
        if kept.len() <= at {
            kept.resize(at + 1, Kept::default());
        }
        let kept = &mut kept[at];
        kept.receivers += 1;
        kept.longest = kept.longest.max(nanoseconds);
    }

    fn thin(&mut self) {
        self.zeros += 1;
        for kept in &mut self.kept {
            *kept = kept.iter().step_by(2).copied().collect();
        }
    }

    /// What is known; `members` says how many members a publisher's messages reach, in all processes.
    pub(super) fn seen(&self, members: impl Fn(usize) -> usize) -> Vec<Seen> {
        let publishers = self.kept.len() as u64;
        let mut seen = Vec::new();
        for (publisher, kept) in self.kept.iter().enumerate() {
            let known = kept.iter().zip(0_u64..);
            seen.extend(
                known
                    .filter(|(kept, _)| kept.receivers > 0)
                    .map(|(kept, number)| Seen {
                        message: (number << self.zeros) * publishers + publisher as u64,
                        nanoseconds: kept.longest,
                        receivers: kept.receivers.into(),
                        of: members(publisher) as u64,
                    }),
            );
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(reached: &mut Reached, publisher: u32, sequence: u64, nanoseconds: u64) {
        let stamp = Stamp {
            publisher,
            is_last: false,
            sequence,
            sent: 100,
        };
        reached.note(&stamp, nanoseconds);
    }

    #[test]
    fn slowest_member_counts() {
        let mut reached = Reached::new(2);
        reached.start(100);
        for nanoseconds in [5, 9, 7] {
            note(&mut reached, 1, 3, nanoseconds);
        }
        let seen = Seen {
            message: 3 * 2 + 1,
            nanoseconds: 9,
            receivers: 3,
            of: 4,
        };
        assert_eq!(reached.seen(|_| 4), [seen]);
    }

    #[test]
    fn messages_of_the_warmup_do_not_count() {
        let mut reached = Reached::new(1);
        note(&mut reached, 0, 0, 5);
        reached.start(101);
        note(&mut reached, 0, 1, 5);
        assert_eq!(reached.seen(|_| 1), []);
    }

    #[test]
    fn sample_stays_even_however_many_messages_there_are() {
        let mut reached = Reached::new(1);
        reached.start(0);
        for sequence in 0..100_000 {
            note(&mut reached, 0, sequence, sequence);
        }
        let seen = reached.seen(|_| 1);
        assert_eq!(seen.len(), 100_000_usize.div_ceil(8));
        for (seen, sequence) in seen.iter().zip((0..).step_by(8)) {
            assert_eq!((seen.message, seen.nanoseconds), (sequence, sequence));
        }
    }
}
