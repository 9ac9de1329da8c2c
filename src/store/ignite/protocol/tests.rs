//! The codec against a capture of a real server's traffic, and against bytes of any kind.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::handshake::{self, Handshake};
use super::notification::{self, Event, Kind};
use super::reader::{Object, Reader};
use super::request::{Cache, Datum, Request};
use super::response::{Failure, Message, Response, ScanPage};
use super::{Malformed, frame, response};

const CAPTURE: &str = include_str!("../../../../tests/data/ignite/thin-client-2.17.txt");
const KEYS: [&str; 2] = ["shop:AAAAAAAAAAAAAAAAAAAABw", "shop:AAAAAAAAAAAAAAAAAAAACA"];
const FIRST: &[u8] = b"1 0 a 1764000000000 edge-1 5f0e93c1 ttl=60";
const MOVED: &[u8] = b"1 1 b 1764000000000 edge-2 77aa01b3 ttl=60";
const DATA: &[u8] = b"1 1 cart\x00\xff ttl=60";
const MINUTE: Duration = Duration::from_secs(60);

/// The frames of a section in one direction, with their lengths.
fn frames(section: &str, direction: &str) -> Vec<Vec<u8>> {
    let mut lines = CAPTURE.lines().skip_while(|line| line.strip_prefix("# ") != Some(section));
    assert!(lines.next().is_some(), "no section {section:?}");
    let lines = lines.take_while(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.strip_prefix(direction)).map(|hex| bytes_of(hex.trim())).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(digits).collect()
}

fn received(section: &str) -> Vec<Bytes> {
    let mut buffer = BytesMut::from(&frames(section, "<").concat()[..]);
    let mut received = Vec::new();
    while let Some(frame) = frame::take(&mut buffer).unwrap() {
        received.push(frame);
    }
    assert!(buffer.is_empty(), "{section}: the frames are whole");
    received
}

fn message(section: &str) -> Message {
    let last = received(section).pop().unwrap();
    response::read(last).unwrap()
}

/// The payload of the section's only, or last, response.
fn payload(section: &str) -> Bytes {
    match message(section) {
        Message::Response(Response { outcome: Ok(payload), .. }) => payload,
        other => panic!("{section}: {other:?}"),
    }
}

/// It is what the other client sent, with that client's id.
fn assert_sent(section: &str, request: Request) {
    let sent = frames(section, ">").remove(0);
    let id = i64::from_le_bytes(sent[6..14].try_into().unwrap());
    assert_eq!(request.with_id(id), sent, "{section}");
}

fn bindings() -> Cache {
    Cache::named("homing")
}

fn text(text: &[u8]) -> Object {
    Object::Text(Bytes::copy_from_slice(text))
}

#[test]
fn requests_are_those_of_another_client() {
    assert_eq!(handshake::request(None), frames("handshake", ">").remove(0));
    assert_sent("cache created", Request::get_or_create("homing"));
    assert_sent("heartbeat", Request::heartbeat());
    assert_sent("continuous query", Request::continuous_query(bindings()));
    let add = |value| Request::get_and_put_if_absent(bindings(), KEYS[0], Datum::Text(value), MINUTE);
    assert_sent("get and put if absent, by pyignite: nothing stood", add(FIRST));
    assert_sent("get and put if absent, by pyignite: something stood", add(MOVED));
    let values = [Datum::Text(FIRST), Datum::Text(MOVED)];
    let replace = Request::replace_if_equals(bindings(), KEYS[0], values, MINUTE);
    assert_sent("replace if equals, by pyignite: done", replace);
    assert_sent("get all, by pyignite", Request::get_all(bindings(), KEYS.into_iter()));
    assert_sent("get all and renew, by pyignite", Request::get_all_and_renew(bindings(), KEYS.into_iter(), MINUTE));
    let (data, key) = (Cache::named("homing-data"), format!("{}:d", KEYS[0]));
    let put = Request::get_and_put_if_absent(data, &key, Datum::Bytes(DATA), MINUTE);
    assert_sent("session data put, by pyignite", put);
    assert_sent("session data found", Request::get_all(data, [key.as_str()].into_iter()));
    assert_sent("partitions", Request::partitions(bindings()));
    assert_sent("scan, by pyignite", Request::scan(bindings(), -1, 256));
    assert_sent("a partition that does not exist", Request::scan(bindings(), 5000, 256));
    assert_sent("remove keys, by pyignite", Request::remove_keys(bindings(), ["n1", "n2"].into_iter()));
    assert_sent("a cache that does not exist", Request::get(Cache::named("nope"), "k"));
}

