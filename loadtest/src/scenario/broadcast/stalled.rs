//! Subscribers that never read: a server has to keep them or to close them, and neither may harm the others.

use std::os::fd::AsRawFd as _;

use mio::event::Event as Readiness;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::net::RecvFlags;
use socket2::SockRef;

use crate::client::{Client, Fault};
use crate::failure::{Error, Failure};

/// The kernel makes at least 2 KiB of it: stalled subscribers stall early.
const STALLED_BUFFER: usize = 1024;

/// From now on nobody reads there, and nobody is woken by what comes: only by its end.
pub(super) fn stall(client: &Client, token: Token, poll: &Poll) -> Result<(), Error> {
    let stream = client.stream();
    SockRef::from(stream)
        .set_recv_buffer_size(STALLED_BUFFER)
        .map_err(Error::local("a small receive buffer"))?;
    poll.registry()
        .reregister(
            &mut SourceFd(&stream.as_raw_fd()),
            token,
            Interest::WRITABLE,
        )
        .map_err(Error::local("epoll"))
}

/// Of a member that does not read, the loop tells only the end.
pub(super) fn still_there(readiness: &Readiness) -> Result<(), Fault> {
    if readiness.is_error() || readiness.is_read_closed() || readiness.is_write_closed() {
        Err(Fault(Failure::Closed, "a stalled member was closed".into()))
    } else {
        Ok(())
    }
}

/// Reads what came; whether the end is behind it.
pub(super) fn is_over(client: &Client) -> bool {
    let mut dropped = [0; 16 * 1024];
    loop {
        match rustix::net::recv(client.stream(), &mut dropped, RecvFlags::TRUNC) {
            Ok((_, 0)) => return true,
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::INTR => {}
            Err(error) => return error != rustix::io::Errno::AGAIN,
        }
    }
}
