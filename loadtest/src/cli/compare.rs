//! `loadtest compare`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadtest::comparison::bench::Bench;
use loadtest::comparison::cell::{self, Cell, Group};
use loadtest::comparison::contestant::{self, CENTRIFUGO, Contestant, LIMIT, STENTOR};
use loadtest::comparison::document::{self, Chapter};
use loadtest::comparison::record::{Head, Record, Skipped};
use loadtest::comparison::rounds::{Race, Watch};
use loadtest::comparison::setting::Setting;
use loadtest::comparison::tables::{Shown, Tables};
use loadtest::failure::Error;
use loadtest::{process, server};

#[derive(Args)]
#[command(after_help = "\
Peers are installed by loadtest/peers/install; those that are not are left out, and said so.
Rates of different runs do not compare: take the ratios, and read their spread.")]
pub(super) struct Compare {
    /// Only this peer, beside limit and stentor; may be repeated
    #[arg(long, value_name = "NAME")]
    peer: Vec<String>,
    /// Only limit and stentor
    #[arg(long, conflicts_with_all = ["peer", "peers"])]
    no_peers: bool,
    /// Not this server; may be repeated
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// The list of peers [default: loadtest/peers/peers.toml of this source tree]
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Stentor's program [default: the one beside this program, built if need be]
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Only this cell, or those that match, such as 'echo/*'; may be repeated
    #[arg(long, value_name = "NAME")]
    cell: Vec<String>,
    /// Show the cells and end
    #[arg(long)]
    list: bool,
    /// Six cells in less than 3 minutes
    #[arg(long)]
    quick: bool,
    /// How often each server is measured in each cell [default: 5; quick: what there is time for]
    #[arg(long, value_parser = super::positive)]
    rounds: Option<usize>,
    /// How long each measurement counts [default: 2s; quick: what there is time for]
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Load before it counts [default: 500ms; quick: 200ms]
    #[arg(long, value_parser = humantime::parse_duration)]
    warmup: Option<Duration>,
    /// Rounds of a cell that are measured again if other work ran on the cores [default: 3; quick: 0]
    #[arg(long, value_name = "COUNT")]
    repeats: Option<usize>,
    /// Processes that make the load together
    #[arg(long, default_value = "1", value_parser = super::positive)]
    processes: usize,
    /// The servers' core; the load has the others
    #[arg(long, value_name = "CORE", default_value = "0")]
    server_core: usize,
    /// Where every measurement is written [default: loadtest/results/DATE-MACHINE.csv of this source tree]
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Put tables and plots into this document, between <!-- compare:begin --> and <!-- compare:end -->
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
    /// Measure nothing: make tables and plots again of what was written
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "rounds", "duration", "cell", "csv"])]
    from: Option<PathBuf>,
}

/// A quick comparison is planned to take so long,
const QUICK: Duration = Duration::from_secs(150);
/// and begins nothing that would end later than this.
const QUICK_END: Duration = Duration::from_secs(172);

impl Compare {
    pub(super) fn run(&self) -> Result<ExitCode, Error> {
        let cells = self.cells()?;
        if self.list {
            for cell in cells {
                println!("{cell:<32} {}", cell.title());
            }
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(file) = &self.from {
            return self.show_again(file);
        }
        if let Some(document) = &self.docs {
            document::require_place(document)?;
        }
        let (contestants, skipped) = self.contestants(&cells)?;
        let race = self.race(cells, contestants)?;
        let (mut progress, head) = (Progress::new(&race, self.csv()), Self::head(&race, skipped));
        for skipped in &head.skipped {
            progress.skipped(skipped);
        }
        progress.announce(&race);
        print!("{head}");
        let record = race.run(head, &mut progress);
        progress.end()?;
        self.publish(&record)?;
        Ok(exit_code(&record))
    }

    fn cells(&self) -> Result<Vec<Cell>, Error> {
        let from = if self.quick {
            cell::quick()
        } else {
            cell::full()
        };
        cell::select(&from, &self.cell).map_err(Error::Local)
    }

    fn show_again(&self, file: &Path) -> Result<ExitCode, Error> {
        let text = std::fs::read_to_string(file).map_err(Error::local(file.display()))?;
        let record = Record::from_csv(&text)
            .map_err(|wrong| Error::Local(format!("{}: {wrong}", file.display())))?;
        print!("{}", Chapter::of(&record));
        self.publish(&record)?;
        Ok(ExitCode::SUCCESS)
    }

    fn publish(&self, record: &Record) -> Result<(), Error> {
        match &self.docs {
            Some(document) => document::publish(record, document),
            None => Ok(()),
        }
    }

    /// Who takes part, and who is not there.
    fn contestants(&self, cells: &[Cell]) -> Result<(Vec<Contestant>, Vec<Skipped>), Error> {
        let mut all = vec![Contestant::limit(limit_program()?)];
        if self.wants(STENTOR) {
            let program = match &self.server {
                Some(program) => program.clone(),
                None => super::target::stentor_program()?,
            };
            all.push(Contestant::stentor(program.clone()));
            if cells.iter().any(|cell| cell.group() == Group::Centrifugo) {
                all.push(Contestant::centrifugo(program));
            }
        }
        all.extend(self.peers()?);
        self.require_known(&all)?;
        all.retain(|one| self.wants(&one.about.name));
        let (there, missing): (Vec<_>, Vec<_>) =
            all.into_iter().partition(Contestant::is_installed);
        let skipped = missing.into_iter().map(|one| Skipped {
            name: one.about.name,
            from: "everything".to_owned(),
            reason: "it is not installed".to_owned(),
        });
        Ok((there, skipped.collect()))
    }

    fn require_known(&self, all: &[Contestant]) -> Result<(), Error> {
        let mut names: Vec<_> = all.iter().map(|one| one.about.name.as_str()).collect();
        for ours in [STENTOR, CENTRIFUGO] {
            if !names.contains(&ours) {
                names.push(ours); // Not even looked for if nobody wants it.
            }
        }
        let mut asked = self.peer.iter().chain(&self.without);
        match asked.find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(unknown) => Err(Error::Local(format!(
                "there is no server {unknown:?}: there are {}",
                names.join(", ")
            ))),
        }
    }

