//! The order of things: checks first, then cell by cell in rounds, each of which measures every server once.

use std::time::{Duration, Instant};

use super::bench::Bench;
use super::cell::{Cell, Group, Service};
use super::contestant::Contestant;
use super::record::{Head, Measurement, Record, Skipped};
use crate::cpu::Bound;
use crate::units::float;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Race {
    /// The servers, in the order in which they are measured.
    pub contestants: Vec<Contestant>,
    /// The loads.
    pub cells: Vec<Cell>,
    /// How often each server is measured in each cell.
    pub rounds: usize,
    /// How many rounds of a cell are measured again if other work ran on the cores meanwhile.
    pub repeats: usize,
    /// How each measurement is made.
    pub bench: Bench,
    /// When no round may be going on any more.
    pub deadline: Option<Instant>,
}

/// Whoever wants to know how it goes.
pub trait Watch {
    /// It is looked whether a server answers correctly.
    fn checking(&mut self, server: &str);
    /// A server is left out.
    fn skipped(&mut self, skipped: &Skipped);
    /// A server is about to be measured; all of it will take about so long.
    fn measuring(&mut self, cell: Cell, round: usize, server: &str, left: Duration);
    /// Something that is worth a line.
    fn note(&mut self, what: &str);
    /// All rounds of a cell are done.
    fn measured(&mut self, cell: Cell, record: &Record);
}

/// From a server's start to its first message.
const START: Duration = Duration::from_millis(200);
/// From one open connection to the next.
const OPENING: Duration = Duration::from_micros(100);
/// Until memory has come to rest, twice.
const COMING_TO_REST: Duration = Duration::from_secs(4);
/// A check of one service.
const CHECK: Duration = Duration::from_millis(900);

impl Race {
    /// Says how long it will take, if every server passes its checks.
    pub fn estimate(&self) -> Duration {
        self.checking() + self.round_of_all(self.bench) * self.rounds as u32
    }

    /// Chooses rounds and durations so that it ends in about that time.
    pub fn fit(&mut self, budget: Duration) {
        let unmeasured = Bench {
            duration: Duration::ZERO,
            ..self.bench
        };
        let overhead = self.round_of_all(unmeasured);
        let count = self.entries().count().max(1) as u32;
        for rounds in [3, 2, 1] {
            let spare = budget.saturating_sub(self.checking() + overhead * rounds);
            let duration = spare / (rounds * count);
            if duration >= SHORT || rounds == 1 {
                self.rounds = rounds as usize;
                self.bench.duration = duration.clamp(SHORTEST, LONG);
                return;
            }
        }
    }

    fn checking(&self) -> Duration {
        let services = self.contestants.iter().map(|contestant| {
            let services = self.services();
            let wanted = services.filter(|service| offers(contestant, *service));
            wanted.count() as u32
        });
        CHECK * services.sum::<u32>()
    }

    fn round_of_all(&self, bench: Bench) -> Duration {
        self.entries().map(|cell| cost(&cell, &bench)).sum()
    }

    /// Each cell as often as there are servers for it.
    fn entries(&self) -> impl Iterator<Item = Cell> {
        self.cells.iter().flat_map(|cell| {
            let serve = |contestant: &&Contestant| contestant.serves(cell.group());
            let count = self.contestants.iter().filter(serve).count();
            std::iter::repeat_n(*cell, count)
        })
    }

    /// The services that some cell needs.
    fn services(&self) -> impl Iterator<Item = Service> {
        let is_needed = |service: &Service| {
            let mut groups = self.cells.iter().map(Cell::group);
            groups.any(|group| group.service() == *service)
        };
        [Service::Echo, Service::Broadcast]
            .into_iter()
            .filter(is_needed)
    }

    /// Checks and measures; what fails is told, and the others go on.
    pub fn run(&self, head: Head, watch: &mut dyn Watch) -> Record {
        let mut course = Course::new(self, head);
        course.check_all(watch);
        for cell in &self.cells {
            course.measure_cell(*cell, watch);
            watch.measured(*cell, &course.record);
        }
        course.record
    }
}

/// With rounds this short there is time for one more.
const SHORT: Duration = Duration::from_millis(350);
/// Nothing shorter is a measurement.
const SHORTEST: Duration = Duration::from_millis(250);
/// A quick look needs no more.
const LONG: Duration = Duration::from_secs(1);

