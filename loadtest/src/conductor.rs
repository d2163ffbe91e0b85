//! A run: processes that make the load in step, a look at the server now and then, one report.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::client;
use crate::cpu::Use;
use crate::dial::Pace;
use crate::failure::{Error, Failures};
use crate::latency::Latencies;
use crate::outcome::{Counted, Outcome, Recorded, Seen};
use crate::process::{self, CpuTimes, Memory};
use crate::report::{Figure, Latency, Point, Report, ServerPoint, Unit};
use crate::scenario::Load;
use crate::target::Target;
use crate::units::float;
use crate::worker::{Job, Said, Tick, Until};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The load.
    pub load: Load,
    /// The server.
    pub target: Target,
    /// The server's process, for its CPU time and memory.
    pub server_pid: Option<u32>,
    /// How many processes make the load.
    pub processes: usize,
    /// Words before the command of each of these, of a program that watches it.
    pub prefix: Vec<String>,
    /// How connections are opened, by all processes together.
    pub pace: Pace,
    /// Load before anything is counted.
    pub warmup: Duration,
    /// When counting ends.
    pub until: Until,
    /// Whether to look at the server's CPU and memory while it works, which costs it a little.
    pub watches_server: bool,
}

/// Whoever wants to know how it goes.
pub trait Watch {
    /// So many connections of all are open.
    fn opening(&mut self, open: usize, of: usize);
    /// Load is made, but not counted yet.
    fn warming_up(&mut self);
    /// What happened since the last point; `failures` in all.
    fn point(&mut self, point: &Point, failures: u64);
    /// It is over.
    fn over(&mut self);
}

/// Nobody wants to know.
pub struct Unwatched;

impl Watch for Unwatched {
    fn opening(&mut self, _: usize, _: usize) {}
    fn warming_up(&mut self) {}
    fn point(&mut self, _: &Point, _: u64) {}
    fn over(&mut self) {}
}

/// Descriptors that are not connections: standard streams, epoll, /proc, the odd library.
const SPARE_DESCRIPTORS: usize = 32;

/// Runs a plan.
///
/// # Errors
///
/// If there is no server, if a process may not hold its share of the connections, or whatever kept a process
/// from having anything to report.
pub fn run(plan: &Plan, watch: &mut dyn Watch) -> Result<Report, Error> {
    client::require_server(&plan.target)?;
    require_descriptors(plan)?;
    let result = Conducting::start(plan, watch).and_then(Conducting::conduct);
    watch.over();
    result
}

fn require_descriptors(plan: &Plan) -> Result<(), Error> {
    let limit = usize::try_from(process::raise_descriptor_limit()).unwrap_or(usize::MAX);
    let room = limit.saturating_sub(SPARE_DESCRIPTORS);
    let wanted = plan.load.connections().div_ceil(plan.processes);
    if wanted <= room {
        return Ok(());
    }
    let processes = plan.load.connections().div_ceil(room.max(1));
    Err(Error::Local(format!(
        "a process may hold {room} connections, not {wanted}: use --processes {processes}"
    )))
}

struct Conducting<'a> {
    plan: &'a Plan,
    watch: &'a mut dyn Watch,
    workers: Vec<Worker>,
    said: Receiver<(usize, Said)>,
    gathered: Gathered,
    glimpse: Option<Glimpse>,
}

