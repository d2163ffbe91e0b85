//! How a handler acts on its connection, on others, on topics and on the loop.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::config::TopicOptions;
use super::core::Core;
use super::handler::{ConnectionId, Sent, SubscribeError};
use super::peer::Stage;
use super::presence::{Member, SubscribeOptions};
use super::publication::{Form, KeptPublication, Output, PublishError, PublishOptions, Published};
use super::stats::{Cause, Stats};
use super::timer;
use super::waker::Waker;
use crate::protocol::{CloseCode, CloseFrame, Message, State, UsageError};
use crate::topic::{HistoryError, Position, Query, Since};

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

/// A part of the history of a topic.
#[derive(Clone, Debug)]
pub struct History {
    /// Where the topic is now.
    pub position: Position,
    /// What was asked for.
    pub publications: Vec<KeptPublication>,
}

/// What a subscriber that comes back has missed.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Where the topic is now.
    pub position: Position,
    /// All that was missed; `None` if that is not known any more.
    pub publications: Option<Vec<KeptPublication>>,
}

/// What there is on a server at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gauges {
    /// Connections, those that are still in their handshake included.
    pub connections: usize,
    /// WebSocket connections that are open.
    pub open: usize,
    /// Responses without end.
    pub streams: usize,
    /// Topics that have a subscriber.
    pub topics: usize,
    /// Patterns that have a subscriber.
    pub patterns: usize,
    /// Subscriptions to both.
    pub subscriptions: usize,
    /// Bytes that wait for all peers, as if each had its own.
    pub queued: usize,
    /// Memory of what has come and is incomplete.
    pub input_memory: usize,
    /// Memory of topics, subscriptions and presences, about.
    pub topic_memory: usize,
    /// Memory of what waits: shared bytes count once.
    pub output_memory: usize,
    /// Topics of which a history is kept.
    pub histories: usize,
    /// Publications in all histories.
    pub kept_publications: usize,
    /// Memory of all histories.
    pub history_memory: usize,
    /// Publications that went because the histories had taken all the memory they may.
    pub history_evicted: u64,
}

impl<'a, S> Context<'a, S> {
    pub(crate) fn new(core: &'a mut Core<S>, key: Option<usize>) -> Self {
        Self { core, key }
    }

    /// The id of this connection. In a timer, in `wake` and in a closure of another thread there is
    /// none: the id is one that no connection has.
    pub fn id(&self) -> ConnectionId {
        self.key
            .map_or(ConnectionId::NONE, |key| self.core.peers[key].id(key))
    }

