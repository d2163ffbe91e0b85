//! What clients get unasked, written once for all that hear a channel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use stentor::{Cause, CloseCode, Form, MessageKind, Output, Publication};

use super::super::OWN;
use super::super::raw::line;
use super::codes::{self, Disconnect};
use super::json::Object;

/// Publications as the bidirectional protocol has them.
pub(super) const PUSH: Form = Form::custom(5);
/// ...the unidirectional one.
pub(super) const BARE: Form = Form::custom(6);
/// ...and that one as events.
pub(super) const EVENTS: Form = Form::custom(7);

/// Whether a form is one of here.
pub(in crate::broadcast) fn is_own(form: Form) -> bool {
    form.index() >= PUSH.index()
}

/// Writes a publication in a form of this module.
pub(in crate::broadcast) fn encode(
    form: Form,
    publication: &Publication<'_>,
    output: &mut Output<'_>,
) {
    let mut push = Vec::with_capacity(publication.message.payload().len() + 128);
    if publication.topic.starts_with(OWN) {
        // What the application tells itself is the inside of a push already.
        push.extend_from_slice(publication.message.payload());
    } else {
        push.extend_from_slice(b"\"channel\":");
        push.extend_from_slice(line(&publication.topic).as_bytes());
        push.extend_from_slice(b",\"pub\":");
        publication_json(publication, &mut push);
    }
    write(form, &push, output);
}

/// Writes the inside of a push as a form has it.
pub(super) fn write(form: Form, push: &[u8], output: &mut Output<'_>) {
    match form {
        PUSH => output.message(MessageKind::Text, &[b"{\"push\":{", push, b"}}"]),
        BARE => output.message(MessageKind::Text, &[b"{", push, b"}"]),
        _ => {
            output.raw(b"data: {");
            output.raw(push);
            output.raw(b"}\n\n");
        }
    }
}

/// Appends a publication as an object of JSON, in one line.
pub(in crate::broadcast) fn publication_json(publication: &Publication<'_>, json: &mut Vec<u8>) {
    json.extend_from_slice(b"{\"data\":");
    data_json(publication, json);
    if let Some(position) = publication.position {
        json.extend_from_slice(format!(",\"offset\":{}", position.offset).as_bytes());
    }
    if let Some(info) = publication.note.filter(|note| !note.is_empty()) {
        json.extend_from_slice(b",\"info\":");
        json.extend_from_slice(info);
    }
    if let Some(tags) = publication.tags {
        for (index, (name, value)) in tags.iter().enumerate() {
            json.extend_from_slice(if index == 0 { b",\"tags\":{" } else { b"," });
            json.extend_from_slice(line(&name).as_bytes());
            json.push(b':');
            json.extend_from_slice(line(&value).as_bytes());
        }
        json.extend_from_slice(if tags.is_empty() { b"" } else { b"}" });
    }
    json.push(b'}');
}

/// The data of a publication as JSON: that with a note was looked at when it was published; what was
/// published without a protocol is JSON, or else a string; bytes are a string in base64.
fn data_json(publication: &Publication<'_>, json: &mut Vec<u8>) {
    let payload = publication.message.payload();
    match publication.message.kind() {
        MessageKind::Binary => {
            json.push(b'"');
            json.extend_from_slice(STANDARD.encode(payload).as_bytes());
            json.push(b'"');
        }
        MessageKind::Text if publication.note.is_some() || is_json(payload) => {
            // A line feed in JSON is only whitespace.
            json.extend(
                payload
                    .iter()
                    .filter(|&&byte| byte != b'\n' && byte != b'\r'),
            );
        }
        MessageKind::Text => {
            let text = String::from_utf8_lossy(payload);
            json.extend_from_slice(line(&text).as_bytes());
        }
    }
}

pub(in crate::broadcast) fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// How the server ends connections of a form of here.
pub(in crate::broadcast) fn farewell(
    form: Form,
    cause: Cause,
    output: &mut Output<'_>,
) -> Option<(CloseCode, &'static str)> {
    let end = match cause {
        Cause::SlowConsumer => codes::SLOW,
        Cause::Shutdown => codes::SHUTDOWN,
        _ => return None,
    };
    if form != PUSH {
        write(form, disconnect(&end).as_bytes(), output);
    }
    let reason = match end.reason {
        std::borrow::Cow::Borrowed(reason) => reason,
        std::borrow::Cow::Owned(_) => "",
    };
    Some((CloseCode::new(end.code), reason))
}

/// The inside of a push that announces an end.
pub(super) fn disconnect(disconnect: &Disconnect) -> String {
    let end = Object::new()
        .number("code", disconnect.code.into())
        .text("reason", &disconnect.reason)
        .end();
    format!("\"disconnect\":{end}")
}

/// The inside of a push that ends a subscription.
pub(super) fn unsubscribe(channel: &str, code: u32, reason: &str) -> String {
    let end = Object::new()
        .number("code", code.into())
        .text("reason", reason)
        .end();
    about(channel, "unsubscribe", &end)
}

/// The inside of a push that tells who comes or goes.
pub(super) fn join_leave(channel: &str, what: &str, info: &str) -> String {
    about(channel, what, &format!("{{\"info\":{info}}}"))
}

/// The inside of a push about a channel.
pub(super) fn about(channel: &str, what: &str, json: &str) -> String {
    format!("\"channel\":{},\"{what}\":{json}", line(&channel))
}
