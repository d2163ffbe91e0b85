//! A server with little memory under everything that peers can make it keep (catalogue 148): it
//! sheds, counts what and why, serves whoever comes next, and is not killed.
//!
//! The program runs with its own caps and half a GiB: `RLIMIT_DATA` counts the private memory that a
//! process may write to, and an allocation beyond it aborts the program. With `MEMORY_GROUP`, a
//! folder of a control group that somebody has limited (tests/memory/run does), the program runs in
//! that group instead. Messages are larger than the program's default, so that few connections are
//! enough: its caps count bytes, whatever they are bytes of.

use std::collections::HashSet;
use std::env;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stentor::{Cause, TopicOptions};

use crate::process::{Process, http};
use crate::support::{
    App, BINARY, CONTINUATION, Client, Ctx, FIN, TEXT, masked, serve, upgrade_request,
};

/// The largest message.
const LARGEST: usize = 16 << 20;

/// What all of them say, in memory once.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b'x'; LARGEST]);

/// So many of the largest messages are more than the memory that there is.
const MANY: usize = 40;

/// Starts `stentor serve` with half a GiB.
fn start(arguments: &[&str]) -> (Process, SocketAddr) {
    let script = match env::var("MEMORY_GROUP") {
        Ok(group) => format!("echo $$ >'{group}/cgroup.procs' && exec \"$@\""),
        Err(_) => "ulimit -d 524288 && exec \"$@\"".to_owned(),
    };
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_stentor"), "serve"]);
    command.args(["--listen", "127.0.0.1:0", "--max-message-size", "16MiB"]);
    let process = Process::start(command.args(arguments));
    let address = process.address();
    (process, address)
}

/// The header of a frame with a masking key of zeros, under which a payload is as it is.
fn header(first: u8, len: usize) -> Vec<u8> {
    let mut header = vec![first, 0xFF];
    header.extend_from_slice(&(len as u64).to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    header
}

/// The head of a request that publishes the largest message.
fn post(topic: &str) -> String {
    format!("POST /t/{topic} HTTP/1.1\r\nHost: h\r\nContent-Length: {LARGEST}\r\n\r\n")
}

/// Lets each client do something that ends when it is done or the server has had enough of it.
fn all_at_once(clients: &mut [Client], act: impl Fn(usize, &mut Client) + Sync) {
    let act = &act;
    thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            scope.spawn(move || act(number, client));
        }
    });
}

/// Sends the largest message, less its last `missing` bytes.
fn send_largest(client: &mut Client, missing: usize) {
    client.send_until_refused(&header(BINARY, LARGEST));
    client.send_until_refused(&BYTES[missing..]);
}

/// Sends the largest message in 16 fragments, less its last byte.
fn send_fragments(client: &mut Client) {
    const PART: usize = LARGEST / 16;
    for part in 0..16 {
        let first = match part {
            0 => BINARY - FIN,
            15 => CONTINUATION,
            _ => CONTINUATION - FIN,
        };
        client.send_until_refused(&header(first, PART));
        client.send_until_refused(&BYTES[usize::from(part == 15)..PART]);
    }
}

/// The page of `/metrics`.
struct Metrics(String);

impl Metrics {
    fn of(address: SocketAddr) -> Self {
        Self(http(address, "GET", "/metrics"))
    }

