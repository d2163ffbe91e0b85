//! Publications that were made with a key, so that a second one is answered and not made.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use super::publication::Published;

/// Keys remembered at a time. Publishers choose them: when there are more, the oldest go first.
const MOST: usize = 65_536;

/// Recent publications by topic and key.
///
/// Names are as long as publishers make them, so they are kept as 128 bits of keyed hashes.
#[derive(Debug, Default)]
pub(crate) struct Idempotency {
    published: HashMap<Key, (Published, Instant)>,
    /// In the order of publication, which is that of forgetting.
    order: VecDeque<Key>,
    hashers: [RandomState; 2],
}

type Key = [u64; 2];

impl Idempotency {
    /// What the publication with this key came to, unless it is forgotten by `now`.
    pub(crate) fn get(&mut self, topic: &str, key: &str, now: Instant) -> Option<Published> {
        while let Some(oldest) = self.order.front()
            && self.published[oldest].1 <= now
        {
            self.forget_oldest();
        }
        let key = self.key(topic, key);
        self.published.get(&key).map(|&(published, _)| published)
    }

    /// Remembers a publication whose key is not known.
    pub(crate) fn insert(&mut self, topic: &str, key: &str, published: Published, until: Instant) {
        if self.order.len() >= MOST {
            self.forget_oldest();
        }
        let key = self.key(topic, key);
        self.order.push_back(key);
        self.published.insert(key, (published, until));
    }

    fn key(&self, topic: &str, key: &str) -> Key {
        self.hashers
            .each_ref()
            .map(|hasher| hasher.hash_one((topic, key)))
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.published.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn published(subscribers: usize) -> Published {
        Published {
            subscribers,
            position: None,
        }
    }

    #[test]
    fn a_key_is_remembered_for_its_topic_and_for_a_while() {
        let (mut recent, start) = (Idempotency::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(recent.get("news", "1", start), None);
        recent.insert("news", "1", published(3), later(10));
        recent.insert("news", "2", published(4), later(20));
        assert_eq!(recent.get("news", "1", later(9)), Some(published(3)));
        assert_eq!(recent.get("sport", "1", later(9)), None);
        assert_eq!(recent.get("news", "1", later(10)), None);
        assert_eq!(recent.get("news", "2", later(10)), Some(published(4)));
        assert_eq!(recent.get("news", "2", later(20)), None);
        assert!(recent.published.is_empty() && recent.order.is_empty());
    }

    #[test]
    fn keys_beyond_the_limit_push_the_oldest_out() {
        let (mut recent, start) = (Idempotency::default(), Instant::now());
        let until = start + Duration::from_secs(1);
        for key in 0..=MOST {
            recent.insert("news", &key.to_string(), published(key), until);
        }
        assert_eq!(recent.get("news", "0", start), None);
        assert_eq!(recent.get("news", "1", start), Some(published(1)));
        assert_eq!(recent.published.len(), MOST);
    }
}
