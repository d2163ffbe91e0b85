//! Who does not keep up: what waits for it, what it loses, and when it is ended.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::config::SlowPolicy;
use super::core::Core;
use super::handler::{ConnectionId, Lost};
use super::outbox::Droppable;
use super::peer::Stage;
use super::publish::{Batch, Entry, Parts};
use super::stats::Cause;
use crate::protocol::{CloseCode, CloseFrame};

/// When the output cap is reached, debtors go until this part of it is free again: looking for
/// them goes through all connections.
const CAP_SLACK: usize = 8;

impl<S> Core<S> {
    /// Writes what has not been offered to the socket yet: only what it does not take makes a
    /// reader slow.
    pub(super) fn offer(&mut self, key: usize) {
        if let Some(work) = &self.peers[key].work
            && !work.outbox.is_empty()
            && !work.outbox.is_stalled()
        {
            self.flush(key);
        }
    }

    /// Queues messages one by one, each by the policy of its topic; `taken` bytes of them are
    /// already out.
    pub(super) fn queue_messages(
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
        range: Range<usize>,
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
        self.dismiss(key, frame, Cause::SlowConsumer);
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

    // ---- all of them together ----

    /// Whether so much is incomplete that some of it must go.
    #[inline]
    pub(crate) fn is_input_full(&self) -> bool {
        self.input_memory > self.limits.max_input
    }

    /// Whether more is incomplete than is left when those that hold most have gone.
    pub(crate) fn has_much_input(&self) -> bool {
        let cap = self.limits.max_input;
        self.input_memory > cap - cap / CAP_SLACK
    }

    /// Those who hold something incomplete, the largest last. What those hold that have ended in
    /// this turn is freed.
    pub(crate) fn input_holders(&mut self) -> Vec<(usize, usize)> {
        for index in 0..self.ended.len() {
            let (key, _) = self.ended[index];
            self.forget_input(key);
        }
        let holders = self.peers.iter().filter_map(|(key, peer)| {
            let input = peer.work.as_ref()?.input;
            (input > 0).then_some((input, key))
        });
        let mut holders: Vec<(usize, usize)> = holders.collect();
        holders.sort_unstable();
        holders
    }

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
}
