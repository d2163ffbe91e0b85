//! What is done with channels, whoever asks: publishing, history, presence.

use stentor::Context;
use stentor::topic::Position;

use super::client::codes::ErrorReply;
use super::{Place, Rules};

/// Channels as clients and the API use them.
#[derive(Debug, Default)]
pub(super) struct Exchange {}

/// What is to be published.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Draft<'a> {
    pub(super) channel: &'a str,
    /// JSON, or any bytes if `is_binary`.
    pub(super) data: &'a [u8],
    pub(super) is_binary: bool,
    /// The `ClientInfo` of the client that publishes, as JSON; empty for the API.
    pub(super) info: &'a str,
    pub(super) tags: &'a [(String, String)],
    pub(super) idempotency_key: &'a str,
    pub(super) skip_history: bool,
    pub(super) version: u64,
    pub(super) version_epoch: &'a str,
}

/// What part of a history is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HistoryQuery<'a> {
    /// `None` for all that there is.
    pub(super) limit: Option<usize>,
    /// Offset and epoch.
    pub(super) since: Option<(u64, &'a str)>,
    pub(super) reverse: bool,
}

impl Exchange {
    /// Publishes; the position where a history is kept.
    pub(super) fn publish(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        draft: &Draft<'_>,
    ) -> Result<Option<Position>, ErrorReply> {
        let _ = (ctx, rules, draft);
        Ok(None)
    }

    /// The result of a history command, as JSON.
    pub(super) fn history(
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        channel: &str,
        query: &HistoryQuery<'_>,
    ) -> Result<String, ErrorReply> {
        let _ = (ctx, rules, channel, query);
        Ok(String::new())
    }
}
