//! Centrifugo's client protocol in JSON, as much of it as a client needs that connects, subscribes, publishes and hears.
//!
//! A WebSocket message holds one line or several, each of them a command, a reply, a push or a ping. Publications, of which
//! there may be a million in a second, are searched for their data and not parsed; everything else is rare and parsed.

use std::io::Write as _;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::client::{Client, Fault};
use crate::failure::Failure;

/// Where clients of the protocol connect.
pub const PATH: &str = "/connection/websocket";

/// The answer to the server's ping, which is the same.
pub const PONG: &str = "{}";

const CONNECT: u32 = 1;
const SUBSCRIBE: u32 = 2;
const FIRST_PUBLISH: u32 = 3;

/// A place in a channel's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which history: another one begins when the server has forgotten this one.
    pub epoch: String,
    /// The number of the last publication that is known.
    pub offset: u64,
}

/// What a client subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The channel's name.
    pub channel: String,
    /// From where on.
    pub since: Since,
}

/// From where on a subscription hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// From now on.
    Now,
    /// From now on, and the server is to say where that is.
    Here,
    /// From there on, so many publications ago.
    Recover(Position, usize),
}

impl Subscription {
    /// From now on.
    pub fn to(channel: impl Into<String>) -> Self {
        Subscription {
            channel: channel.into(),
            since: Since::Now,
        }
    }

