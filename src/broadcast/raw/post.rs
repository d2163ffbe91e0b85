//! Publishing over HTTP: the body of a POST is the message.

use serde::Serialize;
use stentor::protocol::http::{Request, Response};
use stentor::{Context, Message, PublishOptions};

use super::super::{json, with};
use super::Place;
use super::header::line;

/// How long a key may be: they are remembered, and strangers may choose them.
const MOST_KEY: usize = 255;

/// How many tags a message may have, and how many bytes they may be: a history keeps them with it.
const MOST_TAGS: usize = 16;
const MOST_TAG_BYTES: usize = 1024;

/// Publishes the body of a request to a topic.
pub(super) fn publish(
    ctx: &mut Context<'_, Place>,
    topic: &str,
    request: &Request<'_>,
) -> Result<Response, Response> {
    let message = message(request).map_err(bad)?;
    let options = options(request).map_err(bad)?;
    let published = ctx
        .publish_with(topic, message, &options)
        .map_err(|error| bad(&error.to_string()))?;
    let position = published.position.as_ref();
    Ok(json(&line(&Answer {
        subscribers: published.subscribers,
        offset: position.map(|position| position.offset),
        epoch: position.map(|position| position.epoch.as_str()),
    })))
}

pub(super) fn bad(problem: &str) -> Response {
    Response::new(400).text(format!("The message was not published: {problem}.\n"))
}

/// A bucket of which a token is missing has it within a second.
pub(super) fn too_many() -> Response {
    let problem = "The message was not published: there were too many from your address; \
                   send it again in a second.\n";
    with(Response::new(429).text(problem), &[("Retry-After", "1")])
}

#[derive(Serialize)]
struct Answer<'a> {
    subscribers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
}

fn message<'r>(request: &'r Request<'_>) -> Result<Message<'r>, &'static str> {
    let body = request.body();
    if !is_text(request.header("content-type")) {
        return Ok(Message::binary(body));
    }
    match str::from_utf8(body) {
        Ok(text) => Ok(Message::text(text)),
        Err(_) => Err("it is not UTF-8, as a text must be; application/octet-stream takes bytes"),
    }
}

/// Whether a body of this type is a text; one without a type is.
fn is_text(content_type: Option<&[u8]>) -> bool {
    let Some(content_type) = content_type else {
        return true;
    };
    let essence = content_type.split(|&byte| byte == b';').next();
    let essence = essence
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    // The last is what `curl -d` calls whatever it sends; nothing is decoded.
    essence.starts_with(b"text/")
        || essence == b"application/json"
        || essence == b"application/x-www-form-urlencoded"
}

fn options(request: &Request<'_>) -> Result<PublishOptions, &'static str> {
    let mut options = PublishOptions::new();
    if let Some(key) = request.header("idempotency-key") {
        let key = str::from_utf8(key).ok().filter(|key| key.len() <= MOST_KEY);
        let key = key.filter(|key| !key.is_empty());
        let key = key.ok_or("an Idempotency-Key is a text of 1 to 255 bytes")?;
        options = options.idempotency_key(key);
    }
    let (mut count, mut bytes) = (0, 0);
    for tag in request.header_values("x-stentor-tag") {
        let tag = str::from_utf8(tag).ok().and_then(|tag| tag.split_once('='));
        let tag = tag.map(|(name, value)| (name.trim(), value.trim()));
        let tag = tag.filter(|(name, _)| !name.is_empty());
        let (name, value) = tag.ok_or("an X-Stentor-Tag is name=value")?;
        count += 1;
        bytes += name.len() + value.len();
        options = options.tag(name, value);
    }
    if count > MOST_TAGS || bytes > MOST_TAG_BYTES {
        return Err("it has more than 16 tags, or more than 1024 bytes of them");
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_tells_texts_from_bytes() {
        for (content_type, expected) in [
            ("text/plain", true),
            ("text/plain; charset=utf-8", true),
            ("TEXT/html", true),
            ("application/json", true),
            ("Application/JSON ;charset=utf-8", true),
            ("application/octet-stream", false),
            ("application/jsonl", false),
            ("application/x-www-form-urlencoded", true),
            ("image/png", false),
            ("text", false),
            ("", false),
        ] {
            let is_text = is_text(Some(content_type.as_bytes()));
            assert_eq!(is_text, expected, "{content_type}");
        }
        assert!(is_text(None));
    }
}
