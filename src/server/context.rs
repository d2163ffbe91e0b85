//! How a handler acts on its connection, on others, on topics and on the loop.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::core::Core;
use super::handler::{ConnectionId, Sent, SubscribeError};
use super::stats::{Cause, Stats};
use super::timer;
use crate::protocol::{CloseCode, CloseFrame, Message, UsageError};

/// The loop as a callback sees it, with the connection that the callback is about.
///
/// # Order
///
/// Each connection gets what is sent to it and what is published to its topics in the order of
/// the calls. Bytes leave at the end of the callback's turn at the latest, those of one turn
/// together.
///
/// # Backpressure
///
/// What a peer does not take waits in its outbox. Above `outbox_soft` bytes, sends answer
/// [`Sent::Backpressure`], nothing more is read from that peer, and
/// [`Handler::drain`](crate::Handler::drain) tells when it is over; above `outbox_hard` the
/// connection is closed with 1013.
#[derive(Debug)]
pub struct Context<'a, S> {
    pub(crate) core: &'a mut Core<S>,
    pub(crate) key: Option<usize>,
}

impl<'a, S> Context<'a, S> {
    pub(crate) fn new(core: &'a mut Core<S>, key: Option<usize>) -> Self {
        Self { core, key }
    }

    /// The id of this connection. In a timer and in a closure of another thread there is none: the
    /// id is one that no connection has.
    pub fn id(&self) -> ConnectionId {
        self.key
            .map_or(ConnectionId::NONE, |key| self.core.peers[key].id(key))
    }

    /// The state of this connection.
    ///
    /// # Panics
    ///
    /// Where there is no open connection: in a timer, a closure of another thread, in
    /// `upgrade` and `request`.
    pub fn state(&mut self) -> &mut S {
        self.key
            .and_then(|key| self.core.peers[key].state.as_mut())
            .expect("the callback is about an open connection")
    }

    /// The state of another connection, if it is open.
    pub fn state_of(&mut self, id: ConnectionId) -> Option<&mut S> {
        let key = self.core.key(id)?;
        self.core.peers[key].state.as_mut()
    }

    /// Sends a message on this connection.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Sent {
        match self.key {
            Some(key) => self.core.send(key, message.into()),
            None => self.stale(),
        }
    }

    /// Sends a message on another connection.
    pub fn send_to<'m>(&mut self, id: ConnectionId, message: impl Into<Message<'m>>) -> Sent {
        match self.core.key(id) {
            Some(key) => self.core.send(key, message.into()),
            None => self.stale(),
        }
    }

    fn stale(&mut self) -> Sent {
        self.core.stats.stale += 1;
        self.core.stats.dropped_closed += 1;
        Sent::Dropped
    }

    /// Closes this connection: what was sent before arrives first, then a Close frame with this
    /// code and reason (cut to 123 bytes).
    ///
    /// # Errors
    ///
    /// The connection is not open, or the code must not be sent.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), UsageError> {
        self.close_connection(self.id(), code, reason)
    }

    /// Closes another connection.
    ///
    /// # Errors
    ///
    /// The connection is not open, or the code must not be sent.
    pub fn close_connection(
        &mut self,
        id: ConnectionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), UsageError> {
        let key = self.core.key(id).ok_or(UsageError::NotOpen)?;
        self.core
            .close(key, CloseFrame::new(code, reason), Cause::Application)
    }

    /// Publishes a message to a topic: everyone who is subscribed at this moment gets it, this
    /// connection included. Answers how many they are.
    pub fn publish<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) -> usize {
        self.core.publish(topic, message.into(), None)
    }

    /// Publishes a message to everyone who is subscribed but this connection.
    pub fn publish_to_others<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) -> usize {
        self.core.publish(topic, message.into(), self.key)
    }

    /// Subscribes this connection to a topic; answers whether it was not before.
    ///
    /// # Errors
    ///
    /// The name is empty, longer than 255 bytes or holds a control character; there are too many topics, on this
    /// connection or in all; or there is no open connection.
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        self.subscribe_connection(self.id(), topic)
    }

    /// Subscribes another connection to a topic.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe).
    pub fn subscribe_connection(
        &mut self,
        id: ConnectionId,
        topic: &str,
    ) -> Result<bool, SubscribeError> {
        let key = self
            .core
            .key(id)
            .filter(|&key| self.core.peers[key].protocol.is_open());
        Ok(self
            .core
            .subscribe(key.ok_or(SubscribeError::NotOpen)?, topic)?)
    }

    /// Ends the subscription of this connection to a topic; answers whether there was one. Closing
    /// a connection, from whichever side, ends all of its subscriptions.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        self.unsubscribe_connection(self.id(), topic)
    }

    /// Ends the subscription of another connection to a topic.
    pub fn unsubscribe_connection(&mut self, id: ConnectionId, topic: &str) -> bool {
        let Some(key) = self.core.key(id) else {
            return false;
        };
        self.core.unsubscribe(key, topic)
    }

    /// How many connections are subscribed to a topic.
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.core
            .topics
            .id(topic)
            .map_or(0, |topic| self.core.topics.subscribers(topic).len())
    }

    /// How many topics have a subscriber.
    pub fn topic_count(&self) -> usize {
        self.core.topics.len()
    }

    /// How many connections there are, those that are still in their handshake included.
    pub fn connection_count(&self) -> usize {
        self.core.peers.len()
    }

    /// The ids of all open connections.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        let open = self
            .core
            .peers
            .iter()
            .filter(|(_, peer)| peer.state.is_some());
        open.map(|(key, peer)| peer.id(key))
    }

    /// How many bytes wait until the peer of this connection takes them.
    pub fn queued(&self) -> usize {
        self.key.map_or(0, |key| self.core.peers[key].queued())
    }

    /// How many bytes wait until the peer of another connection takes them; 0 if it has ended.
    pub fn queued_of(&self, id: ConnectionId) -> usize {
        self.core
            .key(id)
            .map_or(0, |key| self.core.peers[key].queued())
    }

    /// The address of the peer of this connection; `None` for a unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.core.peers[self.key?].transport.peer_addr()
    }

    /// Calls [`Handler::timer`](crate::Handler::timer) with this token once, `after` from now.
    pub fn set_timer(&mut self, after: Duration, token: u64) {
        self.core
            .timers
            .set(timer::after(self.core.now, after), token);
    }

    /// The time of this turn of the loop.
    pub fn now(&self) -> Instant {
        self.core.now
    }

    /// The counters of the loop.
    pub fn stats(&self) -> &Stats {
        &self.core.stats
    }

    /// Shuts the server down: nothing more is accepted, every connection is closed with 1001
    /// behind what was sent to it, and [`Server::run`](crate::Server::run) returns when all have
    /// ended or the drain time is over.
    pub fn shut_down(&mut self) {
        self.core.is_shutting_down = true;
    }
}
