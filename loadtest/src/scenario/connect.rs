//! Connection storm: connect, opening handshake and reset, over and over on a number of connections at a time,
//! or all at once and held. In Centrifugo's protocol a connection is there when its first commands are answered.

use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use stentor::protocol::Event;

use super::broadcast::TOPIC;
use super::scout::Scout;
use crate::centrifugo::{Arrival, Position, Since, Subscription};
use crate::client::{Client, Fault, PATIENCE, Shared, require_server};
use crate::failure::{Error, Failure};
use crate::outcome::{Counted, Outcome, Recorded};
use crate::target;
use crate::wait::wait;
use crate::worker::{Job, Line, Run, Step, Until};

/// What storm to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Connections being opened at any time; with `is_storm` all that there are.
    pub connections: usize,
    /// Open all at once, once, and hold them.
    pub is_storm: bool,
    /// When a connection has got what it came for.
    pub goal: Goal,
}

/// What a connection comes for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// The opening handshake.
    Handshake,
    /// Centrifugo's connect.
    Connect,
    /// Centrifugo's connect, and a subscription to that channel, where `{topic}` becomes another for each connection.
    Subscribe(String),
    /// The same with what the client has missed of it: [`MISSED`] publications.
    Recover(String),
}

/// Publications that every client has missed which comes back: those of ten seconds with one a second.
pub const MISSED: usize = 10;
/// How long a client of Centrifugo's protocol waits before it connects anew: that of Centrifugo's own SDK.
const REPLY_PATIENCE: Duration = Duration::from_secs(5);

/// A storm of nothing but failures ends here instead of measuring how fast it fails.
const MOST_FAILURES: u64 = 1000;

impl Options {
    /// The load in one line.
    pub fn describe(&self) -> String {
        let Options { connections, .. } = self;
        let goal = match &self.goal {
            Goal::Handshake => String::new(),
            Goal::Connect => " + Centrifugo connect".to_owned(),
            Goal::Subscribe(channel) => format!(" + Centrifugo connect + subscribe to {channel}"),
            Goal::Recover(channel) => {
                format!(" + Centrifugo connect + recovery of {MISSED} in {channel}")
            }
        };
        if self.is_storm {
            format!("{connections} connections at once{goal}, held")
        } else {
            format!("connect + handshake{goal} + reset, {connections} at a time")
        }
    }
}

/// Makes one process' share of the storm.
///
/// # Errors
///
/// If there is no server.
pub fn run(options: &Options, job: &Job, line: &mut Line<'_>) -> Result<Outcome, Error> {
    require_server(&job.target)?;
    let mut storm = Openings::new(options, job)?;
    let mut events = Events::with_capacity(1024);
    storm.since = scout(options, job, line)?;
    line.wait_for_all()?;
    let mut run = Run::begin(job, line, crate::failure::Failures::default());
    if options.is_storm {
        // Its whole course counts; what happened before it began is not its.
        while let Step::Continue(left) = run.step()? {
            std::thread::sleep(left);
        }
    }
    storm.began = Instant::now();
    storm.begin_all(&mut run);
    loop {
        match run.step()? {
            Step::Continue(left) => storm.turn(left, &mut events, &mut run)?,
            Step::Counting => storm.began = Instant::now(),
            Step::Over => break,
        }
        let is_hopeless = !options.is_storm && run.failures.total() >= MOST_FAILURES;
        if storm.is_done() || is_hopeless {
            break;
        }
    }
    let (used, latencies) = run.finish()?;
    storm.count_unanswered(&mut run);
    let (counted, latency) = match options.goal {
        Goal::Handshake => (
            Counted::new("handshakes", "handshake", run.count),
            Recorded::new("handshake", "until open", &latencies),
        ),
        Goal::Connect | Goal::Subscribe(_) | Goal::Recover(_) => (
            Counted::new("arrivals", "arrival", run.count),
            Recorded::new("arrival", "until answered", &latencies),
        ),
    };
    Ok(Outcome {
        counted: vec![counted],
        latencies: vec![latency],
        used,
        failures: std::mem::take(&mut run.failures),
        ..Outcome::default()
    })
}

