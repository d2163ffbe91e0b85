//! The members of a topic receive the same bytes in the same order. The member that is ahead reads them, through
//! the protocol core; what the others receive only has to be equal to that.
//!
//! This checks more than reading would, every byte of every message, and costs a comparison of memory.

use super::sequence::Sequences;
use crate::scenario::stamp::Stamp;

/// What the members of one topic have received, as far as the first of them has.
///
/// ```text
/// | … | frame | frame | frame |      all of one length; bytes are kept from frame `first` on
///     first                   len
/// ```
#[derive(Debug)]
pub(super) struct Log {
    frame_len: usize,
    bytes: Vec<u8>,
    first: u64,
    len: u64,
    runs: Vec<Run>,
    /// What somebody has who has read all of it.
    sequences: Sequences,
}

/// Neighbours of one publisher that were sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The stamp of the first.
    pub(super) stamp: Stamp,
    /// Its publisher's place among those of the topic.
    pub(super) place: usize,
    /// Its number in the log.
    pub(super) start: u64,
    /// How many they are.
    pub(super) count: u64,
}

/// Longer frames are read by everyone: they cost more to receive than to read.
pub(super) const LONGEST_FRAME: usize = 64 << 10;
/// Bytes kept for members that are behind; who is further behind than these reads for itself.
const KEPT: usize = 8 << 20;

impl Log {
    /// Of frames of one length, of messages of so many publishers.
    pub(super) fn new(frame_len: usize, publishers: usize) -> Self {
        Log {
            frame_len,
            bytes: Vec::new(),
            first: 0,
            len: 0,
            runs: Vec::new(),
            sequences: Sequences::new(publishers),
        }
    }

    pub(super) fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many whole frames of `input` are those from number `from` on.
    pub(super) fn matching(&self, from: u64, input: &[u8]) -> u64 {
        if from < self.first {
            return 0;
        }
        let known = (self.len - from).min((input.len() / self.frame_len) as u64) as usize;
        let start = (from - self.first) as usize * self.frame_len;
        let (seen, expected) = (
            &input[..known * self.frame_len],
            &self.bytes[start..start + known * self.frame_len],
        );
        if seen == expected {
            return known as u64;
        }
        let pairs = seen
            .chunks(self.frame_len)
            .zip(expected.chunks(self.frame_len));
        pairs
            .take_while(|(seen, expected)| seen == expected)
            .count() as u64
    }

    /// The messages from number `from` on, up to number `to`.
    pub(super) fn runs(&self, from: u64, to: u64) -> impl Iterator<Item = Run> {
        let first = self
            .runs
            .partition_point(|run| run.start + run.count <= from);
        let runs = self.runs[first..]
            .iter()
            .take_while(move |run| run.start < to);
        runs.map(move |run| {
            let skipped = from.saturating_sub(run.start);
            let start = run.start + skipped;
            let count = (run.start + run.count).min(to) - start;
            let sequence = run.stamp.sequence + skipped;
            Run {
                stamp: Stamp {
                    sequence,
                    ..run.stamp
                },
                start,
                count,
                ..*run
            }
        })
    }

    /// Adds frames that the member ahead has read: their messages, each with its publisher's place, and what it
    /// has after them.
    pub(super) fn append(
        &mut self,
        frames: &[u8],
        messages: &[(usize, Stamp)],
        sequences: Sequences,
    ) {
        debug_assert_eq!(frames.len(), messages.len() * self.frame_len);
        self.sequences = sequences;
        self.bytes.extend_from_slice(frames);
        for (place, stamp) in messages {
            self.push(*place, *stamp);
        }
        if self.bytes.len() > 2 * KEPT {
            let surplus = (self.bytes.len() - KEPT) / self.frame_len;
            self.bytes.drain(..surplus * self.frame_len);
            self.first += surplus as u64;
        }
    }

    fn push(&mut self, place: usize, stamp: Stamp) {
        let start = self.len;
        self.len += 1;
        if let Some(last) = self.runs.last_mut()
            && last.place == place
            && last.stamp.sent == stamp.sent
            && last.stamp.is_last == stamp.is_last
            && last.stamp.sequence + last.count == stamp.sequence
        {
            last.count += 1;
            return;
        }
        self.runs.push(Run {
            stamp,
            place,
            start,
            count: 1,
        });
    }

    /// What somebody has who has read so many messages.
    pub(super) fn sequences_at(&self, number: u64) -> Sequences {
        let mut sequences = self.sequences.clone();
        for run in self.runs(number, self.len) {
            sequences.take_back(run.place, run.count, run.stamp.is_last);
        }
        sequences
    }

    /// Whether somebody who has read so many messages has the last of every publisher.
    pub(super) fn is_complete_at(&self, number: u64) -> bool {
        number == self.len && self.sequences.is_complete()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 4;

    fn stamp(sequence: u64, sent: u64) -> Stamp {
        Stamp {
            publisher: 0,
            is_last: false,
            sequence,
            sent,
        }
    }

    /// Ten messages, sent two at a time.
    fn ten() -> (Log, Vec<u8>) {
        let mut log = Log::new(FRAME, 1);
        let mut sequences = Sequences::new(1);
        let frames: Vec<u8> = (0..10_u8).flat_map(|number| [number; FRAME]).collect();
        let messages: Vec<_> = (0..10)
            .map(|number| (0, stamp(number, number / 2)))
            .collect();
        for number in 0..10 {
            sequences.note(0, number, false).unwrap();
        }
        log.append(&frames, &messages, sequences);
        (log, frames)
    }

    #[test]
    fn equal_frames_match_up_to_the_first_that_differs() {
        let (log, mut frames) = ten();
        assert_eq!(log.matching(0, &frames), 10);
        assert_eq!(log.matching(3, &frames[3 * FRAME..]), 7);
        assert_eq!(log.matching(0, &frames[..2 * FRAME + 3]), 2);
        assert_eq!(log.matching(10, &frames), 0);
        frames[5 * FRAME + 1] ^= 1;
        assert_eq!(log.matching(0, &frames), 5);
        assert_eq!(log.matching(6, &frames[6 * FRAME..]), 4);
    }

    #[test]
    fn runs_are_cut_where_they_are_asked_for() {
        let (log, _) = ten();
        let runs: Vec<_> = log.runs(3, 7).collect();
        let cut: Vec<_> = runs
            .iter()
            .map(|run| (run.stamp.sequence, run.stamp.sent, run.count))
            .collect();
        assert_eq!(cut, [(3, 1, 1), (4, 2, 2), (6, 3, 1)]);
        assert_eq!(log.runs(4, 4).count(), 0);
    }

    #[test]
    fn sequences_are_known_at_every_place() {
        let (log, _) = ten();
        for number in 0..10 {
            let mut sequences = log.sequences_at(number);
            assert_eq!(sequences.gaps(|_| Some(10)), 10 - number);
            assert_eq!(sequences.note(0, number, false), Ok(()));
        }
    }

    #[test]
    fn who_is_too_far_behind_matches_nothing() {
        let mut log = Log::new(LONGEST_FRAME, 1);
        let frame = vec![7; LONGEST_FRAME];
        let frames = 2 * KEPT / LONGEST_FRAME + 1;
        for number in 0..frames as u64 {
            log.append(&frame, &[(0, stamp(number, number))], Sequences::new(1));
        }
        assert_eq!(log.matching(0, &frame), 0);
        assert_eq!(log.matching(log.len() - 1, &frame), 1);
    }
}
