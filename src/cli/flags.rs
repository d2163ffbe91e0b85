//! The command line and the environment as they were written: nothing is decided here.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Parser, Subcommand};
use stentor::{ConfigError, Endpoint, SlowPolicy};
use tracing::level_filters::LevelFilter;

use super::choice::{slow_policy, who, yes_or_no};
use super::namespaces::{NamespaceFlag, namespace};
use super::units::{count, duration, long_duration, size};
use super::{Failure, SetupError};
use stentor::broadcast::Who;

/// A WebSocket server: what a client sends to a topic, everyone in the topic hears
#[derive(Debug, Parser)]
#[command(name = "stentor", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// A file with everything that flags say and much more: tokens, the API's key, hooks, channels;
    /// `stentor check` says whether it is good
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "STENTOR_CONFIG",
        hide_env = true
    )]
    pub(super) config: Option<PathBuf>,

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

    /// Where to answer /livez, /readyz and /metrics, and nothing else; may be repeated. Without it
    /// every address answers them
    #[arg(long, global = true, value_name = "ADDRESS", value_delimiter = ',')]
    #[arg(env = "STENTOR_ADMIN_LISTEN", hide_env = true, value_parser = endpoint)]
    pub(super) admin_listen: Vec<Endpoint>,

    #[command(flatten)]
    pub(super) doors: DoorFlags,

    #[command(flatten)]
    pub(super) topics: TopicFlags,

    #[command(flatten)]
    pub(super) namespaces: NamespaceFlags,

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
    /// Say whether the configuration is good, and serve nothing
    #[command(allow_negative_numbers = true)]
    Check,
}

/// Who gets in.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Who may")]
pub(super) struct DoorFlags {
    /// An origin whose pages may use the server, such as https://*.example.com, or * for all; may be
    /// repeated. Pages of the server's own origin always may; without this, those of localhost too
    #[arg(long, global = true, value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    #[arg(env = "STENTOR_ALLOW_ORIGIN", hide_env = true)]
    pub(super) allow_origin: Vec<String>,

    /// Who sees which topics there are, at /topics and on the page: anyone or nobody; without it
    /// nobody, unless only this machine can connect
    #[arg(long, global = true, value_name = "WHO", value_parser = who)]
    #[arg(env = "STENTOR_OVERVIEW", hide_env = true)]
    pub(super) overview: Option<Who>,
    /// What opens the console at /; without it the console is open where the overview is
    #[arg(long, global = true, value_name = "TOKEN")]
    #[arg(env = "STENTOR_ADMIN_TOKEN", hide_env = true)]
    pub(super) admin_token: Option<String>,
}

/// What holds for topics: for all of them as flags, for those of a namespace as its keys.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Topics")]
pub(super) struct TopicFlags {
    /// Who publishes: anyone or nobody; without it nobody, unless only this machine can connect
    #[arg(long, global = true, value_name = "WHO", value_parser = who)]
    #[arg(env = "STENTOR_PUBLISH", hide_env = true)]
    pub(super) publish: Option<Who>,

    /// Who subscribes: anyone or nobody [default: anyone]
    #[arg(long, global = true, value_name = "WHO", value_parser = who)]
    #[arg(env = "STENTOR_SUBSCRIBE", hide_env = true)]
    pub(super) subscribe: Option<Who>,

    /// Messages that are kept of a topic, for those who come later [default: 0]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(env = "STENTOR_HISTORY_SIZE", hide_env = true)]
    pub(super) history_size: Option<usize>,

    /// How long they are kept after the latest one [default: 0]
    #[arg(long, global = true, value_name = "TIME", value_parser = long_duration)]
    #[arg(env = "STENTOR_HISTORY_TTL", hide_env = true)]
    pub(super) history_ttl: Option<Duration>,

    /// How long the position of a topic is known after its last use [default: 30d]
    #[arg(long, global = true, value_name = "TIME", value_parser = long_duration)]
    #[arg(env = "STENTOR_HISTORY_META_TTL", hide_env = true)]
    pub(super) history_meta_ttl: Option<Duration>,

    /// What becomes of messages for a slow reader: disconnect, drop-newest, drop-oldest or latest
    /// [default: disconnect]
    #[arg(long, global = true, value_name = "POLICY", value_parser = slow_policy)]
    #[arg(env = "STENTOR_SLOW", hide_env = true)]
    pub(super) slow: Option<SlowPolicy>,

