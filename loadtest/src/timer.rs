//! Waking up at a time, closer than the milliseconds of `epoll_wait`.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::failure::Error;

/// A timer on a loop. Its event only wakes the loop; its token is no connection's.
#[derive(Debug)]
pub struct Timer(OwnedFd);

/// The token of timers.
pub const TIMER: Token = Token(usize::MAX - 1);

impl Timer {
    /// A timer that wakes `poll`.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor for it.
    pub fn new(poll: &Poll) -> Result<Self, Error> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(|error| Error::local("timerfd")(error.into()))?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)
            .map_err(Error::local("timerfd"))?;
        Ok(Timer(timer))
    }

    /// Sets it to `at`; answers with what timeout to poll, which is `otherwise` unless that time is now.
    ///
    /// However near that time is, the loop goes to sleep: one that spins would be taken for a load generator
    /// that is full. Waking up late, it finds more to send at once.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn arm(&mut self, at: Instant, otherwise: Duration) -> Result<Duration, Error> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Duration::ZERO);
        }
        if left < otherwise {
            let expiry = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                },
            };
            // Setting it anew forgets an expiry that nobody read.
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &expiry)
                .map_err(|error| Error::local("timerfd")(error.into()))?;
        }
        Ok(otherwise)
    }
}
