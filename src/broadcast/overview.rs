//! Which topics there are, for the page.

use std::time::{Duration, Instant};

use serde::Serialize;
use stentor::Context;

use super::raw::line;
use super::{OWN, Place};

/// How many topics are listed: more than anybody reads, and little to send every few seconds.
const MOST_TOPICS: usize = 200;

/// How old an answer may be: looking at a million topics takes the loop some ten milliseconds, and
/// many pages may ask.
const FRESH: Duration = Duration::from_millis(500);

/// The last answer.
#[derive(Debug, Default)]
pub(super) struct Overview(Option<(Instant, String)>);

impl Overview {
    /// The topics with most subscribers, and some counters, as JSON.
    pub(super) fn of(&mut self, ctx: &Context<'_, Place>) -> &str {
        let now = ctx.now();
        let is_fresh = |(at, _): &(Instant, _)| now.saturating_duration_since(*at) < FRESH;
        if !self.0.as_ref().is_some_and(is_fresh) {
            self.0 = None;
        }
        &self.0.get_or_insert_with(|| (now, look_around(ctx))).1
    }
}

fn look_around(ctx: &Context<'_, Place>) -> String {
    let stats = ctx.stats();
    line(&Answer {
        topics: largest(ctx),
        connections: ctx.connection_count(),
        messages_in: stats.messages_in,
        messages_out: stats.messages_out,
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
    })
}

/// The topics with most subscribers.
pub(super) fn largest<'c>(ctx: &'c Context<'_, Place>) -> Topics<'c> {
    let mut topics: Vec<Topic<'_>> = ctx
        .topics()
        .filter(|(name, _)| !name.starts_with(OWN))
        .map(|(name, subscribers)| Topic {
            name,
            subscribers,
            published: 0,
        })
        .collect();
    let total = topics.len();
    let by_size = |one: &Topic<'_>, other: &Topic<'_>| {
        let order = other.subscribers.cmp(&one.subscribers);
        order.then_with(|| one.name.cmp(other.name))
    };
    if total > MOST_TOPICS {
        topics.select_nth_unstable_by(MOST_TOPICS, by_size);
        topics.truncate(MOST_TOPICS);
    }
    topics.sort_unstable_by(by_size);
    for topic in &mut topics {
        topic.published = ctx.published_to(topic.name);
    }
    Topics { topics, total }
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    topics: Topics<'a>,
    connections: usize,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Those that are listed, and how many there are.
#[derive(Debug, Default, Serialize)]
pub(super) struct Topics<'a> {
    topics: Vec<Topic<'a>>,
    total: usize,
}

#[derive(Debug, Serialize)]
struct Topic<'a> {
    name: &'a str,
    subscribers: usize,
    /// Messages since it has had a subscriber.
    published: u32,
}
