//! Topics as the loop serves them: who subscribes, what is published, and who gets it when.

use std::hash::BuildHasher;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::config::SlowPolicy;
use super::context::{Gauges, History, Recovery};
use super::core::Core;
use super::handler::{ConnectionId, Lost, SubscribeError};
use super::outbox::Droppable;
use super::peer::Stage;
use super::presence::{Member, PresenceEvent};
use super::publication::{
    Form, KeptPublication, Meta, PublishError, PublishOptions, Published, Tags,
};
use super::publish::{Batch, Entry, Item, Parts, SHARED, Source};
use super::stats::Cause;
use super::walk::Budget;
use crate::protocol::{CloseCode, CloseFrame, Message};
use crate::topic::{
    self, Epoch, HistoryError, HistoryRules, NamespaceId, Position, Present, Query, Since,
    Subscribed, TopicId, TopicTable,
};

/// What is published in a turn is sent before its end when it is this much.
const FULL_BATCH: usize = 1 << 20;

/// Subscribers that are served at once while a walk is under way: so few that the walk hardly
/// notices.
const FEW: usize = 64;

/// Bytes of a batch of which parts are copied to serve them.
const SHORT_BATCH: usize = 64 << 10;

/// What waits for a subscriber is copied up to this size: a reference takes as much.
const SMALL: usize = 128;

/// When the output cap is reached, debtors go until this part of it is free again: looking for
/// them goes through all connections.
const CAP_SLACK: usize = 8;

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
        }
    }

    fn source(&self) -> Source {
        Source {
            topic: self.name.into(),
            kind: self.message.kind(),
            payload_len: self.message.payload().len(),
            position: self.position,
            tags: self.tags(),
        }
    }

    fn tags(&self) -> Option<Tags> {
        let tags = self.options.tags.as_slice();
        (!tags.is_empty()).then(|| tags.into())
    }
}

impl<S> Core<S> {
    // ---- subscriptions ----

