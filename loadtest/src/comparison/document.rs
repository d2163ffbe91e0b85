//! A comparison as a chapter of a document: where and how, who, tables, plots.

use std::fmt;
use std::fs;
use std::path::Path;

use super::cell::{Cell, Group};
use super::plots;
use super::record::{Head, Record};
use super::tables::Tables;
use crate::failure::Error;

/// What stands before the chapter in a document.
pub const BEGIN: &str = "<!-- compare:begin -->";
/// What stands behind it.
pub const END: &str = "<!-- compare:end -->";
/// Beside the document: the folder of its plots.
const PLOTS: &str = "plots";

/// The chapter.
#[derive(Clone, Copy, Debug)]
pub struct Chapter<'a> {
    record: &'a Record,
    /// Whether plots are beside it.
    has_plots: bool,
}

impl<'a> Chapter<'a> {
    /// That of a comparison, in words and tables.
    pub fn of(record: &'a Record) -> Self {
        Chapter {
            record,
            has_plots: false,
        }
    }
}

/// Whether there is a place for a comparison in a document: nobody wants to learn that when all is measured.
///
/// # Errors
///
/// If the document has no marks, or cannot be read.
pub fn require_place(document: &Path) -> Result<(), Error> {
    into(document, "").map(drop)
}

/// Puts a comparison into a document, in place of what was between the marks, and its plots beside it.
///
/// # Errors
///
/// If the document has no marks, or a file cannot be read or written.
pub fn publish(record: &Record, document: &Path) -> Result<(), Error> {
    let chapter = Chapter {
        record,
        has_plots: true,
    };
    let text = into(document, &chapter.to_string())?;
    let folder = document.parent().unwrap_or(Path::new(".")).join(PLOTS);
    fs::create_dir_all(&folder).map_err(Error::local(folder.display()))?;
    for picture in plots::of(record) {
        let path = folder.join(picture.file);
        fs::write(&path, picture.svg).map_err(Error::local(path.display()))?;
    }
    fs::write(document, text).map_err(Error::local(document.display()))
}

fn into(document: &Path, chapter: &str) -> Result<String, Error> {
    let text = fs::read_to_string(document).map_err(Error::local(document.display()))?;
    let wrong = || Error::Local(format!("{}: no {BEGIN} … {END}", document.display()));
    replaced(&text, chapter).ok_or_else(wrong)
}

/// A document with another chapter between the marks, if it has them.
fn replaced(document: &str, chapter: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        chapter.trim()
    ))
}

impl fmt::Display for Chapter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.head.fmt(f)?;
        for group in self.groups() {
            let tables = Tables::of(self.record, group);
            writeln!(f, "### {}\n", tables.heading())?;
            if self.has_plots {
                for picture in plots::of(self.record) {
                    if picture.group == group {
                        writeln!(f, "![{}]({PLOTS}/{})\n", picture.title, picture.file)?;
                    }
                }
            }
            writeln!(f, "{tables}")?;
        }
        Ok(())
    }
}

impl Chapter<'_> {
    fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<_> = self.record.cells().iter().map(Cell::group).collect();
        groups.dedup();
        groups
    }
}

/// What stands before the tables: where and how it was measured, and who was.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_setting(f)?;
        self.write_servers(f)
    }
}

impl Head {
    fn write_setting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = &self.setting;
        let commit = match &*setting.commit {
            "" => "unknown",
            commit => commit,
        };
        writeln!(
            f,
            "{}, {}, {}, commit {commit}:\n\n```sh\n{}\n```\n",
            setting.date, setting.machine, setting.kernel, setting.command
        )?;
        writeln!(f, "{}\n", self.method)
    }

    fn write_servers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| server | version | language | checks of what clients send | to know |\n\
             | --- | --- | --- | --- | --- |"
        )?;
        for about in &self.server {
            let [name, version, language, checks, note] = [
                &about.name,
                &about.version,
                &about.language,
                &about.checks,
                &about.note,
            ]
            .map(|text| text.replace('|', "\\|"));
            writeln!(f, "| {name} | {version} | {language} | {checks} | {note} |")?;
        }
        writeln!(f)?;
        for skipped in &self.skipped {
            let (name, from, reason) = (&skipped.name, &skipped.from, &skipped.reason);
            writeln!(f, "- Left out of {from}: {name}: {reason}.")?;
        }
        if !self.skipped.is_empty() {
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Skipped;
    use super::super::record::tests::{record, sample};
    use super::*;

    #[test]
    fn chapter_replaces_what_is_between_the_marks() {
        let before = format!("# Title\n{BEGIN}\nold\n{END}\nrest\n");
        let after = replaced(&before, "new\n").unwrap();
        assert_eq!(after, format!("# Title\n{BEGIN}\n\nnew\n\n{END}\nrest\n"));
        assert_eq!(replaced(&after, "new").as_ref(), Some(&after));
        assert_eq!(replaced("# Title\n", "new"), None);
        assert_eq!(replaced(&format!("{END}{BEGIN}"), "new"), None);
    }

    #[test]
    fn chapter_says_where_who_and_how_much() {
        let mut record = record("echo/50x20Bx1", &[("stentor", &[Ok(sample(211_400.0))])]);
        record.head.setting.date = "2026-01-31".to_owned();
        record.head.setting.machine = "A Chip, 2 cores".to_owned();
        record.head.setting.command = "loadtest compare".to_owned();
        record.head.server[0].checks = "this|that".to_owned();
        record.head.skipped.push(Skipped {
            name: "ghost".to_owned(),
            from: "everything".to_owned(),
            reason: "it is not installed".to_owned(),
        });
        let chapter = Chapter::of(&record).to_string();
        for part in [
            "2026-01-31, A Chip, 2 cores, ",
            "commit unknown:",
            "```sh\nloadtest compare\n```",
            "| stentor |  |  | this\\|that |  |",
            "- Left out of everything: ghost: it is not installed.",
            "### Echo\n",
            "211 k |",
        ] {
            assert!(chapter.contains(part), "{part}\n{chapter}");
        }
    }
}
