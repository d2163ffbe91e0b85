//! The event loop under everything that edges, budgets, stale events and other threads can do to
//! it (catalogue E, 109–128), and accepting where there is much or little of everything (129, 133,
//! 139, 140).
//!
//! Nothing here is measured in seconds. Where something must happen "before" something else, the
//! loop is held, both are made ready, and the handler's own record tells the order.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use stentor::{
    Cause, CloseCode, Config, ConnectionId, Context, Endpoint, Gauges, Handler, Message, Sent,
    Server,
};

use crate::scene::{SOON, Scene, Seen, Witness};
use crate::support::{
    App, BINARY, CLOSE, Client, Echo, PATIENCE, PING, PONG, Running, TEXT, masked, serve,
    upgrade_request,
};

/// The id of the connection that was opened last.
fn newest<H>(server: &Running<H>) -> ConnectionId
where
    H: Handler + Send,
    H::State: Send,
{
    server.ask(|_, ctx| {
        let ids = ctx.connections();
        ids.max_by_key(|id| generation(*id)).expect("a connection")
    })
}

/// An id reads `slot.generation`.
fn slot(id: ConnectionId) -> u32 {
    let id = id.to_string();
    id.split_once('.').unwrap().0.parse().unwrap()
}

fn generation(id: ConnectionId) -> u32 {
    let id = id.to_string();
    id.split_once('.').unwrap().1.parse().unwrap()
}

// ---- reading: budgets and fairness ----

/// Bytes that one connection may be read in a turn; the receive buffer is as large.
const BUDGET: usize = 4096;

/// Writes down which connection sent how much in which turn.
#[derive(Default)]
struct Diary {
    entries: Vec<(Instant, ConnectionId, usize)>,
}

impl Handler for Diary {
    type State = ();

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        let entry = (ctx.now(), ctx.id(), message.payload().len());
        self.entries.push(entry);
        if message.is_text() {
            ctx.send(message);
        }
    }
}

impl Diary {
    fn serve() -> Running<Self> {
        serve(Self::default(), |config| {
            config.limits.read_budget = BUDGET;
            config.limits.receive_buffer = BUDGET;
        })
    }

    fn bytes_of(&self, id: ConnectionId) -> usize {
        let own = self.entries.iter().filter(|entry| entry.1 == id);
        own.map(|entry| entry.2).sum()
    }

    /// The most that a connection sent in one turn.
    fn largest_turn_of(&self, id: ConnectionId) -> usize {
        let own: Vec<_> = self.entries.iter().filter(|entry| entry.1 == id).collect();
        let turns = own.chunk_by(|one, other| one.0 == other.0);
        let sizes = turns.map(|turn| turn.iter().map(|entry| entry.2).sum());
        sizes.max().unwrap_or(0)
    }
}

