//! Reports such as runs bring forth, without a run.

use loadtest::cpu::{Bound, Cost, ServerCost, Share};
use loadtest::failure::{Failure, Failures};
use loadtest::latency::{Latencies, Summary};
use loadtest::page::Circumstances;
use loadtest::plot::{Across, Bar, Bars, Line, Lines, Mark, Quantity, Row, Steps};
use loadtest::report::{Figure, Latency, Point, Report, ServerPoint, Unit};

use std::collections::BTreeMap;
use std::time::Duration;

/// A server at its limit.
pub(crate) fn echo() -> Report {
    let round_trip = latencies(180.0, 1.0);
    Report {
        scenario: "echo".into(),
        target: "ws://127.0.0.1:9001/".into(),
        load: "50 connections × 20 B binary, 1 in flight each".into(),
        seconds: 10.003,
        counted: BTreeMap::from([("messages".into(), 2_115_007)]),
        figures: vec![
            Figure::new(
                "messages_per_second",
                "messages/s",
                211_437.2,
                Unit::PerSecond,
            ),
            Figure::new("bytes_per_second", "payload/s", 4_228_744.0, Unit::Bytes),
            Figure::new("batching", "batching", 12.3, Unit::Count),
        ],
        latencies: vec![latency("round_trip", "round trip", round_trip)],
        cost: Cost {
            per: "message".into(),
            seconds: 10.003,
            own: Share {
                busy: 0.713,
                waiting: 0.01,
            },
            server: Some(ServerCost {
                share: Share {
                    busy: 0.994,
                    waiting: 0.0,
                },
                user_us: 0.612,
                system_us: 4.09,
            }),
            bound: Bound::Server,
        },
        series: (0..100).map(moment).collect(),
        failures: Failures::default(),
    }
}

/// Many subscribers, a load generator at its own limit, a server process that nobody named, and a server
/// that breaks down and calls names.
pub(crate) fn broadcast() -> Report {
    let mut failures = Failures::default();
    failures.add_many(
        Failure::Gap,
        1_204,
        "<img src=x onerror=alert(1)> message 17 after 12",
    );
    failures.add_many(Failure::Closed, 31, "");
    let mut report = Report {
        scenario: "broadcast".into(),
        target: "ws://10.0.0.7:9001/chat?\"><script>alert(1)</script>".into(),
        load: "1000 subscribers × 64 B, 4 publishers".into(),
        figures: vec![
            Figure::new(
                "deliveries_per_second",
                "deliveries/s",
                1_904_210.0,
                Unit::PerSecond,
            ),
            Figure::new(
                "publishes_per_second",
                "publishes/s",
                1_904.2,
                Unit::PerSecond,
            ),
            Figure::new(
                "spread",
                "first to last subscriber",
                1_410.0,
                Unit::Microseconds,
            ),
        ],
        latencies: vec![
            latency("delivery", "delivery", latencies(2_400.0, 2.0)),
            latency("publish", "publish to own echo", latencies(900.0, 1.0)),
            latency("slowest", "slowest subscriber", latencies(2_900.0, 3.0)),
        ],
        failures,
        ..echo()
    };
    report.cost.bound = Bound::Client;
    report.cost.own.busy = 0.998;
    report.cost.server = None;
    for point in &mut report.series {
        point.server = None;
        point.per_second *= 9.0;
        if (6.0..7.0).contains(&point.at) {
            point.p50 = None;
            point.p99 = None;
            point.per_second = 0.0;
            point.failures = 120;
        }
    }
    report
}

/// Memory, and no rate whose limit could be asked for.
pub(crate) fn idle() -> Report {
    let echo = echo();
    Report {
        scenario: "idle".into(),
        load: "200 → 10000 connections".into(),
        figures: vec![
            Figure::new(
                "private_bytes",
                "private per connection",
                208.4,
                Unit::Bytes,
            ),
            Figure::new(
                "resident_bytes",
                "resident per connection",
                231.0,
                Unit::Bytes,
            ),
        ],
        latencies: vec![],
        cost: Cost {
            bound: Bound::Neither,
            ..echo.cost
        },
        series: vec![],
        ..echo
    }
}

pub(crate) fn circumstances() -> Circumstances {
    Circumstances {
        date: "2025-03-04T05:06:07Z".into(),
        machine: "AMD EPYC 7763 64-Core Processor, 2 cores, 7.8 GiB".into(),
        kernel: "Linux 6.12.8 x86_64".into(),
        command: "loadtest echo ws://127.0.0.1:9001/ --connections 50 --size 20 --duration 10s \
                  --server-pid 4711 --html echo.html"
            .into(),
    }
}

