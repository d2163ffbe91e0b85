//! Idle load: what a connection costs in memory while it does nothing.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde::Serialize;

use crate::client::{self, Target};
use crate::failure::{Error, Failure, Failures};
use crate::frame;
use crate::payload::Kind;
use crate::process::{self, Memory};
use crate::units::float;

/// What connections to hold.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub target: Target,
    /// The server's process, whose memory is read.
    pub server_pid: u32,
    /// How many connections in the end.
    pub connections: usize,
    /// Whether each sends one message and awaits its echo before it falls idle.
    pub echo_once: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Connections at the first reading.
    pub from: usize,
    /// Connections at the second.
    pub to: usize,
    /// Growth of the process' own memory for each connection between the readings.
    pub private_dirty_bytes: f64,
    /// Growth of its resident memory, for comparison.
    pub resident_bytes: f64,
    /// Everything that went wrong.
    pub failures: Failures,
}

/// Connections at the first reading: everything a server allocates once has been allocated by then.
const BASE: usize = 200;
/// Descriptors that are not connections: standard streams, /proc, the odd library.
const SPARE_DESCRIPTORS: usize = 16;
/// Memory has settled when it was the same this many times in a row.
const STEADY_READINGS: u32 = 4;
const BETWEEN_READINGS: Duration = Duration::from_millis(250);
/// A server whose memory never rests is read as it is after so many readings (10 s).
const MOST_READINGS: u32 = 40;
const ECHO_SIZE: usize = 20;

/// Opens the connections and reads the server's memory before and after.
///
/// # Errors
///
/// If there is no server or no such process, or if this process may not hold so many connections.
pub fn run(options: &Options) -> Result<Report, Error> {
    let descriptors = process::raise_descriptor_limit();
    let room = usize::try_from(descriptors)
        .unwrap_or(usize::MAX)
        .saturating_sub(SPARE_DESCRIPTORS);
    if options.connections > room {
        return Err(Error::Local(format!(
            "this process may hold {room} connections, not {}",
            options.connections
        )));
    }
    if options.connections <= BASE {
        return Err(Error::Local(format!(
            "the growth is measured from {BASE} connections on: ask for more"
        )));
    }
    client::require_server(&options.target)?;

    let mut held = Held {
        streams: Vec::with_capacity(options.connections),
        failures: Failures::default(),
    };
    held.open_up_to(BASE, options);
    let before = settled_memory(options.server_pid)?;
    let from = held.streams.len();
    held.open_up_to(options.connections, options);
    let after = settled_memory(options.server_pid)?;
    let to = held.streams.len();
    held.require_still_open();

    let each =
        |before: u64, after: u64| (float(after) - float(before)) / float((to - from).max(1) as u64);
    Ok(Report {
        from,
        to,
        private_dirty_bytes: each(before.private_dirty, after.private_dirty),
        resident_bytes: each(before.resident, after.resident),
        failures: held.failures,
    })
}

struct Held {
    streams: Vec<TcpStream>,
    failures: Failures,
}

impl Held {
    fn open_up_to(&mut self, count: usize, options: &Options) {
        for index in self.streams.len()..count {
            let opened = client::open(&options.target, client::source(index, &options.target));
            let ready = opened.and_then(|mut stream| {
                if options.echo_once {
                    echo_once(&mut stream)?;
                }
                Ok(stream)
            });
            match ready {
                Ok(stream) => self.streams.push(stream),
                Err((failure, what)) => self.failures.add(failure, what),
            }
        }
    }

    /// A server that drops connections must not look as if it held them for nothing.
    fn require_still_open(&mut self) {
        for stream in &self.streams {
            let state = stream
                .set_nonblocking(true)
                .and_then(|()| stream.peek(&mut [0]));
            match state {
                Ok(0) => self
                    .failures
                    .add(Failure::Closed, "an idle connection was closed"),
                Ok(_) => self
                    .failures
                    .add(Failure::Surplus, "an idle connection was sent something"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => self.failures.add(Failure::Closed, error),
            }
        }
    }
}

fn echo_once(stream: &mut TcpStream) -> Result<(), (Failure, String)> {
    let payload = Kind::Ascii.payload(ECHO_SIZE);
    let (mut request, mut expected) = (Vec::new(), Vec::new());
    frame::push_client_frame(
        &mut request,
        Kind::Ascii.opcode(),
        &payload,
        frame::random_mask(),
    );
    frame::push_server_frame(&mut expected, Kind::Ascii.opcode(), &payload);

    let mut reply = vec![0; expected.len()];
    let exchanged = stream
        .write_all(&request)
        .and_then(|()| stream.read_exact(&mut reply));
    exchanged.map_err(|error| (Failure::Unanswered, error.to_string()))?;
    if reply == expected {
        Ok(())
    } else {
        Err((Failure::Corrupt, format!("the echo is {reply:02x?}")))
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} → {} idle connections", self.from, self.to)?;
        writeln!(
            f,
            "  private dirty {:.0} bytes per connection",
            self.private_dirty_bytes
        )?;
        writeln!(
            f,
            "  resident      {:.0} bytes per connection",
            self.resident_bytes
        )?;
        write!(f, "{}", self.failures)
    }
}
