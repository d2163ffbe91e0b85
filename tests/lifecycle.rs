//! From accept to the end: each way in which a connection ends, timers, and the end of the server.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use stentor::protocol::ProtocolError;
use stentor::protocol::http::{Request, Response};
use stentor::{
    Accept, Cause, CloseCode, Closed, Config, Context, Endpoint, Handler, Sent, Server, Timeouts,
};

use crate::support::{App, Client, Ctx, Echo, Ended, PATIENCE, Running, masked, serve};

/// A timeout that a test waits for.
const SHORT: Duration = Duration::from_millis(50);

/// How the only connection of a server ended, which `open` was told of exactly once.
fn the_end(server: Running<App>) -> (u16, String, Cause) {
    let Ended {
        id,
        code,
        reason,
        cause,
    } = server.ended(1).remove(0);
    let (stats, connections) =
        server.ask(|_, ctx| (ctx.stats().clone(), ctx.connections().count()));
    assert_eq!(
        (stats.opened, stats.closed(cause), stats.closed_total()),
        (1, 1, 1)
    );
    assert_eq!(connections, 0);
    // Not even the end of the server brings a second `close`.
    let app = server.stop();
    assert_eq!((&app.opened[..], app.ended.len()), (&[id][..], 1));
    (code, reason, cause)
}

#[test]
fn the_peers_close_is_answered_and_told_with_its_code_and_reason() {
    let server = serve(App::default(), |_| ());
    let mut client = server.connect();
    client.frame(0x88, b"\x10\x1bso long"); // 4123
    assert_eq!(client.read_close(), 4123);
    assert!(client.read_to_end().is_empty());
    drop(client);
    assert_eq!(the_end(server), (4123, "so long".into(), Cause::Peer));
}

#[test]
fn a_close_without_a_code_is_told_as_1005() {
    let server = serve(App::default(), |_| ());
    let mut client = server.connect();
    client.frame(0x88, b"");
    assert_eq!(client.read_frame(), (0x88, Vec::new()));
    assert_eq!(the_end(server), (1005, String::new(), Cause::Peer));
}

/// Closes its connection with 4000 when it hears anything.
fn closer() -> App {
    App::default().on_message(|ctx, _| {
        ctx.send("before");
        ctx.close(CloseCode::new(4000), "enough").unwrap();
        assert!(ctx.close(CloseCode::NORMAL, "twice").is_err());
        assert_eq!(ctx.send("behind"), Sent::Dropped);
    })
}

/// A client to whom the server has sent its Close frame.
fn being_closed(server: &Running<App>) -> Client {
    let mut client = server.connect();
    client.say("close me");
    assert_eq!(client.hear(), "before");
    assert_eq!(client.read_frame(), (0x88, b"\x0f\xa0enough".to_vec()));
    client
}

#[test]
fn our_close_arrives_behind_what_was_sent_and_is_told_with_the_peers_reason() {
    let server = serve(closer(), |_| ());
    let mut client = being_closed(&server);
    assert!(
        server.ask(|app, _| app.ended.is_empty()),
        "the peer has not answered"
    );
    client.frame(0x88, b"\x0f\xa0as you like");
    assert!(client.read_to_end().is_empty());
    assert_eq!(
        the_end(server),
        (4000, "as you like".into(), Cause::Application)
    );
}

#[test]
fn messages_behind_our_close_are_not_heard() {
    let server = serve(closer(), |_| ());
    let mut client = being_closed(&server);
    client.say("still there?");
    client.frame(0x89, b"ping");
    client.frame(0x88, b"\x0f\xa0");
    assert!(client.read_to_end().is_empty());
    server.ended(1);
    assert_eq!(server.ask(|app, _| app.messages), 1);
}

#[test]
fn the_first_close_frame_counts_whatever_follows_it() {
    // An error, the end of the stream and a broken connection behind our Close frame.
    let follow: [fn(Client); 3] = [
        |mut client| {
            client.frame(0x83, b"reserved opcode");
            client.read_to_end();
        },
        |client| client.finish_sending(),
        Client::reset,
    ];
    for follow in follow {
        let server = serve(closer(), |_| ());
        follow(being_closed(&server));
        assert_eq!(the_end(server), (4000, String::new(), Cause::Application));
    }
}