/// How long a measurement takes, about.
fn cost(cell: &Cell, bench: &Bench) -> Duration {
    let opening = OPENING.mul_f64(float(cell.connections() as u64));
    let rest = match cell.group() {
        Group::Idle => COMING_TO_REST,
        _ => Duration::ZERO,
    };
    START + opening + rest + bench.warmup + bench.duration
}

/// Whether a server has something to be checked for that service; the limit does not read what it answers.
fn offers(contestant: &Contestant, service: Service) -> bool {
    let is_of = |group: &Group| group.service() == service && contestant.serves(*group);
    !contestant.is_limit() && Group::ALL.iter().any(is_of)
}

/// A race that is under way.
struct Course<'r> {
    race: &'r Race,
    record: Record,
    /// Who may not take part in what, by its place.
    excluded: Vec<(usize, Service)>,
    pace: Pace,
}

/// How long things take, and how long they were thought to take.
struct Pace {
    spent: Duration,
    expected: Duration,
    left: Duration,
}

impl<'r> Course<'r> {
    fn new(race: &'r Race, head: Head) -> Self {
        let measurements = Vec::new();
        Course {
            race,
            record: Record { head, measurements },
            excluded: Vec::new(),
            pace: Pace {
                spent: Duration::ZERO,
                expected: Duration::ZERO,
                left: race.round_of_all(race.bench) * race.rounds as u32,
            },
        }
    }

    fn check_all(&mut self, watch: &mut dyn Watch) {
        for (place, contestant) in self.race.contestants.iter().enumerate() {
            for service in self.race.services() {
                if !offers(contestant, service) {
                    continue;
                }
                watch.checking(&contestant.about.name);
                if let Err(reason) = self.race.bench.check(contestant, service) {
                    self.exclude(place, service, reason, watch);
                } else {
                    self.tell_unfit(contestant, service, watch);
                }
            }
        }
    }

    /// Says which cells of a service a server cannot take part in.
    fn tell_unfit(&mut self, contestant: &Contestant, service: Service, watch: &mut dyn Watch) {
        let is_asked = |group: &Group| self.race.cells.iter().any(|cell| cell.group() == *group);
        let groups = Group::ALL.into_iter().filter(is_asked);
        for group in groups.filter(|group| group.service() == service) {
            if let Some(reason) = contestant.why_unfit(group) {
                self.skip(contestant, group.name(), reason.to_owned(), watch);
            }
        }
    }

    fn exclude(&mut self, place: usize, service: Service, reason: String, watch: &mut dyn Watch) {
        let from = match service {
            Service::Echo => "echo",
            Service::Broadcast => "broadcast",
        };
        self.skip(&self.race.contestants[place], from, reason, watch);
        self.excluded.push((place, service));
    }

    fn skip(&mut self, contestant: &Contestant, from: &str, reason: String, watch: &mut dyn Watch) {
        let skipped = Skipped {
            name: contestant.about.name.clone(),
            from: from.to_owned(),
            reason,
        };
        watch.skipped(&skipped);
        self.record.head.skipped.push(skipped);
    }

    /// A round in which other work ran on the cores is repeated as a whole, so that what is compared stays side by
    /// side; its rates are not looked at to decide it. Once `repeats` are used up, rounds count as they are.
    fn measure_cell(&mut self, cell: Cell, watch: &mut dyn Watch) {
        let mut running = self.starters(cell);
        let (mut round, mut repeats) = (1, 0);
        while round <= self.race.rounds && !running.is_empty() {
            if !self.has_time_for(cell, running.len()) {
                let skipped = Skipped {
                    name: "every server".to_owned(),
                    from: format!("round {round} of {cell} and later ones"),
                    reason: "time was up".to_owned(),
                };
                watch.skipped(&skipped);
                self.record.head.skipped.push(skipped);
                return;
            }
            let measured = self.measure_round(cell, round, &running, watch);
            if repeats < self.race.repeats && measured.iter().any(is_contended) {
                repeats += 1;
                self.pace.left += self.round_cost(cell, running.len());
                continue;
            }
            // Who failed once is not asked again: there is no figure to be had.
            running.retain(|place| {
                let name = &self.race.contestants[*place].about.name;
                let failed = |one: &Measurement| one.server == *name && one.result.is_err();
                !measured.iter().any(failed)
            });
            self.record.measurements.extend(measured);
            round += 1;
        }
        if repeats > 0 {
            watch.note(&format!(
                "{cell}: {repeats} rounds were repeated, since other work ran on the cores"
            ));
        }
    }

