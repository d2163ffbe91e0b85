//! Who is told to have come and gone, and who is there.

use std::time::{Duration, SystemTime};

use stentor::{
    CloseCode, Config, ConnectionId, Context, Handler, Message, PresenceEvent, SubscribeOptions,
    TopicOptions,
};

use crate::support::{App, CLOSE, Client, Running, serve};

fn keep_presence(config: &mut Config) {
    let options = TopicOptions {
        presence: true,
        ..TopicOptions::default()
    };
    config.topics.insert("room", options).unwrap();
}

/// What was told: topic, connection, info, whether it joined.
type Told = (String, ConnectionId, String, bool);

fn told(event: &PresenceEvent) -> Told {
    let info = String::from_utf8(event.info.to_vec()).unwrap();
    (event.topic.to_string(), event.id, info, event.has_joined)
}

/// Waits until so many events were told, and answers them.
fn events(server: &Running<App>, count: usize) -> Vec<Told> {
    server.wait_until("events are told", move |app, _| app.presence.len() >= count);
    let events: Vec<Told> = server.ask(|app, _| app.presence.iter().map(told).collect());
    assert_eq!(events.len(), count, "{events:?}");
    events
}

fn event(topic: &str, id: ConnectionId, info: &str, has_joined: bool) -> Told {
    (topic.into(), id, info.into(), has_joined)
}

#[test]
fn whoever_subscribes_may_be_present_or_not_whatever_others_are() {
    let server = serve(App::default(), keep_presence);
    let (_clients, [anna, bert]) = server.connect_many::<2>();
    server.ask(move |_, ctx| {
        let unseen = SubscribeOptions::new().info(b"anna").present(false);
        let seen = SubscribeOptions::new().info(b"bert").present(true);
        for topic in ["room:1", "elsewhere"] {
            assert_eq!(
                ctx.subscribe_connection_with(anna, topic, &unseen),
                Ok(true)
            );
            assert_eq!(ctx.subscribe_connection_with(bert, topic, &seen), Ok(true));
            let members = ctx.presence(topic);
            let seen: Vec<_> = members.iter().map(|member| member.id).collect();
            assert_eq!((seen, ctx.subscriber_count(topic)), (vec![bert], 2));
            assert!(ctx.unsubscribe_connection(anna, topic));
        }
    });
    let joined = |topic| event(topic, bert, "bert", true);
    assert_eq!(events(&server, 2), [joined("room:1"), joined("elsewhere")]);
}

#[test]
fn whoever_subscribes_joins_once_and_leaves_once() {
    let server = serve(App::default(), keep_presence);
    let (_clients, [anna, bert]) = server.connect_many::<2>();
    server.ask(move |_, ctx| {
        assert_eq!(
            ctx.subscribe_connection_as(anna, "room:1", b"anna"),
            Ok(true)
        );
        assert_eq!(
            ctx.subscribe_connection_as(anna, "room:1", b"anna again"),
            Ok(false)
        );
        assert_eq!(
            ctx.subscribe_connection_as(bert, "room:1", b"bert"),
            Ok(true)
        );
        assert_eq!(
            ctx.subscribe_connection_as(bert, "room:2", b"bert there"),
            Ok(true)
        );
        assert_eq!(ctx.subscribe_connection(bert, "elsewhere"), Ok(true));
        let members = ctx.presence("room:1");
        let seen: Vec<_> = members
            .iter()
            .map(|member| (member.id, &member.info[..]))
            .collect();
        assert_eq!(seen, [(anna, &b"anna"[..]), (bert, b"bert")]);
        for member in &members {
            let age = SystemTime::now()
                .duration_since(member.since)
                .unwrap_or_default();
            assert!(age < Duration::from_mins(10), "{age:?}");
        }
        assert_eq!(
            (ctx.presence_count("room:1"), ctx.presence_count("room:2")),
            (2, 1)
        );
        // Nobody keeps who is elsewhere.
        assert_eq!(
            (
                ctx.presence_count("elsewhere"),
                ctx.presence_count("room:3")
            ),
            (0, 0)
        );
        assert!(ctx.presence("elsewhere").is_empty() && ctx.presence("room:3").is_empty());
        assert!(ctx.unsubscribe_connection(anna, "room:1"));
        assert!(!ctx.unsubscribe_connection(anna, "room:1"));
        assert!(!ctx.unsubscribe_connection(anna, "room:2"));
        assert_eq!(ctx.presence("room:1")[0].id, bert);
        assert_eq!(
            ctx.subscribe_connection_as(anna, "room:1", b"back"),
            Ok(true)
        );
    });
    assert_eq!(
        events(&server, 5),
        [
            event("room:1", anna, "anna", true),
            event("room:1", bert, "bert", true),
            event("room:2", bert, "bert there", true),
            event("room:1", anna, "anna", false),
            event("room:1", anna, "back", true),
        ]
    );
}

