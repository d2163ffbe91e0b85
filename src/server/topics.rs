//! Topics as the loop keeps them: who subscribes, what is published, what is remembered of it.

use std::hash::BuildHasher;
use std::mem;
use std::time::{Duration, SystemTime};

use super::config::{SlowPolicy, TopicOptions};
use super::context::{History, Recovery};
use super::core::Core;
use super::fanout::{FULL_BATCH, SWAMPED};
use super::handler::SubscribeError;
use super::presence::{Member, PresenceEvent, SubscribeOptions};
use super::publication::{KeptPublication, Meta, PublishError, PublishOptions, Published, Tags};
use super::publish::{Entry, Item, SHARED, Source};
use crate::protocol::{Message, State};
use crate::topic::{
    self, Epoch, HistoryError, HistoryRules, NamespaceId, Position, Present, Query, Since,
    Subscribed, TopicError, TopicId, TopicTable,
};

/// Subscribers that are served at once while a walk is under way: so few that the walk hardly
/// notices.
const FEW: usize = 64;

/// What is kept of one who is present beside the info: its place in the map of its topic, and of
/// the first one that map.
const PRESENT: usize = 320;

/// A message that is being published.
struct Draft<'d> {
    name: &'d str,
    namespace: NamespaceId,
    message: Message<'d>,
    options: &'d PublishOptions,
    position: Option<Position>,
}

impl Draft<'_> {
    fn meta(&self) -> Meta {
        Meta {
            kind: self.message.kind(),
            tags: self.tags(),
            note: self.options.note.clone(),
        }
    }

    fn source(&self) -> Source {
        Source {
            topic: self.name.into(),
            kind: self.message.kind(),
            payload_len: self.message.payload().len(),
            position: self.position,
            tags: self.tags(),
            note: self.options.note.clone(),
        }
    }

    fn tags(&self) -> Option<Tags> {
        let tags = self.options.tags.as_slice();
        (!tags.is_empty()).then(|| tags.into())
    }
}

impl<S> Core<S> {
    // ---- subscriptions ----

    /// Subscribes a connection.
    pub(crate) fn subscribe(
        &mut self,
        key: usize,
        topic: &str,
        how: &SubscribeOptions<'_>,
    ) -> Result<bool, SubscribeError> {
        self.leave_course(key);
        // What was published so far may have been too much for it.
        if !self.is_receiving(key) {
            return Err(SubscribeError::NotOpen);
        }
        self.check_topic_memory(key, topic)?;
        let (topics, options) = (&mut self.topics, &self.topic_options);
        let member = key as u32;
        let Subscribed { topic: id, new } =
            topics.subscribe_with(member, topic, || options.id_of(topic))?;
        let is_present = how.is_present.unwrap_or_else(|| {
            let namespace = self.topics.namespace(id);
            self.topic_options.get(namespace).presence
        });
        // Who listens to a pattern is in no topic.
        if new && is_present && !TopicTable::is_pattern(topic) {
            let now = self.millis();
            self.presence_memory += PRESENT + how.info.len();
            self.presence.join(id, member, how.info.into(), now);
            self.tell_presence(member, id, how.info.into(), true);
        }
        Ok(new)
    }

    /// Bytes that topics, subscriptions and presences take, about.
    pub(crate) fn topic_memory(&self) -> usize {
        self.topics.memory() + self.presence_memory
    }

    /// Refuses a new subscription where those that there are take all the memory they may.
    fn check_topic_memory(&mut self, key: usize, topic: &str) -> Result<(), TopicError> {
        if self.topic_memory() < self.limits.max_topic_memory {
            return Ok(());
        }
        let known = self.topics.id(topic);
        if known.is_some_and(|id| self.topics.is_subscribed(key as u32, id)) {
            return Ok(());
        }
        self.stats.refused_subscriptions += 1;
        Err(TopicError::TooMuchMemory)
    }

