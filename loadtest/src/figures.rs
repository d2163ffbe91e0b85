//! Figures of echo servers against the physical limit, in interleaved rounds.
//!
//! Machines drift by more than servers differ, so no two rates are compared unless they were measured next
//! to each other: every round runs the limit program and then each server, and the ratios are taken round
//! by round. Servers run on one core, the load on another; each run gets a fresh server.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::client::Target;
use crate::cpu::Bound;
use crate::echo::{self, Check};
use crate::failure::Error;
use crate::frame;
use crate::payload::Kind;
use crate::units::{ByteSize, Micros, Rate};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The servers besides the limit program.
    pub peers: Vec<Peer>,
    /// The limit program.
    pub limit: PathBuf,
    /// The loads, one row of figures each.
    pub cells: Vec<Cell>,
    /// How often everything is measured.
    pub rounds: usize,
    /// How many rounds of a row are measured again if other work ran on the cores meanwhile.
    pub repeats: usize,
    /// How long one measurement counts.
    pub duration: Duration,
    /// Load before it counts.
    pub warmup: Duration,
    /// What messages are made of.
    pub kind: Kind,
    /// The servers' core.
    pub server_core: usize,
    /// The load generator's core.
    pub load_core: usize,
    /// Where every single measurement is written, for those who want to look themselves.
    pub csv: Option<PathBuf>,
}

/// A server to be measured: `NAME=COMMAND`.
///
/// In the command, `{port}` stands for the port on 127.0.0.1 to listen at, `{frame_in}` and `{frame_out}`
/// for the bytes of a request and of a reply. It is split at spaces and run without a shell, so that the
/// process that is started is the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// How the table calls it.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not NAME=COMMAND with {{port}} in the command");
        let (name, command) = text.split_once('=').ok_or_else(wrong)?;
        if name.is_empty() || !command.contains("{port}") {
            return Err(wrong());
        }
        Ok(Peer {
            name: name.to_owned(),
            command: command
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// One load: `CONNECTIONSxSIZExIN_FLIGHT`, such as `50x20x16` or `1x1MiBx1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    connections: usize,
    size: ByteSize,
    in_flight: usize,
}

/// The figures that are quoted.
pub const CELLS: [Cell; 7] = [
    Cell {
        connections: 50,
        size: ByteSize(20),
        in_flight: 1,
    },
    Cell {
        connections: 50,
        size: ByteSize(20),
        in_flight: 16,
    },
    Cell {
        connections: 50,
        size: ByteSize(20),
        in_flight: 128,
    },
    Cell {
        connections: 50,
        size: ByteSize(1 << 10),
        in_flight: 1,
    },
    Cell {
        connections: 10,
        size: ByteSize(16 << 10),
        in_flight: 1,
    },
    Cell {
        connections: 4,
        size: ByteSize(64 << 10),
        in_flight: 1,
    },
    Cell {
        connections: 1,
        size: ByteSize(1 << 20),
        in_flight: 1,
    },
];

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not CONNECTIONSxSIZExIN_FLIGHT, such as 50x20x16");
        let parts: Vec<_> = text.split('x').collect();
        let [connections, size, in_flight] = parts[..] else {
            return Err(wrong());
        };
        let positive = |text: &str| {
            text.parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(wrong)
        };
        Ok(Cell {
            connections: positive(connections)?,
            size: size.parse()?,
            in_flight: positive(in_flight)?,
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{} × {}, {} in flight",
            self.connections, self.size, self.in_flight
        ))
    }
}

const LIMIT: &str = "limit";
/// How long a server may take to listen.
const STARTUP: Duration = Duration::from_secs(10);

/// Measures everything; progress goes to the error stream, the table to the output as it grows.
///
/// # Errors
///
/// If a server does not start, or answers wrongly: no figure is worth printing then.
pub fn run(options: &Options) -> Result<(), Error> {
    let limit = Peer {
        name: LIMIT.to_owned(),
        command: [
            &options.limit.display().to_string(),
            "echo",
            "--listen",
            "127.0.0.1:{port}",
            "--frame-in",
            "{frame_in}",
            "--frame-out",
            "{frame_out}",
        ]
        .map(str::to_owned)
        .to_vec(),
    };
    let servers: Vec<Peer> = [limit]
        .into_iter()
        .chain(options.peers.iter().cloned())
        .collect();
    let mut csv = String::from(CSV_HEADER);
    println!("{TABLE_HEADER}");
    for cell in &options.cells {
        let rounds = measure_cell(*cell, &servers, options)?;
        for (server, samples) in servers.iter().zip(&rounds) {
            println!("{}", row(*cell, server, samples, &rounds[0]));
            for (round, sample) in samples.iter().enumerate() {
                sample.write_csv(&mut csv, *cell, round, &server.name);
            }
        }
        if let Some(path) = &options.csv {
            fs::write(path, &csv).map_err(Error::local(path.display()))?;
        }
    }
    Ok(())
}

