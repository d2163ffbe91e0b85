//! What a program of one's own decides for clients: who connects, subscribes, publishes, and what
//! is called.
//!
//! A hook answers at once or later, from any thread: the commands of that client wait so long, all
//! other clients do not.

mod http;

use std::fmt;
use std::marker::PhantomData;
use std::sync::mpsc;

use stentor::{ConnectionId, Waker};

pub use self::http::{
    HttpHook, HttpHookCounts, HttpHookError, HttpHookRules, HttpHookStats, HttpHooks,
};

/// Callbacks of a program that embeds the application. Without one, the configuration decides
/// alone.
///
/// JSON goes in and out as its text, and what is told to clients as its bytes. All are called on the loop: what takes longer than a moment
/// belongs on a thread, and its answer into [`Later`].
///
/// ```
/// use std::thread;
/// use stentor::broadcast::hooks::{Answer, Ask, Hooks, Returned, RpcRequest};
///
/// struct Methods;
///
/// impl Hooks for Methods {
///     fn rpc(&mut self, request: &RpcRequest<'_>, ask: Ask<Returned>) -> Answer<Returned> {
///         let data = request.data.to_owned();
///         match request.method {
///             "echo" => Ok(Returned { data }).into(),
///             "think" => {
///                 let later = ask.later();
///                 thread::spawn(move || later.answer(Ok(Returned { data })));
///                 Answer::Later
///             }
///             _ => Answer::Usual,
///         }
///     }
/// }
/// ```
#[allow(unused_variables)] // The names of arguments are documentation in default methods.
pub trait Hooks {
    /// The fields of the upgrade request, in lower case, that are kept for the requests below.
    fn headers(&self) -> &[String] {
        &[]
    }

    /// A client connects: who is it?
    fn connect(&mut self, request: &ConnectRequest<'_>, ask: Ask<Connected>) -> Answer<Connected> {
        Answer::Usual
    }

    /// A client wants to subscribe.
    fn subscribe(
        &mut self,
        request: &SubscribeRequest<'_>,
        ask: Ask<Subscribed>,
    ) -> Answer<Subscribed> {
        Answer::Usual
    }

    /// A client wants to publish.
    fn publish(&mut self, request: &PublishRequest<'_>, ask: Ask<Publish>) -> Answer<Publish> {
        Answer::Usual
    }

    /// A client calls a method.
    fn rpc(&mut self, request: &RpcRequest<'_>, ask: Ask<Returned>) -> Answer<Returned> {
        Answer::Usual
    }

    /// The time of a connection that a hook had accepted is over.
    fn refresh(&mut self, request: &RefreshRequest<'_>, ask: Ask<Refreshed>) -> Answer<Refreshed> {
        Answer::Usual
    }

    /// A client has sent something that takes no answer; `false` if nobody wants it.
    fn message(&mut self, client: &Client<'_>, data: &[u8]) -> bool {
        false
    }

    /// A client that had connected is gone.
    fn disconnected(&mut self, client: &Client<'_>) {}
}

/// No hooks.
impl Hooks for () {}

/// What a hook says.
#[derive(Debug)]
pub enum Answer<T> {
    /// What the configuration says without a hook.
    Usual,
    /// This.
    Now(Result<T, Refusal>),
    /// What was made of `ask` will say it.
    Later,
}

impl<T> From<Result<T, Refusal>> for Answer<T> {
    fn from(result: Result<T, Refusal>) -> Self {
        Self::Now(result)
    }
}

/// Why a client does not get what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The command fails.
    Error {
        /// 100–399 are the protocol's, 400–1999 the program's own.
        code: u32,
        /// For people.
        message: String,
        /// The same may work later.
        temporary: bool,
    },
    /// The connection ends.
    Disconnect {
        /// 3000–4999; those from 3500 to 3999 and from 4500 to 4999 are not followed by another
        /// connection of the same client.
        code: u16,
        /// Plain words, at most 123 bytes.
        reason: String,
    },
}

impl Refusal {
    /// Something went wrong on our side, or behind it.
    pub(super) fn internal() -> Self {
        Self::Error {
            code: 100,
            message: "internal server error".into(),
            temporary: true,
        }
    }
}

/// Who it is about.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The connection, for [`Context`](stentor::Context).
    pub id: ConnectionId,
    /// The id that clients see, a UUID.
    pub client: &'a str,
    /// The user; empty for an anonymous client, and before it has connected.
    pub user: &'a str,
    /// `websocket`, `uni_websocket` or `uni_sse`.
    pub transport: &'static str,
    /// How its messages are written: `json` or `protobuf`.
    pub protocol: &'static str,
    /// Fields of its upgrade request.
    pub headers: &'a [(Box<str>, Box<str>)],
    /// What was said of it when it connected, and no client sees; JSON or empty.
    pub meta: &'a str,
}

