//! Random programs against a real server, and a model of plain lists that is told of each step in
//! the callback that takes it.
//!
//! `STENTOR_MINUTES=5 cargo test --test main model` runs for minutes, `STENTOR_SEED=7` the program
//! of one seed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use stentor::protocol::http::{Request, Response};
use stentor::topic::Query;
use stentor::{
    Accept, CloseCode, Closed, Config, ConnectionId, Context, Form, Gauges, Handler, Lost, Message,
    MessageKind, Output, PresenceEvent, Publication, PublishOptions, Sent, SlowPolicy,
    SubscribeError, TopicOptions,
};

use crate::support::{BINARY, CLOSE, PATIENCE, PING, PONG, TEXT};
use crate::turns::{Peer, Random, Turns, frame_len, seeds};

const SLOTS: usize = 6;

const TOPICS: [&str; 10] = [
    "plain.a", "plain.b", "deep.a.x", "deep.b.x", "hist:a", "hist.b", "newest.a", "oldest.a",
    "latest.a", "latest.b",
];

/// From here on in `TOPICS`, messages may be dropped where a client is slow.
const DROPPABLE: usize = 6;

/// In `TOPICS`: those with a history, and with a presence; and those of which the latest counts.
const KEPT: std::ops::Range<usize> = 4..6;
const LATEST: std::ops::Range<usize> = 8..10;

const PATTERNS: [&str; 6] = ["plain.*", "deep.>", "deep.*.x", "*.a", "latest.>", "hist.*"];

/// Publications that a history keeps.
const HISTORY: usize = 8;

/// A message that may be dropped is so long that no other is equal to it.
const UNIQUE: usize = 13;

const LONGEST: usize = 100 << 10;

const HEADED: Form = Form::custom(1);

// ---- programs ----

#[derive(Clone, Debug)]
struct Program {
    walk_sends: usize,
    outbox_hard: usize,
    max_queued: usize,
    ops: Vec<Op>,
}

#[derive(Clone, Debug)]
enum Op {
    Connect {
        slot: usize,
        is_unix: bool,
        is_headed: bool,
        opening: Vec<Step>,
        closing: Vec<Step>,
    },
    /// A closure on the loop.
    Loop(Vec<Step>),
    /// A message of a client, in whose callback the steps are taken.
    Say(usize, Vec<Step>),
    Ping(usize),
    /// The client reads not more than so many bytes after a turn.
    Stall(usize, usize),
    Resume(usize),
    Close(usize),
    HalfClose(usize),
    Abort(usize),
    /// So many turns of the loop, after each of which clients read.
    Turns(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, &'static str),
    Unsubscribe(usize, &'static str),
    Publish {
        topic: usize,
        len: usize,
        to_others: bool,
        is_kept: bool,
    },
    Send(usize, usize),
    /// Sends what the history of a topic has kept.
    Replay(usize),
    Close(usize),
}

impl Program {
    fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 20 + random.below(100);
        let mut ops: Vec<Op> = (0..3).map(|slot| connect(slot, &mut random)).collect();
        ops.push(Op::Turns(3));
        for _ in 0..count {
            ops.push(op(&mut random));
            if random.once_in(2) {
                ops.push(Op::Turns(1 + random.below(3)));
            }
        }
        Self {
            walk_sends: random.pick(&[1, 2, 7, 512]),
            outbox_hard: random.pick(&[64 << 10, 300 << 10, 1 << 20]),
            max_queued: random.pick(&[2 << 10, 64 << 10, 400 << 10]),
            ops,
        }
    }
}

fn connect(slot: usize, random: &mut Random) -> Op {
    Op::Connect {
        slot,
        is_unix: !random.once_in(3),
        is_headed: random.once_in(3),
        opening: (0..random.below(5)).map(|_| subscribe(random)).collect(),
        closing: (0..random.below(2)).map(|_| publish(random)).collect(),
    }
}

fn op(random: &mut Random) -> Op {
    let slot = random.below(SLOTS);
    match random.below(40) {
        0..4 => connect(slot, random),
        4..16 => Op::Loop(steps(random)),
        16..28 => Op::Say(slot, steps(random)),
        28..30 => Op::Ping(slot),
        30..33 => Op::Stall(slot, random.pick(&[0, 0, 1, 3000])),
        33..36 => Op::Resume(slot),
        36 => Op::Close(slot),
        37 => Op::HalfClose(slot),
        38 => Op::Abort(slot),
        _ => {
            // More than a batch takes in one turn, and perhaps more than an outbox.
            let many = (0..11 + random.below(12)).map(|_| publish_of(random, LONGEST));
            Op::Loop(many.collect())
        }
    }
}

fn steps(random: &mut Random) -> Vec<Step> {
    (0..=random.below(6)).map(|_| step(random)).collect()
}

fn step(random: &mut Random) -> Step {
    let slot = random.below(SLOTS);
    match random.below(20) {
        0..4 => subscribe(random),
        4..6 => Step::Unsubscribe(slot, name(random)),
        6..15 => publish(random),
        15..18 => Step::Send(slot, len(random)),
        18 => Step::Replay(KEPT.start + random.below(KEPT.len())),
        _ if random.once_in(4) => Step::Close(slot),
        _ => publish(random),
    }
}

fn name(random: &mut Random) -> &'static str {
    match random.below(3) {
        0 => random.pick(&PATTERNS),
        _ => random.pick(&TOPICS),
    }
}

