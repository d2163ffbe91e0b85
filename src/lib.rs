//! stentor: a WebSocket server for very high connection counts.
//!
//! One epoll loop per thread holds a slab of connections. A connection that is idle owns its slab
//! entry and nothing else; what it receives is parsed, unmasked and lent to the application in the
//! buffer that all connections of the loop share; what a callback sends leaves in one system call,
//! and what is published to a topic is encoded once for all who hear it.
//!
//! ```text
//!        the program: flags, files, signals, logs                          (not in this library)
//!                                     │
//!            broadcast: topics by path and by protocol                     (feature `broadcast`)
//!                                     │
//!            Server, Handler, Context, Handle: the event loop              (mio, slab, sockets)
//!                 │                   │                  │
//!             protocol              ring               topic               (no socket, no clock)
//! ```
//!
//! # A server in a few lines
//!
//! ```no_run
//! use stentor::{Config, Context, Handler, Message, Server};
//!
//! struct Lobby;
//!
//! impl Handler for Lobby {
//!     type State = (); // Whatever is to be kept for each connection.
//!
//!     fn open(&mut self, ctx: &mut Context<'_, ()>) {
//!         ctx.subscribe("lobby").expect("a short name, and the first topic");
//!     }
//!
//!     fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
//!         ctx.publish("lobby", message);
//!     }
//! }
//!
//! let server = Server::bind(Config::listen(["127.0.0.1:9001".parse()?]), Lobby)?;
//! let handle = server.handle(); // Publishes, sends and shuts down from other threads.
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to read on
//!
//! [`Handler`] says what happens when, [`Context`] what a callback can do, [`Config`] which limits
//! and timeouts there are. [`protocol::Connection`] is the protocol alone, for those who bring
//! sockets of their own. The module `broadcast` is the application that the program serves, with
//! hooks for what a program of one's own decides. The default feature `program` is for the program only: with
//! `default-features = false` the library has the dependencies of its core.

#[cfg(feature = "broadcast")]
pub mod broadcast;
mod mid_page;
pub mod protocol;
pub mod ring;
mod server;
pub mod topic;

pub use protocol::{CloseCode, CloseFrame, Message, MessageKind};
pub use server::{
    Accept, BindError, Cause, Closed, Config, ConfigError, ConnectionId, Context, Endpoint, Fault,
    Form, Gauges, Handle, HandleError, Handler, Histogram, History, KeptPublication, Limits, Lost,
    Member, Output, PresenceEvent, Publication, PublishError, PublishOptions, Published, Recovery,
    Refused, Sent, Server, Side, SlowPolicy, Stats, SubscribeError, SubscribeOptions, Tags,
    Timeouts, TopicOptions, Waker,
};

// The broadcast application names what it uses as any other user of the library does.
#[cfg(feature = "broadcast")]
extern crate self as stentor;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/GUIDE.md")]
struct Guide;
