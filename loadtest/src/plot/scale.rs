//! Axes: where a value stands, and which values are written beside the axis.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// What is measured along an axis, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Numbers and rates: `50 k`.
    Count,
    /// Bytes: `4 KiB`.
    Bytes,
    /// Microseconds: `20 µs`, `5 ms`.
    Micros,
    /// Ratios: `0.8`.
    Ratio,
    /// Parts of one: `80 %`.
    Percent,
    /// Seconds: `5 s`.
    Seconds,
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Log,
    /// Quantiles by how many nines they have.
    Nines,
}

/// Beyond this, values are drawn as if they were this large: 10¹⁵ µs are 31 years.
const LARGEST: f64 = 1e15;
/// The smallest value of a logarithmic axis: the shortest latency that is recorded, in microseconds.
const SMALLEST: f64 = 0.1;
/// The smallest end of a linear axis: labels have three decimals.
const SMALLEST_SPAN: f64 = 0.01;
/// More would stand too close together.
const MOST_TICKS: usize = 7;
/// Nobody counts a thousand million messages in a run.
const MOST_NINES: f64 = 8.0;

/// A value that can be drawn: neither infinite nor below zero nor absurd.
pub(super) fn drawable(value: f64) -> Option<f64> {
    value.is_finite().then(|| value.clamp(0.0, LARGEST))
}

impl Scale {
    /// From zero to the next round number.
    pub(super) fn linear(highest: f64, quantity: Quantity) -> Self {
        let highest = if highest > 0.0 { highest } else { 1.0 }.max(SMALLEST_SPAN);
        let step = round_step(highest, quantity);
        let steps = (highest / step - 1e-9).ceil();
        let ticks = (0..)
            .map(f64::from)
            .take_while(|index| *index <= steps)
            .map(|index| index * step)
            .map(|value| (value, quantity.label(value)));
        Scale {
            kind: Kind::Linear,
            low: 0.0,
            high: steps * step,
            ticks: ticks.collect(),
        }
    }

    /// From exactly zero to exactly there, for time.
    pub(super) fn up_to(highest: f64, quantity: Quantity) -> Self {
        let mut scale = Scale::linear(highest, quantity);
        if highest >= SMALLEST_SPAN {
            scale.high = highest;
            scale.ticks.retain(|(value, _)| *value <= highest);
        }
        scale
    }

    /// Each doubling or each tenfold takes the same room.
    pub(super) fn log(lowest: f64, highest: f64, quantity: Quantity) -> Self {
        let (lowest, highest) = (lowest.max(SMALLEST), highest.max(SMALLEST));
        let marks = round_marks(quantity);
        let first = marks.iter().rposition(|mark| *mark <= lowest).unwrap_or(0);
        let last = marks.iter().position(|mark| *mark >= highest);
        let last = last.unwrap_or(marks.len() - 1).max(first + 1);
        let last = last.min(marks.len() - 1);
        let first = first.min(last - 1);
        let ticks = thinned(&marks[first..=last], quantity)
            .into_iter()
            .map(|value| (value, quantity.label(value)))
            .collect();
        Scale {
            kind: Kind::Log,
            low: marks[first],
            high: marks[last],
            ticks,
        }
    }

    /// Percentiles: 0, 90, 99, 99.9 and on at equal distances, so that rare latencies have room.
    pub(super) fn nines(furthest: f64) -> Self {
        let labels = [
            "0", "90", "99", "99.9", "99.99", "99.999", "6 nines", "7 nines", "8 nines",
        ];
        let high = furthest.clamp(0.9, quantile(MOST_NINES));
        Scale {
            kind: Kind::Nines,
            low: 0.0,
            high,
            ticks: (0..)
                .map(|nines| quantile(f64::from(nines)))
                .zip(labels.into_iter().map(str::to_owned))
                .filter(|(at, _)| *at <= high)
                .collect(),
        }
    }

    /// The values between which everything is drawn.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Leaves out ticks until the rest can be written side by side.
    pub(super) fn fit(&mut self, width: i32) {
        let widest = self.label_width() + super::width_of("  ");
        let fitting = usize::try_from(width / widest).unwrap_or_default().max(1);
        let every = self.ticks.len().div_ceil(fitting);
        self.ticks = std::mem::take(&mut self.ticks)
            .into_iter()
            .step_by(every)
            .collect();
    }

    /// Room for what is written beside the axis.
    pub(super) fn label_width(&self) -> i32 {
        let widths = self.ticks.iter().map(|(_, label)| super::width_of(label));
        widths.max().unwrap_or_default()
    }

    fn place(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Linear => value,
            Kind::Log => value.log10(),
            Kind::Nines => nines(value),
        }
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let [low, high, value] =
            [self.low, self.high, value.clamp(self.low, self.high)].map(|value| self.place(value));
        start + (f64::from(end - start) * (value - low) / (high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Light points are those between the ticks: there are none.
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.iter().map(|(value, _)| *value).collect()
        }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self
            .ticks
            .iter()
            .find(|(tick, _)| tick.total_cmp(value).is_eq());
        tick.map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

/// The quantile with so many nines.
fn quantile(nines: f64) -> f64 {
    1.0 - 0.1_f64.powf(nines)
}

/// How many nines a quantile has: 0.999 has three.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// 1, 2 or 5 times a power of ten, such that at most six steps reach the end.
fn round_step(highest: f64, quantity: Quantity) -> f64 {
    let unit = match quantity {
        Quantity::Bytes => binary_unit(highest).0,
        _ => 1.0,
    };
    let rough = highest / unit / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= rough * 0.999)
        .unwrap_or(10.0);
    factor * power * unit
}

/// All round numbers a logarithmic axis may begin or end with.
fn round_marks(quantity: Quantity) -> Vec<f64> {
    match quantity {
        Quantity::Bytes => (-2..25).map(|power| 4_f64.powi(power)).collect(),
        _ => (-1..=15)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powi(power)))
            .collect(),
    }
}

