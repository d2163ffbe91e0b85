//! The integration tests: one binary, a module for each subject.

mod catalogue_frames;
mod catalogue_handshake;
mod echo;
mod scene;
mod support;
