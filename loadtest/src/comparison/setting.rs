//! Where, when and with what a comparison was made: without it, a figure is a rumour.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use rustix::system::uname;
use serde::{Deserialize, Serialize};

/// Where, when and with what a comparison was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The day, in UTC: `2026-01-31`.
    pub date: String,
    /// Processor and cores; never a name that the machine has in a network.
    pub machine: String,
    /// The kernel and its version.
    pub kernel: String,
    /// The commit of this repository, and whether anything was changed since; empty without git.
    pub commit: String,
    /// The exact command, as a shell takes it.
    pub command: String,
}

impl Setting {
    /// That of this moment, this machine and this process.
    pub fn here() -> Self {
        let uname = uname();
        let [system, release, processor] =
            [uname.sysname(), uname.release(), uname.machine()].map(|name| name.to_string_lossy());
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        Setting {
            date: now.chars().take_while(|char| *char != 'T').collect(),
            machine: machine(&cpuinfo, &processor),
            kernel: format!("{system} {release} {processor}"),
            commit: commit(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_or_default(),
            command: words
                .map(|word| quoted(&word))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// The machine in a file's name: `epyc-2-cores`.
    pub fn slug(&self) -> String {
        let plain = self.machine.replace("(R)", " ").replace("(TM)", " ");
        let words = plain
            .split(|char: char| !char.is_ascii_alphanumeric())
            .map(str::to_ascii_lowercase)
            .filter(|word| !word.is_empty() && !SAYS_NOTHING.contains(&word.as_str()));
        words.collect::<Vec<_>>().join("-")
    }
}

/// Words in names of processors by which none is told from another.
const SAYS_NOTHING: [&str; 5] = ["amd", "intel", "cpu", "processor", "with"];

/// `AMD EPYC 7763, 2 cores`; some processors do not say their name.
fn machine(cpuinfo: &str, processor: &str) -> String {
    let fields = |name| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(move |(field, _)| field.trim() == name)
    };
    let model = fields("model name").next().map(|(_, model)| model.trim());
    let model = model.unwrap_or(processor);
    match fields("processor").count() {
        0 => model.to_owned(),
        1 => format!("{model}, 1 core"),
        cores => format!("{model}, {cores} cores"),
    }
}

/// `3f2a91c`, with `-dirty` behind it if files differ from it.
fn commit(folder: &Path) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]);
    let said = git.current_dir(folder).output().ok()?;
    let commit = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| commit.trim().to_owned())
}

/// In quotes if a shell would see anything but a word.
fn quoted(word: &str) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "-_./:=,@%+".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_processor_and_cores() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A Chip: 3\n\nprocessor\t: 1\n";
        assert_eq!(machine(cpuinfo, "x86_64"), "A Chip: 3, 2 cores");
        assert_eq!(machine("processor : 0\n", "aarch64"), "aarch64, 1 core");
        assert_eq!(machine("", "riscv64"), "riscv64");
    }

    #[test]
    fn slug_is_what_tells_processors_apart() {
        let slug = |machine: &str| {
            let setting = Setting {
                machine: machine.to_owned(),
                ..Setting::default()
            };
            setting.slug()
        };
        assert_eq!(slug("AMD EPYC, 2 cores"), "epyc-2-cores");
        assert_eq!(
            slug("Intel(R) Xeon(R) CPU E5-2670 v3, 24 cores"),
            "xeon-e5-2670-v3-24-cores"
        );
        assert_eq!(slug("../../etc, 1 core"), "etc-1-core");
    }

    #[test]
    fn command_can_be_given_to_a_shell_again() {
        for (word, written) in [
            ("echo/50x20Bx1", "echo/50x20Bx1"),
            ("echo/*", "'echo/*'"),
            ("", "''"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(word), written);
        }
    }

    #[test]
    fn this_machine_can_be_described() {
        let here = Setting::here();
        assert!(here.kernel.starts_with("Linux "), "{here:?}");
        assert!(here.machine.contains(" core"), "{here:?}");
        assert_eq!(here.date.len(), "2026-01-31".len(), "{here:?}");
    }
}
