//! What clients say: commands, one behind the other in a message.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::one_line;

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

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Connect {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) token: String,
    #[serde(deserialize_with = "json")]
    pub(super) data: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) version: String,
    #[serde(deserialize_with = "sinces")]
    pub(super) subs: HashMap<String, Since>,
}

/// How far a client has read of a channel.
#[derive(Clone, Debug, Default, serde::Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Since {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) recover: bool,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) offset: u64,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) epoch: String,
}

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "so are its fields")]
pub(super) struct Subscribe {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) token: String,
    #[serde(deserialize_with = "json")]
    pub(super) data: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) recover: bool,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) offset: u64,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) epoch: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) positioned: bool,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) recoverable: bool,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) join_leave: bool,
    /// A filter of tags, which there is not.
    #[serde(deserialize_with = "json")]
    pub(super) tf: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) flag: u64,
    #[serde(rename = "type", deserialize_with = "or_nothing")]
    pub(super) kind: u64,
}

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Channel {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
}

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Publish {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
    #[serde(deserialize_with = "json")]
    pub(super) data: String,
}

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct History {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) limit: i64,
    #[serde(deserialize_with = "since")]
    pub(super) since: Option<Since>,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) reverse: bool,
}

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Rpc {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) method: String,
    #[serde(deserialize_with = "json")]
    pub(super) data: String,
}

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Send {
    #[serde(deserialize_with = "json")]
    pub(super) data: String,
}

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Refresh {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) token: String,
}

#[derive(Debug, Default, serde::Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct SubRefresh {
    #[serde(deserialize_with = "or_nothing")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_nothing")]
    pub(super) token: String,
}

/// A command as it is written. Fields that nobody knows are passed over.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Envelope {
    #[serde(deserialize_with = "or_nothing")]
    id: u32,
    connect: Option<Fields<Connect>>,
    subscribe: Option<Fields<Box<Subscribe>>>,
    unsubscribe: Option<Fields<Channel>>,
    publish: Option<Fields<Publish>>,
    presence: Option<Fields<Channel>>,
    presence_stats: Option<Fields<Channel>>,
    history: Option<Fields<History>>,
    rpc: Option<Fields<Rpc>>,
    send: Option<Fields<Send>>,
    refresh: Option<Fields<Refresh>>,
    sub_refresh: Option<Fields<SubRefresh>>,
    ping: Option<serde::de::IgnoredAny>,
}

impl TryFrom<Envelope> for Command {
    type Error = NoCommand;

    fn try_from(envelope: Envelope) -> Result<Self, NoCommand> {
        let id = envelope.id;
        // Without an id nothing is answered, and only this takes none.
        if let Some(Fields(send)) = envelope.send {
            let method = Method::Send(send);
            return Ok(Self { id, method });
        }
        if id == 0 {
            let method = Method::Pong;
            return Ok(Self { id, method });
        }
        let method = as_method(envelope.connect, Method::Connect)
            .or(as_method(envelope.subscribe, Method::Subscribe))
            .or(as_method(envelope.publish, Method::Publish))
            .or(as_method(envelope.unsubscribe, Method::Unsubscribe))
            .or(as_method(envelope.presence, Method::Presence))
            .or(as_method(envelope.presence_stats, Method::PresenceStats))
            .or(as_method(envelope.history, Method::History))
            .or(as_method(envelope.rpc, Method::Rpc))
            .or(as_method(envelope.refresh, Method::Refresh))
            .or(as_method(envelope.sub_refresh, Method::SubRefresh))
            .or(envelope.ping.map(|_| Method::Ping))
            .ok_or(NoCommand)?;
        Ok(Self { id, method })
    }
}

fn as_method<T>(fields: Option<Fields<T>>, method: fn(T) -> Method) -> Option<Method> {
    fields.map(|Fields(fields)| method(fields))
}

/// Takes the first command of a message; `None` at its end.
pub(super) fn next(message: &mut &[u8]) -> Option<Result<Command, NoCommand>> {
    let commands = serde_json::Deserializer::from_slice(message);
    let mut commands = commands.into_iter::<Fields<Envelope>>();
    let envelope = commands.next()?;
    let read = commands.byte_offset();
    *message = &message[read..];
    let Ok(Fields(envelope)) = envelope else {
        return Some(Err(NoCommand));
    };
    Some(envelope.try_into())
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

fn since<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Since>, D::Error> {
    let since: Option<Fields<Since>> = Option::deserialize(deserializer)?;
    Ok(since.map(|Fields(since)| since))
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
fn json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let json = Box::<RawValue>::deserialize(deserializer)?;
    Ok(one_line(json.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut message: &[u8]) -> Vec<Result<Command, NoCommand>> {
        let mut commands = Vec::new();
        while let Some(command) = next(&mut message) {
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
        assert_eq!(rpc.data, "{\"a\" :12345678901234567890.10}");
    }

    #[test]
    fn cat_170_a_depth_bomb_is_data_like_any_other() {
        let bomb = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        let commands = all(format!(r#"{{"id":1,"rpc":{{"data":{bomb}}}}}"#).as_bytes());
        assert!(
            matches!(&commands[0], Ok(Command { method: Method::Rpc(rpc), .. }) if rpc.data == bomb)
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