    fn wants(&self, name: &str) -> bool {
        let is_in = |names: &[String]| names.iter().any(|one| one == name);
        let is_asked_for = [LIMIT, STENTOR, CENTRIFUGO].contains(&name) || self.peer.is_empty();
        (is_asked_for || is_in(&self.peer)) && !is_in(&self.without)
    }

    /// Those of the list; a list that nobody named may be missing.
    fn peers(&self) -> Result<Vec<Contestant>, Error> {
        if self.no_peers {
            return Ok(Vec::new());
        }
        if let Some(manifest) = &self.peers {
            return contestant::peers(manifest);
        }
        let manifest = source_tree().join("peers/peers.toml");
        if manifest.exists() {
            return contestant::peers(&manifest);
        }
        eprintln!("loadtest: no peers: there is no {}", manifest.display());
        Ok(Vec::new())
    }

    fn race(&self, cells: Vec<Cell>, contestants: Vec<Contestant>) -> Result<Race, Error> {
        process::raise_descriptor_limit(); // The servers inherit it.
        let has_cores = server::cores() > 1;
        if has_cores {
            server::keep_off(self.server_core)?;
        } else {
            eprintln!("loadtest: there is one core only: server and load will take turns on it");
        }
        let (repeats, warmup) = if self.quick { (0, 200) } else { (3, 500) };
        let mut race = Race {
            contestants,
            cells,
            rounds: 5,
            repeats: self.repeats.unwrap_or(repeats),
            bench: Bench {
                server_core: has_cores.then_some(self.server_core),
                processes: self.processes,
                warmup: self.warmup.unwrap_or(Duration::from_millis(warmup)),
                duration: Duration::from_secs(2),
            },
            deadline: self.quick.then(|| Instant::now() + QUICK_END),
        };
        if self.quick {
            race.fit(QUICK);
        }
        race.rounds = self.rounds.unwrap_or(race.rounds);
        race.bench.duration = self.duration.unwrap_or(race.bench.duration);
        Ok(race)
    }

    fn head(race: &Race, skipped: Vec<Skipped>) -> Head {
        let Bench {
            warmup,
            duration,
            processes,
            ..
        } = race.bench;
        let (rounds, processes) = (Many(race.rounds, "round"), Many(processes, "process"));
        let core = match race.bench.server_core {
            Some(core) => format!("the server on core {core}, the load on the others"),
            None => "server and load on the only core".to_owned(),
        };
        Head {
            setting: Setting::here(),
            method: format!(
                "Medians of up to {rounds}, in each of which every server is measured once, fresh, for {duration:?} \
                 after {warmup:?} of load; {core}, made by {processes}. Everything over loopback, no compression."
            ),
            server: race
                .contestants
                .iter()
                .map(|one| one.about.clone())
                .collect(),
            skipped,
        }
    }

    fn csv(&self) -> PathBuf {
        let setting = Setting::here();
        let kind = if self.quick { "-quick" } else { "" };
        let name = format!("{}-{}{kind}.csv", setting.date, setting.slug());
        let default = || source_tree().join("results").join(name);
        self.csv.clone().unwrap_or_else(default)
    }
}

/// The load tool's folder, where it was built; the working directory's, where that is gone.
fn source_tree() -> &'static Path {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    if built.exists() {
        built
    } else {
        Path::new("loadtest")
    }
}

fn limit_program() -> Result<PathBuf, Error> {
    let this = std::env::current_exe().map_err(Error::local("where is this program?"))?;
    Ok(this.with_file_name("limit"))
}