fn subscribe(random: &mut Random) -> Step {
    Step::Subscribe(random.below(SLOTS), name(random))
}

fn publish(random: &mut Random) -> Step {
    let len = len(random);
    publish_of(random, len)
}

fn publish_of(random: &mut Random, len: usize) -> Step {
    let topic = random.below(TOPICS.len());
    let shortest = if topic < DROPPABLE { 1 } else { UNIQUE };
    Step::Publish {
        topic,
        len: len.max(shortest),
        to_others: random.once_in(3),
        is_kept: !random.once_in(5),
    }
}

fn len(random: &mut Random) -> usize {
    let longest = random.pick(&[1, 30, 130, 1000, 5000, 70_000, LONGEST]);
    1 + random.below(longest)
}

// ---- the model ----

/// A message that a connection has to get.
#[derive(Clone, Copy, Debug)]
struct Item {
    serial: u64,
    len: usize,
    /// Of what was published: the topic, and the offset in its history.
    topic: Option<(usize, Option<u64>)>,
}

impl Item {
    fn kind(&self) -> MessageKind {
        match self.serial % 2 {
            0 => MessageKind::Text,
            _ => MessageKind::Binary,
        }
    }

    fn payload(&self) -> Vec<u8> {
        static LETTERS: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let mut random = Random(0);
            let letter = |_| b'a' + random.below(26) as u8;
            (0..LONGEST + 256).map(letter).collect()
        });
        let number = format!("{:012}|", self.serial);
        let start = number.len().saturating_sub(self.len);
        let mut payload = number.as_bytes()[start..].to_vec();
        let rest = self.len - payload.len();
        payload.extend_from_slice(&LETTERS[(self.serial % 199) as usize..][..rest]);
        payload
    }

    fn message<'p>(&self, payload: &'p [u8]) -> Message<'p> {
        match self.kind() {
            MessageKind::Text => Message::text(str::from_utf8(payload).unwrap()),
            MessageKind::Binary => Message::binary(payload),
        }
    }

    /// What a connection gets of it on the wire.
    fn frame(&self, is_headed: bool) -> (u8, Vec<u8>) {
        let first = match self.kind() {
            MessageKind::Text => TEXT,
            MessageKind::Binary => BINARY,
        };
        let mut payload = self.payload();
        if let (true, Some((topic, offset))) = (is_headed, self.topic) {
            payload = [header(TOPICS[topic], offset).as_bytes(), &payload].concat();
        }
        (first, payload)
    }

    fn is_droppable(&self) -> bool {
        self.topic.is_some_and(|(topic, _)| topic >= DROPPABLE)
    }
}

fn header(topic: &str, offset: Option<u64>) -> String {
    format!("{topic} {offset:?} ")
}

/// What is known of one connection.
#[derive(Debug, Default)]
struct Record {
    id: Option<ConnectionId>,
    slot: usize,
    is_headed: bool,
    is_open: bool,
    subscriptions: BTreeSet<&'static str>,
    expected: Vec<Item>,
    /// How long all of it is on the wire.
    expected_len: usize,
    /// The code with which the server closed it.
    closed_with: Option<u16>,
    /// How many messages were expected when the last one was sent.
    last: usize,
    /// How many times the application was told that it has ended.
    ended: usize,
    lost: Lost,
    opening: Vec<Step>,
    closing: Vec<Step>,
}

#[derive(Debug, Default)]
struct Model {
    records: Vec<Record>,
    /// The open connection of each slot.
    slots: [Option<usize>; SLOTS],
    scripts: Vec<Vec<Step>>,
    serial: u64,
    /// What it was when everyone had been sent a last message.
    mark: u64,
    kept: HashMap<usize, VecDeque<Item>>,
    offsets: HashMap<usize, u64>,
    /// Who was told to have joined a topic and not to have left it.
    present: BTreeSet<(Box<str>, ConnectionId)>,
    problems: Vec<String>,
}

type Ctx<'a> = Context<'a, usize>;

