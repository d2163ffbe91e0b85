//! The numbers of one moment, as JSON: counters as they stand. What happened in between, whoever
//! shows them finds out from two of them.

use std::fs;
use std::time::Duration;

use serde::Serialize;
use stentor::{Context, Gauges, Histogram, Side, Stats};

use super::super::Place;
use super::super::metrics::CAUSES;
use super::super::overview::{self, Topics};
use super::super::raw::line;

#[derive(Serialize)]
struct Told<'a> {
    numbers: Numbers<'a>,
}

#[derive(Serialize)]
struct Numbers<'a> {
    /// Milliseconds since the first watcher came.
    at: u64,
    connections: usize,
    websockets: usize,
    streams: usize,
    subscriptions: usize,
    patterns: usize,
    queued: usize,
    histories: usize,
    kept: usize,
    history_memory: usize,
    /// Bytes of memory that the process has in use, where the system tells.
    resident: Option<u64>,
    accepted: u64,
    received: u64,
    published: u64,
    sent: u64,
    bytes_in: u64,
    bytes_out: u64,
    lost: u64,
    wrong_keys: u64,
    /// How many took how long: up to 1 µs, 2 µs, 4 µs and so on to 16.8 s, and longer.
    turn: Vec<u64>,
    fan_out: Vec<u64>,
    /// Side, close code and how many.
    closes: Vec<(&'static str, u16, u64)>,
    causes: Vec<(&'static str, u64)>,
    #[serde(flatten)]
    topics: Topics<'a>,
}

/// Goes through all topics and connections. `at` is the time to date it with.
pub(super) fn gather(ctx: &Context<'_, Place>, at: Duration, wrong_keys: u64) -> String {
    let (stats, gauges) = (ctx.stats(), ctx.gauges());
    line(&Told {
        numbers: Numbers {
            at: at.as_millis() as u64,
            wrong_keys,
            resident: resident(),
            topics: overview::largest(ctx),
            ..of(stats, &gauges)
        },
    })
}

fn of<'a>(stats: &Stats, gauges: &Gauges) -> Numbers<'a> {
    Numbers {
        at: 0,
        connections: gauges.connections,
        websockets: gauges.open,
        streams: gauges.streams,
        subscriptions: gauges.subscriptions,
        patterns: gauges.patterns,
        queued: gauges.queued,
        histories: gauges.histories,
        kept: gauges.kept_publications,
        history_memory: gauges.history_memory,
        resident: None,
        accepted: stats.accepted,
        received: stats.messages_in,
        published: stats.published,
        sent: stats.messages_out,
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        lost: stats.lost.total() + stats.dropped_closed + stats.dropped_slow,
        wrong_keys: 0,
        turn: counts(&stats.turn),
        fan_out: counts(&stats.fan_out),
        closes: closes(stats),
        causes: causes(stats),
        topics: Topics::default(),
    }
}

/// Each bucket by itself.
fn counts(histogram: &Histogram) -> Vec<u64> {
    let mut below = 0;
    let cumulative = histogram.cumulative();
    cumulative
        .map(|(_, total)| total - std::mem::replace(&mut below, total))
        .collect()
}

fn closes(stats: &Stats) -> Vec<(&'static str, u16, u64)> {
    let name = |side| match side {
        Side::Server => "server",
        Side::Peer => "peer",
    };
    stats
        .closes()
        .map(|(side, code, count)| (name(side), code, count))
        .collect()
}

fn causes(stats: &Stats) -> Vec<(&'static str, u64)> {
    let counts = CAUSES
        .iter()
        .map(|&cause| (cause.name(), stats.closed(cause)));
    counts.filter(|&(_, count)| count > 0).collect()
}

/// The resident set, in bytes. It stands in `statm` as well, but there in pages whose size is
/// nowhere to be read.
fn resident() -> Option<u64> {
    parse_resident(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn counters_are_told_as_they_stand() {
        let mut stats = Stats::default();
        (stats.published, stats.messages_out, stats.messages_in) = (7, 21, 8);
        (stats.lost.oldest, stats.dropped_slow) = (2, 3);
        stats.turn.record(Duration::from_micros(3));
        stats.turn.record(Duration::from_mins(1));
        let mut gauges = Gauges::default();
        (gauges.connections, gauges.open) = (4, 3);
        let numbers: Value = serde_json::from_str(&line(&of(&stats, &gauges))).unwrap();
        for (name, value) in [
            ("published", 7),
            ("sent", 21),
            ("received", 8),
            ("lost", 5),
            ("connections", 4),
            ("websockets", 3),
        ] {
            assert_eq!(numbers[name], value, "{name}");
        }
        let mut turn = vec![0; 26];
        (turn[2], turn[25]) = (1, 1);
        assert_eq!(numbers["turn"], json!(turn));
        assert_eq!(
            (&numbers["causes"], &numbers["closes"]),
            (&json!([]), &json!([]))
        );
    }

    #[test]
    fn memory_is_read_from_the_status_of_the_process() {
        let status = "Name:\tstentor\nVmHWM:\t  9000 kB\nVmRSS:\t    8124 kB\nThreads:\t1\n";
        assert_eq!(parse_resident(status), Some(8124 * 1024));
        assert_eq!(parse_resident("VmRSS:\t8124 pages\n"), None);
        assert_eq!(parse_resident(""), None);
        #[cfg(target_os = "linux")]
        assert!(resident().unwrap() > 1 << 20);
    }
}
