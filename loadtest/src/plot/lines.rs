//! Lines: over time, or over quantiles.

use plotters::element::{Circle, PathElement, Text};
use plotters::prelude::ChartBuilder;
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, VPos};

use super::scale::{Scale, drawable};
use super::{
    Area, Drawing, Ink, LINE, Mark, PIXEL, Plot, Quantity, THICK, THIN, name, stroke, width_of,
    words,
};
use crate::units::float;

/// Lines in one plot.
#[derive(Clone, Debug)]
pub struct Lines {
    /// What they show.
    pub title: String,
    /// What runs from left to right.
    pub across: Across,
    /// What runs upwards.
    pub quantity: Quantity,
    /// How it does.
    pub steps: Steps,
    /// The lines; each keeps its ink though others have nothing to show.
    pub lines: Vec<Line>,
    /// What they are held against.
    pub limit: Option<Mark>,
}

/// What runs from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    /// Seconds.
    Time,
    /// Quantiles from 0 to 1.
    Quantiles,
}

/// How values are laid out along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// From zero, in equal steps.
    Linear,
    /// In powers.
    Log,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What stands at its end.
    pub label: String,
    /// Where it goes; it is broken where there is no value.
    pub points: Vec<(f64, Option<f64>)>,
}

const WIDTH: i32 = 480 * PIXEL;
const HEIGHT: i32 = 280 * PIXEL;
/// Between an axis and its words.
const GAP: i32 = 8 * PIXEL;

/// Half of a point that stands alone.
const POINT: i32 = 25;

/// Points that hang together.
type Segment = Vec<(f64, f64)>;

impl Line {
    /// Quantiles of so many latencies, in microseconds.
    ///
    /// All of them, 1, is drawn where all but one are: there is no other end to the scale.
    pub fn quantiles(label: &str, curve: &[(f64, f64)], count: u64) -> Self {
        let last = 1.0 - 1.0 / float(count.max(1));
        Line {
            label: label.to_owned(),
            points: curve
                .iter()
                .map(|(quantile, micros)| (quantile.min(last), Some(*micros)))
                .collect(),
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let place = |(x, y): &(f64, Option<f64>)| Some((drawable(*x)?, drawable((*y)?)?));
        let places: Vec<_> = self.points.iter().map(place).collect();
        places
            .split(Option::is_none)
            .map(|segment| segment.iter().copied().flatten().collect::<Segment>())
            .filter(|segment| !segment.is_empty())
            .collect()
    }
}

impl Lines {
    /// Draws them, if there is anything to draw.
    pub fn plot(&self) -> Option<Plot> {
        let segments: Vec<_> = self.lines.iter().map(Line::segments).collect();
        let points = || segments.iter().flatten().flatten();
        points().next()?;

        let ys = || {
            let limit = self.limit.as_ref().map(|limit| limit.value);
            // The limit's label stands above it.
            let room = limit.and_then(drawable).map(|limit| limit * 1.1);
            points().map(|(_, y)| *y).chain(room)
        };
        let (lowest, highest) = (ys().fold(f64::MAX, f64::min), ys().fold(0.0, f64::max));
        let furthest = points().map(|(x, _)| *x).fold(0.0, f64::max);
        let y = match self.steps {
            Steps::Linear => Scale::linear(highest, self.quantity),
            Steps::Log => Scale::log(lowest, highest, self.quantity),
        };
        let x = match self.across {
            Across::Time => Scale::up_to(furthest, Quantity::Seconds),
            Across::Quantiles => Scale::nines(furthest),
        };
        let description = self.description(&segments);
        Some(Plot::draw(
            &self.title,
            description,
            (WIDTH, HEIGHT),
            |area| self.draw(area, &x, &y, &segments),
        ))
    }

    fn description(&self, segments: &[Vec<Segment>]) -> String {
        let told = self
            .lines
            .iter()
            .zip(segments)
            .filter_map(|(line, segments)| {
                let ys = || segments.iter().flatten().map(|(_, y)| *y);
                let last = ys().next_back()?;
                let [lowest, highest, last] = [
                    ys().fold(f64::MAX, f64::min),
                    ys().fold(0.0, f64::max),
                    last,
                ]
                .map(|value| self.quantity.label(value));
                Some(format!(
                    "{}: between {lowest} and {highest}, {last} at the end",
                    line.label
                ))
            });
        told.collect::<Vec<_>>().join("; ")
    }

