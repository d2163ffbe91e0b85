//! Options by namespace: what holds for all topics of a kind.
//!
//! Knows nothing of what the options say, nor of which topics there are.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;

use super::pattern::{Trie, is_pattern};
use super::table::{TopicError, check_name};

/// Options of topics by the namespace that their name tells.
///
/// The namespace of a topic is the text before the first `:` of its name, without one `$` before
/// it: `chat:7` and `$chat:7` are in `chat`. Where there is none of this name, patterns are matched
/// against the whole name of the topic, in the syntax of [`TopicTable`](super::TopicTable), and the
/// one that was inserted first wins. Else the default options hold.
///
/// ```
/// use stentor::topic::Namespaces;
///
/// let mut limits = Namespaces::new(10);
/// limits.insert("chat", 20)?;
/// limits.insert("metrics.*.cpu", 30)?;
/// assert_eq!(limits.get(limits.id_of("chat:7")), &20);
/// assert_eq!(limits.get(limits.id_of("metrics.db.cpu")), &30);
/// assert_eq!(limits.get(limits.id_of("chat")), &10);
/// # Ok::<(), stentor::topic::NamespaceError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Namespaces<O> {
    default: O,
    /// In order of insertion, from id 1 on.
    inserted: Vec<(Box<str>, O)>,
    exact: HashMap<Box<str>, NamespaceId>,
    patterns: Trie<NamespaceId>,
}

/// A namespace of one [`Namespaces`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId(u16);

impl NamespaceId {
    /// Where every topic is that is in no other namespace.
    pub const DEFAULT: Self = Self(0);

    /// The id as a number, from 0 for the default on.
    #[inline]
    pub fn number(self) -> u16 {
        self.0
    }

    /// The index in `inserted`; the default is not there.
    fn index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

impl<O> Namespaces<O> {
    /// How long the name of a namespace that is not a pattern may be, in bytes: it is a part of
    /// the name of each of its topics.
    pub const MAX_NAME_LEN: usize = 64;

    /// Makes a set without namespaces: the default options hold for all topics.
    pub fn new(default: O) -> Self {
        Self {
            default,
            inserted: Vec::new(),
            exact: HashMap::new(),
            patterns: Trie::default(),
        }
    }

    /// Adds a namespace: a name of 1 to 64 letters, digits, `-`, `_` and `.`, or a pattern.
    ///
    /// # Errors
    ///
    /// If it is neither, is there already, or would be the 65,536th.
    pub fn insert(&mut self, name: &str, options: O) -> Result<(), NamespaceError> {
        let is_pattern = is_pattern(name);
        if is_pattern {
            check_name(name).map_err(NamespaceError::Pattern)?;
        } else if !is_namespace_name(name) {
            return Err(NamespaceError::Name);
        }
        let is_known = if is_pattern {
            self.names().any(|(_, known)| known == name)
        } else {
            self.exact.contains_key(name)
        };
        if is_known {
            return Err(NamespaceError::Duplicate);
        }
        let id = u16::try_from(self.len() + 1).map_err(|_| NamespaceError::TooMany)?;
        let id = NamespaceId(id);
        if is_pattern {
            self.patterns.insert(name, id);
        } else {
            self.exact.insert(name.into(), id);
        }
        self.inserted.push((name.into(), options));
        Ok(())
    }

    /// The namespace of a topic. With none inserted this costs one branch.
    #[inline]
    pub fn id_of(&self, topic: &str) -> NamespaceId {
        if self.is_empty() {
            return NamespaceId::DEFAULT;
        }
        self.find(topic)
    }

    fn find(&self, topic: &str) -> NamespaceId {
        let exact = namespace_of(topic).and_then(|name| self.exact.get(name));
        if let Some(&id) = exact {
            return id;
        }
        let mut first: Option<NamespaceId> = None;
        // Ids ascend in order of insertion.
        self.patterns.visit(topic, &mut |id| {
            first = Some(first.map_or(id, |first| first.min(id)));
        });
        first.unwrap_or(NamespaceId::DEFAULT)
    }

    /// The options of a namespace.
    ///
    /// # Panics
    ///
    /// If the id is of another set.
    #[inline]
    pub fn get(&self, id: NamespaceId) -> &O {
        match id.index() {
            Some(index) => &self.inserted[index].1,
            None => &self.default,
        }
    }

    /// The options of a namespace, to be changed.
    ///
    /// # Panics
    ///
    /// If the id is of another set.
    pub fn get_mut(&mut self, id: NamespaceId) -> &mut O {
        match id.index() {
            Some(index) => &mut self.inserted[index].1,
            None => &mut self.default,
        }
    }

    /// The inserted namespaces, names and patterns, in order of insertion.
    pub fn names(&self) -> impl ExactSizeIterator<Item = (NamespaceId, &str)> {
        let ids = (1..=u16::MAX).map(NamespaceId);
        ids.zip(self.inserted.iter().map(|(name, _)| &**name))
    }

    /// The options of all namespaces, those of the default first.
    pub fn iter(&self) -> impl Iterator<Item = (NamespaceId, &O)> {
        let ids = (0..=u16::MAX).map(NamespaceId);
        let inserted = self.inserted.iter().map(|(_, options)| options);
        ids.zip(std::iter::once(&self.default).chain(inserted))
    }

    /// How many namespaces were inserted. The default is not one of them.
    pub fn len(&self) -> usize {
        self.inserted.len()
    }

