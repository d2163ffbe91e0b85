//! Clients that follow numbered streams, are cut at every awkward moment, and recover what they
//! missed: nothing is missing, nothing comes twice, all is in order.
//!
//! `STENTOR_MINUTES=5 cargo test --test main recovery` runs for minutes, `STENTOR_SEED=7` the
//! program of one seed.

use std::time::{Duration, Instant};

use stentor::protocol::http::{Request, Response};
use stentor::topic::{Query, Since};
use stentor::{
    Accept, Config, Context, Form, Handler, Message, Output, Publication, PublishOptions, Sent,
    SlowPolicy, TopicOptions,
};

use crate::support::{BINARY, CLOSE, PATIENCE, TEXT};
use crate::turns::{Peer, Random, Turns, seeds};

/// Of the last one little is kept.
const TOPICS: [&str; 4] = ["all:a", "all:b", "all.c", "few:d"];
const FEW: usize = 3;

/// What is kept of it.
const KEPT: u64 = 20;

/// Publications of which nothing is kept and any may be dropped, among the others.
const NOISE: &str = "noise.x";

const CLIENTS: usize = 6;

/// Publications that are recovered at once.
const MOST: usize = 500;

const HEADED: Form = Form::custom(1);

// ---- the application ----

#[derive(Default)]
struct App {
    streams: [Stream; TOPICS.len()],
    /// It is known what can be recovered, and what cannot.
    is_exact: bool,
    recovered: usize,
    refused: usize,
    /// How many publications were recovered.
    missed: usize,
    problems: Vec<String>,
}

/// What was published to a topic.
#[derive(Default)]
struct Stream {
    /// How many there were, in all epochs.
    count: u64,
    epoch: String,
    top: u64,
    /// The offset up to which nothing is kept.
    gone: u64,
}

type Ctx<'a> = Context<'a, ()>;

impl App {
    fn publish(&mut self, ctx: &mut Ctx<'_>, topic: usize, len: usize) {
        let stream = &mut self.streams[topic];
        let number = stream.count;
        let padding = "x".repeat(len);
        let payload = format!("{topic} {number} {padding}");
        let published = ctx.publish_with(TOPICS[topic], payload.as_bytes(), &PublishOptions::new());
        let position = published.unwrap().position.expect("it is kept");
        let is_next = position.offset == stream.top + 1 && stream.epoch == position.epoch.as_str();
        if self.is_exact && !is_next && stream.count > 0 {
            self.problems
                .push(format!("{topic}: {position:?} after {}", stream.top));
        }
        stream.count += 1;
        stream.top = position.offset;
        position.epoch.as_str().clone_into(&mut stream.epoch);
        if topic == FEW {
            stream.gone = stream.gone.max(stream.top.saturating_sub(KEPT));
        }
    }

    fn clear(&mut self, ctx: &mut Ctx<'_>, topic: usize) {
        ctx.clear_history(TOPICS[topic]);
        let stream = &mut self.streams[topic];
        stream.gone = stream.top;
    }

    /// Subscribes a client from now on.
    fn start(&mut self, ctx: &mut Ctx<'_>, what: &str, topic: usize) {
        let query = Query {
            since: None,
            limit: 0,
            reverse: false,
        };
        let position = ctx.history(TOPICS[topic], &query).unwrap().position;
        let (epoch, offset) = (position.epoch, position.offset);
        let count = self.streams[topic].count;
        ctx.send(&format!("{what} {topic} {epoch} {offset} {count}"));
        let _ = ctx.subscribe(TOPICS[topic]);
    }

    /// Sends a client what it missed, and subscribes it.
    fn resume(&mut self, ctx: &mut Ctx<'_>, topic: usize, since: &Since<'_>) {
        let recovery = ctx.recover(TOPICS[topic], since, MOST).unwrap();
        let stream = &self.streams[topic];
        let is_known = since.epoch == stream.epoch && since.offset >= stream.gone;
        let is_possible = is_known && stream.top - since.offset <= MOST as u64;
        if self.is_exact && stream.count > 0 && recovery.publications.is_some() != is_possible {
            let (top, gone) = (stream.top, stream.gone);
            let problem = format!("{topic}: {since:?} of {gone} to {top}: {is_possible}");
            self.problems.push(problem);
        }
        let Some(publications) = recovery.publications else {
            self.refused += 1;
            return self.start(ctx, "refused", topic);
        };
        self.recovered += 1;
        self.missed += publications.len();
        ctx.send(&format!("recovered {topic}"));
        for publication in &publications {
            if ctx.send_publication(TOPICS[topic], publication) == Sent::Dropped {
                return; // It is closed for being slow, and comes again.
            }
        }
        let _ = ctx.subscribe(TOPICS[topic]);
    }
}

