//! The program `stentor` as its users meet it: its output, its pages, its signals, its exit codes.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use crate::process::{
    Client, Process, Socket, connect, hear, http, read_close, say, tcp, try_connect,
};
use crate::support::{self, PATIENCE, masked};

const FREE_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];

fn stentor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stentor"));
    command.args(arguments);
    command
}

/// Starts the program on a free port.
fn start(arguments: &[&str]) -> (Process, SocketAddr) {
    let process = Process::start(stentor(&FREE_PORT).args(arguments));
    let address = process.address();
    (process, address)
}

/// Runs the program, which refuses to start, and answers its one line.
fn refusal(command: &mut Command) -> String {
    let (status, stdout, stderr) = Process::start(command).wait();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

fn signal(process: &Process, signal: Signal) {
    let id = i32::try_from(process.id()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
}

// ---- start ----

#[test]
fn the_addresses_to_open_are_printed() {
    let listen = ["--listen", "127.0.0.1:0"];
    let process = Process::start(stentor(&["serve"]).args(FREE_PORT).args(listen));
    for _ in 0..2 {
        let line = process.line();
        let (_, port) = line.split_once("http://127.0.0.1:").unwrap();
        let port = &port[..port.find('/').unwrap()];
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            line,
            format!(
                "stentor {version} serves http://127.0.0.1:{port}/ and ws://127.0.0.1:{port}/t/NAME \
                 (publish: anyone, subscribe: anyone)"
            )
        );
        assert_ne!(port, "0");
    }
}

#[test]
fn a_wrong_value_is_one_line_with_its_key_and_the_remedy() {
    for (arguments, key, remedy) in [
        (&["--idle-timeout", "25"][..], "idle-timeout", "25s"),
        (&["echo", "--listen", "9001"], "listen", "127.0.0.1:9001"),
        (&["--max-message-size=64k"], "max-message-size", "64KiB"),
        (&["--outbox-soft", "9MiB"], "outbox-soft", "smaller"),
        (
            &["--max-conections", "9"],
            "--max-conections",
            "--max-connections",
        ),
        (
            &["--namespace", "chat: presense=yes"],
            "namespace",
            "`presence` meant?",
        ),
        (&["--publish", "all"], "publish", "anyone, nobody"),
        (
            &["--max-connections", "999999999999"],
            "max-connections",
            "ulimit",
        ),
    ] {
        let line = refusal(&mut stentor(arguments));
        assert!(line.starts_with(&format!("stentor: {key}: ")), "{line}");
        assert!(line.contains(remedy), "{line}");
    }
}

#[test]
fn a_port_in_use_is_one_line() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let line = refusal(&mut stentor(&["--listen", &address]));
    assert!(line.starts_with("stentor: listen: "), "{line}");
    assert!(line.contains(&address) && line.contains("in use"), "{line}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let (status, stdout, stderr) = Process::start(&mut stentor(&["--help"])).wait();
    assert!(status.success() && stderr.is_empty());
    for part in ["Examples:", "--max-message-size <SIZE>", "STENTOR_LOG"] {
        assert!(stdout.contains(part), "{part}");
    }
    let (status, stdout, _) = Process::start(&mut stentor(&["--version"])).wait();
    assert!(status.success());
    assert_eq!(stdout, concat!("stentor ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn variables_of_the_environment_are_flags() {
    // `Process` removes the variables of the tests' own environment; `env` sets them behind that.
    let with = |variable: &str| {
        let mut command = Command::new("env");
        command.args([variable, env!("CARGO_BIN_EXE_stentor")]);
        command
    };
    let line = refusal(&mut with("STENTOR_PONG_TIMEOUT=soon"));
    assert!(line.contains("pong-timeout: `soon`"), "{line}");
    let process = Process::start(with("STENTOR_LISTEN=127.0.0.1:0,127.0.0.1:0").arg("echo"));
    assert_ne!(process.address(), process.address());
    // A flag goes before its variable.
    let process = Process::start(
        with("STENTOR_LISTEN=192.0.2.1:1")
            .arg("echo")
            .args(FREE_PORT),
    );
    process.address();
}

#[test]
fn the_limit_of_open_files_is_raised_and_bounds_the_connections() {
    let limited = |script: &str| {
        let script = format!("{script}; exec \"$0\" \"$@\" --listen 127.0.0.1:0");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_stentor")]);
        command
    };
    let raised = "ulimit -Sn 128 && ulimit -Hn 512";
    Process::start(limited(raised).args(["--max-connections", "448"])).address();
    let line = refusal(limited(raised).args(["--max-connections", "449"]));
    assert!(line.starts_with("stentor: max-connections: 449 "), "{line}");
    assert!(line.contains("448"), "{line}");
    let line = refusal(&mut limited("ulimit -n 40"));
    assert!(line.contains("ulimit -n"), "{line}");
}

// ---- the configuration file ----

/// A file that is removed at its end.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("stentor-{}-{name}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn all_that_is_wrong_in_a_file_is_told_by_its_lines() {
    let file = TemporaryFile::new(
        "wrong",
        "[client]\nallowed_origin = []\n\n[client.token]\nhmac_secret_key = 7\n\
         [[channel.namespaces]]\nname = \"chat\"\nhistory_size = 10\n",
    );
    let path = file.path();
    for command in ["check", "serve"] {
        let command = &mut stentor(&[command, "--config", path]);
        let (status, stdout, stderr) = Process::start(command).wait();
        assert_eq!((status.code(), &*stdout), (Some(2), ""));
        let expected = [
            "2: client.allowed_origin: is no key; is `allowed_origins` meant?",
            "5: client.token.hmac_secret_key: is a number; write a text, as in \"…\"",
            "8: channel.namespaces[0].history_size: nothing is kept without a time; add \
             history_ttl, such as 10m",
        ];
        let expected = expected.map(|line| format!("stentor: {path}:{line}\n"));
        assert_eq!(stderr, expected.concat());
    }
    let line = refusal(&mut stentor(&["--config", "/there is none"]));
    assert!(
        line.starts_with("stentor: config: `/there is none` cannot be read: "),
        "{line}"
    );
}

#[test]
fn keys_and_backends_that_cannot_be_used_are_one_line() {
    for (name, text, start) in [
        (
            "key",
            "client.token.rsa_public_key = 'x'",
            "client.token.rsa_public_key: ",
        ),
        (
            "backend",
            "channel.proxy.publish.endpoint = 'x'",
            "channel.proxy.publish.endpoint: ",
        ),
        (
            "own-key",
            "[client]\ntoken.hmac_secret_key = 'x'\n\
             subscription_token = { enabled = true, ecdsa_public_key = 'x' }",
            "client.subscription_token.ecdsa_public_key: ",
        ),
    ] {
        let file = TemporaryFile::new(name, text);
        let line = refusal(&mut stentor(&["check", "--config", file.path()]));
        assert!(line.starts_with(&format!("stentor: {start}")), "{line}");
    }
}

#[test]
fn the_example_of_a_file_is_good_once_its_variables_are_set() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stentor.toml");
    let check = || stentor(&["check", "--config", example]);
    let (status, _, stderr) = Process::start(&mut check()).wait();
    assert_eq!(status.code(), Some(2));
    for (line, name) in stderr.lines().zip(["TOKEN_SECRET", "API_KEY"]) {
        assert!(
            line.contains(&format!("the variable {name} is not set")),
            "{line}"
        );
    }
    let mut command = check();
    let command = command.env("TOKEN_SECRET", "secret").env("API_KEY", "key");
    let (status, stdout, stderr) = Process::start(command).wait();
    assert!(status.success() && stderr.is_empty(), "{stderr}");
    assert_eq!(stdout, "OK\n");
}

#[test]
fn sighup_has_the_file_read_again_and_a_wrong_one_changes_nothing() {
    let rules = |publish: &str| format!("[channel.without_namespace]\npublish = \"{publish}\"\n");
    let file = TemporaryFile::new("reload", &rules("anyone"));
    let (process, address) = start(&["--config", file.path()]);
    let mut client = connect(address, "/t/a");
    let status = || http(address, "POST", "/t/a")[9..12].to_owned();
    assert_eq!(status(), "200");
    assert_eq!(hear(&mut client), "");

    file.write(&rules("nobody"));
    signal(&process, Signal::HUP);
    process.log_line("read the configuration again");
    assert_eq!(status(), "403");

    let more = "[[channel.namespaces]]\nname = \"chat\"\n".to_owned();
    let key = "client.token.rsa_public_key = \"x\"\n".to_owned();
    for (text, problem) in [
        (rules("all"), "anyone, nobody"),
        (more + &rules("anyone"), "namespaces come"),
        (key + &rules("anyone"), "rsa_public_key"),
    ] {
        file.write(&text);
        signal(&process, Signal::HUP);
        let line = process.log_line("keeps the configuration");
        assert!(line.contains(problem), "{line}");
        assert_eq!(status(), "403");
    }

    file.write(&rules("anyone"));
    signal(&process, Signal::HUP);
    process.log_line("read the configuration again");
    assert_eq!(status(), "200");
    assert_eq!(hear(&mut client), "");
}

// ---- serving ----

#[test]
fn messages_over_http_have_the_limit_that_a_flag_says() {
    const FLOOD: usize = 20;
    for (limit, has_refusals) in [("1", true), ("0", false)] {
        let (_process, address) = start(&["--max-posts-per-ip", limit]);
        let mut socket = tcp(address);
        let request = "POST /t/a HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx";
        let last = "GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        let requests = request.repeat(FLOOD) + last;
        socket.write_all(requests.as_bytes()).unwrap();
        let mut answers = String::new();
        socket.read_to_string(&mut answers).unwrap();
        let count = |status: &str| answers.matches(&format!("HTTP/1.1 {status} ")).count();
        assert_eq!(count("200") + count("429"), FLOOD + 1, "{answers}");
        assert_eq!(count("429") > 0, has_refusals, "{answers}");
    }
}

#[test]
fn those_in_one_topic_hear_each_other_and_themselves() {
    let (_process, address) = start(&[]);
    let mut anna = connect(address, "/t/news");
    let mut bert = connect(address, "/t/n%65ws?later=1");
    let mut carl = connect(address, "/t/News");
    let mut lobby = connect(address, "/");
    let mut lobby_by_name = connect(address, "/t/lobby");
    say(&mut anna, "from anna");
    say(&mut lobby, "to the lobby");
    say(&mut lobby_by_name, "by name");
    say(&mut carl, "from carl");
    for client in [&mut anna, &mut bert] {
        assert_eq!(hear(client), "from anna");
    }
    // Nothing came to the others before their own.
    assert_eq!(hear(&mut carl), "from carl");
    let said = [hear(&mut lobby), hear(&mut lobby)];
    assert!(said.contains(&"to the lobby".into()) && said.contains(&"by name".into()));

    let bytes = Message::binary(&b"\0\xFF"[..]);
    bert.send(bytes.clone()).unwrap();
    assert_eq!(anna.read().unwrap(), bytes);
    assert_eq!(bert.read().unwrap(), bytes);
}

#[test]
fn paths_that_name_no_topic_are_refused() {
    let (_process, address) = start(&[]);
    let too_long = format!("/t/{}", "x".repeat(256));
    for (path, status) in [
        ("/t/", 400),
        ("/t/%zz", 400),
        ("/t/a%0Ab", 400),
        (&too_long, 400),
        ("/t", 404),
        ("/chat", 404),
        ("/favicon.ico", 404),
    ] {
        assert_eq!(try_connect(address, path).err(), Some(status), "{path}");
    }
    connect(address, &too_long[..too_long.len() - 1]);
}

#[test]
fn more_topics_than_allowed_are_closed_with_1013() {
    let (_process, address) = start(&["--max-topics", "1"]);
    let mut first = connect(address, "/t/one");
    let mut other = connect(address, "/t/two");
    assert_eq!(read_close(&mut other).0, 1013);
    let mut second = connect(address, "/t/one");
    say(&mut second, "there is room in it");
    assert_eq!(hear(&mut first), "there is room in it");
}

#[test]
fn the_page_is_where_a_browser_looks_for_it() {
    let (_process, address) = start(&[]);
    for path in ["/", "/t/news"] {
        let page = http(address, "GET", path);
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.ends_with("</html>\n"));
        assert!(page.contains("\r\nContent-Security-Policy: default-src 'none'; "));
        let head = http(address, "HEAD", path);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"));
    }
    let status = |method, path| http(address, method, path)[9..12].to_owned();
    assert_eq!(status("GET", "/favicon.ico"), "204");
    assert_eq!(status("GET", "/index.php"), "404");
    assert_eq!(status("GET", "/t/%"), "400");
    let put = http(address, "PUT", "/");
    assert!(put.starts_with("HTTP/1.1 405 "), "{put}");
    assert!(
        put.contains("\r\nAllow: GET, HEAD, POST, OPTIONS\r\n"),
        "{put}"
    );
}

