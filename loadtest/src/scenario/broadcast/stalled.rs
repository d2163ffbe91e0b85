//! Subscribers that never read: a server has to keep them or to close them, and neither may harm the others.

use std::os::fd::AsRawFd as _;

use mio::event::Event as Readiness;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::net::RecvFlags;

use crate::client::{Client, Fault};
use crate::failure::{Error, Failure};

/// From now on nobody reads there, and nobody is woken by what comes: only by its end.
///
/// Those who will stall are [`Width::Narrow`](crate::client::Width) from the beginning. Otherwise the kernel would take
/// what a server sends them for seconds: 4 MiB each. A narrow receive buffer alone would not do, for TCP does not
/// send into windows much smaller than its segments: nobody would see in the end what is behind it.
pub(super) fn stall(client: &Client, token: Token, poll: &Poll) -> Result<(), Error> {
    listen(client, token, poll, Interest::WRITABLE)
}

/// From now on what comes is told again.
pub(super) fn wake(client: &Client, token: Token, poll: &Poll) -> Result<(), Error> {
    listen(client, token, poll, Interest::READABLE)
}

fn listen(client: &Client, token: Token, poll: &Poll, to: Interest) -> Result<(), Error> {
    let descriptor = client.stream().as_raw_fd();
    poll.registry()
        .reregister(&mut SourceFd(&descriptor), token, to)
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
