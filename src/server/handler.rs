//! What an application implements, and what its callbacks are given.

use std::fmt;
use std::net::IpAddr;

use super::context::Context;
use super::presence::PresenceEvent;
use super::publication::{Form, Output, Publication};
use super::stats::Cause;
use crate::protocol::http::{Request, Response};
use crate::protocol::{Acceptance, CloseCode, HandshakeError, Message, UsageError};
use crate::topic::TopicError;

/// An application on a [`Server`](crate::Server): what happens when connections open, speak and
/// end.
///
/// All callbacks run on the loop's thread, one at a time: what takes long holds up everybody.
/// Each [`open`](Self::open) is followed by exactly one [`close`](Self::close) for the same
/// connection; no other callback of that connection comes before the one or after the other.
///
/// ```no_run
/// use stentor::{Config, Context, Handler, Message, Server};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///
///     fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
///         ctx.send(message);
///     }
/// }
///
/// let config = Config::listen(["127.0.0.1:9001".parse()?]);
/// Server::bind(config, Echo)?.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[allow(unused_variables)] // The names of arguments are documentation in default methods.
pub trait Handler: Sized {
    /// What the application keeps for each open connection.
    type State: Default;

    /// What is written to a stream ([`Context::stream`]) each time that
    /// [`Timeouts::idle`](crate::Timeouts::idle) is over, so that middleboxes see life; by default
    /// a comment of an event stream.
    const KEEP_ALIVE: &'static [u8] = b":\n\n";

    /// A client asks for a WebSocket: accept it with a state, a subprotocol and headers, or refuse
    /// it with any response. By default everyone is accepted.
    ///
    /// # Errors
    ///
    /// The response that refuses the request; the connection is closed behind it.
    fn upgrade(
        &mut self,
        ctx: &mut Context<'_, Self::State>,
        request: &Request<'_>,
    ) -> Result<Accept<Self::State>, Response> {
        Ok(Accept::default())
    }

