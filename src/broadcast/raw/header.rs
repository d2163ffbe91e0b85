//! Messages with a header: a line of JSON, and the payload behind it. What the server itself has to
//! say is JSON alone.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use stentor::topic::Position;
use stentor::{Output, Publication, Tags};

use super::super::OWN;

/// The subprotocol that is this form.
pub(super) const SUBPROTOCOL: &str = "stentor.header.v1";

/// Writes a publication as a message with a header; `tells_topic` where the subscriber cannot know
/// the topic.
pub(super) fn encode(publication: &Publication<'_>, tells_topic: bool, output: &mut Output<'_>) {
    let message = publication.message;
    if publication.topic.starts_with(OWN) {
        // What the program tells about a topic is a header already.
        return output.message(message.kind(), &[message.payload()]);
    }
    let mut line = line(&Header {
        topic: tells_topic.then_some(publication.topic),
        offset: publication.position.map(|position| position.offset),
        tags: publication.tags.map(Names),
    });
    line.push('\n');
    output.message(message.kind(), &[line.as_bytes(), message.payload()]);
}

/// The first message of a connection with headers.
pub(super) fn subscribed(
    topic: &str,
    position: Option<&Position>,
    recovered: Option<bool>,
) -> String {
    line(&Greeting {
        subscribed: topic,
        epoch: position.map(|position| position.epoch.as_str()),
        offset: position.map(|position| position.offset),
        recovered,
    })
}

/// So many messages did not go out, because the connection was too slow for them.
pub(in crate::broadcast) fn lost(count: u64) -> String {
    line(&Lost { lost: count })
}

/// One line of JSON.
pub(in crate::broadcast) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names are text, and nothing else can fail")
}

#[derive(Serialize)]
struct Header<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Names<'a>>,
}

#[derive(Serialize)]
struct Greeting<'a> {
    subscribed: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
}

#[derive(Serialize)]
struct Lost {
    lost: u64,
}

/// Tags as an object.
struct Names<'a>(&'a Tags);

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let tags: Tags = [("a\"b".into(), "\n\u{1}".into())].into();
        let header = Header {
            topic: Some("grüße \\"),
            offset: None,
            tags: Some(Names(&tags)),
        };
        let expected = r#"{"topic":"grüße \\","tags":{"a\"b":"\n\u0001"}}"#;
        assert_eq!(line(&header), expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(subscribed("a", None, None), r#"{"subscribed":"a"}"#);
        assert_eq!(
            subscribed("a", None, Some(false)),
            r#"{"subscribed":"a","recovered":false}"#
        );
        assert_eq!(lost(3), r#"{"lost":3}"#);
    }
}
