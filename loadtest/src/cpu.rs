//! What a run cost: the server's CPU time for each thing done, our own, and which of the two was the limit.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::failure::Error;
use crate::process::{CpuTimes, own_cpu_time, thread_waited};
use crate::units::{Micros, float};

/// Readings of a clock and of both processes' CPU time at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: Instant,
    own: Duration,
    /// Of the thread that makes the load: those beside it wait for it, and it is no other work.
    own_waited: Duration,
    server: Option<CpuTimes>,
}

/// What set the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// The server's core was full: the rate is the server's.
    Server,
    /// Ours was and the server's was not: the rate is ours, and says nothing of the server.
    Client,
    /// Something else ran on one of the two cores: the rate says nothing at all.
    Contended,
    /// Neither side was busy: something else, such as latency, set the pace.
    Neither,
    /// The server's CPU time is not known.
    Unknown,
}

/// CPU spent between two readings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// What is counted: `message`.
    pub per: String,
    /// Seconds between the readings.
    pub seconds: f64,
    /// Ours.
    pub own: Share,
    /// The server's, if its process is known.
    pub server: Option<ServerCost>,
    /// What set the pace.
    pub bound: Bound,
}

/// What a process had of one core.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Share {
    /// The part of the time in which it ran; above 1 with several threads.
    pub busy: f64,
    /// The part of the time in which it was ready to run while something else did.
    pub waiting: f64,
}

/// The server's CPU time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ServerCost {
    /// In all.
    #[serde(flatten)]
    pub share: Share,
    /// Microseconds in its own code for each thing done.
    pub user_us: f64,
    /// Microseconds in the kernel for each thing done.
    pub system_us: f64,
}

/// A core busier than this is taken for full.
const FULL: f64 = 0.97;
/// A core less busy than this has room left.
const HAS_ROOM: f64 = 0.90;
/// Waiting more than this is not just waking up: a core was shared.
const SHARED: f64 = 0.10;

impl Reading {
    /// Reads everything now.
    ///
    /// # Errors
    ///
    /// If the server's process is not there.
    pub fn take(server_pid: Option<u32>) -> Result<Self, Error> {
        let times =
            |pid| CpuTimes::of(pid).map_err(Error::local(format_args!("server process {pid}")));
        Ok(Reading {
            at: Instant::now(),
            own: own_cpu_time(),
            own_waited: thread_waited().map_err(Error::local("/proc"))?,
            server: server_pid.map(times).transpose()?,
        })
    }

    /// What was used since an earlier reading.
    pub fn since(&self, earlier: &Reading) -> Use {
        let seconds = |time: Duration| time.as_secs_f64();
        let server = self.server.zip(earlier.server).map(|(now, then)| {
            let used = now.since(&then);
            ServerUse {
                user: seconds(used.user),
                system: seconds(used.system),
                waited: seconds(used.waited),
            }
        });
        Use {
            seconds: seconds(self.at - earlier.at),
            own: seconds(self.own.saturating_sub(earlier.own)),
            own_waited: seconds(self.own_waited.saturating_sub(earlier.own_waited)),
            server,
        }
    }
}

/// Seconds of CPU time used between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// Between the readings.
    pub seconds: f64,
    /// By the load generator.
    pub own: f64,
    /// Not used, but waited for by the load generator while something else had the core.
    pub own_waited: f64,
    /// By the server, if its process is known.
    pub server: Option<ServerUse>,
}

/// Seconds of CPU time that the server used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerUse {
    /// In its own code.
    pub user: f64,
    /// In the kernel on its behalf.
    pub system: f64,
    /// Not used, but waited for while something else had the core.
    pub waited: f64,
}

impl Use {
    /// The cost of each of `done` things, which are called `per`, where so many processes made the load.
    pub fn cost(&self, done: u64, per: &str, processes: usize) -> Cost {
        let part = |seconds: f64| seconds / self.seconds.max(f64::MIN_POSITIVE);
        let each = |seconds: f64| match done {
            0 => 0.0, // Nothing was done that it could be the cost of.
            _ => seconds * 1e6 / float(done),
        };
        let own = Share {
            busy: part(self.own),
            // Several processes wait for one another where they share a core.
            waiting: if processes == 1 {
                part(self.own_waited)
            } else {
                0.0
            },
        };
        let server = self.server.map(|used| ServerCost {
            share: Share {
                busy: part(used.user + used.system),
                waiting: part(used.waited),
            },
            user_us: each(used.user),
            system_us: each(used.system),
        });
        Cost {
            per: per.to_owned(),
            seconds: self.seconds,
            own,
            server,
            bound: Bound::of(own, server.map(|server| server.share)),
        }
    }
}

