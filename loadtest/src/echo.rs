//! Echo load: every connection keeps a number of messages in flight, in one thread.
//!
//! Made to cost less than any server it drives: frames are masked before the clock runs, replies are counted
//! by bytes and mostly not even copied out of the kernel, one receive and one send per readiness. Latencies
//! are those of a closed loop: they say how long a full server takes, not how long users of a server wait.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read as _};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net::RecvFlags;
use serde::Serialize;

use crate::client::{self, Target};
use crate::cpu::{Cost, Reading};
use crate::failure::{Error, Failure, Failures};
use crate::frame::{self, Opcode};
use crate::outgoing::Outgoing;
use crate::payload::Kind;
use crate::process;
use crate::units::{ByteSize, Rate, float};

/// What load to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub target: Target,
    /// The server's process, for its CPU time.
    pub server_pid: Option<u32>,
    /// How many connections.
    pub connections: usize,
    /// Payload bytes of each message.
    pub size: usize,
    /// Messages that each connection keeps unanswered.
    pub in_flight: usize,
    /// What the messages are made of.
    pub kind: Kind,
    /// How closely replies are looked at.
    pub check: Check,
    /// Load before anything is counted.
    pub warmup: Duration,
    /// How long to count.
    pub duration: Duration,
}

/// How closely replies are looked at. Their number and length always count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The length in sampled headers: for programs that answer without reading.
    Length,
    /// The first reply of each connection, and all bytes of every thousandth receive.
    Sample,
    /// Every byte.
    Every,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    connections: usize,
    size: usize,
    in_flight: usize,
    kind: Kind,
    /// Messages sent and answered while counting.
    pub messages: u64,
    /// The same each second.
    pub messages_per_second: f64,
    /// Round trips of a closed loop.
    pub round_trip_us: RoundTrip,
    /// Receives for each time the load generator went to sleep. Near 1 it waits for the server; near the
    /// number of connections the server waits for it, however busy the server looks.
    pub receives_per_turn: f64,
    /// Server CPU for each message, and our own.
    pub cost: Cost,
    /// Everything that went wrong, warm-up included.
    pub failures: Failures,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct RoundTrip {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

const RECEIVE_BUFFER: usize = 1 << 20;
/// Frames kept ready for each connection, where a message is not larger: repeated if more are in flight.
const MAX_READY_FRAMES: usize = 4 << 20;
/// Replies kept for comparison are repeated up to this, so that one comparison covers many short ones.
const COMPARED_AT_ONCE: usize = 4096;
const SAMPLE_EVERY: u64 = 1000;
/// How long the last messages may take to be answered when nothing else is answered meanwhile.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Round trips are recorded to three digits, from 0.1 µs up to here.
const LONGEST_ROUND_TRIP: Duration = Duration::from_mins(1);

/// Runs the load.
///
/// # Errors
///
/// If there is no server, or a connection cannot even be opened.
pub fn run(options: &Options) -> Result<Report, Error> {
    process::raise_descriptor_limit();
    client::require_server(&options.target)?;
    let mut load = Load::open(options)?;
    let mut events = Events::with_capacity(1024);

    load.ask_everyone();
    load.run_for(options.warmup, &mut events)?;
    load.start_counting();
    let before = Reading::take(options.server_pid)?;
    load.run_for(options.duration, &mut events)?;
    let after = Reading::take(options.server_pid)?;
    let (messages, round_trips) = load.stop_counting();
    let receives_per_turn = float(load.receives) / float(load.turns.max(1));
    load.await_last_answers(&mut events)?;

    let cost = after.cost_since(&before, messages, "message");
    Ok(Report {
        connections: options.connections,
        size: options.size,
        in_flight: options.in_flight,
        kind: options.kind,
        messages,
        messages_per_second: float(messages) / cost.seconds,
        round_trip_us: RoundTrip::of(&round_trips),
        receives_per_turn,
        cost,
        failures: load.failures,
    })
}

struct Load {
    poll: Poll,
    /// A connection that failed leaves its place empty.
    connections: Vec<Option<Box<Connection>>>,
    buffer: Box<[u8]>,
    in_flight: usize,
    check: Check,
    is_asking: bool,
    receives: u64,
    turns: u64,
    answered: u64,
    round_trips: Histogram<u64>,
    failures: Failures,
}

impl Load {
    fn open(options: &Options) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::local("epoll"))?;
        let mut connections = Vec::with_capacity(options.connections);
        let mut failures = Failures::default();
        for index in 0..options.connections {
            match client::open(&options.target, client::source(index, &options.target)) {
                Ok(stream) => {
                    connections.push(Some(Box::new(Connection::register(
                        stream, index, options, &poll,
                    )?)));
                }
                Err((failure, what)) if index == 0 => {
                    return Err(Error::Server(format!("{failure}: {what}")));
                }
                Err((failure, what)) => {
                    failures.add(failure, what);
                    connections.push(None);
                }
            }
        }
        Ok(Load {
            poll,
            connections,
            buffer: vec![0; RECEIVE_BUFFER].into_boxed_slice(),
            in_flight: options.in_flight,
            check: options.check,
            is_asking: true,
            receives: 0,
            turns: 0,
            answered: 0,
            round_trips: histogram(),
            failures,
        })
    }

    fn ask_everyone(&mut self) {
        for index in 0..self.connections.len() {
            self.with(index, |connection, load| {
                connection.ask(load.in_flight, Instant::now());
                connection.flush()
            });
        }
    }

    fn run_for(&mut self, duration: Duration, events: &mut Events) -> Result<(), Error> {
        let deadline = Instant::now() + duration;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.connections.iter().all(Option::is_none) {
                return Ok(());
            }
            self.turn(left, events)?;
        }
    }

    fn start_counting(&mut self) {
        (self.answered, self.receives, self.turns) = (0, 0, 0);
        self.round_trips.reset();
    }

    fn stop_counting(&mut self) -> (u64, Histogram<u64>) {
        (
            self.answered,
            std::mem::replace(&mut self.round_trips, histogram()),
        )
    }

    /// Every message must be answered: what is counted is worth nothing if some never were.
    fn await_last_answers(&mut self, events: &mut Events) -> Result<(), Error> {
        self.is_asking = false;
        let mut last_answer = Instant::now();
        let unanswered = loop {
            let unanswered = self.unanswered();
            if unanswered == 0 || last_answer.elapsed() > LAST_ANSWERS {
                break unanswered;
            }
            let receives = self.receives;
            self.turn(LAST_ANSWERS / 10, events)?;
            if self.receives > receives {
                last_answer = Instant::now();
            }
        };
        if unanswered > 0 {
            self.failures.add_many(
                Failure::Unanswered,
                unanswered,
                format_args!(
                    "{unanswered} messages had no answer {LAST_ANSWERS:?} after the last one"
                ),
            );
        }
        Ok(())
    }

    fn unanswered(&self) -> u64 {
        self.connections
            .iter()
            .flatten()
            .map(|connection| connection.unanswered as u64)
            .sum()
    }

    fn turn(&mut self, timeout: Duration, events: &mut Events) -> Result<(), Error> {
        self.turns += 1;
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(Error::local("epoll")(error));
            }
            _ => {}
        }
        for event in events.iter() {
            self.with(event.token().0, |connection, load| {
                load.serve(connection, event)
            });
        }
        Ok(())
    }

    /// Does something with a connection that still lives, and buries it if that fails.
    fn with(
        &mut self,
        index: usize,
        action: impl FnOnce(&mut Connection, &mut Self) -> Result<(), Fault>,
    ) {
        let Some(mut connection) = self.connections[index].take() else {
            return;
        };
        match action(&mut connection, self) {
            Ok(()) => self.connections[index] = Some(connection),
            Err(Fault(failure, what)) => {
                self.failures
                    .add(failure, format_args!("connection {index}: {what}"));
                if connection.unanswered > 0 {
                    self.failures.add_many(
                        Failure::Unanswered,
                        connection.unanswered as u64,
                        format_args!("connection {index}"),
                    );
                }
            }
        }
    }

    fn serve(&mut self, connection: &mut Connection, event: &Event) -> Result<(), Fault> {
        if event.is_writable() {
            connection.outgoing.unblock();
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let ending = event.is_read_closed() || event.is_error();
            while self.receive(connection, ending)?.is_continue() {}
        }
        connection.flush()
    }

    /// One receive and, if messages were answered, one send of as many new ones.
    fn receive(
        &mut self,
        connection: &mut Connection,
        ending: bool,
    ) -> Result<ControlFlow<()>, Fault> {
        let wants_bytes = match self.check {
            Check::Every => true,
            Check::Sample => connection.is_new || self.receives.is_multiple_of(SAMPLE_EVERY),
            Check::Length => self.receives.is_multiple_of(SAMPLE_EVERY),
        };
        let received = match connection.receive(&mut self.buffer, wants_bytes) {
            Ok(0) => return Err(Fault(Failure::Closed, "end of stream".into())),
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(ControlFlow::Break(()));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                return Ok(ControlFlow::Continue(()));
            }
            Err(error) => return Err(error.into()),
        };
        self.receives += 1;
        if wants_bytes {
            connection.compare(&self.buffer[..received], self.check)?;
        }

        let now = Instant::now();
        let answered = connection.answered(received, now, &mut self.round_trips)?;
        self.answered += answered as u64;
        if self.is_asking && answered > 0 {
            connection.ask(answered, now);
            connection.flush()?;
        }
        // A receive that did not fill the buffer took everything: the next edge is on its way, unless this
        // one said that the stream ends, which has to be read out.
        let is_drained = received < self.buffer.len() && !ending;
        Ok(if is_drained {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }
}