/// Levels are compared one by one.
fn matches(pattern: &str, topic: &str) -> bool {
    let (patterns, levels): (Vec<_>, Vec<_>) =
        (pattern.split('.').collect(), topic.split('.').collect());
    let is_tail = patterns.last() == Some(&">");
    let named = patterns.len() - usize::from(is_tail);
    let is_long = if is_tail {
        levels.len() > named
    } else {
        levels.len() == named
    };
    let mut pairs = patterns[..named].iter().zip(&levels);
    is_long && pairs.all(|(pattern, level)| *pattern == "*" || pattern == level)
}

impl Model {
    fn item(&mut self, len: usize, topic: Option<(usize, Option<u64>)>) -> Item {
        self.serial += 1;
        Item {
            serial: self.serial,
            len,
            topic,
        }
    }

    fn is_strict(&self, ctx: &Ctx<'_>) -> bool {
        let open = self.records.iter().filter(|record| record.is_open).count();
        ctx.gauges().open == open
    }

    fn expect(&mut self, what: &str, is_so: bool) {
        if !is_so {
            self.problems.push(format!("not so: {what}"));
        }
    }

    /// The server says that a connection is over that the model takes for open: it is so if it was
    /// closed for being slow, or has gone without a word.
    fn bury(&mut self, record: usize, ctx: &Ctx<'_>) {
        let is_strict = self.is_strict(ctx);
        self.expect(
            "a connection that is over is not counted as open",
            !is_strict,
        );
        self.records[record].is_open = false;
        self.records[record].subscriptions.clear();
    }

    fn take(&mut self, ctx: &mut Ctx<'_>, actor: Option<usize>, steps: &[Step]) {
        for step in steps {
            let problems = self.problems.len();
            self.step(ctx, actor, step);
            if self.problems.len() > problems {
                self.problems.push(format!("at {step:?} of {actor:?}"));
            }
        }
    }

    fn step(&mut self, ctx: &mut Ctx<'_>, actor: Option<usize>, step: &Step) {
        let find = |slot: usize| {
            let record = self.slots[slot]?;
            Some((record, self.records[record].id?))
        };
        match *step {
            Step::Subscribe(slot, name) => {
                if let Some((record, id)) = find(slot) {
                    self.subscribe(ctx, record, id, name);
                }
            }
            Step::Unsubscribe(slot, name) => {
                if let Some((record, id)) = find(slot) {
                    let was = self.records[record].subscriptions.remove(name);
                    let answer = ctx.unsubscribe_connection(id, name);
                    // It may be this that closes a connection for being slow.
                    let is_strict = self.is_strict(ctx);
                    self.expect("it was subscribed", answer == was || !is_strict);
                }
            }
            Step::Publish {
                topic,
                len,
                to_others,
                is_kept,
            } => {
                self.publish(ctx, actor, (topic, len), to_others, is_kept);
            }
            Step::Send(slot, len) => {
                if let Some((record, id)) = find(slot) {
                    self.send(ctx, record, id, len);
                }
            }
            Step::Replay(topic) => self.replay(ctx, actor, topic),
            Step::Close(slot) => {
                if let Some((record, id)) = find(slot) {
                    self.close(ctx, record, id);
                }
            }
        }
    }

    fn subscribe(
        &mut self,
        ctx: &mut Ctx<'_>,
        record: usize,
        id: ConnectionId,
        name: &'static str,
    ) {
        let is_open = self.records[record].is_open;
        match ctx.subscribe_connection(id, name) {
            Ok(is_new) => {
                self.expect("only an open connection subscribes", is_open);
                let was_new = self.records[record].subscriptions.insert(name);
                self.expect("the subscription is new", is_new == was_new);
            }
            Err(SubscribeError::NotOpen) if is_open => self.bury(record, ctx),
            answer => self.expect("it can subscribe", answer == Err(SubscribeError::NotOpen)),
        }
    }

    fn publish(
        &mut self,
        ctx: &mut Ctx<'_>,
        actor: Option<usize>,
        (topic, len): (usize, usize),
        to_others: bool,
        is_kept: bool,
    ) {
        let name = TOPICS[topic];
        let is_kept = is_kept && KEPT.contains(&topic);
        let offset = is_kept.then(|| self.offsets.get(&topic).copied().unwrap_or(0) + 1);
        let item = self.item(len, Some((topic, offset)));
        let except = actor.filter(|_| to_others);
        let mut count = 0;
        let is_strict = self.is_strict(ctx);
        for (index, record) in self.records.iter_mut().enumerate() {
            let names = record.subscriptions.iter();
            let own = names.filter(|pattern| matches(pattern, name)).count();
            if own > 0 && Some(index) != except {
                count += own;
                record.push(item);
            }
        }
        let mut options = PublishOptions::new();
        if to_others {
            options = options.to_others();
        }
        if !is_kept {
            options = options.no_history();
        }
        let published = ctx.publish_with(name, item.message(&item.payload()), &options);
        let published = published.unwrap();
        let is_right = published.subscribers == count || !is_strict;
        self.expect("the publication goes to all subscriptions", is_right);
        let position = published.position.map(|position| position.offset);
        self.expect("the offset is the next one", position == offset);
        if let Some(offset) = offset {
            self.offsets.insert(topic, offset);
            let kept = self.kept.entry(topic).or_default();
            kept.push_back(item);
            if kept.len() > HISTORY {
                kept.pop_front();
            }
        }
    }

