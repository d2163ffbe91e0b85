//! When to look at which client again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Time in quarters of a second since the first client came: fine enough for pings, and coarse
/// enough that many are looked at together.
pub(super) type Tick = u32;

const TICK: Duration = Duration::from_millis(250);

/// A due time for each client that has one.
#[derive(Debug)]
pub(super) struct Dues {
    start: Instant,
    queue: BTreeSet<(Tick, u32)>,
    /// When the timers that were set are due. An earlier one takes no later one back.
    armed: BTreeSet<Tick>,
}

impl Dues {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            queue: BTreeSet::new(),
            armed: BTreeSet::new(),
        }
    }

    pub(super) fn tick(&self, now: Instant) -> Tick {
        whole_ticks(now.saturating_duration_since(self.start), Tick::MAX)
    }

    /// Moves a client from one due time, if it has one, to another; 0 is none.
    pub(super) fn set(&mut self, key: u32, old: Tick, new: Tick) {
        if old != 0 {
            self.queue.remove(&(old, key));
        }
        if new != 0 {
            self.queue.insert((new, key));
        }
    }

    /// Takes a client that is due.
    pub(super) fn next(&mut self, now: Tick) -> Option<u32> {
        let &(due, key) = self.queue.first().filter(|(due, _)| *due <= now)?;
        self.queue.remove(&(due, key));
        Some(key)
    }

    /// How long from now a timer has to be set to, if there is none that is early enough.
    pub(super) fn arm(&mut self, now: Instant) -> Option<Duration> {
        let &(due, _) = self.queue.first()?;
        if self.armed.first().is_some_and(|&armed| armed <= due) {
            return None;
        }
        self.armed.insert(due);
        let at = self.start + TICK * due;
        Some(
            at.saturating_duration_since(now)
                .max(Duration::from_millis(1)),
        )
    }

    /// A timer is due.
    pub(super) fn disarm(&mut self, now: Tick) {
        self.armed = self.armed.split_off(&now.saturating_add(1));
    }
}

/// A duration in whole ticks, at least one if it is any time at all.
pub(super) fn ticks(duration: Duration) -> Tick {
    // It is far away: a year counts as much.
    whole_ticks(duration, 4 * 365 * 24 * 3600)
}

fn whole_ticks(duration: Duration, most: Tick) -> Tick {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis());
    ticks.min(most.into()) as Tick
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_when_they_are_due() {
        let start = Instant::now();
        let mut dues = Dues::new(start);
        dues.set(1, 0, 8);
        dues.set(2, 0, 4);
        assert_eq!(dues.arm(start), Some(Duration::from_secs(1)));
        assert_eq!(dues.arm(start), None);
        dues.set(1, 8, 2);
        assert_eq!(dues.arm(start), Some(Duration::from_millis(500)));
        assert_eq!(dues.next(1), None);
        assert_eq!((dues.next(2), dues.next(2)), (Some(1), None));
        dues.set(2, 4, 0);
        dues.disarm(8);
        assert_eq!(dues.arm(start), None);
    }

    #[test]
    fn time_goes_on_after_a_year() {
        let start = Instant::now();
        let dues = Dues::new(start);
        let year = Duration::from_hours(365 * 24);
        let later = dues.tick(start + 2 * year + Duration::from_secs(1));
        assert_eq!(later, 2 * ticks(year) + 4);
    }

    #[test]
    fn a_timer_that_waits_is_not_set_again() {
        let start = Instant::now();
        let mut dues = Dues::new(start);
        dues.set(1, 0, 8);
        assert!(dues.arm(start).is_some());
        dues.set(2, 0, 4);
        assert!(dues.arm(start).is_some());
        dues.disarm(4);
        assert_eq!((dues.next(4), dues.next(4)), (Some(2), None));
        let then = start + TICK * 4;
        assert_eq!(dues.arm(then), None);
        dues.disarm(8);
        assert_eq!(dues.arm(start + TICK * 8), Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_moment_is_a_tick_and_an_age_is_a_year() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_millis(1)), 1);
        assert_eq!(ticks(Duration::from_millis(251)), 2);
        assert_eq!(ticks(Duration::MAX), 4 * 365 * 24 * 3600);
    }
}