/// Learns where a channel stands and lets all clients miss something of it, where that is what they come for.
fn scout(options: &Options, job: &Job, line: &mut Line<'_>) -> Result<Option<Position>, Error> {
    let Goal::Recover(channel) = &options.goal else {
        return Ok(None);
    };
    let (mut scout, position) = Scout::arrive(&job.target, channel)?;
    line.wait_for_all()?; // All processes know the same position.
    if job.index == 0 {
        scout.publish(MISSED)?;
    }
    Ok(Some(position))
}

struct Openings<'o> {
    options: &'o Options,
    poll: Poll,
    shared: Shared,
    slots: Vec<Option<Opening>>,
    /// Where the clients were when they left, if they come back.
    since: Option<Position>,
    /// The number of the first connection among those of all processes.
    first: usize,
    /// When counting began, and how fast connections may begin.
    began: Instant,
    begun: u64,
    /// How many are to begin at all.
    most: u64,
    per_second: Option<f64>,
    /// Slots that wait for their turn.
    waiting: Vec<usize>,
}

/// A connection on its way, or held.
struct Opening {
    client: Client,
    since: Instant,
    /// What was said behind the handshake, where that is not all.
    arrival: Option<Arrival>,
}

impl<'o> Openings<'o> {
    fn new(options: &'o Options, job: &Job) -> Result<Self, Error> {
        let (count, first) = job.share(options.connections);
        let mut slots = Vec::new();
        slots.resize_with(count, || None);
        Ok(Openings {
            options,
            poll: Poll::new().map_err(Error::local("epoll"))?,
            shared: Shared::new(job.target.clone()).with_sample_key(),
            slots,
            since: None,
            first,
            began: Instant::now(),
            begun: 0,
            most: match job.until {
                _ if options.is_storm => count as u64,
                // None may be on its way, uncounted, when the last is counted.
                Until::Counted(most) => most,
                Until::Elapsed(_) => u64::MAX,
            },
            per_second: job.pace.per_second,
            waiting: (0..count).rev().collect(),
        })
    }

    fn begin_all(&mut self, run: &mut Run<'_, '_>) {
        while self.begun < self.most
            && self.due().is_zero()
            && let Some(slot) = self.waiting.pop()
        {
            self.begun += 1;
            self.connect(slot, run);
        }
    }

    /// How long until one more may begin.
    fn due(&self) -> Duration {
        self.per_second.map_or(Duration::ZERO, |pace| {
            let due = Duration::from_secs_f64(crate::units::float(self.begun) / pace);
            due.saturating_sub(self.began.elapsed())
        })
    }

    /// Whether all have begun, and none is on its way any more.
    fn is_done(&self) -> bool {
        let mut held = self.slots.iter().flatten();
        self.begun == self.most && held.all(|opening| opening.is_over(&self.options.goal))
    }

    fn connect(&mut self, slot: usize, run: &mut Run<'_, '_>) {
        let source = target::source(self.first + slot, self.shared.target());
        let connecting = Client::connect(&self.shared, source, Token(slot), self.poll.registry());
        match connecting {
            Ok(client) => {
                client.reset_on_drop();
                let since = Instant::now();
                self.slots[slot] = Some(Opening {
                    client,
                    since,
                    arrival: None,
                });
            }
            Err(error) => run.failures.add(Failure::Connect, error),
        }
    }

