//! Payloads of an exact length that no server can recognise.

use std::fmt;

use crate::frame::Opcode;

/// What messages are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Random bytes in binary messages.
    Binary,
    /// Printable ASCII in text messages.
    Ascii,
    /// Chinese characters in text messages, three bytes each: the costly case of UTF-8 validation.
    Cjk,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Binary => "binary",
            Kind::Ascii => "ascii",
            Kind::Cjk => "cjk",
        })
    }
}

impl Kind {
    /// The opcode of messages of this kind.
    pub const fn opcode(self) -> Opcode {
        match self {
            Kind::Binary => Opcode::Binary,
            Kind::Ascii | Kind::Cjk => Opcode::Text,
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
        }
    }
}

fn ascii(len: usize) -> Vec<u8> {
    (0..len).map(|_| fastrand::u8(b' '..=b'~')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_length_and_text_is_utf8() {
        for len in [0, 1, 2, 3, 20, 125, 126, 1024] {
            for kind in [Kind::Binary, Kind::Ascii, Kind::Cjk] {
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
}
