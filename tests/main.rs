//! The integration tests: one binary, a module for each subject.

mod echo;
mod examples;
mod process;
#[cfg(feature = "program")]
mod program;
mod support;