#[test]
fn the_next_page_is_asked_for_by_its_cursor() {
    let sent = frames("a page of a scan that has another, and that", ">");
    assert_eq!(Request::next_page(2).with_id(9), sent[1]);
}

#[test]
fn a_login_follows_the_features() {
    let plain = handshake::request(None);
    let named = handshake::request(Some(("edge", "secret")));
    let login = b"\x09\x04\0\0\0edge\x09\x06\0\0\0secret";
    assert_eq!(named[4..], [&plain[4..], login].concat());
    assert_eq!(usize::from(named[0]), named.len() - 4);
}

#[test]
fn responses_of_a_real_server_are_read() {
    let handshake = |section| handshake::response(received(section).remove(0));
    assert_eq!(handshake("handshake"), Ok(Handshake::Accepted));
    let reason = "Unsupported version: 1.9.0".to_owned();
    let refused = Handshake::Refused { version: [1, 7, 0], reason };
    assert_eq!(handshake("handshake of a version that the server does not speak"), Ok(refused));
    let empty = |id, topology| Message::Response(Response { id, topology, outcome: Ok(Bytes::new()) });
    assert_eq!(message("cache created"), empty(1, Some(1)), "the first response on a connection tells of the topology");
    assert_eq!(message("heartbeat"), empty(4, None));
    assert_eq!(response::cursor(payload("continuous query")), Ok(1));
    let value = |section| response::value(payload(section));
    assert_eq!(value("get and put if absent, by pyignite: nothing stood"), Ok(Object::Null));
    assert_eq!(value("get and put if absent, by pyignite: something stood"), Ok(text(FIRST)));
    assert_eq!(response::done(payload("replace if equals, by pyignite: done")), Ok(true));
    assert_eq!(response::done(payload("replace if equals, by pyignite: not done")), Ok(false));
    let kept = vec![(text(KEYS[0].as_bytes()), text(MOVED))];
    assert_eq!(response::entries(payload("get all, by pyignite")), Ok(kept.clone()));
    assert_eq!(response::entries(payload("get all and renew, by pyignite")), Ok(kept.clone()));
    let data = (text(format!("{}:d", KEYS[0]).as_bytes()), Object::Bytes(Bytes::from_static(DATA)));
    assert_eq!(response::entries(payload("session data found")), Ok(vec![data]));
    assert_eq!(response::partitions(payload("partitions")), Ok(1024));
    let page = ScanPage { entries: kept, more: false };
    assert_eq!(response::first_page(payload("scan, by pyignite")).map(|(_, page)| page), Ok(page));
}

#[test]
fn pages_follow_each_other() {
    let mut pages = received("a page of a scan that has another, and that").into_iter();
    let mut payload = || match response::read(pages.next().unwrap()) {
        Ok(Message::Response(Response { outcome: Ok(payload), .. })) => payload,
        other => panic!("{other:?}"),
    };
    let (cursor, first) = response::first_page(payload()).unwrap();
    assert_eq!((cursor, first.entries.len(), first.more), (2, 2, true));
    let last = response::next_page(payload()).unwrap();
    assert_eq!((last.entries.len(), last.more), (2, false));
}

