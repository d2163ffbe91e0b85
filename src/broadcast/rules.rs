//! Who may do what.

use stentor::protocol::UsageError;
use stentor::protocol::http::{Request, Response};
use stentor::topic::{NamespaceId, Namespaces, TopicTable};
use stentor::{Config, Endpoint};

use super::auth::TokenRules;
use super::channel::{ChannelOptions, Name};
use super::client::ClientOptions;
use super::console::{self, ConsoleOptions};
use super::{api::ApiOptions, own_topics};

/// Who may do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Who {
    /// Whoever can connect.
    #[default]
    Anyone,
    /// No client.
    Nobody,
}

impl Who {
    /// What holds where nothing is said of something that is not for strangers: anyone, as long as
    /// nobody but this machine can connect.
    pub fn locally(listen: &[Endpoint]) -> Self {
        let is_local = |endpoint: &Endpoint| match endpoint {
            Endpoint::Tcp(address) => address.ip().is_loopback(),
            Endpoint::Unix(_) => true,
        };
        if listen.iter().all(is_local) {
            Self::Anyone
        } else {
            Self::Nobody
        }
    }

    /// The word of the configuration for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Nobody => "nobody",
        }
    }
}

/// Who may publish to the topics of a namespace, and who may hear them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Who may publish.
    pub publish: Who,
    /// Who may subscribe.
    pub subscribe: Who,
}

/// What clients may do.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What holds for channels, which are topics, by namespace.
    pub channels: Namespaces<ChannelOptions>,
    /// What clients of Centrifugo's protocol may do.
    pub client: ClientOptions,
    /// The tokens with which clients connect.
    pub tokens: TokenRules,
    /// Those with which they subscribe; without rules of their own, the same.
    pub subscription_tokens: Option<TokenRules>,
    /// The hooks are asked of subscriptions and publications only where the namespace says so;
    /// otherwise of all.
    pub asks_by_namespace: bool,
    /// Who uses the HTTP API.
    pub api: ApiOptions,
    /// Who sees the console.
    pub console: ConsoleOptions,
    /// Whose pages may use the server.
    pub origins: Origins,
    /// Who may see which topics there are.
    pub overview: Who,
    /// The listeners from this one on are for those who run the server.
    pub first_admin: Option<usize>,
    /// The most bytes of the past that one subscriber gets at once.
    pub most_past: usize,
    /// The messages over HTTP, without the API, that one IPv4 address or IPv6 network of 64 bits may
    /// publish in a second, also all at once; 0 is no limit. One more is answered 429.
    pub max_posts_per_ip: u32,
}

impl Default for Rules {
    /// Everything is open to everyone but the overview, the API and the console are off.
    fn default() -> Self {
        Self {
            channels: Namespaces::default(),
            client: ClientOptions::default(),
            tokens: TokenRules::default(),
            subscription_tokens: None,
            asks_by_namespace: false,
            api: ApiOptions::default(),
            console: ConsoleOptions::default(),
            origins: Origins::default(),
            overview: Who::Nobody,
            first_admin: None,
            // Half of what may wait for a connection: the rest is for what comes meanwhile.
            most_past: 512 << 10,
            // Far above what people and their scripts send; backends have the API, without a limit.
            max_posts_per_ip: 1000,
        }
    }
}

impl Rules {
    /// Sets what the server has to do for these rules: the options of topics, and limits that they
    /// imply.
    ///
    /// # Panics
    ///
    /// Never: the namespaces were inserted once already.
    pub fn configure(&self, config: &mut Config) {
        // Beside each channel of a client, on a topic of its own, it is told who comes and goes: where
        // the options say so, or a client, a token or a hook.
        let most_topics = self.client.channel_limit.saturating_mul(2);
        let limit = &mut config.limits.max_topics_per_connection;
        *limit = most_topics.max(*limit);
        let default = self.channels.get(NamespaceId::DEFAULT);
        config.topics = Namespaces::new(default.topic_options());
        let (pattern, own) = own_topics();
        let inserted = config.topics.insert(pattern, own);
        inserted.expect("it is the first, and a good one");
        if self.console.enabled {
            let (pattern, own) = console::own_topics();
            let inserted = config.topics.insert(pattern, own);
            inserted.expect("it is new, and a good one");
        }
        for (id, name) in self.channels.names() {
            let options = self.channels.get(id).topic_options();
            let inserted = config.topics.insert(name, options);
            inserted.expect("it was inserted before");
        }
    }

    /// The options of a channel.
    pub(super) fn options_of(&self, channel: &str) -> &ChannelOptions {
        self.channels.get(self.channels.id_of(channel))
    }

