//! How the bytes of a stream are cut must not change what comes of them.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use stentor::protocol::{
    CloseCode, CloseFrame, Message, MessageKind, Opcode, ProtocolError, Role, Settings, State,
    write_masked_frame, write_unmasked_frame,
};

use crate::feeding::{Came, End, outcome_of};

/// Texts in several scripts, of one to four bytes a character.
const TEXTS: [&str; 8] = [
    "plain ASCII, the common case",
    "Größe, façade, żółw",
    "Καλημέρα κόσμε",
    "Привет, мир",
    "שלום עולם",
    "こんにちは世界",
    "สวัสดีชาวโลก",
    "𝄞 🦀 👩‍👩‍👧 \u{10FFFF}",
];

/// Byte sequences that are in no text.
const NO_TEXTS: [&[u8]; 6] = [
    b"\xFF",
    b"\xC0\xAF",
    b"\xED\xA0\x80",
    b"\xF4\x90\x80\x80",
    b"\xE2\x82",
    b"\x80",
];

/// Part of a stream.
#[derive(Clone, Debug)]
enum Part {
    Frame(u8, Vec<u8>),
    /// A header that declares more than there is.
    Header(Vec<u8>),
}

/// Writes the parts as the peer of `role` would.
fn stream_to(role: Role, parts: &[Part]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let start = stream.len();
        match part {
            Part::Frame(first, payload) => {
                let key = [0x5A, index as u8, 0, 0xC3];
                match role {
                    Role::Server => {
                        write_masked_frame(Opcode::Binary, payload, key, &mut stream);
                    }
                    Role::Client => write_unmasked_frame(Opcode::Binary, payload, &mut stream),
                }
                stream[start] = *first;
            }
            Part::Header(bytes) => stream.extend_from_slice(bytes),
        }
    }
    stream
}

/// Lengths at which the header, the place of a payload or a buffer changes.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..40_usize,
        4 => 120..130_usize,
        2 => 4080..4100_usize,
        1 => 65_530..65_540_usize,
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let no_text = prop::option::weighted(0.1, (0..NO_TEXTS.len(), any::<prop::sample::Index>()));
    (0..TEXTS.len(), lengths(), no_text).prop_map(|(text, len, no_text)| {
        let text = TEXTS[text];
        let mut bytes = text.repeat(len / text.len() + 1).into_bytes();
        if let Some((index, place)) = no_text {
            let place = place.index(bytes.len() + 1);
            bytes.splice(place..place, NO_TEXTS[index].iter().copied());
        }
        bytes
    })
}

fn control() -> impl Strategy<Value = Part> {
    let reason = text().prop_map(|mut reason| {
        reason.truncate(100);
        reason
    });
    let close = (
        prop_oneof![Just(1000), 990..1020_u16, 3000..5001_u16],
        reason,
    )
        .prop_map(|(code, reason)| [&code.to_be_bytes(), &reason[..]].concat());
    prop_oneof![
        8 => vec(any::<u8>(), 0..126).prop_map(|payload| Part::Frame(0x89, payload)),
        4 => vec(any::<u8>(), 0..126).prop_map(|payload| Part::Frame(0x8A, payload)),
        1 => close.prop_map(|payload| Part::Frame(0x88, payload)),
        1 => vec(any::<u8>(), 0..2).prop_map(|payload| Part::Frame(0x88, payload)),
    ]
}

/// A message in any number of fragments, with control frames between them.
fn message() -> impl Strategy<Value = Vec<Part>> {
    let binary = lengths().prop_flat_map(|len| vec(any::<u8>(), len));
    let payload = prop_oneof![3 => text().prop_map(|text| (1, text)), 1 => binary.prop_map(|binary| (2, binary))];
    let cuts = vec(any::<prop::sample::Index>(), 0..5);
    (payload, cuts, vec(control(), 0..3)).prop_map(|((opcode, payload), cuts, controls)| {
        let mut ends: Vec<usize> = cuts
            .iter()
            .map(|cut| cut.index(payload.len() + 1))
            .collect();
        ends.push(payload.len());
        ends.sort_unstable();
        let mut controls = controls.into_iter();
        let (mut parts, mut start) = (Vec::new(), 0);
        for (index, end) in ends.iter().enumerate() {
            let fin = if index + 1 == ends.len() { 0x80 } else { 0 };
            let opcode = if index == 0 { opcode } else { 0 };
            parts.push(Part::Frame(fin | opcode, payload[start..*end].to_vec()));
            parts.extend(controls.next().filter(|_| fin == 0));
            start = *end;
        }
        parts
    })
}

/// Something that no peer should send.
fn nonsense() -> impl Strategy<Value = Vec<Part>> {
    let any_frame = (any::<u8>(), vec(any::<u8>(), 0..200));
    let any_header = (
        any::<u8>(),
        prop_oneof![126..128_u8, 254..=255_u8],
        any::<u64>(),
    );
    // A length without the bit of the mask.
    let unmasked = (prop::sample::select(vec![0x81, 0x82, 0x89]), 0..126_u8);
    prop_oneof![
        unmasked.prop_map(|(first, len)| vec![Part::Header(vec![first, len])]),
        any_frame.prop_map(|(first, payload)| vec![Part::Frame(first, payload)]),
        any_header.prop_map(|(first, second, len)| {
            vec![Part::Header(
                [&[first, second][..], &len.to_be_bytes(), &[0; 4]].concat(),
            )]
        }),
        vec(any::<u8>(), 1..30).prop_map(|bytes| vec![Part::Header(bytes)]),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        12 => message(),
        3 => control().prop_map(|control| vec![control]),
        1 => nonsense(),
    ];
    vec(part, 1..8).prop_map(|parts| parts.concat())
}

