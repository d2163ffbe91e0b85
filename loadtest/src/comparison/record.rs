//! Every single measurement of a comparison, and the file that keeps them.
//!
//! The file is a table of comma-separated values. Lines before it that begin with `#` are a TOML document: where,
//! when and with which servers it was measured, so that the tables can be made again from the file alone.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Group};
use super::contestant::About;
use super::setting::Setting;
use crate::cpu::Bound;
use crate::report::Report;

/// All there is to say of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// What the tables say beside their figures.
    pub head: Head,
    /// Every measurement, in the order in which they were made.
    pub measurements: Vec<Measurement>,
}

/// Where, when and with which servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Where and when.
    pub setting: Setting,
    /// How each measurement was made, in words.
    pub method: String,
    /// The servers, in the order of the columns.
    #[serde(default)]
    pub server: Vec<About>,
    /// Servers that were left out, and why.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// A server that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// What it was left out of.
    pub from: String,
    /// Why.
    pub reason: String,
}

/// One server in one round of one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The load.
    pub cell: Cell,
    /// Which round, from 1 on.
    pub round: usize,
    /// The server's name.
    pub server: String,
    /// What was measured, or the words of what failed.
    pub result: Result<Sample, String>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Things done in a second: messages, deliveries, handshakes.
    pub per_second: f64,
    /// Microseconds of the server's own code for each thing.
    pub user_us: f64,
    /// Microseconds of the kernel on its behalf for each thing.
    pub system_us: f64,
    /// Part of the server's core.
    pub server_busy: f64,
    /// Part of a core that the load took.
    pub own_busy: f64,
    /// The median of the first latency, in microseconds.
    pub p50_us: Option<f64>,
    /// What 99 of 100 did not exceed.
    pub p99_us: Option<f64>,
    /// The median of the latency that the cell's group is about, where that is told apart.
    pub apart_p50_us: Option<f64>,
    /// What 99 of 100 of those did not exceed.
    pub apart_p99_us: Option<f64>,
    /// Written private memory for each connection.
    pub private_bytes: Option<f64>,
    /// Resident memory for each connection.
    pub resident_bytes: Option<f64>,
    /// What set the pace.
    pub bound: Bound,
}

impl Sample {
    /// The part of a report that is compared.
    ///
    /// # Errors
    ///
    /// If the report does not say what the server used.
    pub fn of(report: &Report, group: Group) -> Result<Self, String> {
        let server = report.cost.server.ok_or("its CPU time is not known")?;
        let first = report.figures.first().ok_or("nothing was counted")?;
        let latency = report.latencies.first();
        let latency = latency.filter(|latency| latency.summary.count > 0);
        let apart = group.apart().and_then(|key| report.latency(key));
        let apart = apart.filter(|summary| summary.count > 0);
        Ok(Sample {
            per_second: first.value,
            user_us: server.user_us,
            system_us: server.system_us,
            server_busy: server.share.busy,
            own_busy: report.cost.own.busy,
            p50_us: latency.map(|latency| latency.summary.p50),
            p99_us: latency.map(|latency| latency.summary.p99),
            apart_p50_us: apart.map(|summary| summary.p50),
            apart_p99_us: apart.map(|summary| summary.p99),
            private_bytes: report.figure("private_dirty_bytes"),
            resident_bytes: report.figure("resident_bytes"),
            bound: report.cost.bound,
        })
    }

    /// The server's CPU time for each thing.
    pub fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    /// The number by which servers are compared in such cells.
    pub fn figure(&self, group: Group) -> Option<f64> {
        match group {
            Group::Idle => self.private_bytes,
            _ => Some(self.per_second),
        }
    }
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    cell: Cell,
    round: usize,
    server: String,
    per_second: Option<f64>,
    user_us: Option<f64>,
    system_us: Option<f64>,
    server_busy: Option<f64>,
    own_busy: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    private_bytes: Option<f64>,
    resident_bytes: Option<f64>,
    bound: Option<Bound>,
    // Behind the others: files of before do not have them.
    #[serde(default)]
    apart_p50_us: Option<f64>,
    #[serde(default)]
    apart_p99_us: Option<f64>,
    failure: Option<String>,
}

