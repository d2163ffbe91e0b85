//! Acting on a server from other threads.

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use stentor::{
    CloseCode, Config, Context, Endpoint, Handle, HandleError, Handler, Message, Sent, Server,
    SubscribeError,
};

use crate::support::{App, Client, PATIENCE, PING, PONG, TEXT, serve};
use crate::turns::{Peer, Turns};

#[test]
fn another_thread_publishes_sends_closes_and_asks() {
    let app = App::default().on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)));
    let server = serve(app, |_| ());
    let (mut clients, [first, second]) = server.connect_many::<2>();
    let handle = server.handle.clone();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        handle.publish("news", "to all").unwrap();
        handle.publish("nothing", "to nobody").unwrap();
        handle.send(first, "to the first").unwrap();
        handle
            .send(second, Message::binary(b"to the second"))
            .unwrap();
        handle
            .close(second, CloseCode::new(4000), "enough")
            .unwrap();
        handle
            .run(move |app, ctx| tell.send((app.opened.len(), ctx.topic_count())).unwrap())
            .unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (2, 1));
    assert_eq!(
        [clients[0].hear(), clients[0].hear()],
        ["to all", "to the first"]
    );
    assert_eq!(clients[1].hear(), "to all");
    assert_eq!(clients[1].read_frame(), (0x82, b"to the second".to_vec()));
    assert_eq!(clients[1].read_frame(), (0x88, b"\x0f\xa0enough".to_vec()));
    clients[0].hears_nothing_more();
}

#[test]
fn the_commands_of_a_thread_are_carried_out_in_their_order() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 500;
    let app = App::default().on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)));
    let server = serve(app, |_| ());
    let (mut clients, [id]) = server.connect_many::<1>();
    for thread in 0..THREADS {
        let handle = server.handle.clone();
        std::thread::spawn(move || {
            for round in 0..ROUNDS {
                let text = format!("{thread} {round}");
                match round % 3 {
                    0 => handle.publish("news", &text).unwrap(),
                    1 => handle.send(id, &text).unwrap(),
                    _ => handle
                        .run(move |_, ctx| assert_eq!(ctx.send_to(id, &text), Sent::Sent))
                        .unwrap(),
                }
            }
        });
    }
    let mut next = [0; THREADS];
    for _ in 0..THREADS * ROUNDS {
        let text = clients[0].hear();
        let (thread, round) = text.split_once(' ').unwrap();
        let next = &mut next[thread.parse::<usize>().unwrap()];
        assert_eq!(round.parse(), Ok(*next));
        *next += 1;
    }
    assert_eq!(next, [ROUNDS; THREADS]);
}

#[test]
fn a_full_queue_refuses_commands_but_never_the_end() {
    let server = serve(App::default(), |config| config.limits.max_commands = 8);
    let (mut clients, [id]) = server.connect_many::<1>();
    let held = server.stand_still();
    for index in 0..8 {
        assert_eq!(server.handle.send(id, &format!("{index}")), Ok(()));
    }
    assert_eq!(server.handle.send(id, "one more"), Err(HandleError::Full));
    assert_eq!(server.handle.publish("news", "x"), Err(HandleError::Full));
    assert_eq!(
        server.handle.close(id, CloseCode::NORMAL, ""),
        Err(HandleError::Full)
    );
    assert_eq!(
        server.handle.run(|_, _| unreachable!()),
        Err(HandleError::Full)
    );
    drop(held);
    for index in 0..8 {
        assert_eq!(clients[0].hear(), format!("{index}"));
    }
    // There is room again.
    clients[0].hears_nothing_more();
    let held = server.stand_still();
    for index in 0..8 {
        assert_eq!(server.handle.send(id, &format!("{index}")), Ok(()));
    }
    assert_eq!(server.handle.shut_down(), Ok(()));
    assert_eq!(server.handle.stop(), Ok(()));
    drop(held);
    server.finish();
}

#[test]
fn a_server_that_has_ended_refuses_every_command() {
    let server = serve(App::default(), |_| ());
    let (_clients, [id]) = server.connect_many::<1>();
    let handle = server.handle.clone();
    server.stop();
    let stopped = Err(HandleError::Stopped);
    assert_eq!(handle.publish("news", "x"), stopped);
    assert_eq!(handle.send(id, "x"), stopped);
    assert_eq!(handle.close(id, CloseCode::NORMAL, ""), stopped);
    assert_eq!(handle.run(|_, _| unreachable!()), stopped);
    assert_eq!(handle.shut_down(), stopped);
    assert_eq!(handle.stop(), stopped);
    assert_eq!(HandleError::Stopped.to_string(), "the server has ended");
}

#[test]
fn a_server_that_never_ran_refuses_commands_when_it_is_gone() {
    let config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
    let server = Server::bind(config, App::default()).unwrap();
    let handle = server.handle();
    assert_eq!(handle.run(|_, _| unreachable!()), Ok(()));
    drop(server);
    assert_eq!(handle.stop(), Err(HandleError::Stopped));
}

