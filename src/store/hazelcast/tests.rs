//! The connection against members that no real one is: they cut, garble, stop, or answer what was not asked.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connection::{Connection, MemberCodec};
use super::frame::{Decoder, Message, Request, number};
use super::request;
use crate::store::connection::{ConnectionEnd, drive};
use crate::store::engine::StoreError;

/// A connection with its task, and the member's end of the line.
fn line() -> (Connection, JoinHandle<ConnectionEnd>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(512);
    let (connection, requests) = Connection::new("Hazelcast at x:1".into());
    (connection, tokio::spawn(drive(ours, requests, MemberCodec::default(), "Hazelcast at x:1")), theirs)
}

/// So many requests, as they come: their types and correlation ids.
async fn heard(member: &mut DuplexStream, count: usize) -> Vec<(u32, i64)> {
    let (mut bytes, mut decoder, mut heard) = (BytesMut::new(), Decoder::default(), Vec::new());
    while heard.len() < count {
        match decoder.take(&mut bytes).unwrap() {
            Some(message) => heard.push((message.kind(), message.correlation())),
            None => assert_ne!(member.read_buf(&mut bytes).await.unwrap(), 0, "the connection ended"),
        }
    }
    heard
}

/// A message of this type for this correlation id, with a text.
fn message(kind: u32, correlation: i64, text: &str) -> Vec<u8> {
    let mut bytes = Request::new(kind, 0).text(text).finish();
    number(&mut bytes, correlation);
    bytes
}

fn event(correlation: i64, text: &str) -> Vec<u8> {
    let mut bytes = message(2, correlation, text);
    // The flag of an event.
    bytes[5] |= 2;
    bytes
}

fn text(message: &Message) -> String {
    message.open().unwrap().1.text().unwrap().to_owned()
}

fn texts(answers: Result<Vec<Message>, StoreError>) -> Vec<String> {
    answers.unwrap().iter().map(text).collect()
}

fn get(partition: i32) -> Vec<u8> {
    request::get("map", partition, b"key")
}

#[tokio::test]
async fn each_answer_finds_its_question_in_whatever_order_they_come() {
    let (connection, _task, mut member) = line();
    let asked = [2, 1].into_iter().map(|count| {
        let connection = connection.clone();
        let requests = (0..count).map(get).collect();
        tokio::spawn(async move { connection.ask(requests).await })
    });
    let asked: Vec<_> = asked.collect();
    let heard = heard(&mut member, 3).await;
    let ids: Vec<i64> = heard.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "no two are alike: {ids:?}");
    for id in ids.iter().rev() {
        // In two pieces.
        let bytes = message(1, *id, &id.to_string());
        let (one, other) = bytes.split_at(7);
        member.write_all(one).await.unwrap();
        tokio::task::yield_now().await;
        member.write_all(other).await.unwrap();
    }
    let mut answers = Vec::new();
    for one in asked {
        answers.extend(texts(one.await.unwrap()));
    }
    answers.sort();
    let mut expected: Vec<_> = ids.iter().map(ToString::to_string).collect();
    expected.sort();
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn events_come_before_and_after_the_answer_to_the_listener() {
    let (connection, _task, mut member) = line();
    let (tell, mut told) = mpsc::unbounded_channel();
    let listener = Box::new(move |message: &Message| drop(tell.send(text(message))));
    let listening = tokio::spawn({
        let connection = connection.clone();
        async move { connection.listen(request::cluster_view(), listener).await }
    });
    let id = heard(&mut member, 1).await[0].1;
    let all = [event(id, "first"), event(id + 1, "of no listener"), message(1, id, "yes"), event(id, "second")];
    member.write_all(&all.concat()).await.unwrap();
    assert_eq!(texts(listening.await.unwrap()), ["yes"]);
    assert_eq!((told.recv().await, told.recv().await), (Some("first".to_owned()), Some("second".to_owned())));
}

#[tokio::test]
async fn what_is_no_answer_ends_it_and_all_that_wait_are_told() {
    for (says, reason) in [
        (vec![0xff; 32], "it sent a frame of an impossible length"),
        (message(1, 7 << 16, ""), "response without a request"),
        (message(1, (1 << 16) + 1, ""), "response without a request"),
    ] {
        let (connection, task, mut member) = line();
        let asked = tokio::spawn(async move { connection.ask(vec![get(1)]).await });
        heard(&mut member, 1).await;
        member.write_all(&says).await.unwrap();
        let reason = format!("Hazelcast at x:1: {reason}");
        assert_eq!(asked.await.unwrap().unwrap_err(), StoreError::Unreachable(reason.clone()));
        assert_eq!(task.await.unwrap().reason, reason);
    }
}
