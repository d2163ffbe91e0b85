//! The numbers of the loop for Prometheus, in the `OpenMetrics` text format.
//!
//! Every name begins with `stentor_`, units are base units, and labels have few values: what a
//! client chooses, such as the name of a topic, is none. A number more is a line more in
//! [`Numbers::encode`].

use std::collections::HashMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use stentor::protocol::ProtocolError;
use stentor::{Cause, Gauges, Histogram, Side, Stats};

use super::auth::KeyCounts;
use super::client::ClientCounts;
use super::hooks::HttpHookCounts;

/// The `Content-Type` of what [`expose`] makes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The clients of the protocol, and who publishes without it, in numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientNumbers {
    pub(super) clients: usize,
    pub(super) users: usize,
    pub(super) counts: ClientCounts,
    /// Of all sets of keys for tokens.
    pub(super) keys: Vec<KeyCounts>,
    pub(super) hooks: Option<HttpHookCounts>,
    /// Messages over HTTP that were too many of their network.
    pub(super) posts_refused: u64,
}

/// Writes all numbers down.
pub(super) fn expose(stats: &Stats, gauges: &Gauges, clients: ClientNumbers) -> String {
    expose_with(Numbers {
        stats: stats.clone(),
        gauges: *gauges,
        clients,
    })
}

fn expose_with(collector: impl Collector) -> String {
    let mut registry = Registry::with_prefix("stentor");
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes whatever is written");
    text
}

#[derive(Debug)]
struct Numbers {
    stats: Stats,
    gauges: Gauges,
    clients: ClientNumbers,
}

impl ClientNumbers {
    #[rustfmt::skip] // A number is a line.
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let counts = &self.counts;
        page.gauge("clients", "Connections that speak the client protocol", self.clients)?;
        page.gauge("users", "Users that have such a connection", self.users)?;
        page.count("client_connects", "Connect commands that succeeded", counts.connected)?;
        page.count("client_subscribes", "Channels that clients were subscribed to", counts.subscribed)?;
        page.counts("client_recoveries", "Subscriptions that asked for what they had missed", "reason", [
            ("recovered", counts.recovered), ("unrecovered", counts.unrecovered),
        ])?;
        page.counts("client_errors", "Commands that failed", "code", sorted(&counts.errors))?;
        page.counts("client_disconnects", "Clients that the application has closed", "code", sorted(&counts.disconnects))?;
        page.counts("posts_refused", "Messages over HTTP answered 429 and not published", "reason", [("rate", self.posts_refused)])?;
        if !self.keys.is_empty() {
            let sum = |of: fn(&KeyCounts) -> u64| self.keys.iter().map(of).sum();
            page.gauge("token_keys", "Keys that verify tokens, of sets", self.keys.iter().map(|keys| keys.keys).sum())?;
            page.gauge("token_keys_skipped", "Keys of sets that cannot be used", self.keys.iter().map(|keys| keys.skipped).sum())?;
            page.counts("token_key_loads", "Times that a set of keys was fetched", "reason", [
                ("loaded", sum(|keys| keys.loads)), ("failed", sum(|keys| keys.failures)),
            ])?;
        }
        if let Some(hooks) = &self.hooks {
            page.gauge("hooks_in_flight", "Questions that wait for a backend", hooks.in_flight)?;
            page.counts("hooks", "Questions to a backend, by what became of them", "reason", [
                ("answered", hooks.answered), ("busy", hooks.busy), ("timeout", hooks.timeouts),
                ("connection", hooks.connections), ("status", hooks.statuses), ("bad_answer", hooks.bad_answers),
            ])?;
        }
        Ok(())
    }
}

/// By code.
fn sorted<C: Ord + Copy>(counts: &HashMap<C, u64>) -> Vec<(C, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(&code, &count)| (code, count)).collect();
    counts.sort_unstable();
    counts
}

