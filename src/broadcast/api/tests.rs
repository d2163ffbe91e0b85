use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::*;
use crate::broadcast::exchange::tests::rules;
use stentor::{Config, Endpoint, Handler, Server};

/// An application that is nothing but the API.
#[derive(Default)]
struct Alone {
    clients: Clients,
    exchange: Exchange,
    rules: Rules,
}

impl Handler for Alone {
    type State = Place;

    fn request(&mut self, ctx: &mut Context<'_, Place>, request: &Request<'_>) -> Response {
        let path = str::from_utf8(request.path()).unwrap();
        let method = path.strip_prefix("/api/").unwrap();
        let Self {
            clients,
            exchange,
            rules,
        } = self;
        answer(clients, exchange, ctx, rules, method, request)
    }
}

struct Api(Server<Alone>);

impl Api {
    fn new(options: ApiOptions) -> Self {
        let rules = Rules {
            api: options,
            ..rules()
        };
        let mut config = Config::listen(["127.0.0.1:0".parse().unwrap()]);
        rules.configure(&mut config);
        let application = Alone {
            rules,
            ..Alone::default()
        };
        Self(Server::bind(config, application).unwrap())
    }

    /// One whose key nobody needs.
    fn open() -> Self {
        Self::new(ApiOptions {
            insecure: true,
            ..ApiOptions::default()
        })
    }

    /// Sends a request; the answer, from its status on.
    fn send(&mut self, start: &str, fields: &str, body: &str) -> String {
        let Endpoint::Tcp(address) = self.0.endpoints()[0] else {
            panic!("a TCP endpoint")
        };
        let mut peer = TcpStream::connect(address).unwrap();
        let len = body.len();
        let head = format!("{start} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}");
        write!(peer, "{head}Content-Length: {len}\r\n\r\n{body}").unwrap();
        peer.set_nonblocking(true).unwrap();
        let (mut response, mut buffer) = (Vec::new(), [0; 4096]);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => response.extend_from_slice(&buffer[..len]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            self.0.turn(Some(Duration::from_millis(1))).unwrap();
            assert!(Instant::now() < deadline);
        }
        let response = String::from_utf8(response).unwrap();
        response.strip_prefix("HTTP/1.1 ").unwrap().to_owned()
    }

    fn status(&mut self, start: &str, fields: &str, body: &str) -> u16 {
        self.send(start, fields, body)[..3].parse().unwrap()
    }

