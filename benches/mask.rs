//! Unmasking (RFC 6455 §5.3) as a server meets it: message after message in one receive buffer, at
//! odd addresses.

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stentor::protocol::mask::{MaskingKey, apply_mask, apply_mask_ascii};

const KEY: MaskingKey = [0x37, 0xfa, 0x21, 0x3d];
const LENGTHS: [usize; 17] = [
    1,
    4,
    5,
    8,
    12,
    16,
    19,
    20,
    31,
    33,
    125,
    126,
    1024,
    16_384,
    65_535,
    65_536,
    1 << 20,
];

/// What a loop receives at once.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// More lengths than a branch predictor learns by heart.
const VARIED_BUFFER: usize = 1 << 20;

/// The payloads of masked frames that follow one another, as many as fit, and at least one.
fn payloads(
    lengths: impl IntoIterator<Item = usize>,
    capacity: usize,
) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut ranges = Vec::new();
    let mut end = 0;
    for len in lengths {
        let start = end + if len < 126 { 6 } else { 8 };
        if !ranges.is_empty() && start + len > capacity {
            break;
        }
        end = start + len;
        ranges.push(start..end);
    }
    (vec![b'a'; end], ranges)
}

/// Lengths of 0 to 32 bytes in no order.
fn varied() -> impl Iterator<Item = usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize % 33
    })
}

type Mask = fn(&mut [u8], MaskingKey);

/// Called through a pointer, none of them gains from the loop that measures it.
fn functions() -> [(&'static str, Mask); 3] {
    [
        ("plain", |payload, key| apply_mask(payload, key, 0)),
        ("ascii", |payload, key| {
            black_box(apply_mask_ascii(payload, key, 0));
        }),
        ("bytewise", |payload, key| {
            payload
                .iter_mut()
                .enumerate()
                .for_each(|(i, byte)| *byte ^= key[i % 4]);
        }),
    ]
}

fn mask(c: &mut Criterion) {
    for (name, function) in functions() {
        let mut group = c.benchmark_group(format!("mask/{name}"));
        let equal = LENGTHS.map(|len| {
            (
                len.to_string(),
                payloads(std::iter::repeat(len), RECEIVE_BUFFER),
            )
        });
        let varied = ("varied".to_owned(), payloads(varied(), VARIED_BUFFER));
        for (label, (mut buffer, ranges)) in equal.into_iter().chain([varied]) {
            group.throughput(Throughput::Bytes(
                ranges.iter().map(|range| range.len() as u64).sum(),
            ));
            group.bench_function(BenchmarkId::from_parameter(label), |b| {
                b.iter(|| {
                    for range in &ranges {
                        black_box(function)(&mut buffer[range.clone()], black_box(KEY));
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = mask
}
criterion_main!(benches);
