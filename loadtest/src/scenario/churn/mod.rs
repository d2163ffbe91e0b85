//! Churn: connections join and leave in every way there is while messages flow, at steady rates.
//!
//! Both follow schedules that wait for nobody: a round trip counts from when its message should have left. Whoever
//! leaves is replaced at once, so that the population stays what it is, and in the end all leave.

mod peer;

use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};

use self::peer::{Peer, Phase, Progress, Received};
use super::stamp::{Payloads, Stamp, now};
use crate::client::{Client, Fault, Shared, Width, require_server};
use crate::dial::{Dialer, Manners, Wanted};
use crate::failure::{Error, Failure, Failures};
use crate::latency::Latencies;
use crate::outcome::{Counted, Outcome, Recorded};
use crate::target;
use crate::timer::Timer;
use crate::units::{ByteSize, float};
use crate::wait::wait;
use crate::worker::{Job, Line, Run, Said, Step};

/// What churn to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// The population.
    pub connections: usize,
    /// Connections that leave, or give up joining, in a second.
    pub join_rate: f64,
    /// Messages that are sent in a second.
    pub message_rate: f64,
    /// Payload bytes of messages, [`SMALLEST`] at least.
    pub size: usize,
    /// How they leave.
    pub leaves: Leaves,
}

/// How often connections leave in each way, as weights.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Leaves {
    /// With the closing handshake.
    pub close: u32,
    /// With the end of the stream, and no Close frame.
    pub half_close: u32,
    /// With a reset.
    pub reset: u32,
    /// Not by members: connections that go before their handshake is answered.
    pub abort: u32,
}

/// One way to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Close,
    HalfClose,
    Reset,
    Abort,
}

/// The smallest payload: who sent it, its number and its time.
pub const SMALLEST: usize = Stamp::LEN;
/// Of so many failures, more say nothing new, and joining again would not end.
const MOST_FAILURES: u64 = 1000;
/// How long the end of all connections may take.
const LAST_LEAVES: Duration = Duration::from_secs(6);
/// How often a look is taken at what takes too long.
const LOOK: Duration = Duration::from_millis(250);

impl Options {
    /// The load in one line.
    pub fn describe(&self) -> String {
        let Options {
            connections,
            join_rate,
            message_rate,
            size,
            ..
        } = self;
        format!(
            "{connections} connections, {join_rate} joins/s, {message_rate} messages/s of {}",
            ByteSize(*size)
        )
    }
}

impl Leaves {
    fn draw(&self) -> Leave {
        let ways = [
            (self.close, Leave::Close),
            (self.half_close, Leave::HalfClose),
            (self.reset, Leave::Reset),
            (self.abort, Leave::Abort),
        ];
        let all: u32 = ways.iter().map(|(weight, _)| weight).sum();
        let mut left = fastrand::u32(..all);
        for (weight, leave) in ways {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return leave,
            }
        }
        unreachable!("what is drawn is less than all weights together")
    }
}

/// Makes one process' share of the churn.
///
/// # Errors
///
/// If there is no server, or not even one connection can be opened.
pub fn run(options: &Options, job: &Job, line: &mut Line<'_>) -> Result<Outcome, Error> {
    let mut churn = Churn::open(options, job, line)?;
    line.wait_for_all()?;
    let mut run = Run::begin(job, line, std::mem::take(&mut churn.failures));
    let mut events = Events::with_capacity(1024);
    churn.start();
    loop {
        match run.step()? {
            Step::Continue(left) => churn.turn(left, &mut events, &mut run)?,
            Step::Counting => churn.counts = Counts::default(),
            Step::Over => break,
        }
        if run.failures.total() >= MOST_FAILURES {
            break;
        }
    }
    let ((used, handshakes), joins) = (run.finish()?, run.count);
    let counts = std::mem::take(&mut churn.counts);
    churn.end(&mut events, &mut run)?;
    Ok(Outcome {
        counted: counts.counted(joins),
        latencies: vec![
            Recorded::new("handshake", "until open", &handshakes),
            Recorded::new("round_trip", "round trip", &counts.round_trips),
        ],
        used,
        failures: std::mem::take(&mut run.failures),
        ..Outcome::default()
    })
}

struct Churn<'o> {
    options: &'o Options,
    poll: Poll,
    shared: Shared,
    payloads: Payloads,
    /// By token. Places of those who left are free for those who join in a later turn.
    peers: Vec<Option<Box<Peer>>>,
    free: Vec<usize>,
    freed: Vec<usize>,
    /// Places of members, in no order.
    members: Vec<usize>,
    joining: usize,
    population: usize,
    /// The number of this process' first connection among those of all, for its source address.
    first: usize,
    /// Connections ever opened.
    opened: u32,
    timer: Timer,
    joins: Clock,
    messages: Clock,
    looked: u64,
    counts: Counts,
    scratch: Vec<u8>,
    failures: Failures,
}

