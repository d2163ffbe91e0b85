//! Topics: names to subscribers, what was published, and who is there. Holds connection ids, never
//! connections.

mod presence;
mod table;

pub use presence::{Presence, Present};
pub use table::{Subscribed, TopicError, TopicId, TopicTable};
