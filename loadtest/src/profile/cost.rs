//! From counts to costs: differences of runs, medians of differences, ratios to an earlier profile.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::tool::INSTRUCTIONS;
use super::{Cell, Watched};
use crate::units::float;

/// What one message costs: how much of each thing that was counted.
pub type Cost = BTreeMap<String, f64>;

/// What each of the messages costs that the longer run has more.
pub(super) fn per_one(short: &Watched, long: &Watched) -> Cost {
    let messages = float(long.count) - float(short.count);
    let count = |run: &Watched, name| run.counts.get(name).copied().map_or(0.0, float);
    let names: BTreeSet<_> = short.counts.keys().chain(long.counts.keys()).collect();
    let costs = names.into_iter().map(|name| {
        let more = count(long, name) - count(short, name);
        (name.clone(), more / messages)
    });
    costs.collect()
}

/// What was measured several times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repeated {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Repeated {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        Repeated {
            median: rounded(values[values.len() / 2]),
            least: rounded(values[0]),
            most: rounded(values[values.len() - 1]),
        }
    }

    /// How far the values lie apart, as a part of the one in the middle.
    pub fn spread(&self) -> f64 {
        (self.most - self.least) / self.median
    }
}

/// More digits would only make files differ.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// What a message of a cell costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The cell's name.
    pub cell: String,
    /// What is counted in it: `message`.
    pub one: String,
    /// Instructions outside the kernel.
    pub instructions: Repeated,
    /// System calls of all kinds.
    pub calls: Repeated,
    /// Those of each kind, but of kinds so rare that they belong to a timer, or to chance.
    pub calls_by_kind: Cost,
}

/// One call in so many messages is rare.
const RARE: f64 = 0.002;

impl Measured {
    /// Of a cell's costs, at least one, that were measured one after another.
    pub(super) fn new(cell: &Cell, costs: &[Cost]) -> Self {
        let of = |name: &str| {
            Repeated::of(
                costs
                    .iter()
                    .map(|cost| cost.get(name).copied().unwrap_or_default()),
            )
        };
        let kinds: BTreeSet<_> = costs.iter().flat_map(BTreeMap::keys).collect();
        let calls_by_kind: Cost = kinds
            .into_iter()
            .filter(|kind| *kind != INSTRUCTIONS)
            .map(|kind| (kind.clone(), of(kind).median))
            .filter(|(_, calls)| *calls >= RARE)
            .collect();
        let all_calls = |cost: &Cost| -> f64 {
            let calls = cost.iter().filter(|(kind, _)| *kind != INSTRUCTIONS);
            calls.map(|(_, calls)| calls).sum()
        };
        Measured {
            cell: cell.name.clone(),
            one: cell.one.to_owned(),
            instructions: of(INSTRUCTIONS),
            calls: Repeated::of(costs.iter().map(all_calls)),
            calls_by_kind,
        }
    }
}

/// A profile: which program of which commit, made and watched by what, and what its messages cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The program.
    pub subject: String,
    /// The commit of this repository.
    pub commit: Option<String>,
    /// How it was built: `release` or `debug`.
    pub build: String,
    /// The compiler's version.
    pub rustc: Option<String>,
    /// The versions of what watched it.
    pub tools: Vec<String>,
    /// The cells.
    pub cells: Vec<Measured>,
}

impl Profile {
    /// What the same cell costs here.
    fn cell(&self, name: &str) -> Option<&Measured> {
        self.cells.iter().find(|cell| cell.cell == name)
    }

    /// The profile in one line, without its figures.
    pub fn describe(&self) -> String {
        let of_unknown = |what: &Option<String>| what.clone().unwrap_or_else(|| "unknown".into());
        let Profile {
            subject,
            build,
            tools,
            ..
        } = self;
        let (commit, rustc) = (of_unknown(&self.commit), of_unknown(&self.rustc));
        format!(
            "{subject}, {build} build of {commit}, {rustc}, {}",
            tools.join(", ")
        )
    }

    /// The profile as Markdown, with ratios where there is one to compare it with.
    pub fn table(&self, baseline: Option<&Profile>) -> String {
        let mut table = String::from("| cell | instructions | spread | system calls | of which |");
        let mut rule = String::from("\n| --- | ---: | ---: | ---: | --- |");
        if baseline.is_some() {
            table += " instructions : baseline | calls : baseline |";
            rule += " ---: | ---: |";
        }
        table += &rule;
        for cell in &self.cells {
            table += &cell.row();
            if let Some(baseline) = baseline {
                table += &cell.comparison(baseline.cell(&cell.cell));
            }
        }
        table + "\n"
    }

    /// The cells that cost more than in an earlier profile by more than a part.
    pub fn dearer_than(&self, baseline: &Profile, tolerance: f64) -> Vec<&str> {
        let is_dearer = |cell: &&Measured| {
            baseline.cell(&cell.cell).is_some_and(|before| {
                let (instructions, calls) = cell.ratios(before);
                instructions.max(calls) > 1.0 + tolerance
            })
        };
        let dearer = self.cells.iter().filter(is_dearer);
        dearer.map(|cell| cell.cell.as_str()).collect()
    }
}

