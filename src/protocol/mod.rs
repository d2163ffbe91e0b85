//! The sans-IO protocol core: RFC 6455 from bytes to events and back, with no socket and no clock.
//!
//! ```text
//!             ┌────────────── Connection ──────────────┐
//! input ─────▶│ http, handshake  ─▶  frame, mask, utf8 │─────▶ Event, lent from input or assembly
//! assembly ──▶│   Connecting         Open … Closed     │─────▶ output (replies, sends)
//!             └────────────────────────────────────────┘
//! ```
//!
//! [`Connection`] is the whole of it; the modules are its parts for those who want less. It is
//! driven by a server's loop as well as by tests, fuzzers and clients: `examples/sans_io.rs` does it
//! with two buffers.

pub mod close;
pub mod connection;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod http;
mod incoming;
pub mod mask;
pub mod message;
pub mod utf8;

pub use self::close::{CloseCode, CloseFrame};
pub(crate) use self::connection::write_unmasked_frame_of;
pub use self::connection::{
    Connection, Event, Role, Settings, State, write_masked_frame, write_unmasked_frame,
};
pub use self::error::{HandshakeError, ProtocolError, UsageError};
pub use self::frame::{FrameHeader, Opcode};
pub use self::handshake::{Acceptance, ClientHandshake, HandshakeResponse, accept_key};
pub use self::message::{Assembly, Message, MessageKind};
