//! The body of an answer.
//!
//! JSON within stays the text that it was, without line feeds: clients get it in messages of which
//! each line is one.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::{
    Connected, Outcome, Overrides, Publish, Refreshed, Refusal, Returned, Subscribed,
};

/// An answer of a backend that cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadAnswer;

/// What can be read from an answer.
pub(super) trait Readable: Outcome + 'static {
    /// What `result` looks like.
    type Wire: DeserializeOwned;

    /// Takes what it says.
    fn from_wire(wire: Self::Wire) -> Result<Self, BadAnswer>;
}

/// Reads what a backend has decided.
pub(super) fn read<T: Readable>(body: &[u8]) -> Result<Result<T, Refusal>, BadAnswer> {
    let answer: WireAnswer<T::Wire> = serde_json::from_slice(body).map_err(|_| BadAnswer)?;
    // One that says several things means the strictest.
    if let Some(disconnect) = answer.disconnect {
        return disconnect.into_refusal().map(Err);
    }
    if let Some(error) = answer.error {
        return error.into_refusal().map(Err);
    }
    T::from_wire(answer.result.ok_or(BadAnswer)?).map(Ok)
}

#[derive(Deserialize)]
struct WireAnswer<T> {
    result: Option<T>,
    error: Option<WireError>,
    disconnect: Option<WireDisconnect>,
}

#[derive(Deserialize)]
struct WireError {
    code: u32,
    message: Option<String>,
    temporary: Option<bool>,
}

impl WireError {
    fn into_refusal(self) -> Result<Refusal, BadAnswer> {
        // The codes below are for what clients find out themselves.
        if !(100..=1999).contains(&self.code) {
            return Err(BadAnswer);
        }
        Ok(Refusal::Error {
            code: self.code,
            message: self.message.unwrap_or_default(),
            temporary: self.temporary.unwrap_or(false),
        })
    }
}

#[derive(Deserialize)]
struct WireDisconnect {
    code: u16,
    reason: Option<String>,
}

