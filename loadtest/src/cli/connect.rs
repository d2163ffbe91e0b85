//! `loadtest connect`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use loadtest::failure::Error;
use loadtest::scenario::Load;
use loadtest::scenario::broadcast::Dialect;
use loadtest::scenario::connect::{Goal, Options};

#[derive(Args)]
pub(super) struct Connect {
    /// Connections being opened at any time; of a storm, all there are
    #[arg(long, default_value = "50", value_parser = super::positive)]
    connections: usize,
    /// Open all at once, hold them, and end when the last is open
    #[arg(long)]
    storm: bool,
    /// What is spoken behind the handshake: nothing (raw), or Centrifugo's connect
    #[arg(long, default_value = "raw")]
    protocol: Dialect,
    /// Subscribe to this channel in the same message; {topic} becomes another for each connection
    #[arg(long, value_name = "CHANNEL")]
    subscribe: Option<String>,
    /// Let all come back that knew the channel, each to be told within 5 s what it has missed [default channel: t0]
    #[arg(long, requires = "storm")]
    recover: bool,
    #[command(flatten)]
    common: super::common::Common,
}

/// What the clients that come back have missed is kept.
const KEEP: &str =
    "serve --listen 127.0.0.1:{port} --log-level off --history-size 100 --history-ttl 10m";

impl Connect {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let goal = self.goal()?;
        let serves = match goal {
            Goal::Handshake => super::ECHO,
            Goal::Connect | Goal::Subscribe(_) => super::SERVE,
            Goal::Recover(_) => KEEP,
        };
        let mut common = self.common;
        if goal != Goal::Handshake {
            common = common.with_default_path(self.protocol.path());
        }
        if self.storm {
            common = common.with_warmup(Duration::ZERO);
        }
        let load = Load::Connect(Options {
            connections: self.connections,
            is_storm: self.storm,
            goal,
        });
        common.run(load, serves)
    }

    fn goal(&self) -> Result<Goal, Error> {
        let channel = self.subscribe.clone();
        match self.protocol {
            Dialect::Raw if channel.is_none() && !self.recover => Ok(Goal::Handshake),
            Dialect::Raw => refuse("--subscribe and --recover need --protocol centrifugo"),
            Dialect::Nats => refuse("--protocol: nats is for broadcast"),
            Dialect::Centrifugo if self.recover => {
                let channel = channel.unwrap_or_else(|| "t0".to_owned());
                if channel.contains("{topic}") {
                    return refuse("--recover: all come back to one channel");
                }
                Ok(Goal::Recover(channel))
            }
            Dialect::Centrifugo => Ok(channel.map_or(Goal::Connect, Goal::Subscribe)),
        }
    }
}

fn refuse(what: &str) -> Result<Goal, Error> {
    Err(Error::Local(what.to_owned()))
}
