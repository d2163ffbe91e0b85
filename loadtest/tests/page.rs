//! Pages and plots: complete, well-formed, and harmless whatever the server said.

use std::fmt::Display;
use std::sync::LazyLock;

use loadtest::cpu::{Bound, Share};
use loadtest::failure::{Failure, Failures};
use loadtest::latency::{Latencies, Summary};
use loadtest::page::page;
use loadtest::plot::{Bar, Bars, Mark, Plot, Steps};
use loadtest::report::{Latency, Report, ServerPoint};
use loadtest::units::{Micros, Rate, float};
use proptest::collection::vec;
use proptest::prelude::*;
use roxmltree::{Document, Node, ParsingOptions};

mod sample;

fn page_of(report: &Report) -> String {
    page(report, &sample::circumstances())
}

fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}\n{page}"))
}

fn text_of(node: Node<'_, '_>) -> String {
    node.descendants()
        .filter(Node::is_text)
        .filter_map(|text| text.text())
        .collect()
}

fn plots<'a>(page: &'a Document<'_>) -> Vec<&'a str> {
    page.descendants()
        .filter(|node| node.has_tag_name("figcaption"))
        .filter_map(|caption| caption.text())
        .collect()
}

/// Every number of every shape is finite.
fn assert_is_drawn(svg: Node<'_, '_>) {
    for shape in svg.descendants().filter(Node::is_element) {
        for attribute in shape.attributes() {
            let is_wrong = |word: &str| attribute.value().contains(word);
            let is_label = attribute.name() == "aria-label";
            assert!(!is_wrong("NaN"), "{attribute:?}");
            assert!(is_label || !is_wrong("inf"), "{attribute:?}");
            assert!(!is_wrong("#A55A"), "{attribute:?} is a marker");
        }
    }
}