    /// The value of a sample; 0 if it is not there.
    fn get(&self, sample: &str) -> u64 {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    fn evicted(&self, reason: &str) -> u64 {
        self.get(&format!(
            "stentor_connections_evicted_total{{reason=\"{reason}\"}}"
        ))
    }

    fn closed(&self, cause: &str) -> u64 {
        self.get(&format!(
            "stentor_websockets_closed_total{{cause=\"{cause}\"}}"
        ))
    }
}

/// Somebody subscribes and hears what somebody else publishes.
fn assert_serves(address: SocketAddr) {
    let mut subscriber = Client::open(address, "/t/fresh");
    let mut publisher = Client::open(address, "/t/fresh");
    publisher.frame(TEXT, b"news");
    assert_eq!(subscriber.read_frame(), (TEXT, b"news".to_vec()));
    assert!(http(address, "GET", "/livez").starts_with("HTTP/1.1 200 "));
}

#[test]
fn cat_148_half_messages_are_shed_before_memory_is_out() {
    let (_process, address) = start(&[]);
    let mut peers: Vec<Client> = (0..MANY).map(|_| Client::open(address, "/t/x")).collect();
    all_at_once(&mut peers, |number, peer| match number % 2 {
        0 => send_largest(peer, 1),
        _ => send_fragments(peer),
    });
    assert_serves(address);
    let metrics = Metrics::of(address);
    // One is counted as ended when its peer has gone, after 5 seconds at the latest.
    assert!(metrics.evicted("input") >= metrics.closed("input-cap").max(1));
    assert_eq!(metrics.evicted("output"), 0);
}

#[test]
fn cat_148_half_bodies_are_answered_503_before_memory_is_out() {
    let (_process, address) = start(&[]);
    let mut peers: Vec<Client> = (0..MANY).map(|_| Client::raw(address)).collect();
    all_at_once(&mut peers, |_, peer| {
        peer.send_until_refused(post("x").as_bytes());
        peer.send_until_refused(&BYTES[1..]);
    });
    assert_serves(address);
    let metrics = Metrics::of(address);
    let answered = metrics.get("stentor_websockets_refused_total{status=\"503\"}");
    assert!(answered > 0);
    assert_eq!(answered, metrics.evicted("input"));
}

#[test]
fn cat_148_slow_readers_are_shed_before_memory_is_out() {
    let (_process, address) = start(&[]);
    let open = |number| Client::open(address, &format!("/t/{number}"));
    let _readers: Vec<Client> = (0..MANY).map(open).collect();
    // One publication after the other: what is received at a time is not much.
    for number in 0..MANY {
        let mut publisher = Client::raw(address);
        publisher.send(post(&number.to_string()).as_bytes());
        publisher.send(&BYTES);
        assert!(publisher.head().starts_with("HTTP/1.1 200 "));
    }
    assert_serves(address);
    let metrics = Metrics::of(address);
    assert!(metrics.evicted("output") > 0);
    assert_eq!(metrics.evicted("output"), metrics.closed("output-cap"));
    assert_eq!(metrics.evicted("input"), 0);
}

#[test]
fn cat_148_all_of_it_at_once_is_shed_before_memory_is_out() {
    let (_process, address) = start(&["--history-size", "100", "--history-ttl", "1h"]);
    let _readers: Vec<Client> = (0..MANY).map(|_| Client::open(address, "/t/s")).collect();
    let mut peers: Vec<Client> = (0..MANY).map(|_| Client::open(address, "/t/s")).collect();
    all_at_once(&mut peers, |number, peer| send_largest(peer, number % 2));
    assert_serves(address);
    assert!(Metrics::of(address).evicted("input") > 0);
}

#[test]
fn cat_148_who_is_shed_is_told_and_one_message_alone_always_fits() {
    let server = serve(App::default(), |config| {
        config.limits.max_input = 1 << 20;
    });
    let mut largest = server.connect();
    largest.send(&header(BINARY, LARGEST));
    largest.send(&BYTES[1..]);
    let holds = |at_least: usize| {
        server.wait_until("it has come", move |_, ctx| {
            ctx.gauges().input_memory >= at_least
        });
    };
    holds(LARGEST - 1);
    let mut other = server.connect();
    other.send(&header(BINARY, LARGEST));
    other.send(&BYTES[..100_000]);
    assert_eq!(largest.read_close(), 1013);
    holds(100_000);
    let memory = server.ask(|_, ctx| ctx.gauges().input_memory);
    assert!(memory <= 1 << 20, "{memory}");
    other.send(&BYTES[100_000..]);
    server.wait_until("the message is complete", |app, _| app.messages == 1);
    assert_eq!(server.ask(|_, ctx| ctx.gauges().input_memory), 0);
    drop(largest);
    server.wait_until("it has ended", |app, _| app.ended.len() == 1);
    let ended = server.ask(|app, ctx| (app.ended[0].cause, ctx.stats().evicted_input));
    assert_eq!(ended, (Cause::InputCap, 1));
}

/// All hear what is published.
fn subscribers() -> App {
    App::default().on_open(|ctx| {
        ctx.subscribe("news").unwrap();
    })
}

/// One of them has it in each turn, and nobody has to read it.
fn walk_slowly(config: &mut stentor::Config) {
    config.limits.walk_sends = 1;
    config.limits.outbox_soft = usize::MAX;
    config.limits.outbox_hard = usize::MAX;
}

#[test]
fn cat_148_publications_wait_outside_while_a_walk_is_under_way() {
    const PUBLISHERS: usize = 64;
    const LARGE: usize = 1 << 20;
    let app = subscribers();
    let app = app.on_message(|ctx: &mut Ctx<'_>, _| {
        ctx.publish("news", &vec![0; LARGE]);
    });
    let server = serve(app, walk_slowly);
    let mut publishers: Vec<Client> = (0..PUBLISHERS).map(|_| server.connect()).collect();
    let standing = server.stand_still();
    for publisher in &mut publishers {
        publisher.frame(TEXT, b"go");
    }
    drop(standing);
    server.wait_until("a walk has begun", |_, ctx| ctx.stats().published > 0);
    // While a full batch waits nobody is answered: this is after the first walk.
    let published = server.ask(|_, ctx| ctx.stats().published);
    assert!(published <= 16, "{published}");
    let all = PUBLISHERS as u64;
    server.wait_until("all have published", move |_, ctx| {
        ctx.stats().published == all
    });
}

