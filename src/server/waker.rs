//! A way to say to a loop that there is something to look at, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes the loop of a server call [`Handler::wake`](crate::Handler::wake), from any thread and
/// whatever the application is: for threads that bring results through a channel of their own.
///
/// ```
/// use std::sync::mpsc::{Receiver, Sender};
/// use stentor::{Context, Handler, Waker};
///
/// struct App {
///     results: Receiver<String>,
/// }
///
/// impl Handler for App {
///     type State = ();
///
///     fn wake(&mut self, ctx: &mut Context<'_, ()>) {
///         for result in self.results.try_iter() {
///             ctx.publish("results", &result);
///         }
///     }
/// }
///
/// fn work(results: &Sender<String>, waker: &Waker) {
///     let _ = results.send("done".to_owned());
///     waker.wake(); // Behind the send: the call finds what was sent before.
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    /// `wake` is owed.
    is_rung: AtomicBool,
    poll: mio::Waker,
}

impl Waker {
    pub(crate) fn new(poll: mio::Waker) -> Self {
        let is_rung = AtomicBool::new(false);
        Self(Arc::new(Bell { is_rung, poll }))
    }

    /// Makes the loop call [`Handler::wake`](crate::Handler::wake) in its next turn.
    ///
    /// What the thread did before is visible in the call. Several wakes before it come to one
    /// call; after the server has ended nothing happens.
    pub fn wake(&self) {
        // Who finds it rung already leaves the rest to the one who rang it: the loop takes it
        // after this, and with it what both have done.
        if !self.0.is_rung.swap(true, Ordering::AcqRel) {
            self.stir();
        }
    }

    /// Begins a turn of the loop.
    pub(super) fn stir(&self) -> bool {
        self.0.poll.wake().is_ok()
    }

    /// Whether `wake` is owed; it is not any more then.
    pub(super) fn take(&self) -> bool {
        self.0.is_rung.swap(false, Ordering::AcqRel)
    }

    /// One whose loop is not there.
    #[cfg(test)]
    pub(crate) fn unheard() -> Self {
        let poll = mio::Poll::new().unwrap();
        Self::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap())
    }
}
