//! Who a client is, and for how long.

use std::collections::BTreeSet;

use stentor::Context;

use super::codes;
use super::command::{Connect, Method, Refresh};
use super::dues::{Tick, ticks};
use super::record::{Codec, Record};
use super::state::{Client, ClientKey, Stage};
use super::subscribe::{Request, asks_hook, is_permitted, judge_name};
use super::{Clients, Failure, Flow, LEAVE, World, push, unix_now};
use crate::broadcast::auth::TokenError;
use crate::broadcast::channel::Name;
use crate::broadcast::hooks::{
    self, Answer, Ask, ConnectRequest, Connected, RefreshRequest, Refreshed, Refusal,
    SubscribeRequest, Subscribed,
};
use crate::broadcast::{Place, Rules};

/// How much longer a connection lives when its hook could not be asked.
const REPRIEVE: u64 = 60;

/// The longest time of a connection that a client is told, in seconds: a year.
const MOST_TTL: u64 = 365 * 24 * 3600;

/// A channel that a client is subscribed to when it connects.
struct Wanted {
    channel: String,
    grant: Subscribed,
    is_granted: bool,
}

impl Clients {
    /// A client says who it is.
    pub(super) fn connect(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        id: u32,
        connect: Connect,
    ) -> Flow {
        let (ticket, answers) = self.ask(ctx, key);
        let client = &self.all[key.0 as usize];
        let uuid = client.uuid.text();
        let channels: Vec<&str> = connect.subs.keys().map(String::as_str).collect();
        let request = ConnectRequest {
            client: client.view(&uuid),
            token: &connect.token,
            data: &connect.data,
            name: &connect.name,
            version: &connect.version,
            channels: &channels,
        };
        match world.hooks.connect(&request, Ask::new(ticket, answers)) {
            Answer::Later => {
                self.wait(key, id, Method::Connect(connect));
                Flow::Wait
            }
            Answer::Now(result) => {
                self.all[key.0 as usize].is_hooked = true;
                self.connect_with(ctx, world, key, id, &connect, result)
            }
            Answer::Usual => {
                let result = by_token(world, &connect);
                self.connect_with(ctx, world, key, id, &connect, result)
            }
        }
    }

    /// It is known who the client is, or why it may not connect.
    pub(super) fn connect_with<F: Into<Failure>>(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        id: u32,
        connect: &Connect,
        result: Result<Connected, F>,
    ) -> Flow {
        let admitted = result
            .map_err(Into::into)
            .and_then(|connected| self.admit(ctx, world, key, connect, connected));
        match admitted {
            Ok(result) => {
                self.counts.connected += 1;
                if self.all[key.0 as usize].transport.is_uni() {
                    let push = Record::new(Codec::Json).record(("connect", 10), &result);
                    self.push(ctx, key, &push.end());
                } else {
                    self.reply(key, id, ("connect", 5), &result);
                }
                self.look_again(ctx, world.rules, key);
                Flow::Next
            }
            Err(failure) => self.refuse(ctx, key, id, failure),
        }
    }

    /// A client may not connect. One that gets an error is expected to leave by itself.
    fn refuse(
        &mut self,
        ctx: &mut Context<'_, Place>,
        key: ClientKey,
        id: u32,
        failure: Failure,
    ) -> Flow {
        let client = &mut self.all[key.0 as usize];
        client.ping_at = 0; // It has not connected, whatever was done for it.
        let is_uni = client.transport.is_uni();
        match failure {
            Failure::Error(error) if is_uni => {
                let end = match error.code {
                    103 => codes::NOT_PERMITTED,
                    109 | 110 => codes::CONNECTION_EXPIRED,
                    111 => codes::TOO_MANY_REQUESTS,
                    _ => codes::INTERNAL_ERROR,
                };
                self.disconnect(ctx, key, &end);
            }
            Failure::Error(_) => {
                self.fail(ctx, key, id, failure);
                self.flush(ctx, key);
                let now = ctx.now();
                // It may have been let in by half.
                let subs = std::mem::take(&mut self.all[key.0 as usize].subs);
                for sub in subs {
                    self.leave_channel(ctx, key, &sub.channel);
                }
                let client = &mut self.all[key.0 as usize];
                client.stage = Stage::Over;
                if let Some(dues) = &mut self.dues {
                    let due = dues.tick(now) + ticks(LEAVE);
                    dues.set(key.0, client.due, due);
                    client.due = due;
                }
                self.leave_user(key);
                self.arm(ctx);
            }
            Failure::Disconnect(end) => self.disconnect(ctx, key, &end),
        }
        Flow::Over
    }

