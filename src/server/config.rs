//! What a server is told before it starts: endpoints, limits and timeouts, each with its reason.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::protocol::Settings;
use crate::topic::{HistoryRules, Namespaces};

/// Where a server listens.
///
/// ```
/// use stentor::Endpoint;
///
/// assert!(matches!("127.0.0.1:9001".parse(), Ok(Endpoint::Tcp(_))));
/// assert!(matches!("[::1]:9001".parse(), Ok(Endpoint::Tcp(_))));
/// assert!(matches!("unix:/run/stentor.sock".parse(), Ok(Endpoint::Unix(_))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An IPv4 or IPv6 address with a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(ConfigError::new(
                    "listen",
                    "the path behind `unix:` is empty",
                )),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let address = text.replacen("localhost:", "127.0.0.1:", 1);
        address.parse().map(Self::Tcp).map_err(|_| {
            let hint = "is not ADDRESS:PORT, [IPV6]:PORT or unix:PATH, such as 127.0.0.1:9001";
            ConfigError::new("listen", format!("`{text}` {hint}"))
        })
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Everything a [`Server`](crate::Server) is configured with.
///
/// ```
/// use stentor::Config;
///
/// let mut config = Config::listen(["127.0.0.1:0".parse()?]);
/// config.protocol.max_message_size = 64 * 1024;
/// config.limits.max_connections = 1000;
/// # Ok::<(), stentor::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where to listen; at least one endpoint.
    pub listen: Vec<Endpoint>,
    /// What is accepted from a peer: sizes of messages, of requests and their parts.
    pub protocol: Settings,
    /// How much of everything there may be.
    pub limits: Limits,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// The rules of topics, by namespace.
    pub topics: Namespaces<TopicOptions>,
}

impl Config {
    /// The defaults at these endpoints.
    pub fn listen(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            listen: endpoints.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether the values go together.
    ///
    /// # Errors
    ///
    /// The first value that does not, by its key and with what would.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, problem: &str| Err(ConfigError::new(key, problem));
        if self.listen.is_empty() {
            return wrong(
                "listen",
                "no address is given; 127.0.0.1:9001 is a good first one",
            );
        }
        // Each connection keeps the number of its listener in a byte.
        if self.listen.len() > 256 {
            return wrong("listen", "more than 256 addresses are given");
        }
        if self.limits.max_connections == 0 {
            return wrong("max-connections", "is 0; nobody could connect");
        }
        if self.limits.max_connections_per_ip == Some(0) {
            return wrong("max-connections-per-ip", "is 0; nobody could connect");
        }
        if self.limits.accept_budget == 0 {
            return wrong("accept-budget", "is 0; nobody could connect");
        }
        if self.limits.walk_sends == 0 {
            return wrong("walk-sends", "is 0; no subscriber would get anything");
        }
        if self.limits.max_commands == 0 {
            return wrong("max-commands", "is 0; no thread could say anything");
        }
        if self.limits.receive_buffer < 1024 {
            return wrong("receive-buffer", "is below 1KiB; 128KiB is a good one");
        }
        if self.limits.receive_buffer < self.protocol.max_frame_in_place {
            return wrong(
                "receive-buffer",
                "is smaller than the frames that wait in place",
            );
        }
        if self.limits.outbox_soft > self.limits.outbox_hard {
            return wrong("outbox-soft", "is larger than outbox-hard; make it smaller");
        }
        let timeouts = [
            ("handshake-timeout", self.timeouts.handshake),
            ("message-timeout", self.timeouts.message),
            ("idle-timeout", self.timeouts.idle),
            ("pong-timeout", self.timeouts.pong),
            ("close-timeout", self.timeouts.close),
            ("write-timeout", self.timeouts.write),
            ("lag-timeout", self.timeouts.lag),
        ];
        for (key, timeout) in timeouts {
            if timeout < Timeouts::SHORTEST {
                return wrong(key, "is shorter than 10ms; 1s and more make sense");
            }
        }
        Ok(())
    }
}

