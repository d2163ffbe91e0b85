//! Tables in Markdown: rows are cells, columns are servers.
//!
//! A rate that is not the server's is never shown as if it were: what the load generator could not exceed is `≥`, and
//! a ratio to it is `≤`.

use std::fmt::{self, Write as _};

use super::cell::{Cell, Group};
use super::contestant::{LIMIT, STENTOR};
use super::record::{Measurement, Record, Sample};
use super::spread::Spread;
use crate::cpu::Bound;
use crate::report::{Figure, Unit};
use crate::units::{Micros, Rate};

/// The tables of one group of cells.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    record: &'a Record,
    group: Group,
}

/// What a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The figure, and its ratio to the limit.
    Figure,
    /// The spread of the figure.
    Spread,
    /// The ratio to stentor, and its spread.
    Ratio,
    /// The server's CPU time for each thing.
    Cpu,
    /// Latencies.
    Latency,
    /// The latencies that the group is about, where others come first.
    Apart,
}

/// Columns of a table that grows row by row: nobody knows yet what they will have to hold.
const GROWING: usize = 16;
const FIRST_GROWING: usize = 24;

impl<'a> Tables<'a> {
    /// Those of a group.
    pub fn of(record: &'a Record, group: Group) -> Self {
        Tables { record, group }
    }

