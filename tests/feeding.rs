//! One end of a connection without a socket, and the ways in which a stream can be fed to it. All
//! of them must come to the same events and the same answers. The fuzz targets share this module.

use std::sync::Arc;

use stentor::protocol::{
    Acceptance, Assembly, ClientHandshake, Connection, Event, FrameHeader, MessageKind,
    ProtocolError, Role, Settings, State, mask,
};

/// What happened, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    Failed(ProtocolError),
}

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) came: Vec<Came>,
    /// The frames that were sent: first byte and payload.
    pub(crate) answers: Vec<(u8, Vec<u8>)>,
    pub(crate) state: State,
}

/// An end that answers Pings and takes note of everything.
pub(crate) struct End {
    pub(crate) connection: Connection,
    assembly: Assembly,
    /// Came, and not consumed.
    leftover: Vec<u8>,
    pub(crate) output: Vec<u8>,
    came: Vec<Came>,
}

impl End {
    /// Both ends behind an opening handshake.
    pub(crate) fn pair(settings: &Arc<Settings>) -> (Self, Self) {
        let mut handshake = ClientHandshake::new(*b"sixteen byte key");
        let (mut request, mut response) = (Vec::new(), Vec::new());
        let written = handshake.write_request("localhost", "/", &[], &[], &mut request);
        written.expect("a good host and a good target");
        let mut server = Connection::server(Arc::clone(settings));
        let mut client = Connection::client(Arc::clone(settings), handshake);
        let mut assembly = Assembly::new();
        let event = server.receive(&mut request, &mut assembly, &mut response).1;
        let Some(Event::Request(request)) = event else {
            panic!("a request: {event:?}")
        };
        server
            .accept(&request, &Acceptance::new(), &mut response)
            .expect("a good acceptance");
        let event = client
            .receive(&mut response, &mut assembly, &mut Vec::new())
            .1;
        assert!(matches!(event, Some(Event::Accepted(_))), "{event:?}");
        (Self::new(server), Self::new(client))
    }

    pub(crate) fn open(role: Role, settings: &Arc<Settings>) -> Self {
        let (server, client) = Self::pair(settings);
        match role {
            Role::Server => server,
            Role::Client => client,
        }
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            assembly: Assembly::new(),
            leftover: Vec::new(),
            output: Vec::new(),
            came: Vec::new(),
        }
    }

    /// Takes one read as the documentation of `receive` says: behind what was left over.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.leftover.extend_from_slice(bytes);
        let mut start = 0;
        loop {
            let input = &mut self.leftover[start..];
            let received = self
                .connection
                .receive(input, &mut self.assembly, &mut self.output);
            let (consumed, event) = received;
            start += consumed;
            let Some(event) = event else { break };
            note(event, &mut self.came);
            self.answer_ping();
        }
        self.leftover.drain(..start);
    }

    /// Takes one read as the server's loop does: the rest of a long payload straight into the
    /// assembly, of a short frame no more than it lacks behind its beginning, and all else from a
    /// buffer.
    pub(crate) fn feed_as_the_loop(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if !self.leftover.is_empty() {
                let missing = self.connection.missing(&self.leftover).expect("it is open");
                let (completing, rest) = bytes.split_at(missing.min(bytes.len()));
                assert!(missing > 0, "nothing is consumed and nothing is missing");
                self.feed(completing);
                bytes = rest;
            } else if let Some(spare) = self.connection.direct(&mut self.assembly) {
                let (direct, rest) = bytes.split_at(spare.len().min(bytes.len()));
                spare[..direct.len()].copy_from_slice(direct);
                let (assembly, output) = (&mut self.assembly, &mut self.output);
                let event = self
                    .connection
                    .receive_direct(direct.len(), assembly, output);
                if let Some(event) = event {
                    note(event, &mut self.came);
                }
                bytes = rest;
            } else {
                self.feed(bytes);
                return;
            }
        }
    }

    fn answer_ping(&mut self) {
        if let Some(Came::Ping(payload)) = self.came.last() {
            // After a Close frame it is refused, and right so.
            let _ = self.connection.pong(payload, &mut self.output);
        }
    }

    pub(crate) fn outcome(self) -> Outcome {
        Outcome {
            answers: frames(&self.output),
            came: self.came,
            state: self.connection.state(),
        }
    }
}

fn note(event: Event<'_>, came: &mut Vec<Came>) {
    came.push(match event {
        Event::Message(message) => Came::Message(message.kind(), message.payload().into()),
        Event::Ping(payload) => Came::Ping(payload.into()),
        Event::Pong(payload) => Came::Pong(payload.into()),
        Event::Close(frame) => Came::Close(frame.code.get(), frame.reason.into()),
        Event::Failed(error) => Came::Failed(error),
        event => panic!("behind the handshake: {event:?}"),
    });
}

/// Splits what was sent into frames, without their masks, which are never the same.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(&first) = bytes.first() {
        let parsed = FrameHeader::parse(bytes).expect("our own frame is valid");
        let (header, header_len) = parsed.expect("our own frame is whole");
        let end = header_len + usize::try_from(header.payload_len).expect("it is in memory");
        let mut payload = bytes[header_len..end].to_vec();
        mask::apply_mask(&mut payload, header.masking_key.unwrap_or_default(), 0);
        frames.push((first, payload));
        bytes = &bytes[end..];
    }
    frames
}

/// Feeds `stream` whole and cut into pieces of these lengths, over and over, in both ways; all
/// must come to the same, which is the answer.
pub(crate) fn outcome_of(
    role: Role,
    settings: &Arc<Settings>,
    stream: &[u8],
    lengths: &[usize],
) -> Outcome {
    let mut whole = End::open(role, settings);
    whole.feed(stream);
    let (mut cut, mut looped) = (End::open(role, settings), End::open(role, settings));
    let mut rest = stream;
    for len in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((*len).clamp(1, rest.len()));
        cut.feed(piece);
        looped.feed_as_the_loop(piece);
        rest = behind;
    }
    let outcome = whole.outcome();
    same(&outcome, &cut.outcome(), "cut");
    same(&outcome, &looped.outcome(), "as the loop does it");
    outcome
}

/// Says where two outcomes differ; whole messages would fill pages.
fn same(one: &Outcome, other: &Outcome, how: &str) {
    let differ = one
        .came
        .iter()
        .zip(&other.came)
        .position(|(one, other)| one != other);
    assert!(
        one == other,
        "{how}: {} and {} events, different from {differ:?} on; {:?} and {:?}; {:.300?} and {:.300?}",
        one.came.len(),
        other.came.len(),
        one.state,
        other.state,
        format!("{:?}", one.came.last()),
        format!("{:?}", other.came.last()),
    );
}
