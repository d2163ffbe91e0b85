//! One connection: what it sent, what it is owed, and what all of them share.

use std::io::{self, ErrorKind, Read as _, Write as _};

use loadtest::handshake;
use loadtest::mid_page::MidPage;
use loadtest::outgoing::Outgoing;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};

use crate::reply::Assembler;
use crate::trigger::Trigger;

/// What to do with what is received.
pub(crate) enum Work {
    Connect,
    Exchange {
        reach: Reach,
        frame_in: usize,
        frame_out: usize,
        frames: Box<[u8]>,
        assembler: Assembler,
    },
}

/// Whom a message reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Sender,
    Everyone,
}

/// When a socket is taken to hold no more input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// After a receive that did not fill the buffer.
    ByShortReceive,
    /// After `EAGAIN`.
    ByError,
}

/// What all peers share.
pub(crate) struct Shared {
    pub(crate) work: Work,
    pub(crate) drained: Drained,
    pub(crate) buffer: MidPage,
    /// Bytes that this turn's messages put out to everyone.
    pub(crate) fanned_out: usize,
}

pub(crate) struct Peer {
    stream: TcpStream,
    trigger: Trigger,
    phase: Phase,
    /// To receive into instead of the buffer that all share.
    own_buffer: Option<MidPage>,
    /// The socket may hold bytes that were not received yet.
    has_input: bool,
    /// The peer will send nothing more: the end of the stream is yet to be read.
    is_ending: bool,
}

enum Phase {
    /// The request's head as far as it came.
    Opening(Vec<u8>),
    /// Bytes of a message that is still incomplete, and what is to be sent.
    Open { inside: usize, outgoing: Outgoing },
}

/// The connection is over, for whatever reason.
pub(crate) struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Over
    }
}

impl Peer {
    pub(crate) fn new(stream: TcpStream, trigger: Trigger, own_buffer: Option<MidPage>) -> Self {
        Peer {
            stream,
            trigger,
            phase: Phase::Opening(Vec::new()),
            own_buffer,
            has_input: false,
            is_ending: false,
        }
    }

    /// Remembers what the event says.
    pub(crate) fn note(&mut self, event: &Event) {
        self.has_input |= event.is_readable();
        self.is_ending |= event.is_read_closed() || event.is_error();
        if let Phase::Open { outgoing, .. } = &mut self.phase
            && event.is_writable()
        {
            outgoing.unblock();
        }
    }

    /// Sends what is owed, then receives for as long as there is input and nothing is left to send.
    pub(crate) fn proceed(&mut self, shared: &mut Shared) -> Result<(), Over> {
        loop {
            self.flush(shared)?;
            if !self.wants_input() {
                return Ok(());
            }
            self.receive(shared)?;
        }
    }

    /// Receives once, if that is the next thing to do, and sends nothing.
    pub(crate) fn receive_first(&mut self, shared: &mut Shared) -> Result<(), Over> {
        if self.wants_input() {
            self.receive(shared)?;
        }
        Ok(())
    }

    /// Owes the peer these bytes, a whole number of frames, and sends what it takes of them.
    pub(crate) fn fan_out(&mut self, owed: usize, shared: &mut Shared) -> Result<(), Over> {
        if let Phase::Open { outgoing, .. } = &mut self.phase {
            outgoing.owe(owed);
        }
        self.flush(shared)
    }

    /// Has epoll wake for what this peer needs next.
    pub(crate) fn await_next(&mut self, registry: &Registry, key: usize) -> Result<(), Over> {
        let wants_room = !self.has_sent_all();
        self.trigger
            .await_next(registry, &self.stream, Token(key), wants_room)?;
        Ok(())
    }

    fn flush(&mut self, shared: &mut Shared) -> Result<(), Over> {
        if let (
            Phase::Open { outgoing, .. },
            Work::Exchange {
                frames, assembler, ..
            },
        ) = (&mut self.phase, &mut shared.work)
        {
            outgoing.flush(assembler.to(&self.stream), frames)?;
        }
        Ok(())
    }

    fn wants_input(&self) -> bool {
        self.has_sent_all() && self.has_input
    }

    fn has_sent_all(&self) -> bool {
        match &self.phase {
            Phase::Opening(_) => true,
            Phase::Open { outgoing, .. } => outgoing.is_empty(),
        }
    }

    fn receive(&mut self, shared: &mut Shared) -> Result<(), Over> {
        let buffer = self.own_buffer.as_mut().unwrap_or(&mut shared.buffer);
        let received = match self.stream.read(buffer) {
            Ok(0) => return Err(Over),
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.has_input = false;
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let may_hold_more = received == buffer.len() || shared.drained == Drained::ByError;
        self.has_input = may_hold_more || self.is_ending;
        let received = &buffer[..received];
        self.phase.take(
            received,
            &mut self.stream,
            &shared.work,
            &mut shared.fanned_out,
        )
    }
}

impl Phase {
    fn open() -> Self {
        Phase::Open {
            inside: 0,
            outgoing: Outgoing::default(),
        }
    }

    fn take(
        &mut self,
        received: &[u8],
        stream: &mut TcpStream,
        work: &Work,
        fanned_out: &mut usize,
    ) -> Result<(), Over> {
        match (&mut *self, work) {
            (Phase::Opening(head), Work::Exchange { .. }) => {
                head.extend_from_slice(received);
                let Some(len) = handshake::head_len(head) else {
                    return if head.len() > handshake::MAX_HEAD {
                        Err(Over)
                    } else {
                        Ok(())
                    };
                };
                let key = handshake::field(&head[..len], "Sec-WebSocket-Key").ok_or(Over)?;
                stream.write_all(&handshake::response(key))?;
                let rest = head.split_off(len);
                *self = Phase::open();
                self.take(&rest, stream, work, fanned_out)
            }
            (
                Phase::Open { inside, outgoing },
                Work::Exchange {
                    reach,
                    frame_in,
                    frame_out,
                    ..
                },
            ) => {
                *inside += received.len();
                let owed = *inside / frame_in * frame_out;
                *inside %= frame_in;
                match reach {
                    Reach::Sender => outgoing.owe(owed),
                    Reach::Everyone => *fanned_out += owed,
                }
                Ok(())
            }
            // Whatever came first is taken for a whole request; what follows, for nothing.
            (Phase::Opening(_), Work::Connect) => {
                stream.write_all(FIXED_RESPONSE)?;
                *self = Phase::open();
                Ok(())
            }
            (Phase::Open { .. }, Work::Connect) => Ok(()),
        }
    }
}

/// The answer to the key that the storm sends every time.
const FIXED_RESPONSE: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_response_answers_the_sample_key() {
        assert_eq!(FIXED_RESPONSE, handshake::response(handshake::SAMPLE_KEY));
    }
}
