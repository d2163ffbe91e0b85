//! The HTTP API: `POST /api/METHOD` with an object of JSON, for those who have the key.
//!
//! ```text
//! request ─▶ key ─▶ command ─▶ desk ─┬▶ exchange: channels
//!                      reply ◀───────┴▶ clients: connections
//! ```

mod command;
mod desk;
mod glob;
mod key;
mod reply;

use stentor::Context;
use stentor::protocol::http::{Request, Response};

use self::command::{Batch, Method};
use self::desk::Desk;
pub(super) use self::key::is_same;
use super::client::Clients;
use super::client::codes::METHOD_NOT_FOUND;
use super::exchange::Exchange;
use super::{Place, Rules, json, not_allowed};

/// Who uses the HTTP API, and how it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiOptions {
    /// What requests bring; without it there is no API.
    pub key: Option<String>,
    /// Anyone may use it.
    pub insecure: bool,
    /// Errors are statuses.
    pub transport_errors: bool,
}

impl ApiOptions {
    /// The key; an empty one is none.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref().filter(|key| !key.is_empty())
    }

    /// Whether there is an API.
    pub(super) fn is_on(&self) -> bool {
        self.insecure || self.key().is_some()
    }
}

/// Answers a request to the API; `method` is what the path ends with. Whose pages may use the server
/// was judged before.
pub(super) fn answer(
    clients: &mut Clients,
    exchange: &mut Exchange,
    ctx: &mut Context<'_, Place>,
    rules: &Rules,
    method: &str,
    request: &Request<'_>,
) -> Response {
    if let Err(refusal) = admit(rules, method, request) {
        return refusal;
    }
    let mut desk = Desk {
        clients,
        exchange,
        ctx,
        rules,
    };
    let answer = match Method::named(method) {
        Some(method) => method.read(request.body()).map(|command| {
            let has_transport_errors =
                rules.api.transport_errors || wants_transport_errors(request);
            reply::respond(desk.run(&command), has_transport_errors)
        }),
        None => Batch::read(request.body()).map(|batch| json(&run_batch(&mut desk, &batch))),
    };
    answer.unwrap_or_else(|malformed| {
        let problem = format!("The body is not what the method takes: {malformed}.\n");
        Response::new(400).text(problem)
    })
}

/// The method that is a list of others.
const BATCH: &str = "batch";

/// Refuses what is no request to the API, or is not from somebody who may use it.
fn admit(rules: &Rules, method: &str, request: &Request<'_>) -> Result<(), Response> {
    let is_known = method == BATCH || Method::named(method).is_some();
    if !rules.api.is_on() || !is_known {
        return Err(Response::not_found());
    }
    if request.method() != "POST" {
        return Err(not_allowed(&["POST"]));
    }
    key::check(&rules.api, request)
}

fn wants_transport_errors(request: &Request<'_>) -> bool {
    request
        .header("x-centrifugo-error-mode")
        .is_some_and(|mode| mode.eq_ignore_ascii_case(b"transport"))
}

/// Runs commands one after the other, whatever becomes of each.
fn run_batch(desk: &mut Desk<'_, '_>, batch: &Batch<'_>) -> String {
    let replies = batch.commands.iter().map(|command| match command {
        Some((method, command)) => reply::under(method, desk.run(command)),
        None => reply::under("", Err(METHOD_NOT_FOUND)),
    });
    let replies: Vec<String> = replies.collect();
    format!("{{\"replies\":[{}]}}", replies.join(","))
}

#[cfg(test)]
mod tests;
