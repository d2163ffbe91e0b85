//! Frames that are wrong, late, endless or in pieces, over a socket (catalogue B, 45–76).
//!
//! Each hostile connection sends a good message first: it must have been delivered and answered
//! before the connection fails, and nobody else may notice.

use std::io::Write;
use std::time::{Duration, Instant};

use stentor::protocol::ProtocolError;
use stentor::{Cause, CloseCode};

use crate::scene::{SOON, Scene, Seen};
use crate::support::{
    BINARY, CLOSE, CONTINUATION, Client, FIN, PATIENCE, PING, PONG, TEXT, masked,
};

impl Scene {
    /// Sends these bytes behind a good message; the server must deliver that, then fail the
    /// connection with the code of the error, and end it.
    fn fails(&mut self, bytes: &[u8], error: ProtocolError) {
        let shown = &bytes[..bytes.len().min(32)];
        let mut client = self.connect();
        client.send(&[&masked(TEXT, b"good"), bytes].concat());
        assert_eq!(client.read_frame(), (TEXT, b"good".into()), "{shown:x?}");
        let code = error.close_code().get();
        assert_eq!(client.read_close(), code, "{shown:x?}: {error}");
        assert_eq!(client.read_to_end(), [0; 0], "{shown:x?}");
        drop(client);
        let closed = Seen::Closed(code, Cause::Protocol(error));
        assert_eq!(
            self.settle(),
            [Seen::Open, Seen::text("good"), closed],
            "{shown:x?}"
        );
    }

    /// Sends these bytes; all of these messages must come back and the connection must live on.
    fn echoes(&mut self, bytes: &[u8], messages: &[(u8, Vec<u8>)]) {
        let mut client = self.connect();
        client.send(bytes);
        for (first, payload) in messages {
            let echo = client.read_frame();
            assert!(echo == (*first, payload.clone()), "{echo:.32?}");
        }
        client.echo("alive");
        self.closes(client);
    }

    /// The connection must close cleanly.
    fn closes(&mut self, mut client: Client) {
        client.frame(CLOSE, &1000_u16.to_be_bytes());
        assert_eq!(client.read_close(), 1000);
        assert_eq!(client.read_to_end(), [0; 0]);
        drop(client);
        assert_eq!(self.settle().last(), Some(&Seen::Closed(1000, Cause::Peer)));
    }
}

/// A masked header that declares this length in the 64-bit form, with a mask of zeros.
fn declared(first: u8, len: u64) -> Vec<u8> {
    [&[first, 0xFF][..], &len.to_be_bytes(), &[0; 4]].concat()
}

/// The payload of a Close frame.
fn close_payload(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_ref()].concat()
}

#[test]
fn cat_045_unmasked_frame() {
    let mut scene = Scene::new();
    for frame in [
        &b"\x81\x05Hello"[..],
        b"\x82\x00",
        b"\x89\x00",
        b"\x88\x02\x03\xE8",
    ] {
        scene.fails(frame, ProtocolError::UnmaskedFrame);
    }
}

#[test]
fn cat_046_mask_of_zeros() {
    let mut scene = Scene::new();
    let frame = b"\x81\x85\0\0\0\0Hello";
    scene.echoes(frame, &[(TEXT, b"Hello".into())]);
}

#[test]
fn cat_047_each_reserved_bit() {
    let mut scene = Scene::new();
    for bit in [0x40, 0x20, 0x10] {
        for first in [TEXT, BINARY, PING, CLOSE] {
            scene.fails(&masked(first | bit, b""), ProtocolError::ReservedBits);
        }
    }
}

#[test]
fn cat_048_reserved_opcodes_with_any_length() {
    let mut scene = Scene::new();
    for opcode in (3..=7).chain(11..=15) {
        scene.fails(&masked(FIN | opcode, b""), ProtocolError::ReservedOpcode);
        let header = declared(FIN | opcode, 1 << 62);
        scene.fails(&header, ProtocolError::ReservedOpcode);
    }
}

#[test]
fn cat_049_length_with_its_highest_bit() {
    let mut scene = Scene::new();
    for first in [TEXT, BINARY] {
        for len in [1 << 63, u64::MAX, u64::MAX - 13, u64::MAX - 14] {
            scene.fails(&declared(first, len), ProtocolError::LengthOverflow);
        }
        scene.fails(
            &declared(first, u64::MAX >> 1),
            ProtocolError::MessageTooBig,
        );
        scene.fails(&declared(first, 1 << 62), ProtocolError::MessageTooBig);
    }
}

