//! Echo load: every connection keeps a number of messages in flight, or sends at a rate, in one thread.
//!
//! Made to cost less than any server it drives: frames are masked before the clock runs, one receive and one
//! send for each readiness, and of replies that nobody looks at only the bytes are counted, inside the kernel.
//! What is looked at goes through the protocol core.
//!
//! With messages in flight the loop is closed: a server that stalls is asked less, so that latencies say how
//! long a full server takes, not how long its users wait. At a rate it is open: each message has a time at
//! which it should be sent, and its latency counts from then, whatever kept it from leaving.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::{Events, Poll};
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use stentor::protocol::Event;

use crate::client::{Client, Fault, Shared, Width, require_server};
use crate::cycle::Cycle;
use crate::dial::{Dialer, Manners, Wanted};
use crate::failure::{Error, Failure, Failures};
use crate::latency::Latencies;
use crate::outcome::{Counted, Outcome, Recorded};
use crate::outgoing::Outgoing;
use crate::payload::{Kind, Sizes};
use crate::report::{Figure, Unit};
use crate::timer::Timer;
use crate::units::float;
use crate::wait::wait;
use crate::worker::{Job, Line, Run, Said, Step, Until};

/// What load to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// How many connections.
    pub connections: usize,
    /// Payload bytes of messages.
    pub sizes: Sizes,
    /// What the messages are made of.
    pub kind: Kind,
    /// When messages are sent.
    pub asking: Asking,
    /// How closely replies are looked at.
    pub check: Check,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Asking {
    /// Each connection keeps so many unanswered.
    InFlight(usize),
    /// All connections together send so many in a second, whether or not others were answered.
    PerSecond(f64),
}

/// How closely replies are looked at. Their number and length always count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// The length in sampled headers: for programs that answer without reading.
    Length,
    /// The first replies of each connection, and all bytes of every thousandth receive.
    Sample,
    /// Every message.
    Every,
}

const SAMPLE_EVERY: u64 = 1000;
/// How long the last messages may take to be answered when nothing else is answered meanwhile.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Messages of a schedule that are sent in one turn: one that is too fast for anybody still ends in time.
const MOST_AT_ONCE: usize = 1 << 16;
/// How long replies are awaited that answer nothing.
const SURPLUS_ANSWERS: Duration = Duration::from_millis(50);
/// Room for prebuilt frames of all connections of a process.
const ALL_FRAMES: usize = 1 << 30;
/// Prebuilt frames of one connection: repeated if more are in flight.
const MOST_FRAMES: usize = 4 << 20;

impl Options {
    /// The load in one line.
    pub fn describe(&self) -> String {
        let asking = match self.asking {
            Asking::InFlight(count) => format!("{count} in flight each"),
            Asking::PerSecond(rate) => format!("{rate} messages/s in all"),
        };
        let Options {
            connections,
            sizes,
            kind,
            ..
        } = self;
        format!("{connections} connections × {sizes} {kind}, {asking}")
    }
}

/// Makes one process' share of the load.
///
/// # Errors
///
/// If there is no server, or a connection cannot even be opened.
pub fn run(options: &Options, job: &Job, line: &mut Line<'_>) -> Result<Outcome, Error> {
    let mut load = Load::open(options, job, line)?;
    line.wait_for_all()?;
    let mut run = Run::begin(job, line, std::mem::take(&mut load.failures));
    let mut events = Events::with_capacity(1024);
    load.start(&mut run);
    loop {
        match run.step()? {
            Step::Continue(left) => load.turn(left, &mut events, &mut run)?,
            Step::Counting => load.start_counting(),
            Step::Over => break,
        }
        if load.connections.iter().all(Option::is_none) {
            break;
        }
    }
    // Where the count ends the run, all that was sent is part of it.
    let (counted, used, latencies) = if matches!(job.until, Until::Counted(_)) {
        load.await_last_answers(&mut events, &mut run)?;
        let (used, latencies) = run.finish()?;
        (run.count, used, latencies)
    } else {
        let ((used, latencies), counted) = (run.finish()?, run.count);
        load.await_last_answers(&mut events, &mut run)?;
        (counted, used, latencies)
    };
    Ok(Outcome {
        counted: vec![Counted::new("messages", "message", counted)],
        measured: vec![Figure::new(
            "receives_per_turn",
            "batching",
            float(load.receives) / float(load.turns.max(1)),
            Unit::Ratio,
        )],
        latencies: load.latencies(&latencies),
        last_seen: Vec::new(),
        used,
        failures: std::mem::take(&mut run.failures),
    })
}

