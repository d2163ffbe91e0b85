//! Load generator for WebSocket servers.

fn main() {}
