//! What is published in a turn: each message encoded once, in program order, with its topic.
//!
//! Publishing touches no subscriber. At the end of the turn the loop asks who gets what: the parts
//! of the batch for one set of topics, and for the few connections that joined, left or were
//! written to in between, the parts behind their cursor.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::protocol::{Message, write_unmasked_frame};
use crate::topic::{TopicId, TopicTable};

/// The messages of one turn.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The encoded frames, one behind the other. Slow subscribers keep references.
    bytes: Option<Arc<Vec<u8>>>,
    entries: Vec<Entry>,
    /// The topics that were published to; those behind `touched_len` are kept for their memory.
    touched: Vec<Touched>,
    touched_len: usize,
    /// For each topic index: the turn in which it was touched, and its place in `touched`.
    marks: Vec<(u64, u32)>,
    turn: u64,
    /// For connections that left the common course: the entry from which on they get theirs.
    cursors: HashMap<u32, usize>,
    /// Members that are excepted from an entry.
    excepted: HashSet<u32>,
}

#[derive(Debug)]
struct Entry {
    range: Range<usize>,
    except: Option<u32>,
}

#[derive(Debug)]
struct Touched {
    topic: TopicId,
    entries: Vec<u32>,
}

/// Parts of a batch that one connection gets.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) range: Range<usize>,
}

impl Batch {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Encodes a message for a topic; `except` does not get it.
    pub(crate) fn push(&mut self, topic: TopicId, message: Message<'_>, except: Option<u32>) {
        if self.is_empty() {
            self.turn += 1;
        }
        // No subscriber holds the bytes while a turn collects: `clear` saw to it.
        let bytes = Arc::make_mut(self.bytes.get_or_insert_default());
        let start = bytes.len();
        let opcode = message.kind().into();
        write_unmasked_frame(opcode, message.payload(), bytes);
        let entry = self.entries.len() as u32;
        self.entries.push(Entry {
            range: start..bytes.len(),
            except,
        });
        self.excepted.extend(except);
        let slot = self.touch(topic);
        self.touched[slot].entries.push(entry);
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
        (turn == self.turn && !self.is_empty_turn()).then_some(slot as usize)
    }

    fn is_empty_turn(&self) -> bool {
        self.touched_len == 0
    }

    /// The topics that were published to in this turn.
    pub(crate) fn touched(&self) -> impl Iterator<Item = TopicId> {
        self.touched[..self.touched_len]
            .iter()
            .map(|touched| touched.topic)
    }

    /// Whether this member gets something else than the others with its topics.
    pub(crate) fn is_exception(&self, member: u32) -> bool {
        !self.cursors.is_empty() && self.cursors.contains_key(&member)
            || self.excepted.contains(&member)
    }

    /// Whether any member is an exception.
    pub(crate) fn has_exceptions(&self) -> bool {
        !self.cursors.is_empty() || !self.excepted.is_empty()
    }

    /// Everything that was published in this turn.
    pub(crate) fn whole(&self) -> Parts {
        let bytes = self.shared();
        Parts {
            range: 0..bytes.len(),
            bytes,
        }
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

    /// How many bytes were published in this turn.
    pub(crate) fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }

    /// What `member` has to get of the batch so far, as ranges of [`bytes`](Self::bytes).
    pub(crate) fn pending(&self, topics: &TopicTable, member: u32) -> Vec<Range<usize>> {
        let cursor = self.cursors.get(&member).copied().unwrap_or(0);
        let slots = topics
            .topics_of(member)
            .filter_map(|topic| self.slot(topic));
        self.ranges(slots, cursor, Some(member))
    }

    /// The entries of these touched topics from `cursor` on, in program order and without those
    /// that `member` is excepted from, as joined ranges.
    fn ranges(
        &self,
        slots: impl Iterator<Item = usize>,
        cursor: usize,
        member: Option<u32>,
    ) -> Vec<Range<usize>> {
        let mut indices: Vec<u32> = Vec::new();
        for slot in slots {
            // Each list ascends: what is settled is not looked at again.
            let entries = &self.touched[slot].entries;
            let first = entries.partition_point(|&entry| (entry as usize) < cursor);
            indices.extend_from_slice(&entries[first..]);
        }
        indices.sort_unstable();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for index in indices {
            let entry = &self.entries[index as usize];
            if member.is_some() && entry.except == member {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end == entry.range.start => last.end = entry.range.end,
                _ => ranges.push(entry.range.clone()),
            }
        }
        ranges
    }