    fn send(&mut self, ctx: &mut Ctx<'_>, record: usize, id: ConnectionId, len: usize) {
        let item = self.item(len, None);
        let answer = ctx.send_to(id, item.message(&item.payload()));
        self.sent(ctx, record, item, answer);
    }

    fn sent(&mut self, ctx: &Ctx<'_>, record: usize, item: Item, answer: Sent) {
        match (answer, self.records[record].is_open) {
            (Sent::Dropped, true) => self.bury(record, ctx),
            (Sent::Dropped, false) => {}
            (_, is_open) => {
                self.expect("only an open connection is sent to", is_open);
                self.records[record].push(item);
            }
        }
    }

    fn replay(&mut self, ctx: &mut Ctx<'_>, actor: Option<usize>, topic: usize) {
        let name = TOPICS[topic];
        let query = Query {
            since: None,
            limit: usize::MAX,
            reverse: false,
        };
        let history = ctx.history(name, &query).unwrap();
        let kept = self.kept.get(&topic).cloned().unwrap_or_default();
        let top = self.offsets.get(&topic).copied().unwrap_or(0);
        self.expect("the position is the top", history.position.offset == top);
        self.expect("all is kept", history.publications.len() == kept.len());
        for (publication, item) in history.publications.iter().zip(kept) {
            let view = publication.view(name);
            let is_same = view.message.payload() == item.payload();
            self.expect(
                "it is kept as it was",
                is_same && view.message.kind() == item.kind(),
            );
            if let Some(record) = actor {
                let answer = ctx.send_publication(name, publication);
                self.sent(ctx, record, item, answer);
            }
        }
    }

    fn close(&mut self, ctx: &mut Ctx<'_>, record: usize, id: ConnectionId) {
        let code = 4000 + record as u16;
        let answer = ctx.close_connection(id, CloseCode::new(code), "");
        match (answer, self.records[record].is_open) {
            (Ok(()), is_open) => {
                self.expect("only an open connection is closed", is_open);
                self.end(record);
                self.records[record].closed_with = Some(code);
            }
            (Err(_), true) => self.bury(record, ctx),
            (Err(_), false) => {}
        }
    }

    fn end(&mut self, record: usize) {
        self.records[record].is_open = false;
        self.records[record].subscriptions.clear();
    }
}

impl Record {
    fn push(&mut self, item: Item) {
        let header = match item.topic {
            Some((topic, offset)) if self.is_headed => header(TOPICS[topic], offset).len(),
            _ => 0,
        };
        self.expected_len += frame_len(header + item.len);
        self.expected.push(item);
    }
}

// ---- the application ----

struct App(Arc<Mutex<Model>>);

impl App {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap()
    }
}

impl Handler for App {
    /// The number of the record.
    type State = usize;

    fn upgrade(
        &mut self,
        _: &mut Ctx<'_>,
        request: &Request<'_>,
    ) -> Result<Accept<usize>, Response> {
        let target = str::from_utf8(request.target()).unwrap();
        let record: usize = target[1..].parse().unwrap();
        let form = if self.model().records[record].is_headed {
            HEADED
        } else {
            Form::PLAIN
        };
        Ok(Accept::new(record).form(form))
    }

    fn open(&mut self, ctx: &mut Ctx<'_>) {
        let index = *ctx.state();
        let mut model = self.model();
        let record = &mut model.records[index];
        record.id = Some(ctx.id());
        record.is_open = true;
        let (slot, opening) = (record.slot, std::mem::take(&mut record.opening));
        model.slots[slot] = Some(index);
        model.take(ctx, Some(index), &opening);
    }

    fn message(&mut self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        let script: usize = message.as_text().unwrap().parse().unwrap();
        let record = *ctx.state();
        let mut model = self.model();
        let steps = model.scripts[script].clone();
        model.take(ctx, Some(record), &steps);
    }

    fn lost(&mut self, ctx: &mut Ctx<'_>, lost: Lost) {
        let record = *ctx.state();
        let mut model = self.model();
        model.expect("something was lost", lost.total() > 0);
        model.records[record].lost += lost;
    }

