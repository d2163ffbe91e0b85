//! One member of a topic: what it has received, and what it publishes.

use super::nats::{self, Said};
use super::sequence::{Disorder, Sequences};
use super::{Options, reached::Reached};
use crate::client::{Client, Fault};
use crate::failure::Failure;
use crate::scenario::echo::Check;
use crate::scenario::stamp::{Payloads, Stamp, now};
use crate::worker::Run;
use std::time::Duration;

/// One member of a topic.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) client: Client,
    pub(super) inbox: Inbox,
    pub(super) publisher: Option<Publisher>,
    /// It never reads.
    pub(super) is_stalled: bool,
}

/// What a member has received.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) topic: usize,
    pub(super) sequences: Sequences,
    /// Of a NATS server: what is said in messages.
    reader: Option<nats::Reader>,
    /// The server has done what the greeting asked for.
    pub(super) is_greeted: bool,
    /// Messages.
    pub(super) received: u64,
    /// Where only bytes are counted.
    pub(super) bytes: u64,
}

/// What a member publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) number: u32,
    /// Messages sent.
    pub(super) sequence: u64,
    /// Messages that are taken to be lost: without them, one that a server dropped would end a closed loop.
    pub(super) forgiven: u64,
    /// When it last sent.
    pub(super) since: u64,
}

/// What one process knows of all messages.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) payloads: Payloads,
    pub(super) reached: Reached,
    pub(super) check: Check,
    /// By publisher: its topic, and its place among the publishers of that.
    pub(super) places: Vec<(usize, usize)>,
    /// By topic: messages that came to members of this process.
    pub(super) delivered: Vec<u64>,
}

impl Member {
    pub(super) fn new(
        client: Client,
        topic: usize,
        publisher: Option<u32>,
        options: &Options,
    ) -> Self {
        Member {
            client,
            inbox: Inbox {
                topic,
                sequences: Sequences::new(options.publishers_of(topic)),
                reader: options.dialect.reader(),
                is_greeted: false,
                received: 0,
                bytes: 0,
            },
            publisher: publisher.map(|number| Publisher {
                number,
                sequence: 0,
                forgiven: 0,
                since: 0,
            }),
            is_stalled: false,
        }
    }
}

impl Inbox {
    /// What a NATS server says before anything is published.
    pub(super) fn greet(&mut self, client: &mut Client, message: &[u8]) -> Result<(), Fault> {
        let Some(reader) = &mut self.reader else {
            return Ok(());
        };
        let is_greeted = &mut self.is_greeted;
        reader.read(message, |said| {
            match said {
                Said::Payload(_) => {}
                Said::Ping => client.send(nats::PONG),
                Said::Pong => *is_greeted = true,
            }
            Ok(())
        })
    }
}

/// What comes with one readiness of a member.
pub(super) struct Intake<'i, 'r, 'l> {
    pub(super) inbox: &'i mut Inbox,
    pub(super) board: &'i mut Board,
    pub(super) run: &'i mut Run<'r, 'l>,
    /// When the latest messages came.
    now: u64,
    /// Messages, and those of them that were what they should be: added up in the end.
    taken: u64,
    right: u64,
    /// A latency that was not recorded yet, and how often it came: messages of one batch have the same.
    pending: (u64, u64),
}

/// The clock is read anew after so many messages of one receive.
const CLOCK_EVERY: u64 = 256;
/// Unless all are compared: one filler of so many.
const FILLER_EVERY: u64 = 16;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// It is not what anybody published.
    Corrupt,
    /// It is another topic's.
    Foreign(Stamp),
    /// It did not come in its turn.
    Disordered(Disorder, Stamp),
}

impl<'i, 'r, 'l> Intake<'i, 'r, 'l> {
    pub(super) fn new(
        inbox: &'i mut Inbox,
        board: &'i mut Board,
        run: &'i mut Run<'r, 'l>,
    ) -> Self {
        Intake {
            inbox,
            board,
            run,
            now: 0,
            taken: 0,
            right: 0,
            pending: (0, 0),
        }
    }

    /// Takes a WebSocket message.
    #[inline]
    pub(super) fn message(&mut self, client: &mut Client, message: &[u8]) -> Result<(), Fault> {
        if self.inbox.reader.is_none() {
            self.payload(message);
            return Ok(());
        }
        self.nats_message(client, message)
    }

