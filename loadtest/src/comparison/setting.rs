//! Where, when and with what a comparison was made.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::page::Circumstances;

/// Where, when and with what a comparison was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The day, in UTC: `2026-01-31`.
    pub date: String,
    /// Processor, cores, memory; never a name that the machine has in a network.
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
        let Circumstances {
            date,
            machine,
            kernel,
            command,
        } = Circumstances::here();
        Setting {
            date: date.chars().take_while(|char| *char != 'T').collect(),
            machine,
            kernel,
            commit: commit(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_or_default(),
            command,
        }
    }

    /// Processor and cores in a file's name: `epyc-2-cores`.
    pub fn slug(&self) -> String {
        let parts = self.machine.split(',');
        let parts = parts.filter(|part| !part.ends_with("GiB"));
        let plain = parts.collect::<Vec<_>>().join(" ");
        let plain = plain.replace("(R)", " ").replace("(TM)", " ");
        let words = plain
            .split(|char: char| !char.is_ascii_alphanumeric())
            .map(str::to_ascii_lowercase)
            .filter(|word| !word.is_empty() && !SAYS_NOTHING.contains(&word.as_str()));
        words.collect::<Vec<_>>().join("-")
    }
}

/// Words in names of processors by which none is told from another.
const SAYS_NOTHING: [&str; 5] = ["amd", "intel", "cpu", "processor", "with"];

/// `3f2a91c`, with `-dirty` behind it if files differ from it.
fn commit(folder: &Path) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]);
    let said = git.current_dir(folder).output().ok()?;
    let commit = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| commit.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slug_is_what_tells_processors_apart() {
        let slug = |machine: &str| {
            let setting = Setting {
                machine: machine.to_owned(),
                ..Setting::default()
            };
            setting.slug()
        };
        assert_eq!(slug("AMD EPYC, 2 cores, 7.8 GiB"), "epyc-2-cores");
        assert_eq!(
            slug("Intel(R) Xeon(R) CPU E5-2670 v3, 24 cores, 64.0 GiB"),
            "xeon-e5-2670-v3-24-cores"
        );
        assert_eq!(slug("../../etc, 1 core"), "etc-1-core");
    }

    #[test]
    fn day_is_without_the_hour() {
        let here = Setting::here();
        assert_eq!(here.date.len(), "2026-01-31".len(), "{here:?}");
    }
}
