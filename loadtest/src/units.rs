//! Sizes and rates as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes: `20`, `64KiB`, `1MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ByteSize(pub usize);

const UNITS: [(&str, usize); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let wrong = || format!("{text:?} is not a size such as 20, 64KiB or 1MiB");
        let factor = match unit.trim_start() {
            "" => 1,
            unit => {
                UNITS
                    .iter()
                    .find(|(name, _)| *name == unit)
                    .ok_or_else(wrong)?
                    .1
            }
        };
        let number: usize = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(ByteSize).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

/// Three significant digits with `k` and `M`: `211 k`, `3.02 M`.
#[derive(Clone, Copy, Debug)]
pub struct Rate(pub f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scaled, unit) = match self.0 {
            rate if rate >= 999_500.0 => (rate / 1e6, " M"),
            rate if rate >= 999.5 => (rate / 1e3, " k"),
            rate => (rate, ""),
        };
        let decimals = match scaled {
            scaled if scaled >= 99.95 => 0,
            scaled if scaled >= 9.995 => 1,
            _ => 2,
        };
        f.pad(&format!("{scaled:.decimals$}{unit}"))
    }
}

/// Microseconds to at least three digits: `0.042`, `5.15`, `398`.
#[derive(Clone, Copy, Debug)]
pub struct Micros(pub f64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0 {
            micros if micros < 0.9995 => 3,
            micros if micros < 99.95 => 2,
            _ => 0,
        };
        f.pad(&format!("{:.decimals$}", self.0))
    }
}

/// A count as a number to calculate with; exact below 2⁵³, which no count of ours reaches.
#[expect(
    clippy::cast_precision_loss,
    reason = "nothing counted here comes near 2^53"
)]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!("20".parse(), Ok(ByteSize(20)));
        assert_eq!("20B".parse(), Ok(ByteSize(20)));
        assert_eq!("64KiB".parse(), Ok(ByteSize(65_536)));
        assert_eq!("1 MiB".parse(), Ok(ByteSize(1 << 20)));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "KiB", "1kb", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_divides_them() {
        assert_eq!(ByteSize(0).to_string(), "0 B");
        assert_eq!(ByteSize(20).to_string(), "20 B");
        assert_eq!(ByteSize(1024).to_string(), "1 KiB");
        assert_eq!(ByteSize(1 << 20).to_string(), "1 MiB");
        assert_eq!(ByteSize(1025).to_string(), "1025 B");
    }

    #[test]
    fn micros_keep_three_digits() {
        assert_eq!(Micros(0.042).to_string(), "0.042");
        assert_eq!(Micros(5.151).to_string(), "5.15");
        assert_eq!(Micros(398.04).to_string(), "398");
    }

    #[test]
    fn rates_keep_three_digits() {
        assert_eq!(Rate(0.5).to_string(), "0.50");
        assert_eq!(Rate(999.6).to_string(), "1.00 k");
        assert_eq!(Rate(2_350.0).to_string(), "2.35 k");
        assert_eq!(Rate(211_400.0).to_string(), "211 k");
        assert_eq!(Rate(999_600.0).to_string(), "1.00 M");
        assert_eq!(Rate(23_700_000.0).to_string(), "23.7 M");
    }
}
