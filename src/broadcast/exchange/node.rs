//! Which server it is that answers.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

/// One run of the program.
#[derive(Debug)]
pub(in crate::broadcast) struct Node {
    /// Another one in each run.
    pub(in crate::broadcast) uid: String,
    pub(in crate::broadcast) started: Instant,
}

impl Default for Node {
    fn default() -> Self {
        // Its keys are random.
        let random = RandomState::new();
        let (high, low) = (random.hash_one(0), random.hash_one(1));
        Self {
            uid: format!("{high:016x}{low:016x}"),
            started: Instant::now(),
        }
    }
}