#[test]
fn a_message_of_64_kib_is_published_and_a_longer_one_is_closed_with_1009() {
    let (_process, address) = start(&[]);
    let mut client = connect(address, "/");
    say(&mut client, &"a".repeat(64 << 10));
    assert_eq!(hear(&mut client).len(), 64 << 10);
    say(&mut client, &"a".repeat((64 << 10) + 1));
    assert_eq!(read_close(&mut client).0, 1009);
}

#[test]
fn echo_returns_16_mib_in_one_frame_and_in_many() {
    let (_process, address) = start(&["echo"]);
    let config = WebSocketConfig::default().max_frame_size(None);
    let socket = Socket(tcp(address));
    let url = format!("ws://{address}/");
    let (mut client, _) =
        tungstenite::client::client_with_config(url, socket, Some(config)).unwrap();
    let large = Message::binary(vec![7; 16 << 20]);
    client.send(large.clone()).unwrap();
    assert!(client.read().unwrap() == large);

    // 4 MiB in fragments of 16 bytes.
    let mut client = support::Client::open(address, "/");
    let (count, part) = (4 << 16, [1; 16]);
    let mut frames = masked(0x02, &part);
    for _ in 2..count {
        frames.extend(masked(0x00, &part));
    }
    frames.extend(masked(0x80, &part));
    client.send(&frames);
    let (first, payload) = client.read_frame();
    assert_eq!((first, payload.len()), (0x82, count * 16));
}

