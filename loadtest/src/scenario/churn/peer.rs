//! One connection that comes and goes.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::time::Duration;

use mio::event::Event as Readiness;
use socket2::SockRef;
use stentor::protocol::{CloseCode, CloseFrame, Event};

use crate::client::{Client, Fault, PATIENCE, Shared};
use crate::failure::Failure;
use crate::scenario::stamp::{Payloads, Stamp, now};

/// One connection, from the first SYN to its end.
pub(super) struct Peer {
    client: Client,
    /// Its number among all that this process ever opened: its messages carry it.
    number: u32,
    pub(super) phase: Phase,
    /// When the phase began.
    since: u64,
    sent: u64,
    /// When the messages were sent that did not come back yet, oldest first.
    unreturned: VecDeque<u64>,
}

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It will be open once its handshake is answered.
    Joining,
    /// It is open, and sends now and then.
    Member,
    /// It gives up before its handshake is answered: before the request has left, or behind it.
    Aborting { with_request: bool },
    /// Its Close frame is sent: the server's, with the same code, and the end of the stream are due.
    Closing { code: u16, is_answered: bool },
    /// It will send nothing more, without having said so: the end of the stream is due.
    HalfClosed,
}

/// What came of a readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// Its handshake was answered just now, after so long.
    Joined(Duration),
    /// It is over, as it should be.
    Left,
}

/// What came in messages.
#[derive(Default)]
pub(super) struct Received {
    /// All messages.
    pub(super) messages: u64,
    /// How long those took that came back to their sender.
    pub(super) round_trips: Vec<Duration>,
}

/// How long messages may be on their way, and how long the end of a connection may take.
const LATE_AFTER: Duration = Duration::from_secs(5);
/// How clients say that they leave; 1005 stands for a Close frame without a code (RFC 6455 §7.1.5).
const CODES: [u16; 6] = [1000, 1001, 1005, 1008, 3000, 4999];

impl Peer {
    pub(super) fn new(client: Client, number: u32, phase: Phase) -> Self {
        Peer {
            client,
            number,
            phase,
            since: now(),
            sent: 0,
            unreturned: VecDeque::new(),
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = now();
    }

    /// Goes on as far as it goes.
    pub(super) fn proceed(
        &mut self,
        readiness: &Readiness,
        shared: &mut Shared,
        payloads: &Payloads,
        received: &mut Received,
    ) -> Result<Progress, Fault> {
        if let Phase::Aborting { with_request } = self.phase {
            return self.abort(with_request, readiness);
        }
        let progress = self.receive(readiness, shared, payloads, received);
        match self.phase {
            Phase::Joining if self.client.is_open() => {
                progress?;
                let took = Duration::from_nanos(now() - self.since);
                self.enter(Phase::Member);
                Ok(Progress::Joined(took))
            }
            Phase::Closing { is_answered, .. } => match progress {
                Err(Fault(Failure::Closed, _)) if is_answered => Ok(Progress::Left),
                Err(Fault(Failure::Closed, what)) => {
                    let what = format!("a Close frame was not answered: {what}");
                    Err(Fault(Failure::Unanswered, what))
                }
                progress => progress.map(|()| Progress::Waiting),
            },
            // With or without a Close frame: that nothing more comes is all that is left to say.
            Phase::HalfClosed => match progress {
                Err(Fault(Failure::Closed, _)) => Ok(Progress::Left),
                progress => progress.map(|()| Progress::Waiting),
            },
            _ => progress.map(|()| Progress::Waiting),
        }
    }

    fn abort(&mut self, with_request: bool, readiness: &Readiness) -> Result<Progress, Fault> {
        if with_request {
            self.client.ready(readiness)?;
        }
        Ok(if readiness.is_writable() || readiness.is_read_closed() {
            Progress::Left
        } else {
            Progress::Waiting
        })
    }

    fn receive(
        &mut self,
        readiness: &Readiness,
        shared: &mut Shared,
        payloads: &Payloads,
        received: &mut Received,
    ) -> Result<(), Fault> {
        let Peer {
            client,
            number,
            phase,
            sent,
            unreturned,
            ..
        } = self;
        client.ready(readiness)?;
        if !client.wants_receive(readiness) {
            return Ok(());
        }
        client.receive(shared, |_, event| match event {
            Event::Message(message) => {
                let stamp = judge(message.payload(), payloads)?;
                received.messages += 1;
                if stamp.publisher == *number {
                    let round_trip = returned(&stamp, *sent, unreturned)?;
                    received.round_trips.push(round_trip);
                }
                Ok(())
            }
            Event::Close(frame) => answered(phase, frame),
            _ => Ok(()),
        })
    }

    /// Sends a message that should have left at `intended`.
    pub(super) fn send(
        &mut self,
        payloads: &Payloads,
        intended: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        scratch.clear();
        let stamp = Stamp {
            publisher: self.number,
            is_last: false,
            sequence: self.sent,
            sent: intended,
        };
        payloads.write(stamp, scratch);
        self.sent += 1;
        self.unreturned.push_back(intended);
        self.client.send(&*scratch);
        self.client.flush()
    }

    /// Begins the closing handshake.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        let code = CODES[fastrand::usize(..CODES.len())];
        self.client.close(match CloseCode::new(code) {
            CloseCode::NO_STATUS => CloseFrame::EMPTY,
            code => CloseFrame::new(code, "churn"),
        });
        self.enter(Phase::Closing {
            code,
            is_answered: false,
        });
        self.client.flush()
    }

