//! What is asked of the API, read from JSON. What is left out, or is empty, is not said; what is not
//! known is skipped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::super::client::codes::{BAD_REQUEST, Disconnect, ErrorReply, FORCED};
use super::super::client::{Selection, is_json, one_line, text};
use super::super::exchange::{Draft, HistoryQuery};
use super::super::hooks::{Overrides, Subscribed};

/// One method with what it is about.
#[derive(Debug)]
pub(super) enum Command<'a> {
    Publish(Publish<'a>),
    /// The same with several channels.
    Broadcast(Publish<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe),
    Disconnect(Leave),
    Refresh(Refresh<'a>),
    Presence(Channel),
    PresenceStats(Channel),
    History(History),
    HistoryRemove(Channel),
    Channels(Pattern),
    Info,
}

/// A method: its name, and how its object is read.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub(super) name: &'static str,
    read: for<'a> fn(&'a [u8]) -> serde_json::Result<Command<'a>>,
}

/// All but the one for several.
#[rustfmt::skip]
const METHODS: [Method; 12] = [
    Method { name: "publish", read: |body| object(body).map(Command::Publish) },
    Method { name: "broadcast", read: |body| object(body).map(Command::Broadcast) },
    Method { name: "subscribe", read: |body| object(body).map(Command::Subscribe) },
    Method { name: "unsubscribe", read: |body| object(body).map(Command::Unsubscribe) },
    Method { name: "disconnect", read: |body| object(body).map(Command::Disconnect) },
    Method { name: "refresh", read: |body| object(body).map(Command::Refresh) },
    Method { name: "presence", read: |body| object(body).map(Command::Presence) },
    Method { name: "presence_stats", read: |body| object(body).map(Command::PresenceStats) },
    Method { name: "history", read: |body| object(body).map(Command::History) },
    Method { name: "history_remove", read: |body| object(body).map(Command::HistoryRemove) },
    Method { name: "channels", read: |body| object(body).map(Command::Channels) },
    Method { name: "info", read: |body| object(body).map(|Nothing {}| Command::Info) },
];

impl Method {
    /// The method of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        METHODS.into_iter().find(|method| method.name == name)
    }

    /// Reads what it is about.
    pub(super) fn read(self, body: &[u8]) -> serde_json::Result<Command<'_>> {
        (self.read)(body)
    }
}

/// Reads an object; an array of its members in order, which serde takes as well, is none.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(serde_json::Error::custom("it is an array and no object"));
    }
    serde_json::from_slice(body)
}

/// Several commands, each with the name of its method; `None` stands for one that is not known.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    pub(super) commands: Vec<Option<(&'static str, Command<'a>)>>,
}

impl<'a> Batch<'a> {
    /// Reads all commands, so that none is run where one cannot be read.
    pub(super) fn read(body: &'a [u8]) -> serde_json::Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Unread<'a> {
            #[serde(borrow)]
            commands: Vec<BTreeMap<String, &'a RawValue>>,
        }
        let unread: Unread<'a> = object(body)?;
        let read = unread.commands.into_iter().map(|command| {
            let mut members = command.into_iter();
            let known = members.find_map(|(name, body)| Some((Method::named(&name)?, body)));
            let Some((method, body)) = known else {
                return Ok(None);
            };
            let command = method.read(body.get().as_bytes())?;
            Ok(Some((method.name, command)))
        });
        let commands = read.collect::<serde_json::Result<_>>()?;
        Ok(Self { commands })
    }
}

/// What goes out, to one channel or to several.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish<'a> {
    channel: String,
    pub(super) channels: Vec<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: String,
    tags: BTreeMap<String, String>,
    skip_history: bool,
    idempotency_key: String,
    version: u64,
    version_epoch: String,
}

impl Publish<'_> {
    /// What goes out to the one channel, once `content` is there.
    pub(super) fn draft<'d>(&'d self, content: &'d Content<'_>) -> Draft<'d> {
        Draft {
            channel: &self.channel,
            data: &content.data,
            is_binary: !self.b64data.is_empty(),
            info: b"",
            tags: &content.tags,
            idempotency_key: &self.idempotency_key,
            skip_history: self.skip_history,
            version: self.version,
            version_epoch: &self.version_epoch,
        }
    }

    /// The data and the tags as they go out.
    ///
    /// # Errors
    ///
    /// The base64 is none.
    pub(super) fn content(&self) -> Result<Content<'_>, ErrorReply> {
        let tags = self.tags.iter();
        Ok(Content {
            data: either(self.data, &self.b64data)?,
            tags: tags
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        })
    }
}

