//! Which channels are asked for: `*` stands for any text, `?` for one character.

use regex::Regex;

/// What matches the same names; `None` if the pattern is too long for that.
pub(super) fn compile(pattern: &str) -> Option<Regex> {
    let mut regex = String::from("(?s)^");
    for character in pattern.chars() {
        match character {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            character => regex.push_str(&regex::escape(character.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    Regex::new(&regex).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_others() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "a:b", true),
            ("a:*", "a:b.c", true),
            ("a:*", "ba:c", false),
            ("*:b", "a:b\n", false),
            ("?", "ü", true),
            ("?", "", false),
            ("a?c*e", "abcde", true),
            ("a?c*e", "abcdef", false),
            ("a.c", "abc", false),
            ("[a]", "[a]", true),
            ("[a]", "a", false),
            ("$a^", "$a^", true),
            ("", "a", false),
        ] {
            let is_match = compile(pattern).unwrap().is_match(name);
            assert_eq!(is_match, expected, "{pattern} {name}");
        }
        assert!(compile(&"ü".repeat(1 << 20)).is_none());
    }
}
