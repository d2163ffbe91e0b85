//! What is published in a turn: each message encoded once for each form, in program order, with
//! its topics.
//!
//! Publishing touches no subscriber. At the end of the turn the loop asks who gets what: the parts
//! of the batch for one set of topics, and for the few connections that joined, left or were
//! written to in between, the parts behind their cursor.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::frames::Frames;
use super::publication::{Form, Output, Publication, Tags, note_weight};
use super::stats::Cause;
use crate::protocol::{CloseCode, Message, MessageKind, write_unmasked_frame};
use crate::topic::{NamespaceId, Position, Slice, TopicId, TopicTable};

/// Writes a publication in one of the application's forms.
pub(crate) type Encode = fn(Form, &Publication<'_>, &mut Output<'_>);

/// Ends what is said to a connection of a form, and says with which code and reason it is closed.
pub(crate) type Farewell = fn(Form, Cause, &mut Output<'_>) -> Option<(CloseCode, &'static str)>;

/// From this size on a payload is in memory once for its subscribers and its history; smaller
/// ones are copied, since the smallest reference costs as much.
pub(crate) const SHARED: usize = 4 << 10;

/// What is noted of each message: its entry, where its source is, and where it ends.
const ENTRY: usize = size_of::<Entry>() + 2 * size_of::<usize>();

/// The messages of one turn.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// By form: the encoded messages, one behind the other. The plain ones are written when they
    /// are published, those of other forms when the first connection needs them.
    encodings: [Encoding; Form::COUNT],
    entries: Vec<Entry>,
    /// By entry, what other forms are made of; as far as anybody has one.
    sources: Vec<Option<Box<Source>>>,
    /// The topics that were published to; those behind `touched_len` are kept for their memory.
    touched: Vec<Touched>,
    touched_len: usize,
    /// For each topic index: the turn in which it was touched, and its place in `touched`.
    marks: Vec<(u32, u32)>,
    turn: u32,
    /// For connections that left the common course: the entry from which on they get theirs.
    cursors: HashMap<u32, usize>,
    /// Members that are excepted from an entry.
    excepted: HashSet<u32>,
    /// Some message may be dropped where a subscriber is slow.
    is_droppable: bool,
    /// The most subscribers that one message has.
    reached: usize,
    /// Bytes that are noted beside the messages.
    notes: usize,
    /// When the first message was published.
    began: Option<Instant>,
}

/// The messages of a batch in one form.
#[derive(Debug, Default)]
struct Encoding {
    /// Slow subscribers keep references.
    bytes: Option<Arc<Frames>>,
    /// Where each message ends.
    ends: Vec<usize>,
}

/// One message of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) namespace: NamespaceId,
    /// Messages of one lane replace each other where only the latest counts; 0 elsewhere.
    pub(crate) lane: u64,
    except: Option<u32>,
}

/// What is published, and how.
pub(crate) struct Item<'i> {
    pub(crate) message: Message<'i>,
    pub(crate) entry: Entry,
    pub(crate) is_droppable: bool,
    /// For the forms of the application, if there is a connection with one.
    pub(crate) source: Option<Box<Source>>,
}

/// What the application's forms are made of, beside the payload.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) topic: Box<str>,
    pub(crate) kind: MessageKind,
    pub(crate) payload_len: usize,
    pub(crate) position: Option<Position>,
    pub(crate) tags: Option<Tags>,
    pub(crate) note: Option<Arc<[u8]>>,
}

#[derive(Debug)]
struct Touched {
    topic: TopicId,
    entries: Vec<u32>,
}

/// Parts of a batch that connections of one form get.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) bytes: Arc<Frames>,
    pub(crate) range: Range<usize>,
    /// How many messages they are.
    pub(crate) messages: u64,
}

impl Entry {
    pub(crate) fn new(namespace: NamespaceId, lane: u64, except: Option<u32>) -> Self {
        Self {
            namespace,
            lane,
            except,
        }
    }
}

