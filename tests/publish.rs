//! Publishing: who gets what, and in which order.

use std::sync::{Arc, Mutex};

use stentor::topic::TopicError;
use stentor::{CloseCode, ConnectionId, Sent, SubscribeError};

use crate::support::{App, Client, Ctx, serve};

#[test]
fn everyone_who_is_subscribed_gets_a_message_the_publisher_included() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)))
        .on_message(|ctx, text| assert_eq!(ctx.publish("news", text), 3));
    let server = serve(app, |_| ());
    let (mut clients, _) = server.connect_many::<3>();
    clients[1].say("hello");
    for client in &mut clients {
        assert_eq!(client.hear(), "hello");
        client.hears_nothing_more();
    }
}

#[test]
fn the_publisher_can_be_left_out() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)))
        .on_message(|ctx, text| assert_eq!(ctx.publish_to_others("news", text), 2));
    let server = serve(app, |_| ());
    let (mut clients, _) = server.connect_many::<3>();
    clients[1].say("hello");
    assert_eq!(clients[0].hear(), "hello");
    assert_eq!(clients[2].hear(), "hello");
    clients[1].hears_nothing_more();
}

#[test]
fn a_publisher_need_not_be_subscribed() {
    let server = serve(App::default().on_message(publish_to_news), |_| ());
    let (mut clients, [_, reader]) = server.connect_many::<2>();
    server.ask(move |_, ctx| ctx.subscribe_connection(reader, "news").unwrap());
    clients[0].say("hello");
    assert_eq!(clients[1].hear(), "hello");
    clients[0].hears_nothing_more();
}

fn publish_to_news(ctx: &mut Ctx<'_>, text: &str) {
    ctx.publish("news", text);
}

#[test]
fn a_topic_without_subscribers_reaches_nobody() {
    let app = App::default().on_message(|ctx, text| {
        assert_eq!(ctx.publish("nobody", text), 0);
        assert_eq!(ctx.publish("", text), 0);
        assert_eq!(ctx.publish_to_others("nobody", text), 0);
        ctx.send("done");
    });
    let server = serve(app, |_| ());
    let mut client = server.connect();
    client.say("anyone?");
    assert_eq!(client.hear(), "done");
}

#[test]
fn a_late_subscriber_does_not_get_what_was_published_before_in_the_same_callback() {
    let app = App::default().on_message(|ctx, _| {
        ctx.publish("news", "before");
        ctx.subscribe("news").unwrap();
        ctx.publish("news", "after");
    });
    let server = serve(app, |_| ());
    let (mut clients, [early, _]) = server.connect_many::<2>();
    server.ask(move |_, ctx| ctx.subscribe_connection(early, "news").unwrap());
    clients[1].say("go");
    assert_eq!(clients[1].hear(), "after");
    assert_eq!(clients[0].hear(), "before");
    assert_eq!(clients[0].hear(), "after");
}

#[test]
fn who_unsubscribes_in_the_middle_gets_what_was_published_before() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)))
        .on_message(|ctx, _| {
            ctx.publish("news", "first");
            assert!(ctx.unsubscribe("news"));
            assert!(!ctx.unsubscribe("news"));
            ctx.publish("news", "second");
            assert_eq!(ctx.subscribe("news"), Ok(true));
            assert_eq!(ctx.subscribe("news"), Ok(false));
            ctx.publish("news", "third");
        });
    let server = serve(app, |_| ());
    let (mut clients, _) = server.connect_many::<2>();
    clients[0].say("go");
    assert_eq!([clients[0].hear(), clients[0].hear()], ["first", "third"]);
    assert_eq!(
        [(); 3].map(|()| clients[1].hear()),
        ["first", "second", "third"]
    );
    clients[0].hears_nothing_more();
}

#[test]
fn sends_and_publishes_arrive_in_program_order_at_the_sender_and_at_others() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)))
        .on_message(|ctx, _| {
            let everyone: Vec<ConnectionId> = ctx.connections().collect();
            for round in 0..3 {
                for &id in &everyone {
                    ctx.send_to(id, &format!("send {round}"));
                }
                ctx.publish("news", &format!("publish {round}"));
            }
            for &id in &everyone {
                ctx.send_to(id, "end");
            }
        });
    let server = serve(app, |_| ());
    let (mut clients, _) = server.connect_many::<3>();
    clients[0].say("go");
    for client in &mut clients {
        for round in 0..3 {
            assert_eq!(client.hear(), format!("send {round}"));
            assert_eq!(client.hear(), format!("publish {round}"));
        }
        assert_eq!(client.hear(), "end");
    }
}

