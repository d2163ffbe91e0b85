//! What the program does, decided: the flags, and the defaults of the mode for the rest.

use std::time::Duration;

use stentor::{Config, Endpoint};
use tracing::level_filters::LevelFilter;

use super::SetupError;
use super::flags::{Command, Flags, LimitFlags, TimeoutFlags};
use super::open_files::RESERVED;

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Serve,
    Echo,
}

impl Mode {
    /// The defaults for what no flag says; `max_connections` aside.
    fn config(self) -> Config {
        let mut config = Config::default();
        match self {
            // What chats, prices and events need. A message is copied to each slow subscriber's
            // outbox by reference only, but held as long as the slowest takes.
            Self::Serve => config.protocol.max_message_size = 64 << 10,
            // Whatever a conformance suite sends: messages of 16 MiB, in fragments down to 16
            // bytes, with pauses in which nothing may come from this side but what is asked for.
            Self::Echo => {
                config.protocol.max_message_size = 16 << 20;
                config.protocol.max_fragments = 1 << 20;
                config.timeouts.idle = Duration::from_mins(2);
                config.timeouts.message = Duration::from_mins(2);
            }
        }
        config
    }

    /// What to open at an endpoint, for people.
    pub(super) fn address(self, endpoint: &Endpoint) -> String {
        match (self, endpoint) {
            (Self::Serve, Endpoint::Tcp(address)) => {
                format!("serves http://{address}/ and ws://{address}/t/NAME")
            }
            (Self::Echo, Endpoint::Tcp(address)) => format!("echoes at ws://{address}/"),
            (Self::Serve, Endpoint::Unix(_)) => format!("serves {endpoint}"),
            (Self::Echo, Endpoint::Unix(_)) => format!("echoes at {endpoint}"),
        }
    }
}

/// What the program does.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) mode: Mode,
    pub(super) config: Config,
    pub(super) log_level: LevelFilter,
}

impl Settings {
    /// Decides. `most_connections` is how many the limit of open files lets in.
    ///
    /// # Errors
    ///
    /// A value that cannot be used, or does not go with another, by its key.
    pub(super) fn resolve(flags: &Flags, most_connections: usize) -> Result<Self, SetupError> {
        let mode = match flags.command {
            None | Some(Command::Serve) => Mode::Serve,
            Some(Command::Echo) => Mode::Echo,
        };
        let mut config = mode.config();
        config.listen.clone_from(&flags.listen);
        if config.listen.is_empty() {
            config.listen = vec![Endpoint::Tcp(([127, 0, 0, 1], 9001).into())];
        }
        config.limits.max_connections = most_connections;
        set_limits(&mut config, &flags.limits);
        set_timeouts(&mut config, &flags.timeouts);
        check(&config, most_connections)?;
        Ok(Self {
            mode,
            config,
            log_level: log_level(flags),
        })
    }
}

fn set_limits(config: &mut Config, flags: &LimitFlags) {
    let limits = &mut config.limits;
    set(
        &mut config.protocol.max_message_size,
        flags.max_message_size,
    );
    set(&mut config.protocol.max_fragments, flags.max_fragments);
    set(&mut limits.max_connections, flags.max_connections);
    set(&mut limits.outbox_soft, flags.outbox_soft);
    set(&mut limits.outbox_hard, flags.outbox_hard);
    set(&mut limits.max_topics, flags.max_topics);
    set(
        &mut limits.max_topics_per_connection,
        flags.max_topics_per_connection,
    );
    set(&mut limits.receive_buffer, flags.receive_buffer);
}

fn set_timeouts(config: &mut Config, flags: &TimeoutFlags) {
    let timeouts = &mut config.timeouts;
    set(&mut timeouts.idle, flags.idle_timeout);
    set(&mut timeouts.pong, flags.pong_timeout);
    set(&mut timeouts.handshake, flags.handshake_timeout);
    set(&mut timeouts.message, flags.message_timeout);
    set(&mut timeouts.write, flags.write_timeout);
    set(&mut timeouts.close, flags.close_timeout);
    set(&mut timeouts.drain, flags.drain_timeout);
}

