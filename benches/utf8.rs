//! UTF-8 validation of text messages (RFC 6455 §8.1): whole, and in chunks that split code points.

mod texts;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stentor::protocol::utf8::Utf8Validator;
use texts::{TEXTS, repeated};

const LENGTHS: [usize; 9] = [8, 20, 125, 126, 1024, 16_384, 65_535, 65_536, 1 << 20];

/// What one read of a loop delivers of a message that is longer.
const CHUNK: usize = 65_536;

/// Not a multiple of any width of a code point.
const SMALL_CHUNK: usize = 1021;

/// At most `len` bytes of the text, at an odd address.
fn message(text: &str, len: usize) -> Vec<u8> {
    [b"-", repeated(text, len).as_bytes()].concat()
}

fn is_valid(message: &[u8], chunk: usize) -> bool {
    let mut validator = Utf8Validator::default();
    message
        .chunks(chunk)
        .all(|chunk| validator.push(chunk).is_ok())
        && validator.finish().is_ok()
}

fn whole(c: &mut Criterion) {
    for (name, text) in TEXTS {
        let mut group = c.benchmark_group(format!("utf8/{name}"));
        for len in LENGTHS {
            let message = message(text, len);
            group.throughput(Throughput::Bytes(message.len() as u64 - 1));
            group.bench_with_input(
                BenchmarkId::from_parameter(len),
                &message[1..],
                |b, message| {
                    b.iter(|| is_valid(black_box(message), CHUNK));
                },
            );
        }
        group.finish();
    }
}

fn chunked(c: &mut Criterion) {
    let mut group = c.benchmark_group("utf8/chunked");
    for (name, text) in TEXTS {
        let message = message(text, 65_536);
        group.throughput(Throughput::Bytes(message.len() as u64 - 1));
        group.bench_with_input(
            BenchmarkId::from_parameter(name),
            &message[1..],
            |b, message| {
                b.iter(|| is_valid(black_box(message), SMALL_CHUNK));
            },
        );
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = whole, chunked
}
criterion_main!(benches);
