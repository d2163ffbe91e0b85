//! What came of a run: the same shape for every scenario, for people, for programs and for plots.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpu::Cost;
use crate::failure::Failures;
use crate::latency::Summary;
use crate::units::{Micros, Rate};

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `echo`, `broadcast`, `connect`, `idle` or `churn`.
    pub scenario: String,
    /// The server's URL.
    pub target: String,
    /// What load was asked for, in one line.
    pub load: String,
    /// How long was counted.
    pub seconds: f64,
    /// How much of each kind was done while counting.
    pub counted: BTreeMap<String, u64>,
    /// Rates and measures, most important first.
    pub figures: Vec<Figure>,
    /// Latencies, most important first.
    pub latencies: Vec<Latency>,
    /// CPU time of the server and of the load generator, and whose limit the rate is.
    pub cost: Cost,
    /// How it went over time, from the end of the warm-up on.
    pub series: Vec<Point>,
    /// Everything that went wrong, warm-up included.
    pub failures: Failures,
}

/// One number with its unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name for programs, which stays: `messages_per_second`.
    pub key: String,
    /// Its name for people: `messages/s`.
    pub label: String,
    /// The number.
    pub value: f64,
    /// How to write it.
    pub unit: Unit,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// So many each second.
    PerSecond,
    /// So many.
    Count,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Microseconds,
    /// A ratio of one to another.
    Ratio,
}

/// Latencies of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Its name for programs: `round_trip`.
    pub key: String,
    /// Its name for people: `round trip`.
    pub label: String,
    /// The percentiles.
    #[serde(flatten)]
    pub summary: Summary,
}

/// A moment of a run: what happened since the moment before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds since counting began.
    pub at: f64,
    /// The first figure's rate.
    pub per_second: f64,
    /// The first latency's median in microseconds; absent if nothing was recorded.
    pub p50: Option<f64>,
    /// The same for 99 of 100.
    pub p99: Option<f64>,
    /// The server's CPU, if its process is known: parts of one core.
    pub server: Option<ServerPoint>,
    /// The load generator's CPU: parts of one core, all its processes together.
    pub own_busy: f64,
    /// Failures since the moment before.
    pub failures: u64,
}

/// What the server's process was at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerPoint {
    /// Part of one core in its own code.
    pub user: f64,
    /// Part of one core in the kernel.
    pub system: f64,
    /// Bytes of memory that are its own and written.
    pub private_dirty: u64,
    /// Bytes of memory that are resident.
    pub resident: u64,
}

impl Figure {
    /// A figure.
    pub fn new(key: &str, label: &str, value: f64, unit: Unit) -> Self {
        Figure {
            key: key.to_owned(),
            label: label.to_owned(),
            value,
            unit,
        }
    }
}

impl Report {
    /// The figure of that name.
    pub fn figure(&self, key: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.key == key)?;
        Some(figure.value)
    }

    /// The latencies of that name.
    pub fn latency(&self, key: &str) -> Option<&Summary> {
        let latency = self.latencies.iter().find(|latency| latency.key == key)?;
        Some(&latency.summary)
    }

    /// One header line and one line of values, for a spreadsheet that collects runs.
    pub fn csv(&self) -> (String, String) {
        let mut columns: Vec<(String, String)> = vec![
            ("scenario".into(), self.scenario.clone()),
            ("target".into(), self.target.clone()),
            ("load".into(), self.load.clone()),
            ("seconds".into(), format!("{:.3}", self.seconds)),
        ];
        for figure in &self.figures {
            columns.push((figure.key.clone(), format!("{:.3}", figure.value)));
        }
        for latency in &self.latencies {
            let Summary {
                p50,
                p90,
                p99,
                p999,
                max,
                ..
            } = latency.summary;
            for (name, value) in [
                ("p50", p50),
                ("p90", p90),
                ("p99", p99),
                ("p999", p999),
                ("max", max),
            ] {
                columns.push((format!("{}_{name}_us", latency.key), format!("{value:.1}")));
            }
        }
        if let Some(server) = self.cost.server {
            columns.push(("server_user_us".into(), format!("{:.4}", server.user_us)));
            columns.push((
                "server_system_us".into(),
                format!("{:.4}", server.system_us),
            ));
            columns.push(("server_busy".into(), format!("{:.3}", server.share.busy)));
        }
        columns.push(("own_busy".into(), format!("{:.3}", self.cost.own.busy)));
        columns.push(("bound".into(), self.cost.bound.to_string()));
        columns.push(("failures".into(), self.failures.total().to_string()));
        let (names, values): (Vec<_>, Vec<_>) = columns
            .into_iter()
            .map(|(name, value)| (name, quoted(&value)))
            .unzip();
        (names.join(","), values.join(","))
    }
}

fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\n']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::PerSecond | Unit::Count => write!(f, "{}", Rate(self.value)),
            Unit::Bytes if self.value < 10_240.0 => write!(f, "{:.0} B", self.value),
            Unit::Bytes if self.value < 10_485_760.0 => {
                write!(f, "{:.0} KiB", self.value / 1024.0)
            }
            Unit::Bytes => write!(f, "{:.0} MiB", self.value / 1_048_576.0),
            Unit::Microseconds => write!(f, "{} µs", Micros(self.value)),
            Unit::Ratio => write!(f, "{:.2}", self.value),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {}: {}, {:.2} s",
            self.scenario, self.target, self.load, self.seconds
        )?;
        for figure in &self.figures {
            writeln!(f, "  {:<15} {figure}", figure.label)?;
        }
        for latency in &self.latencies {
            writeln!(f, "  {:<15} {}", latency.label, latency.summary)?;
        }
        writeln!(f, "{}", self.cost.lines())?;
        write!(f, "{}", self.failures)
    }
}
