//! A chat with names and rooms: state per connection, topics, close codes of one's own, and a page
//! from the same port.
//!
//! `cargo run --release --example chat`, then open <http://127.0.0.1:9001/kitchen> in two tabs. The
//! path is the room. The first message of a client is its name; from then on it gets lines:
//! `here`, `joined`, `left` with names, and `said` with a name and a text.

use std::collections::{BTreeSet, HashMap};

use stentor::protocol::http::{Request, Response};
use stentor::{Accept, CloseCode, Closed, Config, Context, Handler, Message, Server};

/// Private use (RFC 6455 §7.4.2): the page knows what it means.
const NAME_TAKEN: CloseCode = CloseCode::new(4000);

#[derive(Default)]
struct Chat {
    /// Who is in which room.
    rooms: HashMap<String, BTreeSet<String>>,
}

/// One connection.
#[derive(Clone, Default)]
struct Guest {
    room: String,
    /// Empty until the first message.
    name: String,
}

type Ctx<'a> = Context<'a, Guest>;

impl Handler for Chat {
    type State = Guest;

    fn upgrade(
        &mut self,
        _: &mut Ctx<'_>,
        request: &Request<'_>,
    ) -> Result<Accept<Guest>, Response> {
        let room = String::from_utf8_lossy(request.path()).into_owned();
        let name = String::new();
        Ok(Accept::new(Guest { room, name }))
    }

    fn message(&mut self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        let guest = ctx.state().clone();
        match message.as_text() {
            Some(name) if guest.name.is_empty() => self.enter(ctx, &guest.room, name.trim()),
            Some(text) => {
                ctx.publish(&guest.room, &format!("said\n{}\n{text}", guest.name));
            }
            None => refuse(ctx, CloseCode::UNSUPPORTED_DATA, "text only"),
        }
    }

    fn close(&mut self, ctx: &mut Ctx<'_>, _: Closed<'_>) {
        let Guest { room, name } = ctx.state().clone();
        let Some(names) = self.rooms.get_mut(&room).filter(|_| !name.is_empty()) else {
            return;
        };
        names.remove(&name);
        if names.is_empty() {
            self.rooms.remove(&room);
        }
        ctx.publish_to_others(&room, &format!("left\n{name}"));
    }

    fn request(&mut self, _: &mut Ctx<'_>, request: &Request<'_>) -> Response {
        match request.method() {
            "GET" | "HEAD" => Response::new(200).html(include_str!("chat.html")),
            _ => Response::method_not_allowed(&["GET", "HEAD"]).expect("they are tokens"),
        }
    }
}

impl Chat {
    fn enter(&mut self, ctx: &mut Ctx<'_>, room: &str, name: &str) {
        let is_good = (1..=32).contains(&name.chars().count()) && !name.contains(char::is_control);
        if !is_good {
            return refuse(
                ctx,
                CloseCode::POLICY_VIOLATION,
                "a name has 1 to 32 letters",
            );
        }
        if self
            .rooms
            .get(room)
            .is_some_and(|names| names.contains(name))
        {
            return refuse(ctx, NAME_TAKEN, "this name is taken");
        }
        if let Err(error) = ctx.subscribe(room) {
            return refuse(ctx, CloseCode::TRY_AGAIN_LATER, &error.to_string());
        }
        name.clone_into(&mut ctx.state().name);
        let names = self.rooms.entry(room.to_owned()).or_default();
        names.insert(name.to_owned());
        let everybody: Vec<_> = names.iter().map(String::as_str).collect();
        ctx.send(&format!("here\n{}", everybody.join("\n")));
        ctx.publish_to_others(room, &format!("joined\n{name}"));
    }
}

fn refuse(ctx: &mut Ctx<'_>, code: CloseCode, reason: &str) {
    ctx.close(code, reason)
        .expect("the connection is open, and the code may be sent");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".into());
    let server = Server::bind(Config::listen([address.parse()?]), Chat::default())?;
    println!("chat at http://{}/kitchen", server.endpoints()[0]);
    server.run()?;
    Ok(())
}
