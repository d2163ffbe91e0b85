//! The broadcast application: what a client sends to a topic, everyone in the topic hears.
//!
//! The path names the topic: `/t/NAME`, and `/` for the topic `lobby`. It is a WebSocket, a stream
//! of events, a place to post to, and a page for browsers. An ordinary user of the library:
//! whatever is done here, an embedder can do.
//!
//! ```text
//! request ─▶ route ─┬▶ rules, wish ─▶ seat ─▶ past ─▶ header, events, or as it is
//!                   ├▶ rules, post
//!                   └▶ page, overview, metrics
//! ```

mod company;
mod events;
mod header;
mod metrics;
mod overview;
mod page;
mod past;
mod post;
mod route;
mod rules;
mod seat;
mod wish;

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use stentor::protocol::http::{Request, Response};
use stentor::topic::TopicTable;
use stentor::{
    Accept, CloseCode, Closed, Context, Form, Handler, Lost, Message, Output, PresenceEvent,
    Publication, PublishError,
};

use self::company::Company;
pub(crate) use self::company::own_topics;
use self::overview::Overview;
use self::page::Page;
use self::past::Past;
use self::route::Route;
pub(crate) use self::rules::{Access, Origins, Rules, Who};
use self::seat::{Hearing, Place, Seat, Seats, Speaking};
use self::wish::Wish;

/// Topics by path, with a page to try them.
#[derive(Debug, Default)]
pub(crate) struct Broadcast {
    rules: Rules,
    page: Page,
    overview: Overview,
    seats: Seats,
    company: Company,
    jitter: RandomState,
}

/// A name was judged before: there are `max_topics` others, or too many patterns.
const TOO_MANY_TOPICS: (CloseCode, &str) =
    (CloseCode::TRY_AGAIN_LATER, "there are too many topics");

impl Broadcast {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    // ---- subscribing ----

    /// Where a subscriber comes to, if it may.
    fn place(
        &mut self,
        ctx: &Context<'_, Place>,
        topic: &str,
        wish: Wish,
        hearing: Hearing,
    ) -> Result<Place, Response> {
        if !self.rules.may_subscribe(topic) {
            return Err(Response::new(403).text("Subscribing is not allowed here.\n"));
        }
        let is_pattern = TopicTable::is_pattern(topic);
        if is_pattern && wish.looks_back() {
            let problem = "a pattern has no history; name one topic";
            return Err(wish::alone("history", problem).into());
        }
        if hearing == Hearing::Presence && (is_pattern || !ctx.options_of(topic).presence) {
            let problem = "it is not kept who is in this topic";
            return Err(wish::alone("presence", problem).into());
        }
        let speaking = match is_pattern {
            true => Speaking::ToPattern,
            false if self.rules.may_publish(topic) => Speaking::Published,
            false => Speaking::Forbidden,
        };
        let seat = self.seats.take(Seat {
            topic: topic.into(),
            hearing,
            speaking,
        });
        let wish = Some(wish)
            .filter(|wish| *wish != Wish::default())
            .map(Box::new);
        Ok(Place { seat, wish })
    }

    /// Tells a subscriber where it is.
    fn greet(&self, ctx: &mut Context<'_, Place>, seat: &Seat, past: &Past) {
        let position = past.position.as_ref();
        match seat.hearing {
            Hearing::Plain => {}
            Hearing::Header | Hearing::Presence => {
                let subscribed = header::subscribed(&seat.topic, position, past.recovered);
                ctx.send(Message::text(&subscribed));
            }
            Hearing::Events => {
                // After a restart not everybody comes back at the same moment.
                let retry = 1000 + self.jitter.hash_one(ctx.id()) % 2001;
                ctx.write(&events::retry(retry));
                if past.recovered == Some(false) {
                    ctx.write(&events::reset(position));
                } else if let Some(position) = position {
                    ctx.write(&events::position(position));
                }
            }
        }
    }

    // ---- requests ----

