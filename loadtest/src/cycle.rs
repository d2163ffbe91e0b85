//! The messages of one connection: drawn and masked before the clock runs, sent over and over.

use stentor::protocol::{Message, MessageKind, Opcode, write_masked_frame, write_unmasked_frame};

use crate::client::Fault;
use crate::failure::Failure;
use crate::frame::random_mask;
use crate::payload::{Kind, Sizes};

/// Messages in a circle, as a client sends them and as a server returns them.
///
/// ```text
/// requests  | 0 | 1  | 2 | 3     |      a masked frame each
/// replies   |0|1 |2|3    |              the same unmasked
///           ^ ^  ^ ^     ^ ends
/// ```
#[derive(Debug)]
pub struct Cycle {
    kind: MessageKind,
    requests: Box<[u8]>,
    replies: Box<[u8]>,
    /// Where each request ends in `requests`, and its reply in `replies`.
    request_ends: Box<[usize]>,
    reply_ends: Box<[usize]>,
    /// The length of every reply, if all have one: places are then calculated, not searched.
    reply_len: Option<usize>,
}

/// Where sizes are drawn, so many messages are a fair picture of them.
const DRAWN: usize = 256;
/// One comparison covers so many bytes of short replies.
const COMPARED_AT_ONCE: usize = 4096;
/// The longest header of a server's frame.
const LONGEST_HEADER: usize = 10;

impl Cycle {
    /// Draws messages: as many as are in flight, or enough to be a fair picture of their sizes, but not
    /// more than fit in `bytes`, and one at the least.
    pub fn random(sizes: &Sizes, kind: Kind, in_flight: usize, bytes: usize) -> Self {
        let short = COMPARED_AT_ONCE / (sizes.largest() + LONGEST_HEADER);
        let most = match sizes.single() {
            Some(_) => in_flight.max(short),
            None => in_flight.max(DRAWN),
        };
        // With one size, all messages of a connection have one payload and each a mask of its own.
        let single = sizes.single().map(|size| kind.payload(size));
        let mut cycle = Building::default();
        for _ in 0..most {
            let payload = single.clone().unwrap_or_else(|| kind.payload(sizes.draw()));
            if !cycle.requests.is_empty() && cycle.requests.len() + payload.len() > bytes {
                break;
            }
            cycle.push(kind, &payload);
        }
        Cycle {
            kind: kind.message_kind(),
            requests: cycle.requests.into(),
            replies: cycle.replies.into(),
            request_ends: cycle.request_ends.into(),
            reply_len: sizes.single().map(|_| cycle.reply_ends[0]),
            reply_ends: cycle.reply_ends.into(),
        }
    }

    /// All requests.
    pub fn requests(&self) -> &[u8] {
        &self.requests
    }

    /// The bytes of so many requests from place `from` on, and the place behind them.
    pub fn span(&self, from: usize, messages: usize) -> (usize, usize) {
        let len = self.request_ends.len();
        let (rounds, to) = ((from + messages) / len, (from + messages) % len);
        let start = |place: usize| {
            place
                .checked_sub(1)
                .map_or(0, |last| self.request_ends[last])
        };
        (rounds * self.requests.len() + start(to) - start(from), to)
    }

    /// The place behind `place`.
    pub fn next(&self, place: usize) -> usize {
        (place + 1) % self.reply_ends.len()
    }

    /// How many replies are complete after so many more bytes, and where in the replies that is.
    pub fn advance(&self, at: usize, received: usize) -> (usize, usize) {
        let end = at + received;
        let (rounds, to) = (end / self.replies.len(), end % self.replies.len());
        let complete = rounds * self.reply_ends.len() + self.place_of(to) - self.place_of(at);
        (complete, to)
    }

    /// Whether a reply begins there.
    pub fn is_boundary(&self, at: usize) -> bool {
        match self.reply_len {
            Some(len) => at.is_multiple_of(len),
            None => at == 0 || self.reply_ends.binary_search(&at).is_ok(),
        }
    }