/// What ends a connection.
struct Fault(Failure, String);

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault(Failure::Closed, error.to_string())
    }
}

struct Connection {
    stream: TcpStream,
    /// Masked frames to send over and over, each with a mask of its own.
    requests: Box<[u8]>,
    request_len: usize,
    outgoing: Outgoing,
    /// The reply that all these frames must have, repeated.
    replies: Box<[u8]>,
    reply_len: usize,
    header_len: usize,
    /// Bytes received of the reply that is still incomplete.
    inside: usize,
    /// Until the first reply is complete.
    is_new: bool,
    unanswered: usize,
    /// When the unanswered messages were sent, oldest first.
    sent: VecDeque<(Instant, usize)>,
}

impl Connection {
    fn register(
        stream: std::net::TcpStream,
        index: usize,
        options: &Options,
        poll: &Poll,
    ) -> Result<Self, Error> {
        stream
            .set_nonblocking(true)
            .map_err(Error::local("socket"))?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry()
            .register(
                &mut stream,
                Token(index),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(Error::local("epoll"))?;

        let (opcode, payload) = (options.kind.opcode(), options.kind.payload(options.size));
        let request_len = frame::client_frame_len(options.size);
        let ready = options.in_flight.min(MAX_READY_FRAMES / request_len).max(1);
        Ok(Connection {
            stream,
            requests: requests(opcode, &payload, ready),
            request_len,
            outgoing: Outgoing::default(),
            replies: replies(opcode, &payload),
            reply_len: frame::server_frame_len(options.size),
            header_len: frame::header_len(options.size),
            inside: 0,
            is_new: true,
            unanswered: 0,
            sent: VecDeque::with_capacity(options.in_flight.min(1024)),
        })
    }

    fn ask(&mut self, messages: usize, now: Instant) {
        self.outgoing.owe(messages * self.request_len);
        self.unanswered += messages;
        self.sent.push_back((now, messages));
    }

    fn flush(&mut self) -> Result<(), Fault> {
        Ok(self.outgoing.flush(&self.stream, &self.requests)?)
    }

    /// With `MSG_TRUNC`, TCP drops what it would have copied (tcp(7)): most replies are only counted.
    fn receive(&self, buffer: &mut [u8], wants_bytes: bool) -> io::Result<usize> {
        if wants_bytes {
            (&self.stream).read(buffer)
        } else {
            Ok(rustix::net::recv(&self.stream, buffer, RecvFlags::TRUNC)?.1)
        }
    }

    /// Compares received bytes with the replies at the same place in the stream.
    fn compare(&self, received: &[u8], check: Check) -> Result<(), Fault> {
        if check == Check::Length {
            return self.compare_header(received);
        }
        let (mut rest, mut at) = (received, self.inside);
        while !rest.is_empty() {
            let len = rest.len().min(self.replies.len() - at);
            if rest[..len] != self.replies[at..at + len] {
                return Err(self.difference(&rest[..len], at));
            }
            rest = &rest[len..];
            at = 0;
        }
        Ok(())
    }

    /// The length and FIN of the first whole header.
    fn compare_header(&self, received: &[u8]) -> Result<(), Fault> {
        let start = (self.reply_len - self.inside) % self.reply_len;
        match received.get(start..start + self.header_len) {
            // FIN and no reserved bit; the opcode is left to a program that did not read ours.
            Some(seen)
                if seen[0] & 0xf0 != 0x80 || seen[1..] != self.replies[1..self.header_len] =>
            {
                Err(Fault(
                    Failure::Corrupt,
                    format!("the header of a reply is {seen:02x?}"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn difference(&self, received: &[u8], at: usize) -> Fault {
        let differs = received
            .iter()
            .zip(&self.replies[at..])
            .position(|(seen, expected)| seen != expected);
        let offset = differs.expect("the slices are not equal");
        let (seen, expected) = (received[offset], self.replies[at + offset]);
        let byte = (at + offset) % self.reply_len;
        Fault(
            Failure::Corrupt,
            format!("byte {byte} of a reply is {seen:#04x}, expected {expected:#04x}"),
        )
    }

    /// Counts the replies that became complete, and how long each took.
    fn answered(
        &mut self,
        received: usize,
        now: Instant,
        round_trips: &mut Histogram<u64>,
    ) -> Result<usize, Fault> {
        let complete = (self.inside + received) / self.reply_len;
        self.inside = (self.inside + received) % self.reply_len;
        if complete > self.unanswered || (complete == self.unanswered && self.inside > 0) {
            let surplus = (complete - self.unanswered) * self.reply_len + self.inside;
            return Err(Fault(
                Failure::Surplus,
                format!("{surplus} bytes that answer nothing"),
            ));
        }
        self.unanswered -= complete;
        self.is_new &= complete == 0;
        let mut left = complete;
        while left > 0 {
            let (sent, messages) = self
                .sent
                .front_mut()
                .expect("each unanswered message was sent");
            let of_these = left.min(*messages);
            round_trips.saturating_record_n((now - *sent).as_nanos() as u64, of_these as u64);
            left -= of_these;
            *messages -= of_these;
            if *messages == 0 {
                self.sent.pop_front();
            }
        }
        Ok(complete)
    }
}

fn requests(opcode: Opcode, payload: &[u8], count: usize) -> Box<[u8]> {
    let mut requests = Vec::with_capacity(count * frame::client_frame_len(payload.len()));
    for _ in 0..count {
        frame::push_client_frame(&mut requests, opcode, payload, frame::random_mask());
    }
    requests.into_boxed_slice()
}

fn replies(opcode: Opcode, payload: &[u8]) -> Box<[u8]> {
    let mut reply = Vec::new();
    frame::push_server_frame(&mut reply, opcode, payload);
    reply
        .repeat(COMPARED_AT_ONCE.div_ceil(reply.len()))
        .into_boxed_slice()
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, LONGEST_ROUND_TRIP.as_nanos() as u64, 3)
        .expect("the bounds are constant")
}

impl RoundTrip {
    fn of(nanoseconds: &Histogram<u64>) -> Self {
        let at = |quantile| float(nanoseconds.value_at_quantile(quantile)) / 1e3;
        RoundTrip {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: float(nanoseconds.max()) / 1e3,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} connections × {} {}, {} in flight each, {:.2} s",
            self.connections,
            ByteSize(self.size),
            self.kind,
            self.in_flight,
            self.cost.seconds
        )?;
        writeln!(f, "  messages/s    {}", Rate(self.messages_per_second))?;
        let RoundTrip {
            p50,
            p90,
            p99,
            p999,
            max,
        } = self.round_trip_us;
        writeln!(
            f,
            "  round trip    p50 {p50:.1} µs, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1}"
        )?;
        writeln!(f, "{}", self.cost.lines())?;
        writeln!(
            f,
            "  batching      {:.1} receives each time the load generator woke",
            self.receives_per_turn
        )?;
        write!(f, "{}", self.failures)
    }
}
