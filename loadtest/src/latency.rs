//! Latencies: recorded to three digits, merged without loss, told as percentiles.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::units::{Micros, float};

/// Latencies are recorded from 0.1 µs up to here; longer ones count as this long.
const LONGEST: Duration = Duration::from_mins(10);

/// A recorder of latencies.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Latencies(
            Histogram::new_with_bounds(100, LONGEST.as_nanos() as u64, 3)
                .expect("the bounds are constant"),
        )
    }
}

impl Latencies {
    /// Records `count` latencies of the same length.
    pub fn record_many(&mut self, latency: Duration, count: u64) {
        self.0.saturating_record_n(latency.as_nanos() as u64, count);
    }

    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        self.record_many(latency, 1);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds what another recorder of this process has.
    ///
    /// # Panics
    ///
    /// Never: all have the same bounds.
    pub fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// What another process can [`add`](Self::add) to its own.
    pub fn counts(&self) -> Counts {
        Counts(
            self.0
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
                .collect(),
        )
    }

    /// Adds what another recorder has counted.
    pub fn add(&mut self, counts: &Counts) {
        for (nanoseconds, count) in &counts.0 {
            self.0.saturating_record_n(*nanoseconds, *count);
        }
    }

    /// The latency that a part of all does not exceed; `quantile` is from 0 to 1.
    pub fn at(&self, quantile: f64) -> f64 {
        float(self.0.value_at_quantile(quantile)) / 1e3
    }

    /// What a report says of them.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.count(),
            mean: self.0.mean() / 1e3,
            p50: self.at(0.5),
            p90: self.at(0.9),
            p99: self.at(0.99),
            p999: self.at(0.999),
            max: float(self.0.max()) / 1e3,
            curve: self.curve(),
        }
    }

    /// Five points for each halving of what remains: where the curve bends, there are points.
    fn curve(&self) -> Vec<(f64, f64)> {
        self.0
            .iter_quantiles(5)
            .map(|step| {
                (
                    step.quantile_iterated_to(),
                    float(step.value_iterated_to()) / 1e3,
                )
            })
            .collect()
    }
}

/// Nanoseconds and how often each was recorded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts(Vec<(u64, u64)>);

/// Percentiles in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Summary {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    /// Quantiles from 0 to 1 with their latency in microseconds, for a plot.
    pub curve: Vec<(f64, f64)>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {} µs, p90 {}, p99 {}, p99.9 {}, max {}",
            Micros(self.p50),
            Micros(self.p90),
            Micros(self.p99),
            Micros(self.p999),
            Micros(self.max)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_recorders_say_what_one_would_have_said() {
        let (mut one, mut first, mut second) = (
            Latencies::default(),
            Latencies::default(),
            Latencies::default(),
        );
        for micros in 1..=1000 {
            let latency = Duration::from_micros(micros);
            one.record(latency);
            if micros % 2 == 0 {
                &mut first
            } else {
                &mut second
            }
            .record(latency);
        }
        first.add(&second.counts());
        assert_eq!(first.summary(), one.summary());
        let summary = one.summary();
        assert_eq!(summary.count, 1000);
        assert!((summary.p50 - 500.0).abs() < 1.0, "{summary:?}");
        assert!((summary.max - 1000.0).abs() < 1.0, "{summary:?}");
    }

    #[test]
    fn latencies_beyond_the_scale_count_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(LONGEST * 2);
        assert_eq!(latencies.count(), 1);
        assert!(latencies.summary().max >= 599e6);
    }
}
