//! Durations counted by their order of magnitude.

use std::time::Duration;

/// The highest bound, 2^24 µs, is 16.8 s: what takes longer is broken, and how long is of no use.
const HIGHEST: usize = 24;

/// One bucket for each bound from 2^0 µs on, and one for what is above all of them.
const BUCKETS: usize = HIGHEST + 2;

/// How many durations were how long: counts in buckets whose upper bounds are the powers of two
/// from 1 µs to 16.8 s.
///
/// A bound belongs to its bucket: what took 4 µs is counted as at most 4 µs, and what took a
/// nanosecond more as at most 8 µs.
///
/// ```
/// use std::time::Duration;
///
/// let mut turns = stentor::Histogram::default();
/// turns.record(Duration::from_micros(3));
/// let within_4_us = turns.cumulative().find(|&(bound, _)| bound == 4e-6);
/// assert_eq!(within_4_us, Some((4e-6, 1)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    nanos: u64,
}

impl Histogram {
    /// Counts a duration, in a few instructions: the loop does it in each turn.
    #[inline]
    pub fn record(&mut self, duration: Duration) {
        let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
        let micros = seconds
            .saturating_mul(1_000_000)
            .saturating_add(u64::from(nanos.div_ceil(1_000)));
        self.buckets[bucket_of(micros)] += 1;
        let nanos = seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(nanos));
        self.nanos = self.nanos.saturating_add(nanos);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all that were counted; it stays at its highest value after 584 years.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// The upper bound of each bucket in seconds, ascending to infinity, and how many durations were
    /// at most so long.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut total = 0;
        self.buckets.iter().enumerate().map(move |(index, count)| {
            total += count;
            let bound = match index {
                0..=HIGHEST => f64::from(1_u32 << index) / 1e6,
                _ => f64::INFINITY,
            };
            (bound, total)
        })
    }
}

/// The first bucket whose bound is not below this many microseconds.
fn bucket_of(micros: u64) -> usize {
    let bits = u64::BITS - micros.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bound of the bucket in which this duration alone is counted, as it is written.
    fn bound_of(duration: Duration) -> String {
        let mut histogram = Histogram::default();
        histogram.record(duration);
        let mut buckets = histogram.cumulative();
        buckets.find(|&(_, count)| count > 0).unwrap().0.to_string()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let nanos = Duration::from_nanos;
        for (duration, bound) in [
            (nanos(0), 1e-6),
            (nanos(1), 1e-6),
            (nanos(1_000), 1e-6),
            (nanos(1_001), 2e-6),
            (nanos(2_000), 2e-6),
            (nanos(2_001), 4e-6),
            (nanos(4_000), 4e-6),
            (nanos(4_001), 8e-6),
            (Duration::from_secs(1), 1.048_576),
            (Duration::from_micros(1 << 24), 16.777_216),
            (nanos((1 << 24) * 1_000 + 1), f64::INFINITY),
            (Duration::MAX, f64::INFINITY),
        ] {
            assert_eq!(bound_of(duration), bound.to_string(), "{duration:?}");
        }
    }

    #[test]
    fn counts_add_up_to_the_last_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.count(), histogram.sum()), (0, Duration::ZERO));
        for millis in [1, 1, 3, 1_000_000] {
            histogram.record(Duration::from_millis(millis));
        }
        assert_eq!(histogram.count(), 4);
        assert_eq!(histogram.sum(), Duration::from_millis(1_000_005));
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        let mut expected = vec![0; 10];
        expected.extend([2, 2, 3]); // Up to 1.024, 2.048 and 4.096 ms.
        expected.resize(BUCKETS - 1, 3);
        expected.push(4);
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_sum_that_is_beyond_counting_stays_at_its_highest() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.sum(), Duration::from_nanos(u64::MAX));
        assert_eq!(histogram.count(), 2);
    }

    proptest! {
        #[test]
        fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed(
            seconds in 0..40_u64,
            nanos in 0..1_000_000_000_u32,
            shift in 0..32_u32,
        ) {
            let duration = Duration::new(seconds >> shift.min(6), nanos >> shift);
            let expected = (0..=HIGHEST)
                .map(|power| Duration::from_micros(1 << power))
                .find(|&bound| duration <= bound)
                .map_or(f64::INFINITY, |bound| bound.as_secs_f64());
            prop_assert_eq!(bound_of(duration), expected.to_string());
        }
    }
}