    /// Whether clients may publish to a topic without a protocol.
    pub(super) fn may_publish(&self, topic: &str) -> bool {
        self.options_of(topic).access.publish == Who::Anyone
    }

    /// Whether clients may hear a topic, or all that a pattern matches, without a protocol: not what
    /// a name says is for some of them only.
    pub(super) fn may_subscribe(&self, name: &str) -> bool {
        let options = self.options_of(name);
        options.access.subscribe == Who::Anyone
            && if TopicTable::is_pattern(name) {
                self.may_subscribe_to_all(name)
            } else {
                let parts = Name::of(name);
                let is_limited = options.allow_user_limited_channels && parts.users.is_some();
                !(is_limited || parts.is_private && self.has_private_channels())
            }
    }

    fn may_subscribe_to_all(&self, pattern: &str) -> bool {
        let is_open = |(_, options): (_, &ChannelOptions)| {
            options.access.subscribe == Who::Anyone && !options.allow_user_limited_channels
        };
        let may_be_private = pattern.starts_with(['*', '$']) && self.has_private_channels();
        let is_one_open = self.stays_in_a_namespace(pattern)
            && !self.options_of(pattern).allow_user_limited_channels;
        !may_be_private && (is_one_open || self.channels.iter().all(is_open))
    }

    /// Whether a `$` at the beginning of a name means something.
    fn has_private_channels(&self) -> bool {
        self.tokens.is_some() || self.subscription_tokens.is_some()
    }

    /// Whether all that a pattern matches is in one namespace: it names one, by the text before a
    /// `:` that stands before its first wildcard.
    fn stays_in_a_namespace(&self, pattern: &str) -> bool {
        let Some((prefix, _)) = pattern.split_once(':') else {
            return false;
        };
        let namespace = prefix.strip_prefix('$').unwrap_or(prefix);
        // A wildcard is a level of its own; in front of a colon it is none.
        let has_wildcard = prefix.split('.').any(|level| matches!(level, "*" | ">"));
        !has_wildcard && self.channels.names().any(|(_, known)| known == namespace)
    }
}

/// The origins whose pages may use the server, beside those that it serves itself; without any,
/// those of loopback hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Any origin, which is told to browsers.
    const ANY: &str = "*";

    /// These origins, as browsers say them but in any case; a `*` in one stands for any text, alone
    /// for all origins.
    pub fn new(mut origins: Vec<String>) -> Self {
        for origin in &mut origins {
            origin.make_ascii_lowercase();
        }
        Self(origins)
    }

    /// Refuses a request that a page has caused which may not use the server. Browsers say the
    /// origin, other clients none.
    pub(super) fn check(&self, request: &Request<'_>) -> Result<(), Response> {
        if request.origin().is_none() || self.admits(request) {
            return Ok(());
        }
        let refusal = Response::new(403).text("Pages of this origin may not use this server.\n");
        Err(refusal)
    }

    /// Whether the request says an origin whose pages may use the server.
    pub(super) fn admits(&self, request: &Request<'_>) -> bool {
        let origin = request.origin().map(<[u8]>::to_ascii_lowercase);
        let origin = origin.and_then(|origin| String::from_utf8(origin).ok());
        origin.is_some_and(|origin| self.lists(&origin) || is_of(&origin, request.host()))
    }

    fn lists(&self, origin: &str) -> bool {
        if self.0.is_empty() {
            return is_loopback(origin);
        }
        self.0.iter().any(|pattern| matches(pattern, origin))
    }

    /// Says to a browser that the page may read the response (Fetch §3.3.3).
    pub(super) fn allow(
        &self,
        request: &Request<'_>,
        response: Response,
    ) -> Result<Response, UsageError> {
        if self.0.iter().any(|known| known == Self::ANY) {
            return response.header("Access-Control-Allow-Origin", Self::ANY);
        }
        let response = response.header("Vary", "Origin")?;
        match request.origin() {
            Some(origin) if self.admits(request) => {
                response.header("Access-Control-Allow-Origin", origin)
            }
            _ => Ok(response),
        }
    }
}

/// The host and port of an origin; `None` for that of a file or a sandbox, `null`.
fn authority(origin: &str) -> Option<&str> {
    Some(origin.split_once("://")?.1)
}

/// Whether a page of the origin came from this host and port. Browsers leave the usual port out of
/// both.
fn is_of(origin: &str, host: &[u8]) -> bool {
    authority(origin).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(host))
}

