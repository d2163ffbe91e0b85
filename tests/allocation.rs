//! How much the loop allocates, counted: a hostile connection gets memory for what it has sent and
//! not for what it claims, and a message that is echoed or published allocates nothing.
//!
//! A binary of its own, since its allocator counts. Only the thread of the loop is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stentor::{Config, Context, Handler, Message};

use crate::support::{BINARY, CONTINUATION, Client, FIN, Running, TEXT, masked, serve};

#[expect(dead_code, reason = "the other binary uses the rest")]
mod support;

// ---- counting ----

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes that are allocated, since counting began.
static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

fn count(allocated: usize, freed: usize) {
    if IS_COUNTED.get() {
        ALLOCATIONS.fetch_add(u64::from(allocated > 0), Relaxed);
        let change = allocated.cast_signed() as i64 - freed.cast_signed() as i64;
        let live = LIVE.fetch_add(change, Relaxed) + change;
        PEAK.fetch_max(live, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing, since
// the thread-local is initialised by a constant and needs no destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The counters are one for all tests.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Echoes, or publishes what begins with "publish"; a text "count" starts counting from zero.
struct Counted;

impl Handler for Counted {
    type State = ();

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        match message.payload() {
            b"count" => {
                ALLOCATIONS.store(0, Relaxed);
                LIVE.store(0, Relaxed);
                PEAK.store(0, Relaxed);
                IS_COUNTED.set(true);
                ctx.send(message);
            }
            payload if payload.starts_with(b"publish") => {
                ctx.publish("topic", message);
            }
            b"subscribe" => {
                ctx.subscribe("topic").unwrap();
                ctx.send(message);
            }
            _ => {
                ctx.send(message);
            }
        }
    }
}

fn counted(configure: impl FnOnce(&mut Config)) -> Running<Counted> {
    serve(Counted, configure)
}

// ---- memory follows what came ----

/// What a connection may cost beyond twice what it has sent: a ring or the beginning of an
/// assembly, and the entry that refers to it.
const FIXED: i64 = 4096 + 512;

/// Opens connections, lets each send these bytes, and answers what they cost at most on average.
fn cost_of_each(count: usize, pieces: &[&[u8]]) -> i64 {
    let server = counted(|_| ());
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    clients[0].echo("count");
    let before = server.ask(|_, ctx| ctx.stats().bytes_in);
    for piece in pieces {
        for client in &mut clients {
            client.send(piece);
        }
    }
    let each: usize = pieces.iter().map(|piece| piece.len()).sum();
    let read = before + (each * count) as u64;
    server.wait_until("all is read", move |_, ctx| ctx.stats().bytes_in == read);
    PEAK.load(Relaxed) / count as i64
}

#[test]
fn declared_length_costs_nothing() {
    let _alone = alone();
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    // 16 MiB are declared, and one byte of them is sent, in one piece or two.
    let frame = [
        &[BINARY, 0xFF][..],
        &(16_u64 << 20).to_be_bytes(),
        &[0; 4],
        b"x",
    ]
    .concat();
    for pieces in [
        &[&frame[..]][..],
        &[&frame[..14], &frame[14..]],
        &[&frame[..3], &frame[3..]],
    ] {
        let cost = cost_of_each(400, pieces);
        assert!(
            cost <= 2 * frame.len() as i64 + FIXED,
            "{cost} bytes for each"
        );
    }
}

#[test]
fn fragments_cost_their_bytes() {
    let _alone = alone();
    for (payload, count) in [(&b"x"[..], 100_000), (b"", 100_000)] {
        let mut frames = masked(TEXT - FIN, payload);
        frames.extend(masked(CONTINUATION - FIN, payload).repeat(count - 1));
        let cost = cost_of_each(1, &[&frames]);
        let bytes = (count * payload.len()) as i64;
        // A frame that a read has cut waits in a ring meanwhile.
        assert!(cost <= 2 * bytes + 2 * FIXED, "{cost} for {bytes} bytes");
    }
}

#[test]
fn long_message_in_pieces_costs_twice_its_bytes_at_most() {
    let _alone = alone();
    let frame = masked(BINARY, &vec![7; 3 << 20]);
    let begun = &frame[..frame.len() - 1];
    let cost = cost_of_each(1, &begun.chunks(10_000).collect::<Vec<_>>());
    assert!(
        cost <= 2 * begun.len() as i64 + FIXED,
        "{cost} for {} bytes",
        begun.len()
    );
}

#[test]
fn request_head_in_bytes_costs_one_ring() {
    let _alone = alone();
    let server = counted(|_| ());
    let mut starter = server.connect();
    let mut clients: Vec<Client> = (0..100).map(|_| Client::raw(server.address)).collect();
    server.wait_until("all are accepted", |_, ctx| ctx.connection_count() == 101);
    starter.echo("count");
    let head = b"GET /somewhere HTTP/1.1\r\nHost: localhost\r\nX: never to be completed";
    for byte in head {
        for client in &mut clients {
            client.socket.write_all(&[*byte]).unwrap();
        }
    }
    let sent = 100 * head.len() as u64;
    server.wait_until("all is read", move |_, ctx| ctx.stats().bytes_in > sent);
    let cost = PEAK.load(Relaxed) / 100;
    assert!(
        cost <= 2 * head.len() as i64 + FIXED,
        "{cost} bytes for each"
    );
}

// ---- nothing for a message ----

/// Echoes messages of this length until nothing is new, then 100 more; answers what those cost.
fn allocations_of_100_echoes(len: usize) -> u64 {
    let server = counted(|_| ());
    let mut client = server.connect();
    let frame = masked(BINARY, &vec![7; len]);
    let mut round = || {
        client.send(&frame);
        assert_eq!(client.read_frame().1.len(), len);
    };
    (0..100).for_each(|_| round());
    let mut starter = server.connect();
    starter.echo("count");
    (0..100).for_each(|_| round());
    ALLOCATIONS.load(Relaxed)
}

#[test]
fn echo_allocates_nothing() {
    let _alone = alone();
    for len in [20, 1 << 10, 16 << 10] {
        assert_eq!(allocations_of_100_echoes(len), 0, "{len} bytes");
    }
}

/// Where the first read brings little of a long message, its buffer grows with it, by doubling;
/// and what the socket does not take is copied once. How often, is the kernel's affair.
#[test]
fn echo_of_a_long_message_allocates_a_few_times_at_most() {
    let _alone = alone();
    let count = allocations_of_100_echoes(1 << 20);
    assert!(count <= 100 * 12, "{count} allocations for 100 messages");
}

#[test]
fn burst_of_messages_allocates_nothing() {
    let _alone = alone();
    let server = counted(|_| ());
    let mut client = server.connect();
    let frames = masked(TEXT, b"twenty bytes of text").repeat(500);
    let mut round = || {
        client.send(&frames);
        (0..500).for_each(|_| assert_eq!(client.read_frame().1.len(), 20));
    };
    (0..20).for_each(|_| round());
    let mut starter = server.connect();
    starter.echo("count");
    (0..20).for_each(|_| round());
    assert_eq!(ALLOCATIONS.load(Relaxed), 0);
}

#[test]
fn publishing_allocates_nothing() {
    let _alone = alone();
    for len in [20, 1 << 10, 16 << 10] {
        let server = counted(|_| ());
        let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
        clients
            .iter_mut()
            .for_each(|client| client.echo("subscribe"));
        let mut payload = b"publish".to_vec();
        payload.resize(len, b'x');
        let mut round = || {
            clients[0].frame(TEXT, &payload);
            for client in &mut clients {
                assert_eq!(client.read_frame().1.len(), len);
            }
        };
        (0..50).for_each(|_| round());
        let mut starter = server.connect();
        starter.echo("count");
        (0..50).for_each(|_| round());
        assert_eq!(ALLOCATIONS.load(Relaxed), 0, "{len} bytes");
    }
}

/// What is never counted cannot be found.
#[test]
fn allocations_are_counted() {
    let _alone = alone();
    let server = counted(|_| ());
    let mut client = server.connect();
    client.echo("count");
    let before = ALLOCATIONS.load(Relaxed);
    server.ask(|_, _| drop(vec![0_u8; 100_000]));
    assert!(ALLOCATIONS.load(Relaxed) > before);
    assert!(PEAK.load(Relaxed) >= 100_000);
}
