//! Tokens: who a client is, signed by somebody who knows (RFC 7519).
//!
//! ```text
//! token ─▶ signature: key, jwks ◀─ source: a file or a server
//!             │
//!             └─▶ claims ─▶ Connected, SubscriptionToken
//! ```
//!
//! What a token allows is decided elsewhere; here it is only good or not.

mod claims;
mod jwks;
mod key;
mod source;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use regex::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use self::claims::Claims;
use self::jwks::Verdict;
use self::key::{Algorithm, Key};
pub(super) use self::source::KeyCounts;
use self::source::KeySource;
use super::hooks::{Connected, Subscribed};

/// Which tokens are good; without a key, none is.
#[derive(Clone, Default)]
pub struct TokenRules {
    /// For HS256, HS384 and HS512.
    pub hmac_secret_key: Option<String>,
    /// The secret before that one, good for as long as tokens of it live.
    pub hmac_previous_secret_key: Option<String>,
    /// For RS256, RS384 and RS512, of 2048 to 8192 bits; PEM.
    pub rsa_public_key: Option<String>,
    /// For ES256, ES384 or ES512, whichever its curve is for; PEM.
    pub ecdsa_public_key: Option<String>,
    /// Where a set of keys is (RFC 7517): `file:PATH`, a path, or an http or https URL.
    ///
    /// A file is read again when it has changed; a URL every minute, and when a token names a key
    /// that is not in the set. The keys are for RS, ES and `EdDSA`.
    pub jwks: Option<String>,
    /// What the `aud` claim must hold.
    pub audience: Option<String>,
    /// ...or what must be found in one of its texts; `^` and `$` are for who writes it to say.
    pub audience_regex: Option<Regex>,
    /// What the `iss` claim must be.
    pub issuer: Option<String>,
    /// ...or what must be found in it; `^` and `$` are for who writes it to say.
    pub issuer_regex: Option<Regex>,
    /// The claim that names the user, a string; `sub` without it.
    pub user_id_claim: Option<String>,
}

impl TokenRules {
    /// Whether any token can be good.
    pub fn is_some(&self) -> bool {
        self.hmac_secret_key.is_some()
            || self.rsa_public_key.is_some()
            || self.ecdsa_public_key.is_some()
            || self.jwks.is_some()
    }
}

/// Without the secrets.
impl fmt::Debug for TokenRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "...");
        f.debug_struct("TokenRules")
            .field("hmac_secret_key", &hidden(&self.hmac_secret_key))
            .field(
                "hmac_previous_secret_key",
                &hidden(&self.hmac_previous_secret_key),
            )
            .field("rsa_public_key", &self.rsa_public_key)
            .field("ecdsa_public_key", &self.ecdsa_public_key)
            .field("jwks", &self.jwks)
            .field("audience", &self.audience)
            .field("audience_regex", &self.audience_regex)
            .field("issuer", &self.issuer)
            .field("issuer_regex", &self.issuer_regex)
            .field("user_id_claim", &self.user_id_claim)
            .finish()
    }
}

/// A key cannot be used: by the name that the configuration has for it, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSetupError {
    /// Such as `hmac_secret_key`.
    pub key: &'static str,
    /// In one line.
    pub problem: String,
}

impl fmt::Display for TokenSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for TokenSetupError {}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    /// It was good, or will be.
    Expired,
    /// It is not good, and why.
    Invalid(&'static str),
    /// It names a key that is being fetched.
    ///
    /// So does a forged token, for as long as it is tried.
    Unknown,
}

/// A token with which a client subscribes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SubscriptionToken {
    pub(super) user: String,
    pub(super) channel: String,
    pub(super) subscribed: Subscribed,
}

/// The keys, ready to verify.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    checks: Checks,
    source: Option<KeySource>,
}

/// What there is beside a set of keys.
#[derive(Debug, Default)]
struct Checks {
    keys: Vec<Key>,
    audience: Option<Expected>,
    issuer: Option<Expected>,
    user_id_claim: Option<String>,
}

/// What a claim must be.
#[derive(Debug)]
enum Expected {
    Exactly(String),
    Matching(Regex),
}

/// Bytes of a token: as many as a message has by default. More would only be hashed.
const MAX_TOKEN: usize = 64 * 1024;

impl Tokens {
    /// Reads the keys; a set of keys from a URL within 5 seconds.
    ///
    /// # Errors
    ///
    /// If one cannot be used, or what is said of the claims contradicts itself.
    pub(super) fn new(rules: &TokenRules) -> Result<Self, TokenSetupError> {
        let mut tokens = Self::default();
        tokens.reload(rules)?;
        Ok(tokens)
    }

