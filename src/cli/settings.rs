//! What the program does, decided: the flags, and the defaults of the mode for the rest.

use std::fmt;
use std::time::Duration;

use stentor::topic::{NamespaceId, Namespaces};
use stentor::{Config, Endpoint, TopicOptions};
use tracing::level_filters::LevelFilter;

use super::SetupError;
use super::flags::{Command, Flags, LimitFlags, TimeoutFlags, TopicFlags};
use super::namespaces::NamespaceFlag;
use super::open_files::RESERVED;
use stentor::broadcast::{Access, ChannelOptions, ConsoleOptions, Origins, Rules, Who};

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
}

/// What there is at which address, for people.
#[derive(Debug)]
pub(super) struct Addresses {
    mode: Mode,
    first_admin: Option<usize>,
    /// Who may do what, in the words of the flags.
    access: String,
}

impl Addresses {
    fn new(mode: Mode, rules: &Rules) -> Self {
        let access = |of: fn(&Access) -> Who| {
            let mut all = rules.channels.iter();
            let default = all.next().map(|(_, options)| of(&options.access)).unwrap_or_default();
            let differs = all.any(|(_, options)| of(&options.access) != default);
            let but = if differs { " but in namespaces" } else { "" };
            format!("{}{but}", default.name())
        };
        let publish = access(|access| access.publish);
        let subscribe = access(|access| access.subscribe);
        Self {
            mode,
            first_admin: rules.first_admin,
            access: format!("(publish: {publish}, subscribe: {subscribe})"),
        }
    }

    /// What to open at the endpoint of this number.
    pub(super) fn describe(&self, index: usize, endpoint: &Endpoint) -> String {
        let is_admin = self.first_admin.is_some_and(|first| index >= first);
        let access = &self.access;
        match (self.mode, endpoint) {
            (Mode::Serve, Endpoint::Tcp(address)) if is_admin => {
                format!("answers /livez, /readyz and /metrics at http://{address}/")
            }
            (Mode::Serve, Endpoint::Unix(_)) if is_admin => {
                format!("answers /livez, /readyz and /metrics at {endpoint}")
            }
            (Mode::Serve, Endpoint::Tcp(address)) => {
                format!("serves http://{address}/ and ws://{address}/t/NAME {access}")
            }
            (Mode::Serve, Endpoint::Unix(_)) => format!("serves {endpoint} {access}"),
            (Mode::Echo, Endpoint::Tcp(address)) => format!("echoes at ws://{address}/"),
            (Mode::Echo, Endpoint::Unix(_)) => format!("echoes at {endpoint}"),
        }
    }
}

/// What the program does.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) mode: Mode,
    pub(super) config: Config,
    pub(super) rules: Rules,
    pub(super) addresses: Addresses,
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
        if mode == Mode::Serve {
            // A message is as large whichever way it comes.
            config.protocol.http.max_body_size = config.protocol.max_message_size;
        }
        let mut rules = rules(&config, flags)?;
        set_topics(&mut rules, flags)?;
        rules.configure(&mut config);
        if mode == Mode::Serve && !flags.admin_listen.is_empty() {
            rules.first_admin = Some(config.listen.len());
            config.listen.extend_from_slice(&flags.admin_listen);
        }
        check(&config, most_connections)?;
        Ok(Self {
            mode,
            addresses: Addresses::new(mode, &rules),
            config,
            rules,
            log_level: log_level(flags),
        })
    }
}

/// Who may do what, but for topics with rules of their own.
fn rules(config: &Config, flags: &Flags) -> Result<Rules, SetupError> {
    let locally = Who::locally(&config.listen);
    let usual = ChannelOptions {
        access: Access {
            publish: locally,
            subscribe: Who::Anyone,
        },
        ..ChannelOptions::default()
    };
    Ok(Rules {
        channels: Namespaces::new(channel_options(&usual, &flags.topics)?),
        origins: Origins::new(flags.doors.allow_origin.clone()),
        overview: flags.doors.overview.unwrap_or(locally),
        console: ConsoleOptions {
            enabled: true,
            admin_token: flags.doors.admin_token.clone(),
        },
        // Half of what may wait for a connection: the rest is for what comes meanwhile.
        most_past: config.limits.outbox_hard / 2,
        ..Rules::default()
    })
}

