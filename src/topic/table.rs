//! Who is subscribed to what, from both sides.
//!
//! A member is a number that the user of the table chose, such as the key of a connection in a
//! slab. The table knows neither what a member is nor what is published.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::{fmt, mem, slice};

use super::namespace::NamespaceId;
use super::pattern::{Patterns, check_pattern, is_pattern};

/// Topics by name, their subscribers, and the topics of each member.
///
/// Subscribing, unsubscribing and finding the subscribers cost the same whatever the number of
/// topics, of subscribers, and of the topics of a member; patterns cost more with each level.
///
/// # Patterns
///
/// A name has levels, with `.` between them. A level `*` stands for any level, an empty one too,
/// and a last level `>` for one or more: `a.*` matches `a.b`, and `a.>` also `a.b.c`. A name with
/// such a level is a pattern; `a*b` is not. A pattern is a topic of its own with subscribers of its
/// own. It matches topics, but what is published to them reaches its subscribers only if the
/// publisher asks for it, with [`patterns_of`](Self::patterns_of). To publish to a pattern is a
/// mistake that the publisher has to refuse, with [`is_pattern`](Self::is_pattern).
///
/// To find the patterns of a name takes a look at the nodes of a trie, each once at most: with `p`
/// patterns, at most `2^d` and at most `p` nodes at each depth `d` up to 16. With the default limit
/// these are at most 46,383, for names and patterns made for it; with ordinary ones, a few for each
/// level. A topic keeps up to 64 matches until a pattern comes or goes.
///
/// # Memory
///
/// A member with one subscription costs 16 bytes, and 4 in the list of the topic; further ones cost
/// 8 each and two allocations for all; beyond 32, up to 20 more each. Members are kept in an array
/// up to the highest key that ever subscribed, so keys should be dense. What a peak of members and
/// topics took is reused, not returned.
///
/// A topic with one subscriber costs 48 bytes, 24 in the map of names, and two allocations: one of
/// 16 bytes for up to four subscribers, one of 16 bytes and its name. Arrays and maps have up to
/// as much again in reserve. Once there is a pattern, a topic that was asked for its patterns costs
/// 16 bytes more, and with matches two allocations, of 24 bytes and of 4 for each. A pattern costs
/// what a topic does, and about 200 bytes for each of its levels that no other pattern has.
///
/// # Pitfall: a `TopicId` ends with its last subscriber
///
/// A topic exists while somebody is subscribed. Afterwards its id may come to mean another topic:
/// who keeps an id beyond a call must drop it when [`subscribers`](Self::subscribers) becomes
/// empty, before the next subscription.
///
/// ```
/// use stentor::topic::TopicTable;
///
/// let mut topics = TopicTable::new(1000);
/// let news = topics.subscribe(7, "news")?.topic;
/// topics.subscribe(9, "news")?;
/// assert_eq!(topics.subscribers(news), [7, 9]);
///
/// topics.remove_member(7);
/// topics.unsubscribe(9, "news");
/// assert_eq!(topics.id("news"), None);
/// # Ok::<(), stentor::topic::TopicError>(())
/// ```
#[derive(Debug)]
pub struct TopicTable {
    ids: HashMap<Arc<str>, TopicId>,
    /// By id; `None` is free, and stands in `free`.
    topics: Vec<Option<Topic>>,
    free: Vec<TopicId>,
    /// Those of the topics that are patterns.
    patterns: Patterns,
    /// By key. Invariant: `members[m][i] == (t, p)` if and only if `topics[t].subscribers[p] == m`.
    members: Vec<Subscriptions>,
    subscriptions: usize,
    /// The bytes of all names, each once for its topic and once for each of its subscriptions.
    names: usize,
    max_topics: usize,
    max_patterns: usize,
    max_per_member: usize,
}

/// A topic that has a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(u32);

impl TopicId {
    /// The id as an index, for arrays that stand beside the table: ids are as dense as topics are.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What [`TopicTable::subscribe`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The topic, which may be a new one.
    pub topic: TopicId,
    /// Whether the member was not subscribed to it before.
    pub new: bool,
}

impl TopicTable {
    /// How long the name of a topic may be, in bytes: peers choose names, and each is kept as long
    /// as its topic.
    pub const MAX_NAME_LEN: usize = 255;

    /// To how many topics a member may be subscribed unless told otherwise: what it costs to go
    /// through them.
    pub const DEFAULT_MAX_PER_MEMBER: usize = 128;

    /// How many levels a pattern may have: each may double the ways in which a name matches.
    pub const MAX_PATTERN_LEVELS: usize = 16;

    /// How many patterns there may be unless told otherwise: each publication to a topic that is
    /// not resolved yet walks them.
    pub const DEFAULT_MAX_PATTERNS: usize = 10_000;

    /// What a topic takes beside its name: its entries in three tables, of which a third is spare,
    /// and the smallest list of subscribers.
    const TOPIC_COST: usize = 256;

    /// What a subscription takes on both sides, and in a table of its user.
    const SUBSCRIPTION_COST: usize = 128;

    /// So that an id is left for each topic and each pattern.
    const MOST: usize = (u32::MAX / 2) as usize;

