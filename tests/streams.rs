//! Responses without end: what they carry and how they end.

use std::time::Duration;

use stentor::protocol::http::{Request, Response};
use stentor::topic::Namespaces;
use stentor::{
    Accept, Cause, CloseCode, Closed, Config, ConnectionId, Context, Form, Handler, Message,
    Output, Publication, Sent, SlowPolicy, TopicOptions,
};

use crate::support::{Client, PATIENCE, Running, TEXT, masked, serve, upgrade_request};

const EVENTS: Form = Form::custom(1);

/// What is done in `open` of a stream, by its target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Act {
    #[default]
    Subscribe,
    Close,
    Flood,
}

/// Plain requests become streams of what is published to "news".
#[derive(Default)]
struct Feed {
    opened: Vec<ConnectionId>,
    closed: Vec<(ConnectionId, u16, Cause)>,
    messages: usize,
    last_write: Option<Sent>,
}

impl Handler for Feed {
    type State = Act;

    const KEEP_ALIVE: &'static [u8] = b"(still here)";

    fn upgrade(
        &mut self,
        ctx: &mut Context<'_, Act>,
        request: &Request<'_>,
    ) -> Result<Accept<Act>, Response> {
        if request.path() == b"/refused" {
            ctx.stream(Act::Subscribe, EVENTS);
            return Err(Response::new(403).text("not you\n"));
        }
        Ok(Accept::default())
    }

    fn request(&mut self, ctx: &mut Context<'_, Act>, request: &Request<'_>) -> Response {
        let act = match request.path() {
            b"/events" => Act::Subscribe,
            b"/over" => Act::Close,
            b"/flood" => Act::Flood,
            _ => return Response::not_found(),
        };
        assert_eq!(ctx.write(b"too early"), Sent::Dropped);
        ctx.stream(act, EVENTS);
        Response::new(200)
            .header("Content-Type", "text/event-stream")
            .unwrap()
    }

    fn open(&mut self, ctx: &mut Context<'_, Act>) {
        self.opened.push(ctx.id());
        if ctx.is_stream() {
            assert_eq!(ctx.write(b"(hello)"), Sent::Sent);
        } else {
            assert_eq!(ctx.write(b"no stream"), Sent::Dropped);
        }
        match *ctx.state() {
            Act::Subscribe => assert_eq!(ctx.subscribe("news"), Ok(true)),
            Act::Close => ctx.close(CloseCode::NORMAL, "").unwrap(),
            Act::Flood => {
                let part = vec![b'x'; 1 << 20];
                let mut written = 0;
                loop {
                    let sent = ctx.write(&part);
                    self.last_write = Some(sent);
                    if sent == Sent::Dropped {
                        break;
                    }
                    written += 1;
                    assert!(written < 64);
                }
            }
        }
    }

    fn message(&mut self, _: &mut Context<'_, Act>, _: Message<'_>) {
        self.messages += 1;
    }

    fn close(&mut self, ctx: &mut Context<'_, Act>, closed: Closed<'_>) {
        assert_eq!(ctx.write(b"too late"), Sent::Dropped);
        self.closed
            .push((ctx.id(), closed.code.get(), closed.cause));
    }

    fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        assert_eq!(form, EVENTS);
        output.raw(b"<");
        output.raw(publication.topic.as_bytes());
        output.raw(b":");
        output.raw(publication.message.payload());
        output.raw(b">");
    }
}

fn start(configure: impl FnOnce(&mut Config)) -> Running<Feed> {
    serve(Feed::default(), configure)
}

const REQUEST: &[u8] = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A client that has read the head and the greeting.
fn listener(server: &Running<Feed>) -> Client {
    let mut client = Client::raw(server.address);
    client.send(REQUEST);
    client.head();
    assert_eq!(client.read(7), b"(hello)");
    client
}

fn publish(server: &Running<Feed>, text: &'static str) -> usize {
    server.ask(move |_, ctx| ctx.publish("news", text))
}

