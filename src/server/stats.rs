//! Counters of one loop: plain numbers, added to where things happen.

use std::collections::BTreeMap;
use std::fmt;

use super::handler::Lost;
use super::histogram::Histogram;
use crate::protocol::{CloseCode, HandshakeError, ProtocolError};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The peer sent a Close frame.
    Peer,
    /// The application closed it.
    Application,
    /// The server shuts down.
    Shutdown,
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// The peer ended the TCP connection without a Close frame.
    EndOfStream,
    /// The TCP connection broke.
    ConnectionLost,
    /// No sign of life after a Ping.
    PongTimeout,
    /// A message was begun and not completed in time.
    MessageTimeout,
    /// The peer took no byte for too long.
    WriteTimeout,
    /// The peer did not answer our Close frame in time.
    CloseTimeout,
    /// More bytes waited for the peer than `outbox_hard`, or for longer than `lag`.
    SlowConsumer,
    /// More of what peers had sent was incomplete than `max_input`, and most of it was this one's.
    InputCap,
    /// More bytes waited for all peers than `max_output`, and most of them for this one.
    OutputCap,
    /// The peer sent more Pings than `max_pings`.
    PingFlood,
}

impl Cause {
    const COUNT: usize = 14;

    /// The cause in two words, fit for a log field or a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Application => "application",
            Self::Shutdown => "shutdown",
            Self::Protocol(_) => "protocol-error",
            Self::EndOfStream => "end-of-stream",
            Self::ConnectionLost => "connection-lost",
            Self::PongTimeout => "pong-timeout",
            Self::MessageTimeout => "message-timeout",
            Self::WriteTimeout => "write-timeout",
            Self::CloseTimeout => "close-timeout",
            Self::SlowConsumer => "slow-consumer",
            Self::InputCap => "input-cap",
            Self::OutputCap => "output-cap",
            Self::PingFlood => "ping-flood",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Peer => 0,
            Self::Application => 1,
            Self::Shutdown => 2,
            Self::Protocol(_) => 3,
            Self::EndOfStream => 4,
            Self::ConnectionLost => 5,
            Self::PongTimeout => 6,
            Self::MessageTimeout => 7,
            Self::WriteTimeout => 8,
            Self::CloseTimeout => 9,
            Self::SlowConsumer => 10,
            Self::OutputCap => 11,
            Self::PingFlood => 12,
            Self::InputCap => 13,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => write!(f, "{}: {error}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}

/// What happened on a loop since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// TCP and unix connections accepted.
    pub accepted: u64,
    /// Connections answered 503 and closed because `max_connections` were there.
    pub rejected_full: u64,
    /// Connections answered 429 and closed because `max_connections_per_ip` of their address were
    /// there.
    pub rejected_ip: u64,
    /// Times that accept failed because descriptors or memory ran out.
    pub accept_exhausted: u64,
    /// Times that a waiting connection was gone before it was accepted.
    pub accept_lost: u64,
    /// Opening handshakes that completed.
    pub opened: u64,
    /// Opening handshakes that the application refused.
    pub refused_by_application: u64,
    /// Requests refused because they were wrong or late, by HTTP status.
    pub refused: Refused,
    /// Connections that ended without having become a WebSocket.
    pub ended_without_upgrade: u64,
    /// Responses without end that were begun.
    pub streams: u64,
    /// Plain HTTP requests answered.
    pub requests: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes taken by sockets.
    pub bytes_out: u64,
    /// Messages published to topics.
    pub published: u64,
    /// Sends of what was published in a turn to one subscriber.
    pub deliveries: u64,
    /// Messages sent, or queued, to subscribers of their topics.
    pub messages_out: u64,
    /// Publications of other threads to names that no topic can have.
    pub misnamed: u64,
    /// Publications answered as the first one with their idempotency key was.
    pub repeated: u64,
    /// Times that a publisher had to wait until subscribers were served.
    pub throttled: u64,
    /// Messages dropped by the policies of their topics.
    pub lost: Lost,
    /// Connections ended because `max_output` was reached.
    pub evicted: u64,
    /// Connections closed, and requests answered 503, because `max_input` was reached.
    pub evicted_input: u64,
    /// Subscriptions refused because `max_topic_memory` was reached.
    pub refused_subscriptions: u64,
    /// How long turns of the loop took, from the end of the wait for events.
    pub turn: Histogram,
    /// From the first publication of a batch until its last subscriber's bytes were given to the
    /// kernel, or queued.
    pub fan_out: Histogram,
    /// Messages not sent because the connection was closed or closing.
    pub dropped_closed: u64,
    /// Messages not sent because too many bytes waited; the connection is closed with 1013.
    pub dropped_slow: u64,
    /// Bytes that were on their way when their connection ended.
    pub bytes_unsent: u64,
    /// Pings that were answered together with a later one, because the peer did not read.
    pub pongs_coalesced: u64,
    /// Commands and events for connections that were gone.
    pub stale: u64,
    causes: [u64; Cause::COUNT],
    /// By side and code.
    closes: BTreeMap<(Side, u16), u64>,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The server, by a Close frame of its own or by giving up.
    Server,
    /// The peer, by a Close frame, the end of the stream or a reset.
    Peer,
}

impl Stats {
    /// How many connections that had opened ended for this cause; of [`Cause::Protocol`], for any
    /// error.
    pub fn closed(&self, cause: Cause) -> u64 {
        self.causes[cause.index()]
    }

