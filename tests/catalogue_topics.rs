//! What subscribers, publishers and slow readers can do to the memory and the time of others
//! (catalogue F, 134–147, and what of G, 168–172, is the engine's).

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stentor::protocol::http::{Request, Response};
use stentor::topic::TopicError;
use stentor::{
    Cause, Config, ConnectionId, Context, Handler, PublishError, PublishOptions, SubscribeError,
};

use crate::scene::SOON;
use crate::support::{App, CLOSE, Client, Ctx, PATIENCE, PING, PONG, Running, TEXT, masked, serve};

/// Clients do what they say: "subscribe X", "unsubscribe X", "publish X TEXT"; other texts come back.
fn obedient() -> App {
    App::default().on_message(|ctx, text| {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "subscribe" => {
                let answer = format!("{:?}", ctx.subscribe(rest));
                ctx.send(&answer);
            }
            "unsubscribe" => {
                ctx.unsubscribe(rest);
            }
            "publish" => {
                let (topic, text) = rest.split_once(' ').unwrap();
                ctx.publish(topic, text);
            }
            _ => {
                ctx.send(text);
            }
        }
    })
}

/// Only limits are to end anything.
fn patient(config: &mut Config) {
    config.timeouts.write = PATIENCE;
    config.timeouts.lag = PATIENCE;
}

/// Somebody who is there all the time must not notice.
fn is_served(client: &mut Client) {
    client.echo("still here");
}

// ---- slow readers ----

#[test]
fn cat_134_slow_reader_is_closed_between_the_limits() {
    const PART: usize = 8 << 10;
    let server = serve(obedient(), |config| {
        patient(config);
        (config.limits.outbox_soft, config.limits.outbox_hard) = (32 << 10, 128 << 10);
        config.timeouts.close = SOON;
    });
    let _slow = Client::with_small_buffer(server.address);
    let mut bystander = server.connect();
    let slow = server.ask(|app, ctx| {
        ctx.subscribe_connection(app.opened[0], "news").unwrap();
        app.opened[0]
    });
    let mut most = 0;
    while server.ask(|_, ctx| ctx.stats().dropped_slow) == 0 {
        most = most.max(server.ask(move |_, ctx| {
            ctx.publish("news", &[b'x'; PART]);
            ctx.queued_of(slow)
        }));
        assert!(server.ask(|_, ctx| ctx.stats().published) < 10_000);
    }
    assert!(most <= (128 << 10) + PART + 4, "{most}");
    let ended = &server.ended(1)[0];
    assert_eq!(
        (ended.id, ended.code, ended.cause),
        (slow, 1013, Cause::SlowConsumer)
    );
    assert_eq!(server.ask(|_, ctx| ctx.gauges().output_memory), 0);
    is_served(&mut bystander);
}

#[test]
fn cat_135_most_indebted_connections_end_when_memory_is_short() {
    let server = serve(obedient(), |config| {
        patient(config);
        config.limits.outbox_hard = usize::MAX;
        config.limits.max_output = 8 << 20;
    });
    // Their sockets are full, and one waits for more than the others.
    let _slow = [(); 4].map(|()| Client::with_small_buffer(server.address));
    let mut bystander = server.connect();
    let ids = server.ask(|app, _| app.opened[..4].to_vec());
    let send = |id: ConnectionId, len: usize| {
        server.ask(move |_, ctx| {
            ctx.send_to(id, &vec![0; len]);
        });
    };
    for &id in &ids {
        while server.ask(move |_, ctx| ctx.queued_of(id)) == 0 {
            send(id, 64 << 10);
        }
        send(id, 1 << 20);
    }
    send(ids[2], 2 << 20);
    send(ids[3], 1 << 20);
    server.ask(|app, ctx| {
        let memory = ctx.gauges().output_memory;
        assert!((7 << 20..8 << 20).contains(&memory), "{memory}");
        assert!(app.ended.is_empty());
    });
    send(ids[0], 1 << 20);
    let ended = server.ended(1);
    assert_eq!((ended[0].id, ended[0].cause), (ids[2], Cause::OutputCap));
    server.ask(|_, ctx| {
        assert_eq!(
            (ctx.stats().evicted, ctx.stats().closed(Cause::OutputCap)),
            (1, 1)
        );
        assert!(ctx.gauges().output_memory < 7 << 20);
    });
    is_served(&mut bystander);
}