    /// Makes an empty table for at most `max_topics` topics at a time, patterns not counted.
    pub fn new(max_topics: usize) -> Self {
        Self {
            ids: HashMap::new(),
            topics: Vec::new(),
            free: Vec::new(),
            patterns: Patterns::default(),
            members: Vec::new(),
            subscriptions: 0,
            names: 0,
            max_topics: max_topics.min(Self::MOST),
            max_patterns: Self::DEFAULT_MAX_PATTERNS,
            max_per_member: Self::DEFAULT_MAX_PER_MEMBER,
        }
    }

    /// Sets to how many topics a member may be subscribed.
    ///
    /// Members that are past a lowered limit stay so.
    pub fn set_max_per_member(&mut self, limit: usize) {
        self.max_per_member = limit;
    }

    /// Sets how many patterns there may be at a time.
    ///
    /// Those that are past a lowered limit stay.
    pub fn set_max_patterns(&mut self, limit: usize) {
        self.max_patterns = limit.min(Self::MOST);
    }

    /// Whether a name is a pattern: whether one of its levels is `*` or `>`.
    pub fn is_pattern(name: &str) -> bool {
        is_pattern(name)
    }

    /// Subscribes a member to the topic or the pattern of this name, which comes into being with
    /// its first subscriber, in the namespace [`NamespaceId::DEFAULT`].
    ///
    /// # Errors
    ///
    /// If the name is not acceptable or a limit is reached; nothing has changed then. A member that
    /// is subscribed already is told so, whatever the limits.
    pub fn subscribe(&mut self, member: u32, name: &str) -> Result<Subscribed, TopicError> {
        self.subscribe_with(member, name, || NamespaceId::DEFAULT)
    }

