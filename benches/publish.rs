//! Publishing: the topic table alone, and whole turns of a server with subscribers on unix sockets.
//!
//! Most of a turn is one send per subscriber. `publish/sends` makes the same sends with no server, so
//! that the difference is the server's; `publish/collect` is `Context::publish` itself, which touches
//! no subscriber.

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use stentor::topic::TopicTable;
use stentor::{Config, Context, Endpoint, Handler, Server};

const PAYLOAD: [u8; 64] = [b'a'; 64];

/// A server's frame has two bytes in front of a payload this short.
const FRAME: usize = 2 + PAYLOAD.len();

const SUBSCRIBERS: [usize; 3] = [1, 50, 500];

/// Messages published in one turn.
const BATCHES: [usize; 2] = [1, 64];

/// How many topics there are when each subscriber has two of them.
const TOPICS: usize = 8;

/// No subscriber waits longer for what it is owed, so that a lost message fails the bench.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many names are looked up in turn: too many for the cache to hold all their entries.
const LOOKUPS: usize = 65_536;

/// What the subscribers are subscribed to.
#[derive(Clone, Copy)]
enum Plan {
    /// All to the same topic.
    One,
    /// Each to two of [`TOPICS`]: the loop merges one batch for each pair.
    Two,
    /// To the first of so many, which all have a subscriber.
    Among(usize),
}

/// Subscribes whoever connects, and publishes when it is told.
struct Radio {
    plan: Plan,
    names: Vec<String>,
    opened: usize,
    /// How long `Context::publish` took for the latest batch.
    collecting: Duration,
}

impl Radio {
    fn new(plan: Plan) -> Self {
        let topics = match plan {
            Plan::One => 1,
            Plan::Two => TOPICS,
            Plan::Among(topics) => topics,
        };
        Self {
            plan,
            names: names(topics),
            opened: 0,
            collecting: Duration::ZERO,
        }
    }

    fn publish(&mut self, ctx: &mut Context<'_, ()>, batch: usize) {
        let start = Instant::now();
        let topics = match self.plan {
            Plan::Two => TOPICS,
            Plan::One | Plan::Among(_) => 1,
        };
        for index in 0..batch {
            ctx.publish(&self.names[index % topics], &PAYLOAD);
        }
        self.collecting = start.elapsed();
    }

    /// How many of the messages of a batch each subscriber gets: the batch covers all topics evenly.
    fn share(&self, batch: usize) -> usize {
        match self.plan {
            Plan::One | Plan::Among(_) => batch,
            Plan::Two => batch * 2 / TOPICS,
        }
    }
}

impl Handler for Radio {
    type State = ();

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        let number = self.opened;
        self.opened += 1;
        let topics = match self.plan {
            Plan::One => vec![0],
            Plan::Two => vec![number % TOPICS, (number + 1) % TOPICS],
            Plan::Among(topics) => (0..topics).collect(),
        };
        for topic in topics {
            ctx.subscribe(&self.names[topic])
                .expect("the name is acceptable");
        }
    }
}

/// A server that this thread drives, and its subscribers.
struct Audience {
    server: Server<Radio>,
    subscribers: Vec<UnixStream>,
    received: Vec<u8>,
}

impl Audience {
    fn new(count: usize, plan: Plan) -> Self {
        let path = socket_path();
        let mut config = Config::listen([Endpoint::Unix(path.clone())]);
        config.limits.max_topics_per_connection = usize::MAX;
        config.limits.walk_sends = usize::MAX; // A turn is to be all of it.
        let mut server = Server::bind(config, Radio::new(plan)).expect("the path is free");
        let connect = |_| UnixStream::connect(&path).expect("the backlog has room");
        let mut subscribers: Vec<_> = (0..count).map(connect).collect();
        for subscriber in &mut subscribers {
            open(subscriber);
        }
        while server.handler().opened < count {
            turn(&mut server);
        }
        subscribers.iter_mut().for_each(skip_head);
        Self {
            server,
            subscribers,
            received: Vec::new(),
        }
    }

    /// A turn that publishes this many messages; answers how long it took.
    fn publish(&mut self, batch: usize) -> Duration {
        self.server
            .handle()
            .run(move |radio, ctx| radio.publish(ctx, batch))
            .expect("the loop takes a command");
        let start = Instant::now();
        turn(&mut self.server);
        let elapsed = start.elapsed();
        let share = self.server.handler().share(batch);
        self.drain(share * FRAME);
        elapsed
    }

    /// Takes what each subscriber was sent, so that no socket fills up.
    fn drain(&mut self, len: usize) {
        self.received.resize(len, 0);
        for subscriber in &mut self.subscribers {
            subscriber
                .read_exact(&mut self.received)
                .expect("every subscriber gets every message");
        }
    }
}

fn socket_path() -> PathBuf {
    std::env::temp_dir().join(format!("stentor-publish-bench-{}", std::process::id()))
}

