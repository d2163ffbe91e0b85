//! What a client can ask for once it is connected, beside channels.

use stentor::Context;

use super::codes;
use super::command::{self, Method, Publish, Rpc};
use super::record::{Codec, Record};
use super::state::ClientKey;
use super::subscribe::may_see;
use super::{Clients, Failure, World};
use crate::broadcast::channel::Permission;
use crate::broadcast::exchange::{Draft, Exchange, HistoryQuery, options_of};
use crate::broadcast::hooks::{self, Answer, Ask, PublishRequest, Returned, RpcRequest};
use crate::broadcast::{ChannelOptions, Place, Rules, Who};

/// What one member of a channel is in a reply, about.
const MEMBER: usize = 128;

impl Clients {
    /// A command that is answered at once.
    pub(super) fn simple(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        id: u32,
        method: Method,
    ) -> Result<(), Failure> {
        let codec = self.all[key.0 as usize].codec();
        let nothing = || Record::new(codec).end();
        let (name, result) = match method {
            Method::Unsubscribe(unsubscribe) => {
                let channel = named(&unsubscribe.channel)?;
                self.drop_sub(ctx, key, channel);
                (("unsubscribe", 7), nothing())
            }
            Method::Presence(presence) => {
                let channel = self.may(world.rules, key, &presence.channel, see_presence)?;
                let result = Exchange::presence(ctx, world.rules, codec, channel)?;
                self.effort.spend(result.len());
                (("presence", 9), result)
            }
            Method::PresenceStats(stats) => {
                let channel = self.may(world.rules, key, &stats.channel, see_presence)?;
                let result = Exchange::presence_stats(ctx, world.rules, codec, channel)?;
                // Each member is looked at, as if it were told.
                self.effort.spend(ctx.presence_count(channel) * MEMBER);
                (("presence_stats", 10), result)
            }
            Method::History(history) => {
                let result = self.history(ctx, world.rules, key, &history)?;
                self.effort.spend(result.len());
                (("history", 11), result)
            }
            Method::Send(send) => {
                let client = &self.all[key.0 as usize];
                let uuid = client.uuid.text();
                if !world.hooks.message(&client.view(&uuid), &send.data) {
                    return Err(codes::NOT_SERVED.into());
                }
                return Ok(());
            }
            Method::Refresh(refresh) => {
                let result = self.refresh(ctx, world, key, &refresh)?;
                (("refresh", 14), result)
            }
            Method::SubRefresh(refresh) => {
                let result = self.sub_refresh(ctx, world, key, &refresh)?;
                (("sub_refresh", 15), result)
            }
            Method::Ping => (("ping", 12), nothing()),
            Method::Pong => return self.pong(ctx, world.rules, key),
            Method::Connect(_) | Method::Subscribe(_) | Method::Publish(_) | Method::Rpc(_) => {
                return Err(codes::INTERNAL.into());
            }
        };
        self.reply(key, id, name, &result);
        Ok(())
    }

    /// A client is alive.
    fn pong(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
    ) -> Result<(), Failure> {
        let now = ctx.now();
        let client = &mut self.all[key.0 as usize];
        if !std::mem::take(&mut client.is_pinged) {
            return Err(codes::BAD_COMMAND.into());
        }
        let interval = super::dues::ticks(rules.client.ping_interval);
        let waited = super::dues::ticks(rules.client.pong_timeout);
        // The next one follows the last one, not its answer.
        let sent = client.ping_at.saturating_sub(waited);
        let tick = self.dues.as_ref().map_or(0, |dues| dues.tick(now));
        self.all[key.0 as usize].ping_at = (sent + interval).max(tick + 1);
        self.look_again(ctx, rules, key);
        Ok(())
    }

