//! What was published: a stream for each topic, with an epoch, offsets, and the last publications.
//!
//! Knows neither who subscribes nor how a publication is sent; the rules of a topic and the time
//! are arguments.

use std::collections::{BTreeSet, HashMap, VecDeque, vec_deque};
use std::error::Error;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// The streams of all topics, within a limit of memory.
///
/// A stream is an [`Epoch`], the offset of its newest publication (the first one has offset 1), and
/// the last publications, without a gap up to the newest. `M` is what the user keeps with a
/// publication.
///
/// Time is a number of milliseconds that never falls. What has expired is never seen, whether
/// [`expire`](Self::expire) ran or not; that only returns the memory.
///
/// # Memory
///
/// Counted are the payloads, [`PUBLICATION_COST`](Self::PUBLICATION_COST) for each publication, and
/// the name and [`STREAM_COST`](Self::STREAM_COST) for each stream. Beyond the limit the oldest
/// publication of all goes first. Peers choose the names of topics, so streams without a
/// publication may not drive out what others published: when they take more than half of the limit
/// it is they who go, the longest unused first. Their epoch is lost, and a later reader learns by a
/// new one that it may have missed something.
///
/// # Pitfall: what `M` and `Slice` refer to is not counted
///
/// What `M` holds on the heap counts only with [`weighing`](Self::weighing). A slice keeps alive the whole buffer that it
/// is a part of, and only the part is counted.
///
/// ```
/// use stentor::topic::{Histories, HistoryRules, Since};
///
/// let rules = HistoryRules { size: 100, ttl: 60_000, meta_ttl: 86_400_000 };
/// let mut histories = Histories::new(1, 64 << 20);
/// let seen = histories.publish("news", rules, b"one", (), 0);
/// histories.publish("news", rules, b"two", (), 10);
///
/// let since = Since { epoch: seen.epoch.as_str(), offset: seen.offset };
/// let recovered = histories.recover("news", rules, &since, 300, 20);
/// let missed: Vec<_> = recovered.publications.unwrap().map(|missed| &*missed.payload).collect();
/// assert_eq!(missed, [b"two"]);
/// ```
#[derive(Debug)]
pub struct Histories<M> {
    slots: HashMap<Arc<str>, u32>,
    /// By slot; `None` is free, and stands in `free`.
    streams: Vec<Option<Stream<M>>>,
    free: Vec<u32>,
    /// All publications in the order of their coming, and some that are gone.
    order: VecDeque<Entry>,
    /// When to look at which stream: its `queued`, which is not after its `due()`.
    queue: BTreeSet<(u64, u32)>,
    /// The streams without a publication by their `used`.
    idle: BTreeSet<(u64, u32)>,
    idle_bytes: usize,
    publications: usize,
    bytes: usize,
    max_bytes: usize,
    evicted: u64,
    evicted_streams: u64,
    /// How many times a stream was used.
    uses: u64,
    random: SplitMix64,
    weigh: fn(&M) -> usize,
}

/// How much of a topic is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRules {
    /// How many publications, the newest ones.
    pub size: usize,
    /// Until when after the last of them, in milliseconds.
    pub ttl: u64,
    /// Until when epoch and offset are known after the last use, in milliseconds; less than `ttl`
    /// counts as `ttl`.
    pub meta_ttl: u64,
}

impl HistoryRules {
    /// Whether anything is kept.
    pub fn is_on(self) -> bool {
        self.size > 0 && self.ttl > 0
    }
}

/// The life of a stream: offsets of different epochs cannot be compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; Self::LEN]);

impl Epoch {
    const LEN: usize = 8;

    /// Reads eight ASCII letters; anything else is no epoch.
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        let is_epoch = letters.iter().all(u8::is_ascii_alphabetic);
        is_epoch.then_some(Self(letters))
    }

    /// The epoch as text.
    #[expect(clippy::missing_panics_doc, reason = "both constructors check it")]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("an epoch is of ASCII letters")
    }

    fn random(random: &mut SplitMix64) -> Self {
        const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut rest = random.next();
        Self(std::array::from_fn(|_| {
            let letter = LETTERS[(rest % 52) as usize];
            rest /= 52;
            letter
        }))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// The top of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch of the stream.
    pub epoch: Epoch,
    /// The offset of the newest publication; 0 before the first.
    pub offset: u64,
}

/// How far somebody has read, by their own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since<'a> {
    /// The epoch in which it was read; empty for any.
    pub epoch: &'a str,
    /// The offset of the last publication that was read.
    pub offset: u64,
}

impl Since<'_> {
    fn allows(&self, epoch: Epoch) -> bool {
        self.epoch.is_empty() || self.epoch == epoch.as_str()
    }
}

/// A part of a shared buffer.
#[derive(Clone)]
pub struct Slice {
    buffer: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Slice {
    /// Makes a slice of a buffer, which lives at least as long.
    ///
    /// # Panics
    ///
    /// If the range does not lie within the buffer.
    pub fn new(buffer: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Self {
        let len = (*buffer).as_ref().len();
        assert!(
            range.start <= range.end && range.end <= len,
            "{range:?} does not lie within {len} bytes"
        );
        Self { buffer, range }
    }

    /// Makes a slice of a buffer of its own.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(Arc::new(bytes.to_vec()), 0..bytes.len())
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.buffer).as_ref()[self.range.clone()]
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Slice {}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice(\"{}\")", self.escape_ascii())
    }
}

/// What was published once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication<M> {
    /// Its place in the stream; the first is 1.
    pub offset: u64,
    /// When it was published, in milliseconds.
    pub at: u64,
    /// What was published.
    pub payload: Slice,
    /// What the user keeps with it.
    pub meta: M,
}

/// Which part of a stream is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// Only what is strictly after it, or strictly before it in reverse.
    pub since: Option<Since<'a>>,
    /// How many publications at most; with 0 only the position is told.
    pub limit: usize,
    /// From the newest to the oldest.
    pub reverse: bool,
}

/// Why a history cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryError {
    /// The topic keeps none.
    Off,
    /// The offset that was asked for is of another epoch.
    WrongEpoch,
    /// Nothing can be before offset 0.
    BadOffset,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "topic keeps no history",
            Self::WrongEpoch => "offset is of another epoch",
            Self::BadOffset => "nothing can be before offset 0",
        })
    }
}

impl Error for HistoryError {}

/// Publications of one stream, from the oldest or in reverse.
#[derive(Debug)]
pub struct Publications<'h, M> {
    publications: vec_deque::Iter<'h, Publication<M>>,
    reverse: bool,
}

impl<'h, M> Iterator for Publications<'h, M> {
    type Item = &'h Publication<M>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reverse {
            self.publications.next_back()
        } else {
            self.publications.next()
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.publications.size_hint()
    }
}

impl<M> ExactSizeIterator for Publications<'_, M> {}

/// What somebody who was away gets.
#[derive(Debug)]
pub struct Recovered<'h, M> {
    /// The top of the stream.
    pub position: Position,
    /// All that was missed, which may be nothing; `None` if that cannot be had.
    pub publications: Option<Publications<'h, M>>,
}

impl<M> Histories<M> {
    /// What a publication is counted for beside its payload, in bytes: its entries in two queues
    /// that may be half empty, and 64 for the allocations of the copy.
    pub const PUBLICATION_COST: usize = 2 * (size_of::<Publication<M>>() + size_of::<Entry>()) + 64;

    /// What a stream is counted for beside its name, in bytes: its entry, and 192 for the
    /// allocation of the name and the entries in the map of names and in two ordered sets.
    pub const STREAM_COST: usize = size_of::<Option<Stream<M>>>() + 192;

    /// Makes an empty collection that takes at most `max_bytes`; `seed` decides the epochs, and
    /// should be another one in each run of the program.
    ///
    /// The stream that was used last is not dropped, even if it takes more.
    pub fn new(seed: u64, max_bytes: usize) -> Self {
        Self {
            slots: HashMap::new(),
            streams: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            queue: BTreeSet::new(),
            idle: BTreeSet::new(),
            idle_bytes: 0,
            publications: 0,
            bytes: 0,
            max_bytes,
            evicted: 0,
            evicted_streams: 0,
            uses: 0,
            random: SplitMix64(seed),
            weigh: |_| 0,
        }
    }

    /// Counts also what `M` holds on the heap, as `weigh` says; it must say the same each time.
    pub fn weighing(mut self, weigh: fn(&M) -> usize) -> Self {
        self.weigh = weigh;
        self
    }

