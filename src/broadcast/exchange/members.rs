//! Who is in a channel, as JSON. Clients of the protocol have said it themselves when they
//! subscribed; of subscribers without a protocol it is made up here.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stentor::{Context, Member};

use super::super::Place;
use super::super::client::one_line;
use super::super::raw::line;

/// The members by their id.
pub(super) fn presence(ctx: &mut Context<'_, Place>, channel: &str) -> String {
    let mut json = String::from("{\"presence\":{");
    for (index, member) in ctx.presence(channel).iter().enumerate() {
        let info = info(member, is_raw(ctx, member));
        json.push_str(if index == 0 { "" } else { "," });
        json.push_str(&line(&Who::of(&info).client));
        json.push(':');
        json.push_str(&info);
    }
    json.push_str("}}");
    json
}

/// How many they are, and how many users.
pub(super) fn stats(ctx: &mut Context<'_, Place>, channel: &str) -> String {
    let members = ctx.presence(channel);
    let mut users: HashSet<String> = HashSet::new();
    for member in &members {
        let info = info(member, is_raw(ctx, member));
        users.insert(Who::of(&info).user.into_owned());
    }
    let (clients, users) = (members.len(), users.len());
    format!("{{\"num_clients\":{clients},\"num_users\":{users}}}")
}

/// Whether a member has no protocol; one that is about to leave says no more what it had.
fn is_raw(ctx: &mut Context<'_, Place>, member: &Member) -> bool {
    let place = ctx.state_of(member.id);
    place.is_none_or(|place| matches!(place, Place::Raw(_) | Place::Nowhere))
}

/// The `ClientInfo` of a member.
fn info(member: &Member, is_raw: bool) -> Cow<'_, str> {
    let said = String::from_utf8_lossy(&member.info);
    if !is_raw {
        return said;
    }
    let conn_info = Some(said).filter(|said| !said.is_empty());
    let info = line(&Stranger {
        client: member.id.to_string(),
        user: "",
        conn_info: conn_info.as_deref().map(Said::of),
    });
    // What it said may have several, and a reply is one.
    Cow::Owned(one_line(&info))
}

/// What the protocol says of a client, as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Who<'a> {
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    user: Cow<'a, str>,
}

impl<'a> Who<'a> {
    fn of(info: &'a str) -> Self {
        serde_json::from_str(info).expect("both writers of it write JSON")
    }
}

/// A subscriber without a protocol.
#[derive(Serialize)]
struct Stranger<'a> {
    client: String,
    user: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<Said<'a>>,
}

/// What it said of itself: JSON as it is, or a string.
#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Said<'a> {
    fn of(text: &'a str) -> Self {
        serde_json::from_str(text).map_or(Self::Text(text), Self::Json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;
    use stentor::ConnectionId;

    fn stranger(info: &str) -> String {
        let member = Member {
            id: ConnectionId {
                key: 7,
                generation: 3,
            },
            info: info.as_bytes().into(),
            since: SystemTime::UNIX_EPOCH,
        };
        self::info(&member, true).into_owned()
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
    fn a_client_is_what_it_says() {
        let who = Who::of(r#"{"client":"c","user":"4\"2","conn_info":{"user":"x"}}"#);
        assert_eq!((&*who.client, &*who.user), ("c", "4\"2"));
    }
}
