//! Messages of the protocol as they are written, in JSON or in Protobuf: one list of fields for both.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use stentor::Message;

use super::super::raw::line;

/// How the messages of a client are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broadcast) enum Codec {
    /// In texts, one object on each line.
    Json,
    /// In bytes, each with its length in front as a varint.
    Protobuf,
}

impl Codec {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }

    /// Adds a message to those that leave in one frame.
    pub(super) fn append(self, message: &[u8], frame: &mut Vec<u8>) {
        match self {
            Self::Json if frame.is_empty() => {}
            Self::Json => frame.push(b'\n'),
            Self::Protobuf => varint(message.len() as u64, frame),
        }
        frame.extend_from_slice(message);
    }

    /// A frame of messages.
    pub(super) fn frame(self, frame: &[u8]) -> Message<'_> {
        match self {
            Self::Json => Message::text(str::from_utf8(frame).expect(WRITTEN_FROM_TEXTS)),
            Self::Protobuf => Message::binary(frame),
        }
    }

    /// Adds what a client says later to what it has said.
    pub(super) fn join(self, said: &mut Vec<u8>, more: &[u8]) {
        if self == Self::Json {
            said.push(b'\n');
        }
        said.extend_from_slice(more);
    }

    /// Whether there is no command in this.
    pub(super) fn is_blank(self, said: &[u8]) -> bool {
        match self {
            Self::Json => said.trim_ascii().is_empty(),
            Self::Protobuf => said.is_empty(),
        }
    }

    /// A text as a value of a map.
    pub(super) fn text_value(self, text: &str) -> Vec<u8> {
        match self {
            Self::Json => line(&text).into(),
            Self::Protobuf => text.into(),
        }
    }
}

