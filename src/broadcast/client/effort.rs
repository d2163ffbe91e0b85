//! How much of a turn goes to those who look around: a small command can be much work.

use std::time::Instant;

/// What a turn may spend, in bytes of replies: about two milliseconds.
const MOST: usize = 512 << 10;

/// What has been spent in a turn.
#[derive(Debug, Default)]
pub(super) struct Effort {
    turn: Option<Instant>,
    spent: usize,
}

impl Effort {
    /// Whether the rest has to wait for the next turn. One command is always carried out.
    pub(super) fn is_spent(&mut self, turn: Instant) -> bool {
        if self.turn != Some(turn) {
            (self.turn, self.spent) = (Some(turn), 0);
        }
        self.spent >= MOST
    }

    /// Counts a command with a reply as long as this, or as much work as it.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.spent = self.spent.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_turn_may_spend_as_much() {
        let turn = Instant::now();
        let mut effort = Effort::default();
        assert!(!effort.is_spent(turn));
        effort.spend(MOST - 1);
        assert!(!effort.is_spent(turn));
        effort.spend(usize::MAX);
        assert!(effort.is_spent(turn));
        assert!(!effort.is_spent(turn + Duration::from_nanos(1)));
    }
}