#[test]
fn failures_of_a_real_server_are_read() {
    let failed = |section| match message(section) {
        Message::Response(Response { outcome: Err(failure), .. }) => failure,
        other => panic!("{section}: {other:?}"),
    };
    assert_eq!(failed("a cache that does not exist").status, Failure::NO_SUCH_CACHE);
    let Failure { status, reason } = failed("a partition that does not exist");
    assert_eq!(status, 1);
    assert!(reason.ends_with("Invalid partition number: 5000"), "{reason}");
}

#[test]
fn events_of_a_real_server_are_read() {
    let event = |section| match response::read(received(section).remove(0)) {
        Ok(Message::Notification(notification::EVENTS, payload)) => notification::events(payload),
        other => panic!("{section}: {other:?}"),
    };
    let key = || text(KEYS[0].as_bytes());
    let created = Event { key: key(), before: Object::Null, after: text(FIRST), kind: Kind::Created };
    assert_eq!(event("get and put if absent, by pyignite: nothing stood"), (vec![created], Ok(())));
    let updated = Event { key: key(), before: text(FIRST), after: text(MOVED), kind: Kind::Updated };
    assert_eq!(event("replace if equals, by pyignite: done"), (vec![updated], Ok(())));
    let (removed, complete) = event("remove keys, by pyignite");
    assert_eq!((removed[0].kind, complete), (Kind::Gone, Ok(())));
    let (foreign, complete) = event("objects of other types, by pyignite");
    assert_eq!((&foreign[0].after, complete), (&Object::Other, Ok(())));
}

#[test]
fn an_event_that_cannot_be_read_does_not_hide_those_before_it() {
    let readable = [b"\x09\x01\0\0\0k", &b"\x65"[..], b"\x09\x01\0\0\0v", b"\x00"].concat();
    let unreadable = b"\x09\x01\0\0\0k\x65\xfe????????????????";
    let payload = [&b"\x02\0\0\0"[..], &readable, unreadable].concat();
    let (events, complete) = notification::events(payload.into());
    assert_eq!(events.len(), 1);
    assert_eq!(complete, Err(Malformed("an object of a type that is not read here")));
}

#[test]
fn an_object_with_fields_is_passed_over() {
    let fields = b"0123456789";
    let length = u8::try_from(1 + 11 + 4 + fields.len()).unwrap();
    let object = [&[103; 1][..], &[0; 11], &[length, 0, 0, 0], fields, b"\x65"].concat();
    let mut reader = Reader::new(object.into());
    assert_eq!((reader.object(), reader.object()), (Ok(Object::Other), Ok(Object::Null)));
    let short = [&[103; 1][..], &[0; 11], &[15, 0, 0, 0]].concat();
    assert!(Reader::new(short.into()).object().is_err(), "it cannot end before its own head does");
}

#[test]
fn a_length_is_judged_before_memory_is_taken() {
    for (head, reason) in [
        ([0xff; 4], "a frame of negative length"),
        ((16 * 1024 * 1024 + 1_i32).to_le_bytes(), "a frame of over 16 MiB"),
    ] {
        assert_eq!(frame::take(&mut BytesMut::from(&head[..])), Err(Malformed(reason)));
    }
    let mut announced = BytesMut::from(&(16 * 1024 * 1024_i32).to_le_bytes()[..]);
    assert_eq!(frame::take(&mut announced), Ok(None));
    assert!(announced.capacity() < 1024, "an announced length takes no memory");
    let crowded = [&i32::MAX.to_le_bytes()[..], &[101; 32]].concat();
    let error = Malformed("a count that its message cannot hold");
    assert_eq!(response::entries(crowded.clone().into()), Err(error));
    assert_eq!(response::next_page(crowded.clone().into()), Err(error));
    assert_eq!(notification::events(crowded.into()), (Vec::new(), Err(error)));
}

#[test]
fn a_cache_has_the_id_that_java_gives_it() {
    for (name, id) in [("", 0), ("homing", -1_211_673_124), ("homing-data", -1_835_465_477), ("nope", 3_387_254)] {
        assert_eq!(super::cache_id(name), id, "{name:?}");
    }
}

