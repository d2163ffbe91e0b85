//! What `profile` rests on: counts that are exact, and clear words where something is missing.
//!
//! That it profiles is tried where valgrind and strace are.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use loadtest::dial::Pace;
use loadtest::payload::{Kind, Sizes};
use loadtest::scenario::{Load, connect, echo};
use loadtest::worker::{Job, Said, Until};
use loadtest::{frame, handshake};

/// A server that answers handshakes, and every so many bytes with a frame, and counts both.
struct Counting {
    address: SocketAddr,
    handshakes: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
}

const SIZE: usize = 20;

impl Counting {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let counting = Counting {
            address: listener.local_addr().unwrap(),
            handshakes: Arc::default(),
            messages: Arc::default(),
        };
        let (handshakes, messages) = (counting.handshakes.clone(), counting.messages.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handshakes, messages) = (handshakes.clone(), messages.clone());
                thread::spawn(move || serve(stream, &handshakes, &messages));
            }
        });
        counting
    }
}

/// Serves a connection until it ends, however it ends.
fn serve(mut stream: TcpStream, handshakes: &AtomicU64, messages: &AtomicU64) -> Option<()> {
    let mut head = Vec::new();
    while handshake::head_len(&head).is_none() {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let key = handshake::field(&head, "Sec-WebSocket-Key")?;
    handshakes.fetch_add(1, Ordering::Relaxed);
    stream.write_all(&handshake::response(key)).ok()?;
    let mut request = [0; frame::client_frame_len(SIZE)];
    let mut reply = Vec::new();
    frame::push_server_frame(&mut reply, frame::Opcode::Binary, &[0; SIZE]);
    loop {
        stream.read_exact(&mut request).ok()?;
        messages.fetch_add(1, Ordering::Relaxed);
        stream.write_all(&reply).ok()?;
    }
}

/// Runs one process of a load until it has counted so many; answers what it says it counted.
fn counted(load: Load, count: u64, server: &Counting) -> u64 {
    let job = Job {
        load,
        target: format!("ws://{}/", server.address).parse().unwrap(),
        server_pid: None,
        index: 0,
        processes: 1,
        pace: Pace::default(),
        warmup: Duration::ZERO,
        until: Until::Counted(count),
    };
    let mut worker = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let job = serde_json::to_string(&job).unwrap();
    let mut input = worker.stdin.take().unwrap();
    input.write_all(format!("{job}\ngo\n").as_bytes()).unwrap();
    let output = worker.wait_with_output().unwrap();
    let last = String::from_utf8(output.stdout).unwrap();
    let last = last.lines().last().unwrap();
    let Said::Done(outcome) = serde_json::from_str(last).unwrap() else {
        panic!("{last}")
    };
    assert!(outcome.failures.is_empty(), "{}", outcome.failures);
    outcome.counted[0].count
}

#[test]
fn every_message_that_was_sent_is_counted_and_no_other() {
    for (connections, in_flight) in [(1, 1), (7, 3), (5, 16)] {
        let server = Counting::start();
        let load = Load::Echo(echo::Options {
            connections,
            sizes: Sizes::Single(SIZE),
            kind: Kind::Binary,
            asking: echo::Asking::InFlight(in_flight),
            check: echo::Check::Length,
        });
        let counted = counted(load, 1_000, &server);
        // What was in flight when the thousandth answer came is answered too.
        assert!(counted >= 1_000, "{counted}");
        assert_eq!(server.messages.load(Ordering::Relaxed), counted);
    }
}

#[test]
fn every_handshake_that_was_begun_is_counted_and_no_other() {
    let server = Counting::start();
    let load = Load::Connect(connect::Options {
        connections: 7,
        is_storm: false,
        goal: connect::Goal::Handshake,
    });
    assert_eq!(counted(load, 100, &server), 100);
    assert_eq!(server.handshakes.load(Ordering::Relaxed), 100);
}

fn profile(arguments: &[&str], path: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg("profile")
        .args(arguments)
        .env("PATH", path)
        .output()
        .unwrap()
}

fn refusal(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn missing_tool_is_named_with_its_package() {
    let output = profile(&[], "/nowhere");
    assert_eq!(
        refusal(&output),
        "loadtest: valgrind is not there: apt-get install valgrind\n"
    );
}

#[test]
fn unknown_cell_is_answered_with_those_there_are() {
    let output = profile(&["--cell", "echo-5"], "/nowhere");
    let said = refusal(&output);
    assert!(
        said.starts_with("loadtest: the cells are echo-1x20-1, echo-50x20-1, "),
        "{said}"
    );
}

#[test]
fn baseline_that_is_not_there_is_told_before_anything_runs() {
    let output = profile(&["--baseline", "nowhere.json"], "/nowhere");
    let said = refusal(&output);
    assert!(said.starts_with("loadtest: nowhere.json: "), "{said}");
}
