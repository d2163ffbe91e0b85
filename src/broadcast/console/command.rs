//! What a watcher says: one JSON object with one member.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use stentor::{Message, MessageKind};

/// How long a command may be, in bytes: a name, and a message as somebody types it.
pub(super) const MOST_COMMAND: usize = 4096;

/// A command.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Command<'a> {
    /// What opens the console.
    #[serde(borrow)]
    Key(Word<'a>),
    /// Listen to this topic or pattern instead of what was listened to; to none.
    #[serde(borrow)]
    Tail(Option<Word<'a>>),
    /// Who is in this topic.
    #[serde(borrow)]
    Presence(Word<'a>),
    /// What was published to this topic.
    #[serde(borrow)]
    History(Word<'a>),
    /// Publish to this topic: the text of a string, or the JSON that it is.
    Publish {
        #[serde(borrow)]
        topic: Word<'a>,
        #[serde(borrow)]
        data: &'a RawValue,
    },
}

/// A text, borrowed unless it has escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Word<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'a> Command<'a> {
    /// Reads a command; `None` for what is none.
    pub(super) fn parse(message: Message<'a>) -> Option<Self> {
        let bytes = message.payload();
        if message.kind() != MessageKind::Text || bytes.len() > MOST_COMMAND {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    }
}

/// The message that is meant: what a string says, and other JSON as it stands.
pub(super) fn text_of(data: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<Word<'_>>(data.get()) {
        Ok(Word(text)) => text,
        Err(_) => Cow::Borrowed(data.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Command<'_>> {
        Command::parse(Message::text(text))
    }

    #[test]
    fn a_command_is_an_object_with_one_member() {
        assert!(
            matches!(parse(r#"{"key":"a\nb"}"#), Some(Command::Key(Word(key))) if key == "a\nb")
        );
        assert!(
            matches!(parse(r#"{"tail":"a"}"#), Some(Command::Tail(Some(Word(topic)))) if topic == "a")
        );
        assert!(matches!(
            parse(r#"{"tail":null}"#),
            Some(Command::Tail(None))
        ));
        assert!(matches!(
            parse(r#" {"presence" : "a"} "#),
            Some(Command::Presence(_))
        ));
        assert!(matches!(
            parse(r#"{"history":"a"}"#),
            Some(Command::History(_))
        ));
        for (data, text) in [
            (r#""a\"b""#, "a\"b"),
            (r#"{"a": 1.0}"#, r#"{"a": 1.0}"#),
            ("null", "null"),
        ] {
            let command = format!(r#"{{"publish":{{"topic":"t","data":{data}}}}}"#);
            let Some(Command::Publish { topic, data }) = parse(&command) else {
                panic!("{command}")
            };
            assert_eq!((&*topic.0, &*text_of(data)), ("t", text));
        }
    }

    #[test]
    fn what_is_none_is_no_command() {
        for text in [
            "",
            "{}",
            "[]",
            "\"tail\"",
            r#"{"tail":7}"#,
            r#"{"tail":"a","key":"b"}"#,
            r#"{"shutdown":null}"#,
            r#"{"publish":{"topic":"t"}}"#,
            r#"{"key":null}"#,
            r#"{"tail":"a"} {}"#,
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(Command::parse(Message::binary(br#"{"tail":"a"}"#)).is_none());
        let deep = "[".repeat(MOST_COMMAND);
        assert!(parse(&deep).is_none());
    }

    #[test]
    fn a_command_is_at_most_4_kib_long() {
        let of = |len: usize| format!(r#"{{"tail":"{}"}}"#, "x".repeat(len - 11));
        assert!(parse(&of(MOST_COMMAND)).is_some());
        assert!(parse(&of(MOST_COMMAND + 1)).is_none());
    }
}