impl Collector for Numbers {
    #[rustfmt::skip] // A number is a line.
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (stats, gauges, mut page) = (&self.stats, &self.gauges, Page(encoder));
        self.clients.encode(&mut page)?;
        page.gauge("connections", "Connections, those in their handshake included", gauges.connections)?;
        page.gauge("websockets", "WebSockets that are open", gauges.open)?;
        page.gauge("streams", "Responses without end that are open", gauges.streams)?;
        page.gauge("topics", "Topics with a subscriber", gauges.topics)?;
        page.gauge("patterns", "Patterns of topics with a subscriber", gauges.patterns)?;
        page.gauge("subscriptions", "Subscriptions to topics and patterns", gauges.subscriptions)?;
        page.gauge_of_bytes("queued", "Bytes that wait for all peers, as if each had its own", gauges.queued)?;
        page.gauge_of_bytes("input_memory", "Memory of what peers have sent and is incomplete", gauges.input_memory)?;
        page.gauge_of_bytes("topic_memory", "Memory of topics, subscriptions and presences, about", gauges.topic_memory)?;
        page.gauge_of_bytes("output_memory", "Memory of what waits for peers", gauges.output_memory)?;
        page.gauge("histories", "Topics of which a history is kept", gauges.histories)?;
        page.gauge("kept_publications", "Publications in all histories", gauges.kept_publications)?;
        page.gauge_of_bytes("history_memory", "Memory of all histories", gauges.history_memory)?;
        page.count("history_evicted", "Publications that went because histories had all the memory they may", gauges.history_evicted)?;

        page.count("connections_accepted", "TCP and unix connections accepted", stats.accepted)?;
        page.counts("connections_rejected", "Connections answered 503 or 429 and closed", "reason", [
            ("full", stats.rejected_full),
            ("ip", stats.rejected_ip),
        ])?;
        page.counts("accept_failures", "Times that accept failed", "reason", [
            ("exhausted", stats.accept_exhausted),
            ("lost", stats.accept_lost),
        ])?;
        page.count("connections_ended_without_upgrade", "Connections that ended without having become a WebSocket", stats.ended_without_upgrade)?;
        page.count("http_requests", "Plain HTTP requests answered", stats.requests)?;
        page.count("streams_opened", "Responses without end that were begun", stats.streams)?;

        page.count("websockets_opened", "Opening handshakes completed", stats.opened)?;
        page.counts("websockets_refused", "Requests refused because they were wrong or late", "status", stats.refused.iter())?;
        page.count("websockets_refused_by_application", "Opening handshakes that the application refused", stats.refused_by_application)?;
        page.counts("websockets_closed", "WebSockets that ended", "cause", CAUSES.map(|cause| (cause.name(), stats.closed(cause))))?;

        page.closes("websockets_closes", "WebSockets that ended, by who ended them and the close code", stats)?;

        page.count("messages_received", "Messages received", stats.messages_in)?;
        page.count("messages_sent", "Messages sent, or queued, to subscribers of their topics", stats.messages_out)?;
        page.count("messages_published", "Messages published to topics", stats.published)?;
        page.count("publications_repeated", "Publications answered as the first one with their key was", stats.repeated)?;
        page.count("publications_misnamed", "Publications of other threads to names that no topic can have", stats.misnamed)?;
        page.count("publishers_throttled", "Times that a publisher had to wait until subscribers were served", stats.throttled)?;
        page.count("deliveries", "Sends of what was published in a turn to one subscriber", stats.deliveries)?;
        page.counts("messages_dropped", "Messages not sent", "reason", [
            ("closed", stats.dropped_closed),
            ("slow", stats.dropped_slow),
        ])?;
        page.counts("messages_lost", "Messages dropped by the policies of their topics", "reason", [
            ("newest", stats.lost.newest),
            ("oldest", stats.lost.oldest),
            ("conflated", stats.lost.conflated),
            ("expired", stats.lost.expired),
        ])?;
        page.counts("connections_evicted", "Connections ended because all together took too much memory", "reason", [
            ("input", stats.evicted_input),
            ("output", stats.evicted),
        ])?;
        page.count("subscriptions_refused", "Subscriptions refused because topics took too much memory", stats.refused_subscriptions)?;
        page.count("pongs_coalesced", "Pings answered together with a later one", stats.pongs_coalesced)?;
        page.count("stale", "Commands and events for connections that were gone", stats.stale)?;

        page.bytes("received", "Bytes read from sockets", stats.bytes_in)?;
        page.bytes("sent", "Bytes taken by sockets", stats.bytes_out)?;
        page.bytes("unsent", "Bytes on their way when their connection ended", stats.bytes_unsent)?;

