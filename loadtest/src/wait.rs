//! Waiting for the sockets of a loop.

use std::io::ErrorKind;
use std::time::Duration;

use mio::{Events, Poll};

use crate::failure::Error;

/// Waits until something is ready, or no longer than `timeout`; after a signal there are no events.
///
/// # Errors
///
/// If the kernel refuses to wait.
pub fn wait(poll: &mut Poll, events: &mut Events, timeout: Duration) -> Result<(), Error> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
        result => result.map_err(Error::local("epoll"))?,
    }
    Ok(())
}
