//! Everything of a loop but the application: connections and what can be done to them.
//!
//! No callback runs in here, so nothing here can be entered twice. What ends a connection is noted
//! in `ended`, and the loop tells the application when it reaps.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use slab::Slab;

use super::addresses::Addresses;
use super::config::{Config, Limits, Timeouts, TopicOptions};
use super::context::Gauges;
use super::frames::Gauge;
use super::handler::{ConnectionId, Lost, Sent};
use super::idempotency::Idempotency;
use super::peer::{Peer, Stage, Work};
use super::presence::PresenceEvent;
use super::publication::{Form, Meta, Output};
use super::publish::{Batch, Encode, Farewell};
use super::stats::{Cause, Stats};
use super::timer::{Deadlines, Tick, Timers};
use super::transport::Transport;
use super::waker::Waker;
use super::walk::Walk;
use crate::protocol::{
    Assembly, CloseCode, CloseFrame, Connection, FrameHeader, Message, Settings, State, UsageError,
    write_unmasked_frame,
};
use crate::ring::{Ring, RingPool};
use crate::topic::{Histories, Namespaces, Presence, TopicId, TopicTable};

/// From this size on a payload is written from where it is instead of being copied into the cork.
/// Below, a copy costs no more than the second slice of a vectored send, and what is corked leaves
/// in one send with its neighbours (docs/BENCHMARKS.md).
const UNCOPIED: usize = 64 << 10;

/// The cork is written out when it holds this much, so that it stays in the cache.
const CORK: usize = 128 << 10;

/// The idle rings keep as much memory as this many of the smallest, and none larger than what one
/// read can leave unconsumed: beginnings of frames and heads are small, but backpressure may hold
/// up all of a buffer.
const RINGS: usize = 256;
const LARGEST_RING: usize = 128 << 10;

/// Spare `Work`s: enough for the connections of a busy turn.
const SPARE_WORKS: usize = 64;

/// How many of them may keep the memory of what they had queued.
const WARM_WORKS: usize = 4;

/// The slab entries of connections and all that they share.
#[derive(Debug)]
pub(crate) struct Core<S> {
    pub(crate) peers: Slab<Peer<S>>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: TimeoutTicks,
    pub(crate) topics: TopicTable,
    pub(crate) stats: Stats,
    pub(crate) deadlines: Deadlines,
    pub(crate) timers: Timers,
    pub(crate) rings: RingPool,
    /// The time of this turn.
    pub(crate) now: Instant,
    /// Output of the connection whose input is being read: it leaves in one send.
    pub(crate) cork: Vec<u8>,
    /// The key of that connection.
    pub(crate) corked: Option<usize>,
    /// Connections to be read without an event: budget used up, or backpressure over.
    pub(crate) ready: VecDeque<ConnectionId>,
    /// Connections whose outbox got something in this turn.
    dirty: Vec<ConnectionId>,
    /// Connections whose `drain` is owed.
    pub(crate) drained: Vec<ConnectionId>,
    /// Connections that are over, to be reaped at the end of the turn.
    pub(crate) ended: Vec<(usize, Cause)>,
    pub(crate) is_shutting_down: bool,
    /// What was published since the last walk began.
    pub(super) batch: Batch,
    /// What is on its way to the subscribers.
    pub(super) walk: Walk,
    /// The rules of topics.
    pub(super) topic_options: Namespaces<TopicOptions>,
    /// Some namespace keeps a history.
    pub(super) keeps_history: bool,
    pub(super) histories: Histories<Meta>,
    pub(super) presence: Presence<Box<[u8]>>,
    /// Who came and went, to be told.
    pub(crate) presence_events: VecDeque<PresenceEvent>,
    pub(super) idempotency: Idempotency,
    /// Connections that lost messages and have room to hear of it.
    pub(crate) lossy: Vec<ConnectionId>,
    /// Topics of few subscribers that were published to while a walk was under way.
    pub(super) express: Vec<TopicId>,
    /// Publishers that wait until a walk is over.
    pub(super) throttled: Vec<ConnectionId>,
    /// Those who wait as well, and have not been read: they go first.
    pub(super) unread: Vec<ConnectionId>,
    /// By key, the listener that accepted the connection: a byte here is eight in the slab entry.
    endpoints: Vec<u8>,
    /// Where connections come from, if `max_connections_per_ip` limits that.
    pub(crate) addresses: Addresses,
    /// How publications are written, by key as far as anybody has a form of the application's, and
    /// how many have one.
    pub(super) forms: Vec<Form>,
    pub(super) formed: usize,
    pub(super) encode: Encode,
    farewell: Farewell,
    /// By key as far as anybody has pinged: how many Pings came in a second, and in which, by its
    /// lowest bits.
    pings: Vec<(u16, u16)>,
    pub(super) lanes: RandomState,
    /// Spare memory of publishing.
    pub(super) targets: Vec<TopicId>,
    /// What the connections keep of what is incomplete.
    pub(super) input_memory: usize,
    /// What is told of those who are present, and what it takes to find it.
    pub(super) presence_memory: usize,
    /// Own bytes in all outboxes, and shared ones that wait in any.
    pub(super) own_queued: usize,
    pub(super) lent: Gauge,
    /// Namespaces whose messages get too old, and when.
    ages: Vec<(u16, Tick)>,
    pub(super) idempotency_window: Duration,
    /// What is written to a stream that has been silent.
    pub(crate) keep_alive: &'static [u8],
    pub(super) waker: Waker,
    /// When the server started, in milliseconds of Unix time.
    pub(super) started: (u64, Instant),
    #[expect(
        clippy::vec_box,
        reason = "the boxes move between here and the slab entries"
    )]
    spare_works: Vec<Box<Work>>,
    generation: u32,
    date: (u64, String),
}