/// Of too many marks, those that are powers of ten, and of these as many as there is room for.
fn thinned(marks: &[f64], quantity: Quantity) -> Vec<f64> {
    if marks.len() <= MOST_TICKS {
        return marks.to_vec();
    }
    let is_round = |mark: &&f64| {
        quantity == Quantity::Bytes || (mark.log10() - mark.log10().round()).abs() < 1e-9
    };
    let round: Vec<f64> = marks.iter().filter(is_round).copied().collect();
    let every = round.len().div_ceil(MOST_TICKS);
    round.into_iter().step_by(every).collect()
}

fn binary_unit(value: f64) -> (f64, &'static str) {
    let units = [
        (1024.0 * 1024.0 * 1024.0, "GiB"),
        (1024.0 * 1024.0, "MiB"),
        (1024.0, "KiB"),
    ];
    let unit = units.into_iter().find(|(factor, _)| value >= *factor);
    unit.unwrap_or((1.0, "B"))
}

impl Quantity {
    pub(super) fn label(self, value: f64) -> String {
        let (factor, unit) = match self {
            Quantity::Count if value >= 1e6 => (1e6, " M"),
            Quantity::Count if value >= 1e3 => (1e3, " k"),
            Quantity::Count | Quantity::Ratio => (1.0, ""),
            Quantity::Bytes => {
                let (factor, unit) = binary_unit(value);
                return format!("{} {unit}", trimmed(value / factor));
            }
            Quantity::Micros if value >= 1e6 => (1e6, " s"),
            Quantity::Micros if value >= 1e3 => (1e3, " ms"),
            Quantity::Micros => (1.0, " µs"),
            Quantity::Percent => (0.01, " %"),
            Quantity::Seconds => (1.0, " s"),
        };
        trimmed(value / factor) + unit
    }
}

/// At most three decimals, and no zeros behind the last.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|(_, label)| &label[..]).collect()
    }

    #[test]
    fn linear_axes_end_at_round_numbers() {
        let rates = Scale::linear(211_400.0, Quantity::Count);
        assert_eq!(
            labels(&rates),
            ["0", "50 k", "100 k", "150 k", "200 k", "250 k"]
        );
        let memory = Scale::linear(7_000_000.0, Quantity::Bytes);
        assert_eq!(labels(&memory), ["0 B", "2 MiB", "4 MiB", "6 MiB", "8 MiB"]);
        let busy = Scale::linear(1.0, Quantity::Percent);
        assert_eq!(
            labels(&busy),
            ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
        );
    }

    #[test]
    fn time_ends_where_it_ended() {
        let time = Scale::up_to(9.5, Quantity::Seconds);
        assert_eq!(labels(&time), ["0 s", "2 s", "4 s", "6 s", "8 s"]);
        assert_eq!(time.ends(), (0.0, 9.5));
    }

    #[test]
    fn logarithmic_axes_have_steps_of_their_size() {
        let near = Scale::log(42.0, 380.0, Quantity::Micros);
        assert_eq!(
            labels(&near),
            ["20 µs", "50 µs", "100 µs", "200 µs", "500 µs"]
        );
        let far = Scale::log(12.0, 2_400_000.0, Quantity::Micros);
        assert_eq!(
            labels(&far),
            ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]
        );
        let bytes = Scale::log(208.0, 93_000.0, Quantity::Bytes);
        assert_eq!(
            labels(&bytes),
            [
                "64 B", "256 B", "1 KiB", "4 KiB", "16 KiB", "64 KiB", "256 KiB"
            ]
        );
    }

    #[test]
    fn quantiles_stand_by_their_nines() {
        let scale = Scale::nines(quantile(4.0));
        assert_eq!(labels(&scale), ["0", "90", "99", "99.9", "99.99"]);
        assert_eq!(scale.map(&0.9, (0, 400)), 100);
        assert_eq!(scale.map(&0.999, (0, 400)), 300);
        assert_eq!(scale.map(&1.0, (0, 400)), 400);
    }

    #[test]
    fn crowded_ticks_are_left_out() {
        let mut bytes = Scale::log(208.0, 93_000.0, Quantity::Bytes);
        bytes.fit(240 * super::super::PIXEL);
        assert_eq!(labels(&bytes), ["64 B", "4 KiB", "256 KiB"]);
        bytes.fit(0);
        assert_eq!(labels(&bytes), ["64 B"]);
    }

    #[test]
    fn no_end_is_beyond_drawing() {
        for value in [0.0, f64::MIN_POSITIVE, 1e-9, 1.0, LARGEST] {
            for quantity in [Quantity::Count, Quantity::Bytes, Quantity::Micros] {
                for scale in [
                    Scale::linear(value, quantity),
                    Scale::up_to(value, quantity),
                    Scale::log(value, value, quantity),
                    Scale::log(0.0, value, quantity),
                ] {
                    let (low, high) = scale.ends();
                    assert!(low < high && high.is_finite(), "{scale:?}");
                    assert!(
                        scale.ticks.len() >= 2 && scale.ticks.len() <= 12,
                        "{scale:?}"
                    );
                }
            }
        }
    }
}
