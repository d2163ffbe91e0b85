//! Edge-triggered readiness: what an event announced and was not read at once is not forgotten.

use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Echo, PATIENCE, masked, serve};

/// Data and the end of the stream are one event. The budget ends the pass between them, and no
/// other event will come. The peer can still read what it is answered.
#[test]
fn the_end_of_a_stream_behind_a_used_up_budget_is_seen() {
    let server = serve(Echo, |config| {
        config.limits.receive_buffer = 4096;
        config.limits.read_budget = 4096;
        config.timeouts.idle = Duration::from_hours(1);
    });
    let mut client = server.connect();
    let (resume, paused) = mpsc::channel::<()>();
    let pause = move |_: &mut _, _: &mut stentor::Context<'_, ()>| {
        let _ = paused.recv_timeout(PATIENCE);
    };
    server.handle.run(pause).unwrap();
    for _ in 0..3 {
        client.send(&masked(0x82, &[7; 1500]));
    }
    client.finish_sending();
    drop(resume);
    for _ in 0..3 {
        assert_eq!(client.read_frame().1.len(), 1500);
    }
    assert_eq!(client.read_to_end(), b"");
}
