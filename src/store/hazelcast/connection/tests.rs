//! The connection against members that no real one is: they cut, garble, stop, or answer what was not asked.

use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::super::frame::Request;
use super::*;

/// A connection with its task, and the member's end of the line.
fn line() -> (Connection, JoinHandle<Broken>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(512);
    let (connection, requests) = Connection::new("Hazelcast at x:1".into());
    (connection, tokio::spawn(drive(ours, requests, "Hazelcast at x:1")), theirs)
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
async fn a_caller_that_gives_up_disturbs_no_other() {
    let (connection, task, mut member) = line();
    for _ in 0..2 {
        let asked = tokio::time::timeout(Duration::from_millis(1), connection.ask(vec![get(1)]));
        assert!(asked.await.is_err(), "nothing answers");
    }
    let other = tokio::spawn({
        let connection = connection.clone();
        async move { connection.ask(vec![get(2)]).await }
    });
    let heard = heard(&mut member, 3).await;
    for (_, id) in heard {
        member.write_all(&message(1, id, "late")).await.unwrap();
    }
    assert_eq!(texts(other.await.unwrap()), ["late"]);
    drop(connection);
    assert_eq!(task.await.unwrap().reason, "Hazelcast at x:1: it is not used any more");
}

#[tokio::test]
async fn a_member_that_lets_callers_down_is_asked_no_more_until_it_answers() {
    let (connection, _task, mut member) = line();
    for _ in 0..MOST_GIVEN_UP {
        let asked = tokio::time::timeout(Duration::from_millis(1), connection.ask(vec![get(1)]));
        assert!(asked.await.is_err(), "nothing answers");
    }
    let refused = connection.ask(vec![get(1)]).await.unwrap_err();
    assert_eq!(refused, StoreError::Unreachable("Hazelcast at x:1: it does not answer".to_owned()));
    let (_, id) = heard(&mut member, 1).await[0];
    member.write_all(&message(1, id, "after all")).await.unwrap();
    while connection.given_up.load(Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn pings_that_are_not_answered_end_it() {
    let (connection, task, mut member) = line();
    let asked = tokio::spawn({
        let connection = connection.clone();
        async move { connection.ask(vec![get(1)]).await }
    });
    let first = heard(&mut member, 2).await;
    assert_eq!(first[1].0, 0x00_0B_00, "a ping");
    member.write_all(&message(0x00_0B_01, first[1].1, "")).await.unwrap();
    let end = task.await.unwrap();
    assert_eq!((end.reason.as_str(), end.proven), ("Hazelcast at x:1: it did not answer for 2 seconds", true));
    assert_eq!(asked.await.unwrap().unwrap_err(), StoreError::Unreachable(end.reason));
    connection.closed().await;
}

#[tokio::test]
async fn what_is_no_answer_ends_it_and_all_that_wait_are_told() {
    for (says, reason) in [
        (vec![0xff; 32], "it answered a frame of an impossible length"),
        (message(1, 7 << PLACE_BITS, ""), "it answered when nothing was asked"),
        (message(1, (1 << PLACE_BITS) + 1, ""), "it answered when nothing was asked"),
        (vec![], "it closed the connection"),
    ] {
        let (connection, task, mut member) = line();
        let asked = tokio::spawn(async move { connection.ask(vec![get(1)]).await });
        heard(&mut member, 1).await;
        member.write_all(&says).await.unwrap();
        if says.is_empty() {
            drop(member);
        }
        let reason = format!("Hazelcast at x:1: {reason}");
        assert_eq!(asked.await.unwrap().unwrap_err(), StoreError::Unreachable(reason.clone()));
        assert_eq!(task.await.unwrap().reason, reason);
    }
}
