//! How a run goes, on the error stream: a bar where there is a terminal, a line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::conductor::Watch;
use crate::report::Point;
use crate::units::{Micros, Rate};

/// The progress of one run.
pub struct Progress {
    bar: ProgressBar,
    duration: Duration,
    /// Where there is no terminal: when the last line was written.
    told: Option<Instant>,
}

/// Between lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Progress {
    /// Progress of a run that counts for `duration`.
    ///
    /// # Panics
    ///
    /// Never: the template is constant.
    pub fn new(duration: Duration) -> Self {
        let bar = ProgressBar::with_draw_target(
            Some(duration.as_millis() as u64),
            ProgressDrawTarget::stderr(),
        );
        let style = ProgressStyle::with_template("{wide_bar:.cyan} {msg}");
        bar.set_style(style.expect("the template is constant"));
        Progress {
            told: bar.is_hidden().then(Instant::now),
            bar,
            duration,
        }
    }

    fn say(&mut self, position: Duration, what: String) {
        match &mut self.told {
            None => {
                self.bar.set_position(position.as_millis() as u64);
                self.bar.set_message(what);
            }
            Some(told) if told.elapsed() >= BETWEEN_LINES => {
                *told = Instant::now();
                eprintln!("loadtest: {what}");
            }
            Some(_) => {}
        }
    }
}

impl Watch for Progress {
    fn opening(&mut self, open: usize, of: usize) {
        self.say(
            Duration::ZERO,
            format!("{open} of {of} connections are open"),
        );
    }

    fn warming_up(&mut self) {
        self.say(Duration::ZERO, "warming up".to_owned());
    }

    fn point(&mut self, point: &Point, failures: u64) {
        let at = Duration::from_secs_f64(point.at).min(self.duration);
        let latency = match (point.p50, point.p99) {
            (Some(p50), Some(p99)) => format!(", p50 {} µs, p99 {}", Micros(p50), Micros(p99)),
            _ => String::new(),
        };
        let failed = match failures {
            0 => String::new(),
            count => format!(", {count} FAILED"),
        };
        let (rate, of) = (Rate(point.per_second), self.duration.as_secs_f64());
        let seconds = at.as_secs_f64();
        self.say(
            at,
            format!("{rate}/s{latency}{failed}, {seconds:.0} of {of:.0} s"),
        );
    }

    fn over(&mut self) {
        self.bar.finish_and_clear();
    }
}
