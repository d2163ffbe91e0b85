//! Who is in which topic.
//!
//! A member is a number that the user chose, as in [`TopicTable`](super::TopicTable); what is to be
//! said of a member is the user's as well.

use super::TopicId;
use std::collections::HashMap;

/// The members of topics, each with what is to be said of it.
///
/// Joining, leaving and counting cost the same whatever the number of members. A topic that nobody
/// is in takes no memory.
///
/// # Pitfall: a `TopicId` ends with its last subscriber
///
/// Afterwards it may mean another topic: who unsubscribes must leave as well.
///
/// ```
/// use stentor::topic::{Presence, TopicTable};
///
/// let mut topics = TopicTable::new(1000);
/// let lobby = topics.subscribe(7, "lobby")?.topic;
///
/// let mut presence = Presence::new();
/// presence.join(lobby, 9, "Cassandra", 2000);
/// presence.join(lobby, 7, "Stentor", 1000);
/// let names: Vec<_> = presence.of(lobby).map(|(_, present)| present.info).collect();
/// assert_eq!(names, ["Stentor", "Cassandra"]);
/// # Ok::<(), stentor::topic::TopicError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Presence<I> {
    /// Invariant: no topic is without a member.
    topics: HashMap<TopicId, HashMap<u32, Present<I>>>,
}

/// One who is in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present<I> {
    /// What is to be said of the member.
    pub info: I,
    /// When it joined, as the user of [`Presence`] measures time.
    pub since: u64,
}

impl<I> Presence<I> {
    /// Makes a presence of nobody.
    pub fn new() -> Self {
        Self {
            topics: HashMap::new(),
        }
    }

    /// Whether nobody is in any topic.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Enters a member, and returns the info that it had if it was there already.
    ///
    /// Who joins again is there since the later join.
    pub fn join(&mut self, topic: TopicId, member: u32, info: I, since: u64) -> Option<I> {
        let members = self.topics.entry(topic).or_default();
        let replaced = members.insert(member, Present { info, since });
        replaced.map(|present| present.info)
    }

    /// Removes a member, and returns what there was of it.
    pub fn leave(&mut self, topic: TopicId, member: u32) -> Option<Present<I>> {
        let members = self.topics.get_mut(&topic)?;
        let left = members.remove(&member);
        if members.is_empty() {
            self.topics.remove(&topic);
        }
        left
    }

    /// What there is of a member of a topic.
    pub fn get(&self, topic: TopicId, member: u32) -> Option<&Present<I>> {
        self.topics.get(&topic)?.get(&member)
    }

    /// How many members are in a topic.
    pub fn count(&self, topic: TopicId) -> usize {
        self.topics.get(&topic).map_or(0, HashMap::len)
    }

    /// The members of a topic, by the time at which they joined and then by their number.
    ///
    /// They are sorted here: joining is more frequent than asking.
    pub fn of(&self, topic: TopicId) -> impl ExactSizeIterator<Item = (u32, &Present<I>)> {
        let members = self.topics.get(&topic).into_iter().flatten();
        let mut members: Vec<_> = members
            .map(|(&member, present)| (member, present))
            .collect();
        members.sort_unstable_by_key(|&(member, present)| (present.since, member));
        members.into_iter()
    }
}

impl<I> Default for Presence<I> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::TopicTable;
    use super::*;
    use proptest::prelude::*;

    const TOPICS: usize = 4;

    fn topics() -> [TopicId; TOPICS] {
        let mut table = TopicTable::new(TOPICS);
        std::array::from_fn(|n| table.subscribe(0, &n.to_string()).unwrap().topic)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(usize, u32, u16, u64),
        Leave(usize, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let topic = || 0..TOPICS;
        let member = || 0_u32..6;
        let step = prop_oneof![
            (topic(), member(), any::<u16>(), 0_u64..4)
                .prop_map(|(t, m, info, since)| Step::Join(t, m, info, since)),
            (topic(), member()).prop_map(|(t, m)| Step::Leave(t, m)),
        ];
        prop::collection::vec(step, 0..100)
    }

    /// Topic, member, info and since of everybody, in no order.
    #[derive(Default)]
    struct Model(Vec<(usize, u32, u16, u64)>);

    impl Model {
        fn take(&mut self, topic: usize, member: u32) -> Option<Present<u16>> {
            let is_it = |&(t, m, ..): &(usize, u32, u16, u64)| (t, m) == (topic, member);
            let (.., info, since) = self.0.swap_remove(self.0.iter().position(is_it)?);
            Some(Present { info, since })
        }

        fn of(&self, topic: usize) -> Vec<(u32, Present<u16>)> {
            let there = self.0.iter().filter(|(t, ..)| *t == topic);
            let mut there: Vec<_> = there
                .map(|&(_, member, info, since)| (member, Present { info, since }))
                .collect();
            there.sort_by_key(|(member, present)| (present.since, *member));
            there
        }
    }

    proptest! {
        #[test]
        fn presence_behaves_as_a_list_of_who_is_where(steps in steps()) {
            let topics = topics();
            let mut presence = Presence::new();
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Join(topic, member, info, since) => {
                        let replaced = presence.join(topics[topic], member, info, since);
                        let expected = model.take(topic, member).map(|present| present.info);
                        prop_assert_eq!(replaced, expected);
                        model.0.push((topic, member, info, since));
                    }
                    Step::Leave(topic, member) => {
                        let left = presence.leave(topics[topic], member);
                        prop_assert_eq!(left, model.take(topic, member));
                    }
                }
                for (n, &topic) in topics.iter().enumerate() {
                    let there = model.of(n);
                    prop_assert_eq!(presence.count(topic), there.len());
                    prop_assert_eq!(presence.of(topic).len(), there.len());
                    let of: Vec<_> = presence.of(topic).map(|(m, p)| (m, *p)).collect();
                    prop_assert_eq!(of, there.clone());
                    for member in 0..6 {
                        let expected = there.iter().find(|(m, _)| *m == member).map(|(_, p)| p);
                        prop_assert_eq!(presence.get(topic, member), expected);
                    }
                }
                prop_assert!(presence.topics.values().all(|members| !members.is_empty()));
            }
        }
    }

    #[test]
    fn members_are_listed_by_the_time_of_joining_then_by_number() {
        let [topic, ..] = topics();
        let mut presence = Presence::default();
        for (member, since) in [(3, 20), (9, 10), (5, 20), (1, 30)] {
            assert_eq!(presence.join(topic, member, (), since), None);
        }
        let order =
            |presence: &Presence<()>| presence.of(topic).map(|(m, _)| m).collect::<Vec<_>>();
        assert_eq!(order(&presence), [9, 3, 5, 1]);

        assert_eq!(presence.join(topic, 9, (), 20), Some(()));
        assert_eq!(order(&presence), [3, 5, 9, 1]);
    }

    #[test]
    fn topic_costs_nothing_when_its_last_member_has_left() {
        let [topic, ..] = topics();
        let mut presence = Presence::new();
        presence.join(topic, 1, "one", 10);
        presence.join(topic, 2, "two", 10);
        presence.leave(topic, 1);
        assert_eq!(presence.leave(topic, 1), None);
        assert_eq!(presence.count(topic), 1);

        let two = Present {
            info: "two",
            since: 10,
        };
        assert_eq!(presence.leave(topic, 2), Some(two));
        assert_eq!(presence.leave(topic, 2), None);
        assert!(presence.topics.is_empty());
    }
}