    /// Subscribes as [`subscribe`](Self::subscribe) does; a topic that comes into being is in the
    /// namespace that `namespace` tells, which is not called otherwise.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn subscribe_with(
        &mut self,
        member: u32,
        name: &str,
        namespace: impl FnOnce() -> NamespaceId,
    ) -> Result<Subscribed, TopicError> {
        check_name(name)?;
        let known = self.id(name);
        if let Some(topic) = known
            && self.is_subscribed(member, topic)
        {
            return Ok(Subscribed { topic, new: false });
        }
        if self.subscriptions_of(member).len() >= self.max_per_member {
            return Err(TopicError::TooManyForMember);
        }
        let topic = match known {
            Some(topic) => topic,
            None => self.create(name, namespace)?,
        };
        self.attach(member, topic);
        Ok(Subscribed { topic, new: true })
    }

    /// Ends a subscription by name, and answers whether there was one.
    pub fn unsubscribe(&mut self, member: u32, name: &str) -> bool {
        self.id(name)
            .is_some_and(|topic| self.unsubscribe_id(member, topic))
    }

    /// Ends a subscription, and answers whether there was one.
    pub fn unsubscribe_id(&mut self, member: u32, topic: TopicId) -> bool {
        let Some(subscriptions) = self.members.get_mut(member as usize) else {
            return false;
        };
        let Some(index) = subscriptions.index_of(topic) else {
            return false;
        };
        let subscription = subscriptions.swap_remove(index);
        self.detach(subscription);
        true
    }

    /// Ends all subscriptions of a member.
    pub fn remove_member(&mut self, member: u32) {
        let Some(subscriptions) = self.members.get_mut(member as usize) else {
            return;
        };
        for subscription in mem::take(subscriptions).as_slice() {
            self.detach(*subscription);
        }
    }

    /// The topic of this name, if anybody is subscribed to it.
    pub fn id(&self, name: &str) -> Option<TopicId> {
        self.ids.get(name).copied()
    }

    /// The members that are subscribed to a topic, in no order, and in another one after each
    /// unsubscription.
    ///
    /// Nobody is subscribed to a topic that is no more.
    pub fn subscribers(&self, topic: TopicId) -> &[u32] {
        self.topic(topic).map_or(&[], |topic| &topic.subscribers)
    }

    /// The topics that a member is subscribed to, in no order.
    pub fn topics_of(&self, member: u32) -> impl ExactSizeIterator<Item = TopicId> {
        self.subscriptions_of(member)
            .iter()
            .map(|subscription| subscription.topic)
    }

    /// Whether a member is subscribed to a topic.
    pub fn is_subscribed(&self, member: u32, topic: TopicId) -> bool {
        let subscriptions = self.members.get(member as usize);
        subscriptions.is_some_and(|subscriptions| subscriptions.index_of(topic).is_some())
    }

    /// Counts a message that is published to a topic; a topic that is no more has no count.
    #[inline]
    pub fn count_published(&mut self, topic: TopicId) {
        if let Some(Some(topic)) = self.topics.get_mut(topic.index()) {
            topic.published = topic.published.wrapping_add(1);
        }
    }

    /// How many messages were counted since the topic came into being, from 0 on again after
    /// `u32::MAX`; 0 for a topic that is no more.
    pub fn published(&self, topic: TopicId) -> u32 {
        self.topic(topic).map_or(0, |topic| topic.published)
    }

    /// The patterns that match a topic, in no order; none for a topic that is a pattern itself or
    /// is no more.
    ///
    /// With no pattern in the table, or none that came or went since the last call for this topic,
    /// they are known; else, and if they are more than 64, they are looked for.
    ///
    /// ```
    /// use stentor::topic::TopicTable;
    ///
    /// let mut topics = TopicTable::new(1000);
    /// let room = topics.subscribe(7, "room.kitchen")?.topic;
    /// let rooms = topics.subscribe(9, "room.*")?.topic;
    /// assert_eq!(topics.patterns_of(room), [rooms]);
    /// assert_eq!(topics.subscribers(rooms), [9]);
    /// # Ok::<(), stentor::topic::TopicError>(())
    /// ```
    #[inline]
    pub fn patterns_of(&mut self, topic: TopicId) -> &[TopicId] {
        if self.pattern_count() == 0 {
            return &[];
        }
        match self.topics.get(topic.index()) {
            Some(Some(known)) => self.patterns.of(topic, &known.name),
            _ => &[],
        }
    }

    /// Appends to `matching` the patterns that match a name, which needs no topic, in no order; none
    /// if it is a pattern itself.
    pub fn patterns_matching(&self, name: &str, matching: &mut Vec<TopicId>) {
        if self.pattern_count() > 0 {
            self.patterns.append_matching(name, matching);
        }
    }

    /// The name of a topic.
    ///
    /// # Panics
    ///
    /// If nobody is subscribed to it any more.
    pub fn name(&self, topic: TopicId) -> &str {
        &self.existing(topic).name
    }

    /// The namespace that a topic was given when it came into being.
    ///
    /// # Panics
    ///
    /// If nobody is subscribed to it any more.
    pub fn namespace(&self, topic: TopicId) -> NamespaceId {
        self.existing(topic).namespace
    }

    /// The topics that are not patterns, with how many subscribers they have, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        let topics = self.topics.iter().flatten();
        topics
            .filter(|topic| !is_pattern(&topic.name))
            .map(|topic| (&*topic.name, topic.subscribers.len()))
    }

    /// Whether a topic, or a pattern, can have this name.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check_name(name: &str) -> Result<(), TopicError> {
        check_name(name)
    }

    /// How many topics there are that are not patterns.
    pub fn len(&self) -> usize {
        self.ids.len() - self.pattern_count()
    }

    /// Whether there is no topic, unless it is a pattern.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many patterns there are.
    pub fn pattern_count(&self) -> usize {
        self.patterns.len()
    }

    /// How many subscriptions there are: the sum of the subscribers of all topics and patterns.
    pub fn subscription_count(&self) -> usize {
        self.subscriptions
    }

    /// How many bytes of memory the topics and their subscriptions take, about: here, and with a user
    /// who keeps the name with each subscription.
    pub fn memory(&self) -> usize {
        self.names
            + self.ids.len() * Self::TOPIC_COST
            + self.subscriptions * Self::SUBSCRIPTION_COST
    }

    fn topic(&self, topic: TopicId) -> Option<&Topic> {
        self.topics.get(topic.index())?.as_ref()
    }

    fn existing(&self, topic: TopicId) -> &Topic {
        self.topic(topic)
            .expect("a topic id is used only while the topic has a subscriber")
    }

    fn topic_mut(&mut self, topic: TopicId) -> &mut Topic {
        self.topics[topic.index()]
            .as_mut()
            .expect("a topic with a subscriber exists")
    }

    fn subscriptions_of(&self, member: u32) -> &[Subscription] {
        self.members
            .get(member as usize)
            .map_or(&[], Subscriptions::as_slice)
    }

    /// Makes a topic, which must get a subscriber at once.
    fn create(
        &mut self,
        name: &str,
        namespace: impl FnOnce() -> NamespaceId,
    ) -> Result<TopicId, TopicError> {
        let is_pattern = is_pattern(name);
        if is_pattern && self.pattern_count() >= self.max_patterns {
            return Err(TopicError::TooManyPatterns);
        }
        if !is_pattern && self.len() >= self.max_topics {
            return Err(TopicError::TooManyTopics);
        }
        let namespace = namespace();
        let id = self.free.pop().unwrap_or_else(|| {
            self.topics.push(None);
            TopicId(self.topics.len() as u32 - 1)
        });
        self.names += name.len();
        let name = Arc::<str>::from(name);
        self.ids.insert(Arc::clone(&name), id);
        if is_pattern {
            self.patterns.insert(&name, id);
        }
        self.topics[id.index()] = Some(Topic {
            name,
            subscribers: Vec::new(),
            published: 0,
            namespace,
        });
        Ok(id)
    }

    /// Frees a topic that has no subscriber.
    fn free(&mut self, id: TopicId) {
        let topic = self.topics[id.index()]
            .take()
            .expect("a topic is freed once");
        self.names -= topic.name.len();
        self.ids.remove(&topic.name);
        if is_pattern(&topic.name) {
            self.patterns.remove(&topic.name);
        }
        self.patterns.forget(id);
        self.free.push(id);
    }

    /// Enters on both sides a subscription that does not exist.
    fn attach(&mut self, member: u32, topic: TopicId) {
        let known = self.topic_mut(topic);
        let (name_len, position) = (known.name.len(), known.subscribers.len() as u32);
        known.subscribers.push(member);
        self.names += name_len;
        let needed = member as usize + 1;
        if self.members.len() < needed {
            self.members.resize_with(needed, Subscriptions::default);
        }
        self.members[member as usize].push(Subscription { topic, position });
        self.subscriptions += 1;
    }

    /// Removes from its topic a subscription that its member has given up. The last subscriber
    /// moves into the gap.
    fn detach(&mut self, Subscription { topic, position }: Subscription) {
        self.subscriptions -= 1;
        self.names -= self.existing(topic).name.len();
        let subscribers = &mut self.topic_mut(topic).subscribers;
        subscribers.swap_remove(position as usize);
        match subscribers.get(position as usize) {
            Some(&moved) => self.members[moved as usize].relocate(topic, position),
            None if subscribers.is_empty() => self.free(topic),
            None => {}
        }
    }
}

