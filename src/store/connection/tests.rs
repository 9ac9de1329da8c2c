//! The connection with a protocol of lines, against servers that stop, close, or send what was not asked for.
//!
//! A request is `<batch> <index> <text>`, a response the same; `probe` is the text of a probe.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::codec::{Codec, Invalid, Message};
use super::driver::{ConnectionEnd, PROBE_INTERVAL, drive};
use super::handle::{Connection, MAX_ABANDONED};
use crate::store::engine::StoreError;

struct Lines;

impl Codec for Lines {
    type Batch = Vec<&'static str>;
    type Response = String;

    const MAX_LATE: u32 = 2;

    fn probe() -> Self::Batch {
        vec!["probe"]
    }

    fn write(&mut self, serial: i64, batch: Self::Batch, outgoing: &mut BytesMut) -> usize {
        for (index, text) in batch.iter().enumerate() {
            outgoing.extend_from_slice(format!("{serial} {index} {text}\n").as_bytes());
        }
        batch.len()
    }

    fn read(&mut self, incoming: &mut BytesMut) -> Result<Option<Message<String>>, Invalid> {
        let Some(end) = incoming.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = String::from_utf8(incoming.split_to(end + 1).to_vec()).unwrap();
        let mut words = line.trim_end().splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (serial, index, text) = (word(), word(), word());
        let serial = serial.parse().map_err(|_word| Invalid::new("no number"))?;
        match (index.parse(), text) {
            (Err(_), _) => Err(Invalid { reason: "no index".to_owned(), serial: Some(serial) }),
            (Ok(_), "event") => Ok(Some(Message::Event)),
            (Ok(index), text) => Ok(Some(Message::Response { serial, index, response: text.to_owned() })),
        }
    }
}

/// A connection with its task, and the server's end of the line.
fn line() -> (Connection<Lines>, JoinHandle<ConnectionEnd>, BufReader<DuplexStream>) {
    let (ours, theirs) = tokio::io::duplex(512);
    let (connection, requests) = Connection::new("x:1".into());
    (connection, tokio::spawn(drive(ours, requests, Lines, "x:1")), BufReader::new(theirs))
}

async fn heard(server: &mut BufReader<DuplexStream>, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        assert_ne!(server.read_line(&mut line).await.unwrap(), 0, "the connection ended");
        lines.push(line.trim_end().to_owned());
    }
    lines
}

async fn say(server: &mut BufReader<DuplexStream>, lines: &str) {
    server.write_all(lines.as_bytes()).await.unwrap();
}

fn call(connection: &Connection<Lines>, batch: &[&'static str]) -> JoinHandle<Result<Vec<String>, StoreError>> {
    let (connection, batch) = (connection.clone(), batch.to_vec());
    tokio::spawn(async move { connection.call(batch).await })
}

fn unreachable(reason: &str) -> StoreError {
    StoreError::Unreachable(format!("x:1: {reason}"))
}

#[tokio::test]
async fn a_batch_has_its_responses_in_order_whatever_order_they_come_in() {
    let (connection, _task, mut server) = line();
    let (first, second) = (call(&connection, &["a", "b"]), call(&connection, &["c"]));
    let mut lines = heard(&mut server, 3).await;
    lines.reverse();
    say(&mut server, &format!("0 0 event\n{}\n", lines.join("\n"))).await;
    assert_eq!(first.await.unwrap(), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(second.await.unwrap(), Ok(vec!["c".to_owned()]));
}

#[tokio::test]
async fn a_caller_that_gives_up_disturbs_no_other() {
    let (connection, task, mut server) = line();
    assert!(timeout(Duration::from_millis(1), connection.call(vec!["dropped"])).await.is_err(), "nothing answers");
    let other = call(&connection, &["kept"]);
    let lines = heard(&mut server, 2).await;
    say(&mut server, &format!("{}\n", lines.join("\n"))).await;
    assert_eq!(other.await.unwrap(), Ok(vec!["kept".to_owned()]));
    drop(connection);
    assert_eq!(task.await.unwrap().reason, "x:1: the connection is not used any more");
}

#[tokio::test]
async fn a_request_whose_caller_gave_up_is_not_sent() {
    let (connection, requests) = Connection::new("x:1".into());
    assert_eq!(connection.call(vec!["dropped"]).now_or_never(), None);
    let (ours, theirs) = tokio::io::duplex(512);
    let (_task, mut server) = (tokio::spawn(drive(ours, requests, Lines, "x:1")), BufReader::new(theirs));
    let _kept = call(&connection, &["kept"]);
    assert_eq!(heard(&mut server, 1).await, ["1 0 kept"]);
}

#[tokio::test]
async fn a_server_that_lets_callers_down_is_asked_no_more_until_it_answers() {
    let (connection, _task, mut server) = line();
    for _ in 0..MAX_ABANDONED {
        let asked = timeout(Duration::from_millis(1), connection.guarded_call(vec!["a"]));
        assert!(asked.await.is_err(), "nothing answers");
    }
    assert_eq!(connection.guarded_call(vec!["a"]).await, Err(unreachable("it does not answer")));
    say(&mut server, "1 0 after all\n").await;
    while connection.guarded_call(vec!["a"]).now_or_never().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_answered_in_time_ends_it() {
    let (connection, task, mut server) = line();
    let asked = call(&connection, &["a"]);
    assert_eq!(heard(&mut server, 2).await, ["1 0 a", "2 0 probe"]);
    say(&mut server, "2 0 probe\n").await;
    let sent = tokio::time::Instant::now();
    assert_eq!(heard(&mut server, 1).await, ["3 0 probe"]);
    let ConnectionEnd { reason, proven } = task.await.unwrap();
    assert_eq!((reason.as_str(), proven), ("x:1: no response to a probe for 2 s", true));
    assert_eq!(sent.elapsed(), PROBE_INTERVAL * 3);
    assert_eq!(asked.await.unwrap(), Err(StoreError::Unreachable(reason)));
    connection.closed().await;
}

#[tokio::test]
async fn what_is_no_response_ends_it_and_fails_all_that_wait() {
    for (says, reason, first_is_unreadable) in [
        ("hello\n", "no number", false),
        ("1 ?\n", "no index", true),
        ("7 0 of no batch\n", "response without a request", false),
        ("1 1 of no request\n", "response without a request", false),
        ("1 0 a\n1 0 a\n", "response without a request", false),
        ("", "it closed the connection", false),
    ] {
        let (connection, task, mut server) = line();
        let (first, second) = (call(&connection, &["a"]), call(&connection, &["b"]));
        assert_eq!(heard(&mut server, 2).await.len(), 2);
        say(&mut server, says).await;
        if says.is_empty() {
            drop(server);
        }
        let end = task.await.unwrap();
        assert_eq!((end.reason.as_str(), end.proven), (format!("x:1: {reason}").as_str(), false));
        let expected = if first_is_unreadable { StoreError::Unreadable(end.reason) } else { unreachable(reason) };
        if says.lines().count() < 2 {
            assert_eq!(first.await.unwrap(), Err(expected), "{says:?}");
        }
        assert_eq!(second.await.unwrap(), Err(unreachable(reason)), "{says:?}");
        assert_eq!(connection.call(vec!["c"]).await, Err(unreachable("the connection has ended")));
    }
}
