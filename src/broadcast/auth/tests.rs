use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as URL};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::hooks::Overrides;
use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "correct horse battery staple";

// ---- who signs ----

/// All that can sign, made once: an RSA key takes its time.
struct Signers {
    rsa: RsaKeyPair,
    other_rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    p521: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

fn signers() -> &'static Signers {
    static SIGNERS: OnceLock<Signers> = OnceLock::new();
    SIGNERS.get_or_init(|| Signers {
        rsa: RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
        other_rsa: RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
        p256: EcdsaKeyPair::generate(&sig::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        p384: EcdsaKeyPair::generate(&sig::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
        p521: EcdsaKeyPair::generate(&sig::ECDSA_P521_SHA512_FIXED_SIGNING).unwrap(),
        ed: Ed25519KeyPair::generate().unwrap(),
    })
}

const ALGORITHMS: [&str; 10] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA",
];

fn signature(algorithm: &str, message: &[u8]) -> Vec<u8> {
    let all = signers();
    match algorithm {
        "HS256" => mac(hmac::HMAC_SHA256, SECRET.as_bytes(), message),
        "HS384" => mac(hmac::HMAC_SHA384, SECRET.as_bytes(), message),
        "HS512" => mac(hmac::HMAC_SHA512, SECRET.as_bytes(), message),
        "RS256" => rsa_signature(&all.rsa, &sig::RSA_PKCS1_SHA256, message),
        "RS384" => rsa_signature(&all.rsa, &sig::RSA_PKCS1_SHA384, message),
        "RS512" => rsa_signature(&all.rsa, &sig::RSA_PKCS1_SHA512, message),
        "ES256" => ec_signature(&all.p256, message),
        "ES384" => ec_signature(&all.p384, message),
        "ES512" => ec_signature(&all.p521, message),
        "EdDSA" => all.ed.sign(message).as_ref().to_vec(),
        other => panic!("nobody signs with {other}"),
    }
}

fn mac(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn rsa_signature(
    key: &RsaKeyPair,
    padding: &'static sig::RsaSignatureEncoding,
    message: &[u8],
) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(padding, &SystemRandom::new(), message, &mut signature)
        .unwrap();
    signature
}

fn ec_signature(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message)
        .unwrap()
        .as_ref()
        .to_vec()
}

fn encoded(header: &str, claims: &str) -> String {
    format!("{}.{}", URL.encode(header), URL.encode(claims))
}

fn with_signature(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", URL.encode(signature))
}

fn signed(algorithm: &str, kid: Option<&str>, claims: &Value) -> String {
    let mut header = json!({"alg": algorithm, "typ": "JWT"});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    let message = encoded(&header.to_string(), &claims.to_string());
    let signature = signature(algorithm, message.as_bytes());
    with_signature(&message, &signature)
}

/// A token of HS256 with these claims as they are.
fn hs256(claims: &str) -> String {
    let message = encoded(r#"{"alg":"HS256"}"#, claims);
    let signature = signature("HS256", message.as_bytes());
    with_signature(&message, &signature)
}

// ---- keys ----

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

fn rsa_pem(key: &RsaKeyPair) -> String {
    let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    pem(der.as_ref())
}

fn ec_pem(key: &EcdsaKeyPair) -> String {
    let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    pem(der.as_ref())
}

fn rsa_jwk(key: &RsaKeyPair, kid: &str) -> Value {
    let parts = sig::RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
    json!({"kty": "RSA", "kid": kid, "n": URL.encode(parts.n), "e": URL.encode(parts.e)})
}

fn ec_jwk(key: &EcdsaKeyPair, curve: &str, kid: &str) -> Value {
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "crv": curve, "kid": kid, "x": URL.encode(x), "y": URL.encode(y)})
}

fn ed_jwk(kid: &str) -> Value {
    let x = URL.encode(signers().ed.public_key().as_ref());
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
}

fn set_of_all() -> Value {
    let all = signers();
    json!({"keys": [
        rsa_jwk(&all.rsa, "r"),
        ec_jwk(&all.p256, "P-256", "e256"),
        ec_jwk(&all.p384, "P-384", "e384"),
        ec_jwk(&all.p521, "P-521", "e521"),
        ed_jwk("ed"),
    ]})
}

fn hmac_rules() -> TokenRules {
    TokenRules {
        hmac_secret_key: Some(SECRET.into()),
        ..TokenRules::default()
    }
}

