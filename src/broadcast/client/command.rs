//! What clients say: commands, one behind the other in a message, in JSON or in Protobuf.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use prost::Message as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::record::{Codec, one_line};

/// A command of a client.
#[derive(Debug, PartialEq)]
pub(super) struct Command {
    /// What the reply is found by; 0 where there is none.
    pub(super) id: u32,
    pub(super) method: Method,
}

#[derive(Debug, PartialEq)]
pub(super) enum Method {
    Connect(Connect),
    Subscribe(Box<Subscribe>),
    Unsubscribe(Channel),
    Publish(Publish),
    Presence(Channel),
    PresenceStats(Channel),
    History(History),
    Rpc(Rpc),
    Send(Send),
    Refresh(Refresh),
    SubRefresh(SubRefresh),
    Ping,
    /// The answer to a ping of the server.
    Pong,
}

impl Method {
    /// Whether its work grows with what others have done.
    pub(super) fn looks_around(&self) -> bool {
        matches!(
            self,
            Self::Presence(_) | Self::PresenceStats(_) | Self::History(_)
        )
    }
}

/// It is none of the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoCommand;

#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct Connect {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) token: String,
    #[prost(bytes = "vec", tag = "2")]
    #[serde(deserialize_with = "json")]
    pub(super) data: Vec<u8>,
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) name: String,
    #[prost(string, tag = "5")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) version: String,
    #[prost(map = "string, message", tag = "3")]
    #[serde(deserialize_with = "sinces")]
    pub(super) subs: HashMap<String, Since>,
}

/// How far a client has read of a channel.
#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct Since {
    #[prost(bool, tag = "3")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) recover: bool,
    #[prost(uint64, tag = "7")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) offset: u64,
    #[prost(string, tag = "6")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) epoch: String,
}

