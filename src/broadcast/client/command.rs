//! What clients say: commands, one behind the other in a message.

use std::collections::HashMap;

use serde::de::{Deserialize, Deserializer};
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
    #[serde(deserialize_with = "or_nothing")]
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
    #[serde(deserialize_with = "or_nothing")]
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
    connect: Option<Connect>,
    subscribe: Option<Box<Subscribe>>,
    unsubscribe: Option<Channel>,
    publish: Option<Publish>,
    presence: Option<Channel>,
    presence_stats: Option<Channel>,
    history: Option<History>,
    rpc: Option<Rpc>,
    send: Option<Send>,
    refresh: Option<Refresh>,
    sub_refresh: Option<SubRefresh>,
    ping: Option<serde::de::IgnoredAny>,
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
        let method = envelope
            .connect
            .map(Method::Connect)
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
pub(super) fn next(message: &mut &[u8]) -> Option<Result<Command, NoCommand>> {
    // An array would be read as the fields of an object.
    if !matches!(message.trim_ascii_start().first(), Some(b'{') | None) {
        return Some(Err(NoCommand));
    }
    let mut commands = serde_json::Deserializer::from_slice(message).into_iter::<Envelope>();
    let envelope = commands.next()?;
    let read = commands.byte_offset();
    *message = &message[read..];
    Some(envelope.map_err(|_| NoCommand).and_then(Command::try_from))
}

/// Reads a connect request that stands alone.
pub(super) fn connect_request(text: &[u8]) -> Result<Connect, NoCommand> {
    serde_json::from_slice(text).map_err(|_| NoCommand)
}

/// `null` is nothing, as clients in other languages have it.
fn or_nothing<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
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
