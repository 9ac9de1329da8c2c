//! Fuzz subject: what a node of an Apache Ignite cluster sends.

use bytes::Bytes;

use super::announcements;
use super::protocol::reader::Object;
use super::protocol::response::{self, Message};
use super::protocol::{frame, handshake, notification};
use super::stored::Stored;
use crate::fuzz::{choice, taken};

/// Frames are the same however the bytes are cut, and each is read as every response and event without more in it than it has
/// bytes.
pub fn ignite(data: &[u8]) {
    let (at, data) = choice(data);
    let (frames, _, _) = taken(data, at, || (), |(), buffer| frame::take(buffer));
    for frame in frames {
        let _ = handshake::response(frame.clone());
        let Ok(message) = response::read(frame) else { continue };
        match message {
            Message::Response(response) => {
                if let Ok(payload) = response.outcome {
                    read(&payload);
                }
            }
            Message::Notification(_, payload) => read(&payload),
        }
    }
}

fn read(payload: &Bytes) {
    let most = payload.len();
    let _ = (response::done(payload.clone()), response::cursor(payload.clone()));
    if let Ok(value) = response::value(payload.clone()) {
        object(value);
    }
    if let Ok(entries) = response::entries(payload.clone()) {
        assert!(entries.len() <= most / 2);
    }
    if let Ok((_, page)) = response::first_page(payload.clone()) {
        assert!(page.entries.len() <= most / 2);
        for (_, value) in page.entries {
            object(value);
        }
    }
    if let Ok(partitions) = response::partitions(payload.clone()) {
        assert!(partitions <= most / 4);
    }
    let (events, _) = notification::events(payload.clone());
    assert!(events.len() <= most / 4);
    assert!(announcements::of(payload.clone()).len() <= events.len());
}

fn object(object: Object) {
    let Ok(Some(stored)) = Stored::read(object) else { return };
    let Some(life) = stored.life else { return };
    for kind in [crate::store::engine::Kind::Binding, crate::store::engine::Kind::Data] {
        if let Ok(again) = stored.with_life(kind, life) {
            assert_eq!((&again.value, again.life), (&stored.value, stored.life));
        }
    }
}