/// What a draft refers to.
#[derive(Debug)]
pub(super) struct Content<'a> {
    data: Cow<'a, [u8]>,
    tags: Vec<(String, String)>,
}

/// What is given as JSON, or in base64, which goes first; empty if it is in neither way.
fn either<'a>(json: Option<&'a RawValue>, base64: &str) -> Result<Cow<'a, [u8]>, ErrorReply> {
    if base64.is_empty() {
        let json = json.map_or("", RawValue::get);
        return Ok(Cow::Borrowed(json.as_bytes()));
    }
    let decoded = STANDARD.decode(base64);
    decoded.map(Cow::Owned).map_err(|_| BAD_REQUEST)
}

/// The same where it must be JSON, in one line; empty if it is in neither way.
fn either_json(json: Option<&RawValue>, base64: &str) -> Result<String, ErrorReply> {
    let bytes = either(json, base64)?;
    if !bytes.is_empty() && !is_json(&bytes) {
        return Err(BAD_REQUEST);
    }
    Ok(text(one_line(&bytes).into_owned()))
}

/// The connections that are meant by a user, a client and a session.
///
/// # Errors
///
/// None of them is said: that would be everybody.
fn select<'a>(
    user: &'a str,
    client: &'a str,
    session: &'a str,
) -> Result<Selection<'a>, ErrorReply> {
    if [user, client, session].iter().all(|part| part.is_empty()) {
        return Err(BAD_REQUEST);
    }
    Ok(Selection {
        user,
        client,
        session,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribe<'a> {
    user: String,
    client: String,
    session: String,
    pub(super) channel: String,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: String,
    expire_at: u64,
    recover_since: Option<From>,
    #[serde(rename = "override")]
    overrides: Option<Overridden>,
}

/// A position in a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct From {
    offset: u64,
    epoch: String,
}

