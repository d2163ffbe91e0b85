//! Idle load: what connections cost while they do nothing: memory, and CPU for the Pings that keep them.

use std::time::{Duration, Instant};

use mio::{Events, Poll};
use serde::{Deserialize, Serialize};
use stentor::protocol::Event;

use crate::centrifugo::{self, Subscription};
use crate::client::{Client, Fault, Shared, Width, require_server};
use crate::dial::{Dialer, Manners, Wanted};
use crate::failure::{Error, Failure, Failures};
use crate::kernel::SocketMemory;
use crate::outcome::{Counted, Outcome};
use crate::payload::Kind;
use crate::process::Memory;
use crate::report::{Figure, Unit};
use crate::scenario::broadcast::TOPIC;
use crate::units::float;
use crate::wait::wait;
use crate::worker::{Job, Line, Run, Said, Step};

/// What connections to hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// How many connections in the end.
    pub connections: usize,
    /// Whether each sends one message and awaits its echo before it falls idle.
    pub echo_once: bool,
    /// The channel that each subscribes to in Centrifugo's protocol, if that is spoken. `{topic}` in it, as in the path,
    /// becomes another for each connection.
    pub channel: Option<String>,
}

/// Connections at the first reading: everything a server allocates once has been allocated by then.
pub const BASE: usize = 200;
/// Memory has settled when it was the same this many times in a row.
const STEADY_READINGS: u32 = 4;
const BETWEEN_READINGS: Duration = Duration::from_millis(250);
/// A server whose memory never rests is read as it is after so many readings (10 s).
const MOST_READINGS: u32 = 40;
const ECHO_SIZE: usize = 20;
/// How long the echoes may take.
const ECHO_PATIENCE: Duration = Duration::from_secs(10);

impl Options {
    /// The load in one line.
    pub fn describe(&self) -> String {
        let echoed = if self.echo_once {
            ", after one echo each"
        } else {
            ""
        };
        let subscribed = match &self.channel {
            Some(channel) => format!(", Centrifugo, subscribed to {channel}"),
            None => String::new(),
        };
        let connections = self.connections;
        format!("{BASE} → {connections} idle connections{echoed}{subscribed}")
    }
}

/// Opens one process' share of the connections and holds them; the first process reads the server's memory
/// before and after.
///
/// # Errors
///
/// If there is no server or no such process, or if this process may not hold so many connections.
pub fn run(options: &Options, job: &Job, line: &mut Line<'_>) -> Result<Outcome, Error> {
    require_server(&job.target)?;
    let mut held = Held::new(options, job)?;
    held.open_up_to(job.share(BASE.min(options.connections)).0, line)?;
    let before = held.weigh(line)?;
    held.open_up_to(job.share(options.connections).0, line)?;
    let after = held.weigh(line)?;

    let mut run = Run::begin(job, line, std::mem::take(&mut held.failures));
    let mut events = Events::with_capacity(1024);
    loop {
        match run.step()? {
            Step::Continue(left) => held.turn(left, &mut events, &mut run)?,
            Step::Counting => {}
            Step::Over => break,
        }
    }
    let (used, _) = run.finish()?;
    let opened = options.connections.saturating_sub(BASE).max(1);
    Ok(Outcome {
        counted: vec![Counted::new("pings", "ping", run.count)],
        measured: before
            .zip(after)
            .map(|(before, after)| after.since(&before, opened))
            .unwrap_or_default(),
        used,
        failures: std::mem::take(&mut run.failures),
        ..Outcome::default()
    })
}

struct Held<'j> {
    options: &'j Options,
    job: &'j Job,
    poll: Poll,
    shared: Shared,
    clients: Vec<Option<Client>>,
    failures: Failures,
}

/// Memory at one moment.
#[derive(Clone, Copy, Debug)]
struct Weight {
    server: Option<Memory>,
    sockets: SocketMemory,
}

impl<'j> Held<'j> {
    fn new(options: &'j Options, job: &'j Job) -> Result<Self, Error> {
        Ok(Held {
            options,
            job,
            poll: Poll::new().map_err(Error::local("epoll"))?,
            shared: Shared::new(job.target.clone()),
            clients: Vec::new(),
            failures: Failures::default(),
        })
    }

    fn open_up_to(&mut self, count: usize, line: &mut Line<'_>) -> Result<(), Error> {
        let (_, first) = self.job.share(self.options.connections);
        let from = self.clients.len();
        let numbered =
            |template: &str, place: usize| template.replace(TOPIC, &format!("t{}", first + place));
        let channel = self.options.channel.as_deref();
        let subscription =
            |place: usize| Subscription::to(numbered(channel.unwrap_or_default(), place));
        let mut dialer = Dialer {
            poll: &mut self.poll,
            shared: &mut self.shared,
            clients: &mut self.clients,
            failures: &mut self.failures,
            pace: self.job.pace,
        };
        let wanted = Wanted {
            places: from..count,
            first,
            path: &|place| numbered(&self.job.target.path, place),
            width: &|_| Width::Normal,
            manners: match channel {
                Some(_) => Manners::Centrifugo(&subscription),
                None => Manners::Talkative,
            },
        };
        dialer.open(wanted, |open| {
            // Nobody listens any more: the next who has to be heard finds out.
            let _ = line.say(&Said::Opened(from + open));
        })?;
        if self.options.echo_once {
            self.echo_once(from)?;
        }
        Ok(())
    }

