//! What the program does, decided: the flags, and the defaults of the mode for the rest.

use std::fmt;
use std::mem;
use std::time::Duration;

use stentor::broadcast::hooks::HttpHookRules;
use stentor::broadcast::{Access, ChannelOptions, Origins, Rules, Who};
use stentor::{Config, Endpoint};
use tracing::level_filters::LevelFilter;

use super::SetupError;
use super::file::{File, Section};
use super::flags::{Command, Flags, LimitFlags, TimeoutFlags};
use super::keys::Draft;
use super::memory;
use super::namespaces::{self, NamespaceFlag};
use super::open_files::RESERVED;

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Serve,
    /// What would be served, is only decided.
    Check,
    Echo,
}

impl Mode {
    /// The defaults for what no flag says; `max_connections` aside.
    fn config(self) -> Config {
        let mut config = Config::default();
        match self {
            // What chats, prices and events need. A message is copied to each slow subscriber's
            // outbox by reference only, but held as long as the slowest takes.
            Self::Serve | Self::Check => config.protocol.max_message_size = 64 << 10,
            // Whatever a conformance suite sends: messages of 16 MiB, in fragments down to 16
            // bytes, with pauses in which nothing may come from this side but what is asked for.
            Self::Echo => {
                config.protocol.max_message_size = 16 << 20;
                config.protocol.max_fragments = 1 << 20;
                // 16 of the largest that grow at a time: what is measured must not be shed.
                config.limits.max_input = 512 << 20;
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
            let default = all
                .next()
                .map(|(_, options)| of(&options.access))
                .unwrap_or_default();
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
            (Mode::Serve | Mode::Check, Endpoint::Tcp(address)) if is_admin => {
                format!("answers /livez, /readyz and /metrics at http://{address}/")
            }
            (Mode::Serve | Mode::Check, Endpoint::Unix(_)) if is_admin => {
                format!("answers /livez, /readyz and /metrics at {endpoint}")
            }
            (Mode::Serve | Mode::Check, Endpoint::Tcp(address)) => {
                format!("serves http://{address}/ and ws://{address}/t/NAME {access}")
            }
            (Mode::Serve | Mode::Check, Endpoint::Unix(_)) => format!("serves {endpoint} {access}"),
            (Mode::Echo, Endpoint::Tcp(address)) => format!("echoes at ws://{address}/"),
            (Mode::Echo, Endpoint::Unix(_)) => format!("echoes at {endpoint}"),
        }
    }
}

/// What the machine leaves to the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// By the limit of open files.
    pub(super) connections: usize,
    /// Bytes.
    pub(super) memory: u64,
}

/// What the program does.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) mode: Mode,
    pub(super) config: Config,
    pub(super) rules: Rules,
    pub(super) hooks: HttpHookRules,
    pub(super) addresses: Addresses,
    pub(super) log_level: LevelFilter,
}

impl Settings {
    /// Decides, on a machine that leaves us so much.
    ///
    /// # Errors
    ///
    /// All values of the file that cannot be used, a line each; or the first value that cannot be
    /// used, or does not go with another, by its key.
    pub(super) fn resolve(flags: &Flags, room: Room) -> Result<Self, SetupError> {
        let file = flags.config.as_deref().map(File::open).transpose()?;
        Self::of(flags, &file.unwrap_or_default(), room)
    }

    fn of(flags: &Flags, file: &File, room: Room) -> Result<Self, SetupError> {
        let mode = match flags.command {
            None | Some(Command::Serve) => Mode::Serve,
            Some(Command::Check) => Mode::Check,
            Some(Command::Echo) => Mode::Echo,
        };
        if mode == Mode::Echo && file.is_some() {
            return Err(SetupError::new("config", "`echo` has none; use its flags"));
        }
        file.read(|root| Self::decide(mode, flags, root, room))?
    }

