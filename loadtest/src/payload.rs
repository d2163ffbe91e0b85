//! Payloads of an exact length that no server can recognise.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stentor::protocol::MessageKind;

use crate::units::ByteSize;

/// What messages are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Random bytes in binary messages.
    Binary,
    /// Printable ASCII in text messages.
    Ascii,
    /// Chinese characters in text messages, three bytes each: the costly case of UTF-8 validation.
    Cjk,
    /// Several scripts and symbols in text messages, one to four bytes a character, in no order.
    Mixed,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Binary => "binary",
            Kind::Ascii => "ascii",
            Kind::Cjk => "cjk",
            Kind::Mixed => "mixed",
        })
    }
}

impl Kind {
    /// Text or binary.
    pub const fn message_kind(self) -> MessageKind {
        match self {
            Kind::Binary => MessageKind::Binary,
            Kind::Ascii | Kind::Cjk | Kind::Mixed => MessageKind::Text,
        }
    }

    /// A random payload of exactly `len` bytes.
    pub fn payload(self, len: usize) -> Vec<u8> {
        match self {
            Kind::Binary => {
                let mut bytes = vec![0; len];
                fastrand::fill(&mut bytes);
                bytes
            }
            Kind::Ascii => ascii(len),
            Kind::Cjk => {
                let characters = (0..len / 3).map(|_| fastrand::char('\u{4e00}'..='\u{9fff}'));
                let mut bytes = characters.collect::<String>().into_bytes();
                bytes.extend(ascii(len % 3));
                bytes
            }
            Kind::Mixed => mixed(len),
        }
    }
}

fn mixed(len: usize) -> Vec<u8> {
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let character = match fastrand::u8(..4) {
            0 => fastrand::char(' '..='~'),
            1 => fastrand::char('а'..='я'),
            2 => fastrand::char('\u{4e00}'..='\u{9fff}'),
            _ => fastrand::char('\u{1f300}'..='\u{1f5ff}'),
        };
        if text.len() + character.len_utf8() <= len {
            text.push(character);
        }
    }
    text.into_bytes()
}

fn ascii(len: usize) -> Vec<u8> {
    (0..len).map(|_| fastrand::u8(b' '..=b'~')).collect()
}

/// Payload lengths: one, any of a range, or several with their weights.
///
/// `20`, `16..1KiB` (both ends included), `20:90,1KiB:9,64KiB:1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sizes {
    /// Always the same.
    Single(usize),
    /// Any of these, all as often.
    Range(usize, usize),
    /// Each as often as its weight says.
    Weighted(Vec<(usize, u32)>),
}

impl Sizes {
    /// The size, if there is only one.
    pub fn single(&self) -> Option<usize> {
        match self {
            Sizes::Single(size) => Some(*size),
            _ => None,
        }
    }

    /// The largest there is.
    pub fn largest(&self) -> usize {
        match self {
            Sizes::Single(size) | Sizes::Range(_, size) => *size,
            Sizes::Weighted(sizes) => sizes.iter().map(|(size, _)| *size).max().unwrap_or(0),
        }
    }

    /// The smallest there is.
    pub fn smallest(&self) -> usize {
        match self {
            Sizes::Single(size) | Sizes::Range(size, _) => *size,
            Sizes::Weighted(sizes) => sizes.iter().map(|(size, _)| *size).min().unwrap_or(0),
        }
    }

    /// One of them at random.
    pub fn draw(&self) -> usize {
        match self {
            Sizes::Single(size) => *size,
            Sizes::Range(least, most) => fastrand::usize(*least..=*most),
            Sizes::Weighted(sizes) => {
                let all: u32 = sizes.iter().map(|(_, weight)| weight).sum();
                let mut left = fastrand::u32(..all);
                for (size, weight) in sizes {
                    match left.checked_sub(*weight) {
                        Some(rest) => left = rest,
                        None => return *size,
                    }
                }
                unreachable!("what is drawn is less than all weights together")
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| text.parse::<ByteSize>().map(|ByteSize(size)| size);
        if let Some((least, most)) = text.split_once("..") {
            let (least, most) = (size(least)?, size(most)?);
            if least > most {
                return Err(format!("{text:?} ends before it begins"));
            }
            return Ok(Sizes::Range(least, most));
        }
        if !text.contains(':') {
            return size(text).map(Sizes::Single);
        }
        let weighted = text.split(',').map(|part| {
            let wrong = || format!("{part:?} is not SIZE:WEIGHT, such as 1KiB:9");
            let (bytes, weight) = part.split_once(':').ok_or_else(wrong)?;
            // So many weights of so much do not exceed what is drawn from.
            let weight: u16 = weight
                .parse()
                .ok()
                .filter(|weight| *weight > 0)
                .ok_or_else(wrong)?;
            Ok((size(bytes)?, u32::from(weight)))
        });
        weighted.collect::<Result<_, String>>().map(Sizes::Weighted)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Single(size) => write!(f, "{}", ByteSize(*size)),
            Sizes::Range(least, most) => write!(f, "{}..{}", ByteSize(*least), ByteSize(*most)),
            Sizes::Weighted(sizes) => {
                for (index, (size, weight)) in sizes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{}:{weight}", ByteSize(*size))?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_length_and_text_is_utf8() {
        for len in [0, 1, 2, 3, 20, 125, 126, 1024] {
            for kind in [Kind::Binary, Kind::Ascii, Kind::Cjk, Kind::Mixed] {
                let payload = kind.payload(len);
                assert_eq!(payload.len(), len);
                assert!(kind == Kind::Binary || std::str::from_utf8(&payload).is_ok());
            }
        }
        assert!(Kind::Ascii.payload(1024).is_ascii());
        assert_eq!(
            std::str::from_utf8(&Kind::Cjk.payload(1022))
                .unwrap()
                .chars()
                .count(),
            340 + 2
        );
    }

    #[test]
    fn sizes_are_read_and_written_alike() {
        for (text, sizes) in [
            ("20 B", Sizes::Single(20)),
            ("16 B..1 KiB", Sizes::Range(16, 1024)),
            (
                "20 B:90, 1 KiB:9",
                Sizes::Weighted(vec![(20, 90), (1024, 9)]),
            ),
        ] {
            assert_eq!(text.replace(' ', "").parse(), Ok(sizes.clone()));
            assert_eq!(sizes.to_string(), text);
        }
        for wrong in [
            "", "a", "5..3", "20:0", "20:", "20:1,", "1..2..3", "20:99999",
        ] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_drawn_as_often_as_they_weigh() {
        let range = Sizes::Range(5, 7);
        assert!((0..100).all(|_| (5..=7).contains(&range.draw())));
        let weighted = Sizes::Weighted(vec![(1, 3), (2, 1)]);
        let ones = (0..10_000).filter(|_| weighted.draw() == 1).count();
        assert!((7_000..8_000).contains(&ones), "{ones} of 10,000");
        assert_eq!((weighted.smallest(), weighted.largest()), (1, 2));
    }
}
