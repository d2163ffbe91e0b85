//! Values that are one of a few words, and the word that was probably meant.

use stentor::SlowPolicy;

use stentor::broadcast::Who;

/// Reads who may do something.
///
/// # Errors
///
/// What is wrong, and which words there are.
pub(super) fn who(text: &str) -> Result<Who, String> {
    one_of(text, &[("anyone", Who::Anyone), ("nobody", Who::Nobody)])
}

/// Reads what becomes of messages for slow subscribers.
///
/// # Errors
///
/// What is wrong, and which words there are.
pub(super) fn slow_policy(text: &str) -> Result<SlowPolicy, String> {
    let policies = [
        ("disconnect", SlowPolicy::Disconnect),
        ("drop-newest", SlowPolicy::DropNewest),
        ("drop-oldest", SlowPolicy::DropOldest),
        ("latest", SlowPolicy::Latest),
    ];
    one_of(text, &policies)
}

/// Reads whether something is to be.
///
/// # Errors
///
/// What is wrong, and which words there are.
pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    one_of(text, &[("yes", true), ("no", false)])
}

/// Reads one of these words.
///
/// # Errors
///
/// What is wrong, and which words there are.
pub(super) fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    // Of two words the other one may be the opposite of what is meant.
    let hint = match names.len() {
        2 => String::new(),
        _ => hint(text, &names),
    };
    Err(format!("is none of {}{hint}", names.join(", ")))
}

/// The question whether the nearest of the known words is meant; empty if none is near.
pub(super) fn hint(text: &str, known: &[&str]) -> String {
    /// Below this a word is another one and not misspelt.
    const NEAR: f64 = 0.75;
    let scored = known
        .iter()
        .map(|name| (strsim::jaro_winkler(text, name), name));
    let nearest = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest {
        Some((score, name)) if score >= NEAR => format!("; is `{name}` meant?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_none_of_them_gets_the_nearest() {
        assert_eq!(who("nobody"), Ok(Who::Nobody));
        assert_eq!(slow_policy("latest"), Ok(SlowPolicy::Latest));
        assert_eq!(yes_or_no("yes"), Ok(true));
        for (problem, hint) in [
            (who("anybody").unwrap_err(), "is none of anyone, nobody"),
            (
                slow_policy("drop-old").unwrap_err(),
                "; is `drop-oldest` meant?",
            ),
            (slow_policy("close").unwrap_err(), "drop-oldest, latest"),
            (yes_or_no("true").unwrap_err(), "is none of yes, no"),
        ] {
            assert!(problem.ends_with(hint), "{problem}");
        }
    }
}
