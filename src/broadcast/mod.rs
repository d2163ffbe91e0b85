//! The broadcast application: what a client sends to a topic, everyone in the topic hears.
//!
//! The path names the topic: `/t/NAME`, and `/` for the topic `lobby`. It is a WebSocket, a stream
//! of events, a place to post to, and a page for browsers. Browsers find the console at `/`. An ordinary user of the library:
//! whatever is done here, an embedder can do.
//!
//! ```text
//! request ─▶ route ─┬▶ rules ─▶ raw: a topic as it is
//!                   └▶ console, page, overview, metrics
//! ```

mod api;
mod auth;
mod beside;
mod channel;
mod client;
mod console;
mod exchange;
pub mod hooks;
mod metrics;
mod overview;
mod page;
mod raw;
mod route;
mod rules;

use stentor::protocol::http::{Request, Response};
use stentor::topic::NamespaceId;
use stentor::{
    Accept, Cause, CloseCode, Closed, Context, Form, Handler, Lost, Message, Output, PresenceEvent,
    Publication, TopicOptions,
};

pub use self::api::ApiOptions;
use self::auth::Tokens;
pub use self::auth::{TokenRules, TokenSetupError};
pub use self::channel::{ChannelOptions, DataFormat, Permission, RecoveryMode};
pub use self::client::{ClientKey, ClientOptions};
use self::client::{Clients, World};
pub use self::console::ConsoleOptions;
use self::console::{Console, Standing};
use self::exchange::Exchange;
use self::hooks::{Hooks, HttpHookStats, HttpHooks};
use self::metrics::ClientNumbers;
use self::overview::Overview;
use self::page::Pages;
use self::raw::{Raw, SeatId, wants_events};
use self::route::{LOBBY, OWN, Refusal, Route};
pub use self::rules::{Access, Origins, Rules, Who};

/// Topics by path and by protocol.
pub struct Broadcast {
    rules: Rules,
    tokens: Tokens,
    subscription_tokens: Option<Tokens>,
    hooks: Box<dyn Hooks>,
    hook_stats: Option<HttpHookStats>,
    pages: Pages,
    overview: Overview,
    raw: Raw,
    clients: Clients,
    exchange: Exchange,
    console: Console,
}

/// The timer of the clients of the protocol.
const CLIENT_TIMER: u64 = 1;

/// What is kept of a connection: which face of the application it sees, and its number there.
#[derive(Clone, Copy, Debug, Default)]
pub enum Place {
    /// It is being accepted.
    #[default]
    Nowhere,
    /// It hears a topic as it is.
    Raw(SeatId),
    /// It speaks the protocol.
    Client(ClientKey),
    /// It watches the console.
    Watcher(Standing),
}

/// The topics of the application's own: a pattern that they match, and what holds for them.
pub fn own_topics() -> (&'static str, TopicOptions) {
    beside::own_topics()
}

impl Broadcast {
    /// Makes the application with these rules.
    ///
    /// # Errors
    ///
    /// A key for tokens cannot be used or had.
    pub fn new(rules: Rules) -> Result<Self, TokenSetupError> {
        let own = rules.subscription_tokens.as_ref();
        Ok(Self {
            tokens: Tokens::new(&rules.tokens)?,
            subscription_tokens: own.map(Tokens::new).transpose()?,
            rules,
            hooks: Box::new(()),
            hook_stats: None,
            pages: Pages::default(),
            overview: Overview::default(),
            raw: Raw::default(),
            clients: Clients::default(),
            exchange: Exchange::default(),
            console: Console::default(),
        })
    }

    /// Asks these hooks what clients may do.
    pub fn with_hooks(mut self, hooks: impl Hooks + 'static) -> Self {
        self.hooks = Box::new(hooks);
        self
    }

    /// Asks a backend over HTTP what clients may do.
    pub fn with_http_hooks(mut self, hooks: HttpHooks) -> Self {
        self.hook_stats = Some(hooks.stats());
        self.with_hooks(hooks)
    }

    /// Takes other rules from now on. What is there stays: subscriptions, connections, what is kept.
    ///
    /// The namespaces are still the same ones, in the same order, and so are the listeners. Keys that
    /// are fetched from another place than before are waited for, up to 5 seconds.
    ///
    /// # Errors
    ///
    /// A key for tokens cannot be used or had; then the other rules stay as they were.
    pub fn reload(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: Rules,
    ) -> Result<(), TokenSetupError> {
        match (&mut self.subscription_tokens, &rules.subscription_tokens) {
            (Some(tokens), Some(rules)) => tokens.reload(rules)?,
            (tokens, rules) => *tokens = rules.as_ref().map(Tokens::new).transpose()?,
        }
        self.tokens.reload(&rules.tokens)?;
        let first_admin = self.rules.first_admin;
        self.rules = Rules {
            first_admin,
            ..rules
        };
        let channels = &self.rules.channels;
        let default = channels.get(NamespaceId::DEFAULT);
        ctx.set_options("", default.topic_options());
        for (id, name) in channels.names() {
            ctx.set_options(name, channels.get(id).topic_options());
        }
        Ok(())
    }