    fn answer(
        &mut self,
        ctx: &mut Context<'_, Place>,
        request: &Request<'_>,
    ) -> Result<Response, Response> {
        let route = self.route(ctx, request)?;
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
            (Route::Topic(_), _) => Ok(self.page.response()),
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
    ) -> Result<Route<'r>, Response> {
        let route = Route::of(request.path())?;
        let is_for_admins = matches!(route, Route::Health | Route::Metrics);
        match self.rules.first_admin {
            Some(first) if is_for_admins != (ctx.endpoint() >= Some(first)) => {
                Err(Response::not_found())
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
        if !self.rules.may_publish(topic) {
            return Err(Response::new(403).text("Publishing is not allowed here.\n"));
        }
        if TopicTable::is_pattern(topic) {
            let problem = PublishError::Pattern.to_string();
            return Err(post::bad(&problem));
        }
        post::publish(ctx, topic, request)
    }

    fn stream(
        &mut self,
        ctx: &mut Context<'_, Place>,
        topic: &str,
        request: &Request<'_>,
    ) -> Result<Response, Response> {
        self.rules.origins.check(request)?;
        let mut wish = Wish::of(request)?;
        if !TopicTable::is_pattern(topic) {
            // Of a pattern no event has an id.
            wish = wish.after_last_event(request);
        }
        let place = self.place(ctx, topic, wish, Hearing::Events)?;
        let form = place.seat.form();
        ctx.stream(place, form);
        let head = [
            ("Content-Type", events::CONTENT_TYPE),
            // nginx would collect what should go out at once.
            ("X-Accel-Buffering", "no"),
        ];
        Ok(uncached(with(Response::new(200), &head)))
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
        let Route::Topic(topic) = self.route(ctx, request)? else {
            return Err(Response::not_found());
        };
        self.rules.origins.check(request)?;
        let wish = Wish::of(request)?;
        let subprotocol = request.choose_subprotocol(&[header::SUBPROTOCOL]);
        let hearing = match (wish.header || subprotocol.is_some(), wish.presence) {
            (false, true) => {
                return Err(wish::alone("presence", "it goes with header=1").into());
            }
            (false, false) => Hearing::Plain,
            (true, false) => Hearing::Header,
            (true, true) => Hearing::Presence,
        };
        let place = self.place(ctx, &topic, wish, hearing)?;
        let form = place.seat.form();
        let accept = Accept::new(place).form(form);
        Ok(match subprotocol {
            Some(subprotocol) => accept.subprotocol(subprotocol),
            None => accept,
        })
    }

    fn open(&mut self, ctx: &mut Context<'_, Place>) {
        let wish = ctx.state().wish.take();
        let seat = Rc::clone(&ctx.state().seat);
        let wish = wish.as_deref();
        let info = wish.map_or(&[][..], |wish| &wish.info);
        if ctx.subscribe_as(&seat.topic, info).is_err() {
            let (code, reason) = TOO_MANY_TOPICS;
            let _ = ctx.close(code, reason);
            return;
        }
        if seat.hearing == Hearing::Plain && wish.is_none() {
            return;
        }
        // What is published in the same turn from here on comes behind it, and only there.
        let nothing = Wish::default();
        let past = if seat.speaking == Speaking::ToPattern {
            Past::default()
        } else {
            let wish = wish.unwrap_or(&nothing);
            Past::of(ctx, &seat.topic, wish, self.rules.most_past)
        };
        self.greet(ctx, &seat, &past);
        for publication in &past.publications {
            ctx.send_publication(&seat.topic, publication);
        }
    }

    fn message(&mut self, ctx: &mut Context<'_, Place>, message: Message<'_>) {
        let seat = Rc::clone(&ctx.state().seat);
        let refusal = match seat.speaking {
            Speaking::Published => {
                ctx.publish(&seat.topic, message);
                return;
            }
            Speaking::ToPattern => "a pattern cannot be published to",
            Speaking::Forbidden => "publishing is not allowed here",
        };
        let _ = ctx.close(CloseCode::POLICY_VIOLATION, refusal);
    }

    fn lost(&mut self, ctx: &mut Context<'_, Place>, lost: Lost) {
        match ctx.state().seat.hearing {
            Hearing::Plain => {} // It has no place for it; it is counted.
            Hearing::Header | Hearing::Presence => {
                ctx.send(Message::text(&header::lost(lost.total())));
            }
            Hearing::Events => {
                ctx.write(&events::lost(lost.total()));
            }
        }
    }

    fn presence(&mut self, ctx: &mut Context<'_, Place>, event: &PresenceEvent) {
        self.company.tell(ctx, event);
    }

    fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        match form {
            seat::AS_EVENTS => events::encode(publication, true, output),
            seat::AS_EVENTS_OF_PATTERN => events::encode(publication, false, output),
            _ => header::encode(publication, form == seat::WITH_TOPIC, output),
        }
    }

    fn close(&mut self, ctx: &mut Context<'_, Place>, _: Closed<'_>) {
        let place = std::mem::take(ctx.state());
        self.seats.leave(place.seat);
    }

    fn request(&mut self, ctx: &mut Context<'_, Place>, request: &Request<'_>) -> Response {
        let (Ok(response) | Err(response)) = self.answer(ctx, request);
        let allowed = self.rules.origins.allow(request, response);
        allowed.expect("an origin that is listed can stand in a header")
    }
}

fn wants_events(request: &Request<'_>) -> bool {
    request.tokens("accept").any(|accepted| {
        let essence = accepted.split(|&byte| byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        essence.eq_ignore_ascii_case(events::CONTENT_TYPE.as_bytes())
    })
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
