//! What is measured: a load with its numbers, under a name that can be typed, such as `echo/50x20Bx16`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::payload::Kind;
use crate::units::ByteSize;

/// One load with its numbers: a row of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cell {
    /// Messages that come back.
    Echo {
        /// How many connections.
        connections: usize,
        /// Payload bytes.
        size: usize,
        /// Messages that each connection keeps unanswered.
        in_flight: usize,
        /// What messages are made of.
        kind: Kind,
    },
    /// One publisher, many subscribers.
    Broadcast {
        /// How many subscribers.
        subscribers: usize,
        /// Payload bytes.
        size: usize,
        /// Messages that are sent at once.
        batch: usize,
    },
    /// The same in Centrifugo's protocol, beside the server's raw topics.
    Centrifugo {
        /// How many subscribers.
        subscribers: usize,
        /// Payload bytes.
        size: usize,
        /// Messages that are sent at once.
        batch: usize,
    },
    /// Every client sends, and every client receives all of it.
    Everyone {
        /// How many clients.
        clients: usize,
        /// Payload bytes.
        size: usize,
    },
    /// Connections made and ended.
    Connect {
        /// How many at a time.
        connections: usize,
    },
    /// Connections that do nothing.
    Idle {
        /// How many in the end.
        connections: usize,
    },
    /// Subscribers of which some have stopped reading.
    Stalled {
        /// How many subscribers.
        subscribers: usize,
        /// How many of them have stopped.
        stalled: usize,
    },
    /// One publisher, many subscribers, and some who have nothing to do with it.
    Bystanders {
        /// How many subscribers.
        subscribers: usize,
        /// Payload bytes of what is published.
        size: usize,
        /// How many have nothing to do with it.
        bystanders: usize,
    },
}

/// Cells that share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Messages that come back.
    Echo,
    /// One publisher, many subscribers.
    Broadcast,
    /// The same in Centrifugo's protocol, beside raw topics.
    Centrifugo,
    /// All publish to all.
    Everyone,
    /// Connections made and ended.
    Connect,
    /// Connections that do nothing.
    Idle,
    /// Some have stopped reading.
    Stalled,
    /// Some have nothing to do with a broadcast.
    Bystanders,
}

/// What a server must do to take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Return each message.
    Echo,
    /// Pass each message on to a topic.
    Broadcast,
}

impl Group {
    /// All of them, in the order of the tables.
    pub const ALL: [Group; 8] = [
        Group::Echo,
        Group::Broadcast,
        Group::Centrifugo,
        Group::Everyone,
        Group::Connect,
        Group::Idle,
        Group::Stalled,
        Group::Bystanders,
    ];

    /// The part of a cell's name before the slash.
    pub fn name(self) -> &'static str {
        match self {
            Group::Echo => "echo",
            Group::Broadcast => "broadcast",
            Group::Centrifugo => "centrifugo",
            Group::Everyone => "everyone",
            Group::Connect => "connect",
            Group::Idle => "idle",
            Group::Stalled => "stalled",
            Group::Bystanders => "bystanders",
        }
    }

    /// What a server must do for it.
    pub fn service(self) -> Service {
        match self {
            Group::Echo | Group::Connect | Group::Idle => Service::Echo,
            Group::Broadcast
            | Group::Centrifugo
            | Group::Everyone
            | Group::Stalled
            | Group::Bystanders => Service::Broadcast,
        }
    }

    /// The latency that it is about where that is not the first of a report, as the report names it.
    pub fn apart(self) -> Option<&'static str> {
        match self {
            Group::Stalled => Some("last_subscriber"),
            Group::Bystanders => Some("bystander"),
            Group::Echo
            | Group::Broadcast
            | Group::Centrifugo
            | Group::Everyone
            | Group::Connect
            | Group::Idle => None,
        }
    }
}

impl Cell {
    /// The table it belongs to.
    pub fn group(&self) -> Group {
        match self {
            Cell::Echo { .. } => Group::Echo,
            Cell::Broadcast { .. } => Group::Broadcast,
            Cell::Centrifugo { .. } => Group::Centrifugo,
            Cell::Everyone { .. } => Group::Everyone,
            Cell::Connect { .. } => Group::Connect,
            Cell::Idle { .. } => Group::Idle,
            Cell::Stalled { .. } => Group::Stalled,
            Cell::Bystanders { .. } => Group::Bystanders,
        }
    }

