//! Centrifugo's protocol against a small server of it, on threads and blocking sockets, that is honest or lies in one way.

mod common;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Ended, accept, listen, loadtest, read_frame, read_head, run};
use loadtest::frame::{self, Opcode};
use serde_json::{Value, json};

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lie {
    #[default]
    Honest,
    /// A subscriber does not get the sixth publication.
    Drop,
    /// ...gets it twice.
    Repeat,
    /// ...gets it with another letter near its end.
    Change,
    /// ...gets it as an object.
    Object,
    /// ...is unsubscribed instead.
    Unsubscribe,
    /// The sixth publication is not confirmed.
    Unconfirmed,
    /// The second client may not subscribe.
    Refuse,
    /// The second client is never told whether it is subscribed.
    Silent,
    /// The second client is told after five seconds.
    Late,
    /// The second client is not told what it missed.
    Forgetful,
    /// The second client is told less than it missed.
    Partial,
    /// There is no history.
    NoHistory,
}

#[derive(Default)]
struct Server {
    lie: Lie,
    /// How publications come.
    manner: Manner,
    /// Pings that were not answered yet.
    unanswered: Arc<AtomicI64>,
    channels: Mutex<HashMap<String, Channel>>,
}

/// How publications come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Manner {
    /// Each in a message of its own.
    #[default]
    Alone,
    /// Behind a message that is a ping.
    BehindPing,
    /// In one message with a ping.
    WithPing,
    /// In one message with the one before.
    InPairs,
}

#[derive(Default)]
struct Channel {
    members: Vec<Member>,
    publications: usize,
}

struct Member {
    stream: TcpStream,
    /// Which one of all that came to the channel.
    number: usize,
    /// A publication that waits for the next.
    kept: String,
}

impl Server {
    fn start(self) -> String {
        listen(self, Server::serve) + "connection/websocket"
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let head = read_head(&mut stream)?;
        assert!(head.starts_with(b"GET /connection/websocket "));
        accept(&mut stream, &head)?;
        let mut client = Client {
            stream,
            number: 0,
            is_connected: false,
            ids: Vec::new(),
        };
        loop {
            let (_, message) = read_frame(&mut client.stream)?;
            let commands = str::from_utf8(&message).unwrap().lines();
            let replies: Vec<_> = commands
                .filter_map(|command| self.obey(&mut client, command))
                .collect();
            if !replies.is_empty() {
                say(&mut client.stream, &replies.join("\n"))?;
            }
        }
    }