    /// Bytes waiting for a slow reader from which on messages are dropped; without it as many as outbox-hard
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_MAX_QUEUED", hide_env = true)]
    pub(super) max_queued: Option<usize>,

    /// How long a message may wait for a slow reader before it is dropped, unless it disconnects
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_MAX_AGE", hide_env = true)]
    pub(super) max_age: Option<Duration>,

    /// Whether it is kept, and can be asked for, who is in a topic: yes or no [default: no]
    #[arg(long, global = true, value_name = "YES|NO", value_parser = yes_or_no)]
    #[arg(env = "STENTOR_PRESENCE", hide_env = true)]
    pub(super) presence: Option<bool>,
}

/// Topics that are not as the others.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Topics")]
pub(super) struct NamespaceFlags {
    /// What holds for the topics NAME:… instead, or for those that match a pattern: 'NAME:
    /// history-size=100, history-ttl=5m', with the flags above as keys; may be repeated
    #[arg(
        long,
        global = true,
        value_name = "NAME: KEY=VALUE,…",
        value_delimiter = ';'
    )]
    #[arg(env = "STENTOR_NAMESPACE", hide_env = true, value_parser = namespace)]
    pub(super) namespace: Vec<NamespaceFlag>,
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

    /// Connections at a time from one IPv4 address, or one IPv6 network of 64 bits; not limited
    /// unless given: a proxy or a NAT puts many behind one address
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(env = "STENTOR_MAX_CONNECTIONS_PER_IP", hide_env = true)]
    pub(super) max_connections_per_ip: Option<usize>,

    /// Messages over HTTP (POST /t/NAME, not the API) from one such address within a second; one more is answered 429;
    /// 0 is no limit [default: 1000]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<u32>)]
    #[arg(env = "STENTOR_MAX_POSTS_PER_IP", hide_env = true)]
    pub(super) max_posts_per_ip: Option<u32>,

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

    /// Topics that one connection may subscribe to; each takes two, twice as many as
    /// channels and some [default: 264]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(env = "STENTOR_MAX_TOPICS_PER_CONNECTION", hide_env = true)]
    pub(super) max_topics_per_connection: Option<usize>,

    /// Patterns at a time that anybody is subscribed to [default: 10000]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<usize>)]
    #[arg(env = "STENTOR_MAX_PATTERNS", hide_env = true)]
    pub(super) max_patterns: Option<usize>,

    /// Pings of one peer that are answered within a second; one more closes it with 1008
    /// [default: 1000]
    #[arg(long, global = true, value_name = "COUNT", value_parser = count::<u32>)]
    #[arg(env = "STENTOR_MAX_PINGS", hide_env = true)]
    pub(super) max_pings: Option<u32>,

    /// Memory for what has come and is incomplete; above it those who hold most are closed with 1013,
    /// or answered 503 [default: 64MiB; echo: 512MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_MAX_INPUT", hide_env = true)]
    pub(super) max_input: Option<usize>,

    /// Bytes waiting for all readers at which those for whom most waits are ended [default: 256MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_MAX_OUTPUT", hide_env = true)]
    pub(super) max_output: Option<usize>,

    /// Memory for what is kept of all topics [default: 64MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_MAX_HISTORY", hide_env = true)]
    pub(super) max_history: Option<usize>,

    /// Memory for topics, subscriptions and presences, about; above it nobody subscribes
    /// [default: 512MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    #[arg(env = "STENTOR_MAX_TOPIC_MEMORY", hide_env = true)]
    pub(super) max_topic_memory: Option<usize>,

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

    /// From the time that a byte waits for a slow reader until it has taken it [default: 30s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_LAG_TIMEOUT", hide_env = true)]
    pub(super) lag_timeout: Option<Duration>,

    /// How long the Idempotency-Key of a message is remembered [default: 5m]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_IDEMPOTENCY_WINDOW", hide_env = true)]
    pub(super) idempotency_window: Option<Duration>,

    /// From our Close frame to the end of the connection [default: 5s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_CLOSE_TIMEOUT", hide_env = true)]
    pub(super) close_timeout: Option<Duration>,

    /// From SIGINT or SIGTERM to the end, whoever has not left [default: 30s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    #[arg(env = "STENTOR_DRAIN_TIMEOUT", hide_env = true)]
    pub(super) drain_timeout: Option<Duration>,
}

