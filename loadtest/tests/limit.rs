//! The variants of `limit`: whatever is done otherwise, the bytes are the same, however they are cut.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loadtest::target::Target;
use loadtest::{frame, handshake};

/// All flags by themselves, and some that meet in the same lines of code.
const VARIANTS: [&str; 10] = [
    "",
    "--second-recv",
    "--level-triggered",
    "--staged",
    "--own-buffer",
    "--copy",
    "--vectored",
    "--level-triggered --vectored --staged",
    "--level-triggered --second-recv --copy",
    "--own-buffer --staged --second-recv",
];

/// Longer than any answer takes on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `limit` that ends with this value.
struct Limit {
    child: Child,
    address: SocketAddr,
}

impl Limit {
    fn start(arguments: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_limit"))
            .args(arguments.split_ascii_whitespace())
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        Limit { child, address }
    }

    /// For payloads of one length.
    fn of(command: &str, payload: usize, flags: &str) -> Self {
        let (frame_in, frame_out) = (
            frame::client_frame_len(payload),
            frame::server_frame_len(payload),
        );
        Limit::start(&format!(
            "{command} --frame-in {frame_in} --frame-out {frame_out} {flags}"
        ))
    }

    /// A connection whose handshake is over.
    fn open(&self) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(&self.request()).unwrap();
        skip_head(&mut stream);
        stream
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn request(&self) -> Vec<u8> {
        let target: Target = format!("ws://{}/", self.address).parse().unwrap();
        handshake::request(&target, handshake::SAMPLE_KEY)
    }

    /// CPU time used so far.
    fn cpu(&self) -> Duration {
        let now = loadtest::process::CpuTimes::of(self.child.id()).unwrap();
        now.since(&loadtest::process::CpuTimes::default()).total()
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn skip_head(stream: &mut TcpStream) {
    let mut head = vec![0; handshake::response(handshake::SAMPLE_KEY).len()];
    stream.read_exact(&mut head).unwrap();
    handshake::check_response(&head, handshake::SAMPLE_KEY).unwrap();
}

fn requests(payload: usize, count: usize) -> Vec<u8> {
    let mut request = Vec::new();
    let key = frame::random_mask();
    frame::push_client_frame(&mut request, frame::Opcode::Binary, &vec![7; payload], key);
    request.repeat(count)
}

fn replies(payload: usize, count: usize) -> Vec<u8> {
    let mut reply = Vec::new();
    frame::push_server_frame(&mut reply, frame::Opcode::Binary, &vec![b'.'; payload]);
    reply.repeat(count)
}

/// Reads as many bytes as are expected, and compares them.
fn expect(stream: &mut TcpStream, expected: &[u8], what: &str) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).expect(what);
    assert!(received == expected, "{what}: other bytes");
}

/// Nothing is to come but the end of the stream, once the peer has said that it is done.
fn expect_end(mut stream: TcpStream, what: &str) {
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).expect(what), 0, "{what}");
}

#[test]
fn every_variant_answers_the_same_bytes_for_any_split() {
    // All three forms of the length, and no payload at all.
    for (payload, count, splits) in [
        (0, 3, &[1, 4, 5, usize::MAX][..]),
        (20, 3, &[1, 7, 26, 27, usize::MAX]),
        (126, 3, &[1, 133, 134, 135, usize::MAX]),
        (65_536, 2, &[40_000, usize::MAX]),
    ] {
        let (requests, replies) = (requests(payload, count), replies(payload, count));
        for flags in VARIANTS {
            let limit = Limit::of("echo", payload, flags);
            let mut stream = limit.open();
            for split in splits {
                for part in requests.chunks(*split) {
                    stream.write_all(part).unwrap();
                }
                let what = format!("{payload} bytes in {split}s, {flags:?}");
                expect(&mut stream, &replies, &what);
            }
            expect_end(stream, flags);
        }
    }
}

#[test]
fn every_variant_answers_messages_behind_the_handshake_in_the_same_segment() {
    for flags in VARIANTS {
        let limit = Limit::of("echo", 20, flags);
        let mut stream = limit.connect();
        let bytes = [limit.request(), requests(20, 2)].concat();
        let (first, second) = bytes.split_at(bytes.len() - 13);
        stream.write_all(first).unwrap();
        skip_head(&mut stream);
        expect(&mut stream, &replies(20, 1), flags);
        stream.write_all(second).unwrap();
        expect(&mut stream, &replies(20, 1), flags);
        expect_end(stream, flags);
    }
}

#[test]
fn every_variant_fills_and_refills_a_buffer_that_is_smaller_than_a_message() {
    for flags in VARIANTS {
        let limit = Limit::of("echo", 1000, &format!("--buffer 100 {flags}"));
        let mut stream = limit.open();
        stream.write_all(&requests(1000, 30)).unwrap();
        expect(&mut stream, &replies(1000, 30), flags);
        expect_end(stream, flags);
    }
}

#[test]
fn every_variant_resumes_sends_to_a_peer_that_reads_late() {
    // More than both socket buffers hold: sends are short, and the requests behind them wait.
    let (payload, count) = (70_001, 300);
    let requests = requests(payload, count);
    for flags in VARIANTS {
        let limit = Limit::of("echo", payload, flags);
        let mut stream = limit.open();
        let mut writer = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&requests).unwrap());
            wait_until_at_rest(&limit, flags);
            expect(&mut stream, &replies(payload, count), flags);
        });
        expect_end(stream, flags);
    }
}

/// A level-triggered loop that still waits for what it cannot take would never be at rest.
fn wait_until_at_rest(limit: &Limit, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut before = limit.cpu();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = limit.cpu();
        if now == before && !now.is_zero() {
            return;
        }
        assert!(Instant::now() < deadline, "{what} is busy with nothing");
        before = now;
    }
}

#[test]
fn every_variant_drops_peers_that_leave_and_serves_those_that_come() {
    for flags in VARIANTS {
        let limit = Limit::of("echo", 20, flags);
        let mut stays = limit.open();
        for _ in 0..3 {
            let mut leaves = limit.open();
            leaves.write_all(&requests(20, 1)).unwrap();
            drop(leaves); // With its reply unread: a reset.
            expect_end(limit.open(), flags);
        }
        stays.write_all(&requests(20, 2)).unwrap();
        expect(&mut stays, &replies(20, 2), flags);
    }
}

#[test]
fn publisher_of_a_batch_receives_it_like_everyone() {
    for flags in VARIANTS {
        let limit = Limit::of("fanout", 64, flags);
        let mut peers: Vec<_> = (0..5).map(|_| limit.open()).collect();
        peers[3].write_all(&requests(64, 64)).unwrap();
        for peer in &mut peers {
            expect(peer, &replies(64, 64), flags);
        }
        for peer in peers {
            expect_end(peer, flags);
        }
    }
}

#[test]
fn everyone_hears_everyone() {
    for flags in VARIANTS {
        let limit = Limit::of("fanout", 20, flags);
        let mut peers: Vec<_> = (0..8).map(|_| limit.open()).collect();
        for round in 1..=5 {
            for peer in &mut peers {
                peer.write_all(&requests(20, round)).unwrap();
            }
            for peer in &mut peers {
                expect(peer, &replies(20, 8 * round), flags);
            }
        }
        for peer in peers {
            expect_end(peer, flags);
        }
    }
}

#[test]
fn copy_and_vectored_exclude_each_other() {
    let output = Command::new(env!("CARGO_BIN_EXE_limit"))
        .args("echo --frame-in 26 --frame-out 22 --copy --vectored".split(' '))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
