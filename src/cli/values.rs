//! Values of a configuration file: their types, their units, and variables for what is secret.

use std::env;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use regex::Regex;
use toml::de::DeValue;

use super::choice;
use super::units;

/// Reads a text, or the variable of the environment that stands for it: `"${NAME}"`.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    let DeValue::String(text) = value else {
        return Err(format!("is {}; write a text, as in \"…\"", kind(value)));
    };
    let name = text
        .strip_prefix("${")
        .and_then(|text| text.strip_suffix('}'));
    match name {
        None => Ok(text.clone().into_owned()),
        Some(name) => match env::var(name) {
            Ok(text) if !text.is_empty() => Ok(text),
            _ => Err(format!(
                "the variable {} is not set; set it, or write the text itself",
                name.escape_debug()
            )),
        },
    }
}

/// Reads a text; an empty one says nothing.
pub(super) fn some_text(value: &DeValue<'_>) -> Result<Option<String>, String> {
    let text = text(value)?;
    Ok((!text.is_empty()).then_some(text))
}

/// Reads one text or a list of them, each with `read`.
pub(super) fn list<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Vec<T>, String> {
    let one = move |value: &DeValue<'_>| text(value).and_then(|text| quoting(&text, &read));
    move |value| match value.as_array() {
        Some(values) => values.iter().map(|value| one(value.get_ref())).collect(),
        None => Ok(vec![one(value)?]),
    }
}

/// Reads names with a text each.
pub(super) fn pairs(value: &DeValue<'_>) -> Result<Vec<(String, String)>, String> {
    let Some(table) = value.as_table() else {
        let is = kind(value);
        return Err(format!("is {is}; write {{ name = \"text\" }}"));
    };
    let entries = table.iter();
    let pairs = entries.map(|(name, value)| {
        let value = text(value.get_ref())?;
        Ok((name.get_ref().clone().into_owned(), value))
    });
    pairs.collect()
}

/// Reads how many of something.
pub(super) fn count<T: FromStr<Err = ParseIntError>>(value: &DeValue<'_>) -> Result<T, String> {
    quoting(&scalar(value, "a number, such as 1000")?, units::count)
}

/// Reads a number of bytes, with or without a unit.
pub(super) fn size(value: &DeValue<'_>) -> Result<usize, String> {
    quoting(
        &scalar(value, "a size, such as \"64KiB\" or 65536")?,
        units::size,
    )
}

/// Reads a length of time.
pub(super) fn time(value: &DeValue<'_>) -> Result<Duration, String> {
    quoting(&scalar(value, A_TIME)?, units::duration)
}

/// Reads how long something is kept.
pub(super) fn long_time(value: &DeValue<'_>) -> Result<Duration, String> {
    quoting(&scalar(value, A_TIME)?, units::long_duration)
}

const A_TIME: &str = "a length of time, such as \"25s\"";

/// Reads whether something is to be.
pub(super) fn yes(value: &DeValue<'_>) -> Result<bool, String> {
    let is = || format!("is {}; write true or false", kind(value));
    value.as_bool().ok_or_else(is)
}

/// Reads one of a few words.
pub(super) fn word<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl FnOnce(&DeValue<'_>) -> Result<T, String> {
    move |value| quoting(&text(value)?, read)
}

/// Reads one of these words.
pub(super) fn one_of<T: Copy>(
    known: &[(&str, T)],
) -> impl FnOnce(&DeValue<'_>) -> Result<T, String> {
    word(|text| choice::one_of(text, known))
}

/// Reads a regular expression; an empty one says nothing.
pub(super) fn regex(value: &DeValue<'_>) -> Result<Option<Regex>, String> {
    let compile = |text: String| {
        Regex::new(&text).map_err(|error| {
            let error = error.to_string();
            let problem = error.lines().last().unwrap_or_default();
            let problem = problem.trim_start_matches("error: ");
            format!(
                "`{}` is no regular expression: {problem}",
                text.escape_debug()
            )
        })
    };
    some_text(value)?.map(compile).transpose()
}

/// A value as the text that flags have for it.
fn scalar(value: &DeValue<'_>, wanted: &str) -> Result<String, String> {
    match value {
        DeValue::Integer(number) => {
            let parsed = i128::from_str_radix(number.as_str(), number.radix());
            Ok(parsed.map_or_else(|_| number.to_string(), |number| number.to_string()))
        }
        DeValue::String(_) => text(value),
        _ => Err(format!("is {}; write {wanted}", kind(value))),
    }
}

/// Reads a text; what is wrong with it is told behind it.
fn quoting<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    read(text).map_err(|problem| format!("`{}` {problem}", text.escape_debug()))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    fn read<T>(
        value: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let text = format!("a = {value}");
        let table = DeTable::parse(&text).unwrap();
        let (_, value) = table.get_ref().iter().next().unwrap();
        read(value.get_ref())
    }

    #[test]
    fn numbers_may_have_units() {
        assert_eq!(read("1_000", count::<u32>), Ok(1000));
        assert_eq!(read("0b11", size), Ok(3));
        assert_eq!(read("'64KiB'", size), Ok(64 << 10));
        assert_eq!(read("'300s'", time), Ok(Duration::from_mins(5)));
        assert_eq!(read("0", time), Ok(Duration::ZERO));
        assert_eq!(read("'720h'", long_time), Ok(Duration::from_hours(720)));
    }

    #[test]
    fn one_text_is_a_list_as_well() {
        let words = || list(|text| Ok(text.to_owned()));
        assert_eq!(read("'a'", words()), Ok(vec!["a".into()]));
        assert_eq!(
            read("['a', 'b']", words()),
            Ok(vec!["a".into(), "b".into()])
        );
        assert_eq!(
            read("{ b = 'c' }", pairs),
            Ok(vec![("b".into(), "c".into())])
        );
    }

    #[test]
    fn a_variable_stands_for_a_text_that_is_secret() {
        let path = env::var("PATH").unwrap();
        assert_eq!(read("'${PATH}'", text), Ok(path));
        assert_eq!(read("'$PATH'", text), Ok("$PATH".into()));
        assert_eq!(read("''", some_text), Ok(None));
        let error = read("'${NO VARIABLE}'", text).unwrap_err();
        assert!(
            error.starts_with("the variable NO VARIABLE is not set; "),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_another_type_says_which_one_it_has_to_be() {
        for (problem, expected) in [
            (
                read("1.5", count::<u8>).err(),
                "is a number; write a number",
            ),
            (read("300", count::<u8>).err(), "`300` is too large"),
            (read("-1", count::<u8>).err(), "`-1` is not a whole number"),
            (read("25", time).err(), "`25` is not a length of time"),
            (read("'64k'", size).err(), "`64k` is not a size"),
            (read("'yes'", yes).err(), "is a text; write true or false"),
            (read("1", text).err(), "is a number; write a text"),
            (read("[1]", list(|_| Ok(()))).err(), "is a number; write"),
            (read("'('", regex).err(), "`(` is no regular expression"),
            (
                read("'c'", one_of(&[("a", 1), ("b", 2)])).err(),
                "`c` is none of a, b",
            ),
        ] {
            let problem = problem.expect("it is wrong");
            assert!(problem.starts_with(expected), "{problem}");
            assert_eq!(problem.lines().count(), 1);
        }
    }
}
