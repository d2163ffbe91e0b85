//! The read pass: what one readable connection has sent goes through the protocol to the handler,
//! and all that this produces leaves in one send.
//!
//! ```text
//! recv ──▶ assembly (rest of a long message) ─┐
//!     ├──▶ ring (rest of a small frame) ──────┼──▶ protocol ──▶ handler
//!     └──▶ buffer (everything else) ──────────┘        └──▶ cork ──▶ send
//! ```

use std::io::{self, IoSliceMut};
use std::mem;
use std::ops::Range;

use super::context::Context;
use super::core::Core;
use super::handler::{Accept, Closed, Fault, Handler, Lost};
use super::peer::{Stage, Watch};
use super::publication::Form;
use super::stats::Cause;
use super::transport::Transport;
use crate::mid_page;
use crate::protocol::http::{Request, Response, ResponseFraming};
use crate::protocol::{
    Assembly, CloseCode, CloseFrame, Event, HandshakeError, Message, State, UsageError,
};
use crate::ring::Ring;

/// Assemblies kept for the next long messages, so that a steady stream of them allocates nothing.
const SPARE_ASSEMBLIES: usize = 8;

/// The buffers that the connections of a loop take turns with.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: Box<[u8]>,
    /// The part of it that is used: it begins where kernels copy fast.
    used: Range<usize>,
    /// For a message that begins in a pass; it goes with the connection if it does not end there.
    assembly: Assembly,
    spares: Vec<Assembly>,
}

impl Reader {
    pub(crate) fn new(buffer: usize) -> Self {
        let storage = vec![0; buffer + mid_page::PAGE].into_boxed_slice();
        let lead = mid_page::lead(&storage);
        Self {
            used: lead..lead + buffer,
            buffer: storage,
            assembly: Assembly::new(),
            spares: Vec::new(),
        }
    }

    /// Reads a connection until it has no more or its budget is used up.
    pub(crate) fn read<H: Handler>(
        &mut self,
        handler: &mut H,
        core: &mut Core<H::State>,
        key: usize,
    ) {
        match core.peers[key].stage {
            Stage::Active => {}
            Stage::Streaming | Stage::Lingering | Stage::HalfClosed => {
                return self.discard(core, key);
            }
            Stage::Gone => return,
        }
        if core.is_swamped() {
            core.hold_unread(key);
        }
        if core.is_paused(key) {
            core.work(key).is_held = true;
            return;
        }
        let peer = &mut core.peers[key];
        let (mut ring, mut begun, mut is_held) = (None, None, false);
        if let Some(work) = &mut peer.work {
            ring = work.ring.take();
            is_held = mem::take(&mut work.is_held);
            if is_held {
                // The peer is not to blame for the time in which nothing was read.
                work.message_since = 0;
            }
            if peer.protocol.is_assembling() {
                begun = Some(mem::take(&mut work.assembly));
            }
        }
        // What the last pass left in it was delivered.
        self.assembly.clear();
        core.corked = Some(key);
        let mut pass = Pass {
            handler,
            core,
            key,
            ring,
            assembly: begun.as_mut().unwrap_or(&mut self.assembly),
            has_completed: false,
        };
        if pass.run(&mut self.buffer[self.used.clone()], is_held) == Flow::Held {
            pass.core.work(key).is_held = true;
        }
        pass.finish();
        if core.peers[key].protocol.is_assembling() {
            let assembly = begun.unwrap_or_else(|| self.lend());
            if assembly.is_oversized() {
                // Right for a message that goes on at once; the next look takes back the rest.
                core.deadlines.arm(key, core.deadlines.after(1));
            }
            core.work(key).assembly = assembly;
        } else if let Some(assembly) = begun {
            self.keep(assembly);
        } else if self.assembly.capacity() > Assembly::KEPT {
            self.assembly = Assembly::new();
        }
        let peer = &core.peers[key];
        if peer.work.is_some() || peer.protocol.body_memory() > 0 {
            core.weigh_input(key);
            core.release_idle_work(key);
        }
    }

