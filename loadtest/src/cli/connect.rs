//! `loadtest connect`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use loadtest::failure::Error;
use loadtest::scenario::Load;
use loadtest::scenario::connect::Options;

#[derive(Args)]
pub(super) struct Connect {
    /// Connections being opened at any time; of a storm, all there are
    #[arg(long, default_value = "50", value_parser = super::positive)]
    connections: usize,
    /// Open all at once, hold them, and end when the last is open
    #[arg(long)]
    storm: bool,
    #[command(flatten)]
    common: super::common::Common,
}

impl Connect {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let load = Load::Connect(Options {
            connections: self.connections,
            is_storm: self.storm,
        });
        let common = if self.storm {
            self.common.with_warmup(Duration::ZERO)
        } else {
            self.common
        };
        common.run(load, "echo --listen 127.0.0.1:{port} --log-level off")
    }
}
