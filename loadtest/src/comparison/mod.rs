//! Servers against each other, against the physical limit, and against stentor.
//!
//! Machines drift by more than servers differ, so no two rates are compared unless they were measured next to each
//! other: every round of a cell measures each server once, and ratios are taken round by round. Each run gets a fresh
//! server on a core of its own.
//!
//! ```text
//! cells × contestants ─▶ rounds ─▶ bench ─▶ record ─▶ CSV
//!                                             └─▶ tables, plots ─▶ document
//! ```

pub mod bench;
pub mod cell;
pub mod contestant;
pub mod document;
pub mod plots;
pub mod record;
pub mod rounds;
pub mod setting;
pub mod spread;
pub mod tables;
