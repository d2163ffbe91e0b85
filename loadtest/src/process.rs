//! What the kernel knows of a process: CPU time, memory, descriptors.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time that a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// All of it, to the nanosecond, as the scheduler accounts it.
    total: Duration,
    /// Time spent ready to run while something else had the core.
    waited: Duration,
    /// In ticks of 10 ms: good for a share, too coarse for a sum.
    user_ticks: u64,
    system_ticks: u64,
}

/// CPU time used between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuUse {
    /// In the process' own code.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
    /// Not used, but waited for while something else had the core.
    pub waited: Duration,
}

impl CpuTimes {
    /// The times of a running process: all its threads that still live.
    ///
    /// # Errors
    ///
    /// If there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let (user_ticks, system_ticks) =
            parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
                .ok_or(ErrorKind::InvalidData)?;
        let (mut total, mut waited) = (Duration::ZERO, Duration::ZERO);
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between being listed and being read.
            let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let (ran, waiting) = parse_schedstat(&schedstat).ok_or(ErrorKind::InvalidData)?;
            total += ran;
            waited += waiting;
        }
        Ok(CpuTimes {
            total,
            waited,
            user_ticks,
            system_ticks,
        })
    }

    /// What was used since an earlier reading: the exact total, split as the ticks fell.
    pub fn since(&self, earlier: &CpuTimes) -> CpuUse {
        let user = self.user_ticks - earlier.user_ticks;
        let system = self.system_ticks - earlier.system_ticks;
        let total = self.total.saturating_sub(earlier.total);
        let user = match user + system {
            0 => Duration::ZERO,
            ticks => total.mul_f64(crate::units::float(user) / crate::units::float(ticks)),
        };
        CpuUse {
            user,
            system: total.saturating_sub(user),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

impl CpuUse {
    /// User and system together.
    pub fn total(&self) -> Duration {
        self.user + self.system
    }
}

/// CPU time that this process has used.
///
/// # Panics
///
/// Never: no clock of CPU time runs below zero.
pub fn own_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("CPU time is never negative")
}

/// How long this thread was ready to run while something else had its core.
///
/// # Errors
///
/// If the kernel does not tell.
pub fn thread_waited() -> io::Result<Duration> {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let (_, waited) = parse_schedstat(&schedstat).ok_or(ErrorKind::InvalidData)?;
    Ok(waited)
}

/// `utime` and `stime`, fields 14 and 15 of proc(5), counted behind the name, which may hold anything.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The first two of three numbers: nanoseconds on a core, and nanoseconds ready but without one.
fn parse_schedstat(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut fields = schedstat.split_ascii_whitespace();
    let mut next = || fields.next()?.parse().ok().map(Duration::from_nanos);
    Some((next()?, next()?))
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Pages that are its own and written: what it costs the machine.
    pub private_dirty: u64,
    /// Everything resident, shared code included.
    pub resident: u64,
}

impl Memory {
    /// The memory of a running process; kernel memory for its sockets is not in it.
    ///
    /// # Errors
    ///
    /// If there is no such process, or it belongs to somebody else.
    pub fn of(pid: u32) -> io::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        parse_rollup(&rollup).ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

fn parse_rollup(rollup: &str) -> Option<Memory> {
    let kilobytes = |name: &str| -> Option<u64> {
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim()
            .strip_suffix("kB")?
            .trim_end()
            .parse::<u64>()
            .ok()
    };
    Some(Memory {
        private_dirty: kilobytes("Private_Dirty")? * 1024,
        resident: kilobytes("Rss")? * 1024,
    })
}

/// The processes that a process has started and that still live.
///
/// # Errors
///
/// If there is no such process, or the kernel does not tell.
pub fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between being listed and being read.
        let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        let pids = list.split_ascii_whitespace();
        children.extend(pids.filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

/// The process that listens on a TCP address of this machine, if it may be seen.
pub fn listening_on(address: SocketAddr) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listener_inode(&table, address))?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| holds(*pid, &socket))
}

fn holds(pid: u32, socket: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let mut links = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| link.as_os_str() == socket)
}

/// The inode of the socket that listens there: lines of `sl local_address rem_address st … inode`, the address
/// as hexadecimal words of the machine's own byte order.
fn listener_inode(table: &str, address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    let any = SocketAddr::new(
        match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        },
        address.port(),
    );
    let wanted = [hexadecimal(address), hexadecimal(any)];
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let is_it = wanted.iter().any(|wanted| *wanted == fields[1]) && fields[3] == LISTEN;
        is_it.then(|| fields.get(9)?.parse().ok())?
    })
}

fn hexadecimal(address: SocketAddr) -> String {
    let words = |octets: &[u8]| -> String {
        let words = octets.chunks(4).map(|word| {
            let word = word.try_into().expect("addresses are whole words");
            format!("{:08X}", u32::from_ne_bytes(word))
        });
        words.collect()
    };
    let host = match address {
        SocketAddr::V4(address) => words(&address.ip().octets()),
        SocketAddr::V6(address) => words(&address.ip().octets()),
    };
    format!("{host}:{:04X}", address.port())
}

/// Raises the soft limit of file descriptors as far as it goes, and says how far that is.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where raising fails, what there is has to do.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 1234 567 0 0 20 0 1 0 99 1 1";
        assert_eq!(parse_stat(stat), Some((1234, 567)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn schedstat_is_nanoseconds() {
        let times = (Duration::from_nanos(77_376), Duration::from_nanos(10));
        assert_eq!(parse_schedstat("77376 10 1\n"), Some(times));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn total_is_split_as_the_ticks_fell() {
        let earlier = CpuTimes {
            total: Duration::from_millis(100),
            waited: Duration::from_millis(7),
            user_ticks: 5,
            system_ticks: 5,
        };
        let later = CpuTimes {
            total: Duration::from_millis(300),
            waited: Duration::from_millis(9),
            user_ticks: 10,
            system_ticks: 20,
        };
        let used = later.since(&earlier);
        assert_eq!(
            (used.user, used.system),
            (Duration::from_millis(50), Duration::from_millis(150))
        );
        assert_eq!(used.waited, Duration::from_millis(2));
        assert_eq!(later.since(&later), CpuUse::default());
    }

    #[test]
    fn own_listener_is_found_by_its_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listening_on(address), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_on(address), None);
    }

    #[test]
    fn rollup_is_read_by_name() {
        let rollup = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:     1036 kB\nPss:   500 kB\n\
                      Private_Clean:      4 kB\nPrivate_Dirty:     88 kB\n";
        assert_eq!(
            parse_rollup(rollup),
            Some(Memory {
                private_dirty: 88 * 1024,
                resident: 1036 * 1024
            })
        );
        assert_eq!(parse_rollup("Rss: 1 kB\n"), None);
    }

    // Not this process: the times of its threads go with them, and tests are threads.
    #[test]
    fn another_process_has_times_and_memory() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let before = CpuTimes::of(child.id()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while CpuTimes::of(child.id()).unwrap().since(&before).total() < Duration::from_millis(30) {
            assert!(
                std::time::Instant::now() < deadline,
                "a busy process uses no time"
            );
            std::thread::yield_now();
        }
        assert!(Memory::of(child.id()).unwrap().private_dirty > 0);
        assert!(children(std::process::id()).unwrap().contains(&child.id()));
        assert!(children(child.id()).unwrap().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