/// What a part of a message is called in JSON, and its number in Protobuf.
pub(in crate::broadcast) type Field = (&'static str, u32);

/// A message that is being written. What is nothing does not stand in it.
#[derive(Debug)]
pub(in crate::broadcast) struct Record {
    codec: Codec,
    bytes: Vec<u8>,
}

/// The kinds of values in Protobuf, as the lowest bits of a key say them.
const VARINT: u64 = 0;
const DELIMITED: u64 = 2;

impl Record {
    pub(in crate::broadcast) fn new(codec: Codec) -> Self {
        let bytes = match codec {
            Codec::Json => b"{".to_vec(),
            Codec::Protobuf => Vec::new(),
        };
        Self { codec, bytes }
    }

    /// A text; nothing if it is empty.
    pub(in crate::broadcast) fn text(self, field: Field, text: &str) -> Self {
        if text.is_empty() {
            return self;
        }
        self.always_text(field, text)
    }

    /// A text, even an empty one.
    pub(in crate::broadcast) fn always_text(self, field: Field, text: &str) -> Self {
        match self.codec {
            Codec::Json => self.value(field, line(&text).as_bytes()),
            Codec::Protobuf => self.value(field, text.as_bytes()),
        }
    }

    /// A number; nothing if it is 0.
    pub(in crate::broadcast) fn number(self, field: Field, number: u64) -> Self {
        if number == 0 {
            return self;
        }
        self.always_number(field, number)
    }

    /// A number, even 0.
    pub(in crate::broadcast) fn always_number(mut self, field: Field, number: u64) -> Self {
        match self.codec {
            Codec::Json => self.value(field, number.to_string().as_bytes()),
            Codec::Protobuf => {
                varint(u64::from(field.1) << 3 | VARINT, &mut self.bytes);
                varint(number, &mut self.bytes);
                self
            }
        }
    }

    /// `true`, or nothing.
    pub(in crate::broadcast) fn flag(self, field: Field, flag: bool) -> Self {
        match self.codec {
            _ if !flag => self,
            Codec::Json => self.value(field, b"true"),
            Codec::Protobuf => self.always_number(field, 1),
        }
    }

    /// What an application says: JSON, or other bytes, which in JSON become a string; nothing if it
    /// is empty.
    pub(in crate::broadcast) fn data(self, field: Field, data: &[u8]) -> Self {
        match self.codec {
            _ if data.is_empty() => self,
            Codec::Json => self.value(field, &json_of(data)),
            Codec::Protobuf => self.value(field, data),
        }
    }

    /// The same where it is known to be JSON; nothing if it is empty.
    pub(in crate::broadcast) fn json(self, field: Field, json: &[u8]) -> Self {
        match self.codec {
            _ if json.is_empty() => self,
            Codec::Json => self.value(field, &one_line(json)),
            Codec::Protobuf => self.value(field, json),
        }
    }

    /// A message within this one, even an empty one.
    pub(in crate::broadcast) fn record(self, field: Field, record: &[u8]) -> Self {
        self.value(field, record)
    }

    /// Messages in their order, even none.
    pub(in crate::broadcast) fn list(
        mut self,
        field: Field,
        records: impl IntoIterator<Item = Vec<u8>>,
    ) -> Self {
        match self.codec {
            Codec::Json => {
                self.name(field);
                self.bytes.push(b'[');
                for (index, record) in records.into_iter().enumerate() {
                    self.bytes.extend_from_slice(comma(index));
                    self.bytes.extend_from_slice(&record);
                }
                self.bytes.push(b']');
                self
            }
            Codec::Protobuf => records
                .into_iter()
                .fold(self, |whole, record| whole.value(field, &record)),
        }
    }

    /// Values by their names, even none.
    pub(in crate::broadcast) fn map<N: AsRef<str>>(
        mut self,
        field: Field,
        values: impl IntoIterator<Item = (N, Vec<u8>)>,
    ) -> Self {
        match self.codec {
            Codec::Json => {
                self.name(field);
                self.bytes.push(b'{');
                for (index, (name, value)) in values.into_iter().enumerate() {
                    self.bytes.extend_from_slice(comma(index));
                    self.bytes
                        .extend_from_slice(line(&name.as_ref()).as_bytes());
                    self.bytes.push(b':');
                    self.bytes.extend_from_slice(&value);
                }
                self.bytes.push(b'}');
                self
            }
            // A map is a list of messages with a name and a value.
            Codec::Protobuf => values.into_iter().fold(self, |whole, (name, value)| {
                let entry = Self::new(Codec::Protobuf);
                let entry = entry.text(("", 1), name.as_ref()).record(("", 2), &value);
                whole.value(field, &entry.end())
            }),
        }
    }

    pub(in crate::broadcast) fn end(mut self) -> Vec<u8> {
        if self.codec == Codec::Json {
            self.bytes.push(b'}');
        }
        self.bytes
    }

    /// A value that is written as it is to stand there.
    fn value(mut self, field: Field, value: &[u8]) -> Self {
        self.name(field);
        if self.codec == Codec::Protobuf {
            varint(value.len() as u64, &mut self.bytes);
        }
        self.bytes.extend_from_slice(value);
        self
    }

    /// What stands in front of a value that has a length.
    fn name(&mut self, (name, number): Field) {
        match self.codec {
            Codec::Json => {
                self.bytes.extend_from_slice(comma(self.bytes.len() - 1));
                self.bytes.push(b'"');
                self.bytes.extend_from_slice(name.as_bytes());
                self.bytes.extend_from_slice(b"\":");
            }
            Codec::Protobuf => varint(u64::from(number) << 3 | DELIMITED, &mut self.bytes),
        }
    }
}

fn comma(before: usize) -> &'static [u8] {
    if before == 0 { b"" } else { b"," }
}

/// Seven bits in each byte, the lowest first; all but the last have the highest bit set.
fn varint(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Bytes as JSON on one line: as they are if they are JSON, or else a string of the text, or of the
/// bytes in base64.
pub(super) fn json_of(data: &[u8]) -> Cow<'_, [u8]> {
    if is_json(data) {
        return one_line(data);
    }
    Cow::Owned(match str::from_utf8(data) {
        Ok(text) => line(&text).into(),
        Err(_) => in_base64(data),
    })
}

/// A string of JSON with these bytes.
pub(super) fn in_base64(bytes: &[u8]) -> Vec<u8> {
    format!("\"{}\"", STANDARD.encode(bytes)).into()
}

pub(in crate::broadcast) fn is_json(text: &[u8]) -> bool {
    // In bytes, strings that are ignored could be no UTF-8.
    str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// JSON in one line: a line's end is only whitespace in it, and ends a message of the protocol.
pub(in crate::broadcast) fn one_line(json: &[u8]) -> Cow<'_, [u8]> {
    let is_end = |byte: u8| matches!(byte, b'\n' | b'\r');
    if json.iter().any(|&byte| is_end(byte)) {
        let rest = json.iter().copied().filter(|&byte| !is_end(byte));
        Cow::Owned(rest.collect())
    } else {
        Cow::Borrowed(json)
    }
}

