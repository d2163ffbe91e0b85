//! Clients of Centrifugo's protocol.

pub(super) mod codes;
mod options;
mod push;

use stentor::Context;

use self::codes::{Disconnect, ErrorReply};
use super::hooks::Subscribed;
use super::{Place, Rules};
pub use self::options::ClientOptions;
pub(super) use self::push::{is_json, publication_json};

/// The clients that are connected.
#[derive(Debug, Default)]
pub(super) struct Clients {}

/// Which connections are meant; what is empty narrows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection<'a> {
    pub(super) user: &'a str,
    pub(super) client: &'a str,
    pub(super) session: &'a str,
}

#[allow(unused_variables, clippy::unused_self, clippy::too_many_arguments)]
#[allow(clippy::unnecessary_wraps, clippy::needless_pass_by_value)]
impl Clients {
    pub(super) fn subscribe_user(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        select: &Selection<'_>,
        channel: &str,
        grant: &Subscribed,
        since: Option<(u64, &str)>,
    ) -> Result<(), ErrorReply> {
        Ok(())
    }

    pub(super) fn unsubscribe_user(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        select: &Selection<'_>,
        channel: &str,
    ) {
    }

    pub(super) fn disconnect_user(
        &mut self,
        ctx: &mut Context<'_, Place>,
        select: &Selection<'_>,
        whitelist: &[String],
        disconnect: &Disconnect,
    ) {
    }

    pub(super) fn refresh_user(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        select: &Selection<'_>,
        expired: bool,
        expire_at: Option<u64>,
        info: Option<&str>,
    ) -> Result<(), ErrorReply> {
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        0
    }

    pub(super) fn user_count(&self) -> usize {
        0
    }
}