#[test]
fn cat_135_what_waits_for_all_is_ended_until_it_is_free() {
    let server = serve(obedient(), |config| {
        patient(config);
        config.limits.outbox_hard = usize::MAX;
        config.limits.max_output = 16 << 20;
    });
    let slow: Vec<Client> = (0..20)
        .map(|_| Client::with_small_buffer(server.address))
        .collect();
    let mut bystander = server.connect();
    server.ask(|app, ctx| {
        for &id in &app.opened[..20] {
            ctx.subscribe_connection(id, "news").unwrap();
        }
    });
    let mut published = 0;
    while server.ask(|_, ctx| ctx.stats().evicted) == 0 {
        server.ask(|_, ctx| ctx.publish("news", &vec![0; 1 << 20]));
        is_served(&mut bystander);
        published += 1;
        assert!(published < 100);
    }
    server.wait_until("memory is free", |_, ctx| {
        ctx.gauges().output_memory <= 16 << 20
    });
    // More than the cap had to be published: it is one copy for all.
    assert!(published >= 16, "{published}");
    drop(slow);
    server.ended(20);
    assert_eq!(server.ask(|_, ctx| ctx.gauges().output_memory), 0);
}

#[test]
fn cat_136_steady_but_hopeless_reader_is_closed_for_its_lag() {
    let server = serve(obedient(), |config| {
        config.timeouts.write = PATIENCE;
        config.timeouts.lag = SOON;
        config.timeouts.close = SOON;
        config.limits.outbox_hard = usize::MAX;
    });
    let mut slow = Client::with_small_buffer(server.address);
    server.ask(|app, ctx| {
        ctx.send_to(app.opened[0], &vec![0; 32 << 20]);
    });
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        scope.spawn(move || {
            // Each of these reads lets the server write on.
            let mut part = [0; 4096];
            while !is_over.load(Ordering::Relaxed) && slow.socket.read_exact(&mut part).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let ended = server.ended(1);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!((ended[0].code, ended[0].cause), (1013, Cause::SlowConsumer));
    });
    assert_eq!(server.ask(|_, ctx| ctx.gauges().output_memory), 0);
}

// ---- topics ----

#[test]
fn cat_141_one_topic_too_many_is_refused_and_the_connection_lives() {
    let server = serve(obedient(), |_| ());
    let mut client = server.connect();
    for number in 1..=128 {
        client.say(&format!("subscribe topic {number}"));
        assert_eq!(client.hear(), "Ok(true)");
    }
    for _ in 0..3 {
        client.say("subscribe topic 129");
        assert_eq!(client.hear(), "Err(Topic(TooManyForMember))");
    }
    client.say("subscribe topic 7");
    assert_eq!(client.hear(), "Ok(false)");
    client.say("publish topic 128");
    client.say("unsubscribe topic 7");
    client.say("subscribe topic 129");
    assert_eq!(client.hear(), "Ok(true)");
    is_served(&mut client);
    assert_eq!(server.ask(|_, ctx| ctx.gauges().subscriptions), 128);
}