/// Failure if stentor failed; a peer that does is told, and no fault of ours.
fn exit_code(record: &Record) -> ExitCode {
    let is_ours = |name: &str| [STENTOR, CENTRIFUGO].contains(&name);
    let was_skipped = record.head.skipped.iter().any(|one| is_ours(&one.name));
    let has_failed = |cell: &Cell| {
        let mut ours = [STENTOR, CENTRIFUGO].into_iter();
        ours.any(|name| record.failure(*cell, name).is_some())
    };
    if was_skipped || record.cells().iter().any(has_failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// A bar where there is a terminal, lines elsewhere; tables on standard output; the file after each cell.
struct Progress {
    bar: ProgressBar,
    rounds: usize,
    csv: PathBuf,
    /// The group whose first table is growing.
    growing: Option<Group>,
    told: Option<(Cell, usize)>,
    failed: Option<Error>,
    last: Option<Record>,
}

impl Progress {
    fn new(race: &Race, csv: PathBuf) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg}");
        bar.set_style(style.expect("the template is constant"));
        Progress {
            bar,
            rounds: race.rounds,
            csv,
            growing: None,
            told: None,
            failed: None,
            last: None,
        }
    }

    fn announce(&self, race: &Race) {
        if cfg!(debug_assertions) {
            self.say("this is a debug build: its figures say nothing");
        }
        self.say(&format!(
            "{} × {} × {} of {:?}: about {}",
            Many(race.cells.len(), "cell"),
            Many(race.contestants.len(), "server"),
            Many(race.rounds, "round"),
            race.bench.duration,
            Minutes(race.estimate())
        ));
    }

    /// A line among those of the error stream.
    fn say(&self, what: &str) {
        self.bar.suspend(|| eprintln!("loadtest: {what}"));
    }

    fn end_table(&mut self) {
        if let (Some(group), Some(record)) = (self.growing.take(), &self.last) {
            let rest = Tables::of(record, group).rest();
            self.bar.suspend(|| println!("\n{rest}"));
        }
    }

    fn end(mut self) -> Result<(), Error> {
        self.end_table();
        self.bar.finish_and_clear();
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.last.is_some() {
            eprintln!("loadtest: {}", self.csv.display());
        }
        Ok(())
    }

    fn write(&self, record: &Record) -> Result<(), Error> {
        if let Some(folder) = self.csv.parent() {
            std::fs::create_dir_all(folder).map_err(Error::local(folder.display()))?;
        }
        std::fs::write(&self.csv, record.to_csv()).map_err(Error::local(self.csv.display()))
    }
}

impl Watch for Progress {
    fn checking(&mut self, server: &str) {
        self.bar
            .set_message(format!("does {server} answer correctly?"));
        self.bar.tick();
    }

    fn skipped(&mut self, skipped: &Skipped) {
        let Skipped { name, from, reason } = skipped;
        self.say(&format!("{name} is left out of {from}: {reason}"));
    }

    fn measuring(&mut self, cell: Cell, round: usize, server: &str, left: Duration) {
        let (rounds, left) = (self.rounds, Minutes(left));
        if self.bar.is_hidden() {
            if self.told != Some((cell, round)) {
                self.told = Some((cell, round));
                self.say(&format!("{cell}, round {round} of {rounds}; {left} left"));
            }
            return;
        }
        self.bar.set_message(format!(
            "{cell}, round {round} of {rounds}: {server}; {left} left"
        ));
        self.bar.tick();
    }

    fn note(&mut self, what: &str) {
        self.say(what);
    }

    fn measured(&mut self, cell: Cell, record: &Record) {
        if !record.cells().contains(&cell) {
            return; // Nobody was there to be measured.
        }
        let group = cell.group();
        if self.growing != Some(group) {
            self.end_table();
            let tables = Tables::of(record, group);
            let (heading, caption) = (tables.heading(), tables.caption(Shown::Figure));
            self.bar
                .suspend(|| println!("\n### {heading}\n\n{caption}\n\n{}", tables.header()));
            self.growing = Some(group);
        }
        let row = Tables::of(record, group).row(cell);
        self.bar.suspend(|| println!("{row}"));
        if let Err(error) = self.write(record) {
            self.failed.get_or_insert(error);
        }
        self.last = Some(record.clone());
    }
}

/// So many, with the plural.
struct Many(usize, &'static str);

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Many(count, thing) = self;
        let plural = match count {
            1 => "",
            _ if thing.ends_with('s') => "es",
            _ => "s",
        };
        write!(f, "{count} {thing}{plural}")
    }
}

/// A duration that nobody needs to the second.
struct Minutes(Duration);

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            seconds if seconds < 100.0 => write!(f, "{seconds:.0} s"),
            seconds if seconds < 6000.0 => write!(f, "{:.0} min", seconds / 60.0),
            seconds => write!(f, "{:.1} h", seconds / 3600.0),
        }
    }
}
