//! The response to a client's opening handshake, whole and byte by byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stentor::protocol::{ClientHandshake, HandshakeError};

/// The status and the bytes that belong to it, or the error.
fn outcome(
    input: &[u8],
    ends: impl Iterator<Item = usize>,
) -> Result<Option<(u16, usize)>, HandshakeError> {
    let mut client = ClientHandshake::new(*b"sixteen byte key");
    let request = client.write_request("a", "/", &["chat"], &[], &mut Vec::new());
    request.expect("a good host and a good target");
    let mut start = 0;
    for end in ends {
        let (consumed, response) = client.receive(&input[start..end])?;
        start += consumed;
        if let Some(response) = response {
            return Ok(Some((response.status(), start)));
        }
    }
    Ok(None)
}

fuzz_target!(|input: &[u8]| {
    let bytewise = outcome(input, 1..=input.len());
    assert_eq!(outcome(input, [input.len()].into_iter()), bytewise);
});
