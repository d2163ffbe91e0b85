//! Objects of JSON in which what is nothing does not stand.

use super::super::raw::line;

/// An object that is being written.
#[derive(Debug)]
pub(in crate::broadcast) struct Object(String);

impl Object {
    pub(in crate::broadcast) fn new() -> Self {
        Self("{".into())
    }

    /// A value that is JSON already; nothing if it is empty. The name is one of the protocol's.
    pub(in crate::broadcast) fn json(mut self, name: &str, json: &str) -> Self {
        if !json.is_empty() {
            self.comma();
            self.0.push('"');
            self.0.push_str(name);
            self.0.push_str("\":");
            // Programs and tokens may write it on several lines.
            self.0.extend(json.split(LINE_ENDS));
        }
        self
    }

    /// A value that is JSON already, under any name.
    pub(in crate::broadcast) fn json_of(mut self, name: &str, json: &str) -> Self {
        self.comma();
        self.0.push_str(&line(&name));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    fn comma(&mut self) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
    }

    /// A text; nothing if it is empty.
    pub(in crate::broadcast) fn text(self, name: &str, text: &str) -> Self {
        if text.is_empty() {
            return self;
        }
        self.always_text(name, text)
    }

    /// A text, even an empty one.
    pub(in crate::broadcast) fn always_text(self, name: &str, text: &str) -> Self {
        self.json(name, &line(&text))
    }

    /// A number; nothing if it is 0.
    pub(in crate::broadcast) fn number(self, name: &str, number: u64) -> Self {
        if number == 0 {
            return self;
        }
        self.json(name, &number.to_string())
    }

    /// `true`, or nothing.
    pub(in crate::broadcast) fn flag(self, name: &str, flag: bool) -> Self {
        self.json(name, if flag { "true" } else { "" })
    }

    pub(in crate::broadcast) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// They end a reply; in JSON they are only whitespace.
const LINE_ENDS: [char; 2] = ['\n', '\r'];

/// JSON in one line.
pub(in crate::broadcast) fn one_line(json: &str) -> String {
    json.replace(LINE_ENDS, "")
}
