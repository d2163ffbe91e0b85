//! From a command line to a server that runs, and from its end to an exit code.
//!
//! ```text
//! arguments, environment ─▶ Flags ─┬▶ Settings ─▶ Server ─▶ ExitCode
//!                           File ─┘
//! ```
//!
//! What is served is `broadcast`'s business, or `echo`'s.

mod application;
mod choice;
mod echo;
mod file;
mod flags;
mod keys;
mod log;
mod logged;
mod memory;
mod namespaces;
mod open_files;
mod settings;
mod signals;
mod units;
mod values;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use stentor::{BindError, Endpoint, Handle, Handler, Server, Stats};
use tracing::{info, warn};

use self::echo::Echo;
use self::flags::Flags;
use self::logged::Logged;
use self::settings::{Addresses, Mode, Room, Settings};
use self::signals::Signals;

/// Reads the command line and the environment.
pub(crate) fn parse() -> Result<Flags, clap::Error> {
    Flags::try_parse()
}

/// Runs the program to its end.
pub(crate) fn run(flags: Result<Flags, clap::Error>) -> ExitCode {
    let flags = match flags {
        Ok(flags) => flags,
        Err(help) if !help.use_stderr() => {
            // `stentor --help | head` is no failure.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&flags::describe(&error)),
    };
    match start(flags) {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

fn start(flags: Flags) -> Result<ExitCode, Failure> {
    let room = Room {
        connections: open_files::raise_limit().map_err(Failure::Setup)?,
        memory: memory::available(),
    };
    let settings = Settings::resolve(&flags, room).map_err(Failure::Setup)?;
    // Before the log starts: what is wrong is one line, and nothing else.
    let application = match settings.mode {
        Mode::Serve | Mode::Check => Some(application::of(&settings).map_err(Failure::Setup)?),
        Mode::Echo => None,
    };
    if settings.mode == Mode::Check {
        let _ = writeln!(io::stdout(), "OK");
        return Ok(ExitCode::SUCCESS);
    }
    let logs = log::start(settings.log_level);
    let ended = match application {
        Some(application) => {
            let has_file = flags.config.is_some();
            let reload = application::reload(flags, room, &settings.config);
            serve(settings, application, has_file.then_some(reload))
        }
        None => serve(settings, Echo, None::<fn(&_)>),
    };
    logs.finish();
    ended
}

/// Serves until a signal ends it.
fn serve<H>(
    settings: Settings,
    handler: H,
    reload: Option<impl FnMut(&Handle<Logged<H>>) + Send + 'static>,
) -> Result<ExitCode, Failure>
where
    H: Handler + 'static,
{
    let Settings {
        config, addresses, ..
    } = settings;
    // Before anybody can connect: who is connected is always closed in order.
    let signals = Signals::catch(reload.is_some()).map_err(Failure::System)?;
    let limits = config.limits.clone();
    let mut server = Server::bind(config, Logged::new(handler))?;
    announce(&addresses, &server.endpoints());
    info!(
        max_input = limits.max_input,
        max_output = limits.max_output,
        max_history = limits.max_history,
        max_topic_memory = limits.max_topic_memory,
        "caps of memory, in bytes"
    );
    let ending = signals
        .shut_down(server.handle(), reload)
        .map_err(Failure::System)?;
    while server.turn(None).map_err(Failure::System)? {}
    log_end(server.stats());
    Ok(ending.exit_code())
}

/// Says on standard output where to connect. If nobody reads that, the server runs all the same.
fn announce(addresses: &Addresses, endpoints: &[Endpoint]) {
    let mut stdout = io::stdout().lock();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let address = addresses.describe(index, endpoint);
        let _ = writeln!(stdout, "stentor {} {address}", env!("CARGO_PKG_VERSION"));
        info!(%endpoint, "listens");
    }
    let _ = stdout.flush();
}

fn log_end(stats: &Stats) {
    info!(
        connections = stats.opened,
        messages_in = stats.messages_in,
        deliveries = stats.deliveries,
        bytes_in = stats.bytes_in,
        bytes_out = stats.bytes_out,
        "stopped"
    );
    let dropped = stats.dropped_slow + stats.lost.total();
    if dropped > 0 {
        warn!(
            dropped,
            "messages were not sent to peers that read too slowly"
        );
    }
}

/// Why the program could not start, or stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for cannot be had: the key, what is wrong with it, and what would be right.
    Setup(SetupError),
    /// The operating system refuses what every program may ask for.
    System(io::Error),
}

/// A key of the configuration that cannot be used, in one line; of a file all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetupError(String);

impl SetupError {
    /// What is wrong with a key, and what would be right.
    fn new(key: &str, problem: impl fmt::Display) -> Self {
        Self(format!("{key}: {problem}"))
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Poll(error) => Self::System(error),
            // They name the key and the remedy themselves.
            BindError::Config(_) | BindError::Listen(..) => {
                Self::Setup(SetupError(error.to_string()))
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(error) => write!(f, "{error}"),
            Self::System(error) => write!(f, "the operating system refuses: {error}"),
        }
    }
}

/// A line for whoever started the program, or several, and the exit code that sorts them.
fn fail(failure: &Failure) -> ExitCode {
    for line in failure.to_string().lines() {
        let _ = writeln!(io::stderr(), "stentor: {line}");
    }
    match failure {
        Failure::Setup(_) => ExitCode::from(2),
        Failure::System(_) => ExitCode::FAILURE,
    }
}
