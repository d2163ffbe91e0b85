//! The preallocated ring buffer and its pool.