/// Why a member cannot subscribe to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// The name is empty.
    EmptyName,
    /// The name is longer than [`TopicTable::MAX_NAME_LEN`].
    NameTooLong,
    /// The name holds a control character, which would come out in logs and metrics.
    NameHasControl,
    /// The pattern consists of wildcards only, as `*.>`: it would be everything.
    OnlyWildcards,
    /// A `>` stands before the last level of the pattern.
    MisplacedTail,
    /// The pattern has more than [`TopicTable::MAX_PATTERN_LEVELS`] levels.
    TooManyLevels,
    /// The member is subscribed to as many topics as a member may be.
    TooManyForMember,
    /// There are as many topics as there may be, and this would be another one.
    TooManyTopics,
    /// There are as many patterns as there may be, and this would be another one.
    TooManyPatterns,
    /// Those that there are take all the memory that they may; a table alone knows no such limit.
    TooMuchMemory,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyName => "topic name is empty",
            Self::NameTooLong => "topic name is too long",
            Self::NameHasControl => "topic name holds a control character",
            Self::OnlyWildcards => "topic pattern consists of wildcards only",
            Self::MisplacedTail => "topic pattern has '>' before its last level",
            Self::TooManyLevels => "topic pattern has too many levels",
            Self::TooManyForMember => "subscribed to too many topics",
            Self::TooManyTopics => "too many topics",
            Self::TooManyPatterns => "too many topic patterns",
            Self::TooMuchMemory => "topics take too much memory",
        })
    }
}

impl Error for TopicError {}

/// Refuses what can be the name neither of a topic nor of a pattern.
pub(super) fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::EmptyName);
    }
    if name.len() > TopicTable::MAX_NAME_LEN {
        return Err(TopicError::NameTooLong);
    }
    if name.contains(char::is_control) {
        return Err(TopicError::NameHasControl);
    }
    if is_pattern(name) {
        check_pattern(name)?;
    }
    Ok(())
}

#[derive(Debug)]
struct Topic {
    /// Shared with the key of the map.
    name: Arc<str>,
    subscribers: Vec<u32>,
    published: u32,
    namespace: NamespaceId,
}

/// A subscription as its member sees it: where in which topic it stands.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    topic: TopicId,
    position: u32,
}

/// The subscriptions of one member. Most have one, and it needs no allocation.
#[derive(Debug, Default)]
enum Subscriptions {
    #[default]
    None,
    One(Subscription),
    /// Two or more.
    Many(Box<Many>),
}

impl Subscriptions {
    fn as_slice(&self) -> &[Subscription] {
        match self {
            Self::None => &[],
            Self::One(subscription) => slice::from_ref(subscription),
            Self::Many(many) => &many.list,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Subscription] {
        match self {
            Self::None => &mut [],
            Self::One(subscription) => slice::from_mut(subscription),
            Self::Many(many) => &mut many.list,
        }
    }

    /// Where the subscription to this topic stands in the slice.
    fn index_of(&self, topic: TopicId) -> Option<usize> {
        match self {
            Self::Many(many) => many.index_of(topic),
            _ => position_of(topic, self.as_slice()),
        }
    }

    fn push(&mut self, new: Subscription) {
        match self {
            Self::None => *self = Self::One(new),
            Self::One(first) => {
                *self = Self::Many(Box::new(Many {
                    list: vec![*first, new],
                    places: None,
                }));
            }
            Self::Many(many) => many.push(new),
        }
    }

    fn swap_remove(&mut self, index: usize) -> Subscription {
        let removed = self.as_slice()[index];
        match self {
            Self::None | Self::One(_) => *self = Self::None,
            Self::Many(many) => {
                many.swap_remove(index);
                if let [last] = many.list[..] {
                    *self = Self::One(last);
                }
            }
        }
        removed
    }

    /// Notes the new position of the subscription to this topic.
    fn relocate(&mut self, topic: TopicId, position: u32) {
        let index = self
            .index_of(topic)
            .expect("a subscriber has the subscription");
        self.as_mut_slice()[index].position = position;
    }
}

fn position_of(topic: TopicId, list: &[Subscription]) -> Option<usize> {
    list.iter()
        .position(|subscription| subscription.topic == topic)
}

/// Two or more subscriptions. Those of more than a few are looked up.
#[derive(Debug)]
struct Many {
    list: Vec<Subscription>,
    /// If there is one: where each topic stands in `list`.
    #[expect(
        clippy::box_collection,
        reason = "few members need one, and it would more than double what the others cost"
    )]
    places: Option<Box<HashMap<TopicId, u32>>>,
}

