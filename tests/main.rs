//! The integration tests: one binary, a module for each subject.

mod backpressure;
mod catalogue_frames;
mod catalogue_handshake;
mod catalogue_loop;
mod chunking;
mod echo;
mod edges;
mod examples;
mod feeding;
mod handle;
mod http;
mod lifecycle;
mod listen;
mod model;
mod process;
#[cfg(feature = "program")]
mod program;
mod publish;
mod recovery;
mod scene;
mod support;
mod tidy;
mod turns;
