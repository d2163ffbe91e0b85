//! Names with wildcards: their grammar, a trie of them, and which of them match the topics of a
//! table.
//!
//! Knows nothing of subscribers.

use std::collections::HashMap;
use std::str::Split;

use super::table::{TopicError, TopicId, TopicTable};

const LEVEL_END: char = '.';
const ANY_LEVEL: &str = "*";
const ALL_THAT_REMAIN: &str = ">";

/// Whether a level of this name is a wildcard.
pub(super) fn is_pattern(name: &str) -> bool {
    name.split(LEVEL_END).any(is_wildcard)
}

fn is_wildcard(level: &str) -> bool {
    matches!(level, ANY_LEVEL | ALL_THAT_REMAIN)
}

/// Refuses a pattern that would match everything, or that says what no pattern can mean.
pub(super) fn check_pattern(pattern: &str) -> Result<(), TopicError> {
    let levels = pattern.split(LEVEL_END);
    let count = levels.clone().count();
    if count > TopicTable::MAX_PATTERN_LEVELS {
        return Err(TopicError::TooManyLevels);
    }
    if levels.clone().all(is_wildcard) {
        return Err(TopicError::OnlyWildcards);
    }
    let mut but_last = levels.take(count - 1);
    if but_last.any(|level| level == ALL_THAT_REMAIN) {
        return Err(TopicError::MisplacedTail);
    }
    Ok(())
}

/// Patterns by their levels, each with a value. Those that were checked make it at most
/// [`TopicTable::MAX_PATTERN_LEVELS`] deep.
#[derive(Clone, Debug)]
pub(super) struct Trie<T> {
    named: HashMap<Box<str>, Box<Trie<T>>>,
    /// Behind `*`.
    any: Option<Box<Trie<T>>>,
    /// The pattern that ends here.
    end: Option<T>,
    /// The pattern that ends here with `>`.
    tail: Option<T>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self {
            named: HashMap::new(),
            any: None,
            end: None,
            tail: None,
        }
    }
}

impl<T: Copy> Trie<T> {
    /// Enters a checked pattern.
    pub(super) fn insert(&mut self, pattern: &str, value: T) {
        let mut node = self;
        for level in pattern.split(LEVEL_END) {
            node = match level {
                ALL_THAT_REMAIN => {
                    node.tail = Some(value);
                    return;
                }
                ANY_LEVEL => node.any.get_or_insert_default(),
                _ => node.named.entry(level.into()).or_default(),
            };
        }
        node.end = Some(value);
    }

    /// Removes a checked pattern, and the nodes that only it had.
    pub(super) fn remove(&mut self, pattern: &str) {
        self.remove_levels(pattern.split(LEVEL_END));
    }

