//! Topics: names to subscribers. Holds connection ids, never connections.

mod pattern;
mod table;

pub use table::{Subscribed, TopicError, TopicId, TopicTable};
