//! One member of a topic: what it has received, and what it publishes.

use super::log::{LONGEST_FRAME, Log, NoShape, Shape};
use super::nats::{self, Said};
use super::sequence::{Disorder, Sequences};
use super::{Dialect, Options, reached::Reached};
use crate::centrifugo;
use crate::client::{Client, Fault};
use crate::failure::Failure;
use crate::frame;
use crate::scenario::echo::Check;
use crate::scenario::stamp::{Payloads, Stamp, now};
use crate::worker::Run;
use std::time::Duration;
use stentor::protocol::Event;

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
    reading: Reading,
    /// Of a NATS server: what is said in messages.
    reader: Option<nats::Reader>,
    /// The server has done what the greeting asked for.
    pub(super) is_greeted: bool,
    /// Publications of its own that a Centrifugo server has confirmed.
    pub(super) confirmed: u64,
    /// Messages.
    pub(super) received: u64,
    /// Where only bytes are counted.
    pub(super) bytes: u64,
}

/// How a member learns what it has received.
#[derive(Debug)]
enum Reading {
    /// By comparing it with what others of its topic have: so many messages so far.
    Compared(u64),
    /// By reading every message.
    Alone(Sequences),
}

impl Reading {
    fn of(options: &Options, topic: usize) -> Self {
        let is_short = frame::server_frame_len(options.size) <= LONGEST_FRAME;
        if options.dialect != Dialect::Nats && is_short {
            Reading::Compared(0)
        } else {
            Reading::Alone(Sequences::new(options.publishers_of(topic)))
        }
    }
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
    pub(super) dialect: Dialect,
    pub(super) payloads: Payloads,
    pub(super) reached: Reached,
    pub(super) check: Check,
    /// By publisher: its topic, and its place among the publishers of that.
    pub(super) places: Vec<(usize, usize)>,
    /// By topic: messages that came to members of this process.
    pub(super) delivered: Vec<u64>,
    /// By topic: what they were.
    pub(super) logs: Vec<Log>,
    /// What the member ahead reads, each message with its publisher's place.
    pub(super) ahead: Vec<(usize, Stamp)>,
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
                reading: Reading::of(options, topic),
                reader: options.dialect.reader(),
                is_greeted: false,
                confirmed: 0,
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
    /// Whether the last message of every publisher came.
    pub(super) fn is_complete(&self, board: &Board) -> bool {
        match &self.reading {
            Reading::Compared(position) => board.logs[self.topic].is_complete_at(*position),
            Reading::Alone(sequences) => sequences.is_complete(),
        }
    }

    /// How many messages never came; `sent` says how many the publisher at a place sent, if that is known.
    pub(super) fn gaps(&self, board: &Board, sent: impl Fn(usize) -> Option<u64>) -> u64 {
        match &self.reading {
            Reading::Compared(position) => {
                board.logs[self.topic].sequences_at(*position).gaps(sent)
            }
            Reading::Alone(sequences) => sequences.gaps(sent),
        }
    }

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
    /// What is read, is read for all.
    is_leading: bool,
    /// A latency that was not recorded yet, and how often it came: messages of one batch have the same.
    pending: (u64, u64),
}