    fn remove_levels(&mut self, mut levels: Split<'_, char>) {
        match levels.next() {
            None => self.end = None,
            Some(ALL_THAT_REMAIN) => self.tail = None,
            Some(ANY_LEVEL) => {
                if let Some(child) = &mut self.any {
                    child.remove_levels(levels);
                    self.any.take_if(|child| child.is_empty());
                }
            }
            Some(level) => {
                if let Some(child) = self.named.get_mut(level) {
                    child.remove_levels(levels);
                    if child.is_empty() {
                        self.named.remove(level);
                        self.shrink();
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_none() && self.end.is_none() && self.tail.is_none()
    }

    /// Returns what a peak of children took: one could be had below each of many names in turn.
    fn shrink(&mut self) {
        if self.named.len() < self.named.capacity() / 8 {
            self.named.shrink_to(self.named.len() * 2);
        }
    }

    /// Calls `found` with the value of each pattern that matches a name.
    ///
    /// A node is visited from its parent only, and so once at most: at depth d these are at most
    /// 2^d nodes, a named one and `*` below each, and at most as many as there are patterns.
    pub(super) fn visit(&self, name: &str, found: &mut impl FnMut(T)) {
        self.visit_levels(name.split(LEVEL_END), found);
    }

    fn visit_levels(&self, mut levels: Split<'_, char>, found: &mut impl FnMut(T)) {
        let Some(level) = levels.next() else {
            self.end.map(found);
            return;
        };
        self.tail.map(&mut *found);
        if let Some(child) = self.named.get(level) {
            child.visit_levels(levels.clone(), found);
        }
        if let Some(child) = &self.any {
            child.visit_levels(levels, found);
        }
    }
}

/// The patterns of a table, and which of them match its topics.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    trie: Trie<TopicId>,
    count: usize,
    /// Another one whenever a pattern comes or goes; 0 before the first.
    generation: u64,
    /// By topic id, as far as any was asked for.
    resolved: Vec<Resolved>,
    /// The matches of the topic that was resolved last.
    matches: Vec<TopicId>,
}

/// The patterns that matched a topic in a generation.
#[derive(Debug, Default)]
struct Resolved {
    generation: u64,
    #[expect(
        clippy::box_collection,
        reason = "most topics match no pattern, and there may be a million of them"
    )]
    matches: Option<Box<Vec<TopicId>>>,
}

impl Resolved {
    fn as_slice(&self) -> &[TopicId] {
        self.matches.as_ref().map_or(&[], |matches| matches)
    }
}

impl Patterns {
    /// How many matches a topic keeps, as peers choose both topics and patterns: the 8,191 patterns
    /// of `a` and `*` in 13 levels match each of a million topics that begin so.
    const MAX_KEPT: usize = 64;

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Enters a checked pattern that is not there.
    pub(super) fn insert(&mut self, pattern: &str, id: TopicId) {
        self.trie.insert(pattern, id);
        self.count += 1;
        self.generation += 1;
    }

    /// Removes a pattern that is there.
    pub(super) fn remove(&mut self, pattern: &str) {
        self.trie.remove(pattern);
        self.count -= 1;
        self.generation += 1;
    }

    /// Drops what is known of a topic that is no more: its id may come to mean another one.
    pub(super) fn forget(&mut self, topic: TopicId) {
        if let Some(resolved) = self.resolved.get_mut(topic.index()) {
            *resolved = Resolved::default();
        }
    }

    /// Appends the patterns that match a name. None matches a pattern.
    pub(super) fn append_matching(&self, name: &str, matching: &mut Vec<TopicId>) {
        if !is_pattern(name) {
            self.trie.visit(name, &mut |id| matching.push(id));
        }
    }

    /// The patterns that match the topic of this id and name.
    pub(super) fn of(&mut self, topic: TopicId, name: &str) -> &[TopicId] {
        if self.count == 0 {
            return &[];
        }
        let index = topic.index();
        match self.resolved.get(index) {
            Some(resolved) if resolved.generation == self.generation => {
                self.resolved[index].as_slice()
            }
            _ => self.resolve(index, name),
        }
    }

    fn resolve(&mut self, index: usize, name: &str) -> &[TopicId] {
        let mut matches = std::mem::take(&mut self.matches);
        matches.clear();
        self.append_matching(name, &mut matches);
        self.matches = matches;
        if self.resolved.len() <= index {
            self.resolved.resize_with(index + 1, Resolved::default);
        }
        let resolved = &mut self.resolved[index];
        if self.matches.len() > Self::MAX_KEPT {
            *resolved = Resolved::default();
            return &self.matches;
        }
        let has_matches = !self.matches.is_empty();
        *resolved = Resolved {
            generation: self.generation,
            matches: has_matches.then(|| Box::new(self.matches.clone())),
        };
        resolved.as_slice()
    }

    #[cfg(test)]
    pub(super) fn assert_has(&self, pattern: &str, id: TopicId) {
        // To the trie, a pattern as a name matches itself.
        let mut found = false;
        self.trie.visit(pattern, &mut |value| found |= value == id);
        assert!(found, "{pattern}");
    }
}

/// Whether a pattern matches a name, level by level.
#[cfg(test)]
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let name: Vec<&str> = name.split('.').collect();
    let same = |pattern: &[&str], name: &[&str]| {
        let mut pairs = pattern.iter().zip(name);
        pairs.all(|(pattern, level)| *pattern == "*" || pattern == level)
    };
    match pattern.as_slice() {
        [head @ .., ">"] => name.len() > head.len() && same(head, &name),
        whole => name.len() == whole.len() && same(whole, &name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn found(trie: &Trie<usize>, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        trie.visit(name, &mut |value| found.push(value));
        found.sort_unstable();
        found
    }

    fn levels(level: &'static [&'static str], max: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(level), 1..=max)
            .prop_map(|levels| levels.join("."))
    }