    /// What the group is about.
    pub fn heading(self) -> &'static str {
        match self.group {
            Group::Echo => "Echo",
            Group::Broadcast => "One publishes, many hear it",
            Group::Centrifugo => "The same in Centrifugo's protocol",
            Group::Everyone => "Everyone talks to everyone",
            Group::Connect => "Connect",
            Group::Idle => "Memory of idle connections",
            Group::Stalled => "Slow subscribers among many",
            Group::Bystanders => "Bystanders of a broadcast",
        }
    }

    /// What there is to show.
    pub fn shown(self) -> Vec<Shown> {
        use Shown::{Apart, Cpu, Figure, Latency, Ratio, Spread};
        let mut shown = match self.group {
            Group::Idle => vec![Figure, Spread, Ratio],
            _ => vec![Figure, Spread, Ratio, Cpu, Latency],
        };
        let measurements = &self.record.measurements;
        let is_apart = |one: &Measurement| {
            let sample = one.result.as_ref();
            one.cell.group() == self.group
                && sample.is_ok_and(|sample| sample.apart_p99_us.is_some())
        };
        if measurements.iter().any(is_apart) {
            shown.push(Apart);
        }
        if measurements.iter().all(|one| one.round == 1) {
            shown.retain(|shown| *shown != Spread); // There is none.
        }
        shown
    }

    /// The line above a table.
    pub fn caption(self, shown: Shown) -> String {
        let (figure, thing) = (self.figure(), self.thing());
        match shown {
            Shown::Figure if self.has_limit() => {
                format!("{figure}, and the ratio to the limit:")
            }
            Shown::Figure => format!("{figure}:"),
            Shown::Spread => "The same, least–most of all rounds:".to_owned(),
            Shown::Ratio => "Ratio to stentor, round by round: median (least–most):".to_owned(),
            Shown::Cpu => format!("Server CPU in µs for each {thing}, user + system:"),
            Shown::Latency => format!("Latency in µs, p50 / p99, {}:", self.latency()),
            Shown::Apart => format!("Latency in µs, p50 / p99, {}:", self.apart()),
        }
    }

    fn figure(self) -> &'static str {
        match self.group {
            Group::Echo => "Messages per second",
            Group::Broadcast | Group::Centrifugo | Group::Everyone | Group::Bystanders => {
                "Deliveries per second"
            }
            Group::Connect => "Handshakes per second",
            Group::Idle => "Memory for each connection, private and written (less is better)",
            Group::Stalled => "Deliveries per second to those that read",
        }
    }

    /// What is counted.
    pub fn thing(self) -> &'static str {
        match self.group {
            Group::Echo | Group::Idle => "message",
            Group::Broadcast
            | Group::Centrifugo
            | Group::Everyone
            | Group::Stalled
            | Group::Bystanders => "delivery",
            Group::Connect => "handshake",
        }
    }

    fn latency(self) -> &'static str {
        match self.group {
            Group::Connect => "from connect to 101",
            Group::Echo | Group::Idle => "round trip in a closed loop",
            Group::Broadcast
            | Group::Centrifugo
            | Group::Everyone
            | Group::Stalled
            | Group::Bystanders => "from sending to receiving",
        }
    }

    fn apart(self) -> &'static str {
        match self.group {
            Group::Bystanders => "from when a bystander should have sent to when it had it back",
            _ => "from sending to the last of those that read",
        }
    }

    fn first_column(self) -> &'static str {
        match self.group {
            Group::Echo => "connections, in flight",
            Group::Broadcast | Group::Centrifugo => "subscribers",
            Group::Everyone => "clients",
            Group::Connect => "connections",
            Group::Idle => "held",
            Group::Stalled => "stalled",
            Group::Bystanders => "bystanders",
        }
    }

    /// The servers that have a column: all that could take part.
    pub fn servers(self) -> impl Iterator<Item = &'a str> {
        let is_measured = move |name: &&str| {
            let mut measured = self.record.measurements.iter();
            measured.any(|one| one.cell.group() == self.group && one.server == *name)
        };
        let names = self.record.head.server.iter().map(|about| &*about.name);
        names.filter(is_measured)
    }

    fn has_limit(self) -> bool {
        self.servers().any(|name| name == LIMIT)
    }

    /// The names of the columns, and the line below them, of a table that grows.
    pub fn header(self) -> String {
        let widths = self.growing();
        format!("{}\n{}", line(&self.names(), &widths), rule(&widths))
    }

    /// A row of a table that grows.
    pub fn row(self, cell: Cell) -> String {
        line(&self.entries(cell, Shown::Figure), &self.growing())
    }

    fn growing(self) -> Vec<usize> {
        let servers = self.servers().map(|name| name.len().max(GROWING));
        [FIRST_GROWING].into_iter().chain(servers).collect()
    }

    fn names(self) -> Vec<String> {
        let first = [self.first_column()].into_iter();
        first.chain(self.servers()).map(str::to_owned).collect()
    }

    fn entries(self, cell: Cell, shown: Shown) -> Vec<String> {
        let entries = self.servers().map(|server| self.entry(cell, server, shown));
        [cell.title()].into_iter().chain(entries).collect()
    }

    fn entry(self, cell: Cell, server: &str, shown: Shown) -> String {
        if self.record.failure(cell, server).is_some() {
            return "failed".to_owned();
        }
        let entry = Entry {
            tables: self,
            cell,
            samples: self.record.samples(cell, server),
            is_reference: server == LIMIT,
        };
        entry.show(shown).unwrap_or_else(|| "–".to_owned())
    }

    /// What comes below the first table, and its notes.
    pub fn rest(self) -> String {
        let mut text = String::new();
        for shown in self.shown().into_iter().skip(1) {
            text += &self.table(shown);
            text += "\n";
        }
        for note in self.notes() {
            writeln!(text, "- {note}.").expect("a string takes everything");
        }
        text
    }

    fn table(self, shown: Shown) -> String {
        let cells = self.record.cells();
        let cells = cells.iter().filter(|cell| cell.group() == self.group);
        let names = self.names();
        let rows: Vec<_> = cells.map(|cell| self.entries(*cell, shown)).collect();
        let widest = |column: usize| {
            let entries = rows.iter().chain([&names]).map(|row| &row[column]);
            entries.map(|entry| entry.chars().count()).max()
        };
        let widths: Vec<_> = (0..names.len()).filter_map(widest).collect();
        let lines = [line(&names, &widths), rule(&widths)].into_iter();
        let lines: Vec<_> = lines
            .chain(rows.iter().map(|row| line(row, &widths)))
            .collect();
        format!("{}\n\n{}\n", self.caption(shown), lines.join("\n"))
    }

    /// What the marks mean, and what failed.
    pub fn notes(self) -> Vec<String> {
        let cells = self.record.cells();
        let cells = cells.iter().filter(|cell| cell.group() == self.group);
        let mut marks = Marks::default();
        let mut failures = Vec::new();
        for cell in cells {
            for server in self.servers() {
                marks = marks.and(self.marks(&self.record.samples(*cell, server)));
                if let Some(failure) = self.record.failure(*cell, server) {
                    failures.push(format!("{server} failed at {cell}: {failure}"));
                }
            }
        }
        let meanings = [
            (
                marks.is_client,
                "≥: the load generator was full before the server was, in at least one round: the server may be faster, and a ratio to it is ≤. The CPU time is the server's all the same",
            ),
            (
                marks.is_contended,
                "†: in at least one round a process had to wait for its core: other work ran there, or threads of the server shared the one they had",
            ),
            (
                marks.is_unbound,
                "°: neither the server nor the load generator was full in at least one round: waiting for one another set the pace",
            ),
        ];
        let meanings = meanings.iter().filter(|(is_used, _)| *is_used);
        let meanings = meanings.map(|(_, meaning)| (*meaning).to_owned());
        meanings.chain(failures).collect()
    }

    fn marks(self, samples: &[(usize, Sample)]) -> Marks {
        if self.group == Group::Idle {
            return Marks::default(); // Nobody is in a hurry.
        }
        let any = |bound| samples.iter().any(|(_, sample)| sample.bound == bound);
        Marks {
            is_client: any(Bound::Client),
            is_contended: any(Bound::Contended),
            is_unbound: any(Bound::Neither),
        }
    }

    fn write(self, value: f64) -> String {
        match self.group {
            Group::Idle => Figure::new("", "", value, Unit::Bytes).to_string(),
            _ => Rate(value).to_string(),
        }
    }
}