/// The rules of topics, and of namespaces, in which the others hold for what they do not say.
fn set_topics(rules: &mut Rules, flags: &Flags) -> Result<(), SetupError> {
    let default = rules.channels.get(NamespaceId::DEFAULT).clone();
    for NamespaceFlag { name, options } in &flags.namespaces.namespace {
        let wrong = |problem: &dyn fmt::Display| {
            let name = name.escape_debug();
            SetupError::new("namespace", format_args!("`{name}`: {problem}"))
        };
        let of_name = channel_options(&default, options).map_err(|error| wrong(&error))?;
        let inserted = rules.channels.insert(name, of_name);
        inserted.map_err(|error| wrong(&error))?;
    }
    Ok(())
}

fn channel_options(
    default: &ChannelOptions,
    flags: &TopicFlags,
) -> Result<ChannelOptions, SetupError> {
    let access = default.access;
    Ok(ChannelOptions {
        topic: topic_options(&default.topic, flags)?,
        access: Access {
            publish: flags.publish.unwrap_or(access.publish),
            subscribe: flags.subscribe.unwrap_or(access.subscribe),
        },
        presence: flags.presence.unwrap_or(default.presence),
        ..default.clone()
    })
}

fn topic_options(default: &TopicOptions, flags: &TopicFlags) -> Result<TopicOptions, SetupError> {
    let mut options = default.clone();
    set(&mut options.slow, flags.slow);
    options.max_queued = flags.max_queued.or(options.max_queued);
    options.max_age = flags.max_age.or(options.max_age);
    set(&mut options.history_size, flags.history_size);
    set(&mut options.history_ttl, flags.history_ttl);
    set(&mut options.history_meta_ttl, flags.history_meta_ttl);
    match (options.history_size, options.history_ttl) {
        (1.., Duration::ZERO) => Err(SetupError::new(
            "history-size",
            "nothing is kept without a time; add history-ttl, such as 10m",
        )),
        (0, ttl) if !ttl.is_zero() => Err(SetupError::new(
            "history-ttl",
            "nothing is kept without a number; add history-size, such as 100",
        )),
        _ => Ok(options),
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
    limits.max_connections_per_ip = flags.max_connections_per_ip;
    set(&mut limits.outbox_soft, flags.outbox_soft);
    set(&mut limits.outbox_hard, flags.outbox_hard);
    set(&mut limits.max_topics, flags.max_topics);
    set(
        &mut limits.max_topics_per_connection,
        flags.max_topics_per_connection,
    );
    set(&mut limits.max_patterns, flags.max_patterns);
    set(&mut limits.max_pings, flags.max_pings);
    set(&mut limits.max_output, flags.max_output);
    set(&mut limits.max_history, flags.max_history);
    set(&mut limits.receive_buffer, flags.receive_buffer);
}

fn set_timeouts(config: &mut Config, flags: &TimeoutFlags) {
    let timeouts = &mut config.timeouts;
    set(&mut timeouts.idle, flags.idle_timeout);
    set(&mut timeouts.pong, flags.pong_timeout);
    set(&mut timeouts.handshake, flags.handshake_timeout);
    set(&mut timeouts.message, flags.message_timeout);
    set(&mut timeouts.write, flags.write_timeout);
    set(&mut timeouts.lag, flags.lag_timeout);
    set(&mut timeouts.idempotency, flags.idempotency_window);
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
    use stentor::SlowPolicy;

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
            settings.addresses.describe(0, &settings.config.listen[0]),
            "serves http://127.0.0.1:9001/ and ws://127.0.0.1:9001/t/NAME \
             (publish: anyone, subscribe: anyone)"
        );
        assert_eq!(settings.config.limits.max_connections, 960);
        assert_eq!(settings.log_level, LevelFilter::INFO);
    }

    /// The defaults that the help names are those that hold.
    #[test]
    fn the_help_tells_the_defaults() {
        let config = |arguments: &[&str]| {
            let settings = resolve(arguments).unwrap();
            format!("{:?} {:?}", settings.config, settings.rules)
        };
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
            (["--max-connections-per-ip", "0"], "max-connections-per-ip"),
            (["--outbox-soft", "2MiB"], "outbox-soft"),
            (["--close-timeout", "0"], "close-timeout"),
            (["--receive-buffer", "1GiB"], "receive-buffer"),
            (["--receive-buffer", "1"], "receive-buffer"),
            (["--history-size", "9"], "history-size"),
            (["--history-ttl", "9s"], "history-ttl"),
            (
                ["--namespace", "a: history-size=9"],
                "namespace: `a`: history-size",
            ),
            (["--namespace", "a b: presence=yes"], "namespace: `a b`"),
            (["--namespace", "*: presence=yes"], "namespace: `*`"),
            (
                ["--namespace", "a: presence=yes;a: presence=no"],
                "namespace: `a`",
            ),
        ] {
            let error = resolve(&arguments).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }
        assert!(resolve(&["--max-connections", "960"]).is_ok());
    }

    #[test]
    fn a_namespace_has_the_rules_of_all_topics_where_it_says_nothing() {
        let settings = resolve(&[
            "--history-size=9",
            "--history-ttl=1m",
            "--publish=nobody",
            "--namespace",
            "chat: presence=yes, publish=anyone",
            "--namespace=a.*: history-size=0,history-ttl=0",
        ]);
        let settings = settings.unwrap();
        let (topics, rules) = (&settings.config.topics, &settings.rules.channels);
        for (topic, size, presence, publish) in [
            ("news", 9, false, Who::Nobody),
            ("chat:1", 9, true, Who::Anyone),
            ("a.b", 0, false, Who::Nobody),
        ] {
            let options = topics.get(topics.id_of(topic));
            let found = (options.history_size, options.presence);
            assert_eq!(found, (size, presence), "{topic}");
            let access = rules.get(rules.id_of(topic)).access;
            assert_eq!(access.publish, publish, "{topic}");
        }
    }

    #[test]
    fn who_comes_and_goes_is_told_by_rules_of_its_own() {
        for (arguments, slow) in [
            (&["--slow=latest"][..], SlowPolicy::Latest),
            (&["--slow=latest", "--presence=yes"], SlowPolicy::Disconnect),
            (
                &["--slow=latest", "--namespace=a.*: presence=yes"],
                SlowPolicy::Disconnect,
            ),
        ] {
            let topics = resolve(arguments).unwrap().config.topics;
            let own = topics.get(topics.id_of("@presence.x"));
            assert_eq!(own.slow, slow, "{arguments:?}");
            assert!(!own.presence);
        }
    }

    #[test]
    fn strangers_are_not_let_in_by_default() {
        for (arguments, publish, overview) in [
            (&["-l", "0.0.0.0:1"][..], "nobody", Who::Nobody),
            (
                &["-l", "127.0.0.1:1", "-l", "[::]:1"],
                "nobody",
                Who::Nobody,
            ),
            (&["-l", "[::1]:1", "-l", "unix:/a"], "anyone", Who::Anyone),
            (
                &["-l", "[::1]:1", "--admin-listen", "[::]:1"],
                "anyone",
                Who::Anyone,
            ),
            (
                &["-l", "[::]:1", "--publish=anyone", "--overview=anyone"],
                "anyone",
                Who::Anyone,
            ),
        ] {
            let settings = resolve(arguments).unwrap();
            let line = settings.addresses.describe(0, &settings.config.listen[0]);
            assert!(line.contains(&format!("(publish: {publish}, ")), "{line}");
            assert_eq!(settings.rules.overview, overview, "{arguments:?}");
        }
    }
}