#[test]
fn cat_050_lengths_spelt_too_long() {
    let mut scene = Scene::new();
    for len in [0_u16, 1, 125] {
        let header = [&[BINARY, 0xFE][..], &len.to_be_bytes(), &[0; 4]].concat();
        scene.fails(&header, ProtocolError::NonMinimalLength);
    }
    for len in [0, 125, 126, 65_535] {
        scene.fails(&declared(BINARY, len), ProtocolError::NonMinimalLength);
    }
}

#[test]
fn cat_051_lengths_around_the_boundaries() {
    let mut scene = Scene::new();
    for len in [
        0, 1, 124, 125, 126, 127, 4085, 4096, 65_534, 65_535, 65_536, 65_537,
    ] {
        for first in [TEXT, BINARY] {
            let payload: Vec<u8> = (b'a'..=b'z').cycle().take(len).collect();
            scene.echoes(&masked(first, &payload), &[(first, payload)]);
        }
    }
}

#[test]
fn cat_052_header_split_at_each_byte() {
    let mut scene = Scene::new();
    for len in [3, 300, 70_000] {
        let payload = vec![b'x'; len];
        let frame = masked(TEXT, &payload);
        let header_len = frame.len() - len;
        for split in 1..=header_len {
            let mut client = scene.connect();
            scene.send_pieces(&mut client, [&frame[..split], &frame[split..]]);
            assert!(
                client.read_frame() == (TEXT, payload.clone()),
                "{split} of {len}"
            );
            scene.closes(client);
        }
        let mut client = scene.connect();
        let (header, payload_bytes) = frame.split_at(header_len);
        scene.send_pieces(&mut client, header.chunks(1).chain([payload_bytes]));
        assert!(client.read_frame() == (TEXT, payload), "{len}");
        scene.closes(client);
    }
}

#[test]
fn cat_053_partial_frame_that_stalls() {
    let mut scene = Scene::with(|config| {
        config.timeouts.message = SOON;
        config.timeouts.close = SOON;
    });
    let long = declared(TEXT, 100_000);
    let short = masked(TEXT, b"never complete");
    for part in [&short[..1], &short[..4], &short[..10], &long[..9], &long] {
        let mut client = scene.connect();
        client.send(part);
        assert_eq!(client.read_close(), 1008, "{part:x?}");
        // It does not answer the Close frame either.
        assert_eq!(client.read_to_end(), [0; 0], "{part:x?}");
        drop(client);
        let closed = Seen::Closed(1008, Cause::MessageTimeout);
        assert_eq!(scene.settle(), [Seen::Open, closed], "{part:x?}");
    }
}

#[test]
fn cat_054_ping_longer_than_125() {
    let mut scene = Scene::new();
    for first in [PING, PONG, CLOSE] {
        let frame = masked(first, &[b'x'; 126]);
        scene.fails(&frame, ProtocolError::ControlFrameTooLong);
        scene.fails(&declared(first, 65_536), ProtocolError::ControlFrameTooLong);
    }
    let longest = vec![b'x'; 125];
    scene.echoes(&masked(PING, &longest), &[(PONG, longest)]);
}

#[test]
fn cat_055_fragmented_control_frame() {
    let mut scene = Scene::new();
    for first in [PING, PONG, CLOSE] {
        let frame = masked(first - FIN, b"");
        scene.fails(&frame, ProtocolError::FragmentedControlFrame);
    }
}

#[test]
fn cat_056_ping_between_fragments_is_answered_at_once() {
    let mut scene = Scene::new();
    let mut client = scene.connect();
    client.frame(TEXT - FIN, b"one ");
    client.frame(PING, b"now");
    assert_eq!(client.read_frame(), (PONG, b"now".into()));
    client.frame(CONTINUATION, b"message");
    assert_eq!(client.read_frame(), (TEXT, b"one message".into()));
    client.frame(PONG, b"nobody asked");
    scene.closes(client);
}

#[test]
fn cat_057_close_between_fragments() {
    let mut scene = Scene::new();
    let mut client = scene.connect();
    client.frame(TEXT - FIN, b"never ");
    client.frame(CLOSE, &close_payload(3000, "enough"));
    client.frame(CONTINUATION, b"complete");
    assert_eq!(client.read_frame(), (CLOSE, close_payload(3000, "")));
    assert_eq!(client.read_to_end(), [0; 0]);
    drop(client);
    assert_eq!(
        scene.settle(),
        [Seen::Open, Seen::Closed(3000, Cause::Peer)]
    );
}

