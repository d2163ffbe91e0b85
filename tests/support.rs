//! A server on a thread of its own, and raw clients that know nothing of stentor's own encoder.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use stentor::{
    Closed, Config, ConnectionId, Context, Endpoint, Fault, Handle, Handler, Lost, Message,
    PresenceEvent, Server,
};

/// No test waits longer for anything: far above what a loaded machine takes, far below a timeout
/// of the test runner.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// First bytes of complete frames.
pub(crate) const CONTINUATION: u8 = 0x80;
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;

/// Take it off the first byte of a frame that is not the last of its message.
pub(crate) const FIN: u8 = 0x80;

/// A running server; it ends with the value.
pub(crate) struct Running<H: Handler + Send + 'static> {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle<H>,
    thread: Option<JoinHandle<H>>,
}

/// Starts a server on a free port of the loopback interface.
pub(crate) fn serve<H>(handler: H, configure: impl FnOnce(&mut Config)) -> Running<H>
where
    H: Handler + Send + 'static,
    H::State: Send,
{
    let mut config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
    configure(&mut config);
    let server = Server::bind(config, handler).unwrap();
    let Endpoint::Tcp(address) = server.endpoints()[0] else {
        panic!("a TCP endpoint")
    };
    let handle = server.handle();
    let thread = Some(std::thread::spawn(move || server.run().unwrap()));
    Running {
        address,
        handle,
        thread,
    }
}

impl<H: Handler + Send + 'static> Running<H> {
    /// Runs a closure on the loop and waits for its answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut H, &mut Context<'_, H::State>) -> T + Send + 'static,
    ) -> T {
        let (sender, receiver) = mpsc::channel();
        self.handle
            .run(move |handler, ctx| {
                let _ = sender.send(question(handler, ctx));
            })
            .unwrap();
        receiver.recv_timeout(PATIENCE).unwrap()
    }

    /// Asks again and again until the answer is yes.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        question: impl Fn(&mut H, &mut Context<'_, H::State>) -> bool + Clone + Send + 'static,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while !self.ask(question.clone()) {
            assert!(Instant::now() < deadline, "waited too long until {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the server at once and answers the application.
    pub(crate) fn stop(mut self) -> H {
        let _ = self.handle.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    /// A raw client behind its opening handshake.
    pub(crate) fn connect(&self) -> Client {
        Client::open(self.address, "/")
    }

    /// Stops the loop at the beginning of a turn until the answer is dropped: all that clients do
    /// meanwhile, the next turns find at once.
    pub(crate) fn stand_still(&self) -> mpsc::Sender<()> {
        let (arrive, arrived) = mpsc::channel();
        let (release, released) = mpsc::channel();
        self.handle
            .run(move |_, _| {
                let _ = arrive.send(());
                let _ = released.recv_timeout(PATIENCE);
            })
            .unwrap();
        arrived.recv_timeout(PATIENCE).unwrap();
        release
    }
}

impl<H: Handler + Send + 'static> Drop for Running<H> {
    fn drop(&mut self) {
        let _ = self.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

/// Sends every message back.
pub(crate) struct Echo;

impl Handler for Echo {
    type State = ();

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        ctx.send(message);
    }
}

/// A raw socket with a deadline on every call.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
}

