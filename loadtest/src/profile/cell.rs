//! The loads that are profiled, each under a name by which a later profile finds it again.

use crate::frame::{client_frame_len, server_frame_len};
use crate::payload::{Kind, Sizes};
use crate::scenario::broadcast::{self, Dialect};
use crate::scenario::echo::{self, Asking, Check};
use crate::scenario::{Load, connect};

/// One load of a profile.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its name.
    pub name: String,
    /// The load.
    pub load: Load,
    /// The path on the server.
    pub path: String,
    /// One of what it counts.
    pub one: &'static str,
    /// What it counts, as its report names it.
    pub key: &'static str,
    /// How many are counted in the shorter of two runs: enough for start-up not to be heard.
    pub count: u64,
}

/// All cells.
///
/// One connection with one message in flight pays a turn of the loop for each message: what it costs more
/// than each of 50 such connections, of which a busy loop finds all ready in every turn, is the turn itself.
pub fn all() -> Vec<Cell> {
    vec![
        echo(1, 20, 1, 10_000),
        echo(50, 20, 1, 60_000),
        echo(50, 20, 16, 80_000),
        echo(50, 20, 128, 200_000),
        echo(50, 1 << 10, 1, 20_000),
        echo(10, 16 << 10, 1, 4_000),
        echo(4, 64 << 10, 1, 2_000),
        broadcast(50, 1, 20_000),
        broadcast(50, 64, 400_000),
        broadcast(500, 1, 200_000),
        broadcast(500, 64, 2_000_000),
        everyone(50, 200_000),
        everyone(500, 10_000_000),
        connect(50, 4_000),
    ]
}

/// `echo-CONNECTIONSxBYTES-IN_FLIGHT`.
fn echo(connections: usize, size: usize, in_flight: usize, count: u64) -> Cell {
    Cell {
        name: format!("echo-{connections}x{size}-{in_flight}"),
        load: Load::Echo(echo::Options {
            connections,
            sizes: Sizes::Single(size),
            kind: Kind::Binary,
            asking: Asking::InFlight(in_flight),
            check: Check::Sample,
        }),
        path: "/".to_owned(),
        one: "message",
        key: "messages",
        count,
    }
}

/// `broadcast-SUBSCRIBERSxBYTES-BATCH`.
fn broadcast(subscribers: usize, batch: usize, count: u64) -> Cell {
    let options = broadcast::Options {
        subscribers,
        batch,
        ..topic()
    };
    deliveries(
        format!("broadcast-{subscribers}x{}-{batch}", options.size),
        options,
        count,
    )
}

/// `everyone-CLIENTSxBYTES`.
fn everyone(clients: usize, count: u64) -> Cell {
    let options = broadcast::Options {
        publishers: clients,
        is_everyone: true,
        ..topic()
    };
    deliveries(
        format!("everyone-{clients}x{}", options.size),
        options,
        count,
    )
}

/// One publisher and nobody else.
fn topic() -> broadcast::Options {
    broadcast::Options {
        subscribers: 0,
        publishers: 1,
        topics: 1,
        size: 64,
        batch: 1,
        asking: Asking::InFlight(1),
        stalled: 0,
        is_everyone: false,
        dialect: Dialect::Raw,
        check: Check::Sample,
        bystanders: broadcast::Bystanders::default(),
    }
}

fn deliveries(name: String, options: broadcast::Options, count: u64) -> Cell {
    Cell {
        name,
        load: Load::Broadcast(options),
        path: "/t/{topic}".to_owned(),
        one: "delivery",
        key: "deliveries",
        count,
    }
}

/// `connect-AT_A_TIME`.
fn connect(connections: usize, count: u64) -> Cell {
    Cell {
        name: format!("connect-{connections}"),
        load: Load::Connect(connect::Options {
            connections,
            is_storm: false,
            goal: connect::Goal::Handshake,
        }),
        path: "/".to_owned(),
        one: "handshake",
        key: "handshakes",
        count,
    }
}

impl Cell {
    /// What stentor has to be told to serve it.
    pub fn stentor(&self) -> String {
        let mode = match &self.load {
            Load::Broadcast(_) => "serve",
            _ => "echo",
        };
        format!("{mode} --listen 127.0.0.1:{{port}} --log-level off")
    }

    /// What `limit` has to be told to serve it, if it can.
    pub fn limit(&self) -> Option<String> {
        let exchange = |size| {
            let (frame_in, frame_out) = (client_frame_len(size), server_frame_len(size));
            format!("--frame-in {frame_in} --frame-out {frame_out}")
        };
        let work = match &self.load {
            Load::Echo(options) => format!("echo {}", exchange(options.sizes.single()?)),
            Load::Broadcast(options) => format!("fanout {}", exchange(options.size)),
            Load::Connect(_) => "connect".to_owned(),
            _ => return None,
        };
        Some(format!("{work} --listen 127.0.0.1:{{port}}"))
    }

    /// The same for a server that answers without reading.
    pub fn unchecked(mut self) -> Self {
        match &mut self.load {
            Load::Echo(options) => options.check = Check::Length,
            Load::Broadcast(options) => options.check = Check::Length,
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_cell_has_a_name_of_its_own_and_a_yardstick() {
        let cells = all();
        let names: BTreeSet<_> = cells.iter().map(|cell| &cell.name).collect();
        assert_eq!(names.len(), cells.len());
        assert!(cells.iter().all(|cell| cell.limit().is_some()));
    }

    #[test]
    fn limit_is_told_the_lengths_of_frames() {
        let limit = broadcast(50, 1, 1).limit();
        let expected = "fanout --frame-in 70 --frame-out 66 --listen 127.0.0.1:{port}";
        assert_eq!(limit.as_deref(), Some(expected));
    }
}