    /// A channel about which a client may ask something.
    fn may<'c>(
        &self,
        rules: &Rules,
        key: ClientKey,
        channel: &'c str,
        of: fn(&ChannelOptions) -> Result<Permission, Failure>,
    ) -> Result<&'c str, Failure> {
        let channel = named(channel)?;
        let permission = of(options_of(rules, channel)?)?;
        let client = &self.all[key.0 as usize];
        let is_subscribed = client.sub(channel).is_some();
        if may_see(rules, channel, permission, &client.user, is_subscribed) {
            Ok(channel)
        } else {
            Err(codes::PERMISSION_DENIED.into())
        }
    }

    fn history(
        &self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        history: &command::History,
    ) -> Result<Vec<u8>, Failure> {
        let channel = self.may(rules, key, &history.channel, |options| {
            if options.keeps_history() {
                Ok(options.see_history)
            } else {
                Err(codes::NOT_AVAILABLE.into())
            }
        })?;
        let most = rules.client.history_max_publication_limit;
        let limit = usize::try_from(history.limit).map_or(most, |limit| limit.min(most));
        let since = history.since.as_ref();
        let query = HistoryQuery {
            limit: Some(limit),
            since: since.map(|since| (since.offset, since.epoch.as_str())),
            reverse: history.reverse,
            // As with what is recovered: more than may wait for the client would end it.
            most_bytes: Some(rules.most_past),
        };
        let codec = self.all[key.0 as usize].codec();
        Ok(Exchange::history(ctx, rules, codec, channel, &query)?)
    }

    // ---- publishing ----

    /// A client publishes; `None` if a hook will tell whether it may.
    pub(super) fn publish(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        id: u32,
        publish: Publish,
    ) -> Result<Option<()>, Failure> {
        let channel = named(&publish.channel)?;
        let options = options_of(world.rules, channel)?;
        if options.publish_proxy_enabled || !world.rules.asks_by_namespace {
            let (ticket, answers) = self.ask(ctx, key);
            let client = &self.all[key.0 as usize];
            let uuid = client.uuid.text();
            let request = PublishRequest {
                client: client.view(&uuid),
                channel,
                data: &publish.data,
            };
            match world.hooks.publish(&request, Ask::new(ticket, answers)) {
                Answer::Usual => {}
                Answer::Now(result) => {
                    let how = result.map_err(Failure::from)?;
                    return self
                        .publish_with(ctx, world, key, id, &publish, &how)
                        .map(Some);
                }
                Answer::Later => {
                    self.wait(key, id, Method::Publish(publish));
                    return Ok(None);
                }
            }
        }
        let client = &self.all[key.0 as usize];
        let is_subscribed = client.sub(channel).is_some();
        let is_allowed = options.publish.allows(&client.user, is_subscribed)
            || options.access.publish == Who::Anyone
            || world.rules.client.insecure;
        if !is_allowed {
            return Err(codes::PERMISSION_DENIED.into());
        }
        let how = hooks::Publish::default();
        self.publish_with(ctx, world, key, id, &publish, &how)
            .map(Some)
    }

    /// A client may publish.
    pub(super) fn publish_with(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        id: u32,
        publish: &Publish,
        how: &hooks::Publish,
    ) -> Result<(), Failure> {
        let channel = &*publish.channel;
        // The reply to a subscription comes in front of what is published to it.
        if self.fresh.iter().any(|fresh| **fresh == *channel) {
            self.flush(ctx, key);
        }
        let client = &self.all[key.0 as usize];
        let in_channel = client.sub(channel).map_or("", |sub| &sub.info);
        let info = client.describe(in_channel);
        let codec = client.codec();
        let data = how.data.as_deref().unwrap_or(&publish.data);
        let draft = Draft {
            channel,
            data,
            is_binary: codec == Codec::Protobuf || how.data.is_some(),
            info: &info,
            skip_history: how.skip_history,
            ..Draft::default()
        };
        world.exchange.publish(ctx, world.rules, &draft)?;
        self.reply(key, id, ("publish", 8), &Record::new(codec).end());
        Ok(())
    }

    // ---- calling ----

    /// A client calls a method; `None` if the answer comes later.
    pub(super) fn rpc(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        id: u32,
        rpc: Rpc,
    ) -> Result<Option<()>, Failure> {
        let (ticket, answers) = self.ask(ctx, key);
        let client = &self.all[key.0 as usize];
        let uuid = client.uuid.text();
        let request = RpcRequest {
            client: client.view(&uuid),
            method: &rpc.method,
            data: &rpc.data,
        };
        match world.hooks.rpc(&request, Ask::new(ticket, answers)) {
            Answer::Usual => Err(codes::NOT_AVAILABLE.into()),
            Answer::Now(result) => {
                let returned = result.map_err(Failure::from)?;
                self.returned(key, id, &returned);
                Ok(Some(()))
            }
            Answer::Later => {
                self.wait(key, id, Method::Rpc(rpc));
                Ok(None)
            }
        }
    }

    pub(super) fn returned(&mut self, key: ClientKey, id: u32, returned: &Returned) {
        let result = Record::new(self.all[key.0 as usize].codec());
        let result = result.data(("data", 1), &returned.data).end();
        self.reply(key, id, ("rpc", 13), &result);
    }
}

/// A command that names no channel is none.
fn named(channel: &str) -> Result<&str, Failure> {
    if channel.is_empty() {
        return Err(codes::BAD_COMMAND.into());
    }
    Ok(channel)
}

fn see_presence(options: &ChannelOptions) -> Result<Permission, Failure> {
    if options.presence {
        Ok(options.see_presence)
    } else {
        Err(codes::NOT_AVAILABLE.into())
    }
}