    /// The parts for a set of touched topics: one piece of the batch where they are neighbours in
    /// it, a merged copy otherwise.
    pub(crate) fn merged(&self, slots: &[u32]) -> Parts {
        let ranges = self.ranges(slots.iter().map(|&slot| slot as usize), 0, None);
        self.gather(&ranges)
    }

    /// These ranges as one piece: shared where they are most of the batch, so that a slow reader
    /// of little does not hold on to much.
    pub(crate) fn gather(&self, ranges: &[Range<usize>]) -> Parts {
        if let [range] = ranges
            && range.len() >= self.len() / 2
        {
            return Parts {
                bytes: self.shared(),
                range: range.clone(),
            };
        }
        let mut bytes = Vec::with_capacity(ranges.iter().map(Range::len).sum());
        for range in ranges {
            bytes.extend_from_slice(self.bytes(range.clone()));
        }
        Parts {
            range: 0..bytes.len(),
            bytes: Arc::new(bytes),
        }
    }

    /// The bytes of a range.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.as_ref().map_or(&[], |bytes| &bytes[range])
    }

    fn shared(&self) -> Arc<Vec<u8>> {
        self.bytes.clone().unwrap_or_default()
    }

    /// Ends the turn. Bytes that a slow subscriber still refers to are left to it.
    pub(crate) fn clear(&mut self) {
        /// What a batch may keep for the next turn; a burst gives its memory back.
        const KEPT: usize = 1 << 20;
        match self.bytes.as_mut().and_then(Arc::get_mut) {
            Some(bytes) if bytes.capacity() <= KEPT => bytes.clear(),
            _ => self.bytes = None,
        }
        self.entries.clear();
        for touched in &mut self.touched[..self.touched_len] {
            touched.entries.clear();
        }
        self.touched_len = 0;
        self.cursors.clear();
        self.excepted.clear();
    }
}

/// Groups the subscribers of several topics by which of the topics they have: everyone of a group
/// gets the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    /// For each member key: the walk that last saw it and its group.
    marks: Vec<(u64, u32)>,
    walk: u64,
    /// Members by group.
    members: Vec<u32>,
    /// The touched topics of each group, by their slots, as a chain: one slot more than another
    /// group. Group 0 has none and is the end of every chain.
    groups: Vec<(u32, u32)>,
    /// The group that results when a topic is added to a group.
    next: HashMap<(u32, u32), u32>,
}

impl Audience {
    /// Finds the members of all touched topics and their groups.
    pub(crate) fn gather(&mut self, batch: &Batch, topics: &TopicTable) {
        self.walk += 1;
        self.members.clear();
        self.next.clear();
        self.groups.clear();
        self.groups.push((0, 0));
        for (slot, topic) in batch.touched().enumerate() {
            for &member in topics.subscribers(topic) {
                self.add(member, slot as u32);
            }
        }
        let marks = &self.marks;
        self.members
            .sort_unstable_by_key(|&member| marks[member as usize].1);
    }

    fn add(&mut self, member: u32, slot: u32) {
        let key = member as usize;
        if self.marks.len() <= key {
            self.marks.resize(key + 1, (0, 0));
        }
        let (walk, group) = self.marks[key];
        let group = if walk == self.walk {
            group
        } else {
            self.members.push(member);
            0
        };
        self.marks[key] = (self.walk, self.group_with(group, slot));
    }

    fn group_with(&mut self, group: u32, slot: u32) -> u32 {
        let groups = &mut self.groups;
        *self.next.entry((group, slot)).or_insert_with(|| {
            groups.push((group, slot));
            groups.len() as u32 - 1
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// A member that was found, with its group. The members of a group are neighbours.
    pub(crate) fn member(&self, index: usize) -> (u32, u32) {
        let member = self.members[index];
        (member, self.marks[member as usize].1)
    }

    /// The touched topics of a group, by their slots.
    pub(crate) fn slots(&self, mut group: u32) -> Vec<u32> {
        let mut slots = Vec::new();
        while group != 0 {
            let (rest, slot) = self.groups[group as usize];
            slots.push(slot);
            group = rest;
        }
        slots
    }
}