    /// Connections at a time.
    pub fn connections(&self) -> usize {
        match *self {
            Cell::Echo { connections, .. }
            | Cell::Connect { connections }
            | Cell::Idle { connections } => connections,
            Cell::Broadcast { subscribers, .. }
            | Cell::Centrifugo { subscribers, .. }
            | Cell::Stalled { subscribers, .. } => subscribers + 1,
            Cell::Everyone { clients, .. } => clients,
            Cell::Bystanders {
                subscribers,
                bystanders,
                ..
            } => subscribers + 1 + bystanders,
        }
    }

    /// Payload bytes, where messages are sent.
    pub fn size(&self) -> Option<usize> {
        match *self {
            Cell::Echo { size, .. }
            | Cell::Broadcast { size, .. }
            | Cell::Centrifugo { size, .. }
            | Cell::Everyone { size, .. }
            | Cell::Bystanders { size, .. } => Some(size),
            Cell::Stalled { .. } => Some(STALLED_SIZE),
            Cell::Connect { .. } | Cell::Idle { .. } => None,
        }
    }

    /// In words, as the first column of a table has it.
    pub fn title(&self) -> String {
        match *self {
            Cell::Echo {
                connections,
                size,
                in_flight,
                kind,
            } => {
                let kind = match kind {
                    Kind::Binary => String::new(),
                    kind => format!(" {kind}"),
                };
                format!("{connections} × {}{kind}, {in_flight}", ByteSize(size))
            }
            Cell::Broadcast {
                subscribers,
                size,
                batch,
            }
            | Cell::Centrifugo {
                subscribers,
                size,
                batch,
            } => format!("{subscribers} × {}, {batch} at once", ByteSize(size)),
            Cell::Everyone { clients, size } => format!("{clients} × {}", ByteSize(size)),
            Cell::Connect { connections } => format!("{connections} at a time"),
            Cell::Idle { connections } => format!("{connections} connections"),
            Cell::Stalled {
                subscribers,
                stalled,
            } => format!("{stalled} of {subscribers} subscribers"),
            Cell::Bystanders {
                subscribers,
                size,
                bystanders,
            } => format!("{bystanders} beside {subscribers} × {}", ByteSize(size)),
        }
    }
}

/// Payload bytes and messages at once where they are not the question: enough to fill what buffers there are.
pub const STALLED_SIZE: usize = 1024;
/// See [`STALLED_SIZE`].
pub const STALLED_BATCH: usize = 16;

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = match *self {
            Cell::Echo {
                connections,
                size,
                in_flight,
                kind: Kind::Binary,
            } => format!("{connections}x{}x{in_flight}", Typed(size)),
            Cell::Echo {
                connections,
                size,
                in_flight,
                kind,
            } => format!("{connections}x{}x{in_flight}-{kind}", Typed(size)),
            Cell::Broadcast {
                subscribers,
                size,
                batch,
            } => format!("{subscribers}x{}x{batch}", Typed(size)),
            Cell::Centrifugo {
                subscribers,
                size,
                batch,
            } => format!("broadcast/{subscribers}x{}x{batch}", Typed(size)),
            Cell::Everyone { clients, size } => format!("{clients}x{}", Typed(size)),
            Cell::Connect { connections } | Cell::Idle { connections } => connections.to_string(),
            Cell::Stalled {
                subscribers,
                stalled,
            } => format!("{subscribers}x{stalled}"),
            Cell::Bystanders {
                subscribers,
                size,
                bystanders,
            } => format!("{subscribers}x{}x{bystanders}", Typed(size)),
        };
        f.pad(&format!("{}/{numbers}", self.group().name()))
    }
}

/// A size without the space: `1KiB`.
struct Typed(usize);