    /// How many connections that had opened ended.
    pub fn closed_total(&self) -> u64 {
        self.causes.iter().sum()
    }

    /// How connections that had opened ended: the side, the close code and how many. Codes from
    /// 3000 on are the applications' and the peers' own: they count as 3000 and 4000.
    pub fn closes(&self) -> impl Iterator<Item = (Side, u16, u64)> {
        self.closes
            .iter()
            .map(|(&(side, code), &count)| (side, code, count))
    }

    pub(crate) fn count_close(&mut self, cause: Cause, code: CloseCode) {
        self.causes[cause.index()] += 1;
        let side = match cause {
            Cause::Peer | Cause::EndOfStream | Cause::ConnectionLost => Side::Peer,
            _ => Side::Server,
        };
        let code = match code.get() {
            code @ ..3000 => code,
            code => code / 1000 * 1000,
        };
        *self.closes.entry((side, code)).or_default() += 1;
    }
}

/// Refused requests by HTTP status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused(BTreeMap<u16, u64>);

impl Refused {
    /// How many were refused with this status.
    pub fn status(&self, status: u16) -> u64 {
        self.0.get(&status).copied().unwrap_or_default()
    }

    /// Each status that occurred with its count.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().map(|(&status, &count)| (status, count))
    }

    pub(crate) fn count(&mut self, error: HandshakeError) {
        *self.0.entry(error.status()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_counted_apart() {
        let mut stats = Stats::default();
        let code = CloseCode::new;
        stats.count_close(Cause::Peer, code(4321));
        stats.count_close(Cause::SlowConsumer, code(1013));
        stats.count_close(Cause::Protocol(ProtocolError::UnmaskedFrame), code(1002));
        stats.count_close(Cause::Protocol(ProtocolError::InvalidUtf8), code(1007));
        let closes: Vec<_> = stats.closes().collect();
        let server = Side::Server;
        assert_eq!(
            closes,
            [
                (server, 1002, 1),
                (server, 1007, 1),
                (server, 1013, 1),
                (Side::Peer, 4000, 1)
            ]
        );
        assert_eq!(stats.closed(Cause::Peer), 1);
        assert_eq!(
            stats.closed(Cause::Protocol(ProtocolError::ReservedBits)),
            2
        );
        assert_eq!(stats.closed(Cause::Shutdown), 0);
        assert_eq!(stats.closed_total(), 4);
    }
}
