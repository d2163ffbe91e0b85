//! The integration tests: one binary, a module for each subject.

#[cfg(feature = "broadcast")]
mod api;
mod backpressure;
mod catalogue_frames;
mod catalogue_handshake;
mod catalogue_loop;
#[cfg(feature = "program")]
mod catalogue_memory;
mod catalogue_topics;
mod chunking;
#[cfg(feature = "broadcast")]
mod clients;
#[cfg(feature = "broadcast")]
mod clients_auth;
#[cfg(feature = "broadcast")]
mod clients_enemy;
#[cfg(feature = "broadcast")]
mod clients_hooks;
#[cfg(feature = "broadcast")]
mod clients_protobuf;
#[cfg(feature = "broadcast")]
mod clients_recovery;
#[cfg(feature = "broadcast")]
mod clients_review;
#[cfg(feature = "program")]
mod console;
mod echo;
mod edges;
mod examples;
#[cfg(feature = "program")]
mod faces;
mod farewell;
mod feeding;
mod handle;
mod history;
mod http;
mod lifecycle;
mod listen;
mod model;
mod patterns;
mod policies;
mod presence;
mod process;
#[cfg(feature = "program")]
mod program;
mod publish;
mod recovery;
mod scene;
mod slices;
mod streams;
mod support;
mod tidy;
mod turns;
mod waking;