/// Waits for the end of as many connections as have opened, and answers how they did.
fn ended(server: &Running<Feed>) -> Vec<(u16, Cause)> {
    server.wait_until("all have ended", |feed, ctx| {
        !feed.opened.is_empty()
            && feed.closed.len() >= feed.opened.len()
            && ctx.connection_count() == 0
    });
    server.ask(|feed, ctx| {
        let mut ids: Vec<_> = feed.closed.iter().map(|closed| closed.0).collect();
        ids.sort_unstable();
        let mut opened = feed.opened.clone();
        opened.sort_unstable();
        assert_eq!(ids, opened, "each ends once");
        assert_eq!((ctx.topic_count(), ctx.gauges().output_memory), (0, 0));
        feed.closed
            .iter()
            .map(|closed| (closed.1, closed.2))
            .collect()
    })
}

#[test]
fn a_stream_is_a_head_and_what_is_written_and_published() {
    let server = start(|_| ());
    let mut client = Client::raw(server.address);
    client.send(REQUEST);
    let head = client.head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(
        head.contains("\r\ncontent-type: text/event-stream\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert!(
        !head.contains("content-length") && !head.contains("transfer-encoding"),
        "{head}"
    );
    assert_eq!(client.read(7), b"(hello)");
    let mut socket = Client::open(server.address, "/");
    server.ask(|_, ctx| {
        assert_eq!(ctx.publish("news", "one"), 2);
        ctx.publish("news", "two");
        let gauges = ctx.gauges();
        assert_eq!((gauges.streams, gauges.open, gauges.connections), (1, 1, 2));
    });
    assert_eq!(client.read(20), b"<news:one><news:two>");
    assert_eq!([socket.hear(), socket.hear()], ["one", "two"]);
    socket.hears_nothing_more();
    assert_eq!(server.ask(|_, ctx| ctx.stats().streams), 1);
}

#[test]
fn one_connection_writes_to_the_stream_of_another() {
    let server = start(|_| ());
    let mut client = listener(&server);
    let mut socket = Client::open(server.address, "/");
    server.ask(|feed, ctx| {
        let (stream, socket) = (feed.opened[0], feed.opened[1]);
        let before = ctx.stats().dropped_closed;
        ctx.publish("news", "one");
        assert_eq!(ctx.write_to(stream, b"(two)"), Sent::Sent);
        assert_eq!(ctx.write_to(socket, b"no stream"), Sent::Dropped);
        ctx.publish("news", "three");
        ctx.close_connection(stream, CloseCode::NORMAL, "").unwrap();
        assert_eq!(ctx.write_to(stream, b"too late"), Sent::Dropped);
        assert_eq!(ctx.stats().dropped_closed - before, 2);
    });
    assert_eq!(client.read_to_end(), b"<news:one>(two)<news:three>");
    assert_eq!([socket.hear(), socket.hear()], ["one", "three"]);
    socket.hears_nothing_more();
}

#[test]
fn a_silent_stream_is_kept_alive() {
    let server = start(|config| config.timeouts.idle = Duration::from_millis(100));
    let mut client = listener(&server);
    for _ in 0..3 {
        assert_eq!(client.read(12), b"(still here)");
    }
    assert_eq!(publish(&server, "news"), 1);
    let mut heard = Vec::new();
    while !heard.ends_with(b"<news:news>") {
        heard.extend(client.read(1));
    }
    assert!(heard.starts_with(b"(still here)") || heard.starts_with(b"<news"));
}

#[test]
fn the_clients_fin_ends_a_stream() {
    let server = start(|_| ());
    let client = listener(&server);
    client.finish_sending();
    assert_eq!(ended(&server), [(1006, Cause::EndOfStream)]);
}

#[test]
fn fin_that_comes_with_the_request_ends_a_stream() {
    let server = start(|_| ());
    for _ in 0..20 {
        let stands_still = server.stand_still();
        let mut client = Client::raw(server.address);
        client.send(REQUEST);
        client.finish_sending();
        drop(stands_still);
        server.wait_until("it has ended", |feed, ctx| {
            feed.closed.len() == feed.opened.len() && ctx.connection_count() == 0
        });
        client.read_to_end();
    }
}

#[test]
fn a_reset_ends_a_stream() {
    let server = start(|_| ());
    listener(&server).reset();
    let ended = ended(&server);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].0, 1006);
}

