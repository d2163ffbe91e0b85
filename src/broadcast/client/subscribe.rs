//! Who hears which channel, and what of its past.

use stentor::topic::{self, Query, TopicTable};
use stentor::{Context, KeptPublication, SubscribeOptions};

use super::codes::{self, ErrorReply};
use super::command::{Method, Since, SubRefresh, Subscribe};
use super::connect::{is_unknown, lifetime};
use super::record::{Codec, Record};
use super::state::{ClientKey, Effective, Sub};
use super::{Clients, Failure, World, publication_record, push, unix_now};
use crate::broadcast::auth::TokenError;
use crate::broadcast::beside::{Ear, beside};
use crate::broadcast::channel::{ChannelOptions, Name, Permission};
use crate::broadcast::hooks::{Answer, Ask, SubscribeRequest, Subscribed};
use crate::broadcast::{OWN, Place, RecoveryMode, Rules, Who};

/// The flag of those who want an error instead of a stream that cannot be recovered.
const REJECTS_UNRECOVERED: u64 = 2;

/// How a channel is to be heard.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "so a client asks for it")]
pub(super) struct Request {
    since: Option<Since>,
    positioned: bool,
    recoverable: bool,
    join_leave: bool,
    rejects_unrecovered: bool,
    is_server_side: bool,
}

impl Request {
    pub(super) fn server_side(since: Option<Since>) -> Self {
        Self {
            since,
            is_server_side: true,
            ..Self::default()
        }
    }

    fn of(subscribe: &Subscribe) -> Self {
        let since = Since {
            recover: true,
            offset: subscribe.offset,
            epoch: subscribe.epoch.clone(),
        };
        Self {
            since: Some(since).filter(|_| subscribe.recover),
            positioned: subscribe.positioned,
            recoverable: subscribe.recoverable,
            join_leave: subscribe.join_leave,
            rejects_unrecovered: subscribe.flag & REJECTS_UNRECOVERED != 0,
            is_server_side: false,
        }
    }
}

/// The past of a channel as a subscriber gets it.
#[derive(Default)]
struct Past {
    position: Option<topic::Position>,
    /// What it missed, if that was asked for and can be had.
    recovered: Option<Vec<KeptPublication>>,
    was_recovering: bool,
    /// The position that it had.
    offset: u64,
    is_recoverable: bool,
}

impl Past {
    fn epoch(&self) -> &str {
        let position = self.position.as_ref();
        position.map_or("", |position| position.epoch.as_str())
    }

    /// From where on the subscriber counts: who recovers advances by the publications that come.
    fn offset(&self) -> u64 {
        match (&self.recovered, self.position) {
            (Some(_), _) => self.offset,
            (None, position) => position.map_or(0, |position| position.offset),
        }
    }
}

impl Clients {
    /// A client wants to hear a channel; `None` if a hook will tell.
    pub(super) fn subscribe(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        id: u32,
        subscribe: Box<Subscribe>,
    ) -> Result<Option<()>, Failure> {
        self.judge(world.rules, key, &subscribe)?;
        let answer = self.permit(ctx, world, key, &subscribe)?;
        let grant = match answer {
            Answer::Now(grant) => grant.map_err(Failure::from)?,
            Answer::Later => {
                self.wait(key, id, Method::Subscribe(subscribe));
                return Ok(None);
            }
            Answer::Usual => {
                let user = &self.all[key.0 as usize].user;
                if !is_permitted(world.rules, user, &subscribe.channel) {
                    return Err(codes::PERMISSION_DENIED.into());
                }
                Subscribed::default()
            }
        };
        self.subscribe_with(ctx, world, key, id, &subscribe, &grant)
            .map(Some)
    }

    /// Whether a client can subscribe at all.
    fn judge(&self, rules: &Rules, key: ClientKey, subscribe: &Subscribe) -> Result<(), Failure> {
        let channel = &*subscribe.channel;
        let client = &self.all[key.0 as usize];
        if channel.is_empty() {
            return Err(codes::BAD_COMMAND.into());
        }
        if subscribe.kind != 0 {
            return Err(codes::NOT_AVAILABLE.into());
        }
        if channel.len() > rules.client.channel_max_length {
            return Err(codes::BAD_REQUEST.into());
        }
        if client.sub(channel).is_some() {
            return Err(codes::ALREADY_SUBSCRIBED.into());
        }
        if client.subs.len() >= rules.client.channel_limit {
            return Err(codes::LIMIT_EXCEEDED.into());
        }
        judge_name(rules, channel)?;
        if !matches!(&*subscribe.tf, b"" | b"null") {
            return Err(codes::BAD_REQUEST.into());
        }
        Ok(())
    }

