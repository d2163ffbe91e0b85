//! What is answered: results and errors.

use serde::Serialize;
use stentor::protocol::http::Response;

use super::super::client::codes::ErrorReply;
use super::super::raw::line;
use super::super::{json, with};

/// What became of a command: JSON.
pub(super) type Outcome = Result<String, ErrorReply>;

/// The answer to one command.
pub(super) fn respond(outcome: Outcome, has_transport_errors: bool) -> Response {
    match outcome {
        Err(error) if has_transport_errors => {
            let response = Response::new(status(error.code)).body(failure(&error));
            let head = [
                ("Content-Type", "application/json"),
                ("Cache-Control", "no-store"),
            ];
            with(response, &head)
        }
        outcome => json(&tell(outcome)),
    }
}

/// An outcome where nothing else says what it is of.
pub(super) fn tell(outcome: Outcome) -> String {
    under("result", outcome)
}

/// An outcome with what the method returned under a name.
pub(super) fn under(name: &str, outcome: Outcome) -> String {
    match outcome {
        Ok(result) => format!("{{\"{name}\":{result}}}"),
        Err(error) => format!("{{\"error\":{}}}", failure(&error)),
    }
}

#[derive(Serialize)]
struct Failure<'a> {
    code: u32,
    message: &'a str,
}

/// An error as the API has it: the same numbers as for clients, some with other words.
fn failure(error: &ErrorReply) -> String {
    let code = error.code;
    let message = match code {
        NOT_FOUND => "not found",
        CONFLICT => "conflict",
        _ => &error.message,
    };
    line(&Failure { code, message })
}

fn status(code: u32) -> u16 {
    match code {
        102 | NOT_FOUND => 404, // An unknown channel is not found either.
        107 | 108 => 400,       // Bad, or not available.
        112 => 416,             // The position is not to be had.
        CONFLICT => 409,
        _ => 500,
    }
}

/// There is no such method.
const NOT_FOUND: u32 = 104;

/// Two at once where only one can be.
const CONFLICT: u32 = 113;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::client::codes::{
        BAD_REQUEST, INTERNAL, LIMIT_EXCEEDED, METHOD_NOT_FOUND, NOT_AVAILABLE, UNKNOWN_CHANNEL,
        UNRECOVERABLE,
    };

    #[test]
    fn errors_have_their_words_and_statuses() {
        let conflict = ErrorReply {
            code: 113,
            message: "concurrent pagination".into(),
            temporary: true,
        };
        for (error, text, status) in [
            (
                INTERNAL,
                r#"{"code":100,"message":"internal server error"}"#,
                500,
            ),
            (
                UNKNOWN_CHANNEL,
                r#"{"code":102,"message":"unknown channel"}"#,
                404,
            ),
            (
                METHOD_NOT_FOUND,
                r#"{"code":104,"message":"not found"}"#,
                404,
            ),
            (
                LIMIT_EXCEEDED,
                r#"{"code":106,"message":"limit exceeded"}"#,
                500,
            ),
            (BAD_REQUEST, r#"{"code":107,"message":"bad request"}"#, 400),
            (
                NOT_AVAILABLE,
                r#"{"code":108,"message":"not available"}"#,
                400,
            ),
            (
                UNRECOVERABLE,
                r#"{"code":112,"message":"unrecoverable position"}"#,
                416,
            ),
            (conflict, r#"{"code":113,"message":"conflict"}"#, 409),
        ] {
            assert_eq!(tell(Err(error.clone())), format!("{{\"error\":{text}}}"));
            let response = respond(Err(error.clone()), true);
            assert_eq!(response.status(), status, "{text}");
            assert_eq!(respond(Err(error), false).status(), 200);
        }
    }
}