/// What happened while counting.
#[derive(Default)]
struct Counts {
    messages: u64,
    deliveries: u64,
    closed: u64,
    half_closed: u64,
    reset: u64,
    aborted: u64,
    round_trips: Latencies,
}

impl Counts {
    fn counted(&self, joins: u64) -> Vec<Counted> {
        vec![
            Counted::new("joins", "join", joins),
            Counted::new("messages", "message", self.messages),
            Counted::new("deliveries", "delivery", self.deliveries),
            Counted::new("closes", "close", self.closed),
            Counted::new("half_closes", "half-close", self.half_closed),
            Counted::new("resets", "reset", self.reset),
            Counted::new("aborts", "abort", self.aborted),
        ]
    }
}

/// Something that happens evenly in time.
struct Clock {
    start: u64,
    between: f64,
    ticks: u64,
}

impl Clock {
    fn new(per_second: f64) -> Self {
        Clock {
            start: 0,
            between: 1e9 / per_second,
            ticks: 0,
        }
    }

    #[expect(
        clippy::cast_sign_loss,
        reason = "neither the number nor the distance is below zero"
    )]
    fn next(&self) -> u64 {
        self.start + (float(self.ticks) * self.between) as u64
    }

    /// When it should have happened, once for each time that has come.
    fn due(&mut self, now: u64) -> Option<u64> {
        let next = self.next();
        (next <= now).then(|| {
            self.ticks += 1;
            next
        })
    }
}

impl<'o> Churn<'o> {
    fn open(options: &'o Options, job: &'o Job, line: &mut Line<'_>) -> Result<Self, Error> {
        require_server(&job.target)?;
        let (population, first) = job.share(options.connections);
        let share = float(population as u64) / float(options.connections as u64);
        let poll = Poll::new().map_err(Error::local("epoll"))?;
        let mut churn = Churn {
            options,
            timer: Timer::new(&poll)?,
            poll,
            shared: Shared::new(job.target.clone()),
            payloads: Payloads::new(options.size),
            peers: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            members: Vec::new(),
            joining: 0,
            population,
            first,
            // Messages of other processes' connections carry other numbers.
            opened: (u32::MAX / 2) / job.processes as u32 * job.index as u32,
            joins: Clock::new(options.join_rate * share),
            messages: Clock::new(options.message_rate * share),
            looked: 0,
            counts: Counts::default(),
            scratch: Vec::new(),
            failures: Failures::default(),
        };
        churn.dial(job, line)?;
        Ok(churn)
    }

    fn dial(&mut self, job: &Job, line: &mut Line<'_>) -> Result<(), Error> {
        let mut clients = Vec::new();
        let mut dialer = Dialer {
            poll: &mut self.poll,
            shared: &mut self.shared,
            clients: &mut clients,
            failures: &mut self.failures,
            pace: job.pace,
        };
        let wanted = Wanted {
            places: 0..self.population,
            first: self.first,
            path: &|_| job.target.path.clone(),
            width: &|_| Width::Normal,
            manners: Manners::Silent,
        };
        dialer.open(wanted, |open| {
            // Nobody listens any more: the next who has to be heard finds out.
            let _ = line.say(&Said::Opened(open));
        })?;
        for (place, client) in clients.into_iter().enumerate() {
            let number = self.opened;
            let peer = client.map(|client| Box::new(Peer::new(client, number, Phase::Member)));
            match peer {
                Some(_) => self.members.push(place),
                None => self.free.push(place),
            }
            self.opened += 1;
            self.peers.push(peer);
        }
        Ok(())
    }

    fn start(&mut self) {
        let now = now();
        (self.joins.start, self.messages.start, self.looked) = (now, now, now);
    }