    /// Subscribes a connection; `info` is what others see of it where the topic has a presence.
    pub(crate) fn subscribe(
        &mut self,
        key: usize,
        topic: &str,
        info: &[u8],
    ) -> Result<bool, SubscribeError> {
        self.leave_course(key);
        // What was published so far may have been too much for it.
        if !self.is_receiving(key) {
            return Err(SubscribeError::NotOpen);
        }
        let (topics, options) = (&mut self.topics, &self.topic_options);
        let member = key as u32;
        let Subscribed { topic: id, new } =
            topics.subscribe_with(member, topic, || options.id_of(topic))?;
        let keeps_presence = self.topic_options.get(self.topics.namespace(id)).presence;
        // Who listens to a pattern is in no topic.
        if new && keeps_presence && !TopicTable::is_pattern(topic) {
            let now = self.millis();
            self.presence.join(id, member, info.into(), now);
            self.tell_presence(member, id, info.into(), true);
        }
        Ok(new)
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
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        if let Some(topic) = known {
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
        let Some(key) = by else { return };
        let work = self.work(key);
        if !std::mem::replace(&mut work.is_throttled, true) {
            self.throttled.push(self.peers[key].id(key));
            self.stats.throttled += 1;
        }
    }

    /// Whether other threads have to wait with publishing.
    pub(crate) fn is_overfull(&self) -> bool {
        self.batch.weight() >= FULL_BATCH && !self.walk.is_over()
    }

    fn release_throttled(&mut self) {
        for id in std::mem::take(&mut self.throttled) {
            if let Some(key) = self.key(id)
                && let Some(work) = &mut self.peers[key].work
            {
                work.is_throttled = false;
                self.read_later(key);
            }
        }
    }

    // ---- what goes out ----

    /// Whether somebody may still have to get what was published.
    #[inline]
    pub(crate) fn is_publishing(&self) -> bool {
        !self.batch.is_empty() || !self.walk.is_over()
    }

    /// Whether a batch is on its way.
    pub(crate) fn is_walking(&self) -> bool {
        !self.walk.is_over()
    }

    /// The most subscribers that a message of the batch has.
    pub(crate) fn reached(&self) -> usize {
        self.batch.reached()
    }

    /// Queues what was published for a connection so far, so that what is done next comes behind
    /// it.
    #[inline]
    pub(crate) fn settle(&mut self, key: usize) {
        if self.is_publishing() {
            self.settle_slowly(key);
        }
    }

    fn settle_slowly(&mut self, key: usize) {
        let member = key as u32;
        if self.walk.owes(member) {
            self.settle_walk(key);
        }
        if self.batch.is_empty() || !self.batch.touches(&self.topics, member) {
            return;
        }
        let entries = self.batch.pending(&self.topics, member);
        self.batch.set_cursor(member);
        let form = self.form_of(key);
        self.batch.prepare(form, self.encode);
        if entries.is_empty() || self.peers[key].stage == Stage::Gone {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        if batch.is_droppable() {
            self.offer(key);
        }
        if batch.is_droppable() && self.peers[key].has_output() {
            let parts = batch.gather_copy(form, &entries);
            self.queue_messages(key, &batch, &entries, &parts, 0);
        } else if self.admit(key, entries.len() as u64) {
            self.stats.deliveries += 1;
            self.stats.messages_out += entries.len() as u64;
            self.write(key, |_, output| batch.copy(form, &entries, output));
        }
        // What a closing connection was published in between goes nowhere.
        std::mem::swap(&mut self.batch, &mut batch);
        self.pressure(key);
    }

    /// The connection gets its part of the walk now.
    fn settle_walk(&mut self, key: usize) {
        let member = key as u32;
        self.walk.forget(member);
        if self.corked == Some(key) {
            self.flush_cork(key);
        }
        let mut walk = std::mem::take(&mut self.walk);
        let form = self.form_of(key);
        let entries = walk.batch.pending(&self.topics, member);
        walk.batch.prepare(form, self.encode);
        let parts = walk.batch.gather(form, &entries);
        if self.peers[key].stage != Stage::Gone {
            self.give(key, &walk.batch, &entries, &parts);
        }
        self.walk = walk;
    }

    /// The connection is closed, by a Close frame of the peer or an error, and the answer is in the
    /// cork from `reply` on: what was published so far goes in front of it.
    pub(crate) fn settle_before(&mut self, key: usize, reply: usize) {
        if self.is_publishing() {
            let reply = self.cork.split_off(reply);
            self.settle(key);
            self.cork.extend_from_slice(&reply);
        }
        self.leave_all(key);
    }

    /// Sends what was published so far if it is much: a turn that publishes without end must not
    /// collect without end. Nothing may be corked.
    pub(crate) fn flush_full_batch(&mut self) {
        if self.batch.weight() >= FULL_BATCH && self.walk.is_over() {
            self.flush_topics();
        }
    }

    /// Sends what was published: one send per subscriber for all of it, and as many as a turn has
    /// time for.
    pub(crate) fn flush_topics(&mut self) {
        let mut budget = Budget::of_turn(self.limits.walk_sends);
        while self.is_publishing() {
            if self.walk.is_over() {
                self.walk.begin(&mut self.batch, &self.topics);
                self.express.clear();
                self.release_throttled();
            }
            self.walk_on(&mut budget);
            if !self.walk.is_over() {
                return self.flush_express();
            }
            self.finish_walk();
        }
    }

    /// What was published to few does not wait until a walk to many is over: they are settled.
    fn flush_express(&mut self) {
        let mut topics = std::mem::take(&mut self.express);
        topics.sort_unstable();
        topics.dedup();
        for topic in topics.drain(..) {
            if self.batch.weight() > SHORT_BATCH {
                continue;
            }
            // Settling may close the connection, and with that end its subscriptions.
            for member in self.topics.subscribers(topic).to_vec() {
                // Who is slow waits for a reference instead of having a copy.
                if !self.peers[member as usize].has_output() {
                    self.settle(member as usize);
                }
            }
        }
        self.express = topics;
    }

    fn walk_on(&mut self, budget: &mut Budget) {
        let mut walk = std::mem::take(&mut self.walk);
        let has_exceptions = walk.batch.has_exceptions();
        while !budget.is_spent()
            && let Some((member, group)) = walk.next()
        {
            let key = member as usize;
            let form = self.form_of(key);
            if has_exceptions && walk.batch.is_exception(member) {
                let entries = walk.batch.pending(&self.topics, member);
                walk.batch.prepare(form, self.encode);
                let parts = walk.batch.gather(form, &entries);
                self.deliver(key, &walk.batch, &entries, &parts);
                budget.spend(parts.range.len());
            } else {
                let (batch, entries, parts) = walk.course(group, form, self.encode);
                self.deliver(key, batch, entries, parts);
                budget.spend(parts.range.len());
            }
        }
        self.walk = walk;
    }

    fn finish_walk(&mut self) {
        if let Some(began) = self.walk.batch.began() {
            self.stats.fan_out.record(began.elapsed());
        }
        self.walk.end();
        self.share_with_histories();
        self.walk.batch.clear();
    }

    /// Whether the connection gets what is published and sent.
    pub(crate) fn is_receiving(&self, key: usize) -> bool {
        let peer = &self.peers[key];
        match peer.stage {
            Stage::Active => peer.protocol.is_open(),
            Stage::Streaming => true,
            Stage::Lingering | Stage::HalfClosed | Stage::Gone => false,
        }
    }

    fn deliver(&mut self, key: usize, batch: &Batch, entries: &[u32], parts: &Parts) {
        if self.is_receiving(key) {
            self.give(key, batch, entries, parts);
        }
    }

    /// One send for one subscriber; what the kernel does not take is referred to, not copied.
    fn give(&mut self, key: usize, batch: &Batch, entries: &[u32], parts: &Parts) {
        let range = parts.range.clone();
        if range.is_empty() {
            return;
        }
        if batch.is_droppable() {
            self.offer(key);
        }
        let peer = &self.peers[key];
        let mut taken = 0;
        if peer.stage == Stage::Gone {
            return;
        } else if !peer.has_output() {
            match peer.transport.send(&parts.bytes[range.clone()]) {
                Ok(count) => taken = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.end(key, Cause::ConnectionLost),
            }
            self.stats.bytes_out += taken as u64;
            if taken == range.len() {
                self.stats.deliveries += 1;
                self.stats.messages_out += parts.messages;
                return;
            }
        }
        if batch.is_droppable() {
            self.queue_messages(key, batch, entries, parts, taken);
        } else if taken > 0 || self.admit(key, parts.messages) {
            let now = self.deadlines.now();
            let rest = range.start + taken..range.end;
            if rest.len() <= SMALL {
                self.queue(key, &parts.bytes[rest]);
            } else {
                parts.bytes.lend(&self.lent);
                let work = self.stalled_work(key);
                work.outbox.push_shared(&parts.bytes, rest, now);
            }
            self.stats.messages_out += parts.messages;
        } else {
            return;
        }
        self.stats.deliveries += 1;
        self.pressure(key);
    }

    /// Writes what has not been offered to the socket yet: only what it does not take makes a
    /// reader slow.
    fn offer(&mut self, key: usize) {
        if let Some(work) = &self.peers[key].work
            && !work.outbox.is_empty()
            && !work.outbox.is_stalled()
        {
            self.flush(key);
        }
    }

    /// Queues messages one by one, each by the policy of its topic; `taken` bytes of them are
    /// already out.
    fn queue_messages(
        &mut self,
        key: usize,
        batch: &Batch,
        entries: &[u32],
        parts: &Parts,
        taken: usize,
    ) {
        parts.bytes.lend(&self.lent);
        let form = self.form_of(key);
        let (mut start, out) = (parts.range.start, parts.range.start + taken);
        for (number, &index) in entries.iter().enumerate() {
            let end = start + batch.len_of(form, index);
            let (from, is_begun) = (start.max(out), start < out);
            start = end;
            if from >= end {
                self.stats.messages_out += u64::from(is_begun);
                continue;
            }
            let entry = batch.entry(index);
            if !self.queue_message(key, entry, parts, from..end, is_begun) {
                return self.close_slow(key, (entries.len() - number) as u64);
            }
        }
        if !self.peers[key].has_output() {
            // Everything that waited was dropped: what waited for that comes now.
            self.flush(key);
        }
    }

    /// Queues one message, or what is left of it; `false` if the connection has to be closed
    /// instead.
    fn queue_message(
        &mut self,
        key: usize,
        entry: Entry,
        parts: &Parts,
        range: std::ops::Range<usize>,
        is_begun: bool,
    ) -> bool {
        let now = self.deadlines.now();
        let hard = self.limits.outbox_hard;
        let options = self.topic_options.get(entry.namespace);
        let policy = options.slow;
        let age = options.age();
        let mark = options.max_queued.unwrap_or(hard);
        let namespace = entry.namespace.number();
        let droppable = Droppable {
            namespace,
            lane: entry.lane,
        };
        let len = range.len();
        let stale = age.map(|age| now.saturating_sub(self.deadlines.ticks(age)));
        let mut lost = Lost::default();
        let work = self.stalled_work(key);
        if let Some(before) = stale {
            lost.expired += work.outbox.expire(namespace, before).messages;
        }
        let is_full = |cost: usize| cost + len > mark;
        let mut is_queued = true;
        match policy {
            _ if is_begun => {}
            SlowPolicy::Disconnect => {
                if work.outbox.queued() > hard.min(mark) {
                    self.count_lost(key, lost);
                    return false;
                }
            }
            // Nothing makes room for it.
            _ if len > mark => is_queued = false,
            SlowPolicy::DropNewest => is_queued = !is_full(work.outbox.cost()),
            SlowPolicy::DropOldest => {
                let entries = work.outbox.cost() - work.outbox.queued();
                let room = mark.saturating_sub(len + entries);
                lost.oldest += work.outbox.drop_oldest(namespace, room).messages;
                is_queued = !is_full(work.outbox.cost());
            }
            SlowPolicy::Latest => {
                let replaced = work.outbox.conflate(entry.lane).messages;
                lost.conflated += replaced;
                // The newest state takes the place of the last one, whatever its size.
                is_queued = replaced > 0 || !is_full(work.outbox.cost());
            }
        }
        if is_queued {
            work.outbox
                .push_message(&parts.bytes, range, droppable, is_begun, now);
            self.stats.messages_out += 1;
        } else {
            lost.newest += 1;
        }
        self.count_lost(key, lost);
        true
    }

    fn count_lost(&mut self, key: usize, lost: Lost) {
        if lost == Lost::default() {
            return;
        }
        self.stats.lost += lost;
        self.work(key).lost += lost;
    }

    /// Whether so many more messages may be queued. A peer for whom too much waits is closed
    /// instead.
    pub(super) fn admit(&mut self, key: usize, messages: u64) -> bool {
        if self.peers[key].queued() <= self.limits.outbox_hard {
            return true;
        }
        self.close_slow(key, messages);
        false
    }

    /// Closes a connection that does not keep up; so many messages it does not get, nor any that
    /// was published since: who recovers asks for what follows the last one that has come, and must
    /// not have got one behind a gap.
    pub(crate) fn close_slow(&mut self, key: usize, messages: u64) {
        self.stats.dropped_slow += messages + self.skip(key);
        let frame = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "too slow");
        let _ = self.close(key, frame, Cause::SlowConsumer);
    }

    /// The connection does not get what was published so far; answers how much that is.
    fn skip(&mut self, key: usize) -> u64 {
        let member = key as u32;
        let mut skipped = self.batch.pending(&self.topics, member).len();
        if !self.batch.is_empty() {
            self.batch.set_cursor(member);
        }
        if self.walk.owes(member) {
            skipped += self.walk.batch.pending(&self.topics, member).len();
            self.walk.forget(member);
        }
        skipped as u64
    }

    // ---- memory ----

    /// Bytes that wait for peers: their own, and shared ones counted once.
    pub(crate) fn output_memory(&self) -> usize {
        self.own_queued + self.lent.load(Ordering::Relaxed)
    }

    /// Ends those connections for which most waits, until enough memory is free again.
    pub(crate) fn enforce_output_cap(&mut self) {
        let cap = self.limits.max_output;
        if self.output_memory() <= cap {
            return;
        }
        // What waited for those that have ended in this turn is free already.
        for index in 0..self.ended.len() {
            let (key, _) = self.ended[index];
            self.stats.bytes_unsent += self.peers[key].queued() as u64;
            self.forget_output(key);
        }
        let mut debtors: Vec<(usize, usize)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.has_output() && peer.stage != Stage::Gone)
            .map(|(key, peer)| (peer.queued(), key))
            .collect();
        debtors.sort_unstable();
        while self.output_memory() > cap - cap / CAP_SLACK
            && let Some((_, key)) = debtors.pop()
        {
            let queued = self.peers[key].queued();
            self.stats.evicted += 1;
            self.stats.bytes_unsent += queued as u64;
            self.forget_output(key);
            self.end(key, Cause::OutputCap);
        }
    }