    fn presence(&mut self, _: &mut Ctx<'_>, event: &PresenceEvent) {
        let mut model = self.model();
        let entry = (event.topic.clone(), event.id);
        let is_news = if event.has_joined {
            model.present.insert(entry)
        } else {
            model.present.remove(&entry)
        };
        model.expect("who joins was absent and who leaves was present", is_news);
    }

    fn encode(_: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        let Publication {
            topic,
            message,
            position,
            ..
        } = publication;
        let header = header(topic, position.map(|position| position.offset));
        output.message(message.kind(), &[header.as_bytes(), message.payload()]);
    }

    fn close(&mut self, ctx: &mut Ctx<'_>, closed: Closed<'_>) {
        let index = *ctx.state();
        let mut model = self.model();
        model.end(index);
        let record = &mut model.records[index];
        record.ended += 1;
        let is_once = record.ended == 1;
        let has_code = record
            .closed_with
            .is_none_or(|code| closed.code.get() == code);
        let (slot, closing) = (record.slot, std::mem::take(&mut record.closing));
        model.expect("a connection ends once", is_once);
        model.expect("it ends with the code with which it was closed", has_code);
        if model.slots[slot] == Some(index) {
            model.slots[slot] = None;
        }
        model.take(ctx, Some(index), &closing);
    }
}

// ---- the clients ----

struct Client {
    peer: Peer,
    record: usize,
    slot: usize,
    /// How much it reads after a turn.
    appetite: usize,
    /// The first of the expected messages that did not come yet.
    next: usize,
    /// Those before it that did not come.
    missing: Vec<usize>,
    pings: usize,
    pongs: usize,
    /// Its own Close frame is out.
    has_closed: bool,
    /// It sent FIN when so many messages were expected.
    finished: Option<usize>,
    /// The code of the server's Close frame.
    code: Option<u16>,
    /// The most that waited for it.
    peak: usize,
}

impl Client {
    fn new(peer: Peer, record: usize, slot: usize) -> Self {
        Self {
            peer,
            record,
            slot,
            appetite: usize::MAX,
            next: 0,
            missing: Vec::new(),
            pings: 0,
            pongs: 0,
            has_closed: false,
            finished: None,
            code: None,
            peak: 0,
        }
    }

    /// Reads, and compares what came with what was expected.
    fn read(&mut self, model: &Model, patience: usize) -> Result<(), String> {
        let record = &model.records[self.record];
        self.peak = self
            .peak
            .max(record.expected_len.saturating_sub(self.peer.read));
        self.peer.receive(self.appetite);
        while let Some((first, payload)) = self.peer.next() {
            if self.code.is_some() {
                let shown = shown(&payload);
                return Err(format!("a frame {first:x} behind Close: {shown}"));
            }
            match first {
                TEXT | BINARY => self.compare(record, first, &payload)?,
                PONG => self.take_pong(&payload)?,
                CLOSE => self.take_close(record, &payload, patience)?,
                _ => return Err(format!("a frame {first:x}")),
            }
        }
        if self.peer.is_over && self.code.is_none() {
            let Some(finished) = self.finished else {
                return Err("the end of the stream without Close".into());
            };
            self.has_all(record, finished)?;
        }
        Ok(())
    }

    fn compare(&mut self, record: &Record, first: u8, payload: &[u8]) -> Result<(), String> {
        while let Some(item) = record.expected.get(self.next) {
            self.next += 1;
            if item.frame(record.is_headed) == (first, payload.to_vec()) {
                return Ok(());
            }
            if !item.is_droppable() {
                return Err(format!("not {item:?} but {}", shown(payload)));
            }
            self.missing.push(self.next - 1);
        }
        Err(format!("nothing, but {}", shown(payload)))
    }

    /// Pongs may be left out where a later Ping is answered.
    fn take_pong(&mut self, payload: &[u8]) -> Result<(), String> {
        let number: usize = str::from_utf8(payload).unwrap().parse().unwrap();
        let is_next = (self.pongs + 1..=self.pings).contains(&number);
        self.pongs = number;
        is_next
            .then_some(())
            .ok_or_else(|| format!("the wrong Pong {number}"))
    }

    fn take_close(
        &mut self,
        record: &Record,
        payload: &[u8],
        patience: usize,
    ) -> Result<(), String> {
        let code = payload
            .first_chunk()
            .map_or(1005, |code| u16::from_be_bytes(*code));
        self.code = Some(code);
        if !self.has_closed {
            self.peer.frame(CLOSE, payload);
        }
        let is_answer = self.has_closed && code == 1000;
        if code == CloseCode::TRY_AGAIN_LATER.get() {
            return match self.peak {
                peak if peak > patience => Ok(()),
                peak => Err(format!("closed for being slow at {peak} bytes")),
            };
        }
        if record.closed_with != Some(code) && !is_answer {
            return Err(format!("closed with {code}, not {:?}", record.closed_with));
        }
        match self.peak {
            // The rest was too much to be queued in front of the answer.
            peak if is_answer && peak > patience => Ok(()),
            _ => self.has_all(record, record.expected.len()),
        }
    }