/// One process of the run, which ends with this value.
struct Worker {
    child: Child,
    input: ChildStdin,
    opened: usize,
    is_waiting: bool,
    outcome: Option<Outcome>,
    ticks: Vec<Tick>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What all processes said together.
#[derive(Default)]
struct Gathered {
    points: Vec<Point>,
    failures: u64,
}

impl<'a> Conducting<'a> {
    fn start(plan: &'a Plan, watch: &'a mut dyn Watch) -> Result<Self, Error> {
        let (sender, said) = channel();
        let workers = (0..plan.processes)
            .map(|index| Worker::start(plan, index, sender.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Conducting {
            plan,
            watch,
            workers,
            said,
            gathered: Gathered::default(),
            glimpse: None,
        })
    }

    fn conduct(mut self) -> Result<Report, Error> {
        // The senders live as long as the processes' outputs: all are gone once all have ended.
        while let Ok((index, said)) = self.said.recv() {
            match said {
                Said::Failed(error) => return Err(error),
                Said::Opened(count) => {
                    self.workers[index].opened = count;
                    let open = self.workers.iter().map(|worker| worker.opened).sum();
                    self.watch.opening(open, self.plan.load.connections());
                }
                Said::Waiting => self.release_if_all_wait(index)?,
                Said::Counting if index == 0 => self.glimpse = self.look(),
                Said::Counting => {}
                Said::Tick(tick) => {
                    self.workers[index].ticks.push(tick);
                    self.make_points();
                }
                Said::Done(outcome) => self.workers[index].outcome = Some(*outcome),
            }
        }
        self.report()
    }

    fn release_if_all_wait(&mut self, index: usize) -> Result<(), Error> {
        self.workers[index].is_waiting = true;
        if !self.workers.iter().all(|worker| worker.is_waiting) {
            return Ok(());
        }
        self.watch.warming_up();
        for worker in &mut self.workers {
            worker.is_waiting = false;
            worker
                .input
                .write_all(b"go\n")
                .map_err(Error::local("a process of the load"))?;
        }
        Ok(())
    }

    /// Makes a point of the ticks that all processes have told.
    fn make_points(&mut self) {
        let complete = self.workers.iter().map(|worker| worker.ticks.len()).min();
        while self.gathered.points.len() < complete.unwrap_or(0) {
            let nth = self.gathered.points.len();
            let ticks: Vec<_> = self
                .workers
                .iter()
                .map(|worker| &worker.ticks[nth])
                .collect();
            let since = self.gathered.points.last().map_or(0.0, |point| point.at);
            let mut point = point_of(&ticks, since);
            let now = self.look();
            point.server = now
                .zip(self.glimpse)
                .and_then(|(now, before)| now.since(&before));
            self.glimpse = now.or(self.glimpse);
            self.gathered.failures += point.failures;
            self.watch.point(&point, self.gathered.failures);
            self.gathered.points.push(point);
        }
    }

    fn look(&self) -> Option<Glimpse> {
        let pid = self.plan.server_pid?;
        self.plan.watches_server.then(|| Glimpse::of(pid).ok())?
    }

    fn report(mut self) -> Result<Report, Error> {
        let mut outcomes = Vec::new();
        for worker in &mut self.workers {
            let ended = worker.child.wait().map_err(Error::local("load"))?;
            let outcome = worker.outcome.take().ok_or_else(|| {
                Error::Local(format!("a process of the load ended too early: {ended}"))
            })?;
            outcomes.push(outcome);
        }
        Ok(self.plan.report(outcomes, self.gathered.points))
    }
}

impl Worker {
    fn start(plan: &Plan, index: usize, said: Sender<(usize, Said)>) -> Result<Self, Error> {
        let mut words = plan
            .prefix
            .iter()
            .map(PathBuf::from)
            .chain([this_program()?]);
        let mut child = Command::new(words.next().expect("this program is one"))
            .args(words)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::local("a process of the load"))?;
        let input = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let mut worker = Worker {
            child,
            input,
            opened: 0,
            is_waiting: false,
            outcome: None,
            ticks: Vec::new(),
        };
        let job = serde_json::to_string(&plan.job(index)).expect("a job has string keys only");
        writeln!(worker.input, "{job}").map_err(Error::local("a process of the load"))?;
        thread::spawn(move || listen(index, output, &said));
        Ok(worker)
    }
}

fn listen(index: usize, output: ChildStdout, said: &Sender<(usize, Said)>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        let heard = serde_json::from_str(&line).unwrap_or_else(|error| {
            Said::Failed(Error::Local(format!(
                "process {index} said {line:?}: {error}"
            )))
        });
        if said.send((index, heard)).is_err() {
            return;
        }
    }
}

fn this_program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(Error::local("where is this program?"))
}

impl Plan {
    fn job(&self, index: usize) -> Job {
        let shared = |all: f64| all / float(self.processes as u64);
        Job {
            load: self.load.clone(),
            target: self.target.clone(),
            server_pid: self.server_pid.filter(|_| index == 0),
            index,
            processes: self.processes,
            pace: Pace {
                per_second: self.pace.per_second.map(shared),
                at_once: self.pace.at_once.map(|all| all.div_ceil(self.processes)),
            },
            warmup: self.warmup,
            until: match self.until {
                Until::Counted(count) => Until::Counted(count.div_ceil(self.processes as u64)),
                elapsed @ Until::Elapsed(_) => elapsed,
            },
        }
    }

    fn report(&self, outcomes: Vec<Outcome>, series: Vec<Point>) -> Report {
        let used = used_together(&outcomes);
        let counted = added(&outcomes);
        let seconds = used.seconds;
        let first = counted.first().cloned();
        let mut figures: Vec<_> = counted
            .iter()
            .map(|counted| counted.per_second(seconds))
            .collect();
        figures.extend(measured(&outcomes));
        if let Some(memory) = self.server_pid.and_then(|pid| Memory::of(pid).ok()) {
            let bytes = |key, label, bytes| Figure::new(key, label, float(bytes), Unit::Bytes);
            figures.push(bytes(
                "server_private_dirty",
                "server private",
                memory.private_dirty,
            ));
            figures.push(bytes("server_resident", "server resident", memory.resident));
        }
        let latencies = latencies(&outcomes);
        let mut failures = Failures::default();
        for outcome in outcomes {
            failures.merge(outcome.failures);
        }
        let (count, one) = first.map_or((0, String::new()), |first| (first.count, first.one));
        Report {
            scenario: self.load.name().to_owned(),
            target: self.target.to_string(),
            load: self.load.describe(),
            seconds,
            counted: counted
                .into_iter()
                .map(|counted| (counted.key, counted.count))
                .collect(),
            figures,
            latencies,
            cost: used.cost(count, &one, self.processes),
            series,
            failures,
        }
    }
}

