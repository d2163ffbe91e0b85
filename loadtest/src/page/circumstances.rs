//! Where and how a run was made: without it, a figure is a rumour.

use std::fs;
use std::time::SystemTime;

use rustix::system::uname;

use crate::units::float;

/// Where and how a run was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// When, in UTC.
    pub date: String,
    /// Processor, cores, memory.
    pub machine: String,
    /// The kernel and its version.
    pub kernel: String,
    /// The exact command, as a shell takes it.
    pub command: String,
}

impl Circumstances {
    /// Those of this moment, this machine and this process.
    pub fn here() -> Self {
        let uname = uname();
        let [system, release, processor] =
            [uname.sysname(), uname.release(), uname.machine()].map(|name| name.to_string_lossy());
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Circumstances {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: machine(&read("/proc/cpuinfo"), &read("/proc/meminfo"), &processor),
            kernel: format!("{system} {release} {processor}"),
            command: command(std::env::args_os().map(|part| part.to_string_lossy().into_owned())),
        }
    }
}

/// `AMD EPYC 7763, 2 cores, 7.8 GiB`; some processors do not say their name.
fn machine(cpuinfo: &str, meminfo: &str, processor: &str) -> String {
    let fields = |name| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(move |(field, _)| field.trim() == name)
    };
    let model = fields("model name").next().map(|(_, model)| model.trim());
    let cores = fields("processor").count();
    let kilobytes: Option<u64> = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse().ok());

    let model = Some(model.unwrap_or(processor).to_owned());
    let cores = match cores {
        0 => None,
        1 => Some("1 core".to_owned()),
        cores => Some(format!("{cores} cores")),
    };
    let memory = kilobytes.map(|kilobytes| format!("{:.1} GiB", float(kilobytes) / 1_048_576.0));
    let parts: Vec<_> = [model, cores, memory].into_iter().flatten().collect();
    parts.join(", ")
}

fn command(parts: impl Iterator<Item = String>) -> String {
    parts
        .map(|part| quoted(&part))
        .collect::<Vec<_>>()
        .join(" ")
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
    fn machine_is_processor_cores_and_memory() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: A Chip: 3\n\nprocessor\t: 1\nmodel name\t: A Chip: 3\n";
        let meminfo = "MemTotal:        8388608 kB\nMemFree:  1 kB\n";
        assert_eq!(
            machine(cpuinfo, meminfo, "x86_64"),
            "A Chip: 3, 2 cores, 8.0 GiB"
        );
        assert_eq!(machine("processor : 0\n", "", "aarch64"), "aarch64, 1 core");
        assert_eq!(machine("", "", "riscv64"), "riscv64");
    }

    #[test]
    fn command_can_be_given_to_a_shell_again() {
        let parts = ["loadtest", "echo", "ws://h/?a=b&c", "", "it's"];
        assert_eq!(
            command(parts.into_iter().map(str::to_owned)),
            r"loadtest echo 'ws://h/?a=b&c' '' 'it'\''s'"
        );
    }

    #[test]
    fn this_machine_can_be_described() {
        let here = Circumstances::here();
        assert!(here.kernel.starts_with("Linux "), "{here:?}");
        assert!(
            here.machine.contains(" core") && here.machine.ends_with(" GiB"),
            "{here:?}"
        );
        assert!(here.date.ends_with('Z'), "{here:?}");
        assert!(!here.command.is_empty());
    }
}