    /// Assigns the next offset of the topic, and keeps a copy of the payload under it.
    ///
    /// It is not kept if history is off, or if it takes more than the limit of all; nor is then what
    /// was kept of the topic, for nobody could recover across the gap.
    pub fn publish(
        &mut self,
        topic: &str,
        rules: HistoryRules,
        payload: &[u8],
        meta: M,
        now: u64,
    ) -> Position {
        let slot = self.enter(topic, rules, now);
        let stream = self.stream_mut(slot);
        stream.top += 1;
        let position = stream.position();
        if !rules.is_on() {
            self.drop_publications(slot);
        } else if payload.len()
            + (self.weigh)(&meta)
            + Self::PUBLICATION_COST
            + Self::cost_of(topic)
            > self.max_bytes
        {
            self.evicted += 1 + self.drop_publications(slot) as u64;
        } else {
            let publication = Publication {
                offset: position.offset,
                at: now,
                payload: Slice::copy_of(payload),
                meta,
            };
            self.keep(slot, publication);
            self.drop_beyond(slot, rules.size);
            self.stream_mut(slot).fades = now.saturating_add(rules.ttl);
            self.requeue(slot);
            self.trim(slot);
        }
        self.compact();
        position
    }

    /// Refers to bytes that are elsewhere in memory instead of the copy that was kept of them.
    ///
    /// Nothing happens if the publication is gone, or if its bytes are others.
    pub fn share(&mut self, topic: &str, offset: u64, payload: Slice) {
        let Some(&slot) = self.slots.get(topic) else {
            return;
        };
        let kept = self.stream_mut(slot).get_mut(offset);
        // A stream that was evicted and came back has the same offsets for others.
        if let Some(kept) = kept.filter(|kept| kept.payload == payload) {
            kept.payload = payload;
        }
    }

    /// The top of a stream, which comes into being if it is absent.
    pub fn position(&mut self, topic: &str, rules: HistoryRules, now: u64) -> Position {
        let slot = self.enter(topic, rules, now);
        self.stream(slot).position()
    }

    /// The top of a stream, which comes into being if it is absent, and the publications that are
    /// asked for.
    ///
    /// If what came next to `since` is not kept any more, it begins with the oldest that is, and in
    /// reverse there is nothing.
    ///
    /// # Errors
    ///
    /// If history is off, `since` is of another epoch, or is 0 in reverse.
    pub fn read(
        &mut self,
        topic: &str,
        rules: HistoryRules,
        query: &Query<'_>,
        now: u64,
    ) -> Result<(Position, Publications<'_, M>), HistoryError> {
        if !rules.is_on() {
            return Err(HistoryError::Off);
        }
        if query.reverse && query.since.is_some_and(|since| since.offset == 0) {
            return Err(HistoryError::BadOffset);
        }
        let slot = self.enter(topic, rules, now);
        let stream = self.stream(slot);
        if query.since.is_some_and(|since| !since.allows(stream.epoch)) {
            return Err(HistoryError::WrongEpoch);
        }
        Ok((stream.position(), stream.select(query)))
    }

    /// All that was published after `since`, if it is of this epoch, all is kept, and there are at
    /// most `limit`: never a part of it.
    ///
    /// Nothing can be recovered if history is off.
    pub fn recover(
        &mut self,
        topic: &str,
        rules: HistoryRules,
        since: &Since<'_>,
        limit: usize,
        now: u64,
    ) -> Recovered<'_, M> {
        let slot = self.enter(topic, rules, now);
        let stream = self.stream(slot);
        let can_recover = rules.is_on() && since.allows(stream.epoch);
        let kept = limit.min(stream.publications.len());
        // Who has seen more than there is was in another epoch, whatever they say.
        let missed = stream.top.checked_sub(since.offset);
        let missed = missed.filter(|&missed| can_recover && missed <= kept as u64);
        Recovered {
            position: stream.position(),
            publications: missed.map(|missed| stream.newest(missed as usize)),
        }
    }

    /// The newest publication, for those to whom a publication is the state and not a change of it;
    /// and no publication for who has it.
    ///
    /// Who has read to the top, not to 0, and names the right epoch has it; in all other cases the
    /// epoch does not matter. Nothing can be recovered if the newest is not kept or history is off.
    pub fn newest(
        &mut self,
        topic: &str,
        rules: HistoryRules,
        since: Option<&Since<'_>>,
        now: u64,
    ) -> Recovered<'_, M> {
        let slot = self.enter(topic, rules, now);
        let stream = self.stream(slot);
        let has_it = since.is_some_and(|since| {
            let is_top = since.offset > 0 && since.offset == stream.top;
            is_top && since.epoch == stream.epoch.as_str()
        });
        let wanted = usize::from(!has_it);
        let can_recover = rules.is_on() && wanted <= stream.publications.len();
        Recovered {
            position: stream.position(),
            publications: can_recover.then(|| stream.newest(wanted)),
        }
    }

    /// Drops the publications of a topic; epoch and offset stay.
    pub fn clear(&mut self, topic: &str) {
        if let Some(&slot) = self.slots.get(topic) {
            self.drop_publications(slot);
            self.compact();
        }
    }

    /// Drops all that has expired.
    ///
    /// Costs as much as there is to drop, and a look at the streams that were used since their time
    /// was noted.
    pub fn expire(&mut self, now: u64) {
        while let Some(&(at, slot)) = self.queue.first()
            && at <= now
        {
            if self.settle(slot, now) {
                self.note_due(slot);
            }
        }
        self.compact();
    }

    /// When [`expire`](Self::expire) should be called next, which may turn out to be too early.
    pub fn next_expiry(&self) -> Option<u64> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// How much memory is counted; see the type.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many publications are kept.
    pub fn publications(&self) -> usize {
        self.publications
    }

    /// How many publications were dropped, or not kept at all, because of the limit of memory.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// How many streams were dropped because of the limit of memory.
    pub fn evicted_streams(&self) -> u64 {
        self.evicted_streams
    }

    /// The stream that is used now: what has expired of it is gone, and its time starts again.
    fn enter(&mut self, topic: &str, rules: HistoryRules, now: u64) -> u32 {
        let known = self.slots.get(topic).copied();
        let slot = match known.filter(|&slot| self.settle(slot, now)) {
            Some(slot) => slot,
            None => self.create(topic),
        };
        self.touch(slot, now.saturating_add(rules.meta_ttl.max(rules.ttl)));
        self.trim(slot);
        self.compact();
        slot
    }

    fn create(&mut self, topic: &str) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            u32::try_from(self.streams.len() - 1).expect("memory ends before the slots do")
        });
        let name = Arc::<str>::from(topic);
        self.slots.insert(Arc::clone(&name), slot);
        self.streams[slot as usize] = Some(Stream {
            name,
            epoch: Epoch::random(&mut self.random),
            born: self.uses,
            used: self.uses,
            top: 0,
            publications: VecDeque::new(),
            fades: u64::MAX,
            ends: u64::MAX,
            queued: u64::MAX,
        });
        self.queue.insert((u64::MAX, slot));
        self.bytes += Self::cost_of(topic);
        self.set_idle(slot);
        slot
    }

    fn touch(&mut self, slot: u32, ends: u64) {
        self.uses += 1;
        let uses = self.uses;
        let stream = self.stream_mut(slot);
        stream.ends = ends;
        let used = std::mem::replace(&mut stream.used, uses);
        if stream.publications.is_empty() {
            self.idle.remove(&(used, slot));
            self.idle.insert((uses, slot));
        }
        self.requeue(slot);
    }

    /// Drops what has expired of a stream, and answers whether it lives.
    fn settle(&mut self, slot: u32, now: u64) -> bool {
        let stream = self.stream(slot);
        let lives = now < stream.ends;
        if !lives {
            self.remove(slot);
        } else if now >= stream.fades {
            self.drop_publications(slot);
        }
        lives
    }

    /// Notes that a stream is due earlier than was known; that it is due later is found out when
    /// its time comes, for each publication makes it so.
    fn requeue(&mut self, slot: u32) {
        let stream = self.stream(slot);
        if stream.due() < stream.queued {
            self.note_due(slot);
        }
    }

    fn note_due(&mut self, slot: u32) {
        let stream = self.stream_mut(slot);
        let due = stream.due();
        let queued = std::mem::replace(&mut stream.queued, due);
        self.queue.remove(&(queued, slot));
        self.queue.insert((due, slot));
    }

    /// Drops what is too much, but never the stream that is in use.
    fn trim(&mut self, in_use: u32) {
        while self.bytes > self.max_bytes {
            // The last publication may take all but its own stream.
            let is_crowded = self.idle_bytes > self.max_bytes / 2 || self.publications <= 1;
            let longest_idle = self.idle.first().map(|&(_, slot)| slot);
            let idle = longest_idle.filter(|&slot| is_crowded && slot != in_use);
            if let Some(slot) = idle {
                self.remove(slot);
                self.evicted_streams += 1;
            } else if !self.evict_oldest() {
                break;
            }
        }
    }

    /// Drops the oldest publication of all, and answers whether there was one.
    fn evict_oldest(&mut self) -> bool {
        while let Some(entry) = self.order.pop_front() {
            if entry.is_kept(&self.streams) {
                let kept = self.stream(entry.slot).publications.len();
                self.drop_beyond(entry.slot, kept - 1);
                self.evicted += 1;
                return true;
            }
        }
        false
    }

    /// What a publication counts for.
    fn weight(&self, publication: &Publication<M>) -> usize {
        publication.payload.len() + (self.weigh)(&publication.meta) + Self::PUBLICATION_COST
    }

    fn keep(&mut self, slot: u32, publication: Publication<M>) {
        self.publications += 1;
        self.bytes += self.weight(&publication);
        let stream = self.streams[slot as usize].as_mut();
        let stream = stream.expect("a slot in use has a stream");
        self.order.push_back(Entry {
            slot,
            born: stream.born,
            offset: publication.offset,
        });
        stream.publications.push_back(publication);
        if stream.publications.len() == 1 {
            self.idle.remove(&(stream.used, slot));
            self.idle_bytes -= Self::cost_of(&stream.name);
        }
    }

    /// Drops the publications of a stream, and answers how many there were.
    fn drop_publications(&mut self, slot: u32) -> usize {
        let kept = self.stream(slot).publications.len();
        self.drop_beyond(slot, 0);
        kept
    }

    /// Drops the oldest publications of a stream until there are at most `size`.
    fn drop_beyond(&mut self, slot: u32, size: usize) {
        let weigh = self.weigh;
        let publications = &mut self.stream_mut(slot).publications;
        let excess = publications.len().saturating_sub(size);
        if excess == 0 {
            return;
        }
        let dropped = publications.drain(..excess);
        let bytes: usize = dropped
            .map(|dropped| dropped.payload.len() + weigh(&dropped.meta))
            .sum();
        if publications.is_empty() {
            // There may be many such streams.
            *publications = VecDeque::new();
            self.stream_mut(slot).fades = u64::MAX;
            self.set_idle(slot);
        }
        self.publications -= excess;
        self.bytes -= bytes + excess * Self::PUBLICATION_COST;
    }

    fn set_idle(&mut self, slot: u32) {
        let stream = self.stream(slot);
        let (used, cost) = (stream.used, Self::cost_of(&stream.name));
        self.idle.insert((used, slot));
        self.idle_bytes += cost;
    }

    fn remove(&mut self, slot: u32) {
        self.drop_publications(slot);
        let stream = self.streams[slot as usize].take();
        let stream = stream.expect("a stream is removed once");
        self.slots.remove(&stream.name);
        self.free.push(slot);
        self.idle.remove(&(stream.used, slot));
        self.queue.remove(&(stream.queued, slot));
        self.idle_bytes -= Self::cost_of(&stream.name);
        self.bytes -= Self::cost_of(&stream.name);
    }

    /// Forgets in the order of all what is gone, once that is more than half.
    fn compact(&mut self) {
        if self.order.len() > 2 * self.publications + MAX_GONE {
            self.order.retain(|entry| entry.is_kept(&self.streams));
            self.order.shrink_to(2 * self.publications);
        }
    }

    fn stream(&self, slot: u32) -> &Stream<M> {
        let stream = self.streams[slot as usize].as_ref();
        stream.expect("a slot in use has a stream")
    }

    fn stream_mut(&mut self, slot: u32) -> &mut Stream<M> {
        let stream = self.streams[slot as usize].as_mut();
        stream.expect("a slot in use has a stream")
    }

    fn cost_of(topic: &str) -> usize {
        topic.len() + Self::STREAM_COST
    }
}