#[test]
fn cat_142_names_that_cannot_be_used() {
    let server = serve(obedient(), |_| ());
    let mut client = server.connect();
    let mut refused = |name: &str, error: TopicError| {
        client.say(&format!("subscribe {name}"));
        let expected = Err::<bool, _>(SubscribeError::Topic(error));
        assert_eq!(client.hear(), format!("{expected:?}"), "{name:?}");
    };
    refused("", TopicError::EmptyName);
    refused(&"x".repeat(256), TopicError::NameTooLong);
    refused(&"ü".repeat(128), TopicError::NameTooLong);
    for name in ["\0", "a\0b", "a\r\nb", "\x7f", "a\u{85}"] {
        refused(name, TopicError::NameHasControl);
    }
    for name in ["*", ">", "*.*", "*.>", "*.*.>"] {
        client.say(&format!("subscribe {name}"));
        let answer = client.hear();
        assert!(answer.starts_with("Err(Topic("), "{name}: {answer}");
    }
    for name in ["x".repeat(255), "ü".repeat(127), "a b".into(), "a*b".into()] {
        client.say(&format!("subscribe {name}"));
        assert_eq!(client.hear(), "Ok(true)", "{name}");
    }
    is_served(&mut client);
    // What is no UTF-8 comes to no application.
    let mut wrong = server.connect();
    wrong.frame(TEXT, b"subscribe a\xFF");
    assert_eq!(wrong.read_close(), 1007);
    is_served(&mut client);
}

#[test]
fn cat_143_topics_have_a_limit_and_end_with_their_subscribers() {
    const LIMIT: usize = 1000;
    let server = serve(obedient(), |config| config.limits.max_topics = LIMIT);
    let mut bystander = server.connect();
    bystander.say("subscribe here all the time");
    assert_eq!(bystander.hear(), "Ok(true)");
    for round in 0..3 {
        let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        let mut granted = 1;
        for (who, client) in clients.iter_mut().enumerate() {
            let subscribe = |topic| {
                let text = format!("subscribe {round} {who} {topic}");
                masked(TEXT, text.as_bytes())
            };
            client.send(&(0..128).flat_map(subscribe).collect::<Vec<u8>>());
            for _ in 0..128 {
                match client.hear().as_str() {
                    "Ok(true)" => granted += 1,
                    answer => assert_eq!(answer, "Err(Topic(TooManyTopics))"),
                }
            }
        }
        assert_eq!(granted, LIMIT);
        let count = server.ask(|_, ctx| (ctx.topic_count(), ctx.topics().count()));
        assert_eq!(count, (LIMIT, LIMIT));
        // What exists can still be joined.
        clients[9].say("subscribe here all the time");
        assert_eq!(clients[9].hear(), "Ok(true)");
        drop(clients);
        server.wait_until("all topics but one have ended", |_, ctx| {
            ctx.topic_count() == 1
        });
        assert_eq!(server.ask(|_, ctx| ctx.gauges().subscriptions), 1);
        is_served(&mut bystander);
    }
}

#[test]
fn cat_144_storm_of_subscriptions_leaves_others_their_turn() {
    const PAIRS: u64 = 2000;
    const BUDGET: usize = 4096;
    let app = App::default().on_message(|ctx, text| match text {
        "on" => assert_eq!(ctx.subscribe("news"), Ok(true)),
        "off" => assert!(ctx.unsubscribe("news")),
        _ => {
            let handled = ctx.stats().messages_in.to_string();
            ctx.send(&handled);
        }
    });
    let server = serve(app, |config| {
        config.limits.read_budget = BUDGET;
        config.limits.receive_buffer = BUDGET;
        config.protocol.max_frame_in_place = BUDGET;
    });
    let mut storm = server.connect();
    let mut bystander = server.connect();
    let pair = [masked(TEXT, b"on"), masked(TEXT, b"off")].concat();
    let most = (2 * 3 * BUDGET / pair.len()) as u64;
    assert!(most < PAIRS);
    let mut before = 0;
    for _ in 0..20 {
        let held = server.stand_still();
        storm.send(&pair.repeat(usize::try_from(PAIRS).unwrap()));
        bystander.say("how many?");
        drop(held);
        let handled: u64 = bystander.hear().parse().unwrap();
        assert!(handled - before <= most, "{} came before", handled - before);
        before += 2 * PAIRS + 1;
        server.wait_until("the storm is over", move |_, ctx| {
            ctx.stats().messages_in == before
        });
    }
    assert_eq!(server.ask(|_, ctx| ctx.topic_count()), 0);
}