impl Handler for App {
    type State = ();

    fn upgrade(&mut self, _: &mut Ctx<'_>, request: &Request<'_>) -> Result<Accept<()>, Response> {
        let form = match request.target() {
            b"/headed" => HEADED,
            _ => Form::PLAIN,
        };
        Ok(Accept::new(()).form(form))
    }

    fn message(&mut self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        let words: Vec<&str> = message.as_text().unwrap().split(' ').collect();
        match words[..] {
            [NOISE] => {
                let _ = ctx.subscribe(NOISE);
            }
            ["start", topic] => self.start(ctx, "started", topic.parse().unwrap()),
            ["resume", topic, epoch, offset] => {
                let offset = offset.parse().unwrap();
                self.resume(ctx, topic.parse().unwrap(), &Since { epoch, offset });
            }
            _ => panic!("{words:?}"),
        }
    }

    fn encode(_: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        let Publication {
            message, position, ..
        } = publication;
        let header = position.map(|position| format!("{} {} ", position.epoch, position.offset));
        let header = header.unwrap_or_default();
        output.message(message.kind(), &[header.as_bytes(), message.payload()]);
    }
}

// ---- the clients ----

/// One that comes again and again.
struct Client {
    peer: Option<Peer>,
    is_headed: bool,
    follows: Vec<Follow>,
    /// Its requests are out.
    has_asked: bool,
    /// How much it reads after a turn.
    appetite: usize,
    /// How many times it connected.
    connects: usize,
}

/// How far a client has come with a topic.
struct Follow {
    topic: usize,
    /// Epoch and offset of the last publication that it has seen.
    since: Option<(String, u64)>,
    /// The number of the next one.
    number: u64,
    /// The answer of this connection has come.
    is_live: bool,
}

impl Client {
    /// Each topic is followed by some client.
    fn new(index: usize, random: &mut Random) -> Self {
        let is_its = |topic: &usize| *topic == index % TOPICS.len() || random.once_in(2);
        let topics = (0..TOPICS.len()).filter(is_its);
        let follow = |topic| Follow {
            topic,
            since: None,
            number: 0,
            is_live: false,
        };
        let follows = topics.map(follow).collect();
        Self {
            peer: None,
            is_headed: random.once_in(2),
            follows,
            has_asked: false,
            appetite: usize::MAX,
            connects: 0,
        }
    }

    fn connect<H: Handler>(&mut self, turns: &Turns<H>, random: &mut Random) {
        let target = if self.is_headed { "/headed" } else { "/plain" };
        self.peer = Some(if random.once_in(2) {
            Peer::over_tcp(turns.tcp(), target)
        } else {
            Peer::over_unix(turns.unix(), target)
        });
        self.has_asked = false;
        self.appetite = random.pick(&[usize::MAX, usize::MAX, usize::MAX, 700, 50]);
        self.connects += 1;
        for follow in &mut self.follows {
            follow.is_live = false;
        }
    }

    /// Asks for all of its topics.
    fn ask(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        self.has_asked = true;
        peer.frame(TEXT, NOISE.as_bytes());
        for follow in &self.follows {
            let topic = follow.topic;
            let request = match &follow.since {
                Some((epoch, offset)) => format!("resume {topic} {epoch} {offset}"),
                None => format!("start {topic}"),
            };
            peer.frame(TEXT, request.as_bytes());
        }
    }

    /// Reads and checks; whoever was closed comes again later.
    fn read(&mut self) -> Result<(), String> {
        let Some(mut peer) = self.peer.take() else {
            return Ok(());
        };
        peer.receive(self.appetite);
        while let Some((first, payload)) = peer.next() {
            match first {
                TEXT => self.take_answer(str::from_utf8(&payload).unwrap())?,
                BINARY => self.take_publication(&payload)?,
                CLOSE => peer.frame(CLOSE, &payload),
                _ => {}
            }
        }
        if !peer.is_over {
            self.peer = Some(peer);
        }
        if !self.has_asked && self.peer.as_ref().is_some_and(|peer| peer.has_head) {
            self.ask();
        }
        Ok(())
    }

    fn follow(&mut self, topic: &str) -> &mut Follow {
        let topic: usize = topic.parse().unwrap();
        let mut follows = self.follows.iter_mut();
        follows
            .find(|follow| follow.topic == topic)
            .expect("a topic that it follows")
    }

    fn take_answer(&mut self, answer: &str) -> Result<(), String> {
        let words: Vec<&str> = answer.split(' ').collect();
        let follow = self.follow(words[1]);
        if std::mem::replace(&mut follow.is_live, true) {
            return Err(format!("a second answer: {answer}"));
        }
        if let [_, _, epoch, offset, count] = words[..] {
            follow.since = Some((epoch.to_owned(), offset.parse().unwrap()));
            follow.number = count.parse().unwrap();
        }
        Ok(())
    }

