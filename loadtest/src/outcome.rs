//! What one process of a run found, in a form that adds up with what others found.

use serde::{Deserialize, Serialize};

use crate::cpu::Use;
use crate::failure::Failures;
use crate::latency::{Counts, Latencies};
use crate::report::{Figure, Unit};

/// What one process found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What was done while counting, most important first: the first sets rate and CPU for each.
    pub counted: Vec<Counted>,
    /// What was measured once, by one process for all.
    pub measured: Vec<Figure>,
    /// Latencies, most important first.
    pub latencies: Vec<Recorded>,
    /// For messages that reach many: when the last of this process' receivers had each.
    pub last_seen: Vec<Seen>,
    /// CPU time while counting.
    pub used: Use,
    /// Everything that went wrong, warm-up included.
    pub failures: Failures,
}

/// Things of one kind, counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Their name for programs: `messages`.
    pub key: String,
    /// One of them, for people: `message`.
    pub one: String,
    /// How many.
    pub count: u64,
}

/// Latencies of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// Their name for programs: `round_trip`.
    pub key: String,
    /// Their name for people: `round trip`.
    pub label: String,
    /// The latencies.
    pub counts: Counts,
}

/// One message and how long it took to reach the last receiver of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which message: the same number in all processes.
    pub message: u64,
    /// Nanoseconds from its sending.
    pub nanoseconds: u64,
    /// How many receivers of this process had it.
    pub receivers: u64,
    /// How many should have it, in all processes.
    pub of: u64,
}

impl Counted {
    /// So many of a kind.
    pub fn new(key: &str, one: &str, count: u64) -> Self {
        Counted {
            key: key.to_owned(),
            one: one.to_owned(),
            count,
        }
    }

    /// The rate over so many seconds.
    pub fn per_second(&self, seconds: f64) -> Figure {
        Figure::new(
            &format!("{}_per_second", self.key),
            &format!("{}/s", self.key.replace('_', " ")),
            crate::units::float(self.count) / seconds.max(f64::MIN_POSITIVE),
            Unit::PerSecond,
        )
    }
}

impl Recorded {
    /// What a recorder has.
    pub fn new(key: &str, label: &str, latencies: &Latencies) -> Self {
        Recorded {
            key: key.to_owned(),
            label: label.to_owned(),
            counts: latencies.counts(),
        }
    }
}
