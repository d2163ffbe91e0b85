//! One client connection on a loop: stentor's protocol core in the client's role, and a socket.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event as Readiness;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use stentor::protocol::error::HandshakeError;
use stentor::protocol::handshake::ClientHandshake;
use stentor::protocol::{Assembly, CloseFrame, Connection, Event, Message, Settings, State};

use crate::failure::{Error, Failure};
use crate::mid_page::MidPage;
use crate::target::Target;

/// Everything that clients of one loop share.
#[derive(Debug)]
pub struct Shared {
    settings: Arc<Settings>,
    target: Target,
    /// What all connections receive into.
    buffer: MidPage,
    /// The nonce of each handshake, if it is to be the same for all.
    nonce: Option<[u8; 16]>,
}

/// A client connection, from the first SYN to its end.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    connection: Connection,
    assembly: Assembly,
    /// Received bytes that begin something.
    unread: Vec<u8>,
    /// Bytes to send, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// The socket took less than it was offered: the writable edge is to come.
    is_blocked: bool,
    /// The peer will send nothing more: the end of the stream is yet to be read.
    is_ending: bool,
    /// We sent a Close frame: one that comes is the answer.
    is_closing: bool,
}

/// How much a connection takes while nobody reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Width {
    /// What Linux gives: 64 KiB in its own buffer, and up to 4 MiB in that of a server of the same machine.
    #[default]
    Normal,
    /// 44 KiB in both together. A server's buffer grows with the segments that it may send: these are few and short.
    Narrow,
}

/// What ends a connection before its time: its kind and what happened.
#[derive(Clone, Debug)]
pub struct Fault(pub Failure, pub String);

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault(Failure::Closed, error.to_string())
    }
}

/// How long a server may take to accept and to answer the opening handshake.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Larger than most socket buffers hold: what is there comes in one receive.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The largest message: a server that announces more is refused.
const MAX_MESSAGE: usize = 64 << 20;
/// Output of which so much was sent is moved up.
const SENT_TO_KEEP: usize = 64 * 1024;

impl Shared {
    /// What clients of `target` share.
    pub fn new(target: Target) -> Self {
        Shared {
            settings: Arc::new(Settings {
                max_message_size: MAX_MESSAGE,
                ..Settings::default()
            }),
            target,
            buffer: MidPage::new(RECEIVE_BUFFER),
            nonce: None,
        }
    }

    /// Lets all handshakes have the key of the RFC's own example, which `limit connect` answers without
    /// reading it.
    pub fn with_sample_key(mut self) -> Self {
        self.nonce = Some(*b"the sample nonce"); // RFC 6455 §1.3.
        self
    }

    /// Where the clients connect to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The buffer that all connections receive into, for bytes that need no more than a look.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

impl Client {
    /// Begins to connect; the handshake's request leaves with the first writable edge.
    ///
    /// # Errors
    ///
    /// If no connection can even be begun: descriptors, ports, addresses.
    pub fn connect(
        shared: &Shared,
        source: Option<IpAddr>,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        let (path, width) = (&shared.target.path, Width::Normal);
        Self::connect_at(shared, path, width, source, token, registry)
    }

