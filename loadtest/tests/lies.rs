//! Servers that lie, each in one way: every lie is caught, counted under its kind, and fails the run.
//!
//! They speak just enough WebSocket, on threads and blocking sockets, and share no code with what they deceive.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use loadtest::frame::{self, Opcode};
use loadtest::handshake;
use serde_json::Value;

/// What is done to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    Honest,
    /// It is not sent.
    Drop,
    /// It is sent behind the next one.
    Swap,
    /// It is sent twice.
    Repeat,
    /// A bit of the payload is changed, so many bytes before its end.
    Corrupt(usize),
    /// It, and whatever is behind it, is sent this much later.
    Delay(Duration),
    /// It is masked, which only clients may do (RFC 6455 §5.1).
    Mask,
    /// A reserved bit is set (§5.2).
    ReservedBit,
    /// The connection ends instead.
    Close,
    /// The handshake is answered with this instead of 101.
    Status(&'static str),
}

/// One lie about one message.
#[derive(Clone, Copy)]
struct Plot {
    lie: Lie,
    message: usize,
    victim: Victim,
}

/// Who is lied to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Everyone,
    /// The connection whose handshake was this one.
    Handshake(usize),
    /// The member that sends the first message of all.
    Publisher,
    /// A member that does not.
    Subscriber,
}

/// The sending side of a connection that is told one lie, or none.
struct Teller {
    stream: TcpStream,
    lie: Lie,
    at: usize,
    told: usize,
    held: Option<Vec<u8>>,
}

impl Teller {
    fn tell(&mut self, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::push_server_frame(&mut bytes, Opcode::Binary, payload);
        let is_lie = self.told == self.at;
        self.told += 1;
        let held = self.held.take();
        if is_lie {
            self.distort(bytes, payload);
        } else {
            self.write(&bytes);
        }
        if let Some(held) = held {
            self.write(&held);
        }
    }

    fn distort(&mut self, mut bytes: Vec<u8>, payload: &[u8]) {
        match self.lie {
            Lie::Honest | Lie::Status(_) => {}
            Lie::Drop => return,
            Lie::Swap => {
                self.held = Some(bytes);
                return;
            }
            Lie::Repeat => bytes.extend(bytes.clone()),
            Lie::Corrupt(before_end) => {
                let at = bytes.len() - 1 - before_end;
                bytes[at] ^= 1;
            }
            Lie::Delay(duration) => thread::sleep(duration),
            Lie::Mask => {
                bytes.clear();
                frame::push_client_frame(&mut bytes, Opcode::Binary, payload, [1, 2, 3, 4]);
            }
            Lie::ReservedBit => bytes[0] |= 0x40,
            Lie::Close => {
                // Whoever reads it finds out.
                let _ = self.stream.shutdown(std::net::Shutdown::Both);
            }
        }
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        // A client that has found out is gone.
        let _ = self.stream.write_all(bytes);
    }
}

#[derive(Clone, Copy)]
enum Reach {
    Sender,
    Everyone,
}

struct Server {
    reach: Reach,
    plot: Plot,
    handshakes: AtomicUsize,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    /// By handshake.
    tellers: Vec<(usize, Teller)>,
    is_plotted: bool,
}

/// Starts a server; it ends with the test.
fn start(reach: Reach, plot: Plot) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = Arc::new(Server {
        reach,
        plot,
        handshakes: AtomicUsize::new(0),
        members: Mutex::default(),
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let server = Arc::clone(&server);
            thread::spawn(move || server.serve(stream.unwrap()));
        }
    });
    url
}

fn echo_server(lie: Lie, message: usize) -> String {
    let victim = Victim::Handshake(0);
    start(
        Reach::Sender,
        Plot {
            lie,
            message,
            victim,
        },
    )
}

fn broadcast_server(lie: Lie, message: usize) -> String {
    let victim = Victim::Subscriber;
    start(
        Reach::Everyone,
        Plot {
            lie,
            message,
            victim,
        },
    )
}

