//! stentor: a WebSocket server.

pub mod protocol;
pub mod ring;
mod server;
pub mod topic;

pub use protocol::{CloseCode, CloseFrame, Message, MessageKind};
pub use server::{
    Accept, BindError, Cause, Closed, Config, ConfigError, ConnectionId, Context, Endpoint, Fault,
    Handle, HandleError, Handler, Limits, Refused, Sent, Server, Stats, SubscribeError, Timeouts,
};
