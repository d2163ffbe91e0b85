//! What other libraries take for the same bytes: `cargo bench`, and `./table` puts the times side by side.

#[path = "../../texts/mod.rs"]
mod texts;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use fastwebsockets::{Frame, Payload};
use stentor::protocol::mask::apply_mask;
use stentor::protocol::utf8::Utf8Validator;
use stentor_peers::{Client, Fastwebsockets, Kind, Server, Stentor, Stream, Tungstenite, check};
use texts::{TEXTS, repeated};
use tungstenite::{Bytes, Utf8Bytes};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const LENGTHS: [usize; 6] = [20, 125, 1024, 16_384, 65_536, 1 << 20];

const FRAGMENT: usize = 1024;

/// fastwebsockets leaves longer payloads where they are and sends them vectored. Memory cannot say what that is
/// worth, since it reads no reply; `limit echo --vectored` can.
const REPLY_LENGTHS: [usize; 3] = [20, 125, 1024];

/// tungstenite keeps its function private. fastwebsockets has the same one, and says that it came from there.
fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for len in LENGTHS {
        let masked: Vec<u8> = (0..len).map(|index| index as u8 ^ KEY[index % 4]).collect();
        let plain: Vec<u8> = (0..len).map(|index| index as u8).collect();
        measure(&mut group, Stentor::NAME, len, {
            let mut payload = masked.clone();
            apply_mask(&mut payload, KEY, 0);
            assert_eq!(payload, plain, "stentor unmasks");
            move || apply_mask(black_box(&mut payload), black_box(KEY), 0)
        });
        measure(&mut group, Fastwebsockets::NAME, len, {
            let mut payload = masked;
            fastwebsockets::unmask(&mut payload, KEY);
            assert_eq!(payload, plain, "fastwebsockets unmasks");
            move || fastwebsockets::unmask(black_box(&mut payload), black_box(KEY))
        });
    }
    group.finish();
}

/// Whether a whole message is text, as each library asks it.
fn utf8(c: &mut Criterion) {
    for (name, text) in &TEXTS[..2] {
        let mut group = c.benchmark_group(format!("utf8, {name}"));
        for len in LENGTHS {
            let payload = Bytes::from(repeated(text, len).into_bytes());
            let bad = Bytes::from([&payload[..], b"\xff"].concat());
            let ours = |payload: &Bytes| {
                let mut validator = Utf8Validator::default();
                validator.push(payload).is_ok() && validator.finish().is_ok()
            };
            let tungstenite = |payload: &Bytes| Utf8Bytes::try_from(payload.clone()).is_ok();
            let fast = |payload: &Bytes| Frame::text(Payload::Borrowed(payload)).is_utf8();
            assert!(ours(&payload) && tungstenite(&payload) && fast(&payload));
            assert!(!ours(&bad) && !tungstenite(&bad) && !fast(&bad));
            measure(&mut group, Stentor::NAME, len, || ours(black_box(&payload)));
            measure(&mut group, Tungstenite::NAME, len, || {
                tungstenite(black_box(&payload))
            });
            measure(&mut group, Fastwebsockets::NAME, len, || {
                fast(black_box(&payload))
            });
        }
        group.finish();
    }
}

/// From a client's bytes to its messages; the read into the library's own buffer is part of it.
fn receive(c: &mut Criterion) {
    let mut group = c.benchmark_group("receive, binary");
    for len in LENGTHS {
        let stream = Stream::whole(Kind::Binary, &vec![0xA5; len]);
        receive_by_all(&mut group, len, &stream);
    }
    group.finish();
    for (name, text) in &TEXTS[..2] {
        let mut group = c.benchmark_group(format!("receive, {name}"));
        for len in LENGTHS {
            let stream = Stream::whole(Kind::Text, repeated(text, len).as_bytes());
            receive_by_all(&mut group, len, &stream);
        }
        group.finish();
    }
    let mut group = c.benchmark_group("receive, in fragments of 1 KiB");
    for len in [16_384, 1 << 20] {
        let stream = Stream::fragmented(&vec![0xA5; len], FRAGMENT);
        receive_by_all(&mut group, len, &stream);
    }
    group.finish();
}

fn receive_by_all(group: &mut BenchmarkGroup<'_, WallTime>, len: usize, stream: &Stream) {
    receive_by::<Stentor>(group, len, stream);
    receive_by::<Tungstenite>(group, len, stream);
    receive_by::<Fastwebsockets>(group, len, stream);
}

fn receive_by<S: Server>(group: &mut BenchmarkGroup<'_, WallTime>, len: usize, stream: &Stream) {
    check::<S>(stream);
    let mut server = S::accept(Client::new(stream));
    measure(group, S::NAME, len, move || {
        server.receive(|_, payload| {
            black_box(payload);
        });
    });
}

/// One reply, written out by itself.
fn reply(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply");
    for len in REPLY_LENGTHS {
        reply_by::<Stentor>(&mut group, len);
        reply_by::<Tungstenite>(&mut group, len);
        reply_by::<Fastwebsockets>(&mut group, len);
    }
    group.finish();
}

fn reply_by<S: Server>(group: &mut BenchmarkGroup<'_, WallTime>, len: usize) {
    let stream = Stream::whole(Kind::Binary, b"anything");
    check::<S>(&stream);
    let mut server = S::accept(Client::new(&stream));
    let payload = S::Payload::from(vec![0xA5; len]);
    measure(group, S::NAME, len, move || {
        server.reply(black_box(&payload));
    });
}

fn measure<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    library: &str,
    len: usize,
    mut once: impl FnMut() -> T,
) {
    group.throughput(Throughput::Bytes(len as u64));
    group.bench_function(BenchmarkId::new(library, len), |b| b.iter(&mut once));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = unmask, utf8, receive, reply
}
criterion_main!(benches);
