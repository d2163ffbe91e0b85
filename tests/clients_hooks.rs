//! Clients whose commands a program of one's own decides on, at once or later, over raw sockets.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stentor::broadcast::hooks::{
    self, Answer, Ask, ConnectRequest, Connected, Hooks, Later, PublishRequest, RefreshRequest,
    Refreshed, Refusal, Returned, RpcRequest, SubscribeRequest, Subscribed,
};
use stentor::broadcast::{Access, Broadcast, ChannelOptions, Who};
use stentor::topic::Namespaces;

use crate::clients::{End, Peer, Served, end, kept, peopled, rules, serve_with};
use crate::support::PATIENCE;

/// Answers what the names of methods, channels and tokens say; what it puts off, the test answers.
struct Program {
    rpcs: mpsc::Sender<Later<Returned>>,
    connects: mpsc::Sender<Later<Connected>>,
    subscribes: mpsc::Sender<Later<Subscribed>>,
    publishes: mpsc::Sender<Later<hooks::Publish>>,
    refreshes: mpsc::Sender<Later<Refreshed>>,
    notes: Notes,
    headers: Vec<String>,
}

/// What was said and who has gone.
type Notes = Arc<Mutex<Vec<String>>>;

/// What the program puts off.
struct PutOff {
    rpcs: mpsc::Receiver<Later<Returned>>,
    connects: mpsc::Receiver<Later<Connected>>,
    subscribes: mpsc::Receiver<Later<Subscribed>>,
    publishes: mpsc::Receiver<Later<hooks::Publish>>,
    refreshes: mpsc::Receiver<Later<Refreshed>>,
    notes: Notes,
}

fn next<T>(receiver: &mpsc::Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).unwrap()
}

fn program() -> (Program, PutOff) {
    let (rpcs, rpcs_off) = mpsc::channel();
    let (connects, connects_off) = mpsc::channel();
    let (subscribes, subscribes_off) = mpsc::channel();
    let (publishes, publishes_off) = mpsc::channel();
    let (refreshes, refreshes_off) = mpsc::channel();
    let notes = Notes::default();
    let put_off = PutOff {
        rpcs: rpcs_off,
        connects: connects_off,
        subscribes: subscribes_off,
        publishes: publishes_off,
        refreshes: refreshes_off,
        notes: Arc::clone(&notes),
    };
    let program = Program {
        rpcs,
        connects,
        subscribes,
        publishes,
        refreshes,
        notes,
        headers: vec!["x-who".into()],
    };
    (program, put_off)
}

fn refused(code: u32) -> Refusal {
    Refusal::Error {
        code,
        message: "as the program says".into(),
        temporary: true,
    }
}

fn sent_away(code: u16) -> Refusal {
    Refusal::Disconnect {
        code,
        reason: "go away".into(),
    }
}

/// The user `u`, until some seconds from now.
fn until(seconds: u64) -> Connected {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Connected {
        user: "u".into(),
        expire_at: now.unwrap().as_secs() + seconds,
        ..Connected::default()
    }
}

impl Hooks for Program {
    fn headers(&self) -> &[String] {
        &self.headers
    }

    fn connect(&mut self, request: &ConnectRequest<'_>, ask: Ask<Connected>) -> Answer<Connected> {
        let known = Connected {
            user: "u".into(),
            data: "{\"a\":\n1}".into(),
            channels: vec!["granted".into()],
            ..Connected::default()
        };
        match request.token {
            "now" => Ok(known).into(),
            "short" => Ok(until(1)).into(),
            "later" => {
                self.connects.send(ask.later()).unwrap();
                Answer::Later
            }
            "error" => Err(refused(1000)).into(),
            "away" => Err(sent_away(4500)).into(),
            "bad code" => Err(sent_away(1005)).into(),
            _ => Answer::Usual,
        }
    }