#[test]
fn however_a_connection_ends_it_leaves_once() {
    let server = serve(App::default(), keep_presence);
    let (clients, ids) = server.connect_many::<5>();
    let [a, b, c, d, _] = ids;
    server.ask(move |_, ctx| {
        for (number, id) in ids.into_iter().enumerate() {
            for topic in ["room:1", "room:2", "elsewhere"] {
                let info = number.to_string();
                ctx.subscribe_connection_as(id, topic, info.as_bytes())
                    .unwrap();
            }
        }
    });
    events(&server, 10);
    let leave = |server: &Running<App>, before: usize, id: ConnectionId, info: &str| {
        let mut left = events(server, before + 2).split_off(before);
        left.sort_unstable();
        assert_eq!(
            left,
            [
                event("room:1", id, info, false),
                event("room:2", id, info, false)
            ]
        );
    };
    let [mut closes, vanishes, resets, mut is_closed, _stays] = clients;
    closes.frame(CLOSE, &1000_u16.to_be_bytes());
    leave(&server, 10, a, "0");
    drop(vanishes);
    leave(&server, 12, b, "1");
    resets.reset();
    leave(&server, 14, c, "2");
    server.ask(move |_, ctx| {
        ctx.close_connection(d, CloseCode::NORMAL, "").unwrap();
        // It is gone at once, and told at the end of the turn.
        assert_eq!(ctx.presence_count("room:1"), 1);
        assert_eq!(ctx.presence("room:1").len(), 1);
    });
    leave(&server, 16, d, "3");
    assert_eq!(is_closed.read_close(), 1000);
    is_closed.frame(CLOSE, &1000_u16.to_be_bytes());
    server.ended(4);
    assert_eq!(events(&server, 18).len(), 18);
    assert_eq!(server.ask(|_, ctx| ctx.presence_count("room:2")), 1);
}

/// Tells everyone in a room who comes and goes.
struct Porter;

impl Handler for Porter {
    type State = ();

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        match message.as_text() {
            Some("publish") => {
                // Some of it waits for everybody.
                ctx.publish("room:1", &vec![0; 8 << 20]);
            }
            _ => {
                ctx.subscribe_as("room:1", message.payload()).unwrap();
            }
        }
    }

    fn presence(&mut self, ctx: &mut Context<'_, ()>, event: &PresenceEvent) {
        let sign = if event.has_joined { "+" } else { "-" };
        let info = str::from_utf8(&event.info).unwrap();
        ctx.publish(&event.topic, &format!("{sign}{info}"));
    }
}

#[test]
fn who_is_there_hears_who_comes_and_goes() {
    let server = serve(Porter, keep_presence);
    let mut anna = server.connect();
    anna.say("anna");
    assert_eq!(anna.hear(), "+anna");
    let mut bert = server.connect();
    bert.say("bert");
    assert_eq!([anna.hear(), bert.hear()], ["+bert", "+bert"]);
    drop(bert);
    assert_eq!(anna.hear(), "-bert");
    anna.hears_nothing_more();
}

#[test]
fn a_connection_that_is_found_dead_in_the_middle_of_a_walk_leaves() {
    let server = serve(Porter, |config| {
        keep_presence(config);
        config.limits.outbox_hard = usize::MAX;
    });
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.say(&number.to_string());
        assert_eq!(client.hear(), format!("+{number}"));
        client.hears_nothing_more();
    }
    let mut left = 5;
    for round in 0..4 {
        // The loop comes to the publication before it hears of the reset, or behind it: the walk
        // finds a dead socket or a member that is gone.
        let stands_still = server.stand_still();
        let mut rest = clients.split_off(1);
        clients[0].say("publish");
        rest.pop().unwrap().reset();
        clients.extend(rest);
        drop(stands_still);
        left -= 1;
        for (number, client) in clients.iter_mut().enumerate() {
            let mut heard = (0, 0);
            while heard != (1, 1) {
                match client.read_frame() {
                    (0x82, payload) => heard.0 += usize::from(payload.len() == 8 << 20),
                    (_, text) if text == format!("-{left}").as_bytes() => heard.1 += 1,
                    (_, text) if text.starts_with(b"+") => {}
                    frame => panic!("{round}, {number}: {:?}", frame.1.get(..10)),
                }
            }
        }
        let count =
            server.ask(|_, ctx| (ctx.presence_count("room:1"), ctx.presence("room:1").len()));
        assert_eq!(count, (left, left));
    }
}

#[test]
fn a_slab_key_that_is_used_again_has_no_presence() {
    let server = serve(App::default(), keep_presence);
    for round in 0..20 {
        let (clients, [id]) = server.connect_many::<1>();
        server.ask(move |_, ctx| {
            assert!(ctx.presence("room:1").is_empty());
            ctx.subscribe_connection_as(id, "room:1", b"x").unwrap();
            assert_eq!(ctx.presence("room:1")[0].id, id);
        });
        drop(clients);
        server.ended(round + 1);
    }
    assert_eq!(events(&server, 40).len(), 40);
}