impl fmt::Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ByteSize(self.0).to_string().replace(' ', ""))
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let wrong = || format!("{name:?} is no cell: --list shows how they are called");
        let (group, numbers) = name.rsplit_once('/').ok_or_else(wrong)?;
        let (numbers, kind) = match numbers.split_once('-') {
            Some((numbers, kind)) if group == "echo" => (numbers, kind),
            _ => (numbers, "binary"),
        };
        let kind = <Kind as clap::ValueEnum>::from_str(kind, false).map_err(|_| wrong())?;
        let numbers: Vec<_> = numbers
            .split('x')
            .map(|number| number.parse::<ByteSize>().map(|ByteSize(number)| number))
            .collect::<Result<_, _>>()
            .map_err(|_| wrong())?;
        if numbers[0] == 0 {
            return Err(wrong());
        }
        match (group, &numbers[..]) {
            ("echo", &[connections, size, in_flight]) if in_flight > 0 => Ok(Cell::Echo {
                connections,
                size,
                in_flight,
                kind,
            }),
            ("broadcast", &[subscribers, size, batch]) if batch > 0 => Ok(Cell::Broadcast {
                subscribers,
                size,
                batch,
            }),
            ("centrifugo/broadcast", &[subscribers, size, batch]) if batch > 0 => {
                Ok(Cell::Centrifugo {
                    subscribers,
                    size,
                    batch,
                })
            }
            ("everyone", &[clients, size]) => Ok(Cell::Everyone { clients, size }),
            ("connect", &[connections]) => Ok(Cell::Connect { connections }),
            ("idle", &[connections]) => Ok(Cell::Idle { connections }),
            ("stalled", &[subscribers, stalled]) if stalled < subscribers => Ok(Cell::Stalled {
                subscribers,
                stalled,
            }),
            ("bystanders", &[subscribers, size, bystanders]) if bystanders > 0 => {
                Ok(Cell::Bystanders {
                    subscribers,
                    size,
                    bystanders,
                })
            }
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Cell {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Cell> for String {
    fn from(cell: Cell) -> String {
        cell.to_string()
    }
}

/// What is measured by default.
///
/// Not every size with every depth and every number of connections: each of the three is varied where it tells
/// something while the others stay where most users are.
///
/// - Sizes at depth 1, with so many connections that a server is never without work, and no more: large messages of
///   many connections measure the cache.
/// - Depth at 20 B, where gathering replies decides, and 16 at the sizes where it may. At 64 KiB and beyond one
///   message fills a receive buffer, and depth changes nothing.
/// - Connections at 20 B: 1 is the round trip, 5,000 what it costs to have many.
/// - Text where it is costly (beyond ASCII) and where it is not.
/// - Centrifugo's protocol beside raw topics, of the same server in the same rounds: only the ratio is its.
/// - The stalled beside none, of as many: only the difference is theirs.
const FULL: [&str; 40] = [
    "echo/1x20Bx1",
    "echo/50x20Bx1",
    "echo/500x20Bx1",
    "echo/5000x20Bx1",
    "echo/50x20Bx16",
    "echo/500x20Bx16",
    "echo/50x20Bx128",
    "echo/50x1KiBx1",
    "echo/500x1KiBx1",
    "echo/50x1KiBx16",
    "echo/10x16KiBx1",
    "echo/10x16KiBx16",
    "echo/4x64KiBx1",
    "echo/1x1MiBx1",
    "echo/50x1KiBx1-ascii",
    "echo/50x1KiBx1-cjk",
    "echo/10x16KiBx1-ascii",
    "echo/10x16KiBx1-cjk",
    "broadcast/50x64Bx1",
    "broadcast/50x64Bx64",
    "broadcast/500x64Bx1",
    "broadcast/500x64Bx64",
    "broadcast/500x1KiBx1",
    "broadcast/500x1KiBx64",
    "broadcast/500x16KiBx1",
    "broadcast/5000x64Bx1",
    "broadcast/5000x64Bx64",
    "broadcast/5000x1KiBx1",
    "broadcast/15000x64Bx1",
    "centrifugo/broadcast/500x64Bx1",
    "centrifugo/broadcast/500x64Bx64",
    "everyone/50x64B",
    "everyone/500x64B",
    "connect/50",
    "idle/10000",
    "stalled/500x1",
    "stalled/500x5",
    "stalled/10000x0",
    "stalled/10000x100",
    "bystanders/15000x64Bx10",
];

/// What tells most in the least time. Memory is not among it: a server needs seconds to come to rest.
const QUICK: [&str; 6] = [
    "echo/50x20Bx1",
    "echo/50x20Bx16",
    "echo/10x16KiBx1",
    "broadcast/500x64Bx1",
    "broadcast/500x64Bx64",
    "connect/50",
];

/// The cells of a full comparison.
pub fn full() -> Vec<Cell> {
    named(&FULL)
}

/// The cells of a quick one.
pub fn quick() -> Vec<Cell> {
    named(&QUICK)
}

fn named(names: &[&str]) -> Vec<Cell> {
    let cells = names.iter().map(|name| name.parse());
    cells
        .collect::<Result<_, _>>()
        .expect("the names are constant")
}

/// The cells that were asked for: those of `from` that match a pattern with `*`, or any by its name.
///
/// # Errors
///
/// If something matches nothing.
pub fn select(from: &[Cell], wanted: &[String]) -> Result<Vec<Cell>, String> {
    if wanted.is_empty() {
        return Ok(from.to_vec());
    }
    let mut selected: Vec<Cell> = Vec::new();
    for pattern in wanted {
        let found = if pattern.contains('*') {
            let matching = from
                .iter()
                .filter(|cell| matches(pattern, &cell.to_string()));
            matching.copied().collect()
        } else {
            vec![pattern.parse()?]
        };
        if found.is_empty() {
            return Err(format!("{pattern:?} matches no cell: --list shows them"));
        }
        selected.extend(found);
    }
    selected.sort_by_key(Cell::group); // Stable: within a table the order is kept.
    selected.dedup();
    Ok(selected)
}

/// Whether a name is what a pattern says, where `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in FULL.into_iter().chain(QUICK) {
            let cell: Cell = name.parse().unwrap();
            assert_eq!(cell.to_string(), name);
        }
    }

    #[test]
    fn names_without_a_load_are_refused() {
        let wrong = [
            "",
            "echo",
            "echo/50",
            "echo/50x20",
            "echo/0x20Bx1",
            "echo/50x20Bx0",
            "echo/50x20Bx1-klingon",
            "broadcast/50x64Bx1-ascii",
            "broadcast/50x64B",
            "stalled/5x5",
            "bystanders/5x64Bx0",
            "idle/many",
            "centrifugo/500x64Bx1",
            "centrifugo/broadcast/500x64Bx0",
            "churn/5",
        ];
        for name in wrong {
            assert!(name.parse::<Cell>().is_err(), "{name}");
        }
    }

    #[test]
    fn titles_are_for_people() {
        let title = |name: &str| name.parse::<Cell>().unwrap().title();
        assert_eq!(title("echo/50x1KiBx16"), "50 × 1 KiB, 16");
        assert_eq!(title("echo/50x1KiBx1-cjk"), "50 × 1 KiB cjk, 1");
        assert_eq!(title("broadcast/500x64Bx64"), "500 × 64 B, 64 at once");
        assert_eq!(
            title("centrifugo/broadcast/500x64Bx1"),
            "500 × 64 B, 1 at once"
        );
        assert_eq!(title("stalled/500x1"), "1 of 500 subscribers");
        assert_eq!(title("bystanders/500x64Bx3"), "3 beside 500 × 64 B");
    }

    #[test]
    fn cells_are_selected_by_pattern_or_by_name() {
        let select = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
            select(&full(), &wanted)
        };
        assert_eq!(select(&[]).unwrap(), full());
        assert!(
            select(&["echo/*"])
                .unwrap()
                .iter()
                .all(|cell| cell.group() == Group::Echo)
        );
        assert_eq!(select(&["echo/*x16KiBx1"]).unwrap().len(), 1);
        let unusual = select(&["idle/300", "echo/7x3Bx2"]).unwrap();
        assert_eq!(
            unusual.iter().map(Cell::to_string).collect::<Vec<_>>(),
            ["echo/7x3Bx2", "idle/300"]
        );
        assert!(select(&["nothing/*"]).is_err());
        assert!(select(&["nothing"]).is_err());
    }

    #[test]
    fn star_stands_for_anything() {
        for (pattern, name, is_match) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("a*c", "abc", true),
            ("a*c*", "abcd", true),
            ("a*d", "abc", false),
            ("*×*", "a×b", true),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }
}
