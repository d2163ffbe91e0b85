//! Masking (RFC 6455 §5.3): XOR with a four-byte key, in place.