impl Measured {
    fn row(&self) -> String {
        let mut kinds: Vec<_> = self.calls_by_kind.iter().collect();
        kinds.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let kinds: Vec<_> = kinds
            .into_iter()
            .map(|(kind, calls)| format!("{kind} {calls:.2}"))
            .collect();
        format!(
            "\n| {} | {:.*} | {:.1} % | {:.2} | {} |",
            self.cell,
            usize::from(self.instructions.median < 100.0),
            self.instructions.median,
            self.instructions.spread() * 100.0,
            self.calls.median,
            kinds.join(", ")
        )
    }

    fn comparison(&self, before: Option<&Measured>) -> String {
        let Some(before) = before else {
            return " new | new |".to_owned();
        };
        let (instructions, calls) = self.ratios(before);
        format!(" {instructions:.3} | {calls:.3} |")
    }

    /// Instructions and system calls, as parts of what they were before.
    fn ratios(&self, before: &Measured) -> (f64, f64) {
        (
            self.instructions.median / before.instructions.median,
            self.calls.median / before.calls.median,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Counts;

    fn watched(count: u64, counts: &[(&str, u64)]) -> Watched {
        let counts = counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        let counts: Counts = counts.collect();
        Watched { count, counts }
    }

    fn cost(instructions: f64, calls: &[(&str, f64)]) -> Cost {
        let mut cost = Cost::from([(INSTRUCTIONS.to_owned(), instructions)]);
        cost.extend(
            calls
                .iter()
                .map(|(name, calls)| ((*name).to_owned(), *calls)),
        );
        cost
    }

    fn measured(costs: &[Cost]) -> Measured {
        Measured::new(&crate::profile::all()[0], costs)
    }

    fn profile(instructions: f64, calls: f64) -> Profile {
        Profile {
            subject: "stentor".to_owned(),
            commit: None,
            build: "release".to_owned(),
            rustc: Some("rustc 1.91.0".to_owned()),
            tools: vec!["valgrind-3.19.0".to_owned()],
            cells: vec![measured(&[cost(instructions, &[("sendto", calls)])])],
        }
    }

    #[test]
    fn what_both_runs_have_costs_messages_nothing() {
        let short = watched(1_000, &[("mmap", 40), ("sendto", 1_003), ("read", 7)]);
        let long = watched(2_050, &[("mmap", 40), ("sendto", 2_053), ("futex", 21)]);
        let expected = [
            ("mmap", 0.0),
            ("sendto", 1.0),
            ("futex", 0.02),
            ("read", -7.0 / 1_050.0),
        ];
        let expected = expected.map(|(name, cost)| (name.to_owned(), cost));
        assert_eq!(per_one(&short, &long), Cost::from(expected));
    }

    #[test]
    fn median_is_told_with_the_spread_and_rare_calls_only_in_the_sum() {
        let calls = |sends, sleeps| [("sendto", sends), ("nanosleep", sleeps)];
        let measured = measured(&[
            cost(1_010.0, &calls(1.0, 0.0)),
            cost(990.0, &calls(1.0, 0.001)),
            cost(1_000.0, &calls(1.5, 0.001)),
        ]);
        let repeated = |least, median, most| Repeated {
            median,
            least,
            most,
        };
        assert_eq!(measured.instructions, repeated(990.0, 1_000.0, 1_010.0));
        assert_eq!(measured.calls, repeated(1.0, 1.001, 1.501));
        assert!((measured.instructions.spread() - 0.02).abs() < 1e-9);
        assert_eq!(
            measured.calls_by_kind,
            Cost::from([("sendto".to_owned(), 1.0)])
        );
    }

    #[test]
    fn dearer_cells_are_those_beyond_the_tolerance() {
        let before = profile(1_000.0, 2.0);
        let dearer = |now: Profile| now.dearer_than(&before, 0.05).len();
        assert_eq!(dearer(profile(1_049.0, 2.0)), 0);
        assert_eq!(dearer(profile(1_051.0, 2.0)), 1);
        assert_eq!(dearer(profile(1_000.0, 2.2)), 1);
        assert_eq!(dearer(profile(500.0, 1.0)), 0);
    }

    #[test]
    fn cells_of_which_the_baseline_knows_nothing_are_new_and_not_dearer() {
        let (now, mut before) = (profile(1_000.0, 2.0), profile(1.0, 1.0));
        before.cells[0].cell = "another".to_owned();
        assert!(now.dearer_than(&before, 0.05).is_empty());
        assert!(now.table(Some(&before)).ends_with("| new | new |\n"));
    }

    #[test]
    fn table_is_markdown() {
        let table = profile(1_000.4, 2.0).table(Some(&profile(2_000.0, 1.0)));
        let expected = "\
| cell | instructions | spread | system calls | of which | instructions : baseline | calls : baseline |
| --- | ---: | ---: | ---: | --- | ---: | ---: |
| echo-1x20-1 | 1000 | 0.0 % | 2.00 | sendto 2.00 | 0.500 | 2.000 |
";
        assert_eq!(table, expected);
    }

    #[test]
    fn profile_is_read_back_as_it_was_written() {
        let profile = profile(1_000.25, 2.0);
        let json = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile);
    }
}
