//! What docs/ARCHITECTURE.md and CONTRIBUTING.md say about the sources, and what the documents say
//! that can be looked up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file by its path from the root, such as `src/ring.rs`.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The numbered lines without their comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .text
            .lines()
            .map(|line| line.split("//").next().unwrap());
        lines.enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The places in the code where one of these words stands.
    fn places_of(&self, words: &[&str]) -> Vec<String> {
        let found = self
            .code()
            .filter(|(_, line)| words.iter().any(|word| has_word(line, word)));
        found
            .map(|(number, line)| format!("{}:{number}: {}", self.path, line.trim()))
            .collect()
    }
}

/// Whether `word` stands in `line` with no letter, digit or underscore beside it.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part)
    })
}

/// All Rust files in a folder of the root, or the one file of this path.
fn sources(path: &str) -> Vec<Source> {
    fn collect(path: &Path, found: &mut Vec<PathBuf>) {
        if path.is_dir() {
            let entries = fs::read_dir(path).unwrap();
            entries.for_each(|entry| collect(&entry.unwrap().path(), found));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.into());
        }
    }
    let mut found = Vec::new();
    collect(&root().join(path), &mut found);
    assert!(!found.is_empty(), "{path} has Rust files");
    let source = |found: PathBuf| Source {
        path: found.strip_prefix(root()).unwrap().display().to_string(),
        text: fs::read_to_string(&found).unwrap(),
    };
    found.into_iter().map(source).collect()
}

fn places_in(path: &str, words: &[&str]) -> Vec<String> {
    let sources = sources(path);
    sources
        .iter()
        .flat_map(|source| source.places_of(words))
        .collect()
}

// ---- layers ----

const NOTHING: [String; 0] = [];

#[test]
fn the_leaves_know_no_socket_and_no_clock() {
    let sockets = [
        "mio",
        "socket2",
        "libc",
        "slab",
        "TcpStream",
        "TcpListener",
        "UnixStream",
    ];
    let clocks = ["Instant", "SystemTime", "std::time"];
    for leaf in ["src/protocol", "src/ring.rs", "src/topic"] {
        assert_eq!(places_in(leaf, &sockets), NOTHING);
        assert_eq!(places_in(leaf, &clocks), NOTHING);
        assert_eq!(
            places_in(leaf, &["std::os", "std::fs", "std::thread"]),
            NOTHING
        );
        // An address in a Host field is a text with a grammar.
        let mut net = places_in(leaf, &["std::net"]);
        net.retain(|place| !place.ends_with("use std::net::Ipv6Addr;"));
        assert_eq!(net, NOTHING);
    }
}

#[test]
fn the_leaves_do_not_know_each_other_nor_what_is_above() {
    for (leaf, own) in [
        ("src/protocol", "crate::protocol"),
        ("src/ring.rs", ""),
        ("src/topic", "crate::topic"),
    ] {
        let mut places = places_in(leaf, &["crate"]);
        places.retain(|place| !place.contains("pub(crate)"));
        places.retain(|place| own.is_empty() || !place.contains(own));
        // A fact about memory, which knows nothing of anybody.
        places.retain(|place| !place.contains("crate::mid_page"));
        assert_eq!(places, NOTHING);
        // From the root of a leaf, `super` is the root of the crate.
        let others = [
            "super::ring",
            "super::topic",
            "super::server",
            "super::protocol",
        ];
        assert_eq!(places_in(leaf, &others), NOTHING);
    }
}

#[test]
fn only_the_server_knows_mio_and_slab() {
    let mut places = places_in("src", &["mio", "slab", "socket2"]);
    places.retain(|place| !place.starts_with("src/server/"));
    // Clients of the protocol are kept in a slab of their own.
    places.retain(|place| !place.ends_with("use slab::Slab;"));
    assert_eq!(places, NOTHING);
}

#[test]
fn the_server_does_not_know_the_program() {
    assert_eq!(
        places_in("src/server", &["cli", "broadcast", "clap", "tracing"]),
        NOTHING
    );
}

#[test]
fn the_broadcast_application_has_no_back_door() {
    assert_eq!(
        places_in(
            "src/broadcast",
            &["crate::cli", "crate::server", "mod server"]
        ),
        NOTHING
    );
}

// ---- how it reads ----

#[test]
fn nothing_was_left_behind() {
    for folder in ["src", "examples", "benches"] {
        let words = ["dbg!", "todo!", "unimplemented!"];
        assert_eq!(places_in(folder, &words), NOTHING);
        for source in sources(folder) {
            assert!(!source.text.contains("FIXME"), "{}", source.path);
        }
    }
}

#[test]
fn nothing_is_unsafe() {
    assert_eq!(places_in("src", &["unsafe"]), NOTHING);
}

/// A function reads on one screen.
const LONGEST: usize = 70;

