//! The sans-IO protocol core: RFC 6455 from bytes to events and back, with no socket and no clock.

pub mod error;
pub mod handshake;
pub mod http;
pub mod mask;
pub mod utf8;
