//! Who is there: told on a topic of the program's own beside the topic that it is about.

use std::time::SystemTime;

use serde::Serialize;
use serde::ser::Serializer;
use serde_json::value::RawValue;
use stentor::{Context, Member, Message, PresenceEvent};

use super::Place;
use super::header::line;
use crate::broadcast::beside::{Ear, beside};
use crate::broadcast::client::{Visibility, listed};

/// The most members that are listed to one that comes: some ten KiB where they say little.
const MOST_MEMBERS: usize = 1000;

/// Tells those who want to know that somebody has come or gone; who has come and wants to know
/// as well learns who is there.
pub(super) fn tell(
    ctx: &mut Context<'_, Place>,
    event: &PresenceEvent,
    wants_to_know: impl FnOnce(Place) -> bool,
) {
    let beside = beside(&event.topic, Ear::Raw);
    let is_told = Visibility::of(&event.info).is_listed;
    if is_told && ctx.subscriber_count(&beside) > 0 {
        let text = describe(event);
        // Its name is a good one.
        let _ = ctx.publish(&beside, Message::text(&text));
    }
    let place = ctx.state_of(event.id).map(|place| *place);
    if event.has_joined && place.is_some_and(wants_to_know) {
        let members = listed(ctx, &event.topic);
        let present = present(members.iter().map(Listed::of));
        ctx.send_to(event.id, Message::text(&present));
        if ctx.subscribe_connection(event.id, &beside).is_err() {
            let (code, reason) = super::TOO_MANY_TOPICS;
            let _ = ctx.close_connection(event.id, code, reason);
        }
    }
}

fn describe(event: &PresenceEvent) -> String {
    let someone = Someone {
        id: event.id.to_string(),
        info: Info(&event.info),
    };
    if event.has_joined {
        line(&Joined { joined: someone })
    } else {
        line(&Left { left: someone })
    }
}

fn present<'a>(members: impl ExactSizeIterator<Item = Listed<'a>>) -> String {
    let total = members.len();
    line(&Present {
        present: members.take(MOST_MEMBERS).collect(),
        total: Some(total).filter(|&total| total > MOST_MEMBERS),
    })
}

#[derive(Serialize)]
struct Present<'a> {
    present: Vec<Listed<'a>>,
    /// How many there are, if not all of them are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
}

/// Somebody who is there.
#[derive(Serialize)]
pub(in crate::broadcast) struct Listed<'a> {
    #[serde(flatten)]
    someone: Someone<'a>,
    since: u64,
}

impl<'a> Listed<'a> {
    pub(in crate::broadcast) fn of(member: &'a Member) -> Self {
        let since = member.since.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            someone: Someone {
                id: member.id.to_string(),
                info: Info(&member.info),
            },
            since: since.map_or(0, |age| age.as_secs()),
        }
    }
}

#[derive(Serialize)]
struct Joined<'a> {
    joined: Someone<'a>,
}

#[derive(Serialize)]
struct Left<'a> {
    left: Someone<'a>,
}

#[derive(Serialize)]
struct Someone<'a> {
    id: String,
    info: Info<'a>,
}

/// What somebody said of itself: the JSON that it is, or else a text; `null` for nothing.
struct Info<'a>(&'a [u8]);

impl Serialize for Info<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            return serializer.serialize_none();
        }
        match serde_json::from_slice::<&RawValue>(self.0) {
            Ok(json) => json.serialize(serializer),
            Err(_) => serializer.serialize_str(&String::from_utf8_lossy(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_says_is_json_or_a_text() {
        for (info, json) in [
            ("", "null"),
            ("7", "7"),
            ("null", "null"),
            (r#"{"name": "Anna"}"#, r#"{"name": "Anna"}"#),
            ("Anna", r#""Anna""#),
            (r#"{"name""#, r#""{\"name\"""#),
            ("12345678901234567890.10", "12345678901234567890.10"),
        ] {
            assert_eq!(line(&Info(info.as_bytes())), json);
        }
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let members = |count: u64| {
            let member = |number: u64| Listed {
                someone: Someone {
                    id: number.to_string(),
                    info: Info(b""),
                },
                since: 7,
            };
            let members: Vec<_> = (0..count).map(member).collect();
            present(members.into_iter())
        };
        let expected = r#"{"present":[{"id":"0","info":null,"since":7}]}"#;
        assert_eq!(members(1), expected);
        assert!(!members(1000).contains("total"));
        let cut = members(1001);
        assert_eq!(cut.matches("since").count(), 1000);
        assert!(cut.ends_with(r#""since":7}],"total":1001}"#));
    }
}