    fn turn(
        &mut self,
        timeout: Duration,
        events: &mut Events,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Error> {
        let next = self.joins.next().min(self.messages.next());
        let left = Duration::from_nanos(next.saturating_sub(now()));
        let timeout = self.timer.arm(Instant::now() + left, timeout.min(LOOK))?;
        self.wait(timeout, events, run)?;
        let now = now();
        while self.joins.due(now).is_some() {
            self.leave(self.options.leaves.draw(), run);
        }
        while let Some(intended) = self.messages.due(now) {
            self.send(intended, run);
        }
        while self.members.len() + self.joining < self.population
            && run.failures.total() < MOST_FAILURES
        {
            self.begin(Phase::Joining, run);
        }
        Ok(())
    }

    fn wait(
        &mut self,
        timeout: Duration,
        events: &mut Events,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Error> {
        wait(&mut self.poll, events, timeout)?;
        for readiness in events.iter() {
            self.serve(readiness, run);
        }
        self.look_for_late(run);
        // Later events of this turn may have spoken of those who were there before.
        self.free.append(&mut self.freed);
        Ok(())
    }

    fn serve(&mut self, readiness: &Readiness, run: &mut Run<'_, '_>) {
        let Token(place) = readiness.token();
        let Some(mut peer) = self.peers.get_mut(place).and_then(Option::take) else {
            return; // Or the timer's token, which has no place.
        };
        let before = peer.phase;
        let mut received = Received::default();
        let progress = peer.proceed(readiness, &mut self.shared, &self.payloads, &mut received);
        self.counts.deliveries += received.messages;
        for round_trip in received.round_trips {
            self.counts.round_trips.record(round_trip);
        }
        match progress {
            Ok(Progress::Waiting) => self.peers[place] = Some(peer),
            Ok(Progress::Joined(took)) => {
                run.count += 1;
                run.record(took, 1);
                self.joining -= 1;
                self.members.push(place);
                self.peers[place] = Some(peer);
            }
            Ok(Progress::Left) => {
                self.freed.push(place);
                if let Phase::Aborting { .. } = before {
                    self.counts.aborted += 1;
                    abandon(*peer);
                }
            }
            Err(fault) => self.bury(place, before, fault, run),
        }
    }

    /// Counts what ended a connection that was not to end, or not like that.
    fn bury(&mut self, place: usize, phase: Phase, fault: Fault, run: &mut Run<'_, '_>) {
        let Fault(failure, what) = fault;
        let what = format_args!("connection {place}, {phase:?}: {what}");
        run.failures.add(failure, what);
        self.peers[place] = None;
        self.freed.push(place);
        match phase {
            Phase::Joining => self.joining -= 1,
            Phase::Member => self.members.retain(|member| *member != place),
            Phase::Aborting { .. } | Phase::Closing { .. } | Phase::HalfClosed => {}
        }
    }

    /// Opens a connection, to stay or to be aborted.
    fn begin(&mut self, phase: Phase, run: &mut Run<'_, '_>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        let source = target::source(self.first + place, self.shared.target());
        let connecting = Client::connect(&self.shared, source, Token(place), self.poll.registry());
        match connecting {
            Ok(client) => {
                self.peers[place] = Some(Box::new(Peer::new(client, self.opened, phase)));
                self.opened += 1;
                self.joining += usize::from(phase == Phase::Joining);
            }
            Err(error) => {
                self.free.push(place);
                run.failures.add(Failure::Connect, error);
            }
        }
    }

    fn leave(&mut self, leave: Leave, run: &mut Run<'_, '_>) {
        if leave == Leave::Abort {
            let with_request = fastrand::bool();
            return self.begin(Phase::Aborting { with_request }, run);
        }
        if self.members.is_empty() {
            return; // All are on their way in or out.
        }
        let place = self
            .members
            .swap_remove(fastrand::usize(..self.members.len()));
        let Some(mut peer) = self.peers[place].take() else {
            return;
        };
        let left = match leave {
            Leave::Close => {
                self.counts.closed += 1;
                peer.close()
            }
            Leave::HalfClose => {
                self.counts.half_closed += 1;
                peer.half_close()
            }
            Leave::Reset | Leave::Abort => {
                self.counts.reset += 1;
                self.free.push(place);
                return peer.reset();
            }
        };
        match left {
            Ok(()) => self.peers[place] = Some(peer),
            Err(fault) => self.bury(place, peer.phase, fault, run),
        }
    }

    fn send(&mut self, intended: u64, run: &mut Run<'_, '_>) {
        if self.members.is_empty() {
            return;
        }
        let place = self.members[fastrand::usize(..self.members.len())];
        let Some(peer) = &mut self.peers[place] else {
            return;
        };
        self.counts.messages += 1;
        if let Err(fault) = peer.send(&self.payloads, intended, &mut self.scratch) {
            self.bury(place, Phase::Member, fault, run);
        }
    }

    fn look_for_late(&mut self, run: &mut Run<'_, '_>) {
        let now = now();
        if now - self.looked < LOOK.as_nanos() as u64 {
            return;
        }
        self.looked = now;
        for place in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[place] else {
                continue;
            };
            if let Some(fault) = peer.late(now) {
                let phase = peer.phase;
                self.bury(place, phase, fault, run);
            }
        }
    }

    /// All members leave with the closing handshake; whoever joins or aborts is let go.
    fn end(&mut self, events: &mut Events, run: &mut Run<'_, '_>) -> Result<(), Error> {
        for peer in &mut self.peers {
            let is_entering = |peer: &mut Box<Peer>| {
                matches!(peer.phase, Phase::Joining | Phase::Aborting { .. })
            };
            if let Some(peer) = peer.take_if(is_entering) {
                peer.reset();
            }
        }
        self.joining = 0;
        while !self.members.is_empty() {
            self.leave(Leave::Close, run);
        }
        let deadline = Instant::now() + LAST_LEAVES;
        while self.peers.iter().any(Option::is_some) && Instant::now() < deadline {
            self.wait(LOOK, events, run)?;
        }
        Ok(())
    }
}

/// Half of those who give up reset, as a program that ends does; the others close.
fn abandon(peer: Peer) {
    if fastrand::bool() {
        peer.reset();
    }
}
