//! stentor's [`Connection`], driven as its loop drives it.

use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::sync::Arc;

use stentor::protocol::{Acceptance, Assembly, Connection, Event, Message, Settings};

use crate::{Client, Kind, Server};

/// As the loop has it, for all its connections together.
const RECEIVE_BUFFER: usize = 128 * 1024;

/// A connection and what a loop lends it.
pub struct Stentor {
    client: Client,
    connection: Connection,
    assembly: Assembly,
    output: Vec<u8>,
    buffer: Box<[u8]>,
    unread: Range<usize>,
}

impl Server for Stentor {
    const NAME: &'static str = "stentor";
    type Payload = Vec<u8>;

    fn accept(client: Client) -> Self {
        let (mut assembly, mut output) = (Assembly::new(), Vec::new());
        Self {
            client,
            connection: open(&mut assembly, &mut output),
            assembly,
            output,
            buffer: vec![0; RECEIVE_BUFFER].into_boxed_slice(),
            unread: 0..0,
        }
    }

    fn receive(&mut self, seen: impl FnOnce(Kind, &[u8])) {
        loop {
            let input = &mut self.buffer[self.unread.clone()];
            let (consumed, event) =
                self.connection
                    .receive(input, &mut self.assembly, &mut self.output);
            self.unread.start += consumed;
            if let Some(event) = event {
                return see(&event, seen);
            }
            if let Some(place) = self.connection.direct(&mut self.assembly) {
                let read = self.client.read(place).expect("memory can be read");
                let event =
                    self.connection
                        .receive_direct(read, &mut self.assembly, &mut self.output);
                if let Some(event) = event {
                    return see(&event, seen);
                }
            } else {
                self.refill();
            }
        }
    }

    fn reply(&mut self, payload: &Vec<u8>) {
        self.output.clear();
        self.connection
            .send(payload.as_slice(), &mut self.output)
            .expect("the connection is open");
        self.client
            .write_all(&self.output)
            .expect("memory can be written");
    }

    fn sent(self) -> usize {
        self.client.received()
    }
}

impl Stentor {
    /// Moves what was not consumed to the front, and reads behind it.
    fn refill(&mut self) {
        let leftover = self.unread.len();
        self.buffer.copy_within(self.unread.clone(), 0);
        let read = self.client.read(&mut self.buffer[leftover..]);
        self.unread = 0..leftover + read.expect("memory can be read");
    }
}

fn see(event: &Event<'_>, seen: impl FnOnce(Kind, &[u8])) {
    let Event::Message(message) = event else {
        panic!("a message, not {event:?}")
    };
    seen(kind(message), message.payload());
}

fn kind(message: &Message<'_>) -> Kind {
    if message.is_text() {
        Kind::Text
    } else {
        Kind::Binary
    }
}

fn open(assembly: &mut Assembly, output: &mut Vec<u8>) -> Connection {
    let mut connection = Connection::server(Arc::new(Settings::default()));
    let mut request = *b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    let (_, event) = connection.receive(&mut request, assembly, output);
    let Some(Event::Request(request)) = event else {
        panic!("a request, not {event:?}")
    };
    connection
        .accept(&request, &Acceptance::new(), output)
        .expect("the request is an upgrade");
    connection
}
