//! What people write, for the benches that validate it.

/// One text of each kind.
pub(crate) const TEXTS: [(&str, &str); 4] = [
    (
        "ascii",
        "Stentor shouted with a voice as loud as fifty men. ",
    ),
    (
        "cjk",
        "斯滕托尔的喊声像五十个人一样响亮。ステントールは大声で叫んだ。",
    ),
    (
        "emoji",
        "\u{1f4e3}\u{1f5e3}\u{fe0f}\u{1f469}\u{200d}\u{1f680}\u{1f44d}\u{1f3fd}\u{1f389}",
    ),
    (
        "mixed",
        "{\"from\":\"Zoë\",\"text\":\"merci, 谢谢, спасибо \u{1f64f}\",\"room\":12} ",
    ),
];

/// The text, repeated up to the last whole code point within `len` bytes.
pub(crate) fn repeated(text: &str, len: usize) -> String {
    let mut repeated = text.repeat(len / text.len() + 1);
    repeated.truncate(repeated.floor_char_boundary(len));
    repeated
}