    fn draw(&self, area: &Area<'_>, x: &Scale, y: &Scale, segments: &[Vec<Segment>]) -> Drawing {
        let labels = self.lines.iter().map(|line| width_of(&name(&line.label)));
        let mut chart = ChartBuilder::on(area)
            .margin_top(GAP)
            .margin_right(labels.max().unwrap_or_default() + 2 * GAP)
            .x_label_area_size(LINE + GAP)
            .y_label_area_size(y.label_width() + 2 * GAP)
            .build_cartesian_2d(x.clone(), y.clone())?;
        chart
            .configure_mesh()
            .bold_line_style(stroke(Ink::Grid, THIN))
            .light_line_style(plotters::style::TRANSPARENT)
            .axis_style(stroke(Ink::Grid, THIN))
            .label_style(words(Ink::Faint, HPos::Center, VPos::Center))
            .set_all_tick_mark_size(GAP / 2)
            .draw()?;

        if let Some(limit) = &self.limit
            && let Some(at) = drawable(limit.value)
        {
            let (left, right) = x.ends();
            let path = PathElement::new([(left, at), (right, at)], stroke(Ink::Limit, THIN));
            chart.draw_series([path])?;
            let (right, at) = chart.backend_coord(&(right, at));
            let style = words(Ink::Limit, HPos::Right, VPos::Bottom);
            area.draw(&Text::new(name(&limit.label), (right, at - GAP / 2), style))?;
        }

        let mut ends = Vec::new();
        for (index, segments) in segments.iter().enumerate() {
            let ink = Ink::Series(index);
            for segment in segments {
                if let [point] = segment[..] {
                    let dot = Circle::new(point, POINT, ink.marker().filled());
                    chart.draw_series([dot])?;
                } else {
                    let path = PathElement::new(segment.clone(), stroke(ink, THICK));
                    chart.draw_series([path])?;
                }
            }
            if let Some(end) = segments.last().and_then(|segment| segment.last()) {
                ends.push((index, chart.backend_coord(end)));
            }
        }
        self.label_ends(area, ends)
    }

    /// Writes each line's label at its end; labels make room for each other.
    fn label_ends(&self, area: &Area<'_>, mut ends: Vec<(usize, (i32, i32))>) -> Drawing {
        ends.sort_by_key(|(index, (_, y))| (*y, *index));
        let mut heights: Vec<i32> = ends.iter().map(|(_, (_, y))| *y).collect();
        spread(&mut heights, HEIGHT - LINE - GAP);
        for ((index, (x, _)), height) in ends.into_iter().zip(heights) {
            let style = words(Ink::Series(index), HPos::Left, VPos::Center);
            let label = name(&self.lines[index].label);
            area.draw(&Text::new(label, (x + GAP, height), style))?;
        }
        Ok(())
    }
}

/// Moves sorted heights apart until a line of words fits between them, none below the lowest.
fn spread(heights: &mut [i32], lowest: i32) {
    for index in 1..heights.len() {
        heights[index] = heights[index].max(heights[index - 1] + LINE);
    }
    let mut room = lowest;
    for height in heights.iter_mut().rev() {
        *height = (*height).min(room);
        room = *height - LINE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_make_room_for_each_other() {
        let mut heights = [1000, 1010, 1020, 2000];
        spread(&mut heights, 2300);
        assert_eq!(heights, [1000, 1180, 1360, 2000]);

        let mut heights = [2250, 2260];
        spread(&mut heights, 2300);
        assert_eq!(heights, [2120, 2300]);
    }

    #[test]
    fn line_breaks_where_there_is_no_value() {
        let line = Line {
            label: String::new(),
            points: vec![
                (0.0, Some(1.0)),
                (1.0, Some(f64::NAN)),
                (2.0, Some(3.0)),
                (3.0, Some(4.0)),
                (4.0, None),
            ],
        };
        assert_eq!(
            line.segments(),
            [vec![(0.0, 1.0)], vec![(2.0, 3.0), (3.0, 4.0)]]
        );
    }

    #[test]
    fn maximum_is_drawn_where_all_but_one_are() {
        let line = Line::quantiles("round trip", &[(0.5, 40.0), (1.0, 90.0)], 1000);
        assert_eq!(line.points, [(0.5, Some(40.0)), (0.999, Some(90.0))]);
    }
}
