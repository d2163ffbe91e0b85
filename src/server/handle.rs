//! The way into a loop from other threads: a bounded queue of commands and a waker.

use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::Context;
use super::handler::{ConnectionId, Handler};
use super::publication::PublishOptions;
use super::waker::Waker;
use crate::protocol::{CloseCode, Message, MessageKind};

/// Acts on a server from any thread. Commands of one thread are carried out in their order, at the
/// beginning of a turn of the loop.
///
/// ```no_run
/// # use stentor::{Config, Handler, Server};
/// # struct App; impl Handler for App { type State = (); }
/// let server = Server::bind(Config::listen(["127.0.0.1:9001".parse()?]), App)?;
/// let handle = server.handle();
/// let thread = std::thread::spawn(move || server.run());
/// handle.publish("prices", "EUR 1.08")?;
/// handle.shut_down()?;
/// thread.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Handle<H: Handler> {
    mailbox: Arc<Mailbox<H>>,
}

/// The loop could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleError {
    /// `max_commands` wait already: this thread is faster than the loop.
    Full,
    /// The server has ended.
    Stopped,
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many commands wait for the server's loop",
            Self::Stopped => "the server has ended",
        })
    }
}

impl std::error::Error for HandleError {}

type Closure<H> = Box<dyn FnOnce(&mut H, &mut Context<'_, <H as Handler>::State>) + Send>;

/// What another thread wants.
pub(crate) enum Command<H: Handler> {
    Publish {
        topic: Box<str>,
        kind: MessageKind,
        payload: Box<[u8]>,
        options: PublishOptions,
    },
    Send {
        id: ConnectionId,
        kind: MessageKind,
        payload: Box<[u8]>,
    },
    Close {
        id: ConnectionId,
        code: CloseCode,
        reason: Box<str>,
    },
    Run(Closure<H>),
    ShutDown,
    Stop,
}

/// The queue between the handles and the loop.
struct Mailbox<H: Handler> {
    commands: Mutex<Vec<Command<H>>>,
    capacity: usize,
    is_stopped: AtomicBool,
    waker: Waker,
}

impl<H: Handler> Mailbox<H> {
    fn new(waker: Waker, capacity: usize) -> Self {
        let is_stopped = AtomicBool::new(false);
        Self {
            commands: Mutex::new(Vec::new()),
            capacity,
            is_stopped,
            waker,
        }
    }

    fn commands(&self) -> MutexGuard<'_, Vec<Command<H>>> {
        // A panic of another thread cannot leave a Vec half pushed.
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, command: Command<H>) -> Result<(), HandleError> {
        let mut commands = self.commands();
        if self.is_stopped.load(Ordering::Relaxed) {
            return Err(HandleError::Stopped);
        }
        // The end must always find room.
        let is_end = matches!(command, Command::ShutDown | Command::Stop);
        if commands.len() >= self.capacity && !is_end {
            return Err(HandleError::Full);
        }
        commands.push(command);
        let is_first = commands.len() == 1;
        drop(commands);
        // Whoever finds the queue empty wakes the loop; the loop empties it after it woke, under
        // the same lock. So a command is either taken by that turn, or was the first again.
        if is_first && !self.waker.stir() {
            return Err(HandleError::Stopped);
        }
        Ok(())
    }
}

/// The loop's end of the queue; without it no command is taken any more.
pub(crate) struct Inbox<H: Handler>(Arc<Mailbox<H>>);

impl<H: Handler> Inbox<H> {
    pub(crate) fn new(waker: Waker, capacity: usize) -> Self {
        Self(Arc::new(Mailbox::new(waker, capacity)))
    }

    pub(crate) fn handle(&self) -> Handle<H> {
        Handle {
            mailbox: Arc::clone(&self.0),
        }
    }

    /// Takes all commands, leaving `taken`, which is empty, for the next ones.
    pub(crate) fn take(&self, taken: &mut Vec<Command<H>>) {
        debug_assert!(taken.is_empty());
        mem::swap(&mut *self.0.commands(), taken);
    }
}

impl<H: Handler> Drop for Inbox<H> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<H: Handler> Inbox<H> {
    /// No command is taken any more, and the handles are told so.
    pub(crate) fn stop(&self) {
        let mut commands = self.0.commands();
        self.0.is_stopped.store(true, Ordering::Relaxed);
        let rest = mem::take(&mut *commands);
        drop(commands);
        // Behind the lock: what a closure owns may use a handle when it is dropped.
        drop(rest);
    }
}

