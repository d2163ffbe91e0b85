//! Clients of Centrifugo's protocol, in JSON or in Protobuf: over a WebSocket in both directions, or,
//! in JSON, over a WebSocket or a stream of events in one.
//!
//! ```text
//! message ─▶ command ─▶ connect, subscribe, commands ─▶ exchange ─▶ reply
//!                          │    ▲
//!                          ▼    │ at once, or later by another thread
//!                          hooks
//! publication ─▶ push, once for all clients of a form
//! timer ─▶ dues ─▶ ping, expiry
//! ```

pub(super) mod codes;
mod command;
mod commands;
mod connect;
mod dues;
mod effort;
mod info;
mod options;
mod pace;
mod push;
mod query;
mod record;
mod state;
mod subscribe;
mod users;
mod waiting;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::SystemTime;

use slab::Slab;
use stentor::protocol::http::{Request, Response};
use stentor::{
    Accept, CloseCode, ConnectionId, Context, Lost, Message, PresenceEvent, PublishOptions, Sent,
};

use self::codes::{Disconnect, ErrorReply};
use self::command::{Command, Method};
use self::dues::Dues;
use self::effort::Effort;
pub(super) use self::info::{
    ClientInfo, Visibility, client_info, info_record, listed, of_stranger,
};
pub use self::options::ClientOptions;
pub(super) use self::push::{encode, farewell, is_own, publication_record};
use self::query::{Query, bad_request, headers};
pub(super) use self::record::{Codec, Field, Record, is_json, one_line, text};
pub use self::state::ClientKey;
use self::state::{Client, Rare, Stage, Transport, Uuid};
pub(super) use self::users::Selection;
use self::users::Users;
use super::auth::Tokens;
use super::beside::{Ear, beside};
use super::exchange::Exchange;
use super::hooks::{Answers, Hooks, Outcomes, Refusal, Ticket};
use super::{Place, Rules};

/// What clients may say while a hook thinks, or one message if that is more.
const MOST_WAITING: usize = 64 << 10;

/// Replies that leave before the message at hand is done: little commands have large ones.
const MOST_REPLIES: usize = 64 << 10;

/// The subprotocols that stand for the codecs.
const JSON: &str = "centrifuge-json";
const PROTOBUF: &str = "centrifuge-protobuf";

/// How long a client that was refused has to leave.
const LEAVE: std::time::Duration = std::time::Duration::from_secs(5);

/// The clients of the protocol.
#[derive(Debug)]
pub(super) struct Clients {
    all: Slab<Client>,
    users: Users,
    dues: Option<Dues>,
    /// Who is about to open.
    pending: Option<Pending>,
    /// Replies to the message at hand, to leave in one frame.
    out: Vec<u8>,
    /// Channels that were subscribed to in those.
    fresh: Vec<Box<str>>,
    /// What looking around has cost in this turn, and who goes on in the next.
    effort: Effort,
    paused: Vec<ConnectionId>,
    answers: Option<Answers>,
    inbox: Option<mpsc::Receiver<(Ticket, Outcomes)>>,
    nobody: Rc<str>,
    counts: ClientCounts,
}

/// What clients did and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClientCounts {
    pub(super) connected: u64,
    pub(super) subscribed: u64,
    /// By code; clients choose none.
    pub(super) errors: HashMap<u32, u64>,
    /// ...as well.
    pub(super) disconnects: HashMap<u16, u64>,
    pub(super) recovered: u64,
    pub(super) unrecovered: u64,
}

#[derive(Debug)]
struct Pending {
    transport: Transport,
    has_pings: bool,
    headers: Box<[(Box<str>, Box<str>)]>,
    request: Option<command::Connect>,
}

/// What clients have to do with, beside themselves.
pub(super) struct World<'w> {
    pub(super) rules: &'w Rules,
    pub(super) tokens: &'w Tokens,
    pub(super) subscription_tokens: &'w Tokens,
    pub(super) exchange: &'w mut Exchange,
    pub(super) hooks: &'w mut dyn Hooks,
}

/// How it goes on after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    /// A hook will answer later.
    Wait,
    /// Nothing that the client says counts any more.
    Over,
}

/// Why a command is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    Error(ErrorReply),
    Disconnect(Disconnect),
}

impl From<ErrorReply> for Failure {
    fn from(error: ErrorReply) -> Self {
        Self::Error(error)
    }
}

impl From<Disconnect> for Failure {
    fn from(disconnect: Disconnect) -> Self {
        Self::Disconnect(disconnect)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Error {
                code,
                message,
                temporary,
            } => Self::Error(ErrorReply {
                code,
                message: message.into(),
                temporary,
            }),
            Refusal::Disconnect { code, reason } => Self::Disconnect(Disconnect {
                code,
                reason: reason.into(),
            }),
        }
    }
}