/// The clock is read anew after so many messages of one receive.
const CLOCK_EVERY: u64 = 256;
/// Of a member that reads alone, unless all are compared: one filler of so many.
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
            is_leading: false,
            pending: (0, 0),
        }
    }

    /// Takes bytes that were received; answers how many were consumed.
    pub(super) fn bytes(&mut self, client: &mut Client, input: &mut [u8]) -> Result<usize, Fault> {
        let mut consumed = 0;
        while consumed < input.len() {
            let rest = &mut input[consumed..];
            let Reading::Compared(position) = self.inbox.reading else {
                return Ok(consumed + self.read(client, rest)?);
            };
            match self.compare(client, position, rest)? {
                Some(taken) => consumed += taken,
                None => break,
            }
        }
        Ok(consumed)
    }

    /// Takes what is at the start of `input`, or stops comparing; without an answer more bytes are needed.
    fn compare(
        &mut self,
        client: &mut Client,
        position: u64,
        input: &mut [u8],
    ) -> Result<Option<usize>, Fault> {
        if let Some(len) = self.aside_len(input) {
            let whole = input.get_mut(..len);
            return whole.map(|aside| self.read(client, aside)).transpose();
        }
        if let Err(NoShape::NotYet) = self.learn(input) {
            return Ok(None);
        }
        let log = &self.board.logs[self.inbox.topic];
        let matching = log.matching(position, input);
        if let Some(shape) = log.shape() {
            if matching > 0 {
                let len = matching as usize * shape.len;
                self.compared(position, position + matching);
                return Ok(Some(len));
            }
            if position == log.len() && fresh(input, shape) > 0 {
                return self.lead(client, position, input).map(Some);
            }
            if input.len() < shape.len && begins_alike(input, &shape.header) {
                return Ok(None);
            }
        }
        self.inbox.reading = Reading::Alone(log.sequences_at(position));
        Ok(Some(0))
    }

    /// Learns from the first message what those of the topic look like, where nobody could say before.
    fn learn(&mut self, input: &[u8]) -> Result<(), NoShape> {
        let log = &mut self.board.logs[self.inbox.topic];
        if log.shape().is_none() {
            log.learn(Shape::of_text(input, centrifugo::PUSH)?);
        }
        Ok(())
    }

    /// The length of what is at the start of `input`, if it may stand between messages. As many bytes as a header has are
    /// needed to tell.
    fn aside_len(&self, input: &[u8]) -> Option<usize> {
        match *input {
            [0x89 | 0x8a] => Some(2), // A Ping or a Pong.
            [0x89 | 0x8a, len, ..] => Some(2 + usize::from(len & 0x7f)),
            // A ping or a reply.
            [0x81, len, ..] if self.board.dialect == Dialect::Centrifugo => {
                let len = usize::from(len);
                (len < SHORTEST_PUSH).then_some(2 + len)
            }
            _ => None,
        }
    }

    /// Messages that are equal to those which the member ahead has read.
    fn compared(&mut self, from: u64, to: u64) {
        self.inbox.reading = Reading::Compared(to);
        if from == to {
            return;
        }
        self.now = now();
        self.taken += to - from;
        self.right += to - from;
        let Board { logs, reached, .. } = &mut *self.board;
        for run in logs[self.inbox.topic].runs(from, to) {
            let latency = self.now.saturating_sub(run.stamp.sent);
            reached.note_many(&run.stamp, run.count, latency);
            self.run.record(Duration::from_nanos(latency), run.count);
        }
    }

    /// Reads whole frames that nobody has read before, for all.
    fn lead(
        &mut self,
        client: &mut Client,
        position: u64,
        input: &mut [u8],
    ) -> Result<usize, Fault> {
        let topic = self.inbox.topic;
        let Some(shape) = self.board.logs[topic].shape() else {
            return Ok(0);
        };
        let (frame_len, fresh) = (shape.len, fresh(input, shape));
        self.inbox.reading = Reading::Alone(self.board.logs[topic].sequences_at(position));
        self.board.ahead.clear();
        self.is_leading = true;
        let consumed = self.read(client, &mut input[..fresh]);
        self.is_leading = false;
        let Board { logs, ahead, .. } = &mut *self.board;
        let is_any_missing =
            matches!(&self.inbox.reading, Reading::Alone(sequences) if sequences.is_any_missing());
        // Anything else than messages in their turn, and from here on this member reads alone: what it missed,
        // the others may have.
        if ahead.len() * frame_len == fresh && !is_any_missing {
            let to = position + ahead.len() as u64;
            let read = std::mem::replace(&mut self.inbox.reading, Reading::Compared(to));
            if let Reading::Alone(sequences) = read {
                logs[topic].append(&input[..fresh], ahead, sequences);
            }
        }
        consumed
    }

    fn read(&mut self, client: &mut Client, input: &mut [u8]) -> Result<usize, Fault> {
        client.read(input, |client, event| match event {
            Event::Message(message) => self.message(client, message.payload()),
            _ => Ok(()),
        })
    }

    /// Takes a WebSocket message.
    #[inline]
    fn message(&mut self, client: &mut Client, message: &[u8]) -> Result<(), Fault> {
        match self.board.dialect {
            Dialect::Raw => {
                self.payload(message);
                Ok(())
            }
            Dialect::Nats => self.nats_message(client, message),
            Dialect::Centrifugo => self.centrifugo_message(client, message),
        }
    }

    fn centrifugo_message(&mut self, client: &mut Client, message: &[u8]) -> Result<(), Fault> {
        centrifugo::read(message, |said| {
            match said {
                centrifugo::Said::Publication(payload) => self.payload(payload),
                centrifugo::Said::Ping => client.send(centrifugo::PONG),
                centrifugo::Said::Reply(reply) => {
                    reply.require_published(self.inbox.confirmed)?;
                    self.inbox.confirmed += 1;
                }
            }
            Ok(())
        })
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
            reading: Reading::Alone(sequences),
            received,
            topic,
            ..
        } = &mut *self.inbox
        else {
            return Err(Wrong::Corrupt); // It is shorter than any that was published.
        };
        let Some(stamp) = self.board.payloads.stamp(payload) else {
            sequences.note_unreadable();
            return Err(Wrong::Corrupt);
        };
        let place = self.board.place(&stamp, *topic);
        let publisher = place.ok_or(Wrong::Foreign(stamp))?;
        sequences
            .note(publisher, stamp.sequence, stamp.is_last)
            .map_err(|disorder| Wrong::Disordered(disorder, stamp))?;
        let nth = *received + self.taken - 1; // It is taken already.
        let is_compared =
            self.is_leading || self.board.check == Check::Every || nth.is_multiple_of(FILLER_EVERY);
        if is_compared && !self.board.payloads.is_filled_right(&stamp, payload) {
            return Err(Wrong::Corrupt);
        }
        if self.is_leading {
            self.board.ahead.push((publisher, stamp));
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
    /// Before the first message.
    pub(super) fn new(options: &Options) -> Self {
        let shape = options.dialect.shape(options.size);
        let topics = 0..options.topics;
        let publishers = 0..options.publishers;
        Board {
            dialect: options.dialect,
            payloads: options.dialect.payloads(options.size),
            reached: Reached::new(options.publishers),
            check: options.check,
            places: publishers
                .map(|publisher| (publisher % options.topics, publisher / options.topics))
                .collect(),
            delivered: vec![0; options.topics],
            logs: topics
                .map(|topic| Log::new(shape.clone(), options.publishers_of(topic)))
                .collect(),
            ahead: Vec::new(),
        }
    }

    /// Which of its topic's publishers a message is of, if it belongs there.
    #[inline]
    fn place(&self, stamp: &Stamp, topic: usize) -> Option<usize> {
        let (of, place) = *self.places.get(stamp.publisher as usize)?;
        (of == topic).then_some(place)
    }
}

/// Centrifugo's messages below this length hold no payload: the stamp alone takes half of it, and what must be around it
/// the other.
const SHORTEST_PUSH: usize = 64;

/// Bytes of whole frames of that shape.
fn fresh(input: &[u8], shape: &Shape) -> usize {
    let frames = input.chunks_exact(shape.len);
    let alike = frames.take_while(|frame| frame.starts_with(&shape.header));
    alike.count() * shape.len
}

fn begins_alike(input: &[u8], header: &[u8]) -> bool {
    let len = input.len().min(header.len());
    input[..len] == header[..len]
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