    fn decide(
        mode: Mode,
        flags: &Flags,
        root: &Section<'_>,
        room: Room,
    ) -> Result<Self, SetupError> {
        let mut draft = Draft {
            config: mode.config(),
            ..Draft::default()
        };
        draft.config.limits.max_connections = room.connections;
        memory::fit(&mut draft.config.limits, room.memory);
        draft.read(root);
        set_listen(&mut draft, flags);
        set_limits(&mut draft, &flags.limits);
        set_timeouts(&mut draft.config, &flags.timeouts);
        fit_topics(&mut draft, flags.limits.max_topics_per_connection)?;
        let usual = set_doors(&mut draft, flags, root.is_some());
        draft.channels(root, usual.clone(), &flags.topics);
        let Draft {
            mut config,
            mut rules,
            mut admin_listen,
            ..
        } = draft;
        // In a file each namespace says for itself whether hooks are asked.
        rules.asks_by_namespace = root.is_some();
        set_namespaces(&mut rules, &usual, flags)?;
        set_sizes(&mut rules, &mut config, mode);
        rules.configure(&mut config);
        if mode != Mode::Echo && !admin_listen.is_empty() {
            rules.first_admin = Some(config.listen.len());
            config.listen.append(&mut admin_listen);
        }
        check(&config, room.connections)?;
        Ok(Self {
            mode,
            addresses: Addresses::new(mode, &rules),
            config,
            rules,
            hooks: draft.hooks,
            log_level: log_level(flags, draft.log_level),
        })
    }
}

fn set_listen(draft: &mut Draft, flags: &Flags) {
    let listen = &mut draft.config.listen;
    *listen = if flags.listen.is_empty() {
        mem::take(&mut draft.listen)
    } else {
        flags.listen.clone()
    };
    if listen.is_empty() {
        *listen = vec![Endpoint::Tcp(([127, 0, 0, 1], 9001).into())];
    }
    if !flags.admin_listen.is_empty() {
        draft.admin_listen.clone_from(&flags.admin_listen);
    }
}

/// Decides who gets in where nothing is said; answers what holds for channels then.
///
/// Where tokens, keys or hooks say who does what, nobody does anything without them. Else nobody
/// but strangers has to be kept out, and who tries stentor on one machine needs no file.
fn set_doors(draft: &mut Draft, flags: &Flags, has_file: bool) -> ChannelOptions {
    let is_guarded = draft.is_guarded();
    let locally = if is_guarded {
        Who::Nobody
    } else {
        Who::locally(&draft.config.listen)
    };
    let rules = &mut draft.rules;
    if !has_file && locally == Who::Anyone {
        rules.client.allow_anonymous_connect_without_token = true;
        rules.console.enabled = true;
    }
    if let Some(token) = &flags.doors.admin_token {
        rules.console.enabled = true;
        rules.console.admin_token = Some(token.clone());
    }
    rules.overview = flags.doors.overview.or(draft.overview).unwrap_or(locally);
    if !flags.doors.allow_origin.is_empty() {
        rules.origins = Origins::new(flags.doors.allow_origin.clone());
    }
    let mut usual = ChannelOptions {
        access: Access {
            publish: locally,
            subscribe: if is_guarded { Who::Nobody } else { Who::Anyone },
        },
        ..ChannelOptions::default()
    };
    namespaces::overlay(&mut usual, &flags.topics);
    usual
}

/// The namespaces of the command line: what is said of all topics holds where they say nothing, or
/// what the file says of the same namespace.
fn set_namespaces(
    rules: &mut Rules,
    usual: &ChannelOptions,
    flags: &Flags,
) -> Result<(), SetupError> {
    let of_file = rules.channels.clone();
    for (index, NamespaceFlag { name, options }) in flags.namespaces.namespace.iter().enumerate() {
        let wrong = |problem: &dyn fmt::Display| {
            let name = name.escape_debug();
            SetupError::new("namespace", format_args!("`{name}`: {problem}"))
        };
        let mut earlier = flags.namespaces.namespace[..index].iter();
        let is_repeated = earlier.any(|other| other.name == *name);
        let known = of_file.names().find(|(_, known)| *known == name.as_str());
        let known = known.filter(|_| !is_repeated);
        let mut of_name = known.map_or(usual, |(id, _)| of_file.get(id)).clone();
        namespaces::overlay(&mut of_name, options);
        if let Some((key, problem)) = namespaces::contradiction(&of_name) {
            let key = key.replace('_', "-");
            return Err(wrong(&format_args!("{key}: {problem}")));
        }
        if let Some((id, _)) = known {
            *rules.channels.get_mut(id) = of_name;
        } else {
            let inserted = rules.channels.insert(name, of_name);
            inserted.map_err(|error| wrong(&error))?;
        }
    }
    Ok(())
}