impl Encoding {
    fn range(&self, entry: usize) -> Range<usize> {
        let start = entry.checked_sub(1).map_or(0, |last| self.ends[last]);
        start..self.ends[entry]
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.as_ref().map_or(&[], |bytes| &bytes[range])
    }

    fn shared(&self) -> Arc<Frames> {
        self.bytes.clone().unwrap_or_default()
    }

    /// Appends a message. No subscriber holds the bytes while a turn collects: `clear` saw to it.
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let frames = Arc::get_mut(self.bytes.get_or_insert_default());
        let bytes = frames.expect("nobody else has it").bytes_mut();
        write(bytes);
        self.ends.push(bytes.len());
    }

    /// Bytes that a slow subscriber still refers to are left to it.
    fn clear(&mut self) {
        /// What a batch may keep for the next turn; a burst gives its memory back.
        const KEPT: usize = 1 << 20;
        match self.bytes.as_mut().and_then(Arc::get_mut) {
            Some(frames) if frames.capacity() <= KEPT && !frames.is_lent() => {
                frames.bytes_mut().clear();
            }
            _ => self.bytes = None,
        }
        self.ends.clear();
    }
}

impl Batch {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a message for these topics.
    pub(crate) fn push(
        &mut self,
        item: Item<'_>,
        topics: &[TopicId],
        subscribers: usize,
        now: Instant,
    ) {
        if self.is_empty() {
            self.begin_turn(now);
        }
        self.reached = self.reached.max(subscribers);
        let message = item.message;
        self.encodings[Form::PLAIN.index()]
            .push(|bytes| write_unmasked_frame(message.kind().into(), message.payload(), bytes));
        let entry = self.entries.len() as u32;
        self.excepted.extend(item.entry.except);
        self.entries.push(item.entry);
        if let Some(source) = &item.source {
            let note = source.note.as_ref().map_or(0, note_weight);
            self.notes += size_of::<Source>() + source.topic.len() + note;
        }
        self.sources.push(item.source);
        self.is_droppable |= item.is_droppable;
        self.notes += ENTRY + size_of_val(topics);
        for &topic in topics {
            let slot = self.touch(topic);
            self.touched[slot].entries.push(entry);
        }
    }

    fn begin_turn(&mut self, now: Instant) {
        self.began = Some(now);
        self.turn = self.turn.wrapping_add(1);
        if self.turn == 0 {
            // The marks of turns that long ago would count again.
            self.marks.clear();
            self.turn = 1;
        }
    }

    fn touch(&mut self, topic: TopicId) -> usize {
        if let Some(slot) = self.slot(topic) {
            return slot;
        }
        let slot = self.touched_len;
        match self.touched.get_mut(slot) {
            Some(touched) => touched.topic = topic,
            None => self.touched.push(Touched {
                topic,
                entries: Vec::new(),
            }),
        }
        self.touched_len += 1;
        if self.marks.len() <= topic.index() {
            self.marks.resize(topic.index() + 1, (0, 0));
        }
        self.marks[topic.index()] = (self.turn, slot as u32);
        slot
    }

    fn slot(&self, topic: TopicId) -> Option<usize> {
        let &(turn, slot) = self.marks.get(topic.index())?;
        (turn == self.turn && self.touched_len > 0).then_some(slot as usize)
    }

    /// The topics that were published to in this turn.
    pub(crate) fn touched(&self) -> impl ExactSizeIterator<Item = TopicId> {
        self.touched[..self.touched_len]
            .iter()
            .map(|touched| touched.topic)
    }

    /// Whether this member gets something else than the others with its topics.
    pub(crate) fn is_exception(&self, member: u32) -> bool {
        self.cursors.contains_key(&member) || self.excepted.contains(&member)
    }

