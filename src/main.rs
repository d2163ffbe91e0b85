//! The `stentor` program.

fn main() {}
