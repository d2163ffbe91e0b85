//! Where a server listens, and how many it lets in.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use stentor::{BindError, Cause, Config, Endpoint, Server};

use crate::support::{App, Client, Echo, PATIENCE, masked, serve, upgrade_request};

/// A path for a unix socket that goes with the value.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        let name = format!("stentor-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.0.clone())
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn bind(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Server<App>, BindError> {
    Server::bind(Config::listen(endpoints), App::default())
}

/// Opens a WebSocket through a unix socket and says something.
fn echo_through(path: &Path, text: &str) {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(upgrade_request("/").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    socket.write_all(&masked(0x81, text.as_bytes())).unwrap();
    let mut frame = vec![0; 2 + text.len()];
    socket.read_exact(&mut frame).unwrap();
    assert_eq!(&frame[2..], text.as_bytes());
}

#[test]
fn one_server_listens_at_several_endpoints() {
    let path = SocketPath::new("several");
    let app = App::default().on_message(|ctx, text| {
        let is_local = ctx.peer_addr().is_none();
        assert_eq!(is_local, text == "unix");
        ctx.send(text);
    });
    let second = "127.0.0.1:0".parse().unwrap();
    let mut endpoints = vec![second, path.endpoint()];
    // Not every machine has it.
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if has_ipv6 {
        endpoints.push("[::1]:0".parse().unwrap());
    }
    let mut config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
    config.listen.extend(endpoints);
    let server = Server::bind(config, app).unwrap();
    let listens = server.endpoints();
    let handle = server.handle();
    let thread = std::thread::spawn(move || server.run().unwrap());
    for endpoint in &listens {
        match endpoint {
            Endpoint::Tcp(address) => {
                assert_ne!(address.port(), 0);
                let mut client = Client::open(*address, "/");
                client.say("tcp");
                assert_eq!(client.hear(), "tcp");
            }
            Endpoint::Unix(path) => echo_through(path, "unix"),
        }
    }
    handle.stop().unwrap();
    let app = thread.join().unwrap();
    assert_eq!(app.opened.len(), listens.len());
    assert_eq!(listens.len(), 3 + usize::from(has_ipv6));
}

#[test]
fn the_file_of_a_unix_socket_goes_with_the_server() {
    let path = SocketPath::new("goes");
    let at_path = path.endpoint();
    let server = serve(Echo, |config| config.listen.push(at_path));
    echo_through(&path.0, "hello");
    assert!(path.0.exists());
    server.handle.shut_down().unwrap();
    server.finish();
    assert!(!path.0.exists());
}

#[test]
fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
    let path = SocketPath::new("stale");
    drop(UnixListener::bind(&path.0).unwrap()); // Leaves the file behind.
    let server = bind([path.endpoint()]).unwrap();
    let error = bind([path.endpoint()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "listen: unix:{} is in use; stop who listens there or take another",
            path.0.display()
        )
    );
    // The one that failed has left the other's file alone.
    UnixStream::connect(&path.0).unwrap();
    drop(server);
    assert!(!path.0.exists());
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let path = SocketPath::new("file");
    fs::write(&path.0, "precious").unwrap();
    assert!(matches!(
        bind([path.endpoint()]),
        Err(BindError::Listen(..))
    ));
    assert_eq!(fs::read_to_string(&path.0).unwrap(), "precious");
}

#[test]
fn an_endpoint_that_fails_takes_those_before_it_along() {
    let path = SocketPath::new("before");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind([path.endpoint(), address.into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("listen: {address} is in use; stop who listens there or take another")
    );
    assert!(!path.0.exists());
}

#[test]
fn a_server_without_an_endpoint_says_what_would_be_one() {
    let error = bind([]).unwrap_err().to_string();
    assert_eq!(
        error,
        "listen: no address is given; 127.0.0.1:9001 is a good first one"
    );
}

#[test]
fn an_address_of_another_machine_is_named() {
    // TEST-NET-1 (RFC 5737) is nobody's.
    let error = bind(["192.0.2.1:9001".parse().unwrap()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "listen: 192.0.2.1:9001 is no address of this machine"
    );
}

#[test]
fn a_port_can_be_taken_again_at_once() {
    let server = serve(Echo, |_| ());
    let address = server.address;
    let mut client = server.connect();
    // The server ends the connection first, so the kernel remembers it on this side.
    server.stop();
    client.read_to_end();
    drop(client);
    let successor = bind([address.into()]).unwrap();
    assert_eq!(successor.endpoints(), [Endpoint::Tcp(address)]);
}

#[test]
fn cat_132_one_connection_too_many_is_turned_away_until_another_one_ends() {
    let server = serve(App::default(), |config| config.limits.max_connections = 2);
    let (mut clients, _) = server.connect_many::<2>();
    let held = server.stand_still();
    let mut third = Client::raw(server.address);
    third.send(upgrade_request("/").as_bytes());
    drop(held);
    // The FIN behind the answer comes before the reset for the request that nobody read.
    let mut answer = String::new();
    third.socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nToo many connections.\n"),
        "{answer}"
    );

    let stats = server.ask(|_, ctx| ctx.stats().clone());
    assert_eq!((stats.accepted, stats.rejected_full), (2, 1));
    clients[0].frame(0x88, b"");
    clients[0].read_to_end();
    clients[0].finish_sending();
    server.wait_until("a slot is free", |_, ctx| ctx.connection_count() == 1);
    let mut fourth = server.connect();
    fourth.hears_nothing_more();
    clients[1].hears_nothing_more();
    let app = server.stop();
    assert_eq!(app.faults, ["Full"]);
    assert_eq!(app.ended[0].cause, Cause::Peer);
}

#[test]
fn more_clients_at_once_than_a_turn_accepts_all_come_in() {
    let server = serve(App::default(), |config| config.limits.accept_budget = 3);
    let held = server.stand_still();
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Client::raw(server.address);
        client.send(upgrade_request("/").as_bytes());
        clients.push(client);
    }
    drop(held);
    for client in &mut clients {
        assert!(client.head().starts_with("HTTP/1.1 101 "));
    }
    assert_eq!(server.ask(|app, _| app.opened.len()), 50);
}
