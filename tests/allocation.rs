//! What the loop's thread takes from the allocator: nothing for each message once it is warm, and
//! little for each byte of a peer that begins much and completes nothing.
//!
//! A binary of its own, since the allocator that counts is that of the whole process.

#![allow(clippy::cast_possible_wrap)] // No size here is near the end of an i64.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stentor::{Context, Handler, Message};

use support::{Client, Echo, PATIENCE, Running, masked, serve};

#[allow(dead_code)] // The other test binary uses the rest of it.
mod support;

/// The system's allocator, with a count for each thread.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(calls: u64, bytes: i64) {
    // A thread that is ending has no counters any more, and nobody who would ask for them.
    let _ = CALLS.try_with(|count| count.set(count.get() + calls));
    let _ = LIVE.try_with(|count| {
        count.set(count.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(count.get())));
    });
}

// SAFETY: every call goes to `System` with the very arguments; counting allocates nothing, since
// the thread-locals are constant and need no destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: `pointer` came from `System` by one of these functions, with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counters of the loop's thread, read without allocating on it.
#[derive(Default)]
struct Reading {
    calls: AtomicU64,
    live: AtomicI64,
    bytes_in: AtomicU64,
    connections: AtomicUsize,
    is_done: AtomicBool,
}

fn reading<H>(server: &Running<H>) -> Arc<Reading>
where
    H: Handler + Send + 'static,
    H::State: Send,
{
    let reading = Arc::new(Reading::default());
    let theirs = Arc::clone(&reading);
    server
        .handle
        .run(move |_, ctx: &mut Context<'_, H::State>| {
            theirs.calls.store(CALLS.get(), Ordering::Relaxed);
            theirs.live.store(LIVE.get(), Ordering::Relaxed);
            theirs
                .bytes_in
                .store(ctx.stats().bytes_in, Ordering::Relaxed);
            let connections = ctx.connection_count();
            theirs.connections.store(connections, Ordering::Relaxed);
            theirs.is_done.store(true, Ordering::Release);
        })
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !reading.is_done.load(Ordering::Acquire) {
        assert!(Instant::now() < deadline, "the loop does not answer");
        std::thread::yield_now();
    }
    reading
}

/// Calls so far, bytes that live, and bytes that came in.
fn read<H>(server: &Running<H>) -> (u64, i64, u64)
where
    H: Handler + Send + 'static,
    H::State: Send,
{
    let reading = reading(server);
    let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let live = reading.live.load(Ordering::Relaxed);
    (load(&reading.calls), live, load(&reading.bytes_in))
}

/// Publishes every message to everyone.
struct Everyone;

impl Handler for Everyone {
    type State = ();

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        ctx.subscribe("all").unwrap();
    }

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        ctx.publish("all", message);
    }
}

#[test]
fn an_echoed_message_of_any_size_allocates_nothing() {
    let server = serve(Echo, |_| ());
    let mut client = server.connect();
    for len in [20, 1024, 16 << 10, 64 << 10, 1 << 20] {
        let frame = masked(0x82, &vec![7; len]);
        let mut echo = |count: usize| {
            for _ in 0..count {
                client.send(&frame);
                assert_eq!(client.read_frame().1.len(), len);
            }
        };
        // Warm is a loop whose buffers have met the worst split of such a message.
        echo(100);
        // How TCP cuts a message is nobody's choice: a buffer may grow once more. What happens
        // for each message shows in every round.
        let calls: Vec<u64> = (0..5)
            .map(|_| {
                let before = read(&server).0;
                echo(50);
                read(&server).0 - before
            })
            .collect();
        assert_eq!(calls.iter().min(), Some(&0), "{len} bytes: {calls:?}");
        assert!(calls.iter().sum::<u64>() < 25, "{len} bytes: {calls:?}");
    }
}

#[test]
fn a_message_to_fifty_subscribers_allocates_nothing() {
    let server = serve(Everyone, |_| ());
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    let mut publish = |count: usize| {
        for _ in 0..count {
            clients[0].frame(0x82, &[7; 200]);
            for client in &mut clients {
                assert_eq!(client.read_frame().1, [7; 200]);
            }
        }
    };
    publish(20);
    let before = read(&server).0;
    publish(50);
    assert_eq!(read(&server).0 - before, 0);
}

/// What each of many connections costs on the loop's heap after it has sent `bytes`.
fn cost_of_each(bytes: &[u8], connect: impl Fn(&Running<Echo>) -> Client) -> i64 {
    const CLIENTS: usize = 300;
    let server = serve(Echo, |_| ());
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| connect(&server)).collect();
    let (_, live_before, bytes_before) = read(&server);
    for client in &mut clients {
        for byte in bytes {
            client.send(&[*byte]);
        }
    }
    let expected = bytes_before + (CLIENTS * bytes.len()) as u64;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, live, bytes_in) = read(&server);
        if bytes_in == expected {
            return (live - live_before) / CLIENTS as i64;
        }
        assert!(Instant::now() < deadline, "the bytes do not arrive");
    }
}