    /// Whether any member is one.
    pub(crate) fn has_exceptions(&self) -> bool {
        !self.cursors.is_empty() || !self.excepted.is_empty()
    }

    /// Whether messages may be dropped where a subscriber is slow.
    pub(crate) fn is_droppable(&self) -> bool {
        self.is_droppable
    }

    /// The most subscribers that one message has.
    pub(crate) fn reached(&self) -> usize {
        self.reached
    }

    /// When its first message was published.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// From here on `member` gets what is published; what was before is settled.
    pub(crate) fn set_cursor(&mut self, member: u32) {
        self.cursors.insert(member, self.entries.len());
    }

    /// Whether anything was published in this turn to a topic of `member`.
    pub(crate) fn touches(&self, topics: &TopicTable, member: u32) -> bool {
        topics
            .topics_of(member)
            .any(|topic| self.slot(topic).is_some())
    }

    /// How much memory it takes, about: small messages to many topics are more than their bytes.
    pub(crate) fn weight(&self) -> usize {
        let plain = &self.encodings[Form::PLAIN.index()];
        plain.bytes.as_ref().map_or(0, |bytes| bytes.len()) + self.notes
    }

    /// Writes what was published so far in this form, if that was not done.
    pub(crate) fn prepare(&mut self, form: Form, encode: Encode) {
        let [plain, others @ ..] = &mut self.encodings;
        let Some(encoding) = form.index().checked_sub(1).map(|at| &mut others[at]) else {
            return;
        };
        for index in encoding.ends.len()..self.sources.len() {
            encoding.push(|bytes| {
                // Without a source nobody had a form of the application's when it was published.
                let Some(source) = &self.sources[index] else {
                    return;
                };
                let frame = plain.bytes(plain.range(index));
                let payload = &frame[frame.len() - source.payload_len..];
                let publication = Publication {
                    topic: &source.topic,
                    message: Message::from_parts(source.kind, payload),
                    position: source.position,
                    tags: source.tags.as_ref(),
                    note: source.note.as_deref(),
                };
                encode(form, &publication, &mut Output::new(bytes));
            });
        }
    }

    /// The messages that `member` has to get of the batch so far, in program order.
    pub(crate) fn pending(&self, topics: &TopicTable, member: u32) -> Vec<u32> {
        let cursor = self.cursors.get(&member).copied().unwrap_or(0);
        let slots = topics
            .topics_of(member)
            .filter_map(|topic| self.slot(topic));
        let mut entries = self.entries_of(slots, cursor);
        entries.retain(|&entry| self.entries[entry as usize].except != Some(member));
        entries
    }

    /// The messages of these touched topics from `cursor` on, each once and in program order.
    fn entries_of(&self, slots: impl Iterator<Item = usize>, cursor: usize) -> Vec<u32> {
        let mut entries: Vec<u32> = Vec::new();
        for slot in slots {
            // Each list ascends: what is settled is not looked at again.
            let of_topic = &self.touched[slot].entries;
            let first = of_topic.partition_point(|&entry| (entry as usize) < cursor);
            entries.extend_from_slice(&of_topic[first..]);
        }
        entries.sort_unstable();
        // A message that went to a topic and to patterns is in the list of each.
        entries.dedup();
        entries
    }

    /// The messages for a set of touched topics.
    pub(crate) fn entries_for(&self, slots: &[u32]) -> Vec<u32> {
        self.entries_of(slots.iter().map(|&slot| slot as usize), 0)
    }

    /// All messages.
    pub(crate) fn all(&self) -> Vec<u32> {
        (0..self.entries.len() as u32).collect()
    }

    pub(crate) fn entry(&self, index: u32) -> Entry {
        self.entries[index as usize]
    }

