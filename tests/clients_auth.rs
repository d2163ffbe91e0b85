//! Tokens of clients, the time that they give, and the channels that they open, over raw sockets.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use stentor::broadcast::{ChannelOptions, Rules, TokenRules};

use crate::clients::{End, Peer, Served, data_of, end, kept, peopled, rules, serve};

const SECRET: &str = "keep it to yourself";

fn token(claims: &Value) -> String {
    signed(claims, SECRET)
}

fn signed(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
}

/// Seconds of Unix time, so far from now.
fn at(offset: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_secs()).unwrap() + offset
}

/// Rules under which clients need a token, with channels of all kinds.
fn strict() -> Rules {
    let limited = ChannelOptions {
        allow_user_limited_channels: true,
        ..kept()
    };
    let mut rules = rules(&[("h", kept()), ("p", peopled()), ("n", limited)]);
    rules.client.allow_anonymous_connect_without_token = false;
    rules.client.expired_close_delay = Duration::from_secs(1);
    rules.client.expired_sub_close_delay = Duration::from_secs(1);
    rules.tokens = TokenRules {
        hmac_secret_key: Some(SECRET.into()),
        ..TokenRules::default()
    };
    rules
}

fn connect(server: &Served, claims: &Value) -> (Peer, Value) {
    server.connect_with(&json!({"token": token(claims)}))
}

/// How a client with this token is refused: the code of the error, or the end.
fn refusal(server: &Served, token: &str) -> Result<u64, End> {
    let mut peer = server.open();
    peer.say(&json!({"id": 1, "connect": {"token": token}}).to_string());
    let (lines, how) = peer.settle();
    match (lines.first(), how) {
        (Some(reply), _) => Ok(reply["error"]["code"].as_u64().unwrap()),
        (None, Some(how)) => Err(how),
        (None, None) => Err(peer.hear_end()),
    }
}

fn pings_aside(peer: &mut Peer) -> Value {
    loop {
        match peer.hear() {
            ping if ping == json!({}) => peer.say("{}"),
            line => return line,
        }
    }
}

// ---- connections ----

#[test]
fn check_03_and_04_tokens_are_good_expired_or_invalid() {
    let server = serve(strict());
    let invalid = end(3500, "invalid token");
    for (token, expected) in [
        (
            signed(&json!({"sub": "42"}), "another"),
            Err(invalid.clone()),
        ),
        ("garbage".into(), Err(invalid.clone())),
        (token(&json!({"sub": 42})), Err(invalid.clone())),
        (token(&json!({"sub": "42", "channel": "a"})), Err(invalid)),
        (token(&json!({"sub": "42", "exp": at(-1)})), Ok(109)),
        (token(&json!({"sub": "42", "nbf": at(60)})), Ok(109)),
        (token(&json!({"sub": "42", "expire_at": at(-1)})), Ok(110)),
        (token(&json!({"sub": "42", "channels": ["x:a"]})), Ok(102)),
    ] {
        assert_eq!(refusal(&server, &token), expected);
    }
    let (_, result) = connect(&server, &json!({"sub": "42", "exp": at(100)}));
    assert_eq!(result["expires"], true);
    let ttl = result["ttl"].as_u64().unwrap();
    assert!((95..=100).contains(&ttl), "{ttl}");
    let (_, result) = connect(
        &server,
        &json!({"sub": "42", "exp": at(100), "expire_at": 0}),
    );
    assert!(result.get("expires").is_none(), "{result}");
}

#[test]
fn tokens_without_a_user_and_users_with_many_connections_may_be_refused() {
    let mut rules = strict();
    rules.client.disallow_anonymous_connection_tokens = true;
    rules.client.user_connection_limit = 2;
    let server = serve(rules);
    let anonymous = token(&json!({"sub": ""}));
    assert_eq!(
        refusal(&server, &anonymous),
        Err(end(3507, "permission denied"))
    );
    let user = json!({"sub": "42"});
    let (first, _) = connect(&server, &user);
    let (_second, _) = connect(&server, &user);
    let refused = Err(end(3504, "connection limit"));
    assert_eq!(refusal(&server, &token(&user)), refused);
    let (_other, _) = connect(&server, &json!({"sub": "43"}));
    first.socket.reset();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let mut peer = server.open();
        peer.say(&json!({"id": 1, "connect": {"token": token(&user)}}).to_string());
        if peer.settle().1.is_none() {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "its place is free again"
        );
    }
}

