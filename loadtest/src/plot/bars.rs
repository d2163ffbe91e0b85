//! Bars: what several servers make of several loads.

use plotters::element::{Circle, PathElement, Rectangle, Text};
use plotters::prelude::ChartBuilder;
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, VPos};

use super::scale::{Scale, drawable};
use super::{
    Area, Drawing, Ink, LINE, Mark, PIXEL, Plot, Quantity, Steps, THIN, name, stroke, width_of,
    words,
};
use crate::report::{Figure, Unit};

/// Groups of horizontal bars.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What they show.
    pub title: String,
    /// In what.
    pub unit: Unit,
    /// How long they are. In powers, dots take the place of bars, whose length would say nothing.
    pub steps: Steps,
    /// What they are held against.
    pub limit: Option<Mark>,
    /// The groups, from top to bottom.
    pub rows: Vec<Row>,
}

/// One load.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is.
    pub label: String,
    /// The servers, each at the same place in every row: the place decides its ink.
    pub bars: Vec<Bar>,
}

/// What one server made of it.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Its name.
    pub server: String,
    /// The median; none if it was not measured.
    pub value: Option<f64>,
    /// The least of all rounds.
    pub low: f64,
    /// The most of all rounds.
    pub high: f64,
}

/// A value that can be drawn, and its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    value: f64,
    low: f64,
    high: f64,
}

const WIDTH: i32 = 640 * PIXEL;
const BAR: i32 = 18 * PIXEL;
/// Of these, this much is painted.
const THICKNESS: i32 = 12 * PIXEL;
const HEADING: i32 = 24 * PIXEL;
const GAP: i32 = 8 * PIXEL;
const MARGIN: i32 = 12 * PIXEL;

impl Bar {
    fn spread(&self) -> Option<Spread> {
        let value = drawable(self.value?)?;
        Some(Spread {
            value,
            low: drawable(self.low).unwrap_or(value).min(value),
            high: drawable(self.high).unwrap_or(value).max(value),
        })
    }
}

impl Row {
    fn height(&self) -> i32 {
        let bars = i32::try_from(self.bars.len()).expect("nobody compares so many servers");
        HEADING + bars * BAR + GAP
    }
}

