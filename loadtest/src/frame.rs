//! WebSocket frames (RFC 6455 §5.2), written once before the clock runs.
//!
//! Nothing is parsed: the length of every reply is known, so replies are counted by bytes.

/// The two opcodes of data frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8 text.
    Text = 1,
    /// Any bytes.
    Binary = 2,
}

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const MASK: usize = 4;
/// Lengths of seven bits that stand for a length of 16 or 64 bits behind them.
const LEN_16: u8 = 0x7e;
const LEN_64: u8 = 0x7f;

/// The length of a server's frame header for a payload of that length.
pub const fn header_len(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    }
}

/// The length of a server's (unmasked) frame.
pub const fn server_frame_len(payload: usize) -> usize {
    header_len(payload) + payload
}

/// The length of a client's (masked) frame.
pub const fn client_frame_len(payload: usize) -> usize {
    server_frame_len(payload) + MASK
}

/// The payload of the server's frame that is `frame` bytes long, if a frame can be.
pub fn server_payload_len(frame: usize) -> Option<usize> {
    [2, 4, 10]
        .into_iter()
        .filter_map(|header| frame.checked_sub(header))
        .find(|payload| server_frame_len(*payload) == frame)
}

/// The payload of the client's frame that is `frame` bytes long, if a frame can be.
pub fn client_payload_len(frame: usize) -> Option<usize> {
    server_payload_len(frame.checked_sub(MASK)?)
}

/// Appends a server's frame.
pub fn push_server_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    push_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends a client's frame.
pub fn push_client_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; MASK]) {
    push_header(out, opcode, payload.len(), MASKED);
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}

/// A mask without a zero byte: every byte of the payload has to be unmasked to be right.
pub fn random_mask() -> [u8; MASK] {
    std::array::from_fn(|_| fastrand::u8(1..))
}

fn push_header(out: &mut Vec<u8>, opcode: Opcode, payload: usize, masked: u8) {
    out.push(FIN | opcode as u8);
    match header_len(payload) {
        2 => out.push(masked | payload as u8),
        4 => {
            out.push(masked | LEN_16);
            out.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | LEN_64);
            out.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDARIES: [usize; 9] = [0, 1, 20, 125, 126, 127, 65_535, 65_536, 1 << 20];

    #[test]
    fn frames_have_the_bytes_of_the_rfc() {
        // §5.7: "A single-frame masked text message", "256 bytes binary message in a single unmasked frame".
        let mut masked = Vec::new();
        push_client_frame(
            &mut masked,
            Opcode::Text,
            b"Hello",
            [0x37, 0xfa, 0x21, 0x3d],
        );
        assert_eq!(
            masked,
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );

        let mut unmasked = Vec::new();
        push_server_frame(&mut unmasked, Opcode::Binary, &[7; 256]);
        assert_eq!(unmasked[..4], [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(unmasked[4..], [7; 256]);

        let mut long = Vec::new();
        push_server_frame(&mut long, Opcode::Binary, &vec![7; 65_536]);
        assert_eq!(long[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn lengths_agree_with_the_frames() {
        for payload in BOUNDARIES {
            let (mut server, mut client) = (Vec::new(), Vec::new());
            push_server_frame(&mut server, Opcode::Text, &vec![b'x'; payload]);
            push_client_frame(
                &mut client,
                Opcode::Text,
                &vec![b'x'; payload],
                [1, 2, 3, 4],
            );
            assert_eq!(server.len(), server_frame_len(payload));
            assert_eq!(client.len(), client_frame_len(payload));
            assert_eq!(server_payload_len(server.len()), Some(payload));
            assert_eq!(client_payload_len(client.len()), Some(payload));
        }
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused() {
        for frame in [0, 1, 128, 129, 65_540, 65_545] {
            assert_eq!(server_payload_len(frame), None, "{frame}");
        }
        assert_eq!(client_payload_len(5), None);
    }

    #[test]
    fn masks_have_no_zero_byte() {
        assert!((0..1000).all(|_| random_mask().iter().all(|byte| *byte != 0)));
    }
}