/// For each server, its samples of all rounds.
///
/// A round in which other work ran on the cores is repeated as a whole, so that what is compared stays
/// side by side; its rates are not looked at to decide it. Once `repeats` are used up, rounds count as they are.
fn measure_cell(
    cell: Cell,
    servers: &[Peer],
    options: &Options,
) -> Result<Vec<Vec<Sample>>, Error> {
    let mut rounds = vec![Vec::with_capacity(options.rounds); servers.len()];
    let mut repeated = 0;
    while rounds[0].len() < options.rounds {
        let number = rounds[0].len() + 1;
        let round = measure_round(cell, number, servers, options)?;
        let is_contended = round.iter().any(|sample| sample.bound == Bound::Contended);
        if is_contended && repeated < options.repeats {
            repeated += 1;
            continue;
        }
        for (sample, samples) in round.into_iter().zip(&mut rounds) {
            samples.push(sample);
        }
    }
    show_progress("");
    if repeated > 0 {
        eprintln!("{cell}: {repeated} rounds were repeated, since other work ran on the cores");
    }
    Ok(rounds)
}

fn measure_round(
    cell: Cell,
    number: usize,
    servers: &[Peer],
    options: &Options,
) -> Result<Vec<Sample>, Error> {
    let measured = servers.iter().map(|server| {
        let name = &server.name;
        show_progress(&format!(
            "{cell}: round {number} of {}: {name}",
            options.rounds
        ));
        measure(cell, server, options)
    });
    measured.collect()
}

/// Replaces the last line of a terminal; elsewhere nobody looks on.
fn show_progress(line: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{line}");
    }
}

fn measure(cell: Cell, peer: &Peer, options: &Options) -> Result<Sample, Error> {
    let server = Server::start(peer, cell, options.server_core)?;
    pin(options.load_core)?;
    let url = format!("ws://{}/", server.address);
    let report = echo::run(&echo::Options {
        target: url.parse::<Target>().map_err(Error::Local)?,
        server_pid: Some(server.child.id()),
        connections: cell.connections,
        size: cell.size.0,
        in_flight: cell.in_flight,
        kind: options.kind,
        check: if peer.name == LIMIT || peer.command.iter().any(|word| word.contains("{frame_out}"))
        {
            Check::Length // It answers without having read.
        } else {
            Check::Sample
        },
        warmup: options.warmup,
        duration: options.duration,
    })?;
    if !report.failures.is_empty() {
        return Err(Error::Server(format!(
            "{} at {cell}:\n{}",
            peer.name, report.failures
        )));
    }
    let server = report.cost.server.expect("its process is known");
    Ok(Sample {
        rate: report.messages_per_second,
        user_us: server.user_us,
        system_us: server.system_us,
        server_busy: server.share.busy,
        own_busy: report.cost.own.busy,
        p50_us: report.round_trip_us.p50,
        p99_us: report.round_trip_us.p99,
        bound: report.cost.bound,
    })
}