/// Seconds of Unix time.
fn unix_now() -> u64 {
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    age.map_or(0, |age| age.as_secs())
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            all: Slab::new(),
            users: Users::default(),
            dues: None,
            pending: None,
            out: Vec::new(),
            fresh: Vec::new(),
            effort: Effort::default(),
            paused: Vec::new(),
            answers: None,
            inbox: None,
            nobody: "".into(),
            counts: ClientCounts::default(),
        }
    }
}

impl Clients {
    // ---- coming ----

    /// Accepts a WebSocket of the protocol.
    pub(super) fn upgrade(
        &mut self,
        rules: &Rules,
        hooks: &dyn Hooks,
        request: &Request<'_>,
        is_uni: bool,
    ) -> Result<Accept<Place>, Response> {
        let query = Query::of(request);
        if is_uni && !rules.client.uni_websocket {
            return Err(Response::not_found());
        }
        if is_uni && query.is_protobuf {
            let problem = "Who only listens gets JSON here; connect without Protobuf.\n";
            return Err(Response::new(400).text(problem));
        }
        let subprotocol = request.choose_subprotocol(if query.is_protobuf {
            &[PROTOBUF]
        } else {
            &[JSON, PROTOBUF]
        });
        let codec = if query.is_protobuf || subprotocol == Some(PROTOBUF) {
            Codec::Protobuf
        } else {
            Codec::Json
        };
        self.pending = Some(Pending {
            transport: if is_uni {
                Transport::UniWebSocket
            } else {
                Transport::WebSocket(codec)
            },
            has_pings: !query.has_frame_pings,
            headers: headers(hooks, request),
            // In both directions it comes as a command.
            request: is_uni
                .then(|| query.connect_request())
                .transpose()?
                .flatten(),
        });
        let accept = Accept::new(Place::Nowhere);
        if is_uni {
            return Ok(accept.form(push::BARE));
        }
        let accept = match subprotocol {
            Some(subprotocol) => accept.subprotocol(subprotocol),
            None => accept,
        };
        let accept = accept.form(match codec {
            Codec::Json => push::PUSH,
            Codec::Protobuf => push::PROTOBUF,
        });
        Ok(if query.has_frame_pings {
            accept
        } else {
            accept.without_pings()
        })
    }

    /// Makes a stream of events of the answer to a request.
    pub(super) fn stream(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        hooks: &dyn Hooks,
        request: &Request<'_>,
    ) -> Result<Response, Response> {
        if !rules.client.uni_sse {
            return Err(Response::not_found());
        }
        let connect = match request.method() {
            "POST" => Some(command::connect_request(request.body()).map_err(|_| bad_request())?),
            _ => Query::of(request).connect_request()?,
        };
        self.pending = Some(Pending {
            transport: Transport::UniSse,
            has_pings: true,
            headers: headers(hooks, request),
            request: Some(connect.unwrap_or_default()),
        });
        ctx.stream(Place::Nowhere, push::EVENTS);
        let head = [
            ("Content-Type", "text/event-stream"),
            ("X-Accel-Buffering", "no"),
        ];
        Ok(super::uncached(super::with(Response::new(200), &head)))
    }

    /// The connection that was accepted last is open; answers whether it is one of here.
    pub(super) fn open(&mut self, ctx: &mut Context<'_, Place>, world: &mut World<'_>) -> bool {
        let Some(pending) = self.pending.take() else {
            return false;
        };
        let now = ctx.now();
        let since = self.dues.get_or_insert_with(|| Dues::new(now)).tick(now);
        let mut client = Client {
            id: ctx.id(),
            uuid: Uuid::random(),
            transport: pending.transport,
            stage: Stage::Fresh,
            is_pinged: false,
            has_pings: pending.has_pings,
            is_hooked: false,
            user: Rc::clone(&self.nobody),
            place: 0,
            subs: Vec::new(),
            due: 0,
            ping_at: 0,
            since,
            expire_at: 0,
            asked: 0,
            rare: None,
        };
        let has_request = pending.request.is_some();
        if has_request || !pending.headers.is_empty() {
            client.rare = Some(Box::new(Rare {
                headers: pending.headers,
                ..Rare::default()
            }));
        }
        let key = ClientKey(self.all.insert(client) as u32);
        *ctx.state() = Place::Client(key);
        if pending.transport == Transport::UniSse {
            ctx.write(b"\r\n");
        }
        self.look_again(ctx, world.rules, key);
        if let Some(connect) = pending.request {
            let method = Method::Connect(connect);
            let command = Command { id: 0, method };
            self.run(ctx, world, key, command);
            self.flush(ctx, key);
        }
        true
    }

    /// A client has read what it had asked for.
    pub(super) fn drain(&mut self, ctx: &mut Context<'_, Place>, world: &mut World<'_>) {
        self.resume(ctx, world, ctx.id());
    }