#[test]
fn what_comes_behind_the_request_is_ignored() {
    // More than one read takes in, in one go and bit by bit.
    let server = start(|_| ());
    let mut client = Client::raw(server.address);
    let mut bytes = REQUEST.to_vec();
    for _ in 0..100 {
        bytes.extend(masked(TEXT, &[b'x'; 5000]));
        bytes.extend_from_slice(REQUEST);
        bytes.extend_from_slice(upgrade_request("/").as_bytes());
    }
    client.send(&bytes);
    client.head();
    assert_eq!(client.read(7), b"(hello)");
    client.send(&bytes);
    assert_eq!(publish(&server, "one"), 1);
    assert_eq!(client.read(10), b"<news:one>");
    let len = bytes.len() as u64;
    server.wait_until("all of it is read", move |_, ctx| {
        ctx.stats().bytes_in == 2 * len
    });
    client.finish_sending();
    assert_eq!(ended(&server), [(1006, Cause::EndOfStream)]);
    assert!(client.read_to_end().is_empty());
    server.ask(|feed, ctx| assert_eq!((feed.messages, ctx.stats().requests), (0, 1)));
}

#[test]
fn the_application_ends_a_stream_behind_what_was_published() {
    let server = start(|_| ());
    let mut client = listener(&server);
    server.ask(|feed, ctx| {
        ctx.publish("news", "last words");
        ctx.close_connection(feed.opened[0], CloseCode::NORMAL, "")
            .unwrap();
        assert_eq!(ctx.publish("news", "too late"), 0);
    });
    assert_eq!(client.read_to_end(), b"<news:last words>");
    drop(client);
    assert_eq!(ended(&server), [(1000, Cause::Application)]);
}

