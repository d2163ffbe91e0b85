//! Three WebSocket libraries as servers of one client, with memory in the place of the socket.
//!
//! Each is used as its documentation has it, with its default limits and buffers: stentor with the receive buffer
//! that its loop has. A read fills whatever buffer it is offered, as one from a busy socket does, so that every
//! library pays for its own copy of the masked bytes, and the next pass finds them masked again.

mod client;
mod fast;
mod ours;
mod snapview;

pub use client::{Client, Stream};
pub use fast::Fastwebsockets;
pub use ours::Stentor;
pub use snapview::Tungstenite;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, and checked to be.
    Text,
    /// Any bytes.
    Binary,
}

/// The server's end of a connection whose handshake is over.
pub trait Server: Sized {
    /// The library.
    const NAME: &'static str;

    /// A payload as the library likes it best for sending it more than once.
    type Payload: From<Vec<u8>>;

    /// The end opposite to this client.
    fn accept(client: Client) -> Self;

    /// Receives one message.
    fn receive(&mut self, seen: impl FnOnce(Kind, &[u8]));

    /// Sends a binary message, all the way to the client.
    fn reply(&mut self, payload: &Self::Payload);

    /// How many bytes the client was sent, in the end.
    fn sent(self) -> usize;
}

/// Holds a server to what its client says: each message of the stream three times, and one reply.
///
/// # Panics
///
/// When a message or the length of the reply is wrong.
pub fn check<S: Server>(stream: &Stream) {
    let mut server = S::accept(Client::new(stream));
    for _ in 0..3 {
        for (kind, payload) in stream.messages() {
            let mut seen = false;
            server.receive(|received, bytes| {
                assert_eq!(received, *kind, "{}", S::NAME);
                assert!(bytes == payload, "{}: another payload", S::NAME);
                seen = true;
            });
            assert!(seen, "{} received no message", S::NAME);
        }
    }
    server.reply(&S::Payload::from(vec![7; 1000]));
    assert_eq!(server.sent(), 4 + 1000, "{}", S::NAME);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_libraries_receive_the_same_messages_and_send_the_same_replies() {
        for len in [0, 20, 125, 126, 16_384, 65_535, 65_536, 300_000] {
            let streams = [
                Stream::whole(Kind::Text, &vec![b'a'; len]),
                Stream::whole(Kind::Binary, &vec![0xA5; len]),
                Stream::fragmented(&vec![0xA5; len.max(1)], 1000),
            ];
            for stream in streams {
                check::<Stentor>(&stream);
                check::<Tungstenite>(&stream);
                check::<Fastwebsockets>(&stream);
            }
        }
    }
}
