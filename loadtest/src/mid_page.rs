//! Receive buffers that begin where kernels copy fast.
//!
//! Kernels copy out of sockets with `rep movsb`, which processors do several times slower where the destination lies just
//! above the source modulo a page. Over loopback a frame begins at the start of a page, and allocators begin large
//! buffers 16 bytes behind one. To the middle of a page on they are copied down (docs/BENCHMARKS.md).

use std::ops::{Deref, DerefMut, Range};

const PAGE: usize = 4096;

/// A buffer that begins in the middle of a page.
#[derive(Debug)]
pub struct MidPage {
    storage: Box<[u8]>,
    used: Range<usize>,
}

impl MidPage {
    /// Of so many bytes, all zero.
    pub fn new(len: usize) -> Self {
        let storage = vec![0; len + PAGE].into_boxed_slice();
        let lead = (PAGE / 2).wrapping_sub(storage.as_ptr().addr()) % PAGE;
        MidPage {
            storage,
            used: lead..lead + len,
        }
    }
}

impl Deref for MidPage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.storage[self.used.clone()]
    }
}

impl DerefMut for MidPage {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.used.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_begins_in_the_middle_of_a_page_and_is_as_long_as_asked_for() {
        for len in [0, 1, PAGE - 1, PAGE, 256 << 10] {
            let mut buffer = MidPage::new(len);
            assert_eq!(buffer.as_ptr().addr() % PAGE, PAGE / 2, "{len}");
            assert_eq!(buffer.len(), len);
            buffer.fill(1);
        }
    }
}