    /// A connection of here has ended.
    pub(super) fn close(&mut self, world: &mut World<'_>, key: ClientKey) {
        self.leave_user(key);
        let client = self.all.remove(key.0 as usize);
        if let Some(dues) = &mut self.dues {
            dues.set(key.0, client.due, 0);
        }
        if client.ping_at != 0 {
            // It had connected.
            let uuid = client.uuid.text();
            world.hooks.disconnected(&client.view(&uuid));
        }
    }

    // ---- speaking ----

    /// A message of a client.
    pub(super) fn message(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        message: Message<'_>,
    ) {
        let payload = message.payload();
        let client = &self.all[key.0 as usize];
        if client.stage == Stage::Over {
            return;
        }
        if payload.len() > world.rules.client.message_size_limit {
            let _ = ctx.close(CloseCode::MESSAGE_TOO_BIG, "message is too big");
            return;
        }
        match client.transport {
            Transport::WebSocket(_) => self.commands(ctx, world, key, payload),
            // What comes behind the first message means nothing.
            _ if client.stage != Stage::Fresh || client.is_waiting() => {}
            _ => match command::connect_request(payload) {
                Ok(connect) => {
                    let method = Method::Connect(connect);
                    self.run(ctx, world, key, Command { id: 0, method });
                    self.flush(ctx, key);
                }
                Err(_) => self.disconnect(ctx, key, &codes::BAD_COMMAND),
            },
        }
    }

    /// Carries out the commands of a message, in their order.
    fn commands(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        mut rest: &[u8],
    ) {
        let codec = self.all[key.0 as usize].codec();
        if codec.is_blank(rest) {
            return self.disconnect(ctx, key, &codes::BAD_COMMAND);
        }
        if let Some(rare) = &mut self.all[key.0 as usize].rare
            && let Some(waiting) = &mut rare.waiting
        {
            codec.join(&mut waiting.rest, rest);
            if waiting.rest.len() > MOST_WAITING.max(world.rules.client.message_size_limit + 1) {
                self.disconnect(ctx, key, &codes::TOO_MANY_REQUESTS);
            }
            return;
        }
        loop {
            let unread = rest;
            let Some(command) = command::next(codec, &mut rest) else {
                break;
            };
            let Ok(command) = command else {
                return self.disconnect(ctx, key, &codes::BAD_COMMAND);
            };
            if command.method.looks_around() && self.effort.is_spent(ctx.now()) {
                return self.pause(ctx, key, unread);
            }
            match self.run(ctx, world, key, command) {
                Flow::Next if self.out.len() < MOST_REPLIES => {}
                Flow::Next => match self.flush(ctx, key) {
                    Sent::Sent => {}
                    // It reads them more slowly than it asks.
                    Sent::Backpressure => return self.hold(key, rest),
                    Sent::Dropped => break,
                },
                Flow::Wait => {
                    self.all[key.0 as usize].keep_waiting(rest);
                    break;
                }
                Flow::Over => break,
            }
        }
        self.flush(ctx, key);
    }

    fn run(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        command: Command,
    ) -> Flow {
        let client = &self.all[key.0 as usize];
        let is_connect = matches!(command.method, Method::Connect(_));
        let id = command.id;
        if client.stage == Stage::Over || is_connect != (client.stage == Stage::Fresh) {
            self.disconnect(ctx, key, &codes::BAD_COMMAND);
            return Flow::Over;
        }
        let done = match command.method {
            Method::Connect(connect) => return self.connect(ctx, world, key, id, connect),
            Method::Subscribe(subscribe) => self.subscribe(ctx, world, key, id, subscribe),
            Method::Publish(publish) => self.publish(ctx, world, key, id, publish),
            Method::Rpc(rpc) => self.rpc(ctx, world, key, id, rpc),
            method => self.simple(ctx, world, key, id, method).map(Some),
        };
        match done {
            Ok(None) => Flow::Wait,
            Ok(Some(())) => Flow::Next,
            Err(failure) => self.fail(ctx, key, id, failure),
        }
    }

    /// Tells a client that its command failed.
    fn fail(
        &mut self,
        ctx: &mut Context<'_, Place>,
        key: ClientKey,
        id: u32,
        failure: Failure,
    ) -> Flow {
        match failure {
            Failure::Error(error) => {
                *self.counts.errors.entry(error.code).or_default() += 1;
                let codec = self.all[key.0 as usize].codec();
                let error = Record::new(codec)
                    .number(("code", 1), error.code.into())
                    .always_text(("message", 2), &error.message)
                    .flag(("temporary", 3), error.temporary);
                self.reply(key, id, ("error", 2), &error.end());
                Flow::Next
            }
            Failure::Disconnect(disconnect) => {
                self.disconnect(ctx, key, &disconnect);
                Flow::Over
            }
        }
    }

