//! One process of a run: told what to do on its standard input, tells what it does on its output, in lines
//! of JSON.
//!
//! Processes keep in step by waiting for one another: each says that it waits, and goes on when it is told
//! that all do.

use std::io::{self, BufRead as _, StdinLock, Write as _};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cpu::{Reading, Use};
use crate::dial::Pace;
use crate::failure::{Error, Failures};
use crate::latency::{Counts, Latencies};
use crate::outcome::Outcome;
use crate::scenario::Load;
use crate::target::Target;

/// What one process has to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The load, of which this process makes its share.
    pub load: Load,
    /// The server.
    pub target: Target,
    /// The server's process; only the first process of a run is told.
    pub server_pid: Option<u32>,
    /// Which process this is, from 0 on.
    pub index: usize,
    /// How many processes there are.
    pub processes: usize,
    /// How connections are opened by this process.
    pub pace: Pace,
    /// Load before anything is counted.
    pub warmup: Duration,
    /// When counting ends.
    pub until: Until,
}

/// When counting ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Until {
    /// After this long.
    Elapsed(Duration),
    /// Once this process has counted so many; nothing is told before.
    Counted(u64),
}

impl Job {
    /// This process' part of so many things, and how many come before its own.
    pub fn share(&self, of: usize) -> (usize, usize) {
        let before = |index| of * index / self.processes;
        let first = before(self.index);
        (before(self.index + 1) - first, first)
    }
}

/// What a process says, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// So many connections are open.
    Opened(usize),
    /// It goes on when all processes wait.
    Waiting,
    /// Counting begins.
    Counting,
    /// What happened since the last tick.
    Tick(Tick),
    /// The run is over.
    Done(Box<Outcome>),
    /// The run came to nothing.
    Failed(Error),
}

/// What happened in a part of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tick {
    /// Seconds since counting began.
    pub at: f64,
    /// How much was counted since the last tick.
    pub count: u64,
    /// Failures since the last tick.
    pub failures: u64,
    /// Seconds of CPU time used since the last tick.
    pub used: f64,
    /// Latencies since the last tick.
    pub latencies: Counts,
}

/// The line to whoever conducts the run.
pub struct Line<'a> {
    input: StdinLock<'a>,
}

impl Line<'_> {
    /// Takes the standard streams, and reads what is to be done.
    ///
    /// # Errors
    ///
    /// If that is not a line of JSON.
    pub fn open() -> Result<(Self, Job), Error> {
        let mut line = Line {
            input: io::stdin().lock(),
        };
        let job = serde_json::from_str(&line.hear()?)
            .map_err(|error| Error::Local(format!("this is no job: {error}")))?;
        Ok((line, job))
    }

    fn hear(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        match self.input.read_line(&mut line) {
            Ok(0) => Err(Error::Local("nobody conducts this run any more".into())),
            Ok(_) => Ok(line),
            Err(error) => Err(Error::local("standard input")(error)),
        }
    }

    /// Says something.
    ///
    /// # Errors
    ///
    /// If nobody listens any more.
    ///
    /// # Panics
    ///
    /// Never: what is said has string keys only.
    pub fn say(&mut self, what: &Said) -> Result<(), Error> {
        let line = serde_json::to_string(what).expect("what is said has string keys only");
        writeln!(io::stdout(), "{line}").map_err(Error::local("standard output"))
    }

    /// Waits until all processes have come here.
    ///
    /// # Errors
    ///
    /// If nobody conducts the run any more.
    pub fn wait_for_all(&mut self) -> Result<(), Error> {
        self.say(&Said::Waiting)?;
        self.hear().map(drop)
    }
}

/// A run in time: warm-up, then counting with a tick now and then, until it is over.
pub struct Run<'a, 'l> {
    job: &'a Job,
    line: &'a mut Line<'l>,
    phase: Phase,
    /// Everything that went wrong so far.
    pub failures: Failures,
    /// What is counted: the thing whose rate and cost are reported.
    pub count: u64,
    interval: Latencies,
    total: Latencies,
}

