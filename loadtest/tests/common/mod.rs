//! The programs from outside, and the little WebSocket that a server needs to deceive them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use loadtest::handshake;
use serde_json::Value;

/// Runs the load tool.
pub(crate) fn loadtest(command: &str, url: &str, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([command, url, "--quiet"])
        .args(arguments.split_ascii_whitespace())
        .output()
        .unwrap()
}

/// A run that came to an end.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) report: Value,
}

/// Runs a load for a short time.
pub(crate) fn run(command: &str, url: &str, arguments: &str) -> Ended {
    let json = std::env::temp_dir().join(format!(
        "loadtest-{}-{:?}.json",
        std::process::id(),
        thread::current().id()
    ));
    let duration = if arguments.contains("--duration") {
        ""
    } else {
        "--duration 400ms"
    };
    let arguments = format!(
        "--warmup 0s {duration} --json {} {arguments}",
        json.display()
    );
    let output = loadtest(command, url, &arguments);
    let report = std::fs::read_to_string(&json)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(&json).unwrap();
    Ended {
        status: output.status.code(),
        report: serde_json::from_str(&report).unwrap(),
    }
}

impl Ended {
    /// The run failed with these failures and no others.
    pub(crate) fn expect(&self, failures: &[(&str, u64)]) {
        let expected: serde_json::Map<_, _> = failures
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), (*count).into()))
            .collect();
        assert_eq!(
            self.report["failures"]["counts"],
            Value::Object(expected),
            "{}",
            self.report["failures"]
        );
        assert_eq!(self.status, Some(i32::from(!failures.is_empty())));
    }
}

/// Serves every connection on a thread of its own until the test ends; answers the URL.
pub(crate) fn listen<S: Send + Sync + 'static>(
    server: S,
    serve: impl Fn(&S, TcpStream) -> Option<()> + Copy + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = Arc::new(server);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let server = Arc::clone(&server);
            thread::spawn(move || serve(&server, stream.unwrap()));
        }
    });
    url
}

/// The head of the request, unless the client only asked whether anybody listens.
pub(crate) fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while handshake::head_len(&head).is_none() {
        head.push(read::<1>(stream)?[0]);
    }
    Some(head)
}

/// Accepts the handshake.
pub(crate) fn accept(stream: &mut TcpStream, head: &[u8]) -> Option<()> {
    let key = handshake::field(head, "Sec-WebSocket-Key")?;
    stream.write_all(&handshake::response(key)).ok()
}

fn read<const LEN: usize>(stream: &mut TcpStream) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// The opcode and the payload of a masked, unfragmented frame of less than 64 KiB.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let [first, len] = read::<2>(stream)?;
    let len = match len & 0x7f {
        126 => u16::from_be_bytes(read::<2>(stream)?).into(),
        len => usize::from(len),
    };
    let mask = read::<4>(stream)?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).ok()?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Some((first & 0x0f, payload))
}