#[test]
fn cat_138_idle_connections_have_no_buffer_behind_their_messages() {
    const CLIENTS: usize = 500;
    let server = serve(Echo, |_| ());
    // The spare buffers of the loop are those of the busiest moment, not of idle connections.
    let mut bystander = server.connect();
    bystander.echo("warm");
    let (_, before, _) = read(&server);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.echo("hello");
    }
    let cost = (read(&server).1 - before) / CLIENTS as i64;
    // An entry of 120 bytes and a few beside it, in tables that double as they grow.
    assert!(cost <= 2 * 160, "{cost} bytes each");
}

/// What lives on the loop's heap when nobody is connected any more. An answer through a channel
/// would be allocated there and freed here, and pass for a leak.
fn live_without_connections(server: &Running<Everyone>) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reading = reading(server);
        if reading.connections.load(Ordering::Relaxed) == 0 {
            return reading.live.load(Ordering::Relaxed);
        }
        assert!(Instant::now() < deadline, "the connections do not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn cat_139_churn_leaves_nothing_on_the_heap() {
    const AT_ONCE: usize = 20;
    let server = serve(Everyone, |_| ());
    let churn = |rounds: usize| {
        for _ in 0..rounds {
            let mut clients: Vec<Client> = (0..AT_ONCE).map(|_| server.connect()).collect();
            clients[0].frame(0x82, b"to all");
            for client in &mut clients {
                assert_eq!(client.read_frame().1, b"to all");
            }
            drop(clients);
            live_without_connections(&server);
        }
        live_without_connections(&server)
    };
    let warm = churn(10);
    let growth = churn(40) - warm;
    // One allocation that each of the 800 left would be 8 bytes and more, each time.
    assert!(growth < 800, "{growth} bytes");
}

#[test]
fn a_claimed_length_costs_what_came_and_not_what_was_claimed() {
    let frame_of = |claimed: u64| {
        let mut bytes = vec![0x82, 0xFF];
        bytes.extend(claimed.to_be_bytes());
        bytes.extend([1, 2, 3, 4, b'x']);
        bytes
    };
    for claimed in [65_536, 16 << 20] {
        let bytes = frame_of(claimed);
        let cost = cost_of_each(&bytes, Running::connect);
        let bound = 2 * bytes.len() as i64 + 4096;
        assert!(cost <= bound, "{claimed} claimed: {cost} bytes each");
    }
}

#[test]
fn the_beginning_of_a_frame_or_of_a_request_costs_less_than_4_kib() {
    let small = &masked(0x81, &[b'x'; 100])[..20];
    let cost = cost_of_each(small, Running::connect);
    assert!(cost <= 2 * 20 + 4096, "a frame: {cost} bytes each");
    let request = b"GET /a/path HTTP/1.1\r\nHost: exam";
    let cost = cost_of_each(request, |server| Client::raw(server.address));
    assert!(cost <= 2 * 31 + 4096, "a request: {cost} bytes each");
}

#[test]
fn fragments_of_one_byte_cost_one_buffer_and_no_list() {
    let mut bytes = masked(0x02, b"x");
    for _ in 0..60 {
        bytes.extend(masked(0x00, b"x"));
    }
    let cost = cost_of_each(&bytes, Running::connect);
    assert!(cost <= 2 * bytes.len() as i64 + 4096, "{cost} bytes each");
}

/// What one connection costs at most while these bytes come.
fn peak_cost(bytes: &[u8]) -> i64 {
    let server = serve(Echo, |_| ());
    let mut client = server.connect();
    let (_, live, bytes_before) = read(&server);
    server.handle.run(|_, _| PEAK.set(LIVE.get())).unwrap();
    for piece in bytes.chunks(10_000) {
        client.send(piece);
    }
    let expected = bytes_before + bytes.len() as u64;
    server.wait_until("all is read", move |_, ctx| {
        ctx.stats().bytes_in == expected
    });
    server.ask(|_, _| PEAK.get()) - live
}

#[test]
fn a_hundred_thousand_fragments_cost_what_is_in_them() {
    for payload in [&b"x"[..], b""] {
        let mut bytes = masked(0x01, payload);
        bytes.extend(masked(0x00, payload).repeat(99_999));
        let cost = peak_cost(&bytes);
        // One ring for a frame that a read has cut, and an assembly.
        let bound = 2 * 100_000 * payload.len() as i64 + 2 * 4096;
        assert!(cost <= bound, "{cost} bytes");
    }
}

#[test]
fn a_long_message_costs_at_most_twice_its_bytes_while_it_comes() {
    let bytes = masked(0x82, &vec![7; 3 << 20]);
    let begun = &bytes[..bytes.len() - 1];
    let cost = peak_cost(begun);
    assert!(cost <= 2 * begun.len() as i64 + 4096, "{cost} bytes");
}

#[test]
fn a_burst_of_messages_allocates_nothing() {
    let server = serve(Echo, |_| ());
    let mut client = server.connect();
    let burst = masked(0x81, b"twenty bytes of text").repeat(500);
    let mut echo = |count: usize| {
        for _ in 0..count {
            client.send(&burst);
            (0..500).for_each(|_| assert_eq!(client.read_frame().1.len(), 20));
        }
    };
    echo(20);
    let before = read(&server).0;
    echo(20);
    assert_eq!(read(&server).0 - before, 0);
}
