//! What is published, as an application sees it, and the forms in which it goes out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::protocol::{Message, MessageKind, write_unmasked_frame_of};
use crate::topic::{self, Position};

/// Names and values that travel with a publication.
pub type Tags = Arc<[(Box<str>, Box<str>)]>;

/// How publications are written for a connection: each form is encoded once for all connections
/// that have it.
///
/// [`PLAIN`](Self::PLAIN) is the message as it was published, in a WebSocket frame. The others are
/// the application's: [`Handler::encode`](crate::Handler::encode) writes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form(u8);

impl Form {
    /// How many forms there may be: a connection keeps its form in a byte, and each has a place in
    /// every batch.
    pub const COUNT: usize = 10;

    /// The message itself.
    pub const PLAIN: Self = Self(0);

    /// One of the application's own forms.
    ///
    /// # Panics
    ///
    /// If `number` is not between 1 and 9.
    ///
    /// ```
    /// use stentor::Form;
    ///
    /// const WITH_HEADER: Form = Form::custom(1);
    /// ```
    pub const fn custom(number: u8) -> Self {
        assert!(
            0 < number && (number as usize) < Self::COUNT,
            "forms are numbered from 1 to 9"
        );
        Self(number)
    }

    /// The form as an index: 0 for the plain one.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A message that was published to a topic.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The topic.
    pub topic: &'a str,
    /// What was published.
    pub message: Message<'a>,
    /// Where it stands in the history of the topic; `None` where none is kept of it.
    pub position: Option<Position>,
    /// What its publisher said of it.
    pub tags: Option<&'a Tags>,
    /// What the application noted with it ([`PublishOptions::note`]).
    pub note: Option<&'a [u8]>,
}

/// A publication that a history has kept.
#[derive(Clone, Debug)]
pub struct KeptPublication(pub(crate) topic::Publication<Meta>, pub(crate) topic::Epoch);

impl KeptPublication {
    /// As it was published to `topic`.
    pub fn view<'a>(&'a self, topic: &'a str) -> Publication<'a> {
        let Self(publication, epoch) = self;
        Publication {
            topic,
            message: Message::from_parts(publication.meta.kind, &publication.payload),
            position: Some(Position {
                epoch: *epoch,
                offset: publication.offset,
            }),
            tags: publication.meta.tags.as_ref(),
            note: publication.meta.note.as_deref(),
        }
    }

    /// What a form may write of it: the payload and the note.
    pub(crate) fn len(&self) -> usize {
        let Self(publication, _) = self;
        publication.payload.len() + publication.meta.note.as_ref().map_or(0, |note| note.len())
    }

    /// Its place in the history.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// When it was published.
    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.at)
    }
}

/// What is kept with a publication.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) kind: MessageKind,
    pub(crate) tags: Option<Tags>,
    pub(crate) note: Option<Arc<[u8]>>,
}

impl Meta {
    /// What it takes on the heap.
    pub(crate) fn weight(&self) -> usize {
        let of = |(name, value): &(Box<str>, Box<str>)| {
            name.len() + value.len() + size_of::<(Box<str>, Box<str>)>()
        };
        let tags: usize = self.tags.iter().flat_map(|tags| tags.iter()).map(of).sum();
        tags + self.note.as_ref().map_or(0, note_weight)
    }
}

/// What a note takes on the heap: its bytes and the two counts of its references.
pub(crate) fn note_weight(note: &Arc<[u8]>) -> usize {
    note.len() + 2 * size_of::<usize>()
}

/// How a message is to be published.
///
/// ```
/// use stentor::PublishOptions;
///
/// let options = PublishOptions::new().idempotency_key("order-17").tag("priority", "high");
/// ```
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    pub(crate) to_others: bool,
    pub(crate) no_history: bool,
    pub(crate) idempotency_key: Option<Box<str>>,
    pub(crate) tags: Vec<(Box<str>, Box<str>)>,
    pub(crate) note: Option<Arc<[u8]>>,
}

impl PublishOptions {
    /// To everyone who is subscribed, and into the history if the topic keeps one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The connection of the callback does not get it.
    pub fn to_others(mut self) -> Self {
        self.to_others = true;
        self
    }

    /// It is not kept in the history, and has no offset.
    pub fn no_history(mut self) -> Self {
        self.no_history = true;
        self
    }

    /// A second publication with this key to the same topic, within
    /// [`Timeouts::idempotency`](crate::Timeouts::idempotency), does nothing and is answered as the
    /// first one was.
    pub fn idempotency_key(mut self, key: impl Into<Box<str>>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Adds a name and a value that travel with the message in forms that have a place for them.
    pub fn tag(mut self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }

    /// Bytes of the application's own that travel with the message, for its own forms
    /// ([`Handler::encode`](crate::Handler::encode)); a second call replaces the first one's.
    ///
    /// They are kept in the history with the message, and count there as it does.
    ///
    /// ```
    /// use stentor::PublishOptions;
    ///
    /// let options = PublishOptions::new().note(*br#"{"user":"42"}"#);
    /// ```
    pub fn note(mut self, note: impl Into<Arc<[u8]>>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Subscriptions that it goes to. A connection that has the topic and a pattern that matches it
    /// counts twice here, and gets it once.
    pub subscribers: usize,
    /// Where it stands in the history of the topic, if one is kept.
    pub position: Option<Position>,
}

/// A message cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The name is a pattern: one publishes to a topic.
    Pattern,
    /// The name cannot be a topic's: it is empty, longer than 255 bytes, or holds a control
    /// character.
    BadName,
}

impl std::fmt::Display for PublishError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pattern => "messages are published to topics, not to patterns",
            Self::BadName => {
                "the name is empty, longer than 255 bytes, or holds a control character"
            }
        })
    }
}

impl std::error::Error for PublishError {}

/// Where a form is written to.
#[derive(Debug)]
pub struct Output<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes }
    }

    /// Writes a WebSocket message whose payload is these parts, one behind the other.
    ///
    /// The parts of a text must be UTF-8 together: the peer fails the connection otherwise
    /// (RFC 6455 §8.1).
    pub fn message(&mut self, kind: MessageKind, parts: &[&[u8]]) {
        write_unmasked_frame_of(kind.into(), parts, self.bytes);
    }

    /// Writes bytes as they are: to a stream, whose body has no frames.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}
