//! Clients of Centrifugo's protocol.

pub(super) mod codes;
mod options;
mod push;

pub use self::options::ClientOptions;
pub(super) use self::push::{is_json, publication_json};