/// How much of everything there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; default 10,000. A connection above it is answered 503 and closed.
    /// The program sets it to the limit of open files less 64.
    pub max_connections: usize,
    /// TCP connections at a time from one IPv4 address or one IPv6 network of 64 bits; default
    /// `None`, no limit: a proxy or a NAT puts many people behind one address. A connection above
    /// it is answered 429 and closed. One counts until its socket is closed, whatever it was for.
    pub max_connections_per_ip: Option<usize>,
    /// Bytes waiting for a peer that reads too slowly from which on the server stops reading from
    /// it and [`send`](crate::Context::send) answers `Backpressure`; default 256 KiB, a fair share
    /// of a second on a slow line.
    pub outbox_soft: usize,
    /// Bytes waiting for a peer at which it is closed with 1013; default 1 MiB. One message more
    /// than the limit always fits, whatever its size.
    pub outbox_hard: usize,
    /// Bytes read from one connection in one turn before the others are served; default 256 KiB,
    /// at least one receive buffer.
    pub read_budget: usize,
    /// Connections accepted in one turn before the others are served; default 64.
    pub accept_budget: usize,
    /// Subscribers that are sent to in one turn before others are read from; default 64, which
    /// takes about half a millisecond, since a send takes 2 to 10 µs. The rest of them have their turn in the next ones.
    pub walk_sends: usize,
    /// The buffer that all connections of a loop receive into; default 128 KiB: it stays in the
    /// second-level cache, and larger ones measured no better (docs/BENCHMARKS.md).
    pub receive_buffer: usize,
    /// Pings of one peer that are answered within a second; default 1,000. One more closes the
    /// connection with 1008: who measures the round trip needs a few, and each costs what a message
    /// does. 65,535 and more are no limit.
    pub max_pings: u32,
    /// Topics at a time; default 1,000,000: names come from peers.
    pub max_topics: usize,
    /// Topics that one connection may subscribe to; default 128.
    pub max_topics_per_connection: usize,
    /// Patterns at a time that anybody is subscribed to; default 10,000: a publication to a topic
    /// that was not resolved since patterns changed walks through those that may match.
    pub max_patterns: usize,
    /// Memory for what has come of all peers and is incomplete: messages, bodies, heads; default
    /// 64 MiB, a thousand half messages of 64 KiB with the room that they grow into. Above it
    /// connections are closed with 1013 and requests answered 503, those that hold most first; one
    /// alone is let be, whatever its size.
    pub max_input: usize,
    /// Bytes that wait for all peers together, shared ones counted once; default 256 MiB. Above
    /// it connections are ended, those for which most waits first.
    pub max_output: usize,
    /// Bytes of the histories of all topics; default 64 MiB. Above it the oldest publications go
    /// first.
    pub max_history: usize,
    /// Memory of topics, subscriptions and presences, about: 400 bytes for each first subscription
    /// and 130 for each further one, with the name each time, and what a presence tells; default
    /// 512 MiB, a million topics with names of 50 bytes. Above it nobody subscribes.
    pub max_topic_memory: usize,
    /// Commands of other threads that wait for the loop; default 65,536. More are refused, so
    /// that a thread that outruns the loop is told.
    pub max_commands: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_ip: None,
            outbox_soft: 256 << 10,
            outbox_hard: 1 << 20,
            read_budget: 256 << 10,
            accept_budget: 64,
            walk_sends: 64,
            receive_buffer: 128 << 10,
            max_pings: 1000,
            max_topics: 1_000_000,
            max_topics_per_connection: 128,
            max_patterns: 10_000,
            max_input: 64 << 20,
            max_output: 256 << 20,
            max_history: 64 << 20,
            max_topic_memory: 512 << 20,
            max_commands: 65_536,
        }
    }
}

/// The rules of the topics of a namespace.
///
/// ```
/// use std::time::Duration;
/// use stentor::{Config, SlowPolicy, TopicOptions};
///
/// let mut config = Config::listen(["127.0.0.1:0".parse()?]);
/// let prices = TopicOptions {
///     slow: SlowPolicy::Latest,
///     ..TopicOptions::default()
/// };
/// config.topics.insert("prices", prices)?; // prices:EUR, prices:USD …
/// let news = TopicOptions {
///     history_size: 100,
///     history_ttl: Duration::from_mins(5),
///     ..TopicOptions::default()
/// };
/// config.topics.insert("news.>", news)?; // news.sport, news.sport.chess …
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOptions {
    /// What becomes of messages for a subscriber that reads too slowly; default
    /// [`SlowPolicy::Disconnect`].
    pub slow: SlowPolicy,
    /// Bytes waiting for one subscriber from which on the policy applies; default
    /// [`Limits::outbox_hard`]. [`SlowPolicy::Disconnect`] applies there at the latest, and lets one
    /// message more wait, whatever its size; where messages are dropped, a larger one reaches only
    /// who has taken all before it.
    pub max_queued: Option<usize>,
    /// How long a message may wait before it is dropped as too old; default: as long as the
    /// connection may lag. Does not apply to [`SlowPolicy::Disconnect`].
    pub max_age: Option<Duration>,
    /// Publications that the history of a topic keeps; default 0: there is no history.
    pub history_size: usize,
    /// How long they are kept after the latest one; default 0: there is no history.
    pub history_ttl: Duration,
    /// How long epoch and offset of a history are kept after it was last used; default 30 days.
    pub history_meta_ttl: Duration,
    /// Whether it is kept who is subscribed; default no.
    pub presence: bool,
}

/// What becomes of messages for a subscriber that reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlowPolicy {
    /// The connection is closed with 1013: its client comes again, and recovers what it missed from
    /// the history.
    #[default]
    Disconnect,
    /// Messages for which there is no room are dropped: the first ones count.
    DropNewest,
    /// The oldest waiting messages make room for new ones.
    DropOldest,
    /// A new message replaces the one of the same topic that still waits: only the latest counts.
    Latest,
}

