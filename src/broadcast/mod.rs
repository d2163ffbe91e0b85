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
use stentor::{
    Accept, Closed, Context, Form, Handler, Lost, Message, Output, PresenceEvent, Publication,
    TopicOptions,
};

pub use self::api::ApiOptions;
pub use self::auth::{TokenRules, TokenSetupError};
pub use self::channel::{ChannelOptions, DataFormat, Permission, RecoveryMode};
pub use self::client::ClientOptions;
pub use self::console::ConsoleOptions;
use self::console::{Console, Standing};
use self::overview::Overview;
use self::page::Pages;
use self::raw::{Raw, SeatId, wants_events};
use self::route::{LOBBY, OWN, Refusal, Route};
pub use self::rules::{Access, Origins, Rules, Who};

/// Topics by path, with a page to try them.
#[derive(Debug, Default)]
pub struct Broadcast {
    rules: Rules,
    pages: Pages,
    overview: Overview,
    raw: Raw,
    console: Console,
}

/// What is kept of a connection: which face of the application it sees, and its number there.
#[derive(Clone, Copy, Debug, Default)]
pub enum Place {
    /// It is being accepted.
    #[default]
    Nowhere,
    /// It hears a topic as it is.
    Raw(SeatId),
    /// It watches the console.
    Watcher(Standing),
}

/// The topics of the application's own: a pattern that they match, and what holds for them.
pub fn own_topics() -> (&'static str, TopicOptions) {
    raw::own_topics()
}

impl Broadcast {
    /// Makes the application with these rules.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
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
            Route::Topic(_) => &["GET", "HEAD", "POST", "OPTIONS"],
            _ => &["GET", "HEAD", "OPTIONS"],
        };
        match (route, request.method()) {
            (_, "OPTIONS") => Ok(self.tell_methods(methods)),
            (Route::Topic(topic), "POST") => self.post(ctx, &topic, request),
            (Route::Topic(topic), "GET") if wants_events(request) => {
                self.stream(ctx, &topic, request)
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
            (Route::Metrics, _) => Ok(metrics(ctx)),
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
            Route::Console | Route::Feed | Route::Health | Route::Metrics
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
        Raw::post(ctx, &self.rules, topic, request)
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

    fn tell_methods(&self, methods: &[&str]) -> Response {
        let response = with(Response::new(204), &[("Allow", &methods.join(", "))]);
        if !self.rules.origins.is_some() {
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
            Route::Feed => Console::upgrade(&self.rules, request),
            _ => Err(Response::not_found()),
        }
    }

    fn open(&mut self, ctx: &mut Context<'_, Place>) {
        match *ctx.state() {
            Place::Watcher(standing) => self.console.open(ctx, standing),
            _ => {
                self.raw.open(ctx, &self.rules);
            }
        }
    }

    fn message(&mut self, ctx: &mut Context<'_, Place>, message: Message<'_>) {
        match *ctx.state() {
            Place::Nowhere => {}
            Place::Raw(seat) => self.raw.message(ctx, seat, message),
            Place::Watcher(standing) => self.console.message(ctx, &self.rules, standing, message),
        }
    }

    fn lost(&mut self, ctx: &mut Context<'_, Place>, lost: Lost) {
        match *ctx.state() {
            Place::Nowhere => {}
            Place::Raw(seat) => self.raw.lost(ctx, seat, lost),
            Place::Watcher(_) => Console::lost(ctx, lost),
        }
    }

    fn timer(&mut self, ctx: &mut Context<'_, Place>, token: u64) {
        if token == console::TICK {
            self.console.tick(ctx);
        }
    }

    fn presence(&mut self, ctx: &mut Context<'_, Place>, event: &PresenceEvent) {
        self.raw.presence(ctx, event);
    }

    fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        raw::encode(form, publication, output);
    }

    fn close(&mut self, ctx: &mut Context<'_, Place>, _: Closed<'_>) {
        match *ctx.state() {
            Place::Nowhere => {}
            Place::Raw(seat) => self.raw.close(seat),
            Place::Watcher(_) => self.console.close(ctx.id()),
        }
    }

    fn request(&mut self, ctx: &mut Context<'_, Place>, request: &Request<'_>) -> Response {
        let (Ok(response) | Err(response)) = self.answer(ctx, request);
        let allowed = self.rules.origins.allow(request, response);
        allowed.expect("an origin that is listed can stand in a header")
    }
}

fn metrics(ctx: &Context<'_, Place>) -> Response {
    let page = metrics::expose(ctx.stats(), &ctx.gauges());
    let response = Response::new(200).body(page);
    uncached(with(response, &[("Content-Type", metrics::CONTENT_TYPE)]))
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