impl Bound {
    fn of(own: Share, server: Option<Share>) -> Self {
        match server {
            _ if own.waiting > SHARED => Bound::Contended,
            None => Bound::Unknown,
            Some(server) if server.waiting > SHARED => Bound::Contended,
            Some(server) if server.busy >= HAS_ROOM => Bound::Server,
            Some(_) if own.busy > FULL => Bound::Client,
            Some(_) => Bound::Neither,
        }
    }
}

impl Bound {
    /// What it says of the rate, as a sentence without its capital and its end.
    pub fn meaning(self) -> &'static str {
        match self {
            Bound::Server => "the server's core was full: this rate is the server's",
            Bound::Client => {
                "the load generator was full before the server was: this rate is not the server's"
            }
            Bound::Contended => "other work ran on these cores: this rate is nobody's",
            Bound::Neither => "neither side was busy enough to set this rate",
            Bound::Unknown => {
                "without the server's CPU time (--server-pid) nothing says whose rate this is"
            }
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Bound::Server => "server-bound",
            Bound::Client => "client-bound",
            Bound::Contended => "contended",
            Bound::Neither => "unbound",
            Bound::Unknown => "unknown",
        })
    }
}

impl Cost {
    /// Two or three lines for people.
    pub fn lines(&self) -> String {
        let thing = &self.per;
        let server = match self.server {
            Some(server) => format!(
                "{} µs per {thing}: {} user, {} system; {}",
                Micros(server.user_us + server.system_us),
                Micros(server.user_us),
                Micros(server.system_us),
                server.share
            ),
            None => "unknown without --server-pid".to_owned(),
        };
        let lines = format!("  server CPU      {server}\n  own CPU         {}", self.own);
        match self.bound {
            Bound::Server => lines,
            bound => format!("{lines}\n  {bound:<15} {}", bound.meaning()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} % of a core", self.busy * 100.0)?;
        if self.waiting > SHARED {
            write!(f, ", and waited for it {:.1} %", self.waiting * 100.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(busy: f64) -> Share {
        Share { busy, waiting: 0.0 }
    }

    #[test]
    fn full_client_before_a_server_with_room_is_client_bound() {
        assert_eq!(Bound::of(busy(0.99), Some(busy(0.85))), Bound::Client);
        assert_eq!(Bound::of(busy(0.99), Some(busy(0.95))), Bound::Server);
        assert_eq!(Bound::of(busy(0.80), Some(busy(0.99))), Bound::Server);
        assert_eq!(Bound::of(busy(0.80), Some(busy(0.80))), Bound::Neither);
        assert_eq!(Bound::of(busy(0.99), None), Bound::Unknown);
    }

    #[test]
    fn shared_core_spoils_everything() {
        let shared = Share {
            busy: 0.5,
            waiting: 0.4,
        };
        assert_eq!(Bound::of(busy(0.99), Some(shared)), Bound::Contended);
        assert_eq!(Bound::of(shared, Some(busy(0.99))), Bound::Contended);
        assert_eq!(Bound::of(shared, None), Bound::Contended);
    }

    #[test]
    fn cost_is_divided_by_the_time() {
        let earlier = Reading {
            at: Instant::now(),
            own: Duration::ZERO,
            own_waited: Duration::ZERO,
            server: None,
        };
        let later = Reading {
            at: earlier.at + Duration::from_secs(2),
            own: Duration::from_secs(1),
            ..earlier
        };
        let cost = later.since(&earlier).cost(0, "message", 1);
        assert!((cost.seconds - 2.0).abs() < 1e-9 && (cost.own.busy - 0.5).abs() < 1e-9);
        assert!(cost.server.is_none());
    }
}
