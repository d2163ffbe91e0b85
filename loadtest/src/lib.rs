//! The measuring side of stentor: a load generator, and the yardsticks its figures are held against.
//!
//! A run is conducted by one process (`conductor`) and made by others (`worker`), each with a loop of its own
//! for one of the loads in `scenario`. Clients are stentor's protocol core in the client's role; `limit`, the
//! yardstick, shares none of it.
//!
//! Linux only: CPU time and memory are read from `/proc`.

pub mod centrifugo;
pub mod client;
pub mod comparison;
pub mod conductor;
pub mod cpu;
pub mod cycle;
pub mod dial;
pub mod failure;
pub mod frame;
pub mod handshake;
pub mod kernel;
pub mod latency;
pub mod mid_page;
pub mod outcome;
pub mod outgoing;
pub mod page;
pub mod payload;
pub mod plot;
pub mod process;
pub mod profile;
pub mod progress;
pub mod report;
pub mod scenario;
pub mod server;
pub mod target;
pub mod timer;
pub mod units;
pub mod wait;
pub mod worker;