/// What was written as JSON, as a text.
///
/// # Panics
///
/// If it was not.
pub(in crate::broadcast) fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect(WRITTEN_FROM_TEXTS)
}

const WRITTEN_FROM_TEXTS: &str = "JSON is written from texts, and bytes in base64";

#[cfg(test)]
mod tests {
    use super::*;

    fn all(codec: Codec) -> Vec<u8> {
        let inner = Record::new(codec).text(("epoch", 2), "e\"").end();
        Record::new(codec)
            .text(("nothing", 1), "")
            .text(("text", 2), "ü")
            .always_text(("empty", 3), "")
            .number(("zero", 4), 0)
            .number(("number", 5), 300)
            .flag(("no", 6), false)
            .flag(("yes", 7), true)
            .data(("none", 8), b"")
            .data(("json", 9), b"{\r\n}")
            .data(("bytes", 10), b"\xff")
            .record(("record", 16), &inner)
            .list(("list", 17), [inner.clone(), inner])
            .map(("map", 18), [("a\n", codec.text_value("b"))])
            .end()
    }

    #[test]
    fn json_has_the_names() {
        let expected = concat!(
            r#"{"text":"ü","empty":"","number":300,"yes":true,"json":{},"bytes":"/w==","#,
            r#""record":{"epoch":"e\""},"list":[{"epoch":"e\""},{"epoch":"e\""}],"map":{"a\n":"b"}}"#,
        );
        assert_eq!(text(all(Codec::Json)), expected);
        assert_eq!(text(Record::new(Codec::Json).end()), "{}");
    }

    /// Read by a library.
    #[test]
    fn protobuf_has_the_numbers() {
        use std::collections::HashMap;

        use prost::Message as _;

        #[derive(Clone, PartialEq, prost::Message)]
        struct Inner {
            #[prost(string, tag = "2")]
            epoch: String,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct All {
            #[prost(string, tag = "2")]
            text: String,
            #[prost(uint64, tag = "5")]
            number: u64,
            #[prost(bool, tag = "7")]
            yes: bool,
            #[prost(bytes = "vec", tag = "9")]
            json: Vec<u8>,
            #[prost(bytes = "vec", tag = "10")]
            bytes: Vec<u8>,
            #[prost(message, optional, tag = "16")]
            record: Option<Inner>,
            #[prost(message, repeated, tag = "17")]
            list: Vec<Inner>,
            #[prost(map = "string, string", tag = "18")]
            map: HashMap<String, String>,
        }
        let inner = Inner {
            epoch: "e\"".into(),
        };
        let expected = All {
            text: "ü".into(),
            number: 300,
            yes: true,
            json: b"{\r\n}".into(),
            bytes: b"\xff".into(),
            record: Some(inner.clone()),
            list: vec![inner.clone(), inner],
            map: [("a\n".into(), "b".into())].into(),
        };
        assert_eq!(All::decode(&*all(Codec::Protobuf)), Ok(expected));
        assert!(Record::new(Codec::Protobuf).end().is_empty());
    }

    #[test]
    fn messages_of_a_frame_are_told_apart() {
        for (codec, expected) in [
            (Codec::Json, &b"ab\nc"[..]),
            (Codec::Protobuf, b"\x02ab\x01c"),
        ] {
            let mut frame = Vec::new();
            codec.append(b"ab", &mut frame);
            codec.append(b"c", &mut frame);
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn bytes_become_json_in_some_way() {
        for (data, expected) in [
            (&b"[1,\n2]"[..], &b"[1,2]"[..]),
            (b"no \"json\"\n", br#""no \"json\"\n""#),
            (b"\xff\x00", b"\"/wA=\""),
            (b"\"\xff\"", b"\"Iv8i\""),
        ] {
            assert_eq!(&*json_of(data), expected);
        }
    }

    #[test]
    fn varints_are_those_of_a_library() {
        for number in [0, 1, 0x7f, 0x80, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            varint(number, &mut bytes);
            assert_eq!(prost::decode_length_delimiter(&*bytes), Ok(number as usize));
        }
    }
}
