//! The programs that watch a process: how they are called, and what they write down.

use std::collections::BTreeMap;
use std::path::Path;

/// How often a process did what a tool counts, by the name of it.
pub type Counts = BTreeMap<String, u64>;

/// A program that runs another and writes down what that did.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name, and that of its Debian package.
    pub name: &'static str,
    words: &'static [&'static str],
    output: &'static str,
    /// What it wrote, as counts.
    pub read: fn(&str) -> Option<Counts>,
}

/// Counts instructions outside the kernel.
///
/// glibc copies large blocks with `rep movsb` where the processor is good at it, which valgrind counts as
/// an instruction for every byte: it is told that the processor is not.
pub const CALLGRIND: Tool = Tool {
    name: "valgrind",
    words: &[
        "env",
        "GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS",
        "valgrind",
        "--quiet",
        "--tool=callgrind",
    ],
    output: "--callgrind-out-file=",
    read: instructions,
};

/// Counts system calls, of all threads.
///
/// `-I2`: it ends when it is told to, and the program with it.
pub const STRACE: Tool = Tool {
    name: "strace",
    words: &["strace", "-f", "-c", "-I2"],
    output: "--output=",
    read: system_calls,
};

/// The only thing that callgrind counts.
pub(super) const INSTRUCTIONS: &str = "instructions";

impl Tool {
    /// The words before a command that have it watched.
    pub fn prefix(&self, output: &Path) -> Vec<String> {
        let output = format!("{}{}", self.output, output.display());
        let words = self.words.iter().map(|word| (*word).to_owned());
        words.chain([output]).collect()
    }
}

/// The line `totals: 612659` of a file whose only event is `Ir`.
fn instructions(profile: &str) -> Option<Counts> {
    let totals = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals:"))?;
    Some(Counts::from([(
        INSTRUCTIONS.to_owned(),
        totals.trim().parse().ok()?,
    )]))
}

/// Lines of `% time, seconds, usecs/call, calls, errors, syscall`; nothing stands under `errors` where there are none.
fn system_calls(summary: &str) -> Option<Counts> {
    let mut counts = Counts::new();
    for line in summary.lines() {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let is_call = fields.len() >= 5 && fields[0].parse::<f64>().is_ok();
        if is_call && fields.last() != Some(&"total") {
            counts.insert(fields[fields.len() - 1].to_owned(), fields[3].parse().ok()?);
        }
    }
    (!counts.is_empty()).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
# callgrind format
version: 1
creator: callgrind-3.19.0
cmd:  target/release/stentor echo
desc: Trigger: Program termination

positions: line
events: Ir
summary: 612499


fl=(134) src/main.rs
fn=(3298) main
0 5

totals: 612659
";

    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ------------------
 53.80    0.021337           1     20051           sendto
 44.77    0.017755           0     20150        99 recvfrom
  0.41    0.000161           0       402           epoll_wait
  0.00    0.000000           0         1           rt_sigreturn
------ ----------- ----------- --------- --------- ------------------
100.00    0.039657           0     40604        99 total
";

    fn counts<const N: usize>(counts: [(&str, u64); N]) -> Counts {
        counts.map(|(name, count)| (name.to_owned(), count)).into()
    }

    #[test]
    fn callgrind_tells_the_instructions_of_the_whole_run() {
        assert_eq!(
            instructions(PROFILE),
            Some(counts([(INSTRUCTIONS, 612_659)]))
        );
    }

    #[test]
    fn profile_that_was_cut_off_is_no_profile() {
        let (begun, _) = PROFILE.split_once("totals").unwrap();
        assert_eq!(instructions(begun), None);
    }

    #[test]
    fn strace_tells_calls_with_and_without_errors() {
        let expected = counts([
            ("sendto", 20_051),
            ("recvfrom", 20_150),
            ("epoll_wait", 402),
            ("rt_sigreturn", 1),
        ]);
        assert_eq!(system_calls(SUMMARY), Some(expected));
    }

    #[test]
    fn summary_without_calls_is_no_summary() {
        assert_eq!(system_calls(""), None);
        assert_eq!(system_calls("strace: Process 1 detached\n"), None);
    }

    #[test]
    fn output_is_named_before_the_command() {
        let prefix = STRACE.prefix(Path::new("out")).join(" ");
        assert_eq!(prefix, "strace -f -c -I2 --output=out");
    }
}
