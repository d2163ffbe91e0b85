//! `loadtest broadcast` against small servers: topics, processes, dialects, members that do not read.

mod common;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{Ended, accept, listen, loadtest, read_frame, read_head, run};
use loadtest::frame::{self, Opcode};
use serde_json::Value;

/// A server with a topic for each path. A member that takes nothing for a while is thrown out.
#[derive(Default)]
struct Hub {
    topics: Mutex<HashMap<Vec<u8>, Vec<TcpStream>>>,
    /// All paths are one topic.
    is_mixed: bool,
    /// What becomes of the fourth message of each bystander.
    treatment: Treatment,
    /// How long all of the server sleeps over the tenth message that is not a bystander's.
    nap: Duration,
    published: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Treatment {
    #[default]
    Honest,
    Drop,
    Repeat,
    Change,
}

/// A socket that took nothing for so long belongs to somebody who does not read.
const SLOW: Duration = Duration::from_millis(500);

impl Hub {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let head = read_head(&mut stream)?;
        let path = if self.is_mixed {
            Vec::new()
        } else {
            head.split(|byte| *byte == b' ').nth(1)?.to_vec()
        };
        stream.set_write_timeout(Some(SLOW)).ok()?;
        let member = stream.try_clone().ok()?;
        let mut topics = self.topics.lock().unwrap();
        topics.entry(path.clone()).or_default().push(member);
        drop(topics);
        accept(&mut stream, &head)?;
        let is_bystander = path.starts_with(b"/t/bystander-");
        for nth in 0.. {
            let (_, payload) = read_frame(&mut stream)?;
            let mut bytes = Vec::new();
            frame::push_server_frame(&mut bytes, Opcode::Binary, &payload);
            let mut topics = self.topics.lock().unwrap();
            if is_bystander && nth == 3 {
                self.treatment.apply(&mut bytes);
            }
            if !is_bystander && self.published.fetch_add(1, Ordering::Relaxed) == 9 {
                thread::sleep(self.nap); // Nobody else gets at the topics meanwhile.
            }
            topics.get_mut(&path)?.retain_mut(|member| {
                let is_sent = member.write_all(&bytes).is_ok();
                if !is_sent {
                    // It may be gone by itself.
                    let _ = member.shutdown(Shutdown::Both);
                }
                is_sent
            });
        }
        None
    }
}

impl Treatment {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Treatment::Honest => {}
            Treatment::Drop => bytes.clear(),
            Treatment::Repeat => bytes.extend_from_within(..),
            Treatment::Change => *bytes.last_mut().unwrap() ^= 1,
        }
    }
}

fn hub() -> String {
    listen(Hub::default(), Hub::serve)
}

fn counted(ended: &Ended, what: &str) -> u64 {
    ended.report["counted"][what].as_u64().unwrap()
}

fn figure(ended: &Ended, key: &str) -> f64 {
    let figures = ended.report["figures"].as_array().unwrap();
    let figure = figures.iter().find(|figure| figure["key"] == key).unwrap();
    figure["value"].as_f64().unwrap()
}

/// How many deliveries there were for each message; the beginning and the end of counting cut some.
fn expect_reach(ended: &Ended, members: u64) {
    let (deliveries, messages) = (counted(ended, "deliveries"), counted(ended, "messages"));
    assert!(messages > 20, "{:#}", ended.report["counted"]);
    let cut = 20 * members;
    assert!(
        deliveries.abs_diff(messages * members) <= cut,
        "{:#}",
        ended.report["counted"]
    );
}

#[test]
fn every_member_of_a_topic_is_reached() {
    let ended = run("broadcast", &hub(), "--subscribers 6 --verify");
    ended.expect(&[]);
    expect_reach(&ended, 7);

    // Three of nine subscribers and two of six publishers in each topic, in two processes.
    let arguments = "--subscribers 9 --publishers 6 --topics 3 --processes 2 --verify";
    let ended = run("broadcast", &hub(), arguments);
    ended.expect(&[]);
    expect_reach(&ended, 5);
}

#[test]
fn everyone_hears_everyone() {
    let ended = run(
        "broadcast",
        &hub(),
        "--subscribers 6 --everyone --processes 2",
    );
    ended.expect(&[]);
    expect_reach(&ended, 6);
}

#[test]
fn last_subscriber_of_all_processes_is_found() {
    let ended = run(
        "broadcast",
        &hub(),
        "--subscribers 8 --processes 3 --rate 300",
    );
    ended.expect(&[]);
    let latencies = ended.report["latencies"].as_array().unwrap();
    let of = |key: &str| {
        latencies
            .iter()
            .find(|latency| latency["key"] == key)
            .unwrap()
    };
    let (last, each) = (of("last_subscriber"), of("delivery"));
    assert!(last["count"].as_u64().unwrap() > 20, "{last:#}");
    assert!(
        last["p50"].as_f64() >= each["p50"].as_f64(),
        "{latencies:#?}"
    );
}