/// How an application writes what is published, and what the server says by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec {
    pub(crate) encode: Encode,
    pub(crate) farewell: Farewell,
    pub(crate) keep_alive: &'static [u8],
}

/// Now, in milliseconds of Unix time.
fn unix_millis() -> u64 {
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    age.map_or(0, |age| age.as_millis() as u64)
}

/// The timeouts in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeoutTicks {
    pub(crate) handshake: Tick,
    pub(crate) message: Tick,
    pub(crate) idle: Tick,
    pub(crate) pong: Tick,
    pub(crate) close: Tick,
    pub(crate) write: Tick,
    pub(crate) lag: Tick,
}

impl TimeoutTicks {
    fn new(timeouts: &Timeouts, deadlines: &Deadlines) -> Self {
        Self {
            handshake: deadlines.ticks(timeouts.handshake),
            message: deadlines.ticks(timeouts.message),
            idle: deadlines.ticks(timeouts.idle),
            pong: deadlines.ticks(timeouts.pong),
            close: deadlines.ticks(timeouts.close),
            write: deadlines.ticks(timeouts.write),
            lag: deadlines.ticks(timeouts.lag),
        }
    }

    /// After how long a connection that has output waiting is looked at.
    fn stalled(&self) -> Tick {
        self.write.min(self.lag)
    }

    /// The idle timeout of this connection: up to an eighth shorter, so that the Pings to
    /// connections that came together do not stay together.
    pub(crate) fn idle_of(&self, key: usize) -> Tick {
        // Fibonacci hashing: neighbouring keys are far from each other.
        let spread = (key as u32).wrapping_mul(0x9E37_79B9);
        let jitter = (u64::from(self.idle / 8) * u64::from(spread)) >> 32;
        self.idle - jitter as Tick
    }
}

impl<S> Core<S> {
    pub(crate) fn new(config: Config, codec: Codec, waker: Waker, now: Instant) -> Self {
        let Config {
            protocol: settings,
            limits,
            timeouts,
            topics: topic_options,
            ..
        } = config;
        let timeouts = &timeouts;
        let deadlines = Deadlines::new(now, timeouts.tick());
        let mut topics = TopicTable::new(limits.max_topics);
        topics.set_max_per_member(limits.max_topics_per_connection);
        topics.set_max_patterns(limits.max_patterns);
        let history_cap = limits.max_history;
        let mut core = Self {
            peers: Slab::new(),
            settings: Arc::new(settings),
            timeouts: TimeoutTicks::new(timeouts, &deadlines),
            topics,
            limits,
            stats: Stats::default(),
            deadlines,
            timers: Timers::default(),
            rings: RingPool::with_largest(RINGS, LARGEST_RING),
            now,
            cork: Vec::new(),
            corked: None,
            ready: VecDeque::new(),
            dirty: Vec::new(),
            drained: Vec::new(),
            ended: Vec::new(),
            is_shutting_down: false,
            batch: Batch::default(),
            walk: Walk::default(),
            keeps_history: false,
            topic_options,
            histories: Histories::new(RandomState::new().hash_one(0_u64), history_cap)
                .weighing(Meta::weight),
            presence: Presence::default(),
            presence_events: VecDeque::new(),
            idempotency: Idempotency::default(),
            lossy: Vec::new(),
            express: Vec::new(),
            throttled: Vec::new(),
            unread: Vec::new(),
            endpoints: Vec::new(),
            addresses: Addresses::default(),
            forms: Vec::new(),
            formed: 0,
            encode: codec.encode,
            farewell: codec.farewell,
            pings: Vec::new(),
            lanes: RandomState::new(),
            targets: Vec::new(),
            input_memory: 0,
            presence_memory: 0,
            own_queued: 0,
            lent: Gauge::default(),
            ages: Vec::new(),
            idempotency_window: timeouts.idempotency,
            keep_alive: codec.keep_alive,
            waker,
            started: (unix_millis(), now),
            spare_works: Vec::new(),
            generation: 0,
            date: (0, String::new()),
        };
        core.note_options();
        core
    }