    /// The state of this connection.
    ///
    /// # Panics
    ///
    /// Where there is no open connection: in a timer, a closure of another thread, in `wake`,
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
        self.publish_with(topic, message, &PublishOptions::new())
            .map_or(0, |published| published.subscribers)
    }

    /// Publishes a message to everyone who is subscribed but this connection.
    pub fn publish_to_others<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) -> usize {
        self.publish_with(topic, message, &PublishOptions::new().to_others())
            .map_or(0, |published| published.subscribers)
    }

    /// Publishes a message as the options say.
    ///
    /// A connection that publishes faster than its subscribers are served is not read from until
    /// they have been.
    ///
    /// # Errors
    ///
    /// No topic can have this name.
    pub fn publish_with<'m>(
        &mut self,
        topic: &str,
        message: impl Into<Message<'m>>,
        options: &PublishOptions,
    ) -> Result<Published, PublishError> {
        self.core.publish(topic, message.into(), self.key, options)
    }

    /// Whether a publication with this key to this topic would be a repetition, and do nothing
    /// ([`PublishOptions::idempotency_key`]).
    pub fn is_repeated(&mut self, topic: &str, key: &str) -> bool {
        let now = self.core.now;
        self.core.idempotency.get(topic, key, now).is_some()
    }

    /// Subscribes this connection to a topic, or to all topics that match a pattern; answers
    /// whether it was not before.
    ///
    /// Names have levels, with a dot in between. In a pattern the level `*` stands for any one, and
    /// `>` at its end for one or more: `news.*.chess`, `news.>`. Whoever has a topic in several
    /// ways gets each message once.
    ///
    /// # Errors
    ///
    /// The name is empty, longer than 255 bytes or holds a control character, or the pattern is of
    /// wildcards only; there are too many topics, on this connection or in all; or there is no open
    /// connection.
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        self.subscribe_connection(self.id(), topic)
    }

    /// Subscribes this connection as [`subscribe`](Self::subscribe) does; `info` is what others
    /// learn of it where a presence is kept of the topic.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe).
    pub fn subscribe_as(&mut self, topic: &str, info: &[u8]) -> Result<bool, SubscribeError> {
        self.subscribe_connection_as(self.id(), topic, info)
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
        self.subscribe_connection_as(id, topic, b"")
    }

    /// Subscribes another connection to a topic, with what others learn of it.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe).
    pub fn subscribe_connection_as(
        &mut self,
        id: ConnectionId,
        topic: &str,
        info: &[u8],
    ) -> Result<bool, SubscribeError> {
        self.subscribe_connection_with(id, topic, &SubscribeOptions::new().info(info))
    }

    /// Subscribes a connection to a topic, with options.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe).
    pub fn subscribe_connection_with(
        &mut self,
        id: ConnectionId,
        topic: &str,
        options: &SubscribeOptions<'_>,
    ) -> Result<bool, SubscribeError> {
        let key = self.core.key(id).ok_or(SubscribeError::NotOpen)?;
        self.core.subscribe(key, topic, options)
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

    /// The connections that are subscribed to a topic, in no order; those that have it by a pattern
    /// are not among them, but those of the pattern itself.
    pub fn subscribers(&self, topic: &str) -> Vec<ConnectionId> {
        let Some(topic) = self.core.topics.id(topic) else {
            return Vec::new();
        };
        let members = self.core.topics.subscribers(topic).iter();
        let keys = members.map(|&member| member as usize);
        keys.map(|key| self.core.peers[key].id(key)).collect()
    }

    /// The topics that have a subscriber, with how many they have, in no order.
    pub fn topics(&self) -> impl Iterator<Item = (&str, usize)> {
        self.core.topics.iter()
    }

    /// How many topics have a subscriber.
    pub fn topic_count(&self) -> usize {
        self.core.topics.len()
    }

    /// How many messages were published to a topic since it has had a subscriber, from 0 on again
    /// after `u32::MAX`.
    pub fn published_to(&self, topic: &str) -> u32 {
        let topic = self.core.topics.id(topic);
        topic.map_or(0, |topic| self.core.topics.published(topic))
    }

    /// The rules of a topic.
    pub fn options_of(&self, topic: &str) -> &TopicOptions {
        self.core
            .topic_options
            .get(self.core.topic_options.id_of(topic))
    }

    /// Changes the rules of a namespace, by the name or pattern with which it was inserted; the
    /// empty name is the default. Answers whether there is such a namespace.
    ///
    /// What is published from here on follows them. What waits or is kept already stays until it
    /// goes by the rules under which it came.
    pub fn set_options(&mut self, namespace: &str, options: TopicOptions) -> bool {
        self.core.set_options(namespace, options)
    }

    /// The connections that are subscribed to a topic of which a presence is kept, those that came
    /// first first.
    pub fn presence(&self, topic: &str) -> Vec<Member> {
        self.core.members(topic)
    }

    /// How many connections are present in a topic.
    pub fn presence_count(&self, topic: &str) -> usize {
        let topic = self.core.topics.id(topic);
        topic.map_or(0, |topic| self.core.presence.count(topic))
    }

    /// Reads the history of a topic.
    ///
    /// # Errors
    ///
    /// No history is kept of the topic, or the query does not fit it.
    pub fn history(&mut self, topic: &str, query: &Query<'_>) -> Result<History, HistoryError> {
        self.core.read_history(topic, query)
    }

    /// What was published since a position, for a subscriber that comes back: all of it, or none.
    /// It is none if it is more than `limit`, or if the history is not complete or another one by
    /// now.
    ///
    /// Who sends it with [`send_publication`](Self::send_publication) and subscribes in the same
    /// callback misses nothing and gets nothing twice.
    ///
    /// # Errors
    ///
    /// No history is kept of the topic.
    pub fn recover(
        &mut self,
        topic: &str,
        since: &Since<'_>,
        limit: usize,
    ) -> Result<Recovery, HistoryError> {
        self.core.recover(topic, since, limit)
    }

    /// The newest publication, for a subscriber to whom the latest one is the state and not a
    /// change of it; no publication if it has read to that already.
    ///
    /// It has if it names the epoch of the topic and the offset of the newest one; in all other
    /// cases, with no `since` as well, it gets that one, whatever it has missed in between.
    /// `publications` is `None` if the newest one is not kept any more, or there was none.
    ///
    /// # Errors
    ///
    /// No history is kept of the topic.
    pub fn newest(
        &mut self,
        topic: &str,
        since: Option<&Since<'_>>,
    ) -> Result<Recovery, HistoryError> {
        self.core.newest(topic, since)
    }

    /// Forgets the publications of a topic; epoch and offset go on.
    pub fn clear_history(&mut self, topic: &str) {
        self.core.histories.clear(topic);
    }

    /// Sends what a history has kept on this connection, in its form.
    pub fn send_publication(&mut self, topic: &str, publication: &KeptPublication) -> Sent {
        match self.key {
            Some(key) => self.send_kept(key, topic, publication),
            None => self.stale(),
        }
    }

    /// Sends what a history has kept on another connection, in its form.
    pub fn send_publication_to(
        &mut self,
        id: ConnectionId,
        topic: &str,
        publication: &KeptPublication,
    ) -> Sent {
        match self.core.key(id) {
            Some(key) => self.send_kept(key, topic, publication),
            None => self.stale(),
        }
    }

    fn send_kept(&mut self, key: usize, topic: &str, publication: &KeptPublication) -> Sent {
        let publication = publication.view(topic);
        let form = self.core.form_of(key);
        if form == Form::PLAIN {
            return self.core.send(key, publication.message);
        }
        let mut bytes = Vec::new();
        (self.core.encode)(form, &publication, &mut Output::new(&mut bytes));
        self.core.send_encoded(key, &bytes)
    }

    /// Makes a response without end of the answer to the request at hand: its body is what is
    /// written to it and published to its subscriptions, in this form. [`Handler::open`] follows
    /// when the head is written, and [`Handler::close`] when the connection has ended.
    ///
    /// Goes with [`Handler::request`] only; elsewhere, and where only the head was asked for, it does
    /// nothing.
    ///
    /// [`Handler::open`]: crate::Handler::open
    /// [`Handler::close`]: crate::Handler::close
    /// [`Handler::request`]: crate::Handler::request
    pub fn stream(&mut self, state: S, form: Form) {
        if let Some(key) = self.key
            && self.core.peers[key].protocol.state() == State::Connecting
            && self.core.peers[key].stage == Stage::Active
        {
            self.core.peers[key].state = Some(state);
            self.core.set_form(key, form);
        }
    }

    /// Whether this connection is a response without end, and no WebSocket.
    pub fn is_stream(&self) -> bool {
        self.key
            .is_some_and(|key| self.core.peers[key].stage == Stage::Streaming)
    }

    /// Writes bytes to the body of this connection's response without end.
    pub fn write(&mut self, bytes: &[u8]) -> Sent {
        self.write_to(self.id(), bytes)
    }

    /// Writes bytes to the body of another connection's response without end.
    pub fn write_to(&mut self, id: ConnectionId, bytes: &[u8]) -> Sent {
        match self.core.key(id) {
            Some(key) if self.core.peers[key].stage == Stage::Streaming => {
                self.core.send_encoded(key, bytes)
            }
            _ => self.stale(),
        }
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

    /// The network of the peer of this connection, as
    /// [`max_connections_per_ip`](crate::Limits::max_connections_per_ip) counts it: its IPv4 address,
    /// or the IPv6 network of 64 bits, by its first address. `None` for a unix socket; a peer that has
    /// reset its connection meanwhile is in the network `::`. Costs a system call, as
    /// [`peer_addr`](Self::peer_addr) does.
    pub fn peer_network(&self) -> Option<IpAddr> {
        self.core.peers[self.key?].transport.peer_network()
    }

    /// Where this connection was accepted, as an index into
    /// [`Config::listen`](crate::Config::listen); `None` where the callback is about no connection.
    pub fn endpoint(&self) -> Option<usize> {
        Some(self.core.endpoint(self.key?))
    }

    /// Calls [`Handler::timer`](crate::Handler::timer) with this token once, `after` from now.
    pub fn set_timer(&mut self, after: Duration, token: u64) {
        self.core
            .timers
            .set(timer::after(self.core.now, after), token);
    }

    /// A way to have [`Handler::wake`](crate::Handler::wake) called by other threads.
    pub fn waker(&self) -> Waker {
        self.core.waker.clone()
    }

    /// The time of this turn of the loop.
    pub fn now(&self) -> Instant {
        self.core.now
    }

    /// What there is at this moment. Goes through all connections.
    pub fn gauges(&self) -> Gauges {
        self.core.gauges()
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