    /// Whether all that is expected has come up to here, but what may be dropped.
    fn has_all(&mut self, record: &Record, end: usize) -> Result<(), String> {
        for index in self.next..end {
            if !record.expected[index].is_droppable() {
                return Err(format!(
                    "{:?} is missing at the end",
                    record.expected[index]
                ));
            }
            self.missing.push(index);
        }
        self.next = self.next.max(end);
        Ok(())
    }

    /// Whether nothing is under way to it.
    fn is_served(&self, record: &Record) -> bool {
        let has_pongs = self.pongs == self.pings;
        self.peer.is_over || self.next >= record.last && has_pongs && record.is_open
    }

    /// What the server has told of losses is what is missing.
    fn check_losses(&self, record: &Record) -> Result<(), String> {
        if record.lost.total() != self.missing.len() as u64 {
            let missing = &self.missing;
            return Err(format!(
                "{missing:?} are missing, told was {:?}",
                record.lost
            ));
        }
        let topic_of = |index: usize| record.expected[index].topic.map(|(topic, _)| topic);
        for topic in LATEST {
            let last = (0..record.expected.len()).rfind(|&index| topic_of(index) == Some(topic));
            let is_missing = last.is_some_and(|last| self.missing.contains(&last));
            if is_missing && record.lost.newest == 0 {
                return Err(format!("the latest of {} is missing", TOPICS[topic]));
            }
        }
        Ok(())
    }
}

fn shown(payload: &[u8]) -> String {
    let start = payload[..payload.len().min(40)].escape_ascii();
    format!("{start} ({} bytes)", payload.len())
}

// ---- running a program ----

struct Stage {
    turns: Turns<App>,
    model: Arc<Mutex<Model>>,
    clients: Vec<Client>,
    /// Bytes that may wait for a client before it is closed.
    patience: usize,
}

impl Stage {
    fn new(program: &Program) -> Self {
        let model = Arc::default();
        let turns = Turns::new(App(Arc::clone(&model)), |config| {
            configure(config, program);
        });
        let patience = program.outbox_hard.min(program.max_queued);
        Self {
            turns,
            model,
            clients: Vec::new(),
            patience,
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    /// The latest client of a slot.
    fn client(&mut self, slot: usize) -> Option<&mut Client> {
        self.clients.iter_mut().rfind(|client| client.slot == slot)
    }

    fn carry_out(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Connect { .. } => self.connect(op),
            Op::Loop(steps) => {
                let steps = steps.clone();
                let act = move |app: &mut App, ctx: &mut Ctx<'_>| {
                    app.model().take(ctx, None, &steps);
                };
                self.turns.say(act);
            }
            Op::Turns(count) => {
                for _ in 0..*count {
                    self.turn(Duration::ZERO)?;
                }
            }
            Op::Abort(slot) => {
                let latest = self.clients.iter().rposition(|client| client.slot == *slot);
                if let Some(index) = latest {
                    self.clients.remove(index).peer.reset();
                }
            }
            Op::Say(slot, steps) => {
                let script = {
                    let mut model = self.model();
                    model.scripts.push(steps.clone());
                    model.scripts.len() - 1
                };
                self.act(*slot, |client, _| {
                    client.peer.frame(TEXT, script.to_string().as_bytes());
                });
            }
            Op::Ping(slot) => self.act(*slot, |client, _| {
                client.pings += 1;
                client.peer.frame(PING, client.pings.to_string().as_bytes());
            }),
            Op::Stall(slot, appetite) => {
                self.act(*slot, |client, _| client.appetite = *appetite);
            }
            Op::Resume(slot) => self.act(*slot, |client, _| client.appetite = usize::MAX),
            Op::Close(slot) => self.act(*slot, |client, _| {
                client.has_closed = true;
                client.peer.frame(CLOSE, &1000_u16.to_be_bytes());
            }),
            Op::HalfClose(slot) => self.act(*slot, |client, model| {
                client.finished = Some(model.records[client.record].expected.len());
                client.peer.finish_sending();
            }),
        }
        Ok(())
    }

    fn connect(&mut self, op: &Op) {
        let Op::Connect {
            slot,
            is_unix,
            is_headed,
            opening,
            closing,
        } = op.clone()
        else {
            unreachable!("it was looked at");
        };
        let record = Record {
            slot,
            is_headed,
            opening,
            closing,
            ..Record::default()
        };
        let index = {
            let mut model = self.model();
            model.records.push(record);
            model.records.len() - 1
        };
        let target = format!("/{index}");
        let peer = if is_unix {
            Peer::over_unix(self.turns.unix(), &target)
        } else {
            Peer::over_tcp(self.turns.tcp(), &target)
        };
        self.clients.push(Client::new(peer, index, slot));
    }

