//! Hooks that ask a backend over HTTP, in the form of Centrifugo's proxy: each question is a `POST`
//! of a JSON object, each answer a JSON object with `result`, `error` or `disconnect`.
//!
//! `rules` checks what is configured, `question` writes bodies, `answer` reads them, `pool` carries
//! them on threads of its own: the loop hands over and goes on.
//!
//! ```text
//! loop:    Hooks::publish ─▶ question ─▶ queue          wake ◀─ Later::answer
//! thread:                                  └─▶ POST ─▶ answer ────────┘
//! ```

mod answer;
mod pool;
mod question;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use self::answer::Readable;
use self::pool::{Call, Pool};
pub use self::pool::{HttpHookCounts, HttpHookStats};
use self::question::Question;
use self::rules::Endpoint;
pub use self::rules::{HttpHook, HttpHookError, HttpHookRules};
use super::{
    Answer, Ask, Client, ConnectRequest, Connected, Hooks, Publish, PublishRequest, RefreshRequest,
    Refreshed, Returned, RpcRequest, SubscribeRequest, Subscribed,
};

/// [`Hooks`] that ask a backend over HTTP.
///
/// A question without an endpoint is answered as usual, and so are connecting and subscribing with
/// a token: a token says already what a backend would.
///
/// # What is sent
///
/// A `POST` of `application/json`, to be answered with the status 200. Each body begins with the
/// client that it is about:
///
/// ```json
/// {"client":"UUID","transport":"websocket","protocol":"json","encoding":"json"}
/// ```
///
/// | question | and also, those with `?` only if there is something to say |
/// |---|---|
/// | connect | `name?`, `version?`, `data?`, `channels?` |
/// | refresh | `user`, `meta?` |
/// | subscribe | `user`, `channel`, `meta?`, `data?` |
/// | publish | `user`, `channel`, `meta?`, `data` |
/// | rpc | `user`, `method`, `meta?`, `data?` |
///
/// # What is answered
///
/// `{"disconnect":{"code","reason"}}`, else `{"error":{"code","message","temporary"}}`, else
/// `{"result":{…}}`; what is absent or `null` is empty:
///
/// | question | result |
/// |---|---|
/// | connect | `user`, `expire_at`, `info`, `data`, `meta`, `channels` (names), `subs` (a result of subscribe for each name) |
/// | refresh | `expired`, `expire_at`, `info` |
/// | subscribe | `expire_at`, `info`, `data`, `override` (`{"presence":{"value":true}}`, and so on) |
/// | publish | `data`, `skip_history` |
/// | rpc | `data` |
///
/// `b64info` and `b64data` are `info` and `data` in Base64; they win, and hold JSON as well.
///
/// # Failures
///
/// Whatever goes wrong on the way is the temporary error 100 for the client, and counted by kind in
/// [`stats`](Self::stats): no question is asked twice, as it may have been heard the first time.
///
/// # Dropping
///
/// Does not block: what was asked already is answered within its time limit, then the threads end.
///
/// # Example
///
/// ```
/// use stentor::broadcast::hooks::{HttpHook, HttpHookRules, HttpHooks};
///
/// let hooks = HttpHooks::new(HttpHookRules {
///     connect: Some(HttpHook {
///         endpoint: "http://localhost:3000/connect".into(),
///         http_headers: vec!["cookie".into()],
///         ..HttpHook::default()
///     }),
///     ..HttpHookRules::default()
/// })?;
/// let stats = hooks.stats(); // Still there when the hooks have been given away.
/// assert_eq!(stats.counts().in_flight, 0);
/// # Ok::<(), stentor::broadcast::hooks::HttpHookError>(())
/// ```
#[derive(Debug)]
pub struct HttpHooks {
    connect: Option<Arc<Endpoint>>,
    refresh: Option<Arc<Endpoint>>,
    subscribe: Option<Arc<Endpoint>>,
    publish: Option<Arc<Endpoint>>,
    rpc: Option<Arc<Endpoint>>,
    /// All that any endpoint is to see, in lower case and once.
    kept_headers: Vec<String>,
    pool: Pool,
}