impl From {
    fn parts(&self) -> (u64, &str) {
        (self.offset, &self.epoch)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Overridden {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_push_join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Flag {
    value: bool,
}

impl Subscribe<'_> {
    pub(super) fn select(&self) -> Result<Selection<'_>, ErrorReply> {
        select(&self.user, &self.client, &self.session)
    }

    /// What holds for the subscription.
    ///
    /// # Errors
    ///
    /// The base64 is none, or holds no JSON.
    pub(super) fn grant(&self) -> Result<Subscribed, ErrorReply> {
        let overrides = self.overrides.unwrap_or_default();
        let value = |flag: Option<Flag>| flag.map(|flag| flag.value);
        Ok(Subscribed {
            expire_at: self.expire_at,
            info: either_json(self.info, &self.b64info)?,
            data: either(self.data, &self.b64data)?.into_owned(),
            overrides: Overrides {
                presence: value(overrides.presence),
                join_leave: value(overrides.join_leave),
                force_push_join_leave: value(overrides.force_push_join_leave),
                force_recovery: value(overrides.force_recovery),
                force_positioning: value(overrides.force_positioning),
            },
        })
    }

    /// From where on what was missed is told.
    pub(super) fn since(&self) -> Option<(u64, &str)> {
        self.recover_since.as_ref().map(From::parts)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Unsubscribe {
    user: String,
    client: String,
    session: String,
    pub(super) channel: String,
}

impl Unsubscribe {
    pub(super) fn select(&self) -> Result<Selection<'_>, ErrorReply> {
        select(&self.user, &self.client, &self.session)
    }
}

/// What a disconnect is about.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Leave {
    user: String,
    client: String,
    session: String,
    /// The clients that stay.
    pub(super) whitelist: Vec<String>,
    disconnect: Option<End>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct End {
    code: u16,
    reason: String,
}

impl Leave {
    pub(super) fn select(&self) -> Result<Selection<'_>, ErrorReply> {
        select(&self.user, &self.client, &self.session)
    }

    /// How the connections end.
    ///
    /// # Errors
    ///
    /// The code is not one of those that the protocol has for it.
    pub(super) fn disconnect(&self) -> Result<Disconnect, ErrorReply> {
        match &self.disconnect {
            None => Ok(FORCED),
            Some(End { code, reason }) if (3000..=4999).contains(code) => Ok(Disconnect {
                code: *code,
                reason: reason.clone().into(),
            }),
            Some(_) => Err(BAD_REQUEST),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh<'a> {
    user: String,
    client: String,
    session: String,
    pub(super) expired: bool,
    /// Seconds of Unix time; 0 for never.
    pub(super) expire_at: u64,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

impl Refresh<'_> {
    pub(super) fn select(&self) -> Result<Selection<'_>, ErrorReply> {
        select(&self.user, &self.client, &self.session)
    }

    /// What others learn of the client from here on.
    pub(super) fn info(&self) -> Option<String> {
        self.info
            .map(|info| text(one_line(info.get().as_bytes()).into_owned()))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Channel {
    pub(super) channel: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) channel: String,
    /// Below 0 for all that there is; with 0 only the position is told.
    limit: i64,
    since: Option<From>,
    reverse: bool,
}

impl History {
    pub(super) fn query(&self) -> HistoryQuery<'_> {
        HistoryQuery {
            limit: usize::try_from(self.limit).ok(),
            since: self.since.as_ref().map(From::parts),
            reverse: self.reverse,
            most_bytes: None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pattern {
    /// Empty for all.
    pub(super) pattern: String,
}

#[derive(Debug, Default, Deserialize)]
struct Nothing {}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(body: &str) -> Subscribe<'_> {
        object(body.as_bytes()).unwrap()
    }

    #[test]
    fn a_subscription_is_granted_as_it_is_said() {
        let said = subscribe(
            r#"{"user":"u","client":"c","session":"s","channel":"a","expire_at":7,
            "info":{"n":
            12345678901234567890},"b64data":"eyJiIjoxfQ==","recover_since":{"offset":3,"epoch":"e"},
            "override":{"presence":{"value":true},"force_recovery":{"value":false},"join_leave":{}}}"#,
        );
        let granted = Subscribed {
            expire_at: 7,
            info: r#"{"n":            12345678901234567890}"#.into(),
            data: r#"{"b":1}"#.into(),
            overrides: Overrides {
                presence: Some(true),
                force_recovery: Some(false),
                join_leave: Some(false),
                ..Overrides::default()
            },
        };
        assert_eq!(said.grant(), Ok(granted));
        assert_eq!(said.since(), Some((3, "e")));
        let select = said.select().unwrap();
        let meant = (select.user, select.client, select.session);
        assert_eq!(meant, ("u", "c", "s"));
        let little = subscribe(r#"{"user":"u"}"#);
        assert_eq!(little.grant(), Ok(Subscribed::default()));
        assert_eq!(little.since(), None);
        assert_eq!(subscribe("{}").select().unwrap_err(), BAD_REQUEST);
    }

    #[test]
    fn what_others_are_shown_is_json_and_what_it_is_told_may_be_bytes() {
        for body in [
            r#"{"b64info":"ew=="}"#,
            r#"{"b64info":"/w=="}"#,
            r#"{"b64info":"Iv8i"}"#,
            r#"{"b64data":"?"}"#,
        ] {
            assert_eq!(subscribe(body).grant(), Err(BAD_REQUEST), "{body}");
        }
        let told = subscribe(r#"{"data":1,"b64data":"/w=="}"#).grant();
        assert_eq!(told.map(|grant| grant.data), Ok(vec![0xff]));
    }

    #[test]
    fn connections_end_as_it_is_said() {
        let end = |body: &str| {
            let leave: Leave = object(body.as_bytes()).unwrap();
            leave.disconnect().map(|end| (end.code, end.reason))
        };
        assert_eq!(end("{}"), Ok((3503, "force disconnect".into())));
        let own = r#"{"disconnect":{"code":4999,"reason":"no"}}"#;
        assert_eq!(end(own), Ok((4999, "no".into())));
        for code in [0, 1000, 2999, 5000] {
            let body = format!("{{\"disconnect\":{{\"code\":{code}}}}}");
            assert_eq!(end(&body), Err(BAD_REQUEST), "{code}");
        }
    }

    #[test]
    fn a_refresh_has_its_info_in_one_line() {
        let refresh: Refresh<'_> = object(b"{\"info\":{\n}}").unwrap();
        assert_eq!(refresh.info().as_deref(), Some("{}"));
        let refresh: Refresh<'_> = object(b"{}").unwrap();
        assert_eq!((refresh.info(), refresh.expire_at), (None, 0));
    }
}
