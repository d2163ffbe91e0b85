//! The plots of a comparison: for each group one figure that is the server's in every cell.
//!
//! That is not the rate, which the load generator may have set, but the CPU time that each thing took.

use super::cell::{Cell, Group};
use super::record::{Record, Sample};
use super::spread::Spread;
use super::tables::Tables;
use crate::plot::{Bar, Bars, Row, Steps};
use crate::report::Unit;

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

/// Cells of which a plot tells something: nobody compares twenty rows by eye.
const TELLING: [&str; 11] = [
    "echo/50x20Bx1",
    "echo/50x20Bx16",
    "echo/10x16KiBx1",
    "echo/1x1MiBx1",
    "broadcast/500x64Bx1",
    "broadcast/500x64Bx64",
    "broadcast/500x16KiBx1",
    "broadcast/5000x64Bx1",
    "everyone/500x64B",
    "stalled/500x1",
    "bystanders/15000x64Bx10",
];

/// One plot for each group that was measured.
pub fn of(record: &Record) -> Vec<Picture> {
    let pictures = Group::ALL.into_iter().filter_map(|group| {
        let cells = telling(record, group);
        (!cells.is_empty()).then(|| picture(record, group, &cells))
    });
    pictures.collect()
}

/// Those of a group that tell something, or all, if none of them does.
fn telling(record: &Record, group: Group) -> Vec<Cell> {
    let mut cells = record.cells();
    cells.retain(|cell| cell.group() == group);
    let is_telling = |cell: &Cell| TELLING.contains(&cell.to_string().as_str());
    if cells.iter().any(is_telling) {
        cells.retain(is_telling);
    }
    cells
}

fn picture(record: &Record, group: Group, cells: &[Cell]) -> Picture {
    let (unit, steps) = match group {
        Group::Idle => (Unit::Bytes, Steps::Log),
        _ => (Unit::Microseconds, Steps::Log),
    };
    let tables = Tables::of(record, group);
    let title = match group {
        Group::Idle => "Memory for each idle connection (less is better)".to_owned(),
        _ => format!(
            "{}: server CPU for each {} (less is better)",
            tables.heading(),
            tables.thing()
        ),
    };
    let row = |cell: &Cell| Row {
        label: cell.title(),
        bars: tables
            .servers()
            .map(|server| bar(record, *cell, server))
            .collect(),
    };
    let bars = Bars {
        title: title.clone(),
        unit,
        steps,
        limit: None, // It is a row like the others.
        rows: cells.iter().map(row).collect(),
    };
    Picture {
        group,
        title,
        file: format!("compare-{}.svg", group.name()),
        svg: bars.plot().standalone(),
    }
}

fn bar(record: &Record, cell: Cell, server: &str) -> Bar {
    let samples = record.samples(cell, server);
    let shown = |sample: &Sample| match cell.group() {
        Group::Idle => sample.private_bytes,
        _ => Some(sample.cpu_us()),
    };
    let is_whole = record.failure(cell, server).is_none();
    let values = samples.iter().filter_map(|(_, sample)| shown(sample));
    let spread = Spread::of(values).filter(|_| is_whole);
    Bar {
        server: server.to_owned(),
        value: spread.map(|spread| spread.median),
        low: spread.map_or(0.0, |spread| spread.least),
        high: spread.map_or(0.0, |spread| spread.most),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, sample};
    use super::*;

    #[test]
    fn plot_has_every_server_and_no_figure_of_one_that_failed() {
        let failed = Err("it broke".to_owned());
        let record = record(
            "echo/50x20Bx16",
            &[
                ("limit", &[Ok(sample(100.0))]),
                ("stentor", &[Ok(sample(90.0))]),
                ("broken", &[Ok(sample(90.0)), failed]),
            ],
        );
        let pictures = of(&record);
        assert_eq!(pictures.len(), 1);
        let Picture { file, svg, .. } = &pictures[0];
        assert_eq!(file, "compare-echo.svg");
        for word in ["limit 4.25", "stentor 4.25", "broken –", "50 × 20 B, 16"] {
            assert!(svg.contains(word), "{word}\n{svg}");
        }
    }

    #[test]
    fn telling_cells_are_cells() {
        let cells = super::super::cell::full();
        for name in TELLING {
            assert!(cells.iter().any(|cell| cell.to_string() == name), "{name}");
        }
    }

    #[test]
    fn cells_that_tell_less_are_left_out_unless_they_are_all_there_is() {
        let mut unusual = record("echo/7x7Bx7", &[("stentor", &[Ok(sample(1.0))])]);
        assert_eq!(telling(&unusual, Group::Echo).len(), 1);
        let usual = record("echo/50x20Bx1", &[("stentor", &[Ok(sample(1.0))])]);
        unusual.measurements.extend(usual.measurements);
        let cells = telling(&unusual, Group::Echo);
        assert_eq!(cells, ["echo/50x20Bx1".parse().unwrap()]);
    }
}