struct Load {
    poll: Poll,
    shared: Shared,
    /// A connection that failed leaves its place empty.
    connections: Vec<Option<Box<Connection>>>,
    asking: Asking,
    schedule: Option<Schedule>,
    check: Check,
    is_asking: bool,
    receives: u64,
    turns: u64,
    failures: Failures,
}

impl Load {
    fn open(options: &Options, job: &Job, line: &mut Line<'_>) -> Result<Self, Error> {
        require_server(&job.target)?;
        let (count, first) = job.share(options.connections);
        let mut poll = Poll::new().map_err(Error::local("epoll"))?;
        let mut shared = Shared::new(job.target.clone());
        let mut failures = Failures::default();
        let mut clients = Vec::new();
        let mut dialer = Dialer {
            poll: &mut poll,
            shared: &mut shared,
            clients: &mut clients,
            failures: &mut failures,
            pace: job.pace,
        };
        let wanted = Wanted {
            places: 0..count,
            first,
            path: &|_| job.target.path.clone(),
            width: &|_| Width::Normal,
            manners: Manners::Silent,
        };
        dialer.open(wanted, |open| {
            // Nobody listens any more: the next who has to be heard finds out.
            let _ = line.say(&Said::Opened(open));
        })?;
        let frames = MOST_FRAMES.min(ALL_FRAMES / count.max(1));
        let connections = clients.into_iter().map(|client| {
            let connection = Connection::new(client?, options, frames);
            Some(Box::new(connection))
        });
        Ok(Load {
            connections: connections.collect(),
            schedule: Schedule::of(options, job, &poll)?,
            poll,
            shared,
            asking: options.asking,
            check: options.check,
            is_asking: true,
            receives: 0,
            turns: 0,
            failures,
        })
    }

    fn start(&mut self, run: &mut Run<'_, '_>) {
        match self.asking {
            Asking::PerSecond(_) => {
                if let Some(schedule) = &mut self.schedule {
                    schedule.next = Instant::now();
                }
            }
            Asking::InFlight(count) => {
                for index in 0..self.connections.len() {
                    self.with(index, run, |connection, _, _| {
                        connection.ask(count, Instant::now());
                        connection.flush()
                    });
                }
            }
        }
    }

    fn start_counting(&mut self) {
        (self.receives, self.turns) = (0, 0);
        if let Some(schedule) = &mut self.schedule {
            schedule.lag.clear();
        }
    }

    fn latencies(&self, recorded: &Latencies) -> Vec<Recorded> {
        match &self.schedule {
            None => vec![Recorded::new("round_trip", "round trip", recorded)],
            Some(schedule) => vec![
                Recorded::new("latency", "latency", recorded),
                Recorded::new("send_lag", "send lag", &schedule.lag),
            ],
        }
    }

