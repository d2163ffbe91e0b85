//! `stentor echo`: every message comes back as it went.

use stentor::{Context, Handler, Message};

/// What test suites and load generators talk to.
#[derive(Debug)]
pub(super) struct Echo;

impl Handler for Echo {
    type State = ();

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        ctx.send(message);
    }
}