enum Phase {
    Warmup { until: Instant },
    Counting(Counting),
}

struct Counting {
    before: Reading,
    since: Instant,
    next_tick: Instant,
    told: Told,
}

#[derive(Default)]
struct Told {
    count: u64,
    failures: u64,
    used: Duration,
}

/// What a step in time comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on, and come again after this long at the latest.
    Continue(Duration),
    /// From now on all counts: whatever was counted elsewhere starts at zero.
    Counting,
    /// Time is up.
    Over,
}

const TICK: Duration = Duration::from_millis(250);

impl<'a, 'l> Run<'a, 'l> {
    /// Begins the warm-up.
    pub fn begin(job: &'a Job, line: &'a mut Line<'l>, failures: Failures) -> Self {
        Run {
            phase: Phase::Warmup {
                until: Instant::now() + job.warmup,
            },
            job,
            line,
            failures,
            count: 0,
            interval: Latencies::default(),
            total: Latencies::default(),
        }
    }

    /// Records latencies of what is counted.
    pub fn record(&mut self, latency: Duration, count: u64) {
        self.interval.record_many(latency, count);
    }

    /// Lets time pass.
    ///
    /// # Errors
    ///
    /// If the server's process is gone, or nobody conducts the run any more.
    pub fn step(&mut self) -> Result<Step, Error> {
        let now = Instant::now();
        match &self.phase {
            Phase::Warmup { until } if now < *until => Ok(Step::Continue(*until - now)),
            Phase::Warmup { .. } => {
                self.start_counting(now)?;
                Ok(Step::Counting)
            }
            Phase::Counting(counting) => {
                let (since, next_tick) = (counting.since, counting.next_tick);
                let (is_over, is_tick, next) = match self.job.until {
                    Until::Elapsed(duration) => {
                        let end = since + duration;
                        (now >= end, now >= next_tick, end.min(next_tick))
                    }
                    // How many ticks there are is up to the clock, and where messages are counted, so are
                    // their instructions.
                    Until::Counted(count) => (self.count >= count, false, now + TICK),
                };
                if is_over || is_tick {
                    self.tick(now)?;
                }
                Ok(if is_over {
                    Step::Over
                } else {
                    Step::Continue(next.saturating_duration_since(now))
                })
            }
        }
    }

    fn start_counting(&mut self, now: Instant) -> Result<(), Error> {
        self.line.say(&Said::Counting)?;
        self.count = 0;
        self.interval.clear();
        self.phase = Phase::Counting(Counting {
            before: Reading::take(self.job.server_pid)?,
            since: now,
            next_tick: now + TICK,
            told: Told {
                failures: self.failures.total(),
                used: crate::process::own_cpu_time(),
                ..Told::default()
            },
        });
        Ok(())
    }

    fn tick(&mut self, now: Instant) -> Result<(), Error> {
        let Phase::Counting(counting) = &mut self.phase else {
            return Ok(());
        };
        let told = Told {
            count: self.count,
            failures: self.failures.total(),
            used: crate::process::own_cpu_time(),
        };
        let before = std::mem::replace(&mut counting.told, told);
        counting.next_tick = now + TICK;
        let tick = Tick {
            at: (now - counting.since).as_secs_f64(),
            count: self.count - before.count,
            failures: counting.told.failures - before.failures,
            used: counting.told.used.saturating_sub(before.used).as_secs_f64(),
            latencies: self.interval.counts(),
        };
        self.total.merge(&self.interval);
        self.interval.clear();
        self.line.say(&Said::Tick(tick))
    }

    /// What was used and recorded while counting.
    ///
    /// # Errors
    ///
    /// If the server's process is gone.
    pub fn finish(&mut self) -> Result<(Use, Latencies), Error> {
        let Phase::Counting(counting) = &self.phase else {
            return Ok((Use::default(), Latencies::default())); // Everything failed before anything counted.
        };
        let used = Reading::take(self.job.server_pid)?.since(&counting.before);
        self.total.merge(&self.interval);
        self.interval.clear();
        Ok((used, std::mem::take(&mut self.total)))
    }
}
