//! `loadtest churn` against servers that do one thing wrong.

mod common;

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{accept, listen, loadtest, read_frame, read_head, run};

/// What an echo server does wrong, once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// It answers a Close frame with another code.
    OtherCode,
    /// It ends the stream instead of answering a Close frame.
    NoAnswer,
    /// It answers a Close frame and leaves the stream open.
    StaysOpen,
    /// It does not end a stream whose other half has ended.
    KeepsHalf,
    /// It ends a connection that did nothing.
    ThrowsOut,
    /// It does not return a message.
    Swallows,
    /// It returns a message twice.
    Repeats,
}

struct Server {
    wrong: Wrong,
    /// Occasions that there were to be wrong.
    occasions: AtomicUsize,
}

const CLOSE: u8 = 8;

impl Server {
    fn start(wrong: Wrong) -> String {
        let occasions = AtomicUsize::new(0);
        listen(Server { wrong, occasions }, Server::serve)
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let head = read_head(&mut stream)?;
        accept(&mut stream, &head)?;
        while let Some((opcode, payload)) = read_frame(&mut stream) {
            if opcode == CLOSE {
                return self.answer_close(&mut stream, payload);
            }
            if self.is_occasion_for(Wrong::ThrowsOut) {
                return None;
            }
            let copies = match () {
                () if self.is_occasion_for(Wrong::Swallows) => 0,
                () if self.is_occasion_for(Wrong::Repeats) => 2,
                () => 1,
            };
            stream.write_all(&frame(2, &payload).repeat(copies)).ok()?;
        }
        if self.is_occasion_for(Wrong::KeepsHalf) {
            outlive_the_run();
        }
        None
    }

    fn answer_close(&self, stream: &mut TcpStream, mut payload: Vec<u8>) -> Option<()> {
        if self.is_occasion_for(Wrong::NoAnswer) {
            return stream.shutdown(Shutdown::Both).ok();
        }
        if self.is_occasion_for(Wrong::OtherCode) {
            payload = 1011_u16.to_be_bytes().to_vec();
        }
        stream.write_all(&frame(CLOSE, &payload)).ok()?;
        if self.is_occasion_for(Wrong::StaysOpen) {
            outlive_the_run();
        }
        None
    }

    /// Whether this is the third occasion to do what it does wrong.
    fn is_occasion_for(&self, wrong: Wrong) -> bool {
        self.wrong == wrong && self.occasions.fetch_add(1, Ordering::Relaxed) == 2
    }
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, payload.len() as u8];
    frame.extend_from_slice(payload);
    frame
}

/// The connection stays as it is; the thread ends with the test.
fn outlive_the_run() {
    thread::sleep(Duration::from_mins(10));
}

const LOAD: &str = "--connections 10 --join-rate 100 --message-rate 100";

#[test]
fn honest_server_passes() {
    for processes in [1, 2] {
        let arguments = format!("{LOAD} --processes {processes}");
        let ended = run("churn", &Server::start(Wrong::Nothing), &arguments);
        ended.expect(&[]);
        for kind in [
            "joins",
            "messages",
            "closes",
            "half_closes",
            "resets",
            "aborts",
        ] {
            let count = ended.report["counted"][kind].as_u64();
            assert!(count > Some(0), "{kind}: {:#}", ended.report["counted"]);
        }
    }
}

#[test]
fn server_that_closes_wrongly_is_caught() {
    for (wrong, failure) in [
        (Wrong::OtherCode, "protocol"),
        (Wrong::NoAnswer, "unanswered"),
    ] {
        // Only closing handshakes: what is lost in a reset is nobody's fault.
        let arguments = format!("{LOAD} --half-close 0 --reset 0 --abort 0");
        run("churn", &Server::start(wrong), &arguments).expect(&[(failure, 1)]);
    }
}

#[test]
fn server_that_does_not_end_is_waited_for_and_caught() {
    for (wrong, arguments) in [
        (Wrong::StaysOpen, "--half-close 0 --reset 0 --abort 0"),
        (Wrong::KeepsHalf, "--close 0 --reset 0 --abort 0"),
    ] {
        let url = Server::start(wrong);
        run("churn", &url, &format!("{LOAD} {arguments}")).expect(&[("unanswered", 1)]);
    }
}

#[test]
fn server_that_wrongs_members_is_caught() {
    for (wrong, failure) in [
        (Wrong::ThrowsOut, "closed"),
        (Wrong::Swallows, "gap"), // The next message of the same sender comes back.
        (Wrong::Repeats, "order"),
    ] {
        // Hardly anybody leaves, so that the member is still one.
        let arguments = "--connections 2 --join-rate 1 --message-rate 100";
        run("churn", &Server::start(wrong), arguments).expect(&[(failure, 1)]);
    }
}

#[test]
fn churn_that_cannot_be_is_refused_in_one_line() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (arguments, why) in [
        ("--size 23", "take 24 bytes"),
        (
            "--close 0 --half-close 0 --reset 0 --abort 0",
            "nobody would leave",
        ),
        ("", "no server at"),
    ] {
        let output = loadtest("churn", &format!("ws://{unused}/"), arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(why) && error.lines().count() == 1, "{error}");
    }
}
