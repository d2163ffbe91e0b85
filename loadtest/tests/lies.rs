//! Servers that lie, each in one way: every lie is caught, counted under its kind, and fails the run.
//!
//! They speak just enough WebSocket, on threads and blocking sockets, and share no code with what they deceive.

mod common;

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{Ended, accept, listen, loadtest, read_frame, read_head, run};
use loadtest::frame::{self, Opcode};

/// What is done to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    Honest,
    /// It is not sent.
    Drop,
    /// It is not sent, and the next one comes to the others later.
    DropAhead,
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
            Lie::Drop | Lie::DropAhead => return,
            Lie::Swap => {
                self.held = Some(bytes);
                return;
            }
            Lie::Repeat => {
                self.write(&bytes);
                thread::sleep(Duration::from_millis(20)); // By then the client has sent its next.
            }
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
    /// What the others have not been told yet.
    kept: Vec<Vec<u8>>,
}

/// Starts a server; it ends with the test.
fn start(reach: Reach, plot: Plot) -> String {
    let server = Server {
        reach,
        plot,
        handshakes: AtomicUsize::new(0),
        members: Mutex::default(),
    };
    listen(server, Server::serve)
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
        let head = read_head(&mut stream)?;
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
        match self.reach {
            Reach::Sender => {
                accept(&mut stream, &head)?;
                loop {
                    own.tell(&read_frame(&mut stream)?.1);
                }
            }
            Reach::Everyone => {
                // Whoever hears of its acceptance is a member.
                self.members.lock().unwrap().tellers.push((index, own));
                accept(&mut stream, &head)?;
                loop {
                    let (_, payload) = read_frame(&mut stream)?;
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
        let Members { tellers, kept, .. } = &mut *members;
        let is_victim = |member: &&mut Teller| member.at != usize::MAX;
        let mut told = 0;
        for victim in tellers.iter_mut().map(|of| &mut of.1).filter(is_victim) {
            victim.tell(payload);
            told = victim.told;
        }
        kept.push(payload.to_vec());
        if self.plot.lie == Lie::DropAhead && told == self.plot.message + 1 {
            return;
        }
        if kept.len() > 1 {
            thread::sleep(Duration::from_millis(20)); // By then the victim has read what is behind.
        }
        let others = tellers.iter_mut().map(|of| &mut of.1);
        for other in others.filter(|member| !is_victim(member)) {
            for payload in &*kept {
                other.tell(payload);
            }
        }
        kept.clear();
    }
}

/// At least how many latencies of the first kind were as long as this: curves are of points.
fn latencies_beyond(ended: &Ended, micros: f64) -> f64 {
    let latency = &ended.report["latencies"][0];
    let curve = latency["curve"].as_array().unwrap();
    let below = curve
        .iter()
        .map(|point| (point[0].as_f64().unwrap(), point[1].as_f64().unwrap()))
        .find(|(_, latency)| *latency >= micros)
        .map_or(1.0, |(quantile, _)| quantile);
    latency["count"].as_f64().unwrap() * (1.0 - below)
}

fn longest(ended: &Ended) -> f64 {
    ended.report["latencies"][0]["max"].as_f64().unwrap()
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
            let url = echo_server(lie, 5);
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
    let ended = run("echo", &echo_server(Lie::Drop, 5), arguments);
    ended.expect(&[("unanswered", 1)]);

    for in_flight in ["--in-flight 8", "--in-flight 1", "--rate 2000"] {
        let arguments = format!("--connections 3 {in_flight}");
        let ended = run("echo", &echo_server(Lie::Repeat, 5), &arguments);
        let failures = &ended.report["failures"];
        assert_eq!(failures["counts"]["surplus"], 1, "{in_flight}: {failures}");
        assert_eq!(ended.status, Some(1));
    }

    let ended = run("echo", &echo_server(Lie::Close, 5), arguments);
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
            (Lie::DropAhead, "gap"),
            (Lie::Swap, "order"),
            (Lie::Repeat, "order"),
            (Lie::Corrupt(45), "corrupt"), // In the stamp.
            (Lie::Mask, "protocol"),
            (Lie::ReservedBit, "protocol"),
            (Lie::Close, "closed"),
        ] {
            let ended = of_subscriber_1(lie, 5, loop_arguments);
            ended.expect(&[(failure, 1)]);
        }
        let arguments = format!("--verify {loop_arguments}");
        of_subscriber_1(Lie::Corrupt(0), 5, &arguments).expect(&[("corrupt", 1)]);
        // The first fillers are compared in any case.
        of_subscriber_1(Lie::Corrupt(0), 0, loop_arguments).expect(&[("corrupt", 1)]);
    }
}

#[test]
fn broadcast_finds_lies_between_processes() {
    // The publisher is in the first process with half of the subscribers.
    for (lie, failure) in [(Lie::Drop, "gap"), (Lie::Swap, "order")] {
        let url = broadcast_server(lie, 5);
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
    let ended = run("echo", &url, "--connections 1 --rate 500 --duration 1s");
    assert!(longest(&ended) >= 300e3, "{:#}", ended.report["latencies"]);
    let beyond = latencies_beyond(&ended, 200e3);
    assert!(
        beyond >= STALLED * 0.6,
        "{beyond}: {:#}",
        ended.report["latencies"]
    );

    // The whole server stalls: all three members wait for each message.
    let ended = run(
        "broadcast",
        &broadcast_server(LATER, 50),
        "--subscribers 2 --rate 500 --duration 1s",
    );
    let (beyond, members) = (latencies_beyond(&ended, 200e3), 3.0);
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
        &echo_server(LATER, 5),
        "--connections 1 --in-flight 4 --duration 1s",
    );
    assert!(longest(&ended) >= 300e3, "{:#}", ended.report["latencies"]);
    let ended = run(
        "broadcast",
        &broadcast_server(LATER, 5),
        "--subscribers 2 --duration 1s",
    );
    assert!(longest(&ended) >= 300e3, "{:#}", ended.report["latencies"]);
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
        let url = broadcast_server(Lie::Drop, 5);
        let arguments = format!("--subscribers 4 --allow-errors {allowed}");
        let ended = run("broadcast", &url, &arguments);
        assert_eq!(ended.report["failures"]["counts"]["gap"], 1);
        assert_eq!(ended.status, Some(status));
    }
}