#[test]
fn a_stream_may_be_over_as_soon_as_it_is_open() {
    let server = start(|_| ());
    let mut client = Client::raw(server.address);
    client.send(b"GET /over HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    assert_eq!(client.read_to_end(), b"(hello)");
    drop(client);
    assert_eq!(ended(&server), [(1000, Cause::Application)]);
}

#[test]
fn a_shutdown_ends_streams_behind_what_was_published() {
    let server = start(|_| ());
    let mut clients: Vec<Client> = (0..3).map(|_| listener(&server)).collect();
    server.ask(|_, ctx| {
        ctx.publish("news", "last words");
        ctx.shut_down();
    });
    for client in &mut clients {
        assert_eq!(client.read_to_end(), b"<news:last words>");
    }
    drop(clients);
    let feed = server.finish();
    let ends = feed.closed.iter().map(|closed| (closed.1, closed.2));
    assert_eq!(ends.collect::<Vec<_>>(), [(1001, Cause::Shutdown); 3]);
}

#[test]
fn a_stream_that_nobody_reads_is_dropped() {
    let server = start(|config| {
        (config.limits.outbox_soft, config.limits.outbox_hard) = (16 << 10, 64 << 10);
        config.timeouts.write = PATIENCE;
    });
    let mut reader = listener(&server);
    let stuck = listener(&server);
    let part: &'static str = "x".repeat(64 << 10).leak();
    let mut published = 0;
    while server.ask(|feed, _| feed.closed.is_empty()) {
        publish(&server, part);
        reader.read(part.len() + 7);
        published += 1;
        assert!(published < 1000);
    }
    server.ask(|feed, ctx| {
        let id = feed.opened[1];
        assert_eq!(feed.closed, [(id, 1013, Cause::SlowConsumer)]);
        assert_eq!(ctx.stats().dropped_slow, 1);
    });
    publish(&server, "on it goes");
    assert_eq!(reader.read(17), b"<news:on it goes>");
    drop((stuck, reader));
    assert_eq!(ended(&server).len(), 2);
}

#[test]
fn what_a_slow_stream_loses_are_whole_publications() {
    const LEN: usize = 10_000;
    let server = start(|config| {
        config.topics = Namespaces::new(TopicOptions {
            slow: SlowPolicy::DropOldest,
            max_queued: Some(20 * LEN),
            ..TopicOptions::default()
        });
        config.timeouts.write = PATIENCE;
        // Keep-alives stand behind what waits.
        config.timeouts.idle = Duration::from_millis(40);
    });
    let mut slow = listener(&server);
    let mut published = 0_u64;
    while server.ask(|_, ctx| ctx.stats().lost.oldest) < 50 {
        let text = format!("{published} {}", "x".repeat(LEN));
        server.ask(move |_, ctx| {
            ctx.publish("news", &text);
            ctx.publish("nobody has it", "x");
        });
        published += 1;
        assert!(published < 10_000);
    }
    server.ask(|feed, ctx| {
        ctx.close_connection(feed.opened[0], CloseCode::NORMAL, "")
            .unwrap();
    });
    let body = String::from_utf8(slow.read_to_end()).unwrap();
    drop(slow);
    let body = body.replace("(still here)", "");
    let parts = body.strip_prefix('<').unwrap().strip_suffix('>').unwrap();
    let numbers = parts.split("><").map(|part| {
        let (number, padding) = part.strip_prefix("news:").unwrap().split_once(' ').unwrap();
        assert_eq!(padding.len(), LEN);
        number.parse::<u64>().unwrap()
    });
    let numbers: Vec<u64> = numbers.collect();
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert_eq!(numbers.last(), Some(&(published - 1)));
    let lost = server.ask(|_, ctx| ctx.stats().lost.total());
    assert_eq!(numbers.len() as u64, published - lost);
    assert_eq!(ended(&server), [(1000, Cause::Application)]);
}

#[test]
fn a_stream_that_writes_without_end_is_told_to_stop() {
    let server = start(|config| config.timeouts.write = PATIENCE);
    let mut client = Client::raw(server.address);
    client.send(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n");
    server.wait_until("the callback has returned", |feed, _| {
        feed.opened.len() == 1
    });
    let last = server.ask(|feed, _| feed.last_write);
    assert_eq!(last, Some(Sent::Dropped));
    drop(client.read_to_end());
    drop(client);
    assert_eq!(ended(&server), [(1013, Cause::SlowConsumer)]);
}

#[test]
fn a_request_for_the_head_alone_opens_no_stream() {
    let server = start(|_| ());
    let mut client = Client::raw(server.address);
    client.send(b"HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(publish(&server, "nobody is there"), 0);
    assert_eq!(server.ask(|feed, _| feed.opened.len()), 0);
    // The connection can be used for the next request.
    client.send(REQUEST);
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read(7), b"(hello)");
}

#[test]
fn a_refused_upgrade_becomes_no_stream() {
    let server = start(|_| ());
    let mut client = Client::raw(server.address);
    client.send(upgrade_request("/refused").as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(client.read(8), b"not you\n");
    assert_eq!(publish(&server, "nobody is there"), 0);
    client.finish_sending();
    assert!(client.read_to_end().is_empty());
    server.wait_until("it has ended", |_, ctx| ctx.connection_count() == 0);
    server.ask(|feed, ctx| {
        assert!(feed.opened.is_empty() && feed.closed.is_empty());
        let stats = ctx.stats();
        assert_eq!((stats.streams, stats.refused_by_application), (0, 1));
    });
}