    /// Compares received bytes with the replies from `at` on.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn compare(&self, mut at: usize, received: &[u8]) -> Result<(), Fault> {
        let mut rest = received;
        while !rest.is_empty() {
            let len = rest.len().min(self.replies.len() - at);
            if rest[..len] != self.replies[at..at + len] {
                return Err(self.difference(&rest[..len], at));
            }
            rest = &rest[len..];
            at = 0;
        }
        Ok(())
    }

    fn difference(&self, received: &[u8], at: usize) -> Fault {
        let expected = &self.replies[at..];
        let mut pairs = received.iter().zip(expected).enumerate();
        let (offset, (seen, expected)) = pairs
            .find(|(_, (seen, expected))| seen != expected)
            .expect("the slices are not equal");
        let byte = at + offset - self.reply_start(at + offset);
        Fault(
            Failure::Corrupt,
            format!("byte {byte} of a reply is {seen:#04x}, expected {expected:#04x}"),
        )
    }

    /// The length and FIN of the first header that is whole.
    ///
    /// # Errors
    ///
    /// If they are not those of the reply.
    pub fn compare_header(&self, at: usize, received: &[u8]) -> Result<(), Fault> {
        let start = if self.is_boundary(at) {
            at
        } else {
            self.reply_end(at)
        };
        let place = self.place_of(start % self.replies.len());
        let first = place.checked_sub(1).map_or(0, |last| self.reply_ends[last]);
        let len = match self.reply_ends[place] - first {
            0..=127 => 2,
            128..=65_539 => 4,
            _ => LONGEST_HEADER,
        };
        let expected = &self.replies[first..first + len];
        match received.get(start - at..start - at + len) {
            // FIN and no reserved bit; the opcode is left to a program that did not read ours.
            Some(seen) if seen[0] & 0xf0 != 0x80 || seen[1..] != expected[1..] => Err(Fault(
                Failure::Corrupt,
                format!("the header of a reply is {seen:02x?}"),
            )),
            _ => Ok(()),
        }
    }

    /// Compares a message with the reply at a place.
    ///
    /// # Errors
    ///
    /// How it differs.
    pub fn compare_message(&self, place: usize, message: Message<'_>) -> Result<(), Fault> {
        let end = self.reply_ends[place];
        let start = self.reply_start(end - 1);
        let header = match end - start {
            0..=127 => 2,
            128..=65_539 => 4,
            _ => LONGEST_HEADER,
        };
        let expected = &self.replies[start + header..end];
        if message.kind() != self.kind {
            return Err(Fault(
                Failure::Corrupt,
                "a reply is of the other kind".into(),
            ));
        }
        if message.payload().len() != expected.len() {
            let (seen, expected) = (message.payload().len(), expected.len());
            let what = format!("a reply has {seen} bytes, expected {expected}");
            return Err(Fault(Failure::Corrupt, what));
        }
        if message.payload() != expected {
            return Err(self.difference(message.payload(), start + header));
        }
        Ok(())
    }

    /// The place of the reply that has the byte at `at`: so many end before.
    fn place_of(&self, at: usize) -> usize {
        match self.reply_len {
            Some(len) => at / len,
            None => self.reply_ends.partition_point(|end| *end <= at),
        }
    }

    /// Where the reply begins that has the byte at `at`.
    fn reply_start(&self, at: usize) -> usize {
        let place = self.place_of(at);
        place.checked_sub(1).map_or(0, |last| self.reply_ends[last])
    }

    /// Where the reply ends that has the byte at `at`.
    fn reply_end(&self, at: usize) -> usize {
        self.reply_ends[self.place_of(at)]
    }
}

#[derive(Default)]
struct Building {
    requests: Vec<u8>,
    replies: Vec<u8>,
    request_ends: Vec<usize>,
    reply_ends: Vec<usize>,
}

impl Building {
    fn push(&mut self, kind: Kind, payload: &[u8]) {
        let opcode = Opcode::from(kind.message_kind());
        write_masked_frame(opcode, payload, random_mask(), &mut self.requests);
        write_unmasked_frame(opcode, payload, &mut self.replies);
        self.request_ends.push(self.requests.len());
        self.reply_ends.push(self.replies.len());
    }
}
