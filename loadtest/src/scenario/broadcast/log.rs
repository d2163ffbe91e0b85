//! The members of a topic receive the same bytes in the same order. The member that is ahead reads them, through
//! the protocol core; what the others receive only has to be equal to that.
//!
//! This checks more than reading would, every byte of every message, and costs a comparison of memory.

use super::sequence::Sequences;
use crate::frame;
use crate::scenario::stamp::Stamp;

/// What the members of one topic have received, as far as the first of them has.
///
/// ```text
/// | … | frame | frame | frame |      all of one length; bytes are kept from frame `first` on
///     first                   len
/// ```
#[derive(Debug)]
pub(super) struct Log {
    /// What all frames look like; it may have to be learnt from the first.
    shape: Option<Shape>,
    bytes: Vec<u8>,
    first: u64,
    len: u64,
    runs: Vec<Run>,
    /// What somebody has who has read all of it.
    sequences: Sequences,
}

/// What frames of one length have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// How they begin.
    pub(super) header: Vec<u8>,
    /// How long they are, header included.
    pub(super) len: usize,
}

impl Shape {
    /// That of a server's binary message.
    pub(super) fn of_payload(len: usize) -> Self {
        let mut header = Vec::new();
        frame::push_server_frame(&mut header, frame::Opcode::Binary, &vec![0; len]);
        header.truncate(frame::header_len(len));
        let len = frame::server_frame_len(len);
        Shape { header, len }
    }

    /// That of the text message at the start of `input`, if it begins like that; not yet, where more bytes are needed to
    /// tell.
    pub(super) fn of_text(input: &[u8], beginning: &[u8]) -> Result<Self, NoShape> {
        let (header, payload) = match *input {
            [] | [0x81] | [0x81, 0x7e] | [0x81, 0x7e, _] => return Err(NoShape::NotYet),
            [0x81, 0x7e, high, low, ..] => (4, u16::from_be_bytes([high, low]).into()),
            [0x81, len @ 0..=125, ..] => (2, usize::from(len)),
            _ => return Err(NoShape::Never), // Messages longer than 64 KiB are not compared.
        };
        let seen = &input[header..input.len().min(header + beginning.len())];
        if !beginning.starts_with(seen) || payload < beginning.len() {
            return Err(NoShape::Never);
        }
        if seen.len() < beginning.len() {
            return Err(NoShape::NotYet);
        }
        Ok(Shape {
            header: input[..header].to_vec(),
            len: header + payload,
        })
    }
}

/// Why a shape is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoShape {
    /// More bytes will tell.
    NotYet,
    /// It is another message.
    Never,
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
    /// Of frames of one shape, of messages of so many publishers.
    pub(super) fn new(shape: Option<Shape>, publishers: usize) -> Self {
        Log {
            shape,
            bytes: Vec::new(),
            first: 0,
            len: 0,
            runs: Vec::new(),
            sequences: Sequences::new(publishers),
        }
    }

    pub(super) fn shape(&self) -> Option<&Shape> {
        self.shape.as_ref()
    }

    /// Learns what all frames look like.
    pub(super) fn learn(&mut self, shape: Shape) {
        debug_assert!(self.len == 0, "no frame of another shape was kept");
        self.shape = Some(shape);
    }

    /// The length of frames that are kept; there is none before their shape is known.
    fn frame_len(&self) -> usize {
        self.shape.as_ref().map_or(usize::MAX, |shape| shape.len)
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
        let frame_len = self.frame_len();
        let known = (self.len - from).min((input.len() / frame_len) as u64) as usize;
        if known == 0 {
            return 0;
        }
        let start = (from - self.first) as usize * frame_len;
        let (seen, expected) = (
            &input[..known * frame_len],
            &self.bytes[start..start + known * frame_len],
        );
        if seen == expected {
            return known as u64;
        }
        let pairs = seen.chunks(frame_len).zip(expected.chunks(frame_len));
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
        let frame_len = self.frame_len();
        debug_assert_eq!(frames.len(), messages.len() * frame_len);
        self.sequences = sequences;
        self.bytes.extend_from_slice(frames);
        for (place, stamp) in messages {
            self.push(*place, *stamp);
        }
        if self.bytes.len() > 2 * KEPT {
            let surplus = (self.bytes.len() - KEPT) / frame_len;
            self.bytes.drain(..surplus * frame_len);
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

    fn shape(len: usize) -> Shape {
        let header = Vec::new();
        Shape { header, len }
    }

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
        let mut log = Log::new(Some(shape(FRAME)), 1);
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
    fn shape_is_learnt_from_a_message_wherever_it_is_cut() {
        for payload in [7, 125, 126, 1000] {
            let mut message = b"{push: ".to_vec();
            message.resize(payload, b'x');
            let mut frame = Vec::new();
            frame::push_server_frame(&mut frame, frame::Opcode::Text, &message);
            let header = frame::header_len(payload);
            for cut in 0..header + 7 {
                let learnt = Shape::of_text(&frame[..cut], b"{push: ");
                assert_eq!(learnt, Err(NoShape::NotYet), "{payload} cut at {cut}");
            }
            for cut in [header + 7, frame.len()] {
                let learnt = Shape::of_text(&frame[..cut], b"{push: ").unwrap();
                assert_eq!(learnt.header, &frame[..header]);
                assert_eq!(learnt.len, frame.len());
            }
            let other = Shape::of_text(&frame, b"{pull: ");
            assert_eq!(other, Err(NoShape::Never));
        }
        for other in [b"\x82\x07{push: ", b"\x81\x06{push: ", b"\x81\x7f{push: "] {
            assert_eq!(Shape::of_text(other, b"{push: "), Err(NoShape::Never));
        }
    }

    #[test]
    fn log_without_a_shape_matches_nothing() {
        let mut log = Log::new(None, 1);
        assert_eq!(log.matching(0, &[7; FRAME]), 0);
        log.learn(shape(FRAME));
        log.append(&[7; FRAME], &[(0, stamp(0, 0))], Sequences::new(1));
        assert_eq!(log.matching(0, &[7; FRAME]), 1);
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
        let mut log = Log::new(Some(shape(LONGEST_FRAME)), 1);
        let frame = vec![7; LONGEST_FRAME];
        let frames = 2 * KEPT / LONGEST_FRAME + 1;
        for number in 0..frames as u64 {
            log.append(&frame, &[(0, stamp(number, number))], Sequences::new(1));
        }
        assert_eq!(log.matching(0, &frame), 0);
        assert_eq!(log.matching(log.len() - 1, &frame), 1);
    }
}