impl Record {
    /// The cells that were measured, in the order of the tables.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for measurement in &self.measurements {
            if !cells.contains(&measurement.cell) {
                cells.push(measurement.cell);
            }
        }
        cells.sort_by_key(Cell::group);
        cells
    }

    /// A server's samples in a cell, with their rounds.
    pub fn samples(&self, cell: Cell, server: &str) -> Vec<(usize, Sample)> {
        let results = self.results(cell, server);
        let samples = results.filter_map(|one| Some((one.round, *one.result.as_ref().ok()?)));
        samples.collect()
    }

    /// Why a server has no figure in a cell, if it failed there.
    pub fn failure(&self, cell: Cell, server: &str) -> Option<&str> {
        self.results(cell, server)
            .find_map(|one| one.result.as_ref().err().map(String::as_str))
    }

    fn results(&self, cell: Cell, server: &str) -> impl Iterator<Item = &Measurement> {
        let is_it = move |one: &&Measurement| one.cell == cell && one.server == server;
        self.measurements.iter().filter(is_it)
    }

    /// The file.
    ///
    /// # Panics
    ///
    /// Never: what is written has a place in the formats.
    pub fn to_csv(&self) -> String {
        let head = toml::to_string(&self.head).expect("a head is tables of words");
        let mut file = String::new();
        for line in head.lines() {
            writeln!(file, "# {line}").expect("a string takes everything");
        }
        let mut table = csv::Writer::from_writer(Vec::new());
        for measurement in &self.measurements {
            let line = Line::from(measurement);
            table.serialize(line).expect("a line is plain values");
        }
        let table = table.into_inner().expect("a vector takes everything");
        file + std::str::from_utf8(&table).expect("all of it was text")
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// If something in it is not what is written there.
    pub fn from_csv(file: &str) -> Result<Self, String> {
        let head: String = file
            .lines()
            .take_while(|line| line.starts_with('#'))
            .map(|line| line.strip_prefix("# ").unwrap_or_default().to_owned() + "\n")
            .collect();
        let head = toml::from_str(&head).map_err(|error| format!("its head: {error}"))?;
        let table = file
            .split_inclusive('\n')
            .skip_while(|line| line.starts_with('#'))
            .collect::<String>();
        let mut table = csv::Reader::from_reader(table.as_bytes());
        let measurements = table.deserialize::<Line>().map(|line| {
            let line = line.map_err(|error| error.to_string())?;
            line.measurement()
        });
        Ok(Record {
            head,
            measurements: measurements.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Measurement> for Line {
    fn from(measurement: &Measurement) -> Self {
        let sample = measurement.result.as_ref().ok();
        let number = |pick: fn(&Sample) -> f64| sample.map(pick);
        Line {
            cell: measurement.cell,
            round: measurement.round,
            server: measurement.server.clone(),
            per_second: number(|sample| digits(sample.per_second)),
            user_us: number(|sample| digits(sample.user_us)),
            system_us: number(|sample| digits(sample.system_us)),
            server_busy: number(|sample| digits(sample.server_busy)),
            own_busy: number(|sample| digits(sample.own_busy)),
            p50_us: sample.and_then(|sample| sample.p50_us).map(digits),
            p99_us: sample.and_then(|sample| sample.p99_us).map(digits),
            private_bytes: sample.and_then(|sample| sample.private_bytes).map(digits),
            resident_bytes: sample.and_then(|sample| sample.resident_bytes).map(digits),
            bound: sample.map(|sample| sample.bound),
            apart_p50_us: sample.and_then(|sample| sample.apart_p50_us).map(digits),
            apart_p99_us: sample.and_then(|sample| sample.apart_p99_us).map(digits),
            failure: measurement.result.as_ref().err().cloned(),
        }
    }
}

/// More than anybody measures.
fn digits(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

impl Line {
    fn measurement(self) -> Result<Measurement, String> {
        let (cell, round) = (self.cell, self.round);
        let missing = |column: &str| format!("{cell}, round {round}: no {column}");
        let result = if let Some(failure) = self.failure {
            Err(failure)
        } else {
            Ok(Sample {
                per_second: self.per_second.ok_or_else(|| missing("per_second"))?,
                user_us: self.user_us.ok_or_else(|| missing("user_us"))?,
                system_us: self.system_us.ok_or_else(|| missing("system_us"))?,
                server_busy: self.server_busy.ok_or_else(|| missing("server_busy"))?,
                own_busy: self.own_busy.ok_or_else(|| missing("own_busy"))?,
                p50_us: self.p50_us,
                p99_us: self.p99_us,
                apart_p50_us: self.apart_p50_us,
                apart_p99_us: self.apart_p99_us,
                private_bytes: self.private_bytes,
                resident_bytes: self.resident_bytes,
                bound: self.bound.ok_or_else(|| missing("bound"))?,
            })
        };
        Ok(Measurement {
            cell,
            round,
            server: self.server,
            result,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A sample of that rate, with the server's core full.
    pub(in super::super) fn sample(per_second: f64) -> Sample {
        Sample {
            per_second,
            user_us: 0.25,
            system_us: 4.0,
            server_busy: 0.99,
            own_busy: 0.8,
            p50_us: Some(250.0),
            p99_us: Some(312.5),
            apart_p50_us: None,
            apart_p99_us: None,
            private_bytes: None,
            resident_bytes: None,
            bound: Bound::Server,
        }
    }

    /// A comparison in which each of these servers had these results, round by round.
    pub(in super::super) fn record(
        cell: &str,
        results: &[(&str, &[Result<Sample, String>])],
    ) -> Record {
        let cell = cell.parse().unwrap();
        let measurements = results.iter().flat_map(|(server, results)| {
            let rounds = results.iter().zip(1..);
            rounds.map(move |(result, round)| Measurement {
                cell,
                round,
                server: (*server).to_owned(),
                result: result.clone(),
            })
        });
        let about = |name: &str| About {
            name: name.to_owned(),
            ..About::default()
        };
        Record {
            head: Head {
                server: results.iter().map(|(name, _)| about(name)).collect(),
                ..Head::default()
            },
            measurements: measurements.collect(),
        }
    }

    #[test]
    fn file_says_all_of_it_again() {
        let idle = Sample {
            p50_us: None,
            p99_us: None,
            apart_p50_us: Some(1.5),
            apart_p99_us: Some(2.5),
            private_bytes: Some(117.25),
            resident_bytes: Some(-3.0),
            bound: Bound::Contended,
            ..sample(12.0)
        };
        let failure = "1 × closed, \"by\" the server\n# the first: 1006".to_owned();
        let mut before = record(
            "echo/50x20Bx1",
            &[
                ("stentor", &[Ok(sample(1e6)), Ok(idle)]),
                ("other", &[Err(failure)]),
            ],
        );
        before.head.setting.command = "loadtest compare --cell 'echo/*'".to_owned();
        before.head.method = "several\nlines".to_owned();
        before.head.skipped.push(Skipped {
            name: "liar".to_owned(),
            from: "echo".to_owned(),
            reason: "it lies: \"#\"".to_owned(),
        });
        let file = before.to_csv();
        assert_eq!(Record::from_csv(&file).unwrap(), before, "{file}");
        assert!(file.starts_with("# "), "{file}");
        assert!(
            file.contains(
                "\necho/50x20Bx1,1,stentor,1000000.0,0.25,4.0,0.99,0.8,250.0,312.5,,,server,,,\n"
            ),
            "{file}"
        );
    }

    #[test]
    fn file_of_something_else_is_refused() {
        for file in ["", "a,b\n1,2\n", "# x = 1\ncell,round\n"] {
            assert!(Record::from_csv(file).is_err(), "{file}");
        }
        let whole = record("idle/300", &[("stentor", &[Ok(sample(1.0))])]).to_csv();
        let cut = whole.replace(",server,,,\n", ",,,,\n");
        assert!(Record::from_csv(&cut).unwrap_err().contains("no bound"));
    }

    #[test]
    fn file_without_the_latest_columns_is_read() {
        let record = record("stalled/500x1", &[("stentor", &[Ok(sample(1.0))])]);
        let file = record.to_csv();
        let before = file
            .replace(",apart_p50_us,apart_p99_us", "")
            .replace(",server,,,\n", ",server,\n");
        assert!(before.len() < file.len() - 20, "{before}");
        assert_eq!(Record::from_csv(&before).unwrap(), record);
    }

    #[test]
    fn cells_are_in_the_order_of_the_tables() {
        let mut record = record("connect/50", &[("stentor", &[Ok(sample(1.0))])]);
        let mut earlier = record.measurements[0].clone();
        earlier.cell = "echo/1x1Bx1".parse().unwrap();
        record.measurements.push(earlier);
        let names: Vec<_> = record.cells().iter().map(Cell::to_string).collect();
        assert_eq!(names, ["echo/1x1Bx1", "connect/50"]);
    }
}
