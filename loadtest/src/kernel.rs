//! What the kernel itself spends on sockets: of both ends, where both are on this machine.

use std::fs;
use std::io::{self, ErrorKind};

/// The kernel's memory for sockets, of all processes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMemory {
    /// Bytes in socket buffers (`/proc/net/sockstat`).
    pub buffers: u64,
    /// Bytes of the slab caches of sockets, files and epoll, where `/proc/slabinfo` may be read.
    pub slab: Option<u64>,
}

/// The caches that an accepted TCP connection on an epoll has an object in.
const CACHES: [&str; 7] = [
    "TCP",
    "TCPv6",
    "sock_inode_cache",
    "filp",
    "dentry",
    "eventpoll_epi",
    "eventpoll_pwq",
];
const PAGE: u64 = 4096;

impl SocketMemory {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn now() -> io::Result<Self> {
        let sockstat = fs::read_to_string("/proc/net/sockstat")?;
        let slabinfo = fs::read_to_string("/proc/slabinfo").ok();
        Ok(SocketMemory {
            buffers: buffers(&sockstat).ok_or(ErrorKind::InvalidData)?,
            slab: slabinfo.as_deref().map(slab),
        })
    }
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 1`: the last in pages.
fn buffers(sockstat: &str) -> Option<u64> {
    let line = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == "mem")?;
    Some(words.next()?.parse::<u64>().ok()? * PAGE)
}

/// `name active_objs num_objs objsize …`: what is active, by size.
fn slab(slabinfo: &str) -> u64 {
    let bytes = slabinfo.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?;
        let active: u64 = words.next()?.parse().ok()?;
        let size: u64 = words.nth(1)?.parse().ok()?;
        CACHES.contains(&name).then_some(active * size)
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_pages() {
        let sockstat =
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3\nUDP: inuse 0 mem 1\n";
        assert_eq!(buffers(sockstat), Some(3 * PAGE));
        assert_eq!(buffers("UDP: inuse 0 mem 1\n"), None);
    }

    #[test]
    fn slab_counts_what_is_active_in_the_caches_of_sockets() {
        let slabinfo = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> …\n\
                        TCP 10 13 2368 13 8 : tunables 0 0 0 : slabdata 1 1 0\n\
                        kmalloc-8 9 9 8 512 1 : tunables 0 0 0 : slabdata 1 1 0\n\
                        filp 100 128 192 21 1 : tunables 0 0 0 : slabdata 1 1 0\n";
        assert_eq!(slab(slabinfo), 10 * 2368 + 100 * 192);
    }
}