    /// Lets a client in; answers the result of its connect command.
    fn admit(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        connect: &Connect,
        connected: Connected,
    ) -> Result<Vec<u8>, Failure> {
        let rules = world.rules;
        let options = &rules.client;
        if connected.expire_at != 0 && connected.expire_at <= unix_now() {
            return Err(codes::EXPIRED.into());
        }
        let limit = options.user_connection_limit;
        if limit > 0 && self.users.of(&connected.user).len() >= limit {
            return Err(codes::CONNECTION_LIMIT.into());
        }
        // No client had more when it was here before, and all of them have to be looked at.
        if connect.subs.len() > options.channel_limit {
            return Err(codes::CHANNEL_LIMIT.into());
        }
        let asked = self.asked_for(ctx, world, key, connect, &connected)?;
        let wanted = wanted(rules, &connected, asked)?;
        if wanted.len() > options.channel_limit {
            return Err(codes::CHANNEL_LIMIT.into());
        }
        let data = connected.data.clone();
        self.identify(ctx, rules, key, connected);
        let subs = self.enter_wanted(ctx, rules, key, connect, &wanted)?;
        let client = &self.all[key.0 as usize];
        // Who was let in by a hook does not refresh by itself.
        let told = if client.is_hooked {
            0
        } else {
            client.expire_at
        };
        let uuid = client.uuid.text();
        let is_uni = client.transport.is_uni();
        let ping = if client.has_pings {
            options.ping_interval.as_secs().max(1)
        } else {
            0
        };
        let result = Record::new(client.codec()).text(("client", 1), &uuid).text(
            ("version", 2),
            concat!("stentor ", env!("CARGO_PKG_VERSION")),
        );
        let mut result = expiring(result, [3, 4], told).data(("data", 5), &data);
        if !subs.is_empty() {
            result = result.map(("subs", 6), subs);
        }
        Ok(result
            .number(("ping", 7), ping)
            .flag(("pong", 8), client.has_pings && !is_uni)
            .text(("session", 9), if is_uni { &uuid } else { "" })
            .end())
    }

    /// The channels that a client asks for when it connects; what it may not hear is passed over.
    fn asked_for(
        &mut self,
        ctx: &Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        connect: &Connect,
        connected: &Connected,
    ) -> Result<Vec<(String, Subscribed)>, Failure> {
        let mut asked = Vec::new();
        for channel in connect.subs.keys() {
            match judge_name(world.rules, channel) {
                Err(error) if error == codes::UNKNOWN_CHANNEL => {
                    return Err(codes::BAD_COMMAND.into());
                }
                Err(_) => continue,
                Ok(()) => {}
            }
            let grant = self.grant(ctx, world, key, connected, channel);
            asked.extend(grant.map(|grant| (channel.clone(), grant)));
        }
        Ok(asked)
    }

