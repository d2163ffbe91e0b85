//! A configuration file as it was written: each key with its line, and what is wrong with it.
//!
//! Which keys there are is not known here: what nobody has asked for is unknown (`keys`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::SetupError;
use super::choice::hint;

/// The text of a file, and its name for people; by default there is none.
#[derive(Debug, Default)]
pub(super) struct File {
    name: String,
    text: String,
}

impl File {
    /// Reads the text.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no text.
    pub(super) fn open(path: &Path) -> Result<Self, SetupError> {
        let name = path.display().to_string();
        fs::read_to_string(path)
            .map(|text| Self::new(&name, text))
            .map_err(|error| {
                let name = name.escape_debug();
                SetupError::new("config", format_args!("`{name}` cannot be read: {error}"))
            })
    }

    /// A file of this name with this text.
    pub(super) fn new(name: &str, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// Whether there is one.
    pub(super) fn is_some(&self) -> bool {
        !self.name.is_empty()
    }

    /// Lets `read` ask for all keys that there are.
    ///
    /// # Errors
    ///
    /// A line for each key that is unknown or has a wrong value, in their order.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Section<'_>) -> T) -> Result<T, SetupError> {
        let report = Report {
            file: self,
            asked: RefCell::default(),
            problems: RefCell::default(),
        };
        let root = DeTable::parse(&self.text).map_err(|error| {
            let message = error.message().replace('\n', "; ");
            let line = self.line(error.span().unwrap_or_default());
            SetupError(format!("{}:{line}: is not TOML: {message}", self.name))
        })?;
        let root = root.get_ref();
        let answer = read(&Section {
            report: &report,
            table: self.is_some().then_some(root),
            path: String::new(),
            line: 1,
        });
        report.find_unknown(root, "");
        report.finish().map(|()| answer)
    }

    /// All keys that `read` asks for.
    #[cfg(test)]
    pub(super) fn keys(read: impl FnOnce(&Section<'_>)) -> Vec<String> {
        let report = Report {
            file: &Self::default(),
            asked: RefCell::default(),
            problems: RefCell::default(),
        };
        read(&Section {
            report: &report,
            table: None,
            path: String::new(),
            line: 1,
        });
        let asked = report.asked.into_inner().into_iter();
        let values = asked.filter(|(_, kind)| *kind == Kind::Value);
        values.map(|(path, _)| path).collect()
    }

    /// The line of a place in the text, from 1 on.
    fn line(&self, place: Range<usize>) -> usize {
        let before = self.text.get(..place.start).unwrap_or(&self.text);
        1 + before.matches('\n').count()
    }
}

/// A table of the file, or the place where it would stand.
pub(super) struct Section<'f> {
    report: &'f Report<'f>,
    table: Option<&'f DeTable<'f>>,
    path: String,
    line: usize,
}

impl<'f> Section<'f> {
    /// Whether it stands in the file.
    pub(super) fn is_some(&self) -> bool {
        self.table.is_some()
    }

