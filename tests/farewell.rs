//! How the server takes leave of connections that it ends by itself, and whose life it leaves to
//! the application.

use std::time::Duration;

use stentor::protocol::http::{Request, Response};
use stentor::{
    Accept, Cause, CloseCode, Closed, Config, ConnectionId, Context, Form, Handler, MessageKind,
    Output, Publication,
};

use crate::support::{CLOSE, Client, PATIENCE, Running, TEXT, serve};

/// Has last words, a code and a reason.
const POLITE: Form = Form::custom(1);
/// Has last words only.
const WORDY: Form = Form::custom(2);
/// Has a code that no Close frame may carry.
const WRONG: Form = Form::custom(3);
/// Streams with last words and a code.
const EVENTS: Form = Form::custom(4);

/// Each connection has the form that its path names, and is subscribed to "news".
#[derive(Default)]
struct Hotel {
    opened: Vec<ConnectionId>,
    closed: Vec<(ConnectionId, u16, Cause)>,
}

impl Handler for Hotel {
    type State = ();

    fn upgrade(
        &mut self,
        _: &mut Context<'_, ()>,
        request: &Request<'_>,
    ) -> Result<Accept<()>, Response> {
        let accept = Accept::default();
        Ok(match request.path() {
            b"/polite" => accept.form(POLITE),
            b"/wordy" => accept.form(WORDY),
            b"/wrong" => accept.form(WRONG),
            b"/unwatched" => accept.without_pings(),
            _ => accept,
        })
    }

    fn request(&mut self, ctx: &mut Context<'_, ()>, _: &Request<'_>) -> Response {
        ctx.stream((), EVENTS);
        Response::new(200)
    }

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        self.opened.push(ctx.id());
        assert_eq!(ctx.subscribe("news"), Ok(true));
    }

    fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        let payload = publication.message.payload();
        match form {
            EVENTS => output.raw(payload),
            _ => output.message(MessageKind::Text, &[payload]),
        }
    }

    fn farewell(
        form: Form,
        cause: Cause,
        output: &mut Output<'_>,
    ) -> Option<(CloseCode, &'static str)> {
        assert!(matches!(cause, Cause::Shutdown | Cause::SlowConsumer));
        let words = format!("(bye: {cause:?})");
        match form {
            POLITE | WORDY => output.message(MessageKind::Text, &[words.as_bytes()]),
            EVENTS => output.raw(words.as_bytes()),
            _ => {}
        }
        let code = if cause == Cause::Shutdown { 3001 } else { 3008 };
        match form {
            POLITE | EVENTS => Some((CloseCode::new(code), "come back")),
            WRONG => Some((CloseCode::new(1006), "come back")),
            _ => None,
        }
    }

    fn close(&mut self, ctx: &mut Context<'_, ()>, closed: Closed<'_>) {
        self.closed
            .push((ctx.id(), closed.code.get(), closed.cause));
    }
}

fn start(configure: impl FnOnce(&mut Config)) -> Running<Hotel> {
    serve(Hotel::default(), configure)
}

fn stream(server: &Running<Hotel>) -> Client {
    let mut client = Client::raw(server.address);
    client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    client
}

fn close_frame(code: u16, reason: &str) -> (u8, Vec<u8>) {
    let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    (CLOSE, payload)
}

#[test]
fn a_shutdown_takes_leave_of_each_form_in_its_own_way() {
    let server = start(|_| ());
    let targets = ["/", "/wrong", "/polite", "/wordy"];
    let mut clients = targets.map(|target| Client::open(server.address, target));
    let mut events = stream(&server);
    server.ask(|_, ctx| {
        assert_eq!(ctx.publish("news", "last news"), 5);
        ctx.shut_down();
    });
    let usual = close_frame(1001, "server shuts down");
    let ends = [&usual, &usual, &close_frame(3001, "come back"), &usual];
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.hear(), "last news");
        if number >= 2 {
            assert_eq!(client.hear(), "(bye: Shutdown)");
        }
        assert_eq!(client.read_frame(), *ends[number]);
        client.frame(CLOSE, &ends[number].1);
        assert!(client.read_to_end().is_empty());
    }
    assert_eq!(events.read_to_end(), b"last news(bye: Shutdown)");
    drop(events);
    let hotel = server.finish();
    let code = |id| hotel.closed.iter().find(|closed| closed.0 == id).unwrap().1;
    let codes: Vec<u16> = hotel.opened.iter().map(|id| code(*id)).collect();
    assert_eq!(codes, [1001, 1001, 3001, 1001, 3001]);
    assert!(
        hotel
            .closed
            .iter()
            .all(|closed| closed.2 == Cause::Shutdown)
    );
}

