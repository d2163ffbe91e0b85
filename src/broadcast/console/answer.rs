//! What a watcher asks about one topic: who is there, and what was said.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use stentor::topic::{HistoryError, Query};
use stentor::{Context, KeptPublication, MessageKind};

use super::super::Place;
use super::super::client::listed;
use super::super::raw::{Listed, line};

/// How many members are listed: as many as somebody reads.
const MOST_MEMBERS: usize = 200;

/// How many publications are shown, from the newest on, and how many bytes of them.
const MOST_PUBLICATIONS: usize = 50;
const MOST_BYTES: usize = 64 << 10;

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer<'a> {
    Presence(Presence<'a>),
    History(History<'a>),
}

#[derive(Serialize)]
struct Presence<'a> {
    topic: &'a str,
    /// Whether it is known who they are; otherwise, how many is all that is.
    kept: bool,
    total: usize,
    members: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct History<'a> {
    topic: &'a str,
    epoch: &'a str,
    offset: u64,
    /// From the newest to the oldest.
    publications: Vec<Said<'a>>,
}

#[derive(Serialize)]
struct Said<'a> {
    offset: u64,
    /// Milliseconds of Unix time.
    at: u64,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum What<'a> {
    Text(&'a str),
    Base64(String),
}

/// Who is in a topic.
pub(super) fn presence(ctx: &Context<'_, Place>, topic: &str) -> String {
    let kept = ctx.options_of(topic).presence;
    let members = listed(ctx, topic);
    let total = if kept {
        members.len()
    } else {
        ctx.subscriber_count(topic)
    };
    let listed = members.iter().take(MOST_MEMBERS).map(Listed::of);
    line(&Answer::Presence(Presence {
        topic,
        kept,
        total,
        members: listed.collect(),
    }))
}

/// The newest publications of a topic.
pub(super) fn history(ctx: &mut Context<'_, Place>, topic: &str) -> Result<String, HistoryError> {
    let query = Query {
        since: None,
        limit: MOST_PUBLICATIONS,
        reverse: true,
    };
    let history = ctx.history(topic, &query)?;
    let mut bytes = 0;
    let fitting = history.publications.iter().take_while(|publication| {
        bytes += publication.view(topic).message.payload().len();
        bytes <= MOST_BYTES
    });
    Ok(line(&Answer::History(History {
        topic,
        epoch: history.position.epoch.as_str(),
        offset: history.position.offset,
        publications: fitting
            .map(|publication| said(topic, publication))
            .collect(),
    })))
}

fn said<'a>(topic: &'a str, publication: &'a KeptPublication) -> Said<'a> {
    let message = publication.view(topic).message;
    let text = (message.kind() == MessageKind::Text).then(|| str::from_utf8(message.payload()));
    let at = publication.at().duration_since(SystemTime::UNIX_EPOCH);
    Said {
        offset: publication.offset(),
        at: at.map_or(0, |age| age.as_millis() as u64),
        what: match text {
            Some(Ok(text)) => What::Text(text),
            _ => What::Base64(STANDARD.encode(message.payload())),
        },
    }
}
