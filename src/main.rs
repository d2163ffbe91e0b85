//! The `stentor` program: the library with flags, logs, signals and exit codes around it.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(cli::parse())
}
