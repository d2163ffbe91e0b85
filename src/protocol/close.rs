//! Close codes and the payload of Close frames (RFC 6455 §5.5.1, §7.4).

use std::fmt;

use super::error::ProtocolError;

/// Why a connection ends (RFC 6455 §7.4 and the IANA registry of close codes).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// A server goes down, or a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The peer sent a kind of data that is not accepted here.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// The Close frame carried no code. Never on the wire.
    pub const NO_STATUS: Self = Self(1005);
    /// The connection ended without a Close frame. Never on the wire.
    pub const ABNORMAL_CLOSURE: Self = Self(1006);
    /// The data did not fit the type of the message, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A rule of this server was broken and no other code says it better.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// The message is larger than this end accepts.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// The client wanted an extension that the server did not choose. Sent by clients only.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// The server met a condition that it did not expect.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server restarts; come back.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The server sheds load, or this client read too slowly; come back later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// A gateway got a bad answer from its upstream.
    pub const BAD_GATEWAY: Self = Self(1014);
    /// The TLS handshake failed. Never on the wire.
    pub const TLS_HANDSHAKE: Self = Self(1015);

    /// The code with this number, whatever it means.
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether a Close frame may carry this code: the registered codes except 1004, 1005, 1006 and
    /// 1015, and 3000–4999 for libraries and applications (§7.4.1, §7.4.2).
    pub const fn is_allowed_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

/// The code and the reason of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// Why; [`CloseCode::NO_STATUS`] when the frame was empty.
    pub code: CloseCode,
    /// A text for people who debug, at most 123 bytes on the wire.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// The longest reason that fits in a control frame behind the code.
    pub const MAX_REASON_LEN: usize = 123;

    /// A Close frame with an empty payload.
    pub const EMPTY: Self = Self {
        code: CloseCode::NO_STATUS,
        reason: "",
    };

    /// A Close frame with a code and a reason.
    pub const fn new(code: CloseCode, reason: &'a str) -> Self {
        Self { code, reason }
    }

    /// Reads an unmasked Close payload (RFC 6455 §5.5.1).
    ///
    /// # Errors
    ///
    /// A payload of one byte, a code that must not be sent, a reason that is not UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let Some((code, reason)) = payload.split_first_chunk() else {
            // §5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte
            // unsigned integer".
            let short = ProtocolError::ClosePayloadTooShort;
            return if payload.is_empty() {
                Ok(Self::EMPTY)
            } else {
                Err(short)
            };
        };
        let code = CloseCode(u16::from_be_bytes(*code));
        if !code.is_allowed_on_wire() {
            return Err(ProtocolError::InvalidCloseCode);
        }
        let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidCloseReason)?;
        Ok(Self { code, reason })
    }

    /// The payload and how many of its bytes are used: the reason is cut at a character so that
    /// it fits, and a code that must not be sent leaves the payload empty.
    pub(crate) fn to_payload(self) -> ([u8; 125], usize) {
        let mut payload = [0; 125];
        if !self.code.is_allowed_on_wire() {
            return (payload, 0);
        }
        let reason = &self.reason[..self.reason.floor_char_boundary(Self::MAX_REASON_LEN)];
        payload[..2].copy_from_slice(&self.code.get().to_be_bytes());
        payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
        (payload, 2 + reason.len())
    }
}

impl fmt::Display for CloseFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.code, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_on_the_wire_are_the_registered_and_the_private_ones() {
        let allowed: Vec<u16> = (0..=u16::MAX)
            .filter(|&code| CloseCode::new(code).is_allowed_on_wire())
            .collect();
        let expected: Vec<u16> = (1000..=1003)
            .chain(1007..=1014)
            .chain(3000..=4999)
            .collect();
        assert_eq!(allowed, expected);
    }

    #[test]
    fn a_payload_round_trips() {
        let frame = CloseFrame::new(CloseCode::GOING_AWAY, "so long");
        let (payload, len) = frame.to_payload();
        assert_eq!(CloseFrame::parse(&payload[..len]), Ok(frame));
        assert_eq!(CloseFrame::parse(&[]), Ok(CloseFrame::EMPTY));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = "é".repeat(100); // 200 bytes; byte 123 is in the middle of a character.
        let (payload, len) = CloseFrame::new(CloseCode::NORMAL, &reason).to_payload();
        assert_eq!(
            CloseFrame::parse(&payload[..len]).unwrap().reason,
            "é".repeat(61)
        );
    }

    #[test]
    fn a_code_that_must_not_be_sent_leaves_the_payload_empty() {
        assert_eq!(
            CloseFrame::new(CloseCode::ABNORMAL_CLOSURE, "x")
                .to_payload()
                .1,
            0
        );
    }
}
