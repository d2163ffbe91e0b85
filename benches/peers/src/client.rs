//! What a client sends, over and over, and a place for what it is sent.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use stentor::protocol::{Opcode, write_masked_frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Kind;

/// Some messages with one payload, each under a key of its own.
pub struct Stream {
    bytes: Rc<[u8]>,
    messages: Vec<(Kind, Vec<u8>)>,
}

/// As much as the largest of the receive buffers holds.
const LEAST: usize = 128 * 1024;

impl Stream {
    /// Each message in one frame.
    pub fn whole(kind: Kind, payload: &[u8]) -> Self {
        Self::fragments(kind, payload, payload.len().max(1))
    }

    /// Each message in frames of `fragment` bytes.
    pub fn fragmented(payload: &[u8], fragment: usize) -> Self {
        Self::fragments(Kind::Binary, payload, fragment)
    }

    /// The messages, in the order in which they come.
    pub fn messages(&self) -> &[(Kind, Vec<u8>)] {
        &self.messages
    }

    fn fragments(kind: Kind, payload: &[u8], fragment: usize) -> Self {
        let (mut bytes, mut messages) = (Vec::new(), Vec::new());
        while bytes.len() < LEAST || messages.len() < 2 {
            write_message(kind, payload, fragment, messages.len(), &mut bytes);
            messages.push((kind, payload.to_vec()));
        }
        Self {
            bytes: bytes.into(),
            messages,
        }
    }
}

fn write_message(kind: Kind, payload: &[u8], fragment: usize, number: usize, output: &mut Vec<u8>) {
    let mut opcode = match kind {
        Kind::Text => Opcode::Text,
        Kind::Binary => Opcode::Binary,
    };
    let mut rest = payload;
    loop {
        let (part, behind) = rest.split_at(fragment.min(rest.len()));
        let first = output.len();
        write_masked_frame(opcode, part, key(number), output);
        if behind.is_empty() {
            return;
        }
        output[first] &= 0x7F; // FIN
        (opcode, rest) = (Opcode::Continuation, behind);
    }
}

/// Keys without a zero byte, which would make masking easier than it is.
fn key(number: usize) -> [u8; 4] {
    let mixed = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
    mixed.to_le_bytes()[..4]
        .try_into()
        .map(|key: [u8; 4]| key.map(|byte| byte | 1))
        .expect("eight bytes are four and more")
}

/// Sends its stream without end, and counts what it is sent.
pub struct Client {
    bytes: Rc<[u8]>,
    at: usize,
    received: usize,
}

impl Client {
    /// A client that has sent nothing yet.
    pub fn new(stream: &Stream) -> Self {
        Self {
            bytes: Rc::clone(&stream.bytes),
            at: 0,
            received: 0,
        }
    }

    pub(crate) fn received(&self) -> usize {
        self.received
    }

    /// The next bytes, at most `max` of them.
    fn next(&mut self, max: usize) -> &[u8] {
        let start = self.at;
        let end = self.bytes.len().min(start + max);
        self.at = end % self.bytes.len();
        &self.bytes[start..end]
    }

    fn count(&mut self, bytes: usize) -> usize {
        self.received += bytes;
        bytes
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let next = self.next(buffer.len() - filled);
            buffer[filled..filled + next.len()].copy_from_slice(next);
            filled += next.len();
        }
        Ok(filled)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.count(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while buffer.remaining() > 0 {
            buffer.put_slice(self.next(buffer.remaining()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.count(bytes.len())))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        Poll::Ready(Ok(self.count(bytes)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