#[test]
fn cat_145_ping_flood_of_a_peer_that_reads_is_closed() {
    let server = serve(obedient(), |config| config.limits.max_pings = 100);
    let mut bystander = server.connect();
    let mut flooder = server.connect();
    // In more than one second, whenever they begin, are at most twice as many answered.
    flooder.send_until_refused(&masked(PING, b"ping").repeat(10_000));
    let mut pongs = 0;
    let code = loop {
        match flooder.read_frame() {
            (PONG, payload) => {
                assert_eq!(payload, b"ping");
                pongs += 1;
            }
            (CLOSE, payload) => break u16::from_be_bytes(*payload.first_chunk().unwrap()),
            frame => panic!("{frame:?}"),
        }
    };
    assert_eq!(code, 1008);
    assert!((100..=200).contains(&pongs), "{pongs}");
    flooder.frame(CLOSE, &1008_u16.to_be_bytes());
    let ended = &server.ended(1)[0];
    assert_eq!((ended.code, ended.cause), (1008, Cause::PingFlood));
    // Another connection in its place has its own count.
    let mut next = server.connect();
    for _ in 0..100 {
        next.frame(PING, b"ping");
        assert_eq!(next.read_frame(), (PONG, b"ping".into()));
    }
    is_served(&mut next);
    is_served(&mut bystander);
}

#[test]
fn cat_146_ping_flood_of_a_peer_that_does_not_read_costs_one_pong() {
    let server = serve(obedient(), |config| {
        patient(config);
        config.limits.outbox_hard = usize::MAX;
        // What waits would hold up reading.
        config.limits.outbox_soft = usize::MAX;
    });
    let mut bystander = server.connect();
    let mut flooder = Client::with_small_buffer(server.address);
    server.ask(|app, ctx| {
        ctx.send_to(app.opened[1], &vec![0; 8 << 20]);
    });
    let before = server.ask(|app, ctx| ctx.queued_of(app.opened[1]));
    assert!(before > 0);
    flooder.send(&masked(PING, b"first").repeat(49_999));
    flooder.frame(PING, b"last");
    server.wait_until("all are read", |_, ctx| {
        ctx.stats().pongs_coalesced == 49_999
    });
    assert_eq!(server.ask(|app, ctx| ctx.queued_of(app.opened[1])), before);
    is_served(&mut bystander);
    assert_eq!(flooder.read_frame().1.len(), 8 << 20);
    assert_eq!(flooder.read_frame(), (PONG, b"last".into()));
    flooder.hears_nothing_more();
}

#[test]
fn cat_147_large_message_for_many_is_in_memory_once() {
    const LEN: usize = 8 << 20;
    const MANY: usize = 100;
    let server = serve(obedient(), |config| {
        patient(config);
        config.limits.outbox_hard = usize::MAX;
        config.limits.outbox_soft = usize::MAX;
    });
    let mut slow: Vec<Client> = (0..MANY)
        .map(|_| Client::with_small_buffer(server.address))
        .collect();
    server.ask(|app, ctx| {
        for &id in &app.opened {
            ctx.subscribe_connection(id, "news").unwrap();
        }
        ctx.publish("news", &vec![7; LEN]);
    });
    server.wait_until("all wait", |app, ctx| {
        app.opened.iter().all(|&id| ctx.queued_of(id) > 0)
    });
    let gauges = server.ask(|_, ctx| ctx.gauges());
    assert!(gauges.queued > 10 * LEN, "{gauges:?}");
    assert!(gauges.output_memory < 2 * LEN + LEN / 2, "{gauges:?}");
    // The others go away: what they had in common is there for the last one.
    slow.truncate(2);
    for client in &mut slow {
        let (_, payload) = client.read_frame();
        assert!(payload.len() == LEN && payload.iter().all(|&byte| byte == 7));
    }
    server.wait_until("nothing is left", |_, ctx| ctx.gauges().output_memory == 0);
}