#[test]
fn a_unix_socket_serves_and_is_removed() {
    let path = std::env::temp_dir().join(format!("stentor-program-{}.sock", std::process::id()));
    let endpoint = format!("unix:{}", path.display());
    let mut process = Process::start(&mut stentor(&["--listen", &endpoint]));
    let line = process.line();
    assert!(line.contains(&format!(" serves {endpoint} (")), "{line}");
    let socket = UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut client, _) = tungstenite::client("ws://localhost/t/a", socket).unwrap();
    client.send(Message::text("local")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("local"));
    drop(client);
    signal(&process, Signal::TERM);
    assert_eq!(process.wait().0.code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn ipv6_serves() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let process = Process::start(&mut stentor(&["--listen", "[::1]:0"]));
    let address = process.address();
    assert!(address.is_ipv6());
    let mut client = connect(address, "/");
    say(&mut client, "six");
    assert_eq!(hear(&mut client), "six");
}

// ---- the end ----

#[test]
fn a_signal_closes_everybody_with_1001_and_ends_well() {
    for by in [Signal::TERM, Signal::INT] {
        let (mut process, address) = start(&[]);
        let mut clients = [connect(address, "/"), connect(address, "/t/a")];
        let idle = tcp(address);
        signal(&process, by);
        for client in &mut clients {
            assert_eq!(read_close(client).0, 1001);
        }
        drop((clients, idle));
        let (status, _, stderr) = process.wait();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("stopped"), "{stderr}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    for (by, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (mut process, address) = start(&["--close-timeout", "1h", "--drain-timeout", "1h"]);
        let mut stubborn = support::Client::open(address, "/");
        signal(&process, by);
        assert_eq!(stubborn.read_close(), 1001);
        // It does not answer, and would be waited for.
        signal(&process, by);
        assert_eq!(process.wait().0.code(), Some(code));
    }
}

