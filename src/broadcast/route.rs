//! Paths: which topic, or what else.

use std::borrow::Cow;

use stentor::protocol::http::Response;
use stentor::topic::{TopicError, TopicTable};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// A topic, and its page: `/t/NAME`.
    Topic(Cow<'p, str>),
    /// The page of the console; for whoever asks for no page, the lobby: `/`.
    Console,
    /// The numbers and commands of the console: `/console/feed`.
    Feed,
    /// Where clients of the protocol connect.
    Clients,
    /// ...in one direction.
    UniWebSocket,
    /// ...by a stream of events.
    UniSse,
    /// The HTTP API, by the name of the method.
    Api(&'p str),
    /// What browsers ask for on their own.
    Icon,
    /// The topics that there are.
    Overview,
    /// Whether the server serves.
    Health,
    /// Its numbers.
    Metrics,
}

/// A path that names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotFound,
    BadName(&'static str),
}

impl<'p> Route<'p> {
    /// What this path, which is percent-encoded, names.
    pub(super) fn of(path: &'p [u8]) -> Result<Self, Refusal> {
        match path {
            b"/" => Ok(Self::Console),
            b"/console/feed" => Ok(Self::Feed),
            b"/favicon.ico" => Ok(Self::Icon),
            b"/connection/websocket" => Ok(Self::Clients),
            b"/connection/uni_websocket" => Ok(Self::UniWebSocket),
            b"/connection/uni_sse" => Ok(Self::UniSse),
            b"/topics" => Ok(Self::Overview),
            b"/livez" | b"/readyz" | b"/healthz" | b"/health" => Ok(Self::Health),
            b"/metrics" => Ok(Self::Metrics),
            path if path.starts_with(b"/api/") => str::from_utf8(&path[5..])
                .map(Self::Api)
                .map_err(|_| Refusal::NotFound),
            path => match path.strip_prefix(b"/t/") {
                Some(name) => topic(name).map(Self::Topic).map_err(Refusal::BadName),
                None => Err(Refusal::NotFound),
            },
        }
    }
}

/// The first character of names that are the program's own: clients name no such topics.
pub(super) const OWN: char = '@';

/// Where those meet who name no topic.
pub(super) const LOBBY: &str = "lobby";

/// The name of a topic or a pattern. It may hold slashes, written as such or as `%2F`.
fn topic(encoded: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    let name = match percent_decode(encoded).ok_or("a % is not followed by two hex digits")? {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).map(Cow::Borrowed).ok(),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
    };
    let name = name.ok_or("it is not UTF-8")?;
    if name.is_empty() {
        return Err("it is empty; write /t/NAME");
    }
    if name.len() > TopicTable::MAX_NAME_LEN {
        return Err("it is longer than 255 bytes");
    }
    if name.contains(char::is_control) {
        return Err("it holds a control character");
    }
    if name.starts_with(OWN) {
        return Err("it begins with @, as those of the server's own topics do");
    }
    TopicTable::check_name(&name).map_err(why_no_pattern)?;
    Ok(name)
}

/// What is wrong with a name that would be a good one if it had no wildcards.
fn why_no_pattern(error: TopicError) -> &'static str {
    match error {
        TopicError::OnlyWildcards => "it is of wildcards only; name a level, as in news.>",
        TopicError::MisplacedTail => "a > stands before its end",
        _ => "it has more levels than a pattern may have",
    }
}

/// RFC 3986 §2.1. `None` if a `%` is not followed by two hexadecimal digits.
pub(super) fn percent_decode(encoded: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !encoded.contains(&b'%') {
        return Some(Cow::Borrowed(encoded));
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(*bytes.next()?)? << 4 | hex_digit(*bytes.next()?)?,
            byte => byte,
        });
    }
    Some(Cow::Owned(decoded))
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Response::new(404).text("Not found. Topics are at /t/NAME.\n"),
            Refusal::BadName(problem) => {
                Response::new(400).text(format!("The name of the topic is not good: {problem}.\n"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic_of(path: &str) -> String {
        match Route::of(path.as_bytes()) {
            Ok(Route::Topic(name)) => name.into_owned(),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_path_names_a_topic() {
        assert_eq!(topic_of("/t/news"), "news");
        assert_eq!(topic_of("/t/gr%C3%BC%c3%9fe"), "grüße");
        assert_eq!(topic_of("/t/a/b%2Fc"), "a/b/c");
        assert_eq!(topic_of("/t/a+b%20c"), "a+b c");
        assert_eq!(topic_of("/t/%25"), "%");
        let longest = "x".repeat(255);
        assert_eq!(topic_of(&format!("/t/{longest}")), longest);
    }

    #[test]
    fn a_bad_name_is_refused_with_its_reason() {
        let longer = format!("/t/{}", "x".repeat(256));
        for (path, reason) in [
            ("/t/", "empty"),
            ("/t/%", "hex digits"),
            ("/t/%4", "hex digits"),
            ("/t/%+1", "hex digits"),
            ("/t/%ff", "UTF-8"),
            ("/t/%C3%28", "UTF-8"),
            ("/t/a%0d%0ab", "control"),
            ("/t/%C2%85", "control"),
            ("/t/@presence", "begins with @"),
            ("/t/%40presence", "begins with @"),
            ("/t/>", "wildcards only"),
            ("/t/*.*", "wildcards only"),
            ("/t/a.>.b", "> stands before"),
            ("/t/*.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q", "more levels"),
            (&longer, "255"),
        ] {
            let Err(Refusal::BadName(problem)) = Route::of(path.as_bytes()) else {
                panic!("{path} is refused")
            };
            assert!(problem.contains(reason), "{path}: {problem}");
        }
    }

    #[test]
    fn other_paths_are_not_there() {
        for path in [
            "/t",
            "/T/news",
            "//",
            "/index.html",
            "*",
            "/t%2Fnews",
            "/Metrics",
            "/topics/",
            "/console",
            "/console/feed/",
        ] {
            assert_eq!(Route::of(path.as_bytes()), Err(Refusal::NotFound), "{path}");
        }
        assert_eq!(Route::of(b"/"), Ok(Route::Console));
        assert_eq!(Route::of(b"/console/feed"), Ok(Route::Feed));
        assert_eq!(Route::of(b"/favicon.ico"), Ok(Route::Icon));
        assert_eq!(Route::of(b"/topics"), Ok(Route::Overview));
        assert_eq!(Route::of(b"/metrics"), Ok(Route::Metrics));
        for path in ["/livez", "/readyz", "/healthz", "/health"] {
            assert_eq!(Route::of(path.as_bytes()), Ok(Route::Health), "{path}");
        }
    }
}