impl Server {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while handshake::head_len(&head).is_none() {
            head.push(read::<1>(&mut stream)?[0]);
        }
        let index = self.handshakes.fetch_add(1, Ordering::Relaxed);
        let Plot {
            lie,
            message,
            victim,
        } = self.plot;
        let is_victim = victim == Victim::Handshake(index) || victim == Victim::Everyone;
        if let (true, Lie::Status(status)) = (is_victim, lie) {
            if victim != Victim::Everyone {
                thread::sleep(Duration::from_millis(200)); // By then the others are open.
            }
            let refusal = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            return stream.write_all(refusal.as_bytes()).ok();
        }
        let mut own = Teller {
            stream: stream.try_clone().ok()?,
            lie,
            at: if is_victim { message } else { usize::MAX },
            told: 0,
            held: None,
        };
        let acceptance = handshake::response(handshake::field(&head, "Sec-WebSocket-Key")?);
        match self.reach {
            Reach::Sender => {
                stream.write_all(&acceptance).ok()?;
                loop {
                    own.tell(&read_message(&mut stream)?);
                }
            }
            Reach::Everyone => {
                // Whoever hears of its acceptance is a member.
                self.members.lock().unwrap().tellers.push((index, own));
                stream.write_all(&acceptance).ok()?;
                loop {
                    let payload = read_message(&mut stream)?;
                    self.publish(index, &payload);
                }
            }
        }
    }

    fn publish(&self, publisher: usize, payload: &[u8]) {
        let mut members = self.members.lock().unwrap();
        if !std::mem::replace(&mut members.is_plotted, true) {
            let is_victim = |index: usize| match self.plot.victim {
                Victim::Publisher => index == publisher,
                Victim::Subscriber => index != publisher,
                Victim::Everyone | Victim::Handshake(_) => false,
            };
            let mut tellers = members.tellers.iter_mut();
            if let Some((_, victim)) = tellers.find(|(index, _)| is_victim(*index)) {
                victim.at = self.plot.message;
            }
        }
        for (_, member) in &mut members.tellers {
            member.tell(payload);
        }
    }
}

fn read<const LEN: usize>(stream: &mut TcpStream) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// A masked, unfragmented message of less than 64 KiB.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let [_, len] = read::<2>(stream)?;
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
    Some(payload)
}

fn loadtest(command: &str, url: &str, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([command, url, "--quiet"])
        .args(arguments.split_ascii_whitespace())
        .output()
        .unwrap()
}

struct Ended {
    status: Option<i32>,
    report: Value,
}