    /// The encoded messages, which must be [`prepare`](Self::prepare)d, as joined ranges.
    fn ranges(&self, form: Form, entries: &[u32]) -> Vec<Range<usize>> {
        let encoding = &self.encodings[form.index()];
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for &entry in entries {
            let range = encoding.range(entry as usize);
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    /// All messages as one piece.
    pub(crate) fn whole(&self, form: Form) -> Parts {
        let bytes = self.encodings[form.index()].shared();
        Parts {
            range: 0..bytes.len(),
            bytes,
            messages: self.entries.len() as u64,
        }
    }

    /// These messages as one piece: shared where they are most of the batch, so that a slow reader
    /// of little does not hold on to much; a merged copy otherwise.
    pub(crate) fn gather(&self, form: Form, entries: &[u32]) -> Parts {
        let messages = entries.len() as u64;
        let encoding = &self.encodings[form.index()];
        let ranges = self.ranges(form, entries);
        let whole = encoding.bytes.as_ref().map_or(0, |bytes| bytes.len());
        if let [range] = &ranges[..]
            && range.len() >= whole / 2
        {
            return Parts {
                bytes: encoding.shared(),
                range: range.clone(),
                messages,
            };
        }
        let mut bytes = Vec::with_capacity(ranges.iter().map(Range::len).sum());
        for range in ranges {
            bytes.extend_from_slice(encoding.bytes(range));
        }
        Parts {
            range: 0..bytes.len(),
            bytes: Arc::new(Frames::from(bytes)),
            messages,
        }
    }

    /// These messages as a copy of their own: the batch goes on collecting.
    pub(crate) fn gather_copy(&self, form: Form, entries: &[u32]) -> Parts {
        let mut bytes = Vec::new();
        self.copy(form, entries, &mut bytes);
        Parts {
            range: 0..bytes.len(),
            bytes: Arc::new(Frames::from(bytes)),
            messages: entries.len() as u64,
        }
    }

    /// How long one encoded message is.
    pub(crate) fn len_of(&self, form: Form, entry: u32) -> usize {
        self.encodings[form.index()].range(entry as usize).len()
    }

    /// Appends these messages to `output`.
    pub(crate) fn copy(&self, form: Form, entries: &[u32], output: &mut Vec<u8>) {
        let encoding = &self.encodings[form.index()];
        for range in self.ranges(form, entries) {
            output.extend_from_slice(encoding.bytes(range));
        }
    }

    /// Offers the payload of a large message that a history keeps, with its topic and offset: the
    /// same memory can serve both. Not where other messages are most of the batch, which it would
    /// keep alive, nor where subscribers wait for it, whose memory is counted elsewhere.
    pub(crate) fn share(&mut self, share: impl FnOnce(&str, u64, Slice)) {
        let plain = &mut self.encodings[Form::PLAIN.index()];
        let whole = plain.bytes.as_ref().map_or(0, |bytes| bytes.len());
        let large = self.sources.iter().enumerate().find_map(|(index, source)| {
            let source = source.as_deref()?;
            let is_most = source.payload_len >= SHARED.max(whole / 2);
            Some((index, source, source.position.filter(|_| is_most)?))
        });
        let Some((index, source, position)) = large else {
            return;
        };
        let Some(frames) = plain.bytes.as_mut().and_then(Arc::get_mut) else {
            return;
        };
        if frames.is_lent() {
            return;
        }
        frames.bytes_mut().shrink_to_fit();
        let end = plain.ends[index];
        let payload = end - source.payload_len..end;
        let payload = Slice::new(plain.shared(), payload);
        share(&source.topic, position.offset, payload);
    }

    /// Ends the turn.
    pub(crate) fn clear(&mut self) {
        for encoding in &mut self.encodings {
            encoding.clear();
        }
        self.entries.clear();
        self.sources.clear();
        for touched in &mut self.touched[..self.touched_len] {
            touched.entries.clear();
        }
        self.touched_len = 0;
        self.cursors.clear();
        self.excepted.clear();
        self.is_droppable = false;
        (self.reached, self.notes) = (0, 0);
        self.began = None;
    }
}
