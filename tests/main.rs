//! The integration tests: one binary, a module for each subject.

mod backpressure;
mod echo;
mod lifecycle;
mod publish;
mod support;
