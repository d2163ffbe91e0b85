//! The programs against each other, and against servers that lie.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use loadtest::{frame, handshake};
use serde_json::Value;

/// A running `limit` that ends with this value.
struct Limit {
    child: Child,
    url: String,
}

impl Limit {
    fn start(arguments: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_limit"))
            .args(arguments.split(' '))
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address: SocketAddr = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(
            line,
            format!("limit: pid {}, listening on {address}\n", child.id())
        );
        Limit {
            child,
            url: format!("ws://{address}/"),
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn loadtest(command: &str, url: &str, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([command, url])
        .args(arguments.split_ascii_whitespace())
        .output()
        .unwrap()
}

/// Runs a short echo load and gives its report.
fn echo_report(url: &str, arguments: &str) -> (Option<i32>, Value) {
    let json = std::env::temp_dir().join(format!(
        "loadtest-{}-{:?}.json",
        std::process::id(),
        thread::current().id()
    ));
    let arguments = format!(
        "--warmup 50ms --duration 300ms --json {} {arguments}",
        json.display()
    );
    let output = loadtest("echo", url, &arguments);
    let report = std::fs::read_to_string(&json)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(&json).unwrap();
    (output.status.code(), serde_json::from_str(&report).unwrap())
}

#[test]
fn limit_answers_every_message() {
    for (size, in_flight, kind) in [
        (0, 1, "binary"),
        (20, 16, "ascii"),
        (1024, 1, "cjk"),
        (65_535, 2, "binary"),
        (1 << 20, 3, "binary"),
    ] {
        let (frame_in, frame_out) = (frame::client_frame_len(size), frame::server_frame_len(size));
        let limit = Limit::start(&format!(
            "echo --frame-in {frame_in} --frame-out {frame_out}"
        ));
        let arguments = format!(
            "--unchecked --connections 5 --size {size} --in-flight {in_flight} --kind {kind} --server-pid {}",
            limit.child.id()
        );
        let (status, report) = echo_report(&limit.url, &arguments);
        assert_eq!(status, Some(0), "{report:#}");
        assert!(
            report["counted"]["messages"].as_u64().unwrap() > 10,
            "{report:#}"
        );
        assert!(
            report["latencies"][0]["p50"].as_f64().unwrap() > 0.0,
            "{report:#}"
        );
        assert!(
            report["cost"]["server"]["busy"].as_f64().unwrap() > 0.0,
            "{report:#}"
        );
    }
}

#[test]
fn report_is_written_as_a_page() {
    let html = std::env::temp_dir().join(format!("loadtest-{}.html", std::process::id()));
    let limit = Limit::start("echo --frame-in 26 --frame-out 22");
    let arguments = format!(
        "--unchecked --connections 3 --size 20 --html {}",
        html.display()
    );
    let (status, report) = echo_report(&limit.url, &arguments);
    assert_eq!(status, Some(0), "{report:#}");
    let page = std::fs::read_to_string(&html).unwrap();
    std::fs::remove_file(&html).unwrap();
    assert!(page.contains(&format!("<h1>{}</h1>", limit.url)), "{page}");
    assert!(page.contains("Latency by percentile"), "{page}");
    assert!(
        page.contains(&format!("--html {}", html.display())),
        "{page}"
    );
}

#[test]
fn limit_that_did_not_read_is_caught_without_unchecked() {
    let limit = Limit::start("echo --frame-in 26 --frame-out 22");
    let (status, report) = echo_report(&limit.url, "--connections 3");
    assert_eq!(status, Some(1));
    assert_eq!(report["failures"]["counts"]["corrupt"], 3, "{report:#}");
}

#[test]
fn reply_of_another_length_is_caught() {
    // The client awaits 22 bytes a message and gets 23: not even sampling has to look.
    let limit = Limit::start("echo --frame-in 26 --frame-out 23");
    let (status, report) = echo_report(&limit.url, "--connections 3 --unchecked --size 20");
    assert_eq!(status, Some(1));
    assert_eq!(report["failures"]["counts"]["corrupt"], 1, "{report:#}");
    assert_eq!(report["failures"]["counts"]["surplus"], 2, "{report:#}");
}

#[test]
fn message_that_is_never_answered_is_counted() {
    // The program waits for frames that are longer than those which are sent.
    let limit = Limit::start("echo --frame-in 36 --frame-out 22");
    let (status, report) = echo_report(&limit.url, "--connections 3 --unchecked --size 20");
    assert_eq!(status, Some(1));
    assert_eq!(report["failures"]["counts"]["unanswered"], 3, "{report:#}");
}

/// A connection with its handshake done, blocking.
fn open(target: &loadtest::target::Target) -> TcpStream {
    let mut stream = TcpStream::connect(target.address).unwrap();
    let request = handshake::request(target, handshake::SAMPLE_KEY);
    stream.write_all(&request).unwrap();
    let mut head = Vec::new();
    while handshake::head_len(&head).is_none() {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    handshake::check_response(&head, handshake::SAMPLE_KEY).unwrap();
    stream
}

#[test]
fn limit_fans_out_to_everyone() {
    let limit = Limit::start("fanout --frame-in 26 --frame-out 22");
    let target: &loadtest::target::Target = &limit.url.parse().unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| open(target)).collect();
    let mut request = Vec::new();
    frame::push_client_frame(&mut request, frame::Opcode::Binary, &[7; 20], [1, 2, 3, 4]);
    clients[1].write_all(&request.repeat(2)).unwrap();
    for client in &mut clients {
        let mut replies = [0; 44];
        client.read_exact(&mut replies).unwrap();
        assert_eq!(replies[..2], [0x82, 20]);
        assert_eq!(replies[..22], replies[22..]);
    }
}

#[test]
fn storm_counts_handshakes() {
    for command in ["connect", "echo --frame-in 26 --frame-out 22"] {
        let limit = Limit::start(command);
        let arguments = format!(
            "--connections 10 --warmup 50ms --duration 300ms --server-pid {}",
            limit.child.id()
        );
        let output = loadtest("connect", &limit.url, &arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("µs per handshake"), "{text}");
    }
}

#[test]
fn idle_connections_are_weighed() {
    let limit = Limit::start("echo --frame-in 26 --frame-out 22");
    let output = loadtest(
        "idle",
        &limit.url,
        &format!(
            "--connections 1000 --warmup 0s --duration 100ms --server-pid {}",
            limit.child.id()
        ),
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("200 → 1000 idle connections") && text.contains("private/conn"),
        "{text}"
    );
}

#[test]
fn absent_server_is_one_line_and_status_2() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for command in ["echo", "connect"] {
        let output = loadtest(command, &format!("ws://{unused}/"), "");
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            error,
            format!("loadtest: no server at {unused}: Connection refused (os error 111)\n")
        );
    }
}

/// An honest echo server for messages of 20 bytes, except that it changes the `lie_at`th byte it sends.
fn lying_server(lie_at: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || echo_until_closed(stream.unwrap(), lie_at));
        }
    });
    url
}

