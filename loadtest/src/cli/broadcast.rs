//! `loadtest broadcast`.

use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use loadtest::failure::Error;
use loadtest::scenario::Load;
use loadtest::scenario::broadcast::{Bystanders, Dialect, Options, PER_SECOND};
use loadtest::scenario::echo::{Asking, Check};
use loadtest::units::ByteSize;

#[derive(Args)]
pub(super) struct Broadcast {
    /// Members of topics that only receive; with --everyone, all members
    #[arg(long, default_value = "500", value_parser = super::positive)]
    subscribers: usize,
    /// Members that publish too [default: one for each topic]
    #[arg(long, value_parser = super::positive, conflicts_with = "everyone")]
    publishers: Option<usize>,
    /// Topics, named t0, t1, …: {topic} in --path
    #[arg(long, default_value = "1", value_parser = super::positive)]
    topics: usize,
    /// Payload bytes: who sent the message, its number and its time take 24, in Centrifugo's strings 32
    #[arg(long, default_value = "64")]
    size: ByteSize,
    /// Messages in one write of a publisher
    #[arg(long, default_value = "1", value_parser = super::positive)]
    batch: usize,
    /// Batches that each publisher has sent and not got back; with --everyone, not got back from all
    #[arg(long, default_value = "1", value_parser = super::positive)]
    in_flight: usize,
    /// Publish so many messages in a second, in all and whatever happens; latency counts from when each should have left
    #[arg(long, value_name = "PER_SECOND", value_parser = super::rate, conflicts_with = "in_flight")]
    rate: Option<f64>,
    /// Subscribers that never read, as a number or 1%
    #[arg(long, value_name = "PART", conflicts_with_all = ["everyone", "unchecked"])]
    stalled: Option<Part>,
    /// Connections beside the broadcast, each alone in a topic of its own, to which it sends 20 bytes now and then
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "0",
        conflicts_with = "unchecked"
    )]
    bystanders: usize,
    /// Messages that each bystander sends in a second, whatever happens; latency counts from when each left, and how much
    /// later that was than it should have been is told beside it
    #[arg(long, value_name = "PER_SECOND", default_value_t = PER_SECOND, value_parser = super::rate, requires = "bystanders")]
    bystander_rate: f64,
    /// All members publish, each its next batch when it has those of all
    #[arg(long)]
    everyone: bool,
    /// What is spoken over WebSocket
    #[arg(long, default_value = "raw")]
    protocol: Dialect,
    /// Compare every byte of every message (costs the load generator time)
    #[arg(long)]
    verify: bool,
    /// Look at lengths only: for `limit fanout`, which answers without reading
    #[arg(long, conflicts_with_all = ["verify", "protocol"])]
    unchecked: bool,
    #[command(flatten)]
    common: super::common::Common,
}

/// A part of all subscribers.
#[derive(Clone, Copy)]
enum Part {
    Count(usize),
    Percent(f64),
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a number nor a percentage such as 1%");
        match text.strip_suffix('%') {
            None => text.parse().map(Part::Count).map_err(|_| wrong()),
            Some(percent) => percent
                .parse()
                .ok()
                .filter(|percent| (0.0..=100.0).contains(percent))
                .map(Part::Percent)
                .ok_or_else(wrong),
        }
    }
}

impl Part {
    /// At least one, if it is any.
    #[expect(clippy::cast_sign_loss, reason = "a percentage is not below zero")]
    fn of(self, all: usize) -> usize {
        match self {
            Part::Count(count) => count,
            Part::Percent(percent) => {
                (loadtest::units::float(all as u64) * percent / 100.0).ceil() as usize
            }
        }
    }
}

impl Broadcast {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let options = self.options()?;
        self.common
            .with_default_path(self.protocol.path())
            .run(Load::Broadcast(options), super::SERVE)
    }

    fn options(&self) -> Result<Options, Error> {
        let publishers = match self.publishers {
            None if self.everyone => self.subscribers,
            None => self.topics,
            Some(publishers) => publishers,
        };
        let stalled = self.stalled.map_or(0, |part| part.of(self.subscribers));
        let smallest = self.protocol.smallest();
        if self.size.0 < smallest {
            return refuse(format!(
                "--size: who sent a message, its number and its time take {smallest} bytes"
            ));
        }
        if publishers < self.topics {
            return refuse(format!(
                "--topics: {publishers} publishers leave some of {} topics silent",
                self.topics
            ));
        }
        if stalled > self.subscribers {
            return refuse("--stalled: there are not so many subscribers".to_owned());
        }
        if self.bystanders > 0 && self.protocol != Dialect::Raw {
            return refuse("--bystanders: they speak to topics by path, no protocol".to_owned());
        }
        Ok(Options {
            subscribers: if self.everyone { 0 } else { self.subscribers },
            publishers,
            topics: self.topics,
            size: self.size.0,
            batch: self.batch,
            asking: self
                .rate
                .map_or(Asking::InFlight(self.in_flight), Asking::PerSecond),
            stalled,
            is_everyone: self.everyone,
            dialect: self.protocol,
            check: match (self.verify, self.unchecked) {
                (true, _) => Check::Every,
                (_, true) => Check::Length,
                _ => Check::Sample,
            },
            bystanders: Bystanders {
                count: self.bystanders,
                per_second: self.bystander_rate,
            },
        })
    }
}

fn refuse(what: String) -> Result<Options, Error> {
    Err(Error::Local(what))
}
