//! What a token says (RFC 7519 §4), once its signature is good.
//!
//! JSON that is only passed on stays as it was signed, apart from line ends, which are whitespace
//! there and would end a message of the protocol.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::hooks::{Overrides, Subscribed};
use super::TokenError;

/// The claims by their names, each as its text.
pub(super) struct Claims<'a> {
    payload: &'a [u8],
    by_name: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

impl<'a> Claims<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, TokenError> {
        let Unique(by_name) = serde_json::from_slice(payload).map_err(|_| {
            TokenError::Invalid("its claims are not a JSON object, or one is there twice")
        })?;
        Ok(Self { payload, by_name })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// A claim of one type; `None` if it is not there, or null.
    pub(super) fn get<T: Deserialize<'a>>(
        &self,
        name: &str,
        problem: &'static str,
    ) -> Result<Option<T>, TokenError> {
        let Some(claim) = self.by_name.get(name) else {
            return Ok(None);
        };
        serde_json::from_str(claim.get()).map_err(|_| TokenError::Invalid(problem))
    }

    pub(super) fn text(
        &self,
        name: &str,
        problem: &'static str,
    ) -> Result<Option<String>, TokenError> {
        self.get(name, problem)
    }

    /// Whether it is good at `now`, and the second of Unix time from which on it is not; 0 for
    /// never.
    pub(super) fn check_time(&self, now: u64) -> Result<u64, TokenError> {
        // RFC 7519 §2: a NumericDate may have a fraction. Seconds are exact up to 2^53.
        #[allow(clippy::cast_precision_loss)]
        let now = now as f64;
        let exp: Option<f64> = self.get("exp", "exp is not a number")?;
        let nbf: Option<f64> = self.get("nbf", "nbf is not a number")?;
        // §4.1.4: "on or after which the JWT MUST NOT be accepted"
        if exp.is_some_and(|exp| now >= exp) || nbf.is_some_and(|nbf| now < nbf) {
            return Err(TokenError::Expired);
        }
        #[allow(clippy::cast_sign_loss)] // It is above `now`.
        Ok(exp.map_or(0, |exp| exp.ceil() as u64))
    }

    /// When the time of what the token opens is over: `expire_at` if it says so, else `exp`.
    pub(super) fn expire_at(&self, exp: u64) -> Result<u64, TokenError> {
        let expire_at = self.get("expire_at", "expire_at is not a whole number of seconds")?;
        Ok(expire_at.unwrap_or(exp))
    }

    /// The texts of a claim that is a string or an array of strings (§4.1.3).
    pub(super) fn texts(
        &self,
        name: &str,
        problem: &'static str,
    ) -> Result<Vec<Cow<'a, str>>, TokenError> {
        if let Ok(Some(Text(one))) = self.get(name, problem) {
            return Ok(vec![one]);
        }
        let all: Option<Vec<Text<'_>>> = self.get(name, problem)?;
        Ok(all
            .unwrap_or_default()
            .into_iter()
            .map(|text| text.0)
            .collect())
    }

    /// What is said of one subscription.
    pub(super) fn subscribed(&self) -> Result<Subscribed, TokenError> {
        let own: Subscription<'_> = serde_json::from_slice(self.payload)
            .map_err(|_| TokenError::Invalid("info, data or override is not what it should be"))?;
        own.read()
    }

    /// Channels, each with what is said of the subscription.
    pub(super) fn subs(&self) -> Result<Vec<(String, Subscribed)>, TokenError> {
        let subs = self.get("subs", "subs is not an object of subscriptions")?;
        let Unique::<Subscription<'_>>(subs) = subs.unwrap_or_default();
        let read = |(channel, sub): (Cow<'_, str>, Subscription<'_>)| {
            Ok((channel.into_owned(), sub.read()?))
        };
        subs.into_iter().map(read).collect()
    }

    /// The claim `info`, or what `b64info` has in its place.
    pub(super) fn info(&self) -> Result<String, TokenError> {
        let info = self.get("info", "info is not JSON")?;
        let encoded: Option<Text<'_>> = self.get("b64info", "b64info is not a string")?;
        json_of(info, encoded.as_ref(), "b64info is not JSON in base64")
    }

    pub(super) fn json(&self, name: &str) -> Result<String, TokenError> {
        let json = self.get(name, "it has a claim that is not JSON")?;
        Ok(json.map_or_else(String::new, in_one_line))
    }
}