    /// Has every connection from a place on send one message, and compares what comes back.
    fn echo_once(&mut self, from: usize) -> Result<(), Error> {
        let payload = Kind::Ascii.payload(ECHO_SIZE);
        let text = std::str::from_utf8(&payload).expect("ASCII is UTF-8");
        let mut waiting = 0;
        for place in from..self.clients.len() {
            waiting += usize::from(self.with(place, |client, _| {
                client.send(text);
                client.flush()
            }));
        }
        let mut events = Events::with_capacity(1024);
        let deadline = Instant::now() + ECHO_PATIENCE;
        while waiting > 0 && Instant::now() < deadline {
            wait(&mut self.poll, &mut events, ECHO_PATIENCE)?;
            for readiness in &events {
                let mut answers = 0;
                let lives = self.with(readiness.token().0, |client, shared| {
                    client.ready(readiness)?;
                    client.receive(shared, |_, event| match event {
                        Event::Message(message) if message.payload() == payload => {
                            answers += 1;
                            Ok(())
                        }
                        Event::Message(_) => Err(Fault(
                            Failure::Corrupt,
                            "the echo is another message".into(),
                        )),
                        _ => Ok(()),
                    })
                });
                waiting = waiting.saturating_sub(answers + usize::from(!lives));
            }
        }
        if waiting > 0 {
            let what = "no echo before the connection fell idle";
            self.failures
                .add_many(Failure::Unanswered, waiting as u64, what);
        }
        Ok(())
    }

    /// Does something with a client, and buries it if that fails; says whether it lives.
    fn with(
        &mut self,
        place: usize,
        action: impl FnOnce(&mut Client, &mut Shared) -> Result<(), Fault>,
    ) -> bool {
        let Some(Some(client)) = self.clients.get_mut(place) else {
            return true; // It was counted when it failed.
        };
        match action(client, &mut self.shared) {
            Ok(()) => true,
            Err(Fault(failure, what)) => {
                self.clients[place] = None;
                self.failures
                    .add(failure, format_args!("connection {place}: {what}"));
                false
            }
        }
    }

    /// Reads memory while all processes hold what they have.
    fn weigh(&mut self, line: &mut Line<'_>) -> Result<Option<Weight>, Error> {
        line.wait_for_all()?;
        let weight = if self.job.index == 0 {
            let server = self.job.server_pid.map(settled_memory).transpose()?;
            Some(Weight {
                server,
                sockets: SocketMemory::now().map_err(Error::local("/proc/net/sockstat"))?,
            })
        } else {
            None
        };
        line.wait_for_all()?;
        Ok(weight)
    }

    /// Answers Pings; a server that drops connections must not look as if it held them for nothing.
    fn turn(
        &mut self,
        timeout: Duration,
        events: &mut Events,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Error> {
        wait(&mut self.poll, events, timeout)?;
        for readiness in events.iter() {
            let mut pings = 0;
            let is_centrifugo = self.options.channel.is_some();
            self.with(readiness.token().0, |client, shared| {
                client.ready(readiness)?;
                client.receive(shared, |client, event| match event {
                    Event::Ping(_) => {
                        pings += 1;
                        Ok(())
                    }
                    Event::Message(message) if is_centrifugo => {
                        pings += centrifugo::answer_pings(client, message.payload())?;
                        Ok(())
                    }
                    Event::Message(_) => {
                        let what = "an idle connection was sent a message";
                        Err(Fault(Failure::Surplus, what.into()))
                    }
                    _ => Ok(()),
                })
            });
            run.count += pings;
        }
        run.failures.merge(std::mem::take(&mut self.failures));
        Ok(())
    }
}

impl Weight {
    fn since(&self, before: &Weight, connections: usize) -> Vec<Figure> {
        let each = |label: &str, key: &str, before: u64, after: u64| {
            let growth = float(after) - float(before);
            Figure::new(key, label, growth / float(connections as u64), Unit::Bytes)
        };
        let mut figures = Vec::new();
        if let Some((before, after)) = before.server.zip(self.server) {
            let dirty = (before.private_dirty, after.private_dirty);
            figures.push(each(
                "private/conn",
                "private_dirty_bytes",
                dirty.0,
                dirty.1,
            ));
            figures.push(each(
                "resident/conn",
                "resident_bytes",
                before.resident,
                after.resident,
            ));
        }
        let (before, after) = (before.sockets, self.sockets);
        figures.push(each(
            "buffers/conn",
            "socket_buffer_bytes",
            before.buffers,
            after.buffers,
        ));
        if let Some((before, after)) = before.slab.zip(after.slab) {
            figures.push(each("kernel/conn", "kernel_slab_bytes", before, after));
        }
        figures
    }
}

fn settled_memory(pid: u32) -> Result<Memory, Error> {
    let read = || Memory::of(pid).map_err(Error::local(format!("memory of process {pid}")));
    let (mut last, mut steady) = (read()?, 0);
    for _ in 0..MOST_READINGS {
        std::thread::sleep(BETWEEN_READINGS);
        let memory = read()?;
        steady = if memory.private_dirty == last.private_dirty {
            steady + 1
        } else {
            0
        };
        last = memory;
        if steady >= STEADY_READINGS {
            break;
        }
    }
    Ok(last)
}
