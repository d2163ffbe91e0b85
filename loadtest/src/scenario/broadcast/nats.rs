//! The NATS protocol in binary messages, as much of it as a client needs that publishes and subscribes.
//!
//! A WebSocket message may hold several protocol messages, or parts of them: it is a stream in pieces.

use std::io::Write as _;

use crate::client::Fault;
use crate::failure::Failure;

/// What a client says first, on a subject.
pub(super) fn greeting(subject: &str) -> Vec<u8> {
    format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {subject} 1\r\nPING\r\n")
        .into_bytes()
}

/// The answer to the server's Ping.
pub(super) const PONG: &[u8] = b"PONG\r\n";

/// Appends the publication of a payload that `write` appends.
pub(super) fn publish(
    subject: &str,
    len: usize,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    write!(out, "PUB {subject} {len}\r\n").expect("a Vec takes everything");
    write(out);
    out.extend_from_slice(b"\r\n");
}

/// What a server says that concerns us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Payload(&'a [u8]),
    Ping,
    /// The answer to the greeting: everything before it has been done.
    Pong,
}

/// Protocol messages of one connection.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of one.
    unread: Vec<u8>,
}

/// The longest line, the server's INFO included.
const LONGEST_LINE: usize = 64 * 1024;

impl Reader {
    /// Reads what came, and lends it to `each`.
    ///
    /// # Errors
    ///
    /// If the server says that something is wrong, or something that is no NATS.
    pub(super) fn read(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(Said<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.unread.is_empty() {
            let read = read_all(piece, &mut each)?;
            self.unread.extend_from_slice(&piece[read..]);
        } else {
            self.unread.extend_from_slice(piece);
            let read = read_all(&self.unread, &mut each)?;
            self.unread.drain(..read);
        }
        Ok(())
    }
}

fn read_all(
    bytes: &[u8],
    each: &mut impl FnMut(Said<'_>) -> Result<(), Fault>,
) -> Result<usize, Fault> {
    let mut read = 0;
    while let Some((len, said)) = read_one(&bytes[read..])? {
        read += len;
        if let Some(said) = said {
            each(said)?;
        }
    }
    Ok(read)
}

/// The first protocol message, once it is complete, with its length.
fn read_one(bytes: &[u8]) -> Result<Option<(usize, Option<Said<'_>>)>, Fault> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let wrong = || wrong(&bytes[..80]);
        return if bytes.len() > LONGEST_LINE {
            Err(wrong())
        } else {
            Ok(None)
        };
    };
    let (line, behind) = (bytes[..end].trim_ascii_end(), end + 1);
    if let Some(arguments) = line.strip_prefix(b"MSG ") {
        let len = payload_len(arguments).ok_or_else(|| wrong(line))?;
        let payload = bytes.get(behind..behind + len);
        let is_whole = bytes.len() >= behind + len + 2;
        return Ok(payload
            .filter(|_| is_whole)
            .map(|payload| (behind + len + 2, Some(Said::Payload(payload)))));
    }
    match line {
        b"PING" => Ok(Some((behind, Some(Said::Ping)))),
        b"PONG" => Ok(Some((behind, Some(Said::Pong)))),
        b"+OK" => Ok(Some((behind, None))),
        line if line.starts_with(b"INFO ") => Ok(Some((behind, None))),
        line => Err(wrong(line)),
    }
}

/// The last of `subject sid [reply-to] bytes`.
fn payload_len(arguments: &[u8]) -> Option<usize> {
    let last = arguments.rsplit(|byte| *byte == b' ').next()?;
    str::from_utf8(last).ok()?.parse().ok()
}

fn wrong(line: &[u8]) -> Fault {
    let line = String::from_utf8_lossy(line);
    Fault(Failure::Protocol, format!("NATS: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, Fault> {
        let (mut reader, mut all) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.read(piece, |said| {
                all.push(match said {
                    Said::Payload(payload) => String::from_utf8_lossy(payload).into_owned(),
                    other => format!("{other:?}"),
                });
                Ok(())
            })?;
        }
        Ok(all)
    }

    const STREAM: &[u8] =
        b"INFO {\"port\":1}\r\nPONG\r\nMSG t0 1 5\r\nhello\r\nPING\r\nMSG t0 1 2\r\n\r\n\r\n";

    #[test]
    fn stream_reads_the_same_wherever_it_is_cut() {
        let whole = read(&[STREAM]).unwrap();
        assert_eq!(whole, ["Pong", "hello", "Ping", "\r\n"]);
        for at in 0..STREAM.len() {
            let (first, second) = STREAM.split_at(at);
            assert_eq!(read(&[first, second]).unwrap(), whole, "cut at {at}");
        }
        let bytes: Vec<_> = STREAM.chunks(1).collect();
        assert_eq!(read(&bytes).unwrap(), whole);
    }

    #[test]
    fn what_the_server_complains_of_is_told() {
        let Fault(failure, what) = read(&[b"-ERR 'Slow Consumer'\r\n"]).unwrap_err();
        assert_eq!(failure, Failure::Protocol);
        assert!(what.contains("Slow Consumer"), "{what}");
    }

    #[test]
    fn publication_has_its_length() {
        let mut out = Vec::new();
        publish("t0", 3, &mut out, |out| out.extend(b"abc"));
        assert_eq!(out, b"PUB t0 3\r\nabc\r\n");
    }
}
