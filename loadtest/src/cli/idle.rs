//! `loadtest idle`.

use std::process::ExitCode;

use clap::Args;
use loadtest::failure::Error;
use loadtest::scenario::Load;
use loadtest::scenario::idle::{BASE, Options};

#[derive(Args)]
pub(super) struct Idle {
    /// How many connections in the end (the first reading is at 200)
    #[arg(long, default_value = "10000", value_parser = super::positive)]
    connections: usize,
    /// Let every connection echo one message before it falls idle
    #[arg(long)]
    echo_once: bool,
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
        let load = Load::Idle(Options {
            connections: self.connections,
            echo_once: self.echo_once,
        });
        self.common
            .run(load, "echo --listen 127.0.0.1:{port} --log-level off")
    }
}