/// Sends messages of 100 bytes until the kernel takes no more; answers their payloads' sum.
fn fill(client: &mut Client) -> usize {
    let frame = masked(BINARY, &[0; 100]);
    let mut count = 0;
    client.socket.set_nonblocking(true).unwrap();
    loop {
        match client.socket.write(&frame) {
            Ok(written) => {
                count += 1;
                client.socket.set_nonblocking(false).unwrap();
                if written < frame.len() {
                    // The rest waits in a thread until the server reads.
                    let mut twin = client.twin();
                    let rest = frame[written..].to_vec();
                    std::thread::spawn(move || twin.send_until_refused(&rest));
                    return count * 100;
                }
                client.socket.set_nonblocking(true).unwrap();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                client.socket.set_nonblocking(false).unwrap();
                return count * 100;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn cat_109_connection_over_its_budget_is_read_on_without_an_event() {
    let server = Diary::serve();
    let mut flooder = server.connect();
    let flooder_id = newest(&server);
    let stands_still = server.stand_still();
    let sent = fill(&mut flooder);
    assert!(sent > 10 * BUDGET, "{sent}");
    drop(stands_still);
    server.wait_until("all of it is read", move |diary, _| {
        diary.bytes_of(flooder_id) == sent
    });
    let largest = server.ask(move |diary, _| diary.largest_turn_of(flooder_id));
    assert!(largest <= 3 * BUDGET, "{largest} bytes in one turn");
}

#[test]
fn cat_109_flood_never_gets_more_than_its_budget() {
    let server = Diary::serve();
    let mut flooder = server.connect();
    let flooder_id = newest(&server);
    let frames = masked(BINARY, &[0; 100]).repeat(100_000);
    flooder.send(&frames);
    server.wait_until("all of it is read", move |diary, _| {
        diary.bytes_of(flooder_id) == 10_000_000
    });
    let largest = server.ask(move |diary, _| diary.largest_turn_of(flooder_id));
    assert!(largest <= 3 * BUDGET, "{largest} bytes in one turn");
}

#[test]
fn cat_111_pings_are_answered_while_another_connection_floods() {
    let server = Diary::serve();
    let mut flooder = server.connect();
    let flooder_id = newest(&server);
    let mut pingers: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    let stands_still = server.stand_still();
    let sent = fill(&mut flooder);
    assert!(sent > 10 * BUDGET, "{sent}");
    for pinger in &mut pingers {
        pinger.send(&[masked(PING, b"ping"), masked(TEXT, b"marker")].concat());
    }
    drop(stands_still);
    for pinger in &mut pingers {
        assert_eq!(pinger.read_frame(), (PONG, b"ping".into()));
        assert_eq!(pinger.read_frame(), (TEXT, b"marker".into()));
    }
    let before = server.ask(move |diary, _| {
        let last = diary
            .entries
            .iter()
            .rposition(|entry| entry.1 != flooder_id);
        diary.entries.truncate(last.expect("the markers"));
        diary.bytes_of(flooder_id)
    });
    assert!(
        before <= 3 * BUDGET,
        "{before} of {sent} bytes came before the last Ping"
    );
}

// ---- writing: short writes and backpressure ----

/// More than every buffer of a socket whose peer has a narrow one.
const LONG: usize = 8 << 20;

/// The bytes of the long answer; no two aligned pieces of it are alike.
fn long_answer() -> Vec<u8> {
    (0..LONG as u32 / 4).flat_map(u32::to_be_bytes).collect()
}

/// Answers "fill" with more than the socket takes, and everything else with itself.
#[derive(Default)]
struct Filler {
    witness: Witness,
}

impl Handler for Filler {
    type State = ();

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        self.witness.open(ctx);
    }

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        if message.as_text() == Some("fill") {
            assert_eq!(ctx.send(&long_answer()), Sent::Backpressure);
        } else {
            self.witness.message(ctx, message);
        }
    }

    fn close(&mut self, ctx: &mut Context<'_, ()>, closed: stentor::Closed<'_>) {
        self.witness.close(ctx, closed);
    }
}

impl Filler {
    /// A server, and a connection that is not read from since it takes nothing.
    fn stalled() -> (Running<Self>, Client) {
        let server = serve(Self::default(), |_| ());
        let mut client = Client::with_small_buffer(server.address);
        client.frame(TEXT, b"fill");
        // The answer is queued: the handler has run.
        server.wait_until("the answer is queued", |_, ctx| {
            ctx.stats().messages_in == 1
        });
        (server, client)
    }

    fn read_long_answer(client: &mut Client) {
        let (first, payload) = client.read_frame();
        assert_eq!(first, BINARY);
        assert!(payload == long_answer(), "the long answer is intact");
    }

    /// What the handler was told, when it has been told the end.
    fn seen_to_the_end(server: &Running<Self>) -> Vec<Seen> {
        server.wait_until("the connection is gone", |_, ctx| {
            ctx.connection_count() == 0
        });
        server.ask(|filler, _| {
            filler
                .witness
                .seen
                .drain(..)
                .map(|(_, seen)| seen)
                .collect()
        })
    }
}

#[test]
fn cat_112_short_write_is_resumed_when_the_peer_reads() {
    let (_server, mut client) = Filler::stalled();
    Filler::read_long_answer(&mut client);
    client.echo("behind it");
}

#[test]
fn cat_112_order_is_kept_across_short_writes() {
    let server = serve(
        App::default().on_message(|ctx, _| {
            for index in 0..4000_u32 {
                let size = [3, 200, 1000, 20_000][index as usize % 4];
                let payload = [&index.to_be_bytes()[..], &vec![index as u8; size]].concat();
                assert_ne!(ctx.send(&payload), Sent::Dropped);
            }
        }),
        |config| config.limits.outbox_hard = 64 << 20,
    );
    let mut client = Client::with_small_buffer(server.address);
    client.frame(TEXT, b"go");
    server.wait_until("all is sent", |_, ctx| ctx.stats().messages_in == 1);
    for index in 0..4000_u32 {
        let (first, payload) = client.read_frame();
        assert_eq!(
            (first, payload.first_chunk()),
            (BINARY, Some(&index.to_be_bytes()))
        );
        assert!(payload[4..].iter().all(|byte| *byte == index as u8));
    }
}

#[test]
fn cat_113_what_is_queued_for_a_writable_socket_leaves_at_once() {
    let server = serve(Echo, |_| ());
    let mut client = server.connect();
    client.echo("all edges are behind us");
    let id = newest(&server);
    server.handle.send(id, "from another thread").unwrap();
    assert_eq!(client.read_frame(), (TEXT, b"from another thread".into()));
    server
        .ask(move |_, ctx| ctx.subscribe_connection(id, "topic"))
        .unwrap();
    server.handle.publish("topic", "to a topic").unwrap();
    assert_eq!(client.read_frame(), (TEXT, b"to a topic".into()));
    server.handle.close(id, CloseCode::new(4001), "").unwrap();
    assert_eq!(client.read_close(), 4001);
}

#[test]
fn cat_114_reading_resumes_without_an_event() {
    let (_server, mut client) = Filler::stalled();
    // All of this has come, and its edge has gone, before the server may read again.
    let messages: Vec<String> = (0..100).map(|index| format!("held {index}")).collect();
    for message in &messages {
        client.frame(TEXT, message.as_bytes());
    }
    Filler::read_long_answer(&mut client);
    for message in messages {
        assert_eq!(client.read_frame(), (TEXT, message.into()));
    }
}

// ---- the end of a connection ----

/// Many messages, and the event that the handler is told for each.
fn numbered(count: u32) -> (Vec<u8>, Vec<Seen>) {
    let payloads = || (0..count).map(|index| [index.to_be_bytes(); 250].concat());
    let frames = payloads()
        .flat_map(|payload| masked(BINARY, &payload))
        .collect();
    (frames, payloads().map(Seen::Binary).collect())
}

#[test]
fn cat_115_data_and_fin_in_one_event() {
    for count in [1, 10] {
        let mut scene = Scene::new();
        let (frames, messages) = numbered(count);
        let mut client = scene.connect();
        let stands_still = scene.server.stand_still();
        client.send(&frames);
        client.finish_sending();
        drop(stands_still);
        client.read_to_end();
        drop(client);
        let end = Seen::Closed(1006, Cause::EndOfStream);
        assert_eq!(
            scene.settle(),
            [vec![Seen::Open], messages, vec![end]].concat()
        );
    }
}

#[test]
fn cat_115_data_beyond_the_budget_and_fin_in_one_event() {
    let mut scene = Scene::with(|config| {
        config.limits.read_budget = BUDGET;
        config.limits.receive_buffer = BUDGET;
    });
    for count in 1..20 {
        let (frames, messages) = numbered(count);
        let mut client = scene.connect();
        let stands_still = scene.server.stand_still();
        client.send(&frames);
        client.finish_sending();
        drop(stands_still);
        client.read_to_end();
        drop(client);
        let end = Seen::Closed(1006, Cause::EndOfStream);
        assert_eq!(
            scene.settle(),
            [vec![Seen::Open], messages, vec![end]].concat()
        );
    }
}

#[test]
fn cat_115_data_and_fin_while_backpressure_holds_up_reading() {
    let (server, mut client) = Filler::stalled();
    client.frame(TEXT, b"last words");
    client.finish_sending();
    Filler::read_long_answer(&mut client);
    client.read_to_end();
    drop(client);
    let end = Seen::Closed(1006, Cause::EndOfStream);
    assert_eq!(
        Filler::seen_to_the_end(&server),
        [Seen::Open, Seen::text("last words"), end]
    );
}

#[test]
fn cat_115_half_a_message_and_fin() {
    let mut scene = Scene::new();
    let frame = masked(TEXT, &[b'x'; 10_000]);
    for len in [1, 5, 8, 9, 5000, 9999] {
        let mut client = scene.connect();
        client.send(&frame[..len]);
        client.finish_sending();
        assert_eq!(client.read_to_end(), [0; 0]);
        drop(client);
        let end = Seen::Closed(1006, Cause::EndOfStream);
        assert_eq!(scene.settle(), [Seen::Open, end], "{len} bytes");
    }
}

#[test]
fn cat_116_reset_behind_unread_data_closes_once() {
    let mut scene = Scene::new();
    for data in [masked(TEXT, b"unread"), masked(TEXT, &vec![b'x'; 100_000])] {
        let mut client = scene.connect();
        let stands_still = scene.server.stand_still();
        client.send(&data);
        client.reset();
        drop(stands_still);
        let seen = scene.settle();
        assert_eq!(seen[0], Seen::Open);
        let ends = seen.iter().filter(|seen| matches!(seen, Seen::Closed(..)));
        assert_eq!(ends.count(), 1, "{seen:?}");
        assert_eq!(
            seen.last(),
            Some(&Seen::Closed(1006, Cause::ConnectionLost))
        );
    }
}

#[test]
fn cat_116_reset_while_output_waits_closes_once() {
    let (server, client) = Filler::stalled();
    client.reset();
    let end = Seen::Closed(1006, Cause::ConnectionLost);
    assert_eq!(Filler::seen_to_the_end(&server), [Seen::Open, end]);
}

#[test]
fn cat_117_hang_up_without_data() {
    let mut scene = Scene::new();
    let client = scene.connect();
    client.reset();
    assert_eq!(
        scene.settle(),
        [Seen::Open, Seen::Closed(1006, Cause::ConnectionLost)]
    );
    drop(scene.connect());
    assert_eq!(
        scene.settle(),
        [Seen::Open, Seen::Closed(1006, Cause::EndOfStream)]
    );
    // Before there is anything to close.
    scene.raw().reset();
    drop(scene.raw());
    scene
        .server
        .wait_until("both were accepted", |_, ctx| ctx.stats().accepted == 5);
    assert_eq!(scene.settle(), []);
}

// ---- events that say nothing, or speak of somebody else ----

#[test]
fn cat_118_event_for_data_that_was_read_already() {
    let (arrive, arrived) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let server = serve(
        App::default().on_message(move |ctx, message| {
            if message == "wait" {
                arrive.send(()).unwrap();
                released.recv_timeout(PATIENCE).unwrap();
            } else {
                let turn = format!("{:?}", ctx.now());
                ctx.send(&turn);
            }
        }),
        |_| (),
    );
    let (mut blocker, mut reader) = (server.connect(), server.connect());
    let stands_still = server.stand_still();
    blocker.frame(TEXT, b"wait");
    reader.frame(TEXT, b"one");
    drop(stands_still);
    // The loop has taken the reader's event and will get to it behind the blocker's.
    arrived.recv_timeout(PATIENCE).unwrap();
    reader.frame(TEXT, b"two"); // A new edge, for bytes that the pass to come will read.
    release.send(()).unwrap();
    let turn = reader.read_frame();
    assert_eq!(reader.read_frame(), turn, "both were read in one pass");
    reader.frame(TEXT, b"three");
    assert_ne!(reader.read_frame(), turn);
    assert_eq!(server.ask(|_, ctx| ctx.stats().messages_in), 4);
}

/// Keeps a connection's first message and answers each with it.
struct Tags;

impl Handler for Tags {
    type State = Option<Vec<u8>>;

    fn message(&mut self, ctx: &mut Context<'_, Self::State>, message: Message<'_>) {
        let tag = ctx.state().get_or_insert_with(|| message.payload().into());
        let tag = tag.clone();
        ctx.send(&tag);
    }
}

#[test]
fn cat_119_connections_that_end_and_begin_in_one_turn_are_not_mixed_up() {
    let server = serve(Tags, |_| ());
    let mut clients: VecDeque<(Client, [u8; 4])> = VecDeque::new();
    let mut next = 0_u32;
    for round in 0..30 {
        let stands_still = server.stand_still();
        for index in 0..clients.len().min(20) {
            let (mut client, tag) = clients.pop_front().unwrap();
            match (round + index) % 3 {
                0 => client.reset(),
                1 => drop(client),
                _ => client.frame(BINARY, &tag), // And the end behind it.
            }
        }
        let fresh = clients.len();
        for _ in 0..25 {
            let mut client = Client::raw(server.address);
            client.send(upgrade_request("/").as_bytes());
            next += 1;
            clients.push_back((client, next.to_be_bytes()));
        }
        drop(stands_still);
        for (client, tag) in clients.range_mut(fresh..) {
            assert!(client.head().starts_with("HTTP/1.1 101 "));
            client.frame(BINARY, tag);
        }
        for (client, tag) in clients.range_mut(fresh..) {
            assert_eq!(client.read_frame(), (BINARY, tag.to_vec()));
        }
        for (client, tag) in &mut clients {
            client.frame(BINARY, b"whose?");
            assert_eq!(client.read_frame(), (BINARY, tag.to_vec()), "round {round}");
        }
    }
    let left = clients.len();
    server.wait_until("the others are gone", move |_, ctx| {
        ctx.connection_count() == left
    });
}

#[test]
fn cat_119_stale_id_reaches_nobody() {
    let server = serve(Echo, |_| ());
    let old = server.connect();
    let old_id = newest(&server);
    drop(old);
    server.wait_until("it is gone", |_, ctx| ctx.connection_count() == 0);
    let mut new = server.connect();
    assert_eq!(
        slot(newest(&server)),
        slot(old_id),
        "the slot is used again"
    );
    server.handle.send(old_id, "for the old one").unwrap();
    server
        .handle
        .close(old_id, CloseCode::NORMAL, "for the old one")
        .unwrap();
    let is_unknown = server.ask(move |_, ctx| {
        ctx.state_of(old_id).is_none()
            && ctx.subscribe_connection(old_id, "topic").is_err()
            && !ctx.unsubscribe_connection(old_id, "topic")
    });
    assert!(is_unknown);
    new.echo("nothing came before this");
    assert_eq!(server.ask(|_, ctx| ctx.stats().stale), 2);
}

#[test]
fn cat_120_deadline_of_a_connection_that_is_gone_spares_the_next_in_its_slot() {
    let mut scene = Scene::with(|config| config.timeouts.handshake = SOON);
    let silent = scene.raw();
    scene
        .server
        .wait_until("it is accepted", |_, ctx| ctx.connection_count() == 2);
    drop(silent);
    assert_eq!(scene.settle(), []);
    let mut client = scene.connect();
    assert_eq!(slot(newest(&scene.server)), 1, "the slot is used again");
    // Whoever is timed out now came after the first: its deadline is over as well.
    assert_eq!(scene.raw().read_to_end(), [0; 0]);
    client.echo("alive");
    drop(client);
    assert_eq!(
        scene.settle().last(),
        Some(&Seen::Closed(1006, Cause::EndOfStream))
    );
}

#[test]
fn cat_121_subscription_of_a_connection_that_is_gone_is_not_the_next_ones() {
    let server = serve(Echo, |_| ());
    let old = server.connect();
    let old_id = newest(&server);
    server
        .ask(move |_, ctx| ctx.subscribe_connection(old_id, "topic"))
        .unwrap();
    // The publication and the end of its only subscriber meet in one turn.
    let stands_still = server.stand_still();
    server.handle.publish("topic", "to nobody").unwrap();
    old.reset();
    drop(stands_still);
    server.wait_until("it is gone", |_, ctx| ctx.connection_count() == 0);
    let mut new = server.connect();
    assert_eq!(
        slot(newest(&server)),
        slot(old_id),
        "the slot is used again"
    );
    server.handle.publish("topic", "to nobody").unwrap();
    new.echo("nothing came before this");
    assert_eq!(server.ask(|_, ctx| ctx.topic_count()), 0);
}

// ---- other threads ----

#[test]
fn cat_122_no_command_is_lost_between_threads_and_loop() {
    const THREADS: u64 = 8;
    const COMMANDS: u64 = 4000;
    // Without connections the loop has no deadline: only the waker ends its sleep.
    let server = serve(Echo, |_| ());
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let handle = server.handle.clone();
            std::thread::spawn(move || {
                let mut random = thread + 1;
                for _ in 0..COMMANDS {
                    let (done, is_done) = mpsc::channel();
                    handle.run(move |_, _| done.send(()).unwrap_or(())).unwrap();
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    match random % 4 {
                        // The loop may be anywhere between waking up and falling asleep.
                        0 => is_done.recv_timeout(PATIENCE).expect("the loop was woken"),
                        1 => std::thread::yield_now(),
                        _ => (0..random % 2000).for_each(|_| std::hint::spin_loop()),
                    }
                }
                let (done, is_done) = mpsc::channel();
                handle.run(move |_, _| done.send(()).unwrap_or(())).unwrap();
                is_done.recv_timeout(PATIENCE).expect("the loop was woken");
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn cat_122_commands_of_one_thread_keep_their_order() {
    let server = serve(Witness::default(), |_| ());
    let mut client = server.connect();
    let id = newest(&server);
    server
        .ask(move |_, ctx| ctx.subscribe_connection(id, "topic"))
        .unwrap();
    for index in 0..10_000 {
        let message = index.to_string();
        if index % 2 == 0 {
            server.handle.publish("topic", &message).unwrap();
        } else {
            server.handle.send(id, &message).unwrap();
        }
    }
    for index in 0..10_000 {
        assert_eq!(client.read_frame(), (TEXT, index.to_string().into()));
    }
}

#[test]
fn command_to_a_server_that_has_ended_is_refused() {
    let server = serve(Echo, |_| ());
    let handle = server.handle.clone();
    server.stop();
    assert_eq!(
        handle.publish("topic", "too late"),
        Err(stentor::HandleError::Stopped)
    );
    assert_eq!(handle.stop(), Err(stentor::HandleError::Stopped));
}

// ---- callbacks that change what is being walked ----

/// A room: "say X" publishes, "leave X" publishes and leaves in the same callback.
#[derive(Default)]
struct Room {
    /// What was published, and by whom it was the last that he gets.
    published: Vec<(String, Option<ConnectionId>)>,
}

impl Handler for Room {
    type State = ();

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        ctx.subscribe("room").unwrap();
    }

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        let text = message.as_text().unwrap();
        ctx.publish("room", text);
        let is_last = text.starts_with("leave");
        let leaver = is_last.then(|| ctx.id());
        self.published.push((text.into(), leaver));
        if is_last {
            assert!(ctx.unsubscribe("room"));
            let behind = format!("behind {text}");
            ctx.publish("room", &behind);
            self.published.push((behind, None));
        }
    }
}

#[test]
fn cat_123_publish_and_unsubscribe_during_a_broadcast() {
    let server = serve(Room::default(), |_| ());
    let mut clients: Vec<_> = (0..30)
        .map(|_| {
            let client = server.connect();
            (newest(&server), client)
        })
        .collect();
    let stands_still = server.stand_still();
    for (index, (_, client)) in clients.iter_mut().enumerate() {
        let say = masked(TEXT, format!("say {index}").as_bytes());
        let verb = if index % 3 == 0 { "leave" } else { "say" };
        let last = masked(TEXT, format!("{verb} again {index}").as_bytes());
        client.send(&[say, last].concat());
    }
    drop(stands_still);
    server.wait_until("all have spoken", |room, _| room.published.len() == 70);
    let published = server.ask(|room, _| std::mem::take(&mut room.published));
    for (id, client) in &mut clients {
        for (text, last_of) in &published {
            assert_eq!(client.read_frame(), (TEXT, text.clone().into()), "{id}");
            if last_of == &Some(*id) {
                break;
            }
        }
        // Whoever has left gets nothing more, and whoever has not, nothing twice.
        server.handle.send(*id, "that was all").unwrap();
        assert_eq!(client.read_frame(), (TEXT, b"that was all".into()), "{id}");
    }
}

#[test]
fn cat_124_close_inside_a_message_callback() {
    let (note, noted) = mpsc::channel();
    let server = serve(
        App::default().on_message(move |ctx, message| {
            note.send(message.to_owned()).unwrap();
            assert_eq!(ctx.send("before"), Sent::Sent);
            ctx.close(CloseCode::new(4000), "enough").unwrap();
            assert!(ctx.close(CloseCode::NORMAL, "twice").is_err());
            assert_eq!(ctx.send("behind"), Sent::Dropped);
        }),
        |_| (),
    );
    let mut client = server.connect();
    let frames = [
        masked(TEXT, b"close"),
        masked(TEXT, b"ignored"),
        masked(PING, b""),
    ];
    client.send(&frames.concat());
    assert_eq!(client.read_frame(), (TEXT, b"before".into()));
    assert_eq!(client.read_close(), 4000);
    client.frame(CLOSE, &4000_u16.to_be_bytes());
    assert_eq!(client.read_to_end(), [0; 0]);
    drop(client);
    server.wait_until("it is gone", |_, ctx| ctx.connection_count() == 0);
    assert_eq!(noted.try_iter().collect::<Vec<_>>(), ["close"]);
}

#[test]
fn cat_124_close_of_others_inside_a_message_callback() {
    // Whoever speaks first ends everybody, also those whose events are in the same batch.
    let server = serve(
        App::default().on_message(|ctx, _| {
            for id in ctx.connections().collect::<Vec<_>>() {
                let _ = ctx.close_connection(id, CloseCode::new(4000), "all of you");
            }
        }),
        |_| (),
    );
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    let stands_still = server.stand_still();
    for client in &mut clients {
        client.frame(TEXT, b"me first");
    }
    drop(stands_still);
    for client in &mut clients {
        assert_eq!(client.read_close(), 4000);
        client.frame(CLOSE, &4000_u16.to_be_bytes());
        assert_eq!(client.read_to_end(), [0; 0]);
    }
    drop(clients);
    server.wait_until("all are gone", |_, ctx| ctx.connection_count() == 0);
    assert_eq!(server.ask(|_, ctx| ctx.stats().messages_in), 1);
}

// ---- accepting ----

/// How many connections may wait to be accepted; the kernel takes no more than somaxconn.
fn burst() -> usize {
    let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap() as usize;
    most.trim()
        .parse::<usize>()
        .unwrap()
        .min(2000)
        .min(descriptors / 8)
}

#[test]
fn cat_125_open_connection_is_served_during_a_burst_of_new_ones() {
    let count = burst();
    let server = serve(
        App::default().on_message(|ctx, _| {
            let count = ctx.connection_count().to_string();
            ctx.send(&count);
        }),
        |config| config.limits.accept_budget = 32,
    );
    let mut client = server.connect();
    let stands_still = server.stand_still();
    let burst: Vec<Client> = (0..count).map(|_| Client::raw(server.address)).collect();
    client.frame(TEXT, b"how many are there?");
    drop(stands_still);
    let (_, answer) = client.read_frame();
    let seen: usize = String::from_utf8(answer).unwrap().parse().unwrap();
    assert!(
        seen <= 1 + 2 * 32,
        "{seen} were accepted before an open connection was served"
    );
    server.wait_until("all are accepted", move |_, ctx| {
        ctx.connection_count() == 1 + count
    });
    drop(burst);
    server.wait_until("all are gone", |_, ctx| ctx.connection_count() == 1);
}

#[test]
fn cat_126_burst_beyond_the_accept_budget_is_accepted_without_an_event() {
    let server = serve(Echo, |config| config.limits.accept_budget = 1);
    let stands_still = server.stand_still();
    let mut burst: Vec<Client> = (0..burst().min(200))
        .map(|_| {
            let mut client = Client::raw(server.address);
            client.send(upgrade_request("/").as_bytes());
            client
        })
        .collect();
    drop(stands_still);
    for client in &mut burst {
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        client.echo("hello");
    }
}

// ---- signals and the clock ----

#[test]
fn cat_133_burst_beyond_a_backlog_of_128_waits_for_the_loop() {
    let server = serve(Echo, |_| ());
    let mut bystander = server.connect();
    let count = burst().min(300);
    assert!(count > 130, "{count} connections say nothing about 128");
    let stands_still = server.stand_still();
    // A full queue drops the SYN: connecting would wait for as long as the loop does not turn.
    let burst: Vec<_> = (0..count)
        .map(|_| TcpStream::connect_timeout(&server.address, PATIENCE / 4).unwrap())
        .collect();
    drop(stands_still);
    for socket in burst {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client { socket };
        client.send(upgrade_request("/").as_bytes());
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        client.echo("hello");
    }
    bystander.echo("still here");
    server.wait_until("all are gone", |_, ctx| ctx.connection_count() == 1);
}

#[test]
fn cat_139_connections_that_come_and_go_leave_nothing() {
    const AT_ONCE: u32 = 20;
    let app = App::default().on_open(|ctx| {
        let own = format!("of {}", ctx.id());
        assert_eq!(ctx.subscribe(&own), Ok(true));
        assert_eq!(ctx.subscribe("all"), Ok(true));
    });
    let server = serve(app, |_| ());
    for round in 0..40 {
        let clients: Vec<Client> = (0..AT_ONCE).map(|_| server.connect()).collect();
        server.handle.publish("all", "on the way").unwrap();
        for (index, mut client) in clients.into_iter().enumerate() {
            match (round + index) % 4 {
                0 => client.frame(CLOSE, b""),
                1 => client.frame(0x83, b""), // An opcode of nothing.
                2 => client.reset(),
                _ => client.frame(!0x80 & TEXT, b"half a message"),
            }
        }
        server.wait_until("all are gone", |_, ctx| ctx.connection_count() == 0);
    }
    let (gauges, stats) = server.ask(|_, ctx| (ctx.gauges(), ctx.stats().clone()));
    assert_eq!(gauges, Gauges::default());
    assert_eq!((stats.opened, stats.closed_total()), (800, 800));
    let app = server.stop();
    assert_eq!((app.opened.len(), app.ended.len()), (800, 800));
    let highest = app.opened.into_iter().map(slot).max().unwrap();
    assert!(highest < AT_ONCE, "slot {highest} for {AT_ONCE} at once");
}

#[test]
fn cat_127_interrupted_wait_is_no_error() {
    let server = OtherProcess::start("exec \"$0\" \"$@\"");
    let mut client = Client::open(server.address, "/");
    for round in 0..20 {
        client.echo("before");
        server.wait_until("it sleeps in epoll_wait", |states| {
            states.iter().all(|state| state == "S")
        });
        // signal(7): a wait for events is not restarted after SIGCONT, it fails with EINTR.
        server.signal("STOP");
        server.wait_until("it is stopped", |states| {
            states.iter().all(|state| state == "T")
        });
        server.signal("CONT");
        client.echo(&format!("behind {round}"));
    }
}

#[test]
fn cat_128_deadlines_fire_while_the_loop_never_sleeps() {
    let (ring, rung) = mpsc::channel();
    // Timer 0 is due at once, again and again.
    let app = App::default()
        .on_message(|ctx, text| assert_eq!(ctx.send(text), Sent::Sent))
        .on_timer(move |ctx, token| match token {
            0 => ctx.set_timer(Duration::ZERO, 0),
            _ => ring.send(()).unwrap(),
        });
    let server = serve(app, |config| config.timeouts.handshake = SOON);
    server.ask(|_, ctx| {
        ctx.set_timer(Duration::ZERO, 0);
        ctx.set_timer(SOON, 1);
    });
    let mut client = server.connect();
    let mut silent = Client::raw(server.address);
    assert_eq!(silent.read_to_end(), [0; 0]);
    rung.recv_timeout(PATIENCE).expect("the other timer");
    client.echo("served as well");
}

/// What has nothing to do must cost nothing, however it came to be: many servers had a state in
/// which a socket was always ready and nobody read it.
#[test]
fn the_loop_sleeps_behind_every_kind_of_trouble() {
    let (server, stalled) = Filler::stalled();
    let frame = masked(TEXT, &[b'x'; 10_000]);
    let mut staying = vec![stalled];
    for part in [&b"GET / HT"[..], &[]] {
        let connect = || {
            let mut client = Client::raw(server.address);
            client.send(part);
            client
        };
        connect().reset();
        connect().finish_sending();
        staying.push(connect());
    }
    for part in [&frame[..3], &frame[..9], &masked(TEXT, b"")] {
        let connect = || {
            let mut client = server.connect();
            client.send(part);
            client
        };
        connect().reset();
        connect().finish_sending();
        let ended_by_a_client = connect();
        ended_by_a_client.finish_sending();
        staying.extend([ended_by_a_client, connect()]);
    }
    // One whose Close frame is not answered, and one that has broken the protocol and stays.
    let mut unanswered = server.connect();
    let id = newest(&server);
    server.handle.close(id, CloseCode::NORMAL, "").unwrap();
    assert_eq!(unanswered.read_close(), 1000);
    let mut broken = server.connect();
    broken.send(b"\xFF\xFF");
    assert_eq!(broken.read_close(), 1002);
    // One that asks for more than it reads.
    let mut pinging = Client::with_small_buffer(server.address);
    pinging.frame(TEXT, b"fill");
    (0..1000).for_each(|_| pinging.frame(PING, b"and?"));
    staying.extend([unanswered, broken, pinging]);

    let task = server.ask(|_, _| fs::read_link("/proc/thread-self").unwrap());
    let stat_path = format!("/proc/{}/stat", task.display());
    // What was sent may still be being read; who spins never comes to rest.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = processor_time(&stat_path);
        std::thread::sleep(Duration::from_secs(1));
        let busy = processor_time(&stat_path).saturating_sub(before);
        if busy < Duration::from_millis(10) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "still busy for {busy:?} of a second"
        );
    }
    drop(staying);
}

// ---- out of descriptors ----

#[test]
fn cat_129_running_out_of_descriptors_pauses_accepting() {
    let server = OtherProcess::start("ulimit -n 40; exec \"$0\" \"$@\"");
    let mut watcher = Client::open(server.address, "/");
    let mut failures = || -> u64 {
        watcher.frame(TEXT, b"how often was accepting in vain?");
        String::from_utf8(watcher.read_frame().1)
            .unwrap()
            .parse()
            .unwrap()
    };
    // They connect, since the kernel does that, and all but about thirty wait to be accepted.
    let clients: Vec<Client> = (0..80)
        .map(|_| {
            let mut client = Client::raw(server.address);
            client.send(upgrade_request("/").as_bytes());
            client
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while failures() == 0 {
        assert!(
            Instant::now() < deadline,
            "40 descriptors were enough for 80 connections"
        );
    }
    let stat_path = format!("/proc/{}/stat", server.process.id());
    // It does not spin: pauses from 10 ms on, doubled each time, are few in a second.
    let (failures_before, time_before) = (failures(), processor_time(&stat_path));
    std::thread::sleep(Duration::from_secs(1));
    let failed = failures() - failures_before;
    let busy = processor_time(&stat_path).saturating_sub(time_before);
    assert!(failed <= 10, "{failed} attempts in a second");
    assert!(
        busy < Duration::from_millis(300),
        "busy for {busy:?} of a second"
    );
    // Each end makes room for the next.
    for mut client in clients {
        assert!(client.head().starts_with("HTTP/1.1 101 "));
    }
    let mut last = Client::open(server.address, "/");
    last.frame(TEXT, b"hello");
    assert_eq!(last.read_frame().0, TEXT);
}

// ---- many from one address ----

/// A server that lets two in from each address.
fn two_from_each() -> Running<App> {
    serve(App::default(), |config| {
        config.limits.max_connections_per_ip = Some(2);
        config.timeouts.handshake = SOON;
    })
}

/// Waits until so many connections are there.
fn await_connections(server: &Running<App>, count: usize) {
    server.wait_until("as many are there as there should be", move |_, ctx| {
        ctx.connection_count() == count
    });
}

/// Connects behind whoever waits to be accepted, and is turned away when the loop goes on.
fn is_turned_away(server: &Running<App>, stands_still: mpsc::Sender<()>) {
    let mut client = Client::raw(server.address);
    client.send(upgrade_request("/").as_bytes());
    drop(stands_still);
    // The FIN behind the answer comes before the reset for the request that nobody read.
    let mut answer = String::new();
    client.socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

/// A WebSocket from another address of the loopback interface.
fn connect_from(server: &Running<App>, address: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::new(address.parse().unwrap(), 0);
    socket.bind(&from.into()).unwrap();
    socket.connect(&server.address.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut socket = TcpStream::from(socket);
    assert_is_let_in(&mut socket);
    socket
}

fn assert_is_let_in(socket: &mut (impl Read + Write)) {
    socket.write_all(upgrade_request("/").as_bytes()).unwrap();
    let mut status = [0; 13];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 101 ");
}

#[test]
fn cat_140_address_above_its_cap_is_turned_away_and_others_are_not() {
    let server = two_from_each();
    let (mut one, mut two) = (server.connect(), server.connect());
    is_turned_away(&server, server.stand_still());
    let _others = ["127.0.0.2", "127.0.0.2", "127.0.0.3"].map(|ip| connect_from(&server, ip));
    is_turned_away(&server, server.stand_still());
    one.hears_nothing_more();
    two.hears_nothing_more();
    let stats = server.ask(|_, ctx| ctx.stats().clone());
    let turned_away = (stats.rejected_ip, stats.rejected_full);
    assert_eq!((stats.accepted, turned_away), (5, (2, 0)));
    assert_eq!(server.stop().faults, ["FullForIp(127.0.0.1)"; 2]);
}

#[test]
fn cat_140_every_end_of_a_connection_makes_room_for_its_address() {
    let server = two_from_each();
    let mut staying = server.connect();
    let leave_by_close = |mut client: Client| {
        client.frame(CLOSE, b"");
        client.read_to_end();
    };
    let leaves: [fn(Client); 3] = [leave_by_close, Client::reset, drop];
    for leave in leaves {
        let client = server.connect();
        is_turned_away(&server, server.stand_still());
        leave(client);
        await_connections(&server, 1);
    }
    // Silence, half a request, and one that is refused.
    let requests: [(&[u8], &[u8]); 3] = [
        (b"", b""),
        (b"GET / HTTP/1.1\r\n", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
    ];
    for (request, answer) in requests {
        let stands_still = server.stand_still();
        let mut client = Client::raw(server.address);
        client.send(request);
        is_turned_away(&server, stands_still);
        assert!(client.read_to_end().starts_with(answer));
        drop(client);
        await_connections(&server, 1);
    }
    // As many as before, and no more.
    server.connect().hears_nothing_more();
    await_connections(&server, 1);
    let mut last = server.connect();
    is_turned_away(&server, server.stand_still());
    last.hears_nothing_more();
    staying.hears_nothing_more();
}

#[test]
fn cat_140_unix_sockets_are_of_no_address() {
    let path = std::env::temp_dir().join(format!("stentor-{}-cat-140", std::process::id()));
    let server = serve(App::default(), |config| {
        config.limits.max_connections_per_ip = Some(1);
        config.listen.push(Endpoint::Unix(path.clone()));
    });
    let _sockets = [(); 3].map(|()| {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_is_let_in(&mut socket);
        socket
    });
    let _first = server.connect();
    is_turned_away(&server, server.stand_still());
}

/// A server in a process of its own, which is this test binary again.
struct OtherProcess {
    process: Child,
    address: SocketAddr,
}

impl OtherProcess {
    /// Starts it by a line of shell.
    fn start(shell: &str) -> Self {
        let mut process = Command::new("sh")
            .args(["-c", shell])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "catalogue_loop::server_of_another_process"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let address = output
            .lines()
            .find_map(|line| {
                Some(
                    line.unwrap()
                        .split_once("listening at ")?
                        .1
                        .parse()
                        .unwrap(),
                )
            })
            .expect("the server says where it listens");
        Self { process, address }
    }

    fn signal(&self, name: &str) {
        let process = self.process.id().to_string();
        let status = Command::new("kill")
            .args(["-s", name, &process])
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn wait_until(&self, what: &str, question: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !question(&self.states()) {
            assert!(Instant::now() < deadline, "waited too long until {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The states of its threads, as in `proc_pid_stat(5)`.
    fn states(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        tasks
            .map(|task| stat(&task.unwrap().path().join("stat").to_string_lossy())[0].clone())
            .collect()
    }
}

/// What a process or a thread has used of processors so far.
fn processor_time(stat_path: &str) -> Duration {
    let stat = stat(stat_path);
    let ticks = stat[11..13]
        .iter()
        .map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10) // USER_HZ is 100 everywhere.
}

/// The fields of `proc_pid_stat(5)` behind the name, which may contain spaces: the state first.
fn stat(path: &str) -> Vec<String> {
    let stat = fs::read_to_string(path).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').map(str::to_owned).collect()
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "a server for other tests, which start it in a process of its own"]
fn server_of_another_process() {
    let answer = App::default().on_message(|ctx, message| {
        let count = ctx.stats().accept_exhausted.to_string();
        let is_question = message == "how often was accepting in vain?";
        ctx.send(if is_question { &count } else { message });
    });
    let config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
    let server = Server::bind(config, answer).unwrap();
    let Endpoint::Tcp(address) = server.endpoints()[0] else {
        panic!("a TCP endpoint")
    };
    println!("listening at {address}");
    // It does not outlive the test that holds the other end.
    let handle = server.handle();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = handle.stop();
    });
    server.run().unwrap();
}