    /// Takes note of what the rules of all topics have in common.
    pub(super) fn note_options(&mut self) {
        let aged = self.topic_options.iter().filter_map(|(id, options)| {
            let age = options.age()?;
            Some((id.number(), self.deadlines.ticks(age)))
        });
        self.ages = aged.collect();
        let mut all = self.topic_options.iter();
        self.keeps_history = all.any(|(_, options)| options.keeps_history());
    }

    // ---- connections ----

    /// The slab key of a connection that is still there.
    #[inline]
    pub(crate) fn key(&self, id: ConnectionId) -> Option<usize> {
        let key = id.key as usize;
        let peer = self.peers.get(key)?;
        (peer.generation == id.generation && peer.stage != Stage::Gone).then_some(key)
    }

    pub(crate) fn insert(&mut self, transport: Transport) -> ConnectionId {
        // Generations wrap after 2^32 connections; an id that old is nowhere any more.
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        let protocol = Connection::server(Arc::clone(&self.settings));
        let now = self.deadlines.now();
        let key = self
            .peers
            .insert(Peer::new(transport, protocol, self.generation, now));
        if let Some(pings) = self.pings.get_mut(key) {
            *pings = (0, 0);
        }
        let due = self.deadlines.after(self.timeouts.handshake);
        self.deadlines.arm(key, due);
        self.stats.accepted += 1;
        self.peers[key].id(key)
    }

    /// Notes the number of the listener that accepted a connection.
    pub(crate) fn set_endpoint(&mut self, key: usize, endpoint: usize) {
        if self.endpoints.len() <= key {
            self.endpoints.resize(key + 1, 0);
        }
        self.endpoints[key] = endpoint as u8; // `Config::check` allows no more.
    }

    /// The number of the listener that accepted a connection.
    pub(crate) fn endpoint(&self, key: usize) -> usize {
        usize::from(self.endpoints[key])
    }

    /// The connection is over; the loop reaps it at the end of the turn.
    pub(crate) fn end(&mut self, key: usize, cause: Cause) {
        let peer = &mut self.peers[key];
        if peer.stage != Stage::Gone {
            peer.stage = Stage::Gone;
            peer.protocol.receive_eof(); // Nothing is sent to it any more.
            self.ended.push((key, cause));
            self.leave_all(key);
        }
    }

    /// Frees the slab entry, and with it the socket.
    pub(crate) fn remove(&mut self, key: usize) {
        // Whatever was done to it since it ended, the next connection with its key begins anew.
        self.leave_all(key);
        self.deadlines.disarm(key);
        self.addresses.leave(key);
        self.set_form(key, Form::PLAIN);
        let mut peer = self.peers.remove(key);
        if let Some(work) = peer.work.take() {
            self.stats.bytes_unsent += work.outbox.queued() as u64;
            self.recycle(work);
        }
    }