#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "so are its fields")]
pub(super) struct Subscribe {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) token: String,
    #[prost(bytes = "vec", tag = "8")]
    #[serde(deserialize_with = "json")]
    pub(super) data: Vec<u8>,
    #[prost(bool, tag = "3")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) recover: bool,
    #[prost(uint64, tag = "7")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) offset: u64,
    #[prost(string, tag = "6")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) epoch: String,
    #[prost(bool, tag = "9")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) positioned: bool,
    #[prost(bool, tag = "10")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) recoverable: bool,
    #[prost(bool, tag = "11")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) join_leave: bool,
    /// A filter of tags, which there is not: a message that nobody looks into.
    #[prost(bytes = "vec", tag = "13")]
    #[serde(deserialize_with = "json")]
    pub(super) tf: Vec<u8>,
    #[prost(uint64, tag = "14")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) flag: u64,
    #[prost(uint64, tag = "15")]
    #[serde(rename = "type", deserialize_with = "or_nothing")]
    pub(super) kind: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct Channel {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct Publish {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
    #[prost(bytes = "vec", tag = "2")]
    #[serde(deserialize_with = "json")]
    pub(super) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct History {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
    #[prost(int64, tag = "7")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) limit: i64,
    #[prost(message, optional, tag = "8")]
    #[serde(deserialize_with = "object")]
    pub(super) since: Option<From>,
    #[prost(bool, tag = "9")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) reverse: bool,
}

/// From where on a history is told.
#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct From {
    #[prost(uint64, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) offset: u64,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) epoch: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct Rpc {
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) method: String,
    #[prost(bytes = "vec", tag = "1")]
    #[serde(deserialize_with = "json")]
    pub(super) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct Send {
    #[prost(bytes = "vec", tag = "1")]
    #[serde(deserialize_with = "json")]
    pub(super) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) token: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub(super) struct SubRefresh {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_nothing")]
    pub(super) token: String,
}

/// Nothing is said with it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, serde::Deserialize)]
struct Empty {}

/// A command as it is written. Fields that nobody knows are passed over.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(default)]
struct Envelope {
    #[prost(uint32, tag = "1")]
    #[serde(deserialize_with = "or_nothing")]
    id: u32,
    #[prost(message, optional, tag = "4")]
    #[serde(deserialize_with = "object")]
    connect: Option<Connect>,
    #[prost(message, optional, boxed, tag = "5")]
    #[serde(deserialize_with = "object")]
    subscribe: Option<Box<Subscribe>>,
    #[prost(message, optional, tag = "6")]
    #[serde(deserialize_with = "object")]
    unsubscribe: Option<Channel>,
    #[prost(message, optional, tag = "7")]
    #[serde(deserialize_with = "object")]
    publish: Option<Publish>,
    #[prost(message, optional, tag = "8")]
    #[serde(deserialize_with = "object")]
    presence: Option<Channel>,
    #[prost(message, optional, tag = "9")]
    #[serde(deserialize_with = "object")]
    presence_stats: Option<Channel>,
    #[prost(message, optional, tag = "10")]
    #[serde(deserialize_with = "object")]
    history: Option<History>,
    #[prost(message, optional, tag = "13")]
    #[serde(deserialize_with = "object")]
    rpc: Option<Rpc>,
    #[prost(message, optional, tag = "12")]
    #[serde(deserialize_with = "object")]
    send: Option<Send>,
    #[prost(message, optional, tag = "14")]
    #[serde(deserialize_with = "object")]
    refresh: Option<Refresh>,
    #[prost(message, optional, tag = "15")]
    #[serde(deserialize_with = "object")]
    sub_refresh: Option<SubRefresh>,
    #[prost(message, optional, tag = "11")]
    #[serde(deserialize_with = "object")]
    ping: Option<Empty>,
}

impl TryFrom<Envelope> for Command {
    type Error = NoCommand;

    fn try_from(envelope: Envelope) -> Result<Self, NoCommand> {
        let id = envelope.id;
        // Without an id nothing is answered, and only this takes none.
        if let Some(send) = envelope.send {
            let method = Method::Send(send);
            return Ok(Self { id, method });
        }
        if id == 0 {
            let method = Method::Pong;
            return Ok(Self { id, method });
        }
        let method = (envelope.connect.map(Method::Connect))
            .or(envelope.subscribe.map(Method::Subscribe))
            .or(envelope.publish.map(Method::Publish))
            .or(envelope.unsubscribe.map(Method::Unsubscribe))
            .or(envelope.presence.map(Method::Presence))
            .or(envelope.presence_stats.map(Method::PresenceStats))
            .or(envelope.history.map(Method::History))
            .or(envelope.rpc.map(Method::Rpc))
            .or(envelope.refresh.map(Method::Refresh))
            .or(envelope.sub_refresh.map(Method::SubRefresh))
            .or(envelope.ping.map(|_| Method::Ping))
            .ok_or(NoCommand)?;
        Ok(Self { id, method })
    }
}

/// Takes the first command of a message; `None` at its end.
pub(super) fn next(codec: Codec, message: &mut &[u8]) -> Option<Result<Command, NoCommand>> {
    let envelope = match codec {
        Codec::Json => next_json(message)?,
        Codec::Protobuf if message.is_empty() => return None,
        Codec::Protobuf => Envelope::decode_length_delimited(message).map_err(|_| NoCommand),
    };
    Some(envelope.and_then(Command::try_from))
}

fn next_json(message: &mut &[u8]) -> Option<Result<Envelope, NoCommand>> {
    let commands = serde_json::Deserializer::from_slice(message);
    let mut commands = commands.into_iter::<Fields<Envelope>>();
    let envelope = commands.next()?;
    let read = commands.byte_offset();
    *message = &message[read..];
    Some(
        envelope
            .map(|Fields(envelope)| envelope)
            .map_err(|_| NoCommand),
    )
}

/// Reads a connect request that stands alone.
pub(super) fn connect_request(text: &[u8]) -> Result<Connect, NoCommand> {
    let Fields(connect) = serde_json::from_slice(text).map_err(|_| NoCommand)?;
    Ok(connect)
}

/// An object. What is derived takes an array for one as well, whose elements are the fields.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor(PhantomData))
    }
}

struct FieldsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldsVisitor<T> {
    type Value = Fields<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Fields)
    }
}

/// `null` is nothing, as clients in other languages have it.
fn or_nothing<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let object: Option<Fields<T>> = Option::deserialize(deserializer)?;
    Ok(object.map(|Fields(object)| object))
}