    /// Takes other keys from now on. A set of keys from the same place is kept, and read again soon.
    ///
    /// # Errors
    ///
    /// As with [`Tokens::new`]: then all stays as it was.
    pub(super) fn reload(&mut self, rules: &TokenRules) -> Result<(), TokenSetupError> {
        let checks = Checks::new(rules)?;
        match (&self.source, &rules.jwks) {
            (Some(source), Some(place)) if source.is_at(place) => source.ask(),
            (_, Some(place)) => {
                let opened = KeySource::open(place);
                self.source = Some(opened.map_err(|problem| wrong("jwks", problem))?);
            }
            (_, None) => self.source = None,
        }
        self.checks = checks;
        Ok(())
    }

    /// What became of the set of keys, if there is one.
    pub(super) fn key_counts(&self) -> Option<KeyCounts> {
        self.source.as_ref().map(KeySource::counts)
    }

    /// Who connects with a token, at `now` in seconds of Unix time.
    ///
    /// With `subs`, the claim `channels` says nothing. An `expire_at` that is over is not an error
    /// here.
    pub(super) fn connection(&self, token: &str, now: u64) -> Result<Connected, TokenError> {
        let payload = self.verify(token)?;
        let claims = Claims::parse(&payload)?;
        if claims.has("channel") {
            return Err(TokenError::Invalid("it is for subscribing"));
        }
        let exp = self.checks.check(&claims, now)?;
        let channels = claims.get("channels", "channels is not an array of strings")?;
        let subs = claims.subs()?;
        Ok(Connected {
            user: self.checks.user(&claims)?,
            expire_at: claims.expire_at(exp)?,
            info: claims.info()?,
            data: Vec::new(),
            meta: claims.json("meta")?,
            channels: channels.filter(|_| subs.is_empty()).unwrap_or_default(),
            subs,
        })
    }

    /// Who subscribes to what with a token, at `now` in seconds of Unix time.
    ///
    /// An `expire_at` that is over is not an error here.
    pub(super) fn subscription(
        &self,
        token: &str,
        now: u64,
    ) -> Result<SubscriptionToken, TokenError> {
        let payload = self.verify(token)?;
        let claims = Claims::parse(&payload)?;
        let exp = self.checks.check(&claims, now)?;
        let channel = claims.get("channel", "channel is not a string")?;
        Ok(SubscriptionToken {
            user: self.checks.user(&claims)?,
            channel: channel
                .filter(|channel: &String| !channel.is_empty())
                .ok_or(TokenError::Invalid("it names no channel"))?,
            subscribed: Subscribed {
                expire_at: claims.expire_at(exp)?,
                ..claims.subscribed()?
            },
        })
    }

    /// The claims of a token whose signature is good.
    fn verify(&self, token: &str) -> Result<Vec<u8>, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Invalid("it is too long"));
        }
        // RFC 7515 §7.1: header, payload and signature, with a dot in between.
        let parts = token.rsplit_once('.');
        let (message, signature) = parts.ok_or(TokenError::Invalid("it has no dots"))?;
        let parts = message.split_once('.');
        let (header, payload) = parts.ok_or(TokenError::Invalid("it has one dot"))?;
        let header = decoded(header)?;
        let header = Header::parse(&header)?;
        self.check_signature(&header, message.as_bytes(), &decoded(signature)?)?;
        decoded(payload)
    }

    fn check_signature(
        &self,
        header: &Header<'_>,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Result<(), TokenError> {
        let algorithm = Algorithm::named(&header.alg);
        let algorithm = algorithm.ok_or(TokenError::Invalid("its algorithm is not supported"))?;
        let mut own = self.checks.keys.iter();
        if own.any(|key| key.verifies(algorithm, message, signature)) {
            return Ok(());
        }
        let bad = Err(TokenError::Invalid("it is signed by somebody else"));
        let Some(source) = self.source.as_ref().filter(|_| !algorithm.is_symmetric()) else {
            return bad;
        };
        let name = header.kid.as_deref();
        match source.keys().judge(name, algorithm, message, signature) {
            Verdict::Good => Ok(()),
            Verdict::Bad => bad,
            Verdict::UnknownKey => {
                source.ask();
                Err(TokenError::Unknown)
            }
        }
    }
}