#[test]
fn check_43_bad_token_in_one_direction_is_told_and_ends() {
    let mut rules = strict();
    rules.client.uni_websocket = true;
    let server = serve(rules);
    for (token, code, reason) in [
        ("garbage".to_owned(), 3500, "invalid token"),
        (
            token(&json!({"sub": "42", "exp": at(-1)})),
            3005,
            "connection expired",
        ),
        (String::new(), 3501, "bad request"),
    ] {
        let mut peer = server.open_at("/connection/uni_websocket");
        peer.say(&json!({"token": token}).to_string());
        let (lines, how) = peer.hear_all();
        let last = json!({"disconnect": {"code": code, "reason": reason}});
        assert_eq!((lines, how), (vec![last], end(code, reason)));
    }
}

#[test]
fn check_37_connection_that_is_refreshed_lives_and_another_expires() {
    let server = serve(strict());
    let soon = json!({"sub": "42", "exp": at(2)});
    let (mut peer, _) = connect(&server, &soon);
    let (mut other, _) = connect(&server, &soon);
    let renewed = token(&json!({"sub": "42", "exp": at(100)}));
    let refreshed = peer.result("refresh", &json!({"token": renewed}));
    assert_eq!(refreshed["expires"], true);
    assert!(refreshed["ttl"].as_u64().unwrap() > 90, "{refreshed}");
    assert_eq!(other.hear_end(), end(3005, "connection expired"));
    assert!(
        at(0) > soon["exp"].as_i64().unwrap(),
        "not before its grace"
    );
    peer.hears_nothing_more();
}

#[test]
fn check_37_refreshing_takes_a_good_token_of_the_same_user() {
    let server = serve(strict());
    let claims = json!({"sub": "42", "exp": at(100), "channels": ["a"]});
    for (refresh, how) in [
        (json!({"token": ""}), end(3501, "bad request")),
        (json!({"token": "garbage"}), end(3500, "invalid token")),
        (
            json!({"token": token(&json!({"sub": "43", "channels": ["a"]}))}),
            end(3500, "invalid token"),
        ),
        (
            json!({"token": token(&json!({"sub": "42", "exp": at(-1)}))}),
            end(3005, "connection expired"),
        ),
        (
            json!({"token": token(&json!({"sub": "42", "channels": ["b"]}))}),
            end(3010, "insufficient state"),
        ),
        (
            json!({"token": token(&json!({"sub": "42"}))}),
            end(3010, "insufficient state"),
        ),
    ] {
        let (mut peer, _) = connect(&server, &claims);
        peer.say(&json!({"id": 2, "refresh": refresh}).to_string());
        assert_eq!(peer.hear_end(), how, "{refresh}");
    }
}

#[test]
fn time_without_end_is_capped_for_the_client() {
    let server = serve(strict());
    let claims = json!({"sub": "42", "expire_at": u64::MAX});
    let (mut peer, result) = connect(&server, &claims);
    assert_eq!(result["ttl"], 365 * 24 * 3600);
    let far = json!({"sub": "42", "channel": "$a", "expire_at": u64::MAX});
    let subscribed = peer.result("subscribe", &json!({"channel": "$a", "token": token(&far)}));
    assert_eq!(subscribed["ttl"], 365 * 24 * 3600);
    peer.hears_nothing_more();
}

/// The same token, or one like it, is as good the second time as it was the first.
#[test]
fn check_37_token_that_names_a_channel_twice_refreshes_what_it_opened() {
    let server = serve(strict());
    let claims = json!({
        "sub": "42", "exp": at(100), "channels": ["a", "a", "b"]
    });
    let (mut peer, result) = connect(&server, &claims);
    assert_eq!(result["subs"].as_object().unwrap().len(), 2);
    let refreshed = peer.result("refresh", &json!({"token": token(&claims)}));
    assert_eq!(refreshed["expires"], true);
}