fn sinces<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HashMap<String, Since>, D::Error> {
    let subs: HashMap<String, Option<Fields<Since>>> = or_nothing(deserializer)?;
    let since = |since: Option<Fields<Since>>| since.unwrap_or_default().0;
    Ok(subs
        .into_iter()
        .map(|(channel, one)| (channel, since(one)))
        .collect())
}

/// Any JSON, as its text.
fn json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let json = Box::<RawValue>::deserialize(deserializer)?;
    Ok(one_line(json.get().as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut message: &[u8]) -> Vec<Result<Command, NoCommand>> {
        let mut commands = Vec::new();
        while let Some(command) = next(Codec::Json, &mut message) {
            let is_end = command.is_err();
            commands.push(command);
            if is_end {
                break;
            }
        }
        commands
    }

    #[test]
    fn commands_stand_behind_each_other() {
        let message =
            b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n{}\n";
        let commands = all(message);
        assert_eq!(commands.len(), 3);
        let Ok(Command {
            id: 2,
            method: Method::Subscribe(subscribe),
        }) = &commands[1]
        else {
            panic!("{commands:?}")
        };
        assert_eq!(subscribe.channel, "a");
        assert_eq!(
            commands[2],
            Ok(Command {
                id: 0,
                method: Method::Pong
            })
        );
    }

    #[test]
    fn what_is_no_command_ends_the_message() {
        for text in [
            "not json",
            "[]",
            "7",
            r#"{"id":1}"#,
            r#"{"id":1,"later":{}}"#,
            r#"{"id":-1,"connect":{}}"#,
            r#"{"id":4294967296,"connect":{}}"#,
            r#"{"id":1.5,"connect":{}}"#,
            r#"{"id":1,"connect":[7]}"#,
            r#"{"id":1,"connect":[]}"#,
            r#"{"id":1,"subscribe":["a"]}"#,
            r#"{"id":1,"connect":{"subs":{"a":[]}}}"#,
            r#"{"id":1,"history":{"channel":"a","since":[]}}"#,
            r#"{"id":1,"connect":{"token":7}}"#,
            r#"{"id":1,"id":2,"connect":{}}"#,
            r#"{"id":1,"connect":{}"#,
            "{\"id\":1,\"rpc\":{\"data\":\"\u{1}\"}}",
        ] {
            assert_eq!(all(text.as_bytes()).last(), Some(&Err(NoCommand)), "{text}");
        }
        assert_eq!(
            all(b"{\"id\":1,\"rpc\":{\"data\":\"\xff\"}}"),
            [Err(NoCommand)]
        );
        assert!(all(b" \n").is_empty());
    }

    #[test]
    fn connect_request_alone_is_an_object() {
        let connect = connect_request(br#"{"token":"t","subs":{"a":null}}"#).unwrap();
        assert_eq!(connect.token, "t");
        assert_eq!(connect.subs["a"], Since::default());
        for text in ["", "[]", "null", "{}{}", "{\"token\":7}"] {
            assert_eq!(connect_request(text.as_bytes()), Err(NoCommand), "{text}");
        }
    }

    #[test]
    fn data_keeps_its_digits_on_one_line() {
        let commands = all(b"{\"id\":1,\"rpc\":{\"data\":{\n\"a\" :\r\n12345678901234567890.10}}}");
        let Ok(Command {
            method: Method::Rpc(rpc),
            ..
        }) = &commands[0]
        else {
            panic!("{commands:?}")
        };
        assert_eq!(rpc.data, b"{\"a\" :12345678901234567890.10}");
    }

    #[test]
    fn cat_170_a_depth_bomb_is_data_like_any_other() {
        let bomb = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        let commands = all(format!(r#"{{"id":1,"rpc":{{"data":{bomb}}}}}"#).as_bytes());
        assert!(
            matches!(&commands[0], Ok(Command { method: Method::Rpc(rpc), .. }) if rpc.data == bomb.as_bytes())
        );
        for bomb in [
            format!(r#"{{"id":1,"later":{bomb}}}"#),
            format!(r#"{{"id":1,"connect":{{"token":{bomb}}}}}"#),
            "[".repeat(60_000),
            "{\"a\":".repeat(10_000),
        ] {
            assert_eq!(all(bomb.as_bytes()), [Err(NoCommand)]);
        }
    }
}
