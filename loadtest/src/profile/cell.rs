//! The loads that are profiled, each under a name by which a later profile finds it again.

use crate::frame::{client_frame_len, server_frame_len};
use crate::payload::{Kind, Sizes};
use crate::scenario::{Load, connect, echo};

/// One load of a profile.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its name.
    pub name: String,
    /// The load.
    pub load: Load,
    /// One of what it counts.
    pub one: &'static str,
    /// What it counts, as its report names it.
    pub key: &'static str,
    /// How many are counted in the shorter of two runs.
    pub count: u64,
}

/// Connections, payload bytes, messages in flight, and how many messages make instructions enough.
///
/// One connection with one message in flight pays a turn of the loop for each message: what it costs more
/// than 50 such connections, of which a busy loop finds all ready in every turn, is the turn itself.
const ECHOES: [(usize, usize, usize, u64); 7] = [
    (1, 20, 1, 10_000),
    (50, 20, 1, 20_000),
    (50, 20, 16, 80_000),
    (50, 20, 128, 200_000),
    (50, 1 << 10, 1, 20_000),
    (10, 16 << 10, 1, 4_000),
    (4, 64 << 10, 1, 2_000),
];
const CONNECTING: usize = 50;
const HANDSHAKES: u64 = 2_000;

/// All cells.
pub fn all() -> Vec<Cell> {
    let echoes = ECHOES.map(|(connections, size, in_flight, count)| Cell {
        name: format!("echo-{connections}x{size}-{in_flight}"),
        load: Load::Echo(echo::Options {
            connections,
            sizes: Sizes::Single(size),
            kind: Kind::Binary,
            asking: echo::Asking::InFlight(in_flight),
            check: echo::Check::Sample,
        }),
        one: "message",
        key: "messages",
        count,
    });
    let connect = Cell {
        name: format!("connect-{CONNECTING}"),
        load: Load::Connect(connect::Options {
            connections: CONNECTING,
            is_storm: false,
        }),
        one: "handshake",
        key: "handshakes",
        count: HANDSHAKES,
    };
    echoes.into_iter().chain([connect]).collect()
}

impl Cell {
    /// What stentor has to be told to serve it.
    pub fn stentor(&self) -> String {
        "echo --listen 127.0.0.1:{port} --log-level off".to_owned()
    }

    /// What `limit` has to be told to serve it; nothing if it cannot.
    pub fn limit(&self) -> Option<String> {
        let work = match &self.load {
            Load::Echo(options) => {
                let size = options.sizes.single()?;
                let (frame_in, frame_out) = (client_frame_len(size), server_frame_len(size));
                format!("echo --frame-in {frame_in} --frame-out {frame_out}")
            }
            Load::Connect(_) => "connect".to_owned(),
            Load::Broadcast(_) | Load::Churn(_) | Load::Idle(_) => return None,
        };
        Some(format!("{work} --listen 127.0.0.1:{{port}}"))
    }

    /// The same for a server that answers without reading.
    pub fn unchecked(mut self) -> Self {
        if let Load::Echo(options) = &mut self.load {
            options.check = echo::Check::Length;
        }
        self
    }
}