#[test]
fn a_large_send_keeps_its_place_between_publishes() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)))
        .on_message(|ctx, _| {
            ctx.publish("news", "before");
            ctx.send(&"x".repeat(3 << 20));
            ctx.publish("news", "after");
            ctx.send("end");
        });
    let server = serve(app, |config| config.limits.outbox_hard = 8 << 20);
    let mut client = server.connect();
    client.say("go");
    assert_eq!(client.hear(), "before");
    assert_eq!(client.hear().len(), 3 << 20);
    assert_eq!(client.hear(), "after");
    assert_eq!(client.hear(), "end");
}

#[test]
fn subscribers_of_several_topics_get_them_merged_in_program_order() {
    let app = App::default().on_message(|ctx, _| {
        for index in 0..30 {
            let topic = ["a", "b", "c"][index % 3];
            ctx.publish(topic, &format!("{topic}{index}"));
        }
    });
    let server = serve(app, |_| ());
    let (mut clients, ids) = server.connect_many::<8>();
    // Client n has the topics whose bit is set in n: every set there is.
    server.ask(move |_, ctx| {
        for (set, &id) in ids.iter().enumerate() {
            for (bit, topic) in ["a", "b", "c"].into_iter().enumerate() {
                if set >> bit & 1 == 1 {
                    ctx.subscribe_connection(id, topic).unwrap();
                }
            }
        }
    });
    clients[0].say("go");
    for (set, client) in clients.iter_mut().enumerate() {
        for index in (0..30).filter(|index| set >> (index % 3) & 1 == 1) {
            assert_eq!(
                client.hear(),
                format!("{}{index}", ["a", "b", "c"][index % 3])
            );
        }
        client.hears_nothing_more();
    }
    let deliveries = server.ask(|_, ctx| ctx.stats().deliveries);
    assert_eq!(deliveries, 7, "one for each client that has a topic");
}

#[test]
fn one_connection_has_as_many_topics_as_it_may_and_not_one_more() {
    let app = App::default()
        .on_open(|ctx| {
            for index in 0..128 {
                assert_eq!(ctx.subscribe(&format!("topic {index}")), Ok(true));
            }
            let too_many = Err(SubscribeError::Topic(TopicError::TooManyForMember));
            assert_eq!(ctx.subscribe("one more"), too_many);
            assert_eq!(ctx.subscribe("topic 0"), Ok(false));
        })
        .on_message(|ctx, _| {
            for index in (0..128).rev() {
                assert_eq!(
                    ctx.publish(&format!("topic {index}"), &format!("{index}")),
                    1
                );
            }
            assert_eq!(ctx.publish("one more", "never"), 0);
        });
    let server = serve(app, |_| ());
    let mut client = server.connect();
    client.say("go");
    for index in (0..128).rev() {
        assert_eq!(client.hear(), format!("{index}"));
    }
    client.hears_nothing_more();
}

#[test]
fn a_name_that_cannot_be_used_and_one_topic_too_many_are_refused() {
    let app = App::default().on_open(|ctx| {
        let refused = |error| Err(SubscribeError::Topic(error));
        assert_eq!(ctx.subscribe(""), refused(TopicError::EmptyName));
        assert_eq!(ctx.subscribe("a\nb"), refused(TopicError::NameHasControl));
        assert_eq!(ctx.subscribe(&"x".repeat(255)), Ok(true));
        assert_eq!(
            ctx.subscribe(&"x".repeat(256)),
            refused(TopicError::NameTooLong)
        );
        assert_eq!(ctx.subscribe("second"), Ok(true));
        assert_eq!(ctx.subscribe("third"), refused(TopicError::TooManyTopics));
        assert_eq!(ctx.topic_count(), 2);
        assert!(ctx.unsubscribe("second"));
        assert_eq!(ctx.subscribe("third"), Ok(true));
        ctx.send("done");
    });
    let server = serve(app, |config| config.limits.max_topics = 2);
    assert_eq!(server.connect().hear(), "done");
}