/// What a token says of a subscription; it may be all of the token.
#[derive(Deserialize)]
struct Subscription<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Text<'a>>,
    #[serde(rename = "override")]
    overrides: Option<OverrideClaims>,
}

#[derive(Default, Deserialize)]
struct OverrideClaims {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_push_join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
}

#[derive(Deserialize)]
struct Flag {
    value: bool,
}

impl Subscription<'_> {
    fn read(self) -> Result<Subscribed, TokenError> {
        let (info, data) = (self.b64info.as_ref(), self.b64data.as_ref());
        let overrides = self.overrides.unwrap_or_default();
        let value = |flag: Option<Flag>| flag.map(|flag| flag.value);
        Ok(Subscribed {
            expire_at: 0,
            info: json_of(self.info, info, "b64info is not JSON in base64")?,
            data: data_of(self.data, data)?,
            overrides: Overrides {
                presence: value(overrides.presence),
                join_leave: value(overrides.join_leave),
                force_push_join_leave: value(overrides.force_push_join_leave),
                force_recovery: value(overrides.force_recovery),
                force_positioning: value(overrides.force_positioning),
            },
        })
    }
}

/// JSON in one line, or the bytes that are encoded, which come first.
fn data_of(plain: Option<&RawValue>, encoded: Option<&Text<'_>>) -> Result<Vec<u8>, TokenError> {
    match encoded.filter(|encoded| !encoded.0.is_empty()) {
        Some(Text(encoded)) => BASE64_STANDARD
            .decode(&**encoded)
            .map_err(|_| TokenError::Invalid("b64data is not base64")),
        None => json_of(plain, None, "").map(String::into_bytes),
    }
}

/// JSON in one line; what is encoded comes first.
fn json_of(
    plain: Option<&RawValue>,
    encoded: Option<&Text<'_>>,
    problem: &'static str,
) -> Result<String, TokenError> {
    let Some(Text(encoded)) = encoded.filter(|encoded| !encoded.0.is_empty()) else {
        return Ok(plain.map_or_else(String::new, in_one_line));
    };
    let invalid = TokenError::Invalid(problem);
    let bytes = BASE64_STANDARD.decode(&**encoded).map_err(|_| invalid)?;
    let json: &RawValue = serde_json::from_slice(&bytes).map_err(|_| invalid)?;
    Ok(in_one_line(json))
}

/// RFC 8259 §7: within a string a line end is escaped; elsewhere it is whitespace.
fn in_one_line(json: &RawValue) -> String {
    let text = json.get();
    if text.contains(['\n', '\r']) {
        text.replace(['\n', '\r'], "")
    } else {
        text.into()
    }
}

/// A string, borrowed where nothing in it is escaped.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object with no name twice: RFC 7519 §4 lets such tokens be rejected, and whoever signed one
/// may have meant the other value.
struct Unique<'a, T>(BTreeMap<Cow<'a, str>, T>);

impl<T> Default for Unique<'_, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<'de, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for UniqueVisitor<T> {
    type Value = Unique<'de, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut unique = BTreeMap::new();
        while let Some((Text(name), value)) = map.next_entry()? {
            match unique.entry(name) {
                Entry::Vacant(entry) => entry.insert(value),
                Entry::Occupied(_) => return Err(A::Error::custom("it is there twice")),
            };
        }
        Ok(Unique(unique))
    }
}