const EXAMPLES: &str = r#"Examples:
  stentor                                     then open http://127.0.0.1:9001/ in two tabs
  stentor --listen 0.0.0.0:80 --listen '[::]:80'
  stentor --listen unix:/run/stentor.sock     behind a proxy
  stentor --max-message-size 1MiB --idle-timeout 1m --max-connections 50000
  stentor --history-size 100 --history-ttl 10m --namespace 'prices: slow=latest'
  stentor --listen 0.0.0.0:9001 --publish anyone --allow-origin https://example.com
  stentor --config stentor.toml               examples/stentor.toml is one to begin with
  stentor check --config stentor.toml
  stentor echo --listen 127.0.0.1:9002
  STENTOR_LISTEN=127.0.0.1:9003 STENTOR_LOG=debug stentor

Each flag is also a variable of the environment: --idle-timeout 25s is
STENTOR_IDLE_TIMEOUT=25s, and --log-level is STENTOR_LOG. A flag goes before its
variable. What may be repeated stands there with commas between, and namespaces
with semicolons. Sizes are bytes or have a unit (64kB, 64KiB); times have one (500ms,
25s, 1m30s).

A flag or a variable goes before the file. What is secret need not stand in the file:
key = "${NAME}" takes it from the variable NAME of the environment. SIGHUP reads the
file again: what it says of tokens, keys, origins, clients and channels holds from
then on, the rest from the next start on. If it is wrong, one line says why, and all
stays as it was.

SIGINT and SIGTERM close every connection with 1001, behind what was sent to it;
a second one ends the server at once.

Exit codes: 0 after a shutdown; 2 if a flag, a key, an address or a limit cannot be
used; 1 if the system fails; 130 or 143 after a second SIGINT or SIGTERM."#;

/// Reads an endpoint. What the library says of a wrong one is about the key `listen`.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error: ConfigError| {
        let problem = error.to_string();
        let problem = problem.trim_start_matches("listen: ");
        let quoted = format!("`{text}` ");
        problem.strip_prefix(&quoted).unwrap_or(problem).into()
    })
}

/// Reads an origin as browsers send it (RFC 6454 §6.1), or the word for all of them.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let is_host = |host: &str| {
        let is_part = |c: char| c.is_ascii_graphic() && !"/?#@".contains(c);
        !host.is_empty() && host.chars().all(is_part)
    };
    let is_origin = text
        .split_once("://")
        .is_some_and(|(scheme, host)| !scheme.is_empty() && is_host(host));
    if is_origin || matches!(text, "*" | "null") {
        return Ok(text.into());
    }
    Err("is not SCHEME://HOST or SCHEME://HOST:PORT, such as https://example.com".into())
}

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
            "is no command of stentor; there are `serve`, `check` and `echo`",
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
                &["--admin-listen", "9001"],
                "admin-listen: `9001` is not",
                "127.0.0.1:9001",
            ),
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
            assert_problem(arguments, key, remedy);
        }
    }

    #[test]
    fn a_wrong_rule_for_topics_is_one_line_with_its_key_and_the_remedy() {
        for (arguments, key, remedy) in [
            (
                ["--allow-origin", "https://example.com/"],
                "allow-origin: `https://example.com/` is not",
                "https://example.com",
            ),
            (
                ["--allow-origin", "example.com"],
                "allow-origin: `example.com` is not",
                "https://example.com",
            ),
            (
                ["--publish", "anybody"],
                "publish: `anybody` is none of anyone, nobody",
                "anyone",
            ),
            (["--slow", "drop"], "slow: `drop` is none of", "drop-oldest"),
            (
                ["--namespace", "chat: hystory-size=1"],
                "namespace: `chat: hystory-size=1` cannot be used: `hystory-size` is no key",
                "`history-size` meant?",
            ),
            (
                ["--namespace", "chat"],
                "namespace: `chat` is not NAME",
                "history-size=100",
            ),
        ] {
            assert_problem(&arguments, key, remedy);
        }
    }

    fn assert_problem(arguments: &[&str], key: &str, remedy: &str) {
        let problem = problem(arguments);
        assert!(problem.starts_with(key), "{arguments:?}: {problem}");
        assert!(problem.contains(remedy), "{arguments:?}: {problem}");
        assert!(
            !problem.contains(['\n', '\x1b']),
            "{arguments:?}: {problem}"
        );
    }
}