/// A client has a topic for each channel and another one for who comes and goes there, and so the
/// limits of both go together.
fn fit_topics(draft: &mut Draft, flag: Option<usize>) -> Result<(), SetupError> {
    let limit = &mut draft.rules.client.channel_limit;
    let topics = &mut draft.config.limits.max_topics_per_connection;
    let needed = |channels: usize| channels.saturating_mul(2).saturating_add(OTHER_TOPICS);
    let said = flag.or(draft.max_topics_per_connection);
    *limit = match (said, draft.channel_limit) {
        (_, Some(channels)) => channels,
        (Some(topics), None) => (topics.saturating_sub(OTHER_TOPICS) / 2).min(*limit),
        (None, None) => *limit,
    };
    *topics = said.unwrap_or(needed(*limit));
    if draft.channel_limit.is_some() && *topics < needed(*limit) {
        let problem = format!(
            "{topics} is too few for a client.channel_limit of {limit}; {} are enough",
            needed(*limit)
        );
        return Err(SetupError::new("max-topics-per-connection", problem));
    }
    Ok(())
}

/// A message is as large whichever way it comes, but for the API: there many come at once.
fn set_sizes(rules: &mut Rules, config: &mut Config, mode: Mode) {
    let largest = config.protocol.max_message_size;
    rules.client.message_size_limit = largest;
    // Half of what may wait for a connection: the rest is for what comes meanwhile.
    rules.most_past = config.limits.outbox_hard / 2;
    if mode != Mode::Echo {
        let has_api = rules.api.key.is_some() || rules.api.insecure;
        let body = if has_api { LARGEST_BATCH } else { 0 };
        config.protocol.http.max_body_size = largest.max(body);
    }
}