    /// Lets the client of a slot do something, unless it may not yet, or has said that it will not
    /// any more.
    fn act(&mut self, slot: usize, act: impl FnOnce(&mut Client, &Model)) {
        let model = Arc::clone(&self.model);
        if let Some(client) = self.client(slot)
            && client.peer.has_head
            && !client.has_closed
            && client.finished.is_none()
            && client.code.is_none()
        {
            act(client, &model.lock().unwrap());
        }
    }

    /// A turn of the server, behind which the clients read.
    fn turn(&mut self, wait: Duration) -> Result<(), String> {
        self.turns.turn(wait);
        let mut model = self.model.lock().unwrap();
        for client in &mut self.clients {
            let problem = client.read(&model, self.patience);
            problem.map_err(|problem| format!("record {}: {problem}", client.record))?;
        }
        self.clients.retain(|client| !client.peer.is_over);
        match std::mem::take(&mut model.problems) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(problems.join("; ")),
        }
    }

    fn turn_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            self.turn(Duration::from_millis(1))?;
            if Instant::now() > deadline {
                return Err(format!("waited too long until {what}: {:?}", self.shown()));
            }
        }
        Ok(())
    }

    /// How far each client has come.
    fn shown(&self) -> Vec<String> {
        let model = self.model();
        let shown = |client: &Client| {
            let record = &model.records[client.record];
            let Client {
                next,
                pings,
                pongs,
                has_closed,
                finished,
                code,
                ..
            } = client;
            format!(
                "record {}: {next} of {}, {pongs} of {pings} Pongs, is_open {}, has_closed \
                 {has_closed}, finished {finished:?}, code {code:?}",
                client.record,
                record.expected.len(),
                record.is_open
            )
        };
        self.clients.iter().map(shown).collect()
    }

    /// Lets everyone read, and ends all connections.
    fn finish(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            client.appetite = usize::MAX;
        }
        self.turn_until("all have their handshake", |stage| {
            stage.clients.iter().all(|client| client.peer.has_head)
        })?;
        while self.has_served_more()? {}
        for client in &self.clients {
            let problem = client.check_losses(&self.model().records[client.record]);
            problem.map_err(|problem| format!("record {}: {problem}", client.record))?;
        }
        self.for_all_open(Model::close);
        self.turn_until("all have ended", |stage| stage.clients.is_empty())?;
        let deadline = Instant::now() + PATIENCE;
        while self.turns.ask(|_, ctx| ctx.connection_count()) > 0 {
            self.turn(Duration::from_millis(1))?;
            if Instant::now() > deadline {
                return Err("connections are left".into());
            }
        }
        self.carry_out(&Op::Turns(3))?;
        self.check_end()
    }

    /// Sends everyone a last message and waits until it has come; answers whether clients made
    /// anything come behind it, which backpressure had held up.
    fn has_served_more(&mut self) -> Result<bool, String> {
        {
            let mut model = self.model();
            model.mark = model.serial;
        }
        self.for_all_open(|model, ctx, record, id| {
            model.send(ctx, record, id, 20);
            model.records[record].last = model.records[record].expected.len();
            model.mark = model.serial;
        });
        self.turn_until("all are served", |stage| {
            let model = stage.model();
            let mut clients = stage.clients.iter();
            clients.all(|client| client.is_served(&model.records[client.record]))
        })?;
        // Losses are told in the turn behind that in which there is room.
        self.carry_out(&Op::Turns(3))?;
        let model = self.model();
        Ok(model.serial > model.mark)
    }

    fn for_all_open(
        &mut self,
        act: impl Fn(&mut Model, &mut Ctx<'_>, usize, ConnectionId) + Send + 'static,
    ) {
        self.turns.ask(move |app: &mut App, ctx| {
            let mut model = app.model();
            for record in 0..model.records.len() {
                if let (true, Some(id)) = (model.records[record].is_open, model.records[record].id)
                {
                    act(&mut model, ctx, record, id);
                }
            }
        });
    }

    /// Everyone is gone, and so is all that was kept for them.
    fn check_end(&mut self) -> Result<(), String> {
        let gauges = self.turns.ask(|_, ctx| ctx.gauges());
        let mut empty = Gauges::default();
        empty.histories = gauges.histories;
        empty.kept_publications = gauges.kept_publications;
        empty.history_memory = gauges.history_memory;
        if gauges != empty {
            return Err(format!("not all is gone: {gauges:?}"));
        }
        let model = self.model();
        let kept: usize = model.kept.values().map(VecDeque::len).sum();
        if gauges.kept_publications != kept {
            return Err(format!("{kept} publications should be kept: {gauges:?}"));
        }
        let ended = model
            .records
            .iter()
            .all(|record| record.id.is_none() || record.ended == 1);
        if !ended || !model.present.is_empty() {
            let present = &model.present;
            return Err(format!("not all have ended, {present:?} are present"));
        }
        Ok(())
    }
}