    /// The value of a key, if it is there and can be read. `read` says what is wrong with it, in
    /// words that go behind its name.
    pub(super) fn get<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let path = self.path_of(key);
        let (line, value) = self.find(key).unzip();
        self.report.asked.borrow_mut().insert((path, Kind::Value));
        read(value?)
            .map_err(|problem| self.report_at(line, key, &problem))
            .ok()
    }

    /// Sets a place to the value of a key, if it is there.
    pub(super) fn set<T>(
        &self,
        key: &str,
        place: &mut T,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) {
        if let Some(value) = self.get(key, read) {
            *place = value;
        }
    }

    /// The table of this name.
    pub(super) fn section(&self, key: &str) -> Section<'f> {
        let path = self.path_of(key);
        let asked = (path.clone(), Kind::Section);
        self.report.asked.borrow_mut().insert(asked);
        let (line, table) = match self.find(key) {
            Some((line, DeValue::Table(table))) => (line, Some(table)),
            Some((line, _)) => {
                let problem = format!("is not a table; write [{path}]");
                self.report_at(Some(line), key, &problem);
                (line, None)
            }
            None => (self.line, None),
        };
        Section {
            report: self.report,
            table,
            path,
            line,
        }
    }

    /// The tables of this name.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'f>> {
        let path = self.path_of(key);
        let asked = (path.clone(), Kind::Section);
        self.report.asked.borrow_mut().insert(asked);
        let Some((line, value)) = self.find(key) else {
            return Vec::new();
        };
        let DeValue::Array(values) = value else {
            let problem = format!("is not an array of tables; write [[{path}]]");
            self.report_at(Some(line), key, &problem);
            return Vec::new();
        };
        let of = |(index, value): (usize, &'f toml::Spanned<DeValue<'f>>)| {
            let line = self.report.file.line(value.span());
            let key = format!("{key}[{index}]");
            let path = self.path_of(&key);
            let asked = (path.clone(), Kind::Section);
            self.report.asked.borrow_mut().insert(asked);
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.report_at(Some(line), &key, &"is not a table");
            }
            Section {
                report: self.report,
                table,
                path,
                line,
            }
        };
        values.iter().enumerate().map(of).collect()
    }

    /// Reports what is wrong with a key, and what would be right: a key of this section, or one
    /// that is missing there. Without the section it is about a flag of the same name.
    pub(super) fn wrong(&self, key: &str, problem: impl Display) {
        let line = self.find(key).map(|(line, _)| line);
        match self.table {
            Some(_) => self.report_at(line, key, &problem),
            None => self
                .report
                .add(0, SetupError::new(&key.replace('_', "-"), problem).0),
        }
    }

    fn report_at(&self, line: Option<usize>, key: &str, problem: &dyn Display) {
        let line = line.unwrap_or(self.line);
        let path = self.path_of(key);
        let name = &self.report.file.name;
        let report = format!("{name}:{line}: {path}: {problem}");
        self.report.add(line, report);
    }

    fn find(&self, key: &str) -> Option<(usize, &'f DeValue<'f>)> {
        let mut entries = self.table?.iter();
        let (name, value) = entries.find(|(name, _)| name.get_ref() == key)?;
        Some((self.report.file.line(name.span()), value.get_ref()))
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.into(),
        path => format!("{path}.{key}"),
    }
}

/// What was asked for, and what is wrong.
struct Report<'f> {
    file: &'f File,
    asked: RefCell<BTreeSet<(String, Kind)>>,
    /// By line; 0 for what is wrong elsewhere.
    problems: RefCell<Vec<(usize, String)>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Value,
    Section,
}