// ---- publishing over HTTP, as far as it is the engine's ----

/// Publishes the body of each request.
struct Press;

impl Handler for Press {
    type State = ();

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        ctx.subscribe("news").unwrap();
    }

    fn request(&mut self, ctx: &mut Context<'_, ()>, request: &Request<'_>) -> Response {
        let count = ctx.publish("news", request.body());
        Response::new(200).text(count.to_string())
    }
}

fn post(len: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n")
}

#[test]
fn cat_169_body_over_the_limit_is_refused_by_its_length() {
    let server = serve(Press, |config| config.protocol.http.max_body_size = 1000);
    let mut reader = server.connect();
    for len in [1001, 1 << 30, usize::MAX] {
        let mut client = Client::raw(server.address);
        client.send(post(len).as_bytes());
        // None of the body was sent.
        assert!(client.head().starts_with("HTTP/1.1 413 "), "{len}");
    }
    let mut client = Client::raw(server.address);
    client.send(post(1000).as_bytes());
    client.send(&[b'x'; 1000]);
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(reader.read_frame().1.len(), 1000);
    reader.hears_nothing_more();
}

#[test]
fn cat_171_publication_that_trickles_in_is_timed_out() {
    let server = serve(Press, |config| {
        config.timeouts.handshake = SOON;
        config.timeouts.close = SOON;
    });
    let mut reader = server.connect();
    let mut client = Client::raw(server.address);
    client.send(post(1000).as_bytes());
    let mut twin = client.twin();
    let trickle = std::thread::spawn(move || {
        while twin.socket.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(client.head().starts_with("HTTP/1.1 408 "));
    client.read_to_end();
    drop(client);
    reader.hears_nothing_more();
    trickle.join().unwrap();
}

#[test]
fn cat_171_flood_of_publications_is_held_up() {
    const LARGE: usize = 512 << 10;
    const MESSAGES: usize = 40;
    let app = App::default().on_open(|ctx| {
        ctx.subscribe("news").unwrap();
    });
    let app = app.on_message(|ctx: &mut Ctx<'_>, _| {
        ctx.publish_to_others("news", &vec![0; LARGE]);
    });
    let server: Running<App> = serve(app, |config| {
        patient(config);
        config.limits.outbox_soft = usize::MAX;
        config.limits.outbox_hard = usize::MAX;
    });
    let mut reader = server.connect();
    let mut flooder = server.connect();
    // Short messages make long publications: all come in one read.
    flooder.send(&masked(TEXT, b"go").repeat(MESSAGES));
    for _ in 0..MESSAGES {
        assert_eq!(reader.read_frame().1.len(), LARGE);
    }
    let stats = server.ask(|_, ctx| ctx.stats().clone());
    assert!(stats.throttled >= MESSAGES as u64 / 4, "{stats:?}");
    flooder.hears_nothing_more();
}

#[test]
fn cat_171_flood_of_requests_is_held_up_and_answered() {
    // Each is a full batch.
    const LARGE: usize = 1 << 20;
    const REQUESTS: usize = 20;
    const READERS: usize = 12;
    let server = serve(Press, |config| {
        patient(config);
        config.protocol.http.max_body_size = LARGE;
        config.limits.outbox_soft = usize::MAX;
        config.limits.outbox_hard = usize::MAX;
    });
    let mut readers: Vec<Client> = (0..READERS).map(|_| server.connect()).collect();
    let mut flooder = Client::raw(server.address);
    let mut twin = flooder.twin();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let request = [post(LARGE).as_bytes(), &vec![b'x'; LARGE]].concat();
            twin.send(&request.repeat(REQUESTS));
        });
        for reader in &mut readers {
            scope.spawn(|| {
                for _ in 0..REQUESTS {
                    assert_eq!(reader.read_frame().1.len(), LARGE);
                }
            });
        }
        for _ in 0..REQUESTS {
            assert!(flooder.head().starts_with("HTTP/1.1 200 "));
            assert_eq!(flooder.read(2), READERS.to_string().as_bytes());
        }
    });
    assert!(server.ask(|_, ctx| ctx.stats().throttled) > 0);
}

