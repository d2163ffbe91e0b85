//! The servers that are compared: the limit, stentor, and the peers of a manifest.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Group, Service};
use crate::failure::Error;
use crate::frame;
use crate::scenario::broadcast::Dialect;

/// A server that is compared.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// What the tables say of it.
    pub about: About,
    /// How it is started.
    pub program: Program,
}

/// What is said of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// How tables and options call it.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// What it is written in.
    pub language: String,
    /// Which checks it does of what clients send.
    pub checks: String,
    /// What to know before quoting its figures.
    pub note: String,
}

/// How a server is started.
#[derive(Clone, Debug)]
pub enum Program {
    /// The physical limit: told the lengths of frames, since it does not read them.
    Limit(PathBuf),
    /// Stentor's program, and how its topics are spoken to.
    Stentor(PathBuf, Dialect),
    /// Somebody else's.
    Peer(Peer),
}

/// Somebody else's server.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The working directory.
    pub folder: PathBuf,
    /// The command that echoes, if it can.
    pub echo: Option<Vec<String>>,
    /// The command that publishes to topics, if it can.
    pub broadcast: Option<Vec<String>>,
    /// Whose CPU time and memory are the server's.
    pub cpu: Cpu,
    /// How topics are spoken to.
    pub dialect: Dialect,
    /// What exists if it is installed.
    pub probe: Option<PathBuf>,
}

/// Whose CPU time and memory are a server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cpu {
    /// Those of the process that is started.
    #[default]
    Started,
    /// Those of its one child.
    Children,
}

/// The name of the limit.
pub const LIMIT: &str = "limit";
/// The name of ours.
pub const STENTOR: &str = "stentor";
/// The name of ours where it is spoken to in Centrifugo's protocol.
pub const CENTRIFUGO: &str = "stentor+centrifugo";

impl Contestant {
    /// The programs that do the same socket work with no WebSocket work.
    pub fn limit(program: PathBuf) -> Self {
        Contestant {
            about: About {
                name: LIMIT.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                language: "Rust".to_owned(),
                checks: "none: it answers without reading".to_owned(),
                note: "no server: the same socket work, and no WebSocket work".to_owned(),
            },
            program: Program::Limit(program),
        }
    }

    /// Ours.
    pub fn stentor(program: PathBuf) -> Self {
        Contestant {
            about: About {
                name: STENTOR.to_owned(),
                version: version(&program).unwrap_or_default(),
                language: "Rust".to_owned(),
                checks: "all, the shortest length included; each answered with 1002 or 1007"
                    .to_owned(),
                note: "one thread, no settings but --log-level off".to_owned(),
            },
            program: Program::Stentor(program, Dialect::Raw),
        }
    }

    /// Ours in Centrifugo's protocol, to be held against its raw topics.
    pub fn centrifugo(program: PathBuf) -> Self {
        let raw = Contestant::stentor(program.clone());
        Contestant {
            about: About {
                name: CENTRIFUGO.to_owned(),
                note: format!(
                    "{}; Centrifugo's protocol in JSON, no history",
                    raw.about.note
                ),
                ..raw.about
            },
            program: Program::Stentor(program, Dialect::Centrifugo),
        }
    }

    /// Whether it is the limit, which answers without having read.
    pub fn is_limit(&self) -> bool {
        matches!(self.program, Program::Limit(_))
    }

    /// Whether it takes part in such cells.
    pub fn serves(&self, group: Group) -> bool {
        match (&self.program, group.service()) {
            // What it does not hold for a connection is no measure of what a server has to.
            // ...and its frames are as long as those of raw topics.
            (Program::Limit(_), _) => !matches!(
                group,
                Group::Centrifugo | Group::Idle | Group::Stalled | Group::Bystanders
            ),
            (Program::Stentor(_, Dialect::Raw), _) => true,
            (Program::Stentor(..), _) => group == Group::Centrifugo,
            (Program::Peer(peer), Service::Echo) => peer.echo.is_some(),
            (Program::Peer(peer), Service::Broadcast) => {
                let is_fit = match group {
                    Group::Centrifugo => peer.dialect == Dialect::Centrifugo,
                    group => self.why_unfit(group).is_none(),
                };
                peer.broadcast.is_some() && is_fit
            }
        }
    }

