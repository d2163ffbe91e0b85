//! Sending prebuilt frames over and over, with nothing copied and short writes resumed where they ended.

use std::io::{self, ErrorKind, Write};

/// What one connection still has to send of a buffer of whole frames that is repeated endlessly.
///
/// ```text
/// frames  | sent | owed … |      Invariant: at < frames.len(), and, of equal frames, at == 0 whenever nothing is owed
///         0      at
/// ```
///
/// Starting over at zero lets up to `frames.len()` bytes leave in one send.
#[derive(Debug, Default)]
pub struct Outgoing {
    at: usize,
    owed: usize,
    blocked: bool,
    /// The frames differ: each follows the one before it.
    in_order: bool,
}

impl Outgoing {
    /// Of frames that differ: they are sent in their order, however often all that was owed has left.
    ///
    /// By default they are taken to be alike, and whatever is owed next begins with the first.
    pub fn in_order() -> Self {
        Outgoing {
            in_order: true,
            ..Outgoing::default()
        }
    }

    /// Adds `bytes`, a whole number of frames, to what has to be sent.
    pub fn owe(&mut self, bytes: usize) {
        self.owed += bytes;
    }

    /// Whether something is left that the socket would take.
    pub fn wants_flush(&self) -> bool {
        self.owed > 0 && !self.blocked
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.owed == 0
    }

    /// The socket told that it takes bytes again.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends what is owed, in one write wherever `frames` holds all of it.
    ///
    /// A write that took less than it was offered met a full socket: the writable edge follows, and a
    /// second write to hear `EAGAIN` is saved.
    ///
    /// # Errors
    ///
    /// Whatever the write returns, other than that it would block.
    pub fn flush(&mut self, mut stream: impl Write, frames: &[u8]) -> io::Result<()> {
        while self.wants_flush() {
            let offered = self.owed.min(frames.len() - self.at);
            match stream.write(&frames[self.at..self.at + offered]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.advance(sent, frames.len());
                    self.blocked = sent < offered;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, sent: usize, len: usize) {
        self.owed -= sent;
        self.at = (self.at + sent) % len;
        if self.owed == 0 && !self.in_order {
            self.at = 0;
        }
        debug_assert!(self.at < len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes and counts the writes.
    struct Socket {
        taken: Vec<u8>,
        room: usize,
        writes: usize,
    }

    impl Write for &mut Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            if taken == 0 {
                Err(ErrorKind::WouldBlock.into())
            } else {
                Ok(taken)
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn socket(room: usize) -> Socket {
        Socket {
            taken: Vec::new(),
            room,
            writes: 0,
        }
    }

    #[test]
    fn everything_owed_leaves_in_one_write() {
        let (mut outgoing, mut socket) = (Outgoing::default(), socket(100));
        for _ in 0..3 {
            outgoing.owe(6);
            outgoing.flush(&mut socket, b"aabbcc").unwrap();
        }
        assert_eq!(socket.taken, b"aabbccaabbccaabbcc");
        assert_eq!(socket.writes, 3);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn short_write_is_resumed_where_it_ended_and_not_before_the_edge() {
        let (mut outgoing, mut socket) = (Outgoing::default(), socket(3));
        outgoing.owe(4);
        outgoing.flush(&mut socket, b"aabbcc").unwrap();
        assert_eq!(
            (socket.writes, outgoing.wants_flush(), outgoing.is_empty()),
            (1, false, false)
        );

        outgoing.owe(6);
        outgoing.flush(&mut socket, b"aabbcc").unwrap();
        assert_eq!(socket.writes, 1);

        socket.room = 100;
        outgoing.unblock();
        outgoing.flush(&mut socket, b"aabbcc").unwrap();
        assert_eq!(socket.taken, b"aabbccaabb");
        assert!(outgoing.is_empty());
    }

    #[test]
    fn frames_that_differ_leave_in_their_order() {
        let (mut outgoing, mut socket) = (Outgoing::in_order(), socket(100));
        for _ in 0..4 {
            outgoing.owe(2);
            outgoing.flush(&mut socket, b"aabbcc").unwrap();
        }
        assert_eq!(socket.taken, b"aabbccaa");
    }

    #[test]
    fn more_than_the_buffer_wraps_around() {
        let (mut outgoing, mut socket) = (Outgoing::default(), socket(100));
        outgoing.owe(10);
        outgoing.flush(&mut socket, b"aabb").unwrap();
        assert_eq!(socket.taken, b"aabbaabbaa");
        assert!(outgoing.is_empty());
    }
}