    /// Every message must be answered: what is counted is worth nothing if some never were.
    fn await_last_answers(
        &mut self,
        events: &mut Events,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Error> {
        self.is_asking = false;
        let mut last_answer = Instant::now();
        let unanswered = loop {
            let unanswered = self.unanswered();
            if unanswered == 0 || last_answer.elapsed() > LAST_ANSWERS {
                break unanswered;
            }
            let receives = self.receives;
            self.turn(LAST_ANSWERS / 10, events, run)?;
            if self.receives > receives {
                last_answer = Instant::now();
            }
        };
        if unanswered == 0 {
            // A reply too many shows only now, where each message was taken to be answered by the one before.
            self.turn(SURPLUS_ANSWERS, events, run)?;
        }
        if unanswered > 0 {
            run.failures.add_many(
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

    fn turn(
        &mut self,
        timeout: Duration,
        events: &mut Events,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Error> {
        self.turns += 1;
        let timeout = match &mut self.schedule {
            Some(schedule) if self.is_asking => schedule.timer.arm(schedule.next, timeout)?,
            _ => timeout,
        };
        wait(&mut self.poll, events, timeout)?;
        if self.is_asking {
            self.ask_on_schedule(run);
        }
        for event in events.iter() {
            self.with(event.token().0, run, |connection, load, run| {
                load.serve(connection, event, run)
            });
        }
        Ok(())
    }

    /// Sends every message whose time has come; what is due for one connection leaves together.
    fn ask_on_schedule(&mut self, run: &mut Run<'_, '_>) {
        let Some(mut schedule) = self.schedule.take() else {
            return;
        };
        let now = Instant::now();
        let (first, mut due) = (schedule.connection, 0);
        while schedule.next <= now && due < MOST_AT_ONCE {
            let intended = schedule.next;
            schedule.lag.record(now - intended);
            let index = schedule.advance(self.connections.len());
            if let Some(connection) = &mut self.connections[index] {
                connection.ask(1, intended);
            }
            due += 1;
        }
        for place in 0..due.min(self.connections.len()) {
            let index = (first + place) % self.connections.len();
            self.with(index, run, |connection, _, _| connection.flush());
        }
        self.schedule = Some(schedule);
    }

    /// Does something with a connection that still lives, and buries it if that fails.
    fn with(
        &mut self,
        index: usize,
        run: &mut Run<'_, '_>,
        action: impl FnOnce(&mut Connection, &mut Self, &mut Run<'_, '_>) -> Result<(), Fault>,
    ) {
        let Some(mut connection) = self.connections.get_mut(index).and_then(Option::take) else {
            return; // Or the timer's token, which has no place.
        };
        match action(&mut connection, self, run) {
            Ok(()) => self.connections[index] = Some(connection),
            Err(Fault(failure, what)) => {
                let what = format_args!("connection {index}: {what}");
                run.failures.add(failure, what);
                if connection.unanswered > 0 {
                    let unanswered = connection.unanswered as u64;
                    run.failures.add_many(Failure::Unanswered, unanswered, what);
                }
            }
        }
    }

    fn serve(
        &mut self,
        connection: &mut Connection,
        readiness: &Readiness,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Fault> {
        if readiness.is_writable() {
            connection.outgoing.unblock();
        }
        if readiness.is_readable() || readiness.is_read_closed() || readiness.is_error() {
            if self.check == Check::Every {
                self.read(connection, readiness, run)?;
            } else {
                let ending = readiness.is_read_closed() || readiness.is_error();
                while self.count(connection, ending, run)?.is_continue() {}
            }
        }
        connection.flush()
    }

    /// Reads and compares every message.
    fn read(
        &mut self,
        connection: &mut Connection,
        readiness: &Readiness,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Fault> {
        self.receives += 1;
        let Connection {
            client,
            cycle,
            sent,
            unanswered,
            place,
            ..
        } = connection;
        client.ready(readiness)?;
        let (now, mut answered) = (Instant::now(), 0);
        client.receive(&mut self.shared, |_, event| match event {
            Event::Message(message) => {
                if *unanswered == answered {
                    return Err(Fault(
                        Failure::Surplus,
                        "a message that answers nothing".into(),
                    ));
                }
                cycle.compare_message(*place, message)?;
                *place = cycle.next(*place);
                answered += 1;
                Ok(())
            }
            _ => Ok(()),
        })?;
        *unanswered -= answered;
        record(sent, answered, now, run);
        self.ask_again(connection, answered, now)
    }

    /// One receive and, if messages were answered, one send of as many new ones.
    fn count(
        &mut self,
        connection: &mut Connection,
        ending: bool,
        run: &mut Run<'_, '_>,
    ) -> Result<ControlFlow<()>, Fault> {
        let is_sample = self.receives.is_multiple_of(SAMPLE_EVERY);
        let wants_bytes = is_sample || (self.check == Check::Sample && connection.is_new);
        let buffer = self.shared.buffer();
        let received = match connection.receive(buffer, wants_bytes) {
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
        let is_drained = received < buffer.len() && !ending;
        if wants_bytes {
            match self.check {
                Check::Length => connection
                    .cycle
                    .compare_header(connection.at, &buffer[..received])?,
                _ => connection
                    .cycle
                    .compare(connection.at, &buffer[..received])?,
            }
        }
        let now = Instant::now();
        let answered = connection.advance(received)?;
        record(&mut connection.sent, answered, now, run);
        self.ask_again(connection, answered, now)?;
        // A receive that did not fill the buffer took everything: the next edge is on its way, unless this
        // one said that the stream ends, which has to be read out.
        Ok(if is_drained {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    fn ask_again(
        &self,
        connection: &mut Connection,
        answered: usize,
        now: Instant,
    ) -> Result<(), Fault> {
        if self.is_asking && answered > 0 && matches!(self.asking, Asking::InFlight(_)) {
            connection.ask(answered, now);
            connection.flush()?;
        }
        Ok(())
    }
}

/// Records how long each of the oldest unanswered messages took.
fn record(
    sent: &mut VecDeque<(Instant, usize)>,
    answered: usize,
    now: Instant,
    run: &mut Run<'_, '_>,
) {
    run.count += answered as u64;
    let mut left = answered;
    while left > 0 {
        let (since, messages) = sent.front_mut().expect("each unanswered message was sent");
        let of_these = left.min(*messages);
        run.record(now.saturating_duration_since(*since), of_these as u64);
        left -= of_these;
        *messages -= of_these;
        if *messages == 0 {
            sent.pop_front();
        }
    }
}

/// When the messages of an open loop should be sent: one connection after another, evenly in time.
struct Schedule {
    timer: Timer,
    /// When the next message should be sent.
    next: Instant,
    between: Duration,
    /// The connection that sends it.
    connection: usize,
    /// How much later than they should messages were sent: what the load generator itself adds.
    lag: Latencies,
}

impl Schedule {
    fn of(options: &Options, job: &Job, poll: &Poll) -> Result<Option<Self>, Error> {
        let Asking::PerSecond(rate) = options.asking else {
            return Ok(None);
        };
        let share = rate / float(job.processes as u64);
        Ok(Some(Schedule {
            timer: Timer::new(poll)?,
            next: Instant::now(),
            between: Duration::from_secs_f64(1.0 / share),
            connection: 0,
            lag: Latencies::default(),
        }))
    }

    /// Goes on to the next message; answers the connection that sends this one.
    fn advance(&mut self, connections: usize) -> usize {
        let connection = self.connection;
        self.connection = (connection + 1) % connections;
        self.next += self.between;
        connection
    }
}

struct Connection {
    client: Client,
    /// Its messages, sent over and over, and what has to come back.
    cycle: Cycle,
    outgoing: Outgoing,
    /// The message that is to be sent next, as its place in the cycle.
    next: usize,
    /// The message that is to be answered next.
    place: usize,
    /// Bytes received since the beginning of the cycle.
    at: usize,
    /// Until every message of the cycle was answered once, or a few were.
    is_new: bool,
    unanswered: usize,
    /// When the unanswered messages were, or should have been, sent, oldest first.
    sent: VecDeque<(Instant, usize)>,
}

impl Connection {
    fn new(client: Client, options: &Options, frames: usize) -> Self {
        let in_flight = match options.asking {
            Asking::InFlight(count) => count,
            Asking::PerSecond(_) => 1,
        };
        Connection {
            client,
            cycle: Cycle::random(&options.sizes, options.kind, in_flight, frames),
            outgoing: if options.sizes.single().is_some() {
                Outgoing::default()
            } else {
                Outgoing::in_order()
            },
            next: 0,
            place: 0,
            at: 0,
            is_new: true,
            unanswered: 0,
            sent: VecDeque::with_capacity(in_flight.min(1024)),
        }
    }

    fn ask(&mut self, messages: usize, intended: Instant) {
        let (bytes, next) = self.cycle.span(self.next, messages);
        self.outgoing.owe(bytes);
        self.next = next;
        self.unanswered += messages;
        self.sent.push_back((intended, messages));
    }

    fn flush(&mut self) -> Result<(), Fault> {
        Ok(self
            .outgoing
            .flush(self.client.stream(), self.cycle.requests())?)
    }

    /// With `MSG_TRUNC`, TCP drops what it would have copied (tcp(7)): most replies are only counted.
    fn receive(&self, buffer: &mut [u8], wants_bytes: bool) -> io::Result<usize> {
        let flags = if wants_bytes {
            RecvFlags::empty()
        } else {
            RecvFlags::TRUNC
        };
        Ok(rustix::net::recv(self.client.stream(), buffer, flags)?.1)
    }

    /// Counts the replies that became complete.
    fn advance(&mut self, received: usize) -> Result<usize, Fault> {
        let (complete, at) = self.cycle.advance(self.at, received);
        let is_inside = !self.cycle.is_boundary(at);
        if complete > self.unanswered || (complete == self.unanswered && is_inside) {
            let what = format!(
                "{received} bytes, more than answer {} messages",
                self.unanswered
            );
            return Err(Fault(Failure::Surplus, what));
        }
        self.at = at;
        self.unanswered -= complete;
        self.is_new &= complete == 0;
        Ok(complete)
    }
}
