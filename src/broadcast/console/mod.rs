//! The console: what the server does at this moment, for those who run it.
//!
//! A page at `/`, and a WebSocket at `/console/feed` on which it gets its numbers once a second and
//! sends its commands. The numbers are gathered once for all who watch, and only while somebody
//! does.
//!
//! ```text
//! key ─▶ door ─▶ command ─┬▶ tail, publish
//!                         └▶ answer: presence, history
//! timer ─▶ numbers ─▶ everyone who watches
//! ```

mod answer;
mod command;
mod door;
mod numbers;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde::Serialize;
use stentor::protocol::http::{Request, Response};
use stentor::topic::TopicTable;
use stentor::{Accept, CloseCode, ConnectionId, Context, Lost, Message, SlowPolicy, TopicOptions};

use self::command::{Command, MOST_COMMAND, Word};
pub(super) use self::door::Standing;
use super::raw::{WITH_TOPIC, line, lost};
use super::{OWN, Place, Rules};

/// Who sees the console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleOptions {
    /// It is served.
    pub enabled: bool,
    /// What opens it, beside the API key.
    pub admin_token: Option<String>,
}

/// The token of the timer: whoever else sets timers takes others.
pub(super) const TICK: u64 = u64::from_be_bytes(*b"@console");

/// Between two looks at the numbers: what an eye follows, and a walk over all connections that
/// costs nothing beside what they do in that time.
const PERIOD: Duration = Duration::from_secs(1);

/// The topic of the numbers. No client can know its name: a pattern that ends in it, such as
/// `*.feed` would be, could be subscribed to.
static FEED: LazyLock<String> = LazyLock::new(|| {
    let random = RandomState::new(); // Its keys are random.
    let (high, low) = (random.hash_one(0), random.hash_one(1));
    format!("@console.{high:016x}{low:016x}")
});

/// From 4000 on codes are private (RFC 6455 §7.4.2); this one is read as the status 401.
const WRONG_KEY: CloseCode = CloseCode::new(4401);

/// The topics of this module: a pattern that they match, and what holds for them. Of numbers only
/// the latest are of use.
pub(super) fn own_topics() -> (&'static str, TopicOptions) {
    let options = TopicOptions {
        slow: SlowPolicy::Latest,
        ..TopicOptions::default()
    };
    ("@console.*", options)
}