    fn command(&self) -> String {
        let since = match &self.since {
            Since::Now => String::new(),
            Since::Here => ",\"recoverable\":true".to_owned(),
            Since::Recover(Position { epoch, offset }, _) => {
                let epoch = quoted(epoch);
                format!(
                    ",\"recoverable\":true,\"recover\":true,\"offset\":{offset},\"epoch\":{epoch}"
                )
            }
        };
        let channel = quoted(&self.channel);
        format!("{{\"subscribe\":{{\"channel\":{channel}{since}}},\"id\":{SUBSCRIBE}}}")
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The first words of a client and what was answered: connect and, where it is wanted, a subscription, in one message.
#[derive(Debug)]
pub struct Arrival {
    subscription: Option<Subscription>,
    is_connected: bool,
    subscribed: Option<Subscribed>,
}

impl Arrival {
    /// Says the first words on a connection that has just opened.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    pub fn begin(client: &mut Client, subscription: Option<Subscription>) -> Result<Self, Fault> {
        let mut words = format!("{{\"connect\":{{\"name\":\"loadtest\"}},\"id\":{CONNECT}}}");
        if let Some(subscription) = &subscription {
            words.push('\n');
            words.push_str(&subscription.command());
        }
        client.send(words.as_str());
        client.flush()?;
        Ok(Arrival {
            subscription,
            is_connected: false,
            subscribed: None,
        })
    }

    /// Hears what the server says to it; pings are answered.
    ///
    /// # Errors
    ///
    /// If it refuses, says something else, or does not bring what was missed.
    pub fn hear(&mut self, client: &mut Client, message: &[u8]) -> Result<(), Fault> {
        read(message, |said| match said {
            Said::Ping => {
                client.send(PONG);
                Ok(())
            }
            Said::Reply(reply) => self.note(reply),
            Said::Publication(_) => Err(Fault(
                Failure::Surplus,
                "a publication came that nobody published".into(),
            )),
        })
    }

    fn note(&mut self, reply: Reply) -> Result<(), Fault> {
        let awaits_subscription = self.subscription.is_some() && self.subscribed.is_none();
        match reply {
            Reply {
                id: CONNECT,
                connect: Some(_),
                ..
            } if !self.is_connected => self.is_connected = true,
            Reply {
                id: SUBSCRIBE,
                subscribe: Some(subscribed),
                ..
            } if self.is_connected && awaits_subscription => {
                self.require_recovery(&subscribed)?;
                self.subscribed = Some(subscribed);
            }
            Reply { id, .. } => return Err(unexpected(id)),
        }
        Ok(())
    }

    fn require_recovery(&self, subscribed: &Subscribed) -> Result<(), Fault> {
        let Some(Since::Recover(_, missed)) = self.subscription.as_ref().map(|it| &it.since) else {
            return Ok(());
        };
        let came = subscribed.publications.len();
        if subscribed.recovered && came == *missed {
            return Ok(());
        }
        let what = if subscribed.recovered {
            format!("{came} publications of {missed} were recovered")
        } else {
            "the subscription was not recovered".to_owned()
        };
        Err(Fault(Failure::Gap, what))
    }

    /// Whether everything was answered.
    pub fn is_over(&self) -> bool {
        self.is_connected && self.subscription.is_some() == self.subscribed.is_some()
    }

    /// Where the subscription stands, if the server keeps a history.
    pub fn position(&self) -> Option<Position> {
        let subscribed = self.subscribed.as_ref().filter(|it| it.recoverable)?;
        Some(Position {
            epoch: subscribed.epoch.clone(),
            offset: subscribed.offset,
        })
    }
}

/// Answers the pings in a message to a client that has nothing else to hear, and says how many they were.
///
/// # Errors
///
/// If there is anything else in it.
pub fn answer_pings(client: &mut Client, message: &[u8]) -> Result<u64, Fault> {
    let mut pings = 0;
    read(message, |said| match said {
        Said::Ping => {
            pings += 1;
            client.send(PONG);
            Ok(())
        }
        Said::Reply(_) | Said::Publication(_) => Err(Fault(
            Failure::Surplus,
            "an idle connection was sent a message".into(),
        )),
    })?;
    Ok(pings)
}

/// Appends the `nth` publication of a client, from 0 on; `write` appends the text that is its data, in which nothing has to
/// be escaped.
pub fn publish(nth: u64, channel: &str, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let (id, channel) = (publish_id(nth), quoted(channel));
    write!(
        out,
        "{{\"id\":{id},\"publish\":{{\"channel\":{channel},\"data\":\""
    )
    .expect("a Vec takes everything");
    write(out);
    out.extend_from_slice(b"\"}}");
}

/// The id of a client's `nth` publication: they begin anew where 32 bits end, and are never 0.
fn publish_id(nth: u64) -> u32 {
    let ids = u64::from(u32::MAX - FIRST_PUBLISH);
    FIRST_PUBLISH + (nth % ids) as u32
}

/// What a server says.
#[derive(Debug)]
pub enum Said<'a> {
    /// A publication, whose data is this text.
    Publication(&'a [u8]),
    /// It wants to hear something within seconds.
    Ping,
    /// A command was obeyed.
    Reply(Reply),
}

/// The reply to a command.
#[derive(Debug, Deserialize)]
pub struct Reply {
    #[serde(default)]
    id: u32,
    error: Option<Refusal>,
    connect: Option<IgnoredAny>,
    subscribe: Option<Subscribed>,
    publish: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: u32,
    #[serde(default)]
    message: String,
}

/// What a server leaves out is nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subscribed {
    recoverable: bool,
    recovered: bool,
    epoch: String,
    offset: u64,
    publications: Vec<IgnoredAny>,
}

impl Reply {
    /// Whether it is the reply to a client's `nth` publication, from 0 on: replies come in the order of commands.
    ///
    /// # Errors
    ///
    /// If it is the reply to something else.
    pub fn require_published(&self, nth: u64) -> Result<(), Fault> {
        if self.id == publish_id(nth) && self.publish.is_some() {
            return Ok(());
        }
        Err(unexpected(self.id))
    }
}

/// Reads a message, and lends what it says to `each`.
///
/// # Errors
///
/// If the server refuses something, or says what was not asked for; or if `each` says so.
pub fn read(
    message: &[u8],
    mut each: impl FnMut(Said<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let lines = message.split(|byte| *byte == b'\n');
    for line in lines.filter(|line| !line.is_empty()) {
        each(read_line(line)?)?;
    }
    Ok(())
}

/// How every push to a channel begins.
pub const PUSH: &[u8] = b"{\"push\":{\"channel\":\"";

fn read_line(line: &[u8]) -> Result<Said<'_>, Fault> {
    if line == PONG.as_bytes() {
        return Ok(Said::Ping);
    }
    if let Some(push) = line.strip_prefix(PUSH) {
        let text = publication(push).ok_or_else(|| wrong(line))?;
        return Ok(Said::Publication(text));
    }
    let reply: Reply = serde_json::from_slice(line).map_err(|_| wrong(line))?;
    match &reply.error {
        None if reply.id > 0 => Ok(Said::Reply(reply)),
        None => Err(wrong(line)),
        Some(Refusal { code, message }) => {
            let what = format!("Centrifugo: command {} failed: {code} {message}", reply.id);
            Err(Fault(Failure::Protocol, what))
        }
    }
}

