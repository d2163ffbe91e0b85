//! Programs as child processes: the lines that they print, signals to them, their end; and clients.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use tungstenite::error::Error;
use tungstenite::{Message, WebSocket};

use crate::support::PATIENCE;

/// A program that runs until its end or until this value's.
pub(crate) struct Process {
    child: Child,
    stdout: Lines,
    stderr: Option<Lines>,
}

/// What a program prints, line by line.
pub(crate) struct Lines(Receiver<String>);

impl Process {
    /// Starts a program and reads what it prints.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_stderr(command, Stdio::piped())
    }

    /// Starts a program whose standard error is somebody else's, unless it is a new pipe.
    pub(crate) fn start_with_stderr(command: &mut Command, stderr: Stdio) -> Self {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STENTOR_") {
                command.env_remove(name);
            }
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(stderr).spawn().unwrap();
        Self {
            stdout: Lines::of(child.stdout.take().unwrap()),
            stderr: child.stderr.take().map(Lines::of),
            child,
        }
    }

    /// The next line of standard output.
    pub(crate) fn line(&self) -> String {
        self.stdout.next().expect("a line, and not the end")
    }

    /// The address in the next line of standard output.
    pub(crate) fn address(&self) -> SocketAddr {
        let line = self.line();
        let (_, rest) = line.split_once("://").expect("a line with an address");
        let end = rest.find(['/', ' ']).unwrap_or(rest.len());
        rest[..end].parse().unwrap()
    }

    /// The first line of standard error that holds `part`.
    pub(crate) fn log_line(&self, part: &str) -> String {
        let lines = self.stderr.as_ref().expect("it is read here");
        std::iter::from_fn(|| lines.next())
            .find(|line| line.contains(part))
            .unwrap_or_else(|| panic!("`{part}` is logged"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; answers what was printed since.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String, String) {
        // The end of its output is the end of the program, or very near.
        let stdout = self.stdout.rest();
        let stderr = self.stderr.as_ref().map(Lines::rest).unwrap_or_default();
        (self.child.wait().unwrap(), stdout, stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn of(output: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').into();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        Self(lines)
    }

    /// The next line, or the end.
    fn next(&self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.0.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("waited too long for output"),
        }
    }

    /// All lines to the end, which must come in time.
    fn rest(&self) -> String {
        let started = Instant::now();
        let mut text = String::new();
        while let Some(line) = self.next() {
            assert!(started.elapsed() < PATIENCE, "the program does not end");
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// A foreign WebSocket client with a deadline on every call.
pub(crate) type Client = WebSocket<Socket>;

/// A socket whose reads go on when the kernel interrupts them, as it does when a machine was
/// paused; the foreign client does not do that itself.
#[derive(Debug)]
pub(crate) struct Socket(pub(crate) TcpStream);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connects a foreign client.
pub(crate) fn connect(address: SocketAddr, path: &str) -> Client {
    try_connect(address, path).unwrap()
}

/// Connects a foreign client; answers the status if it is refused.
pub(crate) fn try_connect(address: SocketAddr, path: &str) -> Result<Client, u16> {
    let socket = Socket(tcp(address));
    match tungstenite::client(format!("ws://{address}{path}"), socket) {
        Ok((client, _)) => Ok(client),
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

/// A plain connection with a deadline on every call.
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends one plain request and reads the response.
pub(crate) fn http(address: SocketAddr, method: &str, path: &str) -> String {
    let mut socket = tcp(address);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    response
}

pub(crate) fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).unwrap();
}

/// The next message, which must be text; Pings are answered on the way.
pub(crate) fn hear(client: &mut Client) -> String {
    loop {
        match client.read().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("a text, not {other:?}"),
        }
    }
}

/// Reads to the end of the connection; answers the code and the reason of its Close frame.
pub(crate) fn read_close(client: &mut Client) -> (u16, String) {
    let mut closed = None;
    loop {
        match client.read() {
            Ok(Message::Close(Some(frame))) => {
                closed = Some((frame.code.into(), frame.reason.to_string()));
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return closed.expect("a Close frame"),
            Err(error) => match closed {
                // The answer to the Close frame crossed the end of the connection.
                Some(closed) => return closed,
                None => panic!("no Close frame: {error}"),
            },
        }
    }
}