    /// What a token or a hook says of a subscription; what is usual if neither says anything.
    fn permit(
        &mut self,
        ctx: &Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        subscribe: &Subscribe,
    ) -> Result<Answer<Subscribed>, Failure> {
        let channel = &*subscribe.channel;
        if !subscribe.token.is_empty() {
            let grant = self.by_token(world, key, channel, &subscribe.token)?;
            return Ok(Answer::Now(Ok(grant)));
        }
        if !asks_hook(world.rules, channel) {
            return Ok(Answer::Usual);
        }
        let (ticket, answers) = self.ask(ctx, key);
        let client = &self.all[key.0 as usize];
        let uuid = client.uuid.text();
        let request = SubscribeRequest {
            client: client.view(&uuid),
            channel,
            token: "",
            data: &subscribe.data,
        };
        let ask = Ask::new(ticket, answers);
        Ok(world.hooks.subscribe(&request, ask))
    }

    /// What a token says of a channel.
    fn by_token(
        &self,
        world: &World<'_>,
        key: ClientKey,
        channel: &str,
        token: &str,
    ) -> Result<Subscribed, Failure> {
        let now = unix_now();
        let token = match world.subscription_tokens.subscription(token, now) {
            Ok(token) => token,
            Err(TokenError::Expired) => return Err(codes::TOKEN_EXPIRED.into()),
            Err(TokenError::Invalid(_)) => return Err(codes::PERMISSION_DENIED.into()),
            Err(TokenError::Unknown) => return Err(codes::INTERNAL.into()),
        };
        if token.channel != channel || *token.user != *self.all[key.0 as usize].user {
            return Err(codes::INVALID_TOKEN.into());
        }
        if token.subscribed.expire_at != 0 && token.subscribed.expire_at <= now {
            return Err(codes::EXPIRED.into());
        }
        Ok(token.subscribed)
    }

    /// A client may hear a channel.
    pub(super) fn subscribe_with(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        id: u32,
        subscribe: &Subscribe,
        grant: &Subscribed,
    ) -> Result<(), Failure> {
        let request = Request::of(subscribe);
        let channel = &*subscribe.channel;
        // A hook took its time, in which the API may have done it.
        let client = &self.all[key.0 as usize];
        if client.sub(channel).is_some() {
            return Err(codes::ALREADY_SUBSCRIBED.into());
        }
        if client.subs.len() >= world.rules.client.channel_limit {
            return Err(codes::LIMIT_EXCEEDED.into());
        }
        let result = self.enter(ctx, world.rules, key, channel, grant, &request)?;
        self.reply(key, id, ("subscribe", 6), &result);
        if grant.expire_at != 0 {
            self.look_again(ctx, world.rules, key);
        }
        Ok(())
    }

    /// Subscribes a client; answers the result of its subscribe command.
    pub(super) fn enter(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        channel: &str,
        grant: &Subscribed,
        request: &Request,
    ) -> Result<Vec<u8>, Failure> {
        let past = self.take_seat(ctx, rules, key, channel, grant, request)?;
        let codec = self.all[key.0 as usize].codec();
        Ok(describe(codec, channel, grant, &past))
    }

    /// Subscribes a client that did not ask; answers the pushes that tell it, in their
    /// order. What it missed comes behind the subscription: no client looks for it within.
    pub(super) fn bring(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        channel: &str,
        grant: &Subscribed,
        since: Option<Since>,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let request = Request::server_side(since);
        let mut past = self.take_seat(ctx, rules, key, channel, grant, &request)?;
        let missed = past.recovered.as_mut().map(std::mem::take);
        let codec = self.all[key.0 as usize].codec();
        let told = announce(codec, grant, &past);
        let subscribe = push::about(codec, channel, ("subscribe", 9), &told);
        let missed = missed.into_iter().flatten().map(|publication| {
            let publication = publication_record(codec, &publication.view(channel));
            push::about(codec, channel, push::PUB, &publication)
        });
        Ok(std::iter::once(subscribe).chain(missed).collect())
    }

