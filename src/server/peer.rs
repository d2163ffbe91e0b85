//! What the loop keeps for one connection: little while it is idle, the rest behind one pointer.

use super::handler::{ConnectionId, Lost};
use super::outbox::Outbox;
use super::stats::Cause;
use super::timer::Tick;
use super::transport::Transport;
use crate::protocol::{Assembly, CloseCode, Connection};
use crate::ring::Ring;

/// One slab entry.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are facts that do not exclude each other"
)]
#[derive(Debug)]
pub(crate) struct Peer<S> {
    pub(crate) protocol: Connection,
    pub(crate) transport: Transport,
    pub(crate) generation: u32,
    /// Everything that an idle connection does without.
    pub(crate) work: Option<Box<Work>>,
    /// Since when the peer has been silent.
    pub(crate) last_seen: Tick,
    /// Since when it is in its present stage: accepted, last response, Close frame, FIN.
    pub(crate) since: Tick,
    /// Code and cause, once it is decided that and why the connection ends.
    pub(crate) ending: Option<(CloseCode, Cause)>,
    pub(crate) stage: Stage,
    pub(crate) watch: Watch,
    /// The peer has ended its side, or the socket has an error: its edge has come, so a short read
    /// is not the last one.
    pub(crate) is_ending: bool,
    /// The opening handshake was completed.
    pub(crate) has_opened: bool,
    /// The peer's FIN was read.
    pub(crate) is_eof: bool,
    /// On the list of those whose outbox is to be flushed in this turn.
    pub(crate) is_dirty: bool,
    /// On the list of those that are read without an event.
    pub(crate) is_ready: bool,
    /// `Some` from `open` to `close`.
    pub(crate) state: Option<S>,
}

/// What the peer's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// A Ping is sent when it has lasted for long enough.
    Seen,
    /// A Ping went out and nothing has come since.
    Pinged,
    /// Nothing: the application looks after the peer's life.
    Off,
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Bytes are read and understood.
    Active,
    /// A response without end: publications are its body. What is read is thrown away.
    Streaming,
    /// All is said: when the outbox is empty FIN is sent; what still comes is read and thrown
    /// away until the peer's FIN, since closing a socket with unread bytes sends RST, and RST
    /// takes back what the peer has not read yet (RFC 9112 §9.6).
    Lingering,
    /// FIN is sent.
    HalfClosed,
    /// Will be reaped at the end of the turn.
    Gone,
}

/// What a connection needs while something is incomplete or unsent.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// The beginning of a request head or of a small frame, or frames that backpressure holds up.
    pub(crate) ring: Option<Ring>,
    /// Part of a long or fragmented message.
    pub(crate) assembly: Assembly,
    /// The memory of these two, and of the body of a request, as it is counted in `Core`.
    pub(crate) input: usize,
    pub(crate) outbox: Outbox,
    /// Since when a message is incomplete; 0: none is.
    pub(crate) message_since: Tick,
    /// Since when the peer has taken no byte of the outbox.
    pub(crate) write_since: Tick,
    /// More than `outbox_soft` bytes were queued: `drain` is owed.
    pub(crate) is_pressed: bool,
    /// The ring holds bytes that were not looked at yet.
    pub(crate) is_held: bool,
    /// Published more than the walk to the subscribers keeps up with.
    pub(crate) is_throttled: bool,
    /// Messages that it did not get, and the application does not know of yet.
    pub(crate) lost: Lost,
}

impl<S> Peer<S> {
    pub(crate) fn new(
        transport: Transport,
        protocol: Connection,
        generation: u32,
        now: Tick,
    ) -> Self {
        Self {
            protocol,
            transport,
            generation,
            work: None,
            last_seen: now,
            since: now,
            ending: None,
            stage: Stage::Active,
            watch: Watch::Seen,
            is_ending: false,
            has_opened: false,
            is_eof: false,
            is_dirty: false,
            is_ready: false,
            state: None,
        }
    }

    pub(crate) fn id(&self, key: usize) -> ConnectionId {
        ConnectionId {
            key: key as u32,
            generation: self.generation,
        }
    }

    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.outbox.queued())
    }

    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| !work.outbox.is_empty())
    }
}

impl Work {
    /// Whether an idle connection can do without it again.
    pub(crate) fn is_idle(&self) -> bool {
        self.ring.is_none()
            && self.message_since == 0
            && self.assembly.is_empty()
            && self.input == 0
            && self.outbox.is_empty()
            && self.outbox.pending_pong.is_none()
            && !self.is_throttled
            && self.lost == Lost::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cat_138_idle_connection_is_at_most_two_cache_lines() {
        let entry = size_of::<Peer<()>>();
        assert!(entry <= 120, "{entry} bytes");
    }
}
