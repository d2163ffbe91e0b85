//! Topics: names to subscribers. Holds connection ids, never connections.

mod namespace;
mod pattern;
mod table;

pub use namespace::{NamespaceError, NamespaceId, Namespaces};
pub use table::{Subscribed, TopicError, TopicId, TopicTable};