/// Pieces as the network cuts them: single bytes, and up to a whole buffer.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    let piece = prop_oneof![4 => 1..20_usize, 4 => 1..5000_usize, 1 => Just(1), 1 => Just(70_000)];
    vec(piece, 1..12)
}

fn settings() -> impl Strategy<Value = Arc<Settings>> {
    let in_place = prop_oneof![Just(4096), Just(0), Just(131_072), 1..5000_usize];
    let max_size = prop_oneof![3 => Just(1 << 20), 1 => 1..70_000_usize];
    let max_fragments = prop_oneof![3 => Just(1000), 1 => 1..5_u32];
    (in_place, max_size, max_fragments, any::<bool>()).prop_map(
        |(max_frame_in_place, max_message_size, max_fragments, accept_non_minimal_lengths)| {
            Arc::new(Settings {
                max_message_size,
                max_fragments,
                accept_non_minimal_lengths,
                max_frame_in_place,
                ..Settings::default()
            })
        },
    )
}

proptest! {
    #[test]
    fn cuts_change_nothing_for_a_server(settings in settings(), parts in parts(), pieces in pieces()) {
        outcome_of(Role::Server, &settings, &stream_to(Role::Server, &parts), &pieces);
    }

    #[test]
    fn cuts_change_nothing_for_a_client(settings in settings(), parts in parts(), pieces in pieces()) {
        outcome_of(Role::Client, &settings, &stream_to(Role::Client, &parts), &pieces);
    }

    #[test]
    fn where_a_payload_waits_changes_nothing(parts in parts(), pieces in pieces(), place in 0..5000_usize) {
        let stream = stream_to(Role::Server, &parts);
        let outcome = |max_frame_in_place| {
            let settings = Settings { max_frame_in_place, ..Settings::default() };
            outcome_of(Role::Server, &Arc::new(settings), &stream, &pieces)
        };
        prop_assert_eq!(outcome(place), outcome(4096));
    }

    #[test]
    fn what_one_end_sends_the_other_gets(
        messages in vec((any::<bool>(), 0..TEXTS.len(), lengths()), 1..6),
        pieces in pieces(),
    ) {
        let settings = Arc::new(Settings::default());
        let (server, client) = End::pair(&settings);
        for (mut from, mut to) in [(server, client), {
            let (server, client) = End::pair(&settings);
            (client, server)
        }] {
            let mut expected = Vec::new();
            for &(is_text, text, len) in &messages {
                let text = TEXTS[text].repeat(len / TEXTS[text].len() + 1);
                let message = if is_text { Message::text(&text) } else { Message::binary(text.as_bytes()) };
                from.connection.send(message, &mut from.output).unwrap();
                from.connection.ping(b"between", &mut from.output).unwrap();
                expected.push(Came::Message(message.kind(), message.payload().into()));
                expected.push(Came::Ping(b"between".into()));
            }
            from.connection.close(CloseFrame::new(CloseCode::new(4000), "bye"), &mut from.output).unwrap();
            expected.push(Came::Close(4000, "bye".into()));
            let mut stream = &from.output[..];
            for len in pieces.iter().cycle() {
                if stream.is_empty() {
                    break;
                }
                let (piece, rest) = stream.split_at((*len).min(stream.len()));
                to.feed_as_the_loop(piece);
                stream = rest;
            }
            // The answers go back: a Pong for each Ping, and the Close.
            let answers = std::mem::take(&mut to.output);
            from.feed(&answers);
            let (to, from) = (to.outcome(), from.outcome());
            prop_assert!(to.came == expected);
            prop_assert_eq!((to.state, from.state), (State::Closed, State::Closed));
            let mut answered = vec![Came::Pong(b"between".into()); messages.len()];
            answered.push(Came::Close(4000, String::new()));
            prop_assert_eq!(from.came, answered);
        }
    }
}

/// The strategies must reach what they are meant to reach.
#[test]
fn the_streams_hold_what_can_come() {
    let mut runner = TestRunner::deterministic();
    let (mut messages, mut texts, mut long, mut closes, mut errors) = (0, 0, 0, 0, Vec::new());
    for _ in 0..1000 {
        let parts = parts().new_tree(&mut runner).unwrap().current();
        let stream = stream_to(Role::Server, &parts);
        let mut end = End::open(Role::Server, &Arc::new(Settings::default()));
        end.feed(&stream);
        for came in end.outcome().came {
            match came {
                Came::Message(kind, payload) => {
                    messages += 1;
                    texts += usize::from(kind == MessageKind::Text && !payload.is_ascii());
                    long += usize::from(payload.len() > 65_535);
                }
                Came::Close(..) => closes += 1,
                Came::Failed(error) if !errors.contains(&error) => errors.push(error),
                _ => {}
            }
        }
    }
    assert!(messages > 1000 && texts > 500 && long > 20 && closes > 50);
    for error in [
        ProtocolError::UnmaskedFrame,
        ProtocolError::ReservedBits,
        ProtocolError::ReservedOpcode,
        ProtocolError::FragmentedControlFrame,
        ProtocolError::UnexpectedContinuation,
        ProtocolError::InvalidCloseCode,
        ProtocolError::InvalidCloseReason,
        ProtocolError::ClosePayloadTooShort,
        ProtocolError::InvalidUtf8,
    ] {
        assert!(errors.contains(&error), "{error} never came");
    }
}
