//! Comparisons of servers of which some lie, end or are not there at all.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A folder that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("loadtest-compare-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, file: &str, text: &str) -> String {
        fs::write(self.0.join(file), text).unwrap();
        self.path(file)
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn compare(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg("compare")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Answers every 26 bytes with the same 22, whatever they say: right in nothing but its length, and only for 20 bytes.
fn liar() -> String {
    format!(
        "[[peer]]\nname = \"liar\"\nversion = \"1\"\nlanguage = \"Rust\"\n\
         echo = [{0:?}, \"echo\", \"--listen\", \"127.0.0.1:{{port}}\", \"--frame-in\", \"26\", \"--frame-out\", \"22\"]\n\
         broadcast = [{0:?}, \"fanout\", \"--listen\", \"127.0.0.1:{{port}}\", \"--frame-in\", \"70\", \"--frame-out\", \"66\"]\n",
        env!("CARGO_BIN_EXE_limit")
    )
}

const MISSING: &str = "[[peer]]\nname = \"missing\"\nversion = \"1\"\nlanguage = \"C\"\n\
    echo = [\"missing/server\", \"{port}\"]\nprobe = \"missing/server\"\n";
const ENDING: &str = "[[peer]]\nname = \"ending\"\nversion = \"1\"\nlanguage = \"C\"\n\
    echo = [\"false\", \"{port}\"]\n";

#[test]
fn servers_that_lie_end_or_are_missing_are_left_out_by_name() {
    let folder = Folder::new("liars");
    let manifest = folder.write("peers.toml", &(liar() + MISSING + ENDING));
    let document = folder.write(
        "BENCHMARKS.md",
        "# Figures\n<!-- compare:begin -->\nold\n<!-- compare:end -->\nthe rest\n",
    );
    let csv = folder.path("results/figures.csv");
    let output = compare(&[
        "--without=stentor",
        "--peers",
        &manifest,
        "--docs",
        &document,
        "--csv",
        &csv,
        "--cell=echo/5x20Bx1",
        "--cell=broadcast/5x64Bx2",
        "--cell=connect/5",
        "--rounds=2",
        "--repeats=0",
        "--duration=50ms",
        "--warmup=20ms",
    ]);
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");

    for (name, from, because) in [
        ("liar", "echo", "reply differs from what was sent"),
        ("liar", "broadcast", "first:"),
        ("missing", "everything", "it is not installed"),
        ("ending", "echo", "ended before it listened"),
    ] {
        let line = format!("{name} is left out of {from}: ");
        let told = said.lines().find(|told| told.contains(&line));
        let told = told.unwrap_or_else(|| panic!("{line}\n{said}"));
        assert!(told.contains(because), "{told}");
        let line = format!("- Left out of {from}: {name}: ");
        assert!(folder.read("BENCHMARKS.md").contains(&line), "{line}");
    }
    let limit_only = ["5 × 20 B, 1", "5 × 64 B, 2 at once", "5 at a time"];
    for row in limit_only {
        let row = table.lines().find(|line| line.contains(row));
        let row = row.unwrap_or_else(|| panic!("{table}"));
        assert_eq!(row.matches('|').count(), 3, "{row}");
    }

    let written = folder.read("BENCHMARKS.md");
    assert!(written.starts_with("# Figures\n") && written.ends_with("\nthe rest\n"));
    assert!(!written.contains("\nold\n"), "{written}");
    for group in ["echo", "broadcast", "connect"] {
        let plot = format!("plots/compare-{group}.svg");
        assert!(written.contains(&format!("]({plot})")), "{written}");
        assert!(folder.read(&plot).starts_with("<svg "));
    }

    // Three cells of two rounds, and the line of names.
    let figures = folder.read("results/figures.csv");
    let lines = figures.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.count(), 7, "{figures}");
    is_shown_again(&csv, &document, &written);
}

/// What was measured is enough to make the document again.
fn is_shown_again(csv: &str, document: &str, before: &str) {
    let output = compare(&["--from", csv, "--docs", document]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("### Echo\n"));
    assert_eq!(fs::read_to_string(document).unwrap(), before);
}

#[test]
fn what_cannot_be_compared_is_one_line_and_status_2() {
    let folder = Folder::new("wrong");
    let manifest = folder.write("peers.toml", &liar());
    let other = folder.write("other.csv", "a,b\n1,2\n");
    for (arguments, because) in [
        (vec!["--cell=echo/0"], "is no cell"),
        (vec!["--cell=nothing/*"], "matches no cell"),
        (vec!["--peer=ghost"], "there is no server \"ghost\""),
        (vec!["--without=ghost"], "there is no server \"ghost\""),
        (vec!["--from", &other], "other.csv: "),
    ] {
        let arguments = [&["--without=stentor", "--peers", &manifest], &*arguments].concat();
        let output = compare(&arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {said}");
        assert!(said.contains(because), "{arguments:?} {said}");
    }
}

#[test]
fn cells_are_listed_without_measuring() {
    let output = compare(&["--list", "--cell=echo/*x1MiB*"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("echo/1x1MiBx1 "));
    let quick = compare(&["--list", "--quick"]);
    assert_eq!(text(&quick.stdout).lines().count(), 6);
}
