//! Which questions go where: the rules, and what is left of one when it has been checked.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use ureq::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use ureq::http::uri::{Scheme, Uri};

/// Which questions [`HttpHooks`](super::HttpHooks) asks where.
#[derive(Clone, Debug)]
pub struct HttpHookRules {
    /// Who a client without a token is.
    pub connect: Option<HttpHook>,
    /// Whether a connection whose time is over goes on.
    pub refresh: Option<HttpHook>,
    /// Whether a client may subscribe.
    pub subscribe: Option<HttpHook>,
    /// Whether a client may publish, and what.
    pub publish: Option<HttpHook>,
    /// What a method returns.
    pub rpc: Option<HttpHook>,
    /// How many questions may be unanswered at once, 1024 by default. The next ones fail.
    pub max_in_flight: usize,
    /// How many are asked at once, each over a connection of its own; 16 by default, at most 1024.
    pub threads: usize,
}

impl Default for HttpHookRules {
    fn default() -> Self {
        Self {
            connect: None,
            refresh: None,
            subscribe: None,
            publish: None,
            rpc: None,
            // Each holds at most one command, 64 KiB by default: 64 MiB in all.
            max_in_flight: 1024,
            // With a backend that takes 10 ms: 1,600 questions a second.
            threads: 16,
        }
    }
}

/// Where one kind of question is asked.
#[derive(Clone)]
pub struct HttpHook {
    /// An `http` or `https` URL. Redirects are not followed.
    pub endpoint: String,
    /// From the question to the last byte of the answer; 1 s by default. Waiting for a thread
    /// counts: a question whose time was over before is not asked, and fails when a thread comes to
    /// it.
    pub timeout: Duration,
    /// Header fields of the client's upgrade request that are passed on; none by default. Case does
    /// not matter.
    pub http_headers: Vec<String>,
    /// Header fields that are sent with each question; they win over those of clients. None by
    /// default.
    pub static_headers: Vec<(String, String)>,
}

impl Default for HttpHook {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            // Centrifugo's; clients wait 5 s.
            timeout: Duration::from_secs(1),
            http_headers: Vec::new(),
            static_headers: Vec::new(),
        }
    }
}

impl fmt::Debug for HttpHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Their values are passwords, often enough.
        let names: Vec<&str> = self
            .static_headers
            .iter()
            .map(|(name, _)| &**name)
            .collect();
        f.debug_struct("HttpHook")
            .field("endpoint", &self.endpoint)
            .field("timeout", &self.timeout)
            .field("http_headers", &self.http_headers)
            .field("static_headers", &names)
            .finish()
    }
}

/// A rule that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHookError {
    /// Which one, as in `connect.endpoint`.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl HttpHookError {
    pub(super) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for HttpHookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl Error for HttpHookError {}

/// A hook that has been checked.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) uri: Uri,
    pub(super) timeout: Duration,
    /// Fields of clients, in lower case; none that is fixed.
    pub(super) passed: Vec<String>,
    /// Fields of every question.
    fixed: HeaderMap,
}

impl Endpoint {
    /// Checks the hook of this name.
    pub(super) fn new(hook_key: &str, hook: &HttpHook) -> Result<Self, HttpHookError> {
        let key = |field| format!("{hook_key}.{field}");
        let uri = endpoint(&hook.endpoint).map_err(|e| HttpHookError::new(key("endpoint"), e))?;
        if hook.timeout.is_zero() || hook.timeout > MAX_TIMEOUT {
            let reason = format!("more than 0 s and at most {} s", MAX_TIMEOUT.as_secs());
            return Err(HttpHookError::new(key("timeout"), reason));
        }
        let fixed = fixed(&hook.static_headers)
            .map_err(|e| HttpHookError::new(key("static_headers"), e))?;
        let mut passed = Vec::new();
        for name in &hook.http_headers {
            let name = field_name(name).map_err(|e| HttpHookError::new(key("http_headers"), e))?;
            if !fixed.contains_key(&name) {
                passed.push(name.as_str().to_owned());
            }
        }
        Ok(Self {
            uri,
            timeout: hook.timeout,
            passed,
            fixed,
        })
    }