    /// Gives the assembly at hand away and takes another one.
    fn lend(&mut self) -> Assembly {
        mem::replace(&mut self.assembly, self.spares.pop().unwrap_or_default())
    }

    /// Reads and throws away what there is, once.
    pub(crate) fn discard_once(&mut self, transport: &mut Transport) {
        let _ = transport.receive(&mut self.buffer[self.used.clone()]);
    }

    /// Reads and throws away what a peer still sends after the end, until its FIN.
    fn discard<S>(&mut self, core: &mut Core<S>, key: usize) {
        let mut budget = core.limits.read_budget;
        loop {
            match core.peers[key]
                .transport
                .receive(&mut self.buffer[self.used.clone()])
            {
                Ok(0) => {
                    core.peers[key].is_eof = true;
                    if core.peers[key].stage == Stage::Streaming {
                        return core.end(key, Cause::EndOfStream);
                    }
                    return core.linger_when_drained(key);
                }
                Ok(count) => {
                    core.stats.bytes_in += count as u64;
                    budget = budget.saturating_sub(count);
                    if budget == 0 {
                        return core.read_later(key);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return core.end(key, Cause::ConnectionLost),
            }
        }
    }

    fn keep(&mut self, mut assembly: Assembly) {
        if self.spares.len() < SPARE_ASSEMBLIES && assembly.capacity() <= Assembly::KEPT {
            assembly.clear();
            self.spares.push(assembly);
        }
    }
}

/// Whether a pass may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    /// Backpressure holds the input up.
    Held,
    /// The connection is over.
    Over,
}

/// One connection being read.
struct Pass<'p, H: Handler> {
    handler: &'p mut H,
    core: &'p mut Core<H::State>,
    key: usize,
    /// What was not consumed before: the beginning of something.
    ring: Option<Ring>,
    /// The message that is being put together.
    assembly: &'p mut Assembly,
    /// Something was completed: what is incomplete at the end has begun in this pass.
    has_completed: bool,
}