    pub(crate) fn date(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |age| age.as_secs());
        if self.date.0 != second {
            self.date = (second, httpdate::fmt_http_date(now));
        }
        &self.date.1
    }

    // ---- output ----

    /// Lets `write` append output of a connection: to the cork while its input is being read, to
    /// its outbox otherwise and where that must stay in front.
    pub(crate) fn write<T>(
        &mut self,
        key: usize,
        write: impl FnOnce(&mut Connection, &mut Vec<u8>) -> T,
    ) -> T {
        let peer = &mut self.peers[key];
        if self.corked == Some(key) && !peer.has_output() {
            return write(&mut peer.protocol, &mut self.cork);
        }
        let work = peer
            .work
            .get_or_insert_with(|| self.spare_works.pop().unwrap_or_default());
        let now = self.deadlines.now();
        if work.outbox.is_empty() {
            work.write_since = now;
        }
        let before = work.outbox.own();
        let answer = work
            .outbox
            .with_tail(now, |tail| write(&mut peer.protocol, tail));
        self.own_queued = self.own_queued + work.outbox.own() - before;
        if !peer.is_dirty {
            peer.is_dirty = true;
            self.dirty.push(peer.id(key));
        }
        answer
    }

    #[inline]
    pub(crate) fn send(&mut self, key: usize, message: Message<'_>) -> Sent {
        let peer = &self.peers[key];
        // The common case: a short reply to the connection that is being read.
        if self.corked == Some(key)
            && message.payload().len() < UNCOPIED
            && self.cork.len() < CORK
            && peer.protocol.is_open()
            && !peer.has_output()
            && !self.is_publishing()
        {
            write_unmasked_frame(message.kind().into(), message.payload(), &mut self.cork);
            return Sent::Sent;
        }
        self.send_slowly(key, message)
    }

    #[inline(never)]
    fn send_slowly(&mut self, key: usize, message: Message<'_>) -> Sent {
        if self.corked == Some(key) {
            self.flush_full_cork(key);
        }
        self.settle(key);
        // What was published so far may have been too much for it.
        let peer = &self.peers[key];
        if !peer.protocol.is_open() || peer.stage == Stage::Gone {
            self.stats.dropped_closed += 1;
            return Sent::Dropped;
        }
        let is_corked = self.corked == Some(key) && !self.peers[key].has_output();
        if is_corked && message.payload().len() >= UNCOPIED {
            self.send_uncopied(key, message);
        } else if is_corked || self.admit(key, 1) {
            // The connection is open: nothing else can be wrong.
            let _ = self.write(key, |protocol, output| protocol.send(message, output));
        } else {
            return Sent::Dropped;
        }
        self.pressure(key)
    }

    /// `Backpressure` when more than `outbox_soft` waits and the socket does not take it.
    pub(super) fn pressure(&mut self, key: usize) -> Sent {
        let soft = self.limits.outbox_soft;
        // A burst within one callback has not been offered to the socket yet.
        if let Some(work) = &self.peers[key].work
            && work.outbox.queued() > soft
            && !work.outbox.is_stalled()
        {
            self.flush(key);
        }
        match &mut self.peers[key].work {
            Some(work) if work.outbox.queued() > soft => {
                work.is_pressed = true;
                Sent::Backpressure
            }
            _ => Sent::Sent,
        }
    }

    /// Writes the cork and a large message without copying its payload.
    fn send_uncopied(&mut self, key: usize, message: Message<'_>) {
        let payload = message.payload();
        let opcode = message.kind().into();
        let (header, len) = FrameHeader::unmasked(opcode, payload.len() as u64).to_bytes();
        let slices = [
            IoSlice::new(&self.cork),
            IoSlice::new(&header[..len]),
            IoSlice::new(payload),
        ];
        let slices = if self.cork.is_empty() {
            &slices[1..]
        } else {
            &slices
        };
        let taken = match self.peers[key].transport.send_vectored(slices) {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.cork.clear();
                return self.end(key, Cause::ConnectionLost);
            }
        };
        self.stats.bytes_out += taken as u64;
        let mut skip = taken;
        let cork = mem::take(&mut self.cork);
        for part in [&cork[..], &header[..len], payload] {
            let start = skip.min(part.len());
            skip -= start;
            self.queue(key, &part[start..]);
        }
        self.cork = cork;
        self.cork.clear();
    }

    /// Appends to the outbox what the kernel did not take: an edge will tell when it does.
    pub(super) fn queue(&mut self, key: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let now = self.deadlines.now();
            self.stalled_work(key).outbox.push(bytes, now);
            self.own_queued += bytes.len();
        }
    }

    /// The `Work` of a connection whose socket is full.
    pub(super) fn stalled_work(&mut self, key: usize) -> &mut Work {
        let now = self.deadlines.now();
        let peer = &mut self.peers[key];
        let work = peer
            .work
            .get_or_insert_with(|| self.spare_works.pop().unwrap_or_default());
        if work.outbox.is_empty() {
            work.write_since = now;
            work.outbox.set_stalled();
            let due = self.deadlines.after(self.timeouts.stalled());
            self.deadlines.arm(key, due);
        }
        work
    }

    /// Writes out the cork when it is full.
    #[inline]
    pub(crate) fn flush_full_cork(&mut self, key: usize) {
        if self.cork.len() >= CORK {
            self.flush_cork(key);
        }
    }

    /// Writes out what one read pass produced, in one send.
    pub(crate) fn flush_cork(&mut self, key: usize) {
        if self.cork.is_empty() {
            return;
        }
        let peer = &self.peers[key];
        let taken = if peer.stage == Stage::Gone {
            self.stats.bytes_unsent += self.cork.len() as u64;
            self.cork.len()
        } else if peer.has_output() {
            0 // What waits goes first.
        } else {
            match peer.transport.send(&self.cork) {
                Ok(taken) => {
                    self.stats.bytes_out += taken as u64;
                    taken
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => {
                    self.stats.bytes_unsent += self.cork.len() as u64;
                    self.end(key, Cause::ConnectionLost);
                    self.cork.len()
                }
            }
        };
        let mut cork = mem::take(&mut self.cork);
        self.queue(key, &cork[taken..]);
        cork.clear();
        if cork.capacity() > 2 * CORK {
            cork.shrink_to(CORK); // One large burst must not keep its memory.
        }
        self.cork = cork;
    }

    /// Writes what waits for a connection; then the Pong that was held back, then FIN if it is
    /// time.
    pub(crate) fn flush(&mut self, key: usize) {
        let peer = &mut self.peers[key];
        if let Some(work) = &mut peer.work
            && !work.outbox.is_empty()
        {
            let before = work.outbox.own();
            for &(namespace, age) in &self.ages {
                let stale = self.deadlines.now().saturating_sub(age);
                let expired = work.outbox.expire(namespace, stale).messages;
                work.lost.expired += expired;
                self.stats.lost.expired += expired;
            }
            let flushed = work.outbox.flush(&peer.transport);
            self.own_queued = self.own_queued + work.outbox.own() - before;
            match flushed {
                Ok(0) => {}
                Ok(taken) => {
                    self.stats.bytes_out += taken as u64;
                    work.write_since = self.deadlines.now();
                }
                Err(_) => return self.end(key, Cause::ConnectionLost),
            }
            if !work.outbox.is_empty() {
                let due = work.write_since.saturating_add(self.timeouts.stalled());
                self.deadlines.arm(key, due);
            } else if peer.stage == Stage::Active {
                // Only now the peer can come to our Close frame, or to its next request.
                match peer.protocol.state() {
                    State::Closing => self.begin_stage(key, self.timeouts.close),
                    State::Connecting => self.begin_stage(key, self.timeouts.handshake),
                    State::Open | State::Closed => {}
                }
            }
        }
        self.after_flush(key);
    }

    fn after_flush(&mut self, key: usize) {
        let soft = self.limits.outbox_soft;
        let peer = &mut self.peers[key];
        let id = peer.id(key);
        if let Some(work) = &mut peer.work {
            let is_low = work.outbox.queued() <= soft;
            let resumes = is_low && work.is_held;
            if is_low && work.lost != Lost::default() {
                self.lossy.push(id);
            }
            if is_low && mem::take(&mut work.is_pressed) {
                self.drained.push(id);
            }
            if work.outbox.is_empty()
                && let Some(payload) = work.outbox.pending_pong.take()
            {
                let _ = self.write(key, |protocol, tail| protocol.pong(&payload, tail));
            }
            if resumes {
                self.read_later(key);
            }
        }
        self.linger_when_drained(key);
        self.release_idle_work(key);
    }

    /// Sends FIN behind the last byte of a connection that has nothing more to say.
    pub(crate) fn linger_when_drained(&mut self, key: usize) {
        if self.corked == Some(key) {
            return; // The last bytes may be in the cork; the end of the pass comes back here.
        }
        let peer = &mut self.peers[key];
        if peer.stage == Stage::Active && peer.protocol.state() == State::Closed {
            peer.stage = Stage::Lingering;
        }
        if peer.stage == Stage::HalfClosed && peer.is_eof {
            return self.end(key, Cause::EndOfStream);
        }
        if peer.stage == Stage::Lingering && !peer.has_output() {
            if peer.is_eof {
                return self.end(key, Cause::EndOfStream);
            }
            peer.transport.shut_down_writing();
            peer.stage = Stage::HalfClosed;
            self.begin_stage(key, self.timeouts.close);
        }
    }

    /// The connection is in a new stage, which ends in so many ticks at the latest.
    pub(crate) fn begin_stage(&mut self, key: usize, timeout: Tick) {
        self.peers[key].since = self.deadlines.now();
        let due = self.deadlines.after(timeout);
        self.deadlines.arm(key, due);
    }

    /// An idle connection owns no buffer.
    pub(crate) fn release_idle_work(&mut self, key: usize) {
        let peer = &mut self.peers[key];
        if peer.work.as_ref().is_some_and(|work| work.is_idle())
            && let Some(work) = peer.work.take()
        {
            self.recycle(work);
        }
    }

    /// Forgets what waits for a connection that is about to end.
    pub(super) fn forget_output(&mut self, key: usize) {
        if let Some(work) = &mut self.peers[key].work {
            self.own_queued -= work.outbox.own();
            work.outbox.clear();
        }
    }

    fn recycle(&mut self, mut work: Box<Work>) {
        self.own_queued -= work.outbox.own();
        self.input_memory -= mem::take(&mut work.input);
        if let Some(ring) = work.ring.take() {
            self.rings.put(ring);
        }
        if self.spare_works.len() >= SPARE_WORKS {
            return;
        }
        work.outbox.clear();
        if self.spare_works.len() >= WARM_WORKS {
            work.outbox.shrink();
        }
        work.assembly.clear();
        if work.assembly.capacity() > 0 {
            work.assembly = Assembly::new();
        }
        (work.is_pressed, work.is_held, work.is_throttled) = (false, false, false);
        (work.message_since, work.write_since) = (0, 0);
        work.lost = Lost::default();
        self.spare_works.push(work);
    }

    /// Counts anew what a connection keeps of what is incomplete.
    pub(crate) fn weigh_input(&mut self, key: usize) {
        let peer = &self.peers[key];
        let body = peer.protocol.body_memory();
        if peer.work.is_none() && body == 0 {
            return;
        }
        let work = self.work(key);
        let ring = work.ring.as_ref().map_or(0, Ring::capacity);
        let input = ring + work.assembly.capacity() + body;
        let before = mem::replace(&mut work.input, input);
        self.input_memory = self.input_memory + input - before;
    }

    /// Takes back what a message does not need that has not gone on at once.
    pub(crate) fn shrink_input(&mut self, key: usize) {
        if let Some(work) = &mut self.peers[key].work {
            work.assembly.shrink();
            self.weigh_input(key);
        }
    }

    /// Forgets what is incomplete of a connection from which nothing more is read.
    pub(crate) fn forget_input(&mut self, key: usize) {
        if let Some(work) = &mut self.peers[key].work {
            work.ring = None;
            work.assembly = Assembly::new();
        }
        self.weigh_input(key);
    }

    /// The `Work` of a connection, made if there is none.
    pub(crate) fn work(&mut self, key: usize) -> &mut Work {
        let spare = &mut self.spare_works;
        self.peers[key]
            .work
            .get_or_insert_with(|| spare.pop().unwrap_or_default())
    }

    /// Reads the connection in the next turn, whether there is an event or not.
    pub(crate) fn read_later(&mut self, key: usize) {
        let peer = &mut self.peers[key];
        if !peer.is_ready {
            peer.is_ready = true;
            let id = peer.id(key);
            self.ready.push_back(id);
        }
    }

    /// Whether reading waits until the peer has taken more of what was written: with more than
    /// `outbox_soft` queued, or an HTTP response that is not out (one request in flight).
    #[inline]
    pub(crate) fn is_paused(&self, key: usize) -> bool {
        let peer = &self.peers[key];
        let Some(work) = &peer.work else { return false };
        match peer.protocol.state() {
            State::Open => work.is_throttled || work.outbox.queued() > self.limits.outbox_soft,
            State::Connecting => work.is_throttled || !work.outbox.is_empty(),
            // Nothing that is read produces output any more.
            State::Closing | State::Closed => false,
        }
    }

    /// Answers a Ping at once, or the latest one later if the peer does not take what waits.
    pub(crate) fn pong(&mut self, key: usize, payload: &[u8]) {
        let peer = &mut self.peers[key];
        if let Some(work) = &mut peer.work
            && !work.outbox.is_empty()
        {
            if work.outbox.pending_pong.replace(payload.into()).is_some() {
                self.stats.pongs_coalesced += 1;
            }
            return;
        }
        if self.is_ping_flood(key) {
            let frame = CloseFrame::new(CloseCode::POLICY_VIOLATION, "too many pings");
            let _ = self.close(key, frame, Cause::PingFlood);
            return;
        }
        let _ = self.write(key, |protocol, output| protocol.pong(payload, output));
    }

    /// Counts a Ping; whether it is one too many in its second.
    fn is_ping_flood(&mut self, key: usize) -> bool {
        let second = self.deadlines.now() / self.deadlines.ticks(Duration::from_secs(1));
        if self.pings.len() <= key {
            self.pings.resize(key + 1, (0, 0));
        }
        let (count, since) = &mut self.pings[key];
        if *since != second as u16 {
            (*count, *since) = (0, second as u16);
        }
        *count = count.saturating_add(1);
        u32::from(*count) > self.limits.max_pings
    }

    /// Ends a response without end, behind everything that was written so far.
    fn close_stream(&mut self, key: usize, code: CloseCode, cause: Cause) {
        self.leave_all(key);
        let peer = &mut self.peers[key];
        peer.ending = Some((code, cause));
        peer.stage = Stage::Lingering;
        match cause {
            // Who does not read would not come to the end.
            Cause::SlowConsumer => self.end(key, cause),
            _ => self.linger_when_drained(key),
        }
    }

    /// Writes bytes that are encoded already, behind everything that was sent and published.
    pub(crate) fn send_encoded(&mut self, key: usize, bytes: &[u8]) -> Sent {
        if self.corked == Some(key) {
            self.flush_full_cork(key);
        }
        self.settle(key);
        if !self.is_receiving(key) {
            self.stats.dropped_closed += 1;
            return Sent::Dropped;
        }
        let is_corked = self.corked == Some(key) && !self.peers[key].has_output();
        if !is_corked && !self.admit(key, 1) {
            return Sent::Dropped;
        }
        self.write(key, |_, output| output.extend_from_slice(bytes));
        self.pressure(key)
    }

    /// Starts the closing handshake, behind everything that was sent and published so far. Nothing
    /// may follow: the subscriptions end here.
    pub(crate) fn close(
        &mut self,
        key: usize,
        frame: CloseFrame<'_>,
        cause: Cause,
    ) -> Result<(), UsageError> {
        self.settle(key);
        if self.peers[key].stage == Stage::Streaming {
            self.close_stream(key, frame.code, cause);
            return Ok(());
        }
        self.write(key, |protocol, output| protocol.close(frame, output))?;
        self.leave_all(key);
        let peer = &mut self.peers[key];
        peer.ending = Some((frame.code, cause));
        self.begin_stage(key, self.timeouts.close);
        // Backpressure no longer holds up reading: what is held may contain the peer's Close.
        if self.peers[key]
            .work
            .as_ref()
            .is_some_and(|work| work.is_held)
        {
            self.read_later(key);
        }
        Ok(())
    }

    /// Ends a connection by the server's own decision: with the application's last words for its
    /// form, and its code and reason, or else the usual frame.
    pub(crate) fn dismiss(&mut self, key: usize, usual: CloseFrame<'static>, cause: Cause) {
        self.settle(key);
        if !self.is_receiving(key) {
            return; // What was published so far was too much for it.
        }
        let mut last_words = Vec::new();
        let farewell = (self.farewell)(self.form_of(key), cause, &mut Output::new(&mut last_words));
        let frame = match farewell {
            Some((code, reason)) if code.is_allowed_on_wire() => CloseFrame::new(code, reason),
            _ => usual,
        };
        if !last_words.is_empty() {
            self.write(key, |_, output| output.extend_from_slice(&last_words));
        }
        // The connection is open and the code may be sent: nothing can be wrong.
        let _ = self.close(key, frame, cause);
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            connections: self.peers.len(),
            topics: self.topics.len(),
            patterns: self.topics.pattern_count(),
            subscriptions: self.topics.subscription_count(),
            input_memory: self.input_memory,
            topic_memory: self.topic_memory(),
            output_memory: self.output_memory(),
            histories: self.histories.len(),
            kept_publications: self.histories.publications(),
            history_memory: self.histories.bytes(),
            history_evicted: self.histories.evicted(),
            ..Gauges::default()
        };
        for (_, peer) in &self.peers {
            gauges.queued += peer.queued();
            // Who has gone without a word is counted with the connections until he is reaped.
            let is_open = peer.stage == Stage::Active && peer.protocol.is_open();
            gauges.open += usize::from(is_open);
            gauges.streams += usize::from(peer.stage == Stage::Streaming);
        }
        gauges
    }

    // ---- the turn ----

    /// Writes to every connection whose outbox got something in this turn.
    pub(crate) fn flush_outboxes(&mut self) {
        let mut dirty = mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some(key) = self.key(id) {
                self.peers[key].is_dirty = false;
                self.flush(key);
            }
        }
        // Pongs that were held back may have made some dirty again: the next turn writes them.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Whether the loop has something to do without any event.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || self.is_publishing()
            || !self.dirty.is_empty()
            || !self.drained.is_empty()
            || !self.lossy.is_empty()
            || !self.presence_events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Acceptance, Event};
    use crate::server::config::SlowPolicy;
    use crate::server::presence::SubscribeOptions;
    use crate::server::publication::PublishOptions;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn core() -> Core<()> {
        let codec = Codec {
            encode: |_, _, _| (),
            farewell: |_, _, _| None,
            keep_alive: b"",
        };
        Core::new(Config::default(), codec, Waker::unheard(), Instant::now())
    }

    /// An open connection on one end of a socket pair; nobody reads at the other end.
    fn open(core: &mut Core<()>) -> (usize, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let transport = Transport::Unix(mio::net::UnixStream::from_std(ours));
        let key = core.insert(transport).key as usize;
        let mut request = *b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n";
        let (mut assembly, mut output) = (Assembly::new(), Vec::new());
        let protocol = &mut core.peers[key].protocol;
        let (_, event) = protocol.receive(&mut request, &mut assembly, &mut output);
        let Some(Event::Request(request)) = event else {
            panic!("a request")
        };
        let protocol = &mut core.peers[key].protocol;
        protocol
            .accept(&request, &Acceptance::new(), &mut output)
            .unwrap();
        (key, theirs)
    }

    fn publish(core: &mut Core<()>, topic: &str, payload: &[u8]) {
        let options = PublishOptions::new();
        core.publish(topic, Message::binary(payload), None, &options)
            .unwrap();
    }

    #[test]
    fn what_waits_for_many_slow_subscribers_is_in_memory_once() {
        const LEN: usize = 16 << 20;
        let mut core = core();
        let peers: Vec<_> = (0..10).map(|_| open(&mut core)).collect();
        for &(key, _) in &peers {
            core.subscribe(key, "news", &SubscribeOptions::new())
                .unwrap();
            core.subscribe(key, ["left", "right"][key % 2], &SubscribeOptions::new())
                .unwrap();
        }
        let payload = vec![0; LEN];
        publish(&mut core, "left", &payload);
        publish(&mut core, "news", &payload);
        publish(&mut core, "right", &payload);
        while core.is_publishing() {
            core.flush_topics();
        }
        let queued: usize = peers.iter().map(|&(key, _)| core.peers[key].queued()).sum();
        assert!(queued > 9 * 2 * LEN, "{queued}");
        let outbox = |key: usize| &core.peers[key].work.as_ref().unwrap().outbox;
        for &(key, _) in &peers {
            assert_eq!(outbox(key).own(), 0);
            assert!(outbox(key).shares_with(outbox(key % 2)));
        }
    }

    #[test]
    fn the_time_to_answer_a_close_frame_begins_when_it_is_out() {
        let mut core = core();
        let (key, mut peer) = open(&mut core);
        core.send(key, Message::binary(&vec![0; 1 << 20]));
        core.close(
            key,
            CloseFrame::new(CloseCode::NORMAL, ""),
            Cause::Application,
        )
        .unwrap();
        core.flush_outboxes();
        let later = core.now + Duration::from_mins(1);
        core.deadlines.set_now(later);
        while core.peers[key].has_output() {
            let mut part = vec![0; 64 << 10];
            peer.read_exact(&mut part).unwrap();
            core.flush(key);
        }
        assert_eq!(core.peers[key].since, core.deadlines.now());
    }

    /// A core in which only little of `news` may wait for anybody, and `noise` is dropped.
    fn core_with_policies() -> Core<()> {
        let mut config = Config::default();
        config.limits.walk_sends = 1;
        let news = TopicOptions {
            max_queued: Some(4096),
            ..TopicOptions::default()
        };
        let noise = TopicOptions {
            slow: SlowPolicy::DropNewest,
            ..news.clone()
        };
        config.topics.insert("news", news).unwrap();
        config.topics.insert("noise", noise).unwrap();
        let codec = Codec {
            encode: |_, _, _| (),
            farewell: |_, _, _| None,
            keep_alive: b"",
        };
        Core::new(config, codec, Waker::unheard(), Instant::now())
    }

    #[test]
    fn what_was_not_offered_to_the_socket_yet_makes_nobody_slow() {
        let mut core = core_with_policies();
        let (key, mut peer) = open(&mut core);
        core.subscribe(key, "noise:1", &SubscribeOptions::new())
            .unwrap();
        core.send(key, Message::text("direct"));
        publish(&mut core, "noise:1", &[7; 5000]);
        core.send(key, Message::text("in between"));
        publish(&mut core, "noise:1", &[8; 5000]);
        core.flush_topics();
        core.flush_outboxes();
        assert_eq!(core.stats.lost.total(), 0);
        let mut bytes = vec![0; 8 + 5004 + 12 + 5004];
        peer.read_exact(&mut bytes).unwrap();
        assert!(bytes.ends_with(&[8; 5000]));
    }

    #[test]
    fn who_is_closed_for_being_slow_gets_nothing_behind_the_gap() {
        let mut core = core_with_policies();
        let (key, mut peer) = open(&mut core);
        let (other, _other) = open(&mut core);
        for key in [key, other] {
            core.subscribe(key, "news:1", &SubscribeOptions::new())
                .unwrap();
            core.subscribe(key, "noise:1", &SubscribeOptions::new())
                .unwrap();
        }
        while core.peers[key].queued() == 0 {
            core.send(key, Message::binary(&[0; 3000]));
            core.flush(key);
        }
        publish(&mut core, "noise:1", b"noise");
        publish(&mut core, "news:1", &[1; 5000]);
        publish(&mut core, "news:1", &[2; 5000]);
        core.flush_topics();
        assert!(core.walk.owes(key as u32), "the other one is served first");
        publish(&mut core, "news:1", b"later");
        core.flush_topics();
        assert_eq!(core.stats.dropped_slow, 2);
        let mut bytes = Vec::new();
        while core.peers[key].has_output() {
            let mut part = vec![0; 64 << 10];
            let count = peer.read(&mut part).unwrap();
            bytes.extend_from_slice(&part[..count]);
            core.flush(key);
        }
        peer.set_nonblocking(true).unwrap();
        let _ = peer.read_to_end(&mut bytes);
        assert!(bytes.ends_with(b"too slow"));
        assert!(!bytes.windows(5).any(|bytes| bytes == b"later"));
    }

    #[test]
    fn who_turns_out_to_be_too_slow_is_neither_subscribed_nor_sent_to() {
        let mut core = core_with_policies();
        for act in [0, 1] {
            let (key, _peer) = open(&mut core);
            core.subscribe(key, "news:1", &SubscribeOptions::new())
                .unwrap();
            core.subscribe(key, "noise:1", &SubscribeOptions::new())
                .unwrap();
            while core.peers[key].queued() == 0 {
                core.send(key, Message::binary(&[0; 3000]));
                core.flush(key);
            }
            publish(&mut core, "noise:1", b"noise");
            publish(&mut core, "news:1", &[1; 5000]);
            publish(&mut core, "news:1", &[2; 5000]);
            if act == 0 {
                assert!(
                    core.subscribe(key, "news:2", &SubscribeOptions::new())
                        .is_err()
                );
            } else {
                let sent = core.send(key, Message::binary(&vec![0; 70_000]));
                assert_eq!(sent, Sent::Dropped);
            }
            assert_eq!(core.topics.subscription_count(), 0);
            core.flush_topics();
        }
    }

    #[test]
    fn what_is_encoded_already_waits_up_to_the_limit_while_its_connection_is_read_as_well() {
        let mut core = core();
        let (key, _peer) = open(&mut core);
        core.corked = Some(key);
        let mut sent = 0;
        while core.send_encoded(key, &[0; 10_000]) != Sent::Dropped {
            sent += 10_000;
            assert!(sent < 4 * core.limits.outbox_hard);
        }
        assert!(core.peers[key].queued() > core.limits.outbox_hard);
    }
}
