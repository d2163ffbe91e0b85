//! What holds for all clients, named as Centrifugo names it.

use std::time::Duration;

/// The options of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are switches of the configuration"
)]
pub struct ClientOptions {
    /// Everything is allowed to everybody.
    pub insecure: bool,
    /// A client without a token is an anonymous one; otherwise it is refused.
    pub allow_anonymous_connect_without_token: bool,
    /// A token must name a user.
    pub disallow_anonymous_connection_tokens: bool,
    /// How often the server pings; default 25 s, below the 30 s after which the first middleboxes
    /// forget a connection.
    pub ping_interval: Duration,
    /// From a ping to its pong; default 8 s.
    pub pong_timeout: Duration,
    /// From the upgrade to a successful connect; default 10 s.
    pub stale_close_delay: Duration,
    /// From the expiry of a connection to its end; default 25 s, in which a new token comes.
    pub expired_close_delay: Duration,
    /// ...and of a subscription.
    pub expired_sub_close_delay: Duration,
    /// Channels of one client; default 128.
    pub channel_limit: usize,
    /// The longest name of a channel, in bytes; default 255, which is the most.
    pub channel_max_length: usize,
    /// Connections of one user; default 0, no limit.
    pub user_connection_limit: usize,
    /// The most publications that one recovery brings; default 300.
    pub recovery_max_publication_limit: usize,
    /// The most that a client reads at once; default 300.
    pub history_max_publication_limit: usize,
    /// The longest message of a client; default 64 KiB.
    pub message_size_limit: usize,
    /// Each client with a user is subscribed to the channel of this name and `#USER`.
    pub personal_channel: Option<String>,
    /// `/connection/uni_websocket` is served.
    pub uni_websocket: bool,
    /// `/connection/uni_sse` is served.
    pub uni_sse: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            insecure: false,
            allow_anonymous_connect_without_token: false,
            disallow_anonymous_connection_tokens: false,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            stale_close_delay: Duration::from_secs(10),
            expired_close_delay: Duration::from_secs(25),
            expired_sub_close_delay: Duration::from_secs(25),
            channel_limit: 128,
            channel_max_length: 255,
            user_connection_limit: 0,
            recovery_max_publication_limit: 300,
            history_max_publication_limit: 300,
            message_size_limit: 64 << 10,
            personal_channel: None,
            uni_websocket: false,
            uni_sse: false,
        }
    }
}
