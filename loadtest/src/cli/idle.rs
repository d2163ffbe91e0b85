//! `loadtest idle`.

use std::process::ExitCode;

use clap::Args;
use loadtest::failure::Error;
use loadtest::scenario::Load;
use loadtest::scenario::broadcast::Dialect;
use loadtest::scenario::idle::{BASE, Options};

#[derive(Args)]
pub(super) struct Idle {
    /// How many connections in the end (the first reading is at 200)
    #[arg(long, default_value = "10000", value_parser = super::positive)]
    connections: usize,
    /// Let every connection echo one message before it falls idle
    #[arg(long, conflicts_with = "protocol")]
    echo_once: bool,
    /// Let every connection be a member of one topic, raw or in Centrifugo's protocol, instead of one that may echo
    #[arg(long)]
    protocol: Option<Dialect>,
    /// That topic; {topic} becomes another for each connection
    #[arg(
        long,
        value_name = "TOPIC",
        default_value = "t0",
        requires = "protocol"
    )]
    subscribe: String,
    #[command(flatten)]
    common: super::common::Common,
}

impl Idle {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        if self.connections <= BASE {
            return Err(Error::Local(format!(
                "the growth is measured from {BASE} connections on: ask for more"
            )));
        }
        let topic = self.subscribe;
        let (serves, path, channel) = match self.protocol {
            None => (super::ECHO, "/".to_owned(), None),
            Some(Dialect::Raw) => (super::SERVE, format!("/t/{topic}"), None),
            Some(protocol @ Dialect::Centrifugo) => {
                (super::SERVE, protocol.path().to_owned(), Some(topic))
            }
            Some(Dialect::Nats) => {
                let what = "--protocol: nats is for broadcast";
                return Err(Error::Local(what.to_owned()));
            }
        };
        let load = Load::Idle(Options {
            connections: self.connections,
            echo_once: self.echo_once,
            channel,
        });
        self.common.with_default_path(&path).run(load, serves)
    }
}
