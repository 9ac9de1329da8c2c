//! Fuzz subject: what a member of a Hazelcast cluster sends.

use super::frame::{Decoder, Message};
use super::{data, request, response};
use crate::fuzz::{choice, taken};

/// Messages are the same however the bytes are cut, and each is read as every response and event without more in it than it has
/// bytes.
pub fn hazelcast(bytes: &[u8]) {
    if let Some(name) = data::name(bytes) {
        assert_eq!(data::name(&data::key(&name)), Some(name));
    }
    if let Ok(value) = data::read_value(bytes) {
        assert_eq!(data::read_value(&data::value(&value)), Ok(value));
    }
    assert!((0..271).contains(&data::partition(bytes, 271)));
    let (at, bytes) = choice(bytes);
    let (messages, _, _) = taken(bytes, at, Decoder::default, Decoder::take);
    for message in &messages {
        read(message, bytes.len());
    }
}

fn read(message: &Message, most: usize) {
    let _ = (message.correlation(), message.is_event(), response::identity(message), response::view(message));
    // The type of the response that this message is.
    let kind = message.kind().wrapping_sub(1);
    let _ = (response::boolean(message, kind), response::life(message, kind), response::map_config(message, kind));
    if let Ok(Some(value)) = response::nullable(message, kind) {
        assert!(value.len() <= most);
        let _ = data::read_value(value);
    }
    if let Ok(entries) = response::entries(message, kind) {
        assert!(entries.len() <= most / 12, "an entry has two frames of six bytes each");
    }
    if let Ok(fetched) = response::fetched(message, kind) {
        assert!(fetched.entries.len() <= most / 12 && fetched.pointers.len() <= most / 8);
    }
    let _ = response::nullable(message, request::AUTHENTICATE);
}
