//! The physical yardstick: socket work as a WebSocket server cannot avoid it, and no WebSocket work at all.
//!
//! One thread, one edge-triggered epoll, one receive buffer for all. Read and write interest is registered
//! once at accept. A readiness costs one receive and one send: a receive that did not fill the buffer has
//! drained the socket, so none follows to hear `EAGAIN`. Nothing received is ever looked at; what is sent
//! was written before. A server's rate divided by this program's, in the same run, is how much of what the
//! machine can do reaches its users.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use loadtest::frame::{self, Opcode};
use loadtest::handshake;
use loadtest::outgoing::Outgoing;
use loadtest::process;
use loadtest::units::ByteSize;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

/// Socket work without WebSocket work: what the machine can do at most.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers every N bytes received with M bytes; what came in one receive leaves in one send
    Echo(Exchange),
    /// Sends M bytes to everyone for every N bytes received from anyone, with one send each a turn
    Fanout(Exchange),
    /// Accepts, receives, answers with the same 101 always, and closes when the peer does
    Connect(Socketing),
}

#[derive(Args)]
struct Exchange {
    #[command(flatten)]
    socketing: Socketing,
    /// Bytes of a client's frame, header and mask included (6 more than a payload below 126)
    #[arg(long, value_name = "BYTES")]
    frame_in: ByteSize,
    /// Bytes of a server's frame, header included (2 more than a payload below 126)
    #[arg(long, value_name = "BYTES")]
    frame_out: ByteSize,
}

#[derive(Args)]
struct Socketing {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9101")]
    listen: SocketAddr,
    /// The receive buffer that all connections share
    #[arg(long, value_name = "BYTES", default_value = "256KiB")]
    buffer: ByteSize,
}

/// Frames kept ready to send: what one receive asks for wherever a reply is not many times its request.
const MAX_READY_FRAMES: usize = 8 << 20;
/// As deep as Linux' default somaxconn lets a queue be.
const BACKLOG: i32 = 4096;
const LISTENER: Token = Token(usize::MAX);

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Echo(exchange) => exchange.work(Reach::Sender),
        Command::Fanout(exchange) => exchange.work(Reach::Everyone),
        Command::Connect(socketing) => Ok((Work::Connect, socketing)),
    };
    let (work, socketing) = match result {
        Ok(valid) => valid,
        Err(wrong) => {
            eprintln!("limit: {wrong}");
            return ExitCode::from(2);
        }
    };
    process::raise_descriptor_limit();
    match Program::listen(work, &socketing).and_then(|mut program| program.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("limit: {}: {error}", socketing.listen);
            ExitCode::FAILURE
        }
    }
}

/// What to do with what is received.
enum Work {
    Connect,
    Exchange {
        reach: Reach,
        frame_in: usize,
        frame_out: usize,
        frames: Box<[u8]>,
    },
}

/// Whom a message reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Sender,
    Everyone,
}

impl Exchange {
    fn work(self, reach: Reach) -> Result<(Work, Socketing), String> {
        let (ByteSize(frame_in), ByteSize(frame_out)) = (self.frame_in, self.frame_out);
        frame::client_payload_len(frame_in)
            .ok_or_else(|| format!("no client frame is {frame_in} bytes long"))?;
        let payload = frame::server_payload_len(frame_out)
            .ok_or_else(|| format!("no server frame is {frame_out} bytes long"))?;
        let mut reply = Vec::with_capacity(frame_out);
        frame::push_server_frame(&mut reply, Opcode::Binary, &vec![b'.'; payload]);
        // One more than fits the buffer: the receive that completes a message begun before.
        let at_once = self.socketing.buffer.0 / frame_in + 1;
        let frames = reply
            .repeat(at_once.min(MAX_READY_FRAMES / frame_out).max(1))
            .into_boxed_slice();
        Ok((
            Work::Exchange {
                reach,
                frame_in,
                frame_out,
                frames,
            },
            self.socketing,
        ))
    }
}

struct Program {
    work: Work,
    poll: Poll,
    listener: TcpListener,
    peers: Slab<Peer>,
    buffer: Box<[u8]>,
    /// Bytes that this turn's messages put out to everyone.
    fanned_out: usize,
}

struct Peer {
    stream: TcpStream,
    phase: Phase,
    /// The socket may hold bytes that were not received yet.
    has_input: bool,
    /// The peer will send nothing more: the end of the stream is yet to be read.
    is_ending: bool,
}

enum Phase {
    /// The request's head as far as it came.
    Opening(Vec<u8>),
    /// Bytes of a message that is still incomplete, and what is to be sent.
    Open { inside: usize, outgoing: Outgoing },
}

/// The connection is over, for whatever reason.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Over
    }
}

