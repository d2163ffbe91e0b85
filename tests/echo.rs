//! Echo through the whole path, with raw sockets and with a foreign client.

use crate::support::{Client, Echo, masked, serve};

#[test]
fn messages_of_every_length_come_back() {
    let server = serve(Echo, |_| ());
    let mut client = server.connect();
    for len in [
        0,
        1,
        2,
        125,
        126,
        127,
        4000,
        4090,
        4096,
        16_384,
        65_535,
        65_536,
        200_000,
        3 << 20,
    ] {
        let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
        client.frame(0x82, &payload);
        let (first, echo) = client.read_frame();
        assert_eq!(first, 0x82);
        assert!(echo == payload, "{len} bytes");
    }
}

#[test]
fn a_message_in_single_bytes_comes_back() {
    let server = serve(Echo, |_| ());
    let mut client = server.connect();
    for byte in masked(0x81, "ünïcödé ✓".as_bytes()) {
        client.send(&[byte]);
    }
    assert_eq!(client.read_frame(), (0x81, "ünïcödé ✓".into()));
}

#[test]
fn tungstenite_gets_its_messages_back() {
    let server = serve(Echo, |_| ());
    let url = format!("ws://{}/", server.address);
    let (mut socket, _) = tungstenite::connect(url).unwrap();
    for message in ["", "hello", "κόσμε"] {
        socket.send(message.into()).unwrap();
        assert_eq!(
            socket.read().unwrap().into_text().unwrap().as_str(),
            message
        );
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    assert_eq!(server.ask(|_, ctx| ctx.stats().opened), 1);
}

#[test]
fn pipelined_messages_come_back_in_order() {
    let server = serve(Echo, |_| ());
    let mut client = Client::open(server.address, "/");
    let mut bytes = Vec::new();
    for index in 0..10_000_u32 {
        bytes.extend(masked(0x82, &index.to_be_bytes()));
    }
    client.send(&bytes);
    for index in 0..10_000_u32 {
        assert_eq!(client.read_frame().1, index.to_be_bytes());
    }
}
