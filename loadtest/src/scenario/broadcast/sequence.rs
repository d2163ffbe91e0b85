//! The order of what one member receives: each publisher's messages one after another, none missing, none twice.

/// What one member has of each publisher of its topic.
#[derive(Clone, Debug)]
pub(super) struct Sequences {
    /// The number of the next message of each publisher.
    expected: Box<[u64]>,
    /// Messages that others overtook, as publisher and number: they may still come.
    missing: Vec<(usize, u64)>,
    /// Messages that were missing when there was no more room to remember them.
    lost: u64,
    /// Messages that came, but could not be read: each is one of those that are missing.
    unreadable: u64,
    /// Whether the last message of each publisher came, and of how many it did not.
    ended: Box<[bool]>,
    unended: usize,
}

/// More than so many missing messages of one member are only counted.
const MOST_MISSING: usize = 1024;

/// A message that did not come in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disorder {
    /// It came after a later one.
    Late,
    /// It had come before.
    Repeated,
}

impl Sequences {
    /// Before the first message of so many publishers.
    pub(super) fn new(publishers: usize) -> Self {
        Sequences {
            expected: vec![0; publishers].into(),
            missing: Vec::new(),
            lost: 0,
            unreadable: 0,
            ended: vec![false; publishers].into(),
            unended: publishers,
        }
    }

    /// Notes a message.
    ///
    /// # Errors
    ///
    /// If it did not come in its turn.
    #[inline]
    pub(super) fn note(
        &mut self,
        publisher: usize,
        sequence: u64,
        is_last: bool,
    ) -> Result<(), Disorder> {
        let expected = self.expected[publisher];
        if sequence < expected {
            return Err(self.disorder(publisher, sequence));
        }
        if sequence > expected {
            self.skip(publisher, expected, sequence);
        }
        self.expected[publisher] = sequence + 1;
        if is_last {
            self.ended[publisher] = true;
            self.unended -= 1;
        }
        Ok(())
    }

    /// Takes back the latest messages of a publisher, which had come in their turn.
    pub(super) fn take_back(&mut self, publisher: usize, count: u64, is_last: bool) {
        self.expected[publisher] -= count;
        if is_last {
            self.ended[publisher] = false;
            self.unended += 1;
        }
    }

    /// Notes a message of which nobody can say which it is.
    pub(super) fn note_unreadable(&mut self) {
        self.unreadable += 1;
    }

    #[cold]
    fn skip(&mut self, publisher: usize, from: u64, to: u64) {
        let room = MOST_MISSING - self.missing.len();
        let remembered = (from..to).take(room).map(|sequence| (publisher, sequence));
        let before = self.missing.len();
        self.missing.extend(remembered);
        self.lost += to - from - (self.missing.len() - before) as u64;
    }

    #[cold]
    fn disorder(&mut self, publisher: usize, sequence: u64) -> Disorder {
        let is_it = |missing: &(usize, u64)| *missing == (publisher, sequence);
        match self.missing.iter().position(is_it) {
            Some(at) => {
                self.missing.swap_remove(at);
                Disorder::Late
            }
            None => Disorder::Repeated,
        }
    }

    /// Whether a message came before an earlier one of its publisher, which has not come yet.
    pub(super) fn is_any_missing(&self) -> bool {
        !self.missing.is_empty() || self.lost > 0
    }

    /// Whether the last message of every publisher came.
    pub(super) fn is_complete(&self) -> bool {
        self.unended == 0
    }

    /// How many messages never came. `sent` says how many a publisher sent, where this process knows; of
    /// others whose last message did not come, one is missing at least.
    pub(super) fn gaps(&self, sent: impl Fn(usize) -> Option<u64>) -> u64 {
        let tail = |publisher: usize| match sent(publisher) {
            _ if self.ended[publisher] => 0,
            Some(sent) => sent.saturating_sub(self.expected[publisher]),
            None => 1,
        };
        let tails: u64 = (0..self.expected.len()).map(tail).sum();
        (self.missing.len() as u64 + self.lost + tails).saturating_sub(self.unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sequences: &[u64]) -> Sequences {
        let mut after = Sequences::new(1);
        for sequence in sequences {
            let _ = after.note(0, *sequence, false);
        }
        after
    }

    #[test]
    fn messages_in_their_order_leave_no_gap() {
        let mut both = Sequences::new(2);
        for sequence in 0..3 {
            for publisher in 0..2 {
                assert_eq!(both.note(publisher, sequence, sequence == 2), Ok(()));
            }
        }
        assert!(both.is_complete());
        assert_eq!(both.gaps(|_| None), 0);
    }

    #[test]
    fn missing_messages_are_counted_wherever_they_are() {
        assert_eq!(after(&[1, 2]).gaps(|_| Some(3)), 1);
        assert_eq!(after(&[0, 5]).gaps(|_| Some(6)), 4);
        assert_eq!(after(&[0, 1]).gaps(|_| Some(6)), 4);
        assert_eq!(after(&[0, 1]).gaps(|_| None), 1); // The last at least.
        assert_eq!(after(&[0, 1_000_000]).gaps(|_| Some(1_000_001)), 999_999);
    }

    #[test]
    fn swapped_messages_are_late_and_not_missing() {
        let mut swapped = after(&[0, 2]);
        assert!(swapped.is_any_missing());
        assert_eq!(swapped.note(0, 1, false), Err(Disorder::Late));
        assert!(!swapped.is_any_missing());
        assert_eq!(swapped.note(0, 1, false), Err(Disorder::Repeated));
        assert_eq!(swapped.note(0, 3, true), Ok(()));
        assert_eq!(swapped.gaps(|_| Some(4)), 0);
        assert!(swapped.is_complete());
    }

    #[test]
    fn unreadable_message_is_not_missing_as_well() {
        let mut sequences = after(&[0]);
        sequences.note_unreadable();
        assert_eq!(sequences.note(0, 2, true), Ok(()));
        assert_eq!(sequences.gaps(|_| Some(3)), 0);
    }
}