impl Program {
    fn listen(work: Work, socketing: &Socketing) -> io::Result<Self> {
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
            work,
            poll,
            listener,
            peers: Slab::new(),
            buffer: vec![0; socketing.buffer.0.max(handshake::MAX_HEAD)].into_boxed_slice(),
            fanned_out: 0,
        })
    }

    fn run(&mut self) -> io::Result<()> {
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
            self.fan_out();
        }
    }

    fn accept_ready(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
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
            let entry = self.peers.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(entry.key()), interest)?;
            entry.insert(Peer {
                stream,
                phase: Phase::Opening(Vec::new()),
                has_input: false,
                is_ending: false,
            });
        }
    }

    fn serve(&mut self, key: usize, event: &Event) {
        // Each descriptor has one event a turn, so no later event can speak of a peer removed here.
        let peer = &mut self.peers[key];
        peer.has_input |= event.is_readable();
        peer.is_ending |= event.is_read_closed() || event.is_error();
        if let Phase::Open { outgoing, .. } = &mut peer.phase
            && event.is_writable()
        {
            outgoing.unblock();
        }
        if peer
            .proceed(&self.work, &mut self.buffer, &mut self.fanned_out)
            .is_err()
        {
            self.peers.remove(key);
        }
    }

    fn fan_out(&mut self) {
        let owed = std::mem::take(&mut self.fanned_out);
        let Work::Exchange { frames, .. } = &self.work else {
            return;
        };
        if owed == 0 {
            return;
        }
        self.peers.retain(|_, peer| match &mut peer.phase {
            Phase::Opening(_) => true,
            Phase::Open { outgoing, .. } => {
                outgoing.owe(owed);
                outgoing.flush(&peer.stream, frames).is_ok()
            }
        });
    }
}

impl Peer {
    /// Sends what is owed, then receives for as long as there is input and nothing is left to send.
    fn proceed(
        &mut self,
        work: &Work,
        buffer: &mut [u8],
        fanned_out: &mut usize,
    ) -> Result<(), Over> {
        loop {
            self.flush(work)?;
            if !self.wants_input() {
                return Ok(());
            }
            let received = match self.stream.read(buffer) {
                Ok(0) => return Err(Over),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.has_input = false;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.has_input = received == buffer.len() || self.is_ending;
            self.take(&buffer[..received], work, fanned_out)?;
        }
    }

    fn flush(&mut self, work: &Work) -> Result<(), Over> {
        if let (Phase::Open { outgoing, .. }, Work::Exchange { frames, .. }) =
            (&mut self.phase, work)
        {
            outgoing.flush(&self.stream, frames)?;
        }
        Ok(())
    }

    fn wants_input(&self) -> bool {
        let is_free = match &self.phase {
            Phase::Opening(_) => true,
            Phase::Open { outgoing, .. } => outgoing.is_empty(),
        };
        is_free && self.has_input
    }

    fn take(&mut self, received: &[u8], work: &Work, fanned_out: &mut usize) -> Result<(), Over> {
        match (&mut self.phase, work) {
            (Phase::Opening(head), Work::Exchange { .. }) => {
                head.extend_from_slice(received);
                let Some(len) = handshake::head_len(head) else {
                    return if head.len() > handshake::MAX_HEAD {
                        Err(Over)
                    } else {
                        Ok(())
                    };
                };
                let key = handshake::field(&head[..len], "Sec-WebSocket-Key").ok_or(Over)?;
                self.stream.write_all(&handshake::response(key))?;
                let rest = head.split_off(len);
                self.phase = Phase::Open {
                    inside: 0,
                    outgoing: Outgoing::default(),
                };
                self.take(&rest, work, fanned_out)
            }
            (
                Phase::Open { inside, outgoing },
                Work::Exchange {
                    reach,
                    frame_in,
                    frame_out,
                    ..
                },
            ) => {
                *inside += received.len();
                let owed = *inside / frame_in * frame_out;
                *inside %= frame_in;
                match reach {
                    Reach::Sender => outgoing.owe(owed),
                    Reach::Everyone => *fanned_out += owed,
                }
                Ok(())
            }
            // Whatever came first is taken for a whole request; what follows, for nothing.
            (Phase::Opening(_), Work::Connect) => {
                self.stream.write_all(FIXED_RESPONSE)?;
                self.phase = Phase::Open {
                    inside: 0,
                    outgoing: Outgoing::default(),
                };
                Ok(())
            }
            (Phase::Open { .. }, Work::Connect) => Ok(()),
        }
    }
}

/// The answer to the key that the storm sends every time.
const FIXED_RESPONSE: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_response_answers_the_sample_key() {
        assert_eq!(FIXED_RESPONSE, handshake::response(handshake::SAMPLE_KEY));
    }

    #[test]
    fn replies_to_a_full_buffer_are_ready_for_one_send() {
        let arguments = Arguments::parse_from(
            "limit echo --buffer 4KiB --frame-in 26 --frame-out 22".split(' '),
        );
        let Command::Echo(exchange) = arguments.command else {
            unreachable!()
        };
        let Ok((Work::Exchange { frames, .. }, _)) = exchange.work(Reach::Sender) else {
            unreachable!()
        };
        assert_eq!(frames.len(), (4096 / 26 + 1) * 22);
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused() {
        for (frame_in, frame_out) in [(5, 22), (26, 1), (26, 128)] {
            let line = format!("limit echo --frame-in {frame_in} --frame-out {frame_out}");
            let Command::Echo(exchange) = Arguments::parse_from(line.split(' ')).command else {
                unreachable!()
            };
            assert!(exchange.work(Reach::Sender).is_err());
        }
    }
}