fn configure(config: &mut Config, program: &Program) {
    config.limits.walk_sends = program.walk_sends;
    config.limits.outbox_hard = program.outbox_hard;
    config.limits.outbox_soft = program.outbox_hard / 4;
    let base = TopicOptions {
        max_queued: Some(program.max_queued),
        ..TopicOptions::default()
    };
    let slow = |slow| TopicOptions {
        slow,
        ..base.clone()
    };
    let kept = TopicOptions {
        history_size: HISTORY,
        history_ttl: Duration::from_hours(1),
        presence: true,
        ..base.clone()
    };
    let topics = &mut config.topics;
    topics.insert("plain.>", base.clone()).unwrap();
    topics.insert("hist", kept.clone()).unwrap();
    topics.insert("hist.>", kept).unwrap();
    topics
        .insert("newest.>", slow(SlowPolicy::DropNewest))
        .unwrap();
    topics
        .insert("oldest.>", slow(SlowPolicy::DropOldest))
        .unwrap();
    topics.insert("latest.>", slow(SlowPolicy::Latest)).unwrap();
}

fn run(program: &Program) -> Result<(), String> {
    let mut stage = Stage::new(program);
    for (index, op) in program.ops.iter().enumerate() {
        let done = stage.carry_out(op);
        done.map_err(|problem| format!("operation {index}: {problem}"))?;
    }
    stage
        .finish()
        .map_err(|problem| format!("at the end: {problem}"))
}

/// Runs a program; a panic is a problem as well.
fn outcome(program: &Program) -> Result<(), String> {
    let result = catch_unwind(AssertUnwindSafe(|| run(program)));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// The shortest beginning that still fails, without operations and steps that do not matter.
fn shrink(program: &Program) -> Program {
    let with = |ops: &[Op]| Program {
        ops: ops.to_vec(),
        ..program.clone()
    };
    let mut prefixes = (1..program.ops.len()).map(|len| with(&program.ops[..len]));
    let until = Instant::now() + Duration::from_mins(1);
    let shortest = prefixes.find(|prefix| outcome(prefix).is_err() || Instant::now() > until);
    let mut shrunk = shortest.unwrap_or_else(|| program.clone());
    for index in (0..shrunk.ops.len()).rev() {
        shrink_by(&mut shrunk, until, |ops| drop(ops.remove(index)));
    }
    for index in 0..shrunk.ops.len() {
        let steps = steps_of(&mut shrunk.ops[index]).map_or(0, |steps| steps.len());
        for step in (0..steps).rev() {
            shrink_by(&mut shrunk, until, |ops| {
                steps_of(&mut ops[index]).map(|steps| steps.remove(step));
            });
        }
    }
    shrunk
}

/// Makes a program shorter if it fails as well, and if there is time to try.
fn shrink_by(program: &mut Program, until: Instant, change: impl FnOnce(&mut Vec<Op>)) {
    if Instant::now() > until {
        return;
    }
    let mut shorter = program.clone();
    change(&mut shorter.ops);
    if outcome(&shorter).is_err() {
        *program = shorter;
    }
}

fn steps_of(op: &mut Op) -> Option<&mut Vec<Step>> {
    match op {
        Op::Connect { opening: steps, .. } | Op::Loop(steps) | Op::Say(_, steps) => Some(steps),
        _ => None,
    }
}

fn report(seed: u64, program: &Program) -> String {
    let shrunk = shrink(program);
    let problem = outcome(&shrunk).err();
    let problem = problem.unwrap_or_else(|| "it fails no more".into());
    let Program {
        walk_sends,
        outbox_hard,
        max_queued,
        ops,
    } = shrunk;
    let mut text = format!(
        "STENTOR_SEED={seed}: {problem}\n\
         walk_sends {walk_sends}, outbox_hard {outbox_hard}, max_queued {max_queued}\n"
    );
    for (index, op) in ops.iter().enumerate() {
        let _ = writeln!(text, "{index:3} {op:?}");
    }
    text
}

#[test]
fn random_programs_do_what_a_model_of_plain_lists_says() {
    let mut count = 0;
    for seed in seeds(4) {
        let program = Program::of(seed);
        if let Err(problem) = outcome(&program) {
            eprintln!("STENTOR_SEED={seed}: {problem}");
            panic!("{}", report(seed, &program));
        }
        count += 1;
    }
    println!("{count} programs");
    assert!(count > 0);
}
