//! The broadcast application: what a client sends to a topic, everyone in the topic hears.
//!
//! The path names the topic: `/t/NAME`, and `/` for the topic `lobby`. The same paths are a page
//! for browsers. An ordinary user of the library: whatever is done here, an embedder can do.

mod metrics;
mod page;
mod route;

use std::collections::HashSet;
use std::rc::Rc;

use stentor::protocol::http::{Request, Response};
use stentor::{Accept, CloseCode, Closed, Context, Handler, Message};

use self::page::Page;
use self::route::Route;

/// Topics by path, with a page to try them.
#[derive(Debug, Default)]
pub(crate) struct Broadcast {
    page: Page,
    names: Names,
}

impl Handler for Broadcast {
    /// The name of the topic.
    type State = Rc<str>;

    fn upgrade(
        &mut self,
        _: &mut Context<'_, Rc<str>>,
        request: &Request<'_>,
    ) -> Result<Accept<Rc<str>>, Response> {
        match Route::of(request.path()) {
            Ok(Route::Topic(name)) => Ok(Accept::new(self.names.share(&name))),
            Ok(Route::Icon) => Err(Response::not_found()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn open(&mut self, ctx: &mut Context<'_, Rc<str>>) {
        let topic = Rc::clone(ctx.state());
        if ctx.subscribe(&topic).is_err() {
            // Its name was judged: there are `max_topics` others.
            let _ = ctx.close(CloseCode::TRY_AGAIN_LATER, "there are too many topics");
        }
    }

    fn message(&mut self, ctx: &mut Context<'_, Rc<str>>, message: Message<'_>) {
        let topic = Rc::clone(ctx.state());
        ctx.publish(&topic, message);
    }

    fn close(&mut self, ctx: &mut Context<'_, Rc<str>>, _: Closed<'_>) {
        let topic = Rc::clone(ctx.state());
        let is_last = ctx.subscriber_count(&topic) <= 1;
        if is_last {
            self.names.forget(&topic);
        }
    }

    fn request(&mut self, _: &mut Context<'_, Rc<str>>, request: &Request<'_>) -> Response {
        let route = match Route::of(request.path()) {
            Ok(route) => route,
            Err(refusal) => return refusal.into(),
        };
        if !matches!(request.method(), "GET" | "HEAD") {
            return Response::method_not_allowed(&["GET", "HEAD"]).expect("they are tokens");
        }
        match route {
            Route::Topic(_) => self.page.response(),
            Route::Icon => Response::new(204),
        }
    }
}

/// The names of topics in use: one string for all connections of a topic.
#[derive(Debug, Default)]
struct Names(HashSet<Rc<str>>);

impl Names {
    fn share(&mut self, name: &str) -> Rc<str> {
        if let Some(name) = self.0.get(name) {
            return Rc::clone(name);
        }
        let name: Rc<str> = name.into();
        self.0.insert(Rc::clone(&name));
        name
    }

    fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }
}
