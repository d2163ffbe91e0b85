//! What random programs are made of: a server whose turns the test takes itself, on one thread and
//! so in the same order each time; clients that never block; random numbers from a seed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;
use stentor::{Config, Context, Endpoint, Handler, Server};

use crate::support::{masked, upgrade_request};

/// Numbers that the seed decides (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Yes, once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// The seeds of random programs: that of `STENTOR_SEED` alone, or others until the time is over: a
/// few seconds, or `STENTOR_MINUTES`.
pub(crate) fn seeds(seconds: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().expect("a number"))
    };
    let only = number("STENTOR_SEED");
    let seconds = number("STENTOR_MINUTES").map_or(seconds, |minutes| minutes * 60);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let first = only.unwrap_or(Random(since.as_nanos() as u64).next() >> 16);
    (first..).take_while(move |&seed| match only {
        Some(only) => seed == only,
        None => Instant::now() < deadline,
    })
}

/// A server that does nothing between the turns that the test takes.
pub(crate) struct Turns<H: Handler> {
    server: Server<H>,
    path: PathBuf,
}

impl<H: Handler> Turns<H> {
    /// A server at a TCP port and at a unix socket whose name nobody else has.
    pub(crate) fn new(handler: H, configure: impl FnOnce(&mut Config)) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = format!("stentor-{}-turns-{count}", std::process::id());
        let path = std::env::temp_dir().join(file);
        let tcp = "127.0.0.1:0".parse().unwrap();
        let mut config = Config::listen([tcp, Endpoint::Unix(path.clone())]);
        // A machine that is busy with something else must not end connections.
        let long = Duration::from_mins(5);
        config.timeouts.write = long;
        config.timeouts.close = long;
        config.timeouts.lag = long;
        config.timeouts.idle = long;
        config.timeouts.message = long;
        config.timeouts.handshake = long;
        configure(&mut config);
        let server = Server::bind(config, handler).unwrap();
        Self { server, path }
    }

    pub(crate) fn turn(&mut self, wait: Duration) {
        assert!(self.server.turn(Some(wait)).unwrap(), "nobody stopped it");
    }

    /// Has a closure carried out in the next turn.
    pub(crate) fn say(
        &self,
        act: impl FnOnce(&mut H, &mut Context<'_, H::State>) + Send + 'static,
    ) {
        self.server.handle().run(act).unwrap();
    }

    /// Takes a turn in which a closure gives an answer.
    pub(crate) fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut H, &mut Context<'_, H::State>) -> T + Send + 'static,
    ) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.say(move |handler, ctx| sender.send(question(handler, ctx)).unwrap());
        loop {
            self.turn(Duration::ZERO);
            if let Ok(answer) = receiver.try_recv() {
                return answer;
            }
        }
    }

    pub(crate) fn app(&self) -> &H {
        self.server.handler()
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        let endpoints = self.server.endpoints();
        let tcp = endpoints.iter().find_map(|endpoint| match endpoint {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Unix(_) => None,
        });
        tcp.expect("it was bound first")
    }

    pub(crate) fn unix(&self) -> &Path {
        &self.path
    }
}

/// What a client reads at once.
const BUFFER: usize = 64 << 10;

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A client that reads and writes as much as goes at once.
pub(crate) struct Peer {
    socket: Socket,
    buffer: Box<[u8]>,
    input: Vec<u8>,
    /// Where what was not taken out of `input` begins.
    start: usize,
    output: Vec<u8>,
    /// The handshake is behind it.
    pub(crate) has_head: bool,
    /// Bytes of frames that came.
    pub(crate) read: usize,
    /// FIN or RST has come.
    pub(crate) is_over: bool,
}

impl Peer {
    /// Connects over TCP and asks for a WebSocket.
    pub(crate) fn over_tcp(address: SocketAddr, target: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self::new(Socket::Tcp(socket), target)
    }

    /// Connects through a unix socket, in which little waits before the server is held up.
    pub(crate) fn over_unix(path: &Path, target: &str) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self::new(Socket::Unix(socket), target)
    }

    fn new(socket: Socket, target: &str) -> Self {
        let mut peer = Self {
            socket,
            buffer: vec![0; BUFFER].into(),
            input: Vec::new(),
            start: 0,
            output: Vec::new(),
            has_head: false,
            read: 0,
            is_over: false,
        };
        peer.send(upgrade_request(target).as_bytes());
        peer
    }

    /// Sends a masked frame; what the socket does not take goes with the next call.
    pub(crate) fn frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&masked(first, payload));
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        while !self.output.is_empty() {
            let sent = match &mut self.socket {
                Socket::Tcp(socket) => socket.write(&self.output),
                Socket::Unix(socket) => socket.write(&self.output),
            };
            match sent {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The server has ended the connection: reading tells how.
                Err(_) => self.output.clear(),
            }
        }
    }

    /// Sends FIN and can still read.
    pub(crate) fn finish_sending(&mut self) {
        let _ = match &self.socket {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
        };
    }

    /// Ends the connection with RST, or as a process that was killed does.
    pub(crate) fn reset(self) {
        if let Socket::Tcp(socket) = &self.socket {
            let linger = Some(Duration::ZERO);
            SockRef::from(socket).set_linger(linger).unwrap();
        }
    }

    /// Reads what there is, but stops behind so many bytes.
    pub(crate) fn receive(&mut self, mut budget: usize) {
        self.send(&[]);
        while budget > 0 && !self.is_over {
            let part = &mut self.buffer[..budget.min(BUFFER)];
            let received = match &mut self.socket {
                Socket::Tcp(socket) => socket.read(part),
                Socket::Unix(socket) => socket.read(part),
            };
            let count = *received.as_ref().unwrap_or(&0);
            self.input.extend_from_slice(&self.buffer[..count]);
            budget -= count;
            match received {
                Ok(0) => self.is_over = true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.is_over = true,
            }
        }
    }

    /// Takes the next frame out of what was read: its first byte and its payload.
    pub(crate) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        if !self.has_head {
            self.take_head()?;
        }
        let input = &self.input[self.start..];
        let (start, len) = match *input.get(1)? {
            126 => (4, u64::from(u16::from_be_bytes(*input[2..].first_chunk()?))),
            127 => (10, u64::from_be_bytes(*input[2..].first_chunk()?)),
            len => (2, u64::from(len)),
        };
        let end = start + usize::try_from(len).unwrap();
        let frame = (input[0], input.get(start..end)?.to_vec());
        self.start += end;
        self.read += end;
        if self.start >= self.input.len() / 2 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        Some(frame)
    }

    fn take_head(&mut self) -> Option<()> {
        let end = b"\r\n\r\n";
        let place = self.input.windows(4).position(|bytes| bytes == end)?;
        let head = self.input[..place].escape_ascii();
        assert!(self.input.starts_with(b"HTTP/1.1 101 "), "{head}");
        self.start = place + end.len();
        self.has_head = true;
        Some(())
    }
}

/// The length of an unmasked frame with such a payload.
pub(crate) fn frame_len(payload: usize) -> usize {
    payload
        + match payload {
            0..126 => 2,
            126..0x1_0000 => 4,
            _ => 10,
        }
}
