//! `loadtest echo`.

use std::process::ExitCode;

use clap::Args;
use loadtest::failure::Error;
use loadtest::payload::{Kind, Sizes};
use loadtest::scenario::Load;
use loadtest::scenario::echo::{Asking, Check, Options};

#[derive(Args)]
pub(super) struct Echo {
    /// How many connections
    #[arg(long, default_value = "50", value_parser = super::positive)]
    connections: usize,
    /// Payload bytes: 20, any of 16..1KiB, or by weight 20:90,1KiB:9,64KiB:1
    #[arg(long, default_value = "20")]
    size: Sizes,
    /// What messages are made of
    #[arg(long, default_value = "binary")]
    kind: Kind,
    /// Messages that each connection keeps unanswered
    #[arg(long, default_value = "1", value_parser = super::positive)]
    in_flight: usize,
    /// Send so many messages in a second, in all and whatever happens; latency counts from when each should have left
    #[arg(long, value_name = "PER_SECOND", value_parser = super::rate, conflicts_with = "in_flight")]
    rate: Option<f64>,
    /// Compare every byte of every reply (costs the load generator time)
    #[arg(long)]
    verify: bool,
    /// Look at lengths only: for `limit`, which answers without reading
    #[arg(long, conflicts_with = "verify")]
    unchecked: bool,
    #[command(flatten)]
    common: super::common::Common,
}

impl Echo {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let load = Load::Echo(Options {
            connections: self.connections,
            sizes: self.size,
            kind: self.kind,
            asking: self
                .rate
                .map_or(Asking::InFlight(self.in_flight), Asking::PerSecond),
            check: match (self.verify, self.unchecked) {
                (true, _) => Check::Every,
                (_, true) => Check::Length,
                _ => Check::Sample,
            },
        });
        self.common.run(load, super::ECHO)
    }
}