#[test]
fn the_drain_time_ends_the_wait_for_those_who_do_not_leave() {
    let (mut process, address) = start(&["--close-timeout", "1h", "--drain-timeout", "50ms"]);
    let mut stubborn = support::Client::open(address, "/");
    signal(&process, Signal::TERM);
    assert_eq!(stubborn.read_close(), 1001);
    assert_eq!(process.wait().0.code(), Some(0));
}

/// Ctrl-C while a publisher floods a topic: whoever is in it gets all that was published, in order
/// and without a gap, and then the Close frame.
#[test]
fn a_shutdown_under_load_loses_nothing_that_was_sent() {
    // Outboxes without an end: it is not the speed of the readers that is tested here.
    let outboxes = ["--outbox-soft", "64MiB", "--outbox-hard", "1GiB"];
    let (mut process, address) = start(&outboxes);
    let mut subscriber = connect(address, "/t/flood");
    let publisher = support::Client::open(address, "/t/flood").socket;
    let is_over = AtomicBool::new(false);
    let (heard, heard_by_publisher) = thread::scope(|scope| {
        let hearing = Socket(publisher.try_clone().unwrap());
        let publishing = scope.spawn(|| flood(&publisher, &is_over));
        let hearing = scope.spawn(|| {
            let mut client = WebSocket::from_raw_socket(hearing, Role::Client, None);
            let heard = hear_numbers(&mut client, || ());
            is_over.store(true, Ordering::Relaxed);
            heard
        });
        let interrupt = || signal(&process, Signal::INT);
        let heard = hear_numbers(&mut subscriber, interrupt);
        publishing.join().unwrap();
        (heard, hearing.join().unwrap())
    });
    assert_eq!(
        heard, heard_by_publisher,
        "both were in the topic all the time"
    );
    drop((subscriber, publisher));
    assert_eq!(process.wait().0.code(), Some(0));
}

