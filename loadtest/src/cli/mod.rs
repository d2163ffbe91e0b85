//! The command line: flags to plans, reports to files and exit codes.

mod broadcast;
mod churn;
mod common;
mod compare;
mod connect;
mod echo;
mod idle;
mod profile;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::failure::Error;
use loadtest::scenario;
use loadtest::worker::{Line, Said};

/// Load generator for WebSocket servers
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Without a URL the server is stentor, built if need be, on one core with the load on another.
Exits with 0 if all went well, 1 if anything failed beyond --allow-errors, 2 if nothing could be measured."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Messages that come back: rate, latency, server CPU for each
    Echo(echo::Echo),
    /// Messages to all members of a topic: deliveries per second, latency to the last, server CPU for each
    Broadcast(broadcast::Broadcast),
    /// Connections that come and go in every way while messages flow: whatever the server does wrong is counted
    Churn(churn::Churn),
    /// Connections made and ended, or a storm of them: handshakes per second, server CPU for each
    Connect(connect::Connect),
    /// Connections that do nothing: server memory for each, CPU for the Pings that keep them
    Idle(idle::Idle),
    /// Servers against each other, against the physical limit and against stentor, in interleaved rounds
    Compare(Box<compare::Compare>),
    /// Instructions and system calls per message, in numbers that a later commit can be held against
    Profile(profile::Arguments),
    /// One process of a run; not for people
    #[command(hide = true)]
    Worker,
}

/// Does what the command line says.
pub(crate) fn run() -> Result<ExitCode, Error> {
    match Arguments::parse().command {
        Command::Echo(arguments) => arguments.run(),
        Command::Broadcast(arguments) => arguments.run(),
        Command::Churn(arguments) => arguments.run(),
        Command::Connect(arguments) => arguments.run(),
        Command::Idle(arguments) => arguments.run(),
        Command::Compare(arguments) => arguments.run(),
        Command::Profile(arguments) => arguments.run(),
        Command::Worker => work(),
    }
}

fn work() -> Result<ExitCode, Error> {
    let (mut line, job) = Line::open()?;
    let said = match scenario::run(&job, &mut line) {
        Ok(outcome) => Said::Done(Box::new(outcome)),
        Err(error) => Said::Failed(error),
    };
    line.say(&said)?;
    Ok(ExitCode::SUCCESS)
}

/// What stentor is told where topics are needed, and where echoes are.
const SERVE: &str = "serve --listen 127.0.0.1:{port} --log-level off";
const ECHO: &str = "echo --listen 127.0.0.1:{port} --log-level off";

/// A number from 1 on.
fn positive(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "must be 1 or more".to_owned())
}

/// A rate above nothing.
fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "must be a number above 0".to_owned())
}