    pub(crate) fn unsubscribe(&mut self, key: usize, topic: &str) -> bool {
        self.leave_course(key);
        let Some(id) = self.topics.id(topic) else {
            return false;
        };
        self.leave_presence(key as u32, id);
        self.topics.unsubscribe_id(key as u32, id)
    }

    /// Ends all subscriptions of a connection that is over, or has been settled.
    pub(crate) fn leave_all(&mut self, key: usize) {
        let member = key as u32;
        if !self.presence.is_empty() {
            let topics: Vec<TopicId> = self.topics.topics_of(member).collect();
            for topic in topics {
                self.leave_presence(member, topic);
            }
        }
        self.topics.remove_member(member);
        self.walk.forget(member);
    }

    fn leave_presence(&mut self, member: u32, topic: TopicId) {
        if let Some(present) = self.presence.leave(topic, member) {
            self.presence_memory -= PRESENT + present.info.len();
            self.tell_presence(member, topic, present.info, false);
        }
    }

    fn tell_presence(&mut self, member: u32, topic: TopicId, info: Box<[u8]>, has_joined: bool) {
        let key = member as usize;
        self.presence_events.push_back(PresenceEvent {
            topic: self.topics.name(topic).into(),
            id: self.peers[key].id(key),
            info,
            has_joined,
        });
    }

    /// The subscriptions of a connection are about to change: what was published so far goes to it
    /// by those that it has.
    fn leave_course(&mut self, key: usize) {
        self.settle(key);
        if !self.batch.is_empty() {
            self.batch.set_cursor(key as u32);
        }
    }

    // ---- publishing ----

    /// Publishes to everyone who is subscribed now. `by` is the connection that does.
    pub(crate) fn publish(
        &mut self,
        name: &str,
        message: Message<'_>,
        by: Option<usize>,
        options: &PublishOptions,
    ) -> Result<Published, PublishError> {
        self.stats.published += 1;
        let known = self.topics.id(name);
        let may_be_pattern = self.topics.pattern_count() > 0 || known.is_none();
        if may_be_pattern && TopicTable::is_pattern(name) {
            return Err(PublishError::Pattern);
        }
        let namespace = if let Some(topic) = known {
            self.topics.namespace(topic)
        } else {
            TopicTable::check_name(name).map_err(|_| PublishError::BadName)?;
            self.topic_options.id_of(name)
        };
        if let Some(key) = &options.idempotency_key
            && let Some(published) = self.idempotency.get(name, key, self.now)
        {
            self.stats.repeated += 1;
            return Ok(published);
        }
        let mut draft = Draft {
            name,
            namespace,
            message,
            options,
            position: None,
        };
        draft.position = self.keep(&draft);
        let published = Published {
            subscribers: self.hand_out(&draft, known, by),
            position: draft.position,
        };
        if let Some(key) = &options.idempotency_key {
            let until = super::timer::after(self.now, self.idempotency_window);
            self.idempotency.insert(name, key, published, until);
        }
        Ok(published)
    }

    /// Enters a message in the history of its topic, if there is one.
    fn keep(&mut self, draft: &Draft<'_>) -> Option<Position> {
        if !self.keeps_history || draft.options.no_history {
            return None;
        }
        let rules = self.topic_options.get(draft.namespace).history_rules();
        if !rules.is_on() {
            return None;
        }
        let (now, meta) = (self.millis(), draft.meta());
        let payload = draft.message.payload();
        Some(
            self.histories
                .publish(draft.name, rules, payload, meta, now),
        )
    }

