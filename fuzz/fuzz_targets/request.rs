//! Requests one after the other, whole and cut in two, byte by byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stentor::protocol::HandshakeError;
use stentor::protocol::http::{HttpLimits, RequestReader};

/// The requests, the error behind them, and what was sent.
type Outcome = (Vec<String>, Option<HandshakeError>, Vec<u8>);

/// Feeds what has arrived at each of `ends`.
fn outcome(input: &[u8], ends: impl Iterator<Item = usize>) -> Outcome {
    let limits = HttpLimits {
        max_head_size: 300,
        max_fields: 10,
        max_target_size: 100,
        max_body_size: 100,
    };
    let mut reader = RequestReader::default();
    let (mut start, mut requests, mut output) = (0, Vec::new(), Vec::new());
    for end in ends {
        loop {
            match reader.receive(&input[start..end], &limits, &mut output) {
                Err(error) => return (requests, Some(error), output),
                Ok((0, None)) => break,
                Ok((consumed, request)) => {
                    start += consumed;
                    requests.extend(request.map(|request| {
                        let fields: Vec<_> = request.headers().collect();
                        let line = (request.method(), request.target(), request.host());
                        format!("{line:?} {fields:?} {:?}", request.body())
                    }));
                }
            }
        }
    }
    (requests, None, output)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (split, input) = input;
    let bytewise = outcome(input, 1..=input.len());
    assert_eq!(outcome(input, [input.len()].into_iter()), bytewise, "whole");
    let split = usize::from(split).min(input.len());
    assert_eq!(
        outcome(input, [split, input.len()].into_iter()),
        bytewise,
        "in two"
    );
});
