//! The event loop: the only place that knows mio, slab and sockets, and reads the clock.
//!
//! ```text
//! turn: wait ─▶ commands ─▶ accept ─▶ read ─▶ timers ─▶ topics ─▶ outboxes ─▶ sweep ─▶ reap
//! ```
//!
//! Edge-triggered: a connection is registered once, for both directions, and never again. So
//! whoever stops before the socket is empty or full puts the connection where the loop will find
//! it without an event: on `ready` (reading) or in its outbox (writing).

mod addresses;
mod config;
mod context;
mod core;
mod fanout;
mod frames;
mod handle;
mod handler;
mod histogram;
mod idempotency;
mod listener;
mod outbox;
mod peer;
mod presence;
mod publication;
mod publish;
mod read;
mod slow;
mod stats;
mod timer;
mod topics;
mod transport;
mod waker;
mod walk;

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};

pub use self::config::{Config, ConfigError, Endpoint, Limits, SlowPolicy, Timeouts, TopicOptions};
pub use self::context::{Context, Gauges, History, Recovery};
use self::core::{Codec, Core};
pub use self::handle::{BindError, Handle, HandleError};
use self::handle::{Command, Inbox};
pub use self::handler::{Accept, Closed, ConnectionId, Fault, Handler, Lost, Sent, SubscribeError};
pub use self::histogram::Histogram;
use self::listener::{Accepted, Listener};
use self::peer::{Stage, Watch};
pub use self::presence::{Member, PresenceEvent, SubscribeOptions};
pub use self::publication::{
    Form, KeptPublication, Output, Publication, PublishError, PublishOptions, Published, Tags,
};
use self::read::Reader;
pub use self::stats::{Cause, Refused, Side, Stats};
use self::timer::Tick;
use self::transport::Transport;
pub use self::waker::Waker;
use crate::protocol::http::{Response, ResponseFraming};
use crate::protocol::{CloseCode, CloseFrame, HandshakeError, Message, State};

/// Events taken from the kernel in one turn.
const EVENTS: usize = 1024;

/// Turns in a row that may put off looking at deadlines because more events are waiting.
const UNSWEPT_TURNS: u32 = 32;

/// Deliveries of one batch from which on a look for more to publish costs nothing beside them, and
/// how often that is done in a turn.
const WORTH_A_LOOK: usize = 64;
const MORE_LOOKS: usize = 4;

const WAKER: Token = Token(usize::MAX);

/// Listeners are numbered down from here; tokens of connections stay below 2^63.
const LAST_LISTENER: usize = usize::MAX - 1;

/// A WebSocket server: one event loop on one thread.
///
/// [`run`](Self::run) drives it to its end; a program with a loop of its own calls
/// [`turn`](Self::turn). The server may be moved to another thread before that; afterwards
/// [`handle`](Self::handle)s reach it from anywhere.
pub struct Server<H: Handler> {
    poll: Poll,
    events: Events,
    listeners: Vec<Listener>,
    reader: Reader,
    handler: H,
    core: Core<H::State>,
    mailbox: Inbox<H>,
    /// Spare memory of the loop: commands being carried out, keys being looked at.
    commands: Vec<Command<H>>,
    expired: Vec<usize>,
    /// The application is to be told that a waker has called.
    is_woken: bool,
    drain: Duration,
    /// Turns since deadlines were looked at last.
    unswept: u32,
    /// When a shutdown ends, whoever has not left.
    drain_until: Option<Instant>,
    is_stopped: bool,
    /// When the last turn ended.
    idle_since: Instant,
}

