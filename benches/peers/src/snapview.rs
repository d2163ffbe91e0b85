//! tungstenite's `WebSocket` over a blocking stream.

use tungstenite::protocol::Role;
use tungstenite::{Bytes, Message, WebSocket};

use crate::{Client, Kind, Server};

/// A socket with its own buffers.
pub struct Tungstenite(WebSocket<Client>);

impl Server for Tungstenite {
    const NAME: &'static str = "tungstenite";
    type Payload = Bytes;

    fn accept(client: Client) -> Self {
        Self(WebSocket::from_raw_socket(client, Role::Server, None))
    }

    fn receive(&mut self, seen: impl FnOnce(Kind, &[u8])) {
        match self.0.read().expect("the client sends messages") {
            Message::Text(text) => seen(Kind::Text, text.as_bytes()),
            Message::Binary(bytes) => seen(Kind::Binary, &bytes),
            other => panic!("a message, not {other:?}"),
        }
    }

    fn reply(&mut self, payload: &Bytes) {
        self.0
            .send(Message::Binary(payload.clone()))
            .expect("memory can be written");
    }

    fn sent(self) -> usize {
        self.0.get_ref().received()
    }
}
