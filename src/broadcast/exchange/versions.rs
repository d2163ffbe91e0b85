//! The versions of what was published last, so that what is older does not follow.

use std::collections::HashMap;

use stentor::topic::Position;

use super::Draft;

/// Channels whose version is known at a time. Publishers choose their names: when there are more,
/// those that were published to the longest time ago go first.
const MOST: usize = 65_536;

/// The last versions by channel.
#[derive(Debug, Default)]
pub(super) struct Versions {
    last: HashMap<Box<str>, Version>,
    /// How many were noted.
    count: u64,
}

/// The version of a publication. Only as long as that is the newest one does it count, whoever
/// published what came behind it.
#[derive(Debug)]
struct Version {
    number: u64,
    epoch: Box<str>,
    position: Position,
    /// When it was noted, by the count of all.
    noted: u64,
}

impl Versions {
    /// Whether the newest publication, which is at `top`, has the version of the draft or a later
    /// one.
    pub(super) fn is_outdated(&self, draft: &Draft<'_>, top: Position) -> bool {
        self.last.get(draft.channel).is_some_and(|last| {
            last.position == top
                && draft.version <= last.number
                && (draft.version_epoch.is_empty() || draft.version_epoch == &*last.epoch)
        })
    }

    /// Notes the version of what was published.
    pub(super) fn note(&mut self, draft: &Draft<'_>, position: Position) {
        if self.last.len() >= MOST && !self.last.contains_key(draft.channel) {
            self.forget_half();
        }
        self.count += 1;
        let version = Version {
            number: draft.version,
            epoch: draft.version_epoch.into(),
            position,
            noted: self.count,
        };
        self.last.insert(draft.channel.into(), version);
    }

    /// Half of them at once, so that it takes little time for each.
    fn forget_half(&mut self) {
        let mut noted: Vec<u64> = self.last.values().map(|version| version.noted).collect();
        let (_, &mut median, _) = noted.select_nth_unstable(MOST / 2);
        self.last.retain(|_, version| version.noted >= median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stentor::topic::Epoch;

    fn draft(channel: &str, version: u64) -> Draft<'_> {
        Draft {
            channel,
            version,
            ..Draft::default()
        }
    }

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::parse("abcdefgh").unwrap(),
            offset,
        }
    }

    #[test]
    fn a_version_counts_while_it_is_the_newest() {
        let mut versions = Versions::default();
        assert!(!versions.is_outdated(&draft("a", 1), at(0)));
        versions.note(&draft("a", 5), at(1));
        assert!(versions.is_outdated(&draft("a", 5), at(1)));
        assert!(!versions.is_outdated(&draft("a", 6), at(1)));
        assert!(!versions.is_outdated(&draft("b", 5), at(1)));
        assert!(!versions.is_outdated(&draft("a", 5), at(2)));
        let other_epoch = Position {
            epoch: Epoch::parse("ijklmnop").unwrap(),
            offset: 1,
        };
        assert!(!versions.is_outdated(&draft("a", 5), other_epoch));
    }

    #[test]
    fn versions_of_another_epoch_are_not_compared() {
        let mut versions = Versions::default();
        let of = |version_epoch| Draft {
            version_epoch,
            ..draft("a", 5)
        };
        versions.note(&of("x"), at(1));
        for (epoch, expected) in [("x", true), ("", true), ("y", false)] {
            assert_eq!(versions.is_outdated(&of(epoch), at(1)), expected, "{epoch}");
        }
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many() {
        let mut versions = Versions::default();
        for channel in 0..=MOST {
            versions.note(&draft(&channel.to_string(), 5), at(1));
        }
        assert_eq!(versions.last.len(), MOST / 2 + 1);
        assert!(!versions.is_outdated(&draft("0", 5), at(1)));
        for newest in [MOST / 2 + 1, MOST] {
            assert!(versions.is_outdated(&draft(&newest.to_string(), 5), at(1)));
        }
    }
}
