//! A set of public keys (RFC 7517 §5).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{Algorithm, Key};

/// Of one set: an issuer has a handful, and each is a candidate for tokens that name none.
const MAX_KEYS: usize = 64;

/// Tried for a token that names no key: a forged one must not cost more than that.
const MAX_TRIED: usize = 8;

/// Keys by the names that tokens have for them.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<(Option<Box<str>>, Key)>,
    skipped: usize,
}

/// What a set says of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    /// It is said to be of a key that is not in the set.
    UnknownKey,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow, rename = "use")]
    usage: Option<Cow<'a, str>>,
    #[serde(borrow)]
    alg: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    crv: Cow<'a, str>,
    #[serde(borrow, default)]
    n: Cow<'a, str>,
    #[serde(borrow, default)]
    e: Cow<'a, str>,
    #[serde(borrow, default)]
    x: Cow<'a, str>,
    #[serde(borrow, default)]
    y: Cow<'a, str>,
}

impl KeySet {
    /// Reads a set. A key that cannot be used is skipped and counted: it may be for somebody else.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let document: Document<'_> =
            serde_json::from_slice(text).map_err(|_| "it is not a JSON object with `keys`")?;
        let mut set = Self::default();
        for jwk in document.keys {
            match usable(jwk) {
                Some(key) if set.keys.len() < MAX_KEYS => set.keys.push(key),
                _ => set.skipped += 1,
            }
        }
        Ok(set)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Keys that cannot be used.
    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    /// Judges a signature by the key that is named, or by all that it may be of.
    pub(super) fn judge(
        &self,
        name: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Verdict {
        let is_named = |own: &Option<Box<str>>| name.is_none() || own.as_deref() == name;
        let mut named = self.keys.iter().filter(|(own, _)| is_named(own)).peekable();
        if name.is_some() && named.peek().is_none() {
            return Verdict::UnknownKey;
        }
        let candidates = named.filter(|(_, key)| key.is_for(algorithm));
        let mut tried = candidates.take(MAX_TRIED);
        if tried.any(|(_, key)| key.verifies(algorithm, message, signature)) {
            return Verdict::Good;
        }
        Verdict::Bad
    }
}

/// A key that verifies signatures, with its name.
fn usable(jwk: &RawValue) -> Option<(Option<Box<str>>, Key)> {
    let jwk: Jwk<'_> = serde_json::from_str(jwk.get()).ok()?;
    // §4.2: "sig" or "enc"; without it, either.
    if jwk.usage.is_some_and(|usage| usage != "sig") {
        return None;
    }
    // A secret (`oct`) has no place in a set that anyone may read.
    let key = match &*jwk.kty {
        "RSA" => Key::of_rsa_numbers(&jwk.n, &jwk.e),
        "EC" => Key::of_coordinates(&jwk.crv, &jwk.x, &jwk.y),
        "OKP" if jwk.crv == "Ed25519" => Key::of_ed25519(&jwk.x),
        _ => return None,
    };
    let key = match jwk.alg {
        Some(name) => key.ok()?.only(Algorithm::named(&name)?)?,
        None => key.ok()?,
    };
    Some((jwk.kid.map(|kid| kid.into_owned().into_boxed_str()), key))
}
