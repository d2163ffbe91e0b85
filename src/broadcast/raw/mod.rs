//! Topics without a protocol of their own: the path names the topic, a message is what was
//! published.
//!
//! ```text
//! request ─┬▶ wish ─▶ seat ─▶ past ─▶ header, events, or as it is
//!          └▶ flood ─▶ post
//! ```

mod company;
mod events;
mod flood;
mod header;
mod past;
mod post;
mod seat;
mod wish;

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;

use stentor::protocol::http::{Request, Response};
use stentor::topic::TopicTable;
use stentor::{
    Accept, CloseCode, Context, Form, Lost, Message, Output, PresenceEvent, Publication,
    PublishError,
};

pub(super) use self::company::Listed;
use self::flood::Buckets;
pub(super) use self::header::{line, lost};
use self::past::Past;
pub(super) use self::seat::SeatId;
pub(super) use self::seat::WITH_TOPIC;
use self::seat::{Hearing, Seat, Seats, Speaking};
use self::wish::Wish;
use super::{Place, Rules, client, uncached, with};

/// What is asked of a topic by its path.
#[derive(Debug, Default)]
pub(super) struct Raw {
    seats: Seats,
    jitter: RandomState,
    /// What the connection that is about to open asked for.
    pending: Option<Pending>,
    buckets: Buckets,
    posts_refused: u64,
}

#[derive(Debug)]
struct Pending {
    seat: Seat,
    wish: Wish,
}

/// A name was judged before: there are `max_topics` others, or too many patterns.
const TOO_MANY_TOPICS: (CloseCode, &str) =
    (CloseCode::TRY_AGAIN_LATER, "there are too many topics");

impl Raw {
    // ---- subscribing ----

    /// Accepts a WebSocket for a topic, if it may have it.
    pub(super) fn upgrade(
        &mut self,
        ctx: &Context<'_, Place>,
        rules: &Rules,
        topic: &str,
        request: &Request<'_>,
    ) -> Result<Accept<Place>, Response> {
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
        let form = self.reserve(ctx, rules, topic, wish, hearing)?;
        let accept = Accept::new(Place::Nowhere).form(form);
        Ok(match subprotocol {
            Some(subprotocol) => accept.subprotocol(subprotocol),
            None => accept,
        })
    }

    /// Makes a stream of events of the answer to a request, if it may have the topic.
    pub(super) fn stream(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        topic: &str,
        request: &Request<'_>,
    ) -> Result<Response, Response> {
        let mut wish = Wish::of(request)?;
        if !TopicTable::is_pattern(topic) {
            // Of a pattern no event has an id.
            wish = wish.after_last_event(request);
        }
        let form = self.reserve(ctx, rules, topic, wish, Hearing::Events)?;
        ctx.stream(Place::Nowhere, form);
        let head = [
            ("Content-Type", events::CONTENT_TYPE),
            // nginx would collect what should go out at once.
            ("X-Accel-Buffering", "no"),
        ];
        Ok(uncached(with(Response::new(200), &head)))
    }

    /// Notes what the connection that opens next has asked for; answers how it hears.
    fn reserve(
        &mut self,
        ctx: &Context<'_, Place>,
        rules: &Rules,
        topic: &str,
        wish: Wish,
        hearing: Hearing,
    ) -> Result<Form, Response> {
        if !rules.may_subscribe(topic) {
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
            false if rules.may_publish(topic) => Speaking::Published,
            false => Speaking::Forbidden,
        };
        let seat = Seat {
            topic: topic.into(),
            hearing,
            speaking,
        };
        let form = seat.form();
        self.pending = Some(Pending { seat, wish });
        Ok(form)
    }

    /// The connection that was accepted last is open; answers whether it was one of here.
    pub(super) fn open(&mut self, ctx: &mut Context<'_, Place>, rules: &Rules) -> bool {
        let Some(Pending { seat, mut wish }) = self.pending.take() else {
            return false;
        };
        wish.info = client::of_stranger(wish.info);
        let (id, seat) = self.seats.take(seat);
        *ctx.state() = Place::Raw(id);
        if ctx.subscribe_as(&seat.topic, &wish.info).is_err() {
            let (code, reason) = TOO_MANY_TOPICS;
            let _ = ctx.close(code, reason);
            return true;
        }
        if seat.hearing == Hearing::Plain && wish == Wish::default() {
            return true;
        }
        // What is published in the same turn from here on comes behind it, and only there.
        let past = if seat.speaking == Speaking::ToPattern {
            Past::default()
        } else {
            Past::of(ctx, &seat.topic, &wish, rules.most_past)
        };
        self.greet(ctx, &seat, &past);
        for publication in &past.publications {
            ctx.send_publication(&seat.topic, publication);
        }
        true
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

    // ---- what comes and goes ----

    pub(super) fn message(&self, ctx: &mut Context<'_, Place>, seat: SeatId, message: Message<'_>) {
        let seat = self.seats.get(seat);
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

    pub(super) fn lost(&self, ctx: &mut Context<'_, Place>, seat: SeatId, lost: Lost) {
        match self.seats.get(seat).hearing {
            Hearing::Plain => {} // It has no place for it; it is counted.
            Hearing::Header | Hearing::Presence => {
                ctx.send(Message::text(&header::lost(lost.total())));
            }
            Hearing::Events => {
                ctx.write(&events::lost(lost.total()));
            }
        }
    }

    pub(super) fn presence(&self, ctx: &mut Context<'_, Place>, event: &PresenceEvent) {
        company::tell(ctx, event, |place| match place {
            Place::Raw(seat) => self.seats.get(seat).hearing == Hearing::Presence,
            _ => false,
        });
    }

    pub(super) fn close(&mut self, seat: SeatId) {
        self.seats.leave(seat);
    }

    // ---- posting ----

    /// How many messages were too many of their network.
    pub(super) fn posts_refused(&self) -> u64 {
        self.posts_refused
    }

    pub(super) fn post(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        topic: &str,
        request: &Request<'_>,
    ) -> Result<Response, Response> {
        if !rules.may_publish(topic) {
            return Err(Response::new(403).text("Publishing is not allowed here.\n"));
        }
        if TopicTable::is_pattern(topic) {
            let problem = PublishError::Pattern.to_string();
            return Err(post::bad(&problem));
        }
        self.check_rate(ctx, rules)?;
        post::publish(ctx, topic, request)
    }

    /// Refuses what is too much for a network; a unix socket is of none.
    fn check_rate(&mut self, ctx: &Context<'_, Place>, rules: &Rules) -> Result<(), Response> {
        if let Some(rate) = NonZeroU32::new(rules.max_posts_per_ip)
            && let Some(network) = ctx.peer_network()
            && !self.buckets.take(network, rate, ctx.now())
        {
            self.posts_refused += 1;
            return Err(post::too_many());
        }
        Ok(())
    }
}

/// Writes a publication in a form of this module.
pub(super) fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
    match form {
        seat::AS_EVENTS => events::encode(publication, true, output),
        seat::AS_EVENTS_OF_PATTERN => events::encode(publication, false, output),
        _ => header::encode(publication, form == seat::WITH_TOPIC, output),
    }
}

/// Whether the request is for a stream of events.
pub(super) fn wants_events(request: &Request<'_>) -> bool {
    request.tokens("accept").any(|accepted| {
        let essence = accepted.split(|&byte| byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        essence.eq_ignore_ascii_case(events::CONTENT_TYPE.as_bytes())
    })
}