impl<H: Handler> Server<H> {
    /// Listens at all endpoints of the configuration.
    ///
    /// # Errors
    ///
    /// A value that cannot be used, by its key; an endpoint that cannot be listened on.
    pub fn bind(config: Config, handler: H) -> Result<Self, BindError> {
        config.check().map_err(BindError::Config)?;
        let poll = Poll::new().map_err(BindError::Poll)?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(BindError::Poll)?;
        let waker = Waker::new(waker);
        let mut listeners = Vec::new();
        for (index, endpoint) in config.listen.iter().enumerate() {
            let listener = Listener::bind(endpoint).and_then(|mut listener| {
                listener.register(poll.registry(), Token(LAST_LISTENER - index))?;
                Ok(listener)
            });
            let failed = |error| BindError::Listen(endpoint.clone(), error);
            listeners.push(listener.map_err(failed)?);
        }
        let codec = Codec {
            encode: H::encode,
            farewell: H::farewell,
            keep_alive: H::KEEP_ALIVE,
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            listeners,
            reader: Reader::new(config.limits.receive_buffer),
            handler,
            mailbox: Inbox::new(waker.clone(), config.limits.max_commands),
            commands: Vec::new(),
            expired: Vec::new(),
            is_woken: false,
            drain: config.timeouts.drain,
            core: Core::new(config, codec, waker, Instant::now()),
            unswept: 0,
            drain_until: None,
            is_stopped: false,
            idle_since: Instant::now(),
        })
    }

    /// Where the server listens, with the ports that the kernel chose.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.listeners
            .iter()
            .map(|listener| listener.endpoint.clone())
            .collect()
    }

    /// A way to act on the server from other threads.
    pub fn handle(&self) -> Handle<H> {
        self.mailbox.handle()
    }

    /// The counters of the loop.
    pub fn stats(&self) -> &Stats {
        &self.core.stats
    }

    /// The application.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Runs the loop until a shutdown has ended, and gives the application back.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait for events, which it does to no correct program.
    pub fn run(mut self) -> io::Result<H> {
        while self.turn(None)? {}
        Ok(self.handler)
    }

    /// One turn of the loop: waits at most `max_wait` for something to do, and does it. Answers
    /// whether there may be more; `false` when a shutdown has ended.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait for events.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<bool> {
        self.wait(max_wait)?; // The only clock read of a turn.
        self.carry_out_commands();
        self.accept();
        self.read();
        self.read_more()?;
        self.run_timers();
        self.tell();
        self.core.flush_topics(); // One send per subscriber for all that was published.
        self.core.flush_outboxes();
        self.core.enforce_output_cap();
        self.core.expire_histories();
        self.sweep_deadlines();
        self.shut_down_if_wanted();
        self.reap(); // Slab keys are used again from the next turn on, never within one.
        self.idle_since = Instant::now();
        let turn = self.idle_since.saturating_duration_since(self.core.now);
        self.core.stats.turn.record(turn);
        Ok(!self.end_if_over())
    }

    fn wait(&mut self, max_wait: Option<Duration>) -> io::Result<()> {
        let timeout = self.timeout(max_wait);
        match self.poll.poll(&mut self.events, timeout) {
            // A signal ended the wait: an empty turn.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        let now = Instant::now();
        self.core.now = now;
        self.core.deadlines.set_now(now);
        Ok(())
    }

    fn timeout(&self, max_wait: Option<Duration>) -> Option<Duration> {
        let is_accepting = self.listeners.iter().any(|listener| listener.is_ready);
        let is_ending = self.core.is_shutting_down && self.drain_until.is_none();
        let has_work = self.core.has_work() || !self.commands.is_empty() || self.is_woken;
        if has_work || is_accepting || is_ending || self.is_stopped {
            return Some(Duration::ZERO);
        }
        let now = self.idle_since;
        let retry = self
            .listeners
            .iter()
            .filter_map(Listener::retry_at)
            .chain(self.drain_until);
        let sleeps = [
            max_wait,
            self.core.deadlines.sleep(now),
            self.core.timers.sleep(now),
            self.core.until_expiry(),
        ];
        let until = retry.map(|at| at.saturating_duration_since(now));
        // epoll counts milliseconds, and mio rounds up to them: no turn comes too early.
        sleeps.into_iter().flatten().chain(until).min()
    }

    fn carry_out_commands(&mut self) {
        // Those that had to wait come first; then what has been said since.
        if !self.carry_out_waiting() {
            return;
        }
        // In this order: the commands that a thread gave before it called are carried out before.
        self.is_woken |= self.core.waker.take();
        self.mailbox.take(&mut self.commands);
        self.commands.reverse();
        // While a full batch waits, there is a next turn.
        if self.carry_out_waiting() && !self.core.is_overfull() {
            self.wake_application();
        }
    }

    fn wake_application(&mut self) {
        if std::mem::take(&mut self.is_woken) {
            self.handler.wake(&mut Context::new(&mut self.core, None));
            self.core.flush_full_batch();
        }
    }

    /// Carries out the commands at hand, the last one first; answers whether none is left. While
    /// a full batch waits for the walk to end, they wait as well.
    fn carry_out_waiting(&mut self) -> bool {
        while !self.core.is_overfull()
            && let Some(command) = self.commands.pop()
        {
            self.carry_out(command);
            self.core.flush_full_batch();
        }
        self.commands.is_empty()
    }

    fn carry_out(&mut self, command: Command<H>) {
        match command {
            Command::Publish {
                topic,
                kind,
                payload,
                options,
            } => {
                let message = Message::from_parts(kind, &payload);
                if self.core.publish(&topic, message, None, &options).is_err() {
                    self.core.stats.misnamed += 1;
                }
            }
            Command::Send { id, kind, payload } => {
                let message = Message::from_parts(kind, &payload);
                Context::new(&mut self.core, None).send_to(id, message);
            }
            Command::Close { id, code, reason } => {
                let mut context = Context::new(&mut self.core, None);
                if context.close_connection(id, code, &reason).is_err() {
                    self.core.stats.stale += 1;
                }
            }
            Command::Run(closure) => {
                closure(&mut self.handler, &mut Context::new(&mut self.core, None));
            }
            Command::ShutDown => self.core.is_shutting_down = true,
            Command::Stop => self.is_stopped = true,
        }
    }

    fn accept(&mut self) {
        for event in &self.events {
            let index = LAST_LISTENER.wrapping_sub(event.token().0);
            if let Some(listener) = self.listeners.get_mut(index) {
                listener.is_ready = true;
            }
        }
        let now = self.core.now;
        for index in 0..self.listeners.len() {
            self.listeners[index].wake_if(|at| at <= now);
            let mut budget = self.core.limits.accept_budget;
            while self.listeners[index].is_ready && budget > 0 {
                budget -= 1;
                let accepted = self.listeners[index].accept(now);
                self.admit(accepted, index);
            }
        }
    }

    fn admit(&mut self, accepted: Accepted, endpoint: usize) {
        match accepted {
            Accepted::Connection(transport, ip) => self.let_in(transport, ip, endpoint),
            Accepted::None => {}
            Accepted::Lost => self.core.stats.accept_lost += 1,
            Accepted::Exhausted(error) => {
                self.core.stats.accept_exhausted += 1;
                let mut context = Context::new(&mut self.core, None);
                self.handler
                    .fault(&mut context, Fault::AcceptExhausted(&error));
            }
        }
    }

    /// Registers a connection unless there are too many already, in all or from its address.
    fn let_in(&mut self, transport: Transport, ip: Option<IpAddr>, endpoint: usize) {
        let core = &mut self.core;
        if core.peers.len() >= core.limits.max_connections {
            core.stats.rejected_full += 1;
            let response = Response::new(503).text("Too many connections.\n");
            return self.turn_away(transport, &response, Fault::Full);
        }
        let counted = ip.zip(core.limits.max_connections_per_ip);
        if let Some((ip, most)) = counted
            && core.addresses.count(ip) >= most
        {
            core.stats.rejected_ip += 1;
            let response = Response::new(429).text("Too many connections from your address.\n");
            let response = response.header("Retry-After", "1");
            let response = response.expect("a name and a value of plain letters");
            return self.turn_away(transport, &response, Fault::FullForIp(ip));
        }
        self.register(transport, counted.map(|(ip, _)| ip), endpoint);
    }

    fn register(&mut self, transport: Transport, counted: Option<IpAddr>, endpoint: usize) {
        let id = self.core.insert(transport);
        let key = id.key as usize;
        if let Some(ip) = counted {
            self.core.addresses.enter(key, ip);
        }
        self.core.set_endpoint(key, endpoint);
        let transport = &mut self.core.peers[key].transport;
        if transport
            .register(self.poll.registry(), id.to_token())
            .is_err()
        {
            self.core.end(key, Cause::ConnectionLost);
        }
    }

    /// Answers a connection that is not let in, as far as the socket takes it at once.
    fn turn_away(&mut self, mut transport: Transport, response: &Response, fault: Fault<'_>) {
        let mut bytes = Vec::new();
        let framing = ResponseFraming {
            head_only: false,
            close: true,
            is_stream: false,
            date: Some(self.core.date()),
        };
        response.encode(&mut bytes, framing);
        let _ = transport.send(&bytes);
        transport.shut_down_writing();
        // Closing a socket with unread bytes sends RST, which would take the response back: most
        // often the request is there by now.
        self.reader.discard_once(&mut transport);
        self.handler
            .fault(&mut Context::new(&mut self.core, None), fault);
    }

    fn read(&mut self) {
        // Who joins the list from here on has been read already, and is read again in the next turn.
        let ready = self.core.ready.len();
        for event in &self.events {
            let is_own = event.token().0 > usize::MAX >> 1;
            if is_own {
                continue;
            }
            match self.core.key(ConnectionId::from_token(event.token())) {
                Some(key) => {
                    on_event(
                        &mut self.reader,
                        &mut self.handler,
                        &mut self.core,
                        key,
                        event,
                    );
                    read::keep_bounds(&mut self.handler, &mut self.core);
                }
                None => self.core.stats.stale += 1,
            }
        }
        for _ in 0..ready {
            let Some(id) = self.core.ready.pop_front() else {
                break;
            };
            if let Some(key) = self.core.key(id) {
                self.core.peers[key].is_ready = false;
                self.reader.read(&mut self.handler, &mut self.core, key);
                read::keep_bounds(&mut self.handler, &mut self.core);
            }
        }
    }

    /// Before a walk to many begins, who has become readable meanwhile is read as well: what they
    /// publish leaves in the same sends.
    fn read_more(&mut self) -> io::Result<()> {
        for _ in 0..MORE_LOOKS {
            if self.core.is_walking() || self.core.reached() < WORTH_A_LOOK {
                return Ok(());
            }
            match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
                result => result?,
            }
            if self.events.is_empty() {
                return Ok(());
            }
            // An edge of the waker is as good as lost if nobody looks.
            self.carry_out_commands();
            self.accept();
            self.read();
        }
        Ok(())
    }

    fn run_timers(&mut self) {
        // A timer that is set from here on waits for the next turn, even if it is due.
        for _ in 0..self.core.timers.len() {
            let Some(token) = self.core.timers.pop_due(self.core.now) else {
                break;
            };
            self.handler
                .timer(&mut Context::new(&mut self.core, None), token);
        }
    }

    /// Tells the application what the loop has found out.
    fn tell(&mut self) {
        while let Some(event) = self.core.presence_events.pop_front() {
            self.handler
                .presence(&mut Context::new(&mut self.core, None), &event);
        }
        for (id, lost) in self.core.take_lossy() {
            if let Some(key) = self.core.key(id)
                && self.core.peers[key].state.is_some()
            {
                self.handler
                    .lost(&mut Context::new(&mut self.core, Some(key)), lost);
            }
        }
        for id in std::mem::take(&mut self.core.drained) {
            if let Some(key) = self.core.key(id)
                && self.core.peers[key].state.is_some()
            {
                self.handler
                    .drain(&mut Context::new(&mut self.core, Some(key)));
            }
        }
    }

    fn sweep_deadlines(&mut self) {
        // The kernel has more events than fit in a turn: the sign of life, or the room to write,
        // for whose want a peer would be ended may be among them, above all after the process was
        // stopped for a while.
        if self.events.iter().count() == EVENTS && self.unswept < UNSWEPT_TURNS {
            self.unswept += 1;
            return;
        }
        self.unswept = 0;
        let mut expired = std::mem::take(&mut self.expired);
        self.core.deadlines.sweep(&mut expired);
        for key in expired.drain(..) {
            self.look_at(key);
        }
        self.expired = expired;
    }

    /// A deadline of this connection may be over; arms the next one.
    fn look_at(&mut self, key: usize) {
        let core = &mut self.core;
        let now = core.deadlines.now();
        let Some(peer) = core.peers.get(key) else {
            return;
        };
        let stalled = peer.work.as_ref().filter(|work| !work.outbox.is_empty());
        let stalled_due = stalled.map(|work| work.write_since.saturating_add(core.timeouts.write));
        if stalled_due.is_some_and(|due| now >= due) {
            return core.end(key, Cause::WriteTimeout);
        }
        let lagging_due = stalled
            .and_then(|work| work.outbox.oldest())
            .map(|since| since.saturating_add(core.timeouts.lag));
        if lagging_due.is_some_and(|due| now >= due) && core.is_receiving(key) {
            core.close_slow(key, 0);
            return core.flush(key);
        }
        let stalled_due = stalled_due.map(|due| due.min(lagging_due.unwrap_or(due)));
        let due = match (peer.stage, peer.protocol.state()) {
            (Stage::Gone, _) => return,
            (Stage::Streaming, _) => return self.look_at_stream(key),
            // The response to a plain request is watched by the write timeout; and while a walk is
            // awaited nobody looks whether a request is there.
            (Stage::Active, State::Connecting) if core.is_paused(key) => Tick::MAX,
            (Stage::Active, State::Connecting) => {
                peer.since.saturating_add(core.timeouts.handshake)
            }
            (Stage::Active, State::Open) => return self.look_at_open(key),
            // What still waits for the peer goes first, unless it is closed for being slow.
            (Stage::Active, State::Closing)
                if stalled.is_some() && !matches!(peer.ending, Some((_, Cause::SlowConsumer))) =>
            {
                Tick::MAX
            }
            (Stage::Lingering, _) => Tick::MAX,
            _ => peer.since.saturating_add(core.timeouts.close),
        };
        if now < due {
            return core.deadlines.arm(key, due.min(stalled_due.unwrap_or(due)));
        }
        if (peer.stage, peer.protocol.state()) == (Stage::Active, State::Connecting) {
            self.time_out_request(key);
        } else {
            core.end(key, Cause::CloseTimeout);
        }
    }

    /// The request was not complete in time. Who has sent nothing is owed no answer.
    fn time_out_request(&mut self, key: usize) {
        let peer = &self.core.peers[key];
        let has_begun = peer.work.as_ref().is_some_and(|work| work.ring.is_some());
        if peer.protocol.is_incomplete(has_begun) {
            let error = HandshakeError::TimedOut;
            read::refuse(&mut self.handler, &mut self.core, key, error);
            self.core.flush(key);
        } else {
            self.core.end(key, Cause::EndOfStream);
        }
    }

    /// A stream says that it is there, which shows whether anybody listens.
    fn look_at_stream(&mut self, key: usize) {
        let core = &mut self.core;
        let (now, idle) = (core.deadlines.now(), core.timeouts.idle_of(key));
        let peer = &mut core.peers[key];
        if now >= peer.last_seen + idle {
            peer.last_seen = now;
            if !peer.has_output() {
                let keep_alive = core.keep_alive;
                core.write(key, |_, output| output.extend_from_slice(keep_alive));
                core.flush(key);
            }
        }
        let peer = &core.peers[key];
        let mut due = peer.last_seen + idle;
        if let Some(work) = &peer.work
            && let Some(oldest) = work.outbox.oldest()
        {
            due = due
                .min(work.write_since.saturating_add(core.timeouts.write))
                .min(oldest.saturating_add(core.timeouts.lag));
        }
        core.deadlines.arm(key, due.max(now + 1));
    }

    fn look_at_open(&mut self, key: usize) {
        let core = &mut self.core;
        core.shrink_input(key);
        let (now, timeouts) = (core.deadlines.now(), core.timeouts);
        let is_paused = core.is_paused(key);
        let peer = &mut core.peers[key];
        let mut due = Tick::MAX;
        if let Some(work) = &mut peer.work {
            if work.message_since != 0 && !is_paused && !work.is_held {
                due = work.message_since + timeouts.message;
                if now >= due {
                    let code = CloseCode::POLICY_VIOLATION;
                    let frame = CloseFrame::new(code, "message took too long");
                    let _ = core.close(key, frame, Cause::MessageTimeout);
                    return core.flush(key);
                }
            }
            if !work.outbox.is_empty() {
                let oldest = work.outbox.oldest().unwrap_or(now);
                due = due
                    .min(work.write_since.saturating_add(timeouts.write))
                    .min(oldest.saturating_add(timeouts.lag));
            }
        }
        // A peer that is not read from, or that takes nothing, is watched by the write timeout.
        if peer.watch == Watch::Off {
            // The application knows what its silence means.
        } else if is_paused && !peer.has_output() {
            due = due.min(now + timeouts.idle); // It publishes much: its signs of life are not read.
        } else if !peer.has_output() {
            let idle = timeouts.idle_of(key);
            let ping_at = peer.last_seen + idle;
            let dead_at = ping_at + timeouts.pong;
            if peer.watch == Watch::Pinged && now >= dead_at {
                return core.end(key, Cause::PongTimeout);
            }
            if peer.watch == Watch::Seen && now >= ping_at {
                peer.watch = Watch::Pinged;
                // A late look, after the process was stopped for a while, must not take the peer
                // for dead before it had its time to answer.
                peer.last_seen = now.saturating_sub(idle);
                let _ = core.write(key, |protocol, output| protocol.ping(&[], output));
                core.flush(key);
                due = due.min(now + timeouts.pong.min(idle));
            } else if peer.watch == Watch::Pinged {
                // The answer may come, and the next silence end, before this one is too long.
                due = due.min(dead_at).min(now + idle);
            } else {
                due = due.min(ping_at);
            }
        }
        core.deadlines.arm(key, due.max(now + 1));
    }

    fn shut_down_if_wanted(&mut self) {
        if !self.core.is_shutting_down || self.drain_until.is_some() {
            return;
        }
        self.drain_until = Some(timer::after(self.core.now, self.drain));
        self.listeners.clear();
        let keys: Vec<usize> = self.core.peers.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.core.is_receiving(key) {
                let frame = CloseFrame::new(CloseCode::GOING_AWAY, "server shuts down");
                self.core.dismiss(key, frame, Cause::Shutdown);
                self.core.flush(key);
                continue;
            }
            let peer = &mut self.core.peers[key];
            match peer.protocol.state() {
                // Between two requests nothing is owed to anybody.
                State::Connecting if !peer.has_output() => {
                    self.core.end(key, Cause::Shutdown);
                }
                State::Connecting => {
                    peer.protocol.receive_eof();
                    self.core.linger_when_drained(key);
                }
                State::Open | State::Closing | State::Closed => {}
            }
        }
    }

    fn reap(&mut self) {
        let has_ended = !self.core.ended.is_empty();
        while let Some((key, cause)) = self.core.ended.pop() {
            if !self.core.peers[key].has_opened {
                self.core.stats.ended_without_upgrade += 1;
            }
            read::close_ended(&mut self.handler, &mut self.core, key, cause);
            self.core.remove(key);
        }
        if has_ended {
            // A descriptor is free again, for which no edge will come.
            for listener in &mut self.listeners {
                listener.wake_if(|_| true);
            }
        }
    }

    /// Whether the server has ended; nobody is left open then.
    fn end_if_over(&mut self) -> bool {
        let is_drained = self.drain_until.is_some()
            && (self.core.peers.is_empty() || self.drain_until <= Some(self.core.now));
        if !is_drained && !self.is_stopped {
            return false;
        }
        let keys: Vec<usize> = self.core.peers.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.core.end(key, Cause::Shutdown);
        }
        self.reap();
        self.mailbox.stop();
        true
    }
}

impl<H: Handler> std::fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

/// A connection can be written, read, or both. Flags beyond these two are hints: the calls tell.
fn on_event<H: Handler>(
    reader: &mut Reader,
    handler: &mut H,
    core: &mut Core<H::State>,
    key: usize,
    event: &Event,
) {
    if event.is_writable() && core.peers[key].work.is_some() {
        core.flush(key);
    }
    let is_ending = event.is_read_closed() || event.is_error();
    core.peers[key].is_ending |= is_ending;
    // Who is on the list has his turn there, and not a second one for each new edge.
    if (event.is_readable() || is_ending) && !core.peers[key].is_ready {
        reader.read(handler, core, key);
    }
}