#[test]
fn who_does_not_answer_our_close_is_dropped() {
    let server = serve(closer(), |config| config.timeouts.close = SHORT);
    let mut client = being_closed(&server);
    assert!(client.read_to_end().is_empty());
    assert_eq!(the_end(server), (4000, String::new(), Cause::CloseTimeout));
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_its_fault() {
    let server = serve(App::default(), |_| ());
    let mut client = server.connect();
    client.frame(0x83, b"");
    assert_eq!(client.read_close(), 1002);
    assert!(client.read_to_end().is_empty());
    let cause = Cause::Protocol(ProtocolError::ReservedOpcode);
    assert_eq!(the_end(server), (1002, String::new(), cause));
}

#[test]
fn the_end_of_the_stream_without_a_close_is_told_as_1006() {
    let server = serve(App::default(), |_| ());
    drop(server.connect());
    assert_eq!(the_end(server), (1006, String::new(), Cause::EndOfStream));
}

#[test]
fn the_end_of_the_stream_is_found_behind_more_than_one_read() {
    // Its edge comes with the first bytes; there will be no other one.
    let server = serve(App::default(), |config| {
        config.limits.receive_buffer = 4096;
        config.limits.read_budget = 1024;
    });
    let mut client = server.connect();
    let held = server.stand_still();
    client.send(&masked(0x82, &[0; 94]).repeat(300));
    drop(client);
    drop(held);
    assert_eq!(the_end(server), (1006, String::new(), Cause::EndOfStream));
}

#[test]
fn the_end_of_the_stream_is_found_behind_what_backpressure_held_up() {
    let app = App::default().on_message(|ctx, _| {
        ctx.send(&vec![b'x'; 64 << 10]);
    });
    let server = serve(app, |_| ());
    let mut client = Client::with_small_buffer(server.address);
    client.send(&masked(0x81, b"more!").repeat(500));
    server.wait_until("the peer is behind", |app, ctx| {
        ctx.queued_of(app.opened[0]) > 256 << 10
    });
    client.finish_sending();
    client.read_to_end();
    assert_eq!(the_end(server), (1006, String::new(), Cause::EndOfStream));
}

#[test]
fn a_broken_connection_is_told_as_1006() {
    let server = serve(App::default(), |_| ());
    server.connect().reset();
    assert_eq!(
        the_end(server),
        (1006, String::new(), Cause::ConnectionLost)
    );
}

#[test]
fn a_silent_peer_is_pinged_and_then_dropped() {
    let server = serve(App::default(), |config| {
        (config.timeouts.idle, config.timeouts.pong) = (SHORT, SHORT);
    });
    let mut client = server.connect();
    assert_eq!(client.read_frame(), (0x89, Vec::new()));
    assert!(client.read_to_end().is_empty());
    assert_eq!(the_end(server), (1006, String::new(), Cause::PongTimeout));
}

#[test]
fn a_pong_keeps_a_silent_peer_alive() {
    let server = serve(App::default(), |config| {
        // A ping that waited for the end of the pong timeout would come too late for the test.
        (config.timeouts.idle, config.timeouts.pong) = (SHORT, PATIENCE * 2);
    });
    let mut client = server.connect();
    for _ in 0..5 {
        assert_eq!(client.read_frame(), (0x89, Vec::new()));
        client.frame(0x8A, b"");
    }
    assert!(server.ask(|app, _| app.ended.is_empty() && app.messages == 0));
}

#[test]
fn cat_137_message_that_stalls_is_given_up() {
    let begin: [fn(&mut Client); 3] = [
        |client| client.frame(0x01, b"a first fragment"),
        |client| client.send(&masked(0x81, b"half a frame")[..9]),
        |client| client.send(&masked(0x82, &vec![0; 100_000])[..50_000]),
    ];
    for begin in begin {
        let server = serve(App::default(), |config| config.timeouts.message = SHORT);
        let mut client = server.connect();
        begin(&mut client);
        assert_eq!(client.read_close(), 1008);
        client.frame(0x88, b"\x03\xf0");
        let (code, _, cause) = the_end(server);
        assert_eq!((code, cause), (1008, Cause::MessageTimeout));
    }
}

#[test]
fn cat_137_message_that_trickles_in_is_given_up() {
    let server = serve(Echo, |config| config.timeouts.message = SHORT);
    let mut bystander = server.connect();
    let mut client = server.connect();
    client.send(&masked(0x82, &vec![0; 1 << 20])[..14]);
    // Each byte is progress, and none of them buys time.
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    client.socket.set_nonblocking(true).unwrap();
    while client.socket.peek(&mut [0]).is_err() {
        assert!(Instant::now() < deadline, "{sent} bytes came in");
        client.send(b"x");
        sent += 1;
        bystander.echo("served");
    }
    client.socket.set_nonblocking(false).unwrap();
    assert!(sent > 1, "{sent} bytes came in");
    assert_eq!(client.read_close(), 1008);
    client.finish_sending();
    client.read_to_end();
    server.wait_until("it is gone", |_, ctx| ctx.connection_count() == 1);
    let told = server.ask(|_, ctx| ctx.stats().closed(Cause::MessageTimeout));
    assert_eq!(told, 1);
    bystander.echo("still here");
}

/// A client that has begun a message while the server waits for it to read another one.
fn in_the_middle_of_a_message(server: &Running<App>) -> Client {
    let mut client = Client::with_small_buffer(server.address);
    client.send(&[masked(0x81, b"go"), masked(0x01, b"two ")].concat());
    server.wait_until("the peer is behind", |app, ctx| {
        ctx.queued_of(app.opened[0]) > 256 << 10
    });
    client
}

fn answer_at_length(ctx: &mut Ctx<'_>, text: &str) {
    match text {
        "go" => ctx.send(&vec![b'x'; 16 << 20]),
        text => ctx.send(text),
    };
}

#[test]
fn the_time_of_a_message_does_not_run_while_the_server_does_not_read() {
    const MESSAGE: Duration = Duration::from_secs(1);
    let server = serve(App::default().on_message(answer_at_length), |config| {
        config.timeouts.message = MESSAGE;
        config.timeouts.write = PATIENCE;
    });
    let mut client = in_the_middle_of_a_message(&server);
    std::thread::sleep(MESSAGE * 3 / 2);
    assert_eq!(client.read_frame().1.len(), 16 << 20);
    client.frame(0x80, b"parts");
    assert_eq!(client.hear(), "two parts");
}

#[test]
fn the_time_of_a_message_runs_from_where_the_server_reads_again() {
    let server = serve(App::default().on_message(answer_at_length), |config| {
        config.timeouts.message = SHORT;
        config.timeouts.write = PATIENCE * 2;
    });
    let mut client = in_the_middle_of_a_message(&server);
    assert_eq!(client.read_frame().1.len(), 16 << 20);
    assert_eq!(client.read_close(), 1008);
}

#[test]
fn who_does_not_complete_a_request_in_time_gets_a_408() {
    let server = serve(App::default(), |config| config.timeouts.handshake = SHORT);
    let mut client = Client::raw(server.address);
    client.send(b"GET / HTTP/1.1\r\nHost: local");
    assert!(client.head().starts_with("HTTP/1.1 408 "));
    client.read_to_end();
    let mut silent = Client::raw(server.address);
    assert!(silent.read_to_end().is_empty());
    drop(client);
    server.wait_until("both are gone", |_, ctx| ctx.connection_count() == 0);
    let app_and_stats = server.ask(|app, ctx| (app.opened.len(), ctx.stats().clone()));
    let (opened, stats) = app_and_stats;
    assert_eq!((opened, stats.opened, stats.closed_total()), (0, 0, 0));
    assert_eq!(stats.refused.status(408), 1);
    assert_eq!(server.stop().faults, ["Refused(TimedOut)"]);
}

/// Keeps a reference to the handler's in each state.
struct Keeper(Arc<()>);

impl Handler for Keeper {
    type State = Arc<()>;

    fn upgrade(
        &mut self,
        _: &mut Context<'_, Arc<()>>,
        _: &Request<'_>,
    ) -> Result<Accept<Arc<()>>, Response> {
        Ok(Accept::new(Arc::clone(&self.0)))
    }

    fn close(&mut self, ctx: &mut Context<'_, Arc<()>>, _: Closed<'_>) {
        assert!(Arc::ptr_eq(ctx.state(), &self.0), "close still sees it");
    }
}

#[test]
fn the_state_of_a_connection_is_dropped_with_it() {
    let state = Arc::new(());
    let server = serve(Keeper(Arc::clone(&state)), |_| ());
    let states = |count: usize| {
        server.wait_until("states are dropped", move |keeper, _| {
            Arc::strong_count(&keeper.0) == 2 + count
        });
    };
    let mut clients = [(); 4].map(|()| server.connect());
    states(4);
    clients[0].frame(0x88, b"");
    states(3);
    clients[1].frame(0x83, b"");
    states(2);
    let [.., third, fourth] = clients;
    third.reset();
    states(1);
    drop(fourth);
    states(0);
    let _open = server.connect();
    drop(server.stop());
    assert_eq!(Arc::strong_count(&state), 1);
}

#[test]
fn every_open_has_its_close_in_a_crowd_that_ends_in_every_way() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("crowd"), Ok(true)))
        .on_message(|ctx, text| match text {
            "close" => ctx.close(CloseCode::NORMAL, "").unwrap(),
            text => assert!(ctx.publish_to_others("crowd", text) < 160),
        })
        .on_close(|ctx, _| {
            ctx.publish("crowd", "gone");
        });
    let server = serve(app, |config| {
        config.timeouts.close = SHORT;
        config.timeouts.message = SHORT;
    });
    let address = server.address;
    std::thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || {
                for way in first..first + 40 {
                    let mut client = Client::open(address, "/");
                    client.say("here I am");
                    match way % 7 {
                        0 => client.frame(0x88, b""),
                        1 => client.frame(0x83, b""),
                        2 => client.say("close"),
                        3 => client.frame(0x01, b"never complete"),
                        4 => client.finish_sending(),
                        5 => client.reset(),
                        _ => drop(client),
                    }
                }
            });
        }
    });
    server.wait_until("all are gone", |_, ctx| ctx.connection_count() == 0);
    assert_eq!(server.ask(|_, ctx| ctx.topic_count()), 0);
    let mut app = server.stop();
    let mut ended: Vec<_> = app.ended.iter().map(|ended| ended.id).collect();
    ended.sort_unstable();
    app.opened.sort_unstable();
    assert_eq!(app.opened.len(), 160);
    assert_eq!(app.opened, ended);
}