    /// What holds for a channel that a client asks for when it connects, if it may hear it. A hook
    /// has to say so at once: who is refused here asks again with a command.
    fn grant(
        &mut self,
        ctx: &Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        connected: &Connected,
        channel: &str,
    ) -> Option<Subscribed> {
        if asks_hook(world.rules, channel) {
            if world.rules.asks_by_namespace {
                return None; // A backend takes its time.
            }
            let (ticket, answers) = self.ask(ctx, key);
            let client = &self.all[key.0 as usize];
            let uuid = client.uuid.text();
            let request = SubscribeRequest {
                client: hooks::Client {
                    user: &connected.user,
                    meta: &connected.meta,
                    ..client.view(&uuid)
                },
                channel,
                token: "",
                data: b"",
            };
            match world.hooks.subscribe(&request, Ask::new(ticket, answers)) {
                Answer::Now(grant) => return grant.ok(),
                Answer::Later => return None,
                Answer::Usual => {}
            }
        }
        is_permitted(world.rules, &connected.user, channel).then(Subscribed::default)
    }

    /// It is known who a client is.
    fn identify(
        &mut self,
        ctx: &Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        connected: Connected,
    ) {
        self.join_user(key, &connected.user);
        let tick = self.dues.as_ref().map_or(0, |dues| dues.tick(ctx.now()));
        let client = &mut self.all[key.0 as usize];
        client.stage = Stage::Connected;
        client.expire_at = connected.expire_at;
        if !(connected.info.is_empty() && connected.meta.is_empty()) {
            let rare = client.rare();
            rare.info = connected.info.into();
            rare.meta = connected.meta.into();
        }
        // Those who came together are not pinged together: the first time is between a half and a
        // whole interval away.
        let interval = ticks(rules.client.ping_interval).max(2);
        let spread = (u64::from(client.uuid.first()) * u64::from(interval / 2)) >> 8;
        client.ping_at = if client.has_pings {
            tick + interval - spread as Tick
        } else {
            Tick::MAX
        };
    }