/// Those who watch.
#[derive(Debug, Default)]
pub(super) struct Console {
    /// What they listen to beside the numbers.
    tails: HashMap<ConnectionId, Box<str>>,
    /// When the first one came: the numbers are dated from then on.
    began: Option<Instant>,
    is_ticking: bool,
    wrong_keys: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Told<'a> {
    /// A key is wanted.
    Locked(bool),
    Welcome(Welcome),
    Tail(Option<&'a str>),
    Published(Published<'a>),
    Error(&'a str),
}

#[derive(Serialize)]
struct Welcome {
    version: &'static str,
    /// Whether the rules for clients do not apply.
    admin: bool,
}

#[derive(Serialize)]
struct Published<'a> {
    topic: &'a str,
    subscribers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl Console {
    /// Whether there is a page to show; otherwise what is said instead.
    pub(super) fn check(rules: &Rules) -> Result<(), Response> {
        door::check(rules)
    }

    /// What is answered to a request for the feed that is none for a WebSocket.
    pub(super) fn refuse(rules: &Rules, request: &Request<'_>) -> Response {
        match door::standing(rules, request) {
            Ok(_) => Response::new(426).text("The feed of the console is a WebSocket.\n"),
            Err(refusal) => refusal,
        }
    }

    /// Accepts one who wants to watch.
    pub(super) fn upgrade(rules: &Rules, request: &Request<'_>) -> Result<Accept<Place>, Response> {
        let standing = door::standing(rules, request)?;
        Ok(Accept::new(Place::Watcher(standing)).form(WITH_TOPIC))
    }

    pub(super) fn open(&mut self, ctx: &mut Context<'_, Place>, standing: Standing) {
        match standing {
            Standing::Locked => tell(ctx, &Told::Locked(true)),
            _ => self.admit(ctx, standing),
        }
    }

    /// From here on the numbers come.
    fn admit(&mut self, ctx: &mut Context<'_, Place>, standing: Standing) {
        *ctx.state() = Place::Watcher(standing);
        let welcome = Welcome {
            version: env!("CARGO_PKG_VERSION"),
            admin: standing == Standing::Admin,
        };
        tell(ctx, &Told::Welcome(welcome));
        if ctx.subscribe(&FEED).is_err() {
            let _ = ctx.close(CloseCode::TRY_AGAIN_LATER, "there are too many topics");
            return;
        }
        let numbers = self.numbers(ctx);
        ctx.send(Message::text(&numbers));
        if !self.is_ticking {
            self.is_ticking = true;
            ctx.set_timer(PERIOD, TICK);
        }
    }

    /// The timer is due: tells the numbers to all who watch, if there still is anyone.
    pub(super) fn tick(&mut self, ctx: &mut Context<'_, Place>) {
        self.is_ticking = ctx.subscriber_count(&FEED) > 0;
        if self.is_ticking {
            let numbers = self.numbers(ctx);
            ctx.publish(&FEED, Message::text(&numbers));
            ctx.set_timer(PERIOD, TICK);
        }
    }

    fn numbers(&mut self, ctx: &Context<'_, Place>) -> String {
        let began = *self.began.get_or_insert(ctx.now());
        let at = ctx.now().saturating_duration_since(began);
        numbers::gather(ctx, at, self.wrong_keys)
    }

    // ---- commands ----

    pub(super) fn message(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        standing: Standing,
        message: Message<'_>,
    ) {
        let command = Command::parse(message);
        if standing == Standing::Locked {
            return self.unlock(ctx, rules, command.as_ref());
        }
        let done = match command {
            Some(Command::Key(_)) => Err("no key is wanted any more".into()),
            Some(Command::Tail(None)) => Ok(self.leave(ctx)),
            Some(Command::Tail(Some(Word(name)))) => self.tail(ctx, rules, standing, &name),
            Some(Command::Presence(Word(topic))) => {
                may_look(rules, standing, &topic).map(|()| answer::presence(ctx, &topic))
            }
            Some(Command::History(Word(topic))) => may_look(rules, standing, &topic)
                .and_then(|()| answer::history(ctx, &topic).map_err(|error| error.to_string())),
            Some(Command::Publish { topic, data }) => {
                let text = command::text_of(data);
                publish(ctx, rules, standing, &topic.0, &text)
            }
            None => Err(format!(
                "no such command: one of key, tail, presence, history and publish, as JSON of at \
                 most {MOST_COMMAND} bytes"
            )),
        };
        let answer = done.unwrap_or_else(|problem| line(&Told::Error(&problem)));
        ctx.send(Message::text(&answer));
    }

    fn unlock(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        command: Option<&Command<'_>>,
    ) {
        match command {
            Some(Command::Key(Word(key))) if door::opens(rules, key) => {
                self.admit(ctx, Standing::Admin);
            }
            _ => {
                self.wrong_keys += 1;
                let _ = ctx.close(WRONG_KEY, "the key is wrong");
            }
        }
    }

    fn tail(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        standing: Standing,
        name: &str,
    ) -> Result<String, String> {
        may_hear(rules, standing, name)?;
        self.leave(ctx);
        ctx.subscribe(name).map_err(|error| error.to_string())?;
        self.tails.insert(ctx.id(), name.into());
        Ok(line(&Told::Tail(Some(name))))
    }

    /// Ends the tail, if there is one.
    fn leave(&mut self, ctx: &mut Context<'_, Place>) -> String {
        if let Some(name) = self.tails.remove(&ctx.id()) {
            ctx.unsubscribe(&name);
        }
        line(&Told::Tail(None))
    }

    pub(super) fn lost(ctx: &mut Context<'_, Place>, of: Lost) {
        ctx.send(Message::text(&lost(of.total())));
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        self.tails.remove(&id);
    }
}

fn tell(ctx: &mut Context<'_, Place>, told: &Told<'_>) {
    ctx.send(Message::text(&line(told)));
}

/// Without a key a watcher hears what any client may hear.
fn may_hear(rules: &Rules, standing: Standing, name: &str) -> Result<(), String> {
    check_name(name)?;
    if standing == Standing::Admin || rules.may_subscribe(name) {
        return Ok(());
    }
    Err("subscribing is not allowed here without a key".into())
}

fn may_look(rules: &Rules, standing: Standing, topic: &str) -> Result<(), String> {
    may_hear(rules, standing, topic)?;
    if TopicTable::is_pattern(topic) {
        return Err("it is a pattern; name one topic".into());
    }
    Ok(())
}

fn publish(
    ctx: &mut Context<'_, Place>,
    rules: &Rules,
    standing: Standing,
    topic: &str,
    text: &str,
) -> Result<String, String> {
    check_name(topic)?;
    if standing != Standing::Admin && !rules.may_publish(topic) {
        return Err("publishing is not allowed here without a key".into());
    }
    let published = ctx
        .publish_with(topic, Message::text(text), &stentor::PublishOptions::new())
        .map_err(|error| error.to_string())?;
    Ok(line(&Told::Published(Published {
        topic,
        subscribers: published.subscribers,
        offset: published.position.map(|position| position.offset),
    })))
}

fn check_name(name: &str) -> Result<(), String> {
    if name.starts_with(OWN) {
        return Err("names that begin with @ are the server's own".into());
    }
    TopicTable::check_name(name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;

    use stentor::{Config, Endpoint, Server};

    use super::*;
    use crate::broadcast::{Broadcast, Who};

    const UPGRADE: &[u8] = b"GET /console/feed HTTP/1.1\r\nHost: 127.0.0.1\r\n\
        Upgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// Turns until the timer goes, or does not.
    fn turn_until(server: &mut Server<Broadcast>, is_ticking: bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (tell, told) = mpsc::channel();
            let ask = move |broadcast: &mut Broadcast, _: &mut Context<'_, Place>| {
                let _ = tell.send(broadcast.console.is_ticking);
            };
            server.handle().run(ask).unwrap();
            server.turn(Some(Duration::from_millis(10))).unwrap();
            if told.try_recv() == Ok(is_ticking) {
                return;
            }
            assert!(Instant::now() < deadline, "{:?}", server.stats());
        }
    }

    #[test]
    fn the_numbers_are_gathered_only_while_somebody_watches() {
        let rules = Rules {
            console: ConsoleOptions {
                enabled: true,
                admin_token: None,
            },
            overview: Who::Anyone,
            ..Rules::default()
        };
        let mut config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
        rules.configure(&mut config);
        let mut server = Server::bind(config, Broadcast::new(rules).unwrap()).unwrap();
        let Endpoint::Tcp(address) = server.endpoints()[0] else {
            panic!("a TCP endpoint")
        };
        for _ in 0..2 {
            let mut watcher = TcpStream::connect(address).unwrap();
            watcher.write_all(UPGRADE).unwrap();
            turn_until(&mut server, true);
            let mut head = [0; 12];
            watcher.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 101");
            drop(watcher);
            turn_until(&mut server, false);
            assert_eq!(server.stats().closed_total(), server.stats().opened);
        }
    }
}
