//! Topics: names to subscribers, what was published, and who is there. Holds connection ids, never
//! connections.

mod history;
mod namespace;
mod pattern;
mod presence;
mod table;

pub use history::{
    Epoch, Histories, HistoryError, HistoryRules, Position, Publication, Publications, Query,
    Recovered, Since, Slice,
};
pub use namespace::{NamespaceError, NamespaceId, Namespaces};
pub use presence::{Presence, Present};
pub use table::{Subscribed, TopicError, TopicId, TopicTable};
