//! One server, one load: started on its core, checked or measured from the others, and ended.

use std::time::Duration;

use super::cell::{Cell, STALLED_BATCH, Service};
use super::contestant::{Contestant, Cpu};
use super::record::Sample;
use crate::conductor::{self, Plan, Unwatched};
use crate::dial::Pace;
use crate::failure::Error;
use crate::payload::{Kind, Sizes};
use crate::report::Report;
use crate::scenario::broadcast::{self, Bystanders, Dialect};
use crate::scenario::echo::{self, Asking, Check};
use crate::scenario::{Load, connect, idle};
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
/// And where nothing was counted in that.
const LONG_CHECK: Duration = Duration::from_secs(2);

impl Bench {
    /// Measures a server in a cell.
    ///
    /// # Errors
    ///
    /// If anything fails: no figure of a server that fails is worth showing.
    pub fn measure(&self, contestant: &Contestant, cell: &Cell) -> Result<Sample, String> {
        let report = self
            .run(contestant, cell, load(cell, contestant), self.duration)
            .map_err(|error| error.to_string())?;
        without_failures(&report)?;
        Sample::of(&report, cell.group())
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
        for (cell, load) in checks(service, contestant.dialect()) {
            checking.check_load(contestant, &cell, &load)?;
        }
        Ok(())
    }

    /// Who is only slow is given more time.
    fn check_load(&self, contestant: &Contestant, cell: &Cell, load: &Load) -> Result<(), String> {
        for duration in [CHECK, LONG_CHECK] {
            let report = self
                .run(contestant, cell, load.clone(), duration)
                .map_err(|error| error.to_string())?;
            without_failures(&report)?;
            if report.counted.values().any(|count| *count > 0) {
                return Ok(());
            }
        }
        Err(format!("nothing came back in {LONG_CHECK:?}"))
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
        let target: Target = format!("ws://{}{}", server.address, path(contestant, cell))
            .parse()
            .map_err(Error::Local)?;
        let plan = Plan {
            load,
            target,
            server_pid: Some(match contestant.cpu() {
                Cpu::Started => server.pid(),
                Cpu::Children => server.only_child()?,
            }),
            processes: self.processes,
            pace: Pace::default(),
            warmup: self.warmup,
            until: Until::Elapsed(duration),
            watches_server: false,
            prefix: Vec::new(),
        };
        conductor::run(&plan, &mut Unwatched)
    }
}

/// Where a load is made.
fn path(contestant: &Contestant, cell: &Cell) -> &'static str {
    match cell.group().service() {
        Service::Echo => "/",
        Service::Broadcast => contestant.dialect().path(),
    }
}

/// The load of a cell.
fn load(cell: &Cell, contestant: &Contestant) -> Load {
    let check = check(contestant);
    let topic = topic(cell, contestant);
    match *cell {
        Cell::Echo {
            connections,
            size,
            in_flight,
            kind,
        } => Load::Echo(echo::Options {
            connections,
            sizes: Sizes::Single(size),
            kind,
            asking: Asking::InFlight(in_flight),
            check,
        }),
        Cell::Broadcast {
            subscribers, batch, ..
        }
        | Cell::Centrifugo {
            subscribers, batch, ..
        } => Load::Broadcast(broadcast::Options {
            subscribers,
            batch,
            ..topic
        }),
        Cell::Everyone { clients, .. } => Load::Broadcast(broadcast::Options {
            publishers: clients,
            is_everyone: true,
            ..topic
        }),
        Cell::Stalled {
            subscribers,
            stalled,
        } => Load::Broadcast(broadcast::Options {
            subscribers,
            stalled,
            batch: STALLED_BATCH,
            ..topic
        }),
        Cell::Bystanders {
            subscribers,
            bystanders: count,
            ..
        } => Load::Broadcast(broadcast::Options {
            subscribers,
            bystanders: Bystanders {
                count,
                ..Bystanders::default()
            },
            ..topic
        }),
        Cell::Connect { connections } => Load::Connect(connect::Options {
            connections,
            is_storm: false,
            goal: connect::Goal::Handshake,
        }),
        Cell::Idle { connections } => Load::Idle(idle::Options {
            connections,
            echo_once: true, // Who has never spoken may not even have a buffer yet.
            channel: None,
        }),
    }
}

/// How closely what comes back is looked at: the limit answers without having read.
fn check(contestant: &Contestant) -> Check {
    if contestant.is_limit() {
        Check::Length
    } else {
        Check::Sample
    }
}

/// One publisher and nobody else.
fn topic(cell: &Cell, contestant: &Contestant) -> broadcast::Options {
    broadcast::Options {
        subscribers: 0,
        publishers: 1,
        topics: 1,
        size: cell.size().unwrap_or(contestant.dialect().smallest()),
        batch: 1,
        asking: Asking::InFlight(1),
        stalled: 0,
        is_everyone: false,
        dialect: contestant.dialect(),
        check: check(contestant),
        bystanders: Bystanders::default(),
    }
}

/// What a server has to pass, every byte compared.
fn checks(service: Service, dialect: Dialect) -> Vec<(Cell, Load)> {
    match service {
        Service::Echo => [Kind::Binary, Kind::Mixed].map(echo_check).to_vec(),
        Service::Broadcast => [64, 16 << 10]
            .map(|size| broadcast_check(size, dialect))
            .to_vec(),
    }
}

/// Lengths on both sides of each limit of a frame's header.
fn echo_check(kind: Kind) -> (Cell, Load) {
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
        asking: Asking::InFlight(4),
        check: Check::Every,
    });
    (cell, load)
}

/// Two topics, which must not hear one another.
fn broadcast_check(size: usize, dialect: Dialect) -> (Cell, Load) {
    let (subscribers, batch) = (6, 3);
    let cell = match dialect {
        Dialect::Raw | Dialect::Nats => Cell::Broadcast {
            subscribers,
            size,
            batch,
        },
        Dialect::Centrifugo => Cell::Centrifugo {
            subscribers,
            size,
            batch,
        },
    };
    let load = Load::Broadcast(broadcast::Options {
        subscribers,
        publishers: 2,
        topics: 2,
        size,
        batch,
        asking: Asking::InFlight(2),
        stalled: 0,
        is_everyone: false,
        dialect,
        check: Check::Every,
        bystanders: Bystanders::default(),
    });
    (cell, load)
}

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
    Err(report.failures.lines().join("; "))
}
