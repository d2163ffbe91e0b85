//! The key that a request brings.

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use stentor::protocol::http::{Request, Response};

use super::super::route::percent_decode;
use super::super::with;
use super::ApiOptions;

/// Refuses a request that does not bring the key, if one is needed.
pub(super) fn check(options: &ApiOptions, request: &Request<'_>) -> Result<(), Response> {
    let is_it = |given: Option<Cow<'_, [u8]>>| {
        let given = given.as_deref();
        given.is_some_and(|given| options.key().is_some_and(|key| is_same(key, given)))
    };
    let is_good = match request.header("x-api-key") {
        _ if options.insecure => true,
        Some(key) => is_it(Some(Cow::Borrowed(key))),
        None => is_it(of_authorization(request)) || is_it(of_query(request.query())),
    };
    if is_good {
        return Ok(());
    }
    let refusal = Response::new(401).text("The API needs its key.\n");
    // RFC 9110 §15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header
    // field".
    Err(with(refusal, &[("WWW-Authenticate", SCHEME)]))
}

const SCHEME: &str = "apikey";

/// Whether a secret is what was given. How long it takes says nothing of the secret: digests are
/// compared, and whoever does not know the secret cannot choose those.
pub(in crate::broadcast) fn is_same(secret: &str, given: &[u8]) -> bool {
    Sha256::digest(secret) == Sha256::digest(given)
}

/// RFC 9110 §11.4: a scheme, in any case, and what follows it.
fn of_authorization<'r>(request: &'r Request<'_>) -> Option<Cow<'r, [u8]>> {
    let value = request.header("authorization")?;
    let (scheme, key) = value.split_at_checked(SCHEME.len())?;
    let is_meant = scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && key.starts_with(b" ");
    is_meant.then(|| Cow::Borrowed(key.trim_ascii()))
}

fn of_query(query: Option<&[u8]>) -> Option<Cow<'_, [u8]>> {
    let mut fields = query?.split(|&byte| byte == b'&');
    let value = fields.find_map(|field| field.strip_prefix(b"api_key="))?;
    percent_decode(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_a_query() {
        for (query, key) in [
            (&b"api_key=k"[..], Some(&b"k"[..])),
            (b"a=b&api_key=k%2B%20&c", Some(b"k+ ")),
            (b"xapi_key=k", None),
            (b"api_key=%", None),
            (b"", None),
        ] {
            assert_eq!(of_query(Some(query)).as_deref(), key, "{query:?}");
        }
        assert_eq!(of_query(None), None);
    }

    #[test]
    fn only_the_whole_secret_is_the_same() {
        assert!(is_same("secret", b"secret"));
        for given in [&b"secre"[..], b"secrets", b"", b"Secret"] {
            assert!(!is_same("secret", given));
        }
    }
}