/// Until how many are gone the order of publications is not worth going through.
const MAX_GONE: usize = 64;

#[derive(Debug)]
struct Stream<M> {
    /// Shared with the key of the map.
    name: Arc<str>,
    epoch: Epoch,
    /// Which use of any stream made it: no two streams have the same, in whatever slot.
    born: u64,
    /// Which use of any stream was its last.
    used: u64,
    top: u64,
    /// Invariant: the offsets rise by one, and the last is `top`.
    publications: VecDeque<Publication<M>>,
    /// When the publications go; never if there are none.
    fades: u64,
    /// When the stream goes.
    ends: u64,
    /// Where it stands in the queue.
    queued: u64,
}

impl<M> Stream<M> {
    fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.top,
        }
    }

    /// When something of it goes.
    fn due(&self) -> u64 {
        self.fades.min(self.ends)
    }

    /// Where the first publication stands that has this offset or a later one.
    fn index_from(&self, offset: u64) -> usize {
        let kept = self.publications.len();
        let first = self.top + 1 - kept as u64;
        offset.saturating_sub(first).min(kept as u64) as usize
    }

    fn get_mut(&mut self, offset: u64) -> Option<&mut Publication<M>> {
        let index = self.index_from(offset);
        let found = self.publications.get_mut(index);
        found.filter(|found| found.offset == offset)
    }

    fn select(&self, query: &Query<'_>) -> Publications<'_, M> {
        let mut range = 0..self.publications.len();
        match query.since {
            Some(since) if query.reverse => range.end = self.index_from(since.offset),
            Some(since) => range.start = self.index_from(since.offset.saturating_add(1)),
            None => {}
        }
        let excess = range.len().saturating_sub(query.limit);
        if query.reverse {
            range.start += excess;
        } else {
            range.end -= excess;
        }
        Publications {
            publications: self.publications.range(range),
            reverse: query.reverse,
        }
    }

    /// The last `count` publications, of which there are as many.
    fn newest(&self, count: usize) -> Publications<'_, M> {
        let kept = self.publications.len();
        Publications {
            publications: self.publications.range(kept - count..),
            reverse: false,
        }
    }
}

/// A publication in the order of all.
#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u32,
    born: u64,
    offset: u64,
}

impl Entry {
    fn is_kept<M>(&self, streams: &[Option<Stream<M>>]) -> bool {
        let stream = streams[self.slot as usize].as_ref();
        let stream = stream.filter(|stream| stream.born == self.born);
        let oldest = stream.and_then(|stream| stream.publications.front());
        oldest.is_some_and(|oldest| oldest.offset <= self.offset)
    }
}

