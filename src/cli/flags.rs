//! The command line and the environment as they were written: nothing is decided here.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Parser, Subcommand};
use stentor::Endpoint;
use tracing::level_filters::LevelFilter;

use super::units::{count, duration, size};
use super::{Failure, SetupError};

/// A WebSocket server: what a client sends to a topic, everyone in the topic hears
#[derive(Debug, Parser)]
#[command(name = "stentor", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// Where to listen: ADDRESS:PORT, [IPV6]:PORT or unix:PATH; may be repeated [default:
    /// 127.0.0.1:9001]
    #[arg(
        long,
        short,
        global = true,
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    #[arg(env = "STENTOR_LISTEN", hide_env = true)]
    pub(super) listen: Vec<Endpoint>,

    #[command(flatten)]
    pub(super) limits: LimitFlags,

    #[command(flatten)]
    pub(super) timeouts: TimeoutFlags,

    /// What is logged to standard error: off, error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Logs")]
    #[arg(env = "STENTOR_LOG", hide_env = true, value_parser = level(), hide_possible_values = true)]
    pub(super) log_level: Option<LevelFilter>,

    /// Log more: -v is debug, with each connection; -vv is trace, with each request
    #[arg(long, short, global = true, action = ArgAction::Count, help_heading = "Logs")]
    pub(super) verbose: u8,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Command {
    /// Publish each message to everyone in its topic, with a page to try it [the default]
    #[command(allow_negative_numbers = true)]
    Serve,
    /// Return each message as it came, for test suites and load generators
    #[command(allow_negative_numbers = true)]
    Echo,
}

/// How much of everything there may be.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitFlags {
    /// The largest message [default: 64KiB; echo: 16MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_MAX_MESSAGE_SIZE", hide_env = true)]
    pub(super) max_message_size: Option<usize>,

    /// The most frames that one message may come in [default: 131072; echo: 1048576]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<u32>)]
    #[arg(env = "STENTOR_MAX_FRAGMENTS", hide_env = true)]
    pub(super) max_fragments: Option<u32>,

    /// Connections at a time [default: the limit of open files less 64]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(env = "STENTOR_MAX_CONNECTIONS", hide_env = true)]
    pub(super) max_connections: Option<usize>,

    /// Bytes waiting for a slow reader from which on nothing more is read from it [default: 256KiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_OUTBOX_SOFT", hide_env = true)]
    pub(super) outbox_soft: Option<usize>,

    /// Bytes waiting for a slow reader at which it is closed with 1013 [default: 1MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_OUTBOX_HARD", hide_env = true)]
    pub(super) outbox_hard: Option<usize>,

    /// Topics at a time [default: 1000000]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(env = "STENTOR_MAX_TOPICS", hide_env = true)]
    pub(super) max_topics: Option<usize>,

    /// Topics that one connection may subscribe to [default: 128]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(env = "STENTOR_MAX_TOPICS_PER_CONNECTION", hide_env = true)]
    pub(super) max_topics_per_connection: Option<usize>,

    /// The buffer that all connections receive into [default: 128KiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_RECEIVE_BUFFER", hide_env = true)]
    pub(super) receive_buffer: Option<usize>,
}

/// How long anything may take.
#[allow(clippy::struct_field_names)] // They are the names of the flags.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Timeouts")]
pub(super) struct TimeoutFlags {
    /// Silence after which a peer is pinged [default: 25s; echo: 2m]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_IDLE_TIMEOUT", hide_env = true)]
    pub(super) idle_timeout: Option<Duration>,

    /// From that ping to any sign of life [default: 10s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_PONG_TIMEOUT", hide_env = true)]
    pub(super) pong_timeout: Option<Duration>,

    /// From accept to the complete request [default: 10s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_HANDSHAKE_TIMEOUT", hide_env = true)]
    pub(super) handshake_timeout: Option<Duration>,

    /// From the first byte of a message to its last [default: 30s; echo: 2m]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_MESSAGE_TIMEOUT", hide_env = true)]
    pub(super) message_timeout: Option<Duration>,

    /// Without any progress in writing to a peer [default: 10s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_WRITE_TIMEOUT", hide_env = true)]
    pub(super) write_timeout: Option<Duration>,

    /// From our Close frame to the end of the connection [default: 5s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_CLOSE_TIMEOUT", hide_env = true)]
    pub(super) close_timeout: Option<Duration>,

    /// From SIGINT or SIGTERM to the end, whoever has not left [default: 30s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_DRAIN_TIMEOUT", hide_env = true)]
    pub(super) drain_timeout: Option<Duration>,
}

const EXAMPLES: &str = "\
Examples:
  stentor                                     then open http://127.0.0.1:9001/ in two tabs
  stentor --listen 0.0.0.0:80 --listen '[::]:80'
  stentor --listen unix:/run/stentor.sock     behind a proxy
  stentor --max-message-size 1MiB --idle-timeout 1m --max-connections 50000
  stentor echo --listen 127.0.0.1:9002
  STENTOR_LISTEN=127.0.0.1:9003 STENTOR_LOG=debug stentor

Each flag is also a variable of the environment: --idle-timeout 25s is
STENTOR_IDLE_TIMEOUT=25s, and --log-level is STENTOR_LOG. A flag goes before its
variable. Sizes are bytes or have a unit (64kB, 64KiB); times have one (500ms,
25s, 1m30s).

SIGINT and SIGTERM close every connection with 1001, behind what was sent to it;
a second one ends the server at once.

