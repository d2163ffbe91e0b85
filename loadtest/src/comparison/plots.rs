//! The plots of a comparison.

use super::cell::Group;
use super::record::Record;

/// A plot in a file.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The tables that it belongs to.
    pub group: Group,
    /// What it shows.
    pub title: String,
    /// The file's name.
    pub file: String,
    /// The file.
    pub svg: String,
}

/// One plot for each group of cells.
pub fn of(_record: &Record) -> Vec<Picture> {
    Vec::new()
}