    fn nats_message(&mut self, client: &mut Client, message: &[u8]) -> Result<(), Fault> {
        let Some(mut reader) = self.inbox.reader.take() else {
            return Ok(());
        };
        let read = reader.read(message, |said| {
            match said {
                Said::Payload(payload) => self.payload(payload),
                Said::Ping => client.send(nats::PONG),
                Said::Pong => {}
            }
            Ok(())
        });
        self.inbox.reader = Some(reader);
        read
    }

    #[inline]
    fn payload(&mut self, payload: &[u8]) {
        if self.taken.is_multiple_of(CLOCK_EVERY) {
            self.now = now();
        }
        self.taken += 1;
        match self.judge(payload) {
            Ok(stamp) => self.deliver(&stamp),
            Err(wrong) => self.fail(wrong, payload.len()),
        }
    }

    /// Whether it is what was published, and comes in its turn.
    #[inline]
    fn judge(&mut self, payload: &[u8]) -> Result<Stamp, Wrong> {
        let Inbox {
            sequences,
            received,
            topic,
            ..
        } = &mut *self.inbox;
        let Some(stamp) = self.board.payloads.stamp(payload) else {
            sequences.note_unreadable();
            return Err(Wrong::Corrupt);
        };
        let place = self.board.place(&stamp, *topic);
        let publisher = place.ok_or(Wrong::Foreign(stamp))?;
        sequences
            .note(publisher, stamp.sequence, stamp.is_last)
            .map_err(|disorder| Wrong::Disordered(disorder, stamp))?;
        let nth = *received + self.taken;
        let is_compared = self.board.check == Check::Every || nth.is_multiple_of(FILLER_EVERY);
        if is_compared && !self.board.payloads.is_filled_right(&stamp, payload) {
            return Err(Wrong::Corrupt);
        }
        Ok(stamp)
    }

    #[cold]
    fn fail(&mut self, wrong: Wrong, len: usize) {
        let topic = self.inbox.topic;
        let Fault(failure, what) = match wrong {
            Wrong::Corrupt => corrupt(topic, len),
            Wrong::Foreign(stamp) => foreign(topic, &stamp),
            Wrong::Disordered(disorder, stamp) => disordered(disorder, &stamp),
        };
        self.run.failures.add(failure, what);
    }

    #[inline]
    fn deliver(&mut self, stamp: &Stamp) {
        self.right += 1;
        let latency = self.now.saturating_sub(stamp.sent);
        self.board.reached.note(stamp, latency);
        if self.pending.0 != latency {
            self.record();
        }
        self.pending = (latency, self.pending.1 + 1);
    }

    /// Records what is pending.
    fn record(&mut self) {
        let (latency, count) = std::mem::take(&mut self.pending);
        if count > 0 {
            self.run.record(Duration::from_nanos(latency), count);
        }
    }

    /// Adds up what came.
    pub(super) fn finish(mut self) {
        self.record();
        self.run.count += self.right;
        self.inbox.received += self.taken;
        self.board.delivered[self.inbox.topic] += self.taken;
    }
}

impl Board {
    /// Which of its topic's publishers a message is of, if it belongs there.
    #[inline]
    fn place(&self, stamp: &Stamp, topic: usize) -> Option<usize> {
        let (of, place) = *self.places.get(stamp.publisher as usize)?;
        (of == topic).then_some(place)
    }
}

#[cold]
fn corrupt(topic: usize, len: usize) -> Fault {
    let what = format!("a message of topic {topic} with {len} bytes is not what was published");
    Fault(Failure::Corrupt, what)
}

#[cold]
fn foreign(topic: usize, stamp: &Stamp) -> Fault {
    let publisher = stamp.publisher;
    let what = format!("a member of topic {topic} has a message of publisher {publisher}");
    Fault(Failure::Surplus, what)
}

#[cold]
fn disordered(disorder: Disorder, stamp: &Stamp) -> Fault {
    let came = match disorder {
        Disorder::Late => "came after a later one",
        Disorder::Repeated => "came twice",
    };
    let Stamp {
        sequence,
        publisher,
        ..
    } = stamp;
    let what = format!("message {sequence} of publisher {publisher} {came}");
    Fault(Failure::Order, what)
}
