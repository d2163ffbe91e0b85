//! The numbers of errors and of ends, with what is said beside them.

use serde::Serialize;

/// Why a command fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::broadcast) struct ErrorReply {
    pub(in crate::broadcast) code: u32,
    pub(in crate::broadcast) message: std::borrow::Cow<'static, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::broadcast) temporary: bool,
}

impl ErrorReply {
    const fn lasting(code: u32, message: &'static str) -> Self {
        let message = std::borrow::Cow::Borrowed(message);
        Self {
            code,
            message,
            temporary: false,
        }
    }

    const fn passing(code: u32, message: &'static str) -> Self {
        let message = std::borrow::Cow::Borrowed(message);
        Self {
            code,
            message,
            temporary: true,
        }
    }
}

pub(in crate::broadcast) const INTERNAL: ErrorReply =
    ErrorReply::passing(100, "internal server error");
pub(in crate::broadcast) const UNKNOWN_CHANNEL: ErrorReply =
    ErrorReply::lasting(102, "unknown channel");
pub(in crate::broadcast) const PERMISSION_DENIED: ErrorReply =
    ErrorReply::lasting(103, "permission denied");
pub(in crate::broadcast) const METHOD_NOT_FOUND: ErrorReply =
    ErrorReply::lasting(104, "method not found");
pub(in crate::broadcast) const ALREADY_SUBSCRIBED: ErrorReply =
    ErrorReply::lasting(105, "already subscribed");
pub(in crate::broadcast) const LIMIT_EXCEEDED: ErrorReply =
    ErrorReply::lasting(106, "limit exceeded");
pub(in crate::broadcast) const BAD_REQUEST: ErrorReply = ErrorReply::lasting(107, "bad request");
pub(in crate::broadcast) const NOT_AVAILABLE: ErrorReply =
    ErrorReply::lasting(108, "not available");
pub(in crate::broadcast) const TOKEN_EXPIRED: ErrorReply =
    ErrorReply::lasting(109, "token expired");
pub(in crate::broadcast) const EXPIRED: ErrorReply = ErrorReply::lasting(110, "expired");
pub(in crate::broadcast) const UNRECOVERABLE: ErrorReply =
    ErrorReply::lasting(112, "unrecoverable position");

/// How a connection ends: the code of the Close frame and its reason, plain words that are no JSON.
/// Clients come again below 3500, and from 4000 to 4499.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broadcast) struct Disconnect {
    pub(in crate::broadcast) code: u16,
    pub(in crate::broadcast) reason: std::borrow::Cow<'static, str>,
}

impl Disconnect {
    const fn new(code: u16, reason: &'static str) -> Self {
        let reason = std::borrow::Cow::Borrowed(reason);
        Self { code, reason }
    }
}

pub(in crate::broadcast) const SHUTDOWN: Disconnect = Disconnect::new(3001, "shutdown");
pub(in crate::broadcast) const INTERNAL_ERROR: Disconnect =
    Disconnect::new(3004, "internal server error");
pub(in crate::broadcast) const CONNECTION_EXPIRED: Disconnect =
    Disconnect::new(3005, "connection expired");
pub(in crate::broadcast) const SUBSCRIPTION_EXPIRED: Disconnect =
    Disconnect::new(3006, "subscription expired");
pub(in crate::broadcast) const SLOW: Disconnect = Disconnect::new(3008, "slow");
pub(in crate::broadcast) const INSUFFICIENT_STATE: Disconnect =
    Disconnect::new(3010, "insufficient state");
pub(in crate::broadcast) const NO_PONG: Disconnect = Disconnect::new(3012, "no pong");
pub(in crate::broadcast) const TOO_MANY_REQUESTS: Disconnect =
    Disconnect::new(3013, "too many requests");
pub(in crate::broadcast) const INVALID_TOKEN: Disconnect = Disconnect::new(3500, "invalid token");
pub(in crate::broadcast) const BAD_COMMAND: Disconnect = Disconnect::new(3501, "bad request");
pub(in crate::broadcast) const STALE: Disconnect = Disconnect::new(3502, "stale");
pub(in crate::broadcast) const FORCED: Disconnect = Disconnect::new(3503, "force disconnect");
pub(in crate::broadcast) const CONNECTION_LIMIT: Disconnect =
    Disconnect::new(3504, "connection limit");
pub(in crate::broadcast) const CHANNEL_LIMIT: Disconnect = Disconnect::new(3505, "channel limit");
pub(in crate::broadcast) const NOT_PERMITTED: Disconnect =
    Disconnect::new(3507, "permission denied");
pub(in crate::broadcast) const NOT_SERVED: Disconnect = Disconnect::new(3508, "not available");
