//! The protocol compared with a capture of a real member: `tests/data/hazelcast/traffic.txt`.

use bytes::BytesMut;
use proptest::prelude::*;
use uuid::Uuid;

use super::data;
use super::frame::{Decoder, Message, number};
use super::request::{self, Credentials};
use super::response::{self, Failure, Identity, Life, MapConfig, MemberInfo, View};
use crate::session::key::SessionKey;
use crate::store::engine::{Kind, Name, StoreError, Value};

/// Whether the engine sent it, and the bytes.
fn traffic() -> impl Iterator<Item = (bool, Vec<u8>)> {
    let lines = include_str!("../../../tests/data/hazelcast/traffic.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (direction, hex) = line.split_once(' ').unwrap();
        let digit = |digit: &u8| (*digit as char).to_digit(16).unwrap();
        let byte = |pair: &[u8]| u8::try_from(digit(&pair[0]) << 4 | digit(&pair[1])).unwrap();
        (direction == ">", hex.as_bytes().chunks(2).map(byte).collect())
    })
}

fn received_traffic() -> Vec<Vec<u8>> {
    traffic().filter(|(us, _)| !us).map(|(_, bytes)| bytes).collect()
}

fn message(bytes: &[u8]) -> Message {
    let mut incoming = BytesMut::from(bytes);
    let message = Decoder::default().take(&mut incoming).unwrap().unwrap();
    assert!(incoming.is_empty(), "one message");
    message
}

fn said(by_us: bool, kind: u32) -> Vec<Message> {
    let messages = traffic().filter(|(us, _)| *us == by_us).map(|(_, bytes)| message(&bytes));
    messages.filter(|message| message.kind() == kind).collect()
}

/// What members said, of this type.
fn heard(kind: u32) -> Vec<Message> {
    said(false, kind)
}

fn name(session: u128) -> Name {
    Name::new("shop", SessionKey(session), Kind::Binding)
}

fn value(epoch: u32, server: &str) -> Value {
    Value::new(epoch, format!("{server} 1764000000000 edge-1 5f0e93c1").as_bytes())
}

#[test]
fn what_is_asked_is_what_the_member_understood() {
    let (first, second) = (data::key(&name(1)), data::key(&name(2)));
    let (of_first, of_second) = (data::partition(&first, 31), data::partition(&second, 31));
    let (older, other, newer) = (data::value(&value(0, "a")), data::value(&value(0, "b")), data::value(&value(1, "c")));
    let put = |value: &[u8]| request::put_if_absent("homing", of_first, &first, value, 61_000);
    let life = || request::set_ttl("homing", of_first, &first, 61_000);
    let written = [
        request::cluster_view(),
        request::entry_listener("homing"),
        request::map_config("homing"),
        put(&older),
        put(&other),
        put(&newer),
        request::replace_if_same("homing", of_first, &first, &older, &newer),
        life(),
        request::entry_view("homing", of_first, &first),
        request::entry_view("homing", of_second, &second),
        life(),
        request::get("homing", of_first, &first),
        request::get("homing", of_second, &second),
    ];
    let asked = traffic().filter(|(us, _)| *us).map(|(_, bytes)| bytes).skip(1);
    for (number_of, (mut ours, sent)) in written.into_iter().zip(asked).enumerate() {
        number(&mut ours, message(&sent).correlation());
        assert_eq!(ours, sent, "request {number_of}");
    }
    let credentials = Credentials {
        cluster_name: "dev".to_owned(),
        client: Uuid::from_slice(&{
            // Two numbers in little endian, behind the byte that says that there is one.
            let sent = traffic().next().unwrap().1;
            let mut id: Vec<u8> = sent[23..39].to_vec();
            id[..8].reverse();
            id[8..].reverse();
            id
        })
        .unwrap(),
    };
    assert_eq!(request::authenticate(&credentials), traffic().next().unwrap().1);
}

#[test]
fn what_the_member_answered_is_understood() {
    let letters = heard(request::AUTHENTICATE + 1);
    let identity = response::identity(&letters[0]).unwrap();
    assert_eq!((identity.version.as_str(), identity.partitions), ("5.7.0", 31));
    let refused = response::identity(&letters[1]).unwrap_err();
    assert!(matches!(refused, StoreError::Refused(why) if why.contains("cluster name")));
    assert_view(&identity);

    let config = response::map_config(&heard(request::MAP_CONFIG + 1)[0], request::MAP_CONFIG);
    assert_eq!(config, Ok(MapConfig { backups: 1, ttl_seconds: 0 }));
    let kept = heard(request::PUT_IF_ABSENT + 1);
    let kept: Vec<_> = kept.iter().map(|one| response::nullable(one, request::PUT_IF_ABSENT).unwrap()).collect();
    let older = data::value(&value(0, "a"));
    assert_eq!(kept, [None, Some(&older[..]), Some(&older[..])]);
    let replaced = response::boolean(&heard(request::REPLACE_IF_SAME + 1)[0], request::REPLACE_IF_SAME);
    assert_eq!(replaced, Ok(true));
}