/// Whether the page came from the machine of who looks at it.
fn is_loopback(origin: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = authority(origin).map(|it| match it.rsplit_once(':') {
        Some((host, port)) if is_port(port) => host,
        _ => it,
    });
    matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// Whether a text is what a pattern says, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let text = text.strip_prefix(head);
    let Some(mut text) = text.and_then(|text| text.strip_suffix(tail)) else {
        return false;
    };
    // The first place is as good as any: it leaves the most for what follows.
    middle.split('*').all(|part| match text.split_once(part) {
        _ if part.is_empty() => true,
        Some((_, behind)) => {
            text = behind;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(default: Access, namespaces: &[(&str, Access)]) -> Rules {
        let of = |access| ChannelOptions {
            access,
            ..ChannelOptions::default()
        };
        let mut channels = Namespaces::new(of(default));
        for &(name, of_name) in namespaces {
            channels.insert(name, of(of_name)).unwrap();
        }
        Rules {
            channels,
            ..Rules::default()
        }
    }

    const OPEN: Access = Access {
        publish: Who::Anyone,
        subscribe: Who::Anyone,
    };
    const CLOSED: Access = Access {
        publish: Who::Nobody,
        subscribe: Who::Nobody,
    };

    #[test]
    fn each_namespace_has_its_own_rules() {
        let rules = rules(OPEN, &[("secret", CLOSED), ("private.*", CLOSED)]);
        for (topic, is_open) in [
            ("news", true),
            ("secret", true), // The topic, not the namespace.
            ("secret:a", false),
            ("$secret:a", false),
            ("private.a", false),
        ] {
            assert_eq!(rules.may_publish(topic), is_open, "{topic}");
            assert_eq!(rules.may_subscribe(topic), is_open, "{topic}");
        }
    }

    /// Otherwise a wildcard would open what is closed.
    #[test]
    fn a_pattern_needs_all_that_it_may_match() {
        let rules = rules(OPEN, &[("secret", CLOSED), ("chat", OPEN)]);
        for (pattern, is_open) in [
            ("*.b", false), // secret:a.b
            ("news.>", false),
            ("secret:a.*", false),
            ("chat:a.*", true),
            ("$chat:a.*", true),
            ("other:a.*", false),
            ("*.chat:a", false),
        ] {
            assert_eq!(rules.may_subscribe(pattern), is_open, "{pattern}");
        }
        let open = self::rules(OPEN, &[("chat", OPEN)]);
        assert!(open.may_subscribe("*.b") && open.may_subscribe("news.>"));
    }

    #[test]
    fn strangers_may_do_less() {
        let endpoints = |texts: &[&str]| -> Vec<Endpoint> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (listen, who) in [
            (&["127.0.0.1:1"][..], Who::Anyone),
            (&["127.9.9.9:1", "[::1]:1", "unix:/a"], Who::Anyone),
            (&["127.0.0.1:1", "0.0.0.0:1"], Who::Nobody),
            (&["[::]:1"], Who::Nobody),
        ] {
            assert_eq!(Who::locally(&endpoints(listen)), who, "{listen:?}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, is_it) in [
            ("*", "null", true),
            ("*", "", true),
            ("https://a.b", "https://a.b", true),
            ("https://a.b", "https://a.bc", false),
            ("https://*.b", "https://a.b", true),
            ("https://*.b", "https://.b", true),
            ("https://*.b", "https://b", false),
            ("https://*.b", "http://a.b", false),
            ("http://localhost:*", "http://localhost:3000", true),
            ("aba*aba", "aba", false), // What stands in front is not the end as well.
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxax", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), is_it, "{pattern} {text}");
        }
    }

    #[test]
    fn loopback_hosts_are_known_by_their_exact_names() {
        for (origin, is_it) in [
            ("http://localhost", true),
            ("https://localhost:3000", true),
            ("http://127.0.0.1:9001", true),
            ("http://[::1]", true),
            ("http://[::1]:80", true),
            ("null", false),
            ("localhost", false),
            ("http://localhost.example.com", false),
            ("http://example.com:localhost", false),
            ("http://127.0.0.1.nip.io", false),
            ("http://[::12]", false),
            ("http://localhost@example.com", false),
        ] {
            assert_eq!(is_loopback(origin), is_it, "{origin}");
        }
    }

    #[test]
    fn a_page_of_the_server_is_known_by_host_and_port() {
        assert!(is_of("https://example.com", b"Example.com"));
        assert!(is_of("http://a:9001", b"a:9001"));
        assert!(!is_of("http://a:9001", b"a"));
        assert!(!is_of("null", b"null") && !is_of("http://", b"a"));
    }
}