    /// How publications are written for a connection.
    #[inline]
    pub(crate) fn form_of(&self, key: usize) -> Form {
        self.forms.get(key).copied().unwrap_or(Form::PLAIN)
    }

    pub(crate) fn set_form(&mut self, key: usize, form: Form) {
        if self.forms.len() <= key {
            if form == Form::PLAIN {
                return;
            }
            self.forms.resize(key + 1, Form::PLAIN);
        }
        let old = std::mem::replace(&mut self.forms[key], form);
        self.formed += usize::from(form != Form::PLAIN);
        self.formed -= usize::from(old != Form::PLAIN);
    }

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
            let sizes = missed.iter().map(|missed| missed.0.payload.len());
            sizes.sum::<usize>() <= self.limits.outbox_hard
        };
        Ok(Recovery {
            position,
            publications: missed.filter(fits),
        })
    }

    fn history_rules(&self, topic: &str) -> HistoryRules {
        let namespace = self.topic_options.id_of(topic);
        self.topic_options.get(namespace).history_rules()
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

    pub(crate) fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            connections: self.peers.len(),
            topics: self.topics.len(),
            patterns: self.topics.pattern_count(),
            subscriptions: self.topics.subscription_count(),
            output_memory: self.output_memory(),
            histories: self.histories.len(),
            kept_publications: self.histories.publications(),
            history_memory: self.histories.bytes(),
            history_evicted: self.histories.evicted(),
            ..Gauges::default()
        };
        for (_, peer) in &self.peers {
            gauges.queued += peer.queued();
            // Who has gone without a word is counted with the connections until he is reaped.
            let is_open = peer.stage == Stage::Active && peer.protocol.is_open();
            gauges.open += usize::from(is_open);
            gauges.streams += usize::from(peer.stage == Stage::Streaming);
        }
        gauges
    }

    /// Large messages that history and subscribers have in common are in memory once.
    fn share_with_histories(&mut self) {
        if self.keeps_history {
            let (batch, histories) = (&mut self.walk.batch, &mut self.histories);
            batch.share(|topic, offset, slice| histories.share(topic, offset, slice));
        }
    }

    /// Now, in milliseconds of Unix time that never go back.
    pub(crate) fn millis(&self) -> u64 {
        let (at, started) = self.started;
        at + self.now.saturating_duration_since(started).as_millis() as u64
    }

    /// The connections whose losses can be told, with what they lost.
    pub(crate) fn take_lossy(&mut self) -> Vec<(ConnectionId, Lost)> {
        let mut told = Vec::new();
        if self.lossy.is_empty() {
            return told;
        }
        for id in std::mem::take(&mut self.lossy) {
            let Some(key) = self.key(id) else { continue };
            let Some(work) = &mut self.peers[key].work else {
                continue;
            };
            // It may be on the list twice.
            let lost = std::mem::take(&mut work.lost);
            if lost != Lost::default() {
                told.push((id, lost));
            }
            self.release_idle_work(key);
        }
        told
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
