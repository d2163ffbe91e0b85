//! The loop: wait, serve whoever is ready, fan out.

use std::io::{self, ErrorKind};
use std::net::TcpListener as StdListener;

use loadtest::handshake;
use loadtest::mid_page::MidPage;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::peer::{Drained, Over, Peer, Shared, Work};
use crate::trigger::Trigger;
use crate::{Socketing, Variant};

/// As deep as Linux' default somaxconn lets a queue be.
const BACKLOG: i32 = 4096;
const LISTENER: Token = Token(usize::MAX);

pub(crate) struct Program {
    variant: Variant,
    poll: Poll,
    listener: TcpListener,
    peers: Slab<Peer>,
    shared: Shared,
    /// Staged: the peers of this turn that were received from and not yet sent to.
    received: Vec<usize>,
    /// The length of a peer's own buffer.
    own_buffer: usize,
}

impl Program {
    pub(crate) fn listen(work: Work, socketing: &Socketing, variant: Variant) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(socketing.listen),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?; // Inherited by what is accepted.
        socket.set_nonblocking(true)?;
        socket.bind(&socketing.listen.into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(StdListener::from(socket));
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Program {
            variant,
            poll,
            listener,
            peers: Slab::new(),
            shared: Shared {
                work,
                drained: if variant.second_recv {
                    Drained::ByError
                } else {
                    Drained::ByShortReceive
                },
                buffer: MidPage::new(socketing.buffer.0.max(handshake::MAX_HEAD)),
                fanned_out: 0,
            },
            received: Vec::new(),
            own_buffer: socketing.buffer.0,
        })
    }

    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        println!(
            "limit: pid {}, listening on {}",
            std::process::id(),
            self.listener.local_addr()?
        );
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept_ready()?,
                    Token(key) => self.serve(key, event),
                }
            }
            self.serve_received();
            self.fan_out();
        }
    }

    fn accept_ready(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.add(stream)?;
        }
    }

    fn add(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let entry = self.peers.vacant_entry();
        let (registry, token) = (self.poll.registry(), Token(entry.key()));
        let trigger = if self.variant.level_triggered {
            Trigger::level(registry, &stream, token)?
        } else {
            Trigger::edge(registry, &mut stream, token)?
        };
        let own_buffer = self
            .variant
            .own_buffer
            .then(|| MidPage::new(self.own_buffer));
        entry.insert(Peer::new(stream, trigger, own_buffer));
        Ok(())
    }

    fn serve(&mut self, key: usize, event: &Event) {
        // Each descriptor has one event a turn, so no later event can speak of a peer removed here.
        self.peers[key].note(event);
        if self.variant.staged {
            if self.advance(key, Peer::receive_first) {
                self.received.push(key);
            }
        } else {
            self.advance(key, Peer::proceed);
        }
    }

    /// Staged: everyone who is ready was received from; now sends go out, and input that is left comes in.
    fn serve_received(&mut self) {
        let mut received = std::mem::take(&mut self.received);
        for key in received.drain(..) {
            self.advance(key, Peer::proceed);
        }
        self.received = received;
    }

    /// Whether the peer is still there after the step.
    fn advance(
        &mut self,
        key: usize,
        step: fn(&mut Peer, &mut Shared) -> Result<(), Over>,
    ) -> bool {
        let (peer, registry) = (&mut self.peers[key], self.poll.registry());
        let result = step(peer, &mut self.shared).and_then(|()| peer.await_next(registry, key));
        if result.is_err() {
            self.peers.remove(key);
        }
        result.is_ok()
    }

    fn fan_out(&mut self) {
        let owed = std::mem::take(&mut self.shared.fanned_out);
        if owed == 0 {
            return;
        }
        let (shared, registry) = (&mut self.shared, self.poll.registry());
        self.peers.retain(|key, peer| {
            peer.fan_out(owed, shared)
                .and_then(|()| peer.await_next(registry, key))
                .is_ok()
        });
    }
}
