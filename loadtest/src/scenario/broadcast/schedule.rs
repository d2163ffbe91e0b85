//! When the batches of an open loop should be sent.

use std::time::{Duration, Instant};

use mio::Poll;

use super::{Asking, Options};
use crate::failure::Error;
use crate::latency::Latencies;
use crate::scenario::stamp::now;
use crate::timer::Timer;
use crate::units::float;

/// One publisher after another, evenly in time.
pub(super) struct Schedule {
    timer: Timer,
    pub(super) start: u64,
    /// Nanoseconds between two batches.
    between: f64,
    /// How many batches were sent.
    pub(super) batches: u64,
    /// How much later than they should batches were sent: what the load generator itself adds.
    pub(super) lag: Latencies,
}

impl Schedule {
    pub(super) fn of(
        options: &Options,
        publishers: usize,
        poll: &Poll,
    ) -> Result<Option<Self>, Error> {
        let Asking::PerSecond(rate) = options.asking else {
            return Ok(None);
        };
        if publishers == 0 {
            return Ok(None);
        }
        let share = float(publishers as u64) / float(options.publishers as u64);
        let batches = rate * share / float(options.batch as u64);
        Schedule::new(batches, poll).map(Some)
    }

    /// Of so many batches in a second.
    pub(super) fn new(per_second: f64, poll: &Poll) -> Result<Self, Error> {
        Ok(Schedule {
            timer: Timer::new(poll)?,
            start: now(),
            between: 1e9 / per_second,
            batches: 0,
            lag: Latencies::default(),
        })
    }

    /// When the next batch should be sent.
    #[expect(
        clippy::cast_sign_loss,
        reason = "neither the number nor the distance is below zero"
    )]
    pub(super) fn next(&self) -> u64 {
        self.start + (float(self.batches) * self.between) as u64
    }

    /// Goes on to the next batch; answers who sends this one.
    pub(super) fn advance(&mut self, publishers: usize) -> usize {
        let publisher = (self.batches % publishers as u64) as usize;
        self.batches += 1;
        publisher
    }

    pub(super) fn arm(&mut self, timeout: Duration) -> Result<Duration, Error> {
        let left = Duration::from_nanos(self.next().saturating_sub(now()));
        self.timer.arm(Instant::now() + left, timeout)
    }
}
