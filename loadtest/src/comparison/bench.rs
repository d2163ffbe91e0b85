//! One server, one load: started on its core, checked or measured from the others, and ended.

use std::time::Duration;

use super::cell::{Cell, Service};
use super::contestant::Contestant;
use super::record::Sample;
use crate::conductor::{self, Plan, Unwatched};
use crate::dial::Pace;
use crate::failure::Error;
use crate::payload::{Kind, Sizes};
use crate::report::Report;
use crate::scenario::{Load, connect, echo, idle};
use crate::server::Server;
use crate::target::Target;
use crate::worker::Until;

/// How servers are measured.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// The core that servers are kept to, if there is more than one.
    pub server_core: Option<usize>,
    /// How many processes make the load.
    pub processes: usize,
    /// Load before it counts.
    pub warmup: Duration,
    /// How long it counts.
    pub duration: Duration,
}

/// How long each part of a check takes: thousands of messages of most servers.
const CHECK: Duration = Duration::from_millis(150);

impl Bench {
    /// Measures a server in a cell.
    ///
    /// # Errors
    ///
    /// If anything fails: no figure of a server that fails is worth showing.
    pub fn measure(&self, contestant: &Contestant, cell: &Cell) -> Result<Sample, String> {
        let report = self
            .run(contestant, cell, load(cell, contestant)?, self.duration)
            .map_err(|error| error.to_string())?;
        without_failures(&report)?;
        Sample::of(&report)
    }

    /// Whether a server does what the cells of a service take for granted.
    ///
    /// # Errors
    ///
    /// What it does instead.
    pub fn check(&self, contestant: &Contestant, service: Service) -> Result<(), String> {
        let checking = Bench {
            warmup: Duration::ZERO,
            ..*self
        };
        for (cell, load) in checks(service)? {
            let report = checking
                .run(contestant, &cell, load, CHECK)
                .map_err(|error| error.to_string())?;
            without_failures(&report)?;
            if report.counted.values().all(|count| *count == 0) {
                return Err(format!("nothing came back in {CHECK:?}"));
            }
        }
        Ok(())
    }

    fn run(
        &self,
        contestant: &Contestant,
        cell: &Cell,
        load: Load,
        duration: Duration,
    ) -> Result<Report, Error> {
        let name = &contestant.about.name;
        let command = contestant
            .command(cell)
            .ok_or_else(|| Error::Local(format!("{name} has no command for {cell}")))?;
        let server = Server::start(name, &command, contestant.folder(), self.server_core)?;
        let target: Target = format!("ws://{}{}", server.address, path(cell))
            .parse()
            .map_err(Error::Local)?;
        let plan = Plan {
            load,
            target,
            server_pid: Some(server.pid()),
            processes: self.processes,
            pace: Pace::default(),
            warmup: self.warmup,
            until: Until::Elapsed(duration),
            watches_server: false,
        };
        conductor::run(&plan, &mut Unwatched)
    }
}

/// Where a load is made.
fn path(cell: &Cell) -> &'static str {
    match cell.group().service() {
        Service::Echo => "/",
        Service::Broadcast => "/t/compare",
    }
}

/// The load of a cell.
fn load(cell: &Cell, contestant: &Contestant) -> Result<Load, String> {
    Ok(match *cell {
        Cell::Echo {
            connections,
            size,
            in_flight,
            kind,
        } => Load::Echo(echo::Options {
            connections,
            sizes: Sizes::Single(size),
            kind,
            asking: echo::Asking::InFlight(in_flight),
            check: if contestant.is_limit() {
                echo::Check::Length // It answers without having read.
            } else {
                echo::Check::Sample
            },
        }),
        Cell::Connect { connections } => Load::Connect(connect::Options {
            connections,
            is_storm: false,
        }),
        Cell::Idle { connections } => Load::Idle(idle::Options {
            connections,
            echo_once: true, // Who has never spoken may not even have a buffer yet.
        }),
        Cell::Broadcast { .. } | Cell::Everyone { .. } | Cell::Stalled { .. } => {
            return Err(NO_BROADCAST.to_owned());
        }
    })
}

/// What a server has to pass, every byte compared.
fn checks(service: Service) -> Result<Vec<(Cell, Load)>, String> {
    match service {
        // Lengths on both sides of each limit of a frame's header, in both kinds of message.
        Service::Echo => Ok([Kind::Binary, Kind::Mixed]
            .map(|kind| {
                let cell = Cell::Echo {
                    connections: 3,
                    size: 20,
                    in_flight: 4,
                    kind,
                };
                let load = Load::Echo(echo::Options {
                    connections: 3,
                    sizes: Sizes::Weighted(LENGTHS.to_vec()),
                    kind,
                    asking: echo::Asking::InFlight(4),
                    check: echo::Check::Every,
                });
                (cell, load)
            })
            .to_vec()),
        Service::Broadcast => Err(NO_BROADCAST.to_owned()),
    }
}

const NO_BROADCAST: &str = "the load tool has no broadcast scenario yet";

/// Lengths and how often each comes.
const LENGTHS: [(usize, u32); 8] = [
    (0, 4),
    (1, 4),
    (20, 20),
    (125, 8),
    (126, 8),
    (65_535, 1),
    (65_536, 1),
    (300_000, 1),
];

/// No figure counts where anything failed.
fn without_failures(report: &Report) -> Result<(), String> {
    if report.failures.is_empty() {
        return Ok(());
    }
    let words = report.failures.to_string();
    let words = words.lines().map(|line| {
        let line = line.trim();
        line.strip_prefix("FAILED").unwrap_or(line).trim()
    });
    Err(words.collect::<Vec<_>>().join("; "))
}
