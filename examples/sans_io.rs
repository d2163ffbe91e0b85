//! The protocol without a socket: both ends of a connection, and two buffers between them.
//!
//! `cargo run --release --example sans_io`. What a program does that has its own loop, its own
//! transport, or a simulated network: bytes go in, events come out, and what is to be sent is
//! appended to a buffer.

use std::sync::Arc;

use stentor::protocol::{
    Acceptance, Assembly, ClientHandshake, CloseCode, CloseFrame, Connection, Event, Settings,
    State, UsageError,
};

/// One end: the state machine and the buffers that it lends its events from.
struct End {
    name: &'static str,
    connection: Connection,
    /// Puts fragmented and long messages together.
    assembly: Assembly,
    /// Came, and not consumed: the beginning of something.
    input: Vec<u8>,
    /// To be sent.
    output: Vec<u8>,
}

impl End {
    fn new(name: &'static str, connection: Connection) -> Self {
        Self {
            name,
            connection,
            assembly: Assembly::new(),
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Takes bytes of any number, and acts on what they complete.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), UsageError> {
        self.input.extend_from_slice(bytes);
        let mut start = 0;
        loop {
            let Self {
                connection,
                assembly,
                output,
                ..
            } = self;
            let (consumed, event) = connection.receive(&mut self.input[start..], assembly, output);
            start += consumed;
            let Some(event) = event else { break };
            println!("{}: {}", self.name, describe(&event));
            react(connection, event, output)?;
        }
        self.input.drain(..start);
        Ok(())
    }
}

/// The application: the server greets and echoes, the client says goodbye to an echo.
fn react(
    connection: &mut Connection,
    event: Event<'_>,
    output: &mut Vec<u8>,
) -> Result<(), UsageError> {
    match event {
        Event::Request(request) => connection.accept(&request, &Acceptance::new(), output),
        Event::Accepted(_) => {
            connection.ping(b"are you there?", output)?;
            connection.send("hello, herald", output)
        }
        Event::Ping(payload) => connection.pong(payload, output),
        Event::Message(message) if connection.role() == stentor::protocol::Role::Server => {
            connection.send(message, output)
        }
        Event::Message(_) => connection.close(CloseFrame::new(CloseCode::NORMAL, "bye"), output),
        Event::Pong(_) | Event::Close(_) | Event::Refused(_) | Event::Failed(_) => Ok(()),
    }
}

fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Request(request) => {
            let target = String::from_utf8_lossy(request.target());
            format!("a request for {target}, upgrade: {}", request.is_upgrade())
        }
        Event::Accepted(response) => format!("accepted with {}", response.status()),
        Event::Message(message) => format!("{message:?}"),
        Event::Ping(payload) => format!("ping {:?}", String::from_utf8_lossy(payload)),
        Event::Pong(payload) => format!("pong {:?}", String::from_utf8_lossy(payload)),
        Event::Close(frame) => format!("close {frame}"),
        Event::Refused(error) => format!("refused: {error}"),
        Event::Failed(error) => format!("failed: {error}"),
    }
}

fn main() -> Result<(), UsageError> {
    let settings = Arc::new(Settings::default());
    let mut server = End::new("server", Connection::server(Arc::clone(&settings)));
    // A real client takes 16 random bytes.
    let mut handshake = ClientHandshake::new(*b"the sample nonce");
    let mut request = Vec::new();
    handshake.write_request("example.com", "/chat", &[], &[], &mut request)?;
    let mut client = End::new("client", Connection::client(settings, handshake));
    client.output = request;

    // The network: whatever one end wrote, the other one gets, in pieces of seven bytes.
    while !(client.output.is_empty() && server.output.is_empty()) {
        let (sent, received) = (&mut client, &mut server);
        for piece in std::mem::take(&mut sent.output).chunks(7) {
            received.receive(piece)?;
        }
        for piece in std::mem::take(&mut received.output).chunks(7) {
            sent.receive(piece)?;
        }
    }
    assert_eq!(client.connection.state(), State::Closed);
    assert_eq!(server.connection.state(), State::Closed);
    println!("both ends are closed");
    Ok(())
}
