//! What a subscriber asks for in the query of its request.

use stentor::protocol::http::{Request, Response};

use super::super::route::percent_decode;

/// The most publications of the past that one request gets: a screen or two of a conversation, and
/// less than a slow line takes in a moment.
const MOST_HISTORY: usize = 300;

/// The most that a subscriber says of itself, in bytes: all others learn it.
const MOST_INFO: usize = 1024;

/// How the info of clients of the protocol begins: nobody else may pass for one.
const CLIENT: &str = "{\"client\":\"";

/// What a subscriber asks for; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// How many of the last publications come first.
    pub(super) history: usize,
    /// What was read before.
    pub(super) since: Option<Since>,
    /// Each message has a header.
    pub(super) header: bool,
    /// It wants to know who comes and goes.
    pub(super) presence: bool,
    /// What others learn of it.
    pub(super) info: Vec<u8>,
}

/// How far a subscriber had read when it was interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Since {
    Position {
        epoch: String,
        offset: u64,
    },
    /// It names none that this server has ever told.
    Unknown,
}

impl Since {
    /// Reads the id of an event, as `events` writes it: EPOCH:OFFSET.
    fn of_id(id: &str) -> Option<Self> {
        let (epoch, offset) = id.split_once(':')?;
        let offset = offset.parse().ok().filter(|_| is_number(offset))?;
        is_epoch(epoch).then(|| Self::Position {
            epoch: epoch.into(),
            offset,
        })
    }
}

/// A parameter that cannot be used: which, and how it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadParameter {
    name: &'static str,
    problem: &'static str,
}

impl From<BadParameter> for Response {
    fn from(BadParameter { name, problem }: BadParameter) -> Self {
        Self::new(400).text(format!("The parameter {name} is not good: {problem}.\n"))
    }
}

impl Wish {
    /// Reads the query of a request. What it names beyond this is somebody else's.
    pub(super) fn of(request: &Request<'_>) -> Result<Self, BadParameter> {
        Self::of_query(request.query().unwrap_or_default())
    }

    /// Goes on behind the last event that a browser got, whose id it repeats. A server that was
    /// here before may have had other ids.
    pub(super) fn after_last_event(mut self, request: &Request<'_>) -> Self {
        let last = request.header("last-event-id").filter(|id| !id.is_empty());
        if let Some(id) = last {
            let since = str::from_utf8(id).ok().and_then(Since::of_id);
            self.since = Some(since.unwrap_or(Since::Unknown));
        }
        self
    }

    fn of_query(query: &[u8]) -> Result<Self, BadParameter> {
        let mut wish = Self::default();
        let (mut epoch, mut offset) = (None, None);
        for pair in query.split(|&byte| byte == b'&') {
            let mut parts = pair.splitn(2, |&byte| byte == b'=');
            let name = parts.next().unwrap_or_default();
            let Some((name, how)) = PARAMETERS
                .iter()
                .find(|(known, _)| known.as_bytes() == name)
            else {
                continue;
            };
            let wrong = BadParameter { name, problem: how };
            let value = decode(parts.next().unwrap_or_default()).ok_or(wrong.clone())?;
            let is_good = match *name {
                "history" => set(&mut wish.history, number(&value).filter(is_within_limit)),
                "epoch" => set(&mut epoch, is_epoch(&value).then_some(Some(value))),
                "offset" => set(&mut offset, number::<u64>(&value).map(Some)),
                "header" => set(&mut wish.header, flag(&value)),
                "presence" => set(&mut wish.presence, flag(&value)),
                "last-event-id" => set(&mut wish.since, Since::of_id(&value).map(Some)),
                _ => set(
                    &mut wish.info,
                    (value.len() <= MOST_INFO && !value.starts_with(CLIENT)).then(|| value.into()),
                ),
            };
            if !is_good {
                return Err(wrong);
            }
        }
        match (epoch, offset) {
            (Some(epoch), Some(offset)) => wish.since = Some(Since::Position { epoch, offset }),
            (None, None) => {}
            (None, _) => return Err(alone("offset", "epoch and offset go together")),
            (_, None) => return Err(alone("epoch", "epoch and offset go together")),
        }
        Ok(wish)
    }

