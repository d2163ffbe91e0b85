//! Values with units as people write them: `64KiB`, `25s`.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

/// Longer ones make no difference, and sums of them stay far from every overflow.
const LONGEST: Duration = Duration::from_hours(24);

/// What is kept in memory for longer belongs elsewhere.
const LONGEST_KEPT: Duration = Duration::from_hours(365 * 24);

/// Reads how many of something: `1000`.
///
/// # Errors
///
/// What is wrong, and how a number looks.
pub(super) fn count<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    let parsed = text.parse();
    parsed.map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "is too large".into(),
        _ => "is not a whole number, such as 1000".into(),
    })
}

/// Reads a number of bytes: `65536`, `64KiB`, `64kB`, `1MiB`.
///
/// # Errors
///
/// What is wrong, and how a size looks.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<usize>();
    let factor = factor(unit.trim_start()).filter(|_| digits > 0);
    let factor = factor.ok_or("is not a size, such as 64KiB, 64kB or 65536")?;
    let size = number.ok().and_then(|number| number.checked_mul(factor));
    size.ok_or_else(|| "is more than this machine can address".into())
}

fn factor(unit: &str) -> Option<usize> {
    let units = ["B", "kB", "MB", "GB", "KiB", "MiB", "GiB"];
    let factors = [1, 1000, 1_000_000, 1_000_000_000, 1 << 10, 1 << 20, 1 << 30];
    if unit.is_empty() {
        return Some(1);
    }
    let index = units
        .iter()
        .position(|known| known.eq_ignore_ascii_case(unit))?;
    Some(factors[index])
}

/// Reads a length of time: `500ms`, `25s`, `1m 30s`.
///
/// # Errors
///
/// What is wrong, and how a length of time looks.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    duration_up_to(text, LONGEST, "24h")
}

/// Reads how long something is kept: `5m`, `30d`.
///
/// # Errors
///
/// What is wrong, and how a length of time looks.
pub(super) fn long_duration(text: &str) -> Result<Duration, String> {
    duration_up_to(text, LONGEST_KEPT, "365d")
}

fn duration_up_to(text: &str, longest: Duration, name: &str) -> Result<Duration, String> {
    let duration = match text {
        // The only number that means the same in every unit.
        "0" => Duration::ZERO,
        text => humantime::parse_duration(text)
            .map_err(|_| "is not a length of time, such as 500ms, 25s or 1m30s")?,
    };
    if duration > longest {
        return Err(format!("is too long; {name} is the longest"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64kib", 65_536),
            ("64 KiB", 65_536),
            ("64kB", 64_000),
            ("1MiB", 1 << 20),
            ("2MB", 2_000_000),
            ("3GiB", 3 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_none_says_how_one_looks() {
        // `64k` means 64,000 to some and 65,536 to others.
        for text in ["", "KiB", "-1", "64k", "1.5MiB", "64KiBs", "0x40", "1 2"] {
            assert!(size(text).unwrap_err().contains("64KiB"), "{text}");
        }
        for text in ["99999999999999999999", "18446744073709551615GiB"] {
            assert!(size(text).unwrap_err().contains("more than"), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for text in ["25", "", "s", "-1s", "1.5 parsecs"] {
            assert!(duration(text).unwrap_err().contains("25s"), "{text}");
        }
        assert!(duration("500years").unwrap_err().contains("24h"));
        assert_eq!(long_duration("30d"), Ok(Duration::from_hours(30 * 24)));
        assert!(long_duration("366d").unwrap_err().contains("365d"));
    }
}