fn assert_stands_alone(plot: &Plot) {
    let svg = plot.standalone();
    let document = Document::parse(&svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg");
    assert!(root.attribute("aria-label").is_some());
    assert_is_drawn(root);
}

#[test]
fn page_contains_every_number_of_the_report() {
    for report in [sample::echo(), sample::broadcast(), sample::idle()] {
        let page = page_of(&report);
        let document = parsed(&page);
        let text = text_of(document.root_element());
        let expect = |number: &dyn Display| {
            let number = number.to_string();
            assert!(text.contains(&number), "{number:?} is missing in {text}");
        };
        expect(&report.target);
        expect(&report.load);
        for figure in &report.figures {
            expect(&figure.label);
            expect(figure);
        }
        for latency in &report.latencies {
            let summary = &latency.summary;
            expect(&latency.label);
            expect(&Rate(float(summary.count)));
            for micros in [
                summary.mean,
                summary.p50,
                summary.p90,
                summary.p99,
                summary.p999,
                summary.max,
            ] {
                expect(&Micros(micros));
            }
        }
        expect(&report.cost.own);
        if let Some(server) = report.cost.server {
            expect(&server.share);
            expect(&Micros(server.user_us));
            expect(&Micros(server.system_us));
            expect(&Micros(server.user_us + server.system_us));
        }
        for line in report.failures.to_string().lines() {
            expect(&line.trim().trim_start_matches("FAILED").trim_start());
        }
        let circumstances = sample::circumstances();
        expect(&circumstances.machine);
        expect(&circumstances.kernel);
        expect(&circumstances.date);
        expect(&circumstances.command);
    }
}

#[test]
fn whose_limit_a_rate_was_is_said_in_words() {
    for (bound, word, colour) in [
        (Bound::Server, "server-bound", "good"),
        (Bound::Client, "client-bound", "bad"),
        (Bound::Contended, "contended", "bad"),
        (Bound::Neither, "unbound", "doubtful"),
        (Bound::Unknown, "unknown", "doubtful"),
    ] {
        let mut report = sample::echo();
        report.cost.bound = bound;
        let page = page_of(&report);
        let document = parsed(&page);
        let class = format!("verdict {colour}");
        let verdict = document
            .descendants()
            .find(|node| node.attribute("class") == Some(&class))
            .unwrap();
        assert!(text_of(verdict).starts_with(word), "{}", text_of(verdict));
    }
    assert!(!page_of(&sample::idle()).contains("class=\"verdict"));
}

#[test]
fn what_was_read_is_drawn() {
    let page = page_of(&sample::echo());
    assert_eq!(
        plots(&parsed(&page)),
        [
            "Latency by percentile",
            "Rate over time",
            "Latency over time: round trip",
            "CPU over time",
            "Server memory over time"
        ]
    );
    assert!(!page.contains("class=\"absent\""));
}

#[test]
fn what_was_not_read_is_explained() {
    let page = page_of(&sample::broadcast());
    assert_eq!(
        plots(&parsed(&page)),
        [
            "Latency by percentile",
            "Rate over time",
            "Latency over time: delivery",
            "CPU over time",
            "Failures over time"
        ]
    );
    assert!(page.contains("<code>--server-pid</code>"));

    let page = page_of(&sample::idle());
    assert!(plots(&parsed(&page)).is_empty());
    assert!(page.contains("Nothing was read over time"));
}

#[test]
fn words_of_a_hostile_server_stay_words() {
    let hostile = "</pre></style><script>alert(1)</script><img src=x onerror='alert(\"1\")'>&lt;\u{0}\u{1b}]0;\u{202e}";
    let mut report = sample::broadcast();
    report.failures = Failures::default();
    report.failures.add(Failure::Status, hostile);
    report.target = hostile.into();
    report.load = hostile.into();
    report.scenario = hostile.into();
    report.cost.per = hostile.into();
    report.figures[0].label = hostile.into();
    report.latencies[0].label = hostile.into();
    let page = page_of(&report);
    let document = parsed(&page);
    for element in document.descendants().filter(Node::is_element) {
        let name = element.tag_name().name();
        assert!(!["script", "img", "a", "link"].contains(&name), "<{name}>");
        for attribute in element.attributes() {
            let name = attribute.name();
            assert!(!name.starts_with("on"), "{attribute:?}");
            assert!(!["src", "href", "style"].contains(&name), "{attribute:?}");
        }
    }
    let text = text_of(document.root_element());
    assert!(
        text.contains("<script>alert(1)</script><img src=x onerror='alert(\"1\")'>&lt;\u{fffd}")
    );
    assert!(!page.contains(['\u{0}', '\u{1b}', '\u{202e}']));
}

#[test]
fn page_needs_no_other_file() {
    for report in [sample::echo(), sample::broadcast(), sample::idle()] {
        let page = page_of(&report);
        for reference in ["url(", "@import", "http://", "https://", "href=", " src=\""] {
            assert!(!page.contains(reference), "{reference}");
        }
        for name in page.split("class=\"fill-").skip(1) {
            let name = name.split('"').next().unwrap();
            assert!(page.contains(&format!(".fill-{name}{{")), "{name}");
        }
    }
}

#[test]
fn comparisons_are_files_of_their_own() {
    let curves = sample::curves().plot().unwrap();
    for plot in [sample::ratios().plot(), sample::memory().plot(), curves] {
        assert_stands_alone(&plot);
        let svg = plot.standalone();
        assert!(svg.contains("prefers-color-scheme:dark") && svg.contains(plot.title()));
    }
}

#[test]
fn bars_say_every_value_and_a_dash_where_there_is_none() {
    let svg = sample::ratios().plot().standalone();
    let document = Document::parse(&svg).unwrap();
    let words: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")))
        .map(|node| text_of(node).trim().to_owned())
        .collect();
    for expected in [
        "stentor",
        "limit",
        "1 × 1 MiB, 1 in flight",
        "0.96 (0.92–0.99)",
        "–",
    ] {
        assert!(
            words.iter().any(|word| word == expected),
            "{expected} in {words:?}"
        );
    }
    let shapes = |name| {
        document
            .descendants()
            .filter(|node| node.tag_name().name() == name)
            .count()
    };
    assert_eq!(shapes("rect"), 15 + 1, "all bars but one, and the ground");
}

#[test]
fn names_of_servers_are_escaped_in_files() {
    let mut bars = sample::memory();
    bars.title = "<b>&".into();
    bars.rows[0].label = "</text>\u{1}".into();
    bars.rows[0].bars[0].server = "\"<i>".into();
    assert_stands_alone(&bars.plot());
}

#[test]
fn report_of_nothing_is_a_page() {
    let mut report = sample::echo();
    report.figures.clear();
    report.latencies.clear();
    report.series.clear();
    report.cost.server = None;
    report.cost.own = Share {
        busy: f64::NAN,
        waiting: f64::NAN,
    };
    assert!(plots(&parsed(&page_of(&report))).is_empty());
}

#[test]
fn single_moment_is_a_dot() {
    let mut report = sample::echo();
    report.series.truncate(1);
    let page = page_of(&report);
    let document = parsed(&page);
    let dots = document
        .descendants()
        .filter(|node| node.tag_name().name() == "circle");
    // Rate, p50, p99, server, system, user, load generator, private, resident.
    assert_eq!(dots.count(), 9);
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        proptest::num::f64::ANY,
        0.0..1e6,
        Just(0.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MAX),
    ]
}

/// Made once: it takes longer than its page.
static QUIET: LazyLock<Report> = LazyLock::new(sample::idle);

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_number_spoils_a_page(
        moments in vec((number(), number(), number(), any::<u64>()), 0..6),
        curve in vec((number(), number()), 0..6),
        count in any::<u64>(),
    ) {
        let mut report = QUIET.clone();
        report.latencies.push(Latency {
            key: "round_trip".into(),
            label: "round trip".into(),
            summary: Summary { curve, count, ..Latencies::default().summary() },
        });
        for (at, value, other, bytes) in moments {
            let mut point = sample::moment(0);
            point.at = at;
            point.per_second = value;
            point.p50 = Some(other);
            point.p99 = Some(value);
            point.own_busy = other;
            point.failures = bytes;
            point.server = Some(ServerPoint {
                user: value,
                system: other,
                private_dirty: bytes,
                resident: bytes,
            });
            report.series.push(point);
        }
        let page = page_of(&report);
        for svg in parsed(&page).descendants().filter(|node| node.tag_name().name() == "svg") {
            assert_is_drawn(svg);
        }
    }

    #[test]
    fn no_number_spoils_bars(
        values in vec((proptest::option::of(number()), number(), number()), 0..6),
        limit in number(),
        powers in any::<bool>(),
    ) {
        let mut bars: Bars = sample::memory();
        let bar = bars.rows[0].bars[0].clone();
        bars.steps = if powers { Steps::Log } else { Steps::Linear };
        bars.limit = Some(Mark { value: limit, label: "limit".into() });
        bars.rows[0].bars = values
            .into_iter()
            .map(|(value, low, high)| Bar { value, low, high, ..bar.clone() })
            .collect();
        assert_stands_alone(&bars.plot());
    }
}