    fn take_publication(&mut self, payload: &[u8]) -> Result<(), String> {
        let text = str::from_utf8(payload).unwrap();
        if text == NOISE {
            return Ok(());
        }
        let words: Vec<&str> = text.split(' ').collect();
        let (header, words) = words.split_at(if self.is_headed { 2 } else { 0 });
        let follow = self.follow(words[0]);
        let number: u64 = words[1].parse().unwrap();
        if !follow.is_live || number != follow.number {
            let Follow {
                number: next,
                is_live,
                ..
            } = follow;
            let topic = follow.topic;
            return Err(format!(
                "topic {topic}: {number} instead of {next}, live {is_live}"
            ));
        }
        follow.number += 1;
        let (epoch, offset) = follow.since.as_mut().expect("an answer has come");
        *offset += 1;
        if let [header_epoch, header_offset] = *header {
            let header_offset: u64 = header_offset.parse().unwrap();
            if header_epoch != epoch && header_offset == 1 {
                // The stream was evicted, and has begun again.
                (*epoch, *offset) = (header_epoch.to_owned(), 1);
            }
            if (header_epoch, header_offset) != (epoch, *offset) {
                return Err(format!("{header:?} instead of {epoch} {offset}"));
            }
        }
        Ok(())
    }

    /// Something that happens to clients.
    fn suffer<H: Handler>(&mut self, turns: &Turns<H>, random: &mut Random) {
        let Some(mut peer) = self.peer.take() else {
            return self.connect(turns, random);
        };
        match random.below(12) {
            // The last bytes that came, perhaps half a frame, are lost.
            0..4 => peer.reset(),
            4 => {
                peer.reset();
                self.connect(turns, random);
            }
            5 => {
                // In the middle of a frame, of which the rest never comes.
                peer.send(&[0x81, 0xFE, 0x10]);
                peer.reset();
            }
            6 => {
                peer.finish_sending();
                self.peer = Some(peer);
            }
            7 if peer.has_head => {
                peer.frame(CLOSE, &1000_u16.to_be_bytes());
                self.peer = Some(peer);
            }
            8 => {
                self.appetite = 0;
                self.peer = Some(peer);
            }
            9 if peer.has_head => {
                // Right behind its requests, of which the answers never come.
                self.peer = Some(peer);
                if !self.has_asked {
                    self.ask();
                }
                if let Some(peer) = self.peer.take() {
                    peer.reset();
                }
            }
            _ => {
                self.appetite = usize::MAX;
                self.peer = Some(peer);
            }
        }
    }

    /// Whether it has seen everything.
    fn is_up_to_date(&self, counts: &[u64]) -> bool {
        let mut follows = self.follows.iter();
        follows.all(|follow| follow.is_live && follow.number == counts[follow.topic])
    }
}

// ---- programs ----

#[derive(Clone, Copy, PartialEq)]
enum Variant {
    /// Only what a topic keeps decides what is recovered.
    Exact,
    /// Histories are cleared.
    Cleared,
    /// Histories are cleared, and streams forgotten for want of memory.
    Evicted,
}

struct Stage {
    turns: Turns<App>,
    clients: Vec<Client>,
    random: Random,
    variant: Variant,
}

/// What has happened in a program.
#[derive(Default, Debug)]
struct Summary {
    connects: usize,
    recovered: usize,
    refused: usize,
    missed: usize,
    epochs: usize,
}

impl Stage {
    fn new(seed: u64, variant: Variant) -> Self {
        let mut random = Random(seed);
        let is_exact = variant != Variant::Evicted;
        let app = App {
            is_exact,
            ..App::default()
        };
        let turns = Turns::new(app, |config| {
            configure(config, &mut random);
            if variant == Variant::Evicted {
                config.limits.max_history = 256 << 10;
            }
        });
        let clients = (0..CLIENTS)
            .map(|index| Client::new(index, &mut random))
            .collect();
        Self {
            turns,
            clients,
            random,
            variant,
        }
    }

    fn turn(&mut self, wait: Duration) -> Result<(), String> {
        self.turns.turn(wait);
        for client in &mut self.clients {
            client.read()?;
        }
        match &self.turns.app().problems[..] {
            [] => Ok(()),
            problems => Err(problems.join("; ")),
        }
    }