        page.durations("turn", "How long turns of the loop took", &stats.turn)?;
        page.durations("fan_out", "From a publication until its last subscriber was served", &stats.fan_out)
    }
}

/// All of them; which error of the protocol is not told apart.
pub(super) const CAUSES: [Cause; 14] = [
    Cause::Peer,
    Cause::Application,
    Cause::Shutdown,
    Cause::Protocol(ProtocolError::ReservedBits),
    Cause::EndOfStream,
    Cause::ConnectionLost,
    Cause::PongTimeout,
    Cause::MessageTimeout,
    Cause::WriteTimeout,
    Cause::CloseTimeout,
    Cause::SlowConsumer,
    Cause::OutputCap,
    Cause::PingFlood,
    Cause::InputCap,
];

/// Writes one metric at a time. The format adds `_total` to counts, and units.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&(value as u64))
    }

    fn gauge_of_bytes(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?
            .encode_gauge(&(value as u64))
    }

    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        write_count(metric, value)
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric =
            self.0
                .encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Counter)?;
        write_count(metric, value)
    }

    /// One number for each value of a label.
    fn counts<V: ToString>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (V, u64)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            let labels = [(label, value.to_string())];
            write_count(metric.encode_family(&labels)?, count)?;
        }
        Ok(())
    }

    fn closes(&mut self, name: &str, help: &str, stats: &Stats) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (side, code, count) in stats.closes() {
            let side = match side {
                Side::Server => "server",
                Side::Peer => "peer",
            };
            let labels = [("side", side.to_string()), ("code", code.to_string())];
            write_count(metric.encode_family(&labels)?, count)?;
        }
        Ok(())
    }

    fn durations(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let mut below = 0;
        let buckets: Vec<(f64, u64)> = histogram
            .cumulative()
            .map(|(bound, total)| (bound, total - std::mem::replace(&mut below, total)))
            .collect();
        let (sum, count) = (histogram.sum().as_secs_f64(), histogram.count());
        self.0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

fn write_count(mut metric: MetricEncoder<'_>, value: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Write;
    use std::net::{Shutdown, TcpStream};
    use std::time::{Duration, Instant};
    use stentor::{Config, Endpoint, Handler, Server};

    /// The samples of a text by name and labels; panics where it is not as the format wants it.
    fn parse(text: &str) -> BTreeMap<&str, &str> {
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        let (mut family, mut kind) = ("", "");
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap();
                assert!(family.starts_with("stentor_"), "{line}");
                assert!(families.insert(family), "{family} is there once");
                kind = "";
            } else if let Some(description) = line.strip_prefix("# TYPE ") {
                kind = description.strip_prefix(family).unwrap().trim();
            } else if let Some(description) = line.strip_prefix("# UNIT ") {
                let unit = description.strip_prefix(family).unwrap().trim();
                assert!(family.ends_with(&format!("_{unit}")), "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert_sample_of(family, kind, sample);
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let is_new = samples.insert(sample, value).is_none();
                assert!(is_new, "{sample} is there once");
            }
        }
        samples
    }

    fn assert_sample_of(family: &str, kind: &str, sample: &str) {
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let suffix = name.strip_prefix(family).expect("it is declared");
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => panic!("{family} is a {kind}"),
        };
        assert!(suffixes.contains(&suffix), "{sample}");
        let labels = labels.strip_suffix('}').unwrap();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').expect("a label has a value");
            let has_few_values =
                ["status", "cause", "side", "code", "reason", "le"].contains(&label);
            assert!(has_few_values, "{sample}");
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            assert!(!value.unwrap().contains(['"', '\\']), "{sample}");
        }
    }

    /// Each number of `Stats` but those by cause and by status, with the sample that shows it.
    type Field = (&'static str, fn(&mut Stats) -> &mut u64, &'static str);

    #[rustfmt::skip]
    const FIELDS: [Field; 31] = [
        ("accepted", |s| &mut s.accepted, "stentor_connections_accepted_total"),
        ("rejected_full", |s| &mut s.rejected_full, "stentor_connections_rejected_total{reason=\"full\"}"),
        ("rejected_ip", |s| &mut s.rejected_ip, "stentor_connections_rejected_total{reason=\"ip\"}"),
        ("accept_exhausted", |s| &mut s.accept_exhausted, "stentor_accept_failures_total{reason=\"exhausted\"}"),
        ("accept_lost", |s| &mut s.accept_lost, "stentor_accept_failures_total{reason=\"lost\"}"),
        ("opened", |s| &mut s.opened, "stentor_websockets_opened_total"),
        ("refused_by_application", |s| &mut s.refused_by_application, "stentor_websockets_refused_by_application_total"),
        ("ended_without_upgrade", |s| &mut s.ended_without_upgrade, "stentor_connections_ended_without_upgrade_total"),
        ("requests", |s| &mut s.requests, "stentor_http_requests_total"),
        ("messages_in", |s| &mut s.messages_in, "stentor_messages_received_total"),
        ("bytes_in", |s| &mut s.bytes_in, "stentor_received_bytes_total"),
        ("bytes_out", |s| &mut s.bytes_out, "stentor_sent_bytes_total"),
        ("published", |s| &mut s.published, "stentor_messages_published_total"),
        ("deliveries", |s| &mut s.deliveries, "stentor_deliveries_total"),
        ("dropped_closed", |s| &mut s.dropped_closed, "stentor_messages_dropped_total{reason=\"closed\"}"),
        ("dropped_slow", |s| &mut s.dropped_slow, "stentor_messages_dropped_total{reason=\"slow\"}"),
        ("bytes_unsent", |s| &mut s.bytes_unsent, "stentor_unsent_bytes_total"),
        ("pongs_coalesced", |s| &mut s.pongs_coalesced, "stentor_pongs_coalesced_total"),
        ("stale", |s| &mut s.stale, "stentor_stale_total"),
        ("streams", |s| &mut s.streams, "stentor_streams_opened_total"),
        ("messages_out", |s| &mut s.messages_out, "stentor_messages_sent_total"),
        ("misnamed", |s| &mut s.misnamed, "stentor_publications_misnamed_total"),
        ("repeated", |s| &mut s.repeated, "stentor_publications_repeated_total"),
        ("throttled", |s| &mut s.throttled, "stentor_publishers_throttled_total"),
        ("evicted", |s| &mut s.evicted, "stentor_connections_evicted_total{reason=\"output\"}"),
        ("evicted_input", |s| &mut s.evicted_input, "stentor_connections_evicted_total{reason=\"input\"}"),
        ("refused_subscriptions", |s| &mut s.refused_subscriptions, "stentor_subscriptions_refused_total"),
        ("newest", |s| &mut s.lost.newest, "stentor_messages_lost_total{reason=\"newest\"}"),
        ("oldest", |s| &mut s.lost.oldest, "stentor_messages_lost_total{reason=\"oldest\"}"),
        ("conflated", |s| &mut s.lost.conflated, "stentor_messages_lost_total{reason=\"conflated\"}"),
        ("expired", |s| &mut s.lost.expired, "stentor_messages_lost_total{reason=\"expired\"}"),
    ];

    /// Each number of `Gauges`, with the sample that shows it.
    type GaugeField = (&'static str, fn(&mut Gauges, u32), &'static str);

    #[rustfmt::skip]
    const GAUGES: [GaugeField; 14] = [
        ("connections", |g, n| g.connections = n as usize, "stentor_connections"),
        ("open", |g, n| g.open = n as usize, "stentor_websockets"),
        ("streams", |g, n| g.streams = n as usize, "stentor_streams"),
        ("topics", |g, n| g.topics = n as usize, "stentor_topics"),
        ("patterns", |g, n| g.patterns = n as usize, "stentor_patterns"),
        ("subscriptions", |g, n| g.subscriptions = n as usize, "stentor_subscriptions"),
        ("queued", |g, n| g.queued = n as usize, "stentor_queued_bytes"),
        ("input_memory", |g, n| g.input_memory = n as usize, "stentor_input_memory_bytes"),
        ("topic_memory", |g, n| g.topic_memory = n as usize, "stentor_topic_memory_bytes"),
        ("output_memory", |g, n| g.output_memory = n as usize, "stentor_output_memory_bytes"),
        ("histories", |g, n| g.histories = n as usize, "stentor_histories"),
        ("kept_publications", |g, n| g.kept_publications = n as usize, "stentor_kept_publications"),
        ("history_memory", |g, n| g.history_memory = n as usize, "stentor_history_memory_bytes"),
        ("history_evicted", |g, n| g.history_evicted = u64::from(n), "stentor_history_evicted_total"),
    ];

    /// Samples of each histogram: its buckets, its count and its sum.
    fn samples_of_histogram() -> usize {
        Histogram::default().cumulative().count() + 2
    }

    /// The names of the fields of a value that is shown by `{:#?}`, `depth` levels down.
    fn fields_of(debug: &str, depth: usize) -> BTreeSet<&str> {
        let indent = "    ".repeat(depth);
        debug
            .lines()
            .filter_map(|line| line.strip_prefix(&indent[..]))
            .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
            .filter_map(|line| line.split(':').next())
            .collect()
    }

    #[test]
    fn every_number_is_exposed_as_it_is() {
        let mut stats = Stats::default();
        for (number, (_, field, _)) in (1_000..).zip(FIELDS) {
            *field(&mut stats) = number;
        }
        stats.bytes_in = u64::MAX;
        let mut gauges = Gauges::default();
        for (number, (_, set, _)) in (2_000..).zip(GAUGES) {
            set(&mut gauges, number);
        }
        let text = expose(&stats, &gauges, ClientNumbers::default());
        let mut samples = parse(&text);
        // Those of clients have a test of their own.
        samples.retain(|sample, _| {
            let of_clients = ["stentor_client", "stentor_users", "stentor_posts"];
            !of_clients.iter().any(|name| sample.starts_with(name))
        });
        for (_, field, sample) in FIELDS {
            assert_eq!(samples[sample], field(&mut stats).to_string(), "{sample}");
        }
        for (number, (_, _, sample)) in (2_000..).zip(GAUGES) {
            assert_eq!(samples[sample], number.to_string(), "{sample}");
        }
        let single = FIELDS.len() + GAUGES.len() + CAUSES.len();
        assert_eq!(samples.len(), single + 2 * samples_of_histogram());
    }

    /// A field or cause that is new in the library is to be shown here as well.
    #[test]
    fn no_number_of_the_library_is_left_out() {
        let debug = format!("{:#?}", Stats::default());
        let mut fields = fields_of(&debug, 1);
        let causes = debug.split("causes: [").nth(1).unwrap();
        let causes = causes.split(']').next().unwrap();
        assert_eq!(causes.matches(',').count(), CAUSES.len());
        // Those that are shown by a label, or as histograms.
        for several in ["causes", "closes", "refused", "lost", "turn", "fan_out"] {
            assert!(fields.remove(several), "{several}");
        }
        let lost = format!("{:#?}", Stats::default().lost);
        fields.extend(fields_of(&lost, 1));
        assert_eq!(fields, FIELDS.map(|(name, ..)| name).into());
        let gauges = format!("{:#?}", Gauges::default());
        assert_eq!(fields_of(&gauges, 1), GAUGES.map(|(name, ..)| name).into());
        let names: BTreeSet<&str> = CAUSES.map(Cause::name).into();
        assert_eq!(names.len(), CAUSES.len());
    }

    struct Silent;

    impl Handler for Silent {
        type State = ();
    }

    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    /// Turns until the numbers are as they are waited for.
    fn turn_until(server: &mut Server<Silent>, is_there: impl Fn(&Stats) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_there(server.stats()) {
            server.turn(Some(Duration::from_millis(10))).unwrap();
            assert!(Instant::now() < deadline, "{:?}", server.stats());
        }
    }

    /// What a server has counted after peers that sent a request, were answered, sent something
    /// more and left.
    fn stats_after(inputs: &[(&[u8], &[u8])]) -> Stats {
        let config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
        let mut server = Server::bind(config, Silent).unwrap();
        let Endpoint::Tcp(address) = server.endpoints()[0] else {
            panic!("a TCP endpoint")
        };
        let connect = |(request, _): &(&[u8], _)| {
            let mut peer = TcpStream::connect(address).unwrap();
            peer.write_all(request).unwrap();
            peer
        };
        let peers: Vec<_> = inputs.iter().map(connect).collect();
        let refused = |stats: &Stats| stats.refused.iter().map(|(_, count)| count).sum::<u64>();
        turn_until(&mut server, |stats| {
            stats.opened + refused(stats) == inputs.len() as u64
        });
        for (mut peer, (_, more)) in peers.iter().zip(inputs) {
            peer.write_all(more).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
        }
        turn_until(&mut server, |stats| {
            stats.closed_total() + stats.ended_without_upgrade == inputs.len() as u64
        });
        server.stats().clone()
    }

    #[test]
    fn what_ended_and_what_was_refused_is_shown_by_cause_and_status() {
        let stats = stats_after(&[
            (UPGRADE, b""),
            (UPGRADE, b""),
            (UPGRADE, b"\x88\x80mask"),
            (UPGRADE, b"\x81\x01x"),
            (b"GET / HTTP/1.1\r\n\r\n", b""),
            (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", b""),
        ]);
        let text = expose(&stats, &Gauges::default(), ClientNumbers::default());
        let samples = parse(&text);
        for cause in CAUSES {
            let sample = format!(
                "stentor_websockets_closed_total{{cause=\"{}\"}}",
                cause.name()
            );
            assert_eq!(
                samples[&sample[..]],
                stats.closed(cause).to_string(),
                "{sample}"
            );
        }
        let closed = |side, code| {
            samples
                [&format!("stentor_websockets_closes_total{{side=\"{side}\",code=\"{code}\"}}")[..]]
        };
        assert_eq!(closed("peer", 1006), "2");
        assert_eq!(closed("peer", 1005), "1");
        assert_eq!(closed("server", 1002), "1");
        let sum = |name: &str| -> u64 {
            let of_name = samples
                .iter()
                .filter(|(sample, _)| sample.starts_with(name));
            of_name
                .map(|(_, value)| value.parse::<u64>().unwrap())
                .sum()
        };
        let protocol_error = Cause::Protocol(ProtocolError::UnmaskedFrame);
        for (cause, count) in [
            (Cause::EndOfStream, 2),
            (Cause::Peer, 1),
            (protocol_error, 1),
        ] {
            assert_eq!(stats.closed(cause), count, "{cause}");
        }
        assert_eq!(sum("stentor_websockets_closed_total{"), 4);
        assert_eq!(sum("stentor_websockets_refused_total{"), 2);
        for (status, count) in stats.refused.iter() {
            let sample = format!("stentor_websockets_refused_total{{status=\"{status}\"}}");
            assert_eq!(samples[&sample[..]], count.to_string(), "{sample}");
        }
    }

    #[derive(Debug)]
    struct Durations(Histogram);

    impl Collector for Durations {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            Page(encoder).durations("wait", "How long it took", &self.0)
        }
    }

    #[test]
    fn clients_are_shown() {
        let mut clients = ClientNumbers {
            clients: 3,
            users: 2,
            hooks: Some(HttpHookCounts::default()),
            posts_refused: 5,
            ..ClientNumbers::default()
        };
        clients.counts.errors.extend([(103, 7), (102, 1)]);
        clients.counts.disconnects.insert(3501, 4);
        let text = expose(&Stats::default(), &Gauges::default(), clients);
        let samples = parse(&text);
        assert_eq!(samples["stentor_clients"], "3");
        assert_eq!(samples["stentor_client_errors_total{code=\"103\"}"], "7");
        assert_eq!(
            samples["stentor_client_disconnects_total{code=\"3501\"}"],
            "4"
        );
        assert_eq!(samples["stentor_hooks_total{reason=\"busy\"}"], "0");
        assert_eq!(samples["stentor_posts_refused_total{reason=\"rate\"}"], "5");
    }

    #[test]
    fn durations_are_shown_as_a_histogram() {
        let mut histogram = Histogram::default();
        for millis in [1, 1, 3, 250_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let text = expose_with(Durations(histogram.clone()));
        let samples = parse(&text);
        assert_eq!(samples["stentor_wait_seconds_count"], "4");
        assert_eq!(samples["stentor_wait_seconds_sum"], "250.005");
        for (le, count) in [
            ("0.000512", 0),
            ("0.001024", 2),
            ("0.004096", 3),
            ("+Inf", 4),
        ] {
            let sample = format!("stentor_wait_seconds_bucket{{le=\"{le}\"}}");
            assert_eq!(samples[&sample[..]], count.to_string(), "{sample}");
        }
        assert_eq!(samples.len(), samples_of_histogram());
    }
}