    fn names() -> impl Strategy<Value = String> {
        levels(&["a", "b", "a*", ""], 5)
    }

    fn patterns() -> impl Strategy<Value = String> {
        let pattern = levels(&["a", "b", "a*", "", "*", "*", ">"], 5);
        pattern.prop_filter("only patterns", |pattern| {
            is_pattern(pattern) && check_pattern(pattern).is_ok()
        })
    }

    proptest! {
        #[test]
        fn trie_finds_what_matches_level_by_level(
            patterns in prop::collection::btree_set(patterns(), 0..30),
            names in prop::collection::vec(names(), 1..30),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let patterns: Vec<String> = patterns.into_iter().collect();
            let mut present: BTreeSet<usize> = (0..patterns.len()).collect();
            let mut trie = Trie::default();
            for (index, pattern) in patterns.iter().enumerate() {
                trie.insert(pattern, index);
            }
            let assert_same = |trie: &Trie<usize>, present: &BTreeSet<usize>| {
                for name in &names {
                    let matching = present.iter().filter(|&&index| matches(&patterns[index], name));
                    assert_eq!(found(trie, name), matching.copied().collect::<Vec<_>>(), "{name:?}");
                }
            };
            assert_same(&trie, &present);
            for index in removed.iter().filter(|_| !patterns.is_empty()) {
                let index = index.index(patterns.len());
                trie.remove(&patterns[index]);
                present.remove(&index);
                assert_same(&trie, &present);
            }
            for index in present {
                trie.remove(&patterns[index]);
            }
            assert!(trie.is_empty());
        }
    }

    #[test]
    fn wildcards_match_levels() {
        for (pattern, name, expected) in [
            ("a.*", "a.b", true),
            ("a.*", "a.", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c.d", true),
            ("a.>", "a", false),
            ("*.a.>", "x.a.y", true),
            ("*.a.>", "x.b.y", false),
        ] {
            let mut trie = Trie::default();
            trie.insert(pattern, ());
            let mut found = false;
            trie.visit(name, &mut |()| found = true);
            assert_eq!(found, expected, "{pattern} {name}");
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn only_whole_levels_are_wildcards() {
        for name in [
            "a*b", "a>", "*a", "a.b*", ">>", "**", "a.**.b", "", ".", "a",
        ] {
            assert!(!is_pattern(name), "{name:?}");
        }
        for pattern in ["*", ">", "a.*", "*.a", "a.>", "a.*.b", ".*", ">.a"] {
            assert!(is_pattern(pattern), "{pattern:?}");
        }
    }

    #[test]
    fn each_of_4095_patterns_matches_a_name_once() {
        let pattern = |bits: usize| {
            let level = |bit: u32| if bits >> bit & 1 == 0 { "a" } else { "*" };
            (0..12).map(level).collect::<Vec<_>>().join(".")
        };
        let mut trie = Trie::default();
        (1..4096).for_each(|bits| trie.insert(&pattern(bits), bits));
        let name = ["a"; 12].join(".");
        assert_eq!(found(&trie, &name), (1..4096).collect::<Vec<_>>());
        assert!(found(&trie, &format!("{name}.a")).is_empty());

        (1..4096).for_each(|bits| trie.remove(&pattern(bits)));
        assert!(trie.is_empty());
    }

    #[test]
    fn node_gives_back_what_its_children_took() {
        let mut trie = Trie::default();
        (0..1000).for_each(|n| trie.insert(&format!("{n}.*"), n));
        (1..1000).for_each(|n| trie.remove(&format!("{n}.*")));
        assert!(trie.named.capacity() < 16, "{}", trie.named.capacity());
        assert_eq!(found(&trie, "0.a"), [0]);
    }

    #[test]
    fn topic_without_matches_keeps_16_bytes() {
        assert_eq!(size_of::<Resolved>(), 16);
    }
}