impl<H: Handler> Pass<'_, H> {
    fn run(&mut self, buffer: &mut [u8], is_held: bool) -> Flow {
        if is_held {
            match self.feed_ring(&mut []) {
                Flow::Continue => {}
                flow => return flow,
            }
        }
        let mut budget = self.core.limits.read_budget;
        loop {
            let (count, capacity, direct) = match self.receive(buffer, budget) {
                Ok((0, ..)) => return self.end_of_stream(),
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flow::Continue,
                Err(_) => {
                    self.core.end(self.key, Cause::ConnectionLost);
                    return Flow::Over;
                }
            };
            self.core.stats.bytes_in += count as u64;
            let behind = count.saturating_sub(direct);
            match self.feed(&mut buffer[..behind], count - behind) {
                Flow::Continue => {}
                flow => return flow,
            }
            // A read that did not fill its buffers has emptied the socket; bytes that come later
            // are a new edge. Not so the end of the stream that was announced with this edge.
            if count < capacity && !self.core.peers[self.key].is_ending {
                return Flow::Continue;
            }
            budget = budget.saturating_sub(count);
            if budget == 0 {
                self.core.read_later(self.key);
                return Flow::Continue;
            }
        }
    }

    /// Reads once: first into the place of what is incomplete, then into the buffer. Answers how
    /// much was read, how much could have been, and how much of that was in the first place.
    fn receive(&mut self, buffer: &mut [u8], budget: usize) -> io::Result<(usize, usize, usize)> {
        let peer = &mut self.core.peers[self.key];
        let first = if let Some(ring) = &mut self.ring {
            let len = ring.len();
            let missing = peer
                .protocol
                .missing(ring.contiguous(len))
                .unwrap_or(usize::MAX);
            if ring.spare_len() == 0 {
                let full = self.ring.take().expect("it was just looked at");
                self.ring.insert(self.core.rings.grow(full)).writable().0
            } else {
                let spare = ring.writable().0;
                let len = spare.len().min(missing);
                &mut spare[..len]
            }
        } else if let Some(spare) = peer.protocol.direct(self.assembly) {
            let len = spare.len().min(budget);
            &mut spare[..len]
        } else {
            let capacity = buffer.len();
            return Ok((peer.transport.receive(buffer)?, capacity, 0));
        };
        let direct = first.len();
        let capacity = direct + buffer.len();
        let mut slices = [IoSliceMut::new(first), IoSliceMut::new(buffer)];
        Ok((
            peer.transport.receive_vectored(&mut slices)?,
            capacity,
            direct,
        ))
    }

    /// Takes in `direct` bytes that were read into the ring or the assembly and then `input`.
    fn feed(&mut self, input: &mut [u8], direct: usize) -> Flow {
        if let Some(ring) = &mut self.ring {
            ring.advance(direct);
            return self.feed_ring(input);
        }
        if direct > 0 {
            let peer = &mut self.core.peers[self.key];
            let reply = self.core.cork.len();
            let event = peer
                .protocol
                .receive_direct(direct, self.assembly, &mut self.core.cork);
            if let Some(event) = event {
                self.has_completed = true;
                dispatch(self.handler, self.core, self.key, event, reply);
                match flow(self.core, self.key) {
                    Flow::Continue => {}
                    Flow::Over => return Flow::Over,
                    Flow::Held => {
                        self.keep_for_later(input);
                        return Flow::Held;
                    }
                }
            }
        }
        self.feed_slice(input)
    }

    /// Feeds what is in the ring, and moves to it from `input` what completes it.
    fn feed_ring(&mut self, mut input: &mut [u8]) -> Flow {
        while let Some(mut ring) = self.ring.take() {
            let len = ring.len();
            let (consumed, flow) = self.feed_once(ring.contiguous(len));
            ring.consume(consumed);
            if flow != Flow::Continue {
                self.keep_ring(ring);
                self.keep_for_later(input);
                return flow;
            }
            if ring.is_empty() {
                self.core.rings.put(ring);
                break;
            }
            if input.is_empty() {
                self.ring = Some(ring);
                return Flow::Continue;
            }
            let len = ring.len();
            let protocol = &self.core.peers[self.key].protocol;
            let missing = protocol.missing(ring.contiguous(len)).unwrap_or(usize::MAX);
            if ring.spare_len() == 0 {
                ring = self.core.rings.grow(ring);
            }
            let moved = ring.extend_from_slice(&input[..missing.min(input.len())]);
            input = &mut input[moved..];
            self.ring = Some(ring);
        }
        self.feed_slice(input)
    }

    /// Feeds bytes of the buffer; the beginning of something at their end goes to a ring.
    fn feed_slice(&mut self, input: &mut [u8]) -> Flow {
        let (consumed, flow) = self.feed_once(input);
        if consumed < input.len() {
            self.keep_for_later(&input[consumed..]);
        }
        flow
    }

    /// Feeds bytes until no event comes of them any more; answers how many were consumed.
    fn feed_once(&mut self, input: &mut [u8]) -> (usize, Flow) {
        let (handler, core, key) = (&mut *self.handler, &mut *self.core, self.key);
        let mut start = 0;
        while start < input.len() {
            let rest = &mut input[start..];
            let protocol = &mut core.peers[key].protocol;
            if let Some((kind, range)) = protocol.receive_short(rest) {
                start += range.end;
                core.stats.messages_in += 1;
                let message = Message::from_parts(kind, &rest[range]);
                handler.message(&mut Context::new(core, Some(key)), message);
                self.has_completed = true;
            } else {
                let reply = core.cork.len();
                let (consumed, event) = protocol.receive(rest, self.assembly, &mut core.cork);
                start += consumed;
                let Some(event) = event else {
                    return (start, Flow::Continue);
                };
                dispatch(handler, core, key, event, reply);
                // A control frame between fragments completes nothing: the message goes on.
                self.has_completed |= !core.peers[key].protocol.is_assembling();
            }
            match flow(core, key) {
                Flow::Continue => {}
                flow => return (start, flow),
            }
        }
        (start, Flow::Continue)
    }

    fn keep_for_later(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let mut ring = match self.ring.take() {
            Some(ring) => ring,
            None => self.core.rings.take_with_capacity(rest.len()),
        };
        while ring.spare_len() < rest.len() {
            ring = self.core.rings.grow(ring);
        }
        ring.extend_from_slice(rest);
        self.ring = Some(ring);
    }

    fn keep_ring(&mut self, ring: Ring) {
        if ring.is_empty() {
            self.core.rings.put(ring);
        } else {
            self.ring = Some(ring);
        }
    }

    fn end_of_stream(&mut self) -> Flow {
        let core = &mut *self.core;
        let peer = &mut core.peers[self.key];
        if let State::Open | State::Closing = peer.protocol.state() {
            // Neither a message nor a Close frame can come any more.
            let end = (CloseCode::ABNORMAL_CLOSURE, Cause::EndOfStream);
            peer.ending.get_or_insert(end);
            core.settle_before(self.key, core.cork.len());
        }
        // FIN ends one direction only: the peer may still read what was sent to it.
        let peer = &mut core.peers[self.key];
        peer.protocol.receive_eof();
        peer.is_eof = true;
        Flow::Over
    }

    /// Writes what the pass produced and puts back what it borrowed.
    fn finish(self) {
        let Self {
            core, key, ring, ..
        } = self;
        core.flush_cork(key);
        core.corked = None;
        let now = core.deadlines.now();
        let peer = &mut core.peers[key];
        peer.last_seen = now;
        if peer.watch == Watch::Pinged {
            peer.watch = Watch::Seen;
        }
        if ring.is_none() && peer.work.is_none() && peer.protocol.is_idle() {
            return; // The common case: nothing is left over.
        }
        if peer.protocol.is_open() && peer.protocol.is_incomplete(ring.is_some()) {
            let work = core.work(key);
            if work.message_since == 0 || self.has_completed {
                work.message_since = now;
                let due = core.deadlines.after(core.timeouts.message);
                core.deadlines.arm(key, due);
            }
        } else if let Some(work) = &mut peer.work {
            work.message_since = 0;
        }
        match ring {
            // Nobody will look at what came behind the request of a stream.
            Some(ring) if core.peers[key].stage == Stage::Streaming => core.rings.put(ring),
            Some(_) => core.work(key).ring = ring,
            None => {}
        }
        core.linger_when_drained(key);
    }
}