// ---- the end of the server ----

#[test]
fn a_shutdown_closes_everyone_with_1001_and_ends_when_they_have_answered() {
    let server = serve(App::default(), |config| {
        config.timeouts.drain = PATIENCE * 2;
    });
    let (mut clients, ids) = server.connect_many::<3>();
    let mut idle = Client::raw(server.address);
    idle.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(idle.head().starts_with("HTTP/1.1 404 "));
    server.handle.shut_down().unwrap();
    for client in &mut clients {
        assert_eq!(client.read_close(), 1001);
        client.frame(0x88, b"\x03\xe9");
        assert!(client.read_to_end().is_empty());
    }
    idle.read_to_end();
    drop((clients, idle));
    let app = server.finish();
    let mut ended = app.ended;
    ended.sort_by_key(|ended| ended.id);
    for (ended, id) in ended.iter().zip(ids) {
        assert_eq!(
            (ended.id, ended.code, ended.cause),
            (id, 1001, Cause::Shutdown)
        );
    }
    assert_eq!(ended.len(), 3);
}

#[test]
fn a_shutdown_waits_for_a_slow_reader_that_goes_on_reading() {
    const LEN: usize = 12 << 20;
    let server = serve(App::default(), |config| {
        config.timeouts.close = SHORT;
        config.timeouts.write = PATIENCE;
        config.timeouts.drain = PATIENCE * 2;
    });
    let mut client = Client::with_small_buffer(server.address);
    server.ask(|app, ctx| ctx.send_to(app.opened[0], &vec![b'x'; LEN]));
    server.handle.shut_down().unwrap();
    // Far beyond the close timeout; the server waits for progress, not for the end.
    let mut head = [0; 10];
    std::io::Read::read_exact(&mut client.socket, &mut head).unwrap();
    let mut received = 0;
    while received < LEN {
        let mut part = vec![0; (LEN - received).min(256 << 10)];
        std::io::Read::read_exact(&mut client.socket, &mut part).unwrap();
        received += part.len();
        std::thread::sleep(SHORT / 5);
    }
    assert_eq!(client.read_close(), 1001);
    client.frame(0x88, b"\x03\xe9");
    drop(client);
    let app = server.finish();
    assert_eq!(
        (app.ended[0].code, app.ended[0].cause),
        (1001, Cause::Shutdown)
    );
}