/// Who was served first would be first again each time that a walk ends.
#[test]
fn cat_148_publishers_take_turns_with_those_who_were_not_read() {
    const PUBLISHERS: usize = 32;
    const LARGE: usize = 1 << 20;
    let order = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&order);
    let app = subscribers();
    let app = app.on_message(move |ctx: &mut Ctx<'_>, _| {
        heard.lock().unwrap().push(ctx.id());
        ctx.publish("news", &vec![0; LARGE]);
    });
    let server = serve(app, walk_slowly);
    let mut publishers: Vec<Client> = (0..PUBLISHERS).map(|_| server.connect()).collect();
    let standing = server.stand_still();
    for publisher in &mut publishers {
        publisher.send(&[masked(TEXT, b"go"), masked(TEXT, b"on")].concat());
    }
    drop(standing);
    server.wait_until("all have published", |_, ctx| {
        ctx.stats().published == 2 * PUBLISHERS as u64
    });
    let order = order.lock().unwrap();
    let first: HashSet<_> = order[..PUBLISHERS].iter().collect();
    assert_eq!(first.len(), PUBLISHERS, "{order:?}");
}

/// A request that waits because of others is not late.
#[test]
fn cat_148_who_is_not_read_while_a_walk_is_under_way_has_its_time_afterwards() {
    const LARGE: usize = 6 << 20;
    let app = subscribers();
    let app = app.on_message(|ctx: &mut Ctx<'_>, seconds| {
        ctx.publish("news", &vec![0; LARGE]);
        thread::sleep(Duration::from_secs(seconds.parse().unwrap()));
    });
    let server = serve(app, |config| {
        walk_slowly(config);
        config.timeouts.handshake = Duration::from_secs(1);
    });
    let mut peers: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    let standing = server.stand_still();
    let [mut late, mut half] = [(); 2].map(|()| Client::raw(server.address));
    let request = upgrade_request("/");
    // The second batch waits for a walk that takes a turn for each of those who hear it.
    peers[0].frame(TEXT, b"0");
    peers[1].frame(TEXT, b"2");
    late.send(request.as_bytes());
    half.send(&request.as_bytes()[..20]);
    drop(standing);
    assert!(late.head().starts_with("HTTP/1.1 101 "));
    assert!(half.head().starts_with("HTTP/1.1 408 "));
}

/// Who was shed and neither reads nor goes is not kept for long.
#[test]
fn cat_148_who_is_shed_and_stays_is_ended() {
    let server = serve(App::default(), |config| {
        config.limits.max_input = 60_000;
        config.timeouts.close = Duration::from_secs(1);
    });
    let body = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n";
    let mut peers: Vec<Client> = (0..8)
        .map(|number| match number % 2 {
            0 => server.connect(),
            _ => Client::raw(server.address),
        })
        .collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        match number % 2 {
            0 => peer.send(&header(BINARY, 70_000)),
            _ => peer.send(body.as_bytes()),
        }
        peer.send_until_refused(&BYTES[..50_000]);
    }
    server.wait_until("those that were shed have gone", |_, ctx| {
        let (gauges, shed) = (ctx.gauges(), ctx.stats().evicted_input);
        shed >= 6 && gauges.connections as u64 == 8 - shed
    });
    drop(peers);
    server.wait_until("all have gone", |_, ctx| ctx.gauges().connections == 0);
    assert_eq!(server.ask(|_, ctx| ctx.gauges().input_memory), 0);
}