    /// Whether all topics have the default options.
    pub fn is_empty(&self) -> bool {
        self.inserted.is_empty()
    }
}

/// The part of a topic's name that is the name of its namespace.
fn namespace_of(topic: &str) -> Option<&str> {
    let name = topic.strip_prefix('$').unwrap_or(topic);
    Some(name.split_once(':')?.0)
}

fn is_namespace_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=Namespaces::<()>::MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(is_part)
}

/// Why a namespace cannot be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The name is empty, longer than [`Namespaces::MAX_NAME_LEN`], or holds other characters than
    /// ASCII letters, digits, `-`, `_` and `.`.
    Name,
    /// The pattern is not acceptable.
    Pattern(TopicError),
    /// There is a namespace of this name.
    Duplicate,
    /// There are 65,535 namespaces.
    TooMany,
}

impl fmt::Display for NamespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "namespace name is not 1 to 64 letters, digits, '-', '_' and '.'",
            Self::Pattern(_) => "namespace pattern is not acceptable",
            Self::Duplicate => "namespace is there already",
            Self::TooMany => "too many namespaces",
        })
    }
}

impl Error for NamespaceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Pattern(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(names: &[&'static str]) -> Namespaces<&'static str> {
        let mut namespaces = Namespaces::new("default");
        for name in names {
            namespaces.insert(name, name).unwrap();
        }
        namespaces
    }

    #[test]
    fn namespace_is_what_stands_before_the_first_colon() {
        let namespaces = with(&["chat", "a.b"]);
        for (topic, expected) in [
            ("chat:7", "chat"),
            ("$chat:7", "chat"),
            ("chat:", "chat"),
            ("chat:a:b", "chat"),
            ("a.b:c", "a.b"),
            ("chat", "default"),
            ("$$chat:7", "default"),
            ("chats:7", "default"),
            (":chat:7", "default"),
            ("a:chat:7", "default"),
            ("", "default"),
        ] {
            assert_eq!(
                *namespaces.get(namespaces.id_of(topic)),
                expected,
                "{topic:?}"
            );
        }
    }

    #[test]
    fn names_win_over_patterns_and_earlier_patterns_over_later_ones() {
        let namespaces = with(&["a.>", "a.*", "*.x:1", "a.x"]);
        for (topic, expected) in [
            ("a.b", "a.>"),
            ("a.x:1", "a.x"),
            ("$a.x:1", "a.x"),
            ("b.x:1", "*.x:1"),
            ("a.x", "a.>"),
            ("b.x", "default"),
        ] {
            assert_eq!(
                *namespaces.get(namespaces.id_of(topic)),
                expected,
                "{topic:?}"
            );
        }
        let namespaces = with(&["a.*", "a.>"]);
        assert_eq!(*namespaces.get(namespaces.id_of("a.b")), "a.*");
        assert_eq!(*namespaces.get(namespaces.id_of("a.b.c")), "a.>");
    }

    #[test]
    fn pattern_is_not_the_namespace_of_topics_that_spell_it() {
        let namespaces = with(&["a.*"]);
        assert_eq!(*namespaces.get(namespaces.id_of("a.*:b.c")), "default");
    }

    #[test]
    fn unacceptable_namespaces_are_refused() {
        let longest = "n".repeat(64);
        let mut namespaces = with(&["chat", "a.*"]);
        for name in ["", "a b", "a:b", "$a", "é", "a*", &format!("{longest}n")] {
            assert_eq!(
                namespaces.insert(name, ""),
                Err(NamespaceError::Name),
                "{name:?}"
            );
        }
        for (pattern, error) in [
            ("*", TopicError::OnlyWildcards),
            ("*.>", TopicError::OnlyWildcards),
            ("a.>.b", TopicError::MisplacedTail),
            ("a\n.*", TopicError::NameHasControl),
            (&format!("{}.*", "n".repeat(254)), TopicError::NameTooLong),
            (&["a.*"; 9].join("."), TopicError::TooManyLevels),
        ] {
            let refused = Err(NamespaceError::Pattern(error));
            assert_eq!(namespaces.insert(pattern, ""), refused, "{pattern:?}");
        }
        for name in ["chat", "a.*"] {
            assert_eq!(namespaces.insert(name, ""), Err(NamespaceError::Duplicate));
        }
        assert_eq!(namespaces.len(), 2);
        namespaces.insert(&longest, "").unwrap();
    }

    #[test]
    fn there_are_at_most_65_535_namespaces() {
        let mut namespaces = Namespaces::new(0);
        for n in 1..=65_535 {
            namespaces.insert(&n.to_string(), n).unwrap();
        }
        assert_eq!(namespaces.insert("more", 0), Err(NamespaceError::TooMany));
        assert_eq!(namespaces.insert("more.*", 0), Err(NamespaceError::TooMany));
        assert_eq!(namespaces.get(namespaces.id_of("65535:a")), &65_535);
    }

    #[test]
    fn ids_name_the_options_and_zero_the_default() {
        let mut namespaces = Namespaces::new(0);
        assert!(namespaces.is_empty());
        assert_eq!(namespaces.id_of("a:b"), NamespaceId::DEFAULT);
        namespaces.insert("a", 1).unwrap();
        namespaces.insert("b.>", 2).unwrap();

        let ids = ["a:b", "b.c"].map(|topic| namespaces.id_of(topic));
        assert!(namespaces.names().map(|(id, _)| id).eq(ids));
        assert!(namespaces.names().map(|(_, name)| name).eq(["a", "b.>"]));

        *namespaces.get_mut(NamespaceId::DEFAULT) = 10;
        *namespaces.get_mut(ids[1]) = 12;
        assert_eq!(namespaces.get(NamespaceId::DEFAULT), &10);
        assert_eq!(ids.map(|id| *namespaces.get(id)), [1, 12]);
    }
}
