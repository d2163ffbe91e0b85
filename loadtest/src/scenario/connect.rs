//! Connection storm: connect, opening handshake and reset, over and over on a number of connections at a time,
//! or all at once and held.

use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};

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
}

/// A storm of nothing but failures ends here instead of measuring how fast it fails.
const MOST_FAILURES: u64 = 1000;

impl Options {
    /// The load in one line.
    pub fn describe(&self) -> String {
        let Options { connections, .. } = self;
        if self.is_storm {
            format!("{connections} connections at once, held")
        } else {
            format!("connect + handshake + reset, {connections} at a time")
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
        if storm.is_done() || run.failures.total() >= MOST_FAILURES {
            break;
        }
    }
    let (used, latencies) = run.finish()?;
    storm.count_unanswered(&mut run);
    Ok(Outcome {
        counted: vec![Counted::new("handshakes", "handshake", run.count)],
        latencies: vec![Recorded::new("handshake", "until open", &latencies)],
        used,
        failures: std::mem::take(&mut run.failures),
        ..Outcome::default()
    })
}

struct Openings {
    poll: Poll,
    shared: Shared,
    slots: Vec<Option<Opening>>,
    is_storm: bool,
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
}

impl Openings {
    fn new(options: &Options, job: &Job) -> Result<Self, Error> {
        let (count, first) = job.share(options.connections);
        let mut slots = Vec::new();
        slots.resize_with(count, || None);
        Ok(Openings {
            poll: Poll::new().map_err(Error::local("epoll"))?,
            shared: Shared::new(job.target.clone()).with_sample_key(),
            slots,
            is_storm: options.is_storm,
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
        self.begun == self.most && held.all(|slot| slot.client.is_open())
    }

    fn connect(&mut self, slot: usize, run: &mut Run<'_, '_>) {
        let source = target::source(self.first + slot, self.shared.target());
        let connecting = Client::connect(&self.shared, source, Token(slot), self.poll.registry());
        match connecting {
            Ok(client) => {
                client.reset_on_drop();
                let since = Instant::now();
                self.slots[slot] = Some(Opening { client, since });
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
        let was_open = opening.client.is_open();
        match opening.proceed(readiness, &mut self.shared) {
            Ok(()) if opening.client.is_open() && !was_open => {
                run.count += 1;
                run.record(opening.since.elapsed(), 1);
                if self.is_storm {
                    self.slots[slot] = Some(opening);
                } else {
                    self.waiting.push(slot);
                }
            }
            Ok(()) => self.slots[slot] = Some(opening),
            Err(Fault(failure, what)) => {
                run.failures.add(failure, what);
                if !self.is_storm {
                    self.waiting.push(slot);
                }
            }
        }
    }

    /// Handshakes that took all the time there was, or too long.
    fn count_unanswered(&mut self, run: &mut Run<'_, '_>) {
        let counted = self.began.elapsed().min(PATIENCE);
        for opening in self.slots.iter().flatten() {
            let waited = opening.since.elapsed();
            if !opening.client.is_open() && waited >= counted {
                let what = format_args!("no handshake after {waited:.1?}");
                run.failures.add(Failure::Unanswered, what);
            }
        }
    }
}

impl Opening {
    fn proceed(&mut self, readiness: &Readiness, shared: &mut Shared) -> Result<(), Fault> {
        self.client.ready(readiness)?;
        if self.client.wants_receive(readiness) {
            self.client.receive(shared, |_, _| Ok(()))?;
        }
        Ok(())
    }
}