#[test]
fn batches_and_long_messages_arrive_whole() {
    for arguments in [
        "--batch 64",
        "--batch 16 --size 16KiB",
        "--size 24",
        "--in-flight 8",
    ] {
        let arguments = format!("--subscribers 3 --verify {arguments}");
        run("broadcast", &hub(), &arguments).expect(&[]);
    }
}

/// A server that takes all topics for one.
fn mixed_hub() -> String {
    let mixed = Hub {
        is_mixed: true,
        ..Hub::default()
    };
    listen(mixed, Hub::serve)
}

#[test]
fn message_of_another_topic_is_surplus() {
    let ended = run("broadcast", &mixed_hub(), "--subscribers 4 --topics 2");
    assert!(ended.report["failures"]["counts"]["surplus"].as_u64() > Some(0));
    assert_eq!(ended.status, Some(1));
}

#[test]
fn stalled_subscribers_do_not_fail_the_run_and_closed_ones_are_counted() {
    // Half a megabyte for each: a server feels it, although sockets commonly hold four.
    let ended = run(
        "broadcast",
        &hub(),
        "--subscribers 20 --stalled 10% --size 1KiB --batch 16 --rate 500 --duration 1s",
    );
    ended.expect(&[]);
    assert!((figure(&ended, "stalled_closed") - 2.0).abs() < 0.1);
    latency(&ended, "last_subscriber"); // Of those who read.
}

fn latency<'e>(ended: &'e Ended, key: &str) -> &'e Value {
    let latencies = ended.report["latencies"].as_array().unwrap();
    let found = latencies.iter().find(|latency| latency["key"] == key);
    found.unwrap_or_else(|| panic!("no {key}: {latencies:#?}"))
}

#[test]
fn every_message_of_every_bystander_comes_back_and_counts() {
    let arguments = "--subscribers 4 --bystanders 4 --bystander-rate 50 --duration 1s";
    for arguments in [arguments.to_owned(), format!("{arguments} --processes 2")] {
        let ended = run("broadcast", &hub(), &arguments);
        ended.expect(&[]);
        expect_reach(&ended, 5);
        let messages = counted(&ended, "bystander_messages");
        assert!((150..=250).contains(&messages), "{messages}");
        assert_eq!(latency(&ended, "bystander")["count"], messages);
        assert_eq!(latency(&ended, "bystander_lag")["count"], messages);
    }
}

#[test]
fn bystanders_wait_for_a_server_that_is_busy_with_others() {
    let napping = Hub {
        nap: Duration::from_millis(300),
        ..Hub::default()
    };
    let ended = run(
        "broadcast",
        &listen(napping, Hub::serve),
        "--subscribers 2 --rate 50 --bystanders 2 --duration 1s",
    );
    ended.expect(&[]);
    // 60 of 200 messages should have left in the meantime, the last of them near its end.
    let bystander = latency(&ended, "bystander");
    assert!(bystander["max"].as_f64() >= Some(250e3), "{bystander:#}");
    assert!(bystander["p90"].as_f64() >= Some(100e3), "{bystander:#}");
}

#[test]
fn bystanders_find_lies() {
    for (treatment, kinds) in [
        (Treatment::Drop, ["corrupt", "unanswered"]),
        (Treatment::Change, ["corrupt", "unanswered"]),
        (Treatment::Repeat, ["corrupt", "surplus"]),
    ] {
        let lying = Hub {
            treatment,
            ..Hub::default()
        };
        let ended = run(
            "broadcast",
            &listen(lying, Hub::serve),
            "--subscribers 2 --bystanders 3",
        );
        let counts = &ended.report["failures"]["counts"];
        let of = |kind: &str| counts[kind].as_u64().unwrap_or(0);
        // Each is found out once, and is not heard any more.
        let [kind, other] = kinds;
        let found = match treatment {
            Treatment::Repeat => of(kind) + of(other),
            _ => of(kind),
        };
        assert_eq!(found, 3, "{treatment:?}: {counts}");
        assert_eq!(ended.status, Some(1));
    }
}

#[test]
fn message_that_a_bystander_did_not_send_is_found() {
    let ended = run(
        "broadcast",
        &mixed_hub(),
        "--subscribers 2 --rate 20 --bystanders 1 --bystander-rate 0.001",
    );
    // Its one message is wrong for each of three members, and theirs for it: before it had its own back, or after.
    let counts = &ended.report["failures"]["counts"];
    let of = |kind: &str| counts[kind].as_u64().unwrap_or(0);
    assert_eq!(of("corrupt") + of("surplus"), 4, "{counts}");
}

#[test]
fn bystanders_need_topics_by_path() {
    let url = hub() + "fixed";
    let output = loadtest("broadcast", &url, "--bystanders 1");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("has no {topic}"), "{error}");
}