/// What the broadcast application answers to floods of requests.
#[cfg(feature = "broadcast")]
mod floods {
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use socket2::{Domain, Socket, Type};
    use stentor::Endpoint;
    use stentor::broadcast::{ApiOptions, Rules};

    use super::*;
    use crate::clients::{Served, serve, serve_with};

    /// Requests at once, of which a second is worth one.
    const FLOOD: usize = 20;

    fn rules(max_posts_per_ip: u32) -> Rules {
        Rules {
            max_posts_per_ip,
            api: ApiOptions {
                insecure: true,
                ..ApiOptions::default()
            },
            ..Rules::default()
        }
    }

    fn request(line: &str, body: &str) -> String {
        let len = body.len();
        format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n{body}")
    }

    /// As many publications, each with its number.
    fn flood() -> String {
        let numbers = (0..FLOOD).map(|number| number.to_string());
        numbers
            .map(|number| request("POST /t/news", &number))
            .collect()
    }

    /// A response on a connection that goes on: its status, its head and its body.
    fn answer(socket: &mut impl Read) -> (u16, String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let (_, len) = head.split_once("\r\nContent-Length: ").unwrap();
        let (len, _) = len.split_once("\r\n").unwrap();
        let mut body = vec![0; len.parse().unwrap()];
        socket.read_exact(&mut body).unwrap();
        let status = head[9..12].parse().unwrap();
        (status, head, String::from_utf8(body).unwrap())
    }

    /// Sends one request and reads the response.
    fn ask(socket: &mut (impl Read + Write), line: &str, body: &str) -> (u16, String, String) {
        socket.write_all(request(line, body).as_bytes()).unwrap();
        answer(socket)
    }

    /// Connects from this address of the loopback interface.
    fn connect_from(server: &Served, address: &str) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = SocketAddr::new(address.parse().unwrap(), 0);
        socket.bind(&from.into()).unwrap();
        socket.connect(&server.address.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.into()
    }

    /// Floods at once; answers the numbers of what was published, and how much was refused.
    fn flood_at_once(server: &Served, client: &mut Client) -> (Vec<String>, usize) {
        let held = server.stand_still();
        client.send(flood().as_bytes());
        drop(held);
        let (mut published, mut refused) = (Vec::new(), 0);
        for number in 0..FLOOD {
            let (status, head, body) = answer(&mut client.socket);
            if status == 200 {
                published.push(number.to_string());
                continue;
            }
            refused += 1;
            assert!(
                head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
                "{head}"
            );
            assert!(head.contains("\r\nRetry-After: 1\r\n"), "{head}");
            assert!(!head.contains("Connection: close"), "{head}");
            assert!(
                body.starts_with("The message was not published: "),
                "{body}"
            );
            assert_eq!(body.lines().count(), 1);
        }
        (published, refused)
    }

    #[test]
    fn cat_171_flood_of_requests_gets_429() {
        let server = serve(rules(1));
        let mut reader = Client::open(server.address, "/t/news");
        let mut flooder = Client::raw(server.address);
        let (mut published, refused) = flood_at_once(&server, &mut flooder);
        assert_eq!(published[0], "0");
        assert!(refused > 0);
        let (_, _, metrics) = ask(&mut flooder.socket, "GET /metrics", "");
        let sample = format!("\nstentor_posts_refused_total{{reason=\"rate\"}} {refused}\n");
        assert!(metrics.contains(&sample), "{metrics}");
        // The connection goes on, and in a second so does its publisher.
        let deadline = Instant::now() + PATIENCE;
        while ask(&mut flooder.socket, "POST /t/news", "again").0 != 200 {
            assert!(Instant::now() < deadline);
        }
        published.push("again".into());
        for text in published {
            assert_eq!(reader.hear(), text);
        }
        reader.hears_nothing_more();
    }