    /// Whether it asks for anything of the past.
    pub(super) fn looks_back(&self) -> bool {
        self.history > 0 || self.since.is_some()
    }
}

/// The parameters, and how each should be.
const PARAMETERS: [(&str, &str); 7] = [
    (
        "history",
        "it is how many of the last messages come first, at most 300, as in history=10",
    ),
    (
        "epoch",
        "it is the eight letters that the server told, beside offset",
    ),
    (
        "offset",
        "it is the number that the server told, beside epoch",
    ),
    ("header", "it is 1, or left out"),
    ("presence", "it is 1, or left out"),
    ("last-event-id", "it is the id of an event, EPOCH:OFFSET"),
    (
        "info",
        "it is JSON or text in UTF-8 of at most 1024 bytes, and no object that begins with \"client\"",
    ),
];

pub(super) fn alone(name: &'static str, problem: &'static str) -> BadParameter {
    BadParameter { name, problem }
}

/// Sets what is asked for, if it was understood; answers whether it was.
fn set<T>(place: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *place = value;
            true
        }
        None => false,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "a filter lends")]
fn is_within_limit(count: &usize) -> bool {
    *count <= MOST_HISTORY
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) // `parse` takes a plus sign as well.
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| is_number(text))
}

fn is_epoch(text: &str) -> bool {
    stentor::topic::Epoch::parse(text).is_some()
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

/// A value as forms and `URLSearchParams` encode it: percent-encoded UTF-8, with `+` for a space.
fn decode(encoded: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = encoded
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    String::from_utf8(percent_decode(&spaced)?.into_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(query: &str) -> Wish {
        Wish::of_query(query.as_bytes()).unwrap()
    }

    #[test]
    fn a_query_says_what_is_wanted() {
        assert_eq!(wish(""), Wish::default());
        assert_eq!(wish("later=1&&=&x&HISTORY=x"), Wish::default());
        assert_eq!(wish("history=300&header=1").history, 300);
        let wish = wish("epoch=abcdEFGH&offset=7&presence=1&header=1&info=%7B%22a%22:+%2B1}");
        let since = Since::Position {
            epoch: "abcdEFGH".into(),
            offset: 7,
        };
        assert_eq!(wish.since, Some(since));
        assert!(wish.header && wish.presence && wish.looks_back());
        assert_eq!(wish.info, br#"{"a": +1}"#);
    }

    #[test]
    fn the_id_of_an_event_is_a_position() {
        let since = Since::Position {
            epoch: "abcdEFGH".into(),
            offset: 7,
        };
        assert_eq!(wish("last-event-id=abcdEFGH:7").since, Some(since));
        for id in ["", "7", "abcdEFGH", "abcdEFGH:", "abc:7", "abcdEFGH:+7"] {
            assert_eq!(Since::of_id(id), None, "{id}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named_with_how_it_should_be() {
        let long = format!("info={}", "x".repeat(1025));
        for (query, name, how) in [
            ("history=301", "history", "at most 300"),
            ("history=", "history", "at most 300"),
            ("history", "history", "at most 300"),
            ("history=-1", "history", "at most 300"),
            ("history=%2B1", "history", "at most 300"),
            ("history=ten", "history", "at most 300"),
            ("epoch=short&offset=1", "epoch", "eight letters"),
            ("epoch=abcdEFGH", "epoch", "go together"),
            ("offset=1", "offset", "go together"),
            ("epoch=abcdEFGH&offset=x", "offset", "number"),
            ("header=yes", "header", "it is 1"),
            ("presence=true", "presence", "it is 1"),
            ("last-event-id=7", "last-event-id", "EPOCH:OFFSET"),
            ("info=%ff", "info", "UTF-8"),
            ("info=%f", "info", "UTF-8"),
            ("info={%22client%22:%22x%22}", "info", "begins with"),
            (&long, "info", "1024"),
        ] {
            let bad = Wish::of_query(query.as_bytes()).unwrap_err();
            assert_eq!(bad.name, name, "{query}");
            assert!(bad.problem.contains(how), "{query}: {bad:?}");
        }
        assert_eq!(wish(&long[..long.len() - 1]).info.len(), 1024);
    }
}
