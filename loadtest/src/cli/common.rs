//! What all loads have in common: the server, how long, how many processes, where the report goes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use loadtest::conductor::{self, Plan, Unwatched, Watch};
use loadtest::dial::Pace;
use loadtest::failure::Error;
use loadtest::progress::Progress;
use loadtest::report::Report;
use loadtest::scenario::Load;
use loadtest::worker::Until;

use super::target::{Measured, ServerArguments};

/// The options of every load.
#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    server: ServerArguments,
    /// How long to count
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Load before anything is counted
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Processes that make the load together
    #[arg(long, default_value = "1", value_parser = super::positive)]
    processes: usize,
    /// Connections that begin in a second, at most
    #[arg(long, value_name = "PER_SECOND", value_parser = super::rate)]
    connect_rate: Option<f64>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Output {
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Add the report as a line to a table, with a line of names where the file is new
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the report as a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Failures that are forgiven
    #[arg(long, value_name = "COUNT", default_value = "0")]
    allow_errors: u64,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

impl Common {
    /// Counts for so long where nobody said how long.
    pub(super) fn with_warmup(mut self, warmup: Duration) -> Self {
        self.warmup = warmup;
        self
    }

    /// The path where none was named.
    pub(super) fn with_default_path(mut self, path: &str) -> Self {
        self.server.set_default_path(path);
        self
    }

    /// Runs a load and reports; `serves` is what stentor has to be told to serve it.
    pub(super) fn run(self, load: Load, serves: &str) -> Result<ExitCode, Error> {
        let measured = self.server.prepare(serves)?;
        let report = self.measure(load, &measured)?;
        self.output.publish(&report)
    }

    fn measure(&self, load: Load, measured: &Measured) -> Result<Report, Error> {
        let plan = Plan {
            load,
            target: measured.target.clone(),
            server_pid: measured.pid,
            processes: self.processes,
            prefix: Vec::new(),
            pace: Pace {
                per_second: self.connect_rate,
                at_once: None,
            },
            warmup: self.warmup,
            until: Until::Elapsed(self.duration),
            watches_server: true,
        };
        let mut progress: Box<dyn Watch> = if self.output.quiet {
            Box::new(Unwatched)
        } else {
            Box::new(Progress::new(self.duration))
        };
        conductor::run(&plan, progress.as_mut())
    }
}

impl Output {
    fn publish(&self, report: &Report) -> Result<ExitCode, Error> {
        // A reader that has seen enough is no failure.
        let _ = write!(std::io::stdout(), "{report}");
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(report).expect("a report has string keys only");
            write(path, &(json + "\n"))?;
        }
        if let Some(path) = &self.csv {
            append_csv(path, report)?;
        }
        if self.html.is_some() {
            return Err(Error::Local("--html is not there yet".into()));
        }
        Ok(if report.failures.total() <= self.allow_errors {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::local(path.display()))
}

/// Adds a line; a table of other columns is not touched.
fn append_csv(path: &Path, report: &Report) -> Result<(), Error> {
    let (names, values) = report.csv();
    let before = std::fs::read_to_string(path).unwrap_or_default();
    match before.lines().next() {
        None => write(path, &format!("{names}\n{values}\n")),
        Some(first) if first == names => write(path, &format!("{before}{values}\n")),
        Some(_) => Err(Error::Local(format!(
            "{}: has other columns than this report: name another file",
            path.display()
        ))),
    }
}