// ---- subscriptions ----

#[test]
fn check_20_and_21_private_channels_take_a_token_for_them() {
    let server = serve(strict());
    let of = |claims: Value| json!({"channel": "$a", "token": token(&claims)});
    let (mut peer, _) = connect(&server, &json!({"sub": "42"}));
    assert_eq!(peer.error("subscribe", &json!({"channel": "$a"})), 103);
    for (request, code) in [
        (json!({"channel": "$a", "token": "garbage"}), 103),
        (
            of(json!({"sub": "42", "channel": "$a", "exp": at(-1)})),
            109,
        ),
        (
            of(json!({"sub": "42", "channel": "$a", "expire_at": at(-1)})),
            110,
        ),
        (of(json!({"sub": "42"})), 103),
    ] {
        assert_eq!(peer.error("subscribe", &request), code, "{request}");
    }
    let info =
        json!({"sub": "42", "channel": "$p:a", "info": {"i": 1}, "data": [2], "exp": at(50)});
    let request = json!({"channel": "$p:a", "token": token(&info)});
    let subscribed = peer.result("subscribe", &request);
    assert_eq!(
        (&subscribed["data"], &subscribed["expires"]),
        (&json!([2]), &json!(true))
    );
    assert_eq!(
        peer.hear()["push"]["join"]["info"]["chan_info"],
        json!({"i": 1})
    );
    for claims in [
        json!({"sub": "42", "channel": "$b"}),
        json!({"sub": "43", "channel": "$a"}),
    ] {
        let (mut peer, _) = connect(&server, &json!({"sub": "42"}));
        peer.say(&json!({"id": 2, "subscribe": of(claims)}).to_string());
        assert_eq!(peer.hear_end(), end(3500, "invalid token"));
    }
}

#[test]
fn check_22_channels_of_users_are_for_them_only() {
    let server = serve(strict());
    let (mut peer, _) = connect(&server, &json!({"sub": "42"}));
    let (mut other, _) = connect(&server, &json!({"sub": "43"}));
    let (mut nobody, _) = connect(&server, &json!({"sub": ""}));
    for (channel, is_for) in [
        ("n:a#42", [true, false]),
        ("n:b#41,42,43", [true, true]),
        ("n:c#4", [false, false]),
    ] {
        for (peer, is_for) in [&mut peer, &mut other].into_iter().zip(is_for) {
            if is_for {
                peer.subscribe(channel);
            } else {
                assert_eq!(peer.error("subscribe", &json!({"channel": channel})), 103);
            }
        }
        assert_eq!(nobody.error("subscribe", &json!({"channel": channel})), 103);
    }
    assert_eq!(nobody.error("subscribe", &json!({"channel": "n:d#"})), 103);
}

#[test]
fn subscription_that_expires_ends_and_one_that_is_refreshed_does_not() {
    let server = serve(strict());
    let (mut peer, _) = connect(&server, &json!({"sub": "42"}));
    let of = |channel: &str, seconds| {
        let claims = json!({"sub": "42", "channel": channel, "exp": at(seconds)});
        json!({"channel": channel, "token": token(&claims)})
    };
    peer.result("subscribe", &of("$a", 1));
    peer.result("subscribe", &of("$b", 1));
    let refreshed = peer.result("sub_refresh", &of("$b", 100));
    assert_eq!(refreshed["expires"], true);
    let push = pings_aside(&mut peer);
    let unsubscribe = json!({"code": 2501, "reason": "subscription expired"});
    assert_eq!(
        push,
        json!({"push": {"channel": "$a", "unsubscribe": unsubscribe}})
    );
    assert_eq!(peer.error("sub_refresh", &of("$a", 100)), 103);
    assert_eq!(peer.error("sub_refresh", &json!({"channel": "$b"})), 107);
    assert_eq!(peer.error("sub_refresh", &of("$b", -1)), 109);
    server.publish("$a", "1");
    server.publish("$b", "2");
    assert_eq!(peer.hear()["push"]["channel"], "$b");
    peer.say(&json!({"id": 3, "sub_refresh": {"channel": "$b", "token": "garbage"}}).to_string());
    assert_eq!(peer.hear_end(), end(3500, "invalid token"));
}