/// Sebastiano Vigna's generator of the same name: epochs must differ, and need not be secret.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashSet};

    const RULES: HistoryRules = HistoryRules {
        size: 3,
        ttl: 100,
        meta_ttl: 1000,
    };
    const OFF: HistoryRules = HistoryRules { size: 0, ..RULES };
    const COST: usize = Histories::<()>::PUBLICATION_COST;

    fn stream_cost(topic: &str) -> usize {
        Histories::<()>::cost_of(topic)
    }

    fn unlimited() -> Histories<()> {
        Histories::new(7, usize::MAX)
    }

    /// A topic `t` to which 1 to `count` were published at time 0, and its epoch.
    fn published(count: u8) -> (Histories<()>, Epoch) {
        let mut histories = unlimited();
        for n in 1..=count {
            histories.publish("t", RULES, &[n], (), 0);
        }
        let epoch = histories.position("t", RULES, 0).epoch;
        (histories, epoch)
    }

    fn offsets<'h>(publications: impl Iterator<Item = &'h Publication<()>>) -> Vec<u64> {
        publications.map(|publication| publication.offset).collect()
    }

    fn read_at(
        histories: &mut Histories<()>,
        query: Query<'_>,
        now: u64,
    ) -> Result<Vec<u64>, HistoryError> {
        let (_, publications) = histories.read("t", RULES, &query, now)?;
        Ok(offsets(publications))
    }

    fn seen(epoch: &str, offset: u64) -> Since<'_> {
        Since { epoch, offset }
    }

    fn all() -> Query<'static> {
        Query {
            since: None,
            limit: usize::MAX,
            reverse: false,
        }
    }

    fn after(epoch: &str, offset: u64) -> Query<'_> {
        Query {
            since: Some(seen(epoch, offset)),
            ..all()
        }
    }

    fn before(epoch: &str, offset: u64) -> Query<'_> {
        Query {
            reverse: true,
            ..after(epoch, offset)
        }
    }

    fn recovered(
        histories: &mut Histories<()>,
        epoch: &str,
        offset: u64,
        limit: usize,
    ) -> Option<Vec<u64>> {
        let since = seen(epoch, offset);
        let recovered = histories.recover("t", RULES, &since, limit, 0);
        recovered.publications.map(offsets)
    }

    fn newest(
        histories: &mut Histories<()>,
        since: Option<(&str, u64)>,
        now: u64,
    ) -> Option<Vec<u64>> {
        let since = since.map(|(epoch, offset)| seen(epoch, offset));
        let recovered = histories.newest("t", RULES, since.as_ref(), now);
        recovered.publications.map(offsets)
    }

    // ---- streams ----

    #[test]
    fn history_is_on_only_with_a_size_and_a_ttl() {
        assert!(RULES.is_on());
        assert!(!OFF.is_on());
        assert!(!HistoryRules { ttl: 0, ..RULES }.is_on());
    }

    #[test]
    fn first_publication_has_offset_1_and_the_last_ones_are_kept() {
        let mut histories = unlimited();
        for n in 1..=5 {
            assert_eq!(histories.publish("t", RULES, &[9], (), 0).offset, n);
        }
        assert_eq!(read_at(&mut histories, all(), 0), Ok(vec![3, 4, 5]));
        assert_eq!(histories.position("t", RULES, 0).offset, 5);
        assert_eq!(histories.publish("u", RULES, &[9], (), 0).offset, 1);
    }

    #[test]
    fn publication_comes_back_as_it_was_published() {
        let mut histories = Histories::new(7, usize::MAX);
        histories.publish("t", RULES, b"payload", "meta", 42);
        let (_, mut publications) = histories.read("t", RULES, &all(), 50).unwrap();
        let expected = Publication {
            offset: 1,
            at: 42,
            payload: Slice::copy_of(b"payload"),
            meta: "meta",
        };
        assert_eq!(publications.len(), 1);
        assert_eq!(publications.next(), Some(&expected));
        assert_eq!(publications.next(), None);
    }

    #[test]
    fn epochs_are_eight_letters_and_differ() {
        let mut histories = unlimited();
        let mut epochs = HashSet::new();
        for n in 0..1000 {
            let epoch = histories.position(&n.to_string(), RULES, 0).epoch;
            assert_eq!(epoch.as_str().len(), 8);
            assert_eq!(Epoch::parse(&epoch.to_string()), Some(epoch));
            assert!(epochs.insert(epoch));
        }
        let mut other_run = Histories::<()>::new(8, usize::MAX);
        assert!(!epochs.contains(&other_run.position("0", RULES, 0).epoch));
    }

    #[test]
    fn epoch_is_parsed_from_eight_ascii_letters_only() {
        assert_eq!(Epoch::parse("xKqPzaBc").unwrap().as_str(), "xKqPzaBc");
        for text in ["", "xKqPzaB", "xKqPzaBcd", "xKqPzaB1", "xKqPza c", "ääää"] {
            assert_eq!(Epoch::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn each_publish_restarts_the_ttl_of_all_publications() {
        let (mut histories, _) = published(1);
        histories.publish("t", RULES, &[2], (), 99);
        assert_eq!(read_at(&mut histories, all(), 198), Ok(vec![1, 2]));
        assert_eq!(read_at(&mut histories, all(), 199), Ok(vec![]));
    }

    #[test]
    fn reading_does_not_restart_the_ttl() {
        let (mut histories, _) = published(1);
        assert_eq!(read_at(&mut histories, all(), 99), Ok(vec![1]));
        assert_eq!(read_at(&mut histories, all(), 100), Ok(vec![]));
    }

    #[test]
    fn expiry_clears_the_publications_and_keeps_epoch_and_top() {
        let (mut histories, epoch) = published(3);
        histories.expire(99);
        assert_eq!(histories.publications(), 3);
        histories.expire(100);
        assert_eq!((histories.publications(), histories.len()), (0, 1));
        let top = Position { epoch, offset: 3 };
        assert_eq!(histories.position("t", RULES, 100), top);
        let next = Position { epoch, offset: 4 };
        assert_eq!(histories.publish("t", RULES, &[4], (), 101), next);
    }

    #[test]
    fn stream_ends_after_the_meta_ttl_with_a_new_epoch_and_offset_0() {
        let (mut histories, epoch) = published(3);
        let mut expired = published(3).0;
        expired.expire(999);
        assert_eq!(expired.len(), 1);
        expired.expire(1000);
        assert!(expired.is_empty());

        let position = histories.position("t", RULES, 1000);
        assert_ne!(position.epoch, epoch);
        assert_eq!(position.offset, 0);
        assert_eq!(histories.publish("t", RULES, &[1], (), 1000).offset, 1);
    }

    #[test]
    fn publishing_and_every_way_of_reading_restart_the_meta_ttl() {
        type Use = fn(&mut Histories<()>, u64) -> Position;
        let uses: [Use; 5] = [
            |h, now| h.publish("t", RULES, &[0], (), now),
            |h, now| h.position("t", RULES, now),
            |h, now| h.read("t", RULES, &all(), now).unwrap().0,
            |h, now| h.recover("t", RULES, &seen("", 0), 9, now).position,
            |h, now| h.newest("t", RULES, None, now).position,
        ];
        for (n, restart) in uses.into_iter().enumerate() {
            let (mut histories, epoch) = published(1);
            restart(&mut histories, 999);
            histories.expire(1998);
            assert_eq!(histories.position("t", RULES, 1998).epoch, epoch, "use {n}");
            restart(&mut histories, 2000);
            assert_ne!(histories.position("t", RULES, 3000).epoch, epoch, "use {n}");
        }
    }

    #[test]
    fn meta_ttl_is_never_less_than_the_ttl() {
        let rules = HistoryRules {
            meta_ttl: 0,
            ..RULES
        };
        let mut histories = unlimited();
        let position = histories.publish("t", rules, &[1], (), 0);
        assert_eq!(histories.position("t", rules, 99), position);
        histories.expire(198);
        assert_eq!((histories.len(), histories.publications()), (1, 0));
        histories.expire(199);
        assert!(histories.is_empty());
    }

    #[test]
    fn reading_an_absent_stream_creates_it() {
        let mut histories = unlimited();
        let (position, publications) = histories.read("t", RULES, &all(), 0).unwrap();
        assert_eq!((position.offset, publications.len()), (0, 0));
        assert_eq!(histories.len(), 1);
        assert_eq!(histories.position("t", RULES, 0), position);
    }

    #[test]
    fn clearing_removes_the_publications_only() {
        let (mut histories, epoch) = published(3);
        histories.clear("t");
        histories.clear("unknown");
        assert_eq!((histories.publications(), histories.len()), (0, 1));
        let next = Position { epoch, offset: 4 };
        assert_eq!(histories.publish("t", RULES, &[4], (), 0), next);
        assert_eq!(read_at(&mut histories, all(), 0), Ok(vec![4]));
    }

    #[test]
    fn smaller_size_takes_effect_with_the_next_publication() {
        let (mut histories, _) = published(3);
        let rules = HistoryRules { size: 1, ..RULES };
        histories.publish("t", rules, &[4], (), 0);
        assert_eq!(read_at(&mut histories, all(), 0), Ok(vec![4]));
    }

    #[test]
    fn nothing_is_kept_or_recovered_while_history_is_off() {
        let (mut histories, epoch) = published(2);
        let position = histories.publish("t", OFF, &[3], (), 0);
        assert_eq!(position, Position { epoch, offset: 3 });
        assert_eq!((histories.publications(), histories.evicted()), (0, 0));
        let seen = seen("", 3);
        assert!(
            histories
                .recover("t", OFF, &seen, 9, 0)
                .publications
                .is_none()
        );
        assert!(histories.newest("t", OFF, None, 0).publications.is_none());

        assert_eq!(recovered(&mut histories, "", 2, 9), None);
        histories.publish("t", RULES, &[4], (), 0);
        assert!(histories.newest("t", OFF, None, 0).publications.is_none());
        assert_eq!(recovered(&mut histories, "", 3, 9), Some(vec![4]));
    }

    // ---- recovery ----

    #[test]
    fn who_missed_nothing_recovers_nothing() {
        let (mut histories, epoch) = published(3);
        assert_eq!(
            recovered(&mut histories, epoch.as_str(), 3, 300),
            Some(vec![])
        );
        assert_eq!(
            recovered(&mut histories, epoch.as_str(), 3, 0),
            Some(vec![])
        );
        histories.clear("t");
        assert_eq!(
            recovered(&mut histories, epoch.as_str(), 3, 300),
            Some(vec![])
        );
        let mut absent = unlimited();
        assert_eq!(recovered(&mut absent, "", 0, 300), Some(vec![]));
    }

    #[test]
    fn who_missed_some_recovers_exactly_those_in_order() {
        let (mut histories, epoch) = published(3);
        let since = |offset| seen(epoch.as_str(), offset);
        let recovered = histories.recover("t", RULES, &since(1), 300, 0);
        assert_eq!(recovered.position, Position { epoch, offset: 3 });
        let missed: Vec<_> = recovered.publications.unwrap().collect();
        assert_eq!(offsets(missed.iter().copied()), [2, 3]);
        assert_eq!(&*missed[0].payload, [2]);

        let recovered = histories.recover("t", RULES, &since(0), 300, 0);
        assert_eq!(recovered.publications.unwrap().len(), 3);
    }

    #[test]
    fn wrong_epoch_recovers_nothing_and_tells_the_current_position() {
        let (mut histories, epoch) = published(3);
        let since = seen("wrongAAA", 3);
        let recovered = histories.recover("t", RULES, &since, 300, 0);
        assert!(recovered.publications.is_none());
        assert_eq!(recovered.position, Position { epoch, offset: 3 });
    }

    #[test]
    fn empty_epoch_recovers_in_any() {
        let (mut histories, _) = published(2);
        assert_eq!(recovered(&mut histories, "", 0, 300), Some(vec![1, 2]));
    }

    #[test]
    fn more_missed_than_the_limit_is_never_a_partial_list() {
        let (mut histories, epoch) = published(3);
        assert_eq!(
            recovered(&mut histories, epoch.as_str(), 1, 2),
            Some(vec![2, 3])
        );
        assert_eq!(recovered(&mut histories, epoch.as_str(), 0, 2), None);
        assert_eq!(recovered(&mut histories, epoch.as_str(), 2, 0), None);
    }

    #[test]
    fn trimmed_cleared_and_expired_streams_do_not_recover_what_was_missed() {
        let (mut histories, epoch) = published(5);
        assert_eq!(recovered(&mut histories, epoch.as_str(), 1, 300), None);
        assert_eq!(
            recovered(&mut histories, epoch.as_str(), 2, 300),
            Some(vec![3, 4, 5])
        );
        let since = seen(epoch.as_str(), 4);
        let expired = histories.recover("t", RULES, &since, 300, 100);
        assert!(expired.publications.is_none());
        histories.clear("t");
        assert_eq!(recovered(&mut histories, epoch.as_str(), 4, 300), None);
    }

    #[test]
    fn offset_above_the_top_does_not_recover() {
        let (mut histories, epoch) = published(3);
        assert_eq!(recovered(&mut histories, epoch.as_str(), 4, 300), None);
        assert_eq!(recovered(&mut histories, "", u64::MAX, 300), None);
    }

    // ---- the newest only ----

    #[test]
    fn newest_recovers_exactly_the_newest() {
        let (mut histories, epoch) = published(3);
        assert_eq!(newest(&mut histories, None, 0), Some(vec![3]));
        assert_eq!(newest(&mut histories, Some(("", 0)), 0), Some(vec![3]));
        assert_eq!(
            newest(&mut histories, Some((epoch.as_str(), 1)), 0),
            Some(vec![3])
        );
    }

    #[test]
    fn newest_is_not_sent_to_who_has_it() {
        let (mut histories, epoch) = published(3);
        let has_it = Some((epoch.as_str(), 3));
        assert_eq!(newest(&mut histories, has_it, 0), Some(vec![]));
        // Even when it has expired.
        assert_eq!(newest(&mut histories, has_it, 100), Some(vec![]));
    }

    #[test]
    fn newest_is_sent_whatever_the_epoch_of_the_request() {
        let (mut histories, _) = published(3);
        assert_eq!(
            newest(&mut histories, Some(("wrongAAA", 3)), 0),
            Some(vec![3])
        );
        assert_eq!(newest(&mut histories, Some(("", 3)), 0), Some(vec![3]));
        assert_eq!(
            newest(&mut histories, Some(("wrongAAA", 9)), 0),
            Some(vec![3])
        );
    }

    #[test]
    fn newest_that_is_not_kept_is_not_recovered() {
        let (mut histories, epoch) = published(3);
        assert_eq!(newest(&mut histories, Some((epoch.as_str(), 2)), 100), None);
        assert_eq!(newest(&mut histories, None, 100), None);
        let mut absent = unlimited();
        assert_eq!(newest(&mut absent, None, 0), None);
        assert_eq!(newest(&mut absent, Some(("", 0)), 0), None);
    }

    // ---- queries ----

    #[test]
    fn limit_0_tells_the_position_only() {
        let (mut histories, epoch) = published(3);
        for reverse in [false, true] {
            let query = Query {
                limit: 0,
                reverse,
                ..all()
            };
            let (position, publications) = histories.read("t", RULES, &query, 0).unwrap();
            assert_eq!(position, Position { epoch, offset: 3 });
            assert_eq!(publications.len(), 0);
        }
    }

    #[test]
    fn without_since_it_is_read_from_the_oldest_or_from_the_newest() {
        let (mut histories, _) = published(5);
        let forward = Query { limit: 2, ..all() };
        let reverse = Query {
            reverse: true,
            ..forward
        };
        assert_eq!(read_at(&mut histories, forward, 0), Ok(vec![3, 4]));
        assert_eq!(read_at(&mut histories, reverse, 0), Ok(vec![5, 4]));
        let longer = Query {
            limit: 9,
            ..reverse
        };
        assert_eq!(read_at(&mut histories, longer, 0), Ok(vec![5, 4, 3]));
    }

    #[test]
    fn since_is_strictly_after_and_in_reverse_strictly_before() {
        let (mut histories, epoch) = published(5);
        let epoch = epoch.as_str();
        assert_eq!(read_at(&mut histories, after(epoch, 3), 0), Ok(vec![4, 5]));
        assert_eq!(read_at(&mut histories, before(epoch, 5), 0), Ok(vec![4, 3]));
        let page = Query {
            limit: 1,
            ..after(epoch, 3)
        };
        assert_eq!(read_at(&mut histories, page, 0), Ok(vec![4]));
        let page = Query {
            limit: 1,
            ..before(epoch, 5)
        };
        assert_eq!(read_at(&mut histories, page, 0), Ok(vec![4]));
    }

    #[test]
    fn trimmed_start_is_read_from_the_oldest_and_not_at_all_in_reverse() {
        let (mut histories, epoch) = published(9);
        assert_eq!(
            read_at(&mut histories, after(epoch.as_str(), 1), 0),
            Ok(vec![7, 8, 9])
        );
        assert_eq!(read_at(&mut histories, after("", 0), 0), Ok(vec![7, 8, 9]));
        assert_eq!(
            read_at(&mut histories, before(epoch.as_str(), 3), 0),
            Ok(vec![])
        );
        assert_eq!(
            read_at(&mut histories, before(epoch.as_str(), 7), 0),
            Ok(vec![])
        );
    }

    #[test]
    fn since_at_the_top_or_beyond_is_followed_by_nothing() {
        let (mut histories, epoch) = published(3);
        assert_eq!(
            read_at(&mut histories, after(epoch.as_str(), 3), 0),
            Ok(vec![])
        );
        assert_eq!(
            read_at(&mut histories, after(epoch.as_str(), u64::MAX), 0),
            Ok(vec![])
        );
        assert_eq!(
            read_at(&mut histories, before("", u64::MAX), 0),
            Ok(vec![3, 2, 1])
        );
    }

    #[test]
    fn wrong_epoch_is_refused_and_the_empty_one_is_not() {
        let (mut histories, _) = published(3);
        assert_eq!(
            read_at(&mut histories, after("wrongAAA", 1), 0),
            Err(HistoryError::WrongEpoch)
        );
        assert_eq!(read_at(&mut histories, after("", 1), 0), Ok(vec![2, 3]));
    }

    #[test]
    fn reverse_before_offset_0_is_refused() {
        let (mut histories, _) = published(3);
        assert_eq!(
            read_at(&mut histories, before("", 0), 0),
            Err(HistoryError::BadOffset)
        );
        assert_eq!(read_at(&mut histories, before("", 1), 0), Ok(vec![]));
    }

    #[test]
    fn history_that_is_off_is_not_read_and_does_not_come_into_being() {
        let mut histories = unlimited();
        let refused = histories.read("t", OFF, &all(), 0).unwrap_err();
        assert_eq!(refused, HistoryError::Off);
        assert!(histories.is_empty());
    }

    // ---- memory ----

    #[test]
    fn slice_derefs_to_its_part_of_the_buffer() {
        let slice = Slice::new(Arc::new(b"a buffer\0".to_vec()), 2..9);
        assert_eq!(*slice, *b"buffer\0");
        assert_eq!(slice, Slice::copy_of(b"buffer\0"));
        assert_eq!(format!("{slice:?}"), r#"Slice("buffer\x00")"#);
    }

    #[test]
    #[should_panic(expected = "1..4 does not lie within 3 bytes")]
    fn slice_outside_of_its_buffer_is_refused() {
        Slice::new(Arc::new(vec![0; 3]), 1..4);
    }

    #[test]
    fn shared_bytes_take_the_place_of_the_copy() {
        let mut histories = unlimited();
        histories.publish("t", RULES, b"payload", (), 0);
        let bytes = histories.bytes();
        let buffer = Arc::new(b"frame: payload".to_vec());
        histories.share("t", 1, Slice::new(buffer.clone(), 7..14));
        assert_eq!((Arc::strong_count(&buffer), histories.bytes()), (2, bytes));
        let (_, mut publications) = histories.read("t", RULES, &all(), 0).unwrap();
        assert_eq!(*publications.next().unwrap().payload, *b"payload");
        histories.clear("t");
        assert_eq!(Arc::strong_count(&buffer), 1);
    }

    #[test]
    fn bytes_of_another_publication_are_not_shared() {
        let (mut histories, _) = published(5);
        let buffer = Arc::new(vec![5]);
        let slice = || Slice::new(buffer.clone(), 0..1);
        for offset in [0, 1, 2, 4, 6, u64::MAX] {
            histories.share("t", offset, slice());
            assert_eq!(Arc::strong_count(&buffer), 1, "{offset}");
        }
        histories.share("unknown", 5, slice());
        assert_eq!((Arc::strong_count(&buffer), histories.len()), (1, 1));
        histories.share("t", 5, slice());
        assert_eq!(Arc::strong_count(&buffer), 2);
    }

    #[test]
    fn oldest_publication_of_all_goes_first() {
        let limit = stream_cost("t") + stream_cost("u") + 3 * (COST + 10);
        let mut histories = Histories::new(7, limit);
        for topic in ["t", "u", "t", "u"] {
            histories.publish(topic, RULES, &[0; 10], (), 0);
        }
        assert_eq!((histories.evicted(), histories.bytes()), (1, limit));
        assert_eq!(read_at(&mut histories, all(), 0), Ok(vec![2]));
        histories.publish("u", RULES, &[0; 11], (), 0);
        assert_eq!((histories.evicted(), histories.evicted_streams()), (3, 0));
        assert_eq!(read_at(&mut histories, all(), 0), Ok(vec![]));
        assert_eq!(recovered(&mut histories, "", 1, 9), None);
        let (_, rest) = histories.read("u", RULES, &all(), 0).unwrap();
        assert_eq!(offsets(rest), [2, 3]);
    }

    #[test]
    fn publication_larger_than_the_limit_gets_an_offset_and_leaves_no_gap() {
        let mut histories = Histories::new(7, stream_cost("t") + 2 * COST + 100);
        histories.publish("t", RULES, &[1], (), 0);
        let longest = COST + 100;
        assert_eq!(
            histories
                .publish("t", RULES, &vec![2; longest + 1], (), 0)
                .offset,
            2
        );
        assert_eq!((histories.publications(), histories.evicted()), (0, 2));
        histories.publish("t", RULES, &[3], (), 0);
        assert_eq!(recovered(&mut histories, "", 0, 9), None);
        assert_eq!(recovered(&mut histories, "", 2, 9), Some(vec![3]));

        histories.publish("t", RULES, &vec![4; longest], (), 0);
        assert_eq!((histories.publications(), histories.evicted()), (1, 3));
        assert_eq!(recovered(&mut histories, "", 3, 9), Some(vec![4]));
    }

    #[test]
    fn empty_streams_take_at_most_half_and_the_longest_unused_go() {
        let limit = 10 * stream_cost("0000");
        let mut histories = Histories::new(7, limit);
        histories.publish("news", RULES, &[1], (), 0);
        let first = histories.position("0000", RULES, 0);
        for n in 1..100 {
            histories.position(&format!("{n:04}"), RULES, 0);
            assert_eq!(histories.position("0000", RULES, 0), first);
            assert!(histories.bytes() <= limit);
        }
        assert_eq!((histories.publications(), histories.evicted()), (1, 0));
        assert_eq!(histories.evicted_streams(), 101 - histories.len() as u64);
        assert!(histories.len() > 4);

        let rest = limit - stream_cost("long") - COST;
        histories.publish("long", RULES, &vec![2; rest], (), 0);
        assert_eq!((histories.publications(), histories.evicted()), (1, 1));
        assert_eq!((histories.len(), histories.bytes()), (1, limit));
    }

    #[test]
    fn stream_in_use_outlives_any_limit() {
        let mut histories = Histories::<()>::new(7, 0);
        let position = histories.publish("t", RULES, &[1], (), 0);
        assert_eq!(histories.position("t", RULES, 0), position);
        histories.position("u", RULES, 0);
        assert_eq!((histories.len(), histories.evicted_streams()), (1, 1));
        assert_ne!(histories.position("t", RULES, 0).epoch, position.epoch);
    }

    #[test]
    fn nothing_is_counted_when_all_is_gone() {
        let mut histories = unlimited();
        assert_eq!(histories.next_expiry(), None);
        for n in 0..500_u64 {
            histories.publish(&(n % 50).to_string(), RULES, &[0; 33], (), n);
        }
        assert_eq!((histories.len(), histories.publications()), (50, 150));
        let mut turns = 0;
        while let Some(at) = histories.next_expiry() {
            histories.expire(at);
            turns += 1;
        }
        assert!(turns <= 3 * 50, "{turns}");
        assert_eq!((histories.bytes(), histories.idle_bytes), (0, 0));
        assert_eq!((histories.len(), histories.publications()), (0, 0));
        histories.assert_consistent();
    }

    #[test]
    fn order_of_publications_stays_short_in_whatever_way_they_go() {
        let mut histories = unlimited();
        for millis in 0..2000 {
            histories.publish("t", RULES, &[0], (), millis);
            histories.assert_consistent();
        }
        for n in 0..2000 {
            histories.publish(&n.to_string(), RULES, &[0], (), 2000);
        }
        histories.expire(2100);
        histories.assert_consistent();
        assert!(histories.order.capacity() <= 4 * MAX_GONE);
        histories.publish("t", RULES, &[0], (), 2100);
        histories.expire(u64::MAX);
        assert!(histories.is_empty());
    }

    #[test]
    fn slots_of_streams_are_used_again() {
        let mut histories = unlimited();
        for second in 0..1000 {
            histories.publish(&second.to_string(), RULES, &[0], (), 1000 * second);
            histories.expire(1000 * (second + 1));
        }
        assert_eq!(histories.streams.len(), 1);
    }

    #[test]
    fn splitmix64_is_the_known_one() {
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    impl<M> Histories<M> {
        fn assert_consistent(&self) {
            let live = || {
                self.streams
                    .iter()
                    .enumerate()
                    .filter_map(|(slot, stream)| {
                        stream.as_ref().map(|stream| (slot as u32, stream))
                    })
            };
            let idle = || live().filter(|(_, stream)| stream.publications.is_empty());
            for (slot, stream) in live() {
                assert_eq!(self.slots.get(&stream.name), Some(&slot));
                assert!(stream.queued <= stream.due());
                let offsets = stream.publications.iter().map(|kept| kept.offset);
                let first = stream.top + 1 - stream.publications.len() as u64;
                assert!(offsets.eq(first..=stream.top));
            }
            let queue: BTreeSet<_> = live().map(|(slot, s)| (s.queued, slot)).collect();
            assert_eq!(self.queue, queue);
            let idle_set: BTreeSet<_> = idle().map(|(slot, s)| (s.used, slot)).collect();
            assert_eq!(self.idle, idle_set);
            let idle_bytes: usize = idle().map(|(_, s)| Self::cost_of(&s.name)).sum();
            assert_eq!(self.idle_bytes, idle_bytes);
            assert_eq!(self.slots.len() + self.free.len(), self.streams.len());
            assert!(self.order.len() <= 2 * self.publications + MAX_GONE);
            let kept = self
                .order
                .iter()
                .filter(|entry| entry.is_kept(&self.streams));
            assert_eq!(kept.count(), self.publications);
        }
    }

    // ---- against a model ----

    const TOPICS: [&str; 4] = ["a", "bb", "ccc", "dddd"];

    /// By what the epoch of a request is chosen.
    #[derive(Clone, Copy, Debug)]
    enum Claim {
        Any,
        Current,
        Former,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish(usize, HistoryRules, usize),
        Share(usize, i64),
        Position(usize, HistoryRules),
        Read(usize, HistoryRules, Option<(Claim, i64)>, usize, bool),
        Recover(usize, HistoryRules, (Claim, i64), usize),
        Newest(usize, HistoryRules, Option<(Claim, i64)>),
        Clear(usize),
        Expire,
        Wait(u64),
    }

    fn rules() -> impl Strategy<Value = HistoryRules> {
        let ttl = prop_oneof![1 => Just(0_u64), 9 => 1..50_u64];
        (0..6_usize, ttl, 0..200_u64).prop_map(|(size, ttl, meta_ttl)| HistoryRules {
            size,
            ttl,
            meta_ttl,
        })
    }

    fn since() -> impl Strategy<Value = (Claim, i64)> {
        let claim = prop_oneof![Just(Claim::Any), Just(Claim::Current), Just(Claim::Former)];
        (
            claim,
            prop_oneof![20 => -7..3_i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX)],
        )
    }

    fn step() -> impl Strategy<Value = Step> {
        let topic = || 0..TOPICS.len();
        let limit = || prop_oneof![3 => 0..7_usize, 1 => Just(usize::MAX)];
        let size = prop_oneof![20 => 0..300_usize, 1 => 2000..3000_usize];
        prop_oneof![
            12 => (topic(), rules(), size).prop_map(|(t, r, n)| Step::Publish(t, r, n)),
            2 => (topic(), -7..3_i64).prop_map(|(t, n)| Step::Share(t, n)),
            2 => (topic(), rules()).prop_map(|(t, r)| Step::Position(t, r)),
            5 => (topic(), rules(), prop::option::of(since()), limit(), any::<bool>())
                .prop_map(|(t, r, s, n, reverse)| Step::Read(t, r, s, n, reverse)),
            5 => (topic(), rules(), since(), limit())
                .prop_map(|(t, r, s, n)| Step::Recover(t, r, s, n)),
            3 => (topic(), rules(), prop::option::of(since()))
                .prop_map(|(t, r, s)| Step::Newest(t, r, s)),
            1 => topic().prop_map(Step::Clear),
            2 => Just(Step::Expire),
            3 => prop_oneof![8 => 0..30_u64, 1 => 30..500_u64].prop_map(Step::Wait),
        ]
    }

    fn limit() -> impl Strategy<Value = usize> {
        let some = COST + stream_cost("a");
        prop_oneof![1 => Just(0), 6 => some..5 * some, 2 => Just(usize::MAX)]
    }

    /// Everything that was ever published.
    struct Ever {
        topic: usize,
        offset: u64,
        at: u64,
        payload: Vec<u8>,
        is_gone: bool,
    }

    struct Life {
        /// Known once it was told.
        epoch: Option<Epoch>,
        top: u64,
        fades: u64,
        ends: u64,
        used: u64,
    }

    #[derive(Default)]
    struct Model {
        ever: Vec<Ever>,
        lives: BTreeMap<usize, Life>,
        epochs: Vec<Epoch>,
        now: u64,
        uses: u64,
        max_bytes: usize,
        evicted: u64,
        evicted_streams: u64,
    }

    impl Model {
        fn kept(&self, topic: usize) -> Vec<&Ever> {
            let of_topic = |ever: &&Ever| ever.topic == topic && !ever.is_gone;
            self.ever.iter().filter(of_topic).collect()
        }

        fn drop_kept(&mut self, topic: usize, size: usize) -> u64 {
            let excess = self.kept(topic).len().saturating_sub(size);
            let kept = |ever: &&mut Ever| ever.topic == topic && !ever.is_gone;
            let dropped = self.ever.iter_mut().filter(kept).take(excess);
            dropped.for_each(|ever| ever.is_gone = true);
            excess as u64
        }

        fn settle(&mut self, topic: usize) {
            let Some(life) = self.lives.get(&topic) else {
                return;
            };
            let (fades, ends) = (life.fades, life.ends);
            if ends <= self.now {
                self.lives.remove(&topic);
            }
            if fades.min(ends) <= self.now {
                self.drop_kept(topic, 0);
            }
        }

        fn enter(&mut self, topic: usize, rules: HistoryRules) {
            self.settle(topic);
            self.uses += 1;
            let fresh = Life {
                epoch: None,
                top: 0,
                fades: u64::MAX,
                ends: 0,
                used: 0,
            };
            let life = self.lives.entry(topic).or_insert(fresh);
            life.used = self.uses;
            life.ends = self.now + rules.meta_ttl.max(rules.ttl);
            self.trim(topic);
        }

        fn idle_bytes(&self) -> usize {
            let idle = self
                .lives
                .keys()
                .filter(|topic| self.kept(**topic).is_empty());
            idle.map(|topic| stream_cost(TOPICS[*topic])).sum()
        }

        fn bytes(&self) -> usize {
            let kept = self.ever.iter().filter(|ever| !ever.is_gone);
            let streams = self.lives.keys().map(|topic| stream_cost(TOPICS[*topic]));
            kept.map(|ever| ever.payload.len() + COST).sum::<usize>() + streams.sum::<usize>()
        }

        fn publications(&self) -> usize {
            self.ever.iter().filter(|ever| !ever.is_gone).count()
        }

        fn trim(&mut self, in_use: usize) {
            while self.bytes() > self.max_bytes {
                let idle = self
                    .lives
                    .iter()
                    .filter(|(topic, _)| **topic != in_use && self.kept(**topic).is_empty());
                let longest_idle = idle
                    .min_by_key(|(_, life)| life.used)
                    .map(|(topic, _)| *topic);
                let must_go = self.idle_bytes() > self.max_bytes / 2 || self.publications() < 2;
                if let Some(topic) = longest_idle.filter(|_| must_go) {
                    self.lives.remove(&topic);
                    self.evicted_streams += 1;
                } else if let Some(oldest) = self.ever.iter_mut().find(|ever| !ever.is_gone) {
                    oldest.is_gone = true;
                    self.evicted += 1;
                } else {
                    return;
                }
            }
        }

        fn publish(&mut self, topic: usize, rules: HistoryRules, payload: Vec<u8>) {
            self.enter(topic, rules);
            let own = stream_cost(TOPICS[topic]);
            let fits = payload.len() + COST + own <= self.max_bytes;
            let life = self.lives.get_mut(&topic).unwrap();
            life.top += 1;
            life.fades = self.now + rules.ttl;
            let offset = life.top;
            if rules.size == 0 || rules.ttl == 0 {
                self.drop_kept(topic, 0);
            } else if fits {
                let at = self.now;
                self.ever.push(Ever {
                    topic,
                    offset,
                    at,
                    payload,
                    is_gone: false,
                });
                self.drop_kept(topic, rules.size);
                self.trim(topic);
            } else {
                self.evicted += 1 + self.drop_kept(topic, 0);
            }
        }

        /// Checks the position that was told.
        fn check(&mut self, topic: usize, position: Position) {
            let life = self.lives.get_mut(&topic).expect("the stream in use lives");
            assert_eq!(position.offset, life.top);
            match life.epoch {
                Some(epoch) => assert_eq!(position.epoch, epoch),
                None => assert!(!self.epochs.contains(&position.epoch)),
            }
            life.epoch = Some(position.epoch);
            if !self.epochs.contains(&position.epoch) {
                self.epochs.push(position.epoch);
            }
        }

        /// What somebody asks who does not know whether the stream has expired.
        fn claim(&self, topic: usize, (claim, delta): (Claim, i64)) -> (String, u64) {
            let life = self.lives.get(&topic);
            let epoch = life.and_then(|life| life.epoch);
            let former = || {
                self.epochs
                    .iter()
                    .copied()
                    .rfind(|former| Some(*former) != epoch)
            };
            let epoch = match claim {
                Claim::Any => None,
                Claim::Current => epoch,
                Claim::Former => former(),
            };
            let top = life.map_or(0, |life| life.top);
            let text = epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
            (text, top.saturating_add_signed(delta))
        }

        fn allows(&self, topic: usize, epoch: &str) -> bool {
            epoch.is_empty() || self.is_current(topic, epoch)
        }

        fn is_current(&self, topic: usize, epoch: &str) -> bool {
            let current = self.lives[&topic].epoch;
            current.is_some_and(|current| current.as_str() == epoch)
        }

        fn read(&self, topic: usize, query: &Query<'_>) -> Result<Vec<u64>, HistoryError> {
            if query
                .since
                .is_some_and(|since| !self.allows(topic, since.epoch))
            {
                return Err(HistoryError::WrongEpoch);
            }
            let mut found: Vec<_> = self.kept(topic).iter().map(|ever| ever.offset).collect();
            if query.reverse {
                found.reverse();
            }
            found.retain(|&offset| match query.since {
                Some(since) if query.reverse => offset < since.offset,
                Some(since) => offset > since.offset,
                None => true,
            });
            found.truncate(query.limit);
            Ok(found)
        }

        /// The conditions in the words of the protocol.
        fn recover(&self, topic: usize, since: Since<'_>, limit: usize) -> Option<Vec<u64>> {
            let top = self.lives[&topic].top;
            let query = Query {
                since: Some(since),
                limit,
                reverse: false,
            };
            let returned = self.read(topic, &query).ok()?;
            let is_recovered = match (returned.first(), returned.last()) {
                (Some(first), Some(last)) => *first == since.offset + 1 && *last == top,
                _ => top == since.offset,
            };
            is_recovered.then_some(returned)
        }

        fn newest(&self, topic: usize, since: Option<Since<'_>>) -> Option<Vec<u64>> {
            let top = self.lives[&topic].top;
            if since.is_some_and(|since| {
                since.offset > 0 && since.offset == top && self.is_current(topic, since.epoch)
            }) {
                return Some(vec![]);
            }
            let kept = self.kept(topic);
            let newest = kept.last().filter(|newest| newest.offset == top)?;
            Some(vec![newest.offset])
        }
    }

    struct Pair {
        histories: Histories<()>,
        model: Model,
    }

    impl Pair {
        fn new(max_bytes: usize) -> Self {
            Self {
                histories: Histories::new(7, max_bytes),
                model: Model {
                    max_bytes,
                    ..Model::default()
                },
            }
        }

        fn perform(&mut self, step: &Step) {
            let Self { histories, model } = self;
            match *step {
                Step::Publish(topic, rules, size) => {
                    let payload = vec![model.uses as u8; size];
                    let name = TOPICS[topic];
                    let position = histories.publish(name, rules, &payload, (), model.now);
                    model.publish(topic, rules, payload);
                    model.check(topic, position);
                }
                Step::Share(topic, delta) => {
                    let (_, offset) = model.claim(topic, (Claim::Any, delta));
                    let kept = model.kept(topic);
                    let kept = kept.iter().find(|ever| ever.offset == offset);
                    let payload = kept.map_or(&b"gone"[..], |kept| &kept.payload);
                    histories.share(TOPICS[topic], offset, Slice::copy_of(payload));
                }
                Step::Position(topic, rules) => {
                    let position = histories.position(TOPICS[topic], rules, model.now);
                    model.enter(topic, rules);
                    model.check(topic, position);
                }
                Step::Read(topic, rules, claim, limit, reverse) => {
                    self.read(topic, rules, claim, limit, reverse);
                }
                Step::Recover(topic, rules, claim, limit) => {
                    self.recover(topic, rules, claim, limit);
                }
                Step::Newest(topic, rules, claim) => self.newest(topic, rules, claim),
                Step::Clear(topic) => {
                    histories.clear(TOPICS[topic]);
                    model.drop_kept(topic, 0);
                }
                Step::Expire => {
                    histories.expire(model.now);
                    (0..TOPICS.len()).for_each(|topic| model.settle(topic));
                    assert!(histories.next_expiry().is_none_or(|at| at > model.now));
                }
                Step::Wait(time) => model.now += time,
            }
        }

        fn read(
            &mut self,
            topic: usize,
            rules: HistoryRules,
            claim: Option<(Claim, i64)>,
            limit: usize,
            reverse: bool,
        ) {
            let Self { histories, model } = self;
            let claim = claim.map(|claim| model.claim(topic, claim));
            let since = claim.as_ref().map(|(epoch, offset)| seen(epoch, *offset));
            let query = Query {
                since,
                limit,
                reverse,
            };
            let read = histories.read(TOPICS[topic], rules, &query, model.now);
            let read = read.map(|(position, found)| (position, found.collect::<Vec<_>>()));
            if rules.size == 0 || rules.ttl == 0 {
                assert_eq!(read, Err(HistoryError::Off));
                return;
            }
            if reverse && since.is_some_and(|since| since.offset == 0) {
                assert_eq!(read, Err(HistoryError::BadOffset));
                return;
            }
            model.enter(topic, rules);
            let expected = model.read(topic, &query);
            match read {
                Ok((position, found)) => {
                    assert_eq!(Ok(offsets(found.iter().copied())), expected);
                    for found in found {
                        let mut kept = model.kept(topic).into_iter();
                        let ever = kept.find(|ever| ever.offset == found.offset).unwrap();
                        assert_eq!((&*found.payload, found.at), (&*ever.payload, ever.at));
                    }
                    model.check(topic, position);
                }
                Err(error) => assert_eq!(Err(error), expected),
            }
        }

        fn recover(
            &mut self,
            topic: usize,
            rules: HistoryRules,
            claim: (Claim, i64),
            limit: usize,
        ) {
            let Self { histories, model } = self;
            let (epoch, offset) = &model.claim(topic, claim);
            let since = seen(epoch, *offset);
            let recovered = histories.recover(TOPICS[topic], rules, &since, limit, model.now);
            model.enter(topic, rules);
            let expected = model.recover(topic, since, limit);
            assert_eq!(
                recovered.publications.map(offsets),
                expected.filter(|_| rules.is_on())
            );
            model.check(topic, recovered.position);
        }

        fn newest(&mut self, topic: usize, rules: HistoryRules, claim: Option<(Claim, i64)>) {
            let Self { histories, model } = self;
            let claim = claim.map(|claim| model.claim(topic, claim));
            let since = claim.as_ref().map(|(epoch, offset)| seen(epoch, *offset));
            let newest = histories.newest(TOPICS[topic], rules, since.as_ref(), model.now);
            model.enter(topic, rules);
            let expected = model.newest(topic, since);
            assert_eq!(
                newest.publications.map(offsets),
                expected.filter(|_| rules.is_on())
            );
            model.check(topic, newest.position);
        }

        fn assert_same(&self) {
            let Self { histories, model } = self;
            histories.assert_consistent();
            assert_eq!(histories.bytes(), model.bytes());
            assert_eq!(histories.len(), model.lives.len());
            assert_eq!(histories.publications(), model.publications());
            assert_eq!(histories.evicted(), model.evicted);
            assert_eq!(histories.evicted_streams(), model.evicted_streams);
            let due = model.lives.iter().map(|(topic, life)| {
                let has_kept = !model.kept(*topic).is_empty();
                if has_kept {
                    life.fades.min(life.ends)
                } else {
                    life.ends
                }
            });
            let due = due.min();
            assert_eq!(histories.next_expiry().is_some(), due.is_some());
            assert!(histories.next_expiry() <= due);
            assert!(histories.bytes() <= model.max_bytes || histories.len() == 1);
        }
    }

    proptest! {
        #[test]
        fn histories_behave_as_a_list_of_everything_ever_published(
            max_bytes in limit(),
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let mut pair = Pair::new(max_bytes);
            for step in &steps {
                pair.perform(step);
                pair.assert_same();
            }
            let Pair { mut histories, model } = pair;
            histories.expire(model.now + 1000);
            prop_assert_eq!((histories.bytes(), histories.len()), (0, 0));
            histories.assert_consistent();
        }
    }
}