#[test]
fn publishing_while_going_through_the_connections_reaches_each_in_order() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("all"), Ok(true)))
        .on_message(|ctx, _| {
            let ids: Vec<ConnectionId> = ctx.connections().collect();
            for (index, id) in ids.into_iter().enumerate() {
                ctx.publish("all", &format!("all {index}"));
                ctx.send_to(id, &format!("you {index}"));
            }
        });
    let server = serve(app, |_| ());
    let (mut clients, _) = server.connect_many::<5>();
    clients[3].say("go");
    for (own, client) in clients.iter_mut().enumerate() {
        for index in 0..5 {
            assert_eq!(client.hear(), format!("all {index}"));
            if index == own {
                assert_eq!(client.hear(), format!("you {index}"));
            }
        }
        client.hears_nothing_more();
    }
}

#[test]
fn open_a_timer_a_closure_and_close_can_publish() {
    let app = App::default()
        .on_open(|ctx| {
            ctx.publish("news", "open");
            ctx.subscribe("news").unwrap();
        })
        .on_timer(|ctx, token| {
            ctx.publish("news", &format!("timer {token}"));
        })
        .on_close(|ctx, ended| {
            ctx.publish("news", &format!("close {}", ended.code));
        });
    let server = serve(app, |_| ());
    let mut reader = server.connect();
    let mut other = server.connect();
    assert_eq!(reader.hear(), "open");
    server.ask(|_, ctx| ctx.set_timer(std::time::Duration::ZERO, 7));
    assert_eq!(reader.hear(), "timer 7");
    server.ask(|_, ctx| ctx.publish("news", "closure"));
    assert_eq!(reader.hear(), "closure");
    other.frame(0x88, &4001_u16.to_be_bytes());
    assert_eq!(reader.hear(), "close 4001");
}

#[test]
fn close_publishes_to_those_who_stay_however_the_connection_ended() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let reached = Arc::clone(&left);
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("room"), Ok(true)))
        .on_close(move |ctx, _| {
            let count = ctx.publish("room", "left");
            assert_eq!(count, ctx.subscriber_count("room"));
            reached.lock().unwrap().push(count);
        });
    let server = serve(app, |_| ());
    let mut stays = server.connect();
    let mut closes = server.connect();
    let vanishes = server.connect();
    closes.frame(0x88, &[]);
    assert_eq!(stays.hear(), "left");
    drop(vanishes);
    assert_eq!(stays.hear(), "left");
    // Who leaves is not among those who are reached.
    assert_eq!(*left.lock().unwrap(), [2, 1]);
}

#[test]
fn who_is_being_closed_is_subscribed_no_more() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("room"), Ok(true)))
        .on_message(|ctx, _| {
            ctx.publish("room", "before");
            ctx.close(CloseCode::NORMAL, "").unwrap();
            assert_eq!(ctx.publish("room", "after"), 1);
            assert_eq!(ctx.subscriber_count("room"), 1);
            assert_eq!(ctx.subscribe("room"), Err(SubscribeError::NotOpen));
            assert_eq!(ctx.send("too late"), Sent::Dropped);
        });
    let server = serve(app, |_| ());
    let (mut clients, _) = server.connect_many::<2>();
    clients[0].say("go");
    assert_eq!(clients[0].hear_all(), (vec!["before".into()], 1000));
    assert_eq!([clients[1].hear(), clients[1].hear()], ["before", "after"]);
}

#[test]
fn what_was_published_comes_before_the_answer_to_the_peers_close() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("room"), Ok(true)))
        .on_message(|ctx, text| {
            ctx.publish("room", text);
        });
    let server = serve(app, |_| ());
    let mut client = server.connect();
    // One segment, so that one read pass sees both.
    let mut bytes = crate::support::masked(0x81, b"last words");
    bytes.extend(crate::support::masked(0x88, &1000_u16.to_be_bytes()));
    client.send(&bytes);
    assert_eq!(client.hear_all(), (vec!["last words".into()], 1000));
    assert!(client.read_to_end().is_empty());
}