    fn take_seat(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        channel: &str,
        grant: &Subscribed,
        request: &Request,
    ) -> Result<Past, Failure> {
        let options = rules.options_of(channel);
        let effective = Effective::of(options, grant.overrides);
        let client = &self.all[key.0 as usize];
        let may_read = may_see(rules, channel, options.see_history, &client.user, true);
        let keeps = options.keeps_history();
        let is_recoverable = keeps
            && (effective.recovers || request.recoverable && (options.allow_recovery || may_read));
        let is_positioned = is_recoverable
            || keeps
                && (effective.is_positioned
                    || request.positioned && (options.allow_positioning || may_read));
        let past = if is_positioned {
            past(ctx, rules, options, channel, request, is_recoverable)
        } else {
            Past::default()
        };
        if request.rejects_unrecovered && past.was_recovering && past.recovered.is_none() {
            return Err(codes::UNRECOVERABLE.into());
        }
        if past.was_recovering {
            let count = match past.recovered {
                Some(_) => &mut self.counts.recovered,
                None => &mut self.counts.unrecovered,
            };
            *count += 1;
        }
        let id = client.id;
        let info = match effective.visibility {
            Some(visibility) => visibility.mark(client.describe(&grant.info)),
            None => Vec::new(),
        };
        let how = SubscribeOptions::new()
            .info(&info)
            .present(effective.visibility.is_some());
        if ctx.subscribe_connection_with(id, channel, &how).is_err() {
            return Err(codes::LIMIT_EXCEEDED.into());
        }
        let sees = may_see(rules, channel, options.see_presence, &client.user, true);
        if effective.pushes_join_leave || request.join_leave && sees {
            // Not to hear who comes and goes is no reason to refuse the channel.
            let _ = ctx.subscribe_connection(id, &beside(channel, Ear::Client));
        }
        self.counts.subscribed += 1;
        let client = &mut self.all[key.0 as usize];
        client.subs.reserve_exact(1);
        client.subs.push(Sub {
            channel: channel.into(),
            info: grant.info.as_str().into(),
            expire_at: grant.expire_at,
            is_server_side: request.is_server_side,
            is_positioned,
            is_granted: false,
        });
        self.fresh.push(channel.into());
        Ok(Past {
            is_recoverable,
            ..past
        })
    }

    /// A client does not hear a channel any more.
    pub(super) fn drop_sub(&mut self, ctx: &mut Context<'_, Place>, key: ClientKey, channel: &str) {
        let client = &mut self.all[key.0 as usize];
        let Some(index) = client.subs.iter().position(|sub| &*sub.channel == channel) else {
            return;
        };
        client.subs.swap_remove(index);
        self.leave_channel(ctx, key, channel);
    }

    /// The engine does not serve it to a client any more.
    pub(super) fn leave_channel(
        &self,
        ctx: &mut Context<'_, Place>,
        key: ClientKey,
        channel: &str,
    ) {
        let id = self.all[key.0 as usize].id;
        // Its own leave is nothing that it is told.
        ctx.unsubscribe_connection(id, &beside(channel, Ear::Client));
        ctx.unsubscribe_connection(id, channel);
    }

    /// A client brings a new token for a channel.
    pub(super) fn sub_refresh(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        refresh: &SubRefresh,
    ) -> Result<Vec<u8>, Failure> {
        let channel = &*refresh.channel;
        if channel.is_empty() {
            return Err(codes::BAD_COMMAND.into());
        }
        if self.all[key.0 as usize].sub(channel).is_none() {
            return Err(codes::PERMISSION_DENIED.into());
        }
        if refresh.token.is_empty() {
            return Err(codes::BAD_REQUEST.into());
        }
        let grant = match self.by_token(world, key, channel, &refresh.token) {
            // It is no token for this.
            Err(Failure::Error(error)) if error == codes::PERMISSION_DENIED => {
                return Err(codes::INVALID_TOKEN.into());
            }
            grant => grant?,
        };
        let subs = &mut self.all[key.0 as usize].subs;
        if let Some(sub) = subs.iter_mut().find(|sub| &*sub.channel == channel) {
            sub.expire_at = grant.expire_at;
            sub.info = grant.info.into();
        }
        self.look_again(ctx, world.rules, key);
        let codec = self.all[key.0 as usize].codec();
        Ok(lifetime(codec, grant.expire_at).end())
    }
}

/// Whether a channel can have this name.
pub(super) fn judge_name(rules: &Rules, channel: &str) -> Result<(), ErrorReply> {
    if channel.len() > rules.client.channel_max_length {
        return Err(codes::BAD_REQUEST);
    }
    if is_unknown(rules, channel) {
        return Err(codes::UNKNOWN_CHANNEL);
    }
    let fits = match &rules.options_of(channel).channel_regex {
        Some(regex) => regex.is_match(Name::of(channel).rest),
        None => channel.is_ascii(),
    };
    // Topics of the application's own, and patterns, are no channels.
    let can_be = TopicTable::check_name(channel).is_ok()
        && !TopicTable::is_pattern(channel)
        && !channel.starts_with(OWN);
    if fits && can_be {
        Ok(())
    } else {
        Err(codes::BAD_REQUEST)
    }
}

