//! Topics of the application's own beside others: on them it is told who comes and goes.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use stentor::TopicOptions;

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ear {
    /// Subscribers without the protocol, in messages with a header.
    Raw,
    /// Clients of the protocol, in pushes.
    Client,
}

/// A pattern that the topics of this module match, and what holds for them. Who does not keep up is
/// closed, whatever is done elsewhere: who comes and goes is a list that allows no gap.
pub(super) fn own_topics() -> (&'static str, TopicOptions) {
    ("@presence.*", TopicOptions::default())
}

/// The topic on which it is told who comes to a topic and leaves it. A digest, since a name may be
/// as long as any may be; with salt, or a pattern that ends in it could be subscribed to.
pub(super) fn beside(topic: &str, ear: Ear) -> String {
    static SALT: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("beside"));
    let mut digest = Sha256::new();
    digest.update(SALT.to_ne_bytes());
    digest.update([ear as u8]);
    digest.update(topic);
    format!("@presence.{}", URL_SAFE_NO_PAD.encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::OWN;
    use stentor::topic::{Namespaces, TopicTable};

    #[test]
    fn the_topic_beside_is_never_a_clients() {
        let long = "x".repeat(255);
        let mut topics = Namespaces::new(0);
        topics.insert(own_topics().0, 1).unwrap();
        for topic in ["a", &long, "a.b:c"] {
            let beside = beside(topic, Ear::Raw);
            assert!(beside.starts_with(OWN) && beside.len() <= 64, "{beside}");
            assert!(!TopicTable::is_pattern(&beside), "{beside}");
            assert_eq!(topics.get(topics.id_of(&beside)), &1, "{beside}");
        }
        assert_ne!(beside("a", Ear::Raw), beside("b", Ear::Raw));
        assert_ne!(beside("a", Ear::Raw), beside("a", Ear::Client));
    }
}
