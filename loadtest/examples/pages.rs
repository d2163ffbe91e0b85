//! Draws sample pages and plots into a directory, to look at: `cargo run -p loadtest --example pages -- DIRECTORY`.

use std::path::PathBuf;
use std::{env, fs, io};

use loadtest::page::page;

#[path = "../tests/sample/mod.rs"]
mod sample;

fn main() -> io::Result<()> {
    let directory = PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    fs::create_dir_all(&directory)?;
    let circumstances = sample::circumstances();
    for report in [sample::echo(), sample::broadcast(), sample::idle()] {
        let file = format!("{}.html", report.scenario);
        fs::write(directory.join(file), page(&report, &circumstances))?;
    }
    let curves = sample::curves().plot().expect("there are latencies");
    for (file, plot) in [
        ("ratios.svg", sample::ratios().plot()),
        ("memory.svg", sample::memory().plot()),
        ("curves.svg", curves),
    ] {
        fs::write(directory.join(file), plot.standalone())?;
    }
    Ok(())
}
