//! How many connections come from each IP address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The TCP connections that are there, counted by where they come from.
///
/// Both maps have at most one entry per connection: an address is forgotten with its last one.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    counts: HashMap<IpAddr, u32>,
    /// By key, the address under which a connection is counted: who has none, or no limit to obey,
    /// pays nothing for it in the slab entry.
    of_key: HashMap<usize, IpAddr>,
}

impl Addresses {
    /// How many connections are counted together with those from this address.
    pub(crate) fn count(&self, ip: IpAddr) -> usize {
        let count = self.counts.get(&counted_as(ip));
        count.map_or(0, |&count| count as usize)
    }

    /// A connection from this address has got this key.
    pub(crate) fn enter(&mut self, key: usize, ip: IpAddr) {
        let ip = counted_as(ip);
        *self.counts.entry(ip).or_default() += 1;
        let last = self.of_key.insert(key, ip);
        debug_assert_eq!(last, None, "a key is one connection's");
    }

    /// The connection with this key is gone; nothing happens if it was not counted.
    pub(crate) fn leave(&mut self, key: usize) {
        let Some(ip) = self.of_key.remove(&key) else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&ip);
            }
        }
    }
}

/// The address that stands for all that are likely to be one host's: an IPv6 network of 64 bits is
/// the least that a customer gets (RFC 6177), with addresses without number; an IPv4 address is
/// one however it is written.
pub(crate) fn counted_as(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_counted_as_one_address() {
        let mut addresses = Addresses::default();
        addresses.enter(0, ip("2001:db8:1:2::1"));
        addresses.enter(1, ip("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_eq!(addresses.count(ip("2001:db8:1:2:3:4:5:6")), 2);
        assert_eq!(addresses.count(ip("2001:db8:1:3::1")), 0);
        assert_eq!(addresses.count(ip("2001:db8:1:1:ffff:ffff:ffff:ffff")), 0);
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_ipv6_clothes_and_no_network() {
        let mut addresses = Addresses::default();
        addresses.enter(0, ip("192.0.2.1"));
        addresses.enter(1, ip("::ffff:192.0.2.1"));
        assert_eq!(addresses.count(ip("192.0.2.1")), 2);
        assert_eq!(addresses.count(ip("::ffff:192.0.2.1")), 2);
        assert_eq!(addresses.count(ip("::ffff:192.0.2.2")), 0);
        assert_eq!(addresses.count(ip("192.0.2.0")), 0);
    }

    proptest! {
        /// Beside a plain list of who is there.
        #[test]
        fn counts_are_those_of_who_is_there(
            acts in prop::collection::vec((0_usize..8, prop::option::of(0_u8..3)), 0..100),
        ) {
            let address = |last| IpAddr::from([192, 0, 2, last]);
            let mut addresses = Addresses::default();
            let mut there: [Option<u8>; 8] = [None; 8];
            for (key, host) in acts {
                match host {
                    Some(host) if there[key].is_none() => {
                        addresses.enter(key, address(host));
                        there[key] = Some(host);
                    }
                    Some(_) => {}
                    None => {
                        addresses.leave(key);
                        there[key] = None;
                    }
                }
                let count = |host| there.iter().filter(|&&at| at == Some(host)).count();
                for host in 0..3 {
                    prop_assert_eq!(addresses.count(address(host)), count(host));
                }
                let hosts = (0..3).filter(|&host| count(host) > 0).count();
                prop_assert_eq!(addresses.counts.len(), hosts);
                prop_assert_eq!(addresses.of_key.len(), there.iter().flatten().count());
            }
        }
    }
}