/// How a token is signed (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    crit: Option<IgnoredAny>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, TokenError> {
        let header: Self = serde_json::from_slice(text)
            .map_err(|_| TokenError::Invalid("its header is not what it should be"))?;
        // §4.1.11: "If any of the listed extension Header Parameters are not understood and
        // supported by the recipient, then the JWS is invalid." None is.
        match header.crit {
            Some(_) => Err(TokenError::Invalid("its header has extensions")),
            None => Ok(header),
        }
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, TokenError> {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(part);
    decoded.map_err(|_| TokenError::Invalid("it is not in base64url"))
}

impl Checks {
    fn new(rules: &TokenRules) -> Result<Self, TokenSetupError> {
        if rules.hmac_previous_secret_key.is_some() && rules.hmac_secret_key.is_none() {
            let problem = "it is of use beside `hmac_secret_key` only";
            return Err(wrong("hmac_previous_secret_key", problem));
        }
        if rules.user_id_claim.as_deref() == Some("") {
            return Err(wrong("user_id_claim", "it is empty"));
        }
        let keys = [
            made("hmac_secret_key", rules.hmac_secret_key.as_deref(), secret)?,
            made(
                "hmac_previous_secret_key",
                rules.hmac_previous_secret_key.as_deref(),
                secret,
            )?,
            made(
                "rsa_public_key",
                rules.rsa_public_key.as_deref(),
                Key::of_rsa_pem,
            )?,
            made(
                "ecdsa_public_key",
                rules.ecdsa_public_key.as_deref(),
                Key::of_ec_pem,
            )?,
        ];
        Ok(Self {
            keys: keys.into_iter().flatten().collect(),
            audience: expected(
                "audience_regex",
                rules.audience.as_deref(),
                rules.audience_regex.as_ref(),
            )?,
            issuer: expected(
                "issuer_regex",
                rules.issuer.as_deref(),
                rules.issuer_regex.as_ref(),
            )?,
            user_id_claim: rules.user_id_claim.clone(),
        })
    }

    /// Checks whose it is, whom it is for, and whether it is good at `now`; says until when.
    fn check(&self, claims: &Claims<'_>, now: u64) -> Result<u64, TokenError> {
        if let Some(expected) = &self.audience {
            let audiences = claims.texts("aud", "aud is not a string or an array of strings")?;
            if !audiences.iter().any(|audience| expected.is(audience)) {
                return Err(TokenError::Invalid("it is for somebody else"));
            }
        }
        if let Some(expected) = &self.issuer {
            let issuer = claims.text("iss", "iss is not a string")?;
            if !issuer.is_some_and(|issuer| expected.is(&issuer)) {
                return Err(TokenError::Invalid("it is issued by somebody else"));
            }
        }
        claims.check_time(now)
    }

    /// The user; empty for an anonymous one.
    fn user(&self, claims: &Claims<'_>) -> Result<String, TokenError> {
        let name = self.user_id_claim.as_deref().unwrap_or("sub");
        let user = claims.text(name, "the claim of the user is not a string")?;
        Ok(user.unwrap_or_default())
    }
}

impl Expected {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Exactly(expected) => expected == text,
            Self::Matching(regex) => regex.is_match(text),
        }
    }
}

/// What a claim must be, said in one way or not at all.
fn expected(
    name: &'static str,
    text: Option<&str>,
    regex: Option<&Regex>,
) -> Result<Option<Expected>, TokenSetupError> {
    match (text, regex) {
        (Some(_), Some(_)) => Err(wrong(name, "the same is said without `_regex` as well")),
        (Some(text), None) => Ok(Some(Expected::Exactly(text.into()))),
        (None, Some(regex)) => Ok(Some(Expected::Matching(regex.clone()))),
        (None, None) => Ok(None),
    }
}

fn made(
    name: &'static str,
    text: Option<&str>,
    make: fn(&str) -> Result<Key, &'static str>,
) -> Result<Option<Key>, TokenSetupError> {
    let key = text.map(make).transpose();
    key.map_err(|problem| wrong(name, problem))
}

fn secret(text: &str) -> Result<Key, &'static str> {
    if text.is_empty() {
        return Err("it is empty: anyone could sign");
    }
    // A public key is known to everyone, and tokens signed with it as a secret are forged.
    if text.contains("-----BEGIN ") {
        return Err("it is PEM, where a secret belongs");
    }
    Ok(Key::of_secret(text))
}

fn wrong(key: &'static str, problem: impl Into<String>) -> TokenSetupError {
    TokenSetupError {
        key,
        problem: problem.into(),
    }
}
