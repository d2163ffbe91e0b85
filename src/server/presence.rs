//! Who comes to a topic and who leaves it, as the application is told.

use super::handler::ConnectionId;

/// A connection has joined or left a topic of which a presence is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceEvent {
    /// The topic.
    pub topic: Box<str>,
    /// The connection; it may have ended.
    pub id: ConnectionId,
    /// What it said of itself when it subscribed.
    pub info: Box<[u8]>,
    /// Whether it joined; otherwise it left.
    pub has_joined: bool,
}

/// A connection that is subscribed to a topic of which a presence is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The connection.
    pub id: ConnectionId,
    /// What it said of itself when it subscribed.
    pub info: Box<[u8]>,
    /// Since when it is there.
    pub since: std::time::SystemTime,
}
