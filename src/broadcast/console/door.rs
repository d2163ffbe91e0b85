//! Who may watch.

use std::net::{Ipv6Addr, SocketAddr};

use stentor::protocol::http::{Request, Response};

use super::super::api::is_same;
use super::super::{Rules, Who};

/// What a watcher may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing, until it says the key.
    Locked,
    /// See the numbers, and what any client may see.
    Guest,
    /// Everything: it knows the key.
    Admin,
}

/// Refuses where nobody could watch: what is said in place of the page.
pub(super) fn check(rules: &Rules) -> Result<(), Response> {
    if !rules.console.enabled {
        return Err(Response::new(404).text("There is no console here. Topics are at /t/NAME.\n"));
    }
    if keys(rules).next().is_none() && rules.overview == Who::Nobody {
        let why = "The console needs a key: configure an admin token or a key of the HTTP API. \
                   Topics are at /t/NAME.\n";
        return Err(Response::new(403).text(why));
    }
    Ok(())
}

/// What one may do who has said nothing yet.
///
/// Without a key the console is for the machine itself, and for nobody's web pages: neither those
/// of other origins, nor those whose name was made to lead here.
pub(super) fn standing(rules: &Rules, request: &Request<'_>) -> Result<Standing, Response> {
    check(rules)?;
    if keys(rules).next().is_some() {
        return Ok(Standing::Locked);
    }
    let host = request.header("host").unwrap_or_default();
    if !is_no_name(host) || request.origin().is_some_and(|origin| !is_of(origin, host)) {
        let why = "Without a key the console is open at an IP address or localhost only, and only \
                   to its own page. Configure an admin token or a key of the HTTP API.\n";
        return Err(Response::new(403).text(why));
    }
    Ok(Standing::Guest)
}

/// Whether this is a key.
pub(super) fn opens(rules: &Rules, said: &str) -> bool {
    keys(rules).any(|key| is_same(key, said.as_bytes()))
}

fn keys(rules: &Rules) -> impl Iterator<Item = &str> {
    let token = rules.console.admin_token.as_deref();
    let token = token.filter(|token| !token.is_empty()); // An empty one is none.
    token.into_iter().chain(rules.api.key())
}

/// Whether a Host field holds what no name server had a word in.
fn is_no_name(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else {
        return false;
    };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_v6 = |text: &str| {
        let inner = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        inner.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
    };
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || name.parse::<std::net::IpAddr>().is_ok()
        || is_v6(host)
}

/// Whether this origin is a page of this host.
fn is_of(origin: &[u8], host: &[u8]) -> bool {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let mut rests = schemes
        .iter()
        .filter_map(|scheme| origin.strip_prefix(*scheme));
    rests.any(|rest| rest.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{ApiOptions, ConsoleOptions};

    fn rules(admin_token: Option<&str>, key: Option<&str>) -> Rules {
        Rules {
            console: ConsoleOptions {
                enabled: true,
                admin_token: admin_token.map(Into::into),
            },
            api: ApiOptions {
                key: key.map(Into::into),
                ..ApiOptions::default()
            },
            overview: Who::Anyone,
            ..Rules::default()
        }
    }

    #[test]
    fn each_key_opens_and_nothing_else_does() {
        let rules = rules(Some("token"), Some("key"));
        assert!(opens(&rules, "token") && opens(&rules, "key"));
        for wrong in ["", "toke", "tokenn", "Token", "tokenkey", "kez"] {
            assert!(!opens(&rules, wrong), "{wrong}");
        }
        assert!(!opens(&self::rules(None, None), ""));
        assert!(!opens(&self::rules(Some(""), Some("")), ""));
    }

    #[test]
    fn where_nobody_could_watch_it_is_said_why() {
        let status = |rules: &Rules| check(rules).err().map(|refusal| refusal.status());
        assert_eq!(status(&Rules::default()), Some(404));
        let strangers = |token| Rules {
            overview: Who::Nobody,
            ..rules(token, None)
        };
        assert_eq!(status(&strangers(None)), Some(403));
        assert_eq!(status(&strangers(Some(""))), Some(403));
        assert_eq!(status(&strangers(Some("token"))), None);
        assert_eq!(status(&rules(None, None)), None);
    }

    #[test]
    fn an_address_is_no_name() {
        for (host, is) in [
            ("localhost", true),
            ("LocalHost:9001", true),
            ("127.0.0.1", true),
            ("127.0.0.1:9001", true),
            ("192.168.1.5:80", true),
            ("[::1]", true),
            ("[::1]:9001", true),
            ("", false),
            ("example.org", false),
            ("localhost.example.org:9001", false),
            ("127.0.0.1.example.org", false),
            ("[::1].example.org", false),
        ] {
            assert_eq!(is_no_name(host.as_bytes()), is, "{host}");
        }
    }

    #[test]
    fn an_origin_is_of_its_host() {
        assert!(is_of(b"http://127.0.0.1:9001", b"127.0.0.1:9001"));
        assert!(is_of(b"https://LOCALHOST", b"localhost"));
        for origin in [
            "null",
            "http://127.0.0.1",
            "http://127.0.0.1:9002",
            "ftp://127.0.0.1:9001",
        ] {
            assert!(!is_of(origin.as_bytes(), b"127.0.0.1:9001"), "{origin}");
        }
    }
}