#[test]
fn a_shutdown_ends_at_its_drain_time_with_peers_that_are_stuck() {
    const DRAIN: Duration = Duration::from_millis(200);
    let server = serve(App::default(), |config| {
        config.timeouts.drain = DRAIN;
        config.timeouts.write = PATIENCE * 2;
        config.timeouts.close = PATIENCE * 2;
    });
    let _stuck = Client::with_small_buffer(server.address);
    let _silent = server.connect();
    server.ask(|app, ctx| ctx.send_to(app.opened[0], &vec![b'x'; 16 << 20]));
    let begin = Instant::now();
    server.handle.shut_down().unwrap();
    let app = server.finish();
    assert!(begin.elapsed() >= DRAIN);
    let ends: Vec<_> = app.ended.iter().map(|end| (end.code, end.cause)).collect();
    assert_eq!(ends, [(1001, Cause::Shutdown); 2]);
}

#[test]
fn who_comes_during_a_shutdown_finds_nobody_listening() {
    let server = serve(App::default(), |config| {
        config.timeouts.drain = PATIENCE * 2;
        config.timeouts.close = PATIENCE * 2;
    });
    let mut client = server.connect();
    server.handle.shut_down().unwrap();
    assert_eq!(client.read_close(), 1001);
    let error = TcpStream::connect(server.address).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    // The second level does not wait for the client.
    server.handle.stop().unwrap();
    let app = server.finish();
    assert_eq!(
        (app.ended[0].code, app.ended[0].cause),
        (1001, Cause::Shutdown)
    );
}