// ---- channels of the server's own accord ----

#[test]
fn check_38_token_subscribes_and_its_channels_are_recovered() {
    let server = serve(strict());
    let claims = json!({"sub": "42", "subs": {"a": {}, "h:a": {"data": {"d": 1}}}});
    let (mut peer, result) = connect(&server, &claims);
    let subs = &result["subs"];
    assert_eq!(subs["a"], json!({}));
    assert_eq!(subs["h:a"]["data"], json!({"d": 1}));
    let epoch = subs["h:a"]["epoch"].clone();
    server.publish("h:a", "1");
    assert_eq!(
        peer.hear(),
        json!({"push": {"channel": "h:a", "pub": {"data": 1, "offset": 1}}})
    );
    peer.socket.reset();
    server.publish("h:a", "2");
    server.publish("h:a", "3");
    // It asks for one that it may hear, and for some that it may not.
    let request = json!({"token": token(&claims), "subs": {
        "h:a": {"recover": true, "offset": 1, "epoch": epoch}, "b": {}, "$c": {}, "n:x#43": {}
    }});
    let (mut peer, result) = server.connect_with(&request);
    let names: Vec<_> = result["subs"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["a", "b", "h:a"]);
    let sub = &result["subs"]["h:a"];
    assert_eq!(
        (&sub["recovered"], &sub["offset"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(data_of(&sub["publications"]), [json!(2), json!(3)]);
    server.publish("h:a", "4");
    assert_eq!(peer.hear()["push"]["pub"]["offset"], 4);
}

#[test]
fn channels_of_the_server_are_as_limited_as_others() {
    let mut rules = strict();
    rules.client.channel_limit = 2;
    rules.client.personal_channel = Some("p".into());
    let server = serve(rules);
    let (mut peer, result) = connect(&server, &json!({"sub": "42", "info": {"i": 1}}));
    assert_eq!(result["subs"], json!({"p:#42": {}}));
    let join = json!({"channel": "p:#42", "join": {"info": {"user": "42", "client": result["client"], "conn_info": {"i": 1}}}});
    assert_eq!(peer.hear(), json!({"push": join}));
    let many = token(&json!({"sub": "42", "channels": ["a", "b"]}));
    assert_eq!(refusal(&server, &many), Err(end(3505, "channel limit")));
    let mut asks = server.open();
    let subs: serde_json::Map<_, _> = (0..5000).map(|n| (n.to_string(), json!({}))).collect();
    let request = json!({"token": token(&json!({"sub": ""})), "subs": subs});
    asks.say(&json!({"id": 1, "connect": request}).to_string());
    assert_eq!(asks.hear_end(), end(3505, "channel limit"));
    let unknown = json!({"token": token(&json!({"sub": ""})), "subs": {"x:a": {}}});
    let mut asks = server.open();
    asks.say(&json!({"id": 1, "connect": unknown}).to_string());
    assert_eq!(asks.hear_end(), end(3501, "bad request"));
}

/// Users are counted, whatever happens to their connections.
#[test]
fn check_33_presence_tells_users_and_counts_each_once() {
    let server = serve(strict());
    let users = ["42", "42", "43"];
    let mut peers: Vec<_> = users
        .iter()
        .map(|user| connect(&server, &json!({"sub": user, "info": {"u": user}})))
        .collect();
    for (peer, _) in &mut peers {
        peer.subscribe("p:a");
    }
    let (peer, _) = &mut peers[2];
    peer.hear();
    let presence = peer.result("presence", &json!({"channel": "p:a"}));
    for ((_, result), user) in peers.iter().zip(users) {
        let id = result["client"].as_str().unwrap();
        let expected = json!({"user": user, "client": id, "conn_info": {"u": user}});
        assert_eq!(presence["presence"][id], expected);
    }
    let stats = peers[2]
        .0
        .result("presence_stats", &json!({"channel": "p:a"}));
    assert_eq!(stats, json!({"num_clients": 3, "num_users": 2}));
}