    /// Subscribes a client to the channels with which it connects; answers the results by channel.
    fn enter_wanted(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        connect: &Connect,
        wanted: &[Wanted],
    ) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let mut subs = Vec::new();
        for wanted in wanted {
            let since = connect.subs.get(&wanted.channel).cloned();
            let request = Request::server_side(since.filter(|since| since.recover));
            let result = self.enter(ctx, rules, key, &wanted.channel, &wanted.grant, &request)?;
            if let Some(sub) = self.all[key.0 as usize].subs.last_mut() {
                sub.is_granted = wanted.is_granted;
            }
            subs.push((wanted.channel.clone(), result));
        }
        Ok(subs)
    }

    // ---- how long ----

    /// A client brings a new token.
    pub(super) fn refresh(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        refresh: &Refresh,
    ) -> Result<Vec<u8>, Failure> {
        if refresh.token.is_empty() {
            return Err(codes::BAD_COMMAND.into());
        }
        let now = unix_now();
        let connected = match world.tokens.connection(&refresh.token, now) {
            Ok(connected) => connected,
            Err(TokenError::Expired) => return Err(codes::CONNECTION_EXPIRED.into()),
            Err(TokenError::Invalid(_)) => return Err(codes::INVALID_TOKEN.into()),
            Err(TokenError::Unknown) => return Err(codes::INTERNAL.into()),
        };
        let client = &mut self.all[key.0 as usize];
        if *connected.user != *client.user {
            return Err(codes::INVALID_TOKEN.into());
        }
        if connected.expire_at != 0 && connected.expire_at <= now {
            return Err(codes::CONNECTION_EXPIRED.into());
        }
        let has = |channel: &str| {
            let granted = client.sub(channel).is_some_and(|sub| sub.is_granted);
            granted && !channel.is_empty()
        };
        let named = names_of(&connected);
        let granted = client.subs.iter().filter(|sub| sub.is_granted).count();
        if named.len() != granted || !named.iter().all(|channel| has(channel)) {
            return Err(codes::INSUFFICIENT_STATE.into());
        }
        client.expire_at = connected.expire_at;
        if !connected.info.is_empty() || client.rare.is_some() {
            client.rare().info = connected.info.into();
        }
        let codec = client.codec();
        self.look_again(ctx, world.rules, key);
        Ok(expiring(Record::new(codec), [3, 4], connected.expire_at).end())
    }

    /// The time of a connection or of a subscription may be over.
    pub(super) fn look_at_expiry(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
    ) {
        let now = unix_now();
        let options = &world.rules.client;
        let client = &self.all[key.0 as usize];
        let over = |at: u64, grace: std::time::Duration| {
            at != 0 && now >= at.saturating_add(grace.as_secs())
        };
        if client.is_hooked && over(client.expire_at, std::time::Duration::ZERO) {
            return self.ask_refresh(ctx, world, key);
        }
        if over(client.expire_at, options.expired_close_delay) {
            return self.disconnect(ctx, key, &codes::CONNECTION_EXPIRED);
        }
        let expired = client
            .subs
            .iter()
            .filter(|sub| over(sub.expire_at, options.expired_sub_close_delay));
        let expired: Vec<_> = expired
            .map(|sub| (sub.channel.clone(), sub.is_server_side))
            .collect();
        for (channel, is_server_side) in expired {
            if is_server_side {
                return self.disconnect(ctx, key, &codes::SUBSCRIPTION_EXPIRED);
            }
            self.drop_sub(ctx, key, &channel);
            let codec = self.all[key.0 as usize].codec();
            let push = push::unsubscribe(codec, &channel, 2501, "subscription expired");
            self.push(ctx, key, &push);
        }
    }

    /// Asks the hook that let a client in whether it may stay.
    fn ask_refresh(&mut self, ctx: &mut Context<'_, Place>, world: &mut World<'_>, key: ClientKey) {
        // Until the answer comes, and if none does.
        self.all[key.0 as usize].expire_at = unix_now() + REPRIEVE;
        let (ticket, answers) = self.ask(ctx, key);
        let number = ticket.number;
        let client = &self.all[key.0 as usize];
        let uuid = client.uuid.text();
        let request = RefreshRequest {
            client: client.view(&uuid),
        };
        match world.hooks.refresh(&request, Ask::new(ticket, answers)) {
            Answer::Later => self.all[key.0 as usize].rare().refreshing = Some(number),
            Answer::Now(result) => self.refreshed(ctx, world.rules, key, result),
            // Nobody says that it may.
            Answer::Usual => self.disconnect(ctx, key, &codes::CONNECTION_EXPIRED),
        }
    }

    /// The hook says whether a client may stay.
    pub(super) fn refreshed(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        result: Result<Refreshed, Refusal>,
    ) {
        match result.map_err(Failure::from) {
            Ok(refreshed) if refreshed.is_over(unix_now()) => {
                self.disconnect(ctx, key, &codes::CONNECTION_EXPIRED);
            }
            Ok(refreshed) => {
                let client = &mut self.all[key.0 as usize];
                client.expire_at = refreshed.expire_at;
                if !refreshed.info.is_empty() {
                    client.rare().info = refreshed.info.into();
                }
                self.look_again(ctx, rules, key);
            }
            Err(Failure::Error(_)) => {} // It has its reprieve.
            Err(Failure::Disconnect(end)) => self.disconnect(ctx, key, &end),
        }
    }
}

/// Who a client is by its token, or without one.
fn by_token(world: &World<'_>, connect: &Connect) -> Result<Connected, Failure> {
    let options = &world.rules.client;
    if connect.token.is_empty() {
        return if options.allow_anonymous_connect_without_token || options.insecure {
            Ok(Connected::default())
        } else {
            Err(codes::BAD_COMMAND.into())
        };
    }
    match world.tokens.connection(&connect.token, unix_now()) {
        Ok(connected)
            if connected.user.is_empty() && options.disallow_anonymous_connection_tokens =>
        {
            Err(codes::NOT_PERMITTED.into())
        }
        Ok(connected) => Ok(connected),
        Err(TokenError::Expired) => Err(codes::TOKEN_EXPIRED.into()),
        Err(TokenError::Invalid(_)) => Err(codes::INVALID_TOKEN.into()),
        Err(TokenError::Unknown) => Err(codes::INTERNAL.into()),
    }
}

