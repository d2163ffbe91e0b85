//! Server-sent events, the format of `text/event-stream` (HTML §9.2).
//!
//! A text is an event without a name, a binary message is `event: binary` in base64, `event: reset`
//! says that what was missed is not known any more, and `event: lost` how many messages did not go
//! out. The id of an event is EPOCH:OFFSET where a history is kept. Of a pattern there are only the
//! data: neither the topic nor a position in it has a place in the format.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stentor::topic::Position;
use stentor::{MessageKind, Output, Publication};

pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// Writes a publication as an event; `has_id` where its subscriber can recover.
pub(super) fn encode(publication: &Publication<'_>, has_id: bool, output: &mut Output<'_>) {
    let position = publication.position.filter(|_| has_id);
    let message = publication.message;
    output.raw(&event(message.kind(), message.payload(), position.as_ref()));
}

fn event(kind: MessageKind, payload: &[u8], position: Option<&Position>) -> Vec<u8> {
    let mut event = Vec::with_capacity(payload.len() + 48);
    if let Some(position) = position {
        push_id(&mut event, position);
    }
    match kind {
        MessageKind::Text => push_data(&mut event, payload),
        MessageKind::Binary => {
            event.extend_from_slice(b"event: binary\n");
            push_data(&mut event, STANDARD.encode(payload).as_bytes());
        }
    }
    event.push(b'\n');
    event
}

/// When to come again after the connection broke.
pub(super) fn retry(millis: u64) -> Vec<u8> {
    format!("retry: {millis}\n\n").into_bytes()
}

/// Where the topic is: what comes next to it can be recovered. No event for scripts.
pub(super) fn position(position: &Position) -> Vec<u8> {
    let mut event = Vec::new();
    push_id(&mut event, position);
    event.push(b'\n');
    event
}

/// What was published since the last event is not known any more; it goes on from here.
pub(super) fn reset(position: Option<&Position>) -> Vec<u8> {
    let mut event = b"event: reset\n".to_vec();
    if let Some(position) = position {
        push_id(&mut event, position);
    }
    let data = position.map(id).unwrap_or_default();
    push_data(&mut event, data.as_bytes());
    event.push(b'\n');
    event
}

/// So many messages did not go out, because the connection was too slow for them.
pub(super) fn lost(count: u64) -> Vec<u8> {
    format!("event: lost\ndata: {count}\n\n").into_bytes()
}

fn id(position: &Position) -> String {
    format!("{}:{}", position.epoch, position.offset)
}

fn push_id(event: &mut Vec<u8>, position: &Position) {
    event.extend_from_slice(format!("id: {}\n", id(position)).as_bytes());
}

/// A field for each line; the client puts line feeds between them, whatever ended the lines here.
fn push_data(event: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(&text[..end.unwrap_or(text.len())]);
        event.push(b'\n');
        let Some(end) = end else { return };
        let is_pair = text[end..].starts_with(b"\r\n");
        text = &text[end + 1 + usize::from(is_pair)..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stentor::topic::Epoch;

    fn text(payload: &str) -> String {
        String::from_utf8(event(MessageKind::Text, payload.as_bytes(), None)).unwrap()
    }

    #[test]
    fn a_line_of_a_text_is_a_line_of_data() {
        for (payload, expected) in [
            ("", "data: \n\n"),
            ("a", "data: a\n\n"),
            (" a:b", "data:  a:b\n\n"),
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n\n"),
            ("a\r\r\nb", "data: a\ndata: \ndata: b\n\n"),
            ("\n", "data: \ndata: \n\n"),
            ("a\r\n", "data: a\ndata: \n\n"),
            ("\n\nid: 7", "data: \ndata: \ndata: id: 7\n\n"),
            ("grüße", "data: grüße\n\n"),
        ] {
            assert_eq!(text(payload), expected, "{payload:?}");
        }
    }

    #[test]
    fn bytes_are_base64_under_a_name_of_their_own() {
        let at = Position {
            epoch: Epoch::parse("abcdEFGH").unwrap(),
            offset: 7,
        };
        assert_eq!(
            event(MessageKind::Binary, b"\0\xFF\n", Some(&at)),
            b"id: abcdEFGH:7\nevent: binary\ndata: AP8K\n\n"
        );
        assert_eq!(
            event(MessageKind::Binary, b"", None),
            b"event: binary\ndata: \n\n"
        );
        assert_eq!(
            reset(Some(&at)),
            b"event: reset\nid: abcdEFGH:7\ndata: abcdEFGH:7\n\n"
        );
        assert_eq!(reset(None), b"event: reset\ndata: \n\n");
        assert_eq!(position(&at), b"id: abcdEFGH:7\n\n");
        assert_eq!(lost(3), b"event: lost\ndata: 3\n\n");
    }
}
