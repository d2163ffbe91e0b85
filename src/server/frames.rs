//! Encoded messages that many connections refer to, and how much memory those take that wait.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// The memory that is on loan: counted once, however many refer to it.
pub(crate) type Gauge = Arc<AtomicUsize>;

/// Encoded messages.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Since somebody waits with a reference: where it is counted.
    lent: OnceLock<Gauge>,
}

impl Frames {
    /// To append to; only who has no references to it can.
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.lent.get().is_none());
        &mut self.bytes
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Counts its memory in `gauge` until the last reference is gone.
    pub(crate) fn lend(&self, gauge: &Gauge) {
        if self.lent.get().is_none() && self.lent.set(Arc::clone(gauge)).is_ok() {
            gauge.fetch_add(self.cost(), Ordering::Relaxed);
        }
    }

    /// Whether somebody waits, or has waited, with a reference.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.get().is_some()
    }

    fn cost(&self) -> usize {
        self.bytes.capacity() + size_of::<Self>() + 2 * size_of::<usize>()
    }
}

impl From<Vec<u8>> for Frames {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            lent: OnceLock::new(),
        }
    }
}

impl Deref for Frames {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Frames {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let Some(gauge) = self.lent.get() {
            gauge.fetch_sub(self.cost(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_counts_once_and_until_the_last_reference_is_gone() {
        let gauge = Gauge::default();
        let frames = Arc::new(Frames::from(vec![0; 1000]));
        assert_eq!(gauge.load(Ordering::Relaxed), 0);
        let others = [(); 5].map(|()| Arc::clone(&frames));
        for other in &others {
            other.lend(&gauge);
        }
        let counted = gauge.load(Ordering::Relaxed);
        assert!((1000..1100).contains(&counted), "{counted}");
        drop(others);
        assert_eq!(gauge.load(Ordering::Relaxed), counted);
        drop(frames);
        assert_eq!(gauge.load(Ordering::Relaxed), 0);
    }
}
