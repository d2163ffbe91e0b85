//! What clients get unasked, written once for all that hear a channel.

use std::borrow::Cow;

use stentor::{Cause, CloseCode, Form, MessageKind, Output, Publication};

use super::super::OWN;
use super::codes::{self, Disconnect};
use super::info::info_record;
use super::record::{Codec, Field, Record, in_base64, json_of};

/// Publications as the bidirectional protocol has them, in JSON.
pub(super) const PUSH: Form = Form::custom(5);
/// ...and in Protobuf.
pub(super) const PROTOBUF: Form = Form::custom(6);
/// ...as the unidirectional one has them.
pub(super) const BARE: Form = Form::custom(7);
/// ...and that one as events.
pub(super) const EVENTS: Form = Form::custom(8);

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
    let codec = if form == PROTOBUF {
        Codec::Protobuf
    } else {
        Codec::Json
    };
    // What the application tells itself is a push already: the message in JSON, the note in Protobuf.
    match codec {
        Codec::Json if publication.topic.starts_with(OWN) => {
            write(form, publication.message.payload(), output);
        }
        Codec::Protobuf if publication.topic.starts_with(OWN) => {
            write(form, publication.note.unwrap_or_default(), output);
        }
        _ => {
            let record = publication_record(codec, publication);
            write(form, &about(codec, publication.topic, PUB, &record), output);
        }
    }
}

/// Writes a push as a form has it.
fn write(form: Form, push: &[u8], output: &mut Output<'_>) {
    match form {
        PUSH => output.message(MessageKind::Text, &[b"{\"push\":", push, b"}"]),
        PROTOBUF => output.message(MessageKind::Binary, &[&reply(Codec::Protobuf, push)]),
        BARE => output.message(MessageKind::Text, &[push]),
        _ => {
            output.raw(b"data: ");
            output.raw(push);
            output.raw(b"\n\n");
        }
    }
}

/// A push to a client that may send as well, as a frame of its own.
pub(super) fn reply(codec: Codec, push: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(push.len() + 16);
    let reply = Record::new(codec).record(("push", 4), push).end();
    codec.append(&reply, &mut frame);
    frame
}

/// A publication as a message of the protocol.
pub(in crate::broadcast) fn publication_record(
    codec: Codec,
    publication: &Publication<'_>,
) -> Vec<u8> {
    let mut record = Record::new(codec).json(("data", 4), &data(codec, publication));
    if let Some(position) = publication.position {
        record = record.number(("offset", 6), position.offset);
    }
    if let Some(info) = publication.note.filter(|note| !note.is_empty()) {
        record = record.record(("info", 5), &info_record(codec, info));
    }
    if let Some(tags) = publication.tags.filter(|tags| !tags.is_empty()) {
        let tags = tags.iter();
        record = record.map(
            ("tags", 7),
            tags.map(|(name, value)| (name, codec.text_value(value))),
        );
    }
    record.end()
}

/// The data of a publication. In JSON, that with a note was looked at when it was published; what
/// was published without a protocol is JSON, or else a string; bytes are a string in base64.
fn data<'p>(codec: Codec, publication: &Publication<'p>) -> Cow<'p, [u8]> {
    let payload = publication.message.payload();
    match (codec, publication.message.kind()) {
        (Codec::Protobuf, _) => Cow::Borrowed(payload),
        (Codec::Json, MessageKind::Binary) => Cow::Owned(in_base64(payload)),
        (Codec::Json, MessageKind::Text) if publication.note.is_some() => Cow::Borrowed(payload),
        (Codec::Json, MessageKind::Text) => json_of(payload),
    }
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
    if matches!(form, BARE | EVENTS) {
        write(form, &disconnect(&end), output);
    }
    let reason = match end.reason {
        Cow::Borrowed(reason) => reason,
        Cow::Owned(_) => "",
    };
    Some((CloseCode::new(end.code), reason))
}

/// A publication, in a push about a channel.
pub(super) const PUB: Field = ("pub", 4);

/// A push that announces an end, for those that only listen.
pub(super) fn disconnect(disconnect: &Disconnect) -> Vec<u8> {
    let end = Record::new(Codec::Json)
        .number(("code", 1), disconnect.code.into())
        .text(("reason", 2), &disconnect.reason)
        .end();
    Record::new(Codec::Json)
        .record(("disconnect", 11), &end)
        .end()
}

/// A push that ends a subscription.
pub(super) fn unsubscribe(codec: Codec, channel: &str, code: u32, reason: &str) -> Vec<u8> {
    let end = Record::new(codec)
        .number(("code", 2), code.into())
        .text(("reason", 3), reason)
        .end();
    about(codec, channel, ("unsubscribe", 7), &end)
}

/// A push that tells who comes or goes.
pub(super) fn join_leave(codec: Codec, channel: &str, has_joined: bool, info: &[u8]) -> Vec<u8> {
    let what = if has_joined {
        ("join", 5)
    } else {
        ("leave", 6)
    };
    let who = Record::new(codec).record(("info", 1), &info_record(codec, info));
    about(codec, channel, what, &who.end())
}

/// A push about a channel.
pub(super) fn about(codec: Codec, channel: &str, what: Field, record: &[u8]) -> Vec<u8> {
    Record::new(codec)
        .text(("channel", 2), channel)
        .record(what, record)
        .end()
}
