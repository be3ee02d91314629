//! The Docker Engine API: request and response types, stream framing, and a client.