    /// The header fields of a question about a client with these.
    pub(super) fn headers(&self, of_client: &[(Box<str>, Box<str>)]) -> HeaderMap {
        let mut headers = self.fixed.clone();
        for (name, value) in of_client {
            if !self.passed.iter().any(|passed| **passed == **name) {
                continue;
            }
            // Both have been parsed as header fields once: neither conversion fails.
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_bytes(value.as_bytes()),
            ) {
                headers.append(name, value);
            }
        }
        headers
    }
}

fn endpoint(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|e| format!("`{text}` is no URL: {e}"))?;
    let is_http = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if !is_http || !has_host {
        return Err(format!("`{text}` is not `http://host…` or `https://host…`"));
    }
    Ok(uri)
}

fn fixed(fields: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut fixed = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("the value of `{name}` has a character that none may have"))?;
        fixed.append(field_name(name)?, value);
    }
    fixed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(fixed)
}

fn field_name(name: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{name}` is no name of a header field"))?;
    if OWN_FIELDS.contains(&name.as_str()) {
        return Err(format!("`{name}` belongs to the request to the backend"));
    }
    Ok(name)
}

/// A connection that has waited longer is gone anyway: clients give up after 5 s.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// What says how a message is framed, encoded and carried: that of a client is wrong for ours.
const OWN_FIELDS: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> HttpHook {
        HttpHook {
            endpoint: "http://localhost:3000/connect".into(),
            ..HttpHook::default()
        }
    }

    fn refused(hook: &HttpHook) -> String {
        Endpoint::new("connect", hook).unwrap_err().to_string()
    }

    #[test]
    fn endpoint_is_an_http_url() {
        for endpoint in [
            "http://a",
            "https://a.example:8443/x?y=z",
            "http://[::1]:80/",
        ] {
            let endpoint = endpoint.to_owned();
            assert!(Endpoint::new("rpc", &HttpHook { endpoint, ..hook() }).is_ok());
        }
        for endpoint in [
            "",
            "/connect",
            "localhost:3000",
            "grpc://a:1",
            "http://",
            "http:// a",
        ] {
            let endpoint = endpoint.to_owned();
            let reason = refused(&HttpHook { endpoint, ..hook() });
            assert!(reason.starts_with("connect.endpoint: `"), "{reason}");
        }
    }

    #[test]
    fn timeout_has_bounds() {
        for (timeout, is_ok) in [
            (Duration::ZERO, false),
            (Duration::from_millis(1), true),
            (MAX_TIMEOUT, true),
            (MAX_TIMEOUT + Duration::from_millis(1), false),
            (Duration::MAX, false),
        ] {
            let result = Endpoint::new("connect", &HttpHook { timeout, ..hook() });
            assert_eq!(result.is_ok(), is_ok, "{timeout:?}");
        }
        let timeout = Duration::ZERO;
        assert_eq!(
            refused(&HttpHook { timeout, ..hook() }),
            "connect.timeout: more than 0 s and at most 60 s"
        );
    }

    #[test]
    fn fields_of_the_request_itself_are_not_for_others() {
        for name in OWN_FIELDS {
            let http_headers = vec![name.to_uppercase()];
            assert_eq!(
                refused(&HttpHook {
                    http_headers,
                    ..hook()
                }),
                format!("connect.http_headers: `{name}` belongs to the request to the backend")
            );
            let static_headers = vec![(name.to_owned(), "x".to_owned())];
            assert_eq!(
                refused(&HttpHook {
                    static_headers,
                    ..hook()
                }),
                format!("connect.static_headers: `{name}` belongs to the request to the backend")
            );
        }
    }

    #[test]
    fn fields_must_be_fit_for_a_header() {
        let http_headers = vec!["a b".to_owned()];
        assert_eq!(
            refused(&HttpHook {
                http_headers,
                ..hook()
            }),
            "connect.http_headers: `a b` is no name of a header field"
        );
        let static_headers = vec![("x-key".to_owned(), "a\r\nb: c".to_owned())];
        assert_eq!(
            refused(&HttpHook {
                static_headers,
                ..hook()
            }),
            "connect.static_headers: the value of `x-key` has a character that none may have"
        );
    }

    #[test]
    fn debug_text_hides_values_of_static_headers() {
        let static_headers = vec![("x-key".to_owned(), "secret".to_owned())];
        let text = format!(
            "{:?}",
            HttpHook {
                static_headers,
                ..hook()
            }
        );
        assert!(text.contains("x-key") && !text.contains("secret"), "{text}");
    }
}