    /// Ends its side of the stream without a word.
    pub(super) fn half_close(&mut self) -> Result<(), Fault> {
        self.enter(Phase::HalfClosed);
        SockRef::from(self.client.stream())
            .shutdown(Shutdown::Write)
            .map_err(Fault::from)
    }

    /// Has it end with a reset.
    pub(super) fn reset(self) {
        self.client.reset_on_drop();
    }

    /// What took too long.
    pub(super) fn late(&mut self, now: u64) -> Option<Fault> {
        let waited = |since: u64| Duration::from_nanos(now.saturating_sub(since));
        let (is_late, failure, what) = match self.phase {
            Phase::Joining | Phase::Aborting { .. } => (
                waited(self.since) > PATIENCE,
                Failure::Handshake,
                "a handshake was not answered",
            ),
            Phase::Member => (
                self.unreturned
                    .front()
                    .is_some_and(|sent| waited(*sent) > LATE_AFTER),
                Failure::Unanswered,
                "a message did not come back",
            ),
            Phase::Closing { .. } => (
                waited(self.since) > LATE_AFTER,
                Failure::Unanswered,
                "a closing connection did not end",
            ),
            Phase::HalfClosed => (
                waited(self.since) > LATE_AFTER,
                Failure::Unanswered,
                "a half-closed connection did not end",
            ),
        };
        is_late.then(|| Fault(failure, what.into()))
    }
}

fn judge(payload: &[u8], payloads: &Payloads) -> Result<Stamp, Fault> {
    let corrupt = || {
        let what = format!("a message of {} bytes is not what was sent", payload.len());
        Fault(Failure::Corrupt, what)
    };
    let stamp = payloads.stamp(payload).ok_or_else(corrupt)?;
    if payloads.is_filled_right(&stamp, payload) {
        Ok(stamp)
    } else {
        Err(corrupt())
    }
}

/// A message is back: it has to be the oldest that was not.
fn returned(stamp: &Stamp, sent: u64, unreturned: &mut VecDeque<u64>) -> Result<Duration, Fault> {
    let expected = sent - unreturned.len() as u64;
    let what = |came| format!("message {} came {came}", stamp.sequence);
    if stamp.sequence > expected {
        return Err(Fault(Failure::Gap, what("before an earlier one")));
    }
    if stamp.sequence < expected || unreturned.pop_front().is_none() {
        return Err(Fault(Failure::Order, what("twice")));
    }
    Ok(Duration::from_nanos(now().saturating_sub(stamp.sent)))
}

/// §5.5.1: "the endpoint typically echos the status code it received".
fn answered(phase: &mut Phase, frame: CloseFrame<'_>) -> Result<(), Fault> {
    let Phase::Closing { code, is_answered } = phase else {
        return Ok(()); // The client has told it from one that answers nothing.
    };
    *is_answered = true;
    if frame.code.get() == *code {
        Ok(())
    } else {
        let what = format!("Close {code} was answered with {}", frame.code);
        Err(Fault(Failure::Protocol, what))
    }
}