    fn subscribe(
        &mut self,
        request: &SubscribeRequest<'_>,
        ask: Ask<Subscribed>,
    ) -> Answer<Subscribed> {
        match request.channel {
            "later" => {
                self.subscribes.send(ask.later()).unwrap();
                Answer::Later
            }
            "no" => Err(refused(403)).into(),
            "data" => Ok(Subscribed {
                data: "{\n\"for\":\n\"you\"}".into(),
                info: "[\n1]".into(),
                ..Subscribed::default()
            })
            .into(),
            "p:named" => Ok(Subscribed {
                info: "Ann, \"A\"".into(),
                ..Subscribed::default()
            })
            .into(),
            channel if channel.starts_with("pushed ") => {
                let overrides = hooks::Overrides {
                    join_leave: Some(true),
                    force_push_join_leave: Some(true),
                    ..hooks::Overrides::default()
                };
                Ok(Subscribed {
                    overrides,
                    ..Subscribed::default()
                })
                .into()
            }
            // The client says itself how it is to be seen.
            channel if channel.ends_with(":seen") => {
                let wish: Value = serde_json::from_slice(request.data).unwrap_or_default();
                let overrides = hooks::Overrides {
                    presence: wish["presence"].as_bool(),
                    join_leave: wish["join_leave"].as_bool(),
                    ..hooks::Overrides::default()
                };
                Ok(Subscribed {
                    overrides,
                    ..Subscribed::default()
                })
                .into()
            }
            _ => Answer::Usual,
        }
    }

    fn publish(
        &mut self,
        request: &PublishRequest<'_>,
        ask: Ask<hooks::Publish>,
    ) -> Answer<hooks::Publish> {
        match request.data {
            b"\"later\"" => {
                self.publishes.send(ask.later()).unwrap();
                Answer::Later
            }
            b"\"no\"" => Err(refused(403)).into(),
            b"\"other\"" => Ok(hooks::Publish {
                data: Some("\"instead\"".into()),
                skip_history: true,
            })
            .into(),
            _ => Answer::Usual,
        }
    }

    fn rpc(&mut self, request: &RpcRequest<'_>, ask: Ask<Returned>) -> Answer<Returned> {
        let data = request.data.to_owned();
        match request.method {
            "echo" => Ok(Returned { data }).into(),
            "later" => {
                self.rpcs.send(ask.later()).unwrap();
                Answer::Later
            }
            "dropped" => {
                drop(ask.later());
                Answer::Later
            }
            "twice" => {
                let again = ask.clone().later();
                self.rpcs.send(ask.later()).unwrap();
                self.rpcs.send(again).unwrap();
                Answer::Later
            }
            // A promise that is not kept by who gives another answer.
            "both" => {
                self.rpcs.send(ask.later()).unwrap();
                Ok(Returned { data }).into()
            }
            "away" => Err(sent_away(4001)).into(),
            "bad code" => Err(sent_away(99)).into(),
            "who" => {
                let headers: Vec<_> = request.client.headers.iter().collect();
                let data = json!([request.client.user, request.client.transport, headers]);
                let data = data.to_string().into();
                Ok(Returned { data }).into()
            }
            _ => Answer::Usual,
        }
    }

    fn refresh(&mut self, _: &RefreshRequest<'_>, ask: Ask<Refreshed>) -> Answer<Refreshed> {
        self.refreshes.send(ask.later()).unwrap();
        Answer::Later
    }

    fn message(&mut self, client: &hooks::Client<'_>, data: &[u8]) -> bool {
        let note = format!("{} says {}", client.user, String::from_utf8_lossy(data));
        self.notes.lock().unwrap().push(note);
        data != b"\"unwanted\""
    }

    fn disconnected(&mut self, client: &hooks::Client<'_>) {
        let note = format!("{} has gone", client.user);
        self.notes.lock().unwrap().push(note);
    }
}

fn start() -> (Served, PutOff) {
    let (program, put_off) = program();
    (serve_with(rules(&[]), program, |_| ()), put_off)
}

fn connect(server: &Served, token: &str) -> (Peer, Value) {
    server.connect_with(&json!({"token": token}))
}

/// How a client with this token is refused: what it is told, and the end.
fn refusal(server: &Served, token: &str) -> (Vec<Value>, End) {
    let mut peer = server.open();
    peer.say(&json!({"id": 1, "connect": {"token": token}}).to_string());
    peer.hear_all()
}