/// The rules with the one key that algorithms of this family need.
fn rules_for(algorithm: &str, folder: &Folder) -> TokenRules {
    let all = signers();
    let mut rules = TokenRules::default();
    match algorithm {
        "HS256" | "HS384" | "HS512" => rules = hmac_rules(),
        "RS256" | "RS384" | "RS512" => rules.rsa_public_key = Some(rsa_pem(&all.rsa)),
        "ES256" => rules.ecdsa_public_key = Some(ec_pem(&all.p256)),
        "ES384" => rules.ecdsa_public_key = Some(ec_pem(&all.p384)),
        "ES512" => rules.ecdsa_public_key = Some(ec_pem(&all.p521)),
        _ => rules.jwks = Some(folder.put("ed.json", &json!({"keys": [ed_jwk("ed")]}).to_string())),
    }
    rules
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("stentor-auth-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        // In one step, as those who change a file in use do.
        let new = self.0.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        path.to_str().unwrap().into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hmac_tokens() -> Tokens {
    Tokens::new(&hmac_rules()).unwrap()
}

fn connects(claims: &str) -> Result<Connected, TokenError> {
    hmac_tokens().connection(&hs256(claims), NOW)
}

fn is_invalid<T: fmt::Debug>(result: &Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::Invalid(_)))
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

// ---- signatures ----

#[test]
fn each_algorithm_is_taken_with_its_key_and_with_no_other() {
    let folder = Folder::new();
    for configured in ALGORITHMS {
        let tokens = Tokens::new(&rules_for(configured, &folder)).unwrap();
        for used in ALGORITHMS {
            let token = signed(used, None, &json!({"sub": "42"}));
            let is_family = match configured {
                "ES256" | "ES384" | "ES512" => used == configured,
                _ => used[..2] == configured[..2],
            };
            let result = tokens.connection(&token, NOW);
            assert_eq!(
                result.is_ok(),
                is_family,
                "{used} with the key of {configured}"
            );
            assert!(is_family || is_invalid(&result), "{result:?}");
        }
    }
}

#[test]
fn keys_of_a_set_verify_by_name_and_without_one() {
    let folder = Folder::new();
    let path = folder.put("keys.json", &set_of_all().to_string());
    for place in [
        path.clone(),
        format!("file:{path}"),
        format!("file://{path}"),
    ] {
        let rules = TokenRules {
            jwks: Some(place),
            ..TokenRules::default()
        };
        let tokens = Tokens::new(&rules).unwrap();
        let names = [
            ("RS256", "r"),
            ("RS512", "r"),
            ("ES256", "e256"),
            ("ES384", "e384"),
        ];
        for (algorithm, name) in names
            .into_iter()
            .chain([("ES512", "e521"), ("EdDSA", "ed")])
        {
            let claims = json!({"sub": "42"});
            let of = |kid| tokens.connection(&signed(algorithm, kid, &claims), NOW);
            assert_eq!(of(Some(name)).unwrap().user, "42", "{algorithm}");
            assert_eq!(of(None).unwrap().user, "42", "{algorithm}");
            let other = if name == "r" { "ed" } else { "r" };
            assert!(
                is_invalid(&of(Some(other))),
                "{algorithm} by the name of another key"
            );
            assert_eq!(of(Some("nobody")), Err(TokenError::Unknown), "{algorithm}");
        }
        // Without a secret, a set makes none of itself.
        for name in ["r", "nobody"] {
            let token = signed("HS256", Some(name), &json!({}));
            assert!(is_invalid(&tokens.connection(&token, NOW)), "{name}");
        }
    }
}

#[test]
fn a_key_of_the_same_kind_that_is_not_ours_is_refused() {
    let rules = TokenRules {
        rsa_public_key: Some(rsa_pem(&signers().other_rsa)),
        ..TokenRules::default()
    };
    let token = signed("RS256", None, &json!({}));
    assert!(is_invalid(
        &Tokens::new(&rules).unwrap().connection(&token, NOW)
    ));
    let mut rules = hmac_rules();
    rules.hmac_secret_key = Some("another".into());
    assert!(is_invalid(
        &Tokens::new(&rules).unwrap().connection(&hs256("{}"), NOW)
    ));
}

#[test]
fn the_secret_before_is_good_as_well() {
    let rules = TokenRules {
        hmac_secret_key: Some("the next one".into()),
        hmac_previous_secret_key: Some(SECRET.into()),
        ..TokenRules::default()
    };
    let tokens = Tokens::new(&rules).unwrap();
    assert_eq!(
        tokens
            .connection(&hs256(r#"{"sub":"1"}"#), NOW)
            .unwrap()
            .user,
        "1"
    );
}

#[test]
fn a_public_key_is_no_secret() {
    let pem = rsa_pem(&signers().rsa);
    let message = encoded(r#"{"alg":"HS256"}"#, "{}");
    let forged = mac(hmac::HMAC_SHA256, pem.as_bytes(), message.as_bytes());
    let token = with_signature(&message, &forged);
    let rules = TokenRules {
        rsa_public_key: Some(pem.clone()),
        ..hmac_rules()
    };
    assert!(is_invalid(
        &Tokens::new(&rules).unwrap().connection(&token, NOW)
    ));
    let rules = TokenRules {
        hmac_secret_key: Some(pem),
        ..TokenRules::default()
    };
    assert_eq!(Tokens::new(&rules).unwrap_err().key, "hmac_secret_key");
}

#[test]
fn an_unsigned_token_is_refused() {
    let tokens = hmac_tokens();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS", "hs256", "PS256", "HS256 ",
    ] {
        let message = encoded(&json!({"alg": alg}).to_string(), r#"{"sub":"1"}"#);
        let by_secret = signature("HS256", message.as_bytes());
        for signature in [&[][..], &by_secret] {
            let token = with_signature(&message, signature);
            assert!(is_invalid(&tokens.connection(&token, NOW)), "{alg}");
        }
    }
}

#[test]
fn headers_that_are_not_understood_are_refused() {
    let tokens = hmac_tokens();
    for header in [
        "{}",
        "[]",
        "",
        "null",
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256"}}"#,
    ] {
        let message = encoded(header, "{}");
        let signature = signature("HS256", message.as_bytes());
        let result = tokens.connection(&with_signature(&message, &signature), NOW);
        assert!(is_invalid(&result), "{header}: {result:?}");
    }
}

#[test]
fn what_is_not_a_token_is_refused() {
    let token = hs256(r#"{"sub":"1"}"#);
    let tokens = hmac_tokens();
    assert!(tokens.connection(&token, NOW).is_ok());
    for end in 0..token.len() {
        assert!(is_invalid(&tokens.connection(&token[..end], NOW)), "{end}");
    }
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    for broken in [
        String::new(),
        "...".into(),
        "é.é.é".into(),
        format!("{token}="),
        format!("{token}."),
        format!("{token} "),
        format!(" {token}"),
        format!("{message}.{signature}.{signature}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}.+/+/"),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
    ] {
        assert!(is_invalid(&tokens.connection(&broken, NOW)), "{broken}");
    }
}

#[test]
fn a_token_that_is_too_long_is_not_looked_at() {
    let claims = |len| json!({"sub": "1", "info": "x".repeat(len)}).to_string();
    assert!(connects(&claims(40_000)).is_ok());
    assert_eq!(
        connects(&claims(60_000)),
        Err(TokenError::Invalid("it is too long"))
    );
    let long = "a.".repeat(10_000_000);
    assert!(is_invalid(&hmac_tokens().connection(&long, NOW)));
}

#[test]
fn without_a_key_nothing_is_good() {
    let tokens = Tokens::new(&TokenRules::default()).unwrap();
    for algorithm in ALGORITHMS {
        let token = signed(algorithm, None, &json!({"channel": "a"}));
        assert!(is_invalid(&tokens.connection(&token, NOW)));
        assert!(is_invalid(&tokens.subscription(&token, NOW)));
    }
}

proptest! {
    #[test]
    fn no_altered_token_verifies(at in any::<prop::sample::Index>(), with in any::<char>(), len in 0_usize..3) {
        let token = hs256(r#"{"sub":"1","exp":1900000000}"#);
        let start = at.index(token.len());
        let end = (start + len).min(token.len());
        let altered = format!("{}{with}{}", &token[..start], &token[end..]);
        prop_assume!(altered != token);
        prop_assert!(is_invalid(&hmac_tokens().connection(&altered, NOW)));
        prop_assert!(is_invalid(&hmac_tokens().subscription(&altered, NOW)));
    }

    #[test]
    fn no_text_and_no_claims_panic(text in ".{0,200}", claims in "[\\[\\]{}\":,a-z0-9.e-]{0,60}") {
        prop_assert!(hmac_tokens().connection(&text, NOW).is_err());
        let _ = connects(&claims);
        let _ = hmac_tokens().subscription(&hs256(&claims), NOW);
        let _ = jwks::KeySet::parse(claims.as_bytes());
    }
}

// ---- claims ----

#[test]
fn a_connection_has_what_its_token_says() {
    let claims = r#"{
        "sub": "42", "exp": 1800000600, "iat": 1, "jti": "x", "nbf": 1800000000,
        "info": {"name": "Ann",
                 "n": 12345678901234567890.10},
        "meta": [ 1.0,
                  2 ],
        "channels": ["news", "a\u0062c"], "unknown": {"a": [1]}
    }"#;
    let expected = Connected {
        user: "42".into(),
        expire_at: 1_800_000_600,
        info: r#"{"name": "Ann",                 "n": 12345678901234567890.10}"#.into(),
        data: Vec::new(),
        meta: "[ 1.0,                  2 ]".into(),
        channels: vec!["news".into(), "abc".into()],
        subs: Vec::new(),
    };
    assert_eq!(connects(claims), Ok(expected));
    assert_eq!(connects("{}"), Ok(Connected::default()));
}

#[test]
fn subs_win_over_channels() {
    let b64 = BASE64_STANDARD.encode("{\n\"a\":1}\r\n");
    let claims = json!({"channels": ["x"], "subs": {
        "a": {},
        "b": {"info": {"i": 1}, "data": [1], "override": {
            "presence": {"value": true}, "join_leave": {"value": false},
            "force_push_join_leave": {"value": true}, "force_recovery": {"value": false},
            "force_positioning": {"value": true}, "later": 1}},
        "c": {"info": 1, "b64info": b64, "data": 2, "b64data": b64},
    }});
    let connected = connects(&claims.to_string()).unwrap();
    let b = Subscribed {
        expire_at: 0,
        info: r#"{"i":1}"#.into(),
        data: "[1]".into(),
        overrides: Overrides {
            presence: Some(true),
            join_leave: Some(false),
            force_push_join_leave: Some(true),
            force_recovery: Some(false),
            force_positioning: Some(true),
        },
    };
    let c = Subscribed {
        info: r#"{"a":1}"#.into(),
        data: b"{\n\"a\":1}\r\n".into(),
        ..Subscribed::default()
    };
    let all = [("a", Subscribed::default()), ("b", b), ("c", c)];
    assert_eq!(
        connected.subs,
        all.map(|(name, sub)| (name.to_owned(), sub))
    );
    assert_eq!(connected.channels, Vec::<String>::new());
    let empty = connects(r#"{"channels":["x"],"subs":{}}"#).unwrap();
    assert_eq!(empty.channels, ["x"]);
}

#[test]
fn a_subscription_has_what_its_token_says() {
    let claims = json!({
        "sub": "42", "channel": "$news", "exp": NOW + 60, "info": {"a": 1}, "data": "x",
        "override": {"force_recovery": {"value": true}},
    });
    let token = hmac_tokens()
        .subscription(&hs256(&claims.to_string()), NOW)
        .unwrap();
    let expected = SubscriptionToken {
        user: "42".into(),
        channel: "$news".into(),
        subscribed: Subscribed {
            expire_at: NOW + 60,
            info: r#"{"a":1}"#.into(),
            data: r#""x""#.into(),
            overrides: Overrides {
                force_recovery: Some(true),
                ..Overrides::default()
            },
        },
    };
    assert_eq!(token, expected);
}

#[test]
fn a_token_for_one_purpose_is_not_for_the_other() {
    let token = hs256(r#"{"sub":"1","channel":"a"}"#);
    assert!(is_invalid(&hmac_tokens().connection(&token, NOW)));
    for claims in [
        r#"{"sub":"1"}"#,
        r#"{"channel":""}"#,
        r#"{"channel":null}"#,
        r#"{"channel":1}"#,
    ] {
        assert!(
            is_invalid(&hmac_tokens().subscription(&hs256(claims), NOW)),
            "{claims}"
        );
    }
}

#[test]
fn claims_of_another_type_make_a_token_invalid() {
    for claims in [
        "",
        "[]",
        "null",
        "1",
        "{",
        "{}x",
        r#"{"sub":1}"#,
        r#"{"sub":["1"]}"#,
        r#"{"exp":"1900000000"}"#,
        r#"{"exp":1e400}"#,
        r#"{"exp":true}"#,
        r#"{"exp":{}}"#,
        r#"{"nbf":"1"}"#,
        r#"{"expire_at":-1}"#,
        r#"{"expire_at":1.5}"#,
        r#"{"expire_at":"1"}"#,
        r#"{"expire_at":18446744073709551616}"#,
        r#"{"b64info":1}"#,
        r#"{"b64info":"*"}"#,
        r#"{"b64info":"eA=="}"#,
        r#"{"b64info":"Ik//Ig=="}"#,
        r#"{"channels":"a"}"#,
        r#"{"channels":[1]}"#,
        r#"{"subs":[]}"#,
        r#"{"subs":{"a":1}}"#,
        r#"{"subs":{"a":{"b64data":"*"}}}"#,
        r#"{"subs":{"a":{"override":{"presence":true}}}}"#,
    ] {
        let result = connects(claims);
        assert!(is_invalid(&result), "{claims}: {result:?}");
    }
    for claims in [
        r#"{"channel":"a","b64info":"eA=="}"#,
        r#"{"channel":"a","b64data":"*"}"#,
        r#"{"channel":"a","override":1}"#,
        r#"{"channel":"a","override":{"presence":{"value":1}}}"#,
        r#"{"channel":"a","expire_at":-1}"#,
    ] {
        assert!(
            is_invalid(&hmac_tokens().subscription(&hs256(claims), NOW)),
            "{claims}"
        );
    }
    let bytes = [b"{\"sub\":\"".as_slice(), &[0xff], b"\"}"].concat();
    let message = format!("{}.{}", URL.encode(r#"{"alg":"HS256"}"#), URL.encode(bytes));
    let token = with_signature(&message, &signature("HS256", message.as_bytes()));
    assert!(is_invalid(&hmac_tokens().connection(&token, NOW)));
}

#[test]
fn a_claim_that_is_there_twice_makes_a_token_invalid() {
    for claims in [
        r#"{"sub":"1","sub":"1"}"#,
        r#"{"sub":"1","\u0073ub":"2"}"#,
        r#"{"exp":1900000000,"exp":1900000001}"#,
        r#"{"x":1,"x":2}"#,
        r#"{"subs":{"a":{},"a":{}}}"#,
        r#"{"subs":{"a":{"info":1,"info":2}}}"#,
    ] {
        assert!(is_invalid(&connects(claims)), "{claims}");
    }
}

#[test]
fn deep_json_is_taken_as_it_is_or_not_at_all() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let connected = connects(&format!(r#"{{"info":{deep},"x":1}}"#)).unwrap();
    assert_eq!(connected.info, deep);
    for name in ["sub", "exp", "channels", "subs", "expire_at"] {
        assert!(
            is_invalid(&connects(&format!(r#"{{"{name}":{deep}}}"#))),
            "{name}"
        );
    }
    assert!(is_invalid(&connects(&deep)));
    let unclosed = format!(r#"{{"info":{}"#, "[".repeat(40_000));
    assert!(is_invalid(&connects(&unclosed)));
}

#[test]
fn a_token_is_good_from_nbf_to_exp() {
    let at = |claims: String| hmac_tokens().connection(&hs256(&claims), NOW);
    let expired = Err(TokenError::Expired);
    for exp in [
        "1800000000",
        "1799999999",
        "0",
        "-5",
        "-1e300",
        "1799999999.9",
        "1.8e9",
    ] {
        assert_eq!(at(format!(r#"{{"exp":{exp}}}"#)), expired, "{exp}");
    }
    for (exp, expire_at) in [
        ("1800000001", NOW + 1),
        ("1800000000.5", NOW + 1),
        ("1800000001.0", NOW + 1),
        ("1e300", u64::MAX),
        ("null", 0),
    ] {
        let connected = at(format!(r#"{{"exp":{exp}}}"#));
        assert_eq!(connected.map(|it| it.expire_at), Ok(expire_at), "{exp}");
    }
    for nbf in ["1800000001", "1800000000.5", "1e300"] {
        assert_eq!(at(format!(r#"{{"nbf":{nbf}}}"#)), expired, "{nbf}");
    }
    for nbf in ["1800000000", "0", "-1"] {
        assert!(at(format!(r#"{{"nbf":{nbf}}}"#)).is_ok(), "{nbf}");
    }
}

#[test]
fn expire_at_is_told_as_it_is() {
    for (claims, expire_at) in [
        (
            r#"{"exp":1800000060,"expire_at":1800000600}"#,
            1_800_000_600,
        ),
        (r#"{"exp":1800000060,"expire_at":0}"#, 0),
        (r#"{"exp":1800000060,"expire_at":7}"#, 7),
        (r#"{"exp":1800000060,"expire_at":null}"#, 1_800_000_060),
    ] {
        assert_eq!(connects(claims).unwrap().expire_at, expire_at, "{claims}");
        let token = hs256(&claims.replace('}', r#","channel":"a"}"#));
        let subscription = hmac_tokens().subscription(&token, NOW).unwrap();
        assert_eq!(subscription.subscribed.expire_at, expire_at, "{claims}");
    }
    let late = r#"{"exp":1700000000,"expire_at":1800000600}"#;
    assert_eq!(connects(late), Err(TokenError::Expired));
}

#[test]
fn info_in_base64_comes_first() {
    let b64 = BASE64_STANDARD.encode(" {\"a\":\r\n1.0} ");
    let claims = json!({"info": 1, "b64info": b64}).to_string();
    assert_eq!(connects(&claims).unwrap().info, r#"{"a":1.0}"#);
    assert_eq!(connects(r#"{"info":1,"b64info":""}"#).unwrap().info, "1");
    assert_eq!(connects(r#"{"info":null}"#).unwrap().info, "");
}

#[test]
fn a_token_is_for_an_audience_and_by_an_issuer() {
    let exactly = TokenRules {
        audience: Some("chat".into()),
        issuer: Some("me".into()),
        ..hmac_rules()
    };
    let matching = TokenRules {
        audience_regex: Some(Regex::new("cha").unwrap()),
        issuer_regex: Some(Regex::new("^m").unwrap()),
        ..hmac_rules()
    };
    for (claims, is_exact, does_match) in [
        (r#"{"aud":"chat","iss":"me"}"#, true, true),
        (r#"{"aud":["x","chat"],"iss":"me"}"#, true, true),
        (r#"{"aud":["x","achat"],"iss":"mex"}"#, false, true),
        (r#"{"aud":"Chat","iss":"me"}"#, false, false),
        (r#"{"aud":["x"],"iss":"me"}"#, false, false),
        (r#"{"aud":[],"iss":"me"}"#, false, false),
        (r#"{"aud":null,"iss":"me"}"#, false, false),
        (r#"{"aud":[1,"chat"],"iss":"me"}"#, false, false),
        (r#"{"aud":"chat","iss":"xm"}"#, false, false),
        (r#"{"aud":"chat","iss":["me"]}"#, false, false),
        (r#"{"aud":"chat"}"#, false, false),
        (r#"{"iss":"me"}"#, false, false),
    ] {
        for (rules, is_good) in [(&exactly, is_exact), (&matching, does_match)] {
            let result = Tokens::new(rules).unwrap().connection(&hs256(claims), NOW);
            assert_eq!(result.is_ok(), is_good, "{claims} {rules:?}");
            assert!(is_good || is_invalid(&result), "{claims}");
        }
    }
}

#[test]
fn a_token_that_is_for_somebody_else_is_not_said_to_be_expired() {
    let rules = TokenRules {
        audience: Some("chat".into()),
        ..hmac_rules()
    };
    let token = hs256(r#"{"aud":"x","exp":1}"#);
    assert!(is_invalid(
        &Tokens::new(&rules).unwrap().connection(&token, NOW)
    ));
}

#[test]
fn another_claim_can_name_the_user() {
    let rules = TokenRules {
        user_id_claim: Some("user_id".into()),
        ..hmac_rules()
    };
    let tokens = Tokens::new(&rules).unwrap();
    let of = |claims: &str| tokens.connection(&hs256(claims), NOW).map(|it| it.user);
    assert_eq!(of(r#"{"sub":"1","user_id":"2"}"#), Ok("2".into()));
    assert_eq!(of(r#"{"sub":"1"}"#), Ok(String::new()));
    assert!(is_invalid(&of(r#"{"user_id":2}"#)));
    let token = hs256(r#"{"sub":"1","user_id":"2","channel":"a"}"#);
    assert_eq!(tokens.subscription(&token, NOW).unwrap().user, "2");
}

// ---- setting up ----

fn some_rsa_pem() -> String {
    rsa_pem(&signers().rsa)
}

fn some_ec_pem() -> String {
    ec_pem(&signers().p256)
}

/// A rule to break, and how.
type Break = (&'static str, fn(&mut TokenRules));

#[track_caller]
fn assert_refused(breaks: &[Break]) {
    for (key, set) in breaks {
        let mut rules = TokenRules::default();
        set(&mut rules);
        let error = Tokens::new(&rules).unwrap_err();
        assert_eq!(error.key, *key, "{error}");
        let is_one_line = !error.problem.contains('\n') && !error.problem.is_empty();
        assert!(is_one_line, "{error}");
    }
}

#[test]
fn a_key_that_cannot_be_used_is_named() {
    assert_refused(&[
        ("hmac_secret_key", |rules| {
            rules.hmac_secret_key = Some(String::new());
        }),
        ("hmac_previous_secret_key", |rules| {
            rules.hmac_secret_key = Some(SECRET.into());
            rules.hmac_previous_secret_key = Some(some_ec_pem());
        }),
        ("rsa_public_key", |rules| {
            rules.rsa_public_key = Some("no".into());
        }),
        ("rsa_public_key", |rules| {
            rules.rsa_public_key = Some(some_ec_pem());
        }),
        ("rsa_public_key", |rules| {
            rules.rsa_public_key = Some(some_rsa_pem()[..200].into());
        }),
        ("rsa_public_key", |rules| {
            rules.rsa_public_key = Some(SMALL_RSA.into());
        }),
        ("rsa_public_key", |rules| {
            rules.rsa_public_key = Some(some_rsa_pem().replace("PUBLIC", "PRIVATE"));
        }),
        ("ecdsa_public_key", |rules| {
            rules.ecdsa_public_key = Some(String::new());
        }),
        ("ecdsa_public_key", |rules| {
            rules.ecdsa_public_key = Some(some_rsa_pem());
        }),
        ("jwks", |rules| {
            rules.jwks = Some("/nowhere/at/all.json".into());
        }),
        ("jwks", |rules| {
            rules.jwks = Some("ftp://example.org/keys".into());
        }),
        ("jwks", |rules| {
            rules.jwks = Some(String::new());
        }),
    ]);
}

#[test]
fn rules_that_contradict_each_other_are_named() {
    assert_refused(&[
        ("hmac_previous_secret_key", |rules| {
            rules.hmac_previous_secret_key = Some("a".into());
        }),
        ("audience_regex", |rules| {
            rules.audience = Some("a".into());
            rules.audience_regex = Regex::new("a").ok();
        }),
        ("issuer_regex", |rules| {
            rules.issuer = Some("a".into());
            rules.issuer_regex = Regex::new("a").ok();
        }),
        ("user_id_claim", |rules| {
            rules.user_id_claim = Some(String::new());
        }),
    ]);
}

#[test]
fn a_weak_key_is_called_so() {
    let rules = TokenRules {
        rsa_public_key: Some(SMALL_RSA.into()),
        ..TokenRules::default()
    };
    let error = Tokens::new(&rules).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rsa_public_key: it has not 2048 to 8192 bits"
    );
}

/// Of 1024 bits.
const SMALL_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDpkaZIB0GOQ4Mr7nefZvxCBd+1
wSYnRYCP9+L9tWB1Dia+0IgLzTRzeYvrX2mdu24RsPTkkouSbxCahL7u85CuOj3+
GY9iOyYZfsXPsD9augmsB9XMqEQjzBU7uKlQwRyk4eXtY70wqyZbh0UenYAlLmce
T4BZxP2VlyMh7S2PYQIDAQAB
-----END PUBLIC KEY-----
";

#[test]
fn secrets_are_not_printed() {
    let text = format!("{:?} {:?}", hmac_rules(), hmac_tokens());
    assert!(!text.contains("horse"), "{text}");
}

#[test]
fn other_keys_are_taken_without_a_restart() {
    let mut tokens = hmac_tokens();
    let token = hs256("{}");
    let mut rules = hmac_rules();
    rules.hmac_secret_key = Some(String::new());
    assert!(tokens.reload(&rules).is_err());
    assert!(tokens.connection(&token, NOW).is_ok(), "all is as it was");
    rules.hmac_secret_key = Some("another".into());
    tokens.reload(&rules).unwrap();
    assert!(is_invalid(&tokens.connection(&token, NOW)));
    rules.hmac_previous_secret_key = Some(SECRET.into());
    tokens.reload(&rules).unwrap();
    assert!(tokens.connection(&token, NOW).is_ok());
}

// ---- sets of keys ----

#[test]
fn keys_that_are_for_something_else_are_skipped_and_counted() {
    let all = signers();
    let with = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let rsa = || rsa_jwk(&all.rsa, "a");
    let bad = [
        with(rsa(), "use", "enc".into()),
        with(rsa(), "kty", "oct".into()),
        with(rsa(), "alg", "RSA-OAEP".into()),
        with(rsa(), "alg", "ES256".into()),
        with(rsa(), "n", "".into()),
        with(rsa(), "n", "AQAB".into()),
        with(rsa(), "n", "###".into()),
        with(rsa(), "kid", 1.into()),
        json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
        json!({"kty": "RSA"}),
        json!({}),
        json!(7),
        with(ec_jwk(&all.p256, "P-384", "x"), "kid", "b".into()),
        with(ec_jwk(&all.p256, "secp256k1", "x"), "kid", "b".into()),
        with(
            ec_jwk(&all.p256, "P-256", "x"),
            "x",
            URL.encode([1; 32]).into(),
        ),
        with(ed_jwk("c"), "x", URL.encode([1; 31]).into()),
        with(ed_jwk("c"), "crv", "X25519".into()),
    ];
    let count = bad.len();
    let set = json!({"keys": bad.into_iter().chain([with(rsa(), "use", "sig".into())]).collect::<Vec<_>>()});
    let set = jwks::KeySet::parse(set.to_string().as_bytes()).unwrap();
    assert_eq!((set.len(), set.skipped()), (1, count));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>", r#"{"keys":[}"#] {
        assert!(jwks::KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn the_algorithm_of_a_key_is_the_only_one_that_it_is_for() {
    let folder = Folder::new();
    let mut jwk = rsa_jwk(&signers().rsa, "a");
    jwk["alg"] = "RS384".into();
    let rules = TokenRules {
        jwks: Some(folder.put("keys.json", &json!({"keys": [jwk]}).to_string())),
        ..TokenRules::default()
    };
    let tokens = Tokens::new(&rules).unwrap();
    for (algorithm, is_good) in [("RS256", false), ("RS384", true), ("RS512", false)] {
        let token = signed(algorithm, Some("a"), &json!({}));
        assert_eq!(
            tokens.connection(&token, NOW).is_ok(),
            is_good,
            "{algorithm}"
        );
    }
}

#[test]
fn a_key_of_one_algorithm_does_not_verify_another() {
    let key = Key::of_rsa_pem(&rsa_pem(&signers().rsa)).unwrap();
    let [rs256, rs384] = ["RS256", "RS384"].map(|name| Algorithm::named(name).unwrap());
    let signature = signature("RS256", b"m");
    assert!(key.verifies(rs256, b"m", &signature));
    assert!(!key.verifies(rs256, b"n", &signature));
    assert!(!key.only(rs384).unwrap().verifies(rs256, b"m", &signature));
}

#[test]
fn few_keys_are_tried_for_a_token_that_names_none() {
    let other = rsa_jwk(&signers().other_rsa, "o");
    let own = rsa_jwk(&signers().rsa, "own");
    for (before, is_good) in [(7, true), (8, false)] {
        let keys: Vec<Value> = (0..before)
            .map(|_| other.clone())
            .chain([own.clone()])
            .collect();
        let set = jwks::KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap();
        let algorithm = Algorithm::named("RS256").unwrap();
        let signature = signature("RS256", b"m");
        let verdict = set.judge(None, algorithm, b"m", &signature);
        assert_eq!(verdict == Verdict::Good, is_good, "{before}");
        assert_eq!(
            set.judge(Some("own"), algorithm, b"m", &signature),
            Verdict::Good
        );
    }
    let many: Vec<Value> = (0..100).map(|_| own.clone()).collect();
    let set = jwks::KeySet::parse(json!({"keys": many}).to_string().as_bytes()).unwrap();
    assert_eq!((set.len(), set.skipped()), (64, 36));
}

#[test]
fn a_file_that_is_the_same_is_not_read_again() {
    let folder = Folder::new();
    let path = folder.put("keys.json", &set_of_all().to_string());
    let mut place = source::Place::parse(&path).unwrap();
    assert!(place.load().unwrap().is_some());
    assert!(place.load().unwrap().is_none());
    folder.put("keys.json", "half of");
    assert!(place.load().is_err());
    assert!(
        place.load().is_err(),
        "what could not be read is tried again"
    );
    folder.put("keys.json", r#"{"keys":[]}"#);
    assert_eq!(place.load().unwrap().unwrap().len(), 0);
}

#[test]
fn a_file_is_read_again_when_it_has_changed() {
    let folder = Folder::new();
    let rsa = json!({"keys": [rsa_jwk(&signers().rsa, "r")]}).to_string();
    let path = folder.put("keys.json", &rsa);
    let rules = TokenRules {
        jwks: Some(path),
        ..TokenRules::default()
    };
    let tokens = Tokens::new(&rules).unwrap();
    let by_rsa = signed("RS256", Some("r"), &json!({}));
    let by_ed = signed("EdDSA", Some("ed"), &json!({}));
    assert!(tokens.connection(&by_rsa, NOW).is_ok());
    assert_eq!(tokens.connection(&by_ed, NOW), Err(TokenError::Unknown));

    folder.put("keys.json", "half of");
    eventually("a broken file is counted", || {
        tokens.key_counts().unwrap().failures > 0
    });
    assert!(
        tokens.connection(&by_rsa, NOW).is_ok(),
        "the keys before are kept"
    );

    folder.put("keys.json", &json!({"keys": [ed_jwk("ed")]}).to_string());
    eventually("the new key verifies", || {
        tokens.connection(&by_ed, NOW).is_ok()
    });
    assert_eq!(
        tokens.connection(&by_rsa, NOW),
        Err(TokenError::Unknown),
        "the old one is gone"
    );
}

/// Answers HTTP with whatever is to be answered, as often as it is asked.
struct Issuer {
    url: String,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<AtomicUsize>,
}

impl Issuer {
    fn new(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = Self {
            url: format!("http://{}/keys", listener.local_addr().unwrap()),
            answer: Arc::default(),
            requests: Arc::default(),
        };
        issuer.set(200, body);
        let (answer, requests) = (Arc::clone(&issuer.answer), Arc::clone(&issuer.requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                requests.fetch_add(1, Ordering::SeqCst);
                let answer = answer.lock().unwrap().clone();
                thread::spawn(move || serve(stream.unwrap(), &answer));
            }
        });
        issuer
    }

    fn set(&self, status: u16, body: &str) {
        let head = format!(
            "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.set_raw(&(head + body));
    }

    /// An empty answer never comes.
    fn set_raw(&self, answer: &str) {
        *self.answer.lock().unwrap() = answer.into();
    }

    fn rules(&self) -> TokenRules {
        TokenRules {
            jwks: Some(self.url.clone()),
            ..TokenRules::default()
        }
    }
}

fn serve(mut stream: TcpStream, answer: &[u8]) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    let _ = stream.write_all(answer);
    if answer.is_empty() {
        // Until the client has had enough.
        let _ = stream.read(&mut byte);
    }
}

#[test]
fn an_unknown_key_is_fetched() {
    let issuer = Issuer::new(&json!({"keys": [rsa_jwk(&signers().rsa, "r")]}).to_string());
    let tokens = Tokens::new(&issuer.rules()).unwrap();
    let by_rsa = signed("RS256", Some("r"), &json!({}));
    let by_ed = signed("EdDSA", Some("ed"), &json!({}));
    assert!(tokens.connection(&by_rsa, NOW).is_ok());
    assert_eq!(issuer.requests.load(Ordering::SeqCst), 1);

    assert_eq!(tokens.connection(&by_ed, NOW), Err(TokenError::Unknown));
    eventually("it is asked for", || {
        issuer.requests.load(Ordering::SeqCst) == 2
    });
    assert_eq!(tokens.connection(&by_ed, NOW), Err(TokenError::Unknown));

    issuer.set(200, &set_of_all().to_string());
    eventually("it is there", || tokens.connection(&by_ed, NOW).is_ok());
    assert!(tokens.connection(&by_rsa, NOW).is_ok());
}

#[test]
fn forged_names_do_not_make_it_a_flood() {
    let issuer = Issuer::new(&set_of_all().to_string());
    let start = Instant::now();
    let tokens = Tokens::new(&issuer.rules()).unwrap();
    let token = signed("EdDSA", Some("nobody"), &json!({}));
    eventually("it is asked again", || {
        assert_eq!(tokens.connection(&token, NOW), Err(TokenError::Unknown));
        issuer.requests.load(Ordering::SeqCst) >= 3
    });
    // Those of before are counted before the time is taken.
    let requests = issuer.requests.load(Ordering::SeqCst) as u64;
    let most = 1 + start.elapsed().as_secs();
    assert!(requests <= most, "{requests} requests in {most} seconds");
}

#[test]
fn what_an_issuer_answers_wrongly_changes_nothing() {
    let issuer = Issuer::new(&set_of_all().to_string());
    let tokens = Tokens::new(&issuer.rules()).unwrap();
    let good = signed("EdDSA", Some("ed"), &json!({}));
    let unknown = signed("EdDSA", Some("nobody"), &json!({}));
    let huge = format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(1024 * 1024));
    let broken: [(u16, &str); 4] = [
        (200, "<html>"),
        (500, "{\"keys\":[]}"),
        (404, ""),
        (200, &huge),
    ];
    for (index, (status, body)) in broken.into_iter().enumerate() {
        issuer.set(status, body);
        eventually("it fails", || {
            assert_eq!(tokens.connection(&unknown, NOW), Err(TokenError::Unknown));
            tokens.key_counts().unwrap().failures > index as u64
        });
        assert!(tokens.connection(&good, NOW).is_ok());
    }
    issuer.set_raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{");
    let failures = tokens.key_counts().unwrap().failures;
    eventually("an answer that breaks off fails", || {
        let _ = tokens.connection(&unknown, NOW);
        tokens.key_counts().unwrap().failures > failures
    });
    assert!(tokens.connection(&good, NOW).is_ok());
    assert!(tokens.key_counts().unwrap().last_failure.is_some());
}

#[test]
fn it_does_not_begin_without_keys() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let rules = TokenRules {
        jwks: Some(format!("http://{closed}/keys")),
        ..TokenRules::default()
    };
    assert_eq!(Tokens::new(&rules).unwrap_err().key, "jwks");
    let issuer = Issuer::new(r#"{"keys":[]}"#);
    for (status, body) in [
        (200, r#"{"keys":[]}"#),
        (200, r#"{"keys":[{}]}"#),
        (503, "later"),
    ] {
        issuer.set(status, body);
        let error = Tokens::new(&issuer.rules()).unwrap_err();
        assert_eq!(error.key, "jwks");
        assert!(error.problem.starts_with(&issuer.url), "{error}");
    }
}

#[test]
fn an_issuer_that_says_nothing_is_given_up() {
    let issuer = Issuer::new("");
    issuer.set_raw("");
    let error = Tokens::new(&issuer.rules()).unwrap_err();
    assert!(error.problem.contains("timeout"), "{error}");
}

#[test]
fn an_answer_that_comes_drop_by_drop_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
        let mut next: &[u8] = head;
        // Until nobody listens any more.
        while stream.write_all(next).is_ok() {
            next = b" ";
            thread::sleep(Duration::from_millis(20));
        }
    });
    let rules = TokenRules {
        jwks: Some(url),
        ..TokenRules::default()
    };
    let error = Tokens::new(&rules).unwrap_err();
    assert!(error.problem.contains("timeout"), "{error}");
}

#[test]
fn a_server_without_tls_is_not_asked_in_plain_text() {
    let issuer = Issuer::new(&set_of_all().to_string());
    let mut rules = issuer.rules();
    rules.jwks = Some(issuer.url.replace("http://", "https://"));
    assert_eq!(Tokens::new(&rules).unwrap_err().key, "jwks");
}

#[test]
fn a_slow_issuer_holds_nobody_up() {
    let issuer = Issuer::new(&set_of_all().to_string());
    let tokens = Tokens::new(&issuer.rules()).unwrap();
    issuer.set_raw("");
    let unknown = signed("EdDSA", Some("nobody"), &json!({}));
    let good = signed("EdDSA", Some("ed"), &json!({}));
    assert_eq!(tokens.connection(&unknown, NOW), Err(TokenError::Unknown));
    eventually("a request is under way", || {
        issuer.requests.load(Ordering::SeqCst) == 2
    });
    // The answer never comes: each of these returns while it is waited for.
    for _ in 0..100 {
        assert!(tokens.connection(&good, NOW).is_ok());
        assert_eq!(tokens.connection(&unknown, NOW), Err(TokenError::Unknown));
    }
    let failures = || tokens.key_counts().unwrap().failures;
    assert_eq!(failures(), 0, "the answer is still waited for");
    eventually("it is given up", || failures() > 0);
}

#[test]
fn the_thread_ends_with_its_tokens() {
    let folder = Folder::new();
    let rules = TokenRules {
        jwks: Some(folder.put("keys.json", &set_of_all().to_string())),
        ..TokenRules::default()
    };
    let mut tokens = Tokens::new(&rules).unwrap();
    let life = tokens.source.as_ref().unwrap().life();
    tokens.reload(&rules).unwrap();
    assert_eq!(life.strong_count(), 2, "the same place keeps its thread");
    tokens.reload(&hmac_rules()).unwrap();
    eventually("the thread is gone", || life.strong_count() == 0);
}