/// Limits that a reader who does not read is soon beyond.
fn tight(config: &mut Config) {
    (config.limits.outbox_soft, config.limits.outbox_hard) = (16 << 10, 64 << 10);
    config.timeouts.write = PATIENCE;
}

/// Publishes until somebody has been closed for being slow.
fn flood(server: &Running<Hotel>) {
    let part: &'static str = "x".repeat(64 << 10).leak();
    let mut published = 0;
    while server.ask(move |_, ctx| {
        ctx.publish("news", part);
        ctx.stats().dropped_slow == 0
    }) {
        published += 1;
        assert!(published < 1000);
    }
}

#[test]
fn who_is_too_slow_hears_last_words_and_a_code_of_its_form() {
    let server = start(tight);
    let mut client = Client::open(server.address, "/polite");
    flood(&server);
    let mut last = String::new();
    let end = loop {
        match client.read_frame() {
            (TEXT, text) => last = String::from_utf8(text).unwrap(),
            end => break end,
        }
    };
    assert_eq!(last, "(bye: SlowConsumer)");
    assert_eq!(end, close_frame(3008, "come back"));
    client.frame(CLOSE, &end.1);
    assert!(client.read_to_end().is_empty());
    server.wait_until("it has ended", |_, ctx| ctx.connection_count() == 0);
    let closed = server.ask(|hotel, _| (hotel.closed[0].1, hotel.closed[0].2));
    assert_eq!(closed, (3008, Cause::SlowConsumer));
}

#[test]
fn a_stream_that_is_too_slow_is_cut_off_and_its_code_is_told() {
    let server = start(tight);
    let _stuck = stream(&server);
    flood(&server);
    server.wait_until("it has ended", |_, ctx| ctx.connection_count() == 0);
    let closed = server.ask(|hotel, _| (hotel.closed[0].1, hotel.closed[0].2));
    assert_eq!(closed, (3008, Cause::SlowConsumer));
}

#[test]
fn who_is_accepted_without_pings_may_be_silent_for_ever() {
    let server = start(|config| {
        config.timeouts.idle = Duration::from_millis(20);
        config.timeouts.pong = Duration::from_millis(20);
    });
    let mut unwatched = Client::open(server.address, "/unwatched");
    // By the time that three others were given up, its own would long have been over.
    for ended in 1..=3 {
        let _silent = server.connect();
        server.wait_until("the silent one has ended", move |hotel, _| {
            hotel.closed.len() == ended
        });
    }
    server.ask(|hotel, ctx| {
        assert_eq!(ctx.connection_count(), 1);
        let ends = hotel.closed.iter().map(|closed| closed.2);
        assert_eq!(ends.collect::<Vec<_>>(), [Cause::PongTimeout; 3]);
        ctx.publish("news", "still there?");
    });
    // No Ping stands in front of it.
    assert_eq!(unwatched.hear(), "still there?");
    unwatched.hears_nothing_more();
}

#[test]
fn who_is_accepted_without_pings_is_ended_all_the_same_when_it_takes_nothing() {
    let server = start(|config| {
        tight(config);
        config.limits.outbox_hard = 64 << 20;
        config.timeouts.write = Duration::from_millis(50);
    });
    let _stuck = Client::open(server.address, "/unwatched");
    server.ask(|_, ctx| {
        let part = vec![b'x'; 1 << 20];
        for _ in 0..32 {
            ctx.publish("news", stentor::Message::binary(&part));
        }
    });
    server.wait_until("it has ended", |_, ctx| ctx.connection_count() == 0);
    let cause = server.ask(|hotel, _| hotel.closed[0].2);
    assert_eq!(cause, Cause::WriteTimeout);
}