impl Many {
    /// How many are searched one by one: 256 bytes, which take no longer than a look-up.
    const FEW: usize = 32;

    fn index_of(&self, topic: TopicId) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&topic).map(|&place| place as usize),
            None => position_of(topic, &self.list),
        }
    }

    fn push(&mut self, new: Subscription) {
        self.list.push(new);
        if let Some(places) = &mut self.places {
            places.insert(new.topic, self.list.len() as u32 - 1);
        } else if self.list.len() > Self::FEW {
            let topics = self.list.iter().map(|subscription| subscription.topic);
            self.places = Some(Box::new(topics.zip(0..).collect()));
        }
    }

    /// Removes a subscription; the last one moves into the gap.
    fn swap_remove(&mut self, index: usize) {
        let removed = self.list.swap_remove(index);
        // Half as many, so that one that comes and goes does not make and drop the places.
        self.places.take_if(|_| self.list.len() <= Self::FEW / 2);
        let Some(places) = &mut self.places else {
            return;
        };
        places.remove(&removed.topic);
        if let Some(moved) = self.list.get(index) {
            places.insert(moved.topic, index as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{Namespaces, pattern};
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashMap};

    impl TopicTable {
        /// The invariant of `members`, from both sides.
        fn assert_consistent(&self) {
            for (member, subscriptions) in self.members.iter().enumerate() {
                for (index, subscription) in subscriptions.as_slice().iter().enumerate() {
                    let Subscription { topic, position } = *subscription;
                    assert_eq!(self.subscribers(topic)[position as usize], member as u32);
                    assert_eq!(subscriptions.index_of(topic), Some(index));
                }
            }
            let live = self.topics.iter().flatten();
            assert!(live.clone().all(|topic| !topic.subscribers.is_empty()));
            assert!(live.clone().all(|topic| self.ids.contains_key(&topic.name)));
            assert_eq!(
                live.clone()
                    .map(|topic| topic.subscribers.len())
                    .sum::<usize>(),
                self.subscriptions
            );
            assert_eq!(
                self.members
                    .iter()
                    .map(|member| member.as_slice().len())
                    .sum::<usize>(),
                self.subscriptions
            );
            let is_pattern = |topic: &&Topic| TopicTable::is_pattern(&topic.name);
            let patterns = live.clone().filter(is_pattern);
            assert_eq!(patterns.clone().count(), self.pattern_count());
            patterns.for_each(|topic| self.patterns.assert_has(&topic.name, self.ids[&topic.name]));
            assert_eq!(live.count() + self.free.len(), self.topics.len());
            assert_eq!(self.ids.len() + self.free.len(), self.topics.len());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe(u32, String),
        Unsubscribe(u32, String),
        UnsubscribeId(u32, String),
        RemoveMember(u32),
        Resolve(String),
    }

    const NAMES: [&str; 14] = [
        "a", "a.b", "a.b.c", "a.c", "b.a", "b", "c.c.c", "a.*", "a.>", "*.c", "*.*.c", "a.*.c",
        "*.c.>", "b.>",
    ];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let member = || 0_u32..9;
        let name = || prop::sample::select(&NAMES[..]).prop_map(str::to_owned);
        let step = prop_oneof![
            8 => (member(), name()).prop_map(|(m, n)| Step::Subscribe(m, n)),
            3 => (member(), name()).prop_map(|(m, n)| Step::Unsubscribe(m, n)),
            2 => (member(), name()).prop_map(|(m, n)| Step::UnsubscribeId(m, n)),
            1 => member().prop_map(Step::RemoveMember),
            4 => name().prop_map(Step::Resolve),
        ];
        prop::collection::vec(step, 0..150)
    }

    const MAX_TOPICS: usize = 5;
    const MAX_PATTERNS: usize = 4;
    const MAX_PER_MEMBER: usize = 4;

    #[derive(Default)]
    struct Model(HashMap<String, BTreeSet<u32>>);

    impl Model {
        fn subscribe(&mut self, member: u32, name: &str) -> Result<bool, TopicError> {
            if self
                .0
                .get(name)
                .is_some_and(|subscribers| subscribers.contains(&member))
            {
                return Ok(false);
            }
            if self.names_of(member).len() >= MAX_PER_MEMBER {
                return Err(TopicError::TooManyForMember);
            }
            let is_pattern = TopicTable::is_pattern(name);
            let is_new = !self.0.contains_key(name);
            if is_new && is_pattern && self.patterns().count() >= MAX_PATTERNS {
                return Err(TopicError::TooManyPatterns);
            }
            if is_new && !is_pattern && self.len() >= MAX_TOPICS {
                return Err(TopicError::TooManyTopics);
            }
            Ok(self.0.entry(name.to_owned()).or_default().insert(member))
        }

        fn unsubscribe(&mut self, member: u32, name: &str) -> bool {
            let removed = self
                .0
                .get_mut(name)
                .is_some_and(|subscribers| subscribers.remove(&member));
            self.0.retain(|_, subscribers| !subscribers.is_empty());
            removed
        }

        fn patterns(&self) -> impl Iterator<Item = &str> {
            let names = self.0.keys().map(String::as_str);
            names.filter(|name| TopicTable::is_pattern(name))
        }

        fn len(&self) -> usize {
            self.0.len() - self.patterns().count()
        }

        fn patterns_of(&self, name: &str) -> BTreeSet<&str> {
            if TopicTable::is_pattern(name) {
                return BTreeSet::new();
            }
            let patterns = self.patterns();
            patterns
                .filter(|pattern| pattern::matches(pattern, name))
                .collect()
        }

        fn names_of(&self, member: u32) -> BTreeSet<&str> {
            let names = self
                .0
                .iter()
                .filter(|(_, subscribers)| subscribers.contains(&member));
            names.map(|(name, _)| name.as_str()).collect()
        }
    }

    fn perform(step: &Step, table: &mut TopicTable, model: &mut Model) {
        match step {
            Step::Subscribe(member, name) => {
                let subscribed = table.subscribe(*member, name);
                assert_eq!(
                    subscribed.map(|subscribed| subscribed.new),
                    model.subscribe(*member, name)
                );
                assert_eq!(
                    subscribed.ok().map(|subscribed| subscribed.topic),
                    table.id(name).filter(|_| subscribed.is_ok())
                );
            }
            Step::Unsubscribe(member, name) => {
                assert_eq!(
                    table.unsubscribe(*member, name),
                    model.unsubscribe(*member, name)
                );
            }
            Step::UnsubscribeId(member, name) => {
                let removed = table
                    .id(name)
                    .is_some_and(|id| table.unsubscribe_id(*member, id));
                assert_eq!(removed, model.unsubscribe(*member, name));
            }
            Step::RemoveMember(member) => {
                table.remove_member(*member);
                for name in NAMES {
                    model.unsubscribe(*member, name);
                }
            }
            Step::Resolve(name) => assert_resolves(name, table, model),
        }
    }

    /// Asks for the patterns of a name, and of its topic if there is one.
    fn assert_resolves(name: &str, table: &mut TopicTable, model: &Model) {
        let mut matching = Vec::new();
        table.patterns_matching(name, &mut matching);
        assert_eq!(names(&matching, table), model.patterns_of(name));
        if let Some(id) = table.id(name) {
            let patterns = table.patterns_of(id).to_vec();
            assert_eq!(names(&patterns, table), model.patterns_of(name));
            assert_eq!(patterns.len(), model.patterns_of(name).len());
        }
    }

    fn names<'table>(ids: &[TopicId], table: &'table TopicTable) -> BTreeSet<&'table str> {
        ids.iter().map(|&id| table.name(id)).collect()
    }

    fn assert_same(table: &TopicTable, model: &Model) {
        table.assert_consistent();
        assert_eq!(table.len(), model.len());
        assert_eq!(table.is_empty(), model.len() == 0);
        assert_eq!(table.pattern_count(), model.patterns().count());
        assert_eq!(
            table.subscription_count(),
            model.0.values().map(BTreeSet::len).sum::<usize>()
        );
        let costs = model.0.iter().map(|(name, subscribers)| {
            let topic = name.len() + TopicTable::TOPIC_COST;
            topic + subscribers.len() * (name.len() + TopicTable::SUBSCRIPTION_COST)
        });
        assert_eq!(table.memory(), costs.sum::<usize>());
        for (name, subscribers) in &model.0 {
            let id = table.id(name).expect("the topic exists");
            assert_eq!(table.name(id), name);
            assert_eq!(table.subscribers(id).len(), subscribers.len());
            assert_eq!(
                &table
                    .subscribers(id)
                    .iter()
                    .copied()
                    .collect::<BTreeSet<_>>(),
                subscribers
            );
        }
        for member in 0..9 {
            let names: BTreeSet<_> = table
                .topics_of(member)
                .map(|topic| table.name(topic))
                .collect();
            assert_eq!(names, model.names_of(member));
            assert!(
                table
                    .topics_of(member)
                    .all(|topic| table.is_subscribed(member, topic))
            );
        }
    }

    proptest! {
        #[test]
        fn table_behaves_as_a_map_of_names_to_sets(steps in steps()) {
            let mut table = TopicTable::new(MAX_TOPICS);
            table.set_max_patterns(MAX_PATTERNS);
            table.set_max_per_member(MAX_PER_MEMBER);
            let mut model = Model::default();
            for step in &steps {
                perform(step, &mut table, &mut model);
                assert_same(&table, &model);
            }
            for name in NAMES {
                assert_resolves(name, &mut table, &model);
            }
        }

        #[test]
        fn subscriptions_of_a_member_are_found_where_they_stand(
            steps in prop::collection::vec((0_u32..100, prop::bool::weighted(0.6)), 0..400),
        ) {
            let mut subscriptions = Subscriptions::default();
            let mut list: Vec<TopicId> = Vec::new();
            for (topic, comes) in steps {
                let topic = TopicId(topic);
                let index = list.iter().position(|&known| known == topic);
                assert_eq!(subscriptions.index_of(topic), index);
                match index {
                    Some(index) if !comes => {
                        assert_eq!(subscriptions.swap_remove(index).topic, topic);
                        list.swap_remove(index);
                    }
                    None if comes => {
                        subscriptions.push(Subscription { topic, position: 0 });
                        list.push(topic);
                    }
                    _ => {}
                }
                let topics = subscriptions.as_slice().iter().map(|subscription| subscription.topic);
                assert!(topics.eq(list.iter().copied()));
                for (index, &topic) in list.iter().enumerate() {
                    assert_eq!(subscriptions.index_of(topic), Some(index));
                }
            }
        }
    }

    #[test]
    fn unacceptable_names_are_refused() {
        let mut table = TopicTable::new(10);
        let longest = "n".repeat(255);
        assert_eq!(table.subscribe(0, ""), Err(TopicError::EmptyName));
        assert_eq!(
            table.subscribe(0, &format!("{longest}n")),
            Err(TopicError::NameTooLong)
        );
        for name in ["a\0", "\n", "tab\t", "\u{7f}", "\u{85}"] {
            assert_eq!(
                table.subscribe(0, name),
                Err(TopicError::NameHasControl),
                "{name:?}"
            );
        }
        assert!(table.is_empty());
        assert!(table.subscribe(0, &longest).is_ok());
        assert!(table.subscribe(0, "Στέντωρ / 五十人").is_ok());
    }

    #[test]
    fn refused_subscription_changes_nothing_and_repeated_one_is_never_refused() {
        let mut table = TopicTable::new(1);
        table.subscribe(3, "only").unwrap();
        assert_eq!(table.subscribe(4, "other"), Err(TopicError::TooManyTopics));
        assert_eq!((table.len(), table.members.len()), (1, 4));

        table.set_max_per_member(1);
        assert_eq!(
            table.subscribe(3, "other"),
            Err(TopicError::TooManyForMember)
        );
        assert!(!table.subscribe(3, "only").unwrap().new);
    }

    #[test]
    fn unknown_members_topics_and_ids_are_not_subscribed() {
        let mut table = TopicTable::new(10);
        let id = table.subscribe(0, "brief").unwrap().topic;
        assert!(!table.unsubscribe(u32::MAX, "brief"));
        assert!(!table.unsubscribe(0, "unknown"));
        table.remove_member(u32::MAX);
        table.remove_member(0);

        assert!(table.subscribers(id).is_empty());
        assert!(!table.is_subscribed(0, id));
        assert!(!table.unsubscribe_id(0, id));
        assert_eq!(table.topics_of(u32::MAX).len(), 0);
    }

    #[test]
    fn member_with_128_topics_leaves_topics_shared_with_others() {
        let mut table = TopicTable::new(1000);
        for member in [5, 1, 3] {
            for n in 0..128 {
                table.subscribe(member, &format!("topic {n}")).unwrap();
            }
            assert_eq!(
                table.subscribe(member, "one more"),
                Err(TopicError::TooManyForMember)
            );
        }
        table.remove_member(5);
        table.assert_consistent();
        assert_eq!((table.len(), table.subscription_count()), (128, 256));
        table.remove_member(3);
        table.remove_member(1);
        table.assert_consistent();
        assert!(table.is_empty());
    }

    #[test]
    fn topics_come_and_go_without_growing_the_table() {
        let topics = if cfg!(debug_assertions) {
            100_000
        } else {
            1_000_000
        };
        let mut table = TopicTable::new(64);
        for n in 0..topics {
            let member = n % 50;
            table.remove_member(member);
            table.subscribe(member, &format!("topic {n}")).unwrap();
        }
        assert_eq!((table.len(), table.topics.len()), (50, 50));
        (0..50).for_each(|member| table.remove_member(member));
        table.assert_consistent();
        assert_eq!((table.len(), table.subscription_count()), (0, 0));
    }

    #[test]
    fn a_million_topics_at_once_can_all_go() {
        let topics = if cfg!(debug_assertions) {
            50_000
        } else {
            1_000_000
        };
        let mut table = TopicTable::new(topics as usize);
        for n in 0..topics {
            table.subscribe(n, &n.to_string()).unwrap();
        }
        assert_eq!(table.len(), topics as usize);
        assert_eq!(
            table.subscribe(0, "one more"),
            Err(TopicError::TooManyTopics)
        );
        (0..topics)
            .rev()
            .for_each(|member| table.remove_member(member));
        assert_eq!((table.len(), table.free.len()), (0, topics as usize));
    }

    #[test]
    fn unacceptable_patterns_are_refused() {
        let mut table = TopicTable::new(10);
        let deepest = ["a.*"; 8].join(".");
        table.set_max_per_member(0);
        for pattern in ["*", ">", "*.*", "*.>", ">.*"] {
            let refused = Err(TopicError::OnlyWildcards);
            assert_eq!(table.subscribe(0, pattern), refused, "{pattern}");
        }
        for pattern in [">.a", "a.>.b", "a.>.>", "a.>.*"] {
            let refused = Err(TopicError::MisplacedTail);
            assert_eq!(table.subscribe(0, pattern), refused, "{pattern}");
        }
        for pattern in [format!("{deepest}.a"), format!("{deepest}.>")] {
            let refused = Err(TopicError::TooManyLevels);
            assert_eq!(table.subscribe(0, &pattern), refused, "{pattern}");
        }
        assert_eq!((table.pattern_count(), table.ids.len()), (0, 0));
        table.set_max_per_member(2);
        assert!(table.subscribe(0, &deepest).is_ok());
        assert!(table.subscribe(0, &".".repeat(255)).is_ok());
        assert_eq!((table.pattern_count(), table.len()), (1, 1));
    }

    #[test]
    fn pattern_is_a_topic_of_its_own_beside_the_limit_of_topics() {
        let mut table = TopicTable::new(1);
        table.set_max_patterns(1);
        let topic = table.subscribe(1, "a.b").unwrap().topic;
        let pattern = table.subscribe(2, "a.*").unwrap().topic;
        assert_eq!(table.subscribe(1, "b"), Err(TopicError::TooManyTopics));
        assert_eq!(table.subscribe(1, "b.*"), Err(TopicError::TooManyPatterns));
        assert!(table.subscribe(1, "a.*").unwrap().new);

        assert_eq!(table.id("a.*"), Some(pattern));
        assert_eq!(table.subscribers(topic), [1]);
        assert_eq!(table.subscribers(pattern), [2, 1]);
        assert_eq!(table.patterns_of(topic), [pattern]);
        assert_eq!(table.patterns_of(pattern), []);
        assert_eq!((table.len(), table.pattern_count()), (1, 1));
        assert_eq!(table.subscription_count(), 3);

        table.unsubscribe(2, "a.*");
        assert_eq!(table.patterns_of(topic), [pattern]);
        table.remove_member(1);
        assert_eq!(table.patterns_of(topic), []);
        assert_eq!((table.len(), table.pattern_count()), (0, 0));
    }

    #[test]
    fn topic_with_the_id_of_another_one_has_patterns_of_its_own() {
        let mut table = TopicTable::new(10);
        let pattern = table.subscribe(0, "a.*").unwrap().topic;
        let first = table.subscribe(0, "a.b").unwrap().topic;
        assert_eq!(table.patterns_of(first), [pattern]);
        table.unsubscribe(0, "a.b");
        assert_eq!(table.patterns_of(first), []);
        assert_eq!(table.subscribe(0, "b").unwrap().topic, first);
        assert_eq!(table.patterns_of(first), []);
    }

    #[test]
    fn more_patterns_than_a_topic_keeps_are_all_found() {
        let mut table = TopicTable::new(10);
        let patterns = (1_u32..127).map(|bits| {
            let level = |bit: u32| if bits >> bit & 1 == 0 { "a" } else { "*" };
            (0..7).map(level).collect::<Vec<_>>().join(".") + ".>"
        });
        let patterns: Vec<String> = patterns.collect();
        let topic = table.subscribe(0, "a.a.a.a.a.a.a.b").unwrap().topic;
        for (index, pattern) in patterns.iter().enumerate() {
            table.subscribe(1, pattern).unwrap();
            assert_eq!(table.patterns_of(topic).len(), index + 1);
            assert_eq!(table.patterns_of(topic).len(), index + 1);
        }
        for (index, pattern) in patterns.iter().enumerate() {
            table.unsubscribe(1, pattern);
            assert_eq!(table.patterns_of(topic).len(), 125 - index);
        }
    }

    #[test]
    fn namespace_is_given_when_a_topic_comes_into_being() {
        let mut namespaces = Namespaces::new(());
        namespaces.insert("chat", ()).unwrap();
        let chat = namespaces.id_of("chat:1");

        let mut table = TopicTable::new(1);
        let topic = table.subscribe_with(0, "chat:1", || chat).unwrap().topic;
        let known = || unreachable!("the topic exists");
        assert!(table.subscribe_with(1, "chat:1", known).unwrap().new);
        assert!(!table.subscribe_with(1, "chat:1", known).unwrap().new);
        assert!(table.subscribe_with(1, "chat:2", known).is_err());
        assert_eq!(table.namespace(topic), chat);

        table.remove_member(0);
        table.remove_member(1);
        let topic = table.subscribe(0, "chat:1").unwrap().topic;
        assert_eq!(table.namespace(topic), NamespaceId::DEFAULT);
    }

    #[test]
    fn publications_are_counted_as_long_as_there_is_the_topic() {
        let mut table = TopicTable::new(1);
        let topic = table.subscribe(0, "a").unwrap().topic;
        table.count_published(topic);
        table.count_published(topic);
        assert_eq!(table.published(topic), 2);
        table.topic_mut(topic).published = u32::MAX;
        table.count_published(topic);
        assert_eq!(table.published(topic), 0);
        table.count_published(topic);
        table.remove_member(0);
        table.count_published(topic);
        assert_eq!(table.published(topic), 0);
        let again = table.subscribe(0, "a").unwrap().topic;
        assert_eq!(table.published(again), 0);
    }

    #[test]
    fn topic_takes_48_bytes_and_24_by_name() {
        assert_eq!(size_of::<Option<Topic>>(), 48);
        assert_eq!(size_of::<(Arc<str>, TopicId)>(), 24);
    }

    #[test]
    fn one_subscription_of_an_idle_member_takes_20_bytes() {
        assert_eq!(size_of::<Subscriptions>() + size_of::<u32>(), 20);
    }
}