    /// The clients, and what they have to do with.
    fn clients(&mut self) -> (&mut Clients, World<'_>) {
        let world = World {
            rules: &self.rules,
            tokens: &self.tokens,
            subscription_tokens: self.subscription_tokens.as_ref().unwrap_or(&self.tokens),
            exchange: &mut self.exchange,
            hooks: &mut *self.hooks,
        };
        (&mut self.clients, world)
    }

    // ---- requests ----

    fn answer(
        &mut self,
        ctx: &mut Context<'_, Place>,
        request: &Request<'_>,
    ) -> Result<Response, Response> {
        let asks_for_page = matches!(request.method(), "GET" | "HEAD") && !wants_events(request);
        let route = self.route(ctx, request, asks_for_page)?;
        let methods: &[&str] = match route {
            Route::Topic(_) | Route::UniSse => &["GET", "HEAD", "POST", "OPTIONS"],
            _ => &["GET", "HEAD", "OPTIONS"],
        };
        match (route, request.method()) {
            (Route::Api(method), _) => {
                self.rules.origins.check(request)?;
                let (clients, exchange) = (&mut self.clients, &mut self.exchange);
                Ok(api::answer(
                    clients,
                    exchange,
                    ctx,
                    &self.rules,
                    method,
                    request,
                ))
            }
            (_, "OPTIONS") => Ok(self.tell_methods(request, methods)),
            (Route::Topic(topic), "POST") => self.post(ctx, &topic, request),
            (Route::Topic(topic), "GET") if wants_events(request) => {
                self.stream(ctx, &topic, request)
            }
            (Route::UniSse, "GET" | "POST") => {
                self.rules.origins.check(request)?;
                let (rules, hooks) = (&self.rules, &*self.hooks);
                self.clients.stream(ctx, rules, hooks, request)
            }
            (Route::Clients | Route::UniWebSocket | Route::UniSse, _) => {
                Err(Response::new(400).text("A WebSocket is served here.\n"))
            }
            (_, method) if !methods.contains(&method) => Err(not_allowed(methods)),
            (Route::Topic(_), _) => Ok(self.pages.topic()),
            (Route::Console, _) => Console::check(&self.rules).map(|()| self.pages.console()),
            (Route::Feed, _) => Err(Console::refuse(&self.rules, request)),
            (Route::Icon, _) => Ok(Response::new(204)),
            (Route::Overview, _) => match self.rules.overview {
                Who::Anyone => Ok(json(self.overview.of(ctx))),
                Who::Nobody => Err(Response::new(403).text("The overview is not open here.\n")),
            },
            (Route::Health, _) => Ok(uncached(Response::new(200).text("ok\n"))),
            (Route::Metrics, _) => Ok(self.metrics(ctx)),
        }
    }

    /// What a request is about, if that is to be had where it came in.
    fn route<'r>(
        &self,
        ctx: &Context<'_, Place>,
        request: &'r Request<'_>,
        asks_for_page: bool,
    ) -> Result<Route<'r>, Response> {
        let route = match Route::of(request.path())? {
            Route::Console if !asks_for_page => Route::Topic(LOBBY.into()),
            route => route,
        };
        let is_for_admins = matches!(
            route,
            Route::Console | Route::Feed | Route::Health | Route::Metrics | Route::Api(_)
        );
        match self.rules.first_admin {
            Some(first) if is_for_admins != (ctx.endpoint() >= Some(first)) => {
                Err(Refusal::NotFound.into())
            }
            _ => Ok(route),
        }
    }

    fn post(
        &mut self,
        ctx: &mut Context<'_, Place>,
        topic: &str,
        request: &Request<'_>,
    ) -> Result<Response, Response> {
        self.rules.origins.check(request)?;
        self.raw.post(ctx, &self.rules, topic, request)
    }

    fn stream(
        &mut self,
        ctx: &mut Context<'_, Place>,
        topic: &str,
        request: &Request<'_>,
    ) -> Result<Response, Response> {
        self.rules.origins.check(request)?;
        self.raw.stream(ctx, &self.rules, topic, request)
    }

    fn metrics(&self, ctx: &Context<'_, Place>) -> Response {
        let tokens = [Some(&self.tokens), self.subscription_tokens.as_ref()];
        let clients = ClientNumbers {
            clients: self.clients.count(),
            users: self.clients.user_count(),
            counts: self.clients.counts().clone(),
            keys: tokens
                .into_iter()
                .flatten()
                .filter_map(Tokens::key_counts)
                .collect(),
            hooks: self.hook_stats.as_ref().map(HttpHookStats::counts),
            posts_refused: self.raw.posts_refused(),
        };
        let page = metrics::expose(ctx.stats(), &ctx.gauges(), clients);
        let response = Response::new(200).body(page);
        uncached(with(response, &[("Content-Type", metrics::CONTENT_TYPE)]))
    }

    fn tell_methods(&self, request: &Request<'_>, methods: &[&str]) -> Response {
        let response = with(Response::new(204), &[("Allow", &methods.join(", "))]);
        if !self.rules.origins.admits(request) {
            return response;
        }
        // What a page of another origin may send (Fetch §3.3.3).
        let headers = "Content-Type, Idempotency-Key, X-Stentor-Tag, Last-Event-ID";
        let preflight = [
            ("Access-Control-Allow-Methods", "GET, HEAD, POST"),
            ("Access-Control-Allow-Headers", headers),
            ("Access-Control-Max-Age", "600"),
        ];
        with(response, &preflight)
    }
}