impl Client {
    /// Connects and sends nothing.
    pub(crate) fn raw(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Connects and completes the opening handshake.
    pub(crate) fn open(address: SocketAddr, target: &str) -> Self {
        let mut client = Self::raw(address);
        client.upgrade(target);
        client
    }

    fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    fn upgrade(&mut self, target: &str) {
        self.send(upgrade_request(target).as_bytes());
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// The same socket once more, for a thread that only writes.
    pub(crate) fn twin(&self) -> Self {
        let socket = self.socket.try_clone().unwrap();
        Self { socket }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Sends as much as the server takes before it ends the connection.
    pub(crate) fn send_until_refused(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Sends FIN and can still read.
    pub(crate) fn finish_sending(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(self) {
        SockRef::from(&self.socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Sends a text and reads it back.
    pub(crate) fn echo(&mut self, text: &str) {
        self.frame(TEXT, text.as_bytes());
        assert_eq!(self.read_frame(), (TEXT, text.into()));
    }

    /// Reads a response head, byte by byte so that nothing behind it is lost.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Sends a masked frame: `first` is FIN, RSV and opcode as on the wire.
    pub(crate) fn frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&masked(first, payload));
    }

    /// Reads one unmasked frame: its first byte and its payload.
    pub(crate) fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.socket.read_exact(&mut head).unwrap();
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.socket.read_exact(&mut len).unwrap();
                usize::from(u16::from_be_bytes(len))
            }
            127 => {
                let mut len = [0; 8];
                self.socket.read_exact(&mut len).unwrap();
                usize::try_from(u64::from_be_bytes(len)).unwrap()
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.socket.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    /// Reads a Close frame and answers its code.
    pub(crate) fn read_close(&mut self) -> u16 {
        let (first, payload) = self.read_frame();
        assert_eq!(first, 0x88, "a Close frame, not {payload:?}");
        payload
            .first_chunk()
            .map_or(1005, |code| u16::from_be_bytes(*code))
    }

    /// Reads so many bytes.
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads to the end of the stream: FIN, or RST.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.socket.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("no end of the stream: {error}"),
        }
    }
}

/// A correct opening handshake.
pub(crate) fn upgrade_request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A masked frame as a client sends it.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(0xFE);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0xFF);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

// ---- an application put together in the test ----

/// The context of an [`App`].
pub(crate) type Ctx<'a> = Context<'a, ()>;

type OnEvent = Box<dyn FnMut(&mut Ctx<'_>) + Send>;
type OnMessage = Box<dyn FnMut(&mut Ctx<'_>, &str) + Send>;
type OnClose = Box<dyn FnMut(&mut Ctx<'_>, &Ended) + Send>;
type OnTimer = Box<dyn FnMut(&mut Ctx<'_>, u64) + Send>;

/// Does in each callback what the test says, and takes note of what happened.
#[derive(Default)]
pub(crate) struct App {
    on_open: Option<OnEvent>,
    on_message: Option<OnMessage>,
    on_drain: Option<OnEvent>,
    on_close: Option<OnClose>,
    on_timer: Option<OnTimer>,
    /// In the order of opening.
    pub(crate) opened: Vec<ConnectionId>,
    /// In the order of closing.
    pub(crate) ended: Vec<Ended>,
    pub(crate) drained: Vec<ConnectionId>,
    pub(crate) messages: usize,
    pub(crate) faults: Vec<String>,
    /// In the order of telling.
    pub(crate) lost: Vec<(ConnectionId, Lost)>,
    pub(crate) presence: Vec<PresenceEvent>,
}

/// What `close` was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) id: ConnectionId,
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) cause: stentor::Cause,
}

impl App {
    pub(crate) fn on_open(mut self, act: impl FnMut(&mut Ctx<'_>) + Send + 'static) -> Self {
        self.on_open = Some(Box::new(act));
        self
    }

    /// Messages are texts; of a binary one the callback sees an empty text.
    pub(crate) fn on_message(
        mut self,
        act: impl FnMut(&mut Ctx<'_>, &str) + Send + 'static,
    ) -> Self {
        self.on_message = Some(Box::new(act));
        self
    }

    pub(crate) fn on_drain(mut self, act: impl FnMut(&mut Ctx<'_>) + Send + 'static) -> Self {
        self.on_drain = Some(Box::new(act));
        self
    }

    pub(crate) fn on_close(
        mut self,
        act: impl FnMut(&mut Ctx<'_>, &Ended) + Send + 'static,
    ) -> Self {
        self.on_close = Some(Box::new(act));
        self
    }

    pub(crate) fn on_timer(mut self, act: impl FnMut(&mut Ctx<'_>, u64) + Send + 'static) -> Self {
        self.on_timer = Some(Box::new(act));
        self
    }
}

impl Handler for App {
    type State = ();

    fn open(&mut self, ctx: &mut Ctx<'_>) {
        self.opened.push(ctx.id());
        if let Some(act) = &mut self.on_open {
            act(ctx);
        }
    }

    fn message(&mut self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        self.messages += 1;
        if let Some(act) = &mut self.on_message {
            act(ctx, message.as_text().unwrap_or_default());
        }
    }

    fn drain(&mut self, ctx: &mut Ctx<'_>) {
        self.drained.push(ctx.id());
        if let Some(act) = &mut self.on_drain {
            act(ctx);
        }
    }

    fn lost(&mut self, ctx: &mut Ctx<'_>, lost: Lost) {
        self.lost.push((ctx.id(), lost));
    }

    fn presence(&mut self, _: &mut Ctx<'_>, event: &PresenceEvent) {
        self.presence.push(event.clone());
    }

    fn close(&mut self, ctx: &mut Ctx<'_>, closed: Closed<'_>) {
        let ended = Ended {
            id: ctx.id(),
            code: closed.code.get(),
            reason: closed.reason.to_owned(),
            cause: closed.cause,
        };
        if let Some(act) = &mut self.on_close {
            act(ctx, &ended);
        }
        self.ended.push(ended);
    }

    fn timer(&mut self, ctx: &mut Ctx<'_>, token: u64) {
        if let Some(act) = &mut self.on_timer {
            act(ctx, token);
        }
    }

    fn fault(&mut self, _: &mut Ctx<'_>, fault: Fault<'_>) {
        self.faults.push(format!("{fault:?}"));
    }
}

impl Running<App> {
    /// Connects clients one after the other; their ids are in the order of the clients.
    pub(crate) fn connect_many<const N: usize>(&self) -> ([Client; N], [ConnectionId; N]) {
        let before = self.ask(|app, _| app.opened.len());
        let clients = std::array::from_fn(|_| self.connect());
        let ids = self.ask(move |app, _| app.opened[before..].to_vec());
        (clients, ids.try_into().expect("all are open"))
    }

    /// Waits until so many connections have ended, and answers how.
    pub(crate) fn ended(&self, count: usize) -> Vec<Ended> {
        self.wait_until("connections have ended", move |app, _| {
            app.ended.len() >= count
        });
        let ended = self.ask(|app, _| app.ended.clone());
        assert_eq!(ended.len(), count, "{ended:?}");
        ended
    }
}

impl Client {
    /// Connects with a small receive buffer: a few KiB wait in it before the server is held up.
    pub(crate) fn with_small_buffer(address: SocketAddr) -> Self {
        Self::with_small_buffer_at(address, "/")
    }

    pub(crate) fn with_small_buffer_at(address: SocketAddr, target: &str) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut client = Self::over(socket.into());
        client.upgrade(target);
        client
    }

    /// Sends a text message.
    pub(crate) fn say(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes());
    }

    /// Reads a text message.
    pub(crate) fn hear(&mut self) -> String {
        let (first, payload) = self.read_frame();
        let text = String::from_utf8(payload).unwrap();
        assert_eq!(first, 0x81, "a text, not {text:?}");
        text
    }

    /// Reads text messages up to a Close frame, and answers its code.
    pub(crate) fn hear_all(&mut self) -> (Vec<String>, u16) {
        let mut heard = Vec::new();
        loop {
            match self.read_frame() {
                (0x81, text) => heard.push(String::from_utf8(text).unwrap()),
                (0x88, payload) => {
                    let code = payload.first_chunk().expect("a code");
                    return (heard, u16::from_be_bytes(*code));
                }
                frame => panic!("neither text nor Close: {frame:?}"),
            }
        }
    }

    /// Asserts that nothing else has come before the answer to a Ping: what was to be sent to this
    /// client was sent.
    pub(crate) fn hears_nothing_more(&mut self) {
        self.frame(0x89, b"anything?");
        assert_eq!(self.read_frame(), (0x8A, b"anything?".to_vec()));
    }
}

impl<H: Handler + Send + 'static> Running<H> {
    /// Waits until the server has ended by itself, and answers the application.
    pub(crate) fn finish(mut self) -> H {
        let deadline = Instant::now() + PATIENCE;
        let thread = self.thread.take().unwrap();
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().unwrap()
    }
}