impl HttpHooks {
    /// Checks the rules and starts the threads.
    ///
    /// # Errors
    ///
    /// If a rule cannot be followed, or a thread cannot be started; the error names the rule's key.
    pub fn new(rules: HttpHookRules) -> Result<Self, HttpHookError> {
        let endpoint = |key: &str, hook: Option<HttpHook>| {
            hook.map(|hook| Endpoint::new(key, &hook).map(Arc::new))
                .transpose()
        };
        let connect = endpoint("connect", rules.connect)?;
        let refresh = endpoint("refresh", rules.refresh)?;
        let subscribe = endpoint("subscribe", rules.subscribe)?;
        let publish = endpoint("publish", rules.publish)?;
        let rpc = endpoint("rpc", rules.rpc)?;
        let all = [&connect, &refresh, &subscribe, &publish, &rpc];
        let mut kept_headers: Vec<String> = all
            .into_iter()
            .flatten()
            .flat_map(|endpoint| endpoint.passed.iter().cloned())
            .collect();
        kept_headers.sort_unstable();
        kept_headers.dedup();
        Ok(Self {
            connect,
            refresh,
            subscribe,
            publish,
            rpc,
            kept_headers,
            pool: Pool::new(rules.threads, rules.max_in_flight)?,
        })
    }

    /// What is counted, to be read at any time and from any thread.
    pub fn stats(&self) -> HttpHookStats {
        self.pool.stats()
    }

    /// Hands a question over to the threads.
    fn ask<T: Readable>(
        &self,
        endpoint: &Arc<Endpoint>,
        client: &Client<'_>,
        question: &Question<'_>,
        ask: Ask<T>,
    ) -> Answer<T> {
        let call = Call {
            endpoint: Arc::clone(endpoint),
            headers: endpoint.headers(client.headers),
            body: question.to_bytes(),
            deadline: Instant::now() + endpoint.timeout,
        };
        match self.pool.ask(call, || ask.later()) {
            Ok(()) => Answer::Later,
            Err(refusal) => Answer::Now(Err(refusal)),
        }
    }
}

impl Hooks for HttpHooks {
    fn headers(&self) -> &[String] {
        &self.kept_headers
    }

    fn connect(&mut self, request: &ConnectRequest<'_>, ask: Ask<Connected>) -> Answer<Connected> {
        match &self.connect {
            Some(endpoint) if request.token.is_empty() => {
                self.ask(endpoint, &request.client, &Question::connect(request), ask)
            }
            _ => Answer::Usual,
        }
    }

    fn subscribe(
        &mut self,
        request: &SubscribeRequest<'_>,
        ask: Ask<Subscribed>,
    ) -> Answer<Subscribed> {
        match &self.subscribe {
            Some(endpoint) if request.token.is_empty() => self.ask(
                endpoint,
                &request.client,
                &Question::subscribe(request),
                ask,
            ),
            _ => Answer::Usual,
        }
    }

    fn publish(&mut self, request: &PublishRequest<'_>, ask: Ask<Publish>) -> Answer<Publish> {
        match &self.publish {
            Some(endpoint) => self.ask(endpoint, &request.client, &Question::publish(request), ask),
            None => Answer::Usual,
        }
    }

    fn rpc(&mut self, request: &RpcRequest<'_>, ask: Ask<Returned>) -> Answer<Returned> {
        match &self.rpc {
            Some(endpoint) => self.ask(endpoint, &request.client, &Question::rpc(request), ask),
            None => Answer::Usual,
        }
    }

    fn refresh(&mut self, request: &RefreshRequest<'_>, ask: Ask<Refreshed>) -> Answer<Refreshed> {
        match &self.refresh {
            Some(endpoint) => self.ask(endpoint, &request.client, &Question::refresh(request), ask),
            None => Answer::Usual,
        }
    }
}
