//! Fuzz subject: what a memcached server answers.

use bytes::BytesMut;

use super::response::{MAX_VALUE, Malformed, Response, parse};
use crate::fuzz::{choice, cut};

fn all(buffer: &mut BytesMut) -> (Vec<Response>, Option<Malformed>) {
    let mut responses = Vec::new();
    loop {
        match parse(buffer) {
            Ok(Some(response)) => responses.push(response),
            Ok(None) => return (responses, None),
            Err(error) => return (responses, Some(error)),
        }
    }
}

/// Responses are the same however the bytes are cut, take no more memory than a value may have, and a malformed one ends the
/// connection at the same place.
pub fn memcached(data: &[u8]) {
    let (at, data) = choice(data);
    let (first, second) = cut(data, at);
    let whole = all(&mut BytesMut::from(data));
    let mut buffer = BytesMut::from(first);
    let (mut responses, mut error) = all(&mut buffer);
    if error.is_none() {
        buffer.extend_from_slice(second);
        let (more, late) = all(&mut buffer);
        responses.extend(more);
        error = late;
    }
    assert_eq!((&responses, error), (&whole.0, whole.1), "cut at {}", first.len());
    assert!(buffer.capacity() <= 2 * (MAX_VALUE + (64 << 10)), "{} bytes of memory", buffer.capacity());
    for response in &responses {
        if let Response::Version(text) | Response::ServerError(text) | Response::ClientError(text) = response {
            assert!(!text.contains(char::is_control), "a message for the log with control characters");
        }
    }
}
