//! Where in a page a buffer begins that much is received into.
//!
//! Kernels copy out of sockets with `rep movsb`, which processors do several times slower where the destination lies
//! just above the source modulo a page. Senders on the same machine begin a frame at the start of a page, and
//! allocators a large buffer 16 bytes behind one: every payload, up to 14 bytes into its frame, would be copied a
//! few bytes up. From the middle of a page on it is copied down (docs/BENCHMARKS.md).

/// The room that a lead may take.
pub(crate) const PAGE: usize = 4096;

/// How far behind its start a buffer passes the middle of a page: less than a [`PAGE`].
pub(crate) fn lead(buffer: &[u8]) -> usize {
    (PAGE / 2).wrapping_sub(buffer.as_ptr().addr()) % PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lead_ends_in_the_middle_of_a_page() {
        let buffer = vec![0; 2 * PAGE];
        for start in 0..PAGE {
            let buffer = &buffer[start..];
            let lead = lead(buffer);
            assert!(lead < PAGE);
            assert_eq!(buffer[lead..].as_ptr().addr() % PAGE, PAGE / 2);
        }
    }
}
