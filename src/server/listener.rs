//! Listening sockets, and the patience to accept again after the machine ran out of something.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::config::Endpoint;
use super::transport::Transport;

/// Connections that the kernel keeps ready for us; it takes no more than net.core.somaxconn. mio's
/// own `bind` asks for 128, which a burst of clients overruns within a millisecond.
const BACKLOG: i32 = 4096;

/// First and longest pause after accept failed for want of file descriptors or memory.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: ListeningSocket,
    /// Where it listens, with the port that the kernel chose.
    pub(crate) endpoint: Endpoint,
    /// Connections may be waiting for which no event will come: accept without one.
    pub(crate) is_ready: bool,
    /// After a failure: when to try again, and how long the pause was.
    retry: Option<(Instant, Duration)>,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// What an attempt to accept came to.
pub(crate) enum Accepted {
    /// A connection, and the address that it comes from, which a unix socket has none of.
    Connection(Transport, Option<IpAddr>),
    /// Nobody waits: an event will tell of the next one.
    None,
    /// This connection was gone before it was accepted; there may be others.
    Lost,
    /// The machine is out of file descriptors or memory; try again later.
    Exhausted(io::Error),
}

impl Listener {
    /// Binds and listens; close-on-exec and non-blocking like every socket here.
    pub(crate) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let (socket, endpoint) = match endpoint {
            Endpoint::Tcp(address) => {
                let listener = bind_tcp(*address)?;
                let endpoint = Endpoint::Tcp(listener.local_addr()?);
                (ListeningSocket::Tcp(listener), endpoint)
            }
            Endpoint::Unix(path) => {
                let listener = bind_unix(path)?;
                (
                    ListeningSocket::Unix(listener, path.clone()),
                    endpoint.clone(),
                )
            }
        };
        Ok(Self {
            socket,
            endpoint,
            is_ready: false,
            retry: None,
        })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE)
    }

    fn source(&mut self) -> &mut dyn Source {
        match &mut self.socket {
            ListeningSocket::Tcp(listener) => listener,
            ListeningSocket::Unix(listener, _) => listener,
        }
    }

    pub(crate) fn accept(&mut self, now: Instant) -> Accepted {
        let accepted = match &self.socket {
            ListeningSocket::Tcp(listener) => {
                let accepted = listener.accept();
                accepted.map(|(stream, from)| (Transport::Tcp(stream), Some(from.ip())))
            }
            ListeningSocket::Unix(listener, _) => {
                let accepted = listener.accept();
                accepted.map(|(stream, _)| (Transport::Unix(stream), None))
            }
        };
        match accepted {
            Ok((transport, ip)) => {
                self.retry = None;
                Accepted::Connection(transport, ip)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_ready = false;
                self.retry = None; // Whoever waited was served.
                Accepted::None
            }
            // accept(2): errors that are already pending on the new socket are to be retried.
            Err(error) if is_of_the_connection(&error) => Accepted::Lost,
            // Out of something: the queue stays as it is and no edge will come for it.
            Err(error) => {
                self.is_ready = false;
                let pause = self
                    .retry
                    .map_or(BACKOFF.0, |(_, last)| (last * 2).min(BACKOFF.1));
                self.retry = Some((now + pause, pause));
                Accepted::Exhausted(error)
            }
        }
    }

    /// When to accept again after a failure.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry.filter(|_| !self.is_ready).map(|(at, _)| at)
    }

    /// The pause after a failure is over, because of the time or because a connection closed.
    pub(crate) fn wake_if(&mut self, is_due: impl FnOnce(Instant) -> bool) {
        if let Some((at, _)) = self.retry
            && is_due(at)
        {
            self.is_ready = true;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let ListeningSocket::Unix(_, path) = &self.socket {
            let _ = fs::remove_file(path);
        }
    }
}

/// The errors that accept(2) lists for a connection that was gone before it was accepted; whatever
/// else fails would fail again at once.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the TIME_WAIT of its predecessor's connections.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // Each address is listed by itself; `[::]` does not claim the IPv4 port as well.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let address = SockAddr::unix(path)?;
    if fs::metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        // A socket that nobody listens on was left by a process that did not end well.
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        if probe.connect(&address).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    #[test]
    fn accepted_sockets_inherit_no_delay() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("stentor-listener-{}", std::process::id()));
        let endpoint = Endpoint::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // Leaves the file behind.
        let listener = Listener::bind(&endpoint).unwrap();
        let error = Listener::bind(&endpoint).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    fn is_lost(code: i32) -> bool {
        is_of_the_connection(&io::Error::from_raw_os_error(code))
    }

    #[test]
    fn cat_130_all_that_the_machine_can_run_out_of_is_exhaustion() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(!is_lost(code), "{}", io::Error::from_raw_os_error(code));
        }
        // What accept(2) does not explain would fail again at once: it is given a pause as well.
        assert!(!is_lost(libc::EBADF) && !is_lost(libc::EINVAL));
    }

    #[test]
    fn cat_131_errors_of_one_connection_do_not_end_accepting() {
        for code in [
            libc::ECONNABORTED,
            libc::EINTR,
            libc::EPERM,
            libc::EPROTO,
            libc::ENETDOWN,
            libc::ENOPROTOOPT,
            libc::EHOSTDOWN,
            libc::ENONET,
            libc::EHOSTUNREACH,
            libc::EOPNOTSUPP,
            libc::ENETUNREACH,
        ] {
            assert!(is_lost(code), "{}", io::Error::from_raw_os_error(code));
        }
    }

    #[test]
    fn the_pause_after_exhaustion_doubles_up_to_a_second() {
        let mut listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let now = Instant::now();
        listener.retry = Some((now, BACKOFF.0));
        assert_eq!(listener.retry_at(), Some(now));
        listener.wake_if(|at| at > now);
        assert!(!listener.is_ready);
        listener.wake_if(|at| at <= now);
        assert!(listener.is_ready);
        assert_eq!(listener.retry_at(), None);
    }
}
