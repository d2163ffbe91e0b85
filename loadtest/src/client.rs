//! One client connection, opened the slow and certain way before any clock runs.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::{Error, Failure};
use crate::handshake;

/// How long a server may take to accept, and then to answer the opening handshake.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections per source address: well below the 28,000 ephemeral ports of Linux' default range.
const PER_SOURCE: usize = 20_000;

/// Where a server listens: `ws://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The source address of the `index`th connection, where more are wanted than one address has ports for.
pub fn source(index: usize, target: &Target) -> Option<IpAddr> {
    let is_loopback = matches!(target.address.ip(), IpAddr::V4(ip) if ip.is_loopback());
    match index / PER_SOURCE {
        0 => None,
        _ if !is_loopback => None, // Only 127.0.0.0/8 has addresses to spare.
        nth => Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + nth as u8))),
    }
}

/// Connects and completes the opening handshake, blocking.
///
/// # Errors
///
/// The kind of failure with what happened.
pub fn open(target: &Target, source: Option<IpAddr>) -> Result<TcpStream, (Failure, String)> {
    let mut stream =
        connect(target, source).map_err(|error| (Failure::Connect, error.to_string()))?;
    shake_hands(&mut stream, target).map_err(|what| (Failure::Handshake, what))?;
    Ok(stream)
}

/// Asks whether anybody listens, so that one line can say it where thousands of failures would.
///
/// # Errors
///
/// [`Error::Unreachable`] if not.
pub fn require_server(target: &Target) -> Result<(), Error> {
    match TcpStream::connect_timeout(&target.address, PATIENCE) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Unreachable(target.address, error)),
    }
}

fn connect(target: &Target, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(target.address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&target.address.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn shake_hands(stream: &mut TcpStream, target: &Target) -> Result<(), String> {
    let key = handshake::random_key();
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock => format!("no answer within {PATIENCE:?}"),
        _ => error.to_string(),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    stream
        .write_all(&handshake::request(target, &key))
        .map_err(io)?;

    let mut head = [0; handshake::MAX_HEAD];
    let mut filled = 0;
    loop {
        let received = stream.read(&mut head[filled..]).map_err(io)?;
        if received == 0 {
            return Err("the answer ended before its empty line".into());
        }
        filled += received;
        if let Some(len) = handshake::head_len(&head[..filled]) {
            handshake::check_response(&head[..len], &key)?;
            // Bytes here would be lost to the counting that follows: an echo server has nothing to say yet.
            return if len == filled {
                Ok(())
            } else {
                Err("the server spoke first".into())
            };
        }
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