#[test]
fn commands_given_before_the_server_runs_are_carried_out_when_it_does() {
    let config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
    let server = Server::bind(config, App::default()).unwrap();
    let handle = server.handle();
    let (tell, told) = channel();
    handle
        .run(move |_, _| tell.send(std::thread::current().id()).unwrap())
        .unwrap();
    handle.stop().unwrap();
    let runs = std::thread::spawn(move || {
        server.run().unwrap();
        std::thread::current().id()
    });
    let id = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        id,
        runs.join().unwrap(),
        "a closure runs on the loop's thread"
    );
}

/// An application that cannot leave its thread.
struct Bound(Rc<String>);

impl Handler for Bound {
    type State = Rc<String>;

    fn open(&mut self, ctx: &mut Context<'_, Rc<String>>) {
        *ctx.state() = Rc::clone(&self.0);
    }
}

#[test]
fn an_application_that_cannot_leave_its_thread_is_reached_from_others() {
    fn assert_shareable<T: Send + Sync + Clone>(_: &T) {}
    let config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
    let server = Server::bind(config, Bound(Rc::new("here".into()))).unwrap();
    let handle: Handle<Bound> = server.handle();
    assert_shareable(&handle);
    let Endpoint::Tcp(address) = server.endpoints()[0] else {
        panic!("a TCP endpoint")
    };
    let other = std::thread::spawn(move || {
        let mut client = Client::open(address, "/");
        let (tell, told) = channel();
        handle
            .run(move |bound, ctx| {
                let id = ctx.connections().next().unwrap();
                let state = Rc::clone(ctx.state_of(id).unwrap());
                assert!(Rc::ptr_eq(&state, &bound.0));
                ctx.send_to(id, &*state);
                tell.send(id).unwrap();
            })
            .unwrap();
        let id = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(client.hear(), "here");
        handle.send(id, "and there").unwrap();
        assert_eq!(client.hear(), "and there");
        handle.stop().unwrap();
    });
    let bound = server.run().unwrap();
    other.join().unwrap();
    assert_eq!(Rc::strong_count(&bound.0), 1);
}

#[test]
fn the_id_of_a_connection_that_ended_is_harmless() {
    let server = serve(App::default(), |_| ());
    let (clients, [gone]) = server.connect_many::<1>();
    drop(clients);
    server.ended(1);
    // The successor has its slot.
    let (mut clients, [successor]) = server.connect_many::<1>();
    assert_ne!(gone, successor);
    server.handle.send(gone, "to nobody").unwrap();
    server.handle.close(gone, CloseCode::NORMAL, "").unwrap();
    let stats = server.ask(move |_, ctx| {
        assert_eq!(ctx.send_to(gone, "to nobody"), Sent::Dropped);
        assert!(ctx.close_connection(gone, CloseCode::NORMAL, "").is_err());
        assert!(ctx.subscribe_connection(gone, "news").is_err());
        assert!(!ctx.unsubscribe_connection(gone, "news"));
        assert!(ctx.state_of(gone).is_none());
        assert_eq!(ctx.queued_of(gone), 0);
        ctx.stats().clone()
    });
    assert_eq!((stats.stale, stats.dropped_closed), (3, 2));
    clients[0].hears_nothing_more();
}

#[test]
fn a_closure_is_about_no_connection() {
    let server = serve(App::default(), |_| ());
    let (mut clients, [id]) = server.connect_many::<1>();
    server.ask(move |_, ctx| {
        assert_ne!(ctx.id(), id);
        assert_eq!(ctx.send("to nobody"), Sent::Dropped);
        assert!(ctx.subscribe("news").is_err());
        assert!(!ctx.unsubscribe("news"));
        assert!(ctx.close(CloseCode::NORMAL, "").is_err());
        assert_eq!((ctx.queued(), ctx.peer_addr()), (0, None));
        ctx.subscribe_connection(id, "news").unwrap();
        // There are only others.
        assert_eq!(ctx.publish_to_others("news", "x"), 1);
    });
    assert_eq!(clients[0].hear(), "x");
}

#[test]
fn a_code_that_must_not_be_sent_closes_nothing() {
    let server = serve(App::default(), |_| ());
    let (mut clients, [id]) = server.connect_many::<1>();
    for code in [0, 999, 1004, 1006, 1015, 2999, 5000] {
        server.handle.close(id, CloseCode::new(code), "").unwrap();
    }
    clients[0].hears_nothing_more();
}

#[test]
fn a_closure_can_give_the_loop_more_to_do() {
    let server = serve(App::default(), |_| ());
    let handle = server.handle.clone();
    let (tell, told) = channel();
    server.ask(move |_, _| {
        let again = handle.clone();
        handle
            .run(move |_, _| again.run(move |_, _| tell.send(()).unwrap()).unwrap())
            .unwrap();
    });
    told.recv_timeout(PATIENCE).unwrap();
}

/// Uses a handle when it is dropped.
struct Farewell(
    Handle<App>,
    std::sync::mpsc::Sender<Result<(), HandleError>>,
);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.1.send(self.0.publish("news", "farewell"));
    }
}