/// What a peer does that holds memory, or gives it back.
#[derive(Clone, Debug)]
enum Act {
    /// A new connection, which has upgraded or not.
    Come(bool),
    /// The next bytes of a message or a body, or of nothing known.
    Say(usize, Vec<u8>),
    Go(usize, bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let long = (1_usize..90_000).prop_map(|len| BYTES[..len].to_vec());
    let said = prop_oneof![
        Just(header(BINARY, 70_000)),
        Just(header(BINARY - FIN, 70_000)),
        Just(header(CONTINUATION, 70_000)),
        Just(masked(TEXT, b"whole")),
        Just(post("x").into_bytes()),
        Just(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n".to_vec()),
        Just(upgrade_request("/").into_bytes()),
        long.clone(),
        long,
        prop::collection::vec(any::<u8>(), 1..50),
    ];
    let act = prop_oneof![
        3 => any::<bool>().prop_map(Act::Come),
        6 => (0_usize..4, said).prop_map(|(who, bytes)| Act::Say(who, bytes)),
        1 => (0_usize..4, any::<bool>()).prop_map(|(who, resets)| Act::Go(who, resets)),
    ];
    prop::collection::vec(act, 1..60)
}

/// A count that drifts would shed all, or nobody, some day; below zero it ends a server that checks.
#[test]
fn cat_148_memory_of_input_is_free_again_whatever_peers_do() {
    let server = serve(App::default(), |config| {
        config.limits.max_input = 5_000;
        config.protocol.http.max_body_size = LARGEST;
    });
    let config = Config::with_cases(100);
    let outcome = TestRunner::new(config).run(&acts(), |acts| {
        let mut peers = Vec::new();
        for act in acts {
            match act {
                Act::Come(true) => peers.push(server.connect()),
                Act::Come(false) => peers.push(Client::raw(server.address)),
                Act::Say(who, bytes) => {
                    if let Some(peer) = peers.get_mut(who) {
                        peer.send_until_refused(&bytes);
                    }
                }
                Act::Go(who, resets) if who < peers.len() => {
                    let peer = peers.swap_remove(who);
                    if resets {
                        peer.reset();
                    }
                }
                Act::Go(..) => {}
            }
        }
        peers.into_iter().for_each(Client::reset);
        server.wait_until("all have gone", |_, ctx| ctx.gauges().connections == 0);
        let memory = server.ask(|_, ctx| ctx.gauges().input_memory);
        prop_assert_eq!(memory, 0);
        Ok(())
    });
    outcome.unwrap();
    let shed = server.ask(|_, ctx| ctx.stats().evicted_input);
    assert!(shed > 0);
}

#[test]
fn cat_148_subscriptions_are_refused_where_topics_take_the_memory_that_they_may() {
    let app = App::default().on_message(|ctx: &mut Ctx<'_>, name| {
        let answer = format!("{:?}", ctx.subscribe_as(name, b"somebody"));
        ctx.send(answer.as_str());
    });
    let server = serve(app, |config| {
        config.limits.max_topic_memory = 64 << 10;
        let present = TopicOptions {
            presence: true,
            ..TopicOptions::default()
        };
        config.topics.insert("present", present).unwrap();
    });
    for (namespace, most) in [("", 90), ("present:", 60)] {
        let mut client = server.connect();
        let mut subscribe = |number: usize| {
            let name = format!("{namespace}{number:0200}");
            client.frame(TEXT, name.as_bytes());
            String::from_utf8(client.read_frame().1).unwrap()
        };
        let count = (0..100)
            .take_while(|number| subscribe(*number) == "Ok(true)")
            .count();
        assert!((most - 10..most).contains(&count), "{count}");
        assert_eq!(subscribe(count), "Err(Topic(TooMuchMemory))");
        assert_eq!(subscribe(0), "Ok(false)");
        drop(client);
        server.wait_until("it is free again", |_, ctx| ctx.gauges().topic_memory == 0);
    }
    let refused = server.ask(|_, ctx| ctx.stats().refused_subscriptions);
    assert_eq!(refused, 4);
}