impl<H: Handler> Handle<H> {
    /// Publishes a message to everyone who is subscribed to the topic when the loop gets to it.
    ///
    /// # Errors
    ///
    /// The queue is full, or the server has ended.
    pub fn publish<'m>(
        &self,
        topic: &str,
        message: impl Into<Message<'m>>,
    ) -> Result<(), HandleError> {
        self.publish_with(topic, message, PublishOptions::new())
    }

    /// Publishes a message as the options say. A name that no topic can have is counted in
    /// [`Stats::misnamed`](crate::Stats::misnamed).
    ///
    /// # Errors
    ///
    /// The queue is full, or the server has ended.
    pub fn publish_with<'m>(
        &self,
        topic: &str,
        message: impl Into<Message<'m>>,
        options: PublishOptions,
    ) -> Result<(), HandleError> {
        let message = message.into();
        let (kind, payload) = (message.kind(), message.payload().into());
        self.mailbox.push(Command::Publish {
            topic: topic.into(),
            kind,
            payload,
            options,
        })
    }

    /// Sends a message on a connection; if that has ended, nothing happens but a count.
    ///
    /// # Errors
    ///
    /// The queue is full, or the server has ended.
    pub fn send<'m>(
        &self,
        id: ConnectionId,
        message: impl Into<Message<'m>>,
    ) -> Result<(), HandleError> {
        let message = message.into();
        let (kind, payload) = (message.kind(), message.payload().into());
        self.mailbox.push(Command::Send { id, kind, payload })
    }

    /// Closes a connection; if that has ended, nothing happens.
    ///
    /// # Errors
    ///
    /// The queue is full, or the server has ended.
    pub fn close(
        &self,
        id: ConnectionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), HandleError> {
        self.mailbox.push(Command::Close {
            id,
            code,
            reason: reason.into(),
        })
    }

    /// Runs a closure on the loop's thread with the application and the loop at hand.
    ///
    /// # Errors
    ///
    /// The queue is full, or the server has ended.
    pub fn run(
        &self,
        closure: impl FnOnce(&mut H, &mut Context<'_, H::State>) + Send + 'static,
    ) -> Result<(), HandleError> {
        self.mailbox.push(Command::Run(Box::new(closure)))
    }

    /// A way to have [`Handler::wake`] called.
    pub fn waker(&self) -> Waker {
        self.mailbox.waker.clone()
    }

    /// Shuts the server down as [`Context::shut_down`] does.
    ///
    /// # Errors
    ///
    /// The server has ended.
    pub fn shut_down(&self) -> Result<(), HandleError> {
        self.mailbox.push(Command::ShutDown)
    }

    /// Ends the server at the end of its turn, whatever is unsent.
    ///
    /// # Errors
    ///
    /// The server has ended.
    pub fn stop(&self) -> Result<(), HandleError> {
        self.mailbox.push(Command::Stop)
    }
}

impl<H: Handler> Clone for Handle<H> {
    fn clone(&self) -> Self {
        Self {
            mailbox: Arc::clone(&self.mailbox),
        }
    }
}

impl<H: Handler> fmt::Debug for Handle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// A server could not start.
#[derive(Debug)]
pub enum BindError {
    /// A value of the configuration cannot be used.
    Config(super::config::ConfigError),
    /// An endpoint cannot be listened on.
    Listen(super::config::Endpoint, io::Error),
    /// The kernel gives no epoll instance or no eventfd.
    Poll(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Listen(endpoint, error) => match error.kind() {
                io::ErrorKind::AddrInUse => {
                    write!(
                        f,
                        "listen: {endpoint} is in use; stop who listens there or take another"
                    )
                }
                io::ErrorKind::PermissionDenied => {
                    write!(
                        f,
                        "listen: {endpoint} needs a permission; ports below 1024 are root's"
                    )
                }
                io::ErrorKind::AddrNotAvailable => {
                    write!(f, "listen: {endpoint} is no address of this machine")
                }
                _ => write!(f, "listen: {endpoint}: {error}"),
            },
            Self::Poll(error) => write!(f, "the event loop cannot start: {error}"),
        }
    }
}

impl std::error::Error for BindError {}
