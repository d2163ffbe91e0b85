//! What the request of a client says before its first command.

use stentor::protocol::http::{Request, Response};

use super::command;
use crate::broadcast::hooks::Hooks;
use crate::broadcast::route::percent_decode;

/// What the query of a request asks for.
#[derive(Default)]
pub(super) struct Query {
    pub(super) is_protobuf: bool,
    pub(super) has_frame_pings: bool,
    connect: Option<Vec<u8>>,
}

impl Query {
    pub(super) fn of(request: &Request<'_>) -> Self {
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
                    let decoded = percent_decode(&spaced);
                    asked.connect = Some(decoded.unwrap_or_default().into_owned());
                }
                _ => {}
            }
        }
        asked
    }

    pub(super) fn connect_request(&self) -> Result<Option<command::Connect>, Response> {
        let Some(json) = &self.connect else {
            return Ok(None);
        };
        let connect = command::connect_request(json).map_err(|_| bad_request())?;
        Ok(Some(connect))
    }
}

pub(super) fn bad_request() -> Response {
    Response::new(400).text("The connect request is no JSON object of the protocol.\n")
}

/// The fields of a request that the hooks want.
pub(super) fn headers(hooks: &dyn Hooks, request: &Request<'_>) -> Box<[(Box<str>, Box<str>)]> {
    let wanted = hooks.headers().iter().filter_map(|name| {
        let value = str::from_utf8(request.header(name)?).ok()?;
        Some((name.as_str().into(), value.into()))
    });
    wanted.collect()
}
