//! What other threads have found out, and how a loop comes to look at it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use stentor::{Context, Handler, Waker};

use crate::support::{PATIENCE, Running, serve};

/// Answers what comes through a channel of its own, and takes note of what happened.
struct Office {
    letters: Receiver<Letter>,
    log: Vec<&'static str>,
}

struct Letter {
    number: usize,
    answer: Sender<usize>,
}

impl Handler for Office {
    type State = ();

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        ctx.subscribe("news").unwrap();
    }

    fn wake(&mut self, ctx: &mut Context<'_, ()>) {
        self.log.push("wake");
        for letter in self.letters.try_iter() {
            let _ = letter.answer.send(letter.number);
            ctx.publish("news", &letter.number.to_string());
        }
    }
}

fn start(walk_sends: Option<usize>) -> (Running<Office>, Sender<Letter>) {
    let (sender, letters) = channel();
    let office = Office {
        letters,
        log: Vec::new(),
    };
    let server = serve(office, |config| {
        (config.limits.outbox_soft, config.limits.outbox_hard) = (64 << 20, 64 << 20);
        if let Some(sends) = walk_sends {
            config.limits.walk_sends = sends;
        }
    });
    (server, sender)
}

/// Sends letters one by one, each when the last one was answered: a call that is lost is never
/// made up for by a later one.
fn correspond(letters: &Sender<Letter>, waker: &Waker, rounds: usize) {
    let (answer, answers) = channel();
    for number in 0..rounds {
        let answer = answer.clone();
        letters.send(Letter { number, answer }).unwrap();
        waker.wake();
        assert_eq!(answers.recv_timeout(PATIENCE), Ok(number));
    }
}

#[test]
fn no_call_of_many_threads_is_lost() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 3000;
    let (server, letters) = start(None);
    let mut client = server.connect();
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let letters = letters.clone();
            // Both ways lead to the same loop.
            let waker = match number % 2 {
                0 => server.handle.waker(),
                _ => server.ask(|_, ctx| ctx.waker()),
            };
            thread::spawn(move || correspond(&letters, &waker, ROUNDS))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let mut counts = vec![0; ROUNDS];
    for _ in 0..THREADS * ROUNDS {
        counts[client.hear().parse::<usize>().unwrap()] += 1;
    }
    assert_eq!(counts, vec![THREADS; ROUNDS]);
    client.hears_nothing_more();
}

#[test]
fn no_call_is_lost_while_commands_wait_for_a_full_batch() {
    // Each turn serves one subscriber, and what is published is soon too much to go on.
    let (server, letters) = start(Some(1));
    let mut clients = [(); 3].map(|()| server.connect());
    let part: &'static str = "x".repeat(600 << 10).leak();
    for _ in 0..10 {
        let handle = server.handle.clone();
        let publisher = thread::spawn(move || {
            for _ in 0..8 {
                handle.publish("news", part).unwrap();
            }
        });
        correspond(&letters, &server.handle.waker(), 5);
        publisher.join().unwrap();
        for client in &mut clients {
            let heard = [(); 8 + 5].map(|()| client.hear());
            assert_eq!(heard.iter().filter(|text| *text == part).count(), 8);
        }
    }
}

#[test]
fn several_calls_before_a_turn_are_one() {
    let (server, _letters) = start(None);
    let stands_still = server.stand_still();
    let threads = [(); 3].map(|()| {
        let waker = server.handle.waker();
        thread::spawn(move || (0..10).for_each(|_| waker.wake()))
    });
    for thread in threads {
        thread.join().unwrap();
    }
    drop(stands_still);
    server.wait_until("it was called", |office, _| !office.log.is_empty());
    assert_eq!(server.ask(|office, _| office.log.clone()), ["wake"]);
}

#[test]
fn the_commands_that_a_thread_gave_before_are_carried_out_before() {
    let (server, _letters) = start(None);
    let waker = server.handle.waker();
    for _ in 0..500 {
        let done = server.handle.run(|office, _| office.log.push("command"));
        done.unwrap();
        waker.wake();
        server.wait_until("it was called", |office, _| office.log.contains(&"wake"));
        let log = server.ask(|office, _| std::mem::take(&mut office.log));
        assert_eq!(log, ["command", "wake"]);
    }
}

#[test]
fn a_call_from_the_callback_itself_begins_another_turn() {
    struct Restless(usize);

    impl Handler for Restless {
        type State = ();

        fn wake(&mut self, ctx: &mut Context<'_, ()>) {
            self.0 += 1;
            if self.0 < 100 {
                ctx.waker().wake();
            }
        }
    }

    let server = serve(Restless(0), |_| ());
    server.handle.waker().wake();
    server.wait_until("it has rested", |restless, _| restless.0 == 100);
}

#[test]
fn a_server_that_has_ended_is_called_in_vain() {
    let (server, _letters) = start(None);
    let waker = server.handle.waker();
    let office = server.stop();
    waker.wake();
    waker.clone().wake();
    assert!(office.log.is_empty());
}
