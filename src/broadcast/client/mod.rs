//! Clients of Centrifugo's protocol.

mod options;

pub use self::options::ClientOptions;
