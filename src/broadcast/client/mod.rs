//! Clients of Centrifugo's protocol, in JSON: over a WebSocket in both directions, or over a
//! WebSocket or a stream of events in one.
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
mod json;
mod options;
mod push;
mod state;
mod subscribe;
mod users;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::SystemTime;

use slab::Slab;
use stentor::protocol::http::{Request, Response};
use stentor::{Accept, CloseCode, ConnectionId, Context, Form, Lost, Message, PresenceEvent, Sent};

use self::codes::{Disconnect, ErrorReply};
use self::command::{Command, Method};
use self::dues::{Dues, ticks};
pub(super) use self::json::Object;
pub use self::options::ClientOptions;
pub(super) use self::push::{encode, farewell, is_json, is_own, publication_json};
pub use self::state::ClientKey;
use self::state::{Client, Rare, Stage, Transport, Uuid, Waiting};
pub(super) use self::users::Selection;
use self::users::Users;
use super::auth::Tokens;
use super::exchange::Exchange;
use super::hooks::{Answers, Hooks, Outcomes, Refusal, Ticket};
use super::{Place, Rules};

/// What clients may say while a hook thinks: as much as one message.
const MOST_WAITING: usize = 64 << 10;

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
    /// By code.
    pub(super) errors: HashMap<u32, u64>,
    /// By code.
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
        if query.is_protobuf {
            let problem = "Protobuf is not spoken here; connect without it, which is JSON.\n";
            return Err(Response::new(400).text(problem));
        }
        if is_uni && !rules.client.uni_websocket {
            return Err(Response::not_found());
        }
        self.pending = Some(Pending {
            transport: if is_uni {
                Transport::UniWebSocket
            } else {
                Transport::WebSocket
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
        let accept = match request.choose_subprotocol(&["centrifuge-json"]) {
            Some(subprotocol) => accept.subprotocol(subprotocol),
            None => accept,
        };
        let accept = accept.form(push::PUSH);
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
            Transport::WebSocket => self.commands(ctx, world, key, payload),
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
        if rest.trim_ascii().is_empty() {
            return self.disconnect(ctx, key, &codes::BAD_COMMAND);
        }
        if let Some(rare) = &mut self.all[key.0 as usize].rare
            && let Some(waiting) = &mut rare.waiting
        {
            waiting.rest.push(b'\n');
            waiting.rest.extend_from_slice(rest);
            if waiting.rest.len() > MOST_WAITING {
                self.disconnect(ctx, key, &codes::TOO_MANY_REQUESTS);
            }
            return;
        }
        while let Some(command) = command::next(&mut rest) {
            let Ok(command) = command else {
                return self.disconnect(ctx, key, &codes::BAD_COMMAND);
            };
            match self.run(ctx, world, key, command) {
                Flow::Next => {}
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
                let error = super::raw::line(&error);
                self.reply(id, "error", &error);
                Flow::Next
            }
            Failure::Disconnect(disconnect) => {
                self.disconnect(ctx, key, &disconnect);
                Flow::Over
            }
        }
    }

    /// Adds a reply to those that leave together.
    fn reply(&mut self, id: u32, method: &str, result: &str) {
        if !self.out.is_empty() {
            self.out.push(b'\n');
        }
        let reply = format!("{{\"id\":{id},\"{method}\":{result}}}");
        self.out.extend_from_slice(reply.as_bytes());
    }

    /// Sends the replies that were collected.
    fn flush(&mut self, ctx: &mut Context<'_, Place>, key: ClientKey) {
        self.fresh.clear();
        if self.out.is_empty() {
            return;
        }
        let text = str::from_utf8(&self.out).expect("it was written as text");
        ctx.send_to(self.all[key.0 as usize].id, Message::text(text));
        self.out.clear();
    }

    /// Sends what a client did not ask for: the inside of a push.
    fn push(&mut self, ctx: &mut Context<'_, Place>, key: ClientKey, inside: &str) -> Sent {
        let client = &self.all[key.0 as usize];
        match client.transport {
            Transport::WebSocket => {
                let text = format!("{{\"push\":{{{inside}}}}}");
                ctx.send_to(client.id, Message::text(&text))
            }
            Transport::UniWebSocket => {
                ctx.send_to(client.id, Message::text(&format!("{{{inside}}}")))
            }
            Transport::UniSse => {
                ctx.write_to(client.id, format!("data: {{{inside}}}\n\n").as_bytes())
            }
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
        if client.transport != Transport::WebSocket {
            let inside = push::disconnect(disconnect);
            self.push(ctx, key, &inside);
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

    // ---- hooks ----

    /// The ticket of the next question about a client, and where the answer goes.
    fn ask(&mut self, ctx: &Context<'_, Place>, key: ClientKey) -> (Ticket, Answers) {
        let client = &mut self.all[key.0 as usize];
        client.asked = client.asked.wrapping_add(1);
        let ticket = Ticket {
            id: client.id,
            number: client.asked,
        };
        let answers = self.answers.get_or_insert_with(|| {
            let (sender, inbox) = mpsc::channel();
            self.inbox = Some(inbox);
            let waker = ctx.waker();
            Answers { sender, waker }
        });
        (ticket, answers.clone())
    }

    /// Other threads have answered.
    pub(super) fn wake(&mut self, ctx: &mut Context<'_, Place>, world: &mut World<'_>) {
        let Some(inbox) = &self.inbox else { return };
        let outcomes: Vec<_> = inbox.try_iter().collect();
        for (ticket, outcome) in outcomes {
            let Some(Place::Client(key)) = ctx.state_of(ticket.id).map(|place| *place) else {
                continue; // It has gone meanwhile.
            };
            self.hear(ctx, world, key, ticket.number, outcome);
        }
    }

    /// A hook has answered about a client.
    fn hear(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        number: u32,
        outcome: Outcomes,
    ) {
        let Some(rare) = &mut self.all[key.0 as usize].rare else {
            return;
        };
        // One answer is enough for each question.
        if let Outcomes::Refresh(refreshed) = outcome {
            if rare.refreshing.take_if(|asked| *asked == number).is_some() {
                self.refreshed(ctx, world.rules, key, refreshed);
            }
            return;
        }
        let answered = rare.waiting.take_if(|waiting| waiting.number == number);
        let Some(Waiting { command, rest, .. }) = answered else {
            return;
        };
        let id = command.id;
        let done = match (command.method, outcome) {
            (Method::Connect(connect), Outcomes::Connect(result)) => {
                self.all[key.0 as usize].is_hooked = true;
                let flow = self.connect_with(ctx, world, key, id, &connect, result);
                self.flush(ctx, key);
                if flow == Flow::Next && !rest.trim_ascii().is_empty() {
                    self.commands(ctx, world, key, &rest);
                }
                return;
            }
            (Method::Subscribe(subscribe), Outcomes::Subscribe(result)) => result
                .map_err(Failure::from)
                .and_then(|grant| self.subscribe_with(ctx, world, key, id, &subscribe, &grant)),
            (Method::Publish(publish), Outcomes::Publish(result)) => result
                .map_err(Failure::from)
                .and_then(|how| self.publish_with(ctx, world, key, id, &publish, &how)),
            (Method::Rpc(_), Outcomes::Rpc(result)) => result
                .map_err(Failure::from)
                .map(|returned| self.returned(id, &returned)),
            _ => Err(codes::INTERNAL.into()),
        };
        let flow = match done {
            Ok(()) => Flow::Next,
            Err(failure) => self.fail(ctx, key, id, failure),
        };
        self.flush(ctx, key);
        if flow == Flow::Next && !rest.trim_ascii().is_empty() {
            self.commands(ctx, world, key, &rest);
        }
    }

    /// The command waits for an answer.
    fn wait(&mut self, key: ClientKey, id: u32, method: Method) {
        let client = &mut self.all[key.0 as usize];
        let waiting = Waiting {
            number: client.asked,
            command: Command { id, method },
            rest: Vec::new(),
        };
        client.rare().waiting = Some(waiting);
    }

    // ---- time ----

    /// A timer of here is due.
    pub(super) fn timer(&mut self, ctx: &mut Context<'_, Place>, world: &mut World<'_>) {
        let Some(dues) = &mut self.dues else { return };
        dues.disarm();
        let now = dues.tick(ctx.now());
        while let Some(key) = self.dues.as_mut().and_then(|dues| dues.next(now)) {
            let key = ClientKey(key);
            self.all[key.0 as usize].due = 0;
            self.look_at(ctx, world, key);
            let is_there = self.all.get(key.0 as usize);
            if is_there.is_some_and(|client| client.stage != Stage::Over) {
                self.look_again(ctx, world.rules, key);
            }
        }
        self.arm(ctx);
    }

    fn arm(&mut self, ctx: &mut Context<'_, Place>) {
        let now = ctx.now();
        if let Some(after) = self.dues.as_mut().and_then(|dues| dues.arm(now)) {
            ctx.set_timer(after, super::CLIENT_TIMER);
        }
    }

    /// Something about a client may be due.
    fn look_at(&mut self, ctx: &mut Context<'_, Place>, world: &mut World<'_>, key: ClientKey) {
        let Some(now) = self.dues.as_ref().map(|dues| dues.tick(ctx.now())) else {
            return;
        };
        let options = &world.rules.client;
        let client = &mut self.all[key.0 as usize];
        if client.stage == Stage::Over {
            // It was refused, and has not left.
            return self.disconnect(ctx, key, &codes::STALE);
        }
        if client.stage == Stage::Fresh {
            if now >= client.since + ticks(options.stale_close_delay) {
                self.disconnect(ctx, key, &codes::STALE);
            }
            return;
        }
        if client.ping_at != 0 && now >= client.ping_at {
            if client.is_pinged && client.is_waiting() {
                // So may its pong.
                client.ping_at = now + ticks(options.pong_timeout);
            } else if client.is_pinged {
                return self.disconnect(ctx, key, &codes::NO_PONG);
            } else {
                self.ping(ctx, world.rules, key, now);
            }
        }
        self.look_at_expiry(ctx, world, key);
    }

    fn ping(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        now: dues::Tick,
    ) {
        let options = &rules.client;
        let client = &mut self.all[key.0 as usize];
        match client.transport {
            Transport::UniSse => ctx.write_to(client.id, b"data: {}\n\n"),
            Transport::UniWebSocket | Transport::WebSocket => {
                ctx.send_to(client.id, Message::text("{}"))
            }
        };
        client.is_pinged = client.transport == Transport::WebSocket;
        client.ping_at = now
            + if client.is_pinged {
                ticks(options.pong_timeout)
            } else {
                ticks(options.ping_interval)
            };
    }

    /// Notes when to look at a client next.
    fn look_again(&mut self, ctx: &mut Context<'_, Place>, rules: &Rules, key: ClientKey) {
        let now = ctx.now();
        let Some(dues) = &mut self.dues else { return };
        let tick = dues.tick(now);
        let client = &mut self.all[key.0 as usize];
        let due = match client.stage {
            Stage::Over => 0,
            Stage::Fresh => client.since + ticks(rules.client.stale_close_delay),
            Stage::Connected => {
                let expiry = connect::expiry(client, rules, tick);
                let ping = Some(client.ping_at).filter(|&at| at != 0);
                expiry.into_iter().chain(ping).min().unwrap_or(0)
            }
        };
        let due = if due == 0 { 0 } else { due.max(tick + 1) };
        dues.set(key.0, client.due, due);
        client.due = due;
        self.arm(ctx);
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
            let inside = push::unsubscribe(&channel, 2500, "insufficient state");
            self.push(ctx, key, &inside);
        }
    }

    /// Somebody has come to a channel or left it.
    pub(super) fn presence(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        event: &PresenceEvent,
    ) {
        if !rules.options_of(&event.topic).join_leave {
            return;
        }
        let beside = subscribe::beside(&event.topic);
        if ctx.subscriber_count(&beside) == 0 {
            return;
        }
        let what = if event.has_joined { "join" } else { "leave" };
        let info = client_info(&event.info, event.id);
        let inside = push::join_leave(&event.topic, what, &info);
        // Its name is a good one.
        let _ = ctx.publish(&beside, Message::text(&inside));
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

impl Client {
    /// What the client says goes on waiting.
    fn keep_waiting(&mut self, rest: &[u8]) {
        if let Some(waiting) = &mut self.rare().waiting {
            waiting.rest.extend_from_slice(rest);
        }
    }
}

/// How all that clients of the protocol say of themselves begins; see [`of_stranger`].
const OF_CLIENT: &str = "{\"client\":\"";

/// What a subscriber without the protocol says of itself, so that it is not taken for a client: a
/// space in front of an object changes nothing but that.
pub(super) fn of_stranger(mut info: Vec<u8>) -> Vec<u8> {
    if info.starts_with(OF_CLIENT.as_bytes()) {
        info.insert(0, b' ');
    }
    info
}

/// Who is in a channel, as clients are told: that of a client of the protocol, or what is known of
/// another subscriber.
pub(super) fn client_info(info: &[u8], id: ConnectionId) -> String {
    let text = str::from_utf8(info).unwrap_or_default();
    if text.starts_with(OF_CLIENT) {
        return text.into();
    }
    let info = match is_json(info) {
        _ if info.is_empty() => String::new(),
        true => json::one_line(text.trim_ascii()),
        false => super::raw::line(&String::from_utf8_lossy(info)),
    };
    Object::new()
        .always_text("client", &id.to_string())
        .always_text("user", "")
        .json("conn_info", &info)
        .end()
}

/// What the query of a request asks for.
#[derive(Default)]
struct Query {
    is_protobuf: bool,
    has_frame_pings: bool,
    connect: Option<Vec<u8>>,
}

impl Query {
    fn of(request: &Request<'_>) -> Self {
        let mut asked = Self::default();
        let query = request.query().unwrap_or_default();
        for pair in query.split(|&byte| byte == b'&') {
            let mut parts = pair.splitn(2, |&byte| byte == b'=');
            let name = parts.next().unwrap_or_default();
            let value = parts.next().unwrap_or_default();
            match name {
                b"format" | b"cf_protocol" => asked.is_protobuf |= value == b"protobuf",
                b"cf_ws_frame_ping_pong" => asked.has_frame_pings |= value == b"true",
                b"cf_connect" => {
                    let spaced: Vec<u8> = value
                        .iter()
                        .map(|&byte| if byte == b'+' { b' ' } else { byte })
                        .collect();
                    // What cannot be decoded is no JSON either.
                    let decoded = super::route::percent_decode(&spaced);
                    asked.connect = Some(decoded.unwrap_or_default().into_owned());
                }
                _ => {}
            }
        }
        asked
    }

    fn connect_request(&self) -> Result<Option<command::Connect>, Response> {
        let Some(json) = &self.connect else {
            return Ok(None);
        };
        let connect = command::connect_request(json).map_err(|_| bad_request())?;
        Ok(Some(connect))
    }
}

fn bad_request() -> Response {
    Response::new(400).text("The connect request is no JSON object of the protocol.\n")
}

/// The fields of a request that the hooks want.
fn headers(hooks: &dyn Hooks, request: &Request<'_>) -> Box<[(Box<str>, Box<str>)]> {
    let wanted = hooks.headers().iter().filter_map(|name| {
        let value = str::from_utf8(request.header(name)?).ok()?;
        Some((name.as_str().into(), value.into()))
    });
    wanted.collect()
}
