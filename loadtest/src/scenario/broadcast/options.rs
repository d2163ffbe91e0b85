//! What load to make, and what follows from it for each topic.

use serde::{Deserialize, Serialize};

use super::log::Shape;
use super::{Bystanders, nats};
use crate::centrifugo;
use crate::scenario::echo::{Asking, Check};
use crate::scenario::stamp::{Payloads, Stamp};
use crate::units::ByteSize;

/// What load to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Members that only receive.
    pub subscribers: usize,
    /// Members that publish, one topic after another; no fewer than there are topics.
    pub publishers: usize,
    /// Topics, which all have as many members, give or take one.
    pub topics: usize,
    /// Payload bytes of messages, [`Dialect::smallest`] at least.
    pub size: usize,
    /// Messages that a publisher sends in one write.
    pub batch: usize,
    /// When batches are sent: so many in flight of each publisher, or so many *messages* per second of all.
    pub asking: Asking,
    /// Subscribers that never read.
    pub stalled: usize,
    /// Every member publishes, and sends its next batch when it has all of the round.
    pub is_everyone: bool,
    /// What is spoken over WebSocket.
    pub dialect: Dialect,
    /// How closely messages are looked at.
    pub check: Check,
    /// Connections beside the broadcast, whose latency is told apart.
    pub bystanders: Bystanders,
}

/// What is spoken over WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Messages as such: the path is the topic.
    Raw,
    /// The protocol of nats-server: topics are subjects.
    Nats,
    /// The JSON protocol of Centrifugo: topics are channels, payloads are strings.
    Centrifugo,
}

/// What stands for the topic in a path.
pub const TOPIC: &str = "{topic}";

impl Dialect {
    /// The smallest payload: who sent it, its number and its time.
    pub const fn smallest(self) -> usize {
        match self {
            Dialect::Raw | Dialect::Nats => Stamp::LEN,
            Dialect::Centrifugo => Stamp::TEXT_LEN,
        }
    }

    /// Where it is spoken.
    pub const fn path(self) -> &'static str {
        match self {
            Dialect::Raw => "/t/{topic}",
            Dialect::Nats => "/",
            Dialect::Centrifugo => centrifugo::PATH,
        }
    }

    pub(super) fn reader(self) -> Option<nats::Reader> {
        match self {
            Dialect::Raw | Dialect::Centrifugo => None,
            Dialect::Nats => Some(nats::Reader::default()),
        }
    }

    pub(super) fn payloads(self, size: usize) -> Payloads {
        match self {
            Dialect::Raw | Dialect::Nats => Payloads::new(size),
            Dialect::Centrifugo => Payloads::text(size),
        }
    }

    /// What a frame of that much payload looks like, where it does not depend on the topic and the server.
    pub(super) fn shape(self, size: usize) -> Option<Shape> {
        match self {
            Dialect::Raw | Dialect::Nats => Some(Shape::of_payload(size)),
            Dialect::Centrifugo => None,
        }
    }
}

impl Options {
    /// The load in one line.
    pub fn describe(&self) -> String {
        let who = if self.is_everyone {
            format!("{} members, all publish", self.publishers)
        } else {
            let (subscribers, publishers) = (self.subscribers, self.publishers);
            format!("{subscribers} subscribers, {publishers} publishing")
        };
        let stalled = match self.stalled {
            0 => String::new(),
            stalled => format!(" ({stalled} stalled)"),
        };
        let topics = match self.topics {
            1 => "1 topic".to_owned(),
            topics => format!("{topics} topics"),
        };
        let asking = match self.asking {
            Asking::InFlight(count) => format!("{count} in flight each"),
            Asking::PerSecond(rate) => format!("{rate} messages/s in all"),
        };
        let bystanders = match self.bystanders {
            Bystanders { count: 0, .. } => String::new(),
            Bystanders { count, per_second } => {
                format!("; {count} bystanders, {per_second} messages/s each")
            }
        };
        let (size, batch) = (ByteSize(self.size), self.batch);
        format!("{who}{stalled}, {topics}, {size} in batches of {batch}, {asking}{bystanders}")
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.members() + self.bystanders.count
    }

    /// How many of them are members of a topic that is published to.
    pub(super) fn members(&self) -> usize {
        self.publishers + self.subscribers
    }

    pub(super) fn publishers_of(&self, topic: usize) -> usize {
        (topic..self.publishers).step_by(self.topics).count()
    }

    /// How many members of a topic read.
    pub(super) fn readers_of(&self, topic: usize) -> usize {
        let subscribers = (topic..self.subscribers).step_by(self.topics);
        let reading = subscribers.filter(|subscriber| !self.is_stalled(*subscriber));
        self.publishers_of(topic) + reading.count()
    }

    /// Whether this subscriber stalls: they are spread evenly.
    pub(super) fn is_stalled(&self, subscriber: usize) -> bool {
        let before = |subscriber| subscriber * self.stalled / self.subscribers;
        before(subscriber) < before(subscriber + 1)
    }

    /// The messages that each reader of a topic gets when all its publishers send a batch.
    pub(super) fn round(&self, topic: usize) -> u64 {
        (self.batch * self.publishers_of(topic)) as u64
    }
}