Exit codes: 0 after a shutdown; 2 if a flag, an address or a limit cannot be
used; 1 if the system fails; 130 or 143 after a second SIGINT or SIGTERM.";

fn level() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .map(|name| name.parse().expect("tracing knows these names"))
}

/// What is wrong with the command line, in one line: the key, the problem, the remedy.
pub(super) fn describe(error: &clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    // Spelt `--idle-timeout <TIME>` there.
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = argument.split(' ').next().unwrap_or_default();
    let key = flag.trim_start_matches('-');
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let quoted = value.escape_debug();
    let failure = match error.kind() {
        ErrorKind::ValueValidation => {
            let problem = std::error::Error::source(error).map(ToString::to_string);
            let problem = problem.unwrap_or_default();
            // A problem of ours that is about its key says so itself.
            match problem.strip_prefix(&format!("{key}: ")) {
                Some(problem) => SetupError::new(key, problem),
                None if problem.starts_with("is ") => {
                    SetupError::new(key, format_args!("`{quoted}` {problem}"))
                }
                None => SetupError::new(key, format_args!("`{quoted}` cannot be used: {problem}")),
            }
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            SetupError::new(key, format_args!("has no value; write `{argument}`"))
        }
        ErrorKind::InvalidValue => {
            let known = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(known)) => known.join(", "),
                _ => "listed by `stentor --help`".into(),
            };
            SetupError::new(key, format_args!("`{quoted}` is none of {known}"))
        }
        ErrorKind::UnknownArgument => {
            let hint = context(ContextKind::SuggestedArg)
                .map_or(String::new(), |known| format!("is `{known}` meant? "));
            let problem =
                format_args!("is no argument of stentor; {hint}`stentor --help` lists them");
            SetupError::new(&flag.escape_debug().to_string(), problem)
        }
        ErrorKind::InvalidSubcommand => SetupError::new(
            &context(ContextKind::InvalidSubcommand)
                .unwrap_or_default()
                .escape_debug()
                .to_string(),
            "is no command of stentor; there are `serve` and `echo`",
        ),
        ErrorKind::ArgumentConflict => {
            SetupError::new(key, "is given more than once; drop all but one")
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let problem = line.trim_start_matches("error: ");
            SetupError::new(
                "command line",
                format_args!("{problem}; see `stentor --help`"),
            )
        }
    };
    Failure::Setup(failure)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn problem(arguments: &[&str]) -> String {
        let arguments = ["stentor"].iter().chain(arguments);
        let error = Flags::try_parse_from(arguments).unwrap_err();
        describe(&error).to_string()
    }

    #[test]
    fn the_command_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn each_flag_has_its_variable() {
        for argument in Flags::command().get_arguments() {
            let id = argument.get_id().as_str();
            let name = match id {
                "help" | "version" | "verbose" => continue,
                "log_level" => "STENTOR_LOG".into(),
                id => format!("STENTOR_{}", id.to_uppercase()),
            };
            assert_eq!(argument.get_env(), Some(name.as_ref()), "{id}");
        }
    }

    #[test]
    fn flags_stand_before_or_behind_the_command() {
        for arguments in [
            ["stentor", "echo", "--max-topics", "7"],
            ["stentor", "--max-topics", "7", "echo"],
        ] {
            let flags = Flags::try_parse_from(arguments).unwrap();
            assert!(matches!(flags.command, Some(Command::Echo)));
            assert_eq!(flags.limits.max_topics, Some(7));
        }
        let flags = Flags::try_parse_from(["stentor", "-l", "[::1]:1", "-l", "unix:/a"]).unwrap();
        assert_eq!(flags.listen.len(), 2);
    }

    #[test]
    fn a_wrong_flag_is_one_line_with_its_key_and_the_remedy() {
        for (arguments, key, remedy) in [
            (
                &["--idle-timeout", "25"][..],
                "idle-timeout: `25` is not",
                "25s",
            ),
            (
                &["--max-message-size", "1\nk"],
                "max-message-size: `1\\nk` is",
                "64KiB",
            ),
            (
                &["--listen", "9001"],
                "listen: `9001` is not",
                "127.0.0.1:9001",
            ),
            (&["echo", "--listen", "unix:"], "listen: the path", "empty"),
            (
                &["--max-connections", "many"],
                "max-connections: `many` is not",
                "1000",
            ),
            (&["--max-topics", "-1"], "max-topics: `-1` is not", "1000"),
            (&["--log-level", "loud"], "log-level: `loud`", "debug"),
            (&["--idle-timeout"], "idle-timeout: has no value", "<TIME>"),
            (
                &["--idle-timout", "1s"],
                "--idle-timout: is no",
                "`--idle-timeout`",
            ),
            (&["-x"], "-x: is no", "--help"),
            (&["publish"], "publish: is no command", "`echo`"),
            (
                &["--drain-timeout", "9d"],
                "drain-timeout: `9d` is too long",
                "24h",
            ),
            (
                &["--max-topics", "1", "--max-topics", "2"],
                "max-topics: is given",
                "drop",
            ),
        ] {
            let problem = problem(arguments);
            assert!(problem.starts_with(key), "{arguments:?}: {problem}");
            assert!(problem.contains(remedy), "{arguments:?}: {problem}");
            assert!(
                !problem.contains(['\n', '\x1b']),
                "{arguments:?}: {problem}"
            );
        }
    }
}
