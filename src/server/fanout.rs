//! The way of a batch to its subscribers, as the loop goes it: who gets what when, and in which
//! order with all that is sent directly.

use std::io;

use super::core::Core;
use super::peer::Stage;
use super::publication::Form;
use super::publish::{Batch, Parts};
use super::stats::Cause;
use super::walk::Budget;

/// What is published in a turn is sent before its end when it is this much.
pub(super) const FULL_BATCH: usize = 1 << 20;

/// While this much waits for a walk to end, nobody is read who may publish: each would add one
/// message before it is held. A batch is in memory once for each form, so it is not much.
pub(super) const SWAMPED: usize = 4 << 20;

/// Bytes of a batch of which parts are copied to serve them.
const SHORT_BATCH: usize = 64 << 10;

/// What waits for a subscriber is copied up to this size: a reference takes as much.
const SMALL: usize = 128;

impl<S> Core<S> {
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
        if !self.walk.is_over() && !self.express.is_empty() {
            // Before the next slice, not behind it.
            self.flush_express();
            self.flush_outboxes();
        }
        let mut budget = Budget::of_turn(self.limits.walk_sends);
        while self.is_publishing() {
            if self.walk.is_over() {
                self.walk.begin(&mut self.batch, &self.topics);
                self.express.clear();
                self.release_throttled();
            }
            self.walk_on(&mut budget);
            if !self.walk.is_over() {
                return;
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
}
