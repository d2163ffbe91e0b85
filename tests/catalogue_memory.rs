//! A server with little memory under everything that peers can make it keep (catalogue 148): it
//! sheds, counts what and why, serves whoever comes next, and is not killed.
//!
//! The program runs with its own caps and half a GiB: `RLIMIT_DATA` counts the private memory that a
//! process may write to, and an allocation beyond it aborts the program. With `MEMORY_GROUP`, a
//! folder of a control group that somebody has limited (tests/memory/run does), the program runs in that group
//! instead. Messages are larger than the program's default, so that few connections are enough: its
//! caps count bytes, whatever they are bytes of.

use std::env;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;

use crate::process::{Process, http};
use crate::support::{BINARY, CONTINUATION, Client, FIN, TEXT};

/// The largest message.
const LARGEST: usize = 16 << 20;

/// What all of them say, in memory once.
static BYTES: [u8; LARGEST] = [b'x'; LARGEST];

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

/// The value of a sample of `/metrics`; 0 if it is not there.
fn metric(address: SocketAddr, sample: &str) -> u64 {
    let page = http(address, "GET", "/metrics");
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
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
    all_at_once(&mut peers, |number, peer| {
        if number % 2 == 0 {
            return send_largest(peer, 1);
        }
        // The same in 16 fragments.
        const PART: usize = LARGEST / 16;
        for part in 0..16 {
            let first = match part {
                0 => BINARY - FIN,
                15 => CONTINUATION,
                _ => CONTINUATION - FIN,
            };
            let missing = usize::from(part == 15);
            peer.send_until_refused(&header(first, PART));
            peer.send_until_refused(&BYTES[..PART - missing]);
        }
    });
    assert_serves(address);
    let shed = metric(
        address,
        "stentor_connections_evicted_total{reason=\"input\"}",
    );
    let ended = metric(
        address,
        "stentor_websockets_closed_total{cause=\"input-cap\"}",
    );
    assert!(shed > 0 && ended <= shed, "{shed}, {ended}");
}

#[test]
fn cat_148_half_bodies_are_answered_503_before_memory_is_out() {
    let (_process, address) = start(&[]);
    let mut peers: Vec<Client> = (0..MANY).map(|_| Client::raw(address)).collect();
    all_at_once(&mut peers, |_, peer| {
        let head = format!("POST /t/x HTTP/1.1\r\nHost: h\r\nContent-Length: {LARGEST}\r\n\r\n");
        peer.send_until_refused(head.as_bytes());
        peer.send_until_refused(&BYTES[1..]);
    });
    assert_serves(address);
    let shed = metric(
        address,
        "stentor_connections_evicted_total{reason=\"input\"}",
    );
    let answered = metric(address, "stentor_websockets_refused_total{status=\"503\"}");
    assert!(shed > 0 && answered == shed, "{shed}, {answered}");
}

#[test]
fn cat_148_slow_readers_are_shed_before_memory_is_out() {
    let (_process, address) = start(&[]);
    let topic = |number| format!("/t/{number}");
    let open = |number| Client::open(address, &topic(number));
    let _readers: Vec<Client> = (0..MANY).map(open).collect();
    let mut publishers: Vec<Client> = (0..MANY).map(open).collect();
    all_at_once(&mut publishers, |_, peer| send_largest(peer, 0));
    assert_serves(address);
    let shed = metric(
        address,
        "stentor_connections_evicted_total{reason=\"output\"}",
    );
    assert!(shed > 0);
}

#[test]
fn cat_148_what_is_published_while_a_walk_is_under_way_is_held_before_memory_is_out() {
    let (_process, address) = start(&[]);
    let _readers: Vec<Client> = (0..200).map(|_| Client::open(address, "/t/s")).collect();
    let mut publishers: Vec<Client> = (0..MANY).map(|_| Client::open(address, "/t/s")).collect();
    all_at_once(&mut publishers, |_, peer| send_largest(peer, 0));
    assert_serves(address);
}
