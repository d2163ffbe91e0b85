//! Frames for either role, with any limits, cut in any way.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use stentor::protocol::{Role, Settings};

#[path = "../../tests/feeding.rs"]
#[allow(dead_code)]
mod feeding;

fuzz_target!(|input: (bool, bool, u16, u16, Vec<u8>, &[u8])| {
    let (is_server, accept_non_minimal_lengths, max_size, in_place, cuts, stream) = input;
    let settings = Arc::new(Settings {
        max_message_size: max_size.into(),
        max_frame_in_place: in_place.into(),
        max_fragments: 8,
        accept_non_minimal_lengths,
        ..Settings::default()
    });
    let role = if is_server {
        Role::Server
    } else {
        Role::Client
    };
    let lengths: Vec<usize> = cuts.into_iter().chain([255]).map(usize::from).collect();
    feeding::outcome_of(role, &settings, stream, &lengths);
});