/// Sends the opening handshake.
fn open(subscriber: &mut UnixStream) {
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    subscriber.write_all(request).expect("the socket is empty");
    subscriber
        .set_read_timeout(Some(PATIENCE))
        .expect("the timeout is not zero");
}

/// Takes the 101; nothing is behind it yet.
fn skip_head(subscriber: &mut UnixStream) {
    let mut head = [0; 1024];
    let len = subscriber.read(&mut head).expect("the server answers");
    assert!(head[..len].ends_with(b"\r\n\r\n"), "a whole response head");
}

fn turn(server: &mut Server<Radio>) {
    server
        .turn(Some(Duration::ZERO))
        .expect("epoll works on what it accepted");
}

fn deliveries(
    group: &mut BenchmarkGroup<'_, WallTime>,
    count: usize,
    batch: usize,
    mut publish: impl FnMut() -> Duration,
) {
    group.throughput(Throughput::Elements((count * batch) as u64));
    group.bench_function(BenchmarkId::new(format!("batch of {batch}"), count), |b| {
        b.iter_custom(|times| (0..times).map(|_| publish()).sum());
    });
}

/// Whole turns: wake-up, command, publish, sends.
fn turns(c: &mut Criterion) {
    // Two descriptors for each subscriber are more than a shell's usual limit of 1,024.
    rlimit::increase_nofile_limit(u64::MAX).expect("up to the hard limit it may be raised");
    let mut group = c.benchmark_group("publish/turn");
    for count in SUBSCRIBERS {
        let mut audience = Audience::new(count, Plan::One);
        for batch in BATCHES {
            deliveries(&mut group, count, batch, || audience.publish(batch));
        }
    }
    group.finish();
    let mut group = c.benchmark_group("publish/turn, two topics of eight each");
    let mut audience = Audience::new(500, Plan::Two);
    let share = audience.server.handler().share(64);
    group.throughput(Throughput::Elements(500 * share as u64));
    group.bench_function("batch of 64/500", |b| {
        b.iter_custom(|times| (0..times).map(|_| audience.publish(64)).sum());
    });
    group.finish();
}

/// The same sends without a server.
fn sends(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish/sends");
    for count in SUBSCRIBERS {
        let pairs = (0..count).map(|_| UnixStream::pair().expect("the descriptor limit is raised"));
        let (mut senders, subscribers): (Vec<_>, Vec<_>) = pairs.unzip();
        for batch in BATCHES {
            let bytes = vec![b'a'; FRAME * batch];
            let mut received = vec![0; bytes.len()];
            deliveries(&mut group, count, batch, || {
                let start = Instant::now();
                for sender in &mut senders {
                    sender.write_all(&bytes).expect("the socket is empty");
                }
                let elapsed = start.elapsed();
                for mut subscriber in &subscribers {
                    subscriber.read_exact(&mut received).expect("it was sent");
                }
                elapsed
            });
        }
    }
    group.finish();
}

/// `Context::publish` alone, per message of a batch of 64.
fn collect(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish/collect");
    group.throughput(Throughput::Elements(64));
    let of_one = [1, 500].map(|count| (format!("{count}"), count, Plan::One));
    let among = [1000, 1_000_000]
        .map(|topics| (format!("1, among {topics} topics"), 1, Plan::Among(topics)));
    for (name, count, plan) in of_one.into_iter().chain(among) {
        let mut audience = Audience::new(count, plan);
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let batches = (0..times).map(|_| {
                    audience.publish(64);
                    audience.server.handler().collecting
                });
                batches.sum()
            });
        });
    }
    group.finish();
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("room/{number}")).collect()
}

/// Indices below `count` in an order that no cache foresees.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    // Fibonacci hashing: neighbouring numbers are far from each other.
    (0..LOOKUPS as u32).map(move |number| number.wrapping_mul(0x9E37_79B9) as usize % count)
}

fn table(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish/table");
    for count in [1, 1000, 1_000_000] {
        let mut topics = TopicTable::new(count + 1);
        let all = names(count);
        for (member, name) in (0..).zip(&all) {
            topics.subscribe(member, name).expect("there is room");
        }
        let looked_up: Vec<&str> = scattered(count).map(|index| all[index].as_str()).collect();
        let mut next = looked_up.iter().cycle();
        let mut next = || *next.next().expect("a cycle has no end");
        group.bench_function(BenchmarkId::new("look up", count), |b| {
            b.iter(|| {
                let topic = topics.id(next())?;
                Some(black_box(topics.subscribers(topic)).len())
            });
        });
        let member = count as u32;
        group.bench_function(BenchmarkId::new("join and leave", count), |b| {
            b.iter(|| {
                let name = next();
                topics.subscribe(member, name).expect("there is room");
                topics.unsubscribe(member, name)
            });
        });
        group.bench_function(BenchmarkId::new("make and end a topic", count), |b| {
            b.iter(|| {
                let name = black_box("another room");
                topics.subscribe(member, name).expect("there is room");
                topics.unsubscribe(member, name)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = turns, sends, collect, table
}
criterion_main!(benches);
