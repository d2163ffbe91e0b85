//! What is done with channels, whoever asks: publishing, history, presence.
//!
//! Leaves to others who may do it.
//!
//! ```text
//! client, API ─▶ exchange ─┬▶ versions: what is older than what there is
//!                          └▶ members: who is there, as JSON
//! ```

mod members;
mod node;
mod versions;

use stentor::topic::{HistoryError, NamespaceId, Position, Query, Since, TopicTable};
use stentor::{Context, Message, PublishOptions};

use self::node::Node;
use self::versions::Versions;
use super::channel::Name;
use super::client::codes::{
    BAD_REQUEST, ErrorReply, NOT_AVAILABLE, UNKNOWN_CHANNEL, UNRECOVERABLE,
};
use super::client::{Codec, Record, is_json, publication_record};
use super::{ChannelOptions, DataFormat, OWN, Place, Rules};

/// Channels as clients and the API use them.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    versions: Versions,
    node: Node,
}

/// What is to be published.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Draft<'a> {
    pub(super) channel: &'a str,
    /// JSON, or any bytes if `is_binary`.
    pub(super) data: &'a [u8],
    pub(super) is_binary: bool,
    /// What is told of the client that publishes, as JSON; empty for the API.
    pub(super) info: &'a [u8],
    pub(super) tags: &'a [(String, String)],
    /// A second publication to the channel with this key does nothing; empty for none.
    pub(super) idempotency_key: &'a str,
    pub(super) skip_history: bool,
    /// Nothing is published if what there is has this version or a later one; 0 for none.
    pub(super) version: u64,
    /// Versions of another epoch are not compared with this one; empty for any.
    pub(super) version_epoch: &'a str,
}

/// What part of a history is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HistoryQuery<'a> {
    /// `None` for all that there is; with 0 only the position is told.
    pub(super) limit: Option<usize>,
    /// Offset and epoch.
    pub(super) since: Option<(u64, &'a str)>,
    pub(super) reverse: bool,
    /// The most bytes of data, if that is limited; one publication always comes.
    pub(super) most_bytes: Option<usize>,
}

impl Exchange {
    /// Which server it is.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Publishes; the position where a history is kept.
    ///
    /// # Errors
    ///
    /// The channel cannot be or its namespace is not known, or the data is not what the channel
    /// wants.
    pub(super) fn publish(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        draft: &Draft<'_>,
    ) -> Result<Option<Position>, ErrorReply> {
        let options = options_of(rules, draft.channel)?;
        let message = message(draft, options.publication_data_format)?;
        if draft.version_epoch.len() > MOST_VERSION_EPOCH {
            return Err(BAD_REQUEST);
        }
        let is_versioned = draft.version > 0 && options.keeps_history() && !draft.skip_history;
        if !is_versioned {
            return publish(ctx, draft, message);
        }
        let top = top(ctx, draft.channel)?;
        let is_repeated = !draft.idempotency_key.is_empty()
            && ctx.is_repeated(draft.channel, draft.idempotency_key);
        if !is_repeated && self.versions.is_outdated(draft, top) {
            return Ok(Some(top));
        }
        let position = publish(ctx, draft, message)?;
        if let Some(position) = position.filter(|_| !is_repeated) {
            self.versions.note(draft, position);
        }
        Ok(position)
    }

    /// The result of a history command.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Self::publish) about the channel; no history is kept; the epoch is
    /// another one by now; or what came before offset 0 is asked for.
    pub(super) fn history(
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        codec: Codec,
        channel: &str,
        query: &HistoryQuery<'_>,
    ) -> Result<Vec<u8>, ErrorReply> {
        options_of(rules, channel)?;
        let mut left = query.most_bytes.unwrap_or(usize::MAX);
        let query = Query {
            since: query.since.map(|(offset, epoch)| Since { epoch, offset }),
            limit: query.limit.unwrap_or(usize::MAX),
            reverse: query.reverse,
        };
        let history = ctx.history(channel, &query).map_err(why)?;
        let views = history.publications.iter().map(|one| one.view(channel));
        let fitting = views.enumerate().take_while(|(index, publication)| {
            let size = publication.message.payload().len();
            let fits = size <= left || *index == 0;
            left = left.saturating_sub(size);
            fits
        });
        let Position { epoch, offset } = history.position;
        let publications = fitting.map(|(_, publication)| publication_record(codec, &publication));
        Ok(Record::new(codec)
            .list(("publications", 1), publications)
            .always_text(("epoch", 2), epoch.as_str())
            .always_number(("offset", 3), offset)
            .end())
    }