/// A server process that ends with this value.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(peer: &Peer, cell: Cell, core: usize) -> Result<Self, Error> {
        let address = free_address().map_err(Error::local("no free port"))?;
        let filled = |word: &String| {
            word.replace("{port}", &address.port().to_string())
                .replace(
                    "{frame_in}",
                    &frame::client_frame_len(cell.size.0).to_string(),
                )
                .replace(
                    "{frame_out}",
                    &frame::server_frame_len(cell.size.0).to_string(),
                )
        };
        pin(core)?; // Inherited by the child; the caller moves on to its own.
        let child = Command::new(&peer.command[0])
            .args(peer.command[1..].iter().map(filled))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(Error::local(&peer.command[0]))?;
        let mut server = Server { child, address };
        server.await_listening(&peer.name)?;
        Ok(server)
    }

    fn await_listening(&mut self, name: &str) -> Result<(), Error> {
        let deadline = Instant::now() + STARTUP;
        while TcpStream::connect(self.address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::Server(format!(
                    "{name} ended before it listened: {status}"
                )));
            }
            if Instant::now() > deadline {
                return Err(Error::Server(format!(
                    "{name} does not listen on {} after {STARTUP:?}",
                    self.address
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Moves this thread to one core.
fn pin(core: usize) -> Result<(), Error> {
    let mut cores = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(Error::Local(format!("there is no core {core}")));
    }
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| Error::Local(format!("core {core}: {error}")))
}

/// How many cores this process may run on.
pub fn cores() -> usize {
    sched_getaffinity(None).map_or(1, |cores| cores.count() as usize)
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rate: f64,
    user_us: f64,
    system_us: f64,
    server_busy: f64,
    own_busy: f64,
    p50_us: f64,
    p99_us: f64,
    bound: Bound,
}

const CSV_HEADER: &str = "cell,round,server,messages_per_second,user_us,system_us,server_busy,load_busy,p50_us,p99_us,bound\n";

impl Sample {
    fn write_csv(&self, csv: &mut String, cell: Cell, round: usize, name: &str) {
        writeln!(
            csv,
            "{}x{}x{},{round},{name},{:.0},{:.3},{:.3},{:.3},{:.3},{:.1},{:.1},{}",
            cell.connections,
            cell.size.0,
            cell.in_flight,
            self.rate,
            self.user_us,
            self.system_us,
            self.server_busy,
            self.own_busy,
            self.p50_us,
            self.p99_us,
            self.bound
        )
        .expect("a string takes everything");
    }
}

const TABLE_HEADER: &str = "\
| conns × payload, in flight | server | messages/s | of limit | by round: median (min–max) | CPU µs/message: user + system | busy: server, load |
| --- | --- | --- | --- | --- | --- | --- |";

fn row(cell: Cell, server: &Peer, samples: &[Sample], limits: &[Sample]) -> String {
    let of = |pick: fn(&Sample) -> f64| median(samples.iter().map(pick));
    let rate = of(|sample| sample.rate);
    let of_limit = rate / median(limits.iter().map(|sample| sample.rate));
    let ratios = || {
        samples
            .iter()
            .zip(limits)
            .map(|(sample, limit)| sample.rate / limit.rate)
    };
    let (least, most) = (
        ratios().fold(f64::INFINITY, f64::min),
        ratios().fold(0.0, f64::max),
    );
    let mut spoilt = String::new();
    for bound in [Bound::Client, Bound::Contended, Bound::Neither] {
        match samples
            .iter()
            .filter(|sample| sample.bound == bound)
            .count()
        {
            0 => {}
            count => write!(spoilt, "; {bound} in {count} of {}", samples.len())
                .expect("a string takes everything"),
        }
    }
    format!(
        "| {cell} | {} | {} | {of_limit:.2} | {:.2} ({least:.2}–{most:.2}) | {} + {} | {:.0} %, {:.0} %{spoilt} |",
        server.name,
        Rate(rate),
        median(ratios()),
        Micros(of(|sample| sample.user_us)),
        Micros(of(|sample| sample.system_us)),
        of(|sample| sample.server_busy) * 100.0,
        of(|sample| sample.own_busy) * 100.0,
    )
}

/// The middle value, or the mean of the middle two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < f64::EPSILON);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn cells_are_read() {
        assert_eq!("50x20x16".parse(), Ok(CELLS[1]));
        assert_eq!("1x1MiBx1".parse(), Ok(CELLS[6]));
        for wrong in ["50x20", "0x20x1", "50x20x0", "ax20x1", "50x20x1x1"] {
            assert!(wrong.parse::<Cell>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn peers_are_read() {
        let peer: Peer = "uws=./uws --port {port}".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.command.len()), ("uws", 3));
        for wrong in ["./uws {port}", "=./uws {port}", "uws=./uws"] {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
    }

    fn sample(rate: f64) -> Sample {
        Sample {
            rate,
            user_us: 0.25,
            system_us: 4.0,
            server_busy: 0.99,
            own_busy: 0.8,
            p50_us: 1.0,
            p99_us: 2.0,
            bound: Bound::Server,
        }
    }

    #[test]
    fn row_compares_round_by_round() {
        let (samples, limits) = (
            [50.0, 160.0, 90.0].map(sample),
            [100.0, 200.0, 100.0].map(sample),
        );
        let peer = "peer=./peer {port}".parse().unwrap();
        let row = row(CELLS[0], &peer, &samples, &limits);
        assert!(
            row.contains("| 90.0 | 0.90 | 0.80 (0.50–0.90) | 0.250 + 4.00 | 99 %, 80 % |"),
            "{row}"
        );
    }
}
