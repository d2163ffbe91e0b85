//! The examples, run as a newcomer runs them.

use std::path::PathBuf;
use std::process::Command;

use tungstenite::Message;

use crate::process::{Process, connect, hear, http, read_close, say};

/// `cargo test` builds the examples beside the directory of the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.with_file_name("../examples").join(name);
    assert!(
        path.exists(),
        "no {name}: `cargo build --examples` builds it"
    );
    Command::new(path)
}

fn start(name: &str) -> Process {
    Process::start(example(name).arg("127.0.0.1:0"))
}

/// Runs an example that ends by itself.
fn run(name: &str) -> String {
    let (status, stdout, stderr) = Process::start(&mut example(name)).wait();
    assert!(status.success(), "{stdout}{stderr}");
    stdout
}

#[test]
fn echo_echoes() {
    let process = start("echo");
    let mut client = connect(process.address(), "/");
    say(&mut client, "hello");
    assert_eq!(hear(&mut client), "hello");
    client.send(Message::binary(vec![1; 100_000])).unwrap();
    assert_eq!(client.read().unwrap().len(), 100_000);
}

#[test]
fn chat_has_names_and_rooms() {
    let process = start("chat");
    let address = process.address();
    let mut anna = connect(address, "/kitchen");
    say(&mut anna, " Anna ");
    assert_eq!(hear(&mut anna), "here\nAnna");
    let mut bert = connect(address, "/kitchen");
    say(&mut bert, "Bert");
    assert_eq!(hear(&mut bert), "here\nAnna\nBert");
    assert_eq!(hear(&mut anna), "joined\nBert");
    let mut carl = connect(address, "/cellar");
    say(&mut carl, "Anna"); // Another room, another Anna.
    assert_eq!(hear(&mut carl), "here\nAnna");

    say(&mut anna, "two\nlines");
    for client in [&mut anna, &mut bert] {
        assert_eq!(hear(client), "said\nAnna\ntwo\nlines");
    }
    bert.close(None).unwrap();
    assert_eq!(hear(&mut anna), "left\nBert");
    say(&mut carl, "alone");
    assert_eq!(hear(&mut carl), "said\nAnna\nalone");
}

#[test]
fn chat_refuses_names_and_bytes() {
    let process = start("chat");
    let address = process.address();
    let mut anna = connect(address, "/kitchen");
    say(&mut anna, "Anna");
    assert_eq!(hear(&mut anna), "here\nAnna");
    for (name, code) in [("Anna", 4000), ("", 1008), ("a\nb", 1008)] {
        let mut client = connect(address, "/kitchen");
        say(&mut client, name);
        assert_eq!(read_close(&mut client).0, code, "{name:?}");
    }
    anna.send(Message::binary(&b"bytes"[..])).unwrap();
    assert_eq!(read_close(&mut anna).0, 1003);
    // The name is free again.
    let mut anna = connect(address, "/kitchen");
    say(&mut anna, "Anna");
    assert_eq!(hear(&mut anna), "here\nAnna");
}

#[test]
fn chat_has_a_page_for_each_room() {
    let process = start("chat");
    let address = process.address();
    let page = http(address, "GET", "/kitchen");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.ends_with("</html>\n"));
    assert!(http(address, "POST", "/").starts_with("HTTP/1.1 405 "));
}

#[test]
fn ticker_publishes_to_those_who_subscribed() {
    let process = start("ticker");
    let mut client = connect(process.address(), "/");
    say(&mut client, "subscribe DOGE");
    assert_eq!(
        hear(&mut client),
        "error: send `subscribe NAME`; names: EUR GBP CHF"
    );
    say(&mut client, "subscribe EUR");
    assert_eq!(hear(&mut client), "subscribed EUR");
    for _ in 0..2 {
        let price = hear(&mut client);
        let (name, price) = price.split_once(' ').unwrap();
        assert_eq!(name, "EUR");
        assert!((0.9..1.3).contains(&price.parse::<f64>().unwrap()));
    }
    say(&mut client, "unsubscribe EUR");
    while hear(&mut client) != "unsubscribed EUR" {}
    say(&mut client, "subscribe CHF");
    assert_eq!(hear(&mut client), "subscribed CHF");
    assert!(hear(&mut client).starts_with("CHF "));
}

#[test]
fn hooks_decide_who_connects_and_publishes_and_answer_calls_later() {
    let process = start("hooks");
    let address = process.address();
    let ask = |token: &str, commands: &[&str]| {
        let mut client = connect(address, "/connection/websocket");
        say(
            &mut client,
            &format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#),
        );
        let hello = hear(&mut client);
        assert!(hello.contains(r#""client":""#), "{hello}");
        let mut replies = Vec::new();
        for command in commands {
            say(&mut client, command);
            replies.push(hear(&mut client));
        }
        replies
    };
    let publish = r#"{"id":2,"publish":{"channel":"news","data":7}}"#;
    let call = r#"{"id":3,"rpc":{"method":"sing","data":{}}}"#;
    let expected = [
        r#"{"id":2,"publish":{}}"#,
        r#"{"id":3,"rpc":{"data":{"method":"sing"}}}"#,
    ];
    assert_eq!(ask("Homer:open-sesame", &[publish, call]), expected);
    let refused = ask("Paris:open-sesame", &[publish]);
    assert_eq!(
        refused,
        [r#"{"id":2,"error":{"code":403,"message":"you are not Homer"}}"#]
    );
    let mut stranger = connect(address, "/connection/websocket");
    say(
        &mut stranger,
        r#"{"id":1,"connect":{"token":"Homer:1234"}}"#,
    );
    assert_eq!(read_close(&mut stranger), (4501, "no such user".into()));
}

#[test]
fn embed_shows_what_a_handle_does_and_ends() {
    let output = run("embed");
    for line in [
        "the client gets \"42\"",
        "a client gets \"the harvest is in\"",
        "connections and subscribers: (2, 2)",
        "closed with that was all (1000)",
        "closed with server shuts down (1001)",
    ] {
        assert!(output.lines().any(|printed| printed == line), "{output}");
    }
}

#[test]
fn sans_io_speaks_to_itself_and_ends() {
    let output = run("sans_io");
    assert!(
        output.contains("client: Text(\"hello, herald\")"),
        "{output}"
    );
    assert!(output.ends_with("both ends are closed\n"), "{output}");
}