    /// Adds a message to the batch of the turn; answers to how many subscriptions it goes.
    fn hand_out(&mut self, draft: &Draft<'_>, known: Option<TopicId>, by: Option<usize>) -> usize {
        let mut targets = mem::take(&mut self.targets);
        targets.clear();
        if let Some(topic) = known {
            self.topics.count_published(topic);
            targets.push(topic);
            targets.extend_from_slice(self.topics.patterns_of(topic));
        } else {
            self.topics.patterns_matching(draft.name, &mut targets);
        }
        let of = |topic: &TopicId| self.topics.subscribers(*topic).len();
        let mut count: usize = targets.iter().map(of).sum();
        let mut except = None;
        if let Some(key) = by.filter(|_| draft.options.to_others) {
            let member = key as u32;
            let is_its = |topic: &&TopicId| self.topics.is_subscribed(member, **topic);
            let own = targets.iter().filter(is_its).count();
            count -= own;
            except = Some(member).filter(|_| own > 0);
        }
        if count > 0 {
            let item = self.item(draft, except);
            self.batch.push(item, &targets, count, self.now);
            let is_noted = self.express.last() == targets.last();
            if count <= FEW && !self.walk.is_over() && !is_noted {
                self.express.extend_from_slice(&targets);
            }
            self.throttle(by);
        }
        self.targets = targets;
        count
    }

