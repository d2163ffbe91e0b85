//! A server that writes down what its handler is told, and a bystander: a connection that is open
//! all the time and must not notice what a hostile one does.

use std::time::Duration;

use stentor::protocol::HandshakeError;
use stentor::protocol::http::{Request, Response};
use stentor::{Cause, Closed, Config, ConnectionId, Context, Fault, Handler, Message, MessageKind};

use crate::support::{Client, Running, serve};

/// What the handler was told about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Open,
    Text(String),
    Binary(Vec<u8>),
    Closed(u16, Cause),
    Request(String),
    Refused(HandshakeError),
}

impl Seen {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    fn message(message: Message<'_>) -> Self {
        match message.kind() {
            MessageKind::Text => Self::text(message.as_text().expect("a text is UTF-8")),
            MessageKind::Binary => Self::Binary(message.payload().into()),
        }
    }
}

/// Echoes messages, answers requests, and writes everything down.
#[derive(Default)]
pub(crate) struct Witness {
    pub(crate) seen: Vec<(ConnectionId, Seen)>,
    /// The most bytes that were waiting for a peer when a request or a message of it came.
    pub(crate) most_queued: usize,
}

impl Witness {
    fn note(&mut self, ctx: &Context<'_, ()>, seen: Seen) {
        self.most_queued = self.most_queued.max(ctx.queued());
        self.seen.push((ctx.id(), seen));
    }
}

impl Handler for Witness {
    type State = ();

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        self.note(ctx, Seen::Open);
    }

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        self.note(ctx, Seen::message(message));
        ctx.send(message);
    }

    fn close(&mut self, ctx: &mut Context<'_, ()>, closed: Closed<'_>) {
        self.note(ctx, Seen::Closed(closed.code.get(), closed.cause));
    }

    fn request(&mut self, ctx: &mut Context<'_, ()>, request: &Request<'_>) -> Response {
        let target = String::from_utf8_lossy(request.target()).into_owned();
        self.note(ctx, Seen::Request(target));
        Response::new(200).text("a plain answer\n")
    }

    fn fault(&mut self, ctx: &mut Context<'_, ()>, fault: Fault<'_>) {
        if let Fault::Refused(error) = fault {
            self.note(ctx, Seen::Refused(error));
        }
    }
}

/// A server with one connection that is open all the time.
pub(crate) struct Scene {
    pub(crate) server: Running<Witness>,
    bystander: Client,
    bystander_id: ConnectionId,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let server = serve(Witness::default(), configure);
        let mut bystander = server.connect();
        bystander.echo("here all the time");
        let bystander_id = server.ask(|witness, ctx| {
            witness.seen.clear();
            ctx.connections().next().expect("the bystander")
        });
        Self {
            server,
            bystander,
            bystander_id,
        }
    }

    /// A connection behind its opening handshake.
    pub(crate) fn connect(&self) -> Client {
        self.server.connect()
    }

    /// A connection that has sent nothing.
    pub(crate) fn raw(&self) -> Client {
        Client::raw(self.server.address)
    }

    /// The bytes that the server has read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.server.ask(|_, ctx| ctx.stats().bytes_in)
    }

    /// Waits until everybody but the bystander is gone, makes sure that it was not disturbed and
    /// that nothing is left behind, and answers what the handler was told about the others.
    pub(crate) fn settle(&mut self) -> Vec<Seen> {
        self.server
            .wait_until("only the bystander is left", |_, ctx| {
                ctx.connection_count() == 1
            });
        self.bystander.echo("still here");
        let bystander = self.bystander_id;
        self.server.ask(move |witness, ctx| {
            let open: Vec<_> = ctx.connections().collect();
            assert_eq!(open, [bystander], "nobody else is open");
            let stats = ctx.stats();
            assert_eq!(
                stats.opened - stats.closed_total(),
                1,
                "as many ends as openings"
            );
            let others = witness.seen.drain(..).filter(|(id, _)| *id != bystander);
            others.map(|(_, seen)| seen).collect()
        })
    }

    /// Sends these bytes on a new connection piece by piece, each read by the server before the
    /// next is sent.
    pub(crate) fn send_pieces<'a>(
        &self,
        client: &mut Client,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let mut read = self.bytes_read();
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            client.send(piece);
            read += piece.len() as u64;
            self.server.wait_until("the piece is read", move |_, ctx| {
                ctx.stats().bytes_in >= read
            });
        }
    }
}

/// A timeout that a test can wait for, and that no honest connection of a loaded machine meets.
pub(crate) const SOON: Duration = Duration::from_millis(500);