    fn publish(&mut self) {
        let random = &mut self.random;
        let mut lens = Vec::new();
        for _ in 0..random.below(12) {
            let longest = random.pick(&[1, 100, 2000, 9000]);
            lens.push((random.below(TOPICS.len()), random.below(longest)));
        }
        let is_noisy = random.once_in(3);
        let is_cleared = self.variant != Variant::Exact && random.once_in(30);
        // Streams that together take more than those without a publication may.
        let crowd_len = if self.variant == Variant::Evicted && random.once_in(2) {
            600
        } else {
            0
        };
        let cleared = random.below(TOPICS.len());
        let crowd = random.next();
        self.turns.say(move |app: &mut App, ctx| {
            for (topic, len) in lens {
                app.publish(ctx, topic, len);
                if is_noisy {
                    ctx.publish(NOISE, NOISE.as_bytes());
                }
            }
            if is_cleared {
                app.clear(ctx, cleared);
                let query = Query {
                    since: None,
                    limit: 0,
                    reverse: false,
                };
                for other in 0..crowd_len {
                    ctx.history(&format!("all:{crowd}-{other}"), &query)
                        .unwrap();
                }
            }
        });
    }

    fn run(&mut self, rounds: usize) -> Result<Summary, String> {
        let mut epochs = std::collections::BTreeSet::new();
        for _ in 0..rounds {
            self.publish();
            while self.random.once_in(2) {
                let index = self.random.below(CLIENTS);
                self.clients[index].suffer(&self.turns, &mut self.random);
            }
            for _ in 0..self.random.below(3) {
                self.turn(Duration::ZERO)?;
            }
            let streams = &self.turns.app().streams;
            let known = streams.iter().filter(|stream| stream.count > 0);
            epochs.extend(known.map(|stream| stream.epoch.clone()));
        }
        self.finish()?;
        let app = self.turns.app();
        Ok(Summary {
            connects: self.clients.iter().map(|client| client.connects).sum(),
            recovered: app.recovered,
            refused: app.refused,
            missed: app.missed,
            epochs: epochs.len(),
        })
    }

    /// Nobody is cut any more: everyone comes to the end of all streams.
    fn finish(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let streams = &self.turns.app().streams;
            let counts: Vec<u64> = streams.iter().map(|stream| stream.count).collect();
            let mut clients = self.clients.iter();
            if clients.all(|client| client.is_up_to_date(&counts)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("not everyone has come to the end".into());
            }
            for client in &mut self.clients {
                if client.peer.is_none() {
                    client.connect(&self.turns, &mut self.random);
                }
                client.appetite = usize::MAX;
            }
            self.turn(Duration::from_millis(1))?;
        }
    }
}

fn configure(config: &mut Config, random: &mut Random) {
    config.limits.walk_sends = random.pick(&[1, 2, 3, 512]);
    // All that is kept of a topic may wait for one connection: none is refused for its size.
    config.limits.outbox_hard = random.pick(&[1 << 20, 4 << 20]);
    config.limits.outbox_soft = config.limits.outbox_hard / 4;
    let all = TopicOptions {
        history_size: 1_000_000,
        history_ttl: Duration::from_hours(1),
        ..TopicOptions::default()
    };
    let few = TopicOptions {
        history_size: KEPT as usize,
        ..all.clone()
    };
    let noise = TopicOptions {
        slow: SlowPolicy::DropOldest,
        ..TopicOptions::default()
    };
    config.topics.insert("all", all.clone()).unwrap();
    config.topics.insert("all.*", all).unwrap();
    config.topics.insert("few", few).unwrap();
    config.topics.insert("noise.>", noise).unwrap();
}

fn check(variant: Variant) -> Summary {
    const ROUNDS: usize = 700;
    let mut all = Summary::default();
    for seed in seeds(2) {
        let done = Stage::new(seed, variant).run(ROUNDS);
        let summary = done.unwrap_or_else(|problem| panic!("STENTOR_SEED={seed}: {problem}"));
        all.connects += summary.connects;
        all.recovered += summary.recovered;
        all.refused += summary.refused;
        all.missed += summary.missed;
        all.epochs = all.epochs.max(summary.epochs);
    }
    println!("{all:?}");
    assert!(
        all.connects > 100 && all.recovered > 50 && all.missed > 300,
        "{all:?}"
    );
    all
}

#[test]
fn nothing_is_missing_and_nothing_comes_twice_however_clients_are_cut() {
    let summary = check(Variant::Exact);
    assert!(summary.refused > 0, "of one topic too little is kept");
}

#[test]
fn who_was_away_when_a_history_was_cleared_starts_from_the_present() {
    let summary = check(Variant::Cleared);
    assert!(summary.refused > 0);
}

#[test]
fn a_stream_that_was_evicted_brings_nobody_a_wrong_sequence() {
    let summary = check(Variant::Evicted);
    assert!(
        summary.refused > 0 && summary.epochs > TOPICS.len(),
        "{summary:?}"
    );
}
