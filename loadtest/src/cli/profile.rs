//! `loadtest profile`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use loadtest::failure::Error;
use loadtest::profile::{self, CALLGRIND, Cell, Profile, Profiler, STRACE, Subject, first_line};

use super::target;

#[derive(Args)]
pub(super) struct Arguments {
    /// Only this cell, or those that begin with these words: `echo`, `echo-50x20` (may be repeated)
    #[arg(long = "cell", value_name = "NAME")]
    cells: Vec<String>,
    /// How often each cell is measured
    #[arg(long, default_value = "3", value_parser = super::positive)]
    repeats: usize,
    #[command(flatten)]
    subject: SubjectArguments,
    /// The path on a server that is started [default: that of stentor]
    #[arg(long, value_name = "PATH", requires = "start")]
    path: Option<String>,
    /// Write the profile as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with a profile that was written as JSON
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// By how much a cell may cost more than in the baseline
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    tolerance: f64,
    /// Keep what the tools wrote, for `callgrind_annotate`
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// What is profiled; stentor if nothing else.
#[derive(Args)]
#[group(multiple = false)]
struct SubjectArguments {
    /// Profile this server, which serves the cells that are asked for; {port} is filled in
    #[arg(long, value_name = "COMMAND")]
    start: Option<String>,
    /// Profile `limit`, which does socket work only
    #[arg(long)]
    limit: bool,
    /// Profile the load generator, against stentor
    #[arg(long)]
    generator: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        // What is missing should be known before, not after.
        let cells = self.chosen()?;
        let baseline = self.baseline.as_deref().map(read).transpose()?;
        let tools = [CALLGRIND, STRACE].map(profile::version);
        let tools = tools.into_iter().collect::<Result<_, _>>()?;
        let profile = self.profile(&cells, tools)?;
        self.publish(&profile, baseline.as_ref())
    }

    fn profile(&self, chosen: &[Cell], tools: Vec<String>) -> Result<Profile, Error> {
        let folder = Folder::new(self.keep.as_deref())?;
        let profiler = Profiler {
            subject: if self.subject.generator {
                Subject::Generator
            } else {
                Subject::Server
            },
            repeats: self.repeats,
            folder: folder.path.clone(),
        };
        // Whoever goes on working meanwhile works on another commit.
        let commit = first_line("git", &["describe", "--always", "--dirty", "--abbrev=10"]);
        let mut cells = Vec::new();
        for cell in chosen {
            eprintln!("loadtest: {}", cell.name);
            let server = self.subject.server(cell)?;
            cells.push(profiler.measure(cell, &server)?);
        }
        Ok(Profile {
            subject: self.subject.name(),
            commit,
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_owned(),
            rustc: first_line("rustc", &["--version"]),
            tools,
            cells,
        })
    }

    fn chosen(&self) -> Result<Vec<Cell>, Error> {
        // A whole name, or whole words from its beginning: `echo`, `echo-50x20`.
        let is_chosen = |cell: &Cell| {
            self.cells.is_empty()
                || self.cells.iter().any(|name| {
                    let rest = cell.name.strip_prefix(name.as_str());
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                })
        };
        let mut cells = profile::all();
        cells.retain(is_chosen);
        if cells.is_empty() {
            let names = profile::all().into_iter().map(|cell| cell.name);
            let names: Vec<_> = names.collect();
            return Err(Error::Local(format!("the cells are {}", names.join(", "))));
        }
        if let Some(path) = &self.path {
            for cell in &mut cells {
                cell.path.clone_from(path);
            }
        }
        Ok(if self.subject.limit {
            cells.into_iter().map(Cell::unchecked).collect()
        } else {
            cells
        })
    }

    fn publish(&self, profile: &Profile, baseline: Option<&Profile>) -> Result<ExitCode, Error> {
        // A reader that has seen enough is no failure.
        let mut out = std::io::stdout();
        let _ = write!(out, "{}\n\n{}", profile.describe(), profile.table(baseline));
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(profile).expect("it has string keys only");
            std::fs::write(path, json + "\n").map_err(Error::local(path.display()))?;
        }
        let Some(baseline) = baseline else {
            return Ok(ExitCode::SUCCESS);
        };
        let dearer = profile.dearer_than(baseline, self.tolerance);
        let _ = writeln!(out, "\nbaseline: {}", baseline.describe());
        if dearer.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let _ = writeln!(
            out,
            "FAILED: more than {} % above the baseline: {}",
            self.tolerance * 100.0,
            dearer.join(", ")
        );
        Ok(ExitCode::FAILURE)
    }
}

impl SubjectArguments {
    /// Its name, without the folder it is in.
    fn name(&self) -> String {
        let name = match &self.start {
            Some(command) => command.split_ascii_whitespace().next().unwrap_or_default(),
            None if self.limit => "limit",
            None if self.generator => "loadtest",
            None => "stentor",
        };
        let name = Path::new(name).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The command that serves a cell.
    fn server(&self, cell: &Cell) -> Result<Vec<String>, Error> {
        let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect();
        if let Some(command) = &self.start {
            return Ok(words(command));
        }
        if !self.limit {
            return target::stentor(&cell.stentor());
        }
        let this = std::env::current_exe().map_err(Error::local("where is this program?"))?;
        let program = this.with_file_name("limit").display().to_string();
        let arguments = cell
            .limit()
            .ok_or_else(|| Error::Local(format!("limit cannot serve {}", cell.name)))?;
        Ok([vec![program], words(&arguments)].concat())
    }
}

fn read(path: &Path) -> Result<Profile, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::local(path.display()))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Local(format!("{}: no profile: {error}", path.display())))
}

/// `5%` or `5`, as a part of one.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    number
        .parse()
        .ok()
        .filter(|percent: &f64| percent.is_finite() && *percent >= 0.0)
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "must be a percentage from 0 on".to_owned())
}

/// Where the tools write to: removed with this value, unless it is to be kept.
struct Folder {
    path: PathBuf,
    is_kept: bool,
}

impl Folder {
    fn new(kept: Option<&Path>) -> Result<Self, Error> {
        let name = format!("loadtest-profile-{}", std::process::id());
        let folder = Folder {
            path: kept.map_or_else(|| std::env::temp_dir().join(name), Path::to_owned),
            is_kept: kept.is_some(),
        };
        std::fs::create_dir_all(&folder.path).map_err(Error::local(folder.path.display()))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept {
            // Its files are small, and it is in the folder for what nobody misses.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