/// A client connects.
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest<'a> {
    /// Who.
    pub client: Client<'a>,
    /// What it brought, unverified; may be empty.
    pub token: &'a str,
    /// JSON, or empty; any bytes from a client with Protobuf.
    pub data: &'a [u8],
    /// Which program it says it is.
    pub name: &'a str,
    /// ...of which version.
    pub version: &'a str,
    /// Server-side channels that it had.
    pub channels: &'a [&'a str],
}

/// A client that may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Empty for an anonymous one.
    pub user: String,
    /// Seconds of Unix time at which its time is over; 0 for never.
    pub expire_at: u64,
    /// What others learn of it where presence is kept; JSON or empty.
    pub info: String,
    /// What it is told; JSON or empty. Other bytes come to clients with JSON as a string.
    pub data: Vec<u8>,
    /// What it is not told, and later requests bring back; JSON or empty.
    pub meta: String,
    /// Channels that it is subscribed to.
    pub channels: Vec<String>,
    /// ...and others, each with what is to be said of it.
    pub subs: Vec<(String, Subscribed)>,
}

/// A client wants to subscribe.
#[derive(Clone, Copy, Debug)]
pub struct SubscribeRequest<'a> {
    /// Who.
    pub client: Client<'a>,
    /// Where.
    pub channel: &'a str,
    /// May be empty.
    pub token: &'a str,
    /// JSON, or empty; any bytes from a client with Protobuf.
    pub data: &'a [u8],
}

/// A client that may subscribe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribed {
    /// Seconds of Unix time at which its time is over; 0 for never.
    pub expire_at: u64,
    /// What others learn of it in this channel; JSON or empty.
    pub info: String,
    /// What it is told; JSON or empty. Other bytes come to clients with JSON as a string.
    pub data: Vec<u8>,
    /// Options of the channel that are others for it.
    pub overrides: Overrides,
}

/// Options of a channel that are others for one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// As in [`ChannelOptions`](super::ChannelOptions).
    pub presence: Option<bool>,
    /// As in [`ChannelOptions`](super::ChannelOptions).
    pub join_leave: Option<bool>,
    /// As in [`ChannelOptions`](super::ChannelOptions).
    pub force_push_join_leave: Option<bool>,
    /// As in [`ChannelOptions`](super::ChannelOptions).
    pub force_recovery: Option<bool>,
    /// As in [`ChannelOptions`](super::ChannelOptions).
    pub force_positioning: Option<bool>,
}

/// A client wants to publish.
#[derive(Clone, Copy, Debug)]
pub struct PublishRequest<'a> {
    /// Who.
    pub client: Client<'a>,
    /// Where.
    pub channel: &'a str,
    /// JSON; any bytes from a client with Protobuf.
    pub data: &'a [u8],
}

/// A publication that may go out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// This instead of what the client sent; JSON, or other bytes where the channel takes them.
    pub data: Option<Vec<u8>>,
    /// It is not kept.
    pub skip_history: bool,
}

/// A client calls a method.
#[derive(Clone, Copy, Debug)]
pub struct RpcRequest<'a> {
    /// Who.
    pub client: Client<'a>,
    /// Which; may be empty.
    pub method: &'a str,
    /// JSON, or empty; any bytes from a client with Protobuf.
    pub data: &'a [u8],
}

/// What a method returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// JSON, or empty. Other bytes come to clients with JSON as a string.
    pub data: Vec<u8>,
}

/// The time of a connection is over.
#[derive(Clone, Copy, Debug)]
pub struct RefreshRequest<'a> {
    /// Who.
    pub client: Client<'a>,
}

/// What becomes of a connection whose time is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// It ends.
    pub expired: bool,
    /// Seconds of Unix time at which its next time is over; 0 for never.
    pub expire_at: u64,
    /// What others learn of it from now on; JSON, or empty for what they did before.
    pub info: String,
}

/// Which answer is asked for.
#[derive(Clone, Debug)]
pub struct Ask<T: Outcome> {
    ticket: Ticket,
    answers: Answers,
    of: PhantomData<fn(T)>,
}

impl<T: Outcome> Ask<T> {
    pub(super) fn new(ticket: Ticket, answers: Answers) -> Self {
        Self {
            ticket,
            answers,
            of: PhantomData,
        }
    }