#[test]
fn functions_read_on_one_screen() {
    let mut long = Vec::new();
    for source in ["src", "tests", "examples", "benches"]
        .map(sources)
        .iter()
        .flatten()
    {
        let lines: Vec<&str> = source.text.lines().collect();
        for (start, line) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| is_function(line))
        {
            let indent = &line[..line.len() - line.trim_start().len()];
            let end = format!("{indent}}}");
            let len = lines[start..]
                .iter()
                .position(|line| **line == end)
                .unwrap_or(0);
            if len >= LONGEST {
                long.push(format!("{}:{}: {} lines", source.path, start + 1, len + 1));
            }
        }
    }
    assert_eq!(long, NOTHING);
}

/// Whether a function with a body of several lines begins here, as rustfmt lays it out.
fn is_function(line: &str) -> bool {
    let declaration = line.trim_start();
    let declaration = match declaration.strip_prefix("pub") {
        Some(rest) => rest
            .trim_start_matches("(crate)")
            .trim_start_matches("(super)")
            .trim_start(),
        None => declaration,
    };
    let declaration = declaration
        .trim_start_matches("const ")
        .trim_start_matches("extern \"C\" ");
    declaration.starts_with("fn ") && !line.trim_end().ends_with([';', '}'])
}

#[test]
fn what_is_looked_for_is_found() {
    assert!(has_word("use mio::Poll;", "mio") && !has_word("permio mio_x", "mio"));
    assert!(has_word("    dbg!(x)", "dbg!"));
    assert!(is_function("    pub(crate) const fn f("));
    assert!(!is_function("fn f();") && !is_function("let x = fn_x(") && !is_function("fn f() {}"));
    let source = Source {
        path: "x".into(),
        text: "a // mio\nmio\n".into(),
    };
    assert_eq!(source.places_of(&["mio"]), ["x:2: mio"]);
}

// ---- documents ----

/// The documents of the repository; a package of the crate has fewer.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ]
    .iter()
    .map(|name| root().join(name))
    .filter(|path| path.exists())
    .collect();
    let docs = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// What stands between backquotes, outside of blocks of code.
fn quoted(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut quoted = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            quoted.extend(line.split('`').skip(1).step_by(2));
        }
    }
    quoted
}

/// Whether this is a path from the root, such as `src/server/read.rs` or `src/protocol/`.
fn is_path(word: &str) -> bool {
    let folders = [
        "src/",
        "tests/",
        "docs/",
        "benches/",
        "examples/",
        "loadtest/",
        "fuzz/",
    ];
    folders.iter().any(|folder| word.starts_with(folder))
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
}

/// Part of the repository may be left out of a package, but only as a whole.
fn is_packaged(path: &Path) -> bool {
    let top = path
        .strip_prefix(root())
        .ok()
        .and_then(|path| path.iter().next());
    top.is_some_and(|top| root().join(top).exists())
}

#[test]
fn files_that_documents_name_exist() {
    let mut missing = Vec::new();
    for (document, text) in documents() {
        let folder = document.parent().unwrap();
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let links = links.filter(|link| !link.contains("://") && !link.starts_with('#'));
        let links = links.map(|link| folder.join(link.split('#').next().unwrap()));
        let words = text.split(|c: char| c.is_whitespace() || "`()[]|*,".contains(c));
        let words = words.map(|word| word.trim_end_matches(['.', ':', ';']));
        let paths = words
            .filter(|word| is_path(word))
            .map(|path| root().join(path));
        let names = links
            .chain(paths)
            .filter(|path| is_packaged(path) && !path.exists());
        missing.extend(names.map(|path| format!("{}: {}", document.display(), path.display())));
    }
    assert_eq!(missing, NOTHING);
}

/// The names of all functions in the sources.
fn functions() -> BTreeSet<String> {
    let sources = ["src", "tests"].map(sources);
    let lines = sources
        .iter()
        .flatten()
        .flat_map(|source| source.text.lines());
    let names = lines.filter_map(|line| {
        line.trim_start()
            .split_once("fn ")?
            .1
            .split(['(', '<'])
            .next()
    });
    names.map(str::to_owned).collect()
}

fn rfc_document() -> String {
    fs::read_to_string(root().join("docs/RFC6455.md")).unwrap()
}

#[test]
fn tests_that_the_rfc_document_names_exist() {
    let functions = functions();
    let document = rfc_document();
    // A test's name is a sentence: whatever has three words and no dot or slash.
    let is_test = |name: &&str| {
        name.matches('_').count() >= 2
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !name.starts_with("max_")
    };
    let named: Vec<&str> = quoted(&document).into_iter().filter(is_test).collect();
    assert!(named.len() > 100, "{} tests are named", named.len());
    let missing: Vec<String> = named
        .into_iter()
        .filter(|name| !functions.contains(*name))
        .map(str::to_owned)
        .collect();
    assert_eq!(missing, NOTHING);
}

#[test]
fn every_test_of_the_catalogue_is_in_the_rfc_document() {
    let document = rfc_document();
    let named: BTreeSet<&str> = quoted(&document).into_iter().collect();
    let functions = functions();
    let missing: Vec<&String> = functions
        .iter()
        .filter(|name| name.starts_with("cat_") && !named.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    for number in (1..=76).chain(109..=148).chain([168]) {
        let row = format!("\n| {number} |");
        assert!(document.contains(&row), "number {number} has a row");
    }
}
