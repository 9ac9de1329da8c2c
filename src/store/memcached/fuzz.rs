//! Fuzz subject: what a memcached server answers.

use super::response::{MAX_VALUE, Response, parse};
use crate::fuzz::{choice, taken};

/// Responses are the same however the bytes are cut, take no more memory than a value may have, and a malformed one ends the
/// connection at the same place.
pub fn memcached(data: &[u8]) {
    let (at, data) = choice(data);
    let (responses, _, buffer) = taken(data, at, || (), |(), buffer| parse(buffer));
    assert!(buffer.capacity() <= 2 * (MAX_VALUE + (64 << 10)), "{} bytes of memory", buffer.capacity());
    for response in &responses {
        if let Response::Version(text) | Response::ServerError(text) | Response::ClientError(text) = response {
            assert!(!text.contains(char::is_control), "a message for the log with control characters");
        }
    }
}