    /// What brings the answer when the hook returns [`Answer::Later`].
    pub fn later(self) -> Later<T> {
        Later {
            ticket: Some(self.ticket),
            answers: self.answers,
            of: PhantomData,
        }
    }
}

impl Refreshed {
    /// Whether there is no time left, at `now` in seconds of Unix time.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.expired || self.expire_at != 0 && self.expire_at <= now
    }
}

/// Brings the answer of a hook, from any thread.
///
/// Dropped without one, the command fails with an internal error.
pub struct Later<T: Outcome> {
    ticket: Option<Ticket>,
    answers: Answers,
    of: PhantomData<fn(T)>,
}

/// What answers can be of.
pub trait Outcome: sealed::Sealed + Sized {
    #[doc(hidden)]
    fn wrap(result: Result<Self, Refusal>) -> Outcomes;
}

mod sealed {
    pub trait Sealed {}
}

/// An answer of any kind.
#[doc(hidden)]
#[derive(Debug)]
pub enum Outcomes {
    Connect(Result<Connected, Refusal>),
    Subscribe(Result<Subscribed, Refusal>),
    Publish(Result<Publish, Refusal>),
    Rpc(Result<Returned, Refusal>),
    Refresh(Result<Refreshed, Refusal>),
}

macro_rules! outcome {
    ($($kind:ident: $variant:ident),*) => {$(
        impl sealed::Sealed for $kind {}
        impl Outcome for $kind {
            fn wrap(result: Result<Self, Refusal>) -> Outcomes {
                Outcomes::$variant(result)
            }
        }
    )*};
}

outcome!(Connected: Connect, Subscribed: Subscribe, Publish: Publish, Returned: Rpc, Refreshed: Refresh);

/// Which question of which client an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) id: ConnectionId,
    pub(super) number: u32,
}

/// Where answers go.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) sender: mpsc::Sender<(Ticket, Outcomes)>,
    pub(super) waker: Waker,
}

impl<T: Outcome> Later<T> {
    /// Gives the answer. If the client is gone, nothing happens.
    pub fn answer(mut self, result: Result<T, Refusal>) {
        self.give(result);
    }

    fn give(&mut self, result: Result<T, Refusal>) {
        if let Some(ticket) = self.ticket.take() {
            // Nobody listens any more when the server has ended.
            let _ = self.answers.sender.send((ticket, T::wrap(result)));
            self.answers.waker.wake();
        }
    }
}

impl<T: Outcome> Drop for Later<T> {
    fn drop(&mut self) {
        self.give(Err(Refusal::internal()));
    }
}

impl<T: Outcome> fmt::Debug for Later<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket = Ticket {
        id: ConnectionId::NONE,
        number: 7,
    };

    fn ask() -> (Ask<Returned>, mpsc::Receiver<(Ticket, Outcomes)>) {
        let (sender, answers) = mpsc::channel();
        let waker = Waker::unheard();
        (Ask::new(TICKET, Answers { sender, waker }), answers)
    }

    /// The only answer that came.
    fn only(answers: &mpsc::Receiver<(Ticket, Outcomes)>) -> Result<Returned, Refusal> {
        let (ticket, outcome) = answers.try_recv().unwrap();
        assert_eq!(ticket, TICKET);
        assert!(answers.try_recv().is_err());
        match outcome {
            Outcomes::Rpc(result) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answer_arrives_once_with_its_ticket() {
        let (ask, answers) = ask();
        let data = b"1".to_vec();
        ask.later().answer(Ok(Returned { data: data.clone() }));
        assert_eq!(only(&answers), Ok(Returned { data }));
    }

    #[test]
    fn answer_dropped_is_one_internal_error() {
        let (ask, answers) = ask();
        drop(ask.later());
        let expected = Refusal::Error {
            code: 100,
            message: "internal server error".into(),
            temporary: true,
        };
        assert_eq!(only(&answers), Err(expected));
    }

    #[test]
    fn answer_dropped_by_a_thread_that_panics_is_an_internal_error() {
        let (ask, answers) = ask();
        let later = ask.later();
        let thread = std::thread::spawn(move || {
            let _later = later;
            std::panic::resume_unwind(Box::new("as a program might"));
        });
        assert!(thread.join().is_err());
        assert_eq!(only(&answers), Err(Refusal::internal()));
    }

    #[test]
    fn question_not_put_off_is_not_answered() {
        let (ask, answers) = ask();
        drop(ask);
        assert!(answers.try_recv().is_err());
    }

    #[test]
    fn answer_to_a_server_that_has_ended_goes_nowhere() {
        let (ask, answers) = ask();
        drop(answers);
        ask.later().answer(Ok(Returned::default()));
    }
}