    /// Forgets the publications of a channel; epoch and offset go on.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Self::publish) about the channel, or no history is kept.
    pub(super) fn clear_history(
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        channel: &str,
    ) -> Result<(), ErrorReply> {
        if !options_of(rules, channel)?.keeps_history() {
            return Err(NOT_AVAILABLE);
        }
        ctx.clear_history(channel);
        Ok(())
    }

    /// The result of a presence command.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Self::publish) about the channel, or no presence is kept.
    pub(super) fn presence(
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        codec: Codec,
        channel: &str,
    ) -> Result<Vec<u8>, ErrorReply> {
        keeps_presence(rules, channel)?;
        Ok(members::presence(ctx, codec, channel))
    }

    /// The result of a presence stats command.
    ///
    /// # Errors
    ///
    /// Those of [`presence`](Self::presence).
    pub(super) fn presence_stats(
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        codec: Codec,
        channel: &str,
    ) -> Result<Vec<u8>, ErrorReply> {
        keeps_presence(rules, channel)?;
        Ok(members::stats(ctx, codec, channel))
    }
}

/// The longest epoch of versions, in bytes: one is remembered for each channel.
const MOST_VERSION_EPOCH: usize = 255;

/// The options of a channel that a peer has named.
///
/// # Errors
///
/// Nothing can be published under the name, or it is in a namespace that is not known.
pub(super) fn options_of<'r>(
    rules: &'r Rules,
    channel: &str,
) -> Result<&'r ChannelOptions, ErrorReply> {
    let can_be = TopicTable::check_name(channel).is_ok()
        && !TopicTable::is_pattern(channel)
        && !channel.starts_with(OWN);
    if !can_be {
        return Err(BAD_REQUEST);
    }
    let id = rules.channels.id_of(channel);
    if id == NamespaceId::DEFAULT && Name::of(channel).namespace.is_some() {
        return Err(UNKNOWN_CHANNEL);
    }
    Ok(rules.channels.get(id))
}

fn keeps_presence(rules: &Rules, channel: &str) -> Result<(), ErrorReply> {
    if options_of(rules, channel)?.presence {
        Ok(())
    } else {
        Err(NOT_AVAILABLE)
    }
}

/// What goes out: a text is JSON. Bytes that are JSON come as such.
fn message<'a>(draft: &Draft<'a>, format: DataFormat) -> Result<Message<'a>, ErrorReply> {
    let data = draft.data;
    let json = str::from_utf8(data).ok().filter(|_| is_json(data));
    let is_wanted = match format {
        DataFormat::Any => !data.is_empty(),
        DataFormat::Json => json.is_some(),
        DataFormat::JsonObject => json.is_some_and(|json| json.trim_ascii().starts_with('{')),
        DataFormat::Binary => true,
    };
    match json {
        _ if !is_wanted => Err(BAD_REQUEST),
        Some(json) => Ok(Message::text(json)),
        None if draft.is_binary || data.is_empty() => Ok(Message::binary(data)),
        None => Err(BAD_REQUEST),
    }
}

fn publish(
    ctx: &mut Context<'_, Place>,
    draft: &Draft<'_>,
    message: Message<'_>,
) -> Result<Option<Position>, ErrorReply> {
    let mut options = PublishOptions::new().note(draft.info);
    if !draft.idempotency_key.is_empty() {
        options = options.idempotency_key(draft.idempotency_key);
    }
    if draft.skip_history {
        options = options.no_history();
    }
    for (name, value) in draft.tags {
        options = options.tag(name.as_str(), value.as_str());
    }
    let published = ctx.publish_with(draft.channel, message, &options);
    published
        .map(|published| published.position)
        .map_err(|_| BAD_REQUEST)
}

fn top(ctx: &mut Context<'_, Place>, channel: &str) -> Result<Position, ErrorReply> {
    let query = Query {
        since: None,
        limit: 0,
        reverse: false,
    };
    let history = ctx.history(channel, &query).map_err(why)?;
    Ok(history.position)
}

fn why(error: HistoryError) -> ErrorReply {
    match error {
        HistoryError::Off => NOT_AVAILABLE,
        HistoryError::WrongEpoch => UNRECOVERABLE,
        HistoryError::BadOffset => BAD_REQUEST,
    }
}

#[cfg(test)]
pub(super) mod tests;
