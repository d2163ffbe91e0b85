//! Plots as SVG that follows the reader's light or dark surroundings: inside a page, or as a file of its own.

mod bars;
mod ink;
mod lines;
mod scale;

use std::io;

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{DrawingArea, IntoDrawingArea as _, IntoFont as _, SVGBackend, TextStyle};
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use bars::{Bar, Bars, Row};
pub use ink::{Ink, stylesheet};
pub use lines::{Across, Line, Lines, Steps};
pub use scale::Quantity;

/// A plot that was drawn.
#[derive(Clone, Debug)]
pub struct Plot {
    title: String,
    /// For those who do not see it.
    description: String,
    width: i32,
    height: i32,
    shapes: String,
}

/// What holds between a plot and its reader's eye.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where it is.
    pub value: f64,
    /// What it says.
    pub label: String,
}

/// Coordinates are whole numbers to the drawing library: these are tenths of a pixel.
const PIXEL: i32 = 10;
/// Width of lines that are held against others.
const THIN: u32 = 12;
/// Width of lines that are compared.
const THICK: u32 = 20;
/// Height of words.
const TEXT: i32 = 14 * PIXEL;
/// Room for a line of words.
const LINE: i32 = 18 * PIXEL;
/// Room for the title above a plot that stands alone.
const TITLE: i32 = 34 * PIXEL;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawing = Result<(), DrawingAreaErrorKind<io::Error>>;

impl Plot {
    fn draw(
        title: &str,
        description: String,
        (width, height): (i32, i32),
        draw: impl FnOnce(&Area<'_>) -> Drawing,
    ) -> Self {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (width.unsigned_abs(), height.unsigned_abs()))
            .into_drawing_area();
        draw(&area)
            .and_then(|()| area.present())
            .expect("a string takes everything, and no font is loaded");
        drop(area);

        let (_, shapes) = svg
            .split_once('\n')
            .expect("the first line is the opening tag, which is ours to write");
        Plot {
            title: title.to_owned(),
            description,
            width,
            height,
            shapes: ink::classes(shapes.to_owned()),
        }
    }

    /// What it shows.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// For a page that has [`stylesheet`] in its style and the title beside the plot.
    pub fn inline(&self) -> String {
        let Plot { width, height, .. } = self;
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}. {}\">\n{}",
            Escaped(&self.title),
            Escaped(&self.description),
            self.shapes
        )
    }

    /// For a file. It has its own ground: who shows it may be dark where the reader's system is light.
    pub fn standalone(&self) -> String {
        let (width, height) = (self.width, self.height + TITLE);
        let (title, description) = (Escaped(&self.title), Escaped(&self.description));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 -{TITLE} {width} {height}\" \
             width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"{title}. {description}\">\n\
             <title>{title}</title>\n<desc>{description}</desc>\n<style>\n{}</style>\n\
             <rect y=\"-{TITLE}\" width=\"{width}\" height=\"{height}\" rx=\"{}\" fill=\"var(--ground)\"/>\n\
             <text x=\"{}\" y=\"-{}\" font-size=\"{}\" font-weight=\"600\" class=\"fill-text\">{title}</text>\n{}",
            width / PIXEL,
            height / PIXEL,
            stylesheet(),
            6 * PIXEL,
            12 * PIXEL,
            12 * PIXEL,
            16 * PIXEL,
            self.shapes
        )
    }
}

/// Text for an element or an attribute, whatever it contains: characters that XML cannot hold are replaced.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        for character in printable(self.0) {
            match character {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                character => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Controls would make the document malformed or, as overrides of direction, rearrange what stands beside them.
fn printable(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|character| match character {
        '\n' | '\t' => character,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        character if character.is_control() => '\u{fffd}',
        character => character,
    })
}

fn words(ink: Ink, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    // The library divides sizes by this; the point is a typographer's, not a pixel.
    let size = f64::from(TEXT) * 1.24;
    TextStyle {
        font: ("sans-serif", size).into_font(),
        color: ink.marker().to_backend_color(),
        pos: Pos::new(horizontal, vertical),
    }
}

fn stroke(ink: Ink, width: u32) -> plotters::style::ShapeStyle {
    ink.marker().stroke_width(width)
}

/// About as wide as the text will be; nobody knows with which font.
fn width_of(text: &str) -> i32 {
    i32::try_from(text.chars().count()).map_or(i32::MAX / 2, |count| {
        count.saturating_mul(TEXT * 57 / 100).min(i32::MAX / 2)
    })
}

/// A name that has to fit beside a plot.
fn name(text: &str) -> String {
    const LONGEST: usize = 18; // A third of a plot's width.
    if text.chars().count() <= LONGEST {
        printable(text).collect()
    } else {
        printable(text).take(LONGEST - 1).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_contains_it_stays_text() {
        let text = "<script>&\"'\u{0}\u{1b}[2J\u{202e}\u{ffff}µ";
        assert_eq!(
            Escaped(text).to_string(),
            "&lt;script&gt;&amp;&quot;&#39;\u{fffd}\u{fffd}[2J\u{fffd}\u{fffd}µ"
        );
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(name("stentor"), "stentor");
        assert_eq!(name("a-server-with-a-long-name"), "a-server-with-a-l…");
    }
}