    fn starters(&self, cell: Cell) -> Vec<usize> {
        let service = cell.group().service();
        let contestants = self.race.contestants.iter().enumerate();
        let starting = contestants.filter(|(place, contestant)| {
            contestant.serves(cell.group()) && !self.excluded.contains(&(*place, service))
        });
        starting.map(|(place, _)| place).collect()
    }

    fn has_time_for(&self, cell: Cell, servers: usize) -> bool {
        let end = Instant::now() + self.pace.corrected(self.round_cost(cell, servers));
        self.race.deadline.is_none_or(|deadline| end <= deadline)
    }

    fn round_cost(&self, cell: Cell, servers: usize) -> Duration {
        cost(&cell, &self.race.bench) * servers as u32
    }

    fn measure_round(
        &mut self,
        cell: Cell,
        round: usize,
        running: &[usize],
        watch: &mut dyn Watch,
    ) -> Vec<Measurement> {
        let mut measured = Vec::with_capacity(running.len());
        for place in running {
            let contestant = &self.race.contestants[*place];
            let name = &contestant.about.name;
            watch.measuring(cell, round, name, self.pace.corrected(self.pace.left));
            let began = Instant::now();
            let result = self.race.bench.measure(contestant, &cell);
            self.pace
                .count(cost(&cell, &self.race.bench), began.elapsed());
            if let Err(words) = &result {
                watch.note(&format!("{cell}: {name} failed: {words}"));
            }
            measured.push(Measurement {
                cell,
                round,
                server: name.clone(),
                result,
            });
        }
        measured
    }
}

impl Pace {
    fn count(&mut self, expected: Duration, spent: Duration) {
        self.expected += expected;
        self.spent += spent;
        self.left = self.left.saturating_sub(expected);
    }

    /// What was thought to take so long, by what was learnt since.
    fn corrected(&self, expected: Duration) -> Duration {
        if self.expected.is_zero() {
            return expected;
        }
        expected.mul_f64(self.spent.as_secs_f64() / self.expected.as_secs_f64())
    }
}

fn is_contended(measurement: &Measurement) -> bool {
    let sample = measurement.result.as_ref();
    sample.is_ok_and(|sample| sample.bound == Bound::Contended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::cell;

    fn race(contestants: usize) -> Race {
        let limit = Contestant::limit("limit".into());
        let stentor = (1..contestants).map(|_| Contestant::stentor("nowhere".into()));
        Race {
            contestants: [limit].into_iter().chain(stentor).collect(),
            cells: cell::quick(),
            rounds: 1,
            repeats: 0,
            bench: Bench {
                server_core: None,
                processes: 1,
                warmup: Duration::from_millis(200),
                duration: Duration::ZERO,
            },
            deadline: None,
        }
    }

    #[test]
    fn budget_is_kept_with_any_number_of_servers() {
        let budget = Duration::from_secs(150);
        for contestants in [2, 5, 8, 12] {
            let mut race = race(contestants);
            race.fit(budget);
            assert!(race.estimate() <= budget, "{contestants}: {race:?}");
            assert!(race.bench.duration >= SHORTEST);
        }
        let mut few = race(2);
        few.fit(budget);
        assert_eq!((few.rounds, few.bench.duration), (3, LONG));
    }

    #[test]
    fn estimate_grows_with_what_is_measured() {
        let mut race = race(3);
        let (one, checking) = (race.estimate(), race.checking());
        race.rounds = 4;
        assert_eq!(race.estimate() + 3 * checking, 4 * one);
    }

    #[test]
    fn time_left_follows_what_was_learnt() {
        let second = Duration::from_secs(1);
        let mut pace = Pace {
            spent: Duration::ZERO,
            expected: Duration::ZERO,
            left: 10 * second,
        };
        assert_eq!(pace.corrected(pace.left), 10 * second);
        pace.count(2 * second, 4 * second);
        assert_eq!(pace.corrected(pace.left), 16 * second);
    }
}
