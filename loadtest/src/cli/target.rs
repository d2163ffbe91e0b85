//! The server that is measured: one that runs, one that is started, or stentor.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use loadtest::failure::Error;
use loadtest::process;
use loadtest::server::{self, Server};
use loadtest::target::Target;

#[derive(Args)]
pub(super) struct ServerArguments {
    /// The server; without it stentor is started
    #[arg(value_name = "ws://HOST[:PORT][/PATH]")]
    url: Option<Target>,
    /// The server's process, for its CPU time and memory (of a server on this machine it is found)
    #[arg(long, value_name = "PID", requires = "url")]
    server_pid: Option<u32>,
    /// Start this server and end it afterwards; {port} is filled in
    #[arg(long, value_name = "COMMAND", conflicts_with = "url")]
    start: Option<String>,
    /// The path, instead of the URL's
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The core of a server that is started
    #[arg(long, value_name = "CORE", default_value = "0")]
    server_core: usize,
    /// The load's core beside a server that is started
    #[arg(long, value_name = "CORE", default_value = "1")]
    load_core: usize,
}

/// A server that is there to be measured, as long as this value is.
pub(super) struct Measured {
    pub(super) target: Target,
    pub(super) pid: Option<u32>,
    _started: Option<Server>,
}

impl ServerArguments {
    /// The path where neither an option nor the URL names one.
    pub(super) fn set_default_path(&mut self, path: &str) {
        let is_bare = |url: &Target| url.path == "/";
        if self.url.as_ref().is_none_or(is_bare) {
            self.path.get_or_insert_with(|| path.to_owned());
        }
    }

    /// Finds or starts the server; `serves` are stentor's arguments for it.
    pub(super) fn prepare(&self, serves: &str) -> Result<Measured, Error> {
        if let Some(target) = &self.url {
            let found = || process::listening_on(target.address);
            let path = self.path.as_ref().unwrap_or(&target.path);
            return Ok(Measured {
                target: target.at(path),
                pid: self.server_pid.or_else(found),
                _started: None,
            });
        }
        let words = match &self.start {
            Some(command) => command
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect(),
            None => stentor(serves)?,
        };
        let has_cores = server::cores() > 1;
        if !has_cores {
            eprintln!("loadtest: there is one core only: server and load will take turns on it");
        }
        let core = has_cores.then_some(self.server_core);
        let started = Server::start(&words[0], &words, Path::new("."), core)?;
        if has_cores {
            server::pin(self.load_core)?;
        }
        let path = self.path.as_deref().unwrap_or("/");
        let url = format!("ws://{}{path}", started.address);
        Ok(Measured {
            target: url.parse().map_err(Error::Local)?,
            pid: Some(started.pid()),
            _started: Some(started),
        })
    }
}

/// The command that starts stentor's program, which is built first where it is not.
pub(super) fn stentor(serves: &str) -> Result<Vec<String>, Error> {
    let this = std::env::current_exe().map_err(Error::local("where is this program?"))?;
    let program = this.with_file_name("stentor");
    if !program.exists() {
        build_stentor(&program)?;
    }
    let arguments = serves.split_ascii_whitespace().map(str::to_owned);
    Ok([program.display().to_string()]
        .into_iter()
        .chain(arguments)
        .collect())
}

fn build_stentor(program: &Path) -> Result<(), Error> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut build = Command::new("cargo");
    build.args(["build", "--package", "stentor", "--bin", "stentor"]);
    build.arg("--manifest-path").arg(manifest);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    eprintln!("loadtest: building stentor");
    let status = build.status().map_err(Error::local("cargo"))?;
    if status.success() && program.exists() {
        return Ok(());
    }
    let what = format!(
        "{} was not built: name a server by its URL",
        program.display()
    );
    Err(Error::Local(what))
}