    /// The same at another path, of that width.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_at(
        shared: &Shared,
        path: &str,
        width: Width,
        source: Option<IpAddr>,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        let random = || std::array::from_fn(|_| fastrand::u8(..));
        let mut handshake = ClientHandshake::new(shared.nonce.unwrap_or_else(random));
        let mut output = Vec::new();
        handshake
            .write_request(&shared.target.host, path, &[], &[], &mut output)
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let mut stream = connect(shared.target.address, source, width)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Client {
            stream,
            connection: Connection::client(Arc::clone(&shared.settings), handshake),
            assembly: Assembly::new(),
            unread: Vec::new(),
            output,
            sent: 0,
            is_blocked: true, // Until it is connected.
            is_ending: false,
            is_closing: false,
        })
    }

    /// Whether messages may be sent.
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        self.connection.state()
    }

    /// The socket, for those who count bytes instead of reading them.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether bytes were received that nobody has read: the beginning of a frame.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty() || self.connection.is_assembling()
    }

    /// Notes what the loop was told, and sends what waited for it.
    ///
    /// # Errors
    ///
    /// If the connection was refused, or ended.
    pub fn ready(&mut self, readiness: &Readiness) -> Result<(), Fault> {
        self.is_ending |= readiness.is_read_closed() || readiness.is_error();
        if !readiness.is_writable() {
            return Ok(());
        }
        self.is_blocked = false;
        if self.is_ending
            && self.state() == State::Connecting
            && let Ok(Some(error)) | Err(error) = self.stream.take_error()
        {
            return Err(Fault(Failure::Connect, error.to_string()));
        }
        self.flush()
    }

    /// Whether the socket has something to read after [`ready`](Self::ready) was told of it.
    pub fn wants_receive(&self, readiness: &Readiness) -> bool {
        readiness.is_readable() || self.is_ending
    }

    /// Receives all there is, and lends out what it was; Pings are answered.
    ///
    /// # Errors
    ///
    /// If the stream ended, the server closed, or broke the protocol; or if `each` says so.
    pub fn receive(
        &mut self,
        shared: &mut Shared,
        mut each: impl FnMut(&mut Self, Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.receive_bytes(shared, |client, input| client.read(input, &mut each))
    }

    /// Receives all there is, and lends out the bytes; `take` answers how many it has consumed. The others are
    /// lent out again, with more behind them.
    ///
    /// # Errors
    ///
    /// If the stream ended, or if `take` says so.
    pub fn receive_bytes(
        &mut self,
        shared: &mut Shared,
        mut take: impl FnMut(&mut Self, &mut [u8]) -> Result<usize, Fault>,
    ) -> Result<(), Fault> {
        loop {
            let begun = self.unread.len();
            shared.buffer[..begun].copy_from_slice(&self.unread);
            let received = match self.stream.read(&mut shared.buffer[begun..]) {
                Ok(0) => return Err(self.ended()),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(&error)),
            };
            let filled = begun + received;
            let is_full = filled == shared.buffer.len();
            let consumed = take(self, &mut shared.buffer[..filled])?;
            self.unread.clear();
            self.unread
                .extend_from_slice(&shared.buffer[consumed..filled]);
            // A receive that did not fill the buffer took everything: the next edge is on its way,
            // unless this one said that the stream ends, which has to be read out.
            if !is_full && !self.is_ending {
                return self.flush();
            }
        }
    }

    /// Reads bytes that were received, and lends out what they are; answers how many were consumed.
    ///
    /// # Errors
    ///
    /// If the server closed or broke the protocol; or if `each` says so.
    pub fn read(
        &mut self,
        input: &mut [u8],
        mut each: impl FnMut(&mut Self, Event<'_>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let mut consumed = 0;
        // Lent events may not borrow from `self` while the callback has it.
        let mut assembly = std::mem::take(&mut self.assembly);
        loop {
            let (read, event) =
                self.connection
                    .receive(&mut input[consumed..], &mut assembly, &mut self.output);
            consumed += read;
            match event {
                None => break,
                Some(Event::Ping(payload)) => {
                    // A connection that is closing needs no Pong.
                    let _ = self.connection.pong(payload, &mut self.output);
                    each(self, Event::Ping(payload))?;
                }
                Some(Event::Refused(error)) => return Err(refused(error)),
                Some(Event::Failed(error)) => {
                    return Err(Fault(Failure::Protocol, error.to_string()));
                }
                Some(Event::Close(close)) if !self.is_closing => {
                    let code = close.code.get();
                    return Err(Fault(
                        Failure::Closed,
                        format!("closed with {code} {:?}", close.reason),
                    ));
                }
                Some(event) => each(self, event)?,
            }
        }
        self.assembly = assembly;
        Ok(consumed)
    }

    fn ended(&self) -> Fault {
        match self.state() {
            State::Connecting => Fault(
                Failure::Handshake,
                "the connection ended before the handshake was answered".into(),
            ),
            _ => Fault(Failure::Closed, "end of stream".into()),
        }
    }

    fn broken(&self, error: &io::Error) -> Fault {
        match self.state() {
            State::Connecting => Fault(Failure::Connect, error.to_string()),
            _ => Fault(Failure::Closed, error.to_string()),
        }
    }

    /// Queues a message; [`flush`](Self::flush) sends it.
    ///
    /// # Panics
    ///
    /// If the connection is not open.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) {
        self.connection
            .send(message, &mut self.output)
            .expect("only open connections send");
    }

    /// Queues a Ping.
    pub fn ping(&mut self) {
        // A connection that is closing has nothing to ping for.
        let _ = self.connection.ping(b"", &mut self.output);
    }

    /// Queues the Close frame.
    pub fn close(&mut self, frame: CloseFrame<'_>) {
        self.is_closing = self.connection.close(frame, &mut self.output).is_ok();
    }

    /// How much waits to be sent.
    pub fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    pub fn flush(&mut self) -> Result<(), Fault> {
        while self.unsent() > 0 && !self.is_blocked {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(sent) => {
                    self.sent += sent;
                    // A write that took less than it was offered met a full socket.
                    self.is_blocked = self.unsent() > 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
        if self.unsent() == 0 {
            self.output.clear();
            self.sent = 0;
        } else if self.sent > SENT_TO_KEEP {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Has the kernel reset the connection when it is dropped: no port waits for stragglers.
    pub fn reset_on_drop(&self) {
        // Where it fails, a port waits for a minute; nothing else is lost.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

fn refused(error: HandshakeError) -> Fault {
    let failure = match error {
        HandshakeError::UnexpectedStatus(_) => Failure::Status,
        _ => Failure::Handshake,
    };
    Fault(failure, error.to_string())
}

/// Asks whether anybody listens, so that one line can say it where thousands of failures would.
///
/// # Errors
///
/// [`Error::Unreachable`] if not.
pub fn require_server(target: &Target) -> Result<(), Error> {
    match std::net::TcpStream::connect_timeout(&target.address, PATIENCE) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Unreachable(target.address, error.to_string())),
    }
}

/// The segments of a narrow connection: those that TCP takes where neither side says anything (RFC 9293 §3.7.1).
const NARROW_SEGMENT: u32 = 536;
/// Its receive buffer, of which Linux takes the double: several such segments. With half of it a server's holds no less.
const NARROW_BUFFER: usize = 2 << 10;

fn connect(address: SocketAddr, source: Option<IpAddr>, width: Width) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if width == Width::Narrow {
        socket.set_tcp_mss(NARROW_SEGMENT)?;
        socket.set_recv_buffer_size(NARROW_BUFFER)?;
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