/// Speaks NATS to one client at a time, in WebSocket messages that end anywhere.
#[derive(Default)]
struct Nats {
    members: Mutex<Vec<(String, TcpStream)>>,
}

impl Nats {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let head = read_head(&mut stream)?;
        accept(&mut stream, &head)?;
        say(&mut stream, b"INFO {\"server_name\":\"fake\"}\r\n");
        let mut unread = Vec::new();
        loop {
            let (_, piece) = read_frame(&mut stream)?;
            unread.extend(piece);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8(unread[..end].to_vec()).unwrap();
                let words: Vec<_> = line.split_ascii_whitespace().collect();
                let len = if words[0] == "PUB" {
                    words[2].parse::<usize>().unwrap() + 2
                } else {
                    0
                };
                if unread.len() < end + 1 + len {
                    break;
                }
                let rest = unread.split_off(end + 1 + len);
                self.obey(&words, &unread[end + 1..], &mut stream);
                unread = rest;
            }
        }
    }

    fn obey(&self, words: &[&str], payload: &[u8], stream: &mut TcpStream) {
        let mut members = self.members.lock().unwrap();
        match words {
            ["CONNECT", ..] | ["PONG"] => {}
            ["SUB", subject, "1"] => {
                members.push(((*subject).to_owned(), stream.try_clone().unwrap()));
            }
            ["PING"] => say(stream, b"PONG\r\nPING\r\n"),
            ["PUB", subject, len] => {
                let mut bytes = format!("MSG {subject} 1 {len}\r\n").into_bytes();
                bytes.extend_from_slice(payload);
                for (_, member) in members.iter_mut().filter(|(member, _)| member == subject) {
                    say(member, &bytes);
                }
            }
            words => panic!("{words:?}"),
        }
    }
}

/// In two messages, cut anywhere.
fn say(stream: &mut TcpStream, bytes: &[u8]) {
    let (first, second) = bytes.split_at(fastrand::usize(..bytes.len()));
    let mut frames = Vec::new();
    frame::push_server_frame(&mut frames, Opcode::Binary, first);
    frame::push_server_frame(&mut frames, Opcode::Binary, second);
    // A client that has ended is no longer interested.
    let _ = stream.write_all(&frames);
}

#[test]
fn nats_is_spoken() {
    for arguments in ["--batch 8", "--topics 2 --processes 2", "--everyone"] {
        let url = listen(Nats::default(), Nats::serve);
        let arguments = format!("--protocol nats --subscribers 4 --verify {arguments}");
        let ended = run("broadcast", &url, &arguments);
        ended.expect(&[]);
        assert!(
            counted(&ended, "deliveries") > 50,
            "{:#}",
            ended.report["counted"]
        );
    }
}

/// A running `limit fanout` for messages of 64 bytes, which ends with this value.
struct Limit(Child, String);

impl Limit {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_limit"))
            .args(["fanout", "--frame-in", "70", "--frame-out", "66"])
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap();
        let url = format!("ws://{address}/");
        Limit(child, url)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn limit_is_counted_by_bytes() {
    let Limit(_, url) = &Limit::start();
    for arguments in [
        "",
        "--batch 64",
        "--publishers 3 --in-flight 2",
        "--rate 500",
        "--everyone",
    ] {
        let arguments = format!("--subscribers 5 --unchecked {arguments}");
        let ended = run("broadcast", url, &arguments);
        ended.expect(&[]);
        assert!(
            counted(&ended, "deliveries") > 100,
            "{:#}",
            ended.report["counted"]
        );
    }
}

#[test]
fn limit_that_did_not_read_is_caught_without_unchecked() {
    let Limit(_, url) = &Limit::start();
    let ended = run("broadcast", url, "--subscribers 5 --rate 100");
    assert!(ended.report["failures"]["counts"]["corrupt"].as_u64() > Some(0));
    assert_eq!(ended.status, Some(1));
}

#[test]
fn message_of_another_length_is_caught_by_bytes() {
    let Limit(_, url) = &Limit::start();
    let ended = run("broadcast", url, "--subscribers 5 --unchecked --size 65");
    assert!(
        !ended.report["failures"]["counts"]
            .as_object()
            .unwrap()
            .is_empty()
    );
    assert_eq!(ended.status, Some(1));
}

#[test]
fn loads_that_cannot_be_are_refused_in_one_line() {
    for (arguments, why) in [
        ("--size 23", "take 24 bytes"),
        ("--topics 3 --publishers 2", "silent"),
        ("--subscribers 5 --stalled 6", "not so many"),
        ("--bystanders 2 --protocol nats", "by path"),
    ] {
        let output = loadtest("broadcast", "ws://127.0.0.1:1/", arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(why) && error.lines().count() == 1, "{error}");
    }
}