#[expect(clippy::unnecessary_wraps, reason = "that is what is answered")]
fn returned(data: &str) -> Result<Returned, Refusal> {
    let data = data.into();
    Ok(Returned { data })
}

// ---- answers at once ----

#[test]
fn program_says_where_a_subscription_is_seen() {
    let (program, _put_off) = program();
    let quiet = ChannelOptions {
        join_leave: false,
        ..peopled()
    };
    let server = serve_with(rules(&[("p", peopled()), ("q", quiet)]), program, |_| ());
    for (namespace, usually_told) in [("p", true), ("q", false)] {
        let channel = format!("{namespace}:seen");
        let mut observer = server.connect();
        observer.say(&json!({"id": 2, "subscribe": {"channel": channel}}).to_string());
        assert_eq!(observer.hear()["id"], 2);
        if usually_told {
            assert!(observer.hear()["push"]["join"].is_object());
        }
        for (presence, join_leave) in [
            (None, None),
            (Some(false), None),
            (None, Some(true)),
            (None, Some(false)),
            (Some(false), Some(true)),
            (Some(false), Some(false)),
            (Some(true), Some(true)),
        ] {
            let what = format!("{namespace} {presence:?} {join_leave:?}");
            let (is_listed, is_told) =
                (presence.unwrap_or(true), join_leave.unwrap_or(usually_told));
            let mut other = server.connect();
            let wish = json!({"presence": presence, "join_leave": join_leave});
            let request = json!({"channel": channel, "data": wish});
            other.say(&json!({"id": 2, "subscribe": request}).to_string());
            assert_eq!(other.hear()["id"], 2);
            if is_told {
                assert!(observer.hear()["push"]["join"].is_object(), "{what}");
            }
            let about = json!({"channel": channel});
            let present = observer.result("presence", &about)["presence"].clone();
            let count = 1 + usize::from(is_listed);
            assert_eq!(present.as_object().unwrap().len(), count, "{what}");
            let stats = observer.result("presence_stats", &about);
            assert_eq!(stats["num_clients"], count, "{what}");
            // The last, by the end of the connection.
            if join_leave == Some(true) {
                drop(other);
            } else {
                other.say(&json!({"id": 3, "unsubscribe": about}).to_string());
            }
            if is_told {
                assert!(observer.hear()["push"]["leave"].is_object(), "{what}");
            } else {
                observer.hears_nothing_more();
            }
        }
    }
}