/// The first entry to the left, figures to the right.
fn line(entries: &[String], widths: &[usize]) -> String {
    let mut line = format!("| {:<1$} |", entries[0], widths[0]);
    for (entry, width) in entries.iter().zip(widths).skip(1) {
        write!(line, " {entry:>width$} |").expect("a string takes everything");
    }
    line
}

fn rule(widths: &[usize]) -> String {
    let mut rule = format!("| {:-<1$} |", "", widths[0]);
    for width in &widths[1..] {
        write!(rule, " {:->1$}: |", "", width - 1).expect("a string takes everything");
    }
    rule
}

/// What spoils a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    is_client: bool,
    is_contended: bool,
    is_unbound: bool,
}

impl Marks {
    fn and(self, other: Marks) -> Self {
        Marks {
            is_client: self.is_client || other.is_client,
            is_contended: self.is_contended || other.is_contended,
            is_unbound: self.is_unbound || other.is_unbound,
        }
    }
}

/// What stands where a row and a column meet.
struct Entry<'a> {
    tables: Tables<'a>,
    cell: Cell,
    samples: Vec<(usize, Sample)>,
    is_reference: bool,
}

impl Entry<'_> {
    fn show(&self, shown: Shown) -> Option<String> {
        match shown {
            Shown::Figure => self.figure(),
            Shown::Spread => self.spread(),
            Shown::Ratio => self.ratio(),
            Shown::Cpu => {
                let user = self.median(|sample| Some(sample.user_us))?;
                let system = self.median(|sample| Some(sample.system_us))?;
                Some(format!("{} + {}", Micros(user), Micros(system)))
            }
            Shown::Latency => {
                let p50 = self.median(|sample| sample.p50_us)?;
                let p99 = self.median(|sample| sample.p99_us)?;
                Some(format!("{} / {}", Micros(p50), Micros(p99)))
            }
            Shown::Apart => {
                let p50 = self.median(|sample| sample.apart_p50_us)?;
                let p99 = self.median(|sample| sample.apart_p99_us)?;
                Some(format!("{} / {}", Micros(p50), Micros(p99)))
            }
        }
    }

    fn figure(&self) -> Option<String> {
        let group = self.tables.group;
        let figure = self.median(|sample| sample.figure(group))?;
        let marks = self.tables.marks(&self.samples);
        let mut text = String::new();
        if marks.is_client {
            text += "≥ ";
        }
        text += &self.tables.write(figure);
        if marks.is_contended {
            text += "†";
        }
        if marks.is_unbound {
            text += "°";
        }
        if let Some(ratio) = self.ratio_to(LIMIT).filter(|_| !self.is_reference) {
            let Ratio { known, spread, .. } = &ratio;
            write!(text, " ({known}{:.2}{})", spread.median, ratio.mark())
                .expect("a string takes everything");
        }
        Some(text)
    }

    fn spread(&self) -> Option<String> {
        let group = self.tables.group;
        let figures = self.samples.iter();
        let Spread { least, most, .. } =
            Spread::of(figures.filter_map(|(_, sample)| sample.figure(group)))?;
        let [least, most] = [least, most].map(|value| self.tables.write(value));
        Some(format!("{least}–{most}"))
    }

    fn ratio(&self) -> Option<String> {
        let ratio = self.ratio_to(STENTOR)?;
        let (known, mark) = (ratio.known, ratio.mark());
        let Spread {
            median,
            least,
            most,
        } = ratio.spread;
        Some(if self.samples.len() == 1 {
            format!("{known}{median:.2}{mark}")
        } else {
            format!("{known}{median:.2}{mark} ({least:.2}–{most:.2})")
        })
    }

    fn median(&self, pick: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let values = self.samples.iter().filter_map(|(_, sample)| pick(sample));
        Spread::of(values).map(|spread| spread.median)
    }

    /// Round by round; none if it says nothing.
    fn ratio_to(&self, server: &str) -> Option<Ratio> {
        let group = self.tables.group;
        let references = self.tables.record.samples(self.cell, server);
        let ratios = self.samples.iter().filter_map(|(round, sample)| {
            let (_, reference) = references.iter().find(|(other, _)| other == round)?;
            let ratio = sample.figure(group)? / reference.figure(group)?;
            ratio.is_finite().then_some(ratio)
        });
        let spread = Spread::of(ratios)?;
        let (own, other) = (
            self.tables.marks(&self.samples),
            self.tables.marks(&references),
        );
        let known = match (own.is_client, other.is_client) {
            (false, false) => Known::Exactly,
            (true, false) => Known::AtLeast,
            (false, true) => Known::AtMost,
            (true, true) => return None, // Both are the load generator's.
        };
        Some(Ratio {
            known,
            spread,
            is_contended: own.is_contended || other.is_contended,
        })
    }
}