/// Publishes 0, 1, 2, … until it is over.
fn flood(mut socket: &std::net::TcpStream, is_over: &AtomicBool) {
    let mut number = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        let mut frames = Vec::new();
        for _ in 0..64 {
            frames.extend(masked(0x81, number.to_string().as_bytes()));
            number += 1;
        }
        if socket.write_all(&frames).is_err() {
            break;
        }
    }
    let _ = socket.shutdown(Shutdown::Write);
}

/// Reads numbers in their order up to the Close frame; answers how many. `midway` is called after
/// the first thousands.
fn hear_numbers(client: &mut Client, midway: impl FnOnce()) -> u64 {
    let (mut next, mut midway) = (0_u64, Some(midway));
    loop {
        match client.read().unwrap() {
            Message::Text(number) => assert_eq!(number.as_str(), next.to_string()),
            Message::Close(frame) => {
                let code = frame.map(|CloseFrame { code, .. }| u16::from(code));
                assert_eq!(code, Some(1001));
                // The answer to the Close frame leaves with the next call.
                let _ = client.flush();
                return next;
            }
            Message::Ping(_) | Message::Pong(_) => continue,
            other => panic!("a number, not {other:?}"),
        }
        next += 1;
        if next == 5000
            && let Some(midway) = midway.take()
        {
            midway();
        }
    }
}

// ---- logs ----

#[test]
fn what_peers_write_is_escaped_in_logs() {
    let (process, address) = start(&["-v"]);
    let mut client = connect(address, "/t/%22[31m%22");
    let reason = "bye\r\nFORGED line\x1b[2J\u{9b}31m";
    let code = 4000.into();
    let reason = tungstenite::Utf8Bytes::from_static(reason);
    client.close(Some(CloseFrame { code, reason })).unwrap();
    while client.read().is_ok() {}
    let opened = process.log_line("opens");
    assert!(opened.contains(r#"target="/t/%22[31m%22""#), "{opened}");
    let closed = process.log_line("closed");
    assert!(closed.contains("code=4000"), "{closed}");
    assert!(
        closed.contains(r#"reason="bye\r\nFORGED line\u{1b}[2J\u{9b}31m""#),
        "{closed}"
    );
    assert!(!closed.contains(char::is_control), "{closed:?}");
}

#[test]
fn connections_are_logged_at_debug_only() {
    for (level, is_logged) in [("debug", true), ("info", false)] {
        let (mut process, address) = start(&["--log-level", level]);
        let mut client = connect(address, "/t/a");
        client.close(None).unwrap();
        while client.read().is_ok() {}
        drop(client);
        assert_eq!(try_connect(address, "/t/").err(), Some(400));
        signal(&process, Signal::TERM);
        let (_, _, stderr) = process.wait();
        for part in ["opens", "closed", "refused"] {
            assert_eq!(stderr.contains(part), is_logged, "{part}: {stderr}");
        }
        for part in ["listens", "SIGTERM", "stopped"] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
    }
}

#[test]
fn a_closed_standard_error_does_not_end_the_server() {
    let (reader, writer) = io::pipe().unwrap();
    let command = &mut stentor(&["-vv"]);
    let mut process = Process::start_with_stderr(command.args(FREE_PORT), writer.into());
    drop(reader);
    let address = process.address();
    for _ in 0..10 {
        let mut client = connect(address, "/");
        say(&mut client, "still here");
        assert_eq!(hear(&mut client), "still here");
    }
    signal(&process, Signal::TERM);
    assert_eq!(process.wait().0.code(), Some(0));
}

#[test]
fn a_full_standard_error_holds_nobody_up() {
    let (_full, writer) = io::pipe().unwrap();
    let command = &mut stentor(&["-vv"]);
    let mut process = Process::start_with_stderr(command.args(FREE_PORT), writer.into());
    // Each is a line of a hundred bytes: far more than pipe and queue take.
    let (count, request) = (10_000, "GET /favicon.ico HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut socket = tcp(process.address());
    let mut requests = socket.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            requests
                .write_all(request.repeat(count).as_bytes())
                .unwrap();
            requests.shutdown(Shutdown::Write).unwrap();
        });
        let mut responses = String::new();
        socket.read_to_string(&mut responses).unwrap();
        assert_eq!(responses.matches("HTTP/1.1 204 ").count(), count);
    });
    signal(&process, Signal::TERM);
    assert_eq!(process.wait().0.code(), Some(0));
}