#[test]
fn cat_058_continuation_of_nothing() {
    let mut scene = Scene::new();
    for first in [CONTINUATION, CONTINUATION - FIN] {
        scene.fails(&masked(first, b"x"), ProtocolError::UnexpectedContinuation);
    }
    let behind_a_whole_message = [
        masked(TEXT - FIN, b"a"),
        masked(CONTINUATION, b"b"),
        masked(CONTINUATION, b"c"),
    ]
    .concat();
    let mut client = scene.connect();
    client.send(&behind_a_whole_message);
    assert_eq!(client.read_frame(), (TEXT, b"ab".into()));
    assert_eq!(client.read_close(), 1002);
}

#[test]
fn cat_059_message_inside_a_message() {
    let mut scene = Scene::new();
    for first in [TEXT, BINARY, TEXT - FIN, BINARY - FIN] {
        let frames = [masked(TEXT - FIN, b"a"), masked(first, b"b")].concat();
        scene.fails(&frames, ProtocolError::ExpectedContinuation);
    }
}

#[test]
fn cat_060_empty_fragments() {
    let mut scene = Scene::with(|config| config.protocol.max_fragments = 1000);
    let fragments = |count: usize| {
        let mut frames = masked(TEXT - FIN, b"");
        frames.extend(masked(CONTINUATION - FIN, b"").repeat(count - 2));
        frames.extend(masked(CONTINUATION, b""));
        frames
    };
    scene.echoes(&fragments(1000), &[(TEXT, Vec::new())]);
    scene.fails(&fragments(1001), ProtocolError::TooManyFragments);
    scene.echoes(&masked(TEXT, b""), &[(TEXT, Vec::new())]);
}