/// Whether the connection can go on after an event.
#[inline]
fn flow<S>(core: &mut Core<S>, key: usize) -> Flow {
    core.flush_full_cork(key);
    let peer = &core.peers[key];
    if let Stage::Gone | Stage::Streaming = peer.stage {
        Flow::Over
    } else if peer.work.is_some() && core.is_paused(key) {
        Flow::Held
    } else {
        Flow::Continue
    }
}

/// `reply` is where in the cork the answer begins that the protocol gave by itself.
#[inline(never)]
fn dispatch<H: Handler>(
    handler: &mut H,
    core: &mut Core<H::State>,
    key: usize,
    event: Event<'_>,
    reply: usize,
) {
    if let Event::Close(_) | Event::Failed(_) = event {
        core.settle_before(key, reply);
    }
    match event {
        Event::Message(message) => {
            core.stats.messages_in += 1;
            handler.message(&mut Context::new(core, Some(key)), message);
        }
        Event::Ping(payload) => core.pong(key, payload),
        // Any sign of life counts as such; only a client waits to be accepted.
        Event::Pong(_) | Event::Accepted(_) => {}
        Event::Request(request) => answer(handler, core, key, &request),
        Event::Close(frame) => receive_close(handler, core, key, frame),
        Event::Failed(error) => {
            let failed = (error.close_code(), Cause::Protocol(error));
            let (code, cause) = core.peers[key].ending.unwrap_or(failed);
            let reason = "";
            let closed = Closed {
                code,
                reason,
                cause,
            };
            close(handler, core, key, closed);
        }
        Event::Refused(error) => refuse(handler, core, key, error),
    }
}

