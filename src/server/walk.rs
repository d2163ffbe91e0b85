//! The way of a batch to its subscribers: each gets one send, and the walk pauses where others
//! would have to wait too long for their turn.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::publication::Form;
use super::publish::{Batch, Encode, Parts};
use crate::topic::TopicTable;

/// The bytes that the sends of one turn offer to the kernel, after which the walk pauses as it does
/// after `walk_sends` of them: about a millisecond.
const BYTES: usize = 4 << 20;

/// How far a walk may go in this turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    sends: usize,
    bytes: usize,
}

impl Budget {
    /// What one turn spends.
    pub(crate) fn of_turn(sends: usize) -> Self {
        Self {
            sends,
            bytes: BYTES,
        }
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.sends = self.sends.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.sends == 0 || self.bytes == 0
    }
}

/// A batch on its way.
///
/// Members that wait for theirs are in `rest`; whoever is settled out of turn, or ends, is only
/// taken out of `owed`. So a slab key that is used again while the walk goes on is owed nothing.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) batch: Batch,
    /// Members that are left, with their groups; taken from the end.
    rest: Vec<(u32, u32)>,
    owed: Members,
    audience: Audience,
    /// What the group that was served last gets.
    current: Option<Course>,
}

/// What a group of subscribers gets.
#[derive(Debug)]
struct Course {
    group: u32,
    /// Their messages; of group 0, for which it is all of them, only where one may be dropped.
    entries: Vec<u32>,
    /// By form, as soon as somebody has needed it.
    parts: [Option<Parts>; Form::COUNT],
}

impl Course {
    #[inline]
    fn has(&self, form: Form) -> bool {
        self.parts[form.index()].is_some()
    }
}

impl Walk {
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether a member waits for its part.
    #[inline]
    pub(crate) fn owes(&self, member: u32) -> bool {
        !self.rest.is_empty() && self.owed.contains(member)
    }

    /// The member does not wait any more: it is settled, or gone.
    pub(crate) fn forget(&mut self, member: u32) {
        self.owed.remove(member);
    }

    /// Starts with the messages of `batch`, which becomes empty. The last walk is over.
    pub(crate) fn begin(&mut self, batch: &mut Batch, topics: &TopicTable) {
        debug_assert!(self.is_over());
        std::mem::swap(&mut self.batch, batch);
        let mut touched = self.batch.touched();
        if let (Some(topic), None) = (touched.next(), touched.next()) {
            let subscribers = topics.subscribers(topic).iter();
            self.rest.extend(subscribers.map(|&member| (member, 0)));
        } else {
            self.audience.gather(&self.batch, topics);
            self.rest.extend(self.audience.members());
        }
        for &(member, _) in &self.rest {
            self.owed.insert(member);
        }
    }

    /// The next member that waits, and its group.
    pub(crate) fn next(&mut self) -> Option<(u32, u32)> {
        while let Some((member, group)) = self.rest.pop() {
            if self.owed.remove(member) {
                return Some((member, group));
            }
        }
        None
    }

    /// The batch is with everyone: nobody needs the parts any more.
    pub(crate) fn end(&mut self) {
        self.current = None;
    }

    /// What members of a group with this form get: of the batch these messages, which are these
    /// bytes. The messages are listed only where one may have to be dropped.
    pub(crate) fn course(
        &mut self,
        group: u32,
        form: Form,
        encode: Encode,
    ) -> (&Batch, &[u32], &Parts) {
        let is_made = |course: &Course| course.group == group && course.has(form);
        if !self.current.as_ref().is_some_and(is_made) {
            self.make(group, form, encode);
        }
        let course = self.current.as_ref();
        let course = course.expect("it was just made sure of");
        let parts = course.parts[form.index()].as_ref();
        (
            &self.batch,
            &course.entries,
            parts.expect("they were just made"),
        )
    }

    #[inline(never)]
    fn make(&mut self, group: u32, form: Form, encode: Encode) {
        self.enter(group);
        self.batch.prepare(form, encode);
        if let Some(course) = &mut self.current {
            course.parts[form.index()] = Some(match group {
                0 => self.batch.whole(form),
                _ => self.batch.gather(form, &course.entries),
            });
        }
    }

    fn enter(&mut self, group: u32) {
        if matches!(&self.current, Some(course) if course.group == group) {
            return;
        }
        let entries = match group {
            0 if !self.batch.is_droppable() => Vec::new(),
            0 => self.batch.all(),
            _ => self.batch.entries_for(&self.audience.slots(group)),
        };
        self.current = Some(Course {
            group,
            entries,
            parts: Default::default(),
        });
    }
}

/// A set of members, a bit for each.
#[derive(Debug, Default)]
struct Members(Vec<u64>);

impl Members {
    #[inline]
    fn place(member: u32) -> (usize, u64) {
        (member as usize / 64, 1 << (member % 64))
    }

    fn insert(&mut self, member: u32) {
        let (word, bit) = Self::place(member);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    #[inline]
    fn contains(&self, member: u32) -> bool {
        let (word, bit) = Self::place(member);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Answers whether it was in the set.
    fn remove(&mut self, member: u32) -> bool {
        let (word, bit) = Self::place(member);
        let Some(bits) = self.0.get_mut(word) else {
            return false;
        };
        let was = *bits & bit != 0;
        *bits &= !bit;
        was
    }
}

/// Groups the subscribers of several topics by which of the topics they have: everyone of a group
/// gets the same bytes.
#[derive(Debug, Default)]
struct Audience {
    /// For each member key: the walk that last saw it and its group.
    marks: Vec<(u64, u32)>,
    walk: u64,
    /// Members by group.
    members: Vec<u32>,
    /// The touched topics of each group, by their slots, as a chain: one slot more than another
    /// group. Group 0 has none and is the end of every chain.
    groups: Vec<(u32, u32)>,
    /// How many members each group has.
    sizes: Vec<u32>,
    /// The group that results when a topic is added to a group.
    next: HashMap<(u32, u32), u32>,
}

impl Audience {
    /// Finds the members of all touched topics and their groups.
    fn gather(&mut self, batch: &Batch, topics: &TopicTable) {
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
        let sizes = &mut self.sizes;
        sizes.clear();
        sizes.resize(self.groups.len(), 0);
        for &member in &self.members {
            sizes[marks[member as usize].1 as usize] += 1;
        }
        // Served from the end: few do not wait for many.
        self.members.sort_unstable_by_key(|&member| {
            let group = marks[member as usize].1;
            (Reverse(sizes[group as usize]), group)
        });
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

    /// The members that were found, with their groups. The members of a group are neighbours.
    fn members(&self) -> impl Iterator<Item = (u32, u32)> {
        self.members
            .iter()
            .map(|&member| (member, self.marks[member as usize].1))
    }

    /// The touched topics of a group, by their slots.
    fn slots(&self, mut group: u32) -> Vec<u32> {
        let mut slots = Vec::new();
        while group != 0 {
            let (rest, slot) = self.groups[group as usize];
            slots.push(slot);
            group = rest;
        }
        slots
    }
}
