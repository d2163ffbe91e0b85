//! Load generator for WebSocket servers.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use loadtest::client::Target;
use loadtest::echo::Check;
use loadtest::failure::{Error, Failures};
use loadtest::figures::{Cell, Peer};
use loadtest::payload::Kind;
use loadtest::units::ByteSize;
use loadtest::{connect, echo, figures, idle};
use serde::Serialize;

/// Load generator for WebSocket servers
#[derive(Parser)]
#[command(
    version,
    after_help = "Exits with 0 if all went well, 1 if anything failed, 2 if nothing could be measured."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Echo: messages per second, round trips, server CPU per message
    Echo(Echo),
    /// Idle connections: server memory for each
    Idle(Idle),
    /// Connection storm: handshakes per second, server CPU for each
    Connect(Connect),
    /// Echo figures of servers against the physical limit, in interleaved rounds
    Figures(Figures),
}

#[derive(Args)]
struct Echo {
    #[command(flatten)]
    server: Server,
    /// How many connections
    #[arg(long, default_value = "50", value_parser = positive)]
    connections: usize,
    /// Payload bytes of each message
    #[arg(long, default_value = "20")]
    size: ByteSize,
    /// Messages that each connection keeps unanswered
    #[arg(long, default_value = "1", value_parser = positive)]
    in_flight: usize,
    /// What messages are made of
    #[arg(long, default_value = "binary")]
    kind: Kind,
    #[command(flatten)]
    time: Time,
    /// Compare every byte of every reply (costs the load generator time)
    #[arg(long)]
    verify: bool,
    /// Look at lengths only: for `limit`, which answers without reading
    #[arg(long, conflicts_with = "verify")]
    unchecked: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Idle {
    #[command(flatten)]
    server: Server,
    /// How many connections in the end (the first reading is at 200)
    #[arg(long, default_value = "10000", value_parser = positive)]
    connections: usize,
    /// Let every connection echo one message before it falls idle
    #[arg(long)]
    echo_once: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Connect {
    #[command(flatten)]
    server: Server,
    /// Connections being opened at any time
    #[arg(long, default_value = "50", value_parser = positive)]
    connections: usize,
    #[command(flatten)]
    time: Time,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Server {
    /// The server
    #[arg(value_name = "ws://HOST[:PORT][/PATH]")]
    target: Target,
    /// The server's process, for its CPU time and memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

#[derive(Args)]
struct Time {
    /// How long to count
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Load before anything is counted
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    warmup: Duration,
}

#[derive(Args)]
struct Output {
    /// Write the report to a file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Figures {
    /// stentor's program
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Its arguments
    #[arg(
        long,
        value_name = "ARGUMENTS",
        default_value = "echo --listen 127.0.0.1:{port}"
    )]
    server_arguments: String,
    /// Another server; `{port}`, `{frame_in}` and `{frame_out}` are filled in (may be repeated)
    #[arg(long = "peer", value_name = "NAME=COMMAND")]
    peers: Vec<Peer>,
    /// The limit program (by default the one beside this program)
    #[arg(long, value_name = "PROGRAM")]
    limit: Option<PathBuf>,
    /// A load, such as 50x20x16 or 1x1MiBx1 (may be repeated; by default the seven that are quoted)
    #[arg(long = "cell", value_name = "CONNECTIONSxSIZExIN_FLIGHT")]
    cells: Vec<Cell>,
    /// How often everything is measured
    #[arg(long, default_value = "7", value_parser = positive)]
    rounds: usize,
    /// How many rounds of a row are measured again if other work ran on the cores meanwhile
    #[arg(long, default_value = "14")]
    repeats: usize,
    /// How long one measurement counts
    #[arg(long, default_value = "1500ms", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Load before it counts
    #[arg(long, default_value = "200ms", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// What messages are made of
    #[arg(long, default_value = "binary")]
    kind: Kind,
    /// The servers' core
    #[arg(long, default_value = "0")]
    server_core: usize,
    /// The load generator's core
    #[arg(long, default_value = "1")]
    load_core: usize,
    /// Write every single measurement to a file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Echo(arguments) => arguments.run(),
        Command::Idle(arguments) => arguments.run(),
        Command::Connect(arguments) => arguments.run(),
        Command::Figures(arguments) => arguments.run(),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

impl Echo {
    fn run(self) -> Result<ExitCode, Error> {
        let report = echo::run(&echo::Options {
            target: self.server.target,
            server_pid: self.server.server_pid,
            connections: self.connections,
            size: self.size.0,
            in_flight: self.in_flight,
            kind: self.kind,
            check: match (self.verify, self.unchecked) {
                (true, _) => Check::Every,
                (_, true) => Check::Length,
                _ => Check::Sample,
            },
            warmup: self.time.warmup,
            duration: self.time.duration,
        })?;
        self.output.publish(&report, &report.failures)
    }
}

impl Idle {
    fn run(self) -> Result<ExitCode, Error> {
        let server_pid = self.server.server_pid;
        let report = idle::run(&idle::Options {
            target: self.server.target,
            server_pid: server_pid
                .ok_or_else(|| Error::Local("idle reads memory: give --server-pid".into()))?,
            connections: self.connections,
            echo_once: self.echo_once,
        })?;
        self.output.publish(&report, &report.failures)
    }
}

impl Connect {
    fn run(self) -> Result<ExitCode, Error> {
        let report = connect::run(&connect::Options {
            target: self.server.target,
            server_pid: self.server.server_pid,
            connections: self.connections,
            warmup: self.time.warmup,
            duration: self.time.duration,
        })?;
        self.output.publish(&report, &report.failures)
    }
}

impl Figures {
    fn run(self) -> Result<ExitCode, Error> {
        if figures::cores() < 2 {
            eprintln!("loadtest: there is one core only: server and load will take turns on it");
        }
        let stentor = self.server.map(|server| Peer {
            name: "stentor".to_owned(),
            command: [server.display().to_string()]
                .into_iter()
                .chain(
                    self.server_arguments
                        .split_ascii_whitespace()
                        .map(str::to_owned),
                )
                .collect(),
        });
        figures::run(&figures::Options {
            peers: stentor.into_iter().chain(self.peers).collect(),
            limit: self.limit.map_or_else(limit_beside_this, Ok)?,
            cells: if self.cells.is_empty() {
                figures::CELLS.to_vec()
            } else {
                self.cells
            },
            rounds: self.rounds,
            repeats: self.repeats,
            duration: self.duration,
            warmup: self.warmup,
            kind: self.kind,
            server_core: self.server_core,
            load_core: self.load_core,
            csv: self.csv,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Output {
    fn publish(
        &self,
        report: &(impl Display + Serialize),
        failures: &Failures,
    ) -> Result<ExitCode, Error> {
        // A reader that has seen enough is no failure.
        let _ = write!(std::io::stdout(), "{report}");
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(report).expect("a report has string keys only");
            std::fs::write(path, json + "\n").map_err(Error::local(path.display()))?;
        }
        Ok(if failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn limit_beside_this() -> Result<PathBuf, Error> {
    let this = std::env::current_exe().map_err(Error::local("where is this program?"))?;
    Ok(this.parent().unwrap_or(Path::new("")).join("limit"))
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "must be 1 or more".to_owned())
}
