//! The loop's coarse clock, one deadline per connection, and the few timers of the application.
//!
//! Deadlines are a dense array of ticks that is swept once a tick: four bytes a connection, no
//! heap of timers, and nothing to do when a message comes. A deadline only says when to look at a
//! connection again; what is due then is decided by looking.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Ticks since the server started, from 1 on.
pub(crate) type Tick = u32;

/// Never: no deadline.
const OFF: Tick = 0;

/// 34 years in seconds.
const LONGEST: Tick = Tick::MAX / 4;

/// The time `duration` from `now`, or as far away as makes no difference.
pub(crate) fn after(now: Instant, duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_hours(100 * 365 * 24);
    now + duration.min(CENTURY)
}

/// The next look at each connection, by slab key.
#[derive(Debug)]
pub(crate) struct Deadlines {
    started: Instant,
    tick: Duration,
    now: Tick,
    swept: Tick,
    due: Vec<Tick>,
    armed: usize,
}

impl Deadlines {
    pub(crate) fn new(started: Instant, tick: Duration) -> Self {
        Self {
            started,
            tick,
            now: 1,
            swept: 1,
            due: Vec::new(),
            armed: 0,
        }
    }

    /// Takes note of the time; the tick stays the same for the whole turn.
    pub(crate) fn set_now(&mut self, now: Instant) {
        let ticks = now.saturating_duration_since(self.started).as_nanos() / self.tick.as_nanos();
        self.now = Tick::try_from(ticks)
            .unwrap_or(Tick::MAX - 1)
            .saturating_add(1);
    }

    #[inline]
    pub(crate) fn now(&self) -> Tick {
        self.now
    }

    /// A duration in ticks, at least one and rounded up; one that is as good as endless ends where
    /// sums of a few still do not overflow.
    pub(crate) fn ticks(&self, duration: Duration) -> Tick {
        let ticks = duration.as_nanos().div_ceil(self.tick.as_nanos()).max(1);
        Tick::try_from(ticks).map_or(LONGEST, |ticks| ticks.min(LONGEST))
    }

    /// The tick so many from now on; a sum that is beyond counting is never.
    #[inline]
    pub(crate) fn after(&self, ticks: Tick) -> Tick {
        self.now.saturating_add(ticks)
    }

    /// Looks at the connection at `due` or before.
    pub(crate) fn arm(&mut self, key: usize, due: Tick) {
        if key >= self.due.len() {
            self.due.resize(key + 1, OFF);
        }
        let slot = &mut self.due[key];
        if *slot == OFF {
            self.armed += 1;
            *slot = due.max(1);
        } else {
            *slot = due.max(1).min(*slot);
        }
    }

    pub(crate) fn disarm(&mut self, key: usize) {
        if let Some(slot) = self.due.get_mut(key)
            && *slot != OFF
        {
            *slot = OFF;
            self.armed -= 1;
        }
    }

    /// How long the loop may sleep; `None`: no connection has a deadline.
    pub(crate) fn sleep(&self, now: Instant) -> Option<Duration> {
        // A tick begins when it is over the last one: sleep to just behind that moment.
        let next = self.started + self.tick * self.swept;
        (self.armed > 0).then(|| next.saturating_duration_since(now))
    }

    /// Disarms and collects the connections that are due, once a tick.
    pub(crate) fn sweep(&mut self, expired: &mut Vec<usize>) {
        if self.swept == self.now {
            return;
        }
        self.swept = self.now;
        if self.armed == 0 {
            return;
        }
        let now = self.now;
        for (key, due) in self.due.iter_mut().enumerate() {
            if *due <= now && *due != OFF {
                *due = OFF;
                self.armed -= 1;
                expired.push(key);
            }
        }
    }
}

/// The application's timers: few, exact, one shot each.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Due time, order of setting, token.
    heap: BinaryHeap<Reverse<(Instant, u64, u64)>>,
    count: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, token: u64) {
        self.count += 1;
        self.heap.push(Reverse((at, self.count, token)));
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn sleep(&self, now: Instant) -> Option<Duration> {
        self.heap
            .peek()
            .map(|Reverse((at, ..))| at.saturating_duration_since(now))
    }

    /// The token of a timer that is due, the earliest first.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u64> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((.., token))| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(1);

    fn sweep(deadlines: &mut Deadlines, at: Instant) -> Vec<usize> {
        let mut expired = Vec::new();
        deadlines.set_now(at);
        deadlines.sweep(&mut expired);
        expired
    }

    #[test]
    fn a_deadline_expires_once_and_not_early() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start, TICK);
        assert_eq!(deadlines.sleep(start), None);
        deadlines.arm(3, deadlines.now() + 2);
        assert_eq!(deadlines.sleep(start), Some(TICK));
        assert!(sweep(&mut deadlines, start + TICK).is_empty());
        assert_eq!(sweep(&mut deadlines, start + TICK * 2), [3]);
        assert_eq!(sweep(&mut deadlines, start + TICK * 9), [0; 0]);
        assert_eq!(deadlines.sleep(start), None);
    }

    #[test]
    fn arming_again_keeps_the_earlier_deadline() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start, TICK);
        deadlines.arm(0, 5);
        deadlines.arm(0, 9);
        deadlines.arm(0, 3);
        assert_eq!(sweep(&mut deadlines, start + TICK * 2), [0]);
        deadlines.arm(0, 4);
        deadlines.disarm(0);
        assert!(sweep(&mut deadlines, start + TICK * 8).is_empty());
    }

    #[test]
    fn a_late_sweep_finds_everything_that_was_due() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start, TICK);
        for key in 0..100 {
            deadlines.arm(key, 2 + key as Tick);
        }
        assert_eq!(sweep(&mut deadlines, start + TICK * 60).len(), 60);
        assert_eq!(sweep(&mut deadlines, start + TICK * 200).len(), 40);
    }

    #[test]
    fn timers_come_in_the_order_of_their_time_and_of_setting() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set(start + TICK, 1);
        timers.set(start, 2);
        timers.set(start, 3);
        assert_eq!(timers.sleep(start), Some(Duration::ZERO));
        assert_eq!(timers.pop_due(start), Some(2));
        assert_eq!(timers.pop_due(start), Some(3));
        assert_eq!(timers.pop_due(start), None);
        assert_eq!(timers.sleep(start), Some(TICK));
    }
}
