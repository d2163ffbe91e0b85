//! Plain requests and upgrades on the same port, as an application sees and answers them.

use stentor::protocol::http::{Request, Response};
use stentor::{Accept, Closed, ConnectionId, Context, Fault, Handler};

use crate::support::{Client, PATIENCE, Running, serve, upgrade_request};

/// A small site. The state of a connection is what its `open` says first.
#[derive(Default)]
struct Site {
    requests: Vec<ConnectionId>,
    faults: Vec<String>,
    opened: usize,
    closed: usize,
}

const LARGE: usize = 16 << 20;

impl Handler for Site {
    type State = String;

    fn upgrade(
        &mut self,
        _: &mut Context<'_, String>,
        request: &Request<'_>,
    ) -> Result<Accept<String>, Response> {
        let refuse = |status, name, value| Response::new(status).header(name, value).unwrap();
        match request.path() {
            b"/secret" => Err(refuse(401, "WWW-Authenticate", "Bearer").text("Who are you?\n")),
            b"/forbidden" => Err(Response::new(403)),
            b"/busy" => Err(refuse(429, "Retry-After", "7")),
            b"/moved" => Err(Response::redirect("/chat").unwrap()),
            b"/chat" => {
                let chosen = request.choose_subprotocol(&["chat.v2", "chat.v1"]);
                let accept = Accept::new(String::new());
                Ok(match chosen {
                    Some(chosen) => accept.subprotocol(chosen),
                    None => accept,
                })
            }
            b"/broken" => Ok(Accept::new("never".into()).subprotocol("not offered")),
            _ => Ok(Accept::new(describe(request))
                .header("Set-Cookie", "id=7; HttpOnly")
                .and_then(|accept| accept.header("Set-Cookie", "seen=1"))
                .unwrap()),
        }
    }

    fn open(&mut self, ctx: &mut Context<'_, String>) {
        self.opened += 1;
        let greeting = ctx.state().clone();
        ctx.send(&greeting);
        ctx.subscribe("news").unwrap();
    }

    fn close(&mut self, _: &mut Context<'_, String>, _: Closed<'_>) {
        self.closed += 1;
    }

    fn request(&mut self, ctx: &mut Context<'_, String>, request: &Request<'_>) -> Response {
        self.requests.push(ctx.id());
        match (request.method(), request.path()) {
            ("GET" | "HEAD", b"/hello") => Response::new(200).text("hello"),
            (_, b"/hello") => Response::method_not_allowed(&["GET", "HEAD"]).unwrap(),
            ("GET", b"/large") => Response::new(200).body(vec![b'x'; LARGE]),
            ("POST", b"/echo") => Response::new(200).body(request.body()),
            ("POST", b"/publish") => {
                let count = ctx.publish("news", request.body());
                Response::new(202).text(count.to_string())
            }
            _ => Response::not_found(),
        }
    }

    fn fault(&mut self, _: &mut Context<'_, String>, fault: Fault<'_>) {
        self.faults.push(format!("{fault:?}"));
    }
}

/// What an application asks of a request, in a line.
fn describe(request: &Request<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let cookies: Vec<String> = request
        .cookies()
        .map(|(name, value)| format!("{}:{}", text(name), text(value)))
        .collect();
    format!(
        "{} ?{} from {} with {} on {}",
        text(request.path()),
        request.query().map(text).unwrap_or_default(),
        request.origin().map(text).unwrap_or_default(),
        cookies.join(","),
        text(request.host()),
    )
}

fn site() -> Running<Site> {
    serve(Site::default(), |_| ())
}