impl TopicOptions {
    /// How long a message may wait, where it may be dropped.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.max_age.filter(|_| self.slow != SlowPolicy::Disconnect)
    }

    pub(crate) fn keeps_history(&self) -> bool {
        self.history_rules().is_on()
    }

    pub(crate) fn history_rules(&self) -> HistoryRules {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        HistoryRules {
            size: self.history_size,
            ttl: millis(self.history_ttl),
            meta_ttl: millis(self.history_meta_ttl.max(self.history_ttl)),
        }
    }
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            slow: SlowPolicy::default(),
            max_queued: None,
            max_age: None,
            history_size: 0,
            history_ttl: Duration::ZERO,
            history_meta_ttl: Duration::from_hours(30 * 24),
            presence: false,
        }
    }
}

/// How long anything may take. Timeouts are looked at once a second, or four times within the
/// shortest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the complete request, however it trickles in, and between two plain
    /// requests; default 10 s.
    pub handshake: Duration,
    /// From the first byte of a message to its last; default 30 s, which lets 16 MiB come over a
    /// line of 5 Mbit/s.
    pub message: Duration,
    /// Silence after which a peer is pinged; default 25 s, below the 30 s after which the first
    /// middleboxes forget a connection.
    pub idle: Duration,
    /// From that ping to any sign of life; default 10 s.
    pub pong: Duration,
    /// From our Close frame, or our last byte, to the end of the connection; default 5 s.
    pub close: Duration,
    /// Without any progress in writing to a peer; default 10 s.
    pub write: Duration,
    /// From the time that a byte begins to wait for a peer until the peer has taken it; default
    /// 30 s. A peer that reads more slowly is closed with 1013, however steadily it does.
    pub lag: Duration,
    /// How long the key of a publication is remembered
    /// ([`PublishOptions::idempotency_key`](crate::PublishOptions::idempotency_key)); default
    /// 5 min.
    pub idempotency: Duration,
    /// From the start of a shutdown to its end, whoever has not left; default 30 s.
    pub drain: Duration,
}

impl Timeouts {
    /// Shorter ones would turn the coarse clock of the loop into a busy one.
    const SHORTEST: Duration = Duration::from_millis(10);

    /// A server that ran for two years would run out of shorter ticks.
    const SHORTEST_TICK: Duration = Duration::from_millis(20);

    /// The length of the ticks in which deadlines are counted.
    pub(crate) fn tick(&self) -> Duration {
        let shortest = [
            self.handshake,
            self.message,
            self.idle,
            self.pong,
            self.close,
            self.write,
            self.lag,
        ]
        .into_iter()
        .min()
        .unwrap_or(Duration::MAX);
        (shortest / 4).clamp(Self::SHORTEST_TICK, Duration::from_secs(1))
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            message: Duration::from_secs(30),
            idle: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            close: Duration::from_secs(5),
            write: Duration::from_secs(10),
            lag: Duration::from_secs(30),
            idempotency: Duration::from_mins(5),
            drain: Duration::from_secs(30),
        }
    }
}

/// A value that cannot be used: which key, what is wrong, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    key: &'static str,
    problem: String,
}

impl ConfigError {
    pub(crate) fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self {
            key,
            problem: problem.into(),
        }
    }

    /// The key, as a flag of the program spells it.
    pub fn key(&self) -> &'static str {
        self.key
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_need_only_an_address() {
        assert_eq!(Config::default().check().unwrap_err().key(), "listen");
        assert_eq!(Config::listen(["[::1]:0".parse().unwrap()]).check(), Ok(()));
    }

    #[test]
    fn a_wrong_value_is_named_by_its_key() {
        let good = Config::listen(["127.0.0.1:0".parse().unwrap()]);
        let mut config = good.clone();
        config.limits.max_connections = 0;
        assert_eq!(config.check().unwrap_err().key(), "max-connections");
        let mut config = good.clone();
        config.limits.max_connections_per_ip = Some(0);
        assert_eq!(config.check().unwrap_err().key(), "max-connections-per-ip");
        let mut config = good.clone();
        config.limits.outbox_soft = config.limits.outbox_hard + 1;
        assert_eq!(config.check().unwrap_err().key(), "outbox-soft");
        let mut config = good.clone();
        config.limits.walk_sends = 0;
        assert_eq!(config.check().unwrap_err().key(), "walk-sends");
        let mut config = good.clone();
        config.listen = vec![good.listen[0].clone(); 257];
        assert_eq!(config.check().unwrap_err().key(), "listen");
        let mut config = good.clone();
        config.timeouts.close = Duration::ZERO;
        assert_eq!(config.check().unwrap_err().key(), "close-timeout");
    }

    #[test]
    fn an_address_that_is_none_says_how_one_looks() {
        let error = "9001".parse::<Endpoint>().unwrap_err().to_string();
        assert!(
            error.contains("`9001`") && error.contains("127.0.0.1:9001"),
            "{error}"
        );
    }

    #[test]
    fn ticks_are_a_second_unless_a_timeout_is_shorter_than_four() {
        let mut timeouts = Timeouts::default();
        assert_eq!(timeouts.tick(), Duration::from_secs(1));
        timeouts.close = Duration::from_millis(100);
        assert_eq!(timeouts.tick(), Duration::from_millis(25));
    }
}
