//! What a message costs, in numbers that do not depend on the machine's mood: instructions, which callgrind
//! counts, and system calls, which strace counts.
//!
//! Every load is made twice, the second time twice as long. What the longer run has more belongs to its
//! messages alone: start-up, handshakes and the end cancel out.
//!
//! A watched process is slow, and whoever talks to it is not: in every turn it finds all connections ready.
//! The counts are those of a process that is never waited for, which is how it works when it is full.

mod cell;
mod cost;
mod tool;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use cell::{Cell, all};
pub use cost::{Cost, Measured, Profile, Repeated};
pub use tool::{CALLGRIND, Counts, STRACE, Tool};

use crate::conductor::{self, Plan, Unwatched};
use crate::dial::Pace;
use crate::failure::Error;
use crate::server::Server;
use crate::worker::Until;

/// Which process is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The server.
    Server,
    /// The one that makes the load.
    Generator,
}

/// How cells are profiled.
#[derive(Debug)]
pub struct Profiler {
    /// Which process is watched.
    pub subject: Subject,
    /// How often each cell is measured.
    pub repeats: usize,
    /// Where the tools write to.
    pub folder: PathBuf,
}

/// What a tool counted while so many messages were.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Messages, or whatever the load counts.
    pub count: u64,
    /// What the tool counted.
    pub counts: Counts,
}

impl Profiler {
    /// Profiles a cell; `server` is the command that serves it.
    ///
    /// # Errors
    ///
    /// If a tool is missing, or anything failed at all: what a failure costs is in no message.
    pub fn measure(&self, cell: &Cell, server: &[String]) -> Result<Measured, Error> {
        let count = match self.subject {
            Subject::Server => cell.count,
            // At its end it looks through its latencies, which takes the longer the more they differ.
            Subject::Generator => 5 * cell.count,
        };
        let mut costs = Vec::new();
        for _ in 0..self.repeats {
            let mut cost = Cost::new();
            for tool in [CALLGRIND, STRACE] {
                let run = |count| self.watch(tool, cell, count, server);
                let (short, long) = (run(count)?, run(2 * count)?);
                cost.extend(cost::per_one(&short, &long));
            }
            costs.push(cost);
        }
        Ok(Measured::new(cell, &costs))
    }

    /// One run, watched from beginning to end.
    fn watch(
        &self,
        tool: Tool,
        cell: &Cell,
        count: u64,
        server: &[String],
    ) -> Result<Watched, Error> {
        let output = self.folder.join(format!("{}.{}", cell.name, tool.name));
        let prefix = tool.prefix(&output);
        let (before_server, before_load) = match self.subject {
            Subject::Server => (prefix, Vec::new()),
            Subject::Generator => (Vec::new(), prefix),
        };
        let words = [&before_server, server].concat();
        let server = Server::start(&server[0], &words, Path::new("."), None)?;
        let counted = Self::load(cell, count, &server, before_load)?;
        server.end()?;
        let written = std::fs::read_to_string(&output).map_err(Error::local(output.display()))?;
        let counts = (tool.read)(&written).ok_or_else(|| {
            Error::Local(format!("{} counted nothing in {}", tool.name, cell.name))
        })?;
        Ok(Watched {
            count: counted,
            counts,
        })
    }

    /// Makes the load, and says how much of it there was.
    fn load(cell: &Cell, count: u64, server: &Server, prefix: Vec<String>) -> Result<u64, Error> {
        let url = format!("ws://{}{}", server.address, cell.path);
        let plan = Plan {
            load: cell.load.clone(),
            target: url.parse().map_err(Error::Local)?,
            server_pid: None,
            processes: 1,
            prefix,
            pace: Pace::default(),
            warmup: Duration::ZERO,
            until: Until::Counted(count),
            watches_server: false,
        };
        let report = conductor::run(&plan, &mut Unwatched)?;
        if report.failures.total() > 0 {
            return Err(Error::Server(format!(
                "{}:\n{}",
                cell.name, report.failures
            )));
        }
        Ok(report.counted[cell.key])
    }
}

/// Asks for a tool before hours are spent without it, and for its version.
///
/// # Errors
///
/// If it is not installed: what has to be.
pub fn version(tool: Tool) -> Result<String, Error> {
    first_line(tool.name, &["--version"])
        .ok_or_else(|| Error::Local(format!("{0} is not there: apt-get install {0}", tool.name)))
}

/// The first line that a command prints, if it can be run.
pub fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}