impl Report<'_> {
    fn add(&self, line: usize, problem: String) {
        self.problems.borrow_mut().push((line, problem));
    }

    /// Reports all keys that nobody has asked for.
    fn find_unknown(&self, table: &DeTable<'_>, path: &str) {
        for (name, value) in table {
            let path = join(path, name.get_ref());
            let asked = |kind| self.asked.borrow().contains(&(path.clone(), kind));
            match value.get_ref() {
                _ if asked(Kind::Value) => {}
                _ if !asked(Kind::Section) => self.unknown(&path, self.file.line(name.span())),
                DeValue::Table(table) => self.find_unknown(table, &path),
                DeValue::Array(values) => {
                    for (index, value) in values.iter().enumerate() {
                        if let Some(table) = value.get_ref().as_table() {
                            self.find_unknown(table, &format!("{path}[{index}]"));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn unknown(&self, path: &str, line: usize) {
        let shown = path.escape_debug();
        let name = &self.file.name;
        let hint = self.hint(path);
        self.add(line, format!("{name}:{line}: {shown}: is no key{hint}"));
    }

    /// The known key that is probably meant.
    fn hint(&self, path: &str) -> String {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        if let Some((_, known)) = ELSEWHERE.iter().find(|(other, _)| *other == path) {
            return format!("; it is `{known}` here");
        }
        let asked = self.asked.borrow();
        let parts = |path: &'_ str| match path.rsplit_once('.') {
            Some((parent, name)) => (parent.to_owned(), name.to_owned()),
            None => (String::new(), path.to_owned()),
        };
        let all: Vec<(String, String)> = asked.iter().map(|(path, _)| parts(path)).collect();
        let siblings = all.iter();
        let siblings = siblings.filter(|(other, name)| other == parent && !name.ends_with(']'));
        let siblings: Vec<&str> = siblings.map(|(_, name)| &**name).collect();
        match hint(name, &siblings) {
            near if !near.is_empty() => near,
            _ => match all.iter().find(|(_, other)| other == name) {
                Some((parent, _)) => format!("; is `{}` meant?", join(parent, name)),
                None => format!("; there are {}", siblings.join(", ")),
            },
        }
    }

    fn finish(self) -> Result<(), SetupError> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|(line, _)| *line);
        let lines: Vec<String> = problems.into_iter().map(|(_, line)| line).collect();
        Err(SetupError(lines.join("\n")))
    }
}

/// Names that people know from the flags, or from Centrifugo, for what has another one here.
const ELSEWHERE: [(&str, &str); 13] = [
    ("address", "server.listen"),
    ("port", "server.listen"),
    ("http_server", "server.listen"),
    ("allowed_origins", "client.allowed_origins"),
    ("namespaces", "channel.namespaces"),
    ("token_hmac_secret_key", "client.token.hmac_secret_key"),
    ("api_key", "http_api.key"),
    ("server.allow_origin", "client.allowed_origins"),
    ("server.max_connections", "client.connection_limit"),
    ("server.max_message_size", "websocket.message_size_limit"),
    ("server.outbox_hard", "client.queue_max_size"),
    ("server.drain_timeout", "shutdown.timeout"),
    ("server.log_level", "log.level"),
];

#[cfg(test)]
mod tests {
    use super::super::values::{count, text, yes};
    use super::*;

    fn file(text: &str) -> File {
        File::new("a.toml", text)
    }

    fn read(text: &str) -> Result<(usize, bool, Vec<String>), SetupError> {
        file(text).read(|root| {
            let mut size = 7;
            root.set("size", &mut size, count);
            let there = root.section("on").get("it_is", yes);
            let all = root.sections("all").into_iter();
            let names = all.filter_map(|one| one.get("name", self::text)).collect();
            (size, there.unwrap_or_default(), names)
        })
    }

    #[test]
    fn what_is_not_there_stays_as_it_was() {
        assert_eq!(read(""), Ok((7, false, vec![])));
        let text = "size = 0x10\non.it_is = true\n[[all]]\nname = \"a\"\n[[all]]\nname = 'b'";
        let names = vec!["a".into(), "b".into()];
        assert_eq!(read(text), Ok((16, true, names)));
    }

    #[test]
    fn all_that_is_wrong_is_told_in_the_order_of_its_lines() {
        let text = "siz = 1\nsize = []\n\n[on]\nit_isnt = 1\n[[all]]\nname=1\nx.y = 2\n[z]\nsize=1";
        assert_eq!(
            read(text).unwrap_err().to_string(),
            "a.toml:1: siz: is no key; is `size` meant?\n\
             a.toml:2: size: is an array; write a number, such as 1000\n\
             a.toml:5: on.it_isnt: is no key; is `it_is` meant?\n\
             a.toml:7: all[0].name: is a number; write a text, as in \"…\"\n\
             a.toml:8: all[0].x: is no key; there are name\n\
             a.toml:9: z: is no key; there are all, on, size"
        );
        assert_eq!(
            read("on = 1\nall = 2\nname = ''").unwrap_err().to_string(),
            "a.toml:1: on: is not a table; write [on]\n\
             a.toml:2: all: is not an array of tables; write [[all]]\n\
             a.toml:3: name: is no key; there are all, on, size"
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let error = read("size = 1\nsize = 2").unwrap_err().to_string();
        assert!(error.starts_with("a.toml:2: is not TOML: "), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn a_key_that_stands_elsewhere_is_named_there() {
        let of = |text: &str| read(text).unwrap_err().to_string();
        let error = of("allowed_origins = []");
        assert!(
            error.ends_with("it is `client.allowed_origins` here"),
            "{error}"
        );
        assert!(of("it_is = true").ends_with("is `on.it_is` meant?"));
    }

    #[test]
    fn a_contradiction_without_a_file_is_about_a_flag() {
        let found = File::default().read(|root| root.section("a").wrong("b_c", "is bad; mend it"));
        assert_eq!(found.unwrap_err().to_string(), "b-c: is bad; mend it");
        let found = file("\n[a]\n").read(|root| root.section("a").wrong("b_c", "is bad; mend it"));
        assert_eq!(
            found.unwrap_err().to_string(),
            "a.toml:2: a.b_c: is bad; mend it"
        );
    }
}