#[test]
fn cat_061_fragments_without_end_are_timed_out() {
    let mut scene = Scene::with(|config| {
        config.timeouts.message = SOON;
        config.timeouts.close = SOON;
    });
    let fragment = masked(CONTINUATION - FIN, b"x");
    let ping = masked(PING, b"");
    // Neither bytes of the message nor Pings beside it move its deadline.
    for piece in [
        fragment.clone(),
        [&ping[..], &fragment].concat(),
        [fragment, ping].concat(),
    ] {
        let mut client = scene.connect();
        client.frame(TEXT - FIN, b"x");
        let mut trickle = client.twin();
        let trickling = std::thread::spawn(move || {
            while trickle.socket.write_all(&piece).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while let (first, payload) = client.read_frame()
            && first != CLOSE
        {
            assert_eq!((first, payload), (PONG, Vec::new()));
            assert!(Instant::now() < deadline, "the message goes on and on");
        }
        client.read_to_end();
        drop(client);
        trickling.join().unwrap();
        assert_eq!(
            scene.settle(),
            [Seen::Open, Seen::Closed(1008, Cause::MessageTimeout)]
        );
    }
}

#[test]
fn cat_061_fragments_without_end_reach_the_size_limit() {
    let mut scene = Scene::with(|config| config.protocol.max_message_size = 1000);
    let mut frames = masked(BINARY - FIN, b"x");
    frames.extend(masked(CONTINUATION - FIN, b"x").repeat(1000));
    scene.fails(&frames, ProtocolError::MessageTooBig);
}

#[test]
fn cat_062_message_at_the_limit() {
    for limit in [100, 5000, 100_000] {
        let mut scene = Scene::with(|config| config.protocol.max_message_size = limit);
        let payload = vec![b'x'; limit];
        scene.echoes(&masked(TEXT, &payload), &[(TEXT, payload)]);
        scene.fails(
            &masked(TEXT, &vec![b'x'; limit + 1]),
            ProtocolError::MessageTooBig,
        );
    }
}

#[test]
fn cat_063_sum_of_fragments_over_the_limit_fails_at_its_header() {
    let mut scene = Scene::with(|config| config.protocol.max_message_size = 1000);
    let first = masked(BINARY - FIN, &[0; 600]);
    let exactly = [&first[..], &masked(CONTINUATION, &[0; 400])].concat();
    scene.echoes(&exactly, &[(BINARY, vec![0; 1000])]);
    let crossing = &masked(CONTINUATION, &[0; 401])[..8];
    scene.fails(
        &[&first[..], crossing].concat(),
        ProtocolError::MessageTooBig,
    );
    let huge = declared(CONTINUATION, u64::MAX >> 1);
    scene.fails(&[&first[..], &huge].concat(), ProtocolError::MessageTooBig);
}

#[test]
fn cat_064_invalid_utf8_fails_before_the_frame_ends() {
    let mut scene = Scene::new();
    for len in [20, 1000, 10_000, 1_000_000] {
        let mut payload = vec![b'x'; len];
        payload[10] = 0xFF;
        let frame = masked(TEXT, &payload);
        let header_len = frame.len() - len;
        scene.fails(&frame[..header_len + 11], ProtocolError::InvalidUtf8);
    }
}

#[test]
fn cat_065_character_split_over_frames() {
    let mut scene = Scene::new();
    let text = "κ€𝄞";
    for split in 0..=text.len() {
        let (start, end) = text.as_bytes().split_at(split);
        let frames = [masked(TEXT - FIN, start), masked(CONTINUATION, end)].concat();
        scene.echoes(&frames, &[(TEXT, text.into())]);
    }
}

#[test]
fn cat_066_byte_sequences_that_are_no_character() {
    let mut scene = Scene::new();
    for bytes in [
        &b"\xED\xA0\x80"[..], // U+D800, a surrogate.
        b"\xED\xBF\xBF",
        b"\xC0\xAF", // Overlong.
        b"\xE0\x80\xAF",
        b"\xF0\x80\x80\xAF",
        b"\xF4\x90\x80\x80", // U+110000.
        b"\xF8\x88\x80\x80\x80",
        b"\x80",
        b"\xFE",
    ] {
        for payload in [bytes.to_vec(), [&[b'x'; 200], bytes].concat()] {
            scene.fails(&masked(TEXT, &payload), ProtocolError::InvalidUtf8);
        }
        let fragments = [
            masked(TEXT - FIN, &bytes[..1]),
            masked(CONTINUATION, &bytes[1..]),
        ];
        scene.fails(&fragments.concat(), ProtocolError::InvalidUtf8);
    }
}

#[test]
fn cat_067_character_cut_off_by_the_end() {
    let mut scene = Scene::new();
    for bytes in [&b"\xCE"[..], b"\xE2\x82", b"\xF0\x9D\x84"] {
        scene.fails(&masked(TEXT, bytes), ProtocolError::InvalidUtf8);
        let fragments = [masked(TEXT - FIN, bytes), masked(CONTINUATION, b"")];
        scene.fails(&fragments.concat(), ProtocolError::InvalidUtf8);
    }
}

#[test]
fn cat_068_binary_is_any_bytes() {
    let mut scene = Scene::new();
    let payload: Vec<u8> = (0..=u8::MAX).rev().collect();
    scene.echoes(&masked(BINARY, &payload), &[(BINARY, payload)]);
}

#[test]
fn cat_069_close_with_one_byte() {
    let mut scene = Scene::new();
    scene.fails(&masked(CLOSE, b"\x03"), ProtocolError::ClosePayloadTooShort);
}

#[test]
fn cat_070_close_codes() {
    let mut scene = Scene::new();
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        let frame = masked(CLOSE, &close_payload(code, ""));
        scene.fails(&frame, ProtocolError::InvalidCloseCode);
    }
    let valid = (1000..=1003)
        .chain(1007..=1014)
        .chain([3000, 3999, 4000, 4999]);
    for code in valid {
        let mut client = scene.connect();
        client.frame(CLOSE, &close_payload(code, "bye"));
        assert_eq!(client.read_frame(), (CLOSE, close_payload(code, "")));
        assert_eq!(client.read_to_end(), [0; 0]);
        drop(client);
        assert_eq!(
            scene.settle(),
            [Seen::Open, Seen::Closed(code, Cause::Peer)]
        );
    }
    let mut client = scene.connect();
    client.frame(CLOSE, b"");
    assert_eq!(client.read_frame(), (CLOSE, Vec::new()));
    assert_eq!(client.read_to_end(), [0; 0]);
    drop(client);
    assert_eq!(
        scene.settle(),
        [Seen::Open, Seen::Closed(1005, Cause::Peer)]
    );
}

#[test]
fn cat_071_close_reason_that_is_not_utf8() {
    let mut scene = Scene::new();
    for reason in [&b"\xFF"[..], b"cut off \xE2\x82"] {
        let frame = masked(CLOSE, &close_payload(1000, reason));
        scene.fails(&frame, ProtocolError::InvalidCloseReason);
    }
    let longest = masked(CLOSE, &close_payload(1000, "é".repeat(61) + "x"));
    let mut client = scene.connect();
    client.send(&longest);
    assert_eq!(client.read_close(), 1000);
}

#[test]
fn cat_072_what_follows_a_close_is_ignored() {
    let mut scene = Scene::new();
    let close = masked(CLOSE, &close_payload(1000, ""));
    for behind in [
        masked(TEXT, b"too late"),
        masked(PING, b"too late"),
        b"\xFF\xFF\xFF\xFF".to_vec(),
        masked(BINARY, &vec![0; 1 << 20]),
    ] {
        // In the same read, and in a later one.
        for is_apart in [false, true] {
            let mut client = scene.connect();
            client.send(&close);
            if is_apart {
                assert_eq!(client.read_close(), 1000);
                client.send(&behind);
            } else {
                client.send(&behind);
                assert_eq!(client.read_close(), 1000);
            }
            assert_eq!(client.read_to_end(), [0; 0]);
            drop(client);
            assert_eq!(
                scene.settle(),
                [Seen::Open, Seen::Closed(1000, Cause::Peer)]
            );
        }
    }
}

#[test]
fn cat_073_two_closes_are_answered_once() {
    let mut scene = Scene::new();
    let mut client = scene.connect();
    let closes = [
        masked(CLOSE, &close_payload(1000, "")),
        masked(CLOSE, &close_payload(1001, "")),
    ];
    client.send(&closes.concat());
    assert_eq!(client.read_close(), 1000);
    assert_eq!(client.read_to_end(), [0; 0]);
    drop(client);
    assert_eq!(
        scene.settle(),
        [Seen::Open, Seen::Closed(1000, Cause::Peer)]
    );
}

#[test]
fn cat_074_closes_that_cross() {
    let mut scene = Scene::new();
    let mut client = scene.connect();
    let id = scene
        .server
        .ask(|_, ctx| ctx.connections().max().expect("the client"));
    // Both are there when the loop looks, and commands come before what was received.
    let stands_still = scene.server.stand_still();
    scene
        .server
        .handle
        .close(id, CloseCode::new(4000), "ours")
        .unwrap();
    client.send(
        &[
            masked(TEXT, b"crossing"),
            masked(CLOSE, &close_payload(3000, "theirs")),
        ]
        .concat(),
    );
    drop(stands_still);
    assert_eq!(client.read_frame(), (CLOSE, close_payload(4000, "ours")));
    assert_eq!(client.read_to_end(), [0; 0], "and no second Close");
    drop(client);
    assert_eq!(
        scene.settle(),
        [Seen::Open, Seen::Closed(4000, Cause::Application)]
    );
}

#[test]
fn close_that_is_not_answered() {
    let mut scene = Scene::with(|config| config.timeouts.close = SOON);
    let mut client = scene.connect();
    let id = scene
        .server
        .ask(|_, ctx| ctx.connections().max().expect("the client"));
    scene
        .server
        .handle
        .close(id, CloseCode::NORMAL, "")
        .unwrap();
    assert_eq!(client.read_close(), 1000);
    let mut trickle = client.twin();
    let trickling = std::thread::spawn(move || {
        while trickle
            .socket
            .write_all(&masked(TEXT, b"never mind"))
            .is_ok()
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(client.read_to_end(), [0; 0]);
    drop(client);
    trickling.join().unwrap();
    assert_eq!(
        scene.settle(),
        [Seen::Open, Seen::Closed(1000, Cause::CloseTimeout)]
    );
}

#[test]
fn cat_075_thousand_messages_in_one_segment() {
    let mut scene = Scene::new();
    let mut client = scene.connect();
    let messages: Vec<u8> = (0..1000_u16)
        .flat_map(|index| masked(BINARY, &index.to_be_bytes()))
        .collect();
    client.send(&messages);
    for index in 0..1000_u16 {
        assert_eq!(client.read_frame(), (BINARY, index.to_be_bytes().into()));
    }
    scene.closes(client);
}

#[test]
fn cat_076_messages_before_a_bad_frame_are_delivered() {
    let mut scene = Scene::new();
    let mut client = scene.connect();
    let long = vec![b'x'; 100_000];
    client.send(
        &[
            masked(TEXT, b"one"),
            masked(TEXT, &long),
            masked(PING, b"two"),
            masked(TEXT | 0x40, b"bad"),
            masked(TEXT, b"never looked at"),
        ]
        .concat(),
    );
    assert_eq!(client.read_frame(), (TEXT, b"one".into()));
    assert!(client.read_frame() == (TEXT, long));
    assert_eq!(client.read_frame(), (PONG, b"two".into()));
    assert_eq!(client.read_close(), 1002);
    assert_eq!(client.read_to_end(), [0; 0]);
    drop(client);
    let seen = scene.settle();
    assert_eq!(seen.len(), 4);
    assert_eq!(
        seen[3],
        Seen::Closed(1002, Cause::Protocol(ProtocolError::ReservedBits))
    );
}
