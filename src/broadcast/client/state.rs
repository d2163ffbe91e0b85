//! What is kept of a client.

use std::fmt::Write;
use std::rc::Rc;

use stentor::ConnectionId;

use super::command::Command;
use super::dues::Tick;
use super::info::{self, Visibility};
use super::record::Codec;
use crate::broadcast::hooks::{self, Overrides};

/// The number of a client, which is all that its connection keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(pub(super) u32);

#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ConnectionId,
    pub(super) uuid: Uuid,
    pub(super) transport: Transport,
    pub(super) stage: Stage,
    /// A ping is out and no pong has come.
    pub(super) is_pinged: bool,
    /// The server pings in the protocol, and not in frames of its own.
    pub(super) has_pings: bool,
    /// A hook let it in: it is the hook that refreshes.
    pub(super) is_hooked: bool,
    pub(super) user: Rc<str>,
    /// Its place among the connections of its user.
    pub(super) place: u32,
    pub(super) subs: Vec<Sub>,
    /// When it is looked at next.
    pub(super) due: Tick,
    /// When the next ping goes out, or the pong is due.
    pub(super) ping_at: Tick,
    /// Since when it has not connected.
    pub(super) since: Tick,
    /// Seconds of Unix time at which its time is over; 0 for never.
    pub(super) expire_at: u64,
    /// Which question to a hook is the last.
    pub(super) asked: u32,
    /// What few clients have.
    pub(super) rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
pub(super) struct Rare {
    /// What others learn of it; JSON or empty.
    pub(super) info: Box<str>,
    pub(super) meta: Box<str>,
    pub(super) headers: Box<[(Box<str>, Box<str>)]>,
    /// A command whose hook has not answered, and what the client said since.
    pub(super) waiting: Option<Waiting>,
    /// The number of the question whether it may stay, if that has not been answered.
    pub(super) refreshing: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Waiting {
    /// Of the question.
    pub(super) number: u32,
    /// `None` if nothing is asked, and the client goes on by itself.
    pub(super) command: Option<Command>,
    pub(super) rest: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket(Codec),
    UniWebSocket,
    UniSse,
}

impl Transport {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WebSocket(_) => "websocket",
            Self::UniWebSocket => "uni_websocket",
            Self::UniSse => "uni_sse",
        }
    }

    /// Whether the client only listens once it has connected.
    pub(super) fn is_uni(self) -> bool {
        !matches!(self, Self::WebSocket(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not said who it is.
    Fresh,
    Connected,
    /// It was refused or sent away: nothing that it says counts any more.
    Over,
}

/// A channel that a client hears.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) channel: Box<str>,
    /// What others learn of the client here; JSON or empty.
    pub(super) info: Box<str>,
    /// Seconds of Unix time at which its time is over; 0 for never.
    pub(super) expire_at: u64,
    /// The server subscribed it.
    pub(super) is_server_side: bool,
    /// It knows its position.
    pub(super) is_positioned: bool,
    /// Its name stands in the token or the hook's answer with which it connected.
    pub(super) is_granted: bool,
}

impl Client {
    pub(super) fn sub(&self, channel: &str) -> Option<&Sub> {
        self.subs.iter().find(|sub| &*sub.channel == channel)
    }

    pub(super) fn info(&self) -> &str {
        self.rare.as_ref().map_or("", |rare| &rare.info)
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| rare.waiting.is_some())
    }

    /// How its messages are written.
    pub(super) fn codec(&self) -> Codec {
        match self.transport {
            Transport::WebSocket(codec) => codec,
            Transport::UniWebSocket | Transport::UniSse => Codec::Json,
        }
    }

    /// What others learn of it, in a channel of which it has this to say.
    pub(super) fn describe(&self, in_channel: &str) -> Vec<u8> {
        let (info, in_channel) = (self.info().as_bytes(), in_channel.as_bytes());
        info::describe(&self.uuid.text(), &self.user, info, in_channel)
    }

    /// As the hooks see it; `uuid` is its text.
    pub(super) fn view<'a>(&'a self, uuid: &'a str) -> hooks::Client<'a> {
        let rare = self.rare.as_deref();
        hooks::Client {
            id: self.id,
            client: uuid,
            user: &self.user,
            transport: self.transport.name(),
            protocol: self.codec().name(),
            headers: rare.map_or(&[][..], |rare| &rare.headers),
            meta: rare.map_or("", |rare| &rare.meta),
        }
    }
}

/// A random UUID (RFC 9562 §5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uuid([u8; 16]);

impl Uuid {
    /// # Panics
    ///
    /// If the operating system has no random bytes.
    pub(super) fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes");
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// One of its random bytes.
    pub(super) fn first(self) -> u8 {
        self.0[0]
    }

    pub(super) fn text(self) -> String {
        let mut text = String::with_capacity(36);
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        text
    }
}

/// The options of a channel as they are for one subscription.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effective {
    /// `None` if the client is seen nowhere.
    pub(super) visibility: Option<Visibility>,
    pub(super) pushes_join_leave: bool,
    pub(super) recovers: bool,
    pub(super) is_positioned: bool,
}

impl Effective {
    pub(super) fn of(options: &crate::broadcast::ChannelOptions, overrides: Overrides) -> Self {
        let is_told = overrides.join_leave.unwrap_or(options.join_leave);
        let is_seen = overrides.presence.unwrap_or(options.presence) || is_told;
        Self {
            visibility: is_seen.then_some(Visibility {
                // Where there is no presence nobody is shown one.
                is_listed: overrides.presence != Some(false),
                is_told,
            }),
            pushes_join_leave: overrides
                .force_push_join_leave
                .unwrap_or(options.force_push_join_leave),
            recovers: overrides.force_recovery.unwrap_or(options.force_recovery),
            is_positioned: overrides
                .force_positioning
                .unwrap_or(options.force_positioning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_one_of_version_4() {
        let text = Uuid::random().text();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert!("89ab".contains(&text[19..20]), "{text}");
        assert_ne!(text, Uuid::random().text());
    }

    #[test]
    fn a_client_takes_less_than_two_hundred_bytes() {
        assert!(size_of::<Client>() <= 152, "{}", size_of::<Client>());
        assert!(size_of::<Sub>() <= 48, "{}", size_of::<Sub>());
    }
}
