//! How much memory there is, and what of it peers may make the server keep.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use stentor::Limits;

/// The memory that this process may have, in bytes: the least of what its control groups, its resource
/// limits and the machine leave it. What cannot be found out is no limit.
pub(super) fn available() -> u64 {
    let limits = [Resource::Data, Resource::As].map(|resource| getrlimit(resource).current);
    let read = |path: &Path| fs::read_to_string(path).ok();
    limits
        .into_iter()
        .flatten()
        .chain(of_groups(read))
        .chain(of_machine(read))
        .min()
        .unwrap_or(u64::MAX)
}

/// The limit of the control group that this process is in, and of those that group is in.
fn of_groups(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let own = read(Path::new("/proc/self/cgroup"))?;
    // `HIERARCHY:CONTROLLERS:PATH`; in version 2 the first is 0 and there is no second.
    let found = own.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some(("/sys/fs/cgroup", "memory.max", path)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path))
            }
            _ => None,
        }
    });
    let limits = found.flat_map(|(root, file, path)| {
        let group = PathBuf::from(format!("{root}{path}"));
        let groups: Vec<PathBuf> = group.ancestors().map(|group| group.join(file)).collect();
        groups
            .into_iter()
            .filter(move |file| file.starts_with(root))
    });
    // `max` is no limit.
    limits
        .filter_map(|file| read(&file)?.trim().parse().ok())
        .min()
}

/// The memory of the machine.
fn of_machine(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let info = read(Path::new("/proc/meminfo"))?;
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Makes the caps of memory smaller, all by the same factor, so that together they are at most 65 % of
/// what there is. The rest is for what no cap counts: the program, idle connections, what is on its way
/// while a cap is being enforced.
pub(super) fn fit(limits: &mut Limits, available: u64) {
    let caps = [
        &mut limits.max_input,
        &mut limits.max_output,
        &mut limits.max_history,
        &mut limits.max_topic_memory,
    ];
    let all: u128 = caps.iter().map(|cap| **cap as u128).sum();
    let most = u128::from(available) * 65 / 100;
    if all > most {
        for cap in caps {
            *cap = (*cap as u128 * most / all) as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Files that are these.
    fn files(all: &'static [(&str, &str)]) -> impl Fn(&Path) -> Option<String> {
        move |path| {
            let found = all.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        }
    }

    #[test]
    fn the_least_limit_of_the_groups_counts() {
        let two = files(&[
            ("/proc/self/cgroup", "0::/system.slice/stentor.service\n"),
            (
                "/sys/fs/cgroup/system.slice/stentor.service/memory.max",
                "max\n",
            ),
            ("/sys/fs/cgroup/system.slice/memory.max", "536870912\n"),
            ("/sys/fs/cgroup/memory.max", "1073741824\n"),
        ]);
        assert_eq!(of_groups(two), Some(512 * MIB));
        let one = files(&[
            (
                "/proc/self/cgroup",
                "3:cpu,cpuacct:/a\n2:rdma,memory:/docker/x\n0::/\n",
            ),
            (
                "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
                "268435456\n",
            ),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(of_groups(one), Some(256 * MIB));
        assert_eq!(of_groups(files(&[])), None);
        let strange = files(&[("/proc/self/cgroup", "what\n:\n0::relative\n")]);
        assert_eq!(of_groups(strange), None);
    }

    #[test]
    fn the_machine_says_what_it_has() {
        let info = files(&[(
            "/proc/meminfo",
            "MemTotal:       24683972 kB\nMemFree: 1 kB\n",
        )]);
        assert_eq!(of_machine(info), Some(24_683_972 * 1024));
        assert_eq!(
            of_machine(files(&[("/proc/meminfo", "MemTotal: many\n")])),
            None
        );
        assert!(available() > 0);
    }

    #[test]
    fn caps_fit_into_what_there_is() {
        let caps = |limits: &Limits| {
            let Limits {
                max_input,
                max_output,
                max_history,
                max_topic_memory,
                ..
            } = *limits;
            [max_input, max_output, max_history, max_topic_memory].map(|cap| cap as u64)
        };
        let usual = Limits::default();
        let mut limits = usual.clone();
        fit(&mut limits, u64::MAX);
        assert_eq!(caps(&limits), caps(&usual));
        fit(&mut limits, 512 * MIB);
        let all: u64 = caps(&limits).iter().sum();
        assert!((330 * MIB..=333 * MIB).contains(&all), "{limits:?}");
        let of = |limits: &Limits| limits.max_output / limits.max_input;
        assert_eq!(of(&limits), of(&usual));
    }
}
