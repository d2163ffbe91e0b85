//! Where the server is, and from where to connect to it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Connections per source address: well below the 28,000 ephemeral ports of Linux' default range.
const PER_SOURCE: usize = 20_000;

/// Where a server listens: `ws://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Host and port as in the URL, for the `Host` field.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The first address that the host stands for.
    pub address: SocketAddr,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if url.starts_with("wss://") {
            return Err("wss:// is not spoken yet: measure without TLS, through ws://".to_owned());
        }
        let rest = url
            .strip_prefix("ws://")
            .ok_or_else(|| format!("{url:?} does not start with ws://"))?;
        let (host, path) = match rest.find(['/', '?']) {
            Some(at) if rest.as_bytes()[at] == b'?' => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, "/".to_owned()),
        };
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| format!("{host:?}: {error}"))?
            .next()
            .ok_or_else(|| format!("{host:?} has no address"))?;
        Ok(Target {
            host: host.to_owned(),
            path,
            address,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.host, self.path)
    }
}

impl Target {
    /// The same server at another path.
    pub fn at(&self, path: impl Into<String>) -> Self {
        Target {
            path: path.into(),
            ..self.clone()
        }
    }
}

/// The source address of the `index`th connection, where more are wanted than one address has ports for.
pub fn source(index: usize, target: &Target) -> Option<IpAddr> {
    let is_loopback = matches!(target.address.ip(), IpAddr::V4(ip) if ip.is_loopback());
    match index / PER_SOURCE {
        0 => None,
        _ if !is_loopback => None, // Only 127.0.0.0/8 has addresses to spare.
        nth => Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + nth as u8))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target: Target = "ws://127.0.0.1:9001/chat?x=1".parse().unwrap();
        assert_eq!(
            (target.host.as_str(), target.path.as_str()),
            ("127.0.0.1:9001", "/chat?x=1")
        );
        assert_eq!(target.address, "127.0.0.1:9001".parse().unwrap());

        let bare: Target = "ws://127.0.0.1".parse().unwrap();
        assert_eq!((bare.path.as_str(), bare.address.port()), ("/", 80));

        let query: Target = "ws://[::1]:81?x".parse().unwrap();
        assert_eq!((query.path.as_str(), query.address.port()), ("/?x", 81));
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "http://127.0.0.1/",
            "127.0.0.1:9001",
            "ws://",
            "wss://127.0.0.1/",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }

    #[test]
    fn sources_change_before_the_ports_run_out() {
        let target = "ws://127.0.0.1:9001/".parse().unwrap();
        assert_eq!(source(19_999, &target), None);
        assert_eq!(source(20_000, &target), Some("127.0.0.2".parse().unwrap()));
        assert_eq!(source(60_000, &target), Some("127.0.0.4".parse().unwrap()));
    }
}
