//! The integration tests: one binary, a module for each subject.

mod backpressure;
mod echo;
mod publish;
mod support;