fn receive_close<H: Handler>(
    handler: &mut H,
    core: &mut Core<H::State>,
    key: usize,
    frame: CloseFrame<'_>,
) {
    let (code, cause) = core.peers[key].ending.unwrap_or((frame.code, Cause::Peer));
    close(
        handler,
        core,
        key,
        Closed {
            code,
            reason: frame.reason,
            cause,
        },
    );
}

/// Tells the application that an open connection has ended.
pub(crate) fn close<H: Handler>(
    handler: &mut H,
    core: &mut Core<H::State>,
    key: usize,
    closed: Closed<'_>,
) {
    if core.peers[key].state.is_none() {
        return;
    }
    core.stats.count_close(closed.cause, closed.code);
    if let Some(work) = &mut core.peers[key].work {
        let lost = mem::take(&mut work.lost);
        if lost != Lost::default() {
            handler.lost(&mut Context::new(core, Some(key)), lost);
        }
    }
    handler.close(&mut Context::new(core, Some(key)), closed);
    core.peers[key].state = None;
}

/// Tells the application how a connection that is about to be freed has ended.
pub(crate) fn close_ended<H: Handler>(
    handler: &mut H,
    core: &mut Core<H::State>,
    key: usize,
    cause: Cause,
) {
    let peer = &mut core.peers[key];
    peer.protocol.receive_eof();
    let (code, cause) = match (peer.ending, cause) {
        (None, _) => (CloseCode::ABNORMAL_CLOSURE, cause),
        // The application knows that it has closed, and not that there was no answer.
        (Some((code, Cause::Application)), Cause::CloseTimeout) => (code, cause),
        (Some(ending), _) => ending,
    };
    close(
        handler,
        core,
        key,
        Closed {
            code,
            reason: "",
            cause,
        },
    );
}

/// Refuses a request that is wrong or late.
pub(crate) fn refuse<H: Handler>(
    handler: &mut H,
    core: &mut Core<H::State>,
    key: usize,
    error: HandshakeError,
) {
    core.stats.refused.count(error);
    let date = core.date().to_owned();
    core.write(key, |protocol, output| {
        protocol.refuse(error, Some(&date), output);
    });
    handler.fault(&mut Context::new(core, Some(key)), Fault::Refused(error));
}

/// Keeps within bounds what one connection after the other has sent in this turn.
#[inline]
pub(crate) fn keep_bounds<H: Handler>(handler: &mut H, core: &mut Core<H::State>) {
    core.flush_full_batch();
    if core.is_input_full() {
        shed_input(handler, core);
    }
}

/// Turns out those connections that hold most of what is incomplete, until enough memory is free
/// again. The last one is let be: one message always fits, whatever its size.
#[cold]
fn shed_input<H: Handler>(handler: &mut H, core: &mut Core<H::State>) {
    let mut holders = core.input_holders();
    while core.has_much_input()
        && holders.len() > 1
        && let Some((_, key)) = holders.pop()
    {
        core.stats.evicted_input += 1;
        turn_out(handler, core, key);
    }
}

