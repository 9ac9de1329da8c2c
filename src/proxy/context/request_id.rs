//! The ids of a request, as text.

use http::HeaderValue;

use crate::telemetry::trace::context::LENGTH as TRACEPARENT_LENGTH;

/// The length of a new id: a UUID with hyphens.
pub const NEW_ID_LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;

/// A `traceparent`.
pub type Traceparent = [u8; TRACEPARENT_LENGTH];

/// The id of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestId {
    /// A new one. Kept here, since every request has one.
    New([u8; NEW_ID_LENGTH]),
    /// One that a trusted proxy sent.
    Sent(HeaderValue),
}

impl RequestId {
    /// Its bytes: a valid header value.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::New(text) => text,
            Self::Sent(value) => value.as_bytes(),
        }
    }

    /// Its text; `None` when it has bytes that are no ASCII.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::New(text) => std::str::from_utf8(text).ok(),
            Self::Sent(value) => value.to_str().ok(),
        }
    }
}