#[test]
fn what_the_member_kept_is_understood() {
    let lives = heard(request::ENTRY_VIEW + 1);
    let lives: Vec<_> = lives.iter().map(|one| response::life(one, request::ENTRY_VIEW).unwrap()).collect();
    assert!(matches!(lives[..], [Some(Life { ttl: 61_000, ends: 1_790_000_000_000.. }), None]), "{lives:?}");
    let newer = data::value(&value(1, "c"));
    let found = heard(request::GET + 1);
    let found: Vec<_> = found.iter().map(|one| response::nullable(one, request::GET).unwrap()).collect();
    assert_eq!(found, [Some(&newer[..]), None]);
    let first = data::key(&name(1));
    assert!(response::entries(&heard(request::GET_ALL + 1)[0], request::GET_ALL).is_ok());
    let fetched = heard(request::FETCH_ENTRIES + 1);
    let fetched: Vec<_> = fetched.iter().map(|one| response::fetched(one, request::FETCH_ENTRIES).unwrap()).collect();
    assert!(fetched[0].entries.is_empty() && fetched[0].pointers.last().is_some_and(|(index, _)| *index < 0));
    assert_eq!(fetched[1].entries, [(&first[..], &newer[..])]);
    assert_eq!(response::boolean(&heard(request::DELETE + 1)[0], request::DELETE), Ok(true));
    let error = response::answer(&heard(0)[0], request::GET).unwrap_err();
    assert!(
        matches!(&error, Failure::Final(StoreError::Refused(why)) if why.starts_with("Hazelcast says ")),
        "{error:?}"
    );
}

fn assert_view(identity: &Identity) {
    let members = response::view(&heard(request::CLUSTER_VIEW + 2)[0]);
    let member = MemberInfo { uuid: identity.member, address: "127.0.0.1:15701".to_owned() };
    assert_eq!(members, Ok(View::Members(1, vec![member])));
    let Ok(View::Partitions(_, owners)) = response::view(&heard(request::CLUSTER_VIEW + 3)[0]) else {
        panic!("no partitions");
    };
    assert_eq!(owners, [(identity.member, (0..31).collect())]);
    for later in [4, 5] {
        assert_eq!(response::view(&heard(request::CLUSTER_VIEW + later)[0]), Ok(View::Other));
    }
}

#[test]
fn what_the_member_told_of_entries_is_understood() {
    let events = heard(request::ENTRY_LISTENER + 2);
    let events: Vec<_> = events.iter().map(|one| response::entry_event(one).unwrap().unwrap()).collect();
    let told: Vec<_> = events
        .iter()
        .map(|event| (data::name(event.key).unwrap(), data::read_value(event.value).unwrap(), event.kind))
        .collect();
    assert_eq!(told, [(name(1), value(0, "a"), request::ADDED), (name(1), value(1, "c"), 4)]);
}

/// Parses the bytes as every kind of response and event.
fn read_as_everything(bytes: &[u8]) {
    let Ok(Some(message)) = Decoder::default().take(&mut BytesMut::from(bytes)) else { return };
    let kind = message.kind().wrapping_sub(1);
    let _ = (response::identity(&message), response::view(&message), response::entry_event(&message));
    let _ = (response::nullable(&message, kind), response::boolean(&message, kind), response::life(&message, kind));
    let _ = (response::entries(&message, kind), response::map_config(&message, kind));
    let _ = response::fetched(&message, kind).map(|fetched| fetched.entries.len());
    let _ = response::answer(&message, kind).is_ok();
}

#[test]
fn no_changed_byte_makes_a_reader_panic() {
    let mut changes = 0;
    for bytes in received_traffic() {
        for at in 0..bytes.len() {
            for flip in [0x01, 0x04, 0x08, 0x10, 0x20, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                read_as_everything(&changed);
                changes += 1;
            }
        }
    }
    assert!(changes > 10_000, "only {changes} changes");
}

proptest! {
    /// Several bytes changed, the rest cut off or replaced: structures end where they must not, lengths lie.
    #[test]
    fn damaged_messages_never_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        tail: Vec<u8>,
    ) {
        let messages = received_traffic();
        let mut bytes = which.get(&messages).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(1 + end.index(bytes.len()));
        bytes.extend(tail);
        read_as_everything(&bytes);
    }
}