/// Runs a short load.
fn run(command: &str, url: &str, arguments: &str) -> Ended {
    let json = std::env::temp_dir().join(format!(
        "loadtest-lies-{}-{:?}.json",
        std::process::id(),
        thread::current().id()
    ));
    let duration = if arguments.contains("--duration") {
        ""
    } else {
        "--duration 600ms"
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
    fn expect(&self, failures: &[(&str, u64)]) {
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

    /// At least how many latencies of the first kind were as long as this: curves are of points.
    fn latencies_beyond(&self, micros: f64) -> f64 {
        let latency = &self.report["latencies"][0];
        let curve = latency["curve"].as_array().unwrap();
        let below = curve
            .iter()
            .map(|point| (point[0].as_f64().unwrap(), point[1].as_f64().unwrap()))
            .find(|(_, latency)| *latency >= micros)
            .map_or(1.0, |(quantile, _)| quantile);
        latency["count"].as_f64().unwrap() * (1.0 - below)
    }

    fn longest(&self) -> f64 {
        self.report["latencies"][0]["max"].as_f64().unwrap()
    }
}

const LATER: Lie = Lie::Delay(Duration::from_millis(300));

/// Messages that differ, so that one is not taken for another.
const VERIFIED: &str = "--connections 3 --size 20..60 --verify";

#[test]
fn honest_servers_are_believed() {
    for arguments in ["--in-flight 8", "--rate 2000"] {
        run(
            "echo",
            &echo_server(Lie::Honest, 0),
            &format!("{VERIFIED} {arguments}"),
        )
        .expect(&[]);
        for everyone in ["", "--everyone"] {
            let arguments = format!("--subscribers 5 --verify {everyone} {arguments}");
            run("broadcast", &broadcast_server(Lie::Honest, 0), &arguments).expect(&[]);
        }
    }
}

#[test]
fn echo_that_is_verified_finds_every_lie() {
    for arguments in ["--in-flight 8", "--rate 2000"] {
        for (lie, failure) in [
            (Lie::Drop, "corrupt"),
            (Lie::Swap, "corrupt"),
            (Lie::Repeat, "corrupt"),
            (Lie::Corrupt(0), "corrupt"),
            (Lie::Mask, "protocol"),
            (Lie::ReservedBit, "protocol"),
            (Lie::Close, "closed"),
        ] {
            let url = echo_server(lie, 50);
            let ended = run("echo", &url, &format!("{VERIFIED} {arguments}"));
            let failures = &ended.report["failures"];
            assert_eq!(failures["counts"][failure], 1, "{lie:?}: {failures}");
            assert_eq!(ended.status, Some(1), "{lie:?}");
        }
    }
}

/// Without --verify replies are counted by their bytes, and a sample of them compared.
#[test]
fn echo_that_counts_finds_what_changes_the_count() {
    let arguments = "--connections 3 --in-flight 8";
    let ended = run("echo", &echo_server(Lie::Drop, 50), arguments);
    ended.expect(&[("unanswered", 1)]);

    let ended = run("echo", &echo_server(Lie::Repeat, 50), arguments);
    assert_eq!(ended.report["failures"]["counts"]["surplus"], 1);
    assert_eq!(ended.status, Some(1));

    let ended = run("echo", &echo_server(Lie::Close, 50), arguments);
    assert_eq!(ended.report["failures"]["counts"]["closed"], 1);
    assert_eq!(ended.status, Some(1));
}

#[test]
fn broadcast_tells_lies_apart() {
    let of_subscriber_1 = |lie, message, arguments: &str| {
        let arguments = format!("--subscribers 4 {arguments}");
        run("broadcast", &broadcast_server(lie, message), &arguments)
    };
    for loop_arguments in ["--in-flight 2", "--in-flight 2 --batch 8", "--rate 2000"] {
        for (lie, failure) in [
            (Lie::Drop, "gap"),
            (Lie::Swap, "order"),
            (Lie::Repeat, "order"),
            (Lie::Corrupt(45), "corrupt"), // In the stamp.
            (Lie::Mask, "protocol"),
            (Lie::ReservedBit, "protocol"),
            (Lie::Close, "closed"),
        ] {
            let ended = of_subscriber_1(lie, 50, loop_arguments);
            ended.expect(&[(failure, 1)]);
        }
        let arguments = format!("--verify {loop_arguments}");
        of_subscriber_1(Lie::Corrupt(0), 50, &arguments).expect(&[("corrupt", 1)]);
        // The first fillers are compared in any case.
        of_subscriber_1(Lie::Corrupt(0), 0, loop_arguments).expect(&[("corrupt", 1)]);
    }
}

#[test]
fn broadcast_finds_lies_between_processes() {
    // The publisher is in the first process with half of the subscribers.
    for (lie, failure) in [(Lie::Drop, "gap"), (Lie::Swap, "order")] {
        let url = broadcast_server(lie, 50);
        run("broadcast", &url, "--subscribers 4 --processes 2").expect(&[(failure, 1)]);
    }
}

#[test]
fn closed_loop_goes_on_after_its_own_message_was_lost() {
    let plot = Plot {
        lie: Lie::Drop,
        message: 10,
        victim: Victim::Publisher,
    };
    let url = start(Reach::Everyone, plot);
    let ended = run("broadcast", &url, "--subscribers 4 --duration 3s");
    ended.expect(&[("gap", 1)]);
    let messages = ended.report["counted"]["messages"].as_u64().unwrap();
    assert!(messages > 12, "{:#}", ended.report["counted"]);
}

/// 300 ms are 150 messages at 500 a second: those of the first 100 ms wait for 200 ms or more.
const STALLED: f64 = 50.0;

#[test]
fn open_loop_counts_everyone_who_waits_for_a_stall() {
    let url = echo_server(LATER, 50);
    let ended = run("echo", &url, "--connections 1 --rate 500");
    assert!(ended.longest() >= 300e3, "{:#}", ended.report["latencies"]);
    let beyond = ended.latencies_beyond(200e3);
    assert!(
        beyond >= STALLED * 0.6,
        "{beyond}: {:#}",
        ended.report["latencies"]
    );

    // The whole server stalls: all three members wait for each message.
    let ended = run(
        "broadcast",
        &broadcast_server(LATER, 50),
        "--subscribers 2 --rate 500",
    );
    let (beyond, members) = (ended.latencies_beyond(200e3), 3.0);
    assert!(
        beyond >= members * STALLED * 0.6,
        "{beyond}: {:#}",
        ended.report["latencies"]
    );
}

#[test]
fn closed_loop_shows_a_stall_to_those_in_flight_only() {
    let ended = run(
        "echo",
        &echo_server(LATER, 50),
        "--connections 1 --in-flight 4",
    );
    assert!(ended.longest() >= 300e3, "{:#}", ended.report["latencies"]);
    let ended = run("broadcast", &broadcast_server(LATER, 50), "--subscribers 2");
    assert!(ended.longest() >= 300e3, "{:#}", ended.report["latencies"]);
}

#[test]
fn refused_handshakes_are_counted() {
    for (command, reach) in [("echo", Reach::Sender), ("broadcast", Reach::Everyone)] {
        for status in ["403 Forbidden", "503 Service Unavailable"] {
            let plot = Plot {
                lie: Lie::Status(status),
                message: 0,
                victim: Victim::Handshake(3),
            };
            let ended = run(command, &start(reach, plot), "");
            ended.expect(&[("status", 1)]);
            let first = ended.report["failures"]["first"].as_str().unwrap();
            assert!(first.contains(&status[..3]), "{first}");
        }
    }
}

#[test]
fn server_that_refuses_the_first_is_one_line_and_status_2() {
    let plot = Plot {
        lie: Lie::Status("403 Forbidden"),
        message: 0,
        victim: Victim::Everyone,
    };
    for command in ["echo", "broadcast"] {
        let output = loadtest(command, &start(Reach::Sender, plot), "");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.contains("handshake refused") && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn silent_listener_is_one_line_and_status_2() {
    let commands = ["echo --connections 3", "broadcast --subscribers 3"].map(|command| {
        thread::spawn(move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("ws://{}/", listener.local_addr().unwrap());
            let (command, arguments) = command.split_once(' ').unwrap();
            loadtest(command, &url, arguments)
        })
    });
    for command in commands {
        let output = command.join().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.contains("unanswered") && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn absent_server_is_one_line_and_status_2() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = loadtest("broadcast", &format!("ws://{unused}/"), "");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        error,
        format!("loadtest: no server at {unused}: Connection refused (os error 111)\n")
    );
}

#[test]
fn allowed_errors_are_told_and_forgiven() {
    for (allowed, status) in [(0, 1), (1, 0)] {
        let url = broadcast_server(Lie::Drop, 50);
        let arguments = format!("--subscribers 4 --allow-errors {allowed}");
        let ended = run("broadcast", &url, &arguments);
        assert_eq!(ended.report["failures"]["counts"]["gap"], 1);
        assert_eq!(ended.status, Some(status));
    }
}