    fn turn(
        &mut self,
        left: Duration,
        events: &mut Events,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Error> {
        let timeout = match self.due() {
            due if due.is_zero() || self.waiting.is_empty() => left,
            due => left.min(due),
        };
        wait(&mut self.poll, events, timeout)?;
        for readiness in events.iter() {
            self.serve(readiness, run);
        }
        self.begin_all(run);
        Ok(())
    }

    fn serve(&mut self, readiness: &Readiness, run: &mut Run<'_, '_>) {
        let Token(slot) = readiness.token();
        let Some(mut opening) = self.slots[slot].take() else {
            return;
        };
        let goal = &self.options.goal;
        let was_over = opening.is_over(goal);
        let subscription = || goal.subscription(self.first + slot, self.since.as_ref());
        match opening.proceed(readiness, &mut self.shared, goal, subscription) {
            Ok(()) if opening.is_over(goal) && !was_over => {
                opening.count(goal, run);
                if self.options.is_storm {
                    self.slots[slot] = Some(opening);
                } else {
                    self.waiting.push(slot);
                }
            }
            Ok(()) => self.slots[slot] = Some(opening),
            Err(Fault(failure, what)) => {
                run.failures.add(failure, what);
                if !self.options.is_storm {
                    self.waiting.push(slot);
                }
            }
        }
    }

    /// Those that took all the time there was, or too long; of a storm, all that it left.
    fn count_unanswered(&mut self, run: &mut Run<'_, '_>) {
        let goal = &self.options.goal;
        let counted = if self.options.is_storm {
            Duration::ZERO
        } else {
            self.began.elapsed().min(goal.patience())
        };
        for opening in self.slots.iter().flatten() {
            let waited = opening.since.elapsed();
            if !opening.is_over(goal) && waited >= counted {
                let awaited = opening.awaited();
                let what = format_args!("no {awaited} after {waited:.1?}");
                run.failures.add(Failure::Unanswered, what);
            }
        }
    }
}

impl Opening {
    fn proceed(
        &mut self,
        readiness: &Readiness,
        shared: &mut Shared,
        goal: &Goal,
        subscription: impl FnOnce() -> Option<Subscription>,
    ) -> Result<(), Fault> {
        let Opening {
            client, arrival, ..
        } = self;
        client.ready(readiness)?;
        if client.wants_receive(readiness) {
            client.receive(shared, |client, event| match (event, &mut *arrival) {
                (Event::Message(message), Some(arrival)) => arrival.hear(client, message.payload()),
                _ => Ok(()),
            })?;
        }
        if *goal != Goal::Handshake && client.is_open() && arrival.is_none() {
            *arrival = Some(Arrival::begin(client, subscription())?);
        }
        Ok(())
    }

    fn is_over(&self, goal: &Goal) -> bool {
        match goal {
            Goal::Handshake => self.client.is_open(),
            _ => self.arrival.as_ref().is_some_and(Arrival::is_over),
        }
    }

    /// What it has not got yet.
    fn awaited(&self) -> &'static str {
        match self.arrival {
            None => "handshake",
            Some(_) => "reply",
        }
    }

    /// Counts one that has got what it came for, if it would have waited for it.
    fn count(&self, goal: &Goal, run: &mut Run<'_, '_>) {
        let waited = self.since.elapsed();
        run.record(waited, 1);
        if waited <= goal.patience() {
            run.count += 1;
        } else {
            let what = format_args!("answered only after {waited:.1?}");
            run.failures.add(Failure::Unanswered, what);
        }
    }
}

impl Goal {
    /// How long a client waits.
    fn patience(&self) -> Duration {
        match self {
            Goal::Handshake => PATIENCE,
            Goal::Connect | Goal::Subscribe(_) | Goal::Recover(_) => REPLY_PATIENCE,
        }
    }

    /// What the `number`th connection subscribes to; `since` is where it was when it left.
    fn subscription(&self, number: usize, since: Option<&Position>) -> Option<Subscription> {
        match self {
            Goal::Handshake | Goal::Connect => None,
            Goal::Subscribe(channel) => Some(Subscription::to(
                channel.replace(TOPIC, &format!("t{number}")),
            )),
            Goal::Recover(channel) => Some(Subscription {
                channel: channel.clone(),
                since: Since::Recover(since?.clone(), MISSED),
            }),
        }
    }
}
