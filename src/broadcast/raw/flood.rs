//! How often a network may publish over HTTP: a bucket of tokens for each, which holds what a second
//! brings.
//!
//! ```text
//! network ─▶ young ─(a second)─▶ old ─(a second)─▶ forgotten: full again
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// What an empty bucket takes to be full.
const FILLING: Duration = Duration::from_secs(1);

/// Buckets of one generation, of which there are two: 2.7 MB. Who publishes from more networks than
/// that within a second is not held back by a limit for each of them.
const MOST: usize = 1 << 14;

/// The buckets that are not full.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    /// When each that was taken from since `since` is full again, at most a second after that.
    young: HashMap<IpAddr, Instant>,
    /// Those of the generation before; who is in both counts as young.
    old: HashMap<IpAddr, Instant>,
    since: Option<Instant>,
}

impl Buckets {
    /// Takes a token of a network, of which `rate` a second come back; answers whether there was one.
    /// If not, there is one within a second.
    pub(super) fn take(&mut self, network: IpAddr, rate: NonZeroU32, now: Instant) -> bool {
        self.turn_over(now);
        let full = self.young.get(&network).or_else(|| self.old.get(&network));
        let missing = full.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        let missing = missing + FILLING / rate.get();
        if missing > FILLING {
            return false;
        }
        self.young.insert(network, now + missing);
        true
    }

    /// Begins a generation if the young one is a second old, and forgets the old one: it is full
    /// again. If the young one has no room before that, the old one is forgotten as well, in favour
    /// of who is in it.
    fn turn_over(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= FILLING || self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Buckets {
        fn len(&self) -> usize {
            self.young.len() + self.old.len()
        }
    }

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    fn network(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_second_is_worth_its_rate_at_once_and_then_one_token_at_a_time() {
        for rate in [1, 2, 3, 7, 1000, 10_000] {
            let (mut buckets, mut now) = (Buckets::default(), Instant::now());
            let token = FILLING / rate;
            let rate = self::rate(rate);
            for number in 0..rate.get() {
                assert!(buckets.take(network(1), rate, now), "{number} of {rate}");
            }
            for _ in 0..3 {
                assert!(!buckets.take(network(1), rate, now), "{rate}");
                // What was refused has cost nothing.
                assert!(!buckets.take(network(1), rate, now + token / 2), "{rate}");
                now += token;
                assert!(buckets.take(network(1), rate, now), "{rate}");
            }
            assert!(buckets.take(network(2), rate, now), "another network");
        }
    }

    /// A limit that is changed while the server runs holds at once, and nobody waits longer than a
    /// second.
    #[test]
    fn another_rate_holds_for_buckets_that_are_there() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for _ in 0..500 {
            assert!(buckets.take(network(1), rate(1000), now));
        }
        assert!(!buckets.take(network(1), rate(1), now));
        assert!(buckets.take(network(1), rate(2), now));
        assert!(!buckets.take(network(1), rate(1000), now));
        assert!(buckets.take(network(1), rate(1), now + FILLING));
    }

    #[test]
    fn more_networks_than_there_is_room_for_are_admitted_and_forgotten() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let many = u32::try_from(MOST).unwrap() * 3;
        for number in 0..many {
            assert!(buckets.take(network(number), rate(1), now));
            assert!(buckets.len() <= 2 * MOST);
        }
        assert!(
            !buckets.take(network(many - 1), rate(1), now),
            "it is known"
        );
        assert!(buckets.take(network(0), rate(1), now), "it is forgotten");
        for _ in 0..2 {
            let later = buckets.since.unwrap() + FILLING;
            assert!(buckets.take(network(0), rate(1), later));
        }
        assert_eq!(buckets.len(), 2, "one in each generation");
    }

    proptest! {
        /// Beside a bucket for each network that is never forgotten.
        #[test]
        fn buckets_are_those_of_a_table_that_forgets_nothing(
            acts in prop::collection::vec(
                (prop_oneof![Just(0), 0_u64..3_000_000, 0_u64..2_500_000_000], 0_u8..6, 0_usize..4),
                0..300,
            ),
            rates in prop::array::uniform4(prop_oneof![1_u32..5, 5_u32..2000, 1..=u32::MAX]),
        ) {
            let second = FILLING.as_nanos();
            let (mut buckets, mut now) = (Buckets::default(), Instant::now());
            let mut model = [second; 6];
            for (nanos, number, rate) in acts {
                let elapsed = Duration::from_nanos(nanos);
                now += elapsed;
                for level in &mut model {
                    *level = second.min(*level + elapsed.as_nanos());
                }
                let rate = rates[rate];
                let is_admitted = buckets.take(network(number.into()), self::rate(rate), now);
                let level = &mut model[usize::from(number)];
                let token = second / u128::from(rate);
                prop_assert_eq!(is_admitted, *level >= token);
                *level -= if is_admitted { token } else { 0 };
                // Who is not remembered is full.
                for (number, &level) in (0..).zip(&model) {
                    let number = network(number);
                    let is_known = buckets.young.contains_key(&number)
                        || buckets.old.contains_key(&number);
                    prop_assert!(is_known || level == second);
                }
            }
        }
    }
}