/// The data of a publication, where that is a string without quotes in it; `push` begins within the channel's name, which
/// has none either.
fn publication(push: &[u8]) -> Option<&[u8]> {
    let name = push.iter().position(|byte| *byte == b'"')?;
    let text = push[name + 1..].strip_prefix(b",\"pub\":{\"data\":\"")?;
    let end = text.iter().position(|byte| *byte == b'"')?;
    text.ends_with(b"}}}").then(|| &text[..end])
}

fn unexpected(id: u32) -> Fault {
    let what = format!("Centrifugo: a reply to command {id}, which was not due");
    Fault(Failure::Protocol, what)
}

/// The most of a line that is shown.
const SHOWN: usize = 120;

fn wrong(line: &[u8]) -> Fault {
    let line = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
    Fault(Failure::Protocol, format!("Centrifugo: {line}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(message: &[u8]) -> Result<Vec<String>, Fault> {
        let mut all = Vec::new();
        read(message, |said| {
            all.push(match said {
                Said::Publication(text) => String::from_utf8_lossy(text).into_owned(),
                Said::Ping => "ping".to_owned(),
                Said::Reply(reply) => format!("reply {}", reply.id),
            });
            Ok(())
        })?;
        Ok(all)
    }

    fn arrival(subscription: Option<Subscription>) -> Arrival {
        Arrival {
            subscription,
            is_connected: false,
            subscribed: None,
        }
    }

    fn reply(line: &str) -> Reply {
        match read_line(line.as_bytes()).unwrap() {
            Said::Reply(reply) => reply,
            said => panic!("{said:?}"),
        }
    }

    const CONNECTED: &str = r#"{"id":1,"connect":{"client":"c","version":"1","ping":25}}"#;

    #[test]
    fn replies_pushes_and_pings_are_told_apart_in_one_message() {
        let message = br#"{"id":3,"publish":{}}
{"push":{"channel":"t0","pub":{"data":"one"}}}
{}
{"push":{"channel":"t0","pub":{"data":"two","offset":7,"info":{"user":"","client":"c"}}}}
"#;
        let said = read_all(message).unwrap();
        assert_eq!(said, ["reply 3", "one", "ping", "two"]);
    }

    #[test]
    fn what_was_not_asked_for_is_told() {
        for (line, because) in [
            (
                r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#,
                "103 permission denied",
            ),
            (
                r#"{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"r"}}}"#,
                "unsubscribe",
            ),
            (r#"{"push":{"channel":"c","pub":{"data":{"a":1}}}}"#, "data"),
            (r#"{"push":{"channel":"c","pub":{"data":"a""#, "data"),
            (r#"{"connect":{}}"#, "connect"),
            ("nonsense", "nonsense"),
        ] {
            let Fault(failure, what) = read_all(line.as_bytes()).unwrap_err();
            assert_eq!(failure, Failure::Protocol);
            assert!(what.contains(because), "{line}: {what}");
        }
    }

    #[test]
    fn arrival_is_over_when_all_is_answered() {
        let mut only_connecting = arrival(None);
        only_connecting.note(reply(CONNECTED)).unwrap();
        assert!(only_connecting.is_over());

        let mut subscribing = arrival(Some(Subscription::to("c")));
        subscribing.note(reply(CONNECTED)).unwrap();
        assert!(!subscribing.is_over());
        subscribing
            .note(reply(r#"{"id":2,"subscribe":{}}"#))
            .unwrap();
        assert!(subscribing.is_over());
        assert_eq!(subscribing.position(), None);
    }

    #[test]
    fn replies_that_are_not_due_are_wrong() {
        let subscribed = r#"{"id":2,"subscribe":{}}"#;
        assert!(arrival(None).note(reply(subscribed)).is_err());
        let mut subscribing = arrival(Some(Subscription::to("c")));
        assert!(subscribing.note(reply(subscribed)).is_err());
        subscribing.note(reply(CONNECTED)).unwrap();
        assert!(subscribing.note(reply(CONNECTED)).is_err());
        subscribing.note(reply(subscribed)).unwrap();
        assert!(subscribing.note(reply(subscribed)).is_err());

        assert!(
            reply(r#"{"id":4,"publish":{}}"#)
                .require_published(1)
                .is_ok()
        );
        assert!(
            reply(r#"{"id":4,"publish":{}}"#)
                .require_published(0)
                .is_err()
        );
        assert!(
            reply(r#"{"id":4,"subscribe":{}}"#)
                .require_published(1)
                .is_err()
        );
    }

    #[test]
    fn position_is_what_the_server_says() {
        let mut here = arrival(Some(Subscription {
            channel: "c".to_owned(),
            since: Since::Here,
        }));
        here.note(reply(CONNECTED)).unwrap();
        let subscribed =
            r#"{"id":2,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":9}}"#;
        here.note(reply(subscribed)).unwrap();
        let position = Position {
            epoch: "e".to_owned(),
            offset: 9,
        };
        assert_eq!(here.position(), Some(position));
    }

    #[test]
    fn recovery_that_does_not_bring_all_is_a_gap() {
        let position = Position {
            epoch: "e".to_owned(),
            offset: 1,
        };
        let subscription = Subscription {
            channel: "c".to_owned(),
            since: Since::Recover(position, 2),
        };
        for (result, is_right) in [
            (
                r#"{"recovered":true,"publications":[{"data":1},{"data":2}]}"#,
                true,
            ),
            (r#"{"recovered":true,"publications":[{"data":1}]}"#, false),
            (r#"{"recovered":true}"#, false),
            (r#"{"was_recovering":true}"#, false),
        ] {
            let mut coming_back = arrival(Some(subscription.clone()));
            coming_back.note(reply(CONNECTED)).unwrap();
            let noted = coming_back.note(reply(&format!("{{\"id\":2,\"subscribe\":{result}}}")));
            match noted {
                Ok(()) => assert!(is_right, "{result}"),
                Err(Fault(failure, _)) => {
                    assert_eq!((failure, is_right), (Failure::Gap, false), "{result}");
                }
            }
        }
    }

    #[test]
    fn commands_are_json() {
        let position = Position {
            epoch: "e".to_owned(),
            offset: 5,
        };
        let recovering = Subscription {
            channel: "a\"b".to_owned(),
            since: Since::Recover(position, 1),
        };
        let command: serde_json::Value = serde_json::from_str(&recovering.command()).unwrap();
        let expected = serde_json::json!({"id": 2, "subscribe": {
            "channel": "a\"b", "recoverable": true, "recover": true, "offset": 5, "epoch": "e"}});
        assert_eq!(command, expected);

        let mut out = Vec::new();
        publish(4, "c", &mut out, |out| out.extend(b"text"));
        let command: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = serde_json::json!({"id": 7, "publish": {"channel": "c", "data": "text"}});
        assert_eq!(command, expected);
    }

    #[test]
    fn ids_of_publications_are_never_those_of_others() {
        let last = u64::from(u32::MAX - FIRST_PUBLISH) - 1;
        assert_eq!(publish_id(last), u32::MAX - 1);
        assert_eq!(publish_id(last + 1), FIRST_PUBLISH);
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange_to_be_read(message in "(\\{\"push\":\\{\"channel\":\"|,\"pub\":\\{\"data\":\"|\"|\\}\\}\\}|\\{\\}|\n|[a-z])*") {
            let _ = read_all(message.as_bytes());
        }

        #[test]
        fn every_publication_is_found(texts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 1..5)) {
            let lines: Vec<_> = texts.iter().map(|text| {
                format!("{{\"push\":{{\"channel\":\"t0\",\"pub\":{{\"data\":\"{text}\",\"offset\":3}}}}}}")
            }).collect();
            prop_assert_eq!(read_all(lines.join("\n").as_bytes()).unwrap(), texts);
        }
    }
}