    /// Adds a reply to those that leave together.
    fn reply(&mut self, key: ClientKey, id: u32, method: Field, result: &[u8]) {
        let codec = self.all[key.0 as usize].codec();
        let reply = Record::new(codec)
            .number(("id", 1), id.into())
            .record(method, result);
        codec.append(&reply.end(), &mut self.out);
    }

    /// Sends the replies that were collected.
    fn flush(&mut self, ctx: &mut Context<'_, Place>, key: ClientKey) -> Sent {
        self.fresh.clear();
        if self.out.is_empty() {
            return Sent::Sent;
        }
        let client = &self.all[key.0 as usize];
        let sent = ctx.send_to(client.id, client.codec().frame(&self.out));
        self.out.clear();
        sent
    }

    /// Sends a push: what a client did not ask for, written as its codec has it.
    fn push(&mut self, ctx: &mut Context<'_, Place>, key: ClientKey, push: &[u8]) -> Sent {
        let client = &self.all[key.0 as usize];
        match client.transport {
            Transport::WebSocket(codec) => {
                ctx.send_to(client.id, codec.frame(&push::reply(codec, push)))
            }
            Transport::UniWebSocket => ctx.send_to(client.id, Codec::Json.frame(push)),
            Transport::UniSse => ctx.write_to(client.id, &[b"data: ", push, b"\n\n"].concat()),
        }
    }

    /// Ends a connection, behind the replies that it is owed.
    fn disconnect(
        &mut self,
        ctx: &mut Context<'_, Place>,
        key: ClientKey,
        disconnect: &Disconnect,
    ) {
        self.flush(ctx, key);
        // A hook may say anything; with another code nothing would be sent, and nothing ended.
        let disconnect = match disconnect.code {
            3000..=4999 => disconnect,
            _ => &codes::INTERNAL_ERROR,
        };
        let Disconnect { code, reason } = disconnect;
        *self.counts.disconnects.entry(*code).or_default() += 1;
        let client = &self.all[key.0 as usize];
        if client.transport.is_uni() {
            self.push(ctx, key, &push::disconnect(disconnect));
        }
        let client = &mut self.all[key.0 as usize];
        client.stage = Stage::Over;
        client.subs = Vec::new();
        if let Some(rare) = &mut client.rare {
            rare.waiting = None;
            rare.refreshing = None;
        }
        let (id, due) = (client.id, std::mem::take(&mut client.due));
        if let Some(dues) = &mut self.dues {
            dues.set(key.0, due, 0);
        }
        self.leave_user(key);
        let code = CloseCode::new(*code);
        let _ = ctx.close_connection(id, code, reason);
    }

    // ---- what the engine tells ----

    /// Messages did not go out: who counts on having all must come again.
    pub(super) fn lost(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        _: Lost,
    ) {
        let client = &self.all[key.0 as usize];
        let drops = |channel: &str| {
            let topic = &rules.options_of(channel).topic;
            topic.slow != stentor::SlowPolicy::Disconnect || topic.max_age.is_some()
        };
        let concerned = client
            .subs
            .iter()
            .filter(|sub| sub.is_positioned && drops(&sub.channel));
        let concerned: Vec<(Box<str>, bool)> = concerned
            .map(|sub| (sub.channel.clone(), sub.is_server_side))
            .collect();
        if concerned.iter().any(|(_, is_server_side)| *is_server_side) {
            return self.disconnect(ctx, key, &codes::INSUFFICIENT_STATE);
        }
        for (channel, _) in concerned {
            self.drop_sub(ctx, key, &channel);
            let codec = self.all[key.0 as usize].codec();
            let push = push::unsubscribe(codec, &channel, 2500, "insufficient state");
            self.push(ctx, key, &push);
        }
    }

    /// Somebody has come to a channel or left it.
    pub(super) fn presence(ctx: &mut Context<'_, Place>, rules: &Rules, event: &PresenceEvent) {
        let is_told = Visibility::of(&event.info).is_told;
        if !is_told
            || !info::is_of_client(&event.info) && !rules.options_of(&event.topic).join_leave
        {
            return;
        }
        let beside = beside(&event.topic, Ear::Client);
        if ctx.subscriber_count(&beside) == 0 {
            return;
        }
        let info = client_info(&event.info, event.id);
        let push = |codec| push::join_leave(codec, &event.topic, event.has_joined, &info);
        let json = push(Codec::Json);
        let options = PublishOptions::new().note(push(Codec::Protobuf));
        // Its name is a good one.
        let _ = ctx.publish_with(&beside, Codec::Json.frame(&json), &options);
    }

    // ---- looking ----

    pub(super) fn counts(&self) -> &ClientCounts {
        &self.counts
    }

    /// How many clients are connected.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// How many users they are.
    pub(super) fn user_count(&self) -> usize {
        self.users.count()
    }
}