    #[test]
    fn cat_171_flood_of_one_address_is_not_that_of_others() {
        let server = serve(rules(1));
        let mut flooder = Client::raw(server.address);
        assert!(flood_at_once(&server, &mut flooder).1 > 0);
        for address in ["127.0.0.2", "127.0.0.3"] {
            let mut other = connect_from(&server, address);
            assert_eq!(ask(&mut other, "POST /t/news", "x").0, 200, "{address}");
        }
    }

    #[test]
    fn cat_171_flood_over_many_connections_is_that_of_their_address() {
        let server = serve(rules(1));
        let mut clients: Vec<Client> = (0..FLOOD).map(|_| Client::raw(server.address)).collect();
        let held = server.stand_still();
        for client in &mut clients {
            client.send(request("POST /t/news", "x").as_bytes());
        }
        drop(held);
        let statuses = clients
            .iter_mut()
            .map(|client| answer(&mut client.socket).0);
        assert!(statuses.filter(|&status| status == 429).count() > 0);
    }

    #[test]
    fn cat_171_what_has_no_such_limit_is_not_refused() {
        let path = std::env::temp_dir().join(format!("stentor-{}-cat-171", std::process::id()));
        let endpoint = Endpoint::Unix(path.clone());
        let server = serve_with(rules(1), (), move |config| config.listen.push(endpoint));
        let mut flooder = Client::raw(server.address);
        assert!(flood_at_once(&server, &mut flooder).1 > 0);
        for _ in 0..FLOOD {
            let batch = r#"{"channel": "news", "data": {}}"#;
            let (status, _, body) = ask(&mut flooder.socket, "POST /api/publish", batch);
            assert_eq!(status, 200, "{body}");
            assert_eq!(ask(&mut flooder.socket, "GET /livez", "").0, 200);
        }
        // Who sends over a WebSocket is held up.
        let mut publisher = Client::open(server.address, "/t/chat");
        for _ in 0..FLOOD {
            publisher.say("x");
        }
        for _ in 0..FLOOD {
            assert_eq!(publisher.hear(), "x");
        }
        let mut local = UnixStream::connect(&path).unwrap();
        local.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..FLOOD {
            assert_eq!(ask(&mut local, "POST /t/news", "x").0, 200);
        }
    }

    #[test]
    fn cat_171_flood_is_let_in_where_there_is_no_limit() {
        let server = serve(rules(0));
        let mut flooder = Client::raw(server.address);
        let (published, refused) = flood_at_once(&server, &mut flooder);
        assert_eq!((published.len(), refused), (FLOOD, 0));
    }
}

#[test]
fn cat_172_publication_to_nobody_and_to_names_of_no_topic() {
    let server = serve(obedient(), |_| ());
    let mut client = server.connect();
    server.ask(|_, ctx| {
        let mut publish = |name: &str| ctx.publish_with(name, "x", &PublishOptions::new());
        let published = publish("nobody").unwrap();
        assert_eq!((published.subscribers, published.position), (0, None));
        assert_eq!(publish("news.*"), Err(PublishError::Pattern));
        assert_eq!(publish(">"), Err(PublishError::Pattern));
        assert_eq!(publish(""), Err(PublishError::BadName));
        assert_eq!(publish("a\nb"), Err(PublishError::BadName));
        assert_eq!(ctx.topic_count(), 0);
    });
    client.say("publish nobody text");
    is_served(&mut client);
}