/// Whether a hook has a say in who hears a channel: not where its name says who does.
pub(super) fn asks_hook(rules: &Rules, channel: &str) -> bool {
    let name = Name::of(channel);
    let options = rules.options_of(channel);
    let is_limited = options.allow_user_limited_channels && name.users.is_some();
    let is_asked = options.subscribe_proxy_enabled || !rules.asks_by_namespace;
    is_asked && !name.is_private && !is_limited
}

/// Whether a user may hear a channel without a token.
pub(super) fn is_permitted(rules: &Rules, user: &str, channel: &str) -> bool {
    let name = Name::of(channel);
    let options = rules.options_of(channel);
    if rules.client.insecure {
        return true;
    }
    if name.is_private {
        return false;
    }
    if options.allow_user_limited_channels && name.users.is_some() {
        return name.names(user);
    }
    let is_open = options.access.subscribe == Who::Anyone;
    let for_clients = options.allow_subscribe_for_client
        && (!user.is_empty() || options.allow_subscribe_for_anonymous);
    is_open || for_clients
}

/// Whether a user may see the past or the presence of a channel. Without a protocol everyone sees
/// both of a topic that is open.
pub(super) fn may_see(
    rules: &Rules,
    channel: &str,
    permission: Permission,
    user: &str,
    is_subscribed: bool,
) -> bool {
    permission.allows(user, is_subscribed) || rules.may_subscribe(channel) || rules.client.insecure
}

/// Where the channel is, and what was published there since the subscriber left it.
fn past(
    ctx: &mut Context<'_, Place>,
    rules: &Rules,
    options: &ChannelOptions,
    channel: &str,
    request: &Request,
    is_recoverable: bool,
) -> Past {
    let is_cache = options.recovery_mode == RecoveryMode::Cache;
    let nothing = Since::default();
    let since = match &request.since {
        Some(since) => Some(since),
        None if is_cache && options.auto_cache_recover => Some(&nothing),
        None => None,
    };
    let Some(since) = since.filter(|_| is_recoverable) else {
        let nothing = Query {
            since: None,
            limit: 0,
            reverse: false,
        };
        return Past {
            position: ctx
                .history(channel, &nothing)
                .ok()
                .map(|history| history.position),
            was_recovering: request.since.is_some(),
            ..Past::default()
        };
    };
    let read = topic::Since {
        epoch: &since.epoch,
        offset: since.offset,
    };
    let recovery = if is_cache {
        ctx.newest(channel, Some(&read))
    } else {
        ctx.recover(channel, &read, rules.client.recovery_max_publication_limit)
    };
    let Ok(recovery) = recovery else {
        return Past::default();
    };
    let size = |publication: &KeptPublication| publication.view(channel).message.payload().len();
    // A reply that is larger than what may wait for the client would end it each time.
    let fits = |all: &Vec<KeptPublication>| all.iter().map(size).sum::<usize>() <= rules.most_past;
    Past {
        position: Some(recovery.position),
        recovered: recovery.publications.filter(fits),
        was_recovering: true,
        offset: since.offset,
        ..Past::default()
    }
}

/// The result of a subscribe command.
fn describe(codec: Codec, channel: &str, grant: &Subscribed, past: &Past) -> Vec<u8> {
    let mut result = lifetime(codec, grant.expire_at)
        .flag(("recoverable", 3), past.is_recoverable)
        .text(("epoch", 6), past.epoch());
    if let Some(recovered) = past.recovered.as_ref().filter(|all| !all.is_empty()) {
        let all = recovered.iter();
        result = result.list(
            ("publications", 7),
            all.map(|publication| publication_record(codec, &publication.view(channel))),
        );
    }
    result
        .flag(("recovered", 8), past.recovered.is_some())
        .number(("offset", 9), past.offset())
        .flag(("positioned", 10), past.position.is_some())
        .data(("data", 11), &grant.data)
        .flag(("was_recovering", 12), past.was_recovering)
        .end()
}

/// The same where a client did not ask, and what it missed comes behind.
fn announce(codec: Codec, grant: &Subscribed, past: &Past) -> Vec<u8> {
    Record::new(codec)
        .flag(("recoverable", 1), past.is_recoverable)
        .text(("epoch", 4), past.epoch())
        .number(("offset", 5), past.offset())
        .flag(("positioned", 6), past.position.is_some())
        .data(("data", 7), &grant.data)
        .end()
}
