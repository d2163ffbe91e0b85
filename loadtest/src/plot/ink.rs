//! Colours by what they are for, each in two shades: for light and for dark surroundings.
//!
//! The drawing library writes a fixed colour beside every shape. Here each ink draws in a marker colour that is
//! nothing but a number, and [`classes`] replaces the markers with CSS classes: the reader's surroundings choose the
//! shade, and a line keeps its dashes, so that nobody needs to tell colours apart.

use std::fmt::Write as _;

use plotters::style::RGBColor;

/// What is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Words that are read first.
    Text,
    /// Words and lines that are looked up.
    Faint,
    /// Lines that only guide the eye.
    Grid,
    /// What figures are held against.
    Limit,
    /// The rate is the server's.
    Good,
    /// The rate says nothing of the server.
    Bad,
    /// Nobody knows.
    Doubtful,
    /// One of several things compared; beyond the sixth, inks are used again.
    Series(usize),
}

/// How many inks for series there are.
const SERIES: usize = 6;

struct Shades {
    name: &'static str,
    light: &'static str,
    dark: &'static str,
    /// Of its lines; in tenths of a pixel, as everything drawn.
    dashes: &'static str,
}

const fn shades(
    name: &'static str,
    light: &'static str,
    dark: &'static str,
    dashes: &'static str,
) -> Shades {
    Shades {
        name,
        light,
        dark,
        dashes,
    }
}

/// In the order of [`Ink::index`].
const INKS: [Shades; 7 + SERIES] = [
    shades("text", "#1a1f26", "#e8ebef", ""),
    shades("faint", "#58606b", "#a3acb8", ""),
    shades("grid", "#e1e5ea", "#2c333c", ""),
    shades("limit", "#c0143c", "#ff8fa3", "60 40"),
    shades("good", "#00704a", "#4ccf9c", ""),
    shades("bad", "#b3261e", "#ff8f85", ""),
    shades("doubtful", "#8a5300", "#f2b35c", ""),
    // The hues of Okabe and Ito, darkened and lightened until they can be read as words.
    shades("one", "#0059a8", "#6cb8ff", ""),
    shades("two", "#b04a00", "#f5a34f", "80 40"),
    shades("three", "#00704f", "#45cba0", "25 30"),
    shades("four", "#94347f", "#e5a0d6", "120 35 25 35"),
    shades("five", "#6b5d00", "#dccb4a", "50 20"),
    shades("six", "#4a5563", "#b4bfcc", "15 20 60 20"),
];

const GROUND_LIGHT: &str = "#ffffff";
const GROUND_DARK: &str = "#14181d";

impl Ink {
    /// The marker that stands for this ink until [`classes`] has replaced it.
    pub(super) fn marker(self) -> RGBColor {
        let index = u8::try_from(self.index()).expect("there are few inks");
        RGBColor(0xA5, 0x5A, index)
    }

    /// The name of its CSS variable and the end of its classes.
    pub fn name(self) -> &'static str {
        INKS[self.index()].name
    }

    fn index(self) -> usize {
        match self {
            Ink::Text => 0,
            Ink::Faint => 1,
            Ink::Grid => 2,
            Ink::Limit => 3,
            Ink::Good => 4,
            Ink::Bad => 5,
            Ink::Doubtful => 6,
            Ink::Series(index) => 7 + index % SERIES,
        }
    }
}

/// Replaces marker colours with classes. Markers are attributes, whose quotes no text can contain unescaped.
pub(super) fn classes(mut svg: String) -> String {
    for (index, ink) in INKS.iter().enumerate() {
        for property in ["stroke", "fill"] {
            svg = svg.replace(
                &format!("{property}=\"#A55A{index:02X}\""),
                &format!("class=\"{property}-{}\"", ink.name),
            );
        }
    }
    svg
}

/// The variables `--ground` and one for each ink, and the classes that use them.
pub fn stylesheet() -> String {
    let variables = |ground: &str, shade: fn(&Shades) -> &'static str| {
        INKS.iter()
            .fold(format!("--ground:{ground}"), |mut css, ink| {
                let _ = write!(css, ";--{}:{}", ink.name, shade(ink));
                css
            })
    };
    let mut css = format!(
        ":root{{color-scheme:light dark;{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n",
        variables(GROUND_LIGHT, |ink| ink.light),
        variables(GROUND_DARK, |ink| ink.dark),
    );
    for Shades { name, dashes, .. } in &INKS {
        let _ = writeln!(
            css,
            ".fill-{name}{{fill:var(--{name})}}.stroke-{name}{{stroke:var(--{name})}}"
        );
        if !dashes.is_empty() {
            let _ = writeln!(css, "polyline.stroke-{name}{{stroke-dasharray:{dashes}}}");
        }
    }
    css + "svg{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif}\n\
           svg text{font-family:inherit;font-variant-numeric:tabular-nums}\n\
           polyline{stroke-linejoin:round}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast as WCAG 2.2 defines it.
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |colour: &str| -> f64 {
            let part = |at: usize| {
                let part = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
                if part <= 0.04045 {
                    part / 12.92
                } else {
                    ((part + 0.055) / 1.055).powf(2.4)
                }
            };
            0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
        };
        let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
        one.max(other) / one.min(other)
    }

    #[test]
    fn every_ink_but_the_grid_can_be_read_as_words() {
        assert!((contrast("#ffffff", "#000000") - 21.0).abs() < 0.01);
        for ink in INKS.iter().filter(|ink| ink.name != "grid") {
            for (shade, ground) in [(ink.light, GROUND_LIGHT), (ink.dark, GROUND_DARK)] {
                let contrast = contrast(shade, ground);
                assert!(contrast >= 4.5, "{} {shade}: {contrast:.2}", ink.name);
            }
        }
    }

    #[test]
    fn series_differ_in_their_dashes_too() {
        let mut dashes: Vec<_> = INKS[7..].iter().map(|ink| ink.dashes).collect();
        dashes.sort_unstable();
        dashes.dedup();
        assert_eq!(dashes.len(), SERIES);
    }

    #[test]
    fn markers_become_classes_and_words_stay() {
        let RGBColor(red, green, blue) = Ink::Series(1).marker();
        let marker = format!("#{red:02X}{green:02X}{blue:02X}");
        assert_eq!(
            classes(format!(
                "<a stroke=\"{marker}\"/><b fill=\"{marker}\">{marker}</b>"
            )),
            format!("<a class=\"stroke-two\"/><b class=\"fill-two\">{marker}</b>")
        );
    }
}