    /// Why it cannot take part in such cells, although it does what their service asks for.
    pub fn why_unfit(&self, group: Group) -> Option<&'static str> {
        let is_unfit = group == Group::Bystanders && self.dialect() != Dialect::Raw;
        is_unfit.then_some("its topics are not paths")
    }

    /// Its command for a cell, with `{port}` in it; none if it does not take part.
    pub fn command(&self, cell: &Cell) -> Option<Vec<String>> {
        if !self.serves(cell.group()) {
            return None;
        }
        Some(match &self.program {
            Program::Limit(program) => limit_command(program, cell),
            Program::Stentor(program, _) => stentor_command(program, cell.group().service()),
            Program::Peer(peer) => peer.command(cell.group().service())?,
        })
    }

    /// Where it is started.
    pub fn folder(&self) -> &Path {
        match &self.program {
            Program::Peer(peer) => &peer.folder,
            Program::Limit(_) | Program::Stentor(..) => Path::new("."),
        }
    }

    /// Whether it is there to be started.
    pub fn is_installed(&self) -> bool {
        match &self.program {
            Program::Limit(program) | Program::Stentor(program, _) => program.exists(),
            Program::Peer(peer) => peer.probe.as_ref().is_none_or(|probe| probe.exists()),
        }
    }

    /// Whose CPU time and memory are its own.
    pub fn cpu(&self) -> Cpu {
        match &self.program {
            Program::Peer(peer) => peer.cpu,
            Program::Limit(_) | Program::Stentor(..) => Cpu::Started,
        }
    }

    /// How its topics are spoken to.
    pub fn dialect(&self) -> Dialect {
        match &self.program {
            Program::Peer(peer) => peer.dialect,
            Program::Limit(_) => Dialect::Raw,
            Program::Stentor(_, dialect) => *dialect,
        }
    }
}

impl Peer {
    fn command(&self, service: Service) -> Option<Vec<String>> {
        let mut words = match service {
            Service::Echo => self.echo.clone()?,
            Service::Broadcast => self.broadcast.clone()?,
        };
        let program = words.first_mut()?;
        if program.contains('/') {
            // A path, not a name to be looked for.
            *program = self.folder.join(&*program).display().to_string();
        }
        Some(words)
    }
}

fn limit_command(program: &Path, cell: &Cell) -> Vec<String> {
    let program = program.display();
    let listen = "--listen 127.0.0.1:{port}";
    let command = match (cell.group(), cell.size()) {
        (Group::Echo, Some(size)) => format!("echo {listen} {}", frames(size)),
        (_, Some(size)) => format!("fanout {listen} {}", frames(size)),
        (_, None) => format!("connect {listen}"),
    };
    words(&program, &command)
}

fn frames(size: usize) -> String {
    let (client, server) = (frame::client_frame_len(size), frame::server_frame_len(size));
    format!("--frame-in {client} --frame-out {server}")
}

fn stentor_command(program: &Path, service: Service) -> Vec<String> {
    let mode = match service {
        Service::Echo => "echo",
        Service::Broadcast => "serve",
    };
    let command = format!("{mode} --listen 127.0.0.1:{{port}} --log-level off");
    words(&program.display(), &command)
}

fn words(program: &dyn fmt::Display, arguments: &str) -> Vec<String> {
    let arguments = arguments.split(' ').map(str::to_owned);
    [program.to_string()].into_iter().chain(arguments).collect()
}

/// What a program answers to `--version`, without its name.
fn version(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").output().ok()?;
    let line = String::from_utf8(said.stdout).ok()?;
    Some(line.split_ascii_whitespace().nth(1)?.to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(default)]
    peer: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    version: String,
    language: String,
    echo: Option<Vec<String>>,
    broadcast: Option<Vec<String>>,
    #[serde(default)]
    cpu: Cpu,
    #[serde(default = "raw")]
    dialect: Dialect,
    probe: Option<PathBuf>,
    #[serde(default)]
    checks: String,
    #[serde(default)]
    note: String,
}

const fn raw() -> Dialect {
    Dialect::Raw
}

/// The peers of a manifest, whether installed or not.
///
/// # Errors
///
/// If there is no such file, or it is no manifest.
pub fn peers(manifest: &Path) -> Result<Vec<Contestant>, Error> {
    let text = fs::read_to_string(manifest).map_err(Error::local(manifest.display()))?;
    let manifest = manifest
        .canonicalize()
        .map_err(Error::local(manifest.display()))?;
    let folder = manifest.parent().unwrap_or(Path::new("/"));
    parse(&text, folder).map_err(|wrong| Error::Local(format!("{}: {wrong}", manifest.display())))
}

fn parse(manifest: &str, folder: &Path) -> Result<Vec<Contestant>, String> {
    let manifest: Manifest = toml::from_str(manifest).map_err(|error| error.to_string())?;
    let peers = manifest
        .peer
        .into_iter()
        .map(|entry| entry.contestant(folder));
    peers.collect()
}