fn set_limits(draft: &mut Draft, flags: &LimitFlags) {
    set(&mut draft.rules.max_posts_per_ip, flags.max_posts_per_ip);
    let config = &mut draft.config;
    let limits = &mut config.limits;
    set(
        &mut config.protocol.max_message_size,
        flags.max_message_size,
    );
    set(&mut config.protocol.max_fragments, flags.max_fragments);
    set(&mut limits.max_connections, flags.max_connections);
    let per_ip = flags.max_connections_per_ip;
    limits.max_connections_per_ip = per_ip.or(limits.max_connections_per_ip);
    set(&mut limits.outbox_soft, flags.outbox_soft);
    set(&mut limits.outbox_hard, flags.outbox_hard);
    set(&mut limits.max_topics, flags.max_topics);
    set(&mut limits.max_patterns, flags.max_patterns);
    set(&mut limits.max_pings, flags.max_pings);
    set(&mut limits.max_input, flags.max_input);
    set(&mut limits.max_output, flags.max_output);
    set(&mut limits.max_history, flags.max_history);
    set(&mut limits.max_topic_memory, flags.max_topic_memory);
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

fn log_level(flags: &Flags, of_file: Option<LevelFilter>) -> LevelFilter {
    match flags.verbose {
        0 => flags.log_level.or(of_file).unwrap_or(LevelFilter::INFO),
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

/// It is allocated at once; what is larger than every cache only costs.
const LARGEST_RECEIVE_BUFFER: usize = 16 << 20;

/// A request of the API, with publications to many channels or many of them.
const LARGEST_BATCH: usize = 1 << 20;

/// Topics of a client that are not about its channels: its own and its user's, and some to spare.
const OTHER_TOPICS: usize = 8;

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use stentor::SlowPolicy;

    use super::*;

    const ROOM: Room = Room {
        connections: 960,
        memory: u64::MAX,
    };

    fn with_file(text: &str, arguments: &[&str]) -> Result<Settings, SetupError> {
        let arguments = ["stentor"].iter().chain(arguments);
        let flags = Flags::try_parse_from(arguments).unwrap();
        Settings::of(&flags, &File::new("a.toml", text), ROOM)
    }

    fn resolve(arguments: &[&str]) -> Result<Settings, SetupError> {
        let arguments = ["stentor"].iter().chain(arguments);
        Settings::resolve(&Flags::try_parse_from(arguments).unwrap(), ROOM)
    }

    #[test]
    fn caps_fit_into_the_memory_that_there_is_but_for_those_that_are_said() {
        let file = "[server]\nmax_output = \"200MiB\"\n";
        let flags = ["stentor", "--max-history", "1GiB"];
        let flags = Flags::try_parse_from(flags).unwrap();
        let room = Room {
            memory: 512 << 20,
            ..ROOM
        };
        let settings = Settings::of(&flags, &File::new("a.toml", file), room).unwrap();
        let limits = settings.config.limits;
        assert_eq!(limits.max_output, 200 << 20);
        assert_eq!(limits.max_history, 1 << 30);
        let usual = stentor::Limits::default();
        assert!(limits.max_input < usual.max_input / 2, "{limits:?}");
        assert!(limits.max_topic_memory < usual.max_topic_memory / 2);
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
            let text = format!("{:#?} {:#?}", settings.config, settings.rules);
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            // A map has its entries in any order.
            lines.sort();
            lines
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
        for presence in ["--presence=no", "--presence=yes"] {
            let arguments = ["--slow=latest", presence];
            let topics = resolve(&arguments).unwrap().config.topics;
            let own = topics.get(topics.id_of("@presence.x"));
            assert_eq!(own.slow, SlowPolicy::Disconnect, "{presence}");
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

    #[test]
    fn flags_go_before_the_file_and_that_before_defaults() {
        let file = "
            [server]
            listen = [\"127.0.0.1:1\", \"[::1]:2\"]
            admin_listen = \"127.0.0.1:3\"
            max_topics = 5
            max_posts_per_ip = 50
            idle_timeout = \"3s\"
            overview = \"nobody\"
            [websocket]
            message_size_limit = \"128KiB\"
            [client]
            connection_limit = 7
            queue_max_size = 2_000_000
            [shutdown]
            timeout = \"7s\"
            [log]
            level = \"warn\"
            [channel.without_namespace]
            history_size = 3
            history_ttl = \"300s\"
        ";
        let Settings {
            config,
            rules,
            log_level,
            ..
        } = with_file(file, &[]).unwrap();
        assert_eq!((config.listen.len(), rules.first_admin), (3, Some(2)));
        assert_eq!(config.limits.max_connections, 7);
        assert_eq!(rules.max_posts_per_ip, 50);
        assert_eq!(config.limits.outbox_hard, 2_000_000);
        assert_eq!(config.protocol.max_message_size, 128 << 10);
        assert_eq!(rules.client.message_size_limit, 128 << 10);
        assert_eq!(config.timeouts.drain, Duration::from_secs(7));
        assert_eq!(
            (log_level, rules.overview),
            (LevelFilter::WARN, Who::Nobody)
        );

        let flags = "--listen=[::1]:9 --max-topics=6 --overview=anyone --history-size=4 --max-posts-per-ip=0";
        let flags: Vec<&str> = flags.split(' ').collect();
        let Settings { config, rules, .. } = with_file(file, &flags).unwrap();
        assert_eq!((config.listen.len(), rules.first_admin), (2, Some(1)));
        assert_eq!((config.limits.max_topics, rules.max_posts_per_ip), (6, 0));
        assert_eq!(config.timeouts.idle, Duration::from_secs(3));
        assert_eq!(rules.overview, Who::Anyone);
        assert_eq!(config.topics.get(config.topics.id_of("a")).history_size, 4);
    }

    #[test]
    fn a_namespace_of_a_file_follows_the_flags_and_not_channels_without_one() {
        let file = "
            [channel]
            history_meta_ttl = \"1h\"
            [channel.without_namespace]
            allow_subscribe_for_client = true
            history_size = 3
            [[channel.namespaces]]
            name = \"chat\"
            presence = true
            slow = \"latest\"
            history_meta_ttl = \"0s\"
            allow_publish_for_subscriber = true
            [[channel.namespaces]]
            name = \"news\"
            history_size = 9
            history_meta_ttl = \"2h\"
            publish = \"anyone\"
        ";
        let flags = ["--history-ttl=1m", "--history-size=2", "--publish=nobody"];
        let more = ["--namespace=chat: presence=no, history-size=5;more: slow=latest"];
        let rules = with_file(file, &[&flags[..], &more].concat())
            .unwrap()
            .rules;
        let of = |channel| {
            let options = rules.channels.get(rules.channels.id_of(channel));
            let topic = &options.topic;
            let hours = topic.history_meta_ttl.as_secs() / 3600;
            (
                topic.history_size,
                hours,
                topic.slow,
                options.access.publish,
            )
        };
        let usual = SlowPolicy::Disconnect;
        assert_eq!(of("a"), (2, 1, usual, Who::Nobody));
        assert_eq!(of("chat:a"), (5, 1, SlowPolicy::Latest, Who::Nobody));
        assert_eq!(of("news:a"), (9, 2, usual, Who::Anyone));
        assert_eq!(of("more:a"), (2, 720, SlowPolicy::Latest, Who::Nobody));
        let chat = rules.channels.get(rules.channels.id_of("chat:a"));
        assert!(chat.publish.subscriber && !chat.presence && !chat.allow_subscribe_for_client);
        assert!(rules.asks_by_namespace);
    }

    #[test]
    fn where_somebody_says_who_may_what_nobody_else_may() {
        let backend = "endpoint = \"http://localhost:3000/\"";
        for (file, is_guarded) in [
            ("", false),
            ("[client.token]\nhmac_secret_key = \"\"", false),
            ("[client.token]\nhmac_secret_key = \"secret\"", true),
            ("[http_api]\nkey = \"secret\"", true),
            (
                &format!("[client.proxy.connect]\nenabled = true\n{backend}"),
                true,
            ),
            (&format!("[client.proxy.connect]\n{backend}"), false),
            (&format!("[channel.proxy.publish]\n{backend}"), true),
        ] {
            let settings = with_file(file, &[]).unwrap();
            let rules = &settings.rules;
            let access = rules.channels.get(rules.channels.id_of("a")).access;
            let found = [access.publish, access.subscribe, rules.overview];
            let expected = if is_guarded { Who::Nobody } else { Who::Anyone };
            assert_eq!(found, [expected; 3], "{file}");
            assert!(
                !rules.client.allow_anonymous_connect_without_token,
                "{file}"
            );
            assert!(!rules.console.enabled, "{file}");
            let said = "\n[channel.without_namespace]\npublish = \"anyone\"";
            let rules = with_file(&format!("{file}{said}"), &[]).unwrap().rules;
            let access = rules.channels.get(rules.channels.id_of("a")).access;
            assert_eq!(access.publish, Who::Anyone, "{file}");
        }
    }

    #[test]
    fn who_tries_it_on_one_machine_needs_neither_a_file_nor_a_token() {
        for (listen, is_local) in [("127.0.0.1:1", true), ("0.0.0.0:1", false)] {
            let rules = resolve(&["--listen", listen]).unwrap().rules;
            assert_eq!(rules.client.allow_anonymous_connect_without_token, is_local);
            assert_eq!(rules.console.enabled, is_local);
        }
    }

    #[test]
    fn a_client_has_room_for_all_its_channels() {
        let of = |file, arguments: &[&str]| {
            let settings = with_file(file, arguments)?;
            let topics = settings.config.limits.max_topics_per_connection;
            Ok::<_, SetupError>((topics, settings.rules.client.channel_limit))
        };
        let said = "client.channel_limit = 10";
        assert_eq!(of("", &[]), Ok((264, 128)));
        assert_eq!(of(said, &[]), Ok((28, 10)));
        assert_eq!(of("", &["--max-topics-per-connection=11"]), Ok((11, 1)));
        assert_eq!(of(said, &["--max-topics-per-connection=99"]), Ok((99, 10)));
        let error = of(said, &["--max-topics-per-connection=27"]).unwrap_err();
        let expected =
            "max-topics-per-connection: 27 is too few for a client.channel_limit of 10; ";
        assert!(error.to_string().starts_with(expected), "{error}");
        let largest = i64::MAX.to_string();
        assert!(of(&format!("client.channel_limit = {largest}"), &[]).is_ok());
    }

    #[test]
    fn an_api_takes_many_publications_at_once() {
        let body = |file| {
            with_file(file, &[])
                .unwrap()
                .config
                .protocol
                .http
                .max_body_size
        };
        assert_eq!(body(""), 64 << 10);
        assert_eq!(body("http_api.key = \"a\""), 1 << 20);
        assert_eq!(body("http_api.insecure = true"), 1 << 20);
        let larger = "http_api.insecure = true\nwebsocket.message_size_limit = \"2MiB\"";
        assert_eq!(body(larger), 2 << 20);
    }

    /// What the options of channels say is wrong in this line, with and without a namespace.
    fn assert_wrong_channel(options: &str, line: usize, key: &str, remedy: &str) {
        for (section, name, path) in [
            (
                "[channel.without_namespace]",
                "",
                "channel.without_namespace",
            ),
            (
                "[[channel.namespaces]]",
                "name = 'a'",
                "channel.namespaces[0]",
            ),
        ] {
            let file = format!("{section}\n{options}\n{name}");
            let error = with_file(&file, &[]).unwrap_err().to_string();
            let start = format!("a.toml:{line}: {path}.{key}: ");
            assert!(error.starts_with(&start), "{error}");
            assert!(error.contains(remedy), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn options_that_do_not_go_together_are_told_with_their_line() {
        for (options, line, key, remedy) in [
            ("\nhistory_size = 1", 3, "history_size", "add history_ttl"),
            ("history_ttl = '1s'", 2, "history_ttl", "add history_size"),
            (
                "history_size = 1\nhistory_ttl = '2h'\nhistory_meta_ttl = '1h'",
                4,
                "history_meta_ttl",
                "as long",
            ),
            (
                "history_size = 1\nhistory_ttl = '2h'\nforce_recovery = true\n\
                 auto_cache_recover = true",
                5,
                "auto_cache_recover",
                "\"cache\"",
            ),
            ("force_recovery = true", 2, "force_recovery", "history_size"),
            ("allow_recovery = true", 2, "allow_recovery", "history_size"),
        ] {
            assert_wrong_channel(options, line, key, remedy);
        }
        let cache = "[channel.without_namespace]\nhistory_size = 1\nhistory_ttl = '2h'\n\
                     force_recovery = true\nforce_recovery_mode = 'cache'\n\
                     auto_cache_recover = true";
        assert!(with_file(cache, &[]).is_ok());
    }

    #[test]
    fn options_that_need_something_else_are_told_with_their_line() {
        for (option, key, remedy) in [
            (
                "force_push_join_leave = true",
                "force_push_join_leave",
                "add join_leave",
            ),
            (
                "subscribe_proxy_enabled = true",
                "subscribe_proxy_enabled",
                "channel.proxy",
            ),
            (
                "publish_proxy_enabled = true",
                "publish_proxy_enabled",
                "channel.proxy",
            ),
            ("channel_regex = '['", "channel_regex", "regular expression"),
            ("publish = 'all'", "publish", "anyone, nobody"),
        ] {
            assert_wrong_channel(option, 2, key, remedy);
        }
    }

    #[test]
    fn what_is_wrong_elsewhere_is_said_with_its_line() {
        for (file, start, remedy) in [
            (
                "[[channel.namespaces]]",
                "1: channel.namespaces[0].name: ",
                "add name",
            ),
            (
                "[[channel.namespaces]]\nname = 'a b'",
                "2: channel.namespaces[0].name: `a b`: ",
                "another",
            ),
            ("channel.max_length = 256", "1: channel.max_length: ", "255"),
            (
                "client.pong_timeout = '25s'",
                "1: client.pong_timeout: ",
                "shorter",
            ),
            (
                "client.allowed_origins = 'a.b'",
                "1: client.allowed_origins: `a.b` ",
                "https://",
            ),
            (
                "server.listen = [\n'9001']",
                "1: server.listen: `9001` ",
                "127.0.0.1:9001",
            ),
            (
                "[client.proxy.refresh]\nenabled = true",
                "2: client.proxy.refresh.enabled: ",
                "add",
            ),
            (
                "rpc.without_namespace.proxy_enabled = true",
                "1: rpc.without",
                "rpc.proxy.endpoint",
            ),
            (
                "[client.subscription_token]\nenabled = true",
                "2: client.subscription_token",
                "add",
            ),
            (
                "[client.subscription_token]\nhmac_secret_key = 'a'",
                "1: client.subscription_token.enabled: ",
                "add enabled",
            ),
            (
                "[client.subscribe_to_user_personal_channel]\nenabled = true\n\
                 personal_channel_namespace = 'a'",
                "3: client.subscribe_to_user_personal_channel.personal_channel_namespace: ",
                "add it",
            ),
        ] {
            let error = with_file(file, &[]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("a.toml:{start}")), "{error}");
            assert!(error.contains(remedy), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn echo_has_no_file() {
        let error = with_file("", &["echo"]).unwrap_err().to_string();
        assert!(error.starts_with("config: "), "{error}");
    }
}
