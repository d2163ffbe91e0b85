//! Who comes to a topic and who leaves it, as the application is told.

use super::handler::ConnectionId;

/// How a connection subscribes.
///
/// ```
/// use stentor::SubscribeOptions;
///
/// let with_a_name = SubscribeOptions::new().info(b"Stentor");
/// let unseen = SubscribeOptions::new().present(false);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscribeOptions<'a> {
    pub(crate) info: &'a [u8],
    pub(crate) is_present: Option<bool>,
}

impl<'a> SubscribeOptions<'a> {
    /// Present where a presence is kept of the topic, with nothing to say.
    pub fn new() -> Self {
        Self::default()
    }

    /// What others learn of the connection where it is present.
    pub fn info(mut self, info: &'a [u8]) -> Self {
        self.info = info;
        self
    }

    /// Whether it is present, whatever holds for others ([`TopicOptions::presence`]).
    ///
    /// [`TopicOptions::presence`]: crate::TopicOptions::presence
    pub fn present(mut self, is_present: bool) -> Self {
        self.is_present = Some(is_present);
        self
    }
}

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
