//! What is told of who is in a channel.
//!
//! It is kept as JSON, which also subscribers without the protocol are shown.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use stentor::{ConnectionId, Context, Member};

use super::record::{Codec, Record, is_json};
use crate::broadcast::Place;

/// How all that clients of the protocol say of themselves begins; see [`of_stranger`].
const OF_CLIENT: &[u8] = b"{\"client\":\"";

/// Where somebody in a channel is seen.
///
/// It stands behind what is kept of a client, in whitespace that ends the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broadcast) struct Visibility {
    /// In the presence of the channel.
    pub(in crate::broadcast) is_listed: bool,
    /// In joins and leaves.
    pub(in crate::broadcast) is_told: bool,
}

const UNLISTED: u8 = b'\t';
const UNTOLD: u8 = b' ';

impl Visibility {
    /// Adds it to what is kept of a client.
    pub(super) fn mark(self, mut info: Vec<u8>) -> Vec<u8> {
        if !self.is_listed {
            info.push(UNLISTED);
        } else if !self.is_told {
            info.push(UNTOLD);
        }
        info
    }

    /// Reads it from there; who speaks without the protocol is seen wherever one is.
    pub(in crate::broadcast) fn of(info: &[u8]) -> Self {
        let mark = info.last().filter(|_| is_of_client(info));
        Self {
            is_listed: mark != Some(&UNLISTED),
            is_told: mark != Some(&UNTOLD),
        }
    }
}

/// Who is seen in the presence of a channel: some are there, and are not.
pub(in crate::broadcast) fn listed(ctx: &Context<'_, Place>, channel: &str) -> Vec<Member> {
    let mut members = ctx.presence(channel);
    members.retain(|member| Visibility::of(&member.info).is_listed);
    members
}

/// What a client is called, with what is said of it; a hook of one's own may say anything.
pub(super) fn describe(client: &str, user: &str, conn_info: &[u8], chan_info: &[u8]) -> Vec<u8> {
    // Its id comes first, which is how it is found again.
    Record::new(Codec::Json)
        .always_text(("client", 2), client)
        .always_text(("user", 1), user)
        .data(("conn_info", 3), conn_info)
        .data(("chan_info", 4), chan_info)
        .end()
}

/// Whether a client of the protocol is described.
pub(super) fn is_of_client(info: &[u8]) -> bool {
    info.starts_with(OF_CLIENT)
}

/// What a subscriber without the protocol says of itself, so that it is not taken for a client: a
/// space in front of an object changes nothing but that.
pub(in crate::broadcast) fn of_stranger(mut info: Vec<u8>) -> Vec<u8> {
    if is_of_client(&info) {
        info.insert(0, b' ');
    }
    info
}

/// Who is in a channel, as JSON: that of a client of the protocol, or what is known of another
/// subscriber.
pub(in crate::broadcast) fn client_info(info: &[u8], id: ConnectionId) -> Cow<'_, [u8]> {
    if is_of_client(info) {
        return Cow::Borrowed(info.trim_ascii_end());
    }
    let said = String::from_utf8_lossy(info);
    // JSON without what is around it.
    let said = if is_json(info) {
        said.trim_ascii()
    } else {
        &said
    };
    Cow::Owned(describe(&id.to_string(), "", said.as_bytes(), b""))
}

/// Who somebody is, read from what is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::broadcast) struct ClientInfo<'a> {
    #[serde(borrow)]
    pub(in crate::broadcast) client: Cow<'a, str>,
    #[serde(borrow)]
    pub(in crate::broadcast) user: Cow<'a, str>,
    #[serde(borrow)]
    conn_info: Option<&'a RawValue>,
    #[serde(borrow)]
    chan_info: Option<&'a RawValue>,
}

impl<'a> ClientInfo<'a> {
    pub(in crate::broadcast) fn of(info: &'a [u8]) -> Self {
        serde_json::from_slice(info).expect("what is not the protocol's own is made up as such")
    }
}

/// What is kept of somebody, as a message of the protocol.
pub(in crate::broadcast) fn info_record<'a>(codec: Codec, info: &'a [u8]) -> Cow<'a, [u8]> {
    if codec == Codec::Json {
        return Cow::Borrowed(info);
    }
    let ClientInfo {
        client,
        user,
        conn_info,
        chan_info,
    } = ClientInfo::of(info);
    let json = |json: Option<&'a RawValue>| json.map_or("", RawValue::get).as_bytes();
    let record = Record::new(codec)
        .text(("user", 1), &user)
        .text(("client", 2), &client)
        .json(("conn_info", 3), json(conn_info))
        .json(("chan_info", 4), json(chan_info));
    Cow::Owned(record.end())
}

#[cfg(test)]
mod tests {
    use super::super::record::text;
    use super::*;

    fn stranger(info: &str) -> String {
        let id = ConnectionId {
            key: 7,
            generation: 3,
        };
        text(client_info(info.as_bytes(), id).into_owned())
    }

    #[test]
    fn a_subscriber_without_a_protocol_is_an_anonymous_client() {
        assert_eq!(stranger(""), r#"{"client":"7.3","user":""}"#);
        assert_eq!(
            stranger("{\"a\":\r\n 12345678901234567890}"),
            r#"{"client":"7.3","user":"","conn_info":{"a": 12345678901234567890}}"#
        );
        assert_eq!(
            stranger("Ann\n\"A\""),
            r#"{"client":"7.3","user":"","conn_info":"Ann\n\"A\""}"#
        );
    }

    #[test]
    fn a_stranger_is_not_taken_for_a_client() {
        let info = of_stranger(br#"{"client":"c","user":"42"}"#.into());
        let told = client_info(
            &info,
            ConnectionId {
                key: 7,
                generation: 3,
            },
        );
        assert_eq!(&*ClientInfo::of(&told).client, "7.3");
    }

    #[test]
    fn where_a_client_is_seen_is_kept_and_not_told() {
        let id = ConnectionId {
            key: 7,
            generation: 3,
        };
        for (is_listed, is_told) in [(true, true), (true, false), (false, true)] {
            let seen = Visibility { is_listed, is_told };
            let told = describe("c", "42", b"", b"");
            let info = seen.mark(told.clone());
            assert_eq!(Visibility::of(&info), seen);
            assert_eq!(*client_info(&info, id), told);
        }
        let everywhere = Visibility {
            is_listed: true,
            is_told: true,
        };
        assert_eq!(Visibility::of(b"{\"client\" :1} "), everywhere);
    }

    #[test]
    fn a_client_is_what_it_says() {
        let info = describe("c", "4\"2", br#"{"user":"x"}"#, b"[1]");
        let who = ClientInfo::of(&info);
        assert_eq!((&*who.client, &*who.user), ("c", "4\"2"));
        let record = info_record(Codec::Protobuf, &info);
        assert_eq!(
            &*record,
            b"\x0a\x034\"2\x12\x01c\x1a\x0c{\"user\":\"x\"}\x22\x03[1]"
        );
    }
}