#[test]
fn what_was_published_comes_before_the_close_that_fails_the_connection() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("room"), Ok(true)))
        .on_message(|ctx, text| {
            ctx.publish("room", text);
        });
    let server = serve(app, |_| ());
    let mut client = server.connect();
    let mut bytes = crate::support::masked(0x81, b"last words");
    bytes.extend(crate::support::masked(0x83, b"reserved opcode"));
    client.send(&bytes);
    assert_eq!(client.hear_all(), (vec!["last words".into()], 1002));
}

#[test]
fn a_topic_that_ends_leaves_nothing_to_the_next_one() {
    // The table uses the number of a topic again; what waits for the old topic must not go to
    // the subscribers of the new one.
    let app = App::default().on_message(|ctx, _| {
        ctx.subscribe("old").unwrap();
        ctx.publish("old", "old 1");
        ctx.unsubscribe("old");
        ctx.subscribe("new").unwrap();
        ctx.publish("new", "new 1");
        ctx.unsubscribe("new");
        ctx.subscribe("old").unwrap();
        ctx.publish("old", "old 2");
    });
    let server = serve(app, |_| ());
    let mut client = server.connect();
    client.say("go");
    assert_eq!([(); 3].map(|()| client.hear()), ["old 1", "new 1", "old 2"]);
    client.hears_nothing_more();
}

#[test]
fn the_number_of_a_closed_connection_brings_its_successor_nothing() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("room"), Ok(true)))
        .on_close(|ctx, _| {
            ctx.publish_to_others("room", "one left");
        });
    let server = serve(app, |_| ());
    for _ in 0..20 {
        drop(server.connect());
        let mut successor = server.connect();
        server.ask(|_, ctx| ctx.publish("room", "now"));
        // Those before may have left behind its back.
        let mut heard = successor.hear();
        while heard == "one left" {
            heard = successor.hear();
        }
        assert_eq!(heard, "now");
    }
}

#[test]
fn a_hundred_publishes_cost_one_delivery_for_each_subscriber() {
    let app = App::default().on_message(|ctx, _| {
        for index in 0..100 {
            assert_eq!(ctx.publish("news", &format!("{index}")), 50);
        }
    });
    let server = serve(app, |_| ());
    let (mut clients, ids) = server.connect_many::<50>();
    server.ask(move |_, ctx| {
        for id in ids {
            ctx.subscribe_connection(id, "news").unwrap();
        }
    });
    clients[7].say("go");
    for client in &mut clients {
        for index in 0..100 {
            assert_eq!(client.hear(), format!("{index}"));
        }
    }
    let stats = server.ask(|_, ctx| ctx.stats().clone());
    assert_eq!((stats.published, stats.deliveries), (100, 50));
}

#[test]
fn binary_messages_and_long_ones_are_published_as_they_are() {
    let app = App::default().on_message(|ctx, _| {
        for len in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
            ctx.publish("news", &vec![0xA5; len]);
        }
    });
    let server = serve(app, |_| ());
    let (mut clients, [_, reader]) = server.connect_many::<2>();
    server.ask(move |_, ctx| ctx.subscribe_connection(reader, "news").unwrap());
    clients[0].say("go");
    for len in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let (first, payload) = clients[1].read_frame();
        assert_eq!((first, payload.len()), (0x82, len));
        assert!(payload.iter().all(|&byte| byte == 0xA5));
    }
}

#[test]
fn clients_that_leave_while_others_publish_disturb_nobody() {
    let app = App::default()
        .on_open(|ctx| assert_eq!(ctx.subscribe("news"), Ok(true)))
        .on_message(|ctx, text| {
            ctx.publish("news", text);
        });
    let server = serve(app, |_| ());
    let mut reader = server.connect();
    let mut writer = server.connect();
    let address = server.address;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..50 {
                let mut client = Client::open(address, "/");
                if round % 2 == 0 {
                    client.frame(0x88, &[]);
                }
            }
        });
        for index in 0..200 {
            writer.say(&format!("{index}"));
            assert_eq!(writer.hear(), format!("{index}"));
        }
    });
    for index in 0..200 {
        assert_eq!(reader.hear(), format!("{index}"));
    }
}