#[test]
fn what_an_untaken_closure_owns_may_use_a_handle_when_it_is_dropped() {
    let server = serve(App::default(), |_| ());
    let (tell, told) = channel();
    let farewell = Farewell(server.handle.clone(), tell);
    let handle = server.handle.clone();
    let held = server.stand_still();
    // The closure is given in the turn that ends the server, so no turn takes it.
    server
        .handle
        .run(move |_, _| handle.run(move |_, _| drop(farewell)).unwrap())
        .unwrap();
    server.handle.stop().unwrap();
    drop(held);
    server.finish();
    assert_eq!(
        told.recv_timeout(PATIENCE).unwrap(),
        Err(HandleError::Stopped)
    );
}

#[test]
fn many_threads_at_once_lose_nothing() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 200;
    let server = serve(App::default(), |_| ());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let handle = server.handle.clone();
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    handle.run(|app, _| app.messages += 1).unwrap();
                }
            });
        }
    });
    assert_eq!(server.ask(|app, _| app.messages), THREADS * ROUNDS);
}

#[test]
fn a_command_is_carried_out_at_once_whatever_clients_publish_to_many() {
    // Each of them that waited for the next tick would take about a second.
    const ROUNDS: usize = 200;
    let handle: Arc<OnceLock<Handle<App>>> = Arc::default();
    let (given, (tell, told)) = (Arc::clone(&handle), channel());
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)))
        .on_message(move |ctx, text| {
            ctx.publish("news", text);
            // Another thread gives a command behind those that this turn has taken, and before it
            // looks for more to publish.
            let (given, tell) = (Arc::clone(&given), tell.clone());
            let other = std::thread::spawn(move || {
                let handle = given.get().expect("it was given before");
                handle.run(move |_, _| tell.send(()).unwrap()).unwrap();
            });
            other.join().unwrap();
        });
    let server = serve(app, |_| ());
    assert!(handle.set(server.handle.clone()).is_ok());
    let (mut clients, _) = server.connect_many::<100>();
    let deadline = Instant::now() + PATIENCE;
    for round in 0..ROUNDS {
        clients[round % 2].say("x");
        told.recv_timeout(PATIENCE).unwrap();
        assert!(Instant::now() < deadline, "{round} of {ROUNDS} rounds");
    }
    server.ask(|_, ctx| assert_eq!(ctx.stats().published, ROUNDS as u64));
}

/// Connects and takes turns until the connection is open.
fn join(turns: &mut Turns<App>) -> Peer {
    let peer = Peer::over_tcp(turns.tcp(), "/");
    let (before, deadline) = (turns.app().opened.len(), Instant::now() + PATIENCE);
    while turns.app().opened.len() == before {
        assert!(Instant::now() < deadline);
        turns.turn(Duration::from_millis(1));
    }
    peer
}

#[test]
fn who_is_lost_while_it_subscribes_leaves_nothing_to_its_successor() {
    const SUBSCRIBERS: usize = 8;
    let app = App::default().on_message(|ctx, topic| {
        // What it is still owed goes out before, and finds that there is nobody any more.
        assert_eq!(ctx.subscribe(topic), Err(SubscribeError::NotOpen));
    });
    let mut turns = Turns::new(app, |config| config.limits.walk_sends = 1);
    let mut peers: Vec<Peer> = (0..SUBSCRIBERS).map(|_| join(&mut turns)).collect();
    turns.ask(|app, ctx| {
        for &id in &app.opened {
            ctx.subscribe_connection(id, "a").unwrap();
        }
        ctx.publish("a", "to each in a turn of its own");
    });
    // The first one is served last.
    let mut lost = peers.remove(0);
    lost.frame(TEXT, b"b");
    lost.reset();
    let deadline = Instant::now() + PATIENCE;
    while turns.app().ended.is_empty() {
        assert!(Instant::now() < deadline);
        turns.turn(Duration::from_millis(1));
    }
    assert_eq!((turns.app().messages, turns.app().ended.len()), (1, 1));
    let mut successor = join(&mut turns);
    turns.ask(|app, ctx| {
        let key = |index: usize| {
            app.opened[index]
                .to_string()
                .split_once('.')
                .unwrap()
                .0
                .to_owned()
        };
        assert_eq!(key(SUBSCRIBERS), key(0));
        assert_eq!(ctx.publish("b", "to nobody"), 0);
        assert_eq!(ctx.publish("a", "to the others"), SUBSCRIBERS - 1);
        assert_eq!(ctx.gauges().subscriptions, SUBSCRIBERS - 1);
    });
    successor.frame(PING, b"anything?");
    let frame = loop {
        assert!(Instant::now() < deadline);
        turns.turn(Duration::from_millis(1));
        successor.receive(usize::MAX);
        if let Some(frame) = successor.next() {
            break frame;
        }
    };
    assert_eq!(frame, (PONG, b"anything?".to_vec()));
}
