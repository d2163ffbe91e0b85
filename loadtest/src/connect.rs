//! Connection storm: connect, opening handshake, reset, over and over on a number of connections at a time.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;
use socket2::SockRef;

use crate::client::{self, Target};
use crate::cpu::{Cost, Reading};
use crate::failure::{Error, Failure, Failures};
use crate::handshake;
use crate::process;
use crate::units::{Rate, float};

/// What storm to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub target: Target,
    /// The server's process, for its CPU time.
    pub server_pid: Option<u32>,
    /// Connections being opened at any time.
    pub connections: usize,
    /// Storm before anything is counted.
    pub warmup: Duration,
    /// How long to count.
    pub duration: Duration,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    connections: usize,
    /// Handshakes completed while counting.
    pub handshakes: u64,
    /// The same each second.
    pub handshakes_per_second: f64,
    /// Server CPU for each, and our own.
    pub cost: Cost,
    /// Everything that went wrong, warm-up included.
    pub failures: Failures,
}

/// A storm of nothing but failures ends here instead of measuring how fast it fails.
const MOST_FAILURES: u64 = 1000;

/// Runs the storm.
///
/// # Errors
///
/// If there is no server.
pub fn run(options: &Options) -> Result<Report, Error> {
    process::raise_descriptor_limit();
    client::require_server(&options.target)?;
    let mut storm = Storm::new(options).map_err(Error::local("epoll"))?;
    let mut events = Events::with_capacity(1024);
    for slot in 0..options.connections {
        storm.connect(slot);
    }

    storm.run_for(options.warmup, &mut events)?;
    let (before, handshakes, began) = (
        Reading::take(options.server_pid)?,
        storm.handshakes,
        Instant::now(),
    );
    storm.run_for(options.duration, &mut events)?;
    let (after, handshakes) = (
        Reading::take(options.server_pid)?,
        storm.handshakes - handshakes,
    );
    storm.count_unanswered(began);

    let cost = after.cost_since(&before, handshakes, "connect");
    Ok(Report {
        connections: options.connections,
        handshakes,
        handshakes_per_second: float(handshakes) / cost.seconds,
        cost,
        failures: storm.failures,
    })
}

struct Storm {
    poll: Poll,
    target: Target,
    /// The same request every time, and what has to be in the answer.
    request: Vec<u8>,
    slots: Vec<Option<Opening>>,
    buffer: Box<[u8]>,
    handshakes: u64,
    failed: u64,
    failures: Failures,
}

/// A connection on its way.
struct Opening {
    stream: TcpStream,
    since: Instant,
    is_asked: bool,
    head: Vec<u8>,
}

impl Storm {
    fn new(options: &Options) -> io::Result<Self> {
        Ok(Storm {
            poll: Poll::new()?,
            target: options.target.clone(),
            request: handshake::request(&options.target, handshake::SAMPLE_KEY),
            slots: (0..options.connections).map(|_| None).collect(),
            buffer: vec![0; handshake::MAX_HEAD].into_boxed_slice(),
            handshakes: 0,
            failed: 0,
            failures: Failures::default(),
        })
    }

    fn run_for(&mut self, duration: Duration, events: &mut Events) -> Result<(), Error> {
        let deadline = Instant::now() + duration;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.failed >= MOST_FAILURES {
                return Ok(());
            }
            match self.poll.poll(events, Some(left)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(Error::local("epoll")(error));
                }
                _ => {}
            }
            for event in events.iter() {
                self.serve(event);
            }
        }
    }

    fn connect(&mut self, slot: usize) {
        let opening = TcpStream::connect(self.target.address).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(slot), interest)?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?; // Closing resets: no port waits.
            Ok(Opening {
                stream,
                since: Instant::now(),
                is_asked: false,
                head: Vec::new(),
            })
        });
        match opening {
            Ok(opening) => self.slots[slot] = Some(opening),
            Err(error) => self.fail(Failure::Connect, &error.to_string()),
        }
    }

    fn serve(&mut self, event: &Event) {
        let Token(slot) = event.token();
        let Some(mut opening) = self.slots[slot].take() else {
            return;
        };
        match opening.proceed(event, &self.request, &mut self.buffer) {
            Ok(false) => {
                self.slots[slot] = Some(opening);
                return;
            }
            Ok(true) => self.handshakes += 1,
            Err((failure, what)) => self.fail(failure, &what),
        }
        drop(opening);
        self.connect(slot);
    }

    /// Handshakes that took all the time there was, or longer.
    fn count_unanswered(&mut self, began: Instant) {
        for opening in self
            .slots
            .iter()
            .flatten()
            .filter(|opening| opening.since <= began)
        {
            let waited = opening.since.elapsed();
            self.failures.add(
                Failure::Unanswered,
                format_args!("no handshake after {waited:.1?}"),
            );
        }
    }

    fn fail(&mut self, failure: Failure, what: &str) {
        self.failed += 1;
        self.failures.add(failure, what);
    }
}

impl Opening {
    /// Goes on as far as the event lets it; true once the handshake is complete.
    fn proceed(
        &mut self,
        event: &Event,
        request: &[u8],
        buffer: &mut [u8],
    ) -> Result<bool, (Failure, String)> {
        if !self.is_asked && event.is_writable() {
            if let Ok(Some(error)) | Err(error) = self.stream.take_error() {
                return Err((Failure::Connect, error.to_string()));
            }
            // A new socket has room for a few hundred bytes.
            self.stream
                .write_all(request)
                .map_err(|error| (Failure::Connect, error.to_string()))?;
            self.is_asked = true;
        }
        if !self.is_asked || !event.is_readable() {
            return Ok(false);
        }
        match self.stream.read(buffer) {
            Ok(0) => {
                return Err((
                    Failure::Closed,
                    "closed before the handshake was answered".into(),
                ));
            }
            Ok(received) => self.head.extend_from_slice(&buffer[..received]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(false);
            }
            Err(error) => return Err((Failure::Closed, error.to_string())),
        }
        match handshake::head_len(&self.head) {
            Some(len) => handshake::check_response(&self.head[..len], handshake::SAMPLE_KEY)
                .map(|()| true)
                .map_err(|what| (Failure::Handshake, what)),
            None if self.head.len() > handshake::MAX_HEAD => {
                Err((Failure::Handshake, "the answer never ends".into()))
            }
            None => Ok(false),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "connect + handshake + reset, {} at a time, {:.2} s",
            self.connections, self.cost.seconds
        )?;
        writeln!(f, "  handshakes/s  {}", Rate(self.handshakes_per_second))?;
        writeln!(f, "{}", self.cost.lines())?;
        write!(f, "{}", self.failures)
    }
}
