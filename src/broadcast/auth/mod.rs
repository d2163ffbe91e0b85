//! Tokens: who a client is, signed by somebody who knows (RFC 7519).

use super::hooks::{Connected, Subscribed};

/// Which tokens are good; without a key, none is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRules {
    /// For HS256, HS384 and HS512.
    pub hmac_secret_key: Option<String>,
    /// The secret before that one, good for as long as tokens of it live.
    pub hmac_previous_secret_key: Option<String>,
    /// For RS256, RS384 and RS512; PEM.
    pub rsa_public_key: Option<String>,
    /// For ES256 and ES384; PEM.
    pub ecdsa_public_key: Option<String>,
    /// Where a set of keys is (RFC 7517): `file:PATH`, a path, or an http or https URL.
    pub jwks: Option<String>,
    /// What the `aud` claim must hold.
    pub audience: Option<String>,
    /// What the `iss` claim must be.
    pub issuer: Option<String>,
    /// The claim that names the user; `sub` without it.
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

/// A key cannot be used: by the name that the configuration has for it, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSetupError {
    /// Such as `hmac_secret_key`.
    pub key: &'static str,
    /// In one line.
    pub problem: String,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    /// It was good, or will be.
    Expired,
    /// It is not good, and why.
    Invalid(&'static str),
    /// It names a key that is being fetched.
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
pub(super) struct Tokens {}

impl Tokens {
    /// Reads the keys.
    pub(super) fn new(rules: &TokenRules) -> Result<Self, TokenSetupError> {
        todo!()
    }

    /// Who connects with a token, at `now` in seconds of Unix time.
    pub(super) fn connection(&self, token: &str, now: u64) -> Result<Connected, TokenError> {
        todo!()
    }

    /// Who subscribes to what with a token, at `now` in seconds of Unix time.
    pub(super) fn subscription(
        &self,
        token: &str,
        now: u64,
    ) -> Result<SubscriptionToken, TokenError> {
        todo!()
    }
}
