//! stentor: a WebSocket server.

pub mod protocol;
pub mod ring;
pub mod topic;