impl Handler for Broadcast {
    type State = Place;

    fn upgrade(
        &mut self,
        ctx: &mut Context<'_, Place>,
        request: &Request<'_>,
    ) -> Result<Accept<Place>, Response> {
        let route = self.route(ctx, request, false)?;
        self.rules.origins.check(request)?;
        match route {
            Route::Topic(topic) => self.raw.upgrade(ctx, &self.rules, &topic, request),
            Route::Clients | Route::UniWebSocket => {
                let is_uni = route == Route::UniWebSocket;
                self.clients
                    .upgrade(&self.rules, &*self.hooks, request, is_uni)
            }
            Route::Feed => Console::upgrade(&self.rules, request),
            _ => Err(Response::not_found()),
        }
    }

    fn open(&mut self, ctx: &mut Context<'_, Place>) {
        if let Place::Watcher(standing) = *ctx.state() {
            self.console.open(ctx, standing);
        } else if !self.raw.open(ctx, &self.rules) {
            let (clients, mut world) = self.clients();
            clients.open(ctx, &mut world);
        }
    }

    fn message(&mut self, ctx: &mut Context<'_, Place>, message: Message<'_>) {
        match *ctx.state() {
            Place::Nowhere => {}
            Place::Raw(seat) => self.raw.message(ctx, seat, message),
            Place::Client(key) => {
                let (clients, mut world) = self.clients();
                clients.message(ctx, &mut world, key, message);
            }
            Place::Watcher(standing) => self.console.message(ctx, &self.rules, standing, message),
        }
    }

    fn drain(&mut self, ctx: &mut Context<'_, Place>) {
        if let Place::Client(_) = *ctx.state() {
            let (clients, mut world) = self.clients();
            clients.drain(ctx, &mut world);
        }
    }

    fn lost(&mut self, ctx: &mut Context<'_, Place>, lost: Lost) {
        match *ctx.state() {
            Place::Nowhere => {}
            Place::Raw(seat) => self.raw.lost(ctx, seat, lost),
            Place::Client(key) => self.clients.lost(ctx, &self.rules, key, lost),
            Place::Watcher(_) => Console::lost(ctx, lost),
        }
    }

    fn presence(&mut self, ctx: &mut Context<'_, Place>, event: &PresenceEvent) {
        self.raw.presence(ctx, event);
        Clients::presence(ctx, &self.rules, event);
    }

    fn wake(&mut self, ctx: &mut Context<'_, Place>) {
        let (clients, mut world) = self.clients();
        clients.wake(ctx, &mut world);
    }

    fn timer(&mut self, ctx: &mut Context<'_, Place>, token: u64) {
        match token {
            CLIENT_TIMER => {
                let (clients, mut world) = self.clients();
                clients.timer(ctx, &mut world);
            }
            console::TICK => self.console.tick(ctx),
            _ => {}
        }
    }

    fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        if client::is_own(form) {
            client::encode(form, publication, output);
        } else {
            raw::encode(form, publication, output);
        }
    }

    fn farewell(
        form: Form,
        cause: Cause,
        output: &mut Output<'_>,
    ) -> Option<(CloseCode, &'static str)> {
        client::is_own(form).then(|| client::farewell(form, cause, output))?
    }

    fn close(&mut self, ctx: &mut Context<'_, Place>, _: Closed<'_>) {
        match *ctx.state() {
            Place::Nowhere => {}
            Place::Raw(seat) => self.raw.close(seat),
            Place::Client(key) => {
                let (clients, mut world) = self.clients();
                clients.close(&mut world, key);
            }
            Place::Watcher(_) => self.console.close(ctx.id()),
        }
    }

    fn request(&mut self, ctx: &mut Context<'_, Place>, request: &Request<'_>) -> Response {
        let (Ok(response) | Err(response)) = self.answer(ctx, request);
        let allowed = self.rules.origins.allow(request, response);
        allowed.expect("an origin that is listed can stand in a header")
    }
}

impl std::fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broadcast")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

fn json(text: &str) -> Response {
    let response = Response::new(200).body(text);
    uncached(with(response, &[("Content-Type", "application/json")]))
}

/// It is another one the next time.
fn uncached(response: Response) -> Response {
    with(response, &[("Cache-Control", "no-store")])
}

fn not_allowed(methods: &[&str]) -> Response {
    Response::method_not_allowed(methods).expect("they are tokens")
}

fn with(response: Response, fields: &[(&str, &str)]) -> Response {
    let mut fields = fields.iter();
    let response = fields.try_fold(response, |response, (name, value)| {
        response.header(name, value)
    });
    response.expect("the program's own fields can stand in a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_keeps_one_word() {
        assert_eq!(size_of::<Option<Place>>(), 8);
    }
}
