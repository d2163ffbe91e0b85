//! `loadtest churn`.

use std::process::ExitCode;

use clap::Args;
use loadtest::failure::Error;
use loadtest::scenario::Load;
use loadtest::scenario::churn::{Leaves, Options, SMALLEST};
use loadtest::units::ByteSize;

#[derive(Args)]
pub(super) struct Churn {
    /// The population: whoever leaves is replaced at once
    #[arg(long, default_value = "200", value_parser = super::positive)]
    connections: usize,
    /// Connections that leave, or give up joining, in a second
    #[arg(long, value_name = "PER_SECOND", default_value = "200", value_parser = super::rate)]
    join_rate: f64,
    /// Messages that are sent in a second, each by any connection; it has to come back to its sender
    #[arg(long, value_name = "PER_SECOND", default_value = "200", value_parser = super::rate)]
    message_rate: f64,
    /// Payload bytes: who sent the message, its number and its time take 24
    #[arg(long, default_value = "64")]
    size: ByteSize,
    /// Weight of leaving with the closing handshake
    #[arg(long, value_name = "WEIGHT", default_value = "4")]
    close: u16,
    /// Weight of leaving with the end of the stream and no Close frame
    #[arg(long, value_name = "WEIGHT", default_value = "2")]
    half_close: u16,
    /// Weight of leaving with a reset
    #[arg(long, value_name = "WEIGHT", default_value = "2")]
    reset: u16,
    /// Weight of connections that go before their handshake is answered
    #[arg(long, value_name = "WEIGHT", default_value = "2")]
    abort: u16,
    #[command(flatten)]
    common: super::common::Common,
}

impl Churn {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let leaves = Leaves {
            close: self.close.into(),
            half_close: self.half_close.into(),
            reset: self.reset.into(),
            abort: self.abort.into(),
        };
        if leaves.close + leaves.half_close + leaves.reset + leaves.abort == 0 {
            return Err(Error::Local("nobody would leave: give a weight".into()));
        }
        if self.size.0 < SMALLEST {
            return Err(Error::Local(format!(
                "--size: who sent a message, its number and its time take {SMALLEST} bytes"
            )));
        }
        let load = Load::Churn(Options {
            connections: self.connections,
            join_rate: self.join_rate,
            message_rate: self.message_rate,
            size: self.size.0,
            leaves,
        });
        self.common.run(load, super::SERVE)
    }
}
