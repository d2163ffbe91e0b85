//! HTTP/1.1 requests and responses (RFC 9110, RFC 9112), as far as a WebSocket server needs them.