#[test]
fn a_stop_ends_open_connections_without_a_close_frame() {
    let server = serve(App::default(), |_| ());
    let mut client = server.connect();
    server.handle.stop().unwrap();
    let app = server.finish();
    assert_eq!(
        (app.ended[0].code, app.ended[0].cause),
        (1006, Cause::Shutdown)
    );
    assert!(client.read_to_end().is_empty());
}

fn shut_down(ctx: &mut Ctx<'_>) {
    ctx.shut_down();
}

#[test]
fn every_callback_can_shut_the_server_down() {
    type Provoke = fn(&Running<App>, &mut Client);
    let provoke: [(App, Provoke); 4] = [
        (App::default().on_open(shut_down), |_, _| ()),
        (
            App::default().on_message(|ctx, _| ctx.shut_down()),
            |_, client| client.say("go"),
        ),
        (
            App::default().on_close(|ctx, _| ctx.shut_down()),
            |_, client| client.finish_sending(),
        ),
        (
            App::default().on_timer(|ctx, _| ctx.shut_down()),
            |server, _| server.ask(|_, ctx| ctx.set_timer(Duration::ZERO, 0)),
        ),
    ];
    for (app, provoke) in provoke {
        let server = serve(app, |config| config.timeouts.close = SHORT);
        let mut client = server.connect();
        provoke(&server, &mut client);
        server.finish();
    }
}

#[test]
fn the_last_one_to_leave_can_shut_the_server_down() {
    // Nothing else happens that would wake the loop.
    let app = App::default().on_close(|ctx, _| {
        if ctx.connections().count() == 1 {
            ctx.shut_down();
        }
    });
    let server = serve(app, |_| ());
    drop(server.connect_many::<2>());
    assert_eq!(server.finish().ended.len(), 2);
}

// ---- time ----

#[test]
fn timers_come_in_the_order_of_their_time_and_those_of_one_time_in_that_of_setting() {
    let (tell, told) = channel();
    let app = App::default().on_timer(move |_, token| tell.send(token).unwrap());
    let server = serve(app, |_| ());
    server.ask(|_, ctx| {
        let millis = Duration::from_millis;
        for (after, token) in [(30, 1), (10, 2), (0, 3), (10, 4), (0, 5), (20, 6)] {
            ctx.set_timer(millis(after), token);
        }
        ctx.set_timer(Duration::MAX, 7); // Never, and no overflow.
    });
    let tokens = [(); 6].map(|()| told.recv_timeout(PATIENCE).unwrap());
    assert_eq!(tokens, [3, 5, 2, 4, 6, 1]);
    assert!(told.try_recv().is_err());
}