struct Ratio {
    known: Known,
    spread: Spread,
    is_contended: bool,
}

impl Ratio {
    fn mark(&self) -> &'static str {
        if self.is_contended { "†" } else { "" }
    }
}

#[derive(Clone, Copy)]
enum Known {
    Exactly,
    AtLeast,
    AtMost,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Known::Exactly => "",
            Known::AtLeast => "≥ ",
            Known::AtMost => "≤ ",
        })
    }
}

impl fmt::Display for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.table(Shown::Figure), self.rest())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, sample};
    use super::*;

    fn bound(per_second: f64, bound: Bound) -> Sample {
        Sample {
            bound,
            ..sample(per_second)
        }
    }

    fn rates(rates: [f64; 3]) -> [Result<Sample, String>; 3] {
        rates.map(|rate| Ok(sample(rate)))
    }

    fn entries(record: &Record, shown: Shown) -> Vec<String> {
        let cell = record.cells()[0];
        Tables::of(record, cell.group()).entries(cell, shown)
    }

    #[test]
    fn row_compares_round_by_round() {
        let record = record(
            "echo/50x20Bx16",
            &[
                ("limit", &rates([100.0, 200.0, 100.0])),
                ("stentor", &rates([50.0, 160.0, 90.0])),
                ("other", &rates([25.0, 160.0, 180.0])),
            ],
        );
        assert_eq!(
            entries(&record, Shown::Figure),
            ["50 × 20 B, 16", "100", "90.0 (0.80)", "160 (0.80)"]
        );
        assert_eq!(
            entries(&record, Shown::Spread)[1..],
            ["100–200", "50.0–160", "25.0–180"]
        );
        assert_eq!(
            entries(&record, Shown::Ratio)[1..],
            ["1.25 (1.11–2.00)", "1.00 (1.00–1.00)", "1.00 (0.50–2.00)"]
        );
        assert_eq!(entries(&record, Shown::Cpu)[2], "0.250 + 4.00");
        assert_eq!(entries(&record, Shown::Latency)[2], "250 / 312");
    }

    #[test]
    fn figure_of_a_full_load_generator_is_a_lower_bound() {
        let record = record(
            "echo/50x20Bx128",
            &[
                ("limit", &[Ok(bound(100.0, Bound::Client))]),
                ("stentor", &[Ok(bound(80.0, Bound::Server))]),
                ("fast", &[Ok(bound(90.0, Bound::Client))]),
                ("lazy", &[Ok(bound(40.0, Bound::Neither))]),
                ("busy", &[Ok(bound(40.0, Bound::Contended))]),
            ],
        );
        assert_eq!(
            entries(&record, Shown::Figure)[1..],
            [
                "≥ 100",
                "80.0 (≤ 0.80)",
                "≥ 90.0",
                "40.0° (≤ 0.40)",
                "40.0† (≤ 0.40†)"
            ]
        );
        assert_eq!(entries(&record, Shown::Ratio)[2..4], ["1.00", "≥ 1.12"]);
        let notes = Tables::of(&record, Group::Echo).notes();
        assert_eq!(notes.len(), 3, "{notes:?}");
    }

    #[test]
    fn latency_that_a_group_is_about_has_a_table_where_it_was_measured() {
        let waiting = |micros| Sample {
            apart_p50_us: Some(micros),
            apart_p99_us: Some(2.0 * micros),
            ..sample(1.0)
        };
        let results = [Ok(waiting(500.0)), Ok(waiting(700.0)), Ok(waiting(600.0))];
        let measured = record("bystanders/500x64Bx3", &[("stentor", &results)]);
        assert_eq!(entries(&measured, Shown::Latency)[1], "250 / 312");
        assert_eq!(entries(&measured, Shown::Apart)[1], "600 / 1200");
        let before = record("stalled/500x1", &[("stentor", &rates([1.0; 3]))]);
        let shows_it = |record: &Record| {
            let tables = Tables::of(record, record.cells()[0].group());
            tables.shown().contains(&Shown::Apart)
        };
        assert!(shows_it(&measured) && !shows_it(&before));
    }

    #[test]
    fn server_that_failed_has_no_figure() {
        let record = record(
            "connect/50",
            &[
                ("stentor", &rates([1.0, 2.0, 3.0])),
                ("other", &[Ok(sample(9.0)), Err("it broke".to_owned())]),
            ],
        );
        assert_eq!(entries(&record, Shown::Figure)[1..], ["2.00", "failed"]);
        let tables = Tables::of(&record, Group::Connect).to_string();
        assert!(
            tables.contains("- other failed at connect/50: it broke.\n"),
            "{tables}"
        );
    }

    #[test]
    fn memory_is_compared_without_a_limit() {
        let weighing = |bytes| Sample {
            private_bytes: Some(bytes),
            bound: Bound::Neither,
            ..sample(0.0)
        };
        let record = record(
            "idle/10000",
            &[
                ("stentor", &[Ok(weighing(100.0))]),
                ("heavy", &[Ok(weighing(20_480.0))]),
            ],
        );
        assert_eq!(
            entries(&record, Shown::Figure),
            ["10000 connections", "100 B", "20 KiB"]
        );
        assert_eq!(entries(&record, Shown::Ratio)[2], "204.80");
        assert!(Tables::of(&record, Group::Idle).notes().is_empty());
    }

    #[test]
    fn lines_of_a_table_are_as_long_as_one_another() {
        let record = record(
            "echo/1x1Bx1",
            &[
                ("limit", &rates([1.0; 3])),
                ("a-server-with-a-name", &rates([2.0; 3])),
            ],
        );
        let tables = Tables::of(&record, Group::Echo);
        let growing = tables.header() + "\n" + &tables.row(record.cells()[0]);
        let whole = tables.table(Shown::Cpu);
        let (_, whole) = whole.split_once("\n\n").unwrap();
        for text in [&*growing, whole] {
            let lengths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
            assert_eq!(lengths, [lengths[0]; 3], "{text}");
        }
    }
}