#[test]
fn console_shows_nobody_who_is_not_in_the_presence() {
    let open = ChannelOptions {
        access: Access {
            publish: Who::Nobody,
            subscribe: Who::Anyone,
        },
        ..peopled()
    };
    let mut rules = rules(&[("o", open)]);
    rules.console.enabled = true;
    rules.overview = Who::Anyone;
    let (program, _put_off) = program();
    let server = serve_with(rules, program, |_| ());
    let mut watcher = server.open_at("/console/feed");
    let _peers = [false, true].map(|presence| {
        let mut peer = server.connect();
        let wish = json!({"presence": presence, "join_leave": true});
        peer.result("subscribe", &json!({"channel": "o:seen", "data": wish}));
        peer
    });
    watcher.say(r#"{"presence":"o:seen"}"#);
    let shown = std::iter::repeat_with(|| watcher.hear())
        .find(|told| told["presence"].is_object())
        .unwrap();
    assert_eq!(shown["presence"]["total"], 1);
    assert_eq!(shown["presence"]["members"].as_array().unwrap().len(), 1);
}

#[test]
fn program_answers_at_once() {
    let (server, _put_off) = start();
    let (mut peer, result) = connect(&server, "now");
    assert_eq!(result["data"], json!({"a": 1}));
    assert_eq!(result["subs"], json!({"granted": {}}));
    let echoed = peer.result("rpc", &json!({"method": "echo", "data": [1, {"a": null}]}));
    assert_eq!(echoed, json!({"data": [1, {"a": null}]}));
    assert_eq!(peer.result("rpc", &json!({"method": "echo"})), json!({}));
    assert_eq!(peer.error("rpc", &json!({"method": "unknown"})), 108);
    assert_eq!(peer.error("subscribe", &json!({"channel": "no"})), 403);
    let subscribed = peer.result("subscribe", &json!({"channel": "data"}));
    assert_eq!(subscribed, json!({"data": {"for": "you"}}));
    assert_eq!(
        peer.error("publish", &json!({"channel": "data", "data": "no"})),
        403
    );
    peer.say(r#"{"id":2,"publish":{"channel":"data","data":"other"}}"#);
    let heard = [peer.hear(), peer.hear()];
    let push = heard.iter().find(|line| line["push"].is_object()).unwrap();
    let publication = &push["push"]["pub"];
    assert_eq!(publication["data"], "instead");
    assert_eq!(publication["info"]["chan_info"], json!([1]));
}

/// Otherwise it takes the place of half the channels that a client may have, and what is told of who
/// comes is kept, conflated or dropped like what is published.
#[test]
fn program_may_show_who_comes_where_no_channel_does() {
    let (program, _put_off) = program();
    let mut rules = rules(&[]);
    rules.channels = Namespaces::new(kept());
    let server = serve_with(rules, program, |_| ());
    let mut peer = server.connect();
    for number in 1..=128 {
        let channel = format!("pushed {number}");
        peer.subscribe(&channel);
        assert_eq!(peer.hear()["push"]["channel"], channel);
    }
    let (tell, told) = mpsc::channel();
    let tell = move |_: &mut Broadcast, ctx: &mut stentor::Context<'_, _>| {
        tell.send(ctx.gauges().kept_publications).unwrap();
    };
    server.handle.run(tell).unwrap();
    assert_eq!(next(&told), 0);
}

/// No program of one's own, and no backend, ends the server by what it says.
#[test]
fn what_the_program_says_of_a_client_becomes_json() {
    let (program, put_off) = program();
    let server = serve_with(rules(&[("p", peopled())]), program, |_| ());
    let (mut peer, _) = connect(&server, "now");
    peer.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
    let data = b"\"\xff\"".to_vec();
    next(&put_off.rpcs).answer(Ok(Returned { data }));
    assert_eq!(peer.hear(), json!({"id": 2, "rpc": {"data": "Iv8i"}}));
    peer.subscribe("p:named");
    let join = peer.hear();
    assert_eq!(join["push"]["join"]["info"]["chan_info"], "Ann, \"A\"");
    let members = peer.result("presence", &json!({"channel": "p:named"}));
    let mut members = members["presence"].as_object().unwrap().values();
    assert_eq!(members.next().unwrap()["chan_info"], "Ann, \"A\"");
}

#[test]
fn program_refuses_clients_by_an_error_or_an_end() {
    let (server, _put_off) = start();
    let (lines, how) = refusal(&server, "away");
    assert_eq!((lines, how), (Vec::new(), end(4500, "go away")));
    let mut peer = server.open();
    let reply = peer.ask("{\"id\":1,\"connect\":{\"token\":\"error\"}}\n{\"id\":2,\"ping\":{}}");
    let error = json!({"code": 1000, "message": "as the program says", "temporary": true});
    assert_eq!(reply, json!({"id": 1, "error": error}));
    // It has a while to leave, in which nothing counts.
    peer.say(r#"{"id":3,"connect":{}}"#);
    peer.hears_nothing_more();
    peer.say("garbage");
    assert_eq!(peer.hear_end(), end(3502, "stale"));
}

/// Otherwise the connection would hang, without an answer and without an end.
#[test]
fn end_with_a_code_that_cannot_be_sent_is_an_end_all_the_same() {
    let (server, _put_off) = start();
    let (lines, how) = refusal(&server, "bad code");
    assert_eq!(
        (lines, how),
        (Vec::new(), end(3004, "internal server error"))
    );
    let (mut peer, _) = connect(&server, "now");
    peer.say(r#"{"id":2,"rpc":{"method":"bad code"}}"#);
    assert_eq!(peer.hear_end(), end(3004, "internal server error"));
}

#[test]
fn messages_of_clients_are_told_in_order_and_so_are_their_ends() {
    let (server, put_off) = start();
    let (mut peer, _) = connect(&server, "now");
    peer.say("{\"send\":{\"data\":1}}\n{\"send\":{\"data\":{\"a\":2}}}\n{\"send\":{\"data\":\"unwanted\"}}");
    assert_eq!(peer.hear_end(), end(3508, "not available"));
    let (_, how) = refusal(&server, "away"); // Never connected.
    assert_eq!(how.0, 4500);
    drop(peer);
    let (other, _) = connect(&server, "now");
    other.socket.reset();
    let expected = [
        "u says 1",
        "u says {\"a\":2}",
        "u says \"unwanted\"",
        "u has gone",
        "u has gone",
    ];
    wait_until("all is told", || {
        put_off.notes.lock().unwrap().len() >= expected.len()
    });
    assert_eq!(*put_off.notes.lock().unwrap(), expected);
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(
            std::time::Instant::now() < deadline,
            "waited too long until {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn program_learns_who_asks() {
    let (server, _put_off) = start();
    let mut client = crate::support::Client::raw(server.address);
    let request = crate::support::upgrade_request("/connection/websocket");
    let request = request.replacen("\r\n\r\n", "\r\nX-Who: me\r\nX-Other: you\r\n\r\n", 1);
    client.send(request.as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    let mut peer = Peer::over(client);
    peer.ask(r#"{"id":1,"connect":{"token":"now"}}"#);
    let who = peer.result("rpc", &json!({"method": "who"}));
    assert_eq!(who["data"], json!(["u", "websocket", [["x-who", "me"]]]));
}

// ---- answers later ----

#[test]
fn commands_wait_for_the_answer_in_their_order_and_others_do_not() {
    let (server, put_off) = start();
    let (mut peer, _) = connect(&server, "now");
    let mut other = server.connect();
    peer.say("{\"id\":2,\"rpc\":{\"method\":\"echo\",\"data\":2}}\n{\"id\":3,\"rpc\":{\"method\":\"later\"}}\n{\"id\":4,\"rpc\":{\"method\":\"echo\",\"data\":4}}");
    peer.say(
        "{\"id\":5,\"rpc\":{\"method\":\"later\"}}\n{\"id\":6,\"subscribe\":{\"channel\":\"a\"}}",
    );
    peer.say(r#"{"id":7,"publish":{"channel":"a","data":7}}"#);
    assert_eq!(peer.hear()["id"], 2);
    let first = next(&put_off.rpcs);
    let echoed = other.result("rpc", &json!({"method": "echo", "data": 0}));
    assert_eq!(echoed, json!({"data": 0}));
    peer.hears_nothing_more();
    std::thread::spawn(move || first.answer(returned("{\n\"a\": 1}")));
    assert_eq!(peer.hear(), json!({"id": 3, "rpc": {"data": {"a": 1}}}));
    assert_eq!(peer.hear()["id"], 4);
    next(&put_off.rpcs).answer(Err(refused(500)));
    let error = peer.hear();
    assert_eq!(
        (&error["id"], &error["error"]["code"]),
        (&json!(5), &json!(500))
    );
    assert_eq!(peer.hear()["id"], 6);
    let heard = [peer.hear(), peer.hear()];
    assert!(heard.iter().any(|line| line["id"] == 7), "{heard:?}");
    assert!(
        heard.iter().any(|line| line["push"]["pub"]["data"] == 7),
        "{heard:?}"
    );
}

#[test]
fn each_question_may_be_answered_later() {
    let (server, put_off) = start();
    let mut peer = server.open();
    peer.say("{\"id\":1,\"connect\":{\"token\":\"later\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"later\"}}\n{\"id\":3,\"publish\":{\"channel\":\"later\",\"data\":\"later\"}}");
    let user = "w".into();
    next(&put_off.connects).answer(Ok(Connected {
        user,
        ..Connected::default()
    }));
    assert_eq!(peer.hear()["id"], 1);
    next(&put_off.subscribes).answer(Ok(Subscribed::default()));
    assert_eq!(peer.hear(), json!({"id": 2, "subscribe": {}}));
    let data = Some("{}".into());
    next(&put_off.publishes).answer(Ok(hooks::Publish {
        data,
        skip_history: false,
    }));
    let heard = [peer.hear(), peer.hear()];
    assert!(
        heard.contains(&json!({"id": 3, "publish": {}})),
        "{heard:?}"
    );
    let push = heard.iter().find(|line| line["push"].is_object()).unwrap();
    assert_eq!(push["push"]["pub"]["data"], json!({}));
    assert_eq!(push["push"]["pub"]["info"]["user"], "w");

    for (refusal, told) in [(refused(500), 1), (sent_away(4501), 0)] {
        let mut peer = server.open();
        peer.say("{\"id\":1,\"connect\":{\"token\":\"later\"}}\n{\"id\":2,\"ping\":{}}");
        next(&put_off.connects).answer(Err(refusal));
        let (lines, _) = peer.hear_all();
        assert_eq!(lines.len(), told, "{lines:?}");
    }
}

#[test]
fn answer_that_is_dropped_is_an_internal_error() {
    let (server, put_off) = start();
    let (mut peer, _) = connect(&server, "now");
    assert_eq!(peer.error("rpc", &json!({"method": "dropped"})), 100);
    peer.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
    drop(next(&put_off.rpcs));
    assert_eq!(
        peer.hear()["error"],
        json!({"code": 100, "message": "internal server error", "temporary": true})
    );
}

#[test]
fn one_answer_is_enough_and_one_of_yesterday_none() {
    let (server, put_off) = start();
    let (mut peer, _) = connect(&server, "now");
    peer.say(r#"{"id":2,"rpc":{"method":"twice"}}"#);
    let [one, other] = [next(&put_off.rpcs), next(&put_off.rpcs)];
    one.answer(returned("1"));
    assert_eq!(peer.hear(), json!({"id": 2, "rpc": {"data": 1}}));
    // The next question is not answered by what is left of the last one.
    peer.say(r#"{"id":3,"rpc":{"method":"later"}}"#);
    let asked = next(&put_off.rpcs);
    other.answer(returned("2"));
    peer.hears_nothing_more();
    asked.answer(returned("3"));
    assert_eq!(peer.hear(), json!({"id": 3, "rpc": {"data": 3}}));
    // Nor by one that was promised beside another answer.
    peer.say("{\"id\":4,\"rpc\":{\"method\":\"both\",\"data\":4}}\n{\"id\":5,\"rpc\":{\"method\":\"later\"}}");
    assert_eq!(peer.hear(), json!({"id": 4, "rpc": {"data": 4}}));
    next(&put_off.rpcs).answer(returned("0"));
    peer.hears_nothing_more();
    next(&put_off.rpcs).answer(returned("5"));
    assert_eq!(peer.hear(), json!({"id": 5, "rpc": {"data": 5}}));
}

#[test]
fn answer_for_a_client_that_has_gone_goes_nowhere() {
    let (server, put_off) = start();
    let mut other = server.connect();
    for _ in 0..10 {
        let (mut peer, _) = connect(&server, "now");
        peer.say(
            "{\"id\":2,\"rpc\":{\"method\":\"later\"}}\n{\"id\":3,\"rpc\":{\"method\":\"later\"}}",
        );
        let later = next(&put_off.rpcs);
        peer.socket.reset();
        // Its place may be taken by now.
        let (mut heir, _) = connect(&server, "now");
        heir.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
        let asked = next(&put_off.rpcs);
        later.answer(returned("\"not yours\""));
        heir.hears_nothing_more();
        asked.answer(returned("\"yours\""));
        assert_eq!(heir.hear()["rpc"]["data"], "yours");
    }
    other.hears_nothing_more();
    let mut peer = server.open();
    peer.say(r#"{"id":1,"connect":{"token":"later"}}"#);
    let later = next(&put_off.connects);
    peer.say("");
    assert_eq!(peer.hear_end(), end(3501, "bad request"));
    later.answer(Ok(Connected::default()));
    other.hears_nothing_more();
}

#[test]
fn what_waits_for_an_answer_is_bounded() {
    let (server, put_off) = start();
    let (mut peer, _) = connect(&server, "now");
    let mut other = server.connect();
    peer.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
    let _later = next(&put_off.rpcs);
    let data = "x".repeat(10_000);
    let command = json!({"id": 3, "rpc": {"method": "echo", "data": data}}).to_string();
    for _ in 0..7 {
        peer.socket.send_until_refused(&crate::support::masked(
            crate::support::TEXT,
            command.as_bytes(),
        ));
    }
    assert_eq!(peer.hear_end(), end(3013, "too many requests"));
    other.hears_nothing_more();
}

#[test]
fn connecting_takes_no_longer_than_a_client_may_be_stale() {
    let (program, put_off) = program();
    let mut rules = rules(&[]);
    rules.client.stale_close_delay = Duration::from_millis(500);
    let server = serve_with(rules, program, |_| ());
    let mut peer = server.open();
    peer.say(r#"{"id":1,"connect":{"token":"later"}}"#);
    let later = next(&put_off.connects);
    assert_eq!(peer.hear_end(), end(3502, "stale"));
    later.answer(Ok(Connected::default()));
    server.connect().hears_nothing_more();
}

/// Its pongs wait with the rest of what it says.
#[test]
fn client_that_waits_for_an_answer_longer_than_for_a_pong_lives() {
    let (program, put_off) = program();
    let mut rules = rules(&[]);
    rules.client.ping_interval = Duration::from_secs(1);
    rules.client.pong_timeout = Duration::from_millis(500);
    let server = serve_with(rules, program, |_| ());
    let (mut peer, _) = connect(&server, "now");
    peer.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
    let later = next(&put_off.rpcs);
    assert_eq!(peer.hear(), json!({}));
    peer.say("{}");
    // Another client is pinged, and ended because it says nothing: so long it takes.
    let (mut silent, _) = connect(&server, "now");
    assert_eq!(silent.hear_all().1, end(3012, "no pong"));
    later.answer(returned("1"));
    let reply = loop {
        match peer.hear() {
            ping if ping == json!({}) => peer.say("{}"),
            reply => break reply,
        }
    };
    assert_eq!(reply, json!({"id": 2, "rpc": {"data": 1}}));
    assert_eq!(peer.hear(), json!({}));
    peer.say("{}");
    assert_eq!(peer.hear(), json!({}));
}

// ---- time ----

#[test]
fn connection_of_the_program_is_refreshed_by_it() {
    let (server, put_off) = start();
    let (mut peer, result) = connect(&server, "short");
    assert!(
        result.get("expires").is_none(),
        "the client is not asked: {result}"
    );
    let refresh = next(&put_off.refreshes);
    let expire_at = until(2).expire_at;
    refresh.answer(Ok(Refreshed {
        expire_at,
        ..Refreshed::default()
    }));
    peer.hears_nothing_more();
    let expired = true;
    next(&put_off.refreshes).answer(Ok(Refreshed {
        expired,
        ..Refreshed::default()
    }));
    assert_eq!(peer.hear_end(), end(3005, "connection expired"));
}
/// A client that is always waiting for something is refreshed like any other.
#[test]
fn refresh_is_asked_for_while_a_command_waits() {
    let (server, put_off) = start();
    let (mut peer, _) = connect(&server, "short");
    peer.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
    let rpc = next(&put_off.rpcs);
    next(&put_off.refreshes).answer(Ok(Refreshed::default()));
    peer.hears_nothing_more();
    rpc.answer(returned("1"));
    assert_eq!(peer.hear(), json!({"id": 2, "rpc": {"data": 1}}));
}
/// Otherwise a client would stay for as long as it keeps asking something.
#[test]
fn refresh_is_not_put_off_by_what_the_client_asks_meanwhile() {
    let (server, put_off) = start();
    let (mut peer, _) = connect(&server, "short");
    let refresh = next(&put_off.refreshes);
    assert_eq!(peer.error("rpc", &json!({"method": "unknown"})), 108);
    peer.say(r#"{"id":2,"rpc":{"method":"later"}}"#);
    let rpc = next(&put_off.rpcs);
    let expired = true;
    refresh.answer(Ok(Refreshed {
        expired,
        ..Refreshed::default()
    }));
    assert_eq!(peer.hear_end(), end(3005, "connection expired"));
    rpc.answer(returned("1"));
    server.connect().hears_nothing_more();
}