#[test]
fn a_timer_that_sets_itself_again_does_not_stop_the_loop() {
    let app = App::default()
        .on_timer(|ctx, token| ctx.set_timer(Duration::ZERO, token))
        .on_message(|ctx, text| {
            ctx.send(text);
        });
    let server = serve(app, |_| ());
    server.ask(|_, ctx| {
        ctx.set_timer(Duration::ZERO, 1);
        ctx.set_timer(Duration::from_hours(1), 2);
    });
    let mut client = server.connect();
    client.say("still here?");
    assert_eq!(client.hear(), "still here?");
}

#[test]
fn a_timer_can_send_and_close() {
    let (tell, told) = channel();
    let app = App::default()
        .on_open(move |ctx| {
            tell.send(ctx.id()).unwrap();
            ctx.set_timer(Duration::ZERO, 1);
        })
        .on_timer(move |ctx, token| {
            let id = told.recv().unwrap();
            ctx.send_to(id, &format!("timer {token}"));
            ctx.close_connection(id, CloseCode::NORMAL, "").unwrap();
            assert_eq!(ctx.send("to nobody"), Sent::Dropped);
            assert!(ctx.close(CloseCode::NORMAL, "").is_err());
        });
    let server = serve(app, |_| ());
    let mut client = server.connect();
    assert_eq!(client.hear_all(), (vec!["timer 1".into()], 1000));
}

#[test]
fn timeouts_without_end_never_end() {
    let server = serve(Echo, |config| {
        config.timeouts = Timeouts {
            handshake: Duration::MAX,
            message: Duration::MAX,
            idle: Duration::MAX,
            pong: Duration::MAX,
            close: Duration::MAX,
            write: Duration::MAX,
            lag: Duration::MAX,
            idempotency: Duration::MAX,
            drain: Duration::MAX,
        };
    });
    let mut client = server.connect();
    client.frame(0x01, b"two ");
    client.frame(0x80, b"parts");
    assert_eq!(client.hear(), "two parts");
    client.say(&"x".repeat(8 << 20));
    assert_eq!(client.hear().len(), 8 << 20);
    server.handle.shut_down().unwrap();
    assert_eq!(client.read_close(), 1001);
    client.frame(0x88, b"");
    drop(client);
    server.finish();
}

#[test]
fn a_program_with_a_loop_of_its_own_drives_the_server_turn_by_turn() {
    let mut config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
    config.timeouts.close = SHORT;
    let app = App::default()
        .on_message(|ctx, text| {
            ctx.send(text);
            ctx.set_timer(Duration::from_millis(5), 9);
        })
        .on_timer(|ctx, _| ctx.shut_down());
    let mut server = Server::bind(config, app).unwrap();
    // Nothing happens, and each of these returns.
    for wait in [Duration::ZERO, Duration::ZERO, Duration::from_millis(1)] {
        assert!(server.turn(Some(wait)).unwrap());
    }
    let Endpoint::Tcp(address) = server.endpoints()[0] else {
        panic!("a TCP endpoint")
    };
    let client = std::thread::spawn(move || {
        let mut client = Client::open(address, "/");
        client.say("hello");
        assert_eq!(client.hear(), "hello");
        assert_eq!(client.read_close(), 1001);
    });
    // The longest wait there is ends with the first event.
    assert!(server.turn(Some(Duration::MAX)).unwrap());
    let deadline = Instant::now() + PATIENCE;
    let mut turns = 0;
    while server.turn(Some(Duration::from_millis(2))).unwrap() {
        assert!(Instant::now() < deadline, "{turns} turns");
        turns += 1;
    }
    client.join().unwrap();
    assert_eq!(server.stats().opened, 1);
    assert_eq!(server.handler().ended[0].cause, Cause::Shutdown);
    // A server that has ended has nothing to do, however often it is asked.
    assert!(!server.turn(Some(Duration::ZERO)).unwrap());
    assert_eq!(server.handler().ended.len(), 1);
    let handle = server.handle();
    assert_eq!(handle.stop(), Err(stentor::HandleError::Stopped));
}

#[test]
fn the_context_of_a_callback_knows_its_turn_and_its_peer() {
    let app = App::default().on_message(|ctx: &mut Ctx<'_>, _| {
        let now = ctx.now();
        assert!(now <= Instant::now());
        let peer = ctx.peer_addr().unwrap();
        ctx.send(&format!("{} {}", peer, ctx.connection_count()));
    });
    let server = serve(app, |_| ());
    let mut client = server.connect();
    client.say("who am I?");
    let address = client.socket.local_addr().unwrap();
    assert_eq!(client.hear(), format!("{address} 1"));
}