fn echo_until_closed(mut stream: TcpStream, lie_at: usize) -> Option<()> {
    let mut head = Vec::new();
    while handshake::head_len(&head).is_none() {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let key = handshake::field(&head, "Sec-WebSocket-Key")?;
    stream.write_all(&handshake::response(key)).ok()?;

    let (mut request, mut reply, mut sent) = ([0; 26], Vec::new(), 0);
    loop {
        stream.read_exact(&mut request).ok()?;
        let payload: Vec<u8> = (0..20)
            .map(|index| request[6 + index] ^ request[2 + index % 4])
            .collect();
        reply.clear();
        frame::push_server_frame(&mut reply, frame::Opcode::Binary, &payload);
        if (sent..sent + reply.len()).contains(&lie_at) {
            reply[lie_at - sent] ^= 1;
        }
        sent += reply.len();
        stream.write_all(&reply).ok()?;
    }
}

#[test]
fn honest_server_passes_verification() {
    let (status, report) = echo_report(
        &lying_server(usize::MAX),
        "--verify --connections 2 --in-flight 8",
    );
    assert_eq!(status, Some(0), "{report:#}");
    assert!(
        report["counted"]["messages"].as_u64().unwrap() > 100,
        "{report:#}"
    );
}

#[test]
fn single_wrong_byte_is_caught_by_verification() {
    let (status, report) = echo_report(
        &lying_server(22 * 150 + 13),
        "--verify --connections 2 --in-flight 8",
    );
    assert_eq!(status, Some(1));
    assert_eq!(report["failures"]["counts"]["corrupt"], 2, "{report:#}");
    let first = report["failures"]["first"].as_str().unwrap();
    assert!(first.contains("byte 13 of a reply"), "{first}");
}

#[test]
fn wrong_byte_in_a_first_reply_is_caught_by_sampling() {
    let (status, report) = echo_report(&lying_server(21), "--connections 2");
    assert_eq!(status, Some(1));
    assert_eq!(report["failures"]["counts"]["corrupt"], 2, "{report:#}");
}