    fn item<'d>(&self, draft: &Draft<'d>, except: Option<u32>) -> Item<'d> {
        let rules = self.topic_options.get(draft.namespace);
        let (policy, hard) = (rules.slow, self.limits.outbox_hard);
        let is_usual =
            policy == SlowPolicy::Disconnect && rules.max_queued.is_none_or(|mark| mark >= hard);
        let lane = match policy {
            SlowPolicy::Latest => self.lanes.hash_one(draft.name),
            _ => 0,
        };
        let is_shared = draft.position.is_some() && draft.message.payload().len() >= SHARED;
        Item {
            message: draft.message,
            entry: Entry::new(draft.namespace, lane, except),
            is_droppable: !is_usual,
            source: (self.formed > 0 || is_shared).then(|| Box::new(draft.source())),
        }
    }

    /// A batch that is full: who fills it waits until it is on its way. One short message after
    /// the other may publish much.
    fn throttle(&mut self, by: Option<usize>) {
        if self.batch.weight() < FULL_BATCH {
            return;
        }
        if let Some(key) = by
            && self.hold(key)
        {
            self.throttled.push(self.peers[key].id(key));
        }
    }

    /// Whether more waits for the walk to end than those add who are held once they have
    /// published, or those who are held keep much of what they have sent.
    #[inline]
    pub(crate) fn is_swamped(&self) -> bool {
        if self.walk.is_over() {
            return false;
        }
        let weight = self.batch.weight();
        weight >= SWAMPED || weight >= FULL_BATCH && self.input_memory > self.limits.max_input / 2
    }

    /// Reads a connection that may publish only when the batch is on its way.
    pub(crate) fn hold_unread(&mut self, key: usize) {
        if let State::Connecting | State::Open = self.peers[key].protocol.state()
            && self.hold(key)
        {
            self.unread.push(self.peers[key].id(key));
        }
    }

    /// A connection waits until the batch is on its way; answers whether it did not before.
    fn hold(&mut self, key: usize) -> bool {
        let was_held = mem::replace(&mut self.work(key).is_throttled, true);
        self.stats.throttled += u64::from(!was_held);
        !was_held
    }

    /// Whether other threads have to wait with publishing.
    pub(crate) fn is_overfull(&self) -> bool {
        self.batch.weight() >= FULL_BATCH && !self.walk.is_over()
    }

    pub(super) fn release_throttled(&mut self) {
        let mut waiting = mem::take(&mut self.unread);
        waiting.append(&mut self.throttled);
        for id in waiting {
            if let Some(key) = self.key(id)
                && let Some(work) = &mut self.peers[key].work
            {
                work.is_throttled = false;
                self.read_later(key);
                if self.peers[key].protocol.state() == State::Connecting {
                    self.begin_stage(key, self.timeouts.handshake);
                }
            }
        }
    }

    // ---- history and presence ----

    /// Drops what histories have kept for long enough.
    pub(crate) fn expire_histories(&mut self) {
        let now = self.millis();
        if self.histories.next_expiry().is_some_and(|due| due <= now) {
            self.histories.expire(now);
        }
    }

    /// How long until a history drops something.
    pub(crate) fn until_expiry(&self) -> Option<Duration> {
        let due = self.histories.next_expiry()?;
        Some(Duration::from_millis(due.saturating_sub(self.millis())))
    }

    pub(crate) fn read_history(
        &mut self,
        topic: &str,
        query: &Query<'_>,
    ) -> Result<History, HistoryError> {
        let now = self.millis();
        let rules = self.history_rules(topic);
        let (position, publications) = self.histories.read(topic, rules, query, now)?;
        Ok(History {
            position,
            publications: kept(publications, position.epoch),
        })
    }

    pub(crate) fn recover(
        &mut self,
        topic: &str,
        since: &Since<'_>,
        limit: usize,
    ) -> Result<Recovery, HistoryError> {
        let now = self.millis();
        let rules = self.history_rules(topic);
        if !rules.is_on() {
            return Err(HistoryError::Off);
        }
        let recovered = self.histories.recover(topic, rules, since, limit, now);
        let position = recovered.position;
        let missed = recovered.publications;
        let missed = missed.map(|publications| kept(publications, position.epoch));
        // More than may wait for a connection would end with its being closed, again and again.
        let fits = |missed: &Vec<KeptPublication>| {
            let sizes = missed.iter().map(KeptPublication::len);
            sizes.sum::<usize>() <= self.limits.outbox_hard
        };
        Ok(Recovery {
            position,
            publications: missed.filter(fits),
        })
    }

    pub(crate) fn newest(
        &mut self,
        topic: &str,
        since: Option<&Since<'_>>,
    ) -> Result<Recovery, HistoryError> {
        let now = self.millis();
        let rules = self.history_rules(topic);
        if !rules.is_on() {
            return Err(HistoryError::Off);
        }
        let newest = self.histories.newest(topic, rules, since, now);
        let position = newest.position;
        let publications = newest.publications;
        Ok(Recovery {
            position,
            publications: publications.map(|newest| kept(newest, position.epoch)),
        })
    }

    /// Changes the rules of a namespace; answers whether there is one of this name.
    pub(crate) fn set_options(&mut self, namespace: &str, options: TopicOptions) -> bool {
        let all = &mut self.topic_options;
        let known = match namespace {
            "" => Some(NamespaceId::DEFAULT),
            name => all
                .names()
                .find(|known| known.1 == name)
                .map(|known| known.0),
        };
        let Some(id) = known else { return false };
        *all.get_mut(id) = options;
        self.note_options();
        true
    }

    fn history_rules(&self, topic: &str) -> HistoryRules {
        let namespace = self.topic_options.id_of(topic);
        self.topic_options.get(namespace).history_rules()
    }

    /// Large messages that history and subscribers have in common are in memory once.
    pub(super) fn share_with_histories(&mut self) {
        if self.keeps_history {
            let (batch, histories) = (&mut self.walk.batch, &mut self.histories);
            batch.share(|topic, offset, slice| histories.share(topic, offset, slice));
        }
    }

    /// Who is present in a topic.
    pub(crate) fn members(&self, topic: &str) -> Vec<Member> {
        let Some(topic) = self.topics.id(topic) else {
            return Vec::new();
        };
        let present = self.presence.of(topic);
        let member = |(member, present): (u32, &Present<Box<[u8]>>)| Member {
            id: self.peers[member as usize].id(member as usize),
            info: present.info.clone(),
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(present.since),
        };
        present.map(member).collect()
    }

    /// Now, in milliseconds of Unix time that never go back.
    pub(crate) fn millis(&self) -> u64 {
        let (at, started) = self.started;
        at + self.now.saturating_duration_since(started).as_millis() as u64
    }
}

fn kept<'h>(
    publications: impl IntoIterator<Item = &'h topic::Publication<Meta>>,
    epoch: Epoch,
) -> Vec<KeptPublication> {
    let publications = publications.into_iter();
    publications
        .map(|publication| KeptPublication(publication.clone(), epoch))
        .collect()
}