    /// A connection is open: messages can be sent.
    fn open(&mut self, ctx: &mut Context<'_, Self::State>) {}

    /// A complete message. It is lent from a receive buffer: copy what must outlive the call.
    fn message(&mut self, ctx: &mut Context<'_, Self::State>, message: Message<'_>) {}

    /// Enough was written to a connection whose `send` had answered
    /// [`Backpressure`](Sent::Backpressure): go on sending.
    fn drain(&mut self, ctx: &mut Context<'_, Self::State>) {}

    /// Messages to a connection were dropped by the policy of their topics
    /// ([`TopicOptions::slow`](crate::TopicOptions)), and it has room again to be told so, or ends.
    fn lost(&mut self, ctx: &mut Context<'_, Self::State>, lost: Lost) {}

    /// A connection has joined or left a topic of which a presence is kept.
    fn presence(&mut self, ctx: &mut Context<'_, Self::State>, event: &PresenceEvent) {}

    /// Writes a publication in one of the application's own forms, once for all connections that
    /// have it: a complete WebSocket message, or what goes into the body of a stream. What is not
    /// written, connections of this form do not get.
    ///
    /// A function of the publication alone: it is called when the first connection needs it.
    fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        let message = publication.message;
        output.message(message.kind(), &[message.payload()]);
    }

    /// How the server takes leave of a connection of this form, the plain one included, when it ends
    /// one by itself: [`Cause::SlowConsumer`] or [`Cause::Shutdown`].
    ///
    /// What is written goes in front of the Close frame, or at the end of a stream; a stream that
    /// is too slow is cut off without it. The code and the reason (cut to 123 bytes) take the place
    /// of the usual ones: 1013 "too slow", 1001 "server shuts down". A code that must not be sent
    /// leaves the usual ones in place. Of a stream the code is what [`close`](Self::close) is told.
    ///
    /// ```
    /// use stentor::{Cause, CloseCode, Form, Handler, Output};
    ///
    /// struct App;
    ///
    /// impl Handler for App {
    ///     type State = ();
    ///
    ///     fn farewell(
    ///         _: Form,
    ///         cause: Cause,
    ///         _: &mut Output<'_>,
    ///     ) -> Option<(CloseCode, &'static str)> {
    ///         (cause == Cause::SlowConsumer).then_some((CloseCode::new(4008), "slow"))
    ///     }
    /// }
    /// ```
    fn farewell(
        form: Form,
        cause: Cause,
        output: &mut Output<'_>,
    ) -> Option<(CloseCode, &'static str)> {
        None
    }

    /// A connection has ended. Its state can still be read; its subscriptions have ended, and
    /// sends to it are dropped.
    fn close(&mut self, ctx: &mut Context<'_, Self::State>, closed: Closed<'_>) {}

    /// A plain HTTP request on the same port; 404 by default. The body, of at most
    /// `max_body_size`, has come. [`Context::stream`] makes a response without end of the answer.
    fn request(&mut self, ctx: &mut Context<'_, Self::State>, request: &Request<'_>) -> Response {
        Response::not_found()
    }

    /// A timer set with [`Context::set_timer`] is due.
    fn timer(&mut self, ctx: &mut Context<'_, Self::State>, token: u64) {}

    /// A [`Waker`](crate::Waker) has called, once or several times since the last call: at the
    /// beginning of a turn, behind the commands of handles. There is no connection.
    fn wake(&mut self, ctx: &mut Context<'_, Self::State>) {}

    /// Something went wrong that is no connection's `close`: for logs.
    fn fault(&mut self, ctx: &mut Context<'_, Self::State>, fault: Fault<'_>) {}
}

/// How an upgrade is accepted.
///
/// ```
/// use stentor::Accept;
///
/// let accept = Accept::new("alice").subprotocol("chat.v1").header("Set-Cookie", "seen=1")?;
/// # Ok::<(), stentor::protocol::UsageError>(())
/// ```
#[derive(Debug, Default)]
pub struct Accept<S> {
    pub(crate) state: S,
    pub(crate) form: Form,
    pub(crate) has_own_pings: bool,
    pub(crate) acceptance: Acceptance,
}

impl<S> Accept<S> {
    /// Accepts with this state.
    pub fn new(state: S) -> Self {
        Self {
            state,
            form: Form::PLAIN,
            has_own_pings: false,
            acceptance: Acceptance::default(),
        }
    }

    /// Chooses how publications are written for the connection; default [`Form::PLAIN`].
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Leaves it to the application to find out whether the peer is alive: on silence the server
    /// sends no Pings, and does not end the connection for want of an answer.
    ///
    /// What the peer does not take is still limited in bytes and time.
    pub fn without_pings(mut self) -> Self {
        self.has_own_pings = true;
        self
    }

    /// Chooses a subprotocol, which must be one that the client offered:
    /// [`Request::choose_subprotocol`] finds it.
    pub fn subprotocol(mut self, subprotocol: impl Into<String>) -> Self {
        self.acceptance = self.acceptance.subprotocol(subprotocol);
        self
    }

    /// Adds a header to the 101 response, such as `Set-Cookie`.
    ///
    /// # Errors
    ///
    /// The name or the value cannot stand in a header, or the header is not the application's.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, UsageError> {
        self.acceptance = self.acceptance.header(name, value)?;
        Ok(self)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub struct Closed<'a> {
    /// The code of the first Close frame that passed, from whichever side;
    /// [`CloseCode::ABNORMAL_CLOSURE`] when there was none.
    pub code: CloseCode,
    /// The reason in the peer's Close frame.
    pub reason: &'a str,
    /// What ended the connection.
    pub cause: Cause,
}

impl fmt::Display for Closed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code, self.cause)
    }
}

/// Trouble that is no open connection's.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault<'a> {
    /// A request was wrong or late and was answered with the error's status.
    Refused(HandshakeError),
    /// The application's answer to an upgrade broke the handshake; the client got a 500.
    BadAcceptance(UsageError),
    /// Descriptors or memory ran out; accepting pauses for a moment.
    AcceptExhausted(&'a std::io::Error),
    /// A connection above `max_connections` was turned away.
    Full,
    /// A connection from this address, above `max_connections_per_ip`, was turned away.
    FullForIp(IpAddr),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// On its way.
    Sent,
    /// On its way, behind more than `outbox_soft` bytes that the peer has not taken yet:
    /// [`Handler::drain`] tells when that is over.
    Backpressure,
    /// Not sent: the connection is closed or closing, or has too many bytes waiting. It is
    /// counted in [`Stats`](crate::Stats).
    Dropped,
}

/// Messages that a connection did not get because it reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// They came when no more could wait: [`SlowPolicy::DropNewest`](crate::SlowPolicy), or what
    /// waits cannot be dropped.
    pub newest: u64,
    /// They made room for newer ones: [`SlowPolicy::DropOldest`](crate::SlowPolicy).
    pub oldest: u64,
    /// A later message of their topic replaced them: [`SlowPolicy::Latest`](crate::SlowPolicy).
    pub conflated: u64,
    /// They waited for longer than the topic allows.
    pub expired: u64,
}

impl Lost {
    /// How many they are.
    pub fn total(&self) -> u64 {
        self.newest + self.oldest + self.conflated + self.expired
    }
}

impl std::ops::AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.newest += other.newest;
        self.oldest += other.oldest;
        self.conflated += other.conflated;
        self.expired += other.expired;
    }
}

/// A connection cannot subscribe to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// The connection is not open: not yet, or no more.
    NotOpen,
    /// The name cannot be used, or there are too many topics.
    Topic(TopicError),
}

impl From<TopicError> for SubscribeError {
    fn from(error: TopicError) -> Self {
        Self::Topic(error)
    }
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen => f.write_str("the connection is not open"),
            Self::Topic(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for SubscribeError {}

/// Names one connection on one server. Ids are not used again; the id of a connection that ended
/// is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl ConnectionId {
    /// No connection has it.
    pub(crate) const NONE: Self = Self {
        key: u32::MAX,
        generation: u32::MAX,
    };

    pub(crate) fn to_token(self) -> mio::Token {
        mio::Token((self.generation as usize) << 32 | self.key as usize)
    }

    pub(crate) fn from_token(token: mio::Token) -> Self {
        Self {
            key: token.0 as u32,
            generation: (token.0 >> 32) as u32,
        }
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.key, self.generation)
    }
}
