//! Who is in a channel, as JSON.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use stentor::Context;

use super::super::Place;
use super::super::client::client_info;
use super::super::raw::line;

/// The members by their id.
pub(super) fn presence(ctx: &Context<'_, Place>, channel: &str) -> String {
    let mut json = String::from("{\"presence\":{");
    for (index, member) in ctx.presence(channel).iter().enumerate() {
        let info = client_info(&member.info, member.id);
        json.push_str(if index == 0 { "" } else { "," });
        json.push_str(&line(&Who::of(&info).client));
        json.push(':');
        json.push_str(&info);
    }
    json.push_str("}}");
    json
}

/// How many they are, and how many users.
pub(super) fn stats(ctx: &Context<'_, Place>, channel: &str) -> String {
    let members = ctx.presence(channel);
    let mut users: HashSet<String> = HashSet::new();
    for member in &members {
        let info = client_info(&member.info, member.id);
        users.insert(Who::of(&info).user.into_owned());
    }
    let (clients, users) = (members.len(), users.len());
    format!("{{\"num_clients\":{clients},\"num_users\":{users}}}")
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
        serde_json::from_str(info).expect("what is not the protocol's own is made up as such")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stentor::ConnectionId;

    fn stranger(info: &str) -> String {
        let id = ConnectionId {
            key: 7,
            generation: 3,
        };
        client_info(info.as_bytes(), id)
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
