//! UTF-8 validation of text messages (RFC 6455 §8.1), incremental across chunks.
