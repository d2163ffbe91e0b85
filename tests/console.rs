//! The feed of the console: who gets it, what it tells, and what it does when told.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::Error;
use tungstenite::http::HeaderValue;
use tungstenite::{HandshakeError, Message};

use crate::process::{
    Client, Process, Socket, connect, hear, http, read_close, say, tcp, try_connect,
};

const FEED: &str = "/console/feed";

fn start(arguments: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stentor"));
    command.args(["--listen", "127.0.0.1:0"]).args(arguments);
    let process = Process::start(&mut command);
    let address = process.address();
    (process, address)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// What the server says next that is no message of a topic.
fn hear_json(client: &mut Client) -> Value {
    loop {
        let text = hear(client);
        if !text.contains('\n') {
            return json(&text);
        }
    }
}

/// What is told that is no numbers.
fn told(client: &mut Client) -> Value {
    loop {
        let value = hear_json(client);
        if value.get("numbers").is_none() {
            return value;
        }
    }
}

fn numbers(client: &mut Client) -> Value {
    loop {
        let mut value = hear_json(client);
        if let Some(numbers) = value.get_mut("numbers") {
            return numbers.take();
        }
    }
}

/// The next message of a topic: its header and its payload.
fn overheard(client: &mut Client) -> (Value, String) {
    loop {
        let text = hear(client);
        if let Some((header, payload)) = text.split_once('\n') {
            return (json(header), payload.into());
        }
        assert!(text.starts_with(r#"{"numbers""#), "{text}");
    }
}

/// The next numbers that are as they are waited for.
fn numbers_when(client: &mut Client, are_they: impl Fn(&Value) -> bool) -> Value {
    loop {
        let numbers = numbers(client);
        if are_they(&numbers) {
            return numbers;
        }
    }
}

fn ask(client: &mut Client, command: &Value) -> Value {
    say(client, &command.to_string());
    told(client)
}

/// A watcher who may do what any client may.
fn watch(address: SocketAddr) -> Client {
    let mut watcher = connect(address, FEED);
    let welcome = told(&mut watcher);
    assert_eq!(welcome["welcome"]["admin"], false);
    watcher
}

/// A watcher who says this key.
fn unlock(address: SocketAddr, key: &str) -> Client {
    let mut watcher = connect(address, FEED);
    assert_eq!(told(&mut watcher), json!({"locked": true}));
    say(&mut watcher, &json!({"key": key}).to_string());
    watcher
}

fn refusal_with(address: SocketAddr, host: &str, origin: Option<&'static str>) -> Option<u16> {
    let mut request = format!("ws://{address}{FEED}")
        .into_client_request()
        .unwrap();
    let fields = request.headers_mut();
    fields.insert("Host", HeaderValue::from_str(host).unwrap());
    if let Some(origin) = origin {
        fields.insert("Origin", HeaderValue::from_static(origin));
    }
    match tungstenite::client(request, Socket(tcp(address))) {
        Ok(_) => None,
        Err(HandshakeError::Failure(Error::Http(response))) => Some(response.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

// ---- who gets it ----

#[test]
fn a_key_opens_the_console_and_a_wrong_one_closes_the_connection_and_is_counted() {
    let (_process, address) = start(&["--admin-token", "open sesame"]);
    for wrong in ["", "open barley", "open sesame "] {
        let mut stranger = unlock(address, wrong);
        assert_eq!(read_close(&mut stranger), (4401, "the key is wrong".into()));
    }
    for other in [r#"{"tail":"a"}"#, "open sesame", "{"] {
        let mut stranger = connect(address, FEED);
        say(&mut stranger, other);
        told(&mut stranger);
        assert_eq!(read_close(&mut stranger).0, 4401, "{other}");
    }
    let mut admin = unlock(address, "open sesame");
    let welcome = &told(&mut admin)["welcome"];
    assert_eq!(welcome["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(welcome["admin"], true);
    assert_eq!(numbers(&mut admin)["wrong_keys"], 6);
    let again = ask(&mut admin, &json!({"key": "open sesame"}));
    assert_eq!(again["error"], "no key is wanted any more");
}

#[test]
fn who_has_not_said_the_key_gets_no_numbers() {
    let (_process, address) = start(&["--admin-token", "key"]);
    let mut locked = connect(address, FEED);
    told(&mut locked);
    let mut admin = unlock(address, "key");
    for _ in 0..3 {
        numbers(&mut admin);
    }
    // What it hears next is the answer to what it says next.
    say(&mut locked, r#"{"key":"key"}"#);
    assert!(json(&hear(&mut locked)).get("welcome").is_some());
}

#[test]
fn without_a_key_it_is_open_to_this_machine_alone() {
    let (_process, address) = start(&[]);
    let host = address.to_string();
    let own: &'static str = format!("http://{address}").leak();
    for (host, origin, status) in [
        (&host[..], None, None),
        (&host, Some(own), None),
        ("localhost", None, None),
        (&host, Some("http://evil.example"), Some(403)),
        (&host, Some("null"), Some(403)),
        // A name that was made to lead here (DNS rebinding).
        ("evil.example", Some("http://evil.example"), Some(403)),
        ("evil.example", None, Some(403)),
    ] {
        assert_eq!(
            refusal_with(address, host, origin),
            status,
            "{host} {origin:?}"
        );
    }
    let (_process, address) = start(&["--overview=nobody"]);
    assert_eq!(try_connect(address, FEED).err(), Some(403));
    let page = http(address, "GET", "/");
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("needs a key"),
        "{page}"
    );
    let (_process, address) = start(&["--overview=nobody", "--admin-token=key"]);
    assert!(http(address, "GET", "/").starts_with("HTTP/1.1 200 "));
    unlock(address, "key");
}

#[test]
fn it_is_where_those_who_run_the_server_have_their_address() {
    let (process, address) = start(&["--admin-listen", "127.0.0.1:0"]);
    let line = process.line();
    let (_, admin) = line.rsplit_once("http://").unwrap();
    let admin: SocketAddr = admin.trim_end_matches('/').parse().unwrap();
    watch(admin);
    assert_eq!(try_connect(address, FEED).err(), Some(404));
    let page = http(address, "GET", "/");
    assert!(
        page.starts_with("HTTP/1.1 404 ") && page.contains("/t/NAME"),
        "{page}"
    );
    assert!(http(admin, "GET", "/").ends_with("</html>\n"));
    // The lobby stays where its clients are.
    let mut lobby = connect(address, "/");
    say(&mut lobby, "here");
    assert_eq!(hear(&mut lobby), "here");
    assert_eq!(try_connect(admin, "/").err(), Some(404));
}

#[test]
fn the_feed_is_a_websocket() {
    let (_process, address) = start(&[]);
    let answer = http(address, "GET", FEED);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}"); // The host is a name there.
    let (_process, address) = start(&["--admin-token=key"]);
    let answer = http(address, "GET", FEED);
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(http(address, "POST", FEED).starts_with("HTTP/1.1 405 "));
}

// ---- what it tells ----

#[test]
fn the_numbers_are_those_of_the_server_once_a_second() {
    let (_process, address) = start(&[]);
    let mut watcher = watch(address);
    let first = numbers(&mut watcher);
    let mut clients = ["/t/a", "/t/a", "/t/a", "/t/b"].map(|path| connect(address, path));
    for _ in 0..10 {
        say(&mut clients[0], "x");
    }
    let now = numbers_when(&mut watcher, |numbers| numbers["received"] == 10);
    let topics = json!([
        {"name": "a", "subscribers": 3, "published": 10},
        {"name": "b", "subscribers": 1, "published": 0},
    ]);
    assert_eq!((&now["topics"], &now["total"]), (&topics, &json!(2)));
    assert_eq!(
        (&now["websockets"], &now["subscriptions"]),
        (&json!(5), &json!(5))
    );
    let grown = |name: &str| now[name].as_u64().unwrap() - first[name].as_u64().unwrap();
    let updates = grown("published") - 10;
    assert_eq!(grown("sent"), 3 * 10 + updates);
    assert!(grown("at") >= 900 * updates, "{first} {now}");
    let count = |name: &str| {
        now[name]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
    };
    assert_eq!(count("turn").len(), 26);
    assert!(count("turn").sum::<u64>() > 0 && count("fan_out").sum::<u64>() > 0);
    assert!(now["resident"].as_u64().unwrap() > 1 << 20);
    clients[3].close(None).unwrap();
    let now = numbers_when(&mut watcher, |numbers| numbers["total"] == 1);
    assert_eq!(now["closes"], json!([["peer", 1005, 1]]));
    assert_eq!(now["causes"], json!([["peer", 1]]));
}

#[test]
fn all_who_watch_get_the_same() {
    let (_process, address) = start(&[]);
    let mut one = watch(address);
    numbers(&mut one);
    let mut two = watch(address);
    let of_its_own = numbers(&mut two);
    let shared = numbers(&mut two);
    let same = numbers_when(&mut one, |numbers| numbers["at"] == shared["at"]);
    assert_eq!(same, shared);
    assert!(of_its_own["at"].as_u64() < shared["at"].as_u64());
}

// ---- what it does when told ----

#[test]
fn a_tail_is_one_topic_or_pattern_at_a_time() {
    let (_process, address) = start(&["--history-size=10", "--history-ttl=1h"]);
    let mut watcher = watch(address);
    let mut client = connect(address, "/t/news.a");
    assert_eq!(
        ask(&mut watcher, &json!({"tail": "news.a"})),
        json!({"tail": "news.a"})
    );
    say(&mut client, "one\ntwo");
    let header = json!({"topic": "news.a", "offset": 1});
    assert_eq!(overheard(&mut watcher), (header, "one\ntwo".into()));
    assert_eq!(
        ask(&mut watcher, &json!({"tail": "other.*"})),
        json!({"tail": "other.*"})
    );
    say(&mut client, "not heard");
    hear(&mut client);
    hear(&mut client);
    let publish = json!({"publish": {"topic": "other.b", "data": {"a": 1}}});
    say(&mut watcher, &publish.to_string());
    let header = json!({"topic": "other.b", "offset": 1});
    assert_eq!(overheard(&mut watcher), (header, r#"{"a":1}"#.into()));
    let expected = json!({"published": {"topic": "other.b", "subscribers": 1, "offset": 1}});
    assert_eq!(told(&mut watcher), expected);
    assert_eq!(
        ask(&mut watcher, &json!({"tail": null})),
        json!({"tail": null})
    );
    let now = numbers_when(&mut watcher, |numbers| numbers["patterns"] == 0);
    assert_eq!(
        now["subscriptions"], 2,
        "the client's, and that to the numbers"
    );
}

#[test]
fn it_is_told_who_is_there_and_what_was_said() {
    let arguments = ["--presence=yes", "--history-size=100", "--history-ttl=1h"];
    let (_process, address) = start(&arguments);
    let mut client = connect(address, "/t/a?info=%7B%22name%22:%22Anna%22%7D");
    for number in 0..60 {
        say(&mut client, &number.to_string());
    }
    client.send(Message::binary(vec![0, 255])).unwrap();
    for _ in 0..61 {
        client.read().unwrap();
    }
    let mut watcher = watch(address);
    let presence = &ask(&mut watcher, &json!({"presence": "a"}))["presence"];
    assert_eq!(
        (&presence["kept"], &presence["total"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(presence["members"][0]["info"], json!({"name": "Anna"}));
    let history = &ask(&mut watcher, &json!({"history": "a"}))["history"];
    assert_eq!(
        (&history["topic"], &history["offset"]),
        (&json!("a"), &json!(61))
    );
    let publications = history["publications"].as_array().unwrap();
    assert_eq!(publications.len(), 50);
    assert_eq!(publications[0]["base64"], "AP8=");
    assert_eq!(
        (&publications[1]["text"], &publications[1]["offset"]),
        (&json!("59"), &json!(60))
    );
    let nobody = &ask(&mut watcher, &json!({"presence": "b"}))["presence"];
    assert_eq!(nobody["total"], 0);
}

#[test]
fn what_cannot_be_done_is_said() {
    let (_process, address) = start(&[]);
    let mut watcher = watch(address);
    let long = "x".repeat(5000);
    for (command, why) in [
        ("", "no such command"),
        ("null", "no such command"),
        (r#"{"stop":true}"#, "no such command"),
        (&format!(r#"{{"tail":"{long}"}}"#), "at most 4096 bytes"),
        (r#"{"tail":"@console.feed"}"#, "begin with @"),
        (r#"{"presence":"@presence.x"}"#, "begin with @"),
        (
            r#"{"publish":{"topic":"@console.feed","data":"x"}}"#,
            "begin with @",
        ),
        (r#"{"publish":{"topic":"a.*","data":"x"}}"#, "patterns"),
        (r#"{"history":"a.*"}"#, "name one topic"),
        (r#"{"history":"a"}"#, "history"),
        (r#"{"tail":""}"#, "empty"),
    ] {
        say(&mut watcher, command);
        let answer = told(&mut watcher);
        let problem = answer["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"));
        assert!(problem.contains(why), "{command}: {problem}");
    }
}

#[test]
fn without_a_key_a_watcher_does_what_any_client_may() {
    let closed = ["--namespace", "secret: publish=nobody, subscribe=nobody"];
    let commands = [
        json!({"tail": "secret:a"}),
        json!({"presence": "secret:a"}),
        json!({"publish": {"topic": "secret:a", "data": "x"}}),
    ];
    let (_process, address) = start(&closed);
    let mut guest = watch(address);
    for command in &commands {
        let answer = ask(&mut guest, command);
        assert!(
            answer["error"].as_str().unwrap().contains("not allowed"),
            "{answer}"
        );
    }
    assert!(ask(&mut guest, &json!({"tail": "*.a"}))["error"].is_string());
    let (_process, address) = start(&[&closed[..], &["--admin-token=key"]].concat());
    let mut admin = unlock(address, "key");
    told(&mut admin);
    for command in &commands {
        assert!(ask(&mut admin, command).get("error").is_none(), "{command}");
    }
}