/// Ratios of several servers to the limit.
pub(crate) fn ratios() -> Bars {
    let loads = [
        "50 × 20 B, 1 in flight",
        "50 × 20 B, 16 in flight",
        "10 × 16 KiB, 1 in flight",
        "1 × 1 MiB, 1 in flight",
    ];
    let servers = [
        ("stentor", 0.96),
        ("uWebSockets", 0.88),
        ("fastwebsockets", 0.83),
        ("ws (Node)", 0.31),
    ];
    let row = |(place, label): (usize, &&str)| Row {
        label: (*label).into(),
        bars: servers
            .into_iter()
            .map(|(server, ratio)| {
                let value = ratio * (1.0 - f64::from(place as u32) * 0.06);
                Bar {
                    server: server.into(),
                    value: (server != "ws (Node)" || place != 3).then_some(value),
                    low: value * 0.96,
                    high: value * 1.03,
                }
            })
            .collect(),
    };
    Bars {
        title: "Echo rate against the physical limit".into(),
        unit: Unit::Ratio,
        steps: Steps::Linear,
        limit: Some(Mark {
            value: 1.0,
            label: "limit".into(),
        }),
        rows: loads.iter().enumerate().map(row).collect(),
    }
}

/// Memory of several servers.
pub(crate) fn memory() -> Bars {
    let servers = [
        ("stentor", 112.0),
        ("uWebSockets", 464.0),
        ("fastwebsockets", 9_300.0),
        ("ws (Node)", 41_000.0),
        ("tungstenite", 140_000.0),
    ];
    let bar = |(server, value): (&str, f64)| Bar {
        server: server.into(),
        value: Some(value),
        low: value * 0.99,
        high: value * 1.2,
    };
    Bars {
        title: "Memory per idle connection".into(),
        unit: Unit::Bytes,
        steps: Steps::Log,
        limit: None,
        rows: vec![Row {
            label: "10 000 connections".into(),
            bars: servers.into_iter().map(bar).collect(),
        }],
    }
}

/// Round trips of several servers.
pub(crate) fn curves() -> Lines {
    let servers = [
        ("stentor", 180.0, 1.0),
        ("uWebSockets", 195.0, 1.0),
        ("fastwebsockets", 204.0, 2.0),
        ("gorilla", 420.0, 3.0),
        ("ws (Node)", 640.0, 6.0),
    ];
    Lines {
        title: "Round trips by percentile, 50 × 20 B".into(),
        across: Across::Quantiles,
        quantity: Quantity::Micros,
        steps: Steps::Log,
        lines: servers
            .into_iter()
            .map(|(server, median, tail)| {
                let Summary { curve, count, .. } = latencies(median, tail);
                Line::quantiles(server, &curve, count)
            })
            .collect(),
        limit: None,
    }
}

fn latency(key: &str, label: &str, summary: Summary) -> Latency {
    Latency {
        key: key.into(),
        label: label.into(),
        summary,
    }
}

/// Most about the median, few far away.
fn latencies(median: f64, tail: f64) -> Summary {
    let mut latencies = Latencies::default();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200_000 {
        let rare = -random.f64().max(1e-9).log10(); // How many nines.
        let micros = median * (0.8 + 0.4 * random.f64()) * (1.0 + 0.12 * tail * rare.powi(3));
        latencies.record(Duration::from_secs_f64(micros / 1e6));
    }
    latencies.summary()
}

pub(crate) fn moment(index: u32) -> Point {
    let at = f64::from(index + 1) / 10.0;
    let wave = (at * 2.3).sin() * (at * 0.7).cos();
    Point {
        at,
        per_second: 211_000.0 + 6_000.0 * wave,
        p50: Some(182.0 - 9.0 * wave),
        p99: Some(410.0 - 60.0 * wave + if index == 42 { 2_100.0 } else { 0.0 }),
        server: Some(ServerPoint {
            user: 0.13 + 0.01 * wave,
            system: 0.86 - 0.012 * wave,
            private_dirty: 1_100_000 + u64::from(index.min(30)) * 4096,
            resident: 3_600_000 + u64::from(index.min(30)) * 4096,
        }),
        own_busy: 0.71 - 0.03 * wave,
        failures: 0,
    }
}