/// Ends a connection because of what it holds, which is forgotten at once.
fn turn_out<H: Handler>(handler: &mut H, core: &mut Core<H::State>, key: usize) {
    match core.peers[key].protocol.state() {
        State::Connecting => refuse(handler, core, key, HandshakeError::Overloaded),
        State::Open => {
            let frame = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "server is overloaded");
            core.dismiss(key, frame, Cause::InputCap);
            // What is behind the half message could not be understood.
            core.peers[key].protocol.receive_eof();
        }
        // It was told already, and has gone on.
        State::Closing | State::Closed => core.end(key, Cause::InputCap),
    }
    core.forget_input(key);
    core.flush(key);
    // There may be bytes of which the edge has come.
    core.read_later(key);
}

fn answer<H: Handler>(
    handler: &mut H,
    core: &mut Core<H::State>,
    key: usize,
    request: &Request<'_>,
) {
    if request.is_upgrade() {
        return upgrade(handler, core, key, request);
    }
    let response = handler.request(&mut Context::new(core, Some(key)), request);
    core.stats.requests += 1;
    if core.peers[key].state.is_some() && !request.is_head() {
        stream(core, key, &response);
        return handler.open(&mut Context::new(core, Some(key)));
    }
    // RFC 9110 §9.3.2: a response to HEAD has no body, and so no stream.
    core.peers[key].state = None;
    core.set_form(key, Form::PLAIN);
    respond(core, key, request, &response);
}

/// Answers a request with a response without end: the connection is a subscriber from here on.
fn stream<S>(core: &mut Core<S>, key: usize, response: &Response) {
    let date = core.date().to_owned();
    let framing = ResponseFraming {
        head_only: false,
        close: true,
        is_stream: true,
        date: Some(&date),
    };
    core.write(key, |_, output| response.encode(output, framing));
    core.peers[key].stage = Stage::Streaming;
    core.stats.streams += 1;
    begin(core, key);
    // What has come behind the request, FIN perhaps, gets no edge of its own.
    core.read_later(key);
}

/// The connection is open: from here on it must show signs of life.
fn begin<S>(core: &mut Core<S>, key: usize) {
    core.peers[key].has_opened = true;
    let due = core.deadlines.after(core.timeouts.idle_of(key));
    core.deadlines.disarm(key);
    core.deadlines.arm(key, due);
}

fn upgrade<H: Handler>(
    handler: &mut H,
    core: &mut Core<H::State>,
    key: usize,
    request: &Request<'_>,
) {
    let accepted = handler.upgrade(&mut Context::new(core, Some(key)), request);
    match accepted {
        Ok(accept) => {
            if let Err(error) = open(core, key, request, accept) {
                let fault = Fault::BadAcceptance(error);
                handler.fault(&mut Context::new(core, Some(key)), fault);
                return respond(core, key, request, &Response::new(500));
            }
            handler.open(&mut Context::new(core, Some(key)));
        }
        Err(response) => {
            core.stats.refused_by_application += 1;
            // It is no stream either, whatever the callback said.
            core.peers[key].state = None;
            core.set_form(key, Form::PLAIN);
            respond(core, key, request, &response);
        }
    }
}

fn open<S>(
    core: &mut Core<S>,
    key: usize,
    request: &Request<'_>,
    accept: Accept<S>,
) -> Result<(), UsageError> {
    let Accept {
        state,
        form,
        has_own_pings,
        acceptance,
    } = accept;
    core.write(key, |protocol, output| {
        protocol.accept(request, &acceptance, output)
    })?;
    core.stats.opened += 1;
    core.peers[key].state = Some(state);
    if has_own_pings {
        core.peers[key].watch = Watch::Off;
    }
    core.set_form(key, form);
    begin(core, key);
    Ok(())
}

fn respond<S>(core: &mut Core<S>, key: usize, request: &Request<'_>, response: &Response) {
    let date = core.date().to_owned();
    // The request is the one that was just handed out: nothing can be wrong.
    let _ = core.write(key, |protocol, output| {
        protocol.respond(request, response, Some(&date), output)
    });
    core.begin_stage(key, core.timeouts.handshake);
}