    fn obey(&self, client: &mut Client, command: &str) -> Option<String> {
        let command: Value = serde_json::from_str(command).unwrap();
        let Some(id) = command["id"].as_u64() else {
            assert_eq!(command, json!({}), "a pong");
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        assert!(!client.ids.contains(&id), "{id} twice");
        client.ids.push(id);
        if command["connect"].is_object() {
            client.is_connected = true;
            return Some(
                json!({"id": id, "connect": {"client": "c", "ping": 25, "pong": true}}).to_string(),
            );
        }
        assert!(client.is_connected, "{command}");
        match (&command["subscribe"], &command["publish"]) {
            (Value::Object(_), Value::Null) => self.subscribe(client, id, &command["subscribe"]),
            (Value::Null, Value::Object(_)) => self.publish(id, &command["publish"]),
            _ => panic!("{command}"),
        }
    }

    fn subscribe(&self, client: &mut Client, id: u64, wish: &Value) -> Option<String> {
        let mut channels = self.channels.lock().unwrap();
        let channel = channels.entry(text(&wish["channel"])).or_default();
        client.number = channel.members.len();
        channel.members.push(Member {
            stream: client.stream.try_clone().unwrap(),
            number: client.number,
            kept: String::new(),
        });
        let publications = channel.publications;
        drop(channels);
        let is_second = client.number == 1;
        match self.lie {
            Lie::Refuse if is_second => {
                let error = json!({"code": 103, "message": "permission denied"});
                return Some(json!({"id": id, "error": error}).to_string());
            }
            Lie::Silent if is_second => return None,
            Lie::Late if is_second => thread::sleep(Duration::from_millis(5100)),
            _ => {}
        }
        let mut result = json!({});
        if wish["recoverable"] == true && self.lie != Lie::NoHistory {
            result = json!({"recoverable": true, "epoch": "abc", "offset": publications});
        }
        if wish["recover"] == true && !(self.lie == Lie::Forgetful && is_second) {
            assert_eq!(wish["epoch"], "abc");
            let since = usize::try_from(wish["offset"].as_u64().unwrap()).unwrap();
            let cut = usize::from(self.lie == Lie::Partial && is_second);
            let missed = vec![json!({"data": "text"}); publications - since - cut];
            result["recovered"] = true.into();
            result["publications"] = missed.into();
        }
        Some(json!({"id": id, "subscribe": result}).to_string())
    }

    fn publish(&self, id: u64, wish: &Value) -> Option<String> {
        let mut channels = self.channels.lock().unwrap();
        let name = text(&wish["channel"]);
        let channel = channels.get_mut(&name).unwrap();
        let nth = channel.publications;
        channel.publications += 1;
        let data = text(&wish["data"]);
        for member in &mut channel.members {
            let is_victim = member.number == 2 && nth == 5;
            let push = self.push(is_victim, &name, &data);
            let message = match self.manner {
                Manner::Alone => push.clone(),
                Manner::BehindPing => {
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                    say(&mut member.stream, "{}");
                    push.clone()
                }
                Manner::WithPing => {
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                    format!("{{}}\n{push}\n")
                }
                Manner::InPairs if nth.is_multiple_of(2) => {
                    member.kept.clone_from(&push);
                    continue;
                }
                Manner::InPairs => format!("{}\n{push}", member.kept),
            };
            if !message.is_empty() {
                say(&mut member.stream, &message);
            }
            if is_victim && self.lie == Lie::Repeat {
                say(&mut member.stream, &push);
            }
        }
        let is_kept = self.lie == Lie::Unconfirmed && nth == 5;
        (!is_kept).then(|| json!({"id": id, "publish": {}}).to_string())
    }

    fn push(&self, is_victim: bool, channel: &str, data: &str) -> String {
        let publication = |data: &str| {
            format!(
                r#"{{"push":{{"channel":"{channel}","pub":{{"data":{data},"info":{{"user":"","client":"c"}}}}}}}}"#
            )
        };
        let honest = publication(&format!("\"{data}\""));
        match self.lie {
            _ if !is_victim => honest,
            Lie::Drop => String::new(),
            Lie::Change => {
                let (start, last) = data.split_at(data.len() - 1);
                let other = if last == "a" { "b" } else { "a" };
                publication(&format!("\"{start}{other}\""))
            }
            Lie::Object => publication("{}"),
            Lie::Unsubscribe => format!(
                r#"{{"push":{{"channel":"{channel}","unsubscribe":{{"code":2500,"reason":"r"}}}}}}"#
            ),
            _ => honest,
        }
    }
}

struct Client {
    stream: TcpStream,
    number: usize,
    is_connected: bool,
    ids: Vec<u64>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn say(stream: &mut TcpStream, message: &str) -> Option<()> {
    let mut bytes = Vec::new();
    frame::push_server_frame(&mut bytes, Opcode::Text, message.as_bytes());
    stream.write_all(&bytes).ok() // A client that has ended is no longer interested.
}

fn server(lie: Lie) -> String {
    let honest = Server::default();
    Server { lie, ..honest }.start()
}

fn count(ended: &Ended, what: &str) -> u64 {
    ended.report["counted"][what].as_u64().unwrap()
}

fn first(ended: &Ended) -> &str {
    ended.report["failures"]["first"].as_str().unwrap()
}

const BROADCAST: &str = "--protocol centrifugo --subscribers 4";

#[test]
fn every_member_of_a_channel_is_reached() {
    for arguments in [
        "--verify",
        "--batch 8",
        "--rate 500",
        "--size 32",
        "--size 16KiB",
        "--everyone",
        "--topics 12 --publishers 13 --processes 2",
    ] {
        let ended = run(
            "broadcast",
            &server(Lie::Honest),
            &format!("{BROADCAST} {arguments}"),
        );
        ended.expect(&[]);
        assert!(
            count(&ended, "deliveries") > 50,
            "{arguments}: {:#}",
            ended.report["counted"]
        );
    }
}

#[test]
fn pings_are_answered_wherever_they_stand() {
    for manner in [Manner::BehindPing, Manner::WithPing] {
        for arguments in ["--verify", "--batch 8"] {
            let unanswered = Arc::<AtomicI64>::default();
            let pinging = Server {
                manner,
                unanswered: Arc::clone(&unanswered),
                ..Server::default()
            };
            let ended = run(
                "broadcast",
                &pinging.start(),
                &format!("{BROADCAST} {arguments}"),
            );
            ended.expect(&[]);
            assert!(count(&ended, "deliveries") > 50);
            let deadline = Instant::now() + Duration::from_secs(20); // The last ones are still being read.
            while unanswered.load(Ordering::Relaxed) != 0 {
                assert!(
                    Instant::now() < deadline,
                    "{manner:?}: {unanswered:?} are not answered"
                );
                thread::yield_now();
            }
        }
    }
}

#[test]
fn several_publications_in_one_message_are_all_heard() {
    let pairing = Server {
        manner: Manner::InPairs,
        ..Server::default()
    };
    // The last batch of a publisher is one message: with two publishers it has a neighbour.
    let arguments = "--verify --batch 8 --publishers 2";
    let ended = run(
        "broadcast",
        &pairing.start(),
        &format!("{BROADCAST} {arguments}"),
    );
    ended.expect(&[]);
    assert!(count(&ended, "deliveries") > 50);
}

#[test]
fn broadcast_tells_lies_apart() {
    for arguments in ["--verify", "--verify --batch 8", "--verify --rate 500"] {
        for (lie, failure) in [
            (Lie::Drop, "gap"),
            (Lie::Repeat, "order"),
            (Lie::Change, "corrupt"),
            (Lie::Object, "protocol"),
            (Lie::Unsubscribe, "protocol"),
        ] {
            let ended = run(
                "broadcast",
                &server(lie),
                &format!("{BROADCAST} {arguments}"),
            );
            let counts = &ended.report["failures"]["counts"];
            assert_eq!(counts[failure], 1, "{lie:?} {arguments}: {counts}");
            assert_eq!(ended.status, Some(1));
        }
    }
}

#[test]
fn publication_that_is_not_confirmed_is_found() {
    let ended = run("broadcast", &server(Lie::Unconfirmed), BROADCAST);
    // The reply to the next one comes where that to the sixth was due.
    ended.expect(&[("protocol", 1)]);
    assert!(
        first(&ended).contains("command 9, which was not due"),
        "{}",
        first(&ended)
    );
}

#[test]
fn subscription_that_is_refused_is_told() {
    for command in [
        "broadcast --subscribers 4",
        "connect --connections 4 --storm --subscribe t0",
    ] {
        let (command, arguments) = command.split_once(' ').unwrap();
        let arguments = format!("--protocol centrifugo {arguments}");
        let ended = run(command, &server(Lie::Refuse), &arguments);
        ended.expect(&[("protocol", 1)]);
        assert!(
            first(&ended).contains("103 permission denied"),
            "{}",
            first(&ended)
        );
    }
}

#[test]
fn arrivals_are_counted_when_all_is_answered() {
    for arguments in [
        "",
        "--subscribe t0",
        "--subscribe news-{topic} --processes 2",
    ] {
        let arguments = format!("--protocol centrifugo --connections 4 {arguments}");
        let ended = run("connect", &server(Lie::Honest), &arguments);
        ended.expect(&[]);
        assert!(
            count(&ended, "arrivals") > 10,
            "{:#}",
            ended.report["counted"]
        );
    }
}

const STORM: &str = "--protocol centrifugo --connections 20 --storm --recover";

#[test]
fn all_who_come_back_are_told_what_they_missed() {
    for arguments in ["", "--processes 2", "--subscribe news"] {
        let ended = run(
            "connect",
            &server(Lie::Honest),
            &format!("{STORM} {arguments}"),
        );
        ended.expect(&[]);
        assert_eq!(count(&ended, "arrivals"), 20);
    }
}

#[test]
fn who_comes_back_and_is_not_told_is_counted() {
    for (lie, failure) in [
        (Lie::Silent, "unanswered"),
        (Lie::Forgetful, "gap"),
        (Lie::Partial, "gap"),
        (Lie::Refuse, "protocol"),
    ] {
        let ended = run("connect", &server(lie), STORM);
        ended.expect(&[(failure, 1)]);
        assert_eq!(count(&ended, "arrivals"), 19, "{lie:?}");
    }
}

#[test]
fn who_is_told_after_five_seconds_is_counted() {
    let ended = run(
        "connect",
        &server(Lie::Late),
        &format!("{STORM} --duration 20s"),
    );
    ended.expect(&[("unanswered", 1)]);
    assert_eq!(count(&ended, "arrivals"), 19);
    assert!(
        first(&ended).contains("answered only after 5."),
        "{}",
        first(&ended)
    );
}

#[test]
fn idle_connections_are_subscribed() {
    for channel in ["t0", "news-{topic}"] {
        let arguments = format!("--protocol centrifugo --connections 220 --subscribe {channel}");
        run("idle", &server(Lie::Honest), &arguments).expect(&[]);
    }
    let ended = run(
        "idle",
        &server(Lie::Refuse),
        "--protocol centrifugo --connections 220",
    );
    ended.expect(&[("protocol", 1)]);
}

#[test]
fn loads_that_cannot_be_are_refused_in_one_line() {
    let listening = server(Lie::NoHistory);
    for (command, arguments, why) in [
        (
            "broadcast",
            "--protocol centrifugo --size 31",
            "take 32 bytes",
        ),
        (
            "broadcast",
            "--protocol centrifugo --bystanders 1",
            "by path",
        ),
        ("connect", "--subscribe t0", "need --protocol centrifugo"),
        ("connect", "--protocol nats", "is for broadcast"),
        ("idle", "--protocol nats", "is for broadcast"),
        (
            "connect",
            "--protocol centrifugo --storm --recover --subscribe {topic}",
            "one channel",
        ),
        (
            "connect",
            "--protocol centrifugo --storm --recover",
            "keeps no history",
        ),
    ] {
        let output = loadtest(command, &listening, arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(why) && error.lines().count() == 1, "{error}");
    }
}