fn set<T: Copy>(value: &mut T, flag: Option<T>) {
    *value = flag.unwrap_or(*value);
}

fn check(config: &Config, most_connections: usize) -> Result<(), SetupError> {
    if config.limits.max_connections > most_connections {
        let problem = format!(
            "{} is more than the {most_connections} that the limit of open files less {RESERVED} \
             leaves; lower it, or raise the limit with `ulimit -n`",
            config.limits.max_connections
        );
        return Err(SetupError::new("max-connections", problem));
    }
    if config.limits.receive_buffer > LARGEST_RECEIVE_BUFFER {
        let problem = "is more than 16MiB, which is slower than the default; 128KiB is a good size";
        return Err(SetupError::new("receive-buffer", problem));
    }
    config
        .check()
        .map_err(|error| SetupError(error.to_string()))
}

fn log_level(flags: &Flags) -> LevelFilter {
    match flags.verbose {
        0 => flags.log_level.unwrap_or(LevelFilter::INFO),
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

/// It is allocated at once; what is larger than every cache only costs.
const LARGEST_RECEIVE_BUFFER: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn resolve(arguments: &[&str]) -> Result<Settings, SetupError> {
        let arguments = ["stentor"].iter().chain(arguments);
        Settings::resolve(&Flags::try_parse_from(arguments).unwrap(), 960)
    }

    #[test]
    fn no_flag_serves_at_the_default_address() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(settings.mode, Mode::Serve);
        assert_eq!(
            settings.mode.address(&settings.config.listen[0]),
            "serves http://127.0.0.1:9001/ and ws://127.0.0.1:9001/t/NAME"
        );
        assert_eq!(settings.config.limits.max_connections, 960);
        assert_eq!(settings.log_level, LevelFilter::INFO);
    }

    /// The defaults that the help names are those that hold.
    #[test]
    fn the_help_tells_the_defaults() {
        let config = |arguments: &[&str]| format!("{:?}", resolve(arguments).unwrap().config);
        for argument in Flags::command().get_arguments() {
            let help = argument.get_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let Some((_, default)) = help.split_once("[default: ") else {
                continue;
            };
            let flag = format!("--{}", argument.get_long().unwrap());
            let default = default.trim_end_matches(']');
            let (serve, echo) = default.split_once("; echo: ").unwrap_or((default, default));
            if serve.starts_with("the limit") {
                continue;
            }
            assert_eq!(config(&[&flag, serve]), config(&[]), "{flag}");
            assert_eq!(config(&["echo", &flag, echo]), config(&["echo"]), "{flag}");
        }
    }

    #[test]
    fn flags_replace_defaults() {
        let settings = resolve(&[
            "echo",
            "--max-message-size",
            "1MiB",
            "--idle-timeout",
            "3s",
            "-vv",
            "--log-level",
            "warn",
        ]);
        let settings = settings.unwrap();
        assert_eq!(settings.config.protocol.max_message_size, 1 << 20);
        assert_eq!(settings.config.timeouts.idle, Duration::from_secs(3));
        assert_eq!(settings.log_level, LevelFilter::TRACE);
    }

    #[test]
    fn values_that_do_not_go_together_name_their_key() {
        for (arguments, key) in [
            (["--max-connections", "961"], "max-connections"),
            (["--max-connections", "0"], "max-connections"),
            (["--outbox-soft", "2MiB"], "outbox-soft"),
            (["--close-timeout", "0"], "close-timeout"),
            (["--receive-buffer", "1GiB"], "receive-buffer"),
            (["--receive-buffer", "1"], "receive-buffer"),
        ] {
            let error = resolve(&arguments).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }
        assert!(resolve(&["--max-connections", "960"]).is_ok());
    }
}
