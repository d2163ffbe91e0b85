//! A stream socket of either family, with the few calls that the loop makes on it.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, Socket};

use super::addresses::counted_as;

/// A connected stream socket.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Transport {
    /// Both directions are registered once; edges tell of every later change.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source()
            .register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    fn socket(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }

    #[inline]
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        })
    }

    pub(crate) fn receive_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.read_vectored(buffers),
            Self::Unix(stream) => stream.read_vectored(buffers),
        })
    }

    /// A peer that went away is an error here and never a SIGPIPE, whatever the embedding program
    /// does with signals.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let socket = self.socket();
        retry(|| socket.send_with_flags(bytes, libc::MSG_NOSIGNAL))
    }

    pub(crate) fn send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.socket();
        retry(|| socket.send_vectored_with_flags(slices, libc::MSG_NOSIGNAL))
    }

    /// Sends FIN behind what was written. A peer that is already gone is no error.
    pub(crate) fn shut_down_writing(&self) {
        let socket: &Socket = &self.socket();
        let _ = socket.shutdown(Shutdown::Write);
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The address that stands for the peer's network; all of whom it cannot be had any more are in
    /// one, or a limit for each network would not hold for them.
    pub(crate) fn peer_network(&self) -> Option<IpAddr> {
        let Self::Tcp(stream) = self else {
            return None;
        };
        let address = stream.peer_addr().map(|address| counted_as(address.ip()));
        Some(address.unwrap_or(Ipv6Addr::UNSPECIFIED.into()))
    }
}

/// A signal that interrupts a call before anything was moved is no event.
#[inline]
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::{Duration, Instant};

    /// Otherwise who resets its connection behind what it sent would be of no network.
    #[test]
    fn a_peer_that_is_gone_is_of_a_network() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::net::TcpStream::connect(address).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let transport = Transport::Tcp(TcpStream::from_std(stream));
        assert_eq!(transport.peer_network(), Some(Ipv4Addr::LOCALHOST.into()));
        let linger = Some(Duration::ZERO);
        SockRef::from(&peer).set_linger(linger).unwrap();
        drop(peer);
        let deadline = Instant::now() + Duration::from_secs(20);
        while transport.peer_addr().is_some() {
            assert!(Instant::now() < deadline);
        }
        let nowhere = Ipv6Addr::UNSPECIFIED.into();
        assert_eq!(transport.peer_network(), Some(nowhere));
    }
}