/// CPU time of all processes; the server's was read by the first.
fn used_together(outcomes: &[Outcome]) -> Use {
    let mut used = outcomes.first().map(|first| first.used).unwrap_or_default();
    used.own = outcomes.iter().map(|outcome| outcome.used.own).sum();
    used.own_waited = outcomes.iter().map(|outcome| outcome.used.own_waited).sum();
    used
}

fn added(outcomes: &[Outcome]) -> Vec<Counted> {
    let mut all: Vec<Counted> = Vec::new();
    for counted in outcomes.iter().flat_map(|outcome| &outcome.counted) {
        match all.iter_mut().find(|known| known.key == counted.key) {
            Some(known) => known.count += counted.count,
            None => all.push(counted.clone()),
        }
    }
    all
}

/// What one process measured for all, or the mean of what each did.
fn measured(outcomes: &[Outcome]) -> Vec<Figure> {
    let mut all: Vec<(Figure, f64)> = Vec::new();
    for figure in outcomes.iter().flat_map(|outcome| &outcome.measured) {
        match all.iter_mut().find(|(known, _)| known.key == figure.key) {
            Some((known, times)) => {
                known.value += figure.value;
                *times += 1.0;
            }
            None => all.push((figure.clone(), 1.0)),
        }
    }
    let mean = all.into_iter().map(|(figure, times)| Figure {
        value: figure.value / times,
        ..figure
    });
    mean.collect()
}

fn latencies(outcomes: &[Outcome]) -> Vec<Latency> {
    let mut all = recorded(outcomes);
    all.extend(last_receivers(outcomes));
    let summaries = all.into_iter().map(|(recorded, latencies)| Latency {
        key: recorded.key,
        label: recorded.label,
        summary: latencies.summary(),
    });
    summaries.collect()
}

/// Of messages that reached all their receivers, whatever process holds these: how long the last one waited.
fn last_receivers(outcomes: &[Outcome]) -> Option<(Recorded, Latencies)> {
    let mut messages: HashMap<u64, Seen> = HashMap::new();
    for seen in outcomes.iter().flat_map(|outcome| &outcome.last_seen) {
        messages
            .entry(seen.message)
            .and_modify(|known| {
                known.nanoseconds = known.nanoseconds.max(seen.nanoseconds);
                known.receivers += seen.receivers;
            })
            .or_insert(*seen);
    }
    let mut latencies = Latencies::default();
    let complete = messages.values().filter(|seen| seen.receivers == seen.of);
    complete.for_each(|seen| latencies.record(Duration::from_nanos(seen.nanoseconds)));
    let recorded = Recorded::new("last_subscriber", "last subscriber", &latencies);
    (latencies.count() > 0).then_some((recorded, latencies))
}

fn recorded(outcomes: &[Outcome]) -> Vec<(Recorded, Latencies)> {
    let mut all: Vec<(Recorded, Latencies)> = Vec::new();
    for recorded in outcomes.iter().flat_map(|outcome| &outcome.latencies) {
        if !all.iter().any(|(known, _)| known.key == recorded.key) {
            all.push((recorded.clone(), Latencies::default()));
        }
        for (_, latencies) in all
            .iter_mut()
            .filter(|(known, _)| known.key == recorded.key)
        {
            latencies.add(&recorded.counts);
        }
    }
    all
}

/// What all processes did in the same part of the run, which began at `since`.
fn point_of(ticks: &[&Tick], since: f64) -> Point {
    let at = ticks.iter().map(|tick| tick.at).fold(0.0, f64::max);
    let seconds = (at - since).max(f64::MIN_POSITIVE);
    let mut latencies = Latencies::default();
    for tick in ticks {
        latencies.add(&tick.latencies);
    }
    let quantile = |quantile| (latencies.count() > 0).then(|| latencies.at(quantile));
    Point {
        at,
        per_second: float(ticks.iter().map(|tick| tick.count).sum()) / seconds,
        p50: quantile(0.5),
        p99: quantile(0.99),
        server: None,
        own_busy: ticks.iter().map(|tick| tick.used).sum::<f64>() / seconds,
        failures: ticks.iter().map(|tick| tick.failures).sum(),
    }
}

/// What the server's process is at one moment.
#[derive(Clone, Copy)]
struct Glimpse {
    at: Instant,
    times: CpuTimes,
    memory: Memory,
}

impl Glimpse {
    fn of(pid: u32) -> std::io::Result<Self> {
        Ok(Glimpse {
            at: Instant::now(),
            times: CpuTimes::of(pid)?,
            memory: Memory::of(pid)?,
        })
    }

    fn since(&self, before: &Glimpse) -> Option<ServerPoint> {
        let elapsed = self.at.checked_duration_since(before.at)?;
        let used = self.times.since(&before.times);
        let part = |time: Duration| time.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        Some(ServerPoint {
            user: part(used.user),
            system: part(used.system),
            private_dirty: self.memory.private_dirty,
            resident: self.memory.resident,
        })
    }
}