impl Bars {
    /// Draws them. Where there is no value, a dash says so.
    pub fn plot(&self) -> Plot {
        let above = if self.limit.is_some() {
            LINE + GAP
        } else {
            GAP
        };
        let rows: i32 = self.rows.iter().map(Row::height).sum();
        Plot::draw(
            &self.title,
            self.description(),
            (WIDTH, above + rows + LINE + 2 * GAP),
            |area| self.draw(area, self.scale(), above, rows),
        )
    }

    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.rows.iter().flat_map(|row| &row.bars)
    }

    fn scale(&self) -> Scale {
        let limit = self.limit.as_ref().and_then(|limit| drawable(limit.value));
        let values = || {
            let spreads = self.bars().filter_map(Bar::spread);
            spreads
                .flat_map(|spread| [spread.low, spread.high])
                .chain(limit)
        };
        let highest = values().fold(0.0, f64::max);
        match self.steps {
            Steps::Linear => Scale::linear(highest, self.quantity()),
            Steps::Log => Scale::log(values().fold(highest, f64::min), highest, self.quantity()),
        }
    }

    fn quantity(&self) -> Quantity {
        match self.unit {
            Unit::PerSecond | Unit::Count => Quantity::Count,
            Unit::Bytes => Quantity::Bytes,
            Unit::Microseconds => Quantity::Micros,
            Unit::Ratio => Quantity::Ratio,
        }
    }

    fn description(&self) -> String {
        let told = self.rows.iter().map(|row| {
            let bars = row.bars.iter();
            let bars = bars.map(|bar| format!("{} {}", bar.server, self.written(bar)));
            format!("{}: {}", row.label, bars.collect::<Vec<_>>().join(", "))
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// `0.94 (0.91–0.97)`
    fn written(&self, bar: &Bar) -> String {
        let written = |value| Figure::new("", "", value, self.unit).to_string();
        let Some(spread) = bar.spread() else {
            return "–".to_owned();
        };
        let [value, low, high] = [spread.value, spread.low, spread.high].map(written);
        if low == high {
            value
        } else {
            format!("{value} ({low}–{high})")
        }
    }

    fn draw(&self, area: &Area<'_>, mut scale: Scale, above: i32, rows: i32) -> Drawing {
        let widest = |widths: &mut dyn Iterator<Item = i32>| widths.max().unwrap_or_default();
        let names = widest(&mut self.bars().map(|bar| width_of(&name(&bar.server))));
        let values = widest(&mut self.bars().map(|bar| width_of(&self.written(bar))));
        let (left, right) = (MARGIN + names + GAP, values + 2 * MARGIN);
        scale.fit(WIDTH - left - right);
        let mut chart = ChartBuilder::on(area)
            .margin_top(above)
            .margin_left(left)
            .margin_right(right)
            .x_label_area_size(LINE + GAP)
            .build_cartesian_2d(scale, f64::from(rows)..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .bold_line_style(stroke(Ink::Grid, THIN))
            .light_line_style(plotters::style::TRANSPARENT)
            .axis_style(stroke(Ink::Grid, THIN))
            .label_style(words(Ink::Faint, HPos::Center, VPos::Center))
            .set_all_tick_mark_size(GAP / 2)
            .draw()?;

        let mut top = above;
        for row in &self.rows {
            let style = words(Ink::Text, HPos::Left, VPos::Center);
            let middle = top + HEADING / 2 + 2 * PIXEL;
            area.draw(&Text::new(
                super::printable(&row.label).collect::<String>(),
                (MARGIN, middle),
                style,
            ))?;
            for (index, bar) in row.bars.iter().enumerate() {
                let index_down = i32::try_from(index).expect("as many as fit into the height");
                let middle = top + HEADING + index_down * BAR + BAR / 2;
                let x = |value| chart.backend_coord(&(value, 0.0)).0;
                self.draw_bar(area, bar, Ink::Series(index), middle, x)?;
            }
            top += row.height();
        }
        if let Some(limit) = &self.limit
            && let Some(value) = drawable(limit.value)
        {
            let x = chart.backend_coord(&(value, 0.0)).0;
            let line = [(x, above), (x, above + rows)];
            area.draw(&PathElement::new(line, stroke(Ink::Limit, THIN)))?;
            let style = words(Ink::Limit, HPos::Center, VPos::Bottom);
            area.draw(&Text::new(name(&limit.label), (x, above - GAP / 2), style))?;
        }
        Ok(())
    }

    fn draw_bar(
        &self,
        area: &Area<'_>,
        bar: &Bar,
        ink: Ink,
        middle: i32,
        x: impl Fn(f64) -> i32,
    ) -> Drawing {
        // On a logarithmic scale: its lower end.
        let zero = x(0.0);
        let beside = words(Ink::Faint, HPos::Right, VPos::Center);
        area.draw(&Text::new(name(&bar.server), (zero - GAP, middle), beside))?;

        if let Some(Spread { value, low, high }) = bar.spread() {
            let filled = ink.marker().filled();
            match self.steps {
                Steps::Linear => {
                    let corners = [
                        (zero, middle - THICKNESS / 2),
                        (x(value), middle + THICKNESS / 2),
                    ];
                    area.draw(&Rectangle::new(corners, filled))?;
                }
                Steps::Log => area.draw(&Circle::new((x(value), middle), THICKNESS / 2, filled))?,
            }
            let spread = [(x(low), middle), (x(high), middle)];
            area.draw(&PathElement::new(spread, stroke(Ink::Text, THIN)))?;
        }
        let style = words(Ink::Text, HPos::Right, VPos::Center);
        area.draw(&Text::new(
            self.written(bar),
            (WIDTH - MARGIN, middle),
            style,
        ))
    }
}