impl WireDisconnect {
    fn into_refusal(self) -> Result<Refusal, BadAnswer> {
        if !(3000..=4999).contains(&self.code) {
            return Err(BadAnswer);
        }
        let mut reason = self.reason.unwrap_or_default();
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        Ok(Refusal::Disconnect {
            code: self.code,
            reason,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct WireConnected {
    user: Option<String>,
    expire_at: Option<u64>,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    meta: Option<Box<RawValue>>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, WireSubscribed>>,
}

impl Readable for Connected {
    type Wire = WireConnected;

    fn from_wire(wire: WireConnected) -> Result<Self, BadAnswer> {
        let subs = wire.subs.unwrap_or_default();
        let mut channels = wire.channels.unwrap_or_default();
        channels.retain(|channel| !subs.contains_key(channel));
        Ok(Self {
            user: wire.user.unwrap_or_default(),
            expire_at: wire.expire_at.unwrap_or(0),
            info: json(wire.info, wire.b64info)?,
            data: data(wire.data, wire.b64data)?,
            meta: json(wire.meta, None)?,
            channels,
            subs: subs
                .into_iter()
                .map(|(channel, wire)| Ok((channel, Subscribed::from_wire(wire)?)))
                .collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct WireSubscribed {
    expire_at: Option<u64>,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    r#override: Option<WireOverrides>,
}

impl Readable for Subscribed {
    type Wire = WireSubscribed;

    fn from_wire(wire: WireSubscribed) -> Result<Self, BadAnswer> {
        Ok(Self {
            expire_at: wire.expire_at.unwrap_or(0),
            info: json(wire.info, wire.b64info)?,
            data: data(wire.data, wire.b64data)?,
            overrides: wire.r#override.unwrap_or_default().into_overrides(),
        })
    }
}

#[derive(Default, Deserialize)]
struct WireOverrides {
    presence: Option<WireFlag>,
    join_leave: Option<WireFlag>,
    force_push_join_leave: Option<WireFlag>,
    force_recovery: Option<WireFlag>,
    force_positioning: Option<WireFlag>,
}

/// In an object, so that `false` differs from nothing where both are left out.
#[derive(Deserialize)]
struct WireFlag {
    #[serde(default)]
    value: bool,
}

impl WireOverrides {
    fn into_overrides(self) -> Overrides {
        let value = |flag: Option<WireFlag>| flag.map(|flag| flag.value);
        Overrides {
            presence: value(self.presence),
            join_leave: value(self.join_leave),
            force_push_join_leave: value(self.force_push_join_leave),
            force_recovery: value(self.force_recovery),
            force_positioning: value(self.force_positioning),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WirePublish {
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    skip_history: Option<bool>,
}

impl Readable for Publish {
    type Wire = WirePublish;

    fn from_wire(wire: WirePublish) -> Result<Self, BadAnswer> {
        let data = data(wire.data, wire.b64data)?;
        Ok(Self {
            data: (!data.is_empty()).then_some(data),
            skip_history: wire.skip_history.unwrap_or(false),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct WireReturned {
    /// A method may well return `null`.
    #[serde(default, deserialize_with = "with_null")]
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
}

impl Readable for Returned {
    type Wire = WireReturned;

    fn from_wire(wire: WireReturned) -> Result<Self, BadAnswer> {
        Ok(Self {
            data: data(wire.data, wire.b64data)?,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct WireRefreshed {
    expired: Option<bool>,
    expire_at: Option<u64>,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
}

impl Readable for Refreshed {
    type Wire = WireRefreshed;

    fn from_wire(wire: WireRefreshed) -> Result<Self, BadAnswer> {
        Ok(Self {
            expired: wire.expired.unwrap_or(false),
            expire_at: wire.expire_at.unwrap_or(0),
            info: json(wire.info, wire.b64info)?,
        })
    }
}

/// What a client is told, as JSON or as bytes; empty if neither is there.
fn data(raw: Option<Box<RawValue>>, in_base64: Option<String>) -> Result<Vec<u8>, BadAnswer> {
    match in_base64.filter(|text| !text.is_empty()) {
        Some(text) => STANDARD.decode(text).map_err(|_| BadAnswer),
        None => json(raw, None).map(String::into_bytes),
    }
}

/// The text of a value that comes in one of two forms; empty if in none.
fn json(raw: Option<Box<RawValue>>, in_base64: Option<String>) -> Result<String, BadAnswer> {
    let raw = match in_base64.filter(|text| !text.is_empty()) {
        Some(text) => {
            let bytes = STANDARD.decode(text).map_err(|_| BadAnswer)?;
            Some(serde_json::from_slice(&bytes).map_err(|_| BadAnswer)?)
        }
        None => raw,
    };
    let mut text = raw.map_or_else(String::new, |raw| Box::<str>::from(raw).into_string());
    // In JSON they are never part of a value.
    text.retain(|c| c != '\n');
    Ok(text)
}

fn with_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// RFC 6455 §5.5: a control frame carries 125 bytes, of which 2 are the code.
const MAX_REASON: usize = 123;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn result<T: Readable>(json: &str) -> T {
        read(json.as_bytes()).unwrap().unwrap()
    }

    fn refusal(json: &str) -> Refusal {
        read::<Publish>(json.as_bytes()).unwrap().unwrap_err()
    }

    fn is_bad<T: Readable + std::fmt::Debug>(json: &str) {
        assert_eq!(read::<T>(json.as_bytes()).unwrap_err(), BadAnswer, "{json}");
    }

    #[test]
    fn connect_result_says_everything() {
        let connected: Connected = result(
            r#"{"result":{"user":"42","expire_at":1893456000,"info":{"name":"Ann"},"data":[1, 2],
            "meta":{"n":12345678901234567890},"channels":["news","own"],"subs":{"own":{"expire_at":7,
            "info":1,"data":"x","override":{"presence":{"value":true},"join_leave":{"value":false},
            "force_push_join_leave":{},"force_recovery":null}}},"caps":[]}}"#,
        );
        let own = Subscribed {
            expire_at: 7,
            info: "1".into(),
            data: r#""x""#.into(),
            overrides: Overrides {
                presence: Some(true),
                join_leave: Some(false),
                force_push_join_leave: Some(false),
                force_recovery: None,
                force_positioning: None,
            },
        };
        let expected = Connected {
            user: "42".into(),
            expire_at: 1_893_456_000,
            info: r#"{"name":"Ann"}"#.into(),
            data: "[1, 2]".into(),
            meta: r#"{"n":12345678901234567890}"#.into(),
            channels: vec!["news".into()], // `own` is said more of.
            subs: vec![("own".into(), own)],
        };
        assert_eq!(connected, expected);
    }

    #[test]
    fn empty_result_allows_and_says_nothing_more() {
        assert_eq!(
            result::<Connected>(r#"{"result":{}}"#),
            Connected::default()
        );
        assert_eq!(
            result::<Subscribed>(r#"{"result":{}}"#),
            Subscribed::default()
        );
        assert_eq!(result::<Publish>(r#"{"result":{}}"#), Publish::default());
        assert_eq!(result::<Returned>(r#"{"result":{}}"#), Returned::default());
        assert_eq!(
            result::<Refreshed>(r#"{"result":{}}"#),
            Refreshed::default()
        );
    }

    #[test]
    fn null_is_nothing() {
        let all = r#"{"error":null,"disconnect":null,"result":{"user":null,"expire_at":null,
            "info":null,"b64info":null,"data":null,"b64data":null,"meta":null,"channels":null,
            "subs":null,"override":null,"skip_history":null,"expired":null}}"#;
        assert_eq!(result::<Connected>(all), Connected::default());
        assert_eq!(result::<Subscribed>(all), Subscribed::default());
        assert_eq!(result::<Publish>(all), Publish::default());
        assert_eq!(result::<Refreshed>(all), Refreshed::default());
    }

    #[test]
    fn method_may_return_null() {
        let returned: Returned = result(r#"{"result":{"data":null}}"#);
        assert_eq!(returned.data, b"null");
    }

    #[test]
    fn publish_result_replaces_data() {
        let publish: Publish = result(r#"{"result":{"data":{"a":1},"skip_history":true}}"#);
        let expected = Publish {
            data: Some(r#"{"a":1}"#.into()),
            skip_history: true,
        };
        assert_eq!(publish, expected);
    }

    #[test]
    fn refresh_result_says_whether_it_is_over() {
        let refreshed: Refreshed = result(r#"{"result":{"expired":true}}"#);
        assert!(refreshed.expired);
        let refreshed: Refreshed = result(r#"{"result":{"expire_at":9,"info":{}}}"#);
        let expected = Refreshed {
            expired: false,
            expire_at: 9,
            info: "{}".into(),
        };
        assert_eq!(refreshed, expected);
    }

    #[test]
    fn base64_wins_and_what_others_see_is_json() {
        let bytes = b"{\n\"a\": 1}\n";
        let encoded = STANDARD.encode(bytes);
        let body = format!(
            r#"{{"result":{{"data":2,"b64data":"{encoded}","info":3,"b64info":"{encoded}"}}}}"#
        );
        let json = r#"{"a": 1}"#;
        let connected: Connected = result(&body);
        assert_eq!((&*connected.data, &*connected.info), (&bytes[..], json));
        let subscribed: Subscribed = result(&body);
        assert_eq!((&*subscribed.data, &*subscribed.info), (&bytes[..], json));
        assert_eq!(result::<Publish>(&body).data.as_deref(), Some(&bytes[..]));
        assert_eq!(result::<Returned>(&body).data, bytes);
        assert_eq!(result::<Refreshed>(&body).info, json);
    }

    #[test]
    fn base64_of_nothing_is_nothing() {
        let returned: Returned = result(r#"{"result":{"data":2,"b64data":""}}"#);
        assert_eq!(returned.data, b"2");
    }

    #[test]
    fn base64_of_something_else_than_json_is_bad_where_others_see_it() {
        for bytes in [&b"hello"[..], b"1 2", b" ", b"\"\xff\""] {
            let encoded = STANDARD.encode(bytes);
            is_bad::<Refreshed>(&format!(r#"{{"result":{{"b64info":"{encoded}"}}}}"#));
        }
        is_bad::<Publish>(r#"{"result":{"b64data":"MQ"}}"#);
        is_bad::<Publish>(r#"{"result":{"b64data":"?"}}"#);
    }

    #[test]
    fn error_is_passed_on() {
        let expected = Refusal::Error {
            code: 1000,
            message: "not today".into(),
            temporary: true,
        };
        let body = r#"{"error":{"code":1000,"message":"not today","temporary":true}}"#;
        assert_eq!(refusal(body), expected);
        let expected = Refusal::Error {
            code: 103,
            message: String::new(),
            temporary: false,
        };
        assert_eq!(refusal(r#"{"error":{"code":103}}"#), expected);
    }

    #[test]
    fn disconnect_wins_over_error_and_error_over_result() {
        let expected = Refusal::Disconnect {
            code: 4500,
            reason: "banned".into(),
        };
        let body =
            r#"{"result":{},"error":{"code":400},"disconnect":{"code":4500,"reason":"banned"}}"#;
        assert_eq!(refusal(body), expected);
        assert!(matches!(
            refusal(r#"{"result":{},"error":{"code":400}}"#),
            Refusal::Error { code: 400, .. }
        ));
    }

    #[test]
    fn long_reason_is_cut_between_characters() {
        let body = format!(
            r#"{{"disconnect":{{"code":4000,"reason":"{}ä"}}}}"#,
            "x".repeat(122)
        );
        let Refusal::Disconnect { reason, .. } = refusal(&body) else {
            panic!("no disconnect");
        };
        assert_eq!(reason, "x".repeat(122));
    }

    #[test]
    fn answer_that_decides_nothing_is_bad() {
        for body in [
            "",
            "{}",
            "null",
            "[]",
            "ok",
            r#"{"result":null}"#,
            r#"{"result":[1]}"#,
        ] {
            is_bad::<Connected>(body);
            is_bad::<Publish>(body);
        }
        is_bad::<Connected>(r#"{"result":{"user":42}}"#);
        is_bad::<Connected>(r#"{"result":{"expire_at":-1}}"#);
        is_bad::<Connected>(r#"{"result":{}} {}"#);
    }

    #[test]
    fn codes_of_others_are_bad() {
        for code in ["0", "99", "2000", "-1", "\"400\""] {
            is_bad::<Publish>(&format!(r#"{{"error":{{"code":{code}}}}}"#));
        }
        for code in ["0", "1000", "2999", "5000", "65536"] {
            is_bad::<Publish>(&format!(r#"{{"disconnect":{{"code":{code}}}}}"#));
        }
        is_bad::<Publish>(r#"{"error":{}}"#);
        is_bad::<Publish>(r#"{"disconnect":{}}"#);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            ".*".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_keeps_its_value_and_loses_its_line_feeds(value in any_json()) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            let body = format!("{{\"result\":{{\"data\":{text},\"info\":{text},\"meta\":\n{text}\n}}}}");
            let connected: Connected = result(&body);
            for text in [&connected.data, connected.info.as_bytes(), connected.meta.as_bytes()] {
                prop_assert!(!text.contains(&b'\n'));
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(text).unwrap(), &value);
            }
        }

        #[test]
        fn no_answer_panics(
            body in r#"[\[\]{}:,"]{0,4}("(result|error|disconnect|code|b64data|subs)"[:{}]{0,2}(null|1|"a="|\{\}|[0-9]{1,6})?[,}]{0,3}){0,4}.{0,8}"#,
        ) {
            let _ = read::<Connected>(body.as_bytes());
            if let Ok(Ok(publish)) = read::<Publish>(body.as_bytes()) {
                prop_assert!(publish.data.is_none_or(|data| !data.is_empty()));
            }
        }
    }
}