impl Entry {
    fn contestant(self, folder: &Path) -> Result<Contestant, String> {
        for command in self.echo.iter().chain(&self.broadcast) {
            if !command.iter().any(|word| word.contains("{port}")) {
                let name = &self.name;
                return Err(format!("{name}: the command has no {{port}}: {command:?}"));
            }
        }
        if [LIMIT, STENTOR, CENTRIFUGO].contains(&&*self.name) {
            return Err(format!("{}: this name is taken", self.name));
        }
        Ok(Contestant {
            about: About {
                name: self.name,
                version: self.version,
                language: self.language,
                checks: self.checks,
                note: self.note,
            },
            program: Program::Peer(Peer {
                folder: folder.to_owned(),
                echo: self.echo,
                broadcast: self.broadcast,
                cpu: self.cpu,
                dialect: self.dialect,
                probe: self.probe.map(|probe| folder.join(probe)),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        [[peer]]
        name = "both"
        version = "1.2"
        language = "Rust"
        echo = ["bin/both", "echo", "{port}"]
        broadcast = ["node", "both.js", "{port}"]
        probe = "bin/both"
        checks = "all"
        note = "none"

        [[peer]]
        name = "topics"
        version = "3"
        language = "Go"
        broadcast = ["topics/server", "{port}"]
        cpu = "children"
        dialect = "nats"
        probe = "/"
    "#;

    fn cell(name: &str) -> Cell {
        name.parse().unwrap()
    }

    #[test]
    fn manifest_is_read() {
        let peers = parse(MANIFEST, Path::new("/peers")).unwrap();
        let [both, topics] = &peers[..] else {
            panic!("{peers:?}")
        };
        assert_eq!((&*both.about.name, &*both.about.checks), ("both", "all"));
        assert_eq!(both.folder(), Path::new("/peers"));
        assert!(!both.is_installed() && topics.is_installed());
        assert_eq!((both.cpu(), both.dialect()), (Cpu::Started, Dialect::Raw));
        assert_eq!(
            (topics.cpu(), topics.dialect()),
            (Cpu::Children, Dialect::Nats)
        );
        // A path is one from the manifest's folder; a name is looked for.
        assert_eq!(
            both.command(&cell("echo/50x20Bx1")).unwrap(),
            ["/peers/bin/both", "echo", "{port}"]
        );
        assert_eq!(
            both.command(&cell("everyone/50x64B")).unwrap(),
            ["node", "both.js", "{port}"]
        );
        for name in ["echo/50x20Bx1", "connect/50", "idle/300"] {
            assert!(topics.command(&cell(name)).is_none(), "{name}");
        }
    }

    #[test]
    fn bystanders_are_for_servers_whose_topics_are_paths() {
        let mut contestants = parse(MANIFEST, Path::new("/peers")).unwrap();
        contestants.push(Contestant::stentor("nowhere".into()));
        contestants.push(Contestant::limit("limit".into()));
        let cell = cell("bystanders/500x64Bx3");
        let takes_part = |one: &Contestant| one.command(&cell).is_some();
        let taking: Vec<_> = contestants.iter().map(takes_part).collect();
        assert_eq!(taking, [true, false, true, false]);
        let unfit = |one: &Contestant| one.why_unfit(Group::Bystanders).is_some();
        let unfit: Vec<_> = contestants.iter().map(unfit).collect();
        assert_eq!(unfit, [false, true, false, false]);
        assert_eq!(contestants[1].why_unfit(Group::Stalled), None);
    }

    #[test]
    fn protocol_is_compared_with_the_raw_topics_of_the_same_server() {
        let centrifugo = MANIFEST.replace("\"nats\"", "\"centrifugo\"");
        let mut contestants = parse(&centrifugo, Path::new("/peers")).unwrap();
        contestants.push(Contestant::limit("limit".into()));
        contestants.push(Contestant::stentor("nowhere".into()));
        contestants.push(Contestant::centrifugo("nowhere".into()));
        let taking = |group: Group| {
            let takes_part = |one: &Contestant| one.serves(group);
            contestants.iter().map(takes_part).collect::<Vec<_>>()
        };
        assert_eq!(taking(Group::Centrifugo), [false, true, false, true, true]);
        assert_eq!(taking(Group::Broadcast), [true, true, true, true, false]);
        let cell = cell("centrifugo/broadcast/500x64Bx1");
        let [.., raw, protocol] = &contestants[..] else {
            panic!("{contestants:?}")
        };
        assert_eq!(raw.command(&cell), protocol.command(&cell));
        let dialects = (raw.dialect(), protocol.dialect());
        assert_eq!(dialects, (Dialect::Raw, Dialect::Centrifugo));
    }

    #[test]
    fn manifest_that_cannot_be_right_is_refused() {
        let entry = "[[peer]]\nname = \"x\"\nversion = \"1\"\nlanguage = \"C\"\n";
        for (wrong, because) in [
            (format!("{entry}echo = [\"x\"]"), "no {port}"),
            (format!("{entry}ehco = [\"x\", \"{{port}}\"]"), "ehco"),
            (format!("{entry}dialect = \"klingon\""), "klingon"),
            (entry.replace("\"x\"", "\"limit\""), "taken"),
            ("[[peer]]".to_owned(), "name"),
        ] {
            let error = parse(&wrong, Path::new("/")).unwrap_err();
            assert!(error.contains(because), "{wrong}: {error}");
        }
    }

    #[test]
    fn limit_is_told_the_lengths_of_frames() {
        let limit = Contestant::limit("limit".into());
        let command = |name| limit.command(&cell(name)).map(|words| words.join(" "));
        assert_eq!(
            command("echo/50x20Bx1").unwrap(),
            "limit echo --listen 127.0.0.1:{port} --frame-in 26 --frame-out 22"
        );
        assert_eq!(
            command("broadcast/50x1KiBx1").unwrap(),
            "limit fanout --listen 127.0.0.1:{port} --frame-in 1032 --frame-out 1028"
        );
        assert_eq!(
            command("connect/50").unwrap(),
            "limit connect --listen 127.0.0.1:{port}"
        );
        assert_eq!(command("idle/300"), None);
    }
}