/// A response as it came.
#[derive(Debug)]
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Client {
    fn ask(&mut self, request: &str) {
        self.send(request.as_bytes());
    }

    /// Reads a response whose body has the length that it says.
    fn answer(&mut self) -> Answer {
        let mut answer = self.answer_to_head();
        let len = answer.header("Content-Length").unwrap().parse().unwrap();
        answer.body = vec![0; len];
        std::io::Read::read_exact(&mut self.socket, &mut answer.body).unwrap();
        answer
    }

    /// Reads a response that has no body.
    fn answer_to_head(&mut self) -> Answer {
        Answer {
            head: self.head(),
            body: Vec::new(),
        }
    }

    /// Asks for a WebSocket with these fields besides.
    fn ask_upgrade(&mut self, target: &str, fields: &str) {
        let request = upgrade_request(target).replace("\r\n\r\n", &format!("\r\n{fields}\r\n"));
        self.send(request.as_bytes());
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn post(target: &str, fields: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

#[test]
fn an_application_that_says_nothing_answers_404() {
    let server = serve(crate::support::Echo, |_| ());
    let mut client = Client::raw(server.address);
    client.ask(&get("/"));
    let answer = client.answer();
    assert_eq!(
        (answer.status(), &answer.body[..]),
        (404, &b"Not found.\n"[..])
    );
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let server = site();
    let mut client = Client::raw(server.address);
    for _ in 0..3 {
        client.ask(&get("/hello"));
        let answer = client.answer();
        assert_eq!((answer.status(), &answer.body[..]), (200, &b"hello"[..]));
        assert_eq!(answer.header("Connection"), None);
        let date = answer.header("Date").unwrap();
        assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
    }
    let (stats, requests) = server.ask(|site, ctx| (ctx.stats().clone(), site.requests.clone()));
    assert_eq!((stats.accepted, stats.requests), (1, 3));
    assert_eq!(requests, [requests[0]; 3]);
}

#[test]
fn a_connection_that_spoke_http_can_become_a_websocket() {
    let server = site();
    let mut client = Client::raw(server.address);
    client.ask(&get("/hello"));
    assert_eq!(client.answer().status(), 200);
    client.ask_upgrade("/chat", "");
    assert_eq!(client.answer_to_head().status(), 101);
    assert_eq!(client.hear(), "");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = site();
    let mut client = Client::raw(server.address);
    let requests = [
        get("/hello"),
        post("/echo", "Content-Length: 3\r\n", "abc"),
        get("/nothing"),
        post(
            "/echo",
            "Transfer-Encoding: chunked\r\n",
            "2\r\nde\r\n1\r\nf\r\n0\r\n\r\n",
        ),
        get("/hello"),
    ];
    client.ask(&requests.concat());
    let answers = [(); 5].map(|()| {
        let answer = client.answer();
        (answer.status(), String::from_utf8(answer.body).unwrap())
    });
    let expected = [
        (200, "hello"),
        (200, "abc"),
        (404, "Not found.\n"),
        (200, "def"),
        (200, "hello"),
    ];
    assert_eq!(
        answers,
        expected.map(|(status, body)| (status, body.to_owned()))
    );
}

#[test]
fn a_pipelined_request_waits_until_the_response_before_it_is_out() {
    let server = serve(Site::default(), |config| config.timeouts.write = PATIENCE);
    let mut client = Client::raw(server.address);
    client.ask(&[get("/large"), get("/hello"), get("/large")].concat());
    server.wait_until("a response waits", |site, ctx| {
        site.requests
            .first()
            .is_some_and(|&id| ctx.queued_of(id) > 0)
    });
    assert_eq!(server.ask(|site, _| site.requests.len()), 1);
    assert_eq!(client.answer().body.len(), LARGE);
    assert_eq!(client.answer().body, b"hello");
    assert_eq!(client.answer().body.len(), LARGE);
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let server = site();
    let mut client = Client::raw(server.address);
    client.ask("HEAD /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!(
        (answer.status(), answer.header("Content-Length")),
        (200, Some("5"))
    );
    // The next byte is the next response's.
    client.ask(&get("/hello"));
    assert_eq!(client.answer().body, b"hello");
}

#[test]
fn a_body_is_read_by_its_length_or_in_chunks_however_it_is_cut() {
    let server = site();
    let body = "0123456789".repeat(100);
    let by_length = post("/echo", "Content-Length: 1000\r\n", &body);
    let (first, second, third) = (&body[..1], &body[1..999], &body[999..]);
    let chunks = format!("1;ext=1\r\n{first}\r\n3e6\r\n{second}\r\n1\r\n{third}\r\n0\r\n\r\n");
    let chunked = post("/echo", "Transfer-Encoding: chunked\r\n", &chunks);
    for request in [by_length, chunked] {
        for piece in [request.len(), 7, 1] {
            let mut client = Client::raw(server.address);
            for bytes in request.as_bytes().chunks(piece) {
                client.send(bytes);
            }
            let answer = client.answer();
            assert_eq!(answer.status(), 200, "{piece}");
            assert_eq!(answer.body, body.as_bytes(), "{piece}");
        }
    }
}

#[test]
fn the_application_says_which_methods_are_allowed() {
    let server = site();
    let mut client = Client::raw(server.address);
    client.ask(&post("/hello", "Content-Length: 0\r\n", ""));
    let answer = client.answer();
    assert_eq!(
        (answer.status(), answer.header("Allow")),
        (405, Some("GET, HEAD"))
    );
    client.ask(&get("/hello"));
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn a_body_above_the_limit_is_refused_with_413() {
    let server = serve(Site::default(), |config| {
        config.protocol.http.max_body_size = 10;
    });
    let mut client = Client::raw(server.address);
    client.ask(&post("/echo", "Content-Length: 10\r\n", "0123456789"));
    assert_eq!(client.answer().body, b"0123456789");
    client.ask(&post("/echo", "Content-Length: 11\r\n", ""));
    let answer = client.answer();
    assert_eq!(
        (answer.status(), answer.header("Connection")),
        (413, Some("close"))
    );
    assert!(client.read_to_end().is_empty());

    let mut client = Client::raw(server.address);
    let chunks = "6\r\n012345\r\n6\r\n";
    client.ask(&post("/echo", "Transfer-Encoding: chunked\r\n", chunks));
    assert_eq!(client.answer().status(), 413);
    assert!(client.read_to_end().is_empty());
    assert_eq!(server.ask(|_, ctx| ctx.stats().refused.status(413)), 2);
    assert_eq!(server.stop().faults, ["Refused(BodyTooLarge)"; 2]);
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let server = site();
    let mut client = Client::raw(server.address);
    let fields = "Content-Length: 4\r\nExpect: 100-continue\r\n";
    client.ask(&post("/echo", fields, ""));
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.ask("body");
    assert_eq!(client.answer().body, b"body");
    // Who does not wait is not told.
    client.ask(&post("/echo", fields, "body"));
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn a_connection_that_the_client_wants_closed_is_closed_behind_the_response() {
    let server = site();
    let mut client = Client::raw(server.address);
    let request = "GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.ask(&[request, &get("/hello")].concat());
    let answer = client.answer();
    assert_eq!(
        (answer.status(), answer.header("Connection")),
        (200, Some("close"))
    );
    assert!(client.read_to_end().is_empty());
    assert_eq!(server.ask(|_, ctx| ctx.stats().requests), 1);
}

#[test]
fn a_client_that_has_ended_its_side_still_gets_its_response() {
    let server = site();
    let mut client = Client::raw(server.address);
    client.ask(&get("/large"));
    client.finish_sending();
    assert_eq!(client.answer().body.len(), LARGE);
    assert!(client.read_to_end().is_empty());
    server.wait_until("it is gone", |_, ctx| ctx.connection_count() == 0);
}

#[test]
fn an_idle_connection_is_closed_after_its_time_without_a_word() {
    let server = serve(Site::default(), |config| {
        config.timeouts.handshake = std::time::Duration::from_millis(50);
    });
    let mut client = Client::raw(server.address);
    client.ask(&get("/hello"));
    assert_eq!(client.answer().status(), 200);
    assert!(client.read_to_end().is_empty());
}

#[test]
fn what_comes_by_http_can_be_published() {
    let server = site();
    let mut reader = Client::open(server.address, "/chat");
    assert_eq!(reader.hear(), "");
    let mut client = Client::raw(server.address);
    client.ask(&post("/publish", "Content-Length: 5\r\n", "hello"));
    let answer = client.answer();
    assert_eq!((answer.status(), &answer.body[..]), (202, &b"1"[..]));
    assert_eq!(reader.read_frame(), (0x82, b"hello".to_vec()));
}

#[test]
fn the_application_refuses_upgrades_with_a_response_of_its_own() {
    let server = site();
    let refused = |target| {
        let mut client = Client::raw(server.address);
        client.ask_upgrade(target, "");
        let answer = client.answer();
        // What follows a refused upgrade may not be HTTP.
        assert_eq!(answer.header("Connection"), Some("close"), "{target}");
        assert!(answer.header("Date").is_some(), "{target}");
        assert!(client.read_to_end().is_empty(), "{target}");
        answer
    };
    let secret = refused("/secret");
    assert_eq!(
        (secret.status(), &secret.body[..]),
        (401, &b"Who are you?\n"[..])
    );
    assert_eq!(secret.header("WWW-Authenticate"), Some("Bearer"));
    assert_eq!(refused("/forbidden").status(), 403);
    let busy = refused("/busy");
    assert_eq!(
        (busy.status(), busy.header("Retry-After")),
        (429, Some("7"))
    );
    let moved = refused("/moved");
    assert_eq!(
        (moved.status(), moved.header("Location")),
        (307, Some("/chat"))
    );
    let stats = server.ask(|_, ctx| ctx.stats().clone());
    assert_eq!((stats.refused_by_application, stats.opened), (4, 0));
    let site = server.stop();
    assert_eq!((site.opened, site.closed, site.faults.len()), (0, 0, 0));
}

#[test]
fn the_first_offered_subprotocol_that_the_application_knows_is_chosen() {
    let server = site();
    let chosen = |fields| {
        let mut client = Client::raw(server.address);
        client.ask_upgrade("/chat", fields);
        let answer = client.answer_to_head();
        assert_eq!(answer.status(), 101);
        answer.header("Sec-WebSocket-Protocol").map(str::to_owned)
    };
    let offer = "Sec-WebSocket-Protocol: chat.v3, chat.v1, chat.v2\r\n";
    assert_eq!(chosen(offer).as_deref(), Some("chat.v1"));
    assert_eq!(chosen("Sec-WebSocket-Protocol: CHAT.v1\r\n"), None);
    assert_eq!(chosen(""), None);
}

#[test]
fn headers_of_the_application_stand_in_the_101() {
    let server = site();
    let mut client = Client::raw(server.address);
    client.ask_upgrade("/", "");
    let answer = client.answer_to_head();
    assert_eq!(answer.status(), 101);
    assert!(
        answer.head.contains("\r\nSet-Cookie: id=7; HttpOnly\r\n"),
        "{answer:?}"
    );
    assert!(
        answer.head.contains("\r\nSet-Cookie: seen=1\r\n"),
        "{answer:?}"
    );
}

#[test]
fn an_upgrade_shows_cookies_origin_query_and_host() {
    let server = site();
    let mut client = Client::raw(server.address);
    let fields = "Origin: https://example.com\r\nCookie: a=1; b=two\r\nCookie: c=\r\n";
    client.ask_upgrade("/room?id=7&x=%20", fields);
    assert_eq!(client.answer_to_head().status(), 101);
    assert_eq!(
        client.hear(),
        "/room ?id=7&x=%20 from https://example.com with a:1,b:two,c: on localhost"
    );
}

#[test]
fn an_acceptance_that_breaks_the_handshake_is_a_500_and_a_fault() {
    let server = site();
    let mut client = Client::raw(server.address);
    client.ask_upgrade("/broken", "Sec-WebSocket-Protocol: chat\r\n");
    assert_eq!(client.answer().status(), 500);
    assert!(client.read_to_end().is_empty());
    let stats = server.ask(|_, ctx| ctx.stats().clone());
    assert_eq!((stats.opened, stats.closed_total()), (0, 0));
    let site = server.stop();
    assert_eq!((site.opened, site.closed), (0, 0));
    assert_eq!(site.faults, ["BadAcceptance(SubprotocolNotOffered)"]);
}
