//! The opening handshake (RFC 6455 §4): what a connection costs before its first message, without
//! the socket.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stentor::protocol::{
    Acceptance, Assembly, ClientHandshake, Connection, Event, Settings, accept_key,
};

/// As Chromium sends it to a page's own server.
const BROWSER: &[u8] = b"GET /t/lobby HTTP/1.1\r\n\
    Host: 127.0.0.1:9001\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/156.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: http://127.0.0.1:9001\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\
    Cookie: session=d6f3a1c0b7e94c52\r\n\
    Sec-WebSocket-Key: 9fM5pPdP3p/4z9H77DMF4w==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// As small programs send it.
const PLAIN: &[u8] = b"GET / HTTP/1.1\r\n\
    Host: 127.0.0.1:9001\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: 9fM5pPdP3p/4z9H77DMF4w==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

const NONCE: [u8; 16] = *b"sixteen byte key";

/// What all connections of a loop share, and the buffers that they borrow.
struct Loop {
    settings: Arc<Settings>,
    request: Vec<u8>,
    assembly: Assembly,
    output: Vec<u8>,
}

impl Loop {
    fn new(request: &[u8]) -> Self {
        Self {
            settings: Arc::default(),
            request: request.to_vec(),
            assembly: Assembly::new(),
            output: Vec::with_capacity(1024),
        }
    }

    /// Parses the request, which comes in pieces that end at `ends`, judges it and writes the 101.
    fn accept(&mut self, ends: impl IntoIterator<Item = usize>) -> usize {
        self.output.clear();
        let mut connection = Connection::server(Arc::clone(&self.settings));
        for end in ends {
            let input = &mut self.request[..end];
            let (_, event) = connection.receive(input, &mut self.assembly, &mut self.output);
            match event {
                None => {}
                Some(Event::Request(request)) => connection
                    .accept(&request, &Acceptance::new(), &mut self.output)
                    .expect("the request is an upgrade"),
                Some(event) => panic!("a request, not {event:?}"),
            }
        }
        assert!(connection.is_open(), "the handshake is complete");
        black_box(&self.output).len()
    }
}

fn server(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshake/server");
    for (name, request) in [("browser", BROWSER), ("plain", PLAIN)] {
        let end = request.len();
        let mut shared = Loop::new(request);
        group.throughput(Throughput::Bytes(end as u64));
        group.bench_function(name, |b| b.iter(|| shared.accept([end])));
        group.bench_function(format!("{name} in two"), |b| {
            b.iter(|| shared.accept([end / 2, end]));
        });
        group.bench_function(format!("{name} byte by byte"), |b| {
            b.iter(|| shared.accept(1..=end));
        });
    }
    group.finish();
}

fn client(c: &mut Criterion) {
    let mut client = ClientHandshake::new(NONCE);
    let mut request = Vec::new();
    client
        .write_request("localhost", "/", &[], &[], &mut request)
        .expect("the arguments make a request");
    let end = request.len();
    let mut shared = Loop::new(&request);
    shared.accept([end]);
    let response = shared.output;
    c.bench_function("handshake/client", |b| {
        b.iter(|| {
            let mut client = ClientHandshake::new(black_box(NONCE));
            request.clear();
            client
                .write_request("localhost", "/", &[], &[], &mut request)
                .expect("the arguments make a request");
            client.receive(&response).expect("the response accepts")
        });
    });
}

fn key(c: &mut Criterion) {
    c.bench_function("handshake/accept_key", |b| {
        b.iter(|| accept_key(black_box(b"9fM5pPdP3p/4z9H77DMF4w==")));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = server, client, key
}
criterion_main!(benches);
