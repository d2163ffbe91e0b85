//! What can go wrong with a connection, counted by kind, and what ends a command before it measured anything.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The kinds of failure that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection was made.
    Connect,
    /// The server answered the opening handshake with another status than 101.
    Status,
    /// The opening handshake was not answered as the RFC demands.
    Handshake,
    /// The server closed or reset a connection that was in use.
    Closed,
    /// The server broke the protocol.
    Protocol,
    /// A reply is not what was sent.
    Corrupt,
    /// More came than was asked for.
    Surplus,
    /// A message was never answered.
    Unanswered,
    /// Messages are missing from a sequence.
    Gap,
    /// A message came after a later one, or twice.
    Order,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Connect => "not connected",
            Failure::Status => "handshake refused",
            Failure::Handshake => "handshake wrong or unanswered",
            Failure::Closed => "closed by the server",
            Failure::Protocol => "protocol broken by the server",
            Failure::Corrupt => "reply differs from what was sent",
            Failure::Surplus => "more came than was asked for",
            Failure::Unanswered => "messages without an answer",
            Failure::Gap => "messages missing from a sequence",
            Failure::Order => "messages out of order or repeated",
        })
    }
}

/// Failures by kind, with the words of the first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failures {
    counts: BTreeMap<Failure, u64>,
    first: Option<String>,
}

impl Failures {
    /// Counts one failure.
    pub fn add(&mut self, failure: Failure, what: impl fmt::Display) {
        self.add_many(failure, 1, what);
    }

    /// Counts several failures of one cause.
    pub fn add_many(&mut self, failure: Failure, count: u64, what: impl fmt::Display) {
        *self.counts.entry(failure).or_default() += count;
        self.first.get_or_insert_with(|| what.to_string());
    }

    /// How many failures there were of that kind.
    pub fn count(&self, failure: Failure) -> u64 {
        self.counts.get(&failure).copied().unwrap_or_default()
    }

    /// How many failures there were of all kinds.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Counts what somebody else counted.
    pub fn merge(&mut self, others: Failures) {
        for (failure, count) in others.counts {
            *self.counts.entry(failure).or_default() += count;
        }
        if self.first.is_none() {
            self.first = others.first;
        }
    }

    /// A line for each kind, and one for the words of the first failure.
    pub fn lines(&self) -> Vec<String> {
        let counts = self.counts.iter();
        counts
            .map(|(failure, count)| format!("{count} × {failure}"))
            .chain(self.first.iter().map(|first| format!("the first: {first}")))
            .collect()
    }

    /// Whether nothing failed.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines() {
            writeln!(f, "  FAILED          {line}")?;
        }
        Ok(())
    }
}

/// Why a command has nothing to report.
#[derive(Debug, Serialize, Deserialize)]
pub enum Error {
    /// There is no server at the address, and what the system says of it.
    Unreachable(SocketAddr, String),
    /// The server is there and does not do what the command needs.
    Server(String),
    /// Something on this side: a limit, a file, a process that is not there.
    Local(String),
}

impl Error {
    /// An error of this side, with what was being done.
    pub fn local(doing: impl fmt::Display) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::Local(format!("{doing}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable(address, error) => write!(f, "no server at {address}: {error}"),
            Error::Server(what) | Error::Local(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_kind_and_the_first_is_told() {
        let mut failures = Failures::default();
        assert!(failures.is_empty());
        failures.add(Failure::Corrupt, "byte 7");
        failures.add_many(Failure::Unanswered, 5, "connection 3");
        failures.add(Failure::Corrupt, "byte 9");
        assert_eq!(failures.count(Failure::Corrupt), 2);
        assert_eq!(failures.count(Failure::Unanswered), 5);
        assert_eq!(failures.count(Failure::Closed), 0);
        let text = failures.to_string();
        assert!(
            text.contains("2 × reply differs") && text.contains("the first: byte 7"),
            "{text}"
        );
    }
}
