//! A report as a page: one file that needs no network, no script and no other file.

mod circumstances;

use std::fmt::Write as _;

use crate::cpu::{Bound, Cost};
use crate::latency::Summary;
use crate::plot::{Across, Escaped, Ink, Line, Lines, Mark, Plot, Quantity, Steps, stylesheet};
use crate::report::{Figure, Latency, Point, Report, ServerPoint, Unit};
use crate::units::{Micros, Rate, float};

pub use circumstances::Circumstances;

/// The page: well-formed as HTML and as XML. Nothing in the report can be more than text in it.
pub fn page(report: &Report, circumstances: &Circumstances) -> String {
    let (scenario, target) = (Escaped(&report.scenario), Escaped(&report.target));
    let parts = [
        format!(
            "<header>\n<p class=\"kicker\">{scenario}</p>\n<h1>{target}</h1>\n<p>{}, {:.2} s</p>\n</header>\n",
            Escaped(&report.load),
            report.seconds
        ),
        verdict(report),
        figures(&report.figures),
        failures(report),
        latencies(report),
        cost(&report.cost),
        plots(report),
        READING.to_owned(),
        origin(circumstances),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <title>{scenario} {target}</title>\n<style>\n{}{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
        stylesheet(),
        parts.concat()
    )
}

const STYLE: &str = include_str!("page.css");

const READING: &str = "<section>\n<h2>How to read it</h2>\n\
    <p>A rate is the server’s only if the run was server-bound; otherwise it says how fast the load was. \
    Compare runs of one machine made in turns, never rates of two days: machines drift by more than servers differ. \
    Each further mark of the percentiles is ten times as rare, and in a closed loop they grow with the number of \
    connections: they show stalls, not what users would wait.</p>\n</section>\n";

/// Whose limit the rate was, if there is a rate.
fn verdict(report: &Report) -> String {
    let has_rate = |figure: &Figure| figure.unit == Unit::PerSecond;
    if !report.figures.iter().any(has_rate) {
        return String::new();
    }
    let bound = report.cost.bound;
    let ink = match bound {
        Bound::Server => Ink::Good,
        Bound::Client | Bound::Contended => Ink::Bad,
        Bound::Neither | Bound::Unknown => Ink::Doubtful,
    };
    let (name, meaning) = (ink.name(), Escaped(bound.meaning()));
    format!("<p class=\"verdict {name}\"><strong>{bound}:</strong> {meaning}.</p>\n")
}

/// The first number is the largest; whoever points at one sees it whole.
fn figures(figures: &[Figure]) -> String {
    let mut html = String::from("<dl class=\"figures\">\n");
    for figure in figures {
        let (label, value, written) = (Escaped(&figure.label), figure.value, figure.to_string());
        let (number, unit) = written.split_once(' ').unwrap_or((&written, ""));
        let _ = writeln!(
            html,
            "<div><dt>{label}</dt><dd title=\"{value}\">{number}<small> {unit}</small></dd></div>"
        );
    }
    html + "</dl>\n"
}

fn failures(report: &Report) -> String {
    if report.failures.is_empty() {
        return String::new();
    }
    let lines = report.failures.lines().join("\n");
    format!(
        "<section class=\"failures\">\n<h2>Failures</h2>\n<pre>{}</pre>\n</section>\n",
        Escaped(&lines)
    )
}

fn latencies(report: &Report) -> String {
    if report.latencies.is_empty() {
        return String::new();
    }
    let rows = report.latencies.iter().map(|latency| {
        let Summary {
            count,
            mean,
            p50,
            p90,
            p99,
            p999,
            max,
            ..
        } = latency.summary;
        let cells = [p50, p90, p99, p999, max, mean].map(|micros| Micros(micros).to_string());
        let count = Rate(float(count)).to_string();
        (&latency.label[..], [&cells[..], &[count]].concat())
    });
    let heads = ["p50", "p90", "p99", "p99.9", "max", "mean", "count"];
    table("Latencies in µs", &heads, rows)
}

fn cost(cost: &Cost) -> String {
    let mut rows = Vec::new();
    if let Some(server) = cost.server {
        let (user, system) = (server.user_us, server.system_us);
        let micros = [user + system, user, system].map(|micros| Micros(micros).to_string());
        rows.push((
            "server",
            [&micros[..], &[server.share.to_string()]].concat(),
        ));
    }
    let mut own = vec!["–".to_owned(); 3];
    own.push(cost.own.to_string());
    rows.push(("load generator", own));
    let caption = format!("CPU in µs per {}", cost.per);
    table(&caption, &["all", "user", "system", "busy"], rows)
}

fn table<'a>(
    title: &str,
    heads: &[&str],
    rows: impl IntoIterator<Item = (&'a str, Vec<String>)>,
) -> String {
    let title = Escaped(title);
    let mut html = format!(
        "<section>\n<h2>{title}</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\">\n\
         <table>\n<thead><tr><td></td>"
    );
    for head in heads {
        let _ = write!(html, "<th scope=\"col\">{}</th>", Escaped(head));
    }
    html += "</tr></thead>\n<tbody>\n";
    for (label, cells) in rows {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", Escaped(label));
        for cell in cells {
            let _ = write!(html, "<td>{}</td>", Escaped(&cell));
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table>\n</div>\n</section>\n"
}

fn plots(report: &Report) -> String {
    let lines = [
        percentiles(report),
        rate(report),
        latency_over_time(report),
        cpu(report),
        memory(report),
        failures_over_time(report),
    ];
    let mut html = String::from("<section class=\"plots\">\n");
    for plot in lines.iter().filter_map(Lines::plot) {
        html += &figure(&plot);
    }
    html += "</section>\n";
    if report.series.is_empty() {
        html += "<p class=\"absent\">Nothing was read over time.</p>\n";
    }
    if report.cost.server.is_none() {
        html += "<p class=\"absent\">The server’s CPU time and memory are not shown: \
                 they are read from its process, which <code>--server-pid</code> names.</p>\n";
    }
    html
}

fn figure(plot: &Plot) -> String {
    let (title, svg) = (Escaped(plot.title()), plot.inline());
    format!("<figure>\n<figcaption>{title}</figcaption>\n{svg}</figure>\n")
}

fn percentiles(report: &Report) -> Lines {
    let line = |latency: &Latency| {
        let Summary { curve, count, .. } = &latency.summary;
        Line::quantiles(&latency.label, curve, *count)
    };
    Lines {
        title: "Latency by percentile".to_owned(),
        across: Across::Quantiles,
        quantity: Quantity::Micros,
        steps: Steps::Log,
        lines: report.latencies.iter().map(line).collect(),
        limit: None,
    }
}

fn rate(report: &Report) -> Lines {
    let figures = report.figures.first();
    let label = figures.map_or("rate", |figure| &figure.label);
    over_time(
        "Rate over time".to_owned(),
        Quantity::Count,
        vec![line(label, report, |point| Some(point.per_second))],
    )
}

fn latency_over_time(report: &Report) -> Lines {
    let first = report.latencies.first();
    let label = first.map_or("latency", |latency| &latency.label);
    Lines {
        steps: Steps::Log,
        ..over_time(
            format!("Latency over time: {label}"),
            Quantity::Micros,
            vec![
                line("p50", report, |point| point.p50),
                line("p99", report, |point| point.p99),
            ],
        )
    }
}

fn cpu(report: &Report) -> Lines {
    Lines {
        limit: Some(Mark {
            value: 1.0,
            label: "one core".to_owned(),
        }),
        ..over_time(
            "CPU over time".to_owned(),
            Quantity::Percent,
            vec![
                line("server", report, |point| {
                    point.server.map(|server| server.user + server.system)
                }),
                line("server system", report, |point| {
                    point.server.map(|server| server.system)
                }),
                line("server user", report, |point| {
                    point.server.map(|server| server.user)
                }),
                line("load generator", report, |point| Some(point.own_busy)),
            ],
        )
    }
}

fn memory(report: &Report) -> Lines {
    let of_server = |label, bytes: fn(ServerPoint) -> u64| {
        line(label, report, move |point| {
            point.server.map(|server| float(bytes(server)))
        })
    };
    over_time(
        "Server memory over time".to_owned(),
        Quantity::Bytes,
        vec![
            of_server("private", |server| server.private_dirty),
            of_server("resident", |server| server.resident),
        ],
    )
}

/// Nothing to draw if nothing failed.
fn failures_over_time(report: &Report) -> Lines {
    let has_failed = report.series.iter().any(|point| point.failures > 0);
    let failures = line("failures", report, |point| Some(float(point.failures)));
    over_time(
        "Failures over time".to_owned(),
        Quantity::Count,
        if has_failed { vec![failures] } else { vec![] },
    )
}

fn over_time(title: String, quantity: Quantity, lines: Vec<Line>) -> Lines {
    Lines {
        title,
        across: Across::Time,
        quantity,
        steps: Steps::Linear,
        lines,
        limit: None,
    }
}

fn line(label: &str, report: &Report, value: impl Fn(&Point) -> Option<f64>) -> Line {
    Line {
        label: label.to_owned(),
        points: report
            .series
            .iter()
            .map(|point| (point.at, value(point)))
            .collect(),
    }
}

fn origin(circumstances: &Circumstances) -> String {
    let Circumstances {
        date,
        machine,
        kernel,
        command,
    } = circumstances;
    let mut html = format!(
        "<footer>\n<h2>Where and how</h2>\n<pre>{}</pre>\n<dl>\n",
        Escaped(command)
    );
    let program = concat!("loadtest ", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("date", &date[..]),
        ("machine", machine),
        ("kernel", kernel),
        ("program", program),
    ] {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", Escaped(value));
    }
    html + "</dl>\n</footer>\n"
}