/// All frames that are whole, and the error after them if there is one.
fn all(buffer: &mut BytesMut) -> (Vec<Bytes>, Option<Malformed>) {
    let mut frames = Vec::new();
    loop {
        match frame::take(buffer) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

fn datum() -> impl Strategy<Value = (bool, Vec<u8>)> {
    prop_oneof![
        any::<String>().prop_map(|text| (true, text.into_bytes())),
        any::<Vec<u8>>().prop_map(|bytes| (false, bytes)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_can_be_read((is_text, value) in datum(), key: String, id: i64, seconds in 1..1_000_000_i64) {
        let datum = if is_text { Datum::Text(&value) } else { Datum::Bytes(&value) };
        let life = Duration::from_secs(seconds.unsigned_abs());
        let request = Request::replace_if_equals(bindings(), &key, [datum, datum], life).with_id(id);
        let frame = frame::take(&mut BytesMut::from(&request[..])).unwrap().unwrap();
        let mut reader = Reader::new(frame);
        prop_assert_eq!((reader.i16(), reader.i64(), reader.i32(), reader.u8()), (Ok(1010), Ok(id), Ok(-1_211_673_124), Ok(4)));
        let millis = Ok(seconds * 1000);
        prop_assert_eq!((reader.i64(), reader.i64(), reader.i64()), (millis, millis, Ok(-2)));
        prop_assert_eq!(reader.object(), Ok(text(key.as_bytes())));
        let value = Bytes::from(value);
        let expected = if is_text { Object::Text(value) } else { Object::Bytes(value) };
        prop_assert_eq!(reader.object(), Ok(expected.clone()));
        prop_assert_eq!(reader.object(), Ok(expected));
        prop_assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn frames_mean_the_same_wherever_the_bytes_are_cut(bodies in prop::collection::vec(any::<Vec<u8>>(), 0..5), tail: Vec<u8>) {
        let framed = bodies.iter().flat_map(|body| {
            [&i32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat()
        });
        let bytes: Vec<u8> = framed.chain(tail).collect();
        let whole = all(&mut BytesMut::from(&bytes[..]));
        prop_assert!(whole.0.len() >= bodies.len());
        for cut in 0..=bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            let (mut frames, mut error) = all(&mut buffer);
            if error.is_none() {
                buffer.extend_from_slice(&bytes[cut..]);
                let (more, late) = all(&mut buffer);
                frames.extend(more);
                error = late;
            }
            prop_assert_eq!((&frames, error), (&whole.0, whole.1), "cut at {}", cut);
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes: Vec<u8>) {
        read_as_everything(&bytes.into());
    }

    /// Messages of a real server with some bytes changed, cut or added.
    #[test]
    fn damaged_messages_never_panic(
        which in 0_usize..100,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        tail: Vec<u8>,
    ) {
        let lines: Vec<&str> = CAPTURE.lines().filter_map(|line| line.strip_prefix("< ")).collect();
        let mut bytes = bytes_of(lines[which % lines.len()]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(4 + end.index(bytes.len()));
        bytes.extend(tail);
        read_as_everything(&Bytes::from(bytes.split_off(bytes.len().min(4))));
    }
}

fn read_as_everything(frame: &Bytes) {
    let _ = all(&mut BytesMut::from(&frame[..]));
    let _ = handshake::response(frame.clone());
    let mut payloads = vec![frame.clone()];
    match response::read(frame.clone()) {
        Ok(Message::Response(Response { outcome: Ok(payload), .. }) | Message::Notification(_, payload)) => {
            payloads.push(payload);
        }
        Ok(Message::Response(_)) | Err(_) => {}
    }
    for payload in payloads {
        let _ = response::done(payload.clone());
        let _ = response::value(payload.clone());
        let _ = response::entries(payload.clone());
        let _ = response::cursor(payload.clone());
        let _ = response::first_page(payload.clone());
        let _ = response::next_page(payload.clone());
        let _ = response::partitions(payload.clone());
        let _ = notification::events(payload);
    }
}
