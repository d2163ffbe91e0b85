//! The measuring side of stentor: a load generator, and the yardsticks its figures are held against.
//!
//! Linux only: CPU time and memory are read from `/proc`. Shares no code with the server it measures.

pub mod client;
pub mod connect;
pub mod cpu;
pub mod echo;
pub mod failure;
pub mod figures;
pub mod frame;
pub mod handshake;
pub mod idle;
pub mod latency;
pub mod outgoing;
pub mod payload;
pub mod process;
pub mod report;
pub mod units;