    /// What a method answers with 200.
    fn ask(&mut self, method: &str, body: &str) -> String {
        let response = self.send(&format!("POST /api/{method}"), "", body);
        assert!(response.starts_with("200 "), "{response}");
        assert!(response.contains("Content-Type: application/json\r\n"));
        response.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The same without the epoch, which is random.
    fn ask_without_epoch(&mut self, method: &str, body: &str) -> String {
        let answer = self.ask(method, body);
        let parts: Vec<&str> = answer.split(",\"epoch\":\"").collect();
        let behind = parts[1..]
            .iter()
            .map(|part| part.split_once('"').unwrap().1);
        parts[..1].iter().copied().chain(behind).collect()
    }
}

const BAD: &str = r#"{"error":{"code":107,"message":"bad request"}}"#;
const OFF: &str = r#"{"error":{"code":108,"message":"not available"}}"#;
const UNKNOWN: &str = r#"{"error":{"code":102,"message":"unknown channel"}}"#;
const NOTHING: &str = r#"{"result":{}}"#;

#[test]
fn the_key_opens_the_api_in_three_ways() {
    let mut api = Api::new(ApiOptions {
        key: Some("k+1".into()),
        ..ApiOptions::default()
    });
    for (query, fields, status) in [
        ("", "X-API-Key: k+1\r\n", 200),
        ("", "x-api-key: k+1\r\nAuthorization: apikey wrong\r\n", 200),
        ("", "Authorization: apikey k+1\r\n", 200),
        ("", "Authorization: ApiKey  k+1\r\n", 200),
        ("?a=b&api_key=k%2B1", "", 200),
        ("", "", 401),
        ("", "X-API-Key: k+2\r\n", 401),
        ("", "X-API-Key: \r\n", 401),
        ("?api_key=k%2B1", "X-API-Key: wrong\r\n", 401),
        ("", "Authorization: Bearer k+1\r\n", 401),
        ("", "Authorization: apikeyk+1\r\n", 401),
        ("", "Authorization: apikey\r\n", 401),
        ("?api_key=", "", 401),
    ] {
        let start = format!("POST /api/info{query}");
        assert_eq!(api.status(&start, fields, "{}"), status, "{query} {fields}");
    }
    let refusal = api.send("POST /api/info", "", "{}");
    assert!(refusal.contains("WWW-Authenticate: apikey\r\n"));
}

#[test]
fn without_a_key_there_is_no_api() {
    for key in [None, Some(String::new())] {
        let mut api = Api::new(ApiOptions {
            key,
            ..ApiOptions::default()
        });
        for field in ["", "X-API-Key: \r\n"] {
            assert_eq!(api.status("POST /api/info", field, "{}"), 404);
        }
    }
    assert_eq!(Api::open().status("POST /api/info", "", "{}"), 200);
}

#[test]
fn what_is_no_request_to_the_api_is_refused() {
    let mut api = Api::open();
    for (start, body, status) in [
        ("GET /api/info", "", 405),
        ("PUT /api/info", "{}", 405),
        ("POST /api/nothing", "{}", 404),
        ("POST /api/", "{}", 404),
        ("POST /api/info", "", 400),
        ("POST /api/info", "[]", 400),
        ("POST /api/info", "{", 400),
        ("POST /api/info", "{} {}", 400),
        ("POST /api/info", "null", 400),
        ("POST /api/publish", r#"{"channel":1}"#, 400),
        (
            "POST /api/publish",
            "{\"channel\":\"a\",\"data\":{\"b\":}}",
            400,
        ),
        ("POST /api/batch", r#"{"commands":{}}"#, 400),
        ("POST /api/batch", r#"{"commands":[{"info":[]}]}"#, 400),
        ("POST /api/info", r#" {"unknown":1}"#, 200),
    ] {
        assert_eq!(api.status(start, "", body), status, "{start} {body}");
    }
    let refusal = api.send("GET /api/info", "", "");
    assert!(refusal.contains("Allow: POST\r\n"), "{refusal}");
}

#[test]
fn errors_are_statuses_where_that_is_asked_for() {
    let mut api = Api::open();
    let transport = "X-Centrifugo-Error-Mode: transport\r\n";
    let of = |response: String| {
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head[..3].to_owned(), body.to_owned())
    };
    let unknown = of(api.send("POST /api/history", transport, r#"{"channel":"x:y"}"#));
    let bare = r#"{"code":102,"message":"unknown channel"}"#;
    assert_eq!(unknown, ("404".to_owned(), bare.to_owned()));
    let good = of(api.send("POST /api/disconnect", transport, r#"{"user":"1"}"#));
    assert_eq!(good, ("200".to_owned(), NOTHING.to_owned()));
    let batch = r#"{"commands":[{"publish":{}}]}"#;
    let batch = of(api.send("POST /api/batch", transport, batch));
    assert_eq!(batch.0, "200");
    let mut api = Api::new(ApiOptions {
        insecure: true,
        transport_errors: true,
        ..ApiOptions::default()
    });
    assert_eq!(
        api.status("POST /api/history", "", r#"{"channel":"a"}"#),
        400
    );
}

#[test]
fn what_is_published_is_in_the_history() {
    let mut api = Api::open();
    let mut ask = |method: &str, body: &str| api.ask_without_epoch(method, body);
    let first = r#"{"channel":"kept:a","data":{"n":12345678901234567890},"tags":{"t":"v"}}"#;
    assert_eq!(ask("publish", first), r#"{"result":{"offset":1}}"#);
    let second = r#"{"channel":"kept:a","b64data":"eyJiIjoxfQ==","idempotency_key":"k"}"#;
    assert_eq!(ask("publish", second), r#"{"result":{"offset":2}}"#);
    assert_eq!(ask("publish", second), r#"{"result":{"offset":2}}"#);
    let skipped = r#"{"channel":"kept:a","data":3,"skip_history":true}"#;
    assert_eq!(ask("publish", skipped), NOTHING);
    assert_eq!(ask("publish", r#"{"channel":"a","data":1}"#), NOTHING);
    let versioned = r#"{"channel":"kept:b","data":1,"version":7,"version_epoch":"e"}"#;
    assert_eq!(ask("publish", versioned), r#"{"result":{"offset":1}}"#);
    assert_eq!(ask("publish", versioned), r#"{"result":{"offset":1}}"#);

    let one = r#"{"data":{"n":12345678901234567890},"offset":1,"tags":{"t":"v"}}"#;
    let two = r#"{"data":{"b":1},"offset":2}"#;
    let result = |publications: &str| {
        format!("{{\"result\":{{\"publications\":[{publications}],\"offset\":2}}}}")
    };
    for (query, publications) in [
        ("", String::new()),
        (r#","limit":-1"#, format!("{one},{two}")),
        (r#","limit":1"#, one.to_owned()),
        (r#","limit":1,"reverse":true"#, two.to_owned()),
        (r#","limit":9,"since":{"offset":1}"#, two.to_owned()),
    ] {
        let query = format!("{{\"channel\":\"kept:a\"{query}}}");
        assert_eq!(ask("history", &query), result(&publications), "{query}");
    }
    assert_eq!(ask("history_remove", r#"{"channel":"kept:a"}"#), NOTHING);
    let all = r#"{"channel":"kept:a","limit":-1}"#;
    assert_eq!(ask("history", all), result(""));
}

#[test]
fn what_cannot_be_done_is_an_error() {
    let mut api = Api::open();
    for (method, body, error) in [
        ("publish", "{}", BAD),
        ("publish", r#"{"channel":"a"}"#, BAD),
        ("publish", r#"{"channel":"a","data":null}"#, BAD),
        ("publish", r#"{"channel":"a","b64data":"?"}"#, BAD),
        ("publish", r#"{"channel":"@a","data":1}"#, BAD),
        ("publish", r#"{"channel":"x:a","data":1}"#, UNKNOWN),
        ("publish", r#"{"channel":"object:a","data":[]}"#, BAD),
        ("publish", r#"{"channel":"json:a","b64data":"/w=="}"#, BAD),
        ("broadcast", r#"{"data":1}"#, BAD),
        ("broadcast", r#"{"channels":["a"],"b64data":"?"}"#, BAD),
        ("presence", r#"{"channel":"a"}"#, OFF),
        ("presence_stats", r#"{"channel":"a"}"#, OFF),
        ("history", r#"{"channel":"a"}"#, OFF),
        ("history_remove", r#"{"channel":"a"}"#, OFF),
        ("history", "{}", BAD),
        (
            "history",
            r#"{"channel":"kept:a","reverse":true,"since":{}}"#,
            BAD,
        ),
        ("subscribe", r#"{"user":"1"}"#, BAD),
        ("subscribe", r#"{"user":"1","channel":"x:a"}"#, UNKNOWN),
        (
            "subscribe",
            r#"{"user":"1","channel":"a","b64info":"ew=="}"#,
            BAD,
        ),
        ("subscribe", r#"{"channel":"a"}"#, BAD),
        ("unsubscribe", r#"{"user":"1"}"#, BAD),
        ("unsubscribe", r#"{"channel":"a"}"#, BAD),
        ("disconnect", "{}", BAD),
        (
            "disconnect",
            r#"{"user":"1","disconnect":{"code":1000}}"#,
            BAD,
        ),
        ("refresh", "{}", BAD),
    ] {
        assert_eq!(api.ask(method, body), error, "{method} {body}");
    }
    let of_another = r#"{"channel":"kept:a","since":{"epoch":"x"}}"#;
    let unrecoverable = r#"{"error":{"code":112,"message":"unrecoverable position"}}"#;
    assert_eq!(api.ask("history", of_another), unrecoverable);
}

#[test]
fn a_user_who_is_not_there_is_no_error() {
    let mut api = Api::open();
    for (method, body) in [
        (
            "subscribe",
            r#"{"user":"1","channel":"a","info":{},"data":{}}"#,
        ),
        ("unsubscribe", r#"{"user":"1","channel":"a"}"#),
        (
            "disconnect",
            r#"{"user":"1","whitelist":["c"],"disconnect":{"code":4000}}"#,
        ),
        ("refresh", r#"{"client":"c","expired":true}"#),
    ] {
        assert_eq!(api.ask(method, body), NOTHING, "{method}");
    }
    let presence = r#"{"result":{"presence":{}}}"#;
    assert_eq!(api.ask("presence", r#"{"channel":"kept:a"}"#), presence);
    let stats = r#"{"result":{"num_clients":0,"num_users":0}}"#;
    assert_eq!(api.ask("presence_stats", r#"{"channel":"kept:a"}"#), stats);
}

#[test]
fn each_channel_of_a_broadcast_has_its_response() {
    let broadcast = r#"{"channels":["kept:a","a","x:a",""],"data":{}}"#;
    assert_eq!(
        Api::open().ask_without_epoch("broadcast", broadcast),
        format!(
            "{{\"result\":{{\"responses\":[{},{NOTHING},{UNKNOWN},{BAD}]}}}}",
            r#"{"result":{"offset":1}}"#
        )
    );
}

#[test]
fn a_batch_is_carried_out_in_order() {
    let commands = r#"{"parallel":true,"commands":[
        {"publish":{"channel":"kept:a","data":1}},
        {},
        {"publish":{"channel":"x:a","data":1}},
        {"nothing":1},
        {"history":{"channel":"kept:a","limit":1}}]}"#;
    let not_found = r#"{"error":{"code":104,"message":"not found"}}"#;
    let published = r#"{"publish":{"offset":1}}"#;
    let history = r#"{"history":{"publications":[{"data":1,"offset":1}],"offset":1}}"#;
    let mut api = Api::open();
    assert_eq!(
        api.ask_without_epoch("batch", commands),
        format!("{{\"replies\":[{published},{not_found},{UNKNOWN},{not_found},{history}]}}")
    );
    assert_eq!(api.ask("batch", "{}"), r#"{"replies":[]}"#);
}

#[test]
fn nothing_of_a_batch_is_done_where_a_part_cannot_be_read() {
    let mut api = Api::open();
    let batch = r#"{"commands":[{"publish":{"channel":"kept:a","data":1}},{"publish":{"data":1,"channel":2}}]}"#;
    assert_eq!(api.status("POST /api/batch", "", batch), 400);
    let history = api.ask_without_epoch("history", r#"{"channel":"kept:a"}"#);
    assert_eq!(history, r#"{"result":{"publications":[],"offset":0}}"#);
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn channels_with_subscribers_are_listed() {
    let mut api = Api::open();
    let Endpoint::Tcp(address) = api.0.endpoints()[0] else {
        panic!("a TCP endpoint")
    };
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(UPGRADE.as_bytes()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while api.0.stats().opened == 0 {
        api.0.turn(Some(Duration::from_millis(1))).unwrap();
        assert!(Instant::now() < deadline);
    }
    let run = api.0.handle().run(|_, ctx| {
        let id = ctx.connections().next().unwrap();
        for topic in ["a:1", "a:2", "b.c", "@own.x"] {
            ctx.subscribe_connection(id, topic).unwrap();
        }
    });
    run.unwrap();
    let mut ask = |pattern: &str| api.ask("channels", &format!("{{\"pattern\":\"{pattern}\"}}"));
    let one = r#"{"num_clients":1}"#;
    let all =
        format!("{{\"result\":{{\"channels\":{{\"a:1\":{one},\"a:2\":{one},\"b.c\":{one}}}}}}}");
    assert_eq!(ask(""), all);
    assert_eq!(ask("*"), all);
    let some = format!("{{\"result\":{{\"channels\":{{\"a:1\":{one},\"a:2\":{one}}}}}}}");
    assert_eq!(ask("a:?"), some);
    assert_eq!(ask("@*"), r#"{"result":{"channels":{}}}"#);
    let info = api.ask("info", "{}");
    assert!(
        info.starts_with(r#"{"result":{"nodes":[{"uid":""#),
        "{info}"
    );
    for part in [
        r#""name":"stentor""#,
        concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), '"'),
        r#""num_clients":0,"num_users":0,"num_channels":3,"num_subs":3,"uptime":"#,
    ] {
        assert!(info.contains(part), "{info}");
    }
}