/// The channels that come with a token, each once.
fn names_of(connected: &Connected) -> BTreeSet<&str> {
    let subs = connected.subs.iter().map(|(channel, _)| channel.as_str());
    subs.chain(connected.channels.iter().map(String::as_str))
        .collect()
}

/// The channels that a client is subscribed to when it connects, each once.
fn wanted(
    rules: &Rules,
    connected: &Connected,
    asked: Vec<(String, Subscribed)>,
) -> Result<Vec<Wanted>, Failure> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut add = |channel: &str, grant: Subscribed, is_granted| {
        if !wanted.iter().any(|one| one.channel == channel) {
            wanted.push(Wanted {
                channel: channel.into(),
                grant,
                is_granted,
            });
        }
    };
    for (channel, grant) in &connected.subs {
        add(channel, grant.clone(), true);
    }
    for channel in &connected.channels {
        add(channel, Subscribed::default(), true);
    }
    if let Some(namespace) = &rules.client.personal_channel
        && !connected.user.is_empty()
    {
        let separator = if namespace.is_empty() { "" } else { ":" };
        let channel = format!("{namespace}{separator}#{}", connected.user);
        add(&channel, Subscribed::default(), false);
    }
    // Those that it asks for by itself.
    for (channel, grant) in asked {
        add(&channel, grant, false);
    }
    for one in &wanted {
        judge_name(rules, &one.channel)?;
    }
    wanted.sort_by(|one, other| one.channel.cmp(&other.channel));
    Ok(wanted)
}

/// When a client has to be looked at because its time, or that of a subscription, is over.
pub(super) fn expiry(client: &Client, rules: &Rules, tick: Tick) -> Option<Tick> {
    let options = &rules.client;
    let grace = if client.is_hooked {
        std::time::Duration::ZERO
    } else {
        options.expired_close_delay
    };
    let own = Some(client.expire_at)
        .filter(|&at| at != 0)
        .map(|at| at.saturating_add(grace.as_secs()));
    let sub_grace = options.expired_sub_close_delay.as_secs();
    let subs = client.subs.iter().filter(|sub| sub.expire_at != 0);
    let first = subs
        .map(|sub| sub.expire_at.saturating_add(sub_grace))
        .chain(own)
        .min()?;
    let left = first.saturating_sub(unix_now()).min(MOST_TTL);
    Some(tick + ticks(std::time::Duration::from_secs(left)).max(1))
}

/// A message that tells for how long something lives.
pub(super) fn lifetime(codec: Codec, expire_at: u64) -> Record {
    expiring(Record::new(codec), [1, 2], expire_at)
}

/// Tells for how long something lives, by fields of these numbers.
fn expiring(record: Record, [expires, ttl]: [u32; 2], expire_at: u64) -> Record {
    if expire_at == 0 {
        return record;
    }
    let left = expire_at.saturating_sub(unix_now()).clamp(1, MOST_TTL);
    record
        .flag(("expires", expires), true)
        .number(("ttl", ttl), left)
}

/// Whether this name is one of a namespace that there is not.
pub(super) fn is_unknown(rules: &Rules, channel: &str) -> bool {
    let id = rules.channels.id_of(channel);
    Name::of(channel).namespace.is_some() && id == stentor::topic::NamespaceId::DEFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or a refresh would find fewer subscriptions than names, and end the connection each time.
    #[test]
    fn channel_that_a_token_names_twice_is_one() {
        let channels = ["a".into(), "b".into(), "a".into()];
        let connected = Connected {
            channels: channels.into(),
            subs: vec![("b".into(), Subscribed::default())],
            ..Connected::default()
        };
        assert!(names_of(&connected).into_iter().eq(["a", "b"]));
    }
}
